"""`trunkline keys`: who may ask."""

import argparse
import sys
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from trunkline.v1.admin_service_pb2 import CreateKeyResponse, Key, RotateKeyResponse
from trunkline_server.commands.calling import CommandError, changing, new_client
from trunkline_server.commands.output import (
    MAX_PAGE,
    Column,
    is_open,
    print_messages,
    print_table,
)
from trunkline_server.commands.words import duration, expiry, key_id, span, time_of, visible

SCOPES: Final = ("complete", "read", "admin")
# What a program needs that asks, and looks at what it has spent.
USUAL_SCOPES: Final = ("complete", "read")
USUAL_OVERLAP: Final = timedelta(hours=1)
MAX_LISTED: Final = 10_000

COLUMNS: Final = tuple(
    map(
        Column,
        (
            *("id", "organization", "project", "name", "plan", "scopes"),
            *("created", "expires", "last used", "state"),
        ),
    )
)


def add_keys(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """The parsers."""
    keys = commands.add_parser("keys", help="make, list, rotate and revoke keys")
    actions = keys.add_subparsers(metavar="ACTION", required=True)

    create = actions.add_parser("create", parents=parents, help="make a key; prints its secret")
    create.add_argument("--organization", required=True, metavar="NAME", help="who pays")
    create.add_argument("--project", default="", metavar="NAME", help="for budgets")
    create.add_argument("--name", default="", help="for people")
    create.add_argument(
        "--plan", default="", metavar="NAME", help="of the configuration; default: default"
    )
    create.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        help=f"may be repeated; default: {' and '.join(USUAL_SCOPES)}",
    )
    create.add_argument(
        "--expires", type=expiry, metavar="WHEN", help="2026-12-31, an instant, or 90d from now"
    )
    _secret_options(create)
    create.set_defaults(run=_create)

    listing = actions.add_parser("list", parents=parents, help="all keys, without their secrets")
    listing.add_argument("--organization", default="", metavar="NAME", help="default: all")
    listing.add_argument("--json", action="store_true", help="a line of JSON for each")
    listing.set_defaults(run=_list)

    rotate = actions.add_parser("rotate", parents=parents, help="a new secret for a key")
    rotate.add_argument("key_id", metavar="ID", type=key_id)
    rotate.add_argument(
        "--overlap",
        type=duration,
        default=USUAL_OVERLAP,
        metavar="TIME",
        help=f"how long the former secret still works, 0 to 24h; default: {span(USUAL_OVERLAP)}",
    )
    _secret_options(rotate)
    rotate.set_defaults(run=_rotate)

    revoke = actions.add_parser("revoke", parents=parents, help="end a key for good")
    revoke.add_argument("key_id", metavar="ID", type=key_id)
    revoke.add_argument("--json", action="store_true")
    revoke.set_defaults(run=_revoke)


def _secret_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="print the secret and nothing else")
    parser.add_argument("--json", action="store_true", help="print the key and its secret as JSON")


def _create(arguments: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    expires = arguments.expires
    if isinstance(expires, timedelta):
        expires = now + expires
    if expires is not None and expires <= now:
        raise CommandError("--expires: this is over already")
    _require_output()
    advice = "see `trunkline keys list`, and revoke the key that nobody has"
    with new_client(arguments) as client, changing(advice):
        made = client.create_key(
            arguments.organization,
            name=arguments.name,
            plan=arguments.plan,
            scopes=arguments.scope or USUAL_SCOPES,
            project=arguments.project,
            expire_time=expires,
        )
    key = made.key
    told = (
        f"{_named(key)} is made: plan {visible(key.plan) or '-'}, scopes {', '.join(key.scopes)}, "
        f"expires {time_of(key, 'expire_time', 'never')}"
    )
    return _hand_over(arguments, made, told)


def _rotate(arguments: argparse.Namespace) -> int:
    _require_output()
    advice = "if the former secret stops working, rotate once more"
    with new_client(arguments) as client, changing(advice):
        rotated = client.rotate_key(arguments.key_id, overlap=arguments.overlap)
    overlap = arguments.overlap
    former = f"works for another {span(overlap)}" if overlap else "is refused within a second"
    told = f"{_named(rotated.key)} has a new secret; the former one {former}"
    return _hand_over(arguments, rotated, told)


def _require_output() -> None:
    if not is_open():
        raise CommandError("standard output is closed, and the secret would be lost")


def _hand_over(
    arguments: argparse.Namespace, response: CreateKeyResponse | RotateKeyResponse, told: str
) -> int:
    """The secret alone to standard output, so that a shell can take it; all else beside it."""
    if not arguments.quiet:
        print(told, file=sys.stderr)
        print("its secret is shown this once and never again: keep it now", file=sys.stderr)
    try:
        if arguments.json:
            print_messages([response])
        else:
            print(response.secret, flush=True)
    except OSError as error:
        lost = f"trunkline: the secret could not be written ({error.strerror}) and is lost: "
        print(f"{lost}rotate or revoke {visible(response.key.id)}", file=sys.stderr)
        return 1
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    advice = "see `trunkline keys list`; a key can be revoked twice"
    with new_client(arguments) as client, changing(advice):
        key = client.revoke_key(arguments.key_id)
    if arguments.json:
        print_messages([key])
    else:
        print(f"{_named(key)} is revoked: it is refused everywhere within a second")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        found = client.list_keys(arguments.organization, page_size=MAX_PAGE)
        if arguments.json:
            print_messages(found)
            return 0
        keys = list(islice(found, MAX_LISTED + 1))
    now = datetime.now(UTC)
    print_table(COLUMNS, [_row(key, now) for key in keys[:MAX_LISTED]])
    if len(keys) > MAX_LISTED:
        print(f"and more than these {MAX_LISTED}: see --organization, or --json", file=sys.stderr)
    return 0


def _row(key: Key, now: datetime) -> list[str]:
    return [
        *(key.id, key.organization, key.project, key.name, key.plan, ", ".join(key.scopes)),
        time_of(key, "create_time"),
        time_of(key, "expire_time", "never"),
        time_of(key, "last_use_time", "never"),
        _state(key, now),
    ]


def _state(key: Key, now: datetime) -> str:
    if key.HasField("revoke_time"):
        return "revoked"
    if key.HasField("expire_time") and key.expire_time.ToDatetime(UTC) <= now:
        return "expired"
    return "active"


def _named(key: Key) -> str:
    name = f" ({visible(key.name)})" if key.name else ""
    return f"key {visible(key.id)}{name} of {visible(key.organization)}"
