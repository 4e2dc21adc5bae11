"""ULIDs: 26 characters whose order is that of time."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline_server.core.ids import ALPHABET, ulid

ENTROPY = st.binary(min_size=10, max_size=10)
MILLISECONDS = st.integers(0, 2**48 - 1)


def value_of(text: str) -> int:
    """The 128 bits that a ULID writes."""
    value = 0
    for letter in text:
        value = value * 32 + ALPHABET.index(letter)
    return value


@pytest.mark.parametrize(
    ("milliseconds", "entropy", "text"),
    [
        (0, bytes(10), "0" * 26),
        (2**48 - 1, b"\xff" * 10, "7" + "Z" * 25),
        (1469918176385, bytes(10), "01ARYZ6S41" + "0" * 16),  # The time of the specification.
    ],
)
def test_known_values_are_written_as_the_specification_writes_them(milliseconds, entropy, text):
    assert ulid(milliseconds, entropy) == text


@given(MILLISECONDS, ENTROPY)
def test_an_id_holds_its_time_and_its_entropy(milliseconds, entropy):
    text = ulid(milliseconds, entropy)

    assert re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", text)
    assert value_of(text) == milliseconds << 80 | int.from_bytes(entropy, "big")


@given(MILLISECONDS, MILLISECONDS, ENTROPY, ENTROPY)
def test_ids_sort_by_time_and_then_by_entropy(one_ms, other_ms, one, other):
    assert (ulid(one_ms, one) < ulid(other_ms, other)) is ((one_ms, one) < (other_ms, other))
