"""One answer as each dialect would send it, so that the same must be read from all of them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.providers.event_stream import stream
from tests.providers.readings import Reading


@dataclass(frozen=True)
class Text:
    """A visible part, as the pieces it comes in."""

    pieces: tuple[str, ...]


@dataclass(frozen=True)
class Thought:
    """Reasoning that is shown, as the pieces it comes in."""

    pieces: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """A tool call, as the fragments of its arguments."""

    name: str
    fragments: tuple[str, ...]

    @property
    def arguments(self) -> str:
        """Whole."""
        return "".join(self.fragments)


@dataclass(frozen=True)
class Tokens:
    """Counts as the contract has them: details are part of their totals."""

    input: int = 100
    cached: int = 0
    output: int = 30
    reasoning: int = 0


Part = Text | Thought | Call


@dataclass(frozen=True)
class Answer:
    """Parts in order; `end` is the contract's word."""

    parts: tuple[Part, ...]
    end: str = "STOP"
    tokens: Tokens = Tokens()


def sse(*events: Any) -> bytes:
    """One event for each value; text as it stands."""
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


# OpenAI

_OPENAI_ENDS = {
    "STOP": "stop",
    "LENGTH": "length",
    "TOOL_CALLS": "tool_calls",
    "CONTENT_FILTER": "content_filter",
}


def openai(answer: Answer) -> bytes:
    """Chat completion chunks."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None}

    def deltas() -> Iterator[dict[str, Any]]:
        index = 0
        for part in answer.parts:
            match part:
                case Text():
                    yield from ({"content": piece} for piece in part.pieces)
                case Thought():
                    yield from ({"reasoning_content": piece} for piece in part.pieces)
                case Call():
                    begun = {"index": index, "id": f"c{index}", "type": "function"}
                    yield {"tool_calls": [{**begun, "function": {"name": part.name}}]}
                    for fragment in part.fragments:
                        more = {"index": index, "function": {"arguments": fragment}}
                        yield {"tool_calls": [more]}
                    index += 1

    tokens = answer.tokens
    usage = {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }
    return sse(
        chunk({"role": "assistant", "content": ""}),
        *map(chunk, deltas()),
        chunk({}, _OPENAI_ENDS[answer.end]),
        {"choices": [], "usage": usage},
        "[DONE]",
    )


# Anthropic

_ANTHROPIC_ENDS = {
    "STOP": "end_turn",
    "LENGTH": "max_tokens",
    "TOOL_CALLS": "tool_use",
    "REFUSAL": "refusal",
}


def anthropic(answer: Answer) -> bytes:
    """Messages events."""

    def blocks() -> Iterator[dict[str, Any]]:
        for index, part in enumerate(answer.parts):
            block, deltas = _anthropic_block(index, part)
            yield {"type": "content_block_start", "index": index, "content_block": block}
            for delta in deltas:
                yield {"type": "content_block_delta", "index": index, "delta": delta}
            yield {"type": "content_block_stop", "index": index}

    tokens = answer.tokens
    usage = {
        "input_tokens": tokens.input - tokens.cached,
        "cache_read_input_tokens": tokens.cached,
        "output_tokens": tokens.output,
        "output_tokens_details": {"thinking_tokens": tokens.reasoning},
    }
    return sse(
        {"type": "message_start", "message": {"type": "message", "model": "m", "content": []}},
        *blocks(),
        {
            "type": "message_delta",
            "delta": {"stop_reason": _ANTHROPIC_ENDS[answer.end]},
            "usage": usage,
        },
        {"type": "message_stop"},
    )


def _anthropic_block(index: int, part: Part) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    match part:
        case Text():
            deltas = [{"type": "text_delta", "text": piece} for piece in part.pieces]
            return {"type": "text", "text": ""}, deltas
        case Thought():
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in part.pieces]
            signed = {"type": "signature_delta", "signature": "c2ln"}
            return {"type": "thinking", "thinking": ""}, [*deltas, signed]
        case Call():
            block = {"type": "tool_use", "id": f"c{index}", "name": part.name, "input": {}}
            return block, [
                {"type": "input_json_delta", "partial_json": fragment}
                for fragment in part.fragments
            ]


# Gemini

_GEMINI_ENDS = {
    "STOP": "STOP",
    "LENGTH": "MAX_TOKENS",
    "TOOL_CALLS": "STOP",
    "CONTENT_FILTER": "SAFETY",
}


def gemini(answer: Answer) -> bytes:
    """Events of streamGenerateContent."""
    parts: list[dict[str, Any]] = []
    for part in answer.parts:
        match part:
            case Text():
                parts += [{"text": piece} for piece in part.pieces]
            case Thought():
                parts += [{"text": piece, "thought": True} for piece in part.pieces]
            case Call():
                called = {"name": part.name, "args": json.loads(part.arguments)}
                parts.append({"functionCall": called})
    tokens = answer.tokens
    usage = {
        "promptTokenCount": tokens.input,
        "cachedContentTokenCount": tokens.cached,
        "candidatesTokenCount": tokens.output - tokens.reasoning,
        "thoughtsTokenCount": tokens.reasoning,
    }
    return sse(
        *({"candidates": [{"index": 0, "content": {"parts": [part]}}]} for part in parts),
        {
            "candidates": [{"index": 0, "finishReason": _GEMINI_ENDS[answer.end]}],
            "usageMetadata": usage,
        },
    )


# Cohere

_COHERE_ENDS = {"STOP": "COMPLETE", "LENGTH": "MAX_TOKENS", "TOOL_CALLS": "TOOL_CALL"}


def cohere(answer: Answer) -> bytes:
    """Events of version 2 of the chat API. A call is numbered among calls, a block among blocks."""

    def delta(kind: str, index: int, **message: Any) -> dict[str, Any]:
        return {"type": kind, "index": index, "delta": {"message": message}}

    def block(index: int, kind: str, pieces: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        yield delta("content-start", index, content={"type": kind, kind: ""})
        for piece in pieces:
            yield delta("content-delta", index, content={kind: piece})
        yield {"type": "content-end", "index": index}

    def events() -> Iterator[dict[str, Any]]:
        blocks = calls = 0
        for part in answer.parts:
            match part:
                case Text():
                    yield from block(blocks, "text", part.pieces)
                    blocks += 1
                case Thought():
                    yield from block(blocks, "thinking", part.pieces)
                    blocks += 1
                case Call():
                    begun = {"name": part.name, "arguments": ""}
                    called = {"id": f"c{calls}", "type": "function", "function": begun}
                    yield delta("tool-call-start", calls, tool_calls=called)
                    for fragment in part.fragments:
                        more = {"function": {"arguments": fragment}}
                        yield delta("tool-call-delta", calls, tool_calls=more)
                    yield {"type": "tool-call-end", "index": calls}
                    calls += 1

    tokens = answer.tokens
    usage = {
        "billed_units": {"input_tokens": 1, "output_tokens": 1},
        "tokens": {"input_tokens": float(tokens.input), "output_tokens": float(tokens.output)},
        "cached_tokens": float(tokens.cached),
    }
    return sse(
        {"type": "message-start", "id": "x", "delta": {"message": {"content": []}}},
        *events(),
        {
            "type": "message-end",
            "delta": {"finish_reason": _COHERE_ENDS[answer.end], "usage": usage},
        },
        "[DONE]",
    )


# Ollama

_OLLAMA_ENDS = {"STOP": "stop", "LENGTH": "length", "TOOL_CALLS": "stop"}


def ollama(answer: Answer) -> bytes:
    """Lines of /api/chat."""
    messages: list[dict[str, Any]] = []
    for part in answer.parts:
        match part:
            case Text():
                messages += [{"content": piece} for piece in part.pieces]
            case Thought():
                messages += [{"content": "", "thinking": piece} for piece in part.pieces]
            case Call():
                called = {"name": part.name, "arguments": json.loads(part.arguments)}
                messages.append({"content": "", "tool_calls": [{"function": called}]})
    lines: list[dict[str, Any]] = [{"message": message, "done": False} for message in messages]
    lines.append(
        {
            "message": {"content": ""},
            "done": True,
            "done_reason": _OLLAMA_ENDS[answer.end],
            "prompt_eval_count": answer.tokens.input,
            "eval_count": answer.tokens.output,
        }
    )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


# Bedrock

_BEDROCK_ENDS = {
    "STOP": "end_turn",
    "LENGTH": "max_tokens",
    "TOOL_CALLS": "tool_use",
    "CONTENT_FILTER": "content_filtered",
}


def bedrock(answer: Answer) -> bytes:
    """Events of ConverseStream. Which tokens went into reasoning is not told."""

    def events() -> Iterator[tuple[str, dict[str, Any]]]:
        yield "messageStart", {"role": "assistant"}
        for index, part in enumerate(answer.parts):
            where: dict[str, Any] = {"contentBlockIndex": index}
            if isinstance(part, Call):
                use = {"toolUseId": f"c{index}", "name": part.name}
                yield "contentBlockStart", {**where, "start": {"toolUse": use}}
            for delta in _bedrock_deltas(part):
                yield "contentBlockDelta", {**where, "delta": delta}
            yield "contentBlockStop", where
        yield "messageStop", {"stopReason": _BEDROCK_ENDS[answer.end]}
        tokens = answer.tokens
        usage = {
            "inputTokens": tokens.input - tokens.cached,
            "cacheReadInputTokens": tokens.cached,
            "outputTokens": tokens.output,
            "totalTokens": tokens.input + tokens.output,
        }
        yield "metadata", {"usage": usage, "metrics": {"latencyMs": 1}}

    return stream(events())


def _bedrock_deltas(part: Part) -> list[dict[str, Any]]:
    match part:
        case Text():
            return [{"text": piece} for piece in part.pieces]
        case Thought():
            deltas = [{"reasoningContent": {"text": piece}} for piece in part.pieces]
            return [*deltas, {"reasoningContent": {"signature": "c2ln"}}]
        case Call():
            return [{"toolUse": {"input": fragment}} for fragment in part.fragments]


WRITERS: Final[dict[str, Callable[[Answer], bytes]]] = {
    "openai": openai,
    "anthropic": anthropic,
    "bedrock": bedrock,
    "gemini": gemini,
    "cohere": cohere,
    "ollama": ollama,
}

# Contract events

Row = tuple[Any, ...]


def rows(reading: Reading) -> list[Row]:
    """Events without what may differ: where deltas are cut, ids, native words, opaque state, kinds of thought."""
    found: list[Row] = []
    for event in reading.events:
        row = _row(event)
        if row is None:
            continue
        if found and found[-1][:-1] == row[:-1] and row[0] in ("text", "thought", "arguments"):
            found[-1] = (*row[:-1], found[-1][-1] + row[-1])
        else:
            found.append(row)
    return [_parsed(row) for row in found]


def _row(event: Any) -> Row | None:
    match event.WhichOneof("event"):
        case "text_delta":
            return ("text", event.text_delta.part_index, event.text_delta.text)
        case "reasoning_delta":
            return ("thought", event.reasoning_delta.part_index, event.reasoning_delta.text)
        case "tool_call_delta":
            delta = event.tool_call_delta
            where = (delta.part_index, delta.tool_call_index)
            if delta.name:
                return ("call", *where, delta.name)
            return ("arguments", *where, delta.arguments_json)
        case "part_completed" if event.part_completed.part.HasField("tool_call"):
            part = event.part_completed
            called = part.part.tool_call
            return ("called", part.part_index, called.name, called.arguments_json)
        case "part_completed":
            return None
        case "choice_finished":
            return ("finished", event.choice_finished.finish_reason)
        case other:
            raise AssertionError(other)


def _parsed(row: Row) -> Row:
    # Gemini hands arguments over as a value, so their spelling is its own.
    return (*row[:-1], json.loads(row[-1])) if row[0] in ("arguments", "called") else row


def expected(answer: Answer, end: int) -> list[Row]:
    """The rows that every dialect must give."""
    made: list[Row] = []
    completed: list[Row] = []
    calls = 0
    for index, part in enumerate(answer.parts):
        match part:
            case Text():
                made.append(("text", index, "".join(part.pieces)))
            case Thought():
                made.append(("thought", index, "".join(part.pieces)))
            case Call():
                value = json.loads(part.arguments)
                made.append(("call", index, calls, part.name))
                made.append(("arguments", index, calls, value))
                completed.append(("called", index, part.name, value))
                calls += 1
    return [*made, *completed, ("finished", end)]
