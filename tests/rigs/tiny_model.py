"""A llama-architecture model that is real to llama.cpp in every respect but sense: random weights, 1 MB, made in a second.

Its vocabulary is the 256 bytes (GPT-2's mapping of bytes to printable characters), the special tokens of the chat
template, and the prefixes of some common words, so that a delta is now a word and now a part of a character. The text is
noise; tokens, usage, framing and ends are real. The same bytes come out at every run (fixed seed).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import gguf
import numpy as np

NAME = "tiny-random"

_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>")
# The first is what llama.cpp watches for; the second, longer than that, leads into a call from where text is allowed too.
_TOOL_CALL = ("<tool_call>", "<tool_call>\n{")
_SPECIAL = (*_CONTROL, *_TOOL_CALL)
CALL_A_TOOL = {str(_SPECIAL.index("<tool_call>\n{")): 99, str(_SPECIAL.index("<|im_end|>")): 100}
"""A `logit_bias` with which the model calls tools: a biased token is taken wherever the tool-call grammar allows it."""

_PROSE = (
    "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not"
    " what all were we when your can said there use an each which she do how their if will up other about out many then"
    " them these so some her would make like him into time has look two more write go see number no way could people"
    " user assistant system tool name arguments response function content weather location unit true false null"
)
# Tools and tool calls as Hermes and Qwen write them: llama.cpp infers its tool-call grammar from what a template renders.
_CHAT_TEMPLATE = r"""
{%- if tools %}
    {{- '<|im_start|>system\n# Tools\n<tools>' }}
    {%- for tool in tools %}
        {{- '\n' }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\n</tools>\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role }}
    {%- if message.content %}
        {{- '\n' + message.content }}
    {%- endif %}
    {%- for call in message.tool_calls or [] %}
        {{- '\n<tool_call>\n{"name": "' }}
        {{- call.function.name }}
        {{- '", "arguments": ' }}
        {{- call.function.arguments | tojson }}
        {{- '}\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
_CONTEXT, _WIDTH, _FEED_FORWARD, _HEADS, _LAYERS = 8192, 64, 128, 4, 2


def path() -> Path:
    """The model file, made at the first call; kept in the project's `.cache`, or a temporary folder if that is read-only."""
    made_by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    folder = Path(__file__).parents[2] / ".cache"
    try:
        folder.mkdir(exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        folder = Path(tempfile.gettempdir())
    model = folder / f"tiny-model-{made_by}.gguf"
    if not model.exists():
        unfinished = model.with_suffix(f".{os.getpid()}")
        _write(unfinished)
        unfinished.replace(model)  # atomic: two test runs may build it at once
    return model


def _byte_characters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes: printable Latin-1 stands for itself, the rest follows U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def _vocabulary() -> tuple[list[str], list[str]]:
    """The tokens in order of their numbers, and the merges: each word is built from the left, a character a merge."""
    characters = _byte_characters()
    space = characters[0x20]
    tokens = [*_SPECIAL, *characters]
    known = set(tokens)
    merges = []
    for word in _PROSE.split():
        for spelled in (word, space + word):
            for end in range(2, len(spelled) + 1):
                if spelled[:end] not in known:
                    known.add(spelled[:end])
                    tokens.append(spelled[:end])
                    merges.append(f"{spelled[: end - 1]} {spelled[end - 1]}")
    return tokens, merges


def _write(file: Path) -> None:
    tokens, merges = _vocabulary()
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name(NAME)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_block_count(_LAYERS)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    types = dict.fromkeys(tokens, gguf.TokenType.NORMAL)
    types.update(dict.fromkeys(_CONTROL, gguf.TokenType.CONTROL))
    types.update(dict.fromkeys(_TOOL_CALL, gguf.TokenType.USER_DEFINED))
    writer.add_token_types(list(types.values()))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(_SPECIAL.index("<|endoftext|>"))
    writer.add_eos_token_id(_SPECIAL.index("<|im_end|>"))
    writer.add_pad_token_id(_SPECIAL.index("<|endoftext|>"))
    writer.add_unk_token_id(_SPECIAL.index("<unk>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(_CHAT_TEMPLATE)

    def matrix(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.08, (rows, columns)).astype(np.float32))

    def ones(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(_WIDTH, np.float32))

    matrix("token_embd", len(tokens), _WIDTH)
    matrix("output", len(tokens), _WIDTH)
    ones("output_norm")
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm")
        ones(f"{block}.ffn_norm")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{block}.{part}", _WIDTH, _WIDTH)
        matrix(f"{block}.ffn_gate", _FEED_FORWARD, _WIDTH)
        matrix(f"{block}.ffn_up", _FEED_FORWARD, _WIDTH)
        matrix(f"{block}.ffn_down", _WIDTH, _FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
