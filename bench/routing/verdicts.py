"""From runs to a verdict: regrets, ratios and what is asked of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from bench.routing.intervals import Interval, mean, ratio
from bench.routing.policies import BASELINE, POLICIES, Clairvoyant, briefing, ranking
from bench.routing.simulate import Result, expected_loss_s, simulate
from bench.routing.worlds import KINDS, RATE_PER_S, REQUESTS, World, world

CLAIRVOYANT: Final = "clairvoyant"
MAX_RATIO: Final = 0.3  # Of the baseline's regret, where anything changes.
MAX_RATIO_STATIONARY: Final = 1.1


@dataclass(frozen=True, slots=True)
class Row:
    """One policy in one kind of world, over all runs. Seconds per request.

    Attributes:
        loss_s: as it came about.
        regret_s: expected loss of the orders chosen, minus that of the clairvoyant's. What is judged. The baseline's
            is the average over all scoring runs that it might have come from.
        felt_regret_s: loss as it came about, minus the clairvoyant's in the same runs: the same with luck left in.
        ratio: of `regret_s` to the baseline's.
        attempts: per request.
    """

    world: str
    policy: str
    loss_s: Interval
    regret_s: Interval
    felt_regret_s: Interval
    ratio: Interval
    attempts: float

    @property
    def max_ratio(self) -> float:
        return MAX_RATIO_STATIONARY if KINDS[self.world].is_stationary else MAX_RATIO

    @property
    def passes(self) -> bool:
        """By the estimate."""
        return self.ratio.mean <= self.max_ratio

    @property
    def passes_surely(self) -> bool:
        """By the upper end of the interval."""
        return self.ratio.high <= self.max_ratio


def rows(
    kind: str,
    names: Sequence[str],
    seeds: Sequence[int],
    requests: int = REQUESTS,
    rate_per_s: float = RATE_PER_S,
) -> list[Row]:
    """One row for the clairvoyant and one for each policy, in that order."""
    results: dict[str, list[Result]] = {name: [] for name in (CLAIRVOYANT, *names)}
    rankings_s = []
    for seed in seeds:
        place = world(kind, seed, requests, rate_per_s)
        told = briefing(place)
        for name, runs in results.items():
            policy = Clairvoyant(place) if name == CLAIRVOYANT else POLICIES[name](told)
            runs.append(simulate(place, policy))
        rankings_s.append(ranking_loss_s(place))
    best = results[CLAIRVOYANT]
    base_s = [
        loss_s - least.expected_loss_s for loss_s, least in zip(rankings_s, best, strict=True)
    ]
    return [_row(kind, name, results[name], best, base_s) for name in (CLAIRVOYANT, *names)]


def ranking_loss_s(place: World) -> float:
    """Expected loss of a static ranking, on average over the scoring runs that it might come from.

    One scoring run is much luck: most rank the best candidate first, a few are far off. Averaging says what such a
    ranking is worth, with a fraction of the noise.
    """
    rankings = Counter(ranking(place.offers, scoring) for scoring in place.scorings)
    total_s = sum(count * expected_loss_s(place, order) for order, count in rankings.items())
    return total_s / len(place.scorings)


def _row(
    kind: str,
    name: str,
    results: Sequence[Result],
    best: Sequence[Result],
    base_s: Sequence[float],
) -> Row:
    pairs = list(zip(results, best, strict=True))
    regrets_s = [own.expected_loss_s - least.expected_loss_s for own, least in pairs]
    if name == BASELINE:
        regrets_s = list(base_s)
    return Row(
        world=kind,
        policy=name,
        loss_s=mean([result.loss_s for result in results]),
        regret_s=mean(regrets_s),
        felt_regret_s=mean([own.loss_s - least.loss_s for own, least in pairs]),
        ratio=ratio(regrets_s, base_s),
        attempts=fmean(result.attempts for result in results),
    )
