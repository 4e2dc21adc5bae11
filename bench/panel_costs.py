"""What a member of a panel costs: CPU of the service, beyond that of a plain completion.

Plain completions and panels of several sizes are asked in turn, for a short time each, of one service over one
upstream, whose answers are all the same and come at once. Panels wait for all of their members. In each round the
costs are set against the calls of upstreams that an answer took, and a line is laid through them: its slope is what
one more member costs, all of its call of an upstream included. Less what a plain completion costs, which is a call of
an upstream too, it is what a member costs for being one. Every round gives figures of its own, taken at reference
speed (`yardstick.py`); the table shows their medians, and between which values the middle half of them lies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import linear_regression, mean, median, quantiles
from typing import Final

from gateways import CannotMeasure, Gateway
from gateways.trunkline_panels import SIZES, cost_route
from processes import wait_until_quiet
from rows import Round, Row, measure_round, warm_up

CALLERS: Final = 8
CHUNKS: Final = 40
WARM_UP_S: Final = 0.7
LIMIT_US: Final = 150.0
PLAIN: Final = "plain"  # A name of the model that is not made to stand for a panel here.


@dataclass(frozen=True)
class Kind:
    """What is asked.

    Attributes:
        calls: of upstreams, for one answer.
    """

    model: str
    calls: int
    is_stream: bool
    critiques: bool = False

    @property
    def row(self) -> Row:
        name = f"{self.model}{'-stream' * self.is_stream}"
        return Row(name, False, self.is_stream, self.model, CALLERS, chunks=CHUNKS)


@dataclass(frozen=True)
class Line:
    """What is laid through the costs of several kinds, in us at reference speed: a value for each round.

    Attributes:
        extra: a slope less a plain completion that is not streamed, which is the cheapest there is.
    """

    name: str
    slopes: Sequence[float]
    extra: Sequence[float]

    @property
    def is_reached(self) -> bool:
        return median(self.slopes) <= LIMIT_US


PLAIN_KIND: Final = Kind(PLAIN, 1, is_stream=False)


def kinds() -> list[Kind]:
    found = []
    for is_stream in (False, True):
        found.append(replace(PLAIN_KIND, is_stream=is_stream))
        for size in SIZES:
            # A panel of one asks it alone; all others have somebody who aggregates.
            found.append(Kind(cost_route(size), size + (size > 1), is_stream))
            if size > 1:
                model = cost_route(size, critiques=True)
                found.append(Kind(model, size + 2, is_stream, critiques=True))
    return found


def measure(
    described: Gateway, pid: int, upstream_pid: int, rounds: int, seconds: float
) -> dict[Kind, list[Round]]:
    """So many rounds of every kind.

    Raises:
        CannotMeasure: an answer was not as it should be.
    """
    asked = kinds()
    for kind in asked:
        _checked(kind, warm_up(kind.row, described, WARM_UP_S).first_error)
    found: dict[Kind, list[Round]] = {kind: [] for kind in asked}
    wait_until_quiet()
    for number in range(rounds):
        for kind in asked if number % 2 == 0 else reversed(asked):
            measured = measure_round(kind.row, described, pid, upstream_pid, seconds)
            _checked(kind, measured.load.first_error)
            found[kind].append(measured)
    return found


def _checked(kind: Kind, error: str) -> None:
    if error:
        raise CannotMeasure(f"{kind.row.name}: {error}")


def lines(found: dict[Kind, list[Round]]) -> list[Line]:
    """Unary and streamed, without a critique and with."""
    rounds = len(next(iter(found.values())))
    # Of a whole round: within one the machine's speed hardly changes, and each reading is rough.
    slowness = [mean(measured[n].slowness for measured in found.values()) for n in range(rounds)]
    laid = []
    for is_stream in (False, True):
        for critiques in (False, True):
            name = ("streamed" if is_stream else "unary") + ", critique" * critiques
            chosen = [
                kind
                for kind in found
                if kind.is_stream is is_stream and (kind.critiques is critiques or kind.calls == 1)
            ]
            calls = [kind.calls for kind in chosen]
            us = [
                [found[kind][n].cpu_us_per_request / slow for kind in chosen]
                for n, slow in enumerate(slowness)
            ]
            slopes = [linear_regression(calls, costs).slope for costs in us]
            plain = [measured.cpu_us_per_request for measured in found[PLAIN_KIND]]
            extra = [s - p / slow for s, p, slow in zip(slopes, plain, slowness, strict=True)]
            laid.append(Line(name, slopes, extra))
    return laid


def show(found: dict[Kind, list[Round]], say: Callable[[str], None]) -> bool:
    """Print both tables. True: the target is reached."""
    say(f"{'answer':<22} {'calls':>5} {'us here':>9} {'at reference':>13} {'slow':>5} {'other':>6}")
    for kind, rounds in found.items():
        here = median(r.cpu_us_per_request for r in rounds)
        slow = median(r.slowness for r in rounds)
        reference = median(r.cpu_us_per_request / r.slowness for r in rounds)
        other = max(r.foreign_cores for r in rounds)
        say(
            f"{kind.row.name:<22} {kind.calls:>5} {here:>9,.0f} {reference:>13,.0f} {slow:>5.1f} {other:>6.2f}"
        )
    say(f"\n{'us at reference speed':<22} {'one more member':>24} {'less a plain completion':>24}")
    laid = lines(found)
    for line in laid:
        verdict = "ok" if line.is_reached else "MISS"
        say(
            f"{line.name:<22} {_middle(line.slopes):>24} {_middle(line.extra):>24}  {LIMIT_US:g} us {verdict}"
        )
    return all(line.is_reached for line in laid)


def _middle(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:,.0f}"
    low, _, high = quantiles(values, n=4)
    return f"{median(values):,.0f} ({low:,.0f} to {high:,.0f})"
