"""What is read off answers: whether they refuse, and what they come down to. Phrases, true ones and tricky ones."""

from time import perf_counter
from typing import Final

import pytest

from trunkline_server.core.agreement import (
    MAX_OPENING_CHARS,
    MAX_READ_CHARS,
    MAX_REFUSAL_CHARS,
    final_result,
    may_refuse,
    refuses,
    results_differ,
)

REFUSALS: Final = [
    "I'm sorry, but I can't help with that.",
    "I\u2019m sorry, but I can\u2019t help with that.",
    "I am sorry, but I cannot assist with that request.",
    "I'm really sorry, but I can't assist with this.",
    "I'm very sorry, I can't do that.",
    "Sorry, I can't help with that.",
    "Sorry, but I can't do that for you.",
    "Sorry, I can't.",
    "I can't assist with that.",
    "I cannot comply.",
    "I can not comply with this.",
    "I can't really help with that.",
    "I cannot in good conscience assist with this.",
    "I won't be able to help with that.",
    "I cannot and will not provide instructions for that.",
    "I'm unable to help you with this request.",
    "I am unable to fulfill this request.",
    "I am not able to engage in this kind of conversation.",
    "I'm not able to provide that kind of information.",
    "I'm not going to help with that.",
    "I will not write that.",
    "I won't continue this conversation.",
    "I'm afraid I can't do that.",
    "Unfortunately, I cannot help with that.",
    "Unfortunately I can't answer that question.",
    "Regrettably, I am unable to assist.",
    "My apologies, but I can't discuss this topic.",
    "Apologies, I cannot share that.",
    "I apologize, but I cannot provide instructions for making explosives.",
    "I apologise, but I can't create that.",
    "I must decline.",
    "I must respectfully decline to answer.",
    "I respectfully decline.",
    "I have to decline this request.",
    "As an AI, I cannot provide legal advice.",
    "As an AI language model, I can't engage in such activities.",
    "I'm sorry, but as an AI I can't help with that.",
    "**I'm sorry, but I can't help with that.**",
    "\n\n I can't help with that.",
    '"I cannot assist with that."',
    "Can't help with that.",
    "Cannot comply.",
    "I can't assist with that, but I'd be happy to help with something else.",
    "I'm sorry, I can't help with that. However, if you want, I can talk about safety.",
    "I can't provide instructions for this. However, I can explain why it is dangerous.",
]
ANSWERS: Final = [
    "I can't help but admire the way this is written.",
    "I cannot help thinking that the second one is better.",
    "I can't help it if the numbers say so.",
    "I can't help myself: it is a wonderful poem.",
    "I can help with that. First, open the door.",
    "I can help!",
    "I can also assist with the others.",
    "Sorry, the answer is 4.",
    "Sorry for the confusion. It is Paris.",
    "I'm sorry for your loss. Here is a letter of condolence.",
    "I'm sorry to hear that you can't help your son.",
    "I am sorry, I made a mistake above: it is 7.",
    "Unfortunately, the train has left.",
    "Unfortunately, there is no closed form.",
    "Cannot is one word.",
    "Cannot is one word when you write formally, and it helps to answer so.",
    "Can't is short for cannot, which assists with rhythm.",
    "I can't provide an exact number, but roughly 4 million people live there.",
    "I cannot provide real-time information, but in 2020 it had 8 million inhabitants.",
    "I can't share that. However, I can tell you that it is 42.",
    "I can't answer that without more information. Which year do you mean?",
    "I cannot complete this request until you tell me the date.",
    "I can't create that directly, here's the code: print(1)",
    "I can't do this justice in a line.",
    "I won't write a long introduction: it is 7.",
    "I won't lie, this is great.",
    "I will not go into detail. The answer is 5.",
    "I must say that this is good.",
    "I have to admit that it is 12.",
    "I am unable to attend the meeting on Monday.",
    "I cannot support this proposal, wrote the senator.",
    "I think I can't help with that.",
    "It can't help with that.",
    "If I can't help with that, nobody can.",
    "You can't help with that.",
    "Apologies are due to the reader, says the critic.",
    "As an AI engineer, you will write tests.",
    "The answer is no.",
    "No.",
    "Yes, I can't wait!",
    "My apologies. The capital is Canberra.",
    "",
    "   ",
    "42",
    "Lo siento, no puedo ayudarte con eso.",
]
# What a text comes down to.
RESULTS: Final = [
    ("The answer is 42.", "42"),
    ("The answer is **42**.", "42"),
    ("**Answer:** 42", "42"),
    ("**Answer**: 42", "42"),
    ("Final answer: $42", "42"),
    ("The final answer is: \\(42\\)", "42"),
    ("The answer is therefore 42, because six times seven is.", "42"),
    ("The result was 1,234,567 in the end.", "1234567"),
    ("The answer is 1 234 567.", "1234567"),
    ("The answer is 12, which is even.", "12"),
    ("The answer is 42 km.", "42"),
    ("The answer is 50%.", "50"),
    ("The answer is -3.50", "-3.5"),
    ("The answer is \u22123.5", "-3.5"),
    ("The answer is 4.20e1", "42"),
    ("The answer is 3/4.", "0.75"),
    ("The answer = 0.75", "0.75"),
    ("First the answer is 3. No: the answer is 4.", "4"),
    ("So \\boxed{42}.", "42"),
    ("So \\boxed{x = 42}.", "42"),
    ("So \\boxed{42\\%}.", "42"),
    ("\\boxed{1} and then \\boxed{ B }", "B"),
    ("The answer is 7, so \\boxed{8}", "8"),
    ("#### 42", "42"),
    ("Six times seven.\n\n42", "42"),
    ("So\nx = 42", "42"),
    ("So\nTotal: $42.00", "42"),
    ("So\n42 apples", "42"),
    ("So\n**42 km/h**", "42"),
    ("The answer is B.", "B"),
    ("The answer is (b)", "B"),
    ("The answer is **C**, because of the rain.", "C"),
    ("The answer is D because it rains.", "D"),
    ("Answer: option A", "A"),
    ("It rains.\n\nB", "B"),
    ("It rains.\n\n(c)", "C"),
    ("The answer is yes.", "yes"),
    ("The answer is No, because of the rain.", "no"),
    ("It rains.\n**Yes**", "yes"),
    ("It rains.\nNo!", "no"),
    ("Result: true", "true"),
]
NO_RESULT: Final = [
    "",
    "Hello",
    "The capital is Paris.",
    "The answer is a bit complicated.",
    "The answer is a matter of taste.",
    "The answer is no longer known.",
    "The answer is true love.",
    "The answer is C++.",
    "The answer is 2024-05-01.",
    "The answer is 10:30.",
    "The answer is 3 or 4.",
    "The answer is 1, 2, 3.",
    "The answer is 2^10.",
    "The answer is not 42.",
    "What is the answer?",
    "Cook it.\n3. Enjoy!",
    "Cook it.\n3) Serve with rice",
    "2024 was a good year for wine.",
    "It begins at 10:30",
    "It took from 3 to 4",
    "There are 12 of them, and I know 7 of these by name.",
    "I have 2 cats",
    "- 42 things to do",
    "Yes, it does.",
]
EVIL: Final = {
    "digits": "1" * MAX_READ_CHARS,
    "spaces": " " * MAX_READ_CHARS,
    "lines": "\n" * MAX_READ_CHARS,
    "quotes": '"' * MAX_READ_CHARS,
    "quotes and a letter": '"' * MAX_READ_CHARS + "x",
    "letters in parentheses": "A" + ")" * MAX_READ_CHARS + "x",
    "groups": "1 " * (MAX_READ_CHARS // 2),
    "groups of three": "123 " * (MAX_READ_CHARS // 4) + "1234",
    "signs": "-" * MAX_READ_CHARS,
    "exponents": "1e" * (MAX_READ_CHARS // 2),
    "points": "1." * (MAX_READ_CHARS // 2),
    "fractions": "1/" * (MAX_READ_CHARS // 2),
    "boxes": "\\boxed{" * (MAX_READ_CHARS // 7),
    "full boxes": f"\\boxed{{{'9' * 80}" * (MAX_READ_CHARS // 87),
    "an answer and spaces": "answer:" + " " * (MAX_READ_CHARS - 8) + "x",
    "an answer and quotes": "answer: " + "\"'(" * (MAX_READ_CHARS // 3) + "x",
    "an answer and equals": "answer" + "=" * (MAX_READ_CHARS - 8) + "x",
    "answers": "answer is " * (MAX_READ_CHARS // 10),
    "answers and spaces": ("answer: " + " " * 100 + "x") * (MAX_READ_CHARS // 110),
    "answers that are digits": f"answer is {'9' * 90}" * (MAX_READ_CHARS // 100),
    "apologies": "sorry " * (MAX_READ_CHARS // 6),
    "inability": "I can't " + "really " * (MAX_READ_CHARS // 7),
    "short inability": "I can't " + "really, " * 48,
    "words": "I can't provide " + "a " * 190,
    "buts": "I can't comply. " + "but " * 95,
    "a self": "as an ai" + " i can't" * 48,
}
EVIL_S: Final = 0.005
TRIALS: Final = 5  # The best of which counts: a machine may have other things to do.


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_known_and_never_shown_before_it_is(text):
    assert refuses(text)
    assert all(may_refuse(text[:end]) for end in range(len(text) + 1))


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_is_no_refusal_whatever_it_begins_with(text):
    assert not refuses(text)
    assert not may_refuse(text.ljust(MAX_OPENING_CHARS, ".")) or not text.strip()


def test_what_is_long_explains_something():
    text = "I'm sorry, but I can't help with that. " + "It is forbidden. " * 22

    assert len(text) > MAX_REFUSAL_CHARS
    assert not refuses(text)
    assert not may_refuse(text)
    assert refuses(text[:MAX_REFUSAL_CHARS])
    assert may_refuse(text[:MAX_REFUSAL_CHARS])


@pytest.mark.parametrize(
    ("text", "shown_at"),
    [
        ("The capital is Paris.", 1),
        ("It is.", 2),
        ("I can help.", 7),
        ("In Paris.", 2),
        ("As a rule", 6),
        ("Sorting is easy.", 4),
        ("I think so", 3),
        ("**Bold** text", 3),
        ("My apology is", 10),
        ("Certainly!", 2),
    ],
)
def test_an_answer_is_shown_as_soon_as_it_can_not_become_a_refusal(text, shown_at):
    known = [may_refuse(text[:end]) for end in range(len(text) + 1)]

    assert known == [end < shown_at for end in range(len(text) + 1)]


@pytest.mark.parametrize(("text", "result"), RESULTS)
def test_an_answer_comes_down_to_what_it_states(text, result):
    assert final_result(text) == result


@pytest.mark.parametrize("text", NO_RESULT)
def test_what_states_nothing_comes_down_to_nothing(text):
    assert final_result(text) is None


def test_only_the_end_of_a_long_text_is_read():
    assert final_result("The answer is 42. " + "x" * MAX_READ_CHARS) is None
    assert final_result("x" * MAX_READ_CHARS + "\nThe answer is 42.") == "42"


@pytest.mark.parametrize(
    ("texts", "differ"),
    [
        ([], False),
        (["The answer is 4."], False),
        (["The answer is 4.", "So it is\n4.0"], False),
        (["The answer is 1,000.", "\\boxed{1000}", "= 1000"], False),
        (["The answer is 4.", "The answer is 5."], True),
        (["The answer is 4.", "A poem.", "The answer is 5."], True),
        (["A poem.", "Another poem."], False),
        (["The answer is 4.", "A poem."], False),
        (["The answer is a.", "The answer is A."], False),
        (["The answer is A.", "The answer is B."], True),
        (["Cook it.\n3. Enjoy!", "Cook it.\n4. Enjoy!"], False),
    ],
)
def test_only_results_that_are_stated_can_differ(texts, differ):
    assert results_differ(texts) is differ


@pytest.mark.parametrize("text", EVIL.values(), ids=EVIL.keys())
def test_no_text_holds_the_process_up(text):
    best_s = {}
    for read in (final_result, refuses, may_refuse):
        times_s = []
        for _ in range(TRIALS):
            began_s = perf_counter()
            read(text)
            times_s.append(perf_counter() - began_s)
        best_s[read.__name__] = min(times_s)

    assert {name: s for name, s in best_s.items() if s >= EVIL_S} == {}
