"""Carries opaque provider state through clients that know nothing of it.

Anthropic wants its thinking back and Gemini its thought signatures, byte for byte, or the turn after a tool call fails.
OpenAI's format and Speko's have no place for either. But every client returns the ids of tool calls as they came, so
the state travels inside them: `ID~STATE`, where STATE is a compressed `trunkline.v1.Message` in URL-safe base64.
"""

import base64
import binascii
import zlib
from typing import Final

from google.protobuf.message import DecodeError

from trunkline.v1.message_pb2 import Message, Part, ProviderState

SEPARATOR: Final = "~"
MAX_STATE_CHARS: Final = (
    48 * 1024
)  # A longer id would be a risk in the databases of clients; its state is dropped.
MAX_STATE_BYTES: Final = 256 * 1024
MAX_REQUEST_STATE_BYTES: Final = 8 * 1024 * 1024
MAX_STATE_PARTS: Final = 256


class CallIds:
    """Writes the ids of one answer's tool calls. State of the reasoning before a call goes into that call's id."""

    def __init__(self) -> None:
        self._reasoning: list[Part] = []

    def add_reasoning(self, part: Part) -> None:
        """Reasoning with state, which came before the next call."""
        self._reasoning.append(part)

    def written(self, call_id: str, state: ProviderState | None) -> str:
        """The id to send, with whatever has to come back."""
        parts, self._reasoning = self._reasoning, []
        if state is not None:
            parts = [*parts, Part(provider_state=state)]
        if not parts:
            return call_id
        state_bytes = Message(parts=parts).SerializeToString()
        if len(state_bytes) > MAX_STATE_BYTES or len(parts) > MAX_STATE_PARTS:
            return call_id
        packed = zlib.compress(state_bytes, 6)
        carried = base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")
        return f"{call_id}{SEPARATOR}{carried}" if len(carried) <= MAX_STATE_CHARS else call_id


class StateReader:
    """Reads the ids of one request's tool calls. All of them together may unpack to so much and no more: a few bytes of
    an id can stand for a megabyte."""

    def __init__(self) -> None:
        self._left_bytes = MAX_REQUEST_STATE_BYTES
        self._known: dict[str, tuple[str, list[Part], ProviderState | None]] = {}

    def read(self, written: str) -> tuple[str, list[Part], ProviderState | None]:
        """The id itself, the reasoning that goes before its call, and the call's own state.

        What does not unpack is an id that happens to hold the separator.
        """
        if SEPARATOR not in written:
            return written, [], None
        found = self._known.get(written)  # A call's id stands at its result too.
        if found is None:
            found = self._known[written] = self._unpacked(written)
        return found

    def _unpacked(self, written: str) -> tuple[str, list[Part], ProviderState | None]:
        call_id, separator, carried = written.rpartition(SEPARATOR)
        if not separator or not call_id or len(carried) > MAX_STATE_CHARS or self._left_bytes <= 0:
            return written, [], None
        try:
            packed = base64.urlsafe_b64decode(carried + "=" * (-len(carried) % 4))
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(packed, min(MAX_STATE_BYTES, self._left_bytes))
            self._left_bytes -= len(data)
            message = Message.FromString(data) if unpacker.eof else Message()
        except (binascii.Error, zlib.error, DecodeError, ValueError):
            return written, [], None
        parts = message.parts
        if not 0 < len(parts) <= MAX_STATE_PARTS:
            return written, [], None
        if not all(part.HasField("provider_state") for part in parts):
            return written, [], None
        reasoning = [part for part in parts if part.HasField("reasoning")]
        own = [part.provider_state for part in parts if part.WhichOneof("content") is None]
        return call_id, reasoning, own[-1] if own else None
