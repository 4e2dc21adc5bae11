"""Who sits on a panel: those whom its rules name, or the best that there are.

Everybody is ranked first, as for any other route; what is done here is to deal out the places.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import pstdev
from typing import Final

from trunkline_server.core.candidate import Candidate, PanelPlan, Plan
from trunkline_server.core.errors import NoEligibleProvider
from trunkline_server.core.panels import PanelRules
from trunkline_server.routing.catalog import Members

MIN_COMPARED: Final = 3  # Models, below which a lead over the others says nothing.


def panel_of(members: Members, plan: Plan, accuracy: Callable[[Candidate], float]) -> Plan:
    """The plan with its panel.

    Args:
        plan: all candidates in the order of their ranks.
        accuracy: 0 to 1.

    Raises:
        NoEligibleProvider: none of the proposers that were named may answer.
    """
    rules = members.rules
    ranked = plan.candidates
    if members.proposers:
        seats = [seat for keys in members.proposers if (seat := _seat(keys, ranked))]
        if not seats:
            raise NoEligibleProvider(f"no proposer of the panel {plan.route!r} is left")
    elif not rules.mixes:
        seats = [ranked]
    else:
        seats = [_first(model, ranked) for model in _models(rules, ranked, accuracy)]
    aggregators = _seat(members.aggregators, ranked)
    others = [c for c in _by_accuracy(ranked, accuracy) if c not in aggregators]
    return replace(
        plan,
        panel=PanelPlan(
            rules,
            tuple(replace(plan, candidates=seat, decision=None, hedges=False) for seat in seats),
            replace(plan, candidates=(*aggregators, *others)),
            min(rules.quorum, len(seats)),
        ),
    )


def _seat(keys: Sequence[str], ranked: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Those of these keys that may answer, in the order of the keys."""
    left = {candidate.key: candidate for candidate in ranked}
    return tuple(left[key] for key in keys if key in left)


def _models(
    rules: PanelRules, ranked: Sequence[Candidate], accuracy: Callable[[Candidate], float]
) -> list[str]:
    """The models that propose: different ones, as far as there are so many; one alone where it leads by far."""
    hosted = [c for c in ranked if not c.embedded] or ranked
    models = {c.id: accuracy(c) for c in reversed(hosted)}
    best_first = sorted(models, key=lambda m: next(i for i, c in enumerate(hosted) if c.id == m))
    if len(models) >= MIN_COMPARED:
        first, second = sorted(models.values(), reverse=True)[:2]
        if first - second > pstdev(models.values()):
            # One good model asked several times beats a mixture with much weaker ones.
            # Source: https://arxiv.org/abs/2502.00674
            best_first = [max(models, key=models.__getitem__)]
    return [best_first[n % len(best_first)] for n in range(rules.size)]


def _first(model: str, ranked: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """One model's deployments, then all the others, who stand in for it."""
    own = [c for c in ranked if c.id == model]
    return (*own, *(c for c in ranked if c.id != model))


def _by_accuracy(
    ranked: Sequence[Candidate], accuracy: Callable[[Candidate], float]
) -> list[Candidate]:
    return sorted(ranked, key=lambda c: (c.embedded, -accuracy(c)))
