"""`trunkline cache`: what it holds, how to make it forget, and what an answer of it was worth."""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from trunkline.v1.cache_service_pb2 import GetCacheStatsResponse
from trunkline_server.commands.calling import changing, new_client
from trunkline_server.commands.output import Column, print_messages, print_table
from trunkline_server.commands.words import duration, visible

COLUMNS: Final = (
    Column("similarity"),
    Column("same", is_number=True),
    Column("other", is_number=True),
    Column("at most wrong", is_number=True),
)


def add_cache(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """The parsers."""
    cache = commands.add_parser("cache", help="what the cache holds, and how to make it forget")
    actions = cache.add_subparsers(metavar="ACTION", required=True)

    stats = actions.add_parser("stats", parents=parents, help="how much there is, and its use")
    _organization(stats)
    stats.add_argument("--json", action="store_true")
    stats.set_defaults(run=_stats)

    clear = actions.add_parser("clear", parents=parents, help="forget answers")
    _organization(clear)
    clear.add_argument(
        "--older-than", type=duration, metavar="TIME", help="such as 30m, 24h or 7d; default: all"
    )
    clear.set_defaults(run=_clear)

    report = actions.add_parser("report", parents=parents, help="say what an answer was worth")
    report.add_argument("entry_id", metavar="ENTRY", help="as the answer named it")
    verdict = report.add_mutually_exclusive_group(required=True)
    verdict.add_argument("--wrong", action="store_true", help="it is not given again")
    verdict.add_argument("--right", dest="wrong", action="store_false")
    report.set_defaults(run=_report)


def _organization(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--organization", default="", metavar="NAME", help="default: the key's own")


def _stats(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        stats = client.get_cache_stats(arguments.organization)
    if arguments.json:
        print_messages([stats])
        return 0
    for name, value in _shown(stats).items():
        print(f"{name:14}{value}")
    if stats.bins:
        rows = [
            [f"{b.similarity:.2f}", str(b.same), str(b.other), f"{b.max_false_share:.1%}"]
            for b in stats.bins
        ]
        print_table(COLUMNS, rows)
    return 0


def _shown(stats: GetCacheStatsResponse) -> Mapping[str, str]:
    threshold = f", from {stats.threshold:.2f} on" if stats.HasField("threshold") else ""
    return {
        "organization": visible(stats.organization),
        "entries": f"{stats.entries:,}, {stats.size_bytes:,} bytes",
        "hits": f"{stats.exact_hits:,} exact, {stats.semantic_hits:,} semantic",
        "misses": f"{stats.misses:,}",
        "waits": f"{stats.waits:,}",
        "semantic": f"{visible(stats.semantic_mode)}{threshold}",
    }


def _clear(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client, changing("give the same command again"):
        client.clear_cache(arguments.organization, older_than=arguments.older_than)
    print("forgotten")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        client.report_hit(arguments.entry_id, wrong=arguments.wrong)
    print("it is not given again" if arguments.wrong else "noted")
    return 0
