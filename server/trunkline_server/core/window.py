"""Fitting a conversation to a context window: the oldest turns go, whole.

A turn begins where a user speaks after somebody else, and ends before the next one. Where a tool's result comes so late
that another turn has begun meanwhile, the two are one: a call without its result, and a result without its call, are
refused by providers. System and developer messages are of no turn and stay, and so does the last turn, whatever its
size: without it there is nothing to answer.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from trunkline.v1.message_pb2 import Message, Part, Role

# Fewer than any tokeniser needs on average: what is counted too high costs an old turn, what is counted too low costs
# the answer. In bytes, because there are languages with a token for nearly every character.
BYTES_PER_TOKEN: Final = 3
FRAME_TOKENS: Final = 8  # Of a message: its role, and what stands around it.
MEDIA_TOKENS: Final = 1_600  # Of a large image. What others cost nobody knows before they are read.

_MEDIA: Final = frozenset({"image", "audio", "document", "video"})
_STAYING: Final = frozenset({Role.ROLE_SYSTEM, Role.ROLE_DEVELOPER})


def tokens_of(message: Message) -> int:
    """An upper estimate of what a message costs."""
    return FRAME_TOKENS + len(message.name) + sum(_tokens(part) for part in message.parts)


def fitted(
    messages: Sequence[Message],
    room_tokens: int,
    count: Callable[[Message], int] = tokens_of,
) -> tuple[list[Message], int]:
    """As much of the end of a conversation as fits.

    Args:
        messages: oldest first; their tool results come after the calls that they answer.
        room_tokens: for all of them.
        count: tokens of one.

    Returns:
        What is kept, in its order, and how many messages were dropped. What is kept may still be too long: system
        messages and the last turn are never dropped.
    """
    counts = [count(message) for message in messages]
    excess_tokens = sum(counts) - room_tokens
    if excess_tokens <= 0:
        return list(messages), 0
    dropped: set[int] = set()
    # The last turn begins at the last of these, so no pair of them encloses it.
    for start, end in pairwise([0, *_starts(messages)]):
        if excess_tokens <= 0:
            break
        gone = [i for i in range(start, end) if messages[i].role not in _STAYING]
        excess_tokens -= sum(counts[i] for i in gone)
        dropped.update(gone)
    return [m for i, m in enumerate(messages) if i not in dropped], len(dropped)


def _starts(messages: Sequence[Message]) -> list[int]:
    """Where turns begin, and a conversation may be cut."""
    starts: list[int] = []
    called_at: dict[str, int] = {}
    speaker = None  # Who spoke last, but for the system.
    for i, message in enumerate(messages):
        if message.role == Role.ROLE_USER and speaker != Role.ROLE_USER:
            starts.append(i)
        if message.role not in _STAYING:
            speaker = message.role
        for part in message.parts:
            kind = part.WhichOneof("content")
            if kind == "tool_call":
                called_at[part.tool_call.id] = i
            elif kind == "tool_result":
                call = called_at.get(part.tool_result.tool_call_id, i)
                while starts and starts[-1] > call:  # Between the call and this result.
                    starts.pop()
    return starts


def _tokens(part: Part) -> int:
    kind = part.WhichOneof("content")
    if kind in _MEDIA:
        return MEDIA_TOKENS
    if kind == "tool_result":
        return FRAME_TOKENS + sum(_tokens(inner) for inner in part.tool_result.parts)
    size_bytes = part.ByteSize()
    if part.HasField("provider_state"):  # Goes back as it came, and is no text.
        size_bytes -= part.provider_state.ByteSize()
    return -(-size_bytes // BYTES_PER_TOKEN)
