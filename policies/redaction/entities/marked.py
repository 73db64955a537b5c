"""What is known by a mark or a form of its own, in the order of priority, and how a name before it leaves it alone."""

from __future__ import annotations

import re
from collections.abc import Callable

from .. import validators
from ..validators import Validator
from . import blocks, clouds, messaging, models, payment, services
from .making import Described

MARKED: tuple[Described, ...] = (
    Described(blocks.PRIVATE_KEY, "private key blocks: PEM, OpenSSH, OpenPGP, PuTTY, age"),
    Described(blocks.JWT, "JSON Web Tokens, signed or encrypted"),
    Described(blocks.JDBC_CREDENTIALS, "user and password in Oracle's JDBC links"),
    Described(blocks.WEBHOOK, "webhook links: Slack, Discord, Teams, Zapier"),
    Described(blocks.URL_CREDENTIALS, "user and password, or a token, in a URL"),
    Described(models.ANTHROPIC, "API keys: Anthropic"),
    Described(models.OPENAI, "API keys: OpenAI, and those that write theirs alike (DeepSeek, OpenRouter ...)"),
    Described(models.HUGGINGFACE, "access tokens: Hugging Face"),
    Described(
        models.MODEL_KEY, "API keys: Groq, xAI, Replicate, Perplexity, NVIDIA and some twenty other model providers"
    ),
    Described(clouds.AWS_ACCESS, "access key ids: AWS"),
    Described(clouds.AWS_TOKEN, "session tokens, Bedrock, AppSync and Marketplace keys: AWS"),
    Described(clouds.GOOGLE_API, "API keys: Google Cloud, Gemini"),
    Described(clouds.GOOGLE_OAUTH, "OAuth tokens and client secrets: Google"),
    Described(services.GITHUB, "tokens: GitHub, classic and fine-grained"),
    Described(services.GITLAB, "tokens: GitLab, all kinds"),
    Described(services.NPM, "access tokens: npm"),
    Described(services.PYPI, "API tokens: PyPI"),
    Described(services.DOCKER, "access tokens: Docker Hub"),
    Described(services.HASHICORP, "tokens: HashiCorp Vault, Terraform Cloud"),
    Described(services.VAULT, "tokens: HashiCorp Vault before 1.10"),
    Described(
        clouds.CLOUD_TOKEN,
        "tokens: DigitalOcean, Heroku, Databricks, Cloudflare, Supabase and some thirty other clouds",
    ),
    Described(messaging.SLACK, "tokens: Slack, all kinds"),
    Described(messaging.TELEGRAM, "bot tokens: Telegram"),
    Described(messaging.DISCORD, "bot tokens: Discord"),
    Described(messaging.SENDGRID, "API keys: SendGrid"),
    Described(messaging.TWILIO, "API keys, account SIDs and the auth tokens behind them: Twilio"),
    Described(messaging.MAIL_KEY, "API keys: Mailgun, Mailchimp, Brevo, Resend"),
    Described(payment.STRIPE, "secret and restricted keys, webhook secrets: Stripe"),
    Described(payment.SHOPIFY, "tokens: Shopify"),
    Described(
        payment.PAYMENT, "tokens: Square, Braintree, PayPal, Razorpay, Flutterwave, Plaid, Paddle, Xendit and others"
    ),
    Described(messaging.SOCIAL, "tokens: Facebook, Instagram, X, LinkedIn, Pinterest, Twitch"),
    Described(
        services.SERVICE_TOKEN,
        "tokens: Atlassian, Grafana, Sentry, Notion, Linear, Postman and some ninety other services",
    ),
    Described(services.SHAPED_TOKEN, "tokens: Mollie, Asana, ClickUp, Segment and others without a mark of their own"),
    Described(clouds.AZURE, "keys and client secrets with Azure's signatures"),
    Described(clouds.AZURE_NAMED, "keys in Azure connection strings, shared access signatures"),
    Described(clouds.AWS_SECRET, "secret access keys: AWS"),
)

_BEGINNINGS = re.compile("|".join(f"(?:{entity.pattern})" for entity, _ in MARKED if entity.swallow))
_UNNAMED = (
    clouds.AWS_ACCESS,
    services.VAULT,
    messaging.TELEGRAM,
    messaging.DISCORD,
    messaging.TWILIO,
    messaging.MAIL_KEY,
    clouds.AZURE,
    services.SHAPED_TOKEN,
)
_WHOLES = re.compile("|".join(f"(?:{entity.pattern})" for entity in _UNNAMED))


def is_known(value: str) -> bool:
    """Whether an entity with a mark of its own finds `value`, whatever stands before it."""
    return _BEGINNINGS.match(value) is not None or _WHOLES.fullmatch(value) is not None


def assigned(valid: Validator, context: Callable[[str], int] = validators.assignment) -> Validator:
    """`valid`, but of a value that no entity with a mark of its own finds."""
    return lambda text: valid(text) and not is_known(text[context(text) :])
