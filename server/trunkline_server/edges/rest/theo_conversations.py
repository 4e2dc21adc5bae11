"""Theo's `/api/v1/conversations`, over `trunkline.v1.ConversationService`."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from trunkline.v1.conversation_service_pb2 import (
    Conversation,
    CreateConversationRequest,
    DeleteConversationRequest,
    GetConversationRequest,
    ListConversationsRequest,
    ListMessagesRequest,
    StoredMessage,
)
from trunkline.v1.conversation_service_pb2_grpc import ConversationServiceStub
from trunkline.v1.message_pb2 import Media, Part, Role
from trunkline_server.edges.rest.artifacts import data_url
from trunkline_server.edges.rest.body import read_body
from trunkline_server.edges.rest.http import Request
from trunkline_server.edges.rest.openai_request import NULL
from trunkline_server.edges.rest.query import parameters
from trunkline_server.edges.rest.routes import Handler
from trunkline_server.edges.rest.theo_events import calls_of, raw_or_null
from trunkline_server.edges.rest.theo_pages import (
    all_of,
    called,
    id_in,
    page_object,
    page_of,
    respond,
)
from trunkline_server.edges.rest.theo_request import is_null

CONVERSATIONS: Final = "/api/v1/conversations"
MESSAGES: Final = "/messages"

ROLES: Final[Mapping[int, str]] = {
    Role.ROLE_SYSTEM: "system",
    Role.ROLE_DEVELOPER: "system",
    Role.ROLE_USER: "user",
    Role.ROLE_ASSISTANT: "assistant",
    Role.ROLE_TOOL: "tool",
}


class CreateIn(Struct, forbid_unknown_fields=True):
    """The body of a new conversation."""

    title: str | None = None
    metadata: Raw = NULL


_decode_create = msgspec.json.Decoder(CreateIn).decode


class TheoConversations:
    """A part of `TheoShim`."""

    def __init__(self, channel: Any) -> None:
        self._conversations = ConversationServiceStub(channel)
        self.handlers: Mapping[tuple[str, str], Handler] = {
            ("POST", CONVERSATIONS): self._create,
            ("GET", CONVERSATIONS): self._list,
            ("GET", f"{CONVERSATIONS}/"): self._get,
            ("DELETE", f"{CONVERSATIONS}/"): self._delete,
        }

    async def _create(self, request: Request) -> None:
        wanted = read_body(_decode_create, request.body or b"{}")
        asked = CreateConversationRequest(title=wanted.title or "")
        if not is_null(wanted.metadata):
            asked.metadata_json = bytes(wanted.metadata).decode()
        made, headers = await called(request, self._conversations.CreateConversation, asked)
        respond(request, {"conversation": conversation_object(made.conversation)}, headers, 201)

    async def _list(self, request: Request) -> None:
        size, token = page_of(request.query)
        asked = ListConversationsRequest(page_size=size, page_token=token)
        page, headers = await called(request, self._conversations.ListConversations, asked)
        listed = [conversation_object(conversation) for conversation in page.conversations]
        respond(request, page_object("conversations", listed, page.next_page_token), headers)

    async def _get(self, request: Request) -> None:
        """One with all its messages; or a page of them."""
        if request.path.endswith(MESSAGES):
            await self._messages(request)
            return
        parameters(request.query, ())
        name = id_in(request.path, f"{CONVERSATIONS}/")
        asked = GetConversationRequest(conversation_id=name)
        found, _ = await called(request, self._conversations.GetConversation, asked)
        stored, token, headers = await all_of(
            request,
            self._conversations.ListMessages,
            ListMessagesRequest(conversation_id=name),
            "messages",
        )
        told = {
            **conversation_object(found.conversation),
            **page_object("messages", [message_object(message) for message in stored], token),
        }
        respond(request, {"conversation": told}, headers)

    async def _messages(self, request: Request) -> None:
        size, token = page_of(request.query)
        name = id_in(request.path.removesuffix(MESSAGES), f"{CONVERSATIONS}/")
        asked = ListMessagesRequest(conversation_id=name, page_size=size, page_token=token)
        page, headers = await called(request, self._conversations.ListMessages, asked)
        listed = [message_object(message) for message in page.messages]
        respond(request, page_object("messages", listed, page.next_page_token), headers)

    async def _delete(self, request: Request) -> None:
        name = id_in(request.path, f"{CONVERSATIONS}/")
        asked = DeleteConversationRequest(conversation_id=name)
        _, headers = await called(request, self._conversations.DeleteConversation, asked)
        respond(request, {"id": name, "deleted": True}, headers)


def conversation_object(conversation: Conversation) -> dict[str, Any]:
    """One, without its messages."""
    return {
        "id": conversation.id,
        "title": conversation.title or None,
        "messageCount": conversation.message_count,
        "createdAt": conversation.create_time.ToJsonString(),
        "updatedAt": conversation.update_time.ToJsonString(),
        "metadata": raw_or_null(conversation.metadata_json),
    }


def message_object(stored: StoredMessage) -> dict[str, Any]:
    """One message."""
    message = stored.message
    told: dict[str, Any] = {
        "id": str(stored.sequence),
        "role": ROLES.get(message.role, "user"),
        "content": "".join(part.text or part.refusal for part in message.parts),
        "createdAt": stored.create_time.ToJsonString(),
        "completionId": stored.completion_id or None,
    }
    if images := [_attachment(part.image) for part in message.parts if part.HasField("image")]:
        told["attachments"] = images
    if calls := calls_of(message):
        told["toolCalls"] = calls
    if results := [_result(part) for part in message.parts if part.HasField("tool_result")]:
        told["toolResults"] = results
    return told


def _attachment(image: Media) -> dict[str, str]:
    url = data_url(image.data, image.mime_type) if image.data else image.url
    return {"type": "image_url", "url": url}


def _result(part: Part) -> dict[str, Any]:
    result = part.tool_result
    return {
        "tool_call_id": result.tool_call_id,
        "content": "".join(inner.text for inner in result.parts),
        "is_error": result.is_error,
    }
