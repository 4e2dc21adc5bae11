"""Discounted Thompson sampling: what it believes after what, and how often it tries another."""

from collections.abc import Mapping

import pytest

from bench.routing.worlds import Offer, Scoring
from trunkline_server.routing.thompson import EXPLORED_SHARE, Thompson

FAST, NEAR, FAR = Offer("fast", 0.0), Offer("near", 0.0), Offer("far", 0.0)
OFFERS = [FAR, NEAR, FAST]
LATENCIES_S = {"fast": 0.5, "near": 0.6, "far": 2.0}
SCORED = {name: Scoring((latency_s,) * 20, 0) for name, latency_s in LATENCIES_S.items()}
IDS = [f"request-{i}" for i in range(5_000)]


def leader(policy: Thompson, now_s: float, offers: list[Offer] = OFFERS) -> str:
    """Who comes first for most of a few requests."""
    firsts = [policy.order(now_s, request_id, offers)[0] for request_id in IDS[:21]]
    return max(set(firsts), key=firsts.count)


def taught(policy: Thompson, candidate: str, latency_s: float, failed: bool, count: int) -> float:
    """Reports that many attempts, one a second from the first second on. Returns the time of the last."""
    for second in range(1, count + 1):
        policy.observe(float(second), candidate, latency_s, failed)
    return float(count)


def test_candidates_come_in_the_order_of_the_scoring_run_when_nothing_else_is_known():
    assert Thompson(SCORED).order(0.0, IDS[0], OFFERS) == ["fast", "near", "far"]


def test_a_known_loss_is_as_good_as_time():
    offers = [Offer("fast", 0.5), NEAR, FAR]

    assert Thompson(SCORED).order(0.0, IDS[0], offers) == ["near", "fast", "far"]


@pytest.mark.parametrize("scored", [SCORED, {}], ids=["scored", "unknown"])
def test_the_same_requests_and_observations_give_the_same_orders(scored: Mapping[str, Scoring]):
    def orders() -> list[list[str]]:
        policy = Thompson(scored)
        found = []
        for i, request_id in enumerate(IDS[:500]):
            found.append(policy.order(float(i), request_id, OFFERS))
            policy.observe(i + 0.5, found[-1][0], 0.5 + i % 3, i % 7 == 0)
        return found

    assert orders() == orders()


def test_few_requests_explore_and_never_a_candidate_that_is_far_worse():
    policy = Thompson(SCORED)

    orders = [policy.order(0.0, request_id, OFFERS) for request_id in IDS]

    assert all(sorted(order) == ["far", "fast", "near"] for order in orders)
    firsts = [order[0] for order in orders]
    assert firsts.count("far") == 0
    assert firsts.count("near") / len(IDS) == pytest.approx(EXPLORED_SHARE, rel=0.25)


def test_one_failure_among_many_answers_does_not_end_a_lead_but_a_few_in_a_row_do():
    policy = Thompson(SCORED)
    now_s = taught(policy, "fast", 0.5, False, 200)

    leaders = []
    for failure in range(4):
        policy.observe(now_s + failure, "fast", 1.0, True)
        leaders.append(leader(policy, now_s + failure))

    assert leaders[0] == "fast"
    assert leaders[-1] == "near"


def test_a_candidate_that_became_slow_loses_its_lead_and_may_be_well_again_after_a_while():
    policy = Thompson(SCORED)
    now_s = taught(policy, "fast", 5.0, False, 30)

    slow = policy.belief("fast", now_s).expected(now_s)
    later_s = now_s + 2 * 3_600
    rested = policy.belief("fast", later_s).expected(later_s)

    assert leader(policy, now_s) == "near"
    assert slow.latency_s > 3.0
    assert rested.latency_s < 1.2


def test_trouble_is_forgotten_when_nothing_is_heard():
    policy = Thompson(SCORED)
    now_s = taught(policy, "fast", 15.0, True, 10)

    down = policy.belief("fast", now_s).expected(now_s)
    later_s = now_s + 3_600
    rested = policy.belief("fast", later_s).expected(later_s)

    assert down.failure > 0.25
    assert rested.failure < 0.05
    assert down.lost_s > 4.0
    assert rested.lost_s < 0.2


def test_an_attempt_without_a_time_still_says_whether_it_failed():
    policy = Thompson(SCORED)

    for _ in range(10):
        policy.observe(1.0, "fast", None, True)

    assert leader(policy, 1.0) == "near"


def test_a_clock_that_runs_backwards_changes_nothing_but_the_order_of_news():
    policy = Thompson(SCORED)
    taught(policy, "fast", 0.5, False, 100)

    policy.observe(3.0, "fast", 0.5, False)

    assert leader(policy, 2.0) == "fast"


def test_who_was_never_asked_is_asked_by_those_who_explore_however_fast_the_others_are():
    policy = Thompson({"fast": Scoring((0.05,) * 20, 0), "near": Scoring((0.06,) * 20, 0)})

    firsts = {policy.order(0.0, request_id, OFFERS)[0] for request_id in IDS}
    policy.observe(1.0, "far", 0.5, False)
    later = {policy.order(1.0, request_id, OFFERS)[0] for request_id in IDS}

    assert firsts == {"fast", "far"}
    assert later == {"fast", "near"}


def test_without_a_scoring_run_the_first_observations_say_what_is_usual():
    policy = Thompson({})
    for second in range(3):
        policy.observe(float(second), "fast", 0.05, False)

    long_after = policy.belief("fast", 1e6).expected(1e6).latency_s

    assert long_after == pytest.approx(0.05, rel=0.2)


def test_who_is_never_waited_for_is_taken_for_slow_and_not_for_failing():
    policy = Thompson(SCORED)
    before = policy.belief("fast", 0.0).expected(0.0)
    for second in range(1, 6):
        policy.belief("fast", float(second)).outwait(float(second), 5.0)

    after = policy.belief("fast", 5.0).expected(5.0)

    assert after.latency_s > 1.0
    assert after.failure == pytest.approx(before.failure, rel=0.1)
    assert leader(policy, 5.0) == "near"


def test_who_was_left_before_it_could_answer_is_none_the_worse_for_it():
    policy = Thompson(SCORED)
    before = policy.belief("fast", 0.0).expected(0.0)
    for second in range(1, 50):
        policy.belief("fast", float(second)).outwait(float(second), 0.2)

    assert policy.belief("fast", 0.0).expected(0.0).latency_s == before.latency_s
