"""AWS event streams: the same messages, however the bytes are split, and none that was damaged."""

import struct
import zlib
from contextlib import suppress

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.event_stream import frame
from trunkline_server.wire.event_stream import (
    MAX_HEADERS_BYTES,
    MAX_MESSAGE_BYTES,
    EventStreamDecoder,
    MalformedMessage,
    Message,
)

HELLO = frame({":event-type": "hello", ":message-type": "event"}, b'{"a":1}')


def messages(*chunks: bytes) -> list[Message]:
    """What a decoder makes of these reads."""
    decoder = EventStreamDecoder()
    return [message for chunk in chunks for message in decoder.feed(chunk)]


def raw(headers: bytes, payload: bytes = b"") -> bytes:
    """A message whose headers are given as bytes."""
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def prelude(total: int, headers: int) -> bytes:
    """The beginning of a message that claims these lengths."""
    lengths = struct.pack(">II", total, headers)
    return lengths + struct.pack(">I", zlib.crc32(lengths))


def test_a_message_has_headers_and_a_payload():
    assert messages(HELLO) == [
        Message({":event-type": "hello", ":message-type": "event"}, b'{"a":1}')
    ]


def test_a_message_may_be_empty():
    assert messages(raw(b"")) == [Message({}, b"")]


headers = st.dictionaries(
    st.text(st.characters(codec="ascii"), min_size=1, max_size=8), st.text(max_size=8), max_size=3
)


@given(
    sent=st.lists(st.tuples(headers, st.binary(max_size=40)), max_size=5), size=st.integers(1, 64)
)
def test_reads_of_any_size_give_what_botocore_reads(sent, size):
    data = b"".join(frame(*message) for message in sent)
    theirs = EventStreamBuffer()
    theirs.add_data(data)

    read = messages(*(data[at : at + size] for at in range(0, len(data), size)))

    assert read == [Message(message.headers, message.payload) for message in theirs]
    assert [(message.headers, message.payload) for message in read] == sent


def test_headers_of_other_types_are_read_over():
    values = [
        (0, b""),
        (1, b""),
        (2, b"\x01"),
        (3, b"\x00\x01"),
        (4, bytes(4)),
        (5, bytes(8)),
        (6, b"\x00\x02ab"),
        (8, bytes(8)),
        (9, bytes(16)),
    ]
    before = b"".join(b"\x01" + bytes([97 + kind, kind]) + value for kind, value in values)

    assert messages(raw(before + b"\x01z\x07\x00\x01!", b"x")) == [Message({"z": "!"}, b"x")]


@given(at=st.integers(0, len(HELLO) - 1), bit=st.integers(0, 7))
def test_a_bit_that_flipped_anywhere_is_noticed_or_waited_out(at, bit):
    damaged = bytearray(HELLO)
    damaged[at] ^= 1 << bit

    with pytest.raises(MalformedMessage):
        messages(bytes(damaged), bytes(MAX_MESSAGE_BYTES))


@given(data=st.binary(max_size=100))
def test_no_bytes_raise_anything_else(data):
    for stream in (data, raw(data)):
        with suppress(MalformedMessage):
            messages(stream)


@pytest.mark.parametrize(
    "data",
    [
        prelude(MAX_MESSAGE_BYTES + 1, 0),
        prelude(MAX_HEADERS_BYTES + 100, MAX_HEADERS_BYTES + 1),
        b"data: {}\n\n....",
    ],
)
def test_what_is_too_long_is_given_up_before_it_comes(data):
    with pytest.raises(MalformedMessage, match="too long"):
        messages(data)


@pytest.mark.parametrize(
    "data",
    [
        prelude(15, 0),
        prelude(16, 1),
        raw(b"\x05ab"),
        raw(b"\x01a"),
        raw(b"\x01a\x0a"),
        raw(b"\x01a\x07\x00\x05ab"),
        raw(b"\x01\xff\x07\x00\x01a"),
        raw(b"\x01a\x07\x00\x01\xff"),
    ],
)
def test_lengths_that_do_not_fit_and_text_that_is_none_are_malformed(data):
    with pytest.raises(MalformedMessage):
        messages(data, bytes(16))


def test_a_long_message_is_joined_once():
    data = frame({}, bytes(1_000_000))
    decoder = EventStreamDecoder()

    for at in range(0, len(data) - 100, 100):
        assert not decoder.feed(data[at : at + 100])
    [message] = decoder.feed(data[-(len(data) % 100 or 100) :])

    assert len(message.payload) == 1_000_000
