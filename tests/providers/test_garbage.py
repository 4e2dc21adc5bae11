"""Whatever an upstream sends, a decoder raises UpstreamError or nothing at all."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.providers import event_stream
from tests.providers.readings import BODIES, STREAMS, decoder, framed, read, read_whole, split
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure
from trunkline_server.core.ports import AttemptFacts
from trunkline_server.providers.registry import DIALECTS
from trunkline_server.providers.translator import Decoder

# One of each translator, and those whose rows change what is read.
READERS = ["anthropic", "bedrock", "cohere", "deepseek", "gemini", "ollama", "openai", "openrouter"]
bounded = settings(max_examples=60, deadline=None, database=None)
readers = pytest.mark.parametrize("dialect", READERS)


def streams_of(dialect: str) -> list[bytes]:
    return [found.data for found in STREAMS if found.dialect == dialect]


# Words that the dialects know, so that wrong values stand in the right places.
KEYS = sorted(
    {
        *("choices", "delta", "content", "tool_calls", "function", "arguments", "index", "id"),
        *("name", "usage", "prompt_tokens", "error", "code", "message", "metadata", "innererror"),
        *("type", "content_block", "stop_reason", "details", "error_code", "text", "thinking"),
        *("candidates", "parts", "functionCall", "args", "finishReason", "usageMetadata"),
        *("promptTokenCount", "promptFeedback", "blockReason", "@type", "status", "violations"),
        *("reasoning_details", "logprobs", "finish_reason", "x_groq", "object", "refusal"),
        *("contentBlockIndex", "start", "toolUse", "toolUseId", "input", "reasoningContent"),
        *("reasoningText", "redactedContent", "signature", "stopReason", "inputTokens", "output"),
        *("tool_plan", "tokens", "input_tokens", "output_tokens", "cached_tokens", "done"),
        *("done_reason", "prompt_eval_count", "eval_count", "top_logprobs", "token", "model"),
    }
)
WORDS = [
    "error",
    "message_start",
    "content_block_delta",
    "tool_use",
    "content-delta",
    "tool-call-start",
    "tool-call-delta",
    "message-end",
    "stop",
    "500",
    "\u00b2",
    "\u0665\u0660\u0660",
]
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(WORDS)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


def mutated(data: bytes, places: list[tuple[int, bytes]]) -> bytes:
    """With bytes put over it; a place beyond the end comes round again."""
    changed = bytearray(data)
    for at, put in places:
        start = at % (len(changed) + 1)
        changed[start : start + len(put)] = put
    return bytes(changed)


mutations = st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=6)), max_size=5)


@readers
@given(data=st.binary(max_size=200), size=st.integers(1, 200))
@bounded
def test_any_bytes_at_all_are_an_upstreams_failure(dialect, data, size):
    reading = read(dialect, split(data, size))

    assert reading.error is not None
    assert read_whole(dialect, data).error is not None


@readers
@given(data=st.data(), places=mutations, size=st.sampled_from([1, 7, 4096]))
@bounded
def test_a_stream_with_wrong_bytes_in_it_raises_nothing_else(dialect, data, places, size):
    stream = data.draw(st.sampled_from(streams_of(dialect)))

    read(dialect, split(mutated(stream, places), size))


@readers
@given(events=st.lists(values, max_size=4))
@bounded
def test_json_of_any_shape_raises_nothing_else(dialect, events):
    stream = framed(dialect, *(json.dumps(event).encode() for event in events))

    read(dialect, [stream])
    for event in events:
        read_whole(dialect, json.dumps(event).encode())


@given(data=st.data())
@bounded
def test_a_value_in_a_binary_stream_that_is_not_what_it_should_be_raises_nothing_else(data):
    source = data.draw(st.sampled_from(sorted(event_stream.FOLDER.glob("*.jsonl"))))
    lines = event_stream.lines_of(source)
    names, tree = [name for name, _ in lines], [payload for _, payload in lines]
    *path, last = data.draw(st.sampled_from(list(paths(tree))))
    holder: Any = tree
    for step in path:
        holder = holder[step]
    holder[last] = data.draw(leaves)

    read("bedrock", [event_stream.stream(zip(names, tree, strict=True))])


@readers
@given(data=st.data())
@bounded
def test_a_value_that_is_not_what_it_should_be_raises_nothing_else(dialect, data):
    stream = data.draw(st.sampled_from(streams_of(dialect)))
    changed = [replaced(line, data) for line in stream.splitlines(keepends=True)]

    read(dialect, changed)


def replaced(line: bytes, data: st.DataObject) -> bytes:
    """A line of a stream, perhaps with one value changed."""
    prefix = b"data: " if line.startswith(b"data: ") else b""
    if not line.startswith(prefix + b"{") or not line.endswith(b"}\n"):
        return line
    if not data.draw(st.booleans()):
        return line
    tree = json.loads(line.removeprefix(prefix))
    places = list(paths(tree))
    *path, last = data.draw(st.sampled_from(places))
    holder = tree
    for step in path:
        holder = holder[step]
    holder[last] = data.draw(leaves)
    return prefix + json.dumps(tree).encode() + b"\n"


def paths(tree: Any, path: tuple[Any, ...] = ()) -> Any:
    """Where every value of a tree stands."""
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from paths(value, (*path, key))


@pytest.mark.parametrize("dialect", READERS)
@given(
    status=st.integers(100, 599),
    body=st.binary(max_size=100) | values.map(lambda value: json.dumps(value).encode()),
)
@bounded
def test_no_error_body_raises(dialect, status, body):
    error = DIALECTS[dialect].translator.decode_error(status, {}, body)

    assert isinstance(error, UpstreamError)
    assert isinstance(error.failure, Failure)
    assert isinstance(error.message, str)


NASTY = [
    b'{"error": {"message": "x", "code": "\xc2\xb2"}}',  # A digit that is no number.
    b'{"error": {"message": null, "type": null, "code": true}}',
    b'{"error": [[[]]]}',
    b'[{"error": {"code": 1e400}}]',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"error": {"message": "\xff"}}',
    b'"just words"',
    b"<html>Bad gateway</html>",
    b"\x00",
    b"",
]


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@pytest.mark.parametrize("body", NASTY, ids=range(len(NASTY)))
def test_nasty_bodies_are_read_as_errors_whole_and_in_streams(dialect, body):
    assert isinstance(DIALECTS[dialect].translator.decode_error(200, {}, body), UpstreamError)
    assert read_whole(dialect, body).error is not None
    assert read(dialect, [framed(dialect, body)]).error is not None


@pytest.mark.parametrize("dialect", READERS)
def test_a_line_without_end_is_given_up(dialect):
    reader = decoder(dialect, AttemptFacts(), draws=False)
    endless = (b"data: " + b"x" * 65_536 for _ in range(128))  # 8 MiB

    with pytest.raises(UpstreamError, match="too long"):
        feed_all(reader, endless)


def feed_all(reader: Decoder, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        reader.feed(chunk)


def test_every_body_has_a_reader():
    assert {found.dialect for found in BODIES} <= set(READERS)
