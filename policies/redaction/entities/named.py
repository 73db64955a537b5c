"""Secrets that only a name before them gives away (`api_key = ...`, `-p ...`): the name stays readable."""

from __future__ import annotations

from .. import validators
from ..entity import Entity
from .marked import assigned

# What people call a password, in some languages (as it is folded: without diacritics; Cyrillic letters that look Latin are).
_PHRASES = (
    r"passwor[dt]|passwd|passphrase|passcode|kennwort|wachtwoord|contrasena|senha|mot de passe|sifre|parola|has[łl]o"
    r"|losenord|пapoль|密码|密碼|パスワード|비밀번호|requirepass|masterauth|identified by"
)
# What has no mark of its own (keys of Mistral, Cohere, Azure OpenAI, Datadog ...): a name that says it is a secret, then a
# value that looks random. A value that is known by its mark is left to the entity that knows it.
# A value may go on behind a full stop, a colon or a `!` (there are such tokens), so one that ends there takes it along.
_ASSIGNED = rf"(?:{validators.ASSIGNMENT})"
SECRET = Entity(
    "SECRET",
    r"(?i:(?:api|app|auth|access|secret|subscription|account|admin|service|license|encryption|master|private|preshared)"
    r"[ _-]?key|[_-](?:key|pat|token|secret|password|passwd|pwd|pass)"
    r"|(?:client|api|app|consumer|signing|webhook|shared|oauth)[ _-]?secret|secret"
    r"|(?:auth|access|api|refresh|private|bot|session|personal|id|deploy)[ _-]?token|token|bearer|ssws|login|basic"
    rf"|{_PHRASES}){_ASSIGNED}[A-Za-z0-9_+/.~-]{{16,120}}={{0,2}}[:!]?",
    after=r"[\w+/=~.:!(\[-]",
    valid=assigned(validators.assigned_secret),
    context=validators.assignment,
)
_MADE_UP = r"[A-Za-z0-9!@#$%^&*()+=~?_.-]{6,100}:?"
_GOES_ON = r"[A-Za-z0-9!@#$%^&*+=~?.:_/(\[{-]"
PASSWORD = Entity(  # what a person or a framework made up, shorter and with other marks
    "SECRET",
    rf"(?:(?i:{_PHRASES})|[a-z](?:Pass|Pwd)){_ASSIGNED}{_MADE_UP}",
    after=_GOES_ON,
    valid=assigned(validators.assigned_password),
    context=validators.assignment,
)
PASS = Entity(  # words that others end with
    "SECRET",
    rf"(?i:pass|pwd|secret[ _-]?key|secret){_ASSIGNED}{_MADE_UP}",
    before=r"[A-Za-z]",
    after=_GOES_ON,
    valid=assigned(validators.assigned_password),
    context=validators.assignment,
)
KEY = Entity(
    "SECRET",
    rf"(?i:(?:api|app|auth|access|encryption|master|signing|private)[ _-]?key|token){_ASSIGNED}{_MADE_UP}",
    before=r"[A-Za-z]",
    after=_GOES_ON,
    valid=assigned(validators.assigned_mixture),
    context=validators.assignment,
)
ARGUMENT = Entity(  # curl(1), mysql(1), sshpass(1), docker-login(1)
    "SECRET",
    r"(?:-u ?|--user[ =])[\"']?[^\s:\"'@/]{1,64}:[^\s\"'<>`/@]{8,100}|-p ?[\"']?[^\s\"'<>`/]{12,100}",
    before=r"[^\s]",
    after=r"[^\s\"'<>`]",
    valid=assigned(validators.argument_secret, validators.argument),
    context=validators.argument,
)
BASIC = Entity(  # RFC 7617
    "SECRET",
    r"[Bb]asic [A-Za-z0-9+/]{8,160}={0,2}",
    before=r"[A-Za-z0-9]",
    after=r"[A-Za-z0-9+/=]",
    valid=validators.basic_credentials,
    context=validators.assignment,
)
AWS_SECRET_NAMED = Entity(
    "AWS_SECRET_KEY",
    rf"(?i:aws[ _-]?secret(?:[ _-]?access)?(?:[ _-]?key)?|secret[ _-]?access[ _-]?key){_ASSIGNED}[A-Za-z0-9+/]{{40}}",
    after=r"[A-Za-z0-9+/=]",
    valid=validators.varied,
    context=validators.assignment,
)
