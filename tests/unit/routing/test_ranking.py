"""The order of candidates: what they are worth to a caller, and draws that can be repeated."""

from collections import Counter
from dataclasses import astuple

import pytest

from trunkline.v1.completion_spec_pb2 import OptimizeFor
from trunkline_server.core.candidate import Candidate, Score
from trunkline_server.routing.ranking import MIN_SPREAD, MIN_UNIT_S, WEIGHTS, Terms, terms, weighted
from trunkline_server.routing.scores import Measured
from trunkline_server.routing.thompson import Belief, Fortune

DRAWS = 4_000
BALANCED = OptimizeFor.OPTIMIZE_FOR_BALANCED


def candidate(name: str, **scores: float) -> Candidate:
    """Of the provider p."""
    return Candidate("p", name, name, scores=scores)


GOOD, FAST, CHEAP = candidate("good"), candidate("fast"), candidate("cheap")
ALL = (CHEAP, FAST, GOOD)
ACCURACIES = {"good": 0.9, "fast": 0.5, "cheap": 0.4}
COSTS: dict[str, float | None] = {"good": 10.0, "fast": 5.0, "cheap": 1.0}
TIMES_S = {"good": 3.2, "fast": 0.4, "cheap": 2.0}


def found(
    intent: OptimizeFor.ValueType,
    candidates: tuple[Candidate, ...] = ALL,
    accuracies: dict[str, float] = ACCURACIES,
    costs: dict[str, float | None] = COSTS,
    times_s: dict[str, float] = TIMES_S,
) -> Terms:
    """The terms of these."""
    measured = {c.id: Measured((times_s[c.id],) * 1_000) for c in candidates}
    beliefs = {name: Belief(m, 0.0, Fortune(m, 0.0)) for name, m in measured.items()}
    return terms(
        candidates,
        lambda c: beliefs[c.id],
        intent,
        lambda c: accuracies[c.id],
        lambda c: costs[c.id],
        0.0,
    )


def scores(of: Terms, times_s: dict[str, float] = TIMES_S) -> dict[str, Score]:
    """By name, if each takes as long as it usually does."""
    return {
        o.candidate.id: of.score(o, o.known_loss_s + times_s[o.candidate.id]) for o in of.offers
    }


def test_every_intent_has_weights_that_add_up_to_one():
    assert set(WEIGHTS) == set(OptimizeFor.values())
    for weights in WEIGHTS.values():
        assert sum(weights) == pytest.approx(1)


@pytest.mark.parametrize(
    ("intent", "best"),
    [
        (OptimizeFor.OPTIMIZE_FOR_ACCURACY, "good"),
        (OptimizeFor.OPTIMIZE_FOR_LATENCY, "fast"),
        (OptimizeFor.OPTIMIZE_FOR_COST, "cheap"),
    ],
)
def test_the_best_is_the_best_at_what_the_caller_asks_for(intent, best):
    by_name = scores(found(intent))

    assert max(by_name, key=lambda name: by_name[name].total) == best


@pytest.mark.parametrize("intent", list(WEIGHTS))
def test_the_order_by_loss_is_that_by_score(intent):
    of = found(intent)

    by_loss = sorted(of.offers, key=lambda o: o.known_loss_s + TIMES_S[o.candidate.id])

    by_name = scores(of)
    assert [o.candidate.id for o in by_loss] == sorted(by_name, key=lambda n: -by_name[n].total)


def test_a_score_is_the_sum_of_its_weighted_terms():
    by_name = scores(found(BALANCED))

    unit_s = 2 * TIMES_S["cheap"]
    good, cheap = 0.3 * (1 - 3.2 / unit_s), 0.3 * (1 - 2.0 / unit_s)
    assert astuple(by_name["good"]) == pytest.approx((0.5 + good, 0.5, good, 0.0), abs=1e-3)
    assert astuple(by_name["cheap"]) == pytest.approx((cheap + 0.18, 0.0, cheap, 0.18), abs=1e-3)
    for score in by_name.values():
        assert score.total == pytest.approx(score.accuracy + score.latency + score.cost)


def test_a_difference_that_is_only_noise_stays_small():
    near = {"good": 0.71, "fast": 0.70, "cheap": 0.69}

    by_name = scores(found(BALANCED, accuracies=near))

    assert by_name["fast"].accuracy == pytest.approx(0.5 * (1 - 0.01 / MIN_SPREAD))


def test_among_fast_ones_a_unit_of_latency_is_no_shorter_than_a_second():
    assert found(BALANCED, times_s={"good": 0.1, "fast": 0.2, "cheap": 0.3}).unit_s == MIN_UNIT_S


def test_one_that_has_become_slow_does_not_make_the_others_alike():
    slow = {**TIMES_S, "good": 60.0}

    assert found(BALANCED, times_s=slow).unit_s == found(BALANCED).unit_s


def test_who_is_slower_than_a_whole_unit_shows_no_latency_and_still_comes_last():
    of = found(BALANCED)
    offer = of.offers[0]

    assert of.score(offer, offer.known_loss_s + 40.0).latency == 0.0


def test_a_score_that_is_given_wins_over_the_price():
    given = candidate("good", cost=1.0)

    by_name = scores(found(OptimizeFor.OPTIMIZE_FOR_COST, (given, CHEAP)))

    assert by_name["good"].cost == pytest.approx(0.7)


def test_an_unknown_price_is_neither_cheap_nor_dear():
    by_name = scores(found(OptimizeFor.OPTIMIZE_FOR_COST, costs={**COSTS, "cheap": None}))

    assert by_name["cheap"].cost == pytest.approx(0.35)


def test_what_is_free_is_as_cheap_as_can_be():
    free = dict.fromkeys(COSTS, 0.0)

    by_name = scores(found(OptimizeFor.OPTIMIZE_FOR_COST, costs={**free}))

    assert {score.cost for score in by_name.values()} == {0.7}


def first_drawn(weights: dict[str, float]) -> Counter[str]:
    """Who comes first, in so many draws."""
    candidates = [candidate(name) for name in weights]
    by_key = {f"p/{name}": weight for name, weight in weights.items()}
    return Counter(weighted(candidates, by_key, f"seed-{n}")[0].id for n in range(DRAWS))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("weights", [(1, 1), (9, 1), (1, 2, 7)], ids=str)
def test_each_comes_first_as_often_as_its_weight_says_whatever_the_scale(weights, scale):
    named = {f"m{number}": weight * scale for number, weight in enumerate(weights)}

    drawn = first_drawn(named)

    for name, weight in named.items():
        share = weight / sum(named.values())
        assert drawn[name] / DRAWS == pytest.approx(share, abs=0.03)


def test_who_has_no_weight_comes_last_and_in_order():
    candidates = [candidate(name) for name in ("none", "one", "other", "two")]
    weights = {"p/one": 1.0, "p/two": 1.0, "p/none": 0.0}

    for number in range(50):
        found = [c.id for c in weighted(candidates, weights, str(number))]

        assert found[2:] == ["none", "other"]
        assert sorted(found[:2]) == ["one", "two"]


def test_the_same_seed_draws_the_same_order():
    candidates = [candidate(str(number)) for number in range(10)]
    weights = {c.key: 1.0 for c in candidates}

    orders = [weighted(candidates, weights, seed) for seed in ("req_1", "req_1", "req_2")]

    assert orders[0] == orders[1] != orders[2]


def test_nobody_is_drawn_from_nobody():
    assert weighted([], {}, "seed") == ()
