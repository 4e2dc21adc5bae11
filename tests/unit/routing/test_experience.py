"""What attempts teach: times, failures that are recent, and how much is written."""

import pytest

from trunkline_server.core.candidate import Candidate
from trunkline_server.routing.experience import (
    MIN_RECENT,
    OUTPUT_STEP,
    USUAL_OUTPUT_TOKENS,
    Experience,
    Recent,
)
from trunkline_server.routing.scores import Measured
from trunkline_server.routing.thompson import EXPLORED_SHARE

A, B = Candidate("a", "m", "m"), Candidate("b", "m", "m")
IDS = [f"req_{number}" for number in range(2_000)]


def told(experience: Experience, outcomes: str, candidate: Candidate = A, start_s: float = 0.0):
    """An attempt a second; `x` failed."""
    for second, outcome in enumerate(outcomes):
        experience.ended(
            candidate, start_s + second, whole=False, latency_s=0.5, failed=outcome == "x"
        )


@pytest.mark.parametrize(
    ("outcomes", "is_failing"),
    [
        ("", False),
        ("xxxx", False),  # Too few to tell.
        ("xxxxxxxx", True),
        ("xxxx" + "." * 8, False),
        ("." * 40 + "xxx", False),
        ("." * 40 + "x" * 16, True),
        ("x." * 20, False),
    ],
)
def test_who_failed_in_more_than_half_of_enough_recent_attempts_is_failing(outcomes, is_failing):
    experience = Experience({})
    told(experience, outcomes)

    assert set(experience.failing(float(len(outcomes)))) == ({"a/m"} if is_failing else set())


def test_who_was_failing_is_forgiven_with_time():
    experience = Experience({})
    told(experience, "x" * 40)

    assert experience.failing(40.0) == {"a/m": pytest.approx(1.0)}
    assert experience.knows_failing
    assert experience.failing(140.0) == {}
    assert not experience.knows_failing


def test_who_answers_again_is_no_longer_failing():
    experience = Experience({})
    told(experience, "x" * 10)

    told(experience, "." * 12, start_s=10.0)

    assert experience.failing(22.0) == {}


def test_a_clock_that_runs_backwards_forgets_nothing():
    recent = Recent()
    for _ in range(10):
        recent.add(100.0, True)
    recent.add(0.0, True)

    assert recent.failing_share(0.0) == pytest.approx(1.0)
    assert MIN_RECENT < 11


def test_whole_answers_and_streams_are_timed_apart_and_fail_together():
    experience = Experience({})
    for second in range(50):
        experience.ended(A, float(second), whole=True, latency_s=8.0, failed=False)
        experience.ended(A, float(second), whole=False, latency_s=0.2, failed=False)

    expected_s = [
        experience.policy(whole=whole).belief("a/m", 50.0).expected(50.0).latency_s
        for whole in (True, False)
    ]
    assert expected_s[0] > 5 * expected_s[1]
    before = experience.streamed.belief("a/m", 50.0).expected(50.0).failure
    experience.ended(A, 50.0, whole=True, latency_s=1.0, failed=True)
    assert experience.streamed.belief("a/m", 50.0).expected(50.0).failure > before


def test_how_much_is_written_is_an_average_that_moves():
    experience = Experience({})
    assert experience.output_tokens(A) == USUAL_OUTPUT_TOKENS

    experience.ended(A, 0.0, whole=False, latency_s=1.0, failed=False, output_tokens=1_256)
    experience.ended(A, 1.0, whole=False, latency_s=1.0, failed=False, output_tokens=0)

    assert experience.output_tokens(A) == USUAL_OUTPUT_TOKENS + OUTPUT_STEP * 1_000
    assert experience.output_tokens(B) == USUAL_OUTPUT_TOKENS


def test_who_does_not_learn_keeps_to_the_scoring_run_and_explores_nobody():
    measured = {"a/m": Measured((0.5,) * 20), "b/m": Measured((0.6,) * 20)}
    taught, untaught = Experience(measured), Experience(measured, learns=False)
    offers = [_Offer("a/m"), _Offer("b/m")]
    for experience in (taught, untaught):
        told(experience, "x" * 30)

    def share_of_a(experience: Experience) -> float:
        """How many are sent there first."""
        firsts = [experience.streamed.order(30.0, i, offers)[0] for i in IDS]
        return firsts.count("a/m") / len(IDS)

    assert share_of_a(untaught) == 1
    assert untaught.failing(30.0) == {}
    assert share_of_a(taught) <= 2 * EXPLORED_SHARE
    assert share_of_a(Experience(measured)) == pytest.approx(1 - EXPLORED_SHARE, abs=0.01)


class _Offer:
    known_loss_s = 0.0

    def __init__(self, name: str) -> None:
        self.name = name


def test_who_is_known_by_streams_alone_is_still_to_be_met_by_readers_of_whole_answers():
    experience = Experience({})
    for second in range(50):
        experience.ended(A, float(second), whole=True, latency_s=0.1, failed=False)
        experience.ended(B, float(second), whole=False, latency_s=0.1, failed=False)
    offers = [_Offer("a/m"), _Offer("b/m")]

    firsts = {experience.whole.order(50.0, i, offers)[0] for i in IDS}

    assert firsts == {"a/m", "b/m"}
