"""Bars in a terminal. Elsewhere the same with one plain letter, so that it can be mailed or compared."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from trunkline_server.commands.output import GAP, is_terminal
from trunkline_server.commands.words import NONE, visible

PLAIN_WIDTH: Final = 80
MIN_BAR: Final = 10
MAX_LABEL: Final = 40
PLAIN: Final = "#"
# A cell is drawn in eighths.
EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
STYLE: Final = "cyan"


@dataclass(frozen=True, slots=True)
class Bar:
    """One line.

    Attributes:
        value: 0 or more; the longest bar of a chart is its largest.
        text: the value in words.
    """

    label: str
    value: int
    text: str


def print_bars(bars: Sequence[Bar], largest: int, indent: str = "") -> None:
    """One chart.

    Args:
        largest: of this one, or of all that are to be compared.
    """
    plain = not is_terminal()
    columns = PLAIN_WIDTH if plain else shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns
    labels = [_cut(visible(bar.label) or NONE) for bar in bars]
    label_width = max(map(len, labels), default=0)
    text_width = max((len(bar.text) for bar in bars), default=0)
    width = max(MIN_BAR, columns - len(indent) - label_width - text_width - 2 * len(GAP) - 1)
    for bar, label in zip(bars, labels, strict=True):
        drawn = _drawn(bar.value, largest, width, plain)
        head = f"{indent}{label:{label_width}}{GAP}{bar.text:>{text_width}}{GAP}"
        if plain:
            print(f"{head}{drawn}".rstrip())
        else:
            _print_rich(head, drawn)


def _drawn(value: int, largest: int, width: int, plain: bool) -> str:
    """Whatever is more than nothing can be seen."""
    if value <= 0 or largest <= 0:
        return ""
    if plain:
        return PLAIN * max(1, value * width // largest)
    whole, rest = divmod(max(1, value * width * 8 // largest), 8)
    return EIGHTHS[8] * whole + (EIGHTHS[rest] if rest else "")


def _cut(label: str) -> str:
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 3]}..."


def _print_rich(head: str, drawn: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False, soft_wrap=True).print(Text.assemble(head, (drawn, STYLE)))
