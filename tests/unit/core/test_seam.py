"""Nothing is doubled or lost where a continuation joins the text before it, however it arrives."""

from random import Random

import pytest

from tests.unit.core.walks import Step, go, lengths
from trunkline_server.core.seam import MAX_REPEATED_CHARS, Seam, shown

# What is marked with one of these shows a difference between the seam and its docstring that is known.
HELD_TWICE = pytest.mark.xfail(
    strict=True, reason="white space and a repetition are held back to the limit each"
)
HELD_SPACE = pytest.mark.xfail(
    strict=True, reason="as much white space is held back as the text ends with"
)
REPEATED_SPACE = pytest.mark.xfail(
    strict=True, reason="white space at the beginning of a repetition is not counted as repeated"
)

STORY = "Once upon a time there was a gateway that kept its promises. It stood at the sea.\n\n"


def joined(text: str, pieces: list[str], *, is_prefilled: bool) -> str:
    """What the caller has in the end."""
    seam = Seam(text, is_prefilled=is_prefilled)
    for piece in pieces:
        text += seam.feed(piece)
    return text + seam.finish()


def ways(text: str) -> list[list[str]]:
    """All ways to cut it."""
    if len(text) < 2:
        return [[text]]
    return [
        way for rest in ways(text[1:]) for way in ([text[0], *rest], [text[0] + rest[0], *rest[1:]])
    ]


def common(first: str, second: str) -> int:
    """Characters with which both begin."""
    return next((n for n in range(len(first), 0, -1) if second.startswith(first[:n])), 0)


def expected(text: str, continuation: str, *, is_prefilled: bool) -> str:
    """The rules of the docstring, applied to all of it at once by trying every length."""
    visible, body = text.rstrip(), continuation.lstrip()
    space = text[len(visible) :]
    tail = visible[-MAX_REPEATED_CHARS:]
    repeated = [
        n
        for n in range(1, len(body) + 1)
        if not is_prefilled and tail.endswith(body[:n]) and (n >= 12 or n == len(visible))
    ]
    new = body[max(repeated) :] if repeated else continuation
    return text + new[common(space, new) :]


@pytest.mark.parametrize("space", ["", " ", "\n", " \n", "\n\n ", "\n\n\t\n"])
@pytest.mark.parametrize("new", ["", "x", "new.", "a b\n"])
def test_a_prefilled_continuation_repeats_the_white_space_wholly_partly_or_not_at_all(space, new):
    for repeated in range(len(space) + 1):
        for pieces in ways(space[:repeated] + new):
            found = joined("It ends here." + space, pieces, is_prefilled=True)

            assert found == "It ends here." + space + new


def test_a_prefilled_continuation_may_have_more_white_space_than_the_text():
    assert joined("a\n", ["\n", "\n", "b"], is_prefilled=True) == "a\n\nb"


def test_of_other_white_space_nothing_is_dropped():
    assert joined("a \n", ["\n b"], is_prefilled=True) == "a \n\n b"


def test_a_prefilled_continuation_may_repeat_the_words_of_the_text_on_purpose():
    assert joined(STORY, [STORY], is_prefilled=True) == STORY + STORY


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
def test_an_instructed_continuation_repeats_the_end_of_the_text(size):
    visible = shown(STORY)
    for repeated in range(12, len(visible) + 1):
        if visible[-repeated].isspace():
            continue
        whole = visible[-repeated:] + "\n\nAnd then"
        pieces = [whole[i : i + size] for i in range(0, len(whole), size)]

        assert joined(STORY, pieces, is_prefilled=False) == STORY + "And then"


@pytest.mark.parametrize("text", ["ha", "Yes. ", "x\n", "0123456789a", "a  b"])
@pytest.mark.parametrize("before", ["", " ", "\n\n"])
def test_all_of_a_short_text_may_be_repeated(text, before):
    for pieces in ways(before + text + "new"):
        assert joined(text, pieces, is_prefilled=False) == text + "new"


@pytest.mark.parametrize("repeated", ["sea.", "at the sea.", " stood at."])
def test_less_than_twelve_characters_are_chance(repeated):
    assert joined(shown(STORY), [repeated], is_prefilled=False) == shown(STORY) + repeated


@REPEATED_SPACE
def test_twelve_characters_are_a_repetition_when_the_first_is_a_space():
    text = shown(STORY)
    assert text[-12:] == " at the sea."

    found = joined(text, [" at the sea.", " Or not."], is_prefilled=False)

    assert found == text + " Or not."


@REPEATED_SPACE
def test_all_of_a_text_may_be_repeated_that_begins_with_white_space():
    assert joined("\n hi", ["\n hi", " there"], is_prefilled=False) == "\n hi there"


@pytest.mark.parametrize("is_prefilled", [True, False])
@pytest.mark.parametrize("continuation", ["", " ", "\n\n", "new", " new", "a gateway", "Once"])
def test_where_nothing_repeats_nothing_is_lost(continuation, is_prefilled):
    for pieces in ways(continuation):
        found = joined(shown(STORY), pieces, is_prefilled=is_prefilled)

        assert found == shown(STORY) + continuation


@pytest.mark.parametrize("is_prefilled", [True, False])
def test_before_a_continuation_of_nothing_everything_passes(is_prefilled):
    seam = Seam("", is_prefilled=is_prefilled)

    assert seam.is_closed
    assert seam.feed(" a") == " a"


def test_a_text_of_white_space_alone_is_treated_as_white_space():
    assert joined("\n\n", ["\n", "\n", "a"], is_prefilled=False) == "\n\na"


def test_it_is_closed_as_soon_as_it_is_known_that_no_more_repeats():
    seam = Seam(STORY, is_prefilled=False)

    held = [seam.feed(piece) for piece in ("It stood at", " the sea.", "\n", "\n", "T", "he")]

    assert held == ["", "", "", "", "T", "he"]
    assert seam.is_closed


def test_a_repetition_is_looked_for_in_the_last_four_thousand_characters():
    text = "".join(f"{number}," for number in range(3_000))
    again = text[-MAX_REPEATED_CHARS:]

    assert joined(text, [again, "new"], is_prefilled=False) == text + "new"
    assert joined(text, [text[-4_001], again], is_prefilled=False) == text + text[-4_001] + again


def held_back(text: str, continuation: str, *, is_prefilled: bool) -> int:
    """The most characters that were fed, one at a time, and neither handed on nor dropped at the end."""
    seam = Seam(text, is_prefilled=is_prefilled)
    held = most = 0
    for character in continuation:
        held = 0 if seam.feed(character) or seam.is_closed else held + 1
        most = max(most, held)
    return most


@pytest.mark.parametrize(
    ("text", "continuation", "is_prefilled"),
    [
        ("a" * 10_000, "a" * 10_000, False),
        ("ab" * 5_000, "ab" * 5_000, False),
        ("a" * 3_999 + "b", "a" * 10_000, False),
        (("a" * 63 + "b") * 100, ("a" * 63 + "b") * 100, False),
        ("a", " " * 10_000, False),
        ("a" + " " * 3_000, " " * 10_000, False),
        ("a" + " " * 3_000, " " * 10_000, True),
        pytest.param("a" * 10_000, " " * 3_999 + "a" * 10_000, False, marks=HELD_TWICE),
        pytest.param("a" + " " * 10_000, " " * 20_000, True, marks=HELD_SPACE),
        pytest.param("a" + " " * 10_000, "a" + " " * 20_000, False, marks=HELD_SPACE),
    ],
    ids=[
        "one letter",
        "two letters",
        "all but the last",
        "a long period",
        "white space after none",
        "white space after some, instructed",
        "white space after some, prefilled",
        "white space and a repetition",
        "much white space, prefilled",
        "much white space, instructed",
    ],
)
def test_no_more_than_four_thousand_characters_are_held_back(text, continuation, is_prefilled):
    assert held_back(text, continuation, is_prefilled=is_prefilled) <= MAX_REPEATED_CHARS


class SeamWalk:
    """Continuations of few letters, so that they repeat often; the model sees all of it at once, the seam in pieces.

    A step is a piece, or the end; then the next text begins. What was handed on so far is always the beginning of what
    all of it comes to.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.begin()

    def begin(self) -> None:
        random = self.random
        letters = random.choice(["ab", "a \n", "ab \n", "abcdefgh "])
        text = "x" + "".join(random.choices(letters, k=random.choice([0, 3, 12, 30, 60])))
        self.text = text[random.randrange(len(text)) :].lstrip() + random.choice(["", " ", "\n\n"])
        visible = shown(self.text)
        again = visible[random.randrange(len(visible) + 1) :].lstrip()
        spaces = random.choices(["", " ", "\n", "\n\n", " \n"], k=2)
        new = "".join(random.choices(letters, k=random.choice([0, 1, 5, 20])))
        self.continuation = random.choice([spaces[0] + again + spaces[1] + new, new])
        self.is_prefilled = random.random() < 0.3
        self.seam = Seam(self.text, is_prefilled=self.is_prefilled)
        self.most = random.choice([1, 4, 40])
        self.fed = ""
        self.found = self.text

    def choose(self, random: Random) -> Step:
        return (random.randint(min(1, self.most - 1), self.most),)

    def take(self, step: Step) -> None:
        (size,) = step
        piece = self.continuation[len(self.fed) :][:size]
        wanted = expected(self.text, self.continuation, is_prefilled=self.is_prefilled)
        if self.fed == self.continuation:
            assert self.found + self.seam.finish() == wanted
            self.begin()
            return
        self.fed += piece
        self.found += self.seam.feed(piece)
        assert wanted.startswith(self.found)
        assert self.seam.is_closed or self.may_go_on

    @property
    def may_go_on(self) -> bool:
        """Could what was fed so far be a part of a repetition, or of the white space after it?"""
        visible = shown(self.text)
        space = self.text[len(visible) :]
        body = self.fed.lstrip()
        ends = [""] if self.is_prefilled else [visible[i:] for i in range(len(visible) + 1)]
        fed = self.fed if self.is_prefilled else body
        if not self.is_prefilled and (not body or body in visible[:-1]):
            return True
        return any((end + space).startswith(fed) for end in ends) or any(
            (end + space).startswith(self.fed) for end in ends
        )


@lengths
def test_whatever_repeats_is_there_once(steps):
    go(SeamWalk, steps, lengths=(4, 12, 40, 100))
