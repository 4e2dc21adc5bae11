"""Conversations that the gateway keeps: what the use case needs of them."""

from collections.abc import Sequence
from typing import Final, Protocol

from trunkline.v1.message_pb2 import Message

NEW: Final = "new"  # As an id: begin one.


class Turn(Protocol):
    """A conversation, held by one request. Nobody else adds to it meanwhile; `release` it, whatever happens."""

    @property
    def conversation_id(self) -> str: ...

    @property
    def messages(self) -> Sequence[Message]:
        """All that was said so far, oldest first."""
        ...

    async def store(self, messages: Sequence[Message], completion_id: str) -> None:
        """Append what was said in this turn, all or nothing. At most once.

        Raises:
            StorageUnavailable; NotFound: it was deleted meanwhile.
        """
        ...

    def release(self) -> None:
        """Let the next one in. Never raises, and never waits: what takes time goes on by itself. May be repeated."""
        ...


class Conversations(Protocol):
    """All conversations of a server."""

    async def begin(
        self,
        owner: str,
        end_user: str,
        conversation_id: str,
        until_s: float,
        adds: Sequence[Message] = (),
    ) -> Turn:
        """Wait for the turn of this request, in the order of arrival.

        Args:
            owner: `Caller.owner`. Of another one's conversation nothing is told but that there is none.
            end_user: where the conversation was begun for a user, only that user goes on with it; may be empty.
            conversation_id: or NEW.
            until_s: of the loop's clock; who waits that long gives up.
            adds: what the request brings: refused now, where the conversation has no room for it.

        Raises:
            ConversationNotFound, InvalidRequest, ConcurrencyExhausted, StorageUnavailable, DeadlineExceeded.
        """
        ...
