"""Listings as people and programs read them: a table on a terminal, plain columns elsewhere, JSON when asked for."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from trunkline_server.commands.words import NONE, visible

GAP: Final = "  "
USUAL_LIMIT: Final = 50
MAX_LIMIT: Final = 10_000
MAX_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Numbers stand at its right."""

    title: str
    is_number: bool = False


def add_listing_options(parser: argparse.ArgumentParser) -> None:
    """Of a listing that goes on and on: `limit` and `json`."""
    parser.add_argument(
        "--limit",
        type=limit,
        default=USUAL_LIMIT,
        metavar="N",
        help=f"1 to {MAX_LIMIT}; default: {USUAL_LIMIT}",
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each")


def limit(text: str) -> int:
    """How many rows. For argparse."""
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MAX_LIMIT):
        raise argparse.ArgumentTypeError(f"a limit is 1 to {MAX_LIMIT}")
    return int(text)


def is_open() -> bool:
    """Is there a standard output? Without one Python prints nothing, and says nothing of it."""
    return getattr(sys, "stdout", None) is not None


def is_terminal() -> bool:
    """Does somebody look at standard output?"""
    return is_open() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def draws_blocks() -> bool:
    """Can it show more than letters?"""
    return is_terminal() and sys.stdout.encoding.lower().startswith("utf")


def print_messages(messages: Iterable[Message]) -> None:
    """Each on a line, as JSON in the contract's own names; each as soon as it is there."""
    for message in messages:
        known = MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        print(json.dumps(known), flush=True)


def print_table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    total: Sequence[str] = (),
    title: str = "",
) -> None:
    """Rows of text, whoever it is from.

    Args:
        total: a last row, set apart.
        title: for a terminal only: elsewhere the first line names the columns.
    """
    shown = [[visible(cell) or NONE for cell in row] for row in rows]
    if is_terminal():
        _print_rich(columns, shown, total, title)
        return
    lines = [[column.title for column in columns], *shown, *([total] if total else [])]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for column, cell, width in zip(columns, line, widths, strict=True)
        ]
        print(GAP.join(cells).rstrip())


def _print_rich(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    total: Sequence[str],
    title: str,
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(visible(title)) if title else None,
        title_justify="left",
        show_footer=bool(total),
        pad_edge=False,
    )
    footers = total or [""] * len(columns)
    for column, footer in zip(columns, footers, strict=True):
        table.add_column(
            column.title,
            footer=Text(footer),
            justify="right" if column.is_number else "left",
            no_wrap=column.is_number,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
