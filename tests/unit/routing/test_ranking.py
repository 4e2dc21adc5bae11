"""The order of candidates: scores, and draws that can be repeated."""

from collections import Counter
from dataclasses import astuple

import pytest

from trunkline.v1.completion_spec_pb2 import OptimizeFor
from trunkline_server.core.candidate import Candidate, Price, Score
from trunkline_server.routing.ranking import WEIGHTS, ranked, score, weighted

DRAWS = 4_000


def candidate(name: str, price: Price | None = None, **scores: float) -> Candidate:
    """Of the provider p."""
    return Candidate("p", name, name, price=price or Price(), scores=scores)


GOOD = candidate("good", Price(10, 10), accuracy=0.9, latency=0.2)
FAST = candidate("fast", Price(5, 5), accuracy=0.5, latency=0.95)
CHEAP = candidate("cheap", Price(1, 1), accuracy=0.4, latency=0.4)
ALL = (CHEAP, FAST, GOOD)


def test_every_intent_has_weights_that_add_up_to_one():
    assert set(WEIGHTS) == set(OptimizeFor.values())
    for weights in WEIGHTS.values():
        assert sum(weights) == pytest.approx(1)


@pytest.mark.parametrize(
    ("intent", "best"),
    [
        (OptimizeFor.OPTIMIZE_FOR_ACCURACY, GOOD),
        (OptimizeFor.OPTIMIZE_FOR_LATENCY, FAST),
        (OptimizeFor.OPTIMIZE_FOR_COST, CHEAP),
    ],
)
def test_the_best_is_the_best_at_what_the_caller_asks_for(intent, best):
    scores = score(ALL, intent)

    assert ranked(ALL, scores)[0] is best


def test_a_score_is_the_sum_of_its_weighted_terms():
    scores = score(ALL, OptimizeFor.OPTIMIZE_FOR_BALANCED)

    assert astuple(scores["p/good"]) == pytest.approx((0.51, 0.45, 0.06, 0.0))
    assert scores["p/cheap"].cost == pytest.approx(0.2 * 0.9)


def test_a_score_that_is_given_wins_over_the_price():
    given = candidate("given", Price(10, 10), cost=1.0)

    scores = score([given, CHEAP], OptimizeFor.OPTIMIZE_FOR_COST)

    assert scores["p/given"].cost == pytest.approx(0.7)


def test_what_nobody_has_measured_is_in_the_middle():
    scores = score([candidate("new")], OptimizeFor.OPTIMIZE_FOR_BALANCED)

    assert scores == {"p/new": Score(0.5, 0.25, 0.15, 0.1)}


def test_what_is_free_is_as_cheap_as_can_be():
    scores = score([candidate("free", Price(0, 0))], OptimizeFor.OPTIMIZE_FOR_COST)

    assert scores["p/free"].cost == pytest.approx(0.7)


def test_ties_keep_the_order_of_the_configuration():
    tied = [candidate(name) for name in "zyxabc"]

    assert ranked(tied, score(tied, OptimizeFor.OPTIMIZE_FOR_BALANCED)) == tuple(tied)


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
    assert ranked([], {}) == ()
    assert score([], OptimizeFor.OPTIMIZE_FOR_COST) == {}
