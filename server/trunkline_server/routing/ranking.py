"""Puts candidates in order.

Each term is scaled to 0..1 over the candidates at hand and weighted by what the caller optimises for. The sum is the
score; ties keep the order of the configuration.

Source of the weights: https://docs.speko.dev/concepts/routing, read 2026-11-01.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Final

from trunkline.v1.completion_spec_pb2 import OptimizeFor
from trunkline_server.core.candidate import Candidate, Score

# accuracy, latency, cost
WEIGHTS: Final[Mapping[OptimizeFor.ValueType, tuple[float, float, float]]] = {
    OptimizeFor.OPTIMIZE_FOR_UNSPECIFIED: (0.5, 0.3, 0.2),
    OptimizeFor.OPTIMIZE_FOR_BALANCED: (0.5, 0.3, 0.2),
    OptimizeFor.OPTIMIZE_FOR_ACCURACY: (0.8, 0.15, 0.05),
    OptimizeFor.OPTIMIZE_FOR_LATENCY: (0.2, 0.7, 0.1),
    OptimizeFor.OPTIMIZE_FOR_COST: (0.15, 0.15, 0.7),
}
PRIOR: Final = 0.5  # Of what nobody has measured.


def score(candidates: Sequence[Candidate], optimize_for: OptimizeFor.ValueType) -> dict[str, Score]:
    """Scores by `Candidate.key`."""
    accuracy_weight, latency_weight, cost_weight = WEIGHTS[optimize_for]
    dearest_nanos = max((_blended_nanos(c) or 0 for c in candidates), default=0)
    scores = {}
    for candidate in candidates:
        accuracy = accuracy_weight * candidate.scores.get("accuracy", PRIOR)
        latency = latency_weight * candidate.scores.get("latency", PRIOR)
        cost = cost_weight * candidate.scores.get("cost", _cheapness(candidate, dearest_nanos))
        scores[candidate.key] = Score(accuracy + latency + cost, accuracy, latency, cost)
    return scores


def ranked(candidates: Sequence[Candidate], scores: Mapping[str, Score]) -> tuple[Candidate, ...]:
    """Best first."""
    return tuple(sorted(candidates, key=lambda c: -scores[c.key].total))


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


def _blended_nanos(candidate: Candidate) -> int | None:
    # Three tokens in for one out is how chat traffic usually looks.
    price = candidate.price
    if price.input_nanos is None or price.output_nanos is None:
        return None
    return (3 * price.input_nanos + price.output_nanos) // 4


def _cheapness(candidate: Candidate, dearest_nanos: int) -> float:
    nanos = _blended_nanos(candidate)
    if nanos is None:
        return PRIOR
    return 1.0 - nanos / dearest_nanos if dearest_nanos else 1.0
