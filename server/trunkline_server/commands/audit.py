"""`trunkline audit`: what was done, and by whom."""

import argparse
from itertools import islice
from typing import Any, Final

from trunkline.v1.admin_service_pb2 import AuditEvent
from trunkline_server.commands.calling import new_client
from trunkline_server.commands.output import (
    MAX_PAGE,
    Column,
    add_listing_options,
    print_messages,
    print_table,
)
from trunkline_server.commands.words import time_of

MAX_DETAILS: Final = 200
COLUMNS: Final = (
    Column("number", is_number=True),
    *map(Column, ("time", "action", "actor", "organization", "entity", "request", "details")),
)


def add_audit(commands: Any, parents: list[argparse.ArgumentParser]) -> Any:
    """The parsers; gives the one of the actions, for those that need more than the service's address."""
    audit = commands.add_parser("audit", help="what was done to keys and credits, and by whom")
    actions = audit.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=parents, help="the audit log, newest first")
    listing.add_argument("--organization", default="", metavar="NAME", help="default: all")
    add_listing_options(listing)
    listing.set_defaults(run=_list)
    return actions


def _list(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        page_size = min(arguments.limit, MAX_PAGE)
        events = client.list_audit_events(arguments.organization, page_size=page_size)
        found = islice(events, arguments.limit)
        if arguments.json:
            print_messages(found)
            return 0
        listed = list(found)
    print_table(COLUMNS, [_row(event) for event in listed])
    return 0


def _row(event: AuditEvent) -> list[str]:
    entity = " ".join(filter(None, (event.entity_type, event.entity_id)))
    details = event.status_reason or event.metadata_json
    if len(details) > MAX_DETAILS:
        details = f"{details[:MAX_DETAILS]}..."
    return [
        *(str(event.sequence), time_of(event, "event_time"), event.action, event.actor),
        *(event.organization, entity, event.request_id, details),
    ]
