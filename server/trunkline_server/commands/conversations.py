"""`trunkline conversations`: what was said, as long as it is kept."""

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from trunkline.v1.conversation_service_pb2 import Conversation
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.commands.calling import changing, new_client
from trunkline_server.commands.output import (
    MAX_PAGE,
    Column,
    add_listing_options,
    print_messages,
    print_table,
)
from trunkline_server.commands.words import time_of, visible

COLUMNS: Final = (
    Column("id"),
    Column("title"),
    Column("messages", is_number=True),
    Column("begun"),
    Column("last said"),
)


def add_conversations(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """The parsers."""
    conversations = commands.add_parser(
        "conversations", help="list, read and delete what is kept of conversations"
    )
    actions = conversations.add_subparsers(metavar="ACTION", required=True)

    list_ = actions.add_parser("list", parents=parents, help="those of the key, newest first")
    add_listing_options(list_)
    list_.set_defaults(run=_list)

    show = actions.add_parser("show", parents=parents, help="what was said, oldest first")
    show.add_argument("conversation_id", metavar="ID")
    add_listing_options(show)
    show.set_defaults(run=_show)

    delete = actions.add_parser("delete", parents=parents, help="delete all that was said in some")
    delete.add_argument("conversation_ids", metavar="ID", nargs="+")
    delete.set_defaults(run=_delete)


def _list(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        page_size = min(arguments.limit, MAX_PAGE)
        found = islice(client.list_conversations(page_size=page_size), arguments.limit)
        if arguments.json:
            print_messages(found)
            return 0
        listed = list(found)
    print_table(COLUMNS, [_row(conversation) for conversation in listed])
    return 0


def _row(conversation: Conversation) -> list[str]:
    return [
        conversation.id,
        conversation.title,
        str(conversation.message_count),
        time_of(conversation, "create_time"),
        time_of(conversation, "update_time"),
    ]


def _show(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        page_size = min(arguments.limit, MAX_PAGE)
        messages = client.list_messages(arguments.conversation_id, page_size=page_size)
        found = islice(messages, arguments.limit)
        if arguments.json:
            print_messages(found)
            return 0
        for stored in found:
            for line in _lines(stored.message):
                print(line)
        if next(messages, None) is not None:
            print(f"and more than these {arguments.limit}: see --limit", file=sys.stderr)
    return 0


def _lines(message: Message) -> Iterator[str]:
    """Who says what. Everything is others' words."""
    speaker = Role.Name(message.role).removeprefix("ROLE_").lower()
    for part in message.parts:
        first, *others = _words(part).splitlines() or [""]
        yield f"{speaker}: {visible(first)}"
        for line in others:
            yield f"  {visible(line)}"


def _words(part: Part) -> str:
    match part.WhichOneof("content"):
        case "text":
            return part.text
        case "refusal":
            return part.refusal
        case "reasoning":
            return f"(thinks) {part.reasoning.text}"
        case "tool_call":
            return f"(calls {part.tool_call.name}) {part.tool_call.arguments_json}"
        case "tool_result":
            said = " ".join(_words(inner) for inner in part.tool_result.parts)
            return f"(of {part.tool_result.tool_name or 'a tool'}) {said}"
        case None:
            return ""
        case kind:
            return f"({kind})"


def _delete(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        for conversation_id in arguments.conversation_ids:
            with changing("see `trunkline conversations list`; what is not there any more is gone"):
                client.delete_conversation(conversation_id)
            print(f"{visible(conversation_id)} is deleted")
    return 0
