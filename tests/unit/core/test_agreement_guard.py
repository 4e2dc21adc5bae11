"""Whether two answers claim the same: a changed number, name, sign or negation never does."""

import gc
import time

import pytest

from tests.unit.embedding.pairs import SAME, TOLD_APART, Pair
from trunkline_server.core.agreement import may_differ_in_topic
from trunkline_server.core.claims import MAX_READ_CHARS, same_claims

LONG = max((pair.first for pair in SAME), key=len)
FACTS = (
    "The bridge over the river Elbe was opened on 3 May 1937 by Anna Weber. It has 4 lanes, is 2,750 meters long and "
    "cost $35 million. You can cross it on foot at night, but you should not cycle. It is safe in high wind."
)


@pytest.mark.parametrize("pair", TOLD_APART, ids=lambda pair: pair.first[:40])
def test_a_changed_detail_is_never_taken_for_the_same(pair: Pair):
    assert same_claims(pair.first, pair.second) is not True


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1937", "1973"),
        ("3 May", "5 May"),
        ("3 May", "3 June"),
        ("May 1937", "1937"),
        ("2,750", "2,570"),
        ("2,750", "27,50"),
        ("2,750", "2.750"),
        ("4 lanes", "four-and-a-half lanes"),
        ("4 lanes", "six lanes"),
        ("4 lanes", "-4 lanes"),
        ("meters", "feet"),
        ("$35", "€35"),
        ("$35", "35"),
        ("35 million", "35 billion"),
        ("Elbe", "Rhine"),
        ("Anna", "Anne"),
        ("Anna Weber", "Weber"),
        ("Weber", "Weaver"),
        ("should not", "should"),
        ("should not", "shouldn't ever not"),
        ("You can", "You can't"),
        ("You can", "You cannot"),
        ("It is safe", "It is unsafe"),
        ("It is safe", "It is hardly safe"),
        ("is safe", "isn't safe"),
        ("safe", "dangerous"),
        ("at night", "by day"),
        ("at night", "at noon"),
        ("opened", "closed"),
        ("high wind", "low wind"),
        ("not cycle. It is", "cycle. It is not"),
        ("on foot", "on horseback"),
        ("long", "short"),
    ],
)
def test_one_change_in_a_longer_answer_is_seen(old, new):
    changed = FACTS.replace(old, new, 1)

    assert changed != FACTS
    assert same_claims(FACTS, changed) is False
    assert same_claims(changed, FACTS) is False


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("42", "42."),
        ("**Paris**", "Paris."),
        ("The answer is **42**.", "The answer is 42"),
        ("# Result\n\n- flour\n- sugar", "Result:\n* flour\n* sugar"),
        ("It\u2019s the top-left corner", "It's the top-left corner."),
        ("Use `strip`.", "Use `strip`"),
        ("```python\nx = 1\n```", "```\nx = 1\n```".replace("```\n", "```python\n", 1)),
        ("今天天气很好。", "今天天气很好"),
    ],
)
def test_layout_and_punctuation_make_no_difference(first, second):
    assert same_claims(first, second) is True


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Paris", "paris"),
        ("It is US law.", "It is us law."),
        ("2*3", "23"),
        ("2*3", "2+3"),
        ("10 - 5", "10 + 5"),
        ("-5", "5"),
        ("C++", "C"),
        ("C#", "C"),
        ("x > 10", "x < 10"),
        ("20 m²", "20 m³"),
        ("Is it safe?", "It is safe."),
        ("It is safe?", "It is safe."),
        ("`a == b`", "`a != b`"),
        ("`a`", "`b`"),
        ("v1.2", "v1.3"),
        ("1.5", "15"),
        ("1,5", "15"),
        ("", ""),
        ("...", "!!"),
        ("the capital is canberra", "the capital is sydney"),
        ("Die Brücke ist offen und sicher.", "Die Brücke ist sicher und offen."),
    ],
)
def test_what_differs_or_can_not_be_read_is_not_the_same(first, second):
    assert same_claims(first, second) is False
    assert same_claims(second, first) is False


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            "Water boils at 100 degrees Celsius at sea level.",
            "At sea level, water boils at 100 degrees Celsius.",
        ),
        (
            "The meeting was moved to Thursday at 15:00 because the room was taken.",
            "Because the room was taken, the meeting was moved to Thursday at 15:00.",
        ),
        ("It isn't safe to eat the skin.", "It is not safe to eat the skin."),
        ("The heart pumps blood through the body.", "The heart pumps blood around the body."),
        ("There are 1,250 seats in the hall.", "There are 1250 seats in this hall."),
        ("You need two cups of flour.", "You will need two cups of the flour."),
    ],
)
def test_the_same_in_other_words_is_left_to_the_model(first, second):
    assert same_claims(first, second) is None
    assert same_claims(second, first) is None


@pytest.mark.parametrize(
    "text",
    [
        *("a.", "a-", "a:", "a'", "1,", "1", "A. ", "a?", "/", "_", "a_", "`", "~~~", "\n", " - "),
        *("\u20ac", "# ", "not ", "**", "\ufdfa", "\ufdfa ", "un", "(", "- ", "$-", "\u0301", "=="),
    ],
)
def test_no_text_takes_long_to_read(text):
    text = (text * MAX_READ_CHARS)[: MAX_READ_CHARS - 1]
    gc.disable()  # It would look through all that the other tests have left.
    began_s = time.thread_time()

    same_claims(text, f"{text}.")

    took_s = time.thread_time() - began_s
    gc.enable()
    assert took_s < 0.5


def test_texts_that_are_too_long_are_not_read():
    text = LONG * (MAX_READ_CHARS // len(LONG) + 1)

    assert same_claims(text, f"{text}.") is False


@pytest.mark.parametrize(
    ("first", "second", "may"),
    [
        (LONG, LONG.upper(), False),
        (LONG, FACTS, True),
        ("Yes.", LONG, False),
        (LONG, "", False),
        ("I would rather not say which of these I prefer.", LONG, True),
        ("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19", LONG, True),
    ],
)
def test_texts_that_share_few_words_may_be_about_different_things(first, second, may):
    assert may_differ_in_topic(first, second) is may
    assert may_differ_in_topic(second, first) is may
