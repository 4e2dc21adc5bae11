"""The questions that panels are asked, whose answers are computed anew where that can be done; and files of others."""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import pytest

from trunkline_server.config import ConfigError
from trunkline_server.scoring import questions
from trunkline_server.scoring.judge import Kind, is_right
from trunkline_server.scoring.questions import (
    MAX_QUESTIONS,
    Question,
    bundled_for_panels,
    of_file,
    of_lines,
)

QUESTIONS: Final = {question.id: question for question in bundled_for_panels()}
DOCS: Final = Path(__file__).resolve().parents[3] / "docs"
A_LINE: Final = {"id": "a", "kind": "number", "prompt": "What is 1 + 1?", "answer": "2"}


def weeks(first: int, more: int, count: int) -> int:
    """What is put aside in so many weeks, each time more."""
    return sum(first + more * week for week in range(count))


def month_after(year: int, month: int, months: int) -> str:
    """So many months later, as YYYY-MM."""
    year, before = divmod(year * 12 + month - 1 + months, 12)
    return f"{year}-{before + 1:02}"


def only(found: Any) -> Any:
    """The one thing that satisfies what is asked."""
    (one,) = found
    return one


# What each question asks for, computed otherwise than by those who answer it.
COMPUTED: Final[dict[str, Callable[[], Any]]] = {
    "story-printer": lambda: 18 * (35 + 25),
    "story-tickets": lambda: only(n for n in range(24) if 14 * n + 9 * (23 - n) == 272),
    "story-tank": lambda: float(1 / (Fraction(1, 6) - Fraction(1, 14))),
    "story-coat": lambda: round(120 * 1.25 * 0.8 * 0.85),
    "story-cyclists": lambda: 117 // (17 + 22) * 17,
    "story-hens": lambda: only(n for n in range(42) if 4 * n + 2 * (41 - n) == 122),
    "story-flour": lambda: 450 * 16 // 6,
    "story-savings": lambda: weeks(7, 3, 12),
    "story-rope": lambda: 96 * 7 // 12,
    "story-machines": lambda: 15 * 24 // 6,
    "story-lamps": lambda: 60 * 20 + 20 * 9 - 80 * 12,
    "date-after": lambda: date(2027, 1, 20) + timedelta(45),
    "date-between": lambda: (date(2028, 5, 3) - date(2028, 2, 28)).days,
    "date-weekday": lambda: f"{date(2026, 8, 1):%A}",
    "date-night": lambda: (24 + 6) * 60 + 15 - 22 * 60 - 47,
    "date-leap": lambda: sum((date(y, 3, 1) - date(y, 2, 28)).days == 2 for y in range(1890, 2011)),
    "date-train": lambda: "{:02}:{:02}".format(*divmod((23 * 60 + 35 + 590 + 60) % 1_440, 60)),
    "date-tuesday": lambda: [d for d in range(1, 31) if date(2026, 9, d).weekday() == 1][2],
    "date-contract": lambda: month_after(2025, 11, 18),
    "date-october": lambda: (date(2026, 10, 1) - date(2025, 12, 31)).days,
    "string-reverse": lambda: "marigold"[::-1],
    "string-count": lambda: "assessments possess no sunless sides".count("s"),
    "string-initials": lambda: "".join(
        word[0] for word in ["old", "rivers", "carry", "heavy", "ice", "during", "spring"]
    ),
    "string-vowels": lambda: re.sub("[aeiou]", "", "evaporation"),
    "string-shift": lambda: "".join(chr(ord(letter) + 3) for letter in "fjord"),
    "string-sorted": lambda: "".join(sorted("planet")),
    "string-third": lambda: sorted(["thorn", "thistle", "thyme", "thread", "throat"])[2],
    "string-length": lambda: len("a cup of green tea at noon"),
    "string-swap": lambda: "n" + "lantern"[1:-1] + "l",
    "string-second": lambda: "crystalline"[::2],
    "logic-runners": lambda: only(
        order[3]
        for order in itertools.permutations(["Ada", "Bo", "Cem", "Dia", "Eli"])
        if order[4] == "Eli"
        and order.index("Ada") < order.index("Bo") < order.index("Dia") < order.index("Cem")
    ),
    "logic-boxes": lambda: only(
        box
        for box in ("red", "blue", "green")
        if [box == "red", box != "blue", box != "red"].count(True) == 1
    ),
    "logic-liars": lambda: only(
        "yes" if tom else "no"
        for mia, tom in itertools.product([True, False], repeat=2)
        if mia == (not mia and not tom)
    ),
    "logic-socks": lambda: 10 + 8 + 2,
    "logic-seats": lambda: (8 - 2 + 1) - 3 - 1,
    "logic-doubling": lambda: 33 + 32,
    "logic-steps": lambda: 2 * 46 + 2,
    "logic-ages": lambda: only(n for n in range(25) if 2 * (n - (24 - n)) == 24),
    "choice-half": lambda: closest({"A": (5, 11), "B": (7, 13), "C": (9, 17), "D": (11, 23)}),
    "choice-weight": lambda: largest({"A": 1_200, "B": 950, "C": 1_300, "D": 1_250}),
    "choice-prime": lambda: only(
        letter
        for letter, n in {"A": 91, "B": 97, "C": 87, "D": 93}.items()
        if all(n % d for d in range(2, n))
    ),
    "choice-anagram": lambda: only(
        letter
        for letter, word in zip("ABCD", ["stale", "least", "slate", "stall"], strict=True)
        if sorted(word) != sorted("stale")
    ),
    "choice-area": lambda: largest({"A": 81, "B": math.pi * 25, "C": 84, "D": 80}),
}


def largest(values: dict[str, float]) -> str:
    """The letter of the largest."""
    return max(values, key=values.__getitem__)


def closest(fractions: dict[str, tuple[int, int]]) -> str:
    """The letter of what is nearest to one half."""
    return min(fractions, key=lambda letter: abs(Fraction(*fractions[letter]) - Fraction(1, 2)))


def test_there_are_questions_of_six_kinds_mixed():
    kinds = [id_.split("-")[0] for id_ in QUESTIONS]

    assert Counter(kinds) == {
        "story": 11, "date": 9, "string": 10, "logic": 10, "fact": 10, "choice": 10,
    }  # fmt: skip
    assert set(kinds[:6]) == set(kinds)  # So that a few of them are a few of each.
    assert len({question.prompt for question in QUESTIONS.values()}) == len(QUESTIONS)


@pytest.mark.parametrize("id_", COMPUTED)
def test_answers_are_right(id_):
    question = QUESTIONS[id_]

    assert is_right(str(COMPUTED[id_]()), question.kind, question.accepted)


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=lambda q: q.id)
def test_the_judge_knows_each_answer_and_no_other(question):
    same = [q for q in QUESTIONS.values() if q.kind is question.kind]
    others = {q.answer for q in same} - set(question.accepted)

    assert all(is_right(answer, question.kind, question.accepted) for answer in question.accepted)
    assert not any(is_right(answer, question.kind, question.accepted) for answer in others)
    assert not is_right(question.prompt, question.kind, question.accepted)


def test_guessing_one_letter_is_of_little_use():
    counts = Counter(q.answer for q in QUESTIONS.values() if q.kind is Kind.LETTER)

    assert set(counts) == set("ABCD")
    assert max(counts.values()) <= 0.35 * sum(counts.values())


# files of others


def test_those_of_the_documentation_can_be_asked():
    section = (DOCS / "panels.md").read_text().partition("**Your own** are a file")[2]
    example = section.partition("```json\n")[2].partition("```")[0]

    assert [q.kind for q in of_lines(example.encode(), "docs")] == list(Kind)


def test_a_line_needs_no_more_than_what_is_asked_and_what_is_right():
    lines = [
        json.dumps(A_LINE),
        "",
        json.dumps({**A_LINE, "id": "b", "kind": "word", "answer": "zwei", "also": ["deux"]}),
    ]

    assert of_lines("\r\n".join(lines).encode(), "x.jsonl") == (
        Question("a", Kind.NUMBER, "What is 1 + 1?", "2"),
        Question("b", Kind.WORD, "What is 1 + 1?", "zwei", also=("deux",)),
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2: Input data was truncated"),
        ("[]", "line 2: Expected `object`, got `array`"),
        (json.dumps({"id": "b"}), "line 2: Object missing required field `kind`"),
        (json.dumps({**A_LINE, "id": "b", "answr": "2"}), "line 2: Object contains unknown field"),
        (json.dumps({**A_LINE, "id": "b", "kind": "essay"}), "line 2: Invalid enum value"),
        (json.dumps({**A_LINE, "id": "b", "prompt": ""}), "line 2: Expected `str` of length >= 1"),
        (json.dumps(A_LINE), "line 2: another question has that id already"),
        (json.dumps({**A_LINE, "id": "b", "answer": "two"}), "line 2: an answer is no number"),
        (
            json.dumps({**A_LINE, "id": "b", "kind": "letter", "answer": "E"}),
            "line 2: an answer is no letter",
        ),
        (b'{"id": "\xff"}', "line 2: 'utf-8' codec can't decode"),
    ],
    ids=lambda value: None,
)
def test_a_line_that_is_no_question_is_named(line, problem):
    data = line if isinstance(line, bytes) else line.encode()

    with pytest.raises(ConfigError) as caught:
        of_lines(json.dumps(A_LINE).encode() + b"\n" + data, "x.jsonl")

    assert str(caught.value).startswith(f"x.jsonl, {problem}")


def test_files_have_bounds(tmp_path, monkeypatch):
    path = tmp_path / "many.jsonl"
    many = [json.dumps({**A_LINE, "id": f"q{n}"}) for n in range(MAX_QUESTIONS + 1)]
    path.write_text("\n".join(many[:-1]))
    assert len(of_file(path)) == MAX_QUESTIONS

    path.write_text("\n".join(many))
    with pytest.raises(ConfigError, match=f"has more than {MAX_QUESTIONS} questions"):
        of_file(path)

    monkeypatch.setattr(questions, "MAX_FILE_BYTES", 1 << 20)
    path.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="has more than 1 MiB"):
        of_file(path)

    path.write_bytes(b"\n \n")
    with pytest.raises(ConfigError, match="has no questions"):
        of_file(path)
