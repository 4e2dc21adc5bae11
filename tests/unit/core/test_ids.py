"""ULIDs: 26 characters whose order is that of time."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline_server.core.ids import ALPHABET, ENTROPY_BYTES, ulid

ENTROPY = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)
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
        (0, bytes(16), "0" * 26),
        (2**48 - 1, b"\xff" * 16, "7" + "Z" * 25),
        # The time of the specification.
        (1469918176385, bytes(range(16)), "01ARYZ6S41" + "0123456789ABCDEF"),
    ],
)
def test_known_values_are_written_as_the_specification_writes_them(milliseconds, entropy, text):
    assert ulid(milliseconds, entropy) == text


@given(MILLISECONDS, ENTROPY)
def test_an_id_holds_its_time_and_its_entropy(milliseconds, entropy):
    text = ulid(milliseconds, entropy)

    assert re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", text)
    value = value_of(text)
    assert value >> 80 == milliseconds
    assert [value >> 75 - 5 * i & 31 for i in range(16)] == [byte & 31 for byte in entropy]


@given(MILLISECONDS, MILLISECONDS, ENTROPY)
def test_ids_sort_by_time(one_ms, other_ms, entropy):
    assert (ulid(one_ms, entropy) < ulid(other_ms, entropy)) is (one_ms < other_ms)
