"""The dialects as an upstream writes them: whole answers, and the pieces that faults are made of.

A dialect is one row of `WIRES`. All that is tested here is then tested of it too.
"""

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.providers.event_stream import TYPE, event
from tests.support.upstream import chunk, delta, finish, usage

MARK: Final = re.compile(rb"mark-[0-9a-z-]+")
WORDS: Final = 8


def said(mark: str, provider: str) -> str:
    """What a provider answers to the prompt that holds `mark`. No two requests and no two providers say the same."""
    digest = hashlib.sha256(f"{mark} {provider}".encode()).hexdigest()
    return f"<{mark} {provider}> " + " ".join(digest[i * 8 : i * 8 + 8] for i in range(WORDS))


def pieces(text: str) -> list[str]:
    """As the deltas of a stream cut it."""
    return re.findall(r"\S+\s*", text)


@dataclass(frozen=True)
class Counts:
    """The tokens that an answer says it took; `of` writes them in its dialect. Absent where None."""

    input_tokens: Any = 9
    output_tokens: Any = 12


@dataclass(frozen=True)
class Wire:
    """One dialect.

    Attributes:
        opening: an event of a stream that holds no content yet.
        ping: what keeps a connection awake and says nothing.
        text: an event with a piece of the answer.
        ending: the events that end the answer, given its last piece.
        finish: of their bytes, those from which on the answer may be taken for whole.
        error: an event that says the provider failed.
        malformed: an event that can't be read.
        endless: the beginning of an event that never ends.
        whole: the answer as one JSON object.
        refusal: the body of an HTTP error.
        asks_for_stream: whether a request, by its head and body, wants a stream.
        stream_type: the content type of a stream.
        base_path: of its URLs.
        settings: what a provider of this dialect needs beside them.
    """

    name: str
    opening: bytes
    ping: bytes
    text: Callable[[str], bytes]
    ending: Callable[[str, Counts | None], list[bytes]]
    finish: bytes
    error: bytes
    whole: Callable[[str, Counts | None], bytes]
    refusal: Callable[[int], bytes]
    asks_for_stream: Callable[[str, bytes], bool]
    malformed: bytes = b'data: {"choices": [{"delta"\n\n'
    endless: bytes = b"data: "
    stream_type: str = "text/event-stream"
    base_path: str = "/v1"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def provider(self, name: str, url: str) -> dict[str, Any]:
        """An entry of `[[providers]]` for an upstream at this URL."""
        entry = {"id": name, "dialect": self.name, "base_url": url + self.base_path}
        return {**entry, **self.settings}

    def stream(self, text: str, counts: Counts | None = Counts()) -> list[bytes]:
        """All events of an answer."""
        *first, last = pieces(text)
        return [self.opening, *map(self.text, first), *self.ending(last, counts)]


def _data(value: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps(value).encode()


def _named(kind: str, **more: Any) -> bytes:
    return b"event: %b\n" % kind.encode() + _data({"type": kind, **more})


# OpenAI


def _openai_opening() -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    return _data({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})


def _openai_usage(counts: Counts) -> dict[str, Any]:
    return {
        "prompt_tokens": counts.input_tokens,
        "completion_tokens": counts.output_tokens,
        "total_tokens": counts.output_tokens,
    }


def _openai_ending(last: str, counts: Counts | None) -> list[bytes]:
    events = [_data(delta(last)), _data(finish())]
    if counts is not None:
        events.append(_data({**usage(), "usage": _openai_usage(counts)}))
    return [*events, b"data: [DONE]\n\n"]


def _openai_whole(text: str, counts: Counts | None) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    body: dict[str, Any] = {
        "id": "c",
        "object": "chat.completion",
        "model": "m",
        "choices": [choice],
    }
    if counts is not None:
        body["usage"] = _openai_usage(counts)
    return json.dumps(body).encode()


def _openai_refusal(status: int) -> bytes:
    kind = "rate_limit_exceeded" if status == 429 else "server_error"
    error = {"message": "no", "type": kind, "param": None, "code": kind}
    return json.dumps({"error": error}).encode()


# Anthropic


def _anthropic_opening() -> bytes:
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1},
    }
    block = {"index": 0, "content_block": {"type": "text", "text": ""}}
    return _named("message_start", message=message) + _named("content_block_start", **block)


def _anthropic_text(piece: str) -> bytes:
    return _named("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})


def _anthropic_usage(counts: Counts) -> dict[str, Any]:
    return {"input_tokens": counts.input_tokens, "output_tokens": counts.output_tokens}


def _anthropic_ending(last: str, counts: Counts | None) -> list[bytes]:
    more = {"usage": _anthropic_usage(counts)} if counts is not None else {}
    return [
        _anthropic_text(last),
        _named("content_block_stop", index=0),
        _named("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, **more),
        _named("message_stop"),
    ]


def _anthropic_whole(text: str, counts: Counts | None) -> bytes:
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
    }
    if counts is not None:
        message["usage"] = _anthropic_usage(counts)
    return json.dumps(message).encode()


def _anthropic_refusal(status: int) -> bytes:
    kinds = {429: "rate_limit_error", 529: "overloaded_error"}
    error = {"type": kinds.get(status, "api_error"), "message": "no"}
    return json.dumps({"type": "error", "error": error}).encode()


# Gemini


def _gemini_chunk(parts: list[dict[str, str]], **more: Any) -> dict[str, Any]:
    candidate = {"content": {"parts": parts, "role": "model"}, "index": 0, **more}
    return {"candidates": [candidate], "modelVersion": "m", "responseId": "r"}


def _gemini_last(text: str, counts: Counts | None) -> dict[str, Any]:
    last = _gemini_chunk([{"text": text}], finishReason="STOP")
    if counts is not None:
        last["usageMetadata"] = {
            "promptTokenCount": counts.input_tokens,
            "candidatesTokenCount": counts.output_tokens,
            "totalTokenCount": counts.output_tokens,
        }
    return last


def _gemini_refusal(status: int) -> bytes:
    kind = {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}.get(status, "UNAVAILABLE")
    return json.dumps({"error": {"code": status, "message": "no", "status": kind}}).encode()


# Cohere


def _cohere_text(piece: str) -> bytes:
    return _named("content-delta", index=0, delta={"message": {"content": {"text": piece}}})


def _cohere_opening() -> bytes:
    message = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
    content = {"type": "text", "text": ""}
    return _named("message-start", id="r", delta={"message": message}) + _named(
        "content-start", index=0, delta={"message": {"content": content}}
    )


def _cohere_usage(counts: Counts | None) -> dict[str, Any]:
    if counts is None:
        return {}
    tokens = {"input_tokens": counts.input_tokens, "output_tokens": counts.output_tokens}
    return {"usage": {"billed_units": tokens, "tokens": tokens}}


def _cohere_ending(last: str, counts: Counts | None) -> list[bytes]:
    end = {"finish_reason": "COMPLETE", **_cohere_usage(counts)}
    return [
        _cohere_text(last),
        _named("content-end", index=0),
        _named("message-end", delta=end),
        b"data: [DONE]\n\n",
    ]


def _cohere_whole(text: str, counts: Counts | None) -> bytes:
    message = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    end = {"finish_reason": "COMPLETE", **_cohere_usage(counts)}
    return json.dumps({"id": "r", "message": message, **end}).encode()


# Ollama


def _line(**fields: Any) -> bytes:
    return (
        json.dumps({"model": "m", "created_at": "2026-11-22T02:30:00Z", **fields}).encode() + b"\n"
    )


def _ollama_text(piece: str) -> bytes:
    return _line(message={"role": "assistant", "content": piece}, done=False)


def _ollama_end(text: str, counts: Counts | None) -> bytes:
    end: dict[str, Any] = {"done": True, "done_reason": "stop"}
    if counts is not None:
        end |= {"prompt_eval_count": counts.input_tokens, "eval_count": counts.output_tokens}
    return _line(message={"role": "assistant", "content": text}, **end)


# Bedrock


def _bedrock_text(piece: str) -> bytes:
    return event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}})


def _bedrock_usage(counts: Counts) -> dict[str, Any]:
    return {
        "inputTokens": counts.input_tokens,
        "outputTokens": counts.output_tokens,
        "totalTokens": counts.output_tokens,
    }


def _bedrock_ending(last: str, counts: Counts | None) -> list[bytes]:
    usage = {"usage": _bedrock_usage(counts)} if counts is not None else {}
    return [
        _bedrock_text(last),
        event("contentBlockStop", {"contentBlockIndex": 0}),
        event("messageStop", {"stopReason": "end_turn"}),
        event("metadata", {"metrics": {"latencyMs": 5}, **usage}),
    ]


def _bedrock_whole(text: str, counts: Counts | None) -> bytes:
    body: dict[str, Any] = {
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
        "stopReason": "end_turn",
        "metrics": {"latencyMs": 5},
    }
    if counts is not None:
        body["usage"] = _bedrock_usage(counts)
    return json.dumps(body).encode()


def _bedrock_endless() -> bytes:
    """The lengths of a message of 15 MB, in good order."""
    lengths = struct.pack(">II", 15_000_000, 0)
    return lengths + struct.pack(">I", zlib.crc32(lengths))


WIRES: Final[Mapping[str, Wire]] = {
    "openai": Wire(
        name="openai",
        opening=_openai_opening(),
        ping=b": ping\n\n",
        text=lambda piece: _data(delta(piece)),
        ending=_openai_ending,
        finish=b'"finish_reason": "stop"',
        error=_data({"error": {"message": "no", "type": "server_error", "code": "server_error"}}),
        whole=_openai_whole,
        refusal=_openai_refusal,
        asks_for_stream=lambda head, body: bool(json.loads(body).get("stream")),
    ),
    "anthropic": Wire(
        name="anthropic",
        opening=_anthropic_opening(),
        ping=_named("ping"),
        text=_anthropic_text,
        ending=_anthropic_ending,
        finish=b'"stop_reason": "end_turn"',
        error=_named("error", error={"type": "overloaded_error", "message": "no"}),
        whole=_anthropic_whole,
        refusal=_anthropic_refusal,
        asks_for_stream=lambda head, body: bool(json.loads(body).get("stream")),
    ),
    "gemini": Wire(
        name="gemini",
        opening=_data(_gemini_chunk([])),
        ping=b": ping\n\n",
        text=lambda piece: _data(_gemini_chunk([{"text": piece}])),
        ending=lambda last, counts: [_data(_gemini_last(last, counts))],
        finish=b'"finishReason"',
        error=b"data: %b\n\n" % _gemini_refusal(503),
        whole=lambda text, counts: json.dumps(_gemini_last(text, counts)).encode(),
        refusal=_gemini_refusal,
        asks_for_stream=lambda head, body: ":streamGenerateContent" in head,
        base_path="/v1beta",
    ),
    "cohere": Wire(
        name="cohere",
        opening=_cohere_opening(),
        ping=b": ping\n\n",
        text=_cohere_text,
        ending=_cohere_ending,
        finish=b'"message-end"',
        error=_named("message-end", delta={"finish_reason": "ERROR", "error": "no"}),
        whole=_cohere_whole,
        refusal=lambda status: b'{"id": "r", "message": "no"}',
        asks_for_stream=lambda head, body: bool(json.loads(body).get("stream")),
        base_path="/v2",
    ),
    "ollama": Wire(
        name="ollama",
        opening=_ollama_text(""),
        ping=b"\n",
        text=_ollama_text,
        ending=lambda last, counts: [_ollama_text(last), _ollama_end("", counts)],
        finish=b'"done": true',
        error=b'{"error": "no"}\n',
        whole=_ollama_end,
        refusal=lambda status: b'{"error": "no"}',
        asks_for_stream=lambda head, body: bool(json.loads(body).get("stream", True)),
        malformed=b'{"model": "m", "mess\n',
        endless=b'{"model": "',
        stream_type="application/x-ndjson",
        base_path="",
    ),
    "bedrock": Wire(
        name="bedrock",
        opening=event("messageStart", {"role": "assistant"}),
        ping=event("nothing", {}),
        text=_bedrock_text,
        ending=_bedrock_ending,
        finish=b"messageStop",
        error=event("serviceUnavailableException", {"message": "no"}),
        whole=_bedrock_whole,
        refusal=lambda status: b'{"message": "no"}',
        asks_for_stream=lambda head, body: "/converse-stream " in head,
        malformed=event("messageStop", {"stopReason": "end_turn"})[:-1] + b"?",
        endless=_bedrock_endless(),
        stream_type=TYPE,
        base_path="",
        settings={"api_key_env": "A_KEY"},
    ),
}
# Without a key of its own a provider is asked with whatever credentials this machine has.
ENVIRONMENT: Final = {"A_KEY": "a key"}


def in_chunks(events: list[bytes]) -> bytes:
    """Events as HTTP chunks, each in its own."""
    return b"".join(chunk(event) for event in events)
