"""Newline-delimited JSON: the same lines, however the bytes are split."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline_server.wire.ndjson import NDJSONDecoder
from trunkline_server.wire.sse import MAX_LINE_BYTES, MalformedStream


def lines(*chunks: bytes) -> list[bytes]:
    """What a decoder makes of these reads and the end."""
    decoder = NDJSONDecoder()
    found = [line for chunk in chunks for line in decoder.feed(chunk)]
    return [*found, *decoder.finish()]


def feed_all(decoder: NDJSONDecoder, chunks: Iterable[bytes]) -> None:
    """All chunks, in order."""
    for chunk in chunks:
        decoder.feed(chunk)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\n\n \n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\n{"b":2}', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\n{"b"', [b'{"a":1}', b'{"b"']),
        (b'{"a":1}\r\n\r\n', [b'{"a":1}\r']),  # JSON takes a CR for a blank.
        (b"\n", []),
        (b" ", []),
        (b"", []),
    ],
)
def test_lines_are_told_without_their_ends(stream, expected):
    assert lines(stream) == expected


@given(data=st.data())
def test_lines_do_not_depend_on_how_the_bytes_are_split(data):
    stream = data.draw(st.text("{}é \r\n", max_size=40)).encode()
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    edges = [0, *sorted(cuts), len(stream)]

    chunks = [stream[start:end] for start, end in pairwise(edges)]

    assert lines(*chunks) == [line for line in stream.split(b"\n") if line.strip()]


def test_a_line_may_be_as_long_as_allowed():
    line = b"x" * MAX_LINE_BYTES

    assert lines(line[:7], line[7:], b"\n") == [line]


@pytest.mark.parametrize(
    "chunks",
    [
        [b"x" * (MAX_LINE_BYTES + 1)],
        [b"x" * MAX_LINE_BYTES, b"x"],
        [b"x" * MAX_LINE_BYTES, b"x\n"],
        [b"a\n" + b"x" * (MAX_LINE_BYTES + 1)],
        [b"a\n" + b"x" * (MAX_LINE_BYTES + 1) + b"\n"],
    ],
    ids=range(5),
)
def test_a_longer_line_is_given_up(chunks):
    decoder = NDJSONDecoder()

    with pytest.raises(MalformedStream, match="too long"):
        feed_all(decoder, chunks)
