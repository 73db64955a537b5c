"""Keys and tokens of clouds, and of what runs or stores there."""

from __future__ import annotations

from .. import validators
from ..entity import Entity
from .making import token

# IAM User Guide, "Unique identifiers": four letters that say what it is, and sixteen more characters.
AWS_ACCESS = Entity(
    "AWS_ACCESS_KEY",
    r"(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}",
    before=r"[A-Z0-9]",
    after=r"[A-Z0-9]",
    valid=validators.varied,
)
# The same guide, "Managing access keys": 40 characters of base64 that nothing marks.
AWS_SECRET = Entity(
    "AWS_SECRET_KEY",
    r"[A-Za-z0-9+/]{40}",
    before=r"[A-Za-z0-9+/_-]",
    after=r"[A-Za-z0-9+/_=-]",
    valid=validators.aws_secret,
)
# STS tokens have a fixed beginning; Bedrock User Guide, "API keys".
AWS_TOKEN = token(
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
AZURE_NAMED = Entity(
    "AZURE_KEY",
    r"(?:(?i:Account|SharedAccess|Access|Shared)Key|(?i:sharedAccessSignature)|[?&;](?:sig|code))[\"']? ?[=:] ?[\"']?"
    r"(?:[A-Za-z0-9+/_-]|%[0-9A-Fa-f]{2}){20,120}={0,2}",
    after=r"[A-Za-z0-9+/%=_-]",
    valid=validators.varied,
    context=validators.assignment,
)
# Client secrets (gitleaks azure-ad-client-secret); keys with the fixed signatures of Storage, Batch, Cosmos DB, API
# Management, Event Hubs, Service Bus, Relay, IoT, Search, Functions, AI services and DevOps (Microsoft Purview).
AZURE = Entity(
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
GOOGLE_API = token("GOOGLE_API_KEY", r"AIza[A-Za-z0-9_-]{30}", r"AQ\.Ab8RN6[A-Za-z0-9_-]{20}")
GOOGLE_OAUTH = token(
    "GOOGLE_OAUTH",
    r"ya29\.[A-Za-z0-9_.-]{20}",
    r"GOCSPX-[A-Za-z0-9_-]{20}",
    r"1//0[A-Za-z0-9_-]{30}",
    r"4/0A[A-Za-z0-9_-]{24}",
    r"GOOG1E[A-Z0-9]{50}",  # HMAC keys of Cloud Storage
    joined=".",
)
# gitleaks and TruffleHog, rules of these names.
CLOUD_TOKEN = token(
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
