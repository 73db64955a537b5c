"""Labelled texts for the default entities: secrets in their surroundings, and texts without any that look as if.

What identifies persons and machines stands in tests/fixtures/redaction/persons.txt, hard clean texts in clean.txt beside
it: a line each, the secret between ⟦ and ⟧, line ends written as \\n. Keys and tokens are made here, by the published
description of each format, from a fixed seed: none is real, and none stands in the repository for scanners to find.
"""

from __future__ import annotations

import random
import re
import string
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

_FIXTURES = Path(__file__).parents[1] / "fixtures" / "redaction"
_SEED = 4

_ALPHABETS = {
    "A": string.ascii_letters + string.digits,
    "L": string.ascii_letters,
    "U": string.ascii_uppercase + string.digits,
    "l": string.ascii_lowercase + string.digits,
    "h": "0123456789abcdef",
    "H": "0123456789ABCDEF",
    "d": string.digits,
    "u": string.ascii_letters + string.digits + "-_",
    "b": string.ascii_letters + string.digits + "+/",
}

# entity: its formats; `{A36}` is 36 characters of the alphabet A above.
FORMATS: dict[str, tuple[str, ...]] = {
    "AWS_ACCESS_KEY": ("AKIA{U16}", "ASIA{U16}", "ABIA{U16}"),
    "AWS_SECRET_KEY": ("{b40}", "{A40}", "{b40}"),
    "AWS_TOKEN": (
        "IQoJb3JpZ2luX2Vj{b300}==",
        "FwoGZXIvYXdzE{b200}",
        "ABSKQmVkcm9ja0FQSUtleS{b100}=",
        "amzn.mws.{h8}-{h4}-{h4}-{h4}-{h12}",
        "amzn1.oa2-cs.v1.{h64}",
        "da2-{l26}",
    ),
    "GITHUB_TOKEN": (
        "ghp_{A36}",
        "gho_{A36}",
        "ghu_{A36}",
        "ghs_{A36}",
        "ghr_{A76}",
        "github_pat_{A22}_{A59}",
    ),
    "GITLAB_TOKEN": (
        "glpat-{u20}",
        "glpat-{u27}.{l2}.{l9}",
        "gldt-{u20}",
        "glrt-{u20}",
        "glrt-t1_{u27}.{l2}.{l9}",
        "glcbt-64_{u20}",
        "glptt-{h40}",
        "glft-{u20}",
        "glimt-{u25}",
        "glagent-{u50}",
        "gloas-{h64}",
        "glsoat-{u20}",
        "glffct-{u20}",
        "GR1348941{u20}",
    ),
    "GOOGLE_API_KEY": ("AIza{u35}", "AIzaSy{u33}"),
    "GOOGLE_OAUTH": (
        "ya29.{u120}",
        "ya29.a0{u160}",
        "GOCSPX-{u28}",
        "1//0{u100}",
        "4/0A{u70}",
        "GOOG1E{U55}",
    ),
    "OPENAI_KEY": (
        "sk-{A20}T3BlbkFJ{A20}",
        "sk-proj-{u74}T3BlbkFJ{u74}",
        "sk-proj-{u58}T3BlbkFJ{u58}",
        "sk-svcacct-{u74}T3BlbkFJ{u74}",
        "sk-admin-{u58}T3BlbkFJ{u58}",
        "sk-{h32}",
        "sk-or-v1-{h64}",
        "sk-team-{A20}T3BlbkFJ{A20}",
        "sess-{A40}",
        "sk-helicone-{l7}-{l7}-{l7}-{l7}",
    ),
    "ANTHROPIC_KEY": ("sk-ant-api03-{u93}AA", "sk-ant-admin01-{u93}AA", "sk-ant-oat01-{u93}AA"),
    "HUGGINGFACE_TOKEN": ("hf_{L34}", "hf_{A34}", "api_org_{L34}"),
    "MODEL_PROVIDER_KEY": (
        "gsk_{A52}",
        "xai-{A80}",
        "r8_{A37}",
        "pplx-{A48}",
        "nvapi-{u64}",
        "pcsk_{A6}_{A63}",
        "lsv2_pt_{h32}_{h10}",
        "fw_{A24}",
        "tvly-{A32}",
        "jina_{A60}",
        "sk_{h48}",
        "llx-{A48}",
        "rpa_{U43}",
        "bce-v3/ALTAK-{A21}/{h40}",
        "pylf_v1_eu_{A43}",
        "{h8}-{h4}-{h4}-{h4}-{h12}:{h32}",
    ),
    "SLACK_TOKEN": (
        "xoxb-{d12}-{d13}-{A24}",
        "xoxp-{d12}-{d12}-{d13}-{h32}",
        "xoxa-2-{d12}-{d12}-{h32}",
        "xoxs-{d10}-{d10}-{d12}-{h32}",
        "xoxr-{d12}-{d12}-{A24}",
        "xoxe.xoxp-1-{U165}",
        "xoxe-1-{U146}",
        "xapp-1-A{U10}-{d13}-{h64}",
        "xoxd-{A30}%2B{A30}%3D",
    ),
    "WEBHOOK": (
        "https://hooks.slack.com/services/T{U8}/B{U10}/{A24}",
        "https://hooks.slack.com/workflows/T{U8}/A{U10}/{d18}/{A24}",
        "https://discord.com/api/webhooks/{d18}/{u68}",
        "https://discordapp.com/api/webhooks/{d19}/{u68}",
    ),
    "STRIPE_KEY": (
        "sk_live_{A24}",
        "sk_test_{A99}",
        "rk_live_{A24}",
        "rk_test_{A48}",
        "sk_org_live_{A40}",
        "whsec_{A32}",
        "whsec_{h64}",
    ),
    "NPM_TOKEN": ("npm_{A36}",),
    "PYPI_TOKEN": ("pypi-AgEIcHlwaS5vcmc{u150}", "pypi-AgENdGVzdC5weXBpLm9yZw{u150}"),
    "DOCKER_TOKEN": ("dckr_pat_{u27}", "dckr_oat_{u32}"),
    "HASHICORP_TOKEN": ("hvs.{u95}", "hvb.{u150}", "hvs.{A24}", "s.{A24}", "{A14}.atlasv1.{A67}"),
    "CLOUD_TOKEN": (
        "dop_v1_{h64}",
        "doo_v1_{h64}",
        "dor_v1_{h64}",
        "dapi{h32}",
        "dapi{h32}-2",
        "HRKU-AA{u58}",
        "LTAI{A20}",
        "pscale_tkn_{A43}",
        "sbp_{h40}",
        "fo1_{u43}",
        "SCW{U17}",
        "DO00{U16}",
        "AKLT{A44}",
        "AVNS_{u19}",
        "CCDB1_{A22}_{A40}",
        "mdb_sa_sk_{u40}",
        "xau_{A40}",
        "ddp_{A36}",
        "vercel_blob_rw_{A16}_{A30}",
        "fm2_{b120}",
        "y0_Ag{u50}",
        "t1.{u7}.{u86}",
    ),
    "SENDGRID_KEY": ("SG.{u22}.{u43}",),
    "TWILIO_KEY": (
        "SK{h32}",
        "AC{h32}",
        "AC{h32}:{h32}",
    ),
    "MAIL_SERVICE_KEY": (
        "key-{h32}",
        "{h32}-us12",
        "{h32}-{h8}-{h8}",
        "xkeysib-{h64}-{A16}",
        "re_{A8}_{A24}",
        "md-{A22}",
        "mlsn.{h64}",
    ),
    "SHOPIFY_TOKEN": ("shpat_{h32}", "shpca_{h32}", "shppa_{h32}", "shpss_{h32}"),
    "TELEGRAM_TOKEN": ("{d10}:AA{u33}", "{d9}:{A35}"),
    "DISCORD_TOKEN": ("M{A23}.{u6}.{u27}", "N{A25}.{u6}.{u38}"),
    "AZURE_KEY": (
        "{A3}8Q~{A34}",
        "{A76}+ASt{A5}Q==",
        "{A52}JQQJ99{A26}",
        "{A76}AZDO{A4}",
    ),
    "PAYMENT_KEY": (
        "sq0atp-{u22}",
        "sq0csp-{u43}",
        "access_token$production${l16}${h32}",
        "rzp_live_{A14}",
        "pdl_live_apikey_{l26}_{A22}_{A3}",
        "xnd_production_{A48}",
        "Mid-server-{u24}",
        "APP_USR-{d16}-{d6}-{h32}-{d9}",
        "A21AA{u90}",
    ),
    "SOCIAL_TOKEN": (
        "EAA{A180}",
        "AAAAAAAAAAAAAAAAAAAAA{A90}",
        "{d15}|{u27}",
        "{d19}-{A40}",
        "IGQV{A150}",
        "oauth:{l30}",
        "WPL_AP1.{A16}.{A8}==",
        "pina_{U32}",
    ),
    "SERVICE_TOKEN": (
        "ATATT3xFfGF0{u180}={H8}",
        "lin_api_{A40}",
        "ntn_{d11}{A35}",
        "figd_{u40}",
        "glsa_{A32}_{h8}",
        "sntryu_{h64}",
        "PMAK-{h24}-{h34}",
        "pul-{h40}",
        "dp.pt.{A43}",
        "rubygems_{h48}",
        "NRAK-{U27}",
        "squ_{h40}",
        "pat{A14}.{h64}",
        "eyJrIjoi{A70}",
        "snyk_uat.{h8}.{A70}",
        "ATTA{h64}",
        "{h36}NRAL",
        "packagist_uut_{h68}",
        "dbtc_{u40}",
        "dG9rO{A55}",
        "00D{A15}!{A80}",
        "hcaik_{l58}",
        "hawk.{u20}.{u20}",
        "os_v2_app_{l103}",
        "p8e-{l32}",
        "kpat_{A50}",
        "essu_{b56}",
        "syt_{A12}_{A20}_{A6}",
        "pk_{d8}_{U32}",
        "pk_{h34}",
        "{l10}msh{l15}p1{l6}jsn{l12}",
        "KEY0{H30}_{A22}",
        "sgp_{A64}",
        "live_{A30}",
        "ak-{A22}",
        "secret-{A43}",
        "{h32}.{A16}",
        "1/{d16}:{h32}",
        "{A6}.{u6}:{u43}",
        "A3-{U6}-{U6}-{U5}-{U5}-{U5}",
        "sl.u.{u130}",
        "sl.{u130}",
    ),
}

# Where only the surroundings give the secret away.
_NAMED_FORMATS = (
    (
        "AZURE_KEY",
        "DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=⟦{b86}==⟧;EndpointSuffix=core.windows.net",
    ),
    ("AZURE_KEY", "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=⟦{b43}=⟧"),
    (
        "AZURE_KEY",
        "https://acct.blob.core.windows.net/c/b?sv=2022-11-02&se=2024-01-01T00%3A00%3A00Z&sig=⟦{A40}%2B{A2}%3D⟧",
    ),
    ("AZURE_KEY", "AccountEndpoint=https://db.documents.azure.com:443/;AccountKey=⟦{b86}==⟧;"),
    ("SECRET", "COHERE_API_KEY=⟦{A40}⟧"),
    ("SECRET", 'MISTRAL_API_KEY="⟦{A32}⟧"'),
    ("SECRET", "AZURE_OPENAI_API_KEY: ⟦{h32}⟧"),
    ("SECRET", "client_secret=⟦{A40}⟧&grant_type=x"),
    ("SECRET", "Authorization: Bearer ⟦{A40}⟧"),
    ("SECRET", '{"api_key": "⟦{h40}⟧"}'),
    ("SECRET", "DD_API_KEY=⟦{h32}⟧ DD_SITE=x"),
    ("SECRET", "Authorization: Basic ⟦YWxhZGRpbjpvcGVuc2VzYW1l⟧"),  # RFC 7617's own
    ("SECRET", '{"api_key": "⟦{h32}⟧"}'),
    ("SECRET", '{"n": 1, "settings": {"clientSecret": ["⟦{A32}⟧"], "b": [2]}}'),
    ("SECRET", '{"password": "⟦{A24}⟧"}'),
    ("SECRET", "DD_APP_KEY: ⟦{h40}⟧"),
    ("SECRET", "X-Auth-Key: ⟦{h37}⟧"),
    ("SECRET", "CLOUD_GLOBAL_KEY=⟦{h37}⟧"),
    ("SECRET", "ALERTS_TOKEN=⟦u+XbrtgPRQvXzRetsFtO⟧"),
    ("SECRET", "BUILD_PAT=⟦{l52}⟧"),
    ("TWILIO_KEY", "client = Client('⟦AC{h32}', '{h32}⟧')"),
    ("SECRET", "Authorization: SSWS ⟦00{u40}⟧"),
    ("SECRET", "[Interface]\nPrivateKey = ⟦{b43}=⟧"),
    ("SECRET", "X-API-Key: ⟦{A18}⟧"),
    ("SECRET", "<password>⟦{A20}⟧</password>"),
    ("SECRET", '<add key="ClearTextPassword" value="⟦c0pper-b@ttery⟧" />'),
    ("SECRET", "senha: ⟦{A18}⟧"),
    ("SECRET", "mot de passe : ⟦{A18}⟧"),
    ("SECRET", "la contraseña es ⟦{A32}⟧"),
    ("SECRET", "Das Passwort lautet ⟦{A32}⟧"),
    ("SECRET", "şifre: ⟦{A18}⟧"),
    ("SECRET", "пароль: ⟦{A18}⟧"),
    ("SECRET", "密码:⟦{A18}⟧"),
    ("SECRET", "パスワード: ⟦{A18}⟧"),
    ("SECRET", "my password is ⟦b@ttery-St4ple⟧"),
    ("SECRET", 'const dbPassword = "⟦c0pper$b@ttery⟧";'),
    ("SECRET", "CREATE USER 'app'@'%' IDENTIFIED BY '⟦sKhTGk7hjw4UEc⟧';"),
    ("SECRET", "machine db.internal login app password ⟦c0pper-b@ttery!07⟧"),
    ("SECRET", "requirepass ⟦zw892Ys1^yrLhToH9⟧"),
    ("SECRET", "DB_PASSWORD=⟦hunter22⟧"),
    ("SECRET", "password: ⟦hunter22⟧"),
    ("SECRET", "Server=db;User Id=sa;Password=⟦Summer2024⟧;"),
    ("SECRET", "jdbc:postgresql://db:5432/app?user=app&password=⟦copper-staple-26⟧"),
    ("SECRET", 'api_key: "⟦5yZ6HxAS#y2SikHSE⟧"'),
    ("SECRET", "ENCRYPTION_KEY=⟦c0pper-b@ttery!52⟧"),
    ("SECRET", "curl -u app:⟦{A24}⟧ https://build.example.com/api"),
    ("SECRET", "sshpass -p '⟦b@ttery-St4ple7⟧' ssh host"),
    ("SECRET", "docker login -u app -p ⟦{h32}⟧ registry.example.com"),
    ("SECRET", "mysql -u root -p⟦{A20}⟧ shop"),
    ("SECRET", "wandb login ⟦{h40}⟧"),
    ("SECRET", "secret = '⟦{A14}⟧'"),
    ("SECRET", "SECRET_KEY = 'django-insecure-⟦{l8}*(1%{l6}^{l10}(#{l6})^3{l3}⟧'"),
    ("SECRET", "password: ⟦C0rrect&horse⟧"),
    ("SECRET", "DB_PASS='⟦b@ttery-st4ple⟧'"),
    ("SECRET", "SECRET_KEY = 'django-insecure-⟦{l20}@${l4}&{l8}#{l12}⟧'"),
    ("AZURE_KEY", '{"AccountKey": "⟦{b86}==⟧"}'),
    ("AZURE_KEY", "AZURE_STORAGE_KEY=⟦{b86}==⟧"),
    ("AZURE_KEY", '{"Ocp-Apim-Subscription-Key": "⟦{h32}⟧"}'),
    ("AWS_SECRET_KEY", "aws_secret_access_key = ⟦{b40}⟧"),
    ("AWS_SECRET_KEY", '"SecretAccessKey": "⟦{b40}⟧",'),
)

_SURROUNDINGS = (
    "⟦⟧",
    "The key is ⟦⟧.",
    'api_key = "⟦⟧"',
    '{"token": "⟦⟧", "x": 1}',
    "export TOKEN=⟦⟧",
    "TOKEN='⟦⟧'\nNEXT=1",
    "curl -H 'Authorization: Bearer ⟦⟧' https://api.example.com",
    "Use `⟦⟧` here, please.",
    "| prod | ⟦⟧ | active |",
    "2024-05-06 12:00:00 ERROR bad key ⟦⟧, retrying",
    "https://api.example.com/?key=⟦⟧&x=1",
    "Ersetzen Sie ⟦⟧ sofort!",
    "密钥 ⟦⟧。",
    "(⟦⟧)",
    "token:⟦⟧;",
    "first ⟦⟧\nsecond line",
    "<code>⟦⟧</code>",
    "**⟦⟧**",
)


class Case(NamedTuple):
    """A text with its secret at [start, end)."""

    entity: str
    text: str
    start: int
    end: int

    @property
    def secret(self) -> str:
        return self.text[self.start : self.end]


def positives() -> list[Case]:
    """Texts with one secret that counts (others may stand in them)."""
    return [*_persons(), *_tokens(), *_blocks()]


def clean() -> list[str]:
    """Texts in which nothing is to be found."""
    lines = (_FIXTURES / "clean.txt").read_text(encoding="utf-8").splitlines()
    return [*(line.replace("\\n", "\n") for line in lines), *_numbers()]


def marked(entity: str, text: str) -> Iterator[Case]:
    """A case for each secret between ⟦ and ⟧."""
    parts = re.split("[⟦⟧]", text)
    plain = "".join(parts)
    position = 0
    for index, part in enumerate(parts):
        if index % 2:
            yield Case(entity, plain, position, position + len(part))
        position += len(part)


def make(format_: str, source: random.Random) -> str:
    """A value of a format in the notation of `FORMATS`."""

    def characters(match: re.Match[str]) -> str:
        return "".join(source.choices(_ALPHABETS[match[1]], k=int(match[2])))

    return re.sub(r"\{([A-Za-z])(\d+)\}", characters, format_)


def _persons() -> Iterator[Case]:
    for line in (_FIXTURES / "persons.txt").read_text(encoding="utf-8").splitlines():
        entity, _, text = line.partition("\t")
        yield from marked(entity, text.replace("\\n", "\n"))


def _tokens() -> Iterator[Case]:
    source = random.Random(_SEED)
    for entity, formats in FORMATS.items():
        for format_ in formats:
            for surroundings in source.sample(_SURROUNDINGS, 2):
                yield from marked(entity, surroundings.replace("⟦⟧", f"⟦{make(format_, source)}⟧"))
    for entity, format_ in _NAMED_FORMATS:
        yield from marked(entity, make(format_, source))


def _blocks() -> Iterator[Case]:
    """Private keys and web tokens."""
    source = random.Random(_SEED)
    for label in (
        "RSA PRIVATE KEY",
        "PRIVATE KEY",
        "EC PRIVATE KEY",
        "OPENSSH PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
        "DSA PRIVATE KEY",
    ):
        for text in _pem(label, source):
            yield from marked("PRIVATE_KEY", text)
    body = "\n".join(make("{b64}", source) for _ in range(8))
    for text in (
        f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\n{body}\n=Ab1C\n-----END PGP PRIVATE KEY BLOCK-----",
        f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,{make('{H32}', source)}\n\n{body}\n"
        "-----END RSA PRIVATE KEY-----",
        f'---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: "rsa-key"\n{body}\n---- END SSH2 ENCRYPTED PRIVATE KEY ----',
    ):
        yield from marked("PRIVATE_KEY", f"Key:\n⟦{text}⟧\nDone.")
    headers = (
        '{"alg":"HS256","typ":"JWT"}',
        '{"typ":"JWT",\r\n "alg":"HS256"}',
        '{"alg":"RS256","kid":"2024-01","typ":"at+jwt"}',
        '{"alg":"none"}',
        '{ "alg": "ES256" }',
        '{\n  "alg": "PS256"\n}',
        '{"kid":"abc","x5t":"' + make("{u27}", source) + '","alg":"RS256"}',
        '{"alg":"RS256","x5c":["' + make("{b900}", source) + '"]}',
    )
    for header in headers:
        payload = '{"sub":"%s","name":"Jane Doe","iat":1516239022}' % make("{d10}", source)  # noqa: UP031
        token = f"{_base64url(header)}.{_base64url(payload)}.{make('{u43}', source)}"
        for surroundings in source.sample(_SURROUNDINGS[1:], 2):
            yield from marked("JWT", surroundings.replace("⟦⟧", f"⟦{token}⟧"))
    encrypted = _base64url('{"alg":"RSA-OAEP","enc":"A256GCM"}')
    yield from marked("JWT", f"⟦{encrypted}.{make('{u342}.{u16}.{u80}.{u22}', source)}⟧")
    direct = _base64url('{"alg":"dir","enc":"A128GCM"}')
    yield from marked("JWT", f"jwe=⟦{direct}..{make('{u16}.{u80}.{u22}', source)}⟧ end")


def _pem(label: str, source: random.Random) -> Iterator[str]:
    body = b64encode(source.randbytes(300)).decode()
    lines = [f"-----BEGIN {label}-----", *re.findall(".{1,64}", body), f"-----END {label}-----"]
    joined: dict[str, Callable[[str], str]] = {
        "\n": lambda block: f"Here it is:\n⟦{block}⟧\nKeep it.",
        "\r\n": lambda block: f"⟦{block}⟧\r\n",
        "\\n": lambda block: f'{{"private_key": "⟦{block}⟧\\n", "id": 1}}',
        "\n    ": lambda block: f"key: |\n    ⟦{block}⟧\nother: x",
        "\n-": lambda block: f"@@ -1,8 +0,0 @@\n-⟦{block}⟧\n done",
        "<br>": lambda block: f"| key | ⟦{block}⟧ | x |",
        "\n2: ": lambda block: f"1: ⟦{block}⟧\n3: x",
    }
    for separator, surround in joined.items():
        yield surround(separator.join(lines))


def _base64url(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _numbers() -> Iterator[str]:
    """Identifiers of all kinds, with no meaning for anybody."""
    source = random.Random(_SEED)
    for format_ in (
        "order {d8}",
        "Order no. {d9} was paid",
        "id={d10}",
        "ref 1{d11}",
        "commit {h40}",
        "sha256:{h64}",
        "{h8}-{h4}-4{h3}-a{h3}-{h12}",
        "md5 {h32}",
        "batch {U8}-{U4}",
        "v{d1}.{d2}.{d1}",
        "2024-0{d1}-1{d1} 1{d1}:2{d1}:3{d1}",
        "x={d3}.{d6} y=-{d2}.{d6}",
        "{d3} {d3} items",
        "row {d4} {d4}",
        "invoice 7{d12}",
        "case {U3}-{d6}",
        "cid b{l58}",
        "price {d3}.{d2}",
        "color #{h6}",
        "{h2}:{h2}:{h2}:{h2}:{h2}:{h2}",
    ):
        for _ in range(4):
            yield make(format_, source)
