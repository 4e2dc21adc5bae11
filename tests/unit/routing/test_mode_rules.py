"""Requests that say by themselves what kind of work they are, and requests that only sound like it."""

import time

import pytest

from trunkline_server.core.modes import ModeQuestion
from trunkline_server.routing.default_modes import DEFAULT_MODES
from trunkline_server.routing.mode_features import HEAD_CHARS, TAIL_CHARS, glance
from trunkline_server.routing.mode_rules import ruling

ALL = frozenset(mode.id for mode in DEFAULT_MODES)
SLOWEST_S = 0.25  # A hundred times what it takes, so that a busy machine is no failure.


def ruled(text: str, **question: object) -> str | None:
    """The mode, or None where no rule speaks."""
    asked = ModeQuestion(text, **{"modes": ALL, **question})  # type: ignore[arg-type]
    found = ruling(asked, glance(text))
    return None if found is None else found.mode


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("What is wrong here?\n```python\nprint(1\n```", "code"),
        (
            'Traceback (most recent call last):\n  File "a.py", line 3, in <module>\nKeyError: 1',
            "code",
        ),
        ("It says error[E0382] when I build it.", "code"),
        ("def area(r):\n    return 3.14 * r * r", "code"),
        ("#include <stdio.h>\nint main() { return 0; }", "code"),
        ("Can you write me a Python script that sorts my photos?", "code"),
        ("Fix the bug in our login function.", "code"),
        ("Draw a cat in a hat", "image"),
        ("hey, could you please paint me an old harbour in the rain?", "image"),
        ("Generate a photorealistic picture of a lighthouse", "image"),
        ("design a simple logo for my bakery", "image"),
        ("Make a short video of waves at night", "video"),
        ("animate this logo", "video"),
        ("Do deep research on sodium batteries", "research"),
        ("Conduct thorough research into coral bleaching", "research"),
        ("Write a literature review on sleep and memory.", "research"),
        ("Roast my startup idea: an app for dogs", "roast"),
        ("please roast this essay", "roast"),
        ("Build me a sign-up form with an email and a password", "genui"),
        ("create a dashboard of sales by region", "genui"),
        ("Think step by step: how many weekdays are in 2027?", "think"),
        ("Prove that there are infinitely many primes.", "think"),
    ],
)
def test_request_that_says_what_it_wants_is_given_that(text, mode):
    assert ruled(text) == mode


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello there",
        "Draw a conclusion from these figures.",
        "Draw up a contract for a flat.",
        "Create a docker image for my app",
        "Write a description of a painting for the catalogue",
        "How do I draw a horse?",
        "How do I make a good logo?",
        "What makes a picture a good picture?",
        "Give me a picture of the economic situation in Spain.",
        "Write a script for a video about bees",
        "Give me ten ideas for a video",
        "How do I roast a chicken?",
        "Roast my potatoes: for how long, at how many degrees?",
        "Make a form letter for late payers",
        "Who did the research on penicillin?",
        "What is the dress code for a wedding?",
    ],
)
def test_request_that_only_sounds_like_it_is_left_to_the_heads(text):
    assert ruled(text) is None


def test_page_in_a_framework_is_code_and_no_generated_interface():
    assert ruled("Build a login form component in React") != "genui"
    assert ruled("Write a React function component for a login form") == "code"


def test_mode_that_is_not_to_be_had_is_not_ruled():
    assert ruled("Draw a cat in a hat", modes=ALL - {"image"}) is None
    assert ruled("Roast my poem", modes=frozenset({"fast"})) is None


def test_request_with_tools_is_for_its_tools():
    assert ruled("Draw a cat in a hat", has_tools=True) is None
    assert ruled("Do deep research on sodium batteries", has_tools=True) is None
    assert ruled("Write a Python script that sorts files", has_tools=True) == "code"


def test_picture_that_comes_along_is_looked_at_unless_it_is_to_be_changed():
    image = frozenset({"image"})

    assert ruled("Remove the background", media=image) == "image"
    assert ruled("turn this photo into a watercolour", media=image) == "image"
    assert ruled("draw the circuit that this shows", media=image) is None
    assert ruled("", media=image) == "fast"


def test_long_text_is_read_at_both_ends():
    middle = "word " * 2_000
    asks_at_the_end = f"{middle}\nThink it through step by step."

    assert len(glance(asks_at_the_end)) == HEAD_CHARS + TAIL_CHARS + 1
    assert ruled(asks_at_the_end) == "think"
    assert ruled(f"{middle}Traceback (most recent call last){middle}") is None


@pytest.mark.parametrize(
    "piece",
    ["a ", "create a ", "class draw me ", "\n if (", "a_", "x=", "<div ", "(", "please ", "\u3042"],
    ids=repr,
)
def test_no_text_makes_a_rule_slow(piece):
    text = piece * 4_000
    began_s = time.process_time()

    ruled(text)

    assert time.process_time() - began_s < SLOWEST_S
