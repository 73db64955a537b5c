"""Keys of model providers."""

from __future__ import annotations

from .making import token

ANTHROPIC = token("ANTHROPIC_KEY", r"sk-ant-(?:[a-z]{2,8}\d{2}-)?[A-Za-z0-9_-]{16}")  # gitleaks anthropic-api-key
# platform.openai.com, gitleaks openai-api-key; DeepSeek, Moonshot, OpenRouter, Langfuse, LiteLLM and others write alike.
OPENAI = token(
    "OPENAI_KEY",
    r"sk-(?:proj|svcacct|service|admin|None|or-v1|lf|live|test|helicone|kimi)-[A-Za-z0-9_-]{16}",
    r"sk-[A-Za-z0-9]{20}",
    r"sk-[A-Za-z0-9_-]{1,60}T3BlbkFJ",  # "OpenAI" in base64
    r"sess-[A-Za-z0-9]{32}",
    before=r"[A-Za-z0-9-]",
)
HUGGINGFACE = token("HUGGINGFACE_TOKEN", r"hf_[A-Za-z0-9]{24}", r"api_org_[A-Za-z0-9]{24}")  # huggingface.co/docs/hub
# gitleaks and TruffleHog, rules of these names; the makers' documentation.
MODEL_KEY = token(
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
