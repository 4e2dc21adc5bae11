"""Conversations: both clients send the same and read the same."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from tests.python_client.conftest import Connect
from tests.python_client.scripted import Failure, Gateway, error_info
from tests.python_client.test_accounts import Both, asked, first, listed
from trunkline import ConversationNotFound
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
from trunkline.v1.conversation_service_pb2_grpc import (
    ConversationServiceServicer,
    add_ConversationServiceServicer_to_server,
)


class ConversationGateway(Gateway):
    """As `Gateway`: each call, whatever its method, plays the next script."""

    def __init__(self) -> None:
        super().__init__(None)
        add_ConversationServiceServicer_to_server(_Conversations(self), self._server)

    @property
    def requests(self) -> list[Any]:
        """What was asked, in order."""
        return [call.request for call in self.calls]


class _Conversations(ConversationServiceServicer):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def _answer(self, method: str, request: Message, context: grpc.ServicerContext) -> Any:
        return self._gateway.answer(method, request, context)

    def CreateConversation(self, request, context):
        return self._answer("CreateConversation", request, context)

    def GetConversation(self, request, context):
        return self._answer("GetConversation", request, context)

    def ListConversations(self, request, context):
        return self._answer("ListConversations", request, context)

    def ListMessages(self, request, context):
        return self._answer("ListMessages", request, context)

    def DeleteConversation(self, request, context):
        return self._answer("DeleteConversation", request, context)


@pytest.fixture
def gateway() -> Iterator[ConversationGateway]:
    with ConversationGateway() as running:
        yield running


@pytest.fixture
async def client(connect: Connect, gateway: ConversationGateway) -> Both:
    return connect(gateway.target)


MADE = Conversation(id="conv_1", title="t", message_count=2)


async def test_a_conversation_is_made_with_everything_that_was_said(gateway, client):
    gateway.plays([CreateConversationResponse(conversation=MADE)])
    said = {"title": "t", "metadata_json": "{}", "idempotency_key": "once"}

    assert await asked(client, "create_conversation", **said) == MADE
    assert await asked(client, "create_conversation") == MADE
    assert gateway.requests == [CreateConversationRequest(**said), CreateConversationRequest()]


async def test_a_conversation_is_the_gateways_own_message(gateway, client):
    gateway.plays([GetConversationResponse(conversation=MADE)])

    assert await asked(client, "get_conversation", "conv_1") == MADE
    assert gateway.requests == [GetConversationRequest(conversation_id="conv_1")]


async def test_a_deleted_one_leaves_nothing(gateway, client):
    gateway.plays([DeleteConversationResponse()])

    assert await asked(client, "delete_conversation", "conv_1") is None
    assert gateway.requests == [DeleteConversationRequest(conversation_id="conv_1")]


LISTINGS: dict[str, tuple[tuple[str, ...], list[Any], Any, Any]] = {
    "list_conversations": (
        (),
        [Conversation(id=name) for name in "abc"],
        lambda items, token: ListConversationsResponse(conversations=items, next_page_token=token),
        ListConversationsRequest,
    ),
    "list_messages": (
        ("conv_1",),
        [StoredMessage(sequence=number) for number in (1, 2, 3)],
        lambda items, token: ListMessagesResponse(messages=items, next_page_token=token),
        lambda **more: ListMessagesRequest(conversation_id="conv_1", **more),
    ),
}


@pytest.mark.parametrize("method", LISTINGS)
async def test_a_listing_reads_all_pages_with_the_same_request(gateway, client, method):
    args, items, page, request = LISTINGS[method]
    gateway.plays([page(items[:2], "more")], [page([], "and more")], [page(items[2:], "")])

    assert await listed(client, method, *args, page_size=2) == items
    assert gateway.requests == [
        request(page_size=2, page_token=token) for token in ("", "more", "and more")
    ]


@pytest.mark.parametrize("method", LISTINGS)
async def test_a_page_is_fetched_when_it_is_needed(gateway, client, method):
    args, items, page, _ = LISTINGS[method]
    gateway.plays([page(items[:2], "more")], [page(items[2:], "")])

    assert await first(client, method, *args) == items[0]
    assert len(gateway.calls) == 1


@pytest.mark.parametrize("method", ["get_conversation", "delete_conversation", "list_messages"])
async def test_one_that_is_not_there_is_an_error_of_its_own(gateway, client, method):
    gateway.plays(
        [Failure(grpc.StatusCode.NOT_FOUND, "no", [error_info("CONVERSATION_NOT_FOUND")])]
    )

    with pytest.raises(ConversationNotFound):
        await (listed if method in LISTINGS else asked)(client, method, "conv_1")
