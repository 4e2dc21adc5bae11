"""What tools of the gateway brought on the way to a call of the caller's own tool.

The caller answers that call in its next request. Over gRPC it sends the transcript along; a dialect that has no room
for one is helped out from here. In memory, for a while, for the same caller, and for the same conversation up to the
call: some providers number their calls, so an id alone would find what belongs to somebody else.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message, Role

KEEP_S: Final = 600.0
MAX_KEPT: Final = 4_096
MAX_KEPT_BYTES: Final = 64 * 1024 * 1024

ASSISTANT: Final = Role.ROLE_ASSISTANT


@dataclass(frozen=True, slots=True)
class _Kept:
    transcript: Sequence[Message]
    size_bytes: int
    until_s: float


# The caller, a digest of all that was said before, and the call.
_Key = tuple[str, bytes, str]


class KeptTurns:
    """Transcripts by caller, conversation and tool call."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._bytes = 0

    def keep(
        self,
        key_id: str,
        spec: CompletionSpec,
        call_ids: Sequence[str],
        transcript: Sequence[Message],
    ) -> None:
        """For the request that will answer these calls.

        Args:
            spec: as the caller sent it.
        """
        if not transcript or not call_ids:
            return
        said = _begun(spec)
        for message in spec.messages:
            _add(said, message)
        digest = said.digest()
        now_s = self._clock()
        size_bytes = sum(message.ByteSize() for message in transcript)
        for call_id in call_ids:
            self._drop((key_id, digest, call_id))
            self._kept[key_id, digest, call_id] = _Kept(transcript, size_bytes, now_s + KEEP_S)
            self._bytes += size_bytes
        while self._kept:
            oldest, kept = next(iter(self._kept.items()))
            is_too_much = self._bytes > MAX_KEPT_BYTES or len(self._kept) > MAX_KEPT
            if not is_too_much and kept.until_s > now_s:
                break
            self._drop(oldest)

    def restored(self, key_id: str, spec: CompletionSpec) -> CompletionSpec:
        """The spec with what is kept for its calls put before them; the same one where there is nothing."""
        if not self._kept:
            return spec
        found: dict[int, Sequence[Message]] = {}
        said = _begun(spec)
        for index, message in enumerate(spec.messages):
            digest = said.digest()
            _add(said, message)
            if message.role != ASSISTANT:
                continue
            for call_id in _call_ids([message]):
                kept = self._kept.get((key_id, digest, call_id))
                # A caller who sent the transcript along has said more before the call, so nothing is found for it.
                if kept is not None and kept.until_s > self._clock():
                    found[index] = kept.transcript
                    break
        if not found:
            return spec
        restored = CompletionSpec()
        restored.CopyFrom(spec)
        del restored.messages[:]
        for index, message in enumerate(spec.messages):
            restored.messages.extend(found.get(index, ()))
            restored.messages.add().CopyFrom(message)
        return restored

    def _drop(self, key: _Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= kept.size_bytes


def _begun(spec: CompletionSpec) -> "hashlib._Hash":
    """Of a conversation before its first message: whose it is."""
    return hashlib.sha256(repr((spec.session_id, spec.end_user_id)).encode())


def _add(said: "hashlib._Hash", message: Message) -> None:
    data = message.SerializeToString(deterministic=True)
    said.update(b"%d:" % len(data))
    said.update(data)


def _call_ids(messages: Iterable[Message]) -> set[str]:
    return {
        part.tool_call.id
        for message in messages
        for part in message.parts
        if part.WhichOneof("content") == "tool_call"
    }
