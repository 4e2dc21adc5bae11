"""From outcomes to a scoring run: shares of right answers with their intervals, times, failures."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from trunkline_server.routing.scoring_run import (
    MAX_SAMPLES,
    Cell,
    DataSet,
    ScoringRun,
    Timing,
    sealed,
)
from trunkline_server.scoring.judge import JUDGE

Z: Final = 1.959964  # Of a normal distribution, 95 % lie so many deviations around the middle.
DECIMALS: Final = 4
MIN_MS: Final = 0.001  # A record holds no time of 0,
MAX_MS: Final = 3_600_000.0  # and none longer than an hour.


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one question.

    Attributes:
        model: `Candidate.key`.
        is_right: None where there was nothing to judge.
        first_token_ms: None where it is not known.
        problem: why there is no answer; empty where there is one.
    """

    model: str
    language: str
    is_right: bool | None = None
    first_token_ms: float | None = None
    problem: str = ""


@dataclass(slots=True)
class Tally:
    """Outcomes of one model, counted.

    Attributes:
        silent: answers without a word.
        problem: the last one.
    """

    right: int = 0
    judged: int = 0
    silent: int = 0
    failures: int = 0
    first_token_ms: list[float] = field(default_factory=list)
    problem: str = ""

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        if outcome.problem:
            self.failures += 1
            self.problem = outcome.problem
            return
        if outcome.is_right is None:
            self.silent += 1
        else:
            self.judged += 1
            self.right += outcome.is_right
        if outcome.first_token_ms is not None:
            self.first_token_ms.append(outcome.first_token_ms)

    @property
    def mean(self) -> float:
        """Of at least one judged answer."""
        return self.right / self.judged

    @property
    def interval(self) -> tuple[float, float]:
        """Of at least one judged answer."""
        return wilson(self.right, self.judged)


def tallies(models: Sequence[str], outcomes: Iterable[Outcome]) -> dict[str, Tally]:
    """Of each model, in their order; also where there is no outcome."""
    found = {model: Tally() for model in models}
    for outcome in outcomes:
        found[outcome.model].add(outcome)
    return found


def wilson(right: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score.

    It stays within 0 and 1 and is of use for few answers too.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    share, z2 = right / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the interval reaches the share itself, which rounding must not lose.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def record(
    models: Sequence[str],
    outcomes: Sequence[Outcome],
    data_set: DataSet,
    time: str,
    region: str = "",
) -> ScoringRun | None:
    """The scoring run, or None where nothing could be judged.

    A failed attempt is no wrong answer: it counts among the failures of the model's timing. With a region every cell is
    there twice, under the region and under all together, of which this is all that is known.

    Args:
        models: `Candidate.key` of each, in the order of the record.
        time: RFC 3339.
    """
    whole = tallies(models, outcomes)
    parts: dict[str, dict[str, Tally]] = {model: {} for model in models}
    for outcome in outcomes:
        parts[outcome.model].setdefault(outcome.language, Tally()).add(outcome)
    cells = [
        _cell(model, language, place, tally)
        for model in models
        for language, tally in [("", whole[model]), *sorted(parts[model].items())]
        if tally.judged
        for place in ([""] if not region else ["", region])
    ]
    if not cells:
        return None
    timings = [
        Timing(
            model, [_ms(ms) for ms in tally.first_token_ms[:MAX_SAMPLES]], failures=tally.failures
        )
        for model, tally in whole.items()
        if tally.first_token_ms or tally.failures
    ]
    return sealed(
        ScoringRun(time=time, data_set=data_set, judge=JUDGE, cells=cells, timings=timings)
    )


def _cell(model: str, language: str, region: str, tally: Tally) -> Cell:
    low, high = tally.interval
    mean = round(tally.mean, DECIMALS)
    return Cell(
        model=model,
        mean=mean,
        language=language,
        region=region,
        n=tally.judged,
        low=min(mean, round(low, DECIMALS)),
        high=max(mean, round(high, DECIMALS)),
    )


def _ms(ms: float) -> float:
    return min(max(round(ms, 3), MIN_MS), MAX_MS)
