"""From outcomes to a record: shares, intervals, times, and failures that are no wrong answers."""

import math
import re
from pathlib import Path

import pytest

from trunkline_server.routing.scoring_run import Cell, DataSet, Timing, encoded, load
from trunkline_server.scoring.judge import JUDGE
from trunkline_server.scoring.record import Outcome, record, tallies, wilson

DATA_SET = DataSet("a test", "0" * 64)
DOCS = Path(__file__).resolve().parents[3] / "docs"
TIME = "2026-11-22T10:00:00Z"


def outcome(model: str, language: str, is_right: bool | None = True, ms: float | None = 100.0):
    """One answer."""
    return Outcome(model, language, is_right, ms)


def failure(model: str, language: str = "de") -> Outcome:
    """One that never came."""
    return Outcome(model, language, problem="UPSTREAM_TIMEOUT: too late")


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_intervals_are_wilsons(right, n, low, high):
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


def test_intervals_hold_the_share_and_stay_within_bounds():
    for n in (1, 2, 3, 7, 80, 1_600):
        for right in range(n + 1):
            low, high = wilson(right, n)
            assert 0.0 <= low <= right / n <= high <= 1.0
            mirrored = wilson(n - right, n)
            assert math.isclose(low, 1 - mirrored[1], abs_tol=1e-9)


def test_there_is_a_cell_for_each_language_and_one_for_all():
    outcomes = [
        outcome("p/a", "en"),
        outcome("p/a", "de", False),
        outcome("p/a", "en", True, 300.0),
        outcome("p/b", "en", False, None),
    ]

    run = record(["p/b", "p/a"], outcomes, DATA_SET, TIME)

    assert run is not None
    assert [(c.model, c.language, c.region, c.mean, c.n) for c in run.cells] == [
        ("p/b", "", "", 0.0, 1),
        ("p/b", "en", "", 0.0, 1),
        ("p/a", "", "", 0.6667, 3),
        ("p/a", "de", "", 0.0, 1),
        ("p/a", "en", "", 1.0, 2),
    ]
    assert run.cells[2] == Cell("p/a", 0.6667, n=3, low=0.2077, high=0.9385)
    assert run.timings == [Timing("p/a", [100.0, 100.0, 300.0])]
    assert (run.time, run.data_set, run.judge, run.source) == (TIME, DATA_SET, JUDGE, "")


def test_a_failed_attempt_is_no_wrong_answer():
    outcomes = [outcome("p/a", "de"), failure("p/a"), failure("p/a", "en"), failure("p/b")]

    run = record(["p/a", "p/b"], outcomes, DATA_SET, TIME)

    assert run is not None
    assert [(c.model, c.language, c.mean, c.n) for c in run.cells] == [
        ("p/a", "", 1.0, 1),
        ("p/a", "de", 1.0, 1),
    ]
    assert run.timings == [Timing("p/a", [100.0], failures=2), Timing("p/b", [], failures=1)]


def test_an_answer_without_a_word_is_timed_and_not_judged():
    outcomes = [outcome("p/a", "de", None), outcome("p/a", "de")]

    run = record(["p/a"], outcomes, DATA_SET, TIME)
    counted = tallies(["p/a"], outcomes)["p/a"]

    assert run is not None
    assert {cell.n for cell in run.cells} == {1}
    assert run.timings == [Timing("p/a", [100.0, 100.0])]
    assert (counted.silent, counted.judged, counted.failures) == (1, 1, 0)


@pytest.mark.parametrize("outcomes", [[], [failure("p/a")], [outcome("p/a", "de", None)]])
def test_where_nothing_was_judged_there_is_no_record(outcomes):
    assert record(["p/a"], outcomes, DATA_SET, TIME) is None


def test_with_a_region_every_cell_is_there_for_it_too():
    run = record(["p/a"], [outcome("p/a", "de")], DATA_SET, TIME, "eu")

    assert run is not None
    assert [(c.language, c.region, c.n) for c in run.cells] == [
        ("", "", 1),
        ("", "eu", 1),
        ("de", "", 1),
        ("de", "eu", 1),
    ]


@pytest.mark.parametrize("right", range(8))
def test_a_record_can_be_read_again(tmp_path, right):
    outcomes = [
        outcome("p/a", "de", i < right, ms) for i, ms in enumerate((0.0, 1 / 3, 4e6, *[1.0] * 4))
    ]
    run = record(["p/a"], [*outcomes, failure("p/a")], DATA_SET, TIME, "eu")
    assert run is not None

    (tmp_path / "run.json").write_bytes(encoded(run))

    assert load(tmp_path / "run.json") == run
    assert run.timings[0].first_token_ms[:3] == [0.001, 0.333, 3_600_000.0]


def test_the_example_of_the_documentation_is_a_run(tmp_path):
    example = re.search(r"```json\n(.*?)```", (DOCS / "scoring.md").read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "run.json").write_text(example[1])

    run = load(tmp_path / "run.json")

    assert encoded(run).decode() == example[1]
    assert (run.cells[0].low, run.cells[0].high) == pytest.approx(wilson(105, 120), abs=5e-5)
