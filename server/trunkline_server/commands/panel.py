"""`trunkline panel`: what the command line says of it. What it does is in `scoring`."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from trunkline_server.commands.output import Column, limit, print_table


def add_panel(
    commands: Any,
    parents: list[argparse.ArgumentParser],
    evaluate: Callable[[argparse.Namespace], int],
    default_tokens: int,
    default_concurrency: int,
) -> None:
    """The parsers.

    Args:
        evaluate: runs `panel eval`.
        default_tokens: that an answer may have, where nothing is said.
        default_concurrency: questions that are asked at once.
    """
    actions = commands.add_parser("panel", help="does a panel of models pay?").add_subparsers(
        metavar="eval", required=True
    )
    evaluation = actions.add_parser(
        "eval",
        parents=parents,
        help="ask models and panels the same questions, and say who was right, at what cost and how fast",
    )
    evaluation.add_argument(
        "--models", nargs="+", type=names, default=[], metavar="A,B", help="default: the best few"
    )
    evaluation.add_argument(
        "--panels", nargs="+", type=names, default=[], metavar="A,B", help="default: all"
    )
    evaluation.add_argument(
        "--questions", default="", metavar="FILE", help="JSON lines; default: those that come along"
    )
    evaluation.add_argument(
        "--limit", type=limit, default=0, metavar="N", help="the first N questions only"
    )
    evaluation.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="ask everything N times"
    )
    evaluation.add_argument(
        "--concurrency",
        type=int,
        default=default_concurrency,
        metavar="N",
        help=f"questions that are asked at once; default: {default_concurrency}",
    )
    evaluation.add_argument(
        "--max-tokens",
        type=int,
        default=default_tokens,
        metavar="N",
        help=f"of an answer; default: {default_tokens}",
    )
    evaluation.add_argument("--temperature", type=float, help="default: the models' own")
    evaluation.add_argument(
        "--json", action="store_true", help="a line of JSON for each model and panel"
    )
    evaluation.add_argument(
        "--plot", default="", metavar="FILE", help="cost against accuracy, as .svg or .png"
    )
    evaluation.add_argument("--yes", action="store_true", help="begin without a question")
    evaluation.set_defaults(run=evaluate)


def names(text: str) -> list[str]:
    """With commas between them. For argparse."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name")
    return found


def show(columns: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]]) -> None:
    """A table, as other commands print theirs.

    Args:
        columns: title, and whether it is of numbers.
    """
    print_table([Column(title, is_number) for title, is_number in columns], rows)
