"""What candidates of one group are worth to a caller: accuracy, latency and cost, weighted by what is optimised for.

Each term is scaled to 0..1 over the candidates at hand:

- accuracy: 1 for the best, 0 for the worst, but a whole unit is never less than MIN_SPREAD, so that a difference that
  is only noise stays small;
- latency: 1 for no time at all, 0 for twice the median, which one slow candidate does not move; a unit is never less
  than MIN_UNIT_S;
- cost: 1 for nothing, 0 for the dearest, by what this request is expected to cost.

The score is the weighted sum. The order is that of the losses, which is the same thing said in seconds: what a caller
would wait for a more accurate or a cheaper answer is added to what an answer costs in time, failed attempts included
(`thompson`). Slow candidates and those in trouble can lose more than a whole unit; their latency then shows as 0.

Source of the weights: https://docs.speko.dev/concepts/routing, read 2026-11-01.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Final

from trunkline.v1.completion_spec_pb2 import OptimizeFor
from trunkline_server.core.candidate import Candidate, Score
from trunkline_server.routing.thompson import Belief, Row

# accuracy, latency, cost
WEIGHTS: Final[Mapping[OptimizeFor.ValueType, tuple[float, float, float]]] = {
    OptimizeFor.OPTIMIZE_FOR_UNSPECIFIED: (0.5, 0.3, 0.2),
    OptimizeFor.OPTIMIZE_FOR_BALANCED: (0.5, 0.3, 0.2),
    OptimizeFor.OPTIMIZE_FOR_ACCURACY: (0.8, 0.15, 0.05),
    OptimizeFor.OPTIMIZE_FOR_LATENCY: (0.2, 0.7, 0.1),
    OptimizeFor.OPTIMIZE_FOR_COST: (0.15, 0.15, 0.7),
}
MIN_SPREAD: Final = 0.2
MIN_UNIT_S: Final = 1.0
MEDIANS: Final = 2.0  # That a unit of latency has.
UNKNOWN_CHEAPNESS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Offer:
    """A candidate's terms but for time. `accuracy` and `cheapness` are scaled, 0 to 1, and not weighted.

    Attributes:
        known_loss_s: what they are worth in seconds.
    """

    name: str
    candidate: Candidate
    accuracy: float
    cheapness: float
    known_loss_s: float


@dataclass(frozen=True, slots=True)
class Terms:
    """Of all candidates of a group, for requests of one kind.

    Attributes:
        unit_s: the time that a whole unit of latency is.
        rows: the same, as the policy takes it.
    """

    weights: tuple[float, float, float]
    unit_s: float
    offers: tuple[Offer, ...]
    rows: tuple[Row, ...]
    by_name: Mapping[str, Candidate]

    def score(self, offer: Offer, loss_s: float) -> Score:
        """What a loss was made of. The terms are weighted, and their sum is the total."""
        for_accuracy, for_latency, for_cost = self.weights
        promptness = 1 - (loss_s - offer.known_loss_s) / self.unit_s
        accuracy = for_accuracy * offer.accuracy
        latency = for_latency * min(1.0, max(0.0, promptness))
        cost = for_cost * offer.cheapness
        return Score(accuracy + latency + cost, accuracy, latency, cost)


def terms(
    candidates: Sequence[Candidate],
    belief: Callable[[Candidate], Belief],
    optimize_for: OptimizeFor.ValueType,
    accuracy: Callable[[Candidate], float],
    expected_cost: Callable[[Candidate], float | None],
    now_s: float,
) -> Terms:
    """The terms of a group.

    Args:
        accuracy: 0 to 1.
        expected_cost: in any currency, the same for all; None where the price is unknown.
    """
    weights = for_accuracy, for_latency, for_cost = WEIGHTS[optimize_for]
    accuracies = [accuracy(c) for c in candidates]
    best = max(accuracies, default=1.0)
    spread = max(MIN_SPREAD, best - min(accuracies, default=1.0))
    costs = [expected_cost(c) for c in candidates]
    dearest = max((cost for cost in costs if cost is not None), default=0.0)
    beliefs = [belief(c) for c in candidates]
    usual_s = median_low(b.expected(now_s).latency_s for b in beliefs)
    unit_s = max(MIN_UNIT_S, MEDIANS * usual_s)
    offers = []
    for candidate, measured, cost in zip(candidates, accuracies, costs, strict=True):
        scaled = 1 - (best - measured) / spread
        cheapness = candidate.scores.get("cost")
        if cheapness is None:
            cheapness = _cheapness(cost, dearest)
        lost = for_accuracy * (1 - scaled) + for_cost * (1 - cheapness)
        known_loss_s = unit_s * lost / for_latency
        offers.append(Offer(candidate.key, candidate, scaled, cheapness, known_loss_s))
    rows = [(o.name, b, o.known_loss_s) for o, b in zip(offers, beliefs, strict=True)]
    by_name = {o.name: o.candidate for o in offers}
    return Terms(weights, unit_s, tuple(offers), tuple(rows), by_name)


def _cheapness(cost: float | None, dearest: float) -> float:
    if cost is None:
        return UNKNOWN_CHEAPNESS
    return 1 - cost / dearest if dearest else 1.0


def weighted(
    candidates: Sequence[Candidate], weights: Mapping[str, float], seed: str
) -> tuple[Candidate, ...]:
    """Drawn without replacement, each with its weight. The same seed draws the same order.

    Source: Efraimidis and Spirakis, weighted random sampling with a reservoir, 2006.
    """
    draw = random.Random(seed)

    def key(candidate: Candidate) -> float:
        weight = weights.get(candidate.key, 0.0)
        # The logarithm of the paper's key, which would be 0 for most draws with a weight far below 1.
        return -math.log(1.0 - draw.random()) / weight if weight > 0 else math.inf

    return tuple(sorted(candidates, key=key))
