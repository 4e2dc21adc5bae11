"""Server-sent events: the same payloads, however the bytes are split."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline_server.wire.sse import (
    BOM,
    MAX_EVENT_BYTES,
    MAX_LINE_BYTES,
    MalformedStream,
    SSEDecoder,
)


def payloads(*chunks: bytes) -> list[bytes]:
    """What a decoder makes of these reads and the end."""
    decoder = SSEDecoder()
    found = [payload for chunk in chunks for payload in decoder.feed(chunk)]
    return [*found, *decoder.finish()]


def by_the_book(stream: bytes) -> list[bytes]:
    """The specification, word for word, over the whole stream; a last event needs no empty line."""
    lines = re.split(rb"\r\n|\r|\n", stream.removeprefix(BOM))
    if lines.pop():  # A line without an end is no line, and an event that it cuts off is none.
        while lines and lines[-1]:
            lines.pop()
    found: list[bytes] = []
    data: list[bytes] = []
    for line in [*lines, b""]:
        if not line and data:
            found.append(b"\n".join(data))
            data = []
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
    return found


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"data: a", b"", b"data: b", b""], [b"a", b"b"]),
        ([b"data:a", b""], [b"a"]),
        ([b"data:  a ", b""], [b" a "]),
        ([b"data: a", b"data: b", b"data", b""], [b"a\nb\n"]),
        ([b"event: x", b"id: 1", b"data: a", b"retry: 5", b""], [b"a"]),
        ([b": comment", b"", b":", b"", b"data: a", b""], [b"a"]),
        ([b"event: ping", b""], []),
        ([b"", b"", b"", b"data: a", b"", b"", b""], [b"a"]),
        ([b"database: a", b" data: b", b""], []),
        ([b"data", b""], [b""]),
        ([b"data: [DONE]"], [b"[DONE]"]),
    ],
    ids=[
        "two",
        "without a space",
        "one space alone is dropped",
        "several lines",
        "other fields",
        "comments",
        "no data",
        "empty lines",
        "other names",
        "a name alone",
        "no empty line at the end",
    ],
)
def test_events_are_read_with_each_line_end(lines, expected, end):
    stream = b"".join(line + end for line in lines)

    assert payloads(stream) == expected
    assert payloads(*(stream[i : i + 1] for i in range(len(stream)))) == expected


def test_what_the_end_cuts_off_is_no_event():
    assert payloads(b"data: a\n\ndata: b") == [b"a"]


def test_a_byte_order_mark_is_passed_over_once():
    assert payloads(BOM + b"data: a\n\n" + BOM + b"data: b\n\n") == [b"a"]
    assert payloads(BOM[:1], BOM[1:2], BOM[2:] + b"data: a\n\n") == [b"a"]


PIECES = st.sampled_from(
    [b"data: ", b"data:", b"data", b"a", b": c", b"\n", b"\r", b"\r\n", b"\n\n", b"\xc3\xa9", BOM]
)
STREAMS = st.lists(PIECES, max_size=40).map(b"".join)


def split(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The stream, cut at these places."""
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in pairwise(places)]


@given(STREAMS, st.lists(st.integers(0), max_size=12))
def test_any_split_gives_what_the_specification_gives(stream, cuts):
    assert payloads(*split(stream, cuts)) == by_the_book(stream)


def test_an_empty_read_changes_nothing():
    assert payloads(b"", b"data: a", b"", b"\n\n", b"") == [b"a"]


@pytest.mark.parametrize("size", [MAX_LINE_BYTES // 4, MAX_LINE_BYTES - 10])
def test_a_line_within_the_limit_is_read(size):
    stream = b"data: " + b"x" * size + b"\n\n"

    assert payloads(stream[:1000], stream[1000:]) == [b"x" * size]


def feed(chunks: Iterable[bytes]) -> None:
    """These reads, one after the other."""
    decoder = SSEDecoder()
    for chunk in chunks:
        decoder.feed(chunk)


def test_a_line_over_the_limit_is_refused_before_it_ends():
    with pytest.raises(MalformedStream):
        feed(repeat(b"x" * 65_536, MAX_LINE_BYTES // 65_536 + 2))


def test_an_event_over_the_limit_is_refused_before_it_ends():
    line = b"data: " + b"x" * 500_000 + b"\n"

    with pytest.raises(MalformedStream):
        feed(repeat(line, MAX_EVENT_BYTES // len(line) + 2))


def test_longer_lines_may_be_allowed():
    decoder = SSEDecoder(max_line_bytes=2 * MAX_EVENT_BYTES, max_event_bytes=2 * MAX_EVENT_BYTES)
    line = b"data: " + b"x" * MAX_EVENT_BYTES

    assert [*decoder.feed(line), *decoder.feed(b"\n\n")] == [b"x" * MAX_EVENT_BYTES]
    with pytest.raises(MalformedStream):
        decoder.feed(b"x" * (2 * MAX_EVENT_BYTES + 1))
