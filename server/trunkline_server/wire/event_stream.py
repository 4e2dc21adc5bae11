"""AWS event streams (`application/vnd.amazon.eventstream`): bytes in, messages out.

    total length | headers length | CRC of these two | headers | payload | CRC of all before
         4       |       4        |        4         |

Numbers are big-endian and unsigned. A header is the length of its name in one byte, the name, one byte for the type of
its value, and the value. Only text is kept: what says the kind of a message is text.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html, read 2026-11-22.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
MAX_HEADERS_BYTES: Final = 32 * 1024

_PRELUDE: Final = struct.Struct(">III")
_CRC_BYTES: Final = 4
_LEAST_BYTES: Final = _PRELUDE.size + _CRC_BYTES
# Sizes of values by the number of their type. Types that are not here begin with their length in two bytes.
_FIXED_BYTES: Final[Mapping[int, int]] = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES: Final = 6
_TEXT: Final = 7


class MalformedMessage(ValueError):
    """The bytes are no event stream, or one that was damaged or is too large."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its headers that are text, and its payload."""

    headers: Mapping[str, str]
    payload: bytes


class EventStreamDecoder:
    """One stream. A read may end anywhere."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._wanted_bytes = _PRELUDE.size

    def feed(self, chunk: bytes) -> Sequence[Message]:
        """The messages that `chunk` completes, in order.

        Raises:
            MalformedMessage: nothing that follows can be read either.
        """
        self._pieces.append(chunk)
        self._held_bytes += len(chunk)
        if self._held_bytes < self._wanted_bytes:
            return ()  # The pieces of a long message are joined once, when it is whole.
        data = b"".join(self._pieces)
        messages = []
        start = 0
        while True:
            left = len(data) - start
            self._wanted_bytes = (
                _PRELUDE.size if left < _PRELUDE.size else _total_bytes(data, start)
            )
            if left < self._wanted_bytes:
                break
            end = start + self._wanted_bytes
            messages.append(_message(data, start, end))
            start = end
        self._pieces = [data[start:]]
        self._held_bytes = left
        return messages


def _total_bytes(data: bytes, start: int) -> int:
    """The length of the message that begins at `start`, from its prelude."""
    total, headers, crc = _PRELUDE.unpack_from(data, start)
    # Before the checksum: whatever this is, so much of it will not be waited for.
    if total > MAX_MESSAGE_BYTES or headers > MAX_HEADERS_BYTES:
        raise MalformedMessage("a message is too long")
    if zlib.crc32(data[start : start + 8]) != crc:
        raise MalformedMessage("a message's prelude has a wrong checksum")
    if total < _LEAST_BYTES + headers:
        raise MalformedMessage("a message is shorter than its parts")
    return int(total)


def _message(data: bytes, start: int, end: int) -> Message:
    body_end = end - _CRC_BYTES
    if zlib.crc32(data[start:body_end]) != int.from_bytes(data[body_end:end], "big"):
        raise MalformedMessage("a message has a wrong checksum")
    headers_start = start + _PRELUDE.size
    headers_end = headers_start + int.from_bytes(data[start + 4 : start + 8], "big")
    return Message(_headers(data[headers_start:headers_end]), data[headers_end:body_end])


def _headers(data: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name = data[at + 1 : name_end].decode()
            kind = data[name_end]
            start = name_end + 1
            if kind in (_BYTES, _TEXT):
                size = int.from_bytes(data[start : start + 2], "big")
                start += 2
            else:
                size = _FIXED_BYTES[kind]
            at = start + size
            if at > len(data):
                raise MalformedMessage("a header ends beyond the headers")
            if kind == _TEXT:
                headers[name] = data[start:at].decode()
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise MalformedMessage(f"malformed headers: {type(error).__name__}") from error
    return headers
