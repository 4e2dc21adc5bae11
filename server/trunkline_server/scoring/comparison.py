"""Does a panel answer better than the best of the models alone? Both were asked the same questions.

What decides are the questions on which they differ. If neither were better, each such difference might as well have
gone the other way: `p` is the chance of a sum as large as was seen, over all ways in which the signs could have fallen.
With one answer to each question this is McNemar's exact test.

Sources: Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", 1947;
R. A. Fisher, "The Design of Experiments", 1935, section 21; for the number of questions R. J. Connor, "Sample size for
testing differences in proportions for the paired-sample design", 1987.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from trunkline_server.scoring.panel_trial import Row
from trunkline_server.scoring.record import Z

SIGNIFICANT: Final = 0.05
POWER_Z: Final = 0.841621  # A difference that is there is found in 80 of 100 runs.
SMALLEST: Final = 0.05  # Where no difference was seen: the one for which questions are counted.


class Verdict(StrEnum):
    """What can be said of a panel."""

    WINS = "wins"
    LOSES = "loses"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A panel against one model.

    Attributes:
        better, worse: questions on which the panel did so.
        difference: of the accuracies, the panel's less the model's.
        p: the chance of such a difference, or a larger one, where there is none.
        needed: questions of this kind that it would take to tell, about; None where it was told.
        dearer, slower: how many times as much the panel takes; infinite where the model takes nothing; None where it
            is not known.
    """

    panel: Row
    model: Row
    questions: int
    better: int
    worse: int
    difference: float
    p: float
    needed: int | None
    dearer: float | None
    slower: float | None

    @property
    def verdict(self) -> Verdict:
        """At 5 %."""
        if self.p >= SIGNIFICANT:
            return Verdict.OPEN
        return Verdict.WINS if self.difference > 0 else Verdict.LOSES


def best_alone(rows: Sequence[Row]) -> Row | None:
    """The most accurate model; of equals the cheapest one, then the promptest. None: none can be judged."""
    models = [row for row in rows if not row.is_panel and row.is_judged]
    return min(
        models,
        key=lambda row: (
            -row.accuracy,
            math.inf if row.cost_nanos is None else row.cost_nanos,
            math.inf if row.mean_s is None else row.mean_s,
        ),
        default=None,
    )


def compare(panel: Row, model: Row) -> Comparison:
    """Both were asked every question, each as often as the other."""
    panels, models = panel.right_by_question, model.right_by_question
    differences = [panels[question] - models[question] for question in panels]
    repeat = len(panel.answers) // len(panels)
    p = chance(differences)
    shares = [difference / repeat for difference in differences]
    return Comparison(
        panel=panel,
        model=model,
        questions=len(panels),
        better=sum(difference > 0 for difference in differences),
        worse=sum(difference < 0 for difference in differences),
        difference=math.fsum(shares) / len(shares),
        p=p,
        needed=None if p < SIGNIFICANT else questions_needed(shares),
        dearer=_times(panel.cost_nanos, model.cost_nanos),
        slower=_times(panel.mean_s, model.mean_s),
    )


def chance(differences: Sequence[int]) -> float:
    """Of a sum as far from 0 as that of these, if each had either sign with the same chance."""
    seen = abs(sum(differences))
    chances: Mapping[int, float] = {0: 1.0}
    for size in filter(None, map(abs, differences)):
        spread: defaultdict[int, float] = defaultdict(float)
        for total, share in chances.items():
            spread[total + size] += share / 2
            spread[total - size] += share / 2
        chances = spread
    return min(1.0, math.fsum(share for total, share in chances.items() if abs(total) >= seen))


def questions_needed(shares: Sequence[float]) -> int:
    """To find a difference like this one, with questions that divide the two as these do; more than there are.

    Args:
        shares: of each question the difference of the two, -1 to 1.
    """
    mean = abs(math.fsum(shares)) / len(shares)
    difference = mean or SMALLEST
    square = max(math.fsum(share * share for share in shares) / len(shares), difference)
    spread = Z * math.sqrt(square) + POWER_Z * math.sqrt(max(0.0, square - difference**2))
    return max(math.ceil((spread / difference) ** 2), len(shares) + 1)


def _times(panel: float | None, model: float | None) -> float | None:
    if panel is None or model is None:
        return None
    if model == 0:
        return math.inf if panel else 1.0
    return panel / model


# in words


def sentences(found: Comparison) -> str:
    """What came of it, for whoever has to decide."""
    return f"{_claim(found)} {_price(found)}"


def _claim(found: Comparison) -> str:
    panel, model = found.panel.name, found.model.name
    shares = f"{found.panel.accuracy:.1%} right against {found.model.accuracy:.1%}"
    counted = f"better on {found.better} of {found.questions} questions, worse on {found.worse}"
    seen = f"{shares}, {counted} (p = {_p(found.p)})."
    match found.verdict:
        case Verdict.WINS:
            return f"{panel} wins against {model}, the best single model: {seen}"
        case Verdict.LOSES:
            return f"{panel} loses to {model}, the best single model: {seen}"
        case Verdict.OPEN:
            what = (
                "a difference of this size"
                if round(found.difference, 9)
                else f"a difference of {SMALLEST * 100:.0f} points"
            )
            return (
                f"{panel} can't be told from {model}, the best single model, by {found.questions} questions: {seen} "
                f"To tell {what} would take about {_rounded(found.needed or 0):,} questions."
            )


def _price(found: Comparison) -> str:
    """What is paid for it, in money and time."""
    if found.dearer is None:
        cost, joint = "What it costs in comparison is not known", ", and it takes"
    elif math.isinf(found.dearer):
        cost, joint = "It is not free, as the model is", ", and takes"
    else:
        cost, joint = f"It costs {_factor(found.dearer)} as much", " and takes"
    time = "" if found.slower is None else f"{joint} {_factor(found.slower)} as long"
    advice = {
        Verdict.WINS: "",
        Verdict.LOSES: " Ask the model instead.",
        Verdict.OPEN: " It is not shown to pay.",
    }[found.verdict]
    if found.verdict is Verdict.OPEN and found.dearer is not None and found.dearer < 1:
        advice = ""  # It is the cheaper one.
    return f"{cost}{time}.{advice}"


def _p(chance: float) -> str:
    return "less than 0.001" if chance < 0.001 else f"{chance:.3f}"


def _factor(times: float) -> str:
    return f"{times:.1f} times" if times < 100 else f"{times:.0f} times"


def _rounded(count: int) -> int:
    """To two digits, upwards: more would be a false precision."""
    unit: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit
