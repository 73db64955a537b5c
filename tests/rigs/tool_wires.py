"""What the tools that providers run themselves say on the wire, beside what the model says: in items of OpenAI's Responses and
content blocks of Anthropic's Messages. Written after the providers' documentation.

Every string in these is whole in its event: none of them goes on in a later one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .wires import Document, named_event

RESPONSES_ITEMS: Mapping[str, Document] = {
    "apply_patch_call": {"call_id": "c", "operation": {"type": "create_file", "path": "shopping.md", "diff": "+milk"}},
    "code_interpreter_call": {
        "container_id": "cntr_1",
        "outputs": [{"type": "logs", "logs": "one"}, {"type": "image", "url": "https://x.example/one.png"}],
    },
    "computer_call": {
        "call_id": "c",
        "action": {"type": "type", "text": "hello"},
        "pending_safety_checks": [{"id": "cu_sc_1", "code": "malicious", "message": "take care"}],
    },
    "file_search_call": {
        "queries": ["who is it", "where"],
        "results": [{"file_id": "f", "filename": "a.txt", "text": "a text", "attributes": {"name": "Ann"}}],
    },
    "local_shell_call": {"call_id": "c", "action": {"type": "exec", "command": ["ls", "-l"], "env": {"A": "b"}}},
    "mcp_approval_request": {"arguments": '{"a":"bc"}', "name": "roll", "server_label": "dice"},
    "mcp_call": {"name": "roll", "server_label": "dice", "output": "four", "error": "late"},
    "mcp_list_tools": {
        "server_label": "dice",
        "tools": [{"name": "roll", "description": "Rolls", "input_schema": {"properties": {"n": {"type": "string"}}}}],
    },
    "new_call": {"call_id": "c", "asked": ["this", {"and": "that"}]},
    "shell_call": {"call_id": "c", "action": {"commands": ["ls -la", "cat ann"], "timeout_ms": None}},
    "web_search_call": {
        "action": {"type": "search", "query": "weather", "sources": [{"type": "url", "url": "https://x.example/one"}]}
    },
}
"""By type: what an item says beside its type, id, status and what has deltas."""


def of_item(type: str, said: Document) -> Iterator[bytes]:
    """A response with this one item, which is said at its beginning, its end and the response's."""
    head: Document = {"id": "resp_1", "object": "response", "status": "in_progress", "model": "tiny", "output": []}
    item = {"id": "item_1", "type": type, "status": "completed", **said}
    documents: tuple[Document, ...] = (
        {"type": "response.created", "response": head},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress"}},
        {"type": f"response.{type}.in_progress", "output_index": 0, "item_id": "item_1"},
        {"type": "response.shell_call_command.added", "output_index": 0, "command_index": 0, "command": "ls"},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**head, "status": "completed", "output": [item]}},
    )
    for number, document in enumerate(documents):
        yield named_event({**document, "sequence_number": number})


_CITED = {"type": "web_search_result_location", "cited_text": "one", "url": "https://x.example/one", "title": "One"}
_FOUND = {"type": "web_search_result", "title": "T", "url": "https://x.example", "page_age": "1 day"}

MESSAGES_BLOCKS: Mapping[str, tuple[Document, tuple[Document, ...]]] = {
    "citations": (
        {"type": "text", "text": "", "citations": []},
        tuple(
            {"type": "citations_delta", "citation": {**_CITED, "title": title, "encrypted_index": "Eo8B"}}
            for title in ("One", "Two")
        ),
    ),
    "code execution": (
        {
            "type": "bash_code_execution_tool_result",
            "tool_use_id": "t",
            "content": {"type": "bash_code_execution_result", "stdout": "1", "stderr": "no", "content": []},
        },
        (),
    ),
    "compaction": (
        {"type": "compaction", "content": None},
        ({"type": "compaction_delta", "content": "The sum of it all", "encrypted_content": "gAAA"},),
    ),
    "remote tool": (
        {"type": "mcp_tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "hello", "name": "Ann"}]},
        (),
    ),
    "search": ({"type": "web_search_tool_result", "tool_use_id": "t", "content": [_FOUND]}, ()),
    "tool": ({"type": "server_tool_use", "id": "t", "name": "web_search", "input": {"query": "who"}}, ()),
}
"""By name: a block as it begins, and its deltas."""


def of_block(block: Document, deltas: tuple[Document, ...]) -> Iterator[bytes]:
    """A message with this one block."""
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [],
        "stop_reason": None,
    }
    for document in (
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ):
        yield named_event(document)
