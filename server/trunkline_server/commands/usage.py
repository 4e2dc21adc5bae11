"""`trunkline usage`: who used how much, as a table or a chart."""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any, Final

from trunkline.v1.account_service_pb2 import UsageRow
from trunkline_server.commands.calling import CommandError, new_client
from trunkline_server.commands.chart import Bar, print_charts
from trunkline_server.commands.output import MAX_PAGE, Column, print_messages, print_table
from trunkline_server.commands.words import MIN_DECIMALS, NONE, decimals, end, start, usd

GROUPS: Final = (
    "provider",
    "model",
    "route",
    "mode",
    "key",
    "project",
    "end_user",
    "session",
    "day",
)
LABEL: Final = "label:"
DAY: Final = "day"
ALL: Final = "all"
MAX_ROWS: Final = 10_000
MAX_BARS: Final = 50
MAX_CHARTS: Final = 10
MAX_DAYS: Final = 400
ESTIMATED: Final = "~"

MEASURES: Final[Mapping[str, Callable[[UsageRow], int]]] = {
    "cost": lambda row: row.cost.amount_nanos,
    "tokens": lambda row: row.input_tokens + row.output_tokens,
    "requests": lambda row: row.requests,
}


def add_usage(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """The parser."""
    usage = commands.add_parser("usage", parents=parents, help="who used how much")
    usage.add_argument(
        "--by",
        action="append",
        type=group,
        default=[],
        metavar="WHAT",
        help=f"may be repeated: {', '.join(GROUPS)}, {LABEL}NAME",
    )
    usage.add_argument(
        "--from", type=start, dest="start", metavar="WHEN", help="default: the first of this month"
    )
    usage.add_argument(
        "--to", type=end, dest="end", metavar="WHEN", help="a day is meant whole; default: now"
    )
    usage.add_argument("--organization", default="", metavar="NAME", help="default: the key's own")
    usage.add_argument(
        "--chart",
        nargs="?",
        const=ALL,
        choices=[ALL, DAY],
        help="bars instead of a table: one for each group, or with `day` one for each day",
    )
    usage.add_argument(
        "--measure", choices=MEASURES, default="cost", help="what bars show; default: cost"
    )
    usage.add_argument("--json", action="store_true", help="a line of JSON for each group")
    usage.set_defaults(run=_usage)


def group(text: str) -> str:
    """What can be grouped by. For argparse."""
    if text in GROUPS or (text.startswith(LABEL) and len(text) > len(LABEL)):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(GROUPS)}, {LABEL}NAME")


def _usage(arguments: argparse.Namespace) -> int:
    since, until = _range(arguments.start, arguments.end)
    by = list(dict.fromkeys(arguments.by))
    if arguments.chart == DAY:
        by = [*(name for name in by if name != DAY), DAY]
    if arguments.chart == DAY and (until - since).days >= MAX_DAYS:
        raise CommandError(f"--chart day: at most {MAX_DAYS} days")
    with new_client(arguments) as client:
        found = client.query_usage(
            since, until, group_by=by, organization=arguments.organization, page_size=MAX_PAGE
        )
        if arguments.json:
            print_messages(found)
            return 0
        rows = list(islice(found, MAX_ROWS + 1))
    if len(rows) > MAX_ROWS:
        raise CommandError(
            f"more than {MAX_ROWS} groups: ask for less time or less --by, or --json"
        )
    if not rows:
        print("nothing was used in this time", file=sys.stderr)
    title = f"{since:%Y-%m-%d %H:%M}Z to {until:%Y-%m-%d %H:%M}Z"
    if arguments.chart is None:
        _print_table(by, rows, title)
    elif arguments.chart == DAY:
        _print_days(by[:-1], rows, arguments.measure, _days(since, until))
    else:
        _print_groups(by, rows, arguments.measure)
    return 0


def _range(since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    """From the first of the month in which it ends, until now."""
    now = datetime.now(UTC)
    end = now if until is None else until
    if since is None:
        last = end - timedelta(microseconds=1)
        since = last.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if since >= end:
        raise CommandError("--to must be after --from" if until else "--from must be in the past")
    return since, end


# The table


def _print_table(by: Sequence[str], rows: Sequence[UsageRow], title: str) -> None:
    digits = _digits(row.cost.amount_nanos for row in [*rows, _total(rows)])
    columns = [
        *map(Column, by),
        *(
            Column(name, is_number=True)
            for name in ("requests", "cached", "input tokens", "output tokens", "USD")
        ),
    ]
    total = ["total", *[""] * (len(by) - 1), *_numbers(_total(rows), digits)] if by else []
    shown = sorted(rows, key=_place(by))
    print_table(
        columns,
        [[*(row.group.get(name, "") for name in by), *_numbers(row, digits)] for row in shown],
        total=total,
        title=title,
    )
    if any(not row.HasField("cost") for row in rows):
        print("a cost that is not known is not in the total", file=sys.stderr)
    if any(row.cost.estimated for row in rows):
        print(f"{ESTIMATED} is estimated, or a price is not known", file=sys.stderr)


def _numbers(row: UsageRow, digits: int) -> list[str]:
    cost = NONE
    if row.HasField("cost"):
        mark = ESTIMATED if row.cost.estimated else ""
        cost = f"{mark}{usd(row.cost.amount_nanos, digits)}"
    counts = (row.requests, row.cached_requests, row.input_tokens, row.output_tokens)
    return [*map(str, counts), cost]


def _total(rows: Sequence[UsageRow]) -> UsageRow:
    total = UsageRow()
    for row in rows:
        total.requests += row.requests
        total.cached_requests += row.cached_requests
        total.input_tokens += row.input_tokens
        total.output_tokens += row.output_tokens
        total.cost.amount_nanos += row.cost.amount_nanos
        total.cost.estimated |= row.cost.estimated
    return total


def _place(by: Sequence[str]) -> Callable[[UsageRow], Any]:
    """In the order of time where days are among the groups; else the dearest first."""
    if DAY in by:
        return lambda row: [row.group.get(DAY, ""), *(row.group.get(name, "") for name in by)]
    return lambda row: (-row.cost.amount_nanos, -row.requests, _label(row, by))


# Charts


def _label(row: UsageRow, by: Sequence[str]) -> str:
    return " / ".join(row.group.get(name, "") or NONE for name in by) or ALL


def _bars(measure: str, values: Iterable[tuple[str, int]], digits: int) -> list[Bar]:
    def words(value: int) -> str:
        return f"{usd(value, digits)} USD" if measure == "cost" else str(value)

    return [Bar(label, value, words(value)) for label, value in values]


def _digits(values: Iterable[int]) -> int:
    """With which all of them can be written alike."""
    return max(map(decimals, values), default=MIN_DECIMALS)


def _print_groups(by: Sequence[str], rows: Sequence[UsageRow], measure: str) -> None:
    """The largest first, or in the order of time."""
    found = [(_label(row, by), MEASURES[measure](row)) for row in rows]
    found.sort(key=(lambda pair: pair[0]) if DAY in by else (lambda pair: (-pair[1], pair[0])))
    shown = found[:MAX_BARS]
    print_charts({"": _bars(measure, shown, _digits(value for _, value in shown))})
    if len(found) > MAX_BARS:
        print(f"and {len(found) - MAX_BARS} more")


def _print_days(
    by: Sequence[str], rows: Sequence[UsageRow], measure: str, days: Sequence[str]
) -> None:
    """A chart for each group, the largest first, with no day left out."""
    found: dict[str, dict[str, int]] = {} if by else {"": dict.fromkeys(days, 0)}
    for row in rows:
        values = found.setdefault(_label(row, by) if by else "", dict.fromkeys(days, 0))
        day = row.group.get(DAY, "")
        values[day] = values.get(day, 0) + MEASURES[measure](row)
    ranked = sorted(found.items(), key=lambda chart: (-sum(chart[1].values()), chart[0]))
    shown = {label: sorted(values.items()) for label, values in ranked[:MAX_CHARTS]}
    digits = _digits(value for values in shown.values() for _, value in values)
    print_charts({label: _bars(measure, values, digits) for label, values in shown.items()})
    if len(ranked) > MAX_CHARTS:
        print(f"and {len(ranked) - MAX_CHARTS} more")


def _days(since: datetime, until: datetime) -> list[str]:
    """Every day of the range that has begun."""
    first: date = since.date()
    last = (min(until, datetime.now(UTC)) - timedelta(microseconds=1)).date()
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]
