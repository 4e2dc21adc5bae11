"""Bars in a terminal. Elsewhere the same with one plain letter, so that it can be mailed or compared."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from trunkline_server.commands.output import GAP, draws_blocks
from trunkline_server.commands.words import NONE, visible

PLAIN_WIDTH: Final = 80
MIN_BAR: Final = 10
MAX_LABEL: Final = 40
INDENT: Final = "  "
PLAIN: Final = "#"
# A cell is drawn in eighths.
EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
STYLE: Final = "cyan"


@dataclass(frozen=True, slots=True)
class Bar:
    """One line.

    Attributes:
        value: 0 or more.
        text: the value in words.
    """

    label: str
    value: int
    text: str


def print_charts(charts: Mapping[str, Sequence[Bar]]) -> None:
    """Charts by title, all to one scale. An empty title is not printed."""
    plain = not draws_blocks()
    columns = PLAIN_WIDTH if plain else shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns
    bars = [bar for chart in charts.values() for bar in chart]
    indent = INDENT if any(charts) else ""
    label_width = max((len(_label(bar)) for bar in bars), default=0)
    text_width = max((len(bar.text) for bar in bars), default=0)
    largest = max((bar.value for bar in bars), default=0)
    width = max(MIN_BAR, columns - len(indent) - label_width - text_width - 2 * len(GAP) - 1)
    write = _print_plain if plain else _rich_printer()
    for title, chart in charts.items():
        if title:
            write(visible(title), "")
        for bar in chart:
            head = f"{indent}{_label(bar):{label_width}}{GAP}{bar.text:>{text_width}}{GAP}"
            write(head, _drawn(bar.value, largest, width, plain))


def _label(bar: Bar) -> str:
    label = visible(bar.label) or NONE
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 3]}..."


def _drawn(value: int, largest: int, width: int, plain: bool) -> str:
    """Whatever is more than nothing can be seen."""
    if value <= 0 or largest <= 0:
        return ""
    if plain:
        return PLAIN * max(1, value * width // largest)
    whole, rest = divmod(max(1, value * width * 8 // largest), 8)
    return EIGHTHS[8] * whole + (EIGHTHS[rest] if rest else "")


def _print_plain(head: str, drawn: str) -> None:
    print(f"{head}{drawn}".rstrip())


def _rich_printer() -> Callable[[str, str], None]:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)

    def write(head: str, drawn: str) -> None:
        console.print(Text.assemble(head, (drawn, STYLE)))

    return write
