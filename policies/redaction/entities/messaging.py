"""Tokens of messaging, mail and social networks."""

from __future__ import annotations

from .. import validators
from ..entity import Entity
from .making import token

SLACK = token(  # docs.slack.dev/authentication/tokens
    "SLACK_TOKEN",
    r"xox[a-eprs](?:\.xox[a-z])?-[A-Za-z0-9%-]{10,24}",
    r"xapp-\d-[A-Za-z0-9-]{10}",
    r"xwfp-[A-Za-z0-9-]{10,24}",
    rest=r"[A-Za-z0-9_%-]",
)._replace(valid=validators.varied_with_digits)
# core.telegram.org/bots/api#authorizing-your-bot: the bot's id, a colon, 35 characters.
TELEGRAM = Entity(
    "TELEGRAM_TOKEN",
    r"\d{6,11}:[A-Za-z0-9_-]{35}|\d{8,10}:AA[A-Za-z0-9_-]{32}",
    before=r"[\d.]",
    after=r"[A-Za-z0-9_-]",
    valid=validators.varied,
)
# discord.com/developers/docs/reference#authentication: an id, the time and an HMAC in base64url.
DISCORD = Entity(
    "DISCORD_TOKEN",
    r"[MNO][A-Za-z0-9_-]{22,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,45}|mfa\.[A-Za-z0-9_-]{60,95}",
    before=r"[A-Za-z0-9.-]",
    after=r"[A-Za-z0-9_-]",
)
SENDGRID = token("SENDGRID_KEY", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16}")  # sendgrid.com, API keys
TWILIO = Entity(  # twilio.com/docs/glossary/what-is-a-sid
    "TWILIO_KEY",
    r"(?:SK|AC)[0-9a-fA-F]{32}(?:[\"']?[:,] ?[\"']?[0-9a-f]{32})?",  # with the auth token that stands behind it
    before=r"[A-Za-z0-9]",
    after=r"[A-Za-z0-9]",
    valid=validators.varied,
)
MAIL_KEY = Entity(  # gitleaks mailgun, mailchimp, sendinblue; resend.com
    "MAIL_SERVICE_KEY",
    "|".join(
        (
            r"(?:pub)?key-[0-9a-z]{32}",  # Mailgun
            r"[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}",
            r"[0-9a-f]{32}-us\d{1,2}",  # Mailchimp
            r"(?:xkeysib|xsmtpsib)-[a-f0-9]{64}-[A-Za-z0-9]{16}",  # Brevo
            r"re_[A-Za-z0-9]{8}_[A-Za-z0-9]{20,24}",  # Resend
            r"md-[A-Za-z0-9_-]{22}",  # Mandrill
            r"mlsn\.[a-f0-9]{64}",  # MailerSend
        )
    ),
    before=r"[A-Za-z0-9-]",
    after=r"[A-Za-z0-9-]",
    valid=validators.varied,
)
# developers.facebook.com (access tokens), developer.x.com (bearer and access tokens).
SOCIAL = token(
    "SOCIAL_TOKEN",
    r"EAA[A-Za-z0-9]{80}",
    r"IG(?:QV|QW|AA)[A-Za-z0-9_-]{60}",
    r"\d{15,16}\|[A-Za-z0-9_-]{27}",
    r"A{20}[A-Za-z0-9%]{30}",
    r"\d{8,20}-[A-Za-z0-9]{40}",
    r"oauth:[a-z0-9]{30}",  # Twitch
    r"WPL_AP[01]\.[A-Za-z0-9]{12,16}\.[A-Za-z0-9]{4}",  # LinkedIn
    r"pina_[A-Z0-9]{30}",  # Pinterest
    rest=r"[A-Za-z0-9%_|=-]",
)._replace(valid=validators.varied_with_digits)
