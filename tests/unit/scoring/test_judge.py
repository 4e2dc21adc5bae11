"""What counts as a right answer."""
# ruff: noqa: RUF001 - signs of other scripts are what it is about

from decimal import Decimal

import pytest

from trunkline_server.scoring.judge import (
    MAX_TEXT_CHARS,
    Kind,
    bare_words,
    is_right,
    last_number,
    option,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"),
        ("42.", "42"),
        ("**42**", "42"),
        ("The answer is 42.", "42"),
        ("17 + 25 = 42", "42"),
        ("6 * 7\n\n$\\boxed{42}$", "42"),
        ("1046", "1046"),
        ("1,046", "1046"),
        ("1.046", "1046"),
        ("1 046", "1046"),
        ("1\u202f046", "1046"),
        ("1'046", "1046"),
        ("1,234,567.5", "1234567.5"),
        ("12.0", "12"),
        ("12,5", "12.5"),
        ("0.750", "0.75"),
        ("3.1415", "3.1415"),
        ("-5", "-5"),
        ("\u22125", "-5"),
        ("10-5", "5"),
        ("- 42", "42"),
        ("١٢٣٤", "1234"),
        ("١٬٢٣٤", "1234"),
        ("١٢٫٥", "12.5"),
        ("१२७१", "1271"),
        ("答えは１０４６です", "1046"),
        ("\u200f٦٨٩\u200f", "689"),
        ("12, 13", "13"),
        ("2/7", "7"),
    ],
)
def test_the_last_number_of_a_text_is_found_in_every_script(text, number):
    assert last_number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "forty-two", "四十二", ".", "-"])
def test_a_text_without_digits_has_no_number(text):
    assert last_number(text) is None
    assert not is_right(text, Kind.NUMBER, ["42"])


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "b",
        "(B)",
        "B)",
        "B.",
        "**B**",
        "Ｂ",
        "B) 0.67",
        "B. Es regnet nicht.",
        "B: no",
        "Answer: B",
        "The answer is (B).",
        "答案是B。",
        "الجواب: B",
        "C'est B.",
        "B\n\nBecause A is smaller.",
        "(A) 2/3 is 0.666, (C) is 0.625.\nAnswer: B",
        "D'accord, c'est la réponse B, bien sûr",
    ],
)
def test_the_chosen_letter_is_found(text):
    assert option(text) == "B"


@pytest.mark.parametrize(
    "text", ["", "E", "yes", "BA", "Bob", "2B", "\u00c0 voir", "AB/CD", "B2", "B, not A, I think"]
)
def test_a_letter_inside_of_something_or_beside_another_is_none(text):
    assert option(text) == ""
    assert not is_right(text, Kind.LETTER, ["B"])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Friday", "Friday"),
        ("friday.", "Friday"),
        ("**Friday**", "Friday"),
        ("It will be **Friday**.", "Friday"),
        ("100 = 14 x 7 + 2, so:\nFriday", "Friday"),
        ("Friday\n\n100 days are 14 weeks and 2 days.", "Friday"),
        ("Antwort: Donnerstag", "Donnerstag"),
        ("Quinta feira", "quinta-feira"),
        ("Le\u0301a", "Léa"),
        ("LÉA", "Léa"),
        ("सोमवार।", "सोमवार"),
        ("「火曜日」", "火曜日"),
        ("الأحدُ", "الأحد"),
        ("\u200fالأحد", "الأحد"),
        ("星期一。", "星期一"),
    ],
)
def test_a_word_is_found_where_answers_stand(text, answer):
    assert is_right(text, Kind.WORD, [answer])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "Friday"),
        ("Saturday", "Friday"),
        ("Fridays", "Friday"),
        ("Not Friday", "Friday"),
        ("Friday or Saturday", "Friday"),
        ("Lea", "Léa"),
        ("गीत", "गीता"),
        ("星期一二", "星期一"),
    ],
)
def test_another_word_or_more_words_are_wrong(text, answer):
    assert not is_right(text, Kind.WORD, [answer])


def test_any_of_the_accepted_answers_will_do():
    assert is_right("周一", Kind.WORD, ["星期一", "周一"])
    assert is_right("1,082", Kind.NUMBER, ["1082"])
    assert not is_right("1,083", Kind.NUMBER, ["1082"])
    assert not is_right("C", Kind.LETTER, ["B"])


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("piece", ["9", "1,", "A ", "**", "a:\n", "\u0661.", "-", " "])
def test_long_texts_are_read_from_their_end_and_in_time(kind, piece):
    text = piece * MAX_TEXT_CHARS

    assert not is_right(text, kind, ["42" if kind is Kind.NUMBER else "D"])
    assert is_right(f"{text}\n\n{42 if kind is Kind.NUMBER else 'D'}", kind, ["42", "D"])


def test_marks_and_letters_of_every_script_are_kept():
    assert bare_words("  Quinta-feira, «गीता» 火曜日! ") == "quinta feira गीता 火曜日"
