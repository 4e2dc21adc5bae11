"""How deep JSON nests, found in bounded time whatever the text is."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline_server.core.validation import MAX_JSON_DEPTH, json_depth_is_bounded

LIMIT_S = 5.0  # On a busy machine. What is slow takes minutes.


def nested(levels: int) -> str:
    """Arrays within arrays."""
    return "[" * levels + "]" * levels


def depth(value: Any) -> int:
    """Levels of nesting."""
    if isinstance(value, dict):
        return 1 + max((depth(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((depth(item) for item in value), default=0)
    return 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('[]{}"\\a\n'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[{"\\'), inner),
    max_leaves=30,
)


@pytest.mark.parametrize(
    ("text", "is_bounded"),
    [
        (nested(MAX_JSON_DEPTH), True),
        (nested(MAX_JSON_DEPTH + 1), False),
        (nested(10_000), False),
        ("[" * 10_000, False),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, False),
        ("[" + "[]," * 10_000 + "[]]", True),
        (json.dumps("[" * 10_000), True),
        (json.dumps(['"[' * 10_000]), True),
        (json.dumps({"{" * 10_000: "\\"}), True),
        (json.dumps(["\\" * 9, "[" * 10_000]), True),
        ("[]" * 100 + '"' + "[" * 10_000, True),
    ],
    ids=[
        "64 levels",
        "65 levels",
        "10,000 levels",
        "10,000 open levels",
        "10,000 levels of objects",
        "10,000 side by side",
        "10,000 in a string",
        "10,000 after escaped quotes",
        "10,000 in a key",
        "10,000 after escaped backslashes",
        "10,000 in a string without an end",
    ],
)
def test_levels_are_counted_outside_strings(text, is_bounded):
    assert json_depth_is_bounded(text) is is_bounded
    assert json_depth_is_bounded(text.encode()) is is_bounded


@given(VALUES, st.integers(0, 6))
def test_text_and_bytes_nest_as_deep_as_the_value_that_they_stand_for(value, limit):
    text = json.dumps(value, ensure_ascii=False)

    found = json_depth_is_bounded(text, limit)

    assert found is (depth(value) <= limit)
    assert json_depth_is_bounded(text.encode(), limit) is found


@pytest.mark.parametrize(
    "text",
    [
        "[]" * 100 + '"' + '\\"' * 100_000,
        "[]" * 100 + '"' + "a" * 16_000_000 + '"',
        "[]" * 100 + '"' * 1_000_001,
        "[]," * 600_000,
    ],
    ids=["escaped quotes without an end", "a long string", "quotes", "brackets"],
)
def test_no_text_takes_long(text):
    started_s = time.process_time()

    json_depth_is_bounded(text)

    assert time.process_time() - started_s < LIMIT_S
