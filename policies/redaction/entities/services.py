"""Tokens of the services that developers use: code, packages, secrets, work, measurements."""

from __future__ import annotations

import re

from .. import validators
from ..entity import Entity
from .making import token

# github.blog/2021-04-05 (token formats; up to 255 characters), docs.github.com "About authentication to GitHub".
GITHUB = token("GITHUB_TOKEN", r"gh[pousr]_[A-Za-z0-9_]{20}", r"github_pat_[A-Za-z0-9_]{20}", joined=".")
# docs.gitlab.com/security/tokens, "Token prefixes".
GITLAB = token(
    "GITLAB_TOKEN",
    r"gl(?:pat|oas|dt|rt|rtr|cbt|ptt|ft|imt|agent|soat|ffct|wt)-[A-Za-z0-9_.-]{16}",
    r"GR1348941[A-Za-z0-9_-]{16}",
    r"_gitlab_session=[0-9a-z]{24}",
    joined=".",
)
NPM = token("NPM_TOKEN", r"npm_[A-Za-z0-9]{30}")  # github.blog/2021-09-23: npm's new access token format
PYPI = token("PYPI_TOKEN", r"pypi-Ag[EN][A-Za-z0-9_-]{30}")  # a macaroon in base64
DOCKER = token("DOCKER_TOKEN", r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{20}")  # TruffleHog dockerhub
# developer.hashicorp.com/vault/docs/concepts/tokens; gitleaks hashicorp-tf-api-token.
HASHICORP = token(
    "HASHICORP_TOKEN",
    r"hv[sbr]\.[A-Za-z0-9_-]{20}",
    r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{30}",
    rest="[A-Za-z0-9_=-]",
)
VAULT = Entity(  # as it was before Vault 1.10
    "HASHICORP_TOKEN",
    r"[sbr]\.[A-Za-z0-9]{24}",
    before=r"[A-Za-z0-9.-]",
    after=r"[A-Za-z0-9-]",
    valid=validators.random_looking,
)
# gitleaks and TruffleHog, rules of these names; the makers' documentation.
SERVICE_TOKEN = token(
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
SHAPED_TOKEN = Entity(
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
