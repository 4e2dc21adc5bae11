"""Cost against accuracy, drawn as SVG by hand: a plotting library would be a large dependency for one picture.

Models are circles and panels diamonds, so that colour is never all that tells them apart; each has a number, which the
list below the picture explains. The description says all of it in words. Colours follow the reader's scheme, dark or
light.
"""

import math
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from trunkline_server.config import ConfigError
from trunkline_server.scoring.panel_table import cost
from trunkline_server.scoring.panel_trial import Row
from trunkline_server.scoring.store import check_folder, write

SVG: Final = ".svg"
PNG: Final = ".png"
CONVERTER: Final = "rsvg-convert"
CONVERTER_S: Final = 60.0
ZOOM: Final = "2"

WIDTH: Final = 820
LEFT, RIGHT, TOP, BOTTOM = 70, 790, 64, 404
UNKNOWN_WIDTH: Final = 110  # Of the band for what has no known cost.
LIST_TOP: Final = 478
LINE: Final = 30
RADIUS: Final = 10
ASIDE: Final = 2 * RADIUS + 2
UNKNOWN_PLACES: Final = UNKNOWN_WIDTH // ASIDE - 1
MAX_NAME: Final = 44
MAX_TICKS: Final = 8
LOGARITHMIC: Final = (
    10.0  # The axis is so, where the dearest costs so many times as much as the cheapest.
)
NANOS: Final = 1_000_000_000

# No variables: converters do not know them.
STYLE: Final = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1a1a1a; }
.head { font-size: 17px; font-weight: 600; }
.soft { fill: #555555; }
.number { font-size: 12px; font-weight: 600; text-anchor: middle; fill: #ffffff; }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.paper { fill: #ffffff; }
.grid { stroke: #d8d8d8; stroke-width: 1; }
.axis { stroke: #555555; stroke-width: 1; }
.band { fill: #f1f1f1; }
.model { fill: #1b5e9e; stroke: #1b5e9e; }
.panel { fill: #a33a0a; stroke: #a33a0a; }
.bar { stroke-width: 2; fill: none; }
@media (prefers-color-scheme: dark) {
text { fill: #ececec; }
.soft { fill: #b5b5b5; }
.number { fill: #141414; }
.paper { fill: #16181c; }
.grid { stroke: #363a42; }
.axis { stroke: #b5b5b5; }
.band { fill: #22252b; }
.model { fill: #7fb8f2; stroke: #7fb8f2; }
.panel { fill: #f5a373; stroke: #f5a373; }
.bar { fill: none; }
}
"""


def check_plot(path: Path) -> None:
    """Can a picture be put there? Asked before anything is.

    Raises:
        ConfigError.
    """
    check_folder(path)
    if path.suffix.lower() not in (SVG, PNG):
        raise ConfigError([f"--plot: {path} is neither a {SVG} nor a {PNG}"])
    if path.is_dir():
        raise ConfigError([f"--plot: {path} is a folder"])
    if path.suffix.lower() == PNG and shutil.which(CONVERTER) is None:
        missing = f"--plot: a {PNG} needs the program {CONVERTER} (of librsvg), which is not here"
        raise ConfigError([f"{missing}; name a {SVG} instead, which every browser shows"])


def store_plot(path: Path, rows: Sequence[Row], questions: int) -> None:
    """Draw it there, in the place of what is there.

    Raises:
        ConfigError: it can't be written, or the converter fails.
    """
    drawn = svg(rows, questions).encode()
    write(path, _png(drawn) if path.suffix.lower() == PNG else drawn)


def _png(drawn: bytes) -> bytes:
    program = shutil.which(CONVERTER) or CONVERTER
    try:
        made = subprocess.run(
            [program, "--format=png", f"--zoom={ZOOM}"],
            input=drawn,
            capture_output=True,
            timeout=CONVERTER_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError([f"--plot: {CONVERTER} failed: {type(error).__name__}"]) from error
    return made.stdout


def svg(rows: Sequence[Row], questions: int) -> str:
    """The picture, whose text is safe whatever models are called."""
    height = LIST_TOP + LINE * len(rows) + 16
    drawing = _Drawing(rows)
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    title = f"Accuracy and cost of an answer, {questions} questions"
    told = "; ".join(f"{number}: {_words(row)}" for number, row in enumerate(rows, start=1))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title description">',
            f'<title id="title">{title}</title>',
            f'<desc id="description">Further up is more often right, further left is cheaper. {_safe(told)}.</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
            _text(LEFT, 28, title, "head"),
            _text(LEFT, 48, "Bars: 95 % intervals. Circles: models. Diamonds: panels.", "soft"),
            *drawing.axes(),
            *drawing.marks(),
            *_list(rows),
            "</svg>",
            "",
        ]
    )


class _Drawing:
    """Where things stand. Costs are in US dollars."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        costs = [row.cost_nanos / NANOS for row in rows if row.cost_nanos is not None]
        self._has_unknown = len(costs) < len(rows)
        self._right = RIGHT - UNKNOWN_WIDTH if self._has_unknown else RIGHT
        self._is_known = bool(costs)
        least, most = min(costs, default=0.0), max(costs, default=0.0)
        self._is_logarithmic = least > 0 and most / least >= LOGARITHMIC
        self._low = least / 1.5 if self._is_logarithmic else 0.0
        self._high = most * (1.5 if self._is_logarithmic else 1.15) or 0.01
        self._floor = math.floor(min(row.interval[0] for row in rows) * 10) / 10

    def _x(self, usd: float) -> float:
        if self._is_logarithmic:
            share = math.log(usd / self._low) / math.log(self._high / self._low)
        else:
            share = usd / self._high
        return LEFT + share * (self._right - LEFT)

    def _y(self, accuracy: float) -> float:
        return BOTTOM - (accuracy - self._floor) / (1 - self._floor) * (BOTTOM - TOP)

    def axes(self) -> Iterator[str]:
        """Lines, numbers, and what they are of."""
        if self._has_unknown:
            size = f'width="{RIGHT - self._right}" height="{BOTTOM - TOP}"'
            yield f'<rect class="band" x="{self._right}" y="{TOP}" {size}/>'
            middle = (self._right + RIGHT) / 2
            yield _text(middle, BOTTOM + 20, "cost not known", "middle soft")
        step = 0.1 if self._floor < 0.7 else 0.05
        for place in range(round((1 - self._floor) / step) + 1):
            accuracy = self._floor + place * step
            y = self._y(accuracy)
            yield f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield _text(LEFT - 8, y + 4, f"{accuracy:.0%}", "end")
        if self._is_known:
            for usd in ticks(self._low, self._high, is_logarithmic=self._is_logarithmic):
                x = self._x(usd)
                yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{BOTTOM}"/>'
                yield _text(x, BOTTOM + 20, f"{usd:.10f}".rstrip("0").rstrip("."), "middle")
            scale = ", logarithmic" if self._is_logarithmic else ""
            name = f"US dollars for an answer{scale}"
            yield _text((LEFT + self._right) / 2, BOTTOM + 42, name, "middle soft")
        yield f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>'
        yield f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{BOTTOM}"/>'

    def marks(self) -> Iterator[str]:
        """A number and an interval for each. Those that would hide each other stand side by side."""
        placed: list[tuple[float, float]] = []
        unknown = 0
        for number, row in enumerate(self._rows, start=1):
            known = row.cost_nanos
            if known is None:
                x = self._right + ASIDE * (1.0 + unknown % UNKNOWN_PLACES)
                unknown += 1
            else:
                x = self._x(known / NANOS)
            y = self._y(row.accuracy)
            while any(abs(x - a) < ASIDE and abs(y - b) < ASIDE for a, b in placed):
                x += ASIDE
            x = min(x, RIGHT + RADIUS)
            placed.append((x, y))
            yield from self._mark(number, row, x, y)

    def _mark(self, number: int, row: Row, x: float, y: float) -> Iterator[str]:
        kind = "panel" if row.is_panel else "model"
        low, high = (self._y(end) for end in row.interval)
        yield f'<g class="{kind}"><title>{_safe(_words(row))}</title>'
        yield (
            f'<path class="bar" d="M{x:.1f} {low:.1f}V{high:.1f}M{x - 5:.1f} {low:.1f}h10M{x - 5:.1f} {high:.1f}h10"/>'
        )
        yield _symbol(x, y, is_panel=row.is_panel)
        yield f"{_text(x, y + 4, str(number), 'number')}</g>"


def ticks(low: float, high: float, *, is_logarithmic: bool) -> list[float]:
    """Round numbers from `low` to `high`, at most `MAX_TICKS`."""
    if is_logarithmic:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [d * 10.0**power for power in powers for d in digits]
            found = [tick for tick in found if low <= tick <= high]
            if len(found) <= MAX_TICKS:
                return found
        return found[:: -(-len(found) // MAX_TICKS)]
    step = 10.0 ** math.floor(math.log10(high / (MAX_TICKS - 1)))
    step *= next(factor for factor in (1, 2, 5, 10) if high / (step * factor) < MAX_TICKS)
    return [step * place for place in range(int(high / step) + 1)]


def _list(rows: Sequence[Row]) -> Iterator[str]:
    for place, row in enumerate(rows):
        y = LIST_TOP + place * LINE
        low, high = row.interval
        kind = "panel" if row.is_panel else "model"
        yield f'<g class="{kind}">{_symbol(LEFT, y, is_panel=row.is_panel)}'
        yield f"{_text(LEFT, y + 4, str(place + 1), 'number')}</g>"
        yield _text(
            LEFT + 20,
            y + 4,
            row.name if len(row.name) <= MAX_NAME else row.name[: MAX_NAME - 3] + "...",
        )
        yield _text(LEFT + 530, y + 4, f"{row.accuracy:.1%} ({low:.1%} - {high:.1%})", "end")
        yield _text(RIGHT, y + 4, _cost_words(row), "end")


def _symbol(x: float, y: float, *, is_panel: bool) -> str:
    if is_panel:
        reach = RADIUS * 1.35
        return f'<path d="M{x:.1f} {y - reach:.1f}l{reach} {reach}l-{reach} {reach}l-{reach} -{reach}z"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}"/>'


def _words(row: Row) -> str:
    low, high = row.interval
    kind = "panel" if row.is_panel else "model"
    return f"{row.name} ({kind}), {row.accuracy:.1%} right ({low:.1%} to {high:.1%}), {_cost_words(row)}"


def _cost_words(row: Row) -> str:
    return "cost not known" if row.cost_nanos is None else f"{cost(row)} US dollars"


def _text(x: float, y: float, text: str, style: str = "") -> str:
    named = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{named}>{_safe(text)}</text>'


def _safe(text: str) -> str:
    return escape("".join(letter if letter.isprintable() else "\ufffd" for letter in text))
