"""The same answer gives the same contract events in every dialect."""

import json
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.providers.canonical import (
    WRITERS,
    Answer,
    Call,
    Part,
    Text,
    Thought,
    Tokens,
    expected,
    rows,
)
from tests.providers.event_stream import event
from tests.providers.readings import read, split
from trunkline.v1.completion_pb2 import FinishReason, Usage
from trunkline_server.providers.services import SERVICES

HELLO = Text(("Hé", "llo", ", world 👋"))
OSLO = Call("get_weather", ('{"ci', 'ty": "Os', 'lo"}'))
ROME = Call("get_weather", ('{"city": "Rome", "days": 2}',))
NOW = Call("now", ("{}",))
CASES = {
    "hello": Answer((HELLO,)),
    "tool call": Answer((OSLO,), "TOOL_CALLS"),
    "text and a tool call": Answer((HELLO, OSLO), "TOOL_CALLS"),
    "parallel tools": Answer((HELLO, OSLO, ROME, NOW), "TOOL_CALLS"),
    "length": Answer((HELLO,), "LENGTH"),
    "length after a whole call": Answer((ROME,), "LENGTH"),
    "thinking": Answer((Thought(("Hm", ".")), HELLO), tokens=Tokens(reasoning=12)),
    "thinking before a call": Answer((Thought(("Hm", ".")), OSLO), "TOOL_CALLS"),
    "cached and reasoning tokens": Answer((HELLO,), tokens=Tokens(5326, 4096, 71, 64)),
}
DIALECTS = sorted({*WRITERS, *SERVICES})


def written(dialect: str, answer: Answer) -> bytes:
    return WRITERS.get(dialect, WRITERS["openai"])(answer)


# Details that a dialect has no counts for.
UNCOUNTED: dict[str, list[Literal["cached_input_tokens", "reasoning_tokens"]]] = {
    "bedrock": ["reasoning_tokens"],
    "cohere": ["reasoning_tokens"],
    "ollama": ["cached_input_tokens", "reasoning_tokens"],
}


def usage(dialect: str, tokens: Tokens) -> Usage:
    counted = Usage(
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        total_tokens=tokens.input + tokens.output,
        cached_input_tokens=tokens.cached,
        reasoning_tokens=tokens.reasoning,
    )
    for name in UNCOUNTED.get(dialect, ()):
        counted.ClearField(name)
    return counted


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("case", CASES)
def test_an_answer_gives_the_same_events_in_every_dialect(case, dialect):
    answer = CASES[case]

    reading = read(dialect, [written(dialect, answer)])

    assert reading.error is None
    assert rows(reading) == expected(answer, FinishReason.Value(f"FINISH_REASON_{answer.end}"))
    assert reading.facts.usage == usage(dialect, answer.tokens)


@pytest.mark.parametrize(
    ("dialect", "end", "text"),
    [
        # OpenAI has a field for it and an ordinary end; the others have an end, and Anthropic an explanation.
        ("openai", "STOP", "I can't help with that."),
        ("anthropic", "REFUSAL", "This request may enable harm."),
        ("gemini", "CONTENT_FILTER", ""),
        ("bedrock", "CONTENT_FILTER", ""),
    ],
)
def test_a_refusal_is_told_as_each_vendor_does(dialect, end, text):
    stream = REFUSALS[dialect]

    reading = read(dialect, [stream])

    [choice] = reading.choices
    assert choice.finish_reason == FinishReason.Value(f"FINISH_REASON_{end}")
    assert [part.refusal for part in choice.message.parts if part.refusal] == [text] * bool(text)


REFUSALS = {
    "openai": b'data: {"choices":[{"index":0,"delta":{"refusal":"I can\'t help with that."}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    "anthropic": b'data: {"type":"message_delta","delta":{"stop_reason":"refusal","stop_details":'
    b'{"type":"refusal","explanation":"This request may enable harm."}},"usage":{}}\n\n'
    b'data: {"type":"message_stop"}\n\n',
    "gemini": b'data: {"candidates":[{"index":0,"finishReason":"SAFETY"}]}\n\n',
    "bedrock": event("messageStop", {"stopReason": "content_filtered"}),
}

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    text = json.dumps(draw(st.dictionaries(words, values, max_size=3)))
    at = draw(st.integers(1, len(text)))
    name = draw(st.from_regex(r"[a-zA-Z0-9_-]{1,16}", fullmatch=True))
    return Call(name, tuple(filter(None, (text[:at], text[at:]))))


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Neighbours are of different kinds: only Anthropic's blocks have borders between two of one kind."""
    thought: list[Part] = [Thought(pieces)] if (pieces := draw(pieces_of_text)) else []
    said: list[Part] = [Text(pieces)] if (pieces := draw(pieces_of_text)) else []
    called: list[Part] = list(draw(st.lists(calls(), max_size=3)))
    end = draw(st.sampled_from(["LENGTH", "TOOL_CALLS" if called else "STOP"]))
    return Answer((*thought, *said, *called), end)


pieces_of_text = st.lists(words, max_size=3).map(tuple)


@given(answer=answers(), size=st.integers(1, 64))
@settings(max_examples=60, deadline=None, database=None)
def test_any_answer_gives_the_same_events_in_every_dialect(answer, size):
    end = FinishReason.Value(f"FINISH_REASON_{answer.end}")
    for dialect, write in WRITERS.items():
        reading = read(dialect, split(write(answer), size))

        assert reading.error is None
        assert rows(reading) == expected(answer, end), dialect
