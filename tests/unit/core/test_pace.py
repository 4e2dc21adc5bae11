"""Who comes in when the processor is short: at a rate, and the rate follows what the process can do."""

import pytest

from trunkline_server.core.pace import (
    DEBT_S,
    HICCUP_S,
    LASTING_S,
    MAX_STRAIN_LAG_S,
    MIN_PACE,
    MIN_RATE_PER_S,
    ROUND_S,
    STRAIN_LAG_S,
    STRAIN_S,
    YIELD_S,
    Pace,
)
from trunkline_server.core.pressure import SAMPLE_S, Criticality

BATCH, STANDARD, INTERACTIVE = Criticality
WORK_S = 0.005
MANY = 20  # In flight, as usual: more than need no turn.
PER_LOOK = int(SAMPLE_S / WORK_S)  # Requests that a quarter of a second of CPU serves.


def working(lag_s: float = 0.0, looks: int = 60, until_s: float = 0.0) -> Pace:
    """A process that has served for a while, each request with WORK_S; then the loop ticks so late."""
    pace = Pace()
    for _ in range(looks):
        pace.observe(SAMPLE_S, PER_LOOK, MANY, until_s)
    if lag_s:
        pace.feel(lag_s, until_s - HICCUP_S)
        pace.feel(lag_s, until_s)
    return pace


def come_in(pace: Pace, now_s: float, criticality: Criticality = STANDARD) -> int:
    """So many do, one after the other, until there is no turn. Ten thousand where there is no end."""
    count = 0
    while count < 10_000 and pace.has_turn(criticality, now_s, MANY):
        pace.take_turn()
        count += 1
    return count


def come_in_during(
    pace: Pace, from_s: float, seconds: float, criticality: Criticality = STANDARD
) -> int:
    """With somebody at the door every millisecond."""
    steps = int(seconds * 1_000)
    return sum(come_in(pace, from_s + step / 1_000, criticality) for step in range(steps))


def test_a_loop_that_is_in_time_lets_everybody_in():
    assert come_in(working(), 0.0) == 10_000


@pytest.mark.parametrize(
    ("lag_s", "work_s", "is_strained"),
    [
        (STRAIN_LAG_S - 0.001, 0.001, False),
        (STRAIN_LAG_S, 0.001, True),
        (0.127, 0.008, False),
        (0.129, 0.008, True),
        (MAX_STRAIN_LAG_S - 0.001, 0.5, False),
        (MAX_STRAIN_LAG_S, 0.5, True),
    ],
)
def test_it_is_strained_when_the_loop_is_late_by_more_than_a_few_requests(
    lag_s, work_s, is_strained
):
    pace = Pace()
    for _ in range(200):
        pace.observe(100 * work_s, 100, 0, 0.0)

    for now_s in (-HICCUP_S, 0.0):
        pace.feel(lag_s, now_s)

    assert pace.is_strained(0.0) is is_strained


@pytest.mark.parametrize(
    ("lags_s", "is_strained"),
    [
        ([0.3], False),
        ([0.45], False),
        ([0.45, 0.45], True),
        ([0.15, 0.09], False),
        ([0.15, 0.15, 0.15], True),
        ([0.15, 0.0, 0.15, 0.0, 0.15], False),
        ([0.15, 0.12, 0.0, 0.15, 0.12], False),
    ],
)
def test_a_hiccup_is_no_strain(lags_s, is_strained):
    pace, now_s = Pace(), 0.0
    for lag_s in lags_s:
        now_s += 0.05 + lag_s
        pace.feel(lag_s, now_s)

    assert pace.is_strained(now_s) is is_strained


def test_under_strain_as_many_come_in_as_the_processor_serves():
    pace = working(lag_s=0.2)
    pace.feel(0.0, 0.0)

    assert pace.rate_per_s == pytest.approx(1 / WORK_S, rel=0.05)
    assert come_in_during(pace, 0.0, 1.0) == pytest.approx(1 / WORK_S, rel=0.1)


def test_turns_that_nobody_took_do_not_gather():
    pace = working(lag_s=0.2)
    pace.feel(0.0, 0.0)

    assert come_in(pace, 1.9) <= 2


def test_while_the_loop_is_late_turns_come_more_slowly_at_once():
    pace = working(lag_s=0.15)

    assert come_in_during(pace, 0.0, 0.2) < 0.2 / WORK_S / 4


def test_the_pace_slows_down_while_the_loop_is_late_and_recovers():
    pace = working(lag_s=0.2)
    rates = []
    for look in range(40):
        pace.feel(0.2 if look < 20 else 0.0, look * SAMPLE_S)
        pace.observe(SAMPLE_S, PER_LOOK, MANY, look * SAMPLE_S)
        pace.has_turn(BATCH, look * SAMPLE_S, MANY)
        come_in(pace, look * SAMPLE_S)
        rates.append(pace.rate_per_s * WORK_S)

    assert rates[19] == pytest.approx(MIN_PACE, rel=0.1)
    assert rates[:20] == sorted(rates[:20], reverse=True)
    assert rates[20:27] == sorted(rates[20:27])
    assert rates[-1] == pytest.approx(1, rel=0.05)


def test_it_is_never_slower_than_a_crawl():
    pace = working(lag_s=0.2)
    for _ in range(100):
        pace.feel(9.0, 0.0)
        pace.observe(9.0, 0, 0, 0.0)

    assert pace.rate_per_s == MIN_RATE_PER_S


def test_a_machine_that_others_keep_busy_is_not_taken_for_requests_that_are_dear():
    pace = Pace()
    for _ in range(40):
        pace.observe(0.01, 0, 48, 0.0)  # Hardly any CPU, and nothing has ended yet.
    pace.feel(0.2, -HICCUP_S)
    pace.feel(0.2, 0.0)

    assert pace.rate_per_s > 400


def test_the_strain_is_over_when_nobody_was_kept_out_for_a_while():
    pace = working(lag_s=0.2)
    pace.feel(0.0, 0.0)
    come_in(pace, 1.0)  # The last one is kept out.

    assert pace.is_strained(1.0 + STRAIN_S - 0.01)
    assert not pace.is_strained(1.0 + STRAIN_S)
    assert come_in(pace, 1.0 + STRAIN_S) == 10_000


def test_a_strain_is_a_burst_at_first():
    pace = working(lag_s=0.2, until_s=5.0)

    assert not pace.is_lasting(5.0 + LASTING_S - 0.01)
    assert pace.is_lasting(5.0 + LASTING_S)
    assert not pace.is_lasting(5.0 + STRAIN_S)


def test_who_matters_most_comes_in_ahead_of_time():
    pace = working(lag_s=0.2)
    pace.feel(0.0, 0.0)

    ahead = come_in(pace, 0.0, INTERACTIVE)

    assert ahead == pytest.approx(DEBT_S / WORK_S, rel=0.1)
    assert come_in_during(pace, 0.0, 0.1) == 0


def test_batch_work_gives_way_while_others_are_kept_out():
    pace = working(lag_s=0.2)
    pace.feel(0.0, 0.0)
    come_in(pace, 0.0)

    assert come_in_during(pace, 0.01, YIELD_S - 0.02, BATCH) == 0
    assert come_in_during(pace, YIELD_S, 0.4, BATCH) > 0


def test_batch_work_alone_uses_what_there_is():
    pace = working(lag_s=0.2)
    pace.feel(0.0, 0.0)

    assert come_in_during(pace, 0.0, 1.0, BATCH) == pytest.approx(1 / WORK_S, rel=0.1)


def test_it_says_when_the_next_turn_is():
    pace = working(lag_s=0.2)
    pace.feel(0.0, 0.0)
    come_in(pace, 0.5)

    wait_s = pace.next_turn_s()

    assert 0 < wait_s <= 2 * WORK_S
    assert not pace.has_turn(STANDARD, 0.5 + wait_s - 0.001, MANY)
    assert pace.has_turn(STANDARD, 0.5 + wait_s + 1e-9, MANY)


@pytest.mark.parametrize(("is_late", "in_flight", "comes_in"), [
    (True, 37, True),
    (True, 39, False),
    (False, 39, True),
])  # fmt: skip
def test_nobody_joins_a_crowd_that_waits_for_the_processor(is_late, in_flight, comes_in):
    pace = working(lag_s=0.2)
    pace.feel(0.04 if is_late else 0.0, 0.0)

    assert pace.has_turn(STANDARD, 0.1, in_flight) is comes_in


def test_a_crowd_is_more_than_is_usual():
    pace = Pace()
    for _ in range(200):
        pace.observe(0.01, 10, 100, 0.0)
    pace.feel(0.2, -HICCUP_S)
    pace.feel(0.2, 0.0)

    assert pace.has_turn(STANDARD, 0.1, 190)
    assert not pace.has_turn(STANDARD, 0.2, 200)


@pytest.mark.parametrize(("work_s", "few"), [(0.0005, (70, 30)), (0.002, (17, 7)), (0.05, (8, 4))])
def test_how_many_are_few_depends_on_what_they_cost(work_s, few):
    pace = Pace()
    for _ in range(300):
        pace.observe(100 * work_s, 100, 0, 0.0)

    assert (pace.few_in_flight, pace.few_waiting) == pytest.approx(few, rel=0.05)


def test_a_round_of_the_loop_that_has_taken_long_takes_on_a_few_only():
    pace = working(lag_s=0.2)
    pace.feel(0.0, 0.0)
    pace.has_turn(STANDARD, 0.0, MANY)
    few = pace.few_in_flight

    found = [
        pace.has_turn(STANDARD, 0.1, MANY, seconds) for seconds in (0.0, ROUND_S - 0.001, ROUND_S)
    ]

    assert found == [True, True, False]
    assert pace.has_turn(STANDARD, 0.1, few - 1, 1.0)


def test_it_is_strained_for_as_long_as_somebody_is_kept_out():
    pace = working(lag_s=0.2)

    pace.keep_out(STANDARD, STRAIN_S - 0.1)

    assert pace.is_strained(2 * STRAIN_S - 0.2)
    assert not pace.is_strained(2 * STRAIN_S - 0.1)


def test_a_few_need_no_turn():
    pace = working(lag_s=0.2)

    assert pace.has_turn(STANDARD, 0.0, pace.few_in_flight - 1)
    assert not pace.has_turn(STANDARD, 0.0, pace.few_in_flight)
