"""Whether a panel is better: exact chances, how many questions it takes, and what is said of it."""

import itertools
import math
from random import Random

import pytest

from tests.unit.scoring.panel_rows import answered, failed, row
from trunkline_server.scoring.comparison import (
    Verdict,
    best_alone,
    chance,
    compare,
    questions_needed,
    sentences,
)
from trunkline_server.scoring.panel_table import comparisons, verdicts
from trunkline_server.scoring.panel_trial import Row
from trunkline_server.scoring.questions import MAX_QUESTIONS


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 0.0625),
        (6, 0, 0.03125),
        (5, 1, 0.21875),
        (9, 2, 134 / 2048),
    ],
)
def test_with_one_answer_to_each_question_chances_are_mcnemars(better, worse, p):
    assert chance([1] * better + [-1] * worse + [0] * 20) == pytest.approx(p)
    assert chance([-1] * better + [1] * worse) == pytest.approx(p)


def test_chances_are_those_of_all_ways_in_which_signs_could_have_fallen():
    random = Random(7)
    for _ in range(40):
        differences = [random.randint(-3, 3) for _ in range(random.randint(1, 9))]
        sums = [
            sum(sign * d for sign, d in zip(signs, differences, strict=True))
            for signs in itertools.product((1, -1), repeat=len(differences))
        ]
        as_far = sum(abs(total) >= abs(sum(differences)) for total in sums)
        assert chance(differences) == pytest.approx(as_far / len(sums))


def test_as_many_questions_as_there_may_be_are_no_trouble():
    differences = [1 if n % 5 else -1 for n in range(MAX_QUESTIONS)]

    assert chance(differences) < 1e-80
    assert chance([1, -1] * (MAX_QUESTIONS // 2)) == pytest.approx(1.0)


def test_so_many_questions_find_the_difference_in_four_of_five_runs():
    # Of 100 questions the panel alone knows 15, and the model alone 5.
    shares = [1.0] * 15 + [-1.0] * 5 + [0.0] * 80
    random, runs = Random(1), 400

    needed = questions_needed(shares)
    found = sum(
        chance(random.choices([1, -1, 0], [15, 5, 80], k=needed)) < 0.05 for _ in range(runs)
    )

    assert needed == 155
    assert 0.7 < found / runs < 0.9


@pytest.mark.parametrize(
    ("shares", "needed"),
    [
        # Where all is equal, what a difference of 5 points takes: where the two differ seldom, and often.
        ([0.0] * 60, 155),
        ([1.0] * 10 + [-1.0] * 10 + [0.0] * 40, 1_045),
        # Never fewer than there are, when these did not do.
        ([1.0] * 4 + [0.0], 6),
    ],
    ids=["the same on all", "on many different", "few"],
)
def test_more_questions_are_asked_for_than_there_were(shares, needed):
    assert questions_needed(shares) == pytest.approx(needed, abs=1)
    assert questions_needed(shares) > len(shares)


def test_the_best_model_is_the_most_accurate_then_the_cheapest_then_the_promptest():
    good, poor = [True, True], [True, False]
    dear = row("dear", good, cost_nanos=900)
    cheap = row("cheap", good, cost_nanos=500, seconds=2.0)
    prompt = row("prompt", good, cost_nanos=500)
    rows = [
        row("panel", good, is_panel=True, cost_nanos=1),
        row("free", poor, cost_nanos=0),
        row("left early", good, unasked=1, cost_nanos=1),
        row("unknown", good),
        dear,
    ]

    assert best_alone(rows) is dear
    assert best_alone([*rows, cheap]) is cheap
    assert best_alone([*rows, cheap, prompt]) is prompt
    assert best_alone(rows[:1]) is None


def test_what_was_measured_is_compared_question_by_question():
    model = row("one/best", [True] * 8 + [False] * 12, cost_nanos=1_000, seconds=2.0)
    panel = row(
        "p", [False] + [True] * 15 + [False] * 4, is_panel=True, cost_nanos=3_500, seconds=3
    )

    found = compare(panel, model)

    assert (found.questions, found.better, found.worse) == (20, 8, 1)
    assert found.difference == pytest.approx(0.35)
    assert found.p == pytest.approx(20 / 512)
    assert (found.verdict, found.needed) == (Verdict.WINS, None)
    assert (found.dearer, found.slower) == (3.5, 1.5)
    assert compare(model, panel).verdict is Verdict.LOSES


def test_answers_to_one_question_count_as_one():
    # Each question was asked twice.
    answers = [answered(f"q{n // 2}") for n in range(10)]
    wrong = [answered(f"q{n // 2}", is_right=n > 4) for n in range(10)]
    panel, model = Row("p", True, answers), Row("m", False, wrong)

    found = compare(panel, model)

    assert (found.questions, found.better, found.worse) == (5, 3, 0)
    assert found.difference == pytest.approx(0.5)
    assert found.p == pytest.approx(0.25)
    assert panel.interval == row("p", [True] * 5).interval


def test_whoever_gets_no_answer_has_got_no_right_one():
    panel = Row("p", True, [answered("q0"), failed("q1"), answered("q2", None)])
    model = row("m", [True] * 3)

    assert panel.accuracy == pytest.approx(1 / 3)
    assert (panel.silent, panel.count("problem")) == (1, 1)
    assert compare(panel, model).worse == 2


@pytest.mark.parametrize(
    ("panel_nanos", "model_nanos", "said"),
    [
        (300, 200, "It costs 1.5 times as much and takes 1.0 times as long."),
        (50_000, 100, "It costs 500 times as much and takes 1.0 times as long."),
        (300, 0, "It is not free, as the model is, and takes 1.0 times as long."),
        (0, 0, "It costs 1.0 times as much and takes 1.0 times as long."),
        (None, 200, "What it costs in comparison is not known, and it takes 1.0 times as long."),
        (200, None, "What it costs in comparison is not known, and it takes 1.0 times as long."),
    ],
)
def test_what_is_paid_for_it_is_said(panel_nanos, model_nanos, said):
    panel = row("p", [True] * 9, is_panel=True, cost_nanos=panel_nanos)
    model = row("m", [False] * 9, cost_nanos=model_nanos)

    words = sentences(compare(panel, model))

    assert words == (
        "p wins against m, the best single model: 100.0% right against 0.0%, better on 9 of 9 questions, worse on 0 "
        f"(p = 0.004). {said}"
    )


def test_a_panel_that_is_cheaper_has_something_to_say_for_it():
    panel = row("p", [True] * 9, is_panel=True, cost_nanos=100)
    model = row("m", [True] * 9, cost_nanos=200)

    assert sentences(compare(panel, model)) == (
        "p can't be told from m, the best single model, by 9 questions: 100.0% right against 100.0%, better on 0 of 9 "
        "questions, worse on 0 (p = 1.000). To tell a difference of 5 points would take about 160 questions. "
        "It costs 0.5 times as much and takes 1.0 times as long."
    )


def test_who_answered_nothing_or_was_not_asked_everything_is_not_judged():
    panel = row("p", [True], is_panel=True)
    early = row("early", [True], is_panel=True, unasked=3)
    mute = Row("mute", True, [failed("q0")])
    left = row("m", [True], unasked=3)
    gone = Row("gone", False, [failed("q0")])
    rows = [panel, early, mute, left, gone]

    assert comparisons(rows) == {}
    assert set(comparisons([*rows, row("n", [True])])) == {"p"}
    assert list(verdicts(rows, {})) == [
        "p has nothing to be compared with: no single model can be judged.",
        "early can't be judged: it failed too often to be asked everything.",
        "mute can't be judged: it answered nothing.",
    ]


def test_one_answer_in_twenty_takes_longer_than_the_high_quantile():
    answers = [answered(f"q{n}", seconds=float(n + 1)) for n in range(40)]
    found = Row("m", False, answers)

    assert (found.high_s, found.mean_s, found.first_token_s) == (38.0, 20.5, 0.1)
    assert math.isclose(found.accuracy, 1.0)
    assert Row("m", False, [failed("q0")]).high_s is None
