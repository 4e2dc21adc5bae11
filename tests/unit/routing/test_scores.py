"""What a scoring run says of candidates, in whose language and region."""

import pytest

from tests.unit.routing.test_scoring_run import run
from trunkline_server.core.candidate import Candidate
from trunkline_server.routing.scores import PRIOR, PSEUDO_COUNT, Scores, bare_name
from trunkline_server.routing.scoring_run import Cell, Timing, sealed

ANY = ("", "")


def candidate(name: str, provider: str = "p", model: str = "", **scores: float) -> Candidate:
    """A deployment."""
    return Candidate(provider, name, model or name, scores=scores)


def shrunk(mean: float, n: int, parent: float) -> float:
    """As the specification says."""
    return (n * mean + PSEUDO_COUNT * parent) / (n + PSEUDO_COUNT)


def test_whom_nobody_has_measured_is_in_the_middle():
    assert Scores(None, [candidate("a")]).accuracy(candidate("a"), ANY) == PRIOR
    other = Scores(sealed(run(Cell("b", 1.0))), [candidate("a")])
    assert other.accuracy(candidate("a"), ANY) == PRIOR


def test_a_mean_without_a_number_of_answers_is_taken_as_it_is():
    scores = Scores(sealed(run(Cell("a", 0.9), Cell("b", 0.1))), [candidate("a"), candidate("b")])

    assert scores.accuracy(candidate("a"), ANY) == 0.9


def test_few_answers_are_pulled_towards_the_mean_of_all():
    candidates = [candidate("a"), candidate("b")]
    scores = Scores(sealed(run(Cell("a", 1.0, n=5), Cell("b", 0.5, n=1000))), candidates)

    assert scores.accuracy(candidates[0], ANY) == pytest.approx(shrunk(1.0, 5, 0.75))
    assert scores.accuracy(candidates[1], ANY) == pytest.approx(shrunk(0.5, 1000, 0.75))


def test_a_region_is_pulled_towards_its_language_and_that_towards_all():
    a = candidate("a")
    cells = [
        Cell("a", 0.8, n=100),
        Cell("a", 0.6, "de", n=30),
        Cell("a", 0.2, "de", "eu", n=10),
    ]
    scores = Scores(sealed(run(*cells)), [a])

    whole = shrunk(0.8, 100, 0.8)
    german = shrunk(0.6, 30, whole)
    assert scores.accuracy(a, scores.cell("de", "")) == pytest.approx(german)
    assert scores.accuracy(a, scores.cell("de-AT", "EU")) == pytest.approx(shrunk(0.2, 10, german))


def test_without_a_cell_for_all_together_the_others_are_pooled():
    a = candidate("a")
    scores = Scores(sealed(run(Cell("a", 1.0, "de", n=30), Cell("a", 0.0, "fr", n=10))), [a])

    assert scores.accuracy(a, ANY) == pytest.approx(0.75)


def test_a_language_or_region_that_was_not_measured_makes_no_difference():
    scores = Scores(sealed(run(Cell("a", 0.5, "de", "eu"))), [candidate("a")])

    assert scores.cell("fr", "us") == ANY
    assert scores.cell("DE-de", "Global") == ("de", "")
    assert scores.knows_languages
    assert not Scores(sealed(run(Cell("a", 0.5))), [candidate("a")]).knows_languages


def test_a_run_that_says_nothing_of_them_is_not_named():
    made = sealed(run(Cell("other", 0.5), timings=[Timing("third", [100.0])]))
    given = candidate("other", accuracy=0.5)

    assert Scores(made, [candidate("a"), given]).run_id == ""
    assert Scores(made, [candidate("a"), candidate("other")]).run_id == made.id
    assert Scores(made, [candidate("third")]).run_id == made.id


def test_languages_of_models_that_are_not_configured_make_no_difference():
    scores = Scores(sealed(run(Cell("other", 0.5, "de"))), [candidate("a")])

    assert not scores.knows_languages


def test_what_the_configuration_says_wins():
    given = candidate("a", accuracy=0.3, latency=0.5)
    made = sealed(run(Cell("a", 0.9, n=500), timings=[Timing("a", [9_000.0])]))

    scores = Scores(made, [given])

    assert scores.accuracy(given, ANY) == 0.3
    assert scores.measured["p/a"].latencies_s == pytest.approx((1.0,))


def test_times_are_told_in_seconds_with_the_failures():
    made = sealed(run(timings=[Timing("a", [500.0, 1_500.0], 3)]))

    measured = Scores(made, [candidate("a")]).measured["p/a"]

    assert (measured.latencies_s, measured.failures) == ((0.5, 1.5), 3)


@pytest.mark.parametrize(
    "name",
    ["p/mine", "p/vendor-name-2026-01-31", "mine", "vendor-name-2026-01-31", "x/vendor-name"],
)
def test_a_candidate_goes_by_each_of_its_names(name):
    mine = candidate("mine", model="vendor-name-2026-01-31")

    assert Scores(sealed(run(Cell(name, 0.9))), [mine]).accuracy(mine, ANY) == 0.9


def test_the_closest_name_counts():
    mine = candidate("mine", model="vendor-name")
    cells = [Cell("x/vendor-name", 0.1), Cell("mine", 0.2), Cell("p/mine", 0.3)]

    assert Scores(sealed(run(*cells)), [mine]).accuracy(mine, ANY) == 0.3


@pytest.mark.parametrize(
    ("model", "bare"),
    [
        ("openai/gpt-5.4-mini", "gpt-5-4-mini"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gemini-3.1-pro-preview", "gemini-3-1-pro"),
        ("command-a-03-2025", "command-a"),
        ("mistral-large-2512", "mistral-large-2512"),
        ("openai.gpt-oss-120b-1:0", "gpt-oss-120b"),
        ("us.deepseek.r1-v1:0", "deepseek-r1"),
        ("grok-4-0709", "grok-4"),
        ("deepseek/deepseek-r1-0528:free", "deepseek-r1"),
        ("mistral-small-2603", "mistral-small-2603"),
        ("o3", "o3"),
        ("gpt-5", "gpt-5"),
    ],
)
def test_a_bare_name_is_the_name_without_what_a_release_adds(model, bare):
    assert bare_name(model) == bare
