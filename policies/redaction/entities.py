r"""The entities that are on by default. Data only: what each field means is said in `entity.py`; the order is the priority.

A token that begins with its maker's mark commits early: once the mark and enough of what follows have been seen, the
placeholder goes out and the rest is swallowed, however long the maker makes its tokens next year. "Enough" is fewer
characters than any issued token has, so that a token cut short goes too, and they must differ (`varied`), so that
`ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxx` in a manual stays. Where only the surroundings give a secret away, they stay readable
(`context`).

Each format's source stands beside it: the maker's documentation, else the facts in the public rules of secret scanners
(gitleaks 8, TruffleHog 3, GitHub's "Supported secret scanning patterns", Microsoft Purview's "Azure ... key" definitions).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from . import phones, validators
from .entity import Entity
from .validators import Validator


class Described(NamedTuple):
    """An entity with what the documentation says of it."""

    entity: Entity
    what: str
    """One line: what it finds."""


def _token(
    name: str, *starts: str, rest: str = "[A-Za-z0-9_-]", joined: str = "", before: str = "[A-Za-z0-9]"
) -> Entity:
    """Tokens known by their start, where they commit. `rest` is what goes on; characters in `joined` only inside."""
    swallow = f"(?:{rest}|[{joined}]{rest})*" if joined else f"{rest}*"
    return Entity(name, "|".join(starts), before=before, valid=validators.varied, swallow=swallow)


# -- blocks and links -------------------------------------------------------------------------------------------------

# RFC 7468 (PEM), RFC 1421 section 4.6 (its headers), RFC 4880 section 6.2 (OpenPGP), RFC 4716 (SSH2, with four hyphens),
# PuTTY's PPK, age. Line ends may be written as \n or <br>, lines may be indented, quoted, numbered, or those of a diff.
# What is swallowed ends behind the END line, or before what cannot stand in a block.
_LINE_END = r"(?:[\s\"'+,.>|#-]|\\{1,2}[nrt]|<br ?/?>|\d{1,4}[:.)]){0,40}"
_BLOCK_BEGINS = r"(?:[A-Za-z0-9+/]{12}|(?:Proc-Type|DEK-Info|Version|Comment|Subject|Charset|Hash|x-[a-z-]{1,30}): )"
_IN_BLOCK = r"[A-Za-z0-9+/=:,.;()\\\s\"'|>#]"
_PRIVATE_KEY = Entity(
    "PRIVATE_KEY",
    "|".join(
        (
            rf"-----BEGIN (?:[A-Z0-9]{{1,12}} ){{0,4}}PRIVATE KEY(?: BLOCK)?-----{_LINE_END}{_BLOCK_BEGINS}",
            rf"---- BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY ----{_LINE_END}{_BLOCK_BEGINS}",
            r"PuTTY-User-Key-File-\d: [a-z]",
            r"Private-Lines: \d",
            r"AGE-SECRET-KEY-1[0-9A-Z]{20}",
            # In base64, where the frame is missing: "openssh-key-v1" and its zero byte; the DER beginnings of PKCS #1 and
            # of RSA keys in PKCS #8 (RFC 8017 appendix A.1.2, RFC 5958): the version 0, then a modulus or "rsaEncryption".
            r"b3BlbnNzaC1rZXktdjEA",
            r"MII[A-Za-z0-9+/]{2}[AQgw]IBAAKC[A-Za-z0-9+/]{10}",
            r"MII[A-Za-z0-9+/]{2}[AQgw]IBADANBgkqhkiG9w0BAQEFAAS[A-Za-z0-9+/]{10}",
        )
    ),
    swallow=rf"{_IN_BLOCK}*(?:(?:-{_IN_BLOCK}|<br ?/?>){_IN_BLOCK}*)*(?:-{{4,6}} ?END [A-Z0-9 ]{{0,50}}-{{4,5}})?",
)

# RFC 7515 to 7519: base64url of a JSON object, then dots. It commits at the first dot, or, where the header is too long
# to be held, inside it: these are the beginnings of headers in base64url ({"alg":", {"typ":", {"kid":", ...).
_JWT = Entity(
    "JWT",
    r"(?:eyJ|eyA|ewog|ewoJ|ew0K)[A-Za-z0-9_-]{9,240}\.\.?[A-Za-z0-9_-]{3}"
    r"|eyJ(?:hbGciOi|0eXAiOi|raWQiOi|lbmMiOi|jdHkiOi|4NWMiO|4NXQ|qd2siO|qa3UiO)[A-Za-z0-9_-]{230}",
    before=r"[A-Za-z0-9_-]",
    swallow=r"(?:[A-Za-z0-9_-]|\.{1,2}[A-Za-z0-9_-])*",
)

# RFC 3986 section 3.2.1; also where the password holds a colon or an at sign that should have been escaped.
_URL_CREDENTIALS = Entity(
    "URL_CREDENTIALS",
    r"[A-Za-z][A-Za-z0-9+.-]{1,24}:(?:\\?/){2}"
    r"(?:[^\s/?#@:\"'<>`]{0,128}:[^\s/?\"'`]{1,200}|[^\s/?#@:\"'<>`]{16,200})@",
    before=r"[A-Za-z0-9]",
    valid=validators.url_credentials,
    context=validators.scheme,
)

_JDBC_CREDENTIALS = Entity(  # Oracle's JDBC Developer's Guide, "Data Sources and URLs"
    "URL_CREDENTIALS",
    r"jdbc:oracle:[a-z0-9]{2,6}:[^\s/@:\"'<>`]{1,64}/[^\s/@\"'<>`]{1,128}@",
    before=r"[A-Za-z0-9]",
    context=lambda text: text.rindex(":", 0, text.index("/")) + 1,
)

# docs.slack.dev (incoming webhooks), discord.com/developers (Webhook), Teams' and Zapier's manuals: who has the link may
# write.
_WEBHOOK = Entity(
    "WEBHOOK",
    "|".join(
        (
            r"(?:https?://)?hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{16}",
            r"(?:https?://)?(?:[a-z]{2,8}\.)?discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/\d{16,20}/[A-Za-z0-9_-]{20}",
            r"(?:https?://)?[a-z0-9-]{1,63}\.webhook\.office\.com/webhookb2/[A-Za-z0-9@-]{20}",
            r"(?:https?://)?hooks\.zapier\.com/hooks/catch/\d{4,12}/[a-z0-9]{5}",
        )
    ),
    before=r"[A-Za-z0-9]",
    swallow=r"[A-Za-z0-9+/_@=-]*",
)


# -- keys of model providers ------------------------------------------------------------------------------------------

_ANTHROPIC = _token("ANTHROPIC_KEY", r"sk-ant-(?:[a-z]{2,8}\d{2}-)?[A-Za-z0-9_-]{16}")  # gitleaks anthropic-api-key
# platform.openai.com, gitleaks openai-api-key; DeepSeek, Moonshot, OpenRouter, Langfuse, LiteLLM and others write alike.
_OPENAI = _token(
    "OPENAI_KEY",
    r"sk-(?:proj|svcacct|service|admin|None|or-v1|lf|live|test|helicone|kimi)-[A-Za-z0-9_-]{16}",
    r"sk-[A-Za-z0-9]{20}",
    r"sk-[A-Za-z0-9_-]{1,60}T3BlbkFJ",  # "OpenAI" in base64
    r"sess-[A-Za-z0-9]{32}",
    before=r"[A-Za-z0-9-]",
)
_HUGGINGFACE = _token("HUGGINGFACE_TOKEN", r"hf_[A-Za-z0-9]{24}", r"api_org_[A-Za-z0-9]{24}")  # huggingface.co/docs/hub
# gitleaks and TruffleHog, rules of these names; the makers' documentation.
_MODEL_KEY = _token(
    "MODEL_PROVIDER_KEY",
    r"gsk_[A-Za-z0-9]{32}",  # Groq
    r"xai-[A-Za-z0-9_]{40}",
    r"r8_[A-Za-z0-9_-]{30}",  # Replicate
    r"pplx-[A-Za-z0-9]{32}",  # Perplexity
    r"nvapi-[A-Za-z0-9_-]{40}",  # NVIDIA
    r"pcsk_[A-Za-z0-9]{5,6}_[A-Za-z0-9]{30}",  # Pinecone
    r"lsv2_(?:pt|sk)_[a-f0-9]{24}",  # LangSmith
    r"fw_[A-Za-z0-9]{20}",  # Fireworks
    r"csk-[a-z0-9]{32}",  # Cerebras
    r"tvly-(?:dev-|prod-)?[A-Za-z0-9]{20}",  # Tavily
    r"jina_[A-Za-z0-9_-]{32}",
    r"pa-[A-Za-z0-9_-]{40}",  # Voyage
    r"fc-[a-f0-9]{32}",  # Firecrawl
    r"esecret_[a-z0-9]{20}",  # Anyscale
    r"e2b_[a-f0-9]{32}",
    r"tgp_v1_[A-Za-z0-9_-]{32}",  # Together
    r"sk_[a-f0-9]{40}",  # ElevenLabs
    r"wandb_v1_[A-Za-z0-9_]{24}",  # Weights & Biases
    r"slk_[a-f0-9]{40}",  # Sourcegraph Cody
    r"sgp_(?:[a-f0-9]{16}_|local_)?[a-f0-9]{40}",  # Sourcegraph
    r"llx-[A-Za-z0-9]{40}",  # LlamaCloud
    r"rpa_[A-Z0-9]{36}",  # RunPod
    r"bce-v3/ALTAK-[A-Za-z0-9]{20,24}/[a-f0-9]{20}",  # Baidu Qianfan
    r"crsr_[a-f0-9]{40}",  # Cursor
    r"pylf_v\d_[a-z]{2}_[A-Za-z0-9]{30}",  # Pydantic Logfire
    r"[a-f0-9]{8}(?:-[a-f0-9]{4}){3}-[a-f0-9]{12}:[a-f0-9]{32}",  # fal
)


# -- keys of clouds ---------------------------------------------------------------------------------------------------

# IAM User Guide, "Unique identifiers": four letters that say what it is, and sixteen more characters.
_AWS_ACCESS = Entity(
    "AWS_ACCESS_KEY",
    r"(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}",
    before=r"[A-Z0-9]",
    after=r"[A-Z0-9]",
    valid=validators.varied,
)
# The same guide, "Managing access keys": 40 characters of base64 that nothing marks.
_AWS_SECRET = Entity(
    "AWS_SECRET_KEY",
    r"[A-Za-z0-9+/]{40}",
    before=r"[A-Za-z0-9+/_-]",
    after=r"[A-Za-z0-9+/_=-]",
    valid=validators.aws_secret,
)
# STS tokens have a fixed beginning; Bedrock User Guide, "API keys".
_AWS_TOKEN = _token(
    "AWS_TOKEN",
    r"(?:IQoJb3JpZ2lu|FwoGZXIvYXdz|FQoGZXIvYXdz|FQoDYXdz)[A-Za-z0-9+/]{20}",
    r"bedrock-api-key-[A-Za-z0-9+/=]{16}",
    r"ABSK[A-Za-z0-9+/]{40}",
    r"amzn\.mws\.[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}",  # Marketplace Web Service
    r"amzn1\.oa2-cs\.v\d\.[a-f0-9]{40}",  # Login with Amazon
    r"da2-[a-z0-9]{26}",  # AppSync
    rest=r"[A-Za-z0-9+/=%-]",
)
# learn.microsoft.com: connection strings of Storage, Service Bus, Cosmos DB and others; shared access signatures.
_AZURE_NAMED = Entity(
    "AZURE_KEY",
    r"(?:(?i:Account|SharedAccess|Access|Shared)Key|(?i:sharedAccessSignature)|[?&;](?:sig|code))[\"']? ?[=:] ?[\"']?"
    r"(?:[A-Za-z0-9+/_-]|%[0-9A-Fa-f]{2}){20,120}={0,2}",
    after=r"[A-Za-z0-9+/%=_-]",
    valid=validators.varied,
    context=validators.assignment,
)
# Client secrets (gitleaks azure-ad-client-secret); keys with the fixed signatures of Storage, Batch, Cosmos DB, API
# Management, Event Hubs, Service Bus, Relay, IoT, Search, Functions, AI services and DevOps (Microsoft Purview).
_AZURE = Entity(
    "AZURE_KEY",
    "|".join(
        (
            r"[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31,34}",
            r"[A-Za-z0-9+/]{76}(?:\+ASt|\+ABa|APIM|ACDb)[A-Za-z0-9+/]{5}[AQgw]==",
            r"[A-Za-z0-9+/]{33}(?:\+ASb|\+AEh|\+ARm|AIoT)[A-Za-z0-9+/]{5}[A-P]=",
            r"[A-Za-z0-9]{42}AzSe[A-D][A-Za-z0-9]{5}",
            r"[A-Za-z0-9_-]{44}AzFu[A-Za-z0-9_-]{5}[AQgw]==",
            r"[A-Za-z0-9]{52}JQQJ9[9D][A-Za-z0-9]{26,27}",
            r"[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}",
        )
    ),
    before=r"[A-Za-z0-9+/~-]",
    after=r"[A-Za-z0-9_+/~=-]",
    valid=validators.varied,
)
# cloud.google.com/docs/authentication/api-keys; developers.google.com/identity/protocols/oauth2 (sizes and examples).
_GOOGLE_API = _token("GOOGLE_API_KEY", r"AIza[A-Za-z0-9_-]{30}", r"AQ\.Ab8RN6[A-Za-z0-9_-]{20}")
_GOOGLE_OAUTH = _token(
    "GOOGLE_OAUTH",
    r"ya29\.[A-Za-z0-9_.-]{20}",
    r"GOCSPX-[A-Za-z0-9_-]{20}",
    r"1//0[A-Za-z0-9_-]{30}",
    r"4/0A[A-Za-z0-9_-]{24}",
    r"GOOG1E[A-Z0-9]{50}",  # HMAC keys of Cloud Storage
    joined=".",
)
# gitleaks and TruffleHog, rules of these names.
_CLOUD_TOKEN = _token(
    "CLOUD_TOKEN",
    r"do[opr]_v1_[a-f0-9]{40}",  # DigitalOcean
    r"HRKU-AA[A-Za-z0-9_-]{40}",  # Heroku
    r"(?:dapi|dkea|dose|dsapi)[a-f0-9]{28}",  # Databricks
    r"LTAI[A-Za-z0-9]{16}",  # Alibaba
    r"AKID[A-Za-z0-9]{28}",  # Tencent
    r"AQVN[A-Za-z0-9_-]{30}",  # Yandex
    r"fo1_[A-Za-z0-9_-]{32}",  # Fly.io
    r"fm[12][ar]?_[A-Za-z0-9+/]{40}",
    r"v1\.0-[a-f0-9]{24}-[a-f0-9]{40}",  # Cloudflare
    r"cf[uakt]t_[A-Za-z0-9]{30}",
    r"pscale_(?:tkn|oauth|pw)_[A-Za-z0-9_=.-]{24}",  # PlanetScale
    r"sbp_[a-f0-9]{32}",  # Supabase
    r"sb_secret_[A-Za-z0-9_-]{16}",
    r"vc[piarks]_[A-Za-z0-9]{24}",  # Vercel
    r"nfp_[A-Za-z0-9]{30}",  # Netlify
    r"rnd_[A-Za-z0-9]{24}",  # Render
    r"napi_[a-z0-9]{40}",  # Neon
    r"AAAA[A-Za-z0-9_-]{7}:[A-Za-z0-9_-]{40}",  # Firebase Cloud Messaging
    r"tskey-[a-z]{3,10}-[A-Za-z0-9]{5,20}-[A-Za-z0-9]{10}",  # Tailscale
    r"SCW[A-Z0-9]{17}",  # Scaleway
    r"DO00[A-Z0-9]{16}",  # DigitalOcean Spaces
    r"AKLT[A-Za-z0-9]{40}",  # Volcengine
    r"y[0-6]_Ag[A-Za-z0-9_-]{40}",  # Yandex, OAuth
    r"t1\.[A-Za-z0-9_-]{1,12}={0,2}\.[A-Za-z0-9_-]{60}",  # Yandex, IAM
    r"vercel_blob_rw_[A-Za-z0-9]{10,20}_[A-Za-z0-9]{20}",
    r"AVNS_[A-Za-z0-9_-]{15}",  # Aiven; DigitalOcean's databases
    r"CCDB1_[A-Za-z0-9]{22}_[A-Za-z0-9]{30}",  # CockroachDB
    r"mdb_sa_sk_[A-Za-z0-9_-]{30}",  # MongoDB Atlas
    r"xau_[A-Za-z0-9]{30}",  # Xata
    r"ddp_[A-Za-z0-9]{30}",  # Deno Deploy
    rest="[A-Za-z0-9_+/=-]",
)


# -- tokens of developers' services -----------------------------------------------------------------------------------

# github.blog/2021-04-05 (token formats; up to 255 characters), docs.github.com "About authentication to GitHub".
_GITHUB = _token("GITHUB_TOKEN", r"gh[pousr]_[A-Za-z0-9_]{20}", r"github_pat_[A-Za-z0-9_]{20}", joined=".")
# docs.gitlab.com/security/tokens, "Token prefixes".
_GITLAB = _token(
    "GITLAB_TOKEN",
    r"gl(?:pat|oas|dt|rt|rtr|cbt|ptt|ft|imt|agent|soat|ffct|wt)-[A-Za-z0-9_.-]{16}",
    r"GR1348941[A-Za-z0-9_-]{16}",
    r"_gitlab_session=[0-9a-z]{24}",
    joined=".",
)
_NPM = _token("NPM_TOKEN", r"npm_[A-Za-z0-9]{30}")  # github.blog/2021-09-23: npm's new access token format
_PYPI = _token("PYPI_TOKEN", r"pypi-Ag[EN][A-Za-z0-9_-]{30}")  # a macaroon in base64
_DOCKER = _token("DOCKER_TOKEN", r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{20}")  # TruffleHog dockerhub
# developer.hashicorp.com/vault/docs/concepts/tokens; gitleaks hashicorp-tf-api-token.
_HASHICORP = _token(
    "HASHICORP_TOKEN",
    r"hv[sbr]\.[A-Za-z0-9_-]{20}",
    r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{30}",
    rest="[A-Za-z0-9_=-]",
)
_VAULT = Entity(  # as it was before Vault 1.10
    "HASHICORP_TOKEN",
    r"[sbr]\.[A-Za-z0-9]{24}",
    before=r"[A-Za-z0-9.-]",
    after=r"[A-Za-z0-9-]",
    valid=validators.random_looking,
)
# gitleaks and TruffleHog, rules of these names; the makers' documentation.
_SERVICE_TOKEN = _token(
    "SERVICE_TOKEN",
    r"rubygems_[a-f0-9]{40}",
    r"CLOJARS_[a-f0-9]{50}",
    r"oy2[a-z0-9]{43}",  # NuGet
    r"cio[A-Za-z0-9]{32}",  # Cargo
    r"AT[AC]TT3[A-Za-z0-9_=-]{40}",  # Atlassian
    r"ATBB[A-Za-z0-9]{28}",  # Bitbucket
    r"lin_(?:api|oauth)_[A-Za-z0-9]{30}",  # Linear
    r"ntn_[A-Za-z0-9]{30}",  # Notion
    r"secret_[A-Za-z0-9]{43}",
    r"fig[dou]r?_[A-Za-z0-9_-]{30}",  # Figma
    r"pat[A-Za-z0-9]{14}\.[a-f0-9]{40}",  # Airtable
    r"glc_[A-Za-z0-9+/]{30}",  # Grafana
    r"glsa_[A-Za-z0-9]{30}",
    r"eyJrIjoi[A-Za-z0-9+/_-]{40}",
    r"snyk_[a-z]{2,5}\.[a-f0-9]{8}\.[A-Za-z0-9_-]{20}",
    r"sntry[asu]_[A-Za-z0-9+/=_-]{30}",  # Sentry
    r"NR(?:AK|II|RA|JS|IQ|SP|AA|BR|LS)-[A-Za-z0-9_-]{15}",  # New Relic
    r"PMAK-[a-f0-9]{24}-[a-f0-9]{20}",  # Postman
    r"pul-[a-f0-9]{36}",  # Pulumi
    r"dp\.(?:ct|pt|sa|scim|audit|st(?:\.[a-z0-9_-]{2,35})?)\.[A-Za-z0-9]{36}",  # Doppler
    r"ops_eyJ[A-Za-z0-9+/]{30}",  # 1Password
    r"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}",
    r"sq[upa]_[a-f0-9]{36}",  # SonarQube
    r"bk[a-z]{2}_[a-f0-9]{36}",  # Buildkite
    r"CCI(?:PAT|PRJ)_[A-Za-z0-9_]{30}",  # CircleCI
    r"(?:api|sdk|mob)-[a-f0-9]{8}-[a-f0-9]{4}-4[a-f0-9]{3}-[a-f0-9]{4}-[a-f0-9]{12}",  # LaunchDarkly
    r"pn[ub]_[A-Za-z0-9]{30}",  # Prefect
    r"tfp_[A-Za-z0-9_.-]{36}",  # Typeform
    r"CFPAT-[A-Za-z0-9_-]{36}",  # Contentful
    r"dt0[a-z]\d{2}\.[A-Z0-9]{24}\.[A-Z0-9]{40}",  # Dynatrace
    r"dnkey-[A-Za-z0-9_=-]{24}",  # Defined Networking
    r"rdme_[a-z0-9]{50}",  # ReadMe
    r"ico-[A-Za-z0-9]{30}",  # Infracost
    r"ph[xs]_[A-Za-z0-9]{30}",  # PostHog
    r"API-[A-Z0-9]{26}",  # Octopus Deploy
    r"AKCp[A-Za-z0-9]{60}",  # Artifactory
    r"cmVmd[A-Za-z0-9]{50}",
    r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk",  # MaxMind
    r"sha256~[A-Za-z0-9_-]{40}",  # OpenShift
    r"(?:pat|sat)\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{16}",  # Harness
    r"pat-(?:na|eu|ap)\d-[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{10}",  # HubSpot
    r"aio_[A-Za-z0-9]{26}",  # Adafruit
    r"sl\.(?:u\.)?[A-Za-z0-9_-]{60}",  # Dropbox
    r"fio-u-[A-Za-z0-9_=-]{50}",  # Frame.io
    r"dd(?:pat|sat|app)_[A-Za-z0-9_]{30}",  # Datadog
    r"apify_api_[A-Za-z0-9]{30}",
    r"shippo_(?:live|test)_[a-f0-9]{36}",
    r"EZ[AT]K[A-Za-z0-9]{40}",  # EasyPost
    r"duffel_(?:live|test)_[A-Za-z0-9_-]{36}",
    r"ATTA[a-f0-9]{60}",  # Trello
    r"[a-f0-9]{36}NRAL",  # New Relic, licence keys
    r"packagist_[a-z]{3}_[a-f0-9]{50}",
    r"dbt[cus]_[A-Za-z0-9_-]{34}",  # dbt
    r"dG9rO[A-Za-z0-9+/]{40}",  # Intercom: "tok:" in base64
    r"00D[A-Za-z0-9]{12,15}![A-Za-z0-9._]{60}",  # Salesforce, session ids
    r"hc[a-z][a-z]k_[A-Za-z0-9]{40}",  # Honeycomb
    r"xa[ap]t-[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{10}",  # Axiom
    r"hawk\.[A-Za-z0-9_-]{20}\.[A-Za-z0-9_-]{16}",  # StackHawk
    r"os_v2_(?:app|org)_[a-z0-9]{40}",  # OneSignal
    r"p8e-[A-Za-z0-9-]{30}",  # Adobe
    r"kpat_[A-Za-z0-9]{40}",  # Kong
    r"essu_[A-Za-z0-9+/]{40}",  # Elastic
    r"sm_[aps]at_[A-Za-z0-9]{16}",  # SettleMint
    r"tk-us-[A-Za-z0-9_-]{48}",  # Scalingo
    r"syt_[A-Za-z0-9]{4,60}_[A-Za-z0-9]{20}_[A-Za-z0-9]{6}",  # Matrix
    r"samsara_api_[A-Za-z0-9]{26}",
    r"pk_\d{6,9}_[A-Z0-9]{26}",  # ClickUp
    r"pk_[a-f0-9]{34}",  # Klaviyo
    r"[a-z0-9]{10}msh[a-z0-9]{15}p1[a-z0-9]{6}jsn[a-z0-9]{12}",  # RapidAPI
    r"KEY0[A-F0-9]{30}_[A-Za-z0-9]{16}",  # Telnyx
    r"0\.[a-f0-9]{8}(?:-[a-f0-9]{4}){3}-[a-f0-9]{12}\.[A-Za-z0-9]{30}:[A-Za-z0-9+/]{16}",  # Bitwarden
    r"sgp_[A-Za-z0-9]{50}",  # Segment
    r"key_[a-f0-9]{64}",
    r"waka_(?:tok_)?[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{10}",  # WakaTime
    r"zpka_[A-Za-z0-9_]{34}",  # Zuplo
    r"ion_[A-Za-z0-9]{42}",  # Ionic
    r"persona_(?:sandbox|production)_[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}",
    r"secret-(?:test|live)-[A-Za-z0-9_=-]{32}",  # Stytch
    rest="[A-Za-z0-9_=+/-]",
    joined=".",
)


# Marks that are words, or none but their shape: what follows must look random (the makers' documentation).
_SHAPED_TOKEN = Entity(
    "SERVICE_TOKEN",
    "|".join(
        (
            r"(?:live|test)_[A-Za-z0-9]{30,36}",  # Mollie, Lob
            r"(?:ak|as)-[A-Za-z0-9]{22}",  # Modal
            r"secret-[A-Za-z0-9]{40,48}",  # Statsig
            r"[a-f0-9]{32}\.[A-Za-z0-9]{16}",  # Zhipu
            r"[12]/\d{10,17}(?:/\d{10,17})?:[a-f0-9]{32}",  # Asana
            r"[A-Za-z0-9]{6}\.[A-Za-z0-9_-]{6}:[A-Za-z0-9_-]{43}",  # Ably
        )
    ),
    before=r"[A-Za-z0-9_./+-]",
    after=r"[A-Za-z0-9_+/-]",
    valid=lambda text: validators.random_looking(re.split("[-_.:]", text.rstrip("="))[-1]),
)


# -- tokens of messaging and payment ----------------------------------------------------------------------------------

_SLACK = _token(  # docs.slack.dev/authentication/tokens
    "SLACK_TOKEN",
    r"xox[a-eprs](?:\.xox[a-z])?-[A-Za-z0-9%-]{10,24}",
    r"xapp-\d-[A-Za-z0-9-]{10}",
    r"xwfp-[A-Za-z0-9-]{10,24}",
    rest=r"[A-Za-z0-9_%-]",
)._replace(valid=validators.varied_with_digits)
# core.telegram.org/bots/api#authorizing-your-bot: the bot's id, a colon, 35 characters.
_TELEGRAM = Entity(
    "TELEGRAM_TOKEN",
    r"\d{6,11}:[A-Za-z0-9_-]{35}|\d{8,10}:AA[A-Za-z0-9_-]{32}",
    before=r"[\d.]",
    after=r"[A-Za-z0-9_-]",
    valid=validators.varied,
)
# discord.com/developers/docs/reference#authentication: an id, the time and an HMAC in base64url.
_DISCORD = Entity(
    "DISCORD_TOKEN",
    r"[MNO][A-Za-z0-9_-]{22,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,45}|mfa\.[A-Za-z0-9_-]{60,95}",
    before=r"[A-Za-z0-9.-]",
    after=r"[A-Za-z0-9_-]",
)
_SENDGRID = _token("SENDGRID_KEY", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16}")  # sendgrid.com, API keys
_TWILIO = Entity(  # twilio.com/docs/glossary/what-is-a-sid
    "TWILIO_KEY",
    r"(?:SK|AC)[0-9a-fA-F]{32}(?:[\"']?[:,] ?[\"']?[0-9a-f]{32})?",  # with the auth token that stands behind it
    before=r"[A-Za-z0-9]",
    after=r"[A-Za-z0-9]",
    valid=validators.varied,
)
_MAIL_KEY = Entity(  # gitleaks mailgun, mailchimp, sendinblue; resend.com
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
_STRIPE = _token(  # docs.stripe.com/keys, docs.stripe.com/webhooks
    "STRIPE_KEY",
    r"[sre]k_(?:org_)?(?:live|test|prod)_[A-Za-z0-9]{10}",
    r"whsec_[A-Za-z0-9+/]{20}",
    rest=r"[A-Za-z0-9+/=_]",
)
_SHOPIFY = _token("SHOPIFY_TOKEN", r"shp(?:at|ca|pa|ss|ua|ra|it)_[a-fA-F0-9]{24}")  # gitleaks shopify-*
# developer.squareup.com, developer.paypal.com, razorpay.com, flutterwave.com, plaid.com.
_PAYMENT = _token(
    "PAYMENT_KEY",
    r"sq0[a-z]{3}-[A-Za-z0-9_-]{20}",  # Square
    r"EAAA[A-Za-z0-9_-]{50}",
    r"access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{20}",  # Braintree
    r"rzp_(?:live|test)_[A-Za-z0-9]{12}",  # Razorpay
    r"FLWSECK(?:_TEST)?-[A-Za-z0-9]{12}",  # Flutterwave
    r"access-(?:sandbox|development|production)-[0-9a-f]{8}-[0-9a-f-]{20}",  # Plaid
    r"pdl_(?:live|sdbx)_apikey_[a-z0-9]{26}_[A-Za-z0-9]{16}",  # Paddle
    r"xnd_(?:production|development)_[A-Za-z0-9]{30}",  # Xendit
    r"(?:SB-)?Mid-server-[A-Za-z0-9_-]{20}",  # Midtrans
    r"(?:APP_USR|TEST)-\d{10,20}-\d{6}-[a-f0-9]{28}",  # Mercado Pago
    r"A21AA[A-Za-z0-9_-]{60}",  # PayPal
    r"sk_sbox_[a-z0-9]{20}",  # Checkout.com
)
# developers.facebook.com (access tokens), developer.x.com (bearer and access tokens).
_SOCIAL = _token(
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


def _assigned(valid: Validator, context: Callable[[str], int] = validators.assignment) -> Validator:
    """`valid`, but of a value that no entity with a mark of its own finds."""
    return lambda text: valid(text) and not _is_known(text[context(text) :])


# What people call a password, in some languages (as it is folded: Cyrillic letters that look Latin are).
_PHRASES = (
    r"passwor[dt]|passwd|passphrase|passcode|kennwort|wachtwoord|contrase[ñn]a|senha|mot de passe|[şs]ifre|parola|has[łl]o"
    r"|l[öo]senord|пapoль|密码|密碼|パスワード|비밀번호|requirepass|masterauth|identified by"
)
# What has no mark of its own (keys of Mistral, Cohere, Azure OpenAI, Datadog ...): a name that says it is a secret, then a
# value that looks random. A value that is known by its mark is left to the entity that knows it.
# A value may go on behind a full stop, a colon or a `!` (there are such tokens), so one that ends there takes it along.
_ASSIGNED = rf"(?:{validators.ASSIGNMENT})"
_SECRET = Entity(
    "SECRET",
    r"(?i:(?:api|app|auth|access|secret|subscription|account|admin|service|license|encryption|master|private|preshared)"
    r"[ _-]?key|[_-](?:key|pat|token|secret|password|passwd|pwd|pass)"
    r"|(?:client|api|app|consumer|signing|webhook|shared|oauth)[ _-]?secret|secret"
    r"|(?:auth|access|api|refresh|private|bot|session|personal|id|deploy)[ _-]?token|token|bearer|ssws|login|basic"
    rf"|{_PHRASES}){_ASSIGNED}[A-Za-z0-9_+/.~-]{{16,120}}={{0,2}}[:!]?",
    after=r"[\w+/=~.:!(\[-]",
    valid=_assigned(validators.assigned_secret),
    context=validators.assignment,
)
_MADE_UP = r"[A-Za-z0-9!@#$%^&*()+=~?_.-]{6,100}:?"
_GOES_ON = r"[A-Za-z0-9!@#$%^&*+=~?.:_/(\[{-]"
_PASSWORD = Entity(  # what a person or a framework made up, shorter and with other marks
    "SECRET",
    rf"(?:(?i:{_PHRASES})|[a-z](?:Pass|Pwd)){_ASSIGNED}{_MADE_UP}",
    after=_GOES_ON,
    valid=_assigned(validators.assigned_password),
    context=validators.assignment,
)
_PASS = Entity(  # words that others end with
    "SECRET",
    rf"(?i:pass|pwd|secret[ _-]?key|secret){_ASSIGNED}{_MADE_UP}",
    before=r"[A-Za-z]",
    after=_GOES_ON,
    valid=_assigned(validators.assigned_password),
    context=validators.assignment,
)
_MARKED = Entity(
    "SECRET",
    rf"(?i:(?:api|app|auth|access|encryption|master|signing|private)[ _-]?key|token){_ASSIGNED}{_MADE_UP}",
    before=r"[A-Za-z]",
    after=_GOES_ON,
    valid=_assigned(validators.assigned_mixture),
    context=validators.assignment,
)
_ARGUMENT = Entity(  # curl(1), mysql(1), sshpass(1), docker-login(1)
    "SECRET",
    r"(?:-u ?|--user[ =])[\"']?[^\s:\"'@/]{1,64}:[^\s\"'<>`/@]{8,100}|-p ?[\"']?[^\s\"'<>`/]{12,100}",
    before=r"[^\s]",
    after=r"[^\s\"'<>`]",
    valid=_assigned(validators.argument_secret, validators.argument),
    context=validators.argument,
)
_BASIC = Entity(  # RFC 7617
    "SECRET",
    r"[Bb]asic [A-Za-z0-9+/]{8,160}={0,2}",
    before=r"[A-Za-z0-9]",
    after=r"[A-Za-z0-9+/=]",
    valid=validators.basic_credentials,
    context=validators.assignment,
)
_AWS_SECRET_NAMED = Entity(
    "AWS_SECRET_KEY",
    rf"(?i:aws[ _-]?secret(?:[ _-]?access)?(?:[ _-]?key)?|secret[ _-]?access[ _-]?key){_ASSIGNED}[A-Za-z0-9+/]{{40}}",
    after=r"[A-Za-z0-9+/=]",
    valid=validators.varied,
    context=validators.assignment,
)


# -- persons and machines ---------------------------------------------------------------------------------------------

# RFC 5321 and 6531, the local part without the rarest marks; also as URLs, HTML and careful people write it. In scripts
# that put spaces between words a run ends with the word; in the others local parts are short, so that little is held.
_SPACED = r"A-Za-z0-9_+\u00c0-\u0dff\u10a0-\u13ff\u1e00-\u1fff"
_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_QUOTED = r"(?:[^\s\"\\]|\\[^\s]){1,40}(?: (?:[^\s\"\\]|\\[^\s]){1,20})?\""
_AT_DOMAIN = (
    r"(?:@|%40|&#64;|&#x40;|\[(?:at|@)\]|\(at\))"
    r"(?:[\w.\u0900-\u0dff-]{1,190}|\[\d{1,3}(?:\.\d{1,3}){3}\]|(?:[\w-]{1,40}(?:\.|\[dot\]|\(dot\))){1,3}[A-Za-z]{2,12})"
)
_EMAIL = Entity(
    "EMAIL",
    rf"(?:[{_SPACED}][{_SPACED}.%'!=&~^-]{{0,63}}|\"{_QUOTED}){_AT_DOMAIN}",
    before=rf"[{_SPACED}]",
    after=r"[A-Za-z0-9]",
    valid=validators.email,
    context=validators.query,
)
_EMAIL_QUOTED = Entity(  # ["ann"@example.com]: behind a quote that was passed as one of JSON, until more came
    "EMAIL", rf"\"{_QUOTED}{_AT_DOMAIN}", after=r"[A-Za-z0-9]", valid=validators.email, context=lambda text: 1
)
_EMAIL_UNSPACED = Entity(
    "EMAIL", rf"[{_UNSPACED}]{{1,8}}{_AT_DOMAIN}", before=r"\w", after=r"[A-Za-z0-9]", valid=validators.email
)
_GIT_REMOTE = Entity(  # git-scm.com/docs/git-clone, "Git URLs": no mailbox, so it stays
    "EMAIL",
    r"(?:git|hg|svn)@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}",
    before=r"[A-Za-z0-9.+-]",
    after=r"[A-Za-z0-9]",
    context=len,
)
_GAP = r"(?:[ ._/-]{1,3}\n?|[\n\t])"
_CARD = Entity(  # ISO/IEC 7812-1
    "CARD",
    "|".join(
        (
            r"\d{12,19}",
            rf"\d{{4}}{_GAP}\d{{4}}{_GAP}\d{{4}}(?:{_GAP}\d{{1,7}}|{_GAP}\d{{4}}{_GAP}\d{{1,3}})",
            rf"\d{{4}}{_GAP}\d{{6}}{_GAP}\d{{4,5}}",
            rf"\d{{6}}{_GAP}\d{{6,13}}",
            rf"\d{{8}}{_GAP}\d{{8}}",
        )
    ),
    before=r"[A-Za-z0-9.+]",
    after=r"[A-Za-z0-9]",
    valid=validators.card,
)
_CARD_TRACK = Entity(  # ISO/IEC 7813: what the magnetic stripe says
    "CARD",
    r"%[Bb]\d{12,19}",
    after=r"\d",
    valid=lambda text: validators.card(text[2:]),
    context=lambda text: 2,
)
_CARD_CALLED = Entity(  # where a telephone number is expected: the whole is a card, and its beginning no such number
    "CARD",
    phones.NAME_PATTERN + r"\d{4}(?:[ .-]?\d{4}){3}",
    before=r"[A-Za-z]",
    after=r"[A-Za-z0-9]",
    valid=lambda text: validators.card(text[validators.words_before_digits(text) :]),
    context=validators.words_before_digits,
)
_IBAN = Entity(  # ISO 13616, also in the paper form's groups
    "IBAN",
    r"(?:IBAN)?[A-Z]{2}[ .-]?\d{2}(?:[ .-]{0,2}\n?[A-Z0-9]){11,30}|[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}",
    before=r"[A-Za-z0-9]",
    after=r"[A-Za-z0-9]",
    valid=validators.iban,
    context=lambda text: 4 if text.startswith("IBAN") else 0,
)
_US_SSN = Entity(  # ssa.gov/employer/randomization.html
    "US_SSN",
    r"\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4}|\d{3}\.\d{2}\.\d{4}",
    before=r"[A-Za-z0-9.+-]",
    after=r"[A-Za-z0-9-]",
    valid=validators.us_ssn,
)
_US_SSN_NAMED = Entity(  # nine digits in one piece only where they are named
    "US_SSN",
    r"(?i:ssn|social[ _-]?security(?:[ _-]?(?:number|num|no\.?|#))?)(?i:[\"']?[ :=#]{1,3}| is | number )[\"']?"
    r"\d{3}[ -]?\d{2}[ -]?\d{4}",
    before=r"[A-Za-z]",
    after=r"[A-Za-z0-9-]",
    valid=validators.named_us_ssn,
    context=validators.words_before_digits,
)
_IPV4 = Entity(  # RFC 791; also with the dots taken out of action, as security reports have them
    "IPV4",
    r"\d{1,3}(?:(?:\.|\[\.\])\d{1,3}){3}",
    before=r"[A-Za-z0-9.]",
    after=r"[A-Za-z0-9]",
    valid=validators.ipv4,
)
_NOT_IPV4 = Entity(  # versions, object identifiers, sections: they stay
    "IPV4",
    "|".join(
        (
            r"(?i:version|ver|release|build|firmware|driver|oid|section|chapter|clause|table|v|upgraded?|updated?)"
            r"(?: to| from)?[ .:=#]{1,2}v?\d{1,5}(?:\.\d{1,5}){3,9}",
            r"(?:(?:Headless)?Chrom(?:e|ium)|Edg(?:e|A|iOS)?|OPR|CriOS|Version|Electron|Vivaldi)/\d{1,5}(?:\.\d{1,5}){3}",
            r"\d{1,5}(?:\.\d{1,5}){3}[.-](?:cp|py|tar|zip|whl|dll|exe|msi|jar|deb|rpm|x86|linux|win)\w{0,8}",
            r"\d{1,8}(?:\.\d{1,8}){4,20}",
        )
    ),
    before=r"[A-Za-z0-9.]",
    after=r"[A-Za-z0-9]",
    context=len,
)
_PINNED = Entity("IPV4", r"[=<>~!]=\d{1,5}(?:\.\d{1,5}){3}", after=r"[A-Za-z0-9]", context=len)  # package==1.2.3.4
_IPV6 = Entity(  # RFC 4291, RFC 4007
    "IPV6",
    r"(?:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{0,4}|:)(?::[0-9A-Fa-f]{0,4}){1,7}(?:\d{0,2}(?:\.\d{1,3}){3})?"
    r"(?:%[A-Za-z0-9][\w.-]{0,15})?",
    before=r"[A-Za-z0-9]",
    after=r"[A-Za-z0-9]",
    valid=validators.ipv6,
)
_PHONE = Entity(  # ITU-T E.164, E.123, RFC 3966
    "PHONE", phones.INTERNATIONAL_PATTERN, before=r"[A-Za-z0-9+.]", after=r"[A-Za-z0-9]", valid=phones.international
)

_NOT_PHONE = Entity(  # rows of numbers: they stay
    "PHONE",
    f"(?:{phones.NAME_PATTERN})?{phones.NO_PHONE_PATTERN}",
    before=r"[\w.+-]",
    after=r"\w",
    valid=lambda text: phones.no_phone(text[validators.words_before_digits(text) :]),
    context=len,
)
_NUMBERED = Entity(  # numbers of something else, which says so: too short for a card of today
    "PHONE",
    r"(?i:order|invoice|batch|ticket|case|nhs|ref(?:erence)?|serial|part|item|tracking|isbn|article|model|lot)"
    r"(?i:[ _-]?(?:number|num|no|nr|id|code)\.?)?[ :=#]{1,3}\d(?:[ -]?\d){5,12}",
    before=r"[A-Za-z]",
    after=r"[A-Za-z0-9]",
    context=len,
)

DEFAULTS: tuple[Described, ...] = (
    Described(_PRIVATE_KEY, "private key blocks: PEM, OpenSSH, OpenPGP, PuTTY, age"),
    Described(_JWT, "JSON Web Tokens, signed or encrypted"),
    Described(_JDBC_CREDENTIALS, "user and password in Oracle's JDBC links"),
    Described(_WEBHOOK, "webhook links: Slack, Discord, Teams, Zapier"),
    Described(_URL_CREDENTIALS, "user and password, or a token, in a URL"),
    Described(_ANTHROPIC, "API keys: Anthropic"),
    Described(_OPENAI, "API keys: OpenAI, and those that write theirs alike (DeepSeek, OpenRouter ...)"),
    Described(_HUGGINGFACE, "access tokens: Hugging Face"),
    Described(_MODEL_KEY, "API keys: Groq, xAI, Replicate, Perplexity, NVIDIA and some twenty other model providers"),
    Described(_AWS_ACCESS, "access key ids: AWS"),
    Described(_AWS_TOKEN, "session tokens, Bedrock, AppSync and Marketplace keys: AWS"),
    Described(_GOOGLE_API, "API keys: Google Cloud, Gemini"),
    Described(_GOOGLE_OAUTH, "OAuth tokens and client secrets: Google"),
    Described(_GITHUB, "tokens: GitHub, classic and fine-grained"),
    Described(_GITLAB, "tokens: GitLab, all kinds"),
    Described(_NPM, "access tokens: npm"),
    Described(_PYPI, "API tokens: PyPI"),
    Described(_DOCKER, "access tokens: Docker Hub"),
    Described(_HASHICORP, "tokens: HashiCorp Vault, Terraform Cloud"),
    Described(_VAULT, "tokens: HashiCorp Vault before 1.10"),
    Described(
        _CLOUD_TOKEN, "tokens: DigitalOcean, Heroku, Databricks, Cloudflare, Supabase and some thirty other clouds"
    ),
    Described(_SLACK, "tokens: Slack, all kinds"),
    Described(_TELEGRAM, "bot tokens: Telegram"),
    Described(_DISCORD, "bot tokens: Discord"),
    Described(_SENDGRID, "API keys: SendGrid"),
    Described(_TWILIO, "API keys, account SIDs and the auth tokens behind them: Twilio"),
    Described(_MAIL_KEY, "API keys: Mailgun, Mailchimp, Brevo, Resend"),
    Described(_STRIPE, "secret and restricted keys, webhook secrets: Stripe"),
    Described(_SHOPIFY, "tokens: Shopify"),
    Described(_PAYMENT, "tokens: Square, Braintree, PayPal, Razorpay, Flutterwave, Plaid, Paddle, Xendit and others"),
    Described(_SOCIAL, "tokens: Facebook, Instagram, X, LinkedIn, Pinterest, Twitch"),
    Described(
        _SERVICE_TOKEN, "tokens: Atlassian, Grafana, Sentry, Notion, Linear, Postman and some ninety other services"
    ),
    Described(_SHAPED_TOKEN, "tokens: Mollie, Asana, ClickUp, Segment and others without a mark of their own"),
    Described(_AZURE, "keys and client secrets with Azure's signatures"),
    Described(_AZURE_NAMED, "keys in Azure connection strings, shared access signatures"),
    Described(_AWS_SECRET, "secret access keys: AWS"),
    Described(_AWS_SECRET_NAMED, "secret access keys after their name: AWS"),
    Described(_SECRET, "a random value after a name like api_key, client_secret or Bearer"),
    Described(_PASSWORD, "a password that mixes letters, digits and marks, after its name"),
    Described(_PASS, "a password after pass, pwd or secret"),
    Described(_MARKED, "a key that mixes letters, digits and marks, after its name"),
    Described(_ARGUMENT, "a password on a command line (-u user:password, -p password)"),
    Described(_BASIC, "user and password in an HTTP Basic header"),
    Described(_IBAN, "bank accounts (IBAN)"),
    Described(_CARD, "payment cards"),
    Described(_CARD_TRACK, "payment cards on a magnetic stripe"),
    Described(_CARD_CALLED, "payment cards after a word like phone"),
    Described(_US_SSN, "US social security numbers"),
    Described(_US_SSN_NAMED, "US social security numbers in one piece, where they are named"),
    Described(_IPV4, "IPv4 addresses"),
    Described(_IPV6, "IPv6 addresses"),
    Described(_EMAIL, "e-mail addresses"),
    Described(_EMAIL_QUOTED, "e-mail addresses with a quoted local part, in what turns out not to be JSON"),
    Described(_EMAIL_UNSPACED, "e-mail addresses in Chinese, Japanese, Korean, Thai"),
    Described(_PHONE, "telephone numbers: international form; national forms of the configured regions"),
)

_BEGINNINGS = re.compile("|".join(f"(?:{entity.pattern})" for entity, _ in DEFAULTS if entity.swallow))
_UNNAMED = (_AWS_ACCESS, _VAULT, _TELEGRAM, _DISCORD, _TWILIO, _MAIL_KEY, _AZURE, _SHAPED_TOKEN)
_WHOLES = re.compile("|".join(f"(?:{entity.pattern})" for entity in _UNNAMED))


def _is_known(value: str) -> bool:
    """Whether an entity with a mark of its own finds `value`, whatever stands before it."""
    return _BEGINNINGS.match(value) is not None or _WHOLES.fullmatch(value) is not None


# What stays and must not be bitten into: it goes first where it is as long as what it protects from, else last.
_DECOYS_FIRST, _DECOYS_LAST = (_GIT_REMOTE,), (_NOT_IPV4, _PINNED, _NOT_PHONE, _NUMBERED)


def entities(phone_regions: Iterable[str] = ()) -> tuple[Entity, ...]:
    """All of them, with the national telephone numbers of `phone_regions` (ISO 3166 codes). Several may share a name.

    Raises `ValueError` for a region that has no numbering plan."""
    regions = tuple(dict.fromkeys(phone_regions))
    national = _national_phones(regions) if regions else ()
    return (*_DECOYS_FIRST, *(described.entity for described in DEFAULTS), *national, *_DECOYS_LAST)


def _national_phones(regions: Iterable[str]) -> tuple[Entity, ...]:
    """Telephone numbers as they are written inside `regions`; after a word like "phone", in any grouping."""
    regions = tuple(regions)
    return (
        Entity(
            "PHONE",
            phones.NAMED_PATTERN,
            before=r"[A-Za-z]",
            after=r"[A-Za-z0-9]",
            valid=phones.named(regions),
            context=validators.words_before_digits,
        ),
        Entity(
            "PHONE",
            phones.NATIONAL_PATTERN,
            before=r"[A-Za-z0-9_.+#$€£-]",
            after=r"[A-Za-z0-9_]",
            valid=phones.national(regions),
        ),
    )
