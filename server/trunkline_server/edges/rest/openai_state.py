"""Carries opaque provider state through clients that know nothing of it.

Anthropic wants its thinking back and Gemini its thought signatures, byte for byte, or the turn after a tool call fails.
OpenAI's format has no place for either. But every client returns the ids of tool calls as they came, so the state
travels inside them: `ID~STATE`, where STATE is a compressed `trunkline.v1.Message` in URL-safe base64.
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
MAX_STATE_BYTES: Final = 1024 * 1024


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
        packed = zlib.compress(Message(parts=parts).SerializeToString(), 6)
        carried = base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")
        return f"{call_id}{SEPARATOR}{carried}" if len(carried) <= MAX_STATE_CHARS else call_id


def read_call_id(written: str) -> tuple[str, list[Part], ProviderState | None]:
    """The id itself, the reasoning that goes before its call, and the call's own state.

    What does not unpack is an id that happens to hold the separator.
    """
    call_id, separator, carried = written.rpartition(SEPARATOR)
    if not separator or not call_id or len(carried) > MAX_STATE_CHARS:
        return written, [], None
    try:
        packed = base64.urlsafe_b64decode(carried + "=" * (-len(carried) % 4))
        unpacker = zlib.decompressobj()
        message = Message.FromString(unpacker.decompress(packed, MAX_STATE_BYTES))
    except (binascii.Error, zlib.error, DecodeError, ValueError):
        return written, [], None
    if not unpacker.eof or not all(part.HasField("provider_state") for part in message.parts):
        return written, [], None
    reasoning = [part for part in message.parts if part.HasField("reasoning")]
    own = [part.provider_state for part in message.parts if part.WhichOneof("content") is None]
    return call_id, reasoning, own[-1] if own else None
