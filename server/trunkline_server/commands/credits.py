"""`trunkline credits`: what an organisation has, and what moved it."""

import argparse
import secrets
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from trunkline.accounts import Adjustment
from trunkline.v1.account_service_pb2 import GetBalanceResponse
from trunkline.v1.ledger_pb2 import LedgerEntry, LedgerKind
from trunkline_server.commands.calling import changing, new_client
from trunkline_server.commands.output import (
    MAX_PAGE,
    Column,
    add_listing_options,
    print_messages,
    print_table,
)
from trunkline_server.commands.words import (
    MIN_DECIMALS,
    amount,
    amount_given,
    decimals,
    time_of,
    usd,
    visible,
)

COLUMNS: Final = (
    Column("time"),
    Column("kind"),
    Column("USD", is_number=True),
    Column("balance", is_number=True),
    Column("request"),
    Column("description"),
)
CHANGES: Final[Mapping[str, tuple[Adjustment, str]]] = {
    "grant": ("grant", "give credits"),
    "topup": ("topup", "enter credits that were paid for"),
    "refund": ("refund", "give credits back"),
    "adjust": ("adjustment", "correct a balance, up or down"),
}


def add_credits(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """The parsers."""
    balance = commands.add_parser("credits", help="what is left, and what moved it")
    actions = balance.add_subparsers(metavar="ACTION", required=True)

    show = actions.add_parser("show", parents=parents, help="the balance")
    _organization(show)
    show.add_argument("--json", action="store_true")
    show.set_defaults(run=_show)

    ledger = actions.add_parser("ledger", parents=parents, help="every movement, newest first")
    _organization(ledger)
    add_listing_options(ledger)
    ledger.set_defaults(run=_ledger)

    for word, (kind, help_) in CHANGES.items():
        change = actions.add_parser(word, parents=parents, help=help_)
        change.add_argument(
            "amount",
            metavar="USD",
            type=amount if word == "adjust" else amount_given,
            help="US dollars, as in 12.50; at most 9 digits after the point"
            + ("; -12.50 takes off" if word == "adjust" else ""),
        )
        change.add_argument("--organization", required=True, metavar="NAME", help="whose")
        change.add_argument("--description", default="", metavar="TEXT", help="kept in the ledger")
        change.add_argument(
            "--idempotency-key", default="", metavar="KEY", help="the same one is done once"
        )
        change.add_argument("--json", action="store_true")
        change.set_defaults(run=_change, kind=kind)


def _organization(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--organization", default="", metavar="NAME", help="default: the key's own")


def _show(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        balance = client.get_balance(arguments.organization)
    if arguments.json:
        print_messages([balance])
        return 0
    for name, value in _balance(balance).items():
        print(f"{name:14}{value}")
    return 0


def _balance(balance: GetBalanceResponse) -> Mapping[str, str]:
    amounts = (balance.available_nanos, balance.held_nanos)
    digits = max(map(decimals, amounts))
    available, held = (usd(nanos, digits) for nanos in amounts)
    width = max(len(available), len(held))
    return {
        "organization": visible(balance.organization),
        "available": f"{available:>{width}} USD",
        "held": f"{held:>{width}} USD, by requests that run",
        "updated": time_of(balance, "update_time", "never"),
    }


def _ledger(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        page_size = min(arguments.limit, MAX_PAGE)
        entries = client.list_ledger_entries(arguments.organization, page_size=page_size)
        found = islice(entries, arguments.limit)
        if arguments.json:
            print_messages(found)
            return 0
        listed = list(found)
    print_table(COLUMNS, _rows(listed))
    return 0


def _rows(entries: Sequence[LedgerEntry]) -> list[list[str]]:
    """With all amounts of a column to the same digit."""
    amounts = max((decimals(e.amount_nanos) for e in entries), default=MIN_DECIMALS)
    balances = max((decimals(e.balance_after_nanos) for e in entries), default=MIN_DECIMALS)
    return [
        [
            time_of(entry, "create_time"),
            _kind(entry),
            usd(entry.amount_nanos, amounts),
            usd(entry.balance_after_nanos, balances),
            entry.request_id,
            entry.description,
        ]
        for entry in entries
    ]


def _kind(entry: LedgerEntry) -> str:
    known = LedgerKind.DESCRIPTOR.values_by_number.get(entry.kind)
    return known.name.removeprefix("LEDGER_KIND_").lower() if known else str(entry.kind)


def _change(arguments: argparse.Namespace) -> int:
    # Always sent, so that whoever does not know whether it was done can do it again.
    key = arguments.idempotency_key or f"cli-{secrets.token_hex(16)}"
    advice = f"to be sure, give the same command again with --idempotency-key {key}"
    with new_client(arguments) as client, changing(advice):
        entry = client.adjust_credits(
            arguments.organization,
            arguments.kind,
            arguments.amount,
            description=arguments.description,
            idempotency_key=key,
        )
    if arguments.json:
        print_messages([entry])
        return 0
    print(
        f"{_kind(entry)} of {usd(entry.amount_nanos)} USD to {visible(arguments.organization)}: "
        f"the balance is {usd(entry.balance_after_nanos)} USD (entry {visible(entry.id)})"
    )
    return 0
