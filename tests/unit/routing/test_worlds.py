"""The worlds that routing policies are judged in: what they promise, and that nobody beats the one who knows."""

import math
from collections.abc import Sequence
from dataclasses import astuple
from statistics import fmean

import pytest

from bench.routing.intervals import Interval, mean, ratio
from bench.routing.policies import POLICIES, Clairvoyant, briefing
from bench.routing.simulate import expected_loss_s, simulate
from bench.routing.verdicts import rows
from bench.routing.worlds import (
    INCIDENT_EVERY_S,
    INCIDENT_S,
    KINDS,
    MAX_CANDIDATES,
    MIN_CANDIDATES,
    RATE_PER_S,
    STEP_S,
    TESTING_SEEDS,
    TUNING_SEEDS,
    Moment,
    Offer,
    Trouble,
    World,
    world,
)

SEEDS = TUNING_SEEDS[:2]
REQUESTS = 1_000


def worlds(kind: str, requests: int = REQUESTS) -> list[World]:
    return [world(kind, seed, requests) for seed in SEEDS]


def share_in_trouble(place: World) -> float:
    """Of the candidates' time."""
    until_s = len(place.moments) * STEP_S
    lost_s = sum(
        min(incident.end_s, until_s) - incident.start_s
        for own in place.incidents
        for incident in own
    )
    return lost_s / until_s / len(place.offers)


def bests(place: World) -> set[int]:
    """Who is the best at some time."""
    return {moment.best[0] for moment in place.moments}


def test_seeds_for_testing_are_not_those_for_tuning():
    assert len(set(TUNING_SEEDS)) == len(set(TESTING_SEEDS)) == 10
    assert not set(TUNING_SEEDS) & set(TESTING_SEEDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_kind_and_seed_make_the_same_world(kind):
    assert world(kind, 1, 200) == world(kind, 1, 200)
    assert world(kind, 1, 200) != world(kind, 2, 200)


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_policy_does_the_same_in_the_same_world(name):
    place = world("drifting-outages", 1, 500)
    told = briefing(place)

    once, again = (simulate(place, POLICIES[name](told)) for _ in range(2))

    assert once == again


def test_worlds_of_one_seed_have_the_same_providers_and_arrivals():
    calm, troubled = world("stationary", 1, 300), world("outages", 1, 300)

    assert calm.offers == troubled.offers
    assert calm.arrivals_s == troubled.arrivals_s
    assert calm.scorings == troubled.scorings


def test_there_are_as_many_candidates_as_promised_and_requests_come_at_their_rate():
    places = [world("stationary", seed, 400) for seed in range(30)]

    sizes = {len(place.offers) for place in places}
    rate_per_s = fmean(400 / place.arrivals_s[-1] for place in places)

    assert sizes == set(range(MIN_CANDIDATES, MAX_CANDIDATES + 1))
    assert rate_per_s == pytest.approx(RATE_PER_S, rel=0.03)


def test_a_stationary_world_never_changes():
    for place in worlds("stationary"):
        assert set(place.moments) == {place.moments[0]}
        assert share_in_trouble(place) == 0


@pytest.mark.parametrize("kind", ["drifting", "jumping"])
def test_medians_that_change_change_who_is_best(kind):
    for place in (world(kind, seed, 400, rate_per_s=0.02) for seed in TUNING_SEEDS[:4]):
        assert len(bests(place)) > 1
        assert share_in_trouble(place) == 0


def test_outages_take_the_share_of_time_that_they_should():
    shortest_s, longest_s = INCIDENT_S
    usual_s = (longest_s - shortest_s) / math.log(longest_s / shortest_s)

    places = [world("outages", seed, 200, rate_per_s=0.004) for seed in range(12)]

    share = fmean(share_in_trouble(place) for place in places)
    assert share == pytest.approx(usual_s / (usual_s + INCIDENT_EVERY_S), rel=0.15)
    for place in places:
        for own in place.incidents:
            lengths_s = [incident.end_s - incident.start_s for incident in own]
            assert all(shortest_s <= length_s <= longest_s for length_s in lengths_s)


@pytest.mark.parametrize("trouble", Trouble)
def test_an_incident_does_to_attempts_what_its_name_says(trouble):
    fates: list[tuple[float, bool]] = []
    medians_s: list[float] = []
    for seed in range(8):
        place = world("outages", seed, 1_500)
        for i, own in enumerate(place.incidents):
            spans = [(n.start_s, n.end_s) for n in own if n.trouble is trouble]
            for request, now_s in enumerate(place.arrivals_s):
                begun_s = now_s // STEP_S * STEP_S
                if any(start_s <= begun_s < end_s for start_s, end_s in spans):
                    at = request * len(place.offers) + i
                    fates.append((place.elapsed_s[at], bool(place.failed[at])))
                    medians_s.append(math.exp(place.moment(0).conditions[i].log_median_s))

    failed = fmean(has_failed for _, has_failed in fates)
    silent = fmean(elapsed_s == 15.0 for elapsed_s, _ in fates)
    slower = [took / usual for (took, _), usual in zip(fates, medians_s, strict=True)]
    assert len(fates) > 200
    match trouble:
        case Trouble.REFUSING:
            assert (failed, silent) == (1, 0)
        case Trouble.SILENT:
            assert (failed, silent) == (1, 1)
        case Trouble.BROWNOUT:
            assert 0.3 < failed < 0.6
            assert 0 < silent < failed / 2
        case Trouble.SLOW:
            assert sorted(slower)[len(slower) // 2] == pytest.approx(10, rel=0.25)


@pytest.mark.parametrize("kind", ["stationary", "balanced"])
def test_losses_are_on_average_what_is_expected_of_them(kind):
    for place in worlds(kind, 6_000)[:1]:
        result = simulate(place, POLICIES["random"](briefing(place)))

        assert result.loss_s == pytest.approx(result.expected_loss_s, rel=0.05)


def test_what_is_expected_of_a_fixed_order_is_what_a_run_of_it_finds():
    place = world("drifting-outages", 1, REQUESTS)
    order = [offer.name for offer in place.offers]

    class Fixed(Clairvoyant):
        def order(self, now_s: float, request_id: str, candidates: Sequence[Offer]) -> list[str]:
            return order

    result = simulate(place, Fixed(place))

    assert result.expected_loss_s == pytest.approx(expected_loss_s(place, order), rel=1e-9)


def orders(size: int) -> list[tuple[int, ...]]:
    """All of them, for few."""
    if size == 0:
        return [()]
    return [(*rest[:i], size - 1, *rest[i:]) for rest in orders(size - 1) for i in range(size)]


@pytest.mark.parametrize("kind", KINDS)
def test_no_order_is_expected_to_be_better_than_the_best(kind):
    place = next(place for seed in range(100) if len((place := world(kind, seed, 800)).offers) == 5)
    moments: list[Moment] = list(dict.fromkeys(place.moments))

    for moment in moments[:: max(1, len(moments) // 20)]:
        least_s = min(moment.expected_loss_s(order) for order in orders(5))

        assert moment.expected_loss_s(moment.best) == pytest.approx(least_s, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_clairvoyants_regret_is_0_and_nobodys_is_below_0(kind):
    clairvoyant, *others = rows(kind, list(POLICIES), SEEDS, REQUESTS)

    nothing = Interval(0, 0, 0)
    assert clairvoyant.regret_s == clairvoyant.felt_regret_s == clairvoyant.ratio == nothing
    for row in others:
        assert row.regret_s.mean > -1e-12
        assert row.felt_regret_s.high >= 0


def test_a_static_ranking_is_nearly_the_best_where_nothing_changes_and_not_elsewhere():
    losses_s = {}
    for kind in ("stationary", "drifting-outages"):
        clairvoyant, static = rows(kind, ["static"], TUNING_SEEDS, 500)
        losses_s[kind] = static.regret_s.mean / clairvoyant.loss_s.mean

    assert losses_s["stationary"] < 0.1
    assert losses_s["drifting-outages"] > 0.25


def test_an_order_that_leaves_out_a_candidate_is_refused():
    place = world("stationary", 1, 10)

    class Forgetful(Clairvoyant):
        def order(self, now_s: float, request_id: str, candidates: Sequence[Offer]) -> list[str]:
            return [offer.name for offer in candidates[1:]]

    with pytest.raises(ValueError, match="every candidate once"):
        simulate(place, Forgetful(place))


def test_an_interval_is_students():
    found = mean([1.0, 2.0, 3.0])

    assert astuple(found) == pytest.approx((2.0, -0.484, 4.484), abs=1e-3)


def test_a_ratio_of_pairs_that_keep_it_is_certain():
    assert ratio([1.0, 2.0, 6.0], [2.0, 4.0, 12.0]) == Interval(0.5, 0.5, 0.5)


def test_a_ratio_to_nothing_is_infinite():
    assert ratio([1.0, 2.0], [0.0, 0.0]) == Interval(math.inf, math.inf, math.inf)
