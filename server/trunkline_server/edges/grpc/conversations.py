"""`trunkline.v1.ConversationService`: what is kept of an organisation's conversations.

Conversations are part of asking for answers, so their scope is that of completions; a key that reads bills sees none.
"""

from typing import Final

from trunkline.v1.conversation_service_pb2 import (
    Conversation,
    CreateConversationRequest,
    CreateConversationResponse,
    DeleteConversationRequest,
    DeleteConversationResponse,
    GetConversationRequest,
    GetConversationResponse,
    ListConversationsRequest,
    ListConversationsResponse,
    ListMessagesRequest,
    ListMessagesResponse,
    StoredMessage,
)
from trunkline_server.completion.service import Completions
from trunkline_server.conversations import records
from trunkline_server.conversations.turns import StoredConversations
from trunkline_server.core.errors import InvalidRequest
from trunkline_server.core.plans import Scope
from trunkline_server.edges.grpc.account import timestamp
from trunkline_server.edges.grpc.call import Calls, Context, answer_unary
from trunkline_server.edges.grpc.pages import page_size_of, start_of

LAST: Final = 2**62  # After any instant.


class ConversationServicer:
    """Everyone sees their own organisation's alone, administrators too: what was said is not for who runs a server."""

    def __init__(
        self, conversations: StoredConversations, completions: Completions, calls: Calls
    ) -> None:
        self._conversations = conversations
        self._completions = completions
        self._calls = calls

    async def CreateConversation(
        self, request: CreateConversationRequest, context: Context
    ) -> CreateConversationResponse:
        """Once for each idempotency key, for a day."""
        call = self._calls.read("CreateConversation", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            key = request.idempotency_key
            if key and call.idempotency_key and key != call.idempotency_key:
                raise InvalidRequest("idempotency_key", "differs from the idempotency-key header")
            made = await self._conversations.create(
                caller.owner, request.title, request.metadata_json, key or call.idempotency_key
            )
            return CreateConversationResponse(conversation=_conversation(made))

    async def GetConversation(
        self, request: GetConversationRequest, context: Context
    ) -> GetConversationResponse:
        """Without what was said in it."""
        call = self._calls.read("GetConversation", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            found = await self._conversations.find(caller.owner, request.conversation_id)
            return GetConversationResponse(conversation=_conversation(found))

    async def ListConversations(
        self, request: ListConversationsRequest, context: Context
    ) -> ListConversationsResponse:
        """Those that were begun last come first."""
        call = self._calls.read("ListConversations", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            size = page_size_of(request.page_size)
            before_us = start_of(request.page_token) or LAST
            page, has_more = await self._conversations.page(caller.owner, before_us, size)
            return ListConversationsResponse(
                conversations=[_conversation(found) for found in page],
                next_page_token=str(page[-1].created_us) if has_more else "",
            )

    async def ListMessages(
        self, request: ListMessagesRequest, context: Context
    ) -> ListMessagesResponse:
        """Oldest first."""
        call = self._calls.read("ListMessages", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            size = page_size_of(request.page_size)
            after = start_of(request.page_token)
            page, has_more = await self._conversations.messages(
                caller.owner, request.conversation_id, after, size
            )
            return ListMessagesResponse(
                messages=[_message(found) for found in page],
                next_page_token=str(page[-1].sequence) if has_more else "",
            )

    async def DeleteConversation(
        self, request: DeleteConversationRequest, context: Context
    ) -> DeleteConversationResponse:
        """All of it is gone when this is answered."""
        call = self._calls.read("DeleteConversation", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            await self._conversations.delete(caller.owner, request.conversation_id)
            return DeleteConversationResponse()


def _conversation(found: records.Conversation) -> Conversation:
    return Conversation(
        id=found.id,
        title=found.title,
        message_count=found.message_count,
        create_time=timestamp(found.created_us),
        update_time=timestamp(found.updated_us),
        metadata_json=found.metadata_json,
    )


def _message(found: records.StoredMessage) -> StoredMessage:
    return StoredMessage(
        sequence=found.sequence,
        message=found.message,
        completion_id=found.completion_id,
        create_time=timestamp(found.created_us),
    )
