"""The bundled questions: their answers are right, which is computed anew here where that can be done."""
# ruff: noqa: RUF001 - signs of other scripts are what it is about

import hashlib
import re
import unicodedata
from collections import Counter
from fractions import Fraction
from importlib.resources import files

import pytest

from trunkline_server.scoring.judge import Kind, is_right
from trunkline_server.scoring.questions import FILE, Question, bundled

QUESTIONS = bundled().questions
# From Monday on.
WEEKDAYS = {
    "en": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "de": "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag",
    "es": "lunes martes miércoles jueves viernes sábado domingo",
    "fr": "lundi mardi mercredi jeudi vendredi samedi dimanche",
    "it": "lunedì martedì mercoledì giovedì venerdì sabato domenica",
    "pt": "segunda-feira terça-feira quarta-feira quinta-feira sexta-feira sábado domingo",
    "zh": "星期一 星期二 星期三 星期四 星期五 星期六 星期日",
    "ja": "月曜日 火曜日 水曜日 木曜日 金曜日 土曜日 日曜日",
    "hi": "सोमवार मंगलवार बुधवार गुरुवार शुक्रवार शनिवार रविवार",
    "ar": "الاثنين الثلاثاء الأربعاء الخميس الجمعة السبت الأحد",
}
SMALLEST = {"de", "fr", "pt", "ja", "ar"}  # Where the smallest is asked for, and not the largest.
UNSPACED = {"zh", "ja"}  # Their characters are counted, not their words.
# Computed by hand: 5 packs at 4; 9:48 to 13:15; 3 x 24 x 3/4; 360 x 2/3 x 1/2; 48 x 3/4; 18 x 7/3; 60 - 17;
# 2000 - 560 - 450; 60 x 20/12; 90 - 42.
STORIES = dict(
    zip(WEEKDAYS, (20, 207, 54, 120, 36, 42, 43, 990, 100, 48), strict=True),
)


def of(task: str) -> list[Question]:
    """One question in each language."""
    return [question for question in QUESTIONS if question.id.endswith(f"-{task}")]


def plain(prompt: str) -> str:
    """With the digits and signs that Python reads."""
    digits = (str(unicodedata.decimal(c, c)) for c in prompt)
    return "".join(digits).replace("×", "*").replace("−", "-")


def quoted(prompt: str) -> list[str]:
    """What stands in quotation marks, shortest first."""
    found = re.findall(r"[\"„“«「]\s?([^\"“”»」]+?)\s?[\"“”»」]", prompt)
    return sorted(found, key=len)


def test_there_are_as_many_questions_in_each_language():
    assert Counter(question.language for question in QUESTIONS) == dict.fromkeys(WEEKDAYS, 8)
    assert len({question.id for question in QUESTIONS}) == len(QUESTIONS)
    assert all(question.id.startswith(f"{question.language}-") for question in QUESTIONS)
    assert len({question.prompt for question in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize("question", of("arithmetic"), ids=lambda q: q.id)
def test_sums_are_right(question):
    found = re.search(r"(\d+) \* (\d+) ([+-]) (\d+)", plain(question.prompt))

    assert found is not None
    product, last = int(found[1]) * int(found[2]), int(found[4])
    assert int(question.answer) == (product + last if found[3] == "+" else product - last)


@pytest.mark.parametrize("question", of("letters"), ids=lambda q: q.id)
def test_letters_are_counted(question):
    letter, text = quoted(question.prompt)

    assert int(question.answer) == text.count(letter)


@pytest.mark.parametrize("question", of("words"), ids=lambda q: q.id)
def test_words_are_counted(question):
    text = quoted(question.prompt)[-1]

    count = len(text) if question.language in UNSPACED else len(text.split())
    assert int(question.answer) == count


@pytest.mark.parametrize("question", of("weekday"), ids=lambda q: q.id)
def test_weekdays_are_right(question):
    names = WEEKDAYS[question.language].split()
    days = re.search(r"\d+", plain(question.prompt))
    (today,) = (i for i, name in enumerate(names) if name in question.prompt)

    assert days is not None
    assert question.answer == names[(today + int(days[0])) % 7]


@pytest.mark.parametrize("question", of("ordering"), ids=lambda q: q.id)
def test_numbers_are_put_in_order(question):
    found = re.findall(r"\(([A-D])\) ([\d.,/]*\d)", question.prompt)
    values = {letter: Fraction(value.replace(",", ".")) for letter, value in found}

    assert list(values) == ["A", "B", "C", "D"]
    assert len(set(values.values())) == 4
    choose = min if question.language in SMALLEST else max
    assert question.answer == choose(values, key=lambda letter: values[letter])


def test_stories_end_as_they_must():
    assert {q.language: int(q.answer) for q in of("story")} == STORIES


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.id)
def test_the_judge_knows_each_answer_and_no_other(question):
    same = [q for q in QUESTIONS if q.kind is question.kind]
    others = {q.answer for q in same} - set(question.accepted)

    assert all(is_right(answer, question.kind, question.accepted) for answer in question.accepted)
    assert not any(is_right(answer, question.kind, question.accepted) for answer in others)
    assert not is_right(question.prompt, question.kind, question.accepted)


def test_guessing_one_letter_is_of_little_use():
    counts = Counter(question.answer for question in QUESTIONS if question.kind is Kind.LETTER)

    assert set(counts) == set("ABCD")
    assert max(counts.values()) <= 0.35 * sum(counts.values())


def test_the_data_set_is_named_by_what_is_asked():
    data = files("trunkline_server.scoring").joinpath(FILE).read_bytes()
    everything = bundled()

    part = everything.of(["de", "en"])

    assert everything.data_set.sha256 == hashlib.sha256(data).hexdigest()
    assert everything.data_set.name == "trunkline questions 1"
    assert part.data_set.name == "trunkline questions 1, of which de en"
    assert part.data_set.sha256 == everything.data_set.sha256
    assert part.languages == ("en", "de")
    assert everything.of(WEEKDAYS) is everything
