"""How breakers, cooldowns and budgets of several candidates combine."""

import pytest

from trunkline_server.completion.circuits import Circuits
from trunkline_server.core.breaker import State
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.failure import CONSEQUENCES, Failure

NOW_S = 1_000.0
A = Candidate("a", "m", "m")
B = Candidate("b", "m", "m")


def new_circuits() -> Circuits:
    """Without jitter."""
    return Circuits(lambda: 0.0)


def attempt(
    circuits: Circuits,
    candidate: Candidate,
    now_s: float,
    failure: Failure | None,
    retry_after_s: float | None = None,
) -> None:
    """One that begins and ends at once."""
    permit = circuits.begin(candidate, now_s, is_first=True)
    if failure is None:
        permit.begin_answer()
        permit.succeed(now_s, 0.1)
    else:
        permit.fail(now_s, failure, retry_after_s)


@pytest.mark.parametrize("failure", Failure)
def test_a_failure_counts_as_its_consequence_says(failure):
    circuits = new_circuits()
    consequence = CONSEQUENCES[failure]

    for _ in range(5):
        attempt(circuits, A, NOW_S, failure)

    counts = consequence.trips or consequence.opens or failure is Failure.THROTTLED
    assert circuits.allows(A, NOW_S) is not counts
    is_open = circuits.health(A).breaker.state(NOW_S) is State.OPEN
    assert is_open is (consequence.trips or consequence.opens)
    assert circuits.allows(B, NOW_S)


@pytest.mark.parametrize("failure", Failure)
def test_one_failure_opens_only_what_its_consequence_opens(failure):
    circuits = new_circuits()

    attempt(circuits, A, NOW_S, failure)

    assert circuits.allows(A, NOW_S) is not CONSEQUENCES[failure].opens


@pytest.mark.parametrize("failure", Failure)
def test_retry_after_cools_only_where_the_consequence_says_so(failure):
    circuits = new_circuits()

    attempt(circuits, A, NOW_S, failure, retry_after_s=2.0)

    consequence = CONSEQUENCES[failure]
    assert circuits.allows(A, NOW_S + 1) is not (consequence.cools or consequence.opens)
    assert circuits.allows(A, NOW_S + 2) is not consequence.opens


def test_in_panic_the_one_whose_time_is_up_first_is_asked():
    circuits = new_circuits()
    attempt(circuits, A, NOW_S, Failure.CREDENTIAL)
    attempt(circuits, B, NOW_S - 10, Failure.CREDENTIAL)

    found = circuits.least_bad([A, B], NOW_S)

    assert found is B
    assert circuits.shortest_wait_s([A, B], NOW_S) == 20.0


def test_whoever_asked_to_be_left_alone_is_not_asked_even_in_panic():
    circuits = new_circuits()
    attempt(circuits, A, NOW_S, Failure.THROTTLED, retry_after_s=30.0)

    assert circuits.least_bad([A], NOW_S + 29) is None
    assert circuits.all_throttled([A], NOW_S + 29)
    assert circuits.allows(A, NOW_S + 30)


def test_in_panic_each_is_asked_once_at_a_time():
    failure = Failure.CREDENTIAL
    circuits = new_circuits()
    for candidate in (A, B):
        attempt(circuits, candidate, NOW_S, failure)

    asked = {}
    while (least_bad := circuits.least_bad([A, B], NOW_S + 1)) is not None:
        asked[least_bad.key] = circuits.begin(least_bad, NOW_S + 1, is_first=True)

    assert list(asked) == [A.key, B.key]
    asked[B.key].fail(NOW_S + 2, failure)
    assert circuits.least_bad([A, B], NOW_S + 2) is B


def test_an_attempt_that_began_before_the_panic_does_not_end_it():
    circuits = new_circuits()
    early = circuits.begin(A, NOW_S - 1, is_first=True)
    attempt(circuits, A, NOW_S, Failure.THROTTLED, retry_after_s=30.0)
    circuits.begin(A, NOW_S + 1, is_first=True)

    early.succeed(NOW_S + 2, None)

    assert circuits.least_bad([A], NOW_S + 2) is None


def test_a_trial_under_way_is_not_joined_in_panic():
    circuits = new_circuits()
    attempt(circuits, A, NOW_S, Failure.CREDENTIAL)
    circuits.begin(A, NOW_S + 30, is_first=True)

    found = circuits.least_bad([A], NOW_S + 31)

    assert found is None


def test_a_panic_attempt_that_serves_leaves_the_breaker_to_its_time():
    circuits = new_circuits()
    attempt(circuits, A, NOW_S, Failure.CREDENTIAL)

    attempt(circuits, A, NOW_S + 1, None)

    assert not circuits.allows(A, NOW_S + 29)
    assert circuits.allows(A, NOW_S + 30)


def test_candidates_of_one_provider_share_a_retry_budget_and_no_breaker():
    circuits = new_circuits()
    other = Candidate("a", "n", "n")

    attempt(circuits, A, NOW_S, Failure.CREDENTIAL)

    assert circuits.health(A).budget is circuits.health(other).budget
    assert circuits.health(A).budget is not circuits.health(B).budget
    assert circuits.allows(other, NOW_S)


def test_who_was_never_asked_can_be_asked_now():
    circuits = new_circuits()

    assert circuits.shortest_wait_s([A, B], NOW_S) == 0.0
    assert circuits.allows(A, NOW_S)


def test_the_one_with_room_is_chosen_before_the_one_that_is_busy():
    circuits = new_circuits()
    for _ in range(32):
        circuits.begin(A, NOW_S, is_first=True)

    assert circuits.choose([A, B], NOW_S) is B
    assert circuits.choose([A], NOW_S) is A


def test_one_that_has_said_that_it_is_too_much_is_left_alone_while_it_is_busy():
    circuits = new_circuits()
    permits = [circuits.begin(A, NOW_S - 1, is_first=True) for _ in range(100)]

    permits.pop().fail(NOW_S - 0.5, Failure.THROTTLED)
    assert circuits.choose([A], NOW_S) is A  # Once may be chance.
    for _ in range(4):
        permits.pop().fail(NOW_S, Failure.THROTTLED)

    assert circuits.choose([A], NOW_S) is None
    assert circuits.least_bad([A], NOW_S) is None
    assert circuits.all_throttled([A], NOW_S)
    assert circuits.shortest_wait_s([A], NOW_S) == 1.0
    for _ in range(30):
        permits.pop().leave()
    assert circuits.choose([A], NOW_S) is A


def test_a_trial_of_an_open_breaker_lowers_no_limit():
    circuits = new_circuits()
    attempt(circuits, A, NOW_S, Failure.CREDENTIAL)
    height = circuits.health(A).concurrency.limit

    for round_ in range(1, 20):
        attempt(circuits, A, NOW_S + 400 * round_, Failure.SERVER)

    assert circuits.health(A).concurrency.limit == height


def test_slowness_alone_refuses_nobody():
    circuits = new_circuits()
    for seconds in [0.1] * 40 + [5.0] * 40:
        circuits.begin(A, NOW_S, is_first=True).succeed(NOW_S, seconds)
    for _ in range(100):
        circuits.begin(A, NOW_S, is_first=True)

    assert circuits.choose([A], NOW_S) is A


def test_who_says_too_much_again_and_again_and_not_for_how_long_is_left_alone_ever_longer():
    circuits = new_circuits()
    now_s = NOW_S
    waits_s = []
    for _ in range(2):
        attempt(circuits, A, now_s, Failure.THROTTLED)
        assert circuits.allows(A, now_s)  # A limit may be near: that is for the concurrency limit.
    for _ in range(7):
        attempt(circuits, A, now_s, Failure.THROTTLED)
        waits_s.append(circuits.shortest_wait_s([A], now_s))
        now_s += waits_s[-1]

    assert waits_s == [1, 2, 4, 8, 16, 30, 30]
    assert circuits.health(A).breaker.state(now_s) is State.CLOSED
    attempt(circuits, A, now_s, None)
    attempt(circuits, A, now_s, Failure.THROTTLED)
    assert circuits.allows(A, now_s)


def test_those_who_are_refused_together_count_as_one():
    circuits = new_circuits()
    permits = [circuits.begin(A, NOW_S, is_first=True) for _ in range(20)]

    for permit in permits:
        permit.fail(NOW_S + 0.1, Failure.THROTTLED)

    assert not circuits.health(A).breaker.is_cooling(NOW_S + 0.1)


def test_a_refusal_between_answers_that_begin_is_none_in_a_row():
    circuits = new_circuits()

    for number in range(20):
        now_s = NOW_S + number
        running = circuits.begin(A, now_s, is_first=True)
        running.begin_answer()
        attempt(circuits, A, now_s, Failure.THROTTLED)
        running.leave()

    assert not circuits.health(A).breaker.is_cooling(now_s)


def tripped(circuits: Circuits, now_s: float) -> float:
    """Opens A's breaker. Returns when it is half open."""
    for _ in range(5):
        attempt(circuits, A, now_s, Failure.SERVER)
    assert not circuits.allows(A, now_s)
    return now_s + circuits.shortest_wait_s([A], now_s)


def test_a_trial_is_over_for_others_once_its_answer_begins():
    circuits = new_circuits()
    now_s = tripped(circuits, NOW_S)

    trials = []
    for _ in range(3):
        assert circuits.allows(A, now_s)
        trials.append(circuits.begin(A, now_s, is_first=True))
        assert not circuits.allows(A, now_s)
        trials[-1].begin_answer()
    last = circuits.begin(A, now_s, is_first=True)
    for trial in trials[:2]:
        trial.succeed(now_s + 60, 0.1)
        assert not circuits.allows(A, now_s + 60)  # Of the one whose answer has not begun.
    trials[2].succeed(now_s + 60, 0.1)
    last.leave()

    assert circuits.health(A).breaker.state(now_s + 60) is State.CLOSED
    assert circuits.allows(A, now_s + 60)


def test_a_trial_whose_answer_breaks_off_opens_again():
    circuits = new_circuits()
    now_s = tripped(circuits, NOW_S)
    trial = circuits.begin(A, now_s, is_first=True)
    trial.begin_answer()

    trial.fail(now_s + 1, Failure.INTERRUPTED)

    assert not circuits.allows(A, now_s + 1)


def test_who_is_asked_for_want_of_a_better_one_is_asked_by_one_at_a_time_to_its_end():
    circuits = new_circuits()
    tripped(circuits, NOW_S)
    assert circuits.least_bad([A], NOW_S) is A
    first = circuits.begin(A, NOW_S, is_first=True)

    first.begin_answer()
    assert circuits.least_bad([A], NOW_S) is None
    first.succeed(NOW_S + 1, 0.1)

    assert circuits.least_bad([A], NOW_S) is A


def test_not_everybody_is_let_in_before_it_is_known_whether_answers_break_off():
    circuits = new_circuits()
    now_s = tripped(circuits, NOW_S)
    trials = []

    while circuits.allows(A, now_s):
        trials.append(circuits.begin(A, now_s, is_first=True))
        trials[-1].begin_answer()

    assert len(trials) == 10
    trials[0].leave()
    assert circuits.allows(A, now_s)


def test_money_that_is_gone_is_no_limit_of_requests():
    circuits = new_circuits()

    attempt(circuits, A, NOW_S, Failure.EXHAUSTED, retry_after_s=600)

    assert circuits.choose([A], NOW_S) is None
    assert not circuits.all_throttled([A], NOW_S)
    assert circuits.shortest_wait_s([A], NOW_S) == 600


@pytest.mark.parametrize(
    ("usual_s", "own_s", "silence_s", "tells"),
    [
        (None, 60.0, 60.0, True),
        (None, 0.1, 0.1, True),  # Its own limit, however short.
        (None, 60.0, 14.0, False),  # Nothing is known: a quarter of its own limit.
        (None, 60.0, 15.0, True),
        (0.2, 60.0, 1.9, False),
        (0.2, 60.0, 2.0, True),
        (3.0, 60.0, 8.9, False),
        (3.0, 60.0, 9.0, True),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_silence_tells_when_it_is_long_for_this_candidate(
    usual_s, own_s, silence_s, tells, whole
):
    circuits = new_circuits()
    if usual_s is not None:
        for _ in range(20):
            permit = circuits.begin(A, NOW_S, is_first=True)
            permit.succeed(NOW_S + usual_s, None if whole else usual_s)

    assert circuits.health(A).is_telling(silence_s, own_s, whole=whole) is tells


def test_what_was_nobodys_fault_counts_for_nothing():
    circuits = new_circuits()

    for _ in range(100):
        permit = circuits.begin(A, NOW_S, is_first=True)
        permit.fail(NOW_S, Failure.SLOW, is_neutral=True)

    assert circuits.allows(A, NOW_S)
    assert circuits.health(A).throttle.allows
    assert circuits.health(A).concurrency.in_flight == 0
