"""Nothing is doubled or lost where a continuation joins the text before it, however it arrives."""

import time
import tracemalloc
from random import Random

import pytest

from tests.unit.core.walks import Step, go, lengths
from trunkline_server.core.seam import MAX_REPEATED_CHARS, MAX_SPACE_CHARS, Seam, shown

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
    space, before = text[len(visible) :], continuation[: len(continuation) - len(body)]

    def is_repeated(length: int) -> bool:
        rest = visible[: len(visible) - length]
        with_space = length + common(before[::-1], rest[::-1])
        is_enough = length <= 4_000 and with_space >= 12
        return visible.endswith(body[:length]) and (is_enough or not rest.strip())

    repeated = [] if is_prefilled else [n for n in range(1, len(body) + 1) if is_repeated(n)]
    if len(before) - common(space, before) > 100:
        repeated = []
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


@pytest.mark.parametrize("before", ["", "\n", "\n\n", " \n"])
def test_white_space_that_is_not_the_same_does_not_make_a_repetition_of_them(before):
    new = before + "at the sea."

    assert joined(shown(STORY), [new], is_prefilled=False) == shown(STORY) + new


def test_twelve_characters_are_a_repetition_when_the_first_is_a_space():
    text = shown(STORY)
    assert text[-12:] == " at the sea."

    for pieces in ways(" at the sea."):
        assert joined(text, pieces, is_prefilled=False) == text
        assert joined(text, [*pieces, " Or not."], is_prefilled=False) == text + " Or not."


def test_white_space_at_the_end_of_the_text_may_stand_before_the_repetition_too():
    text = "Then, of course:\n\nit was late\n\n"

    for pieces in ways("\n\nit was late"):
        assert joined(text, pieces, is_prefilled=False) == text
        assert joined(text, [*pieces, "\n\n", "at"], is_prefilled=False) == text + "at"


@pytest.mark.parametrize("size", [1, 1_000])
@pytest.mark.parametrize(("spaces", "is_dropped"), [(99, True), (100, True), (101, False)])
def test_more_than_a_hundred_of_white_space_is_no_beginning_of_a_repetition(
    spaces, is_dropped, size
):
    again = " " * spaces + "It stood at the sea."
    pieces = [again[i : i + size] for i in range(0, len(again), size)]

    found = joined(shown(STORY), pieces, is_prefilled=False)

    assert found == shown(STORY) + ("" if is_dropped else again)


def test_all_of_a_text_may_be_repeated_that_begins_with_white_space():
    for again in ("\n hi", "hi", " hi"):
        for pieces in ways(again):
            assert joined("\n hi", pieces, is_prefilled=False) == "\n hi"
            assert joined("\n hi", [*pieces, " there"], is_prefilled=False) == "\n hi there"


@pytest.mark.parametrize("is_prefilled", [True, False])
@pytest.mark.parametrize(
    "continuation",
    ["", " ", "\n\n", "new", " new", "\n \tb", " at the seaside", "a gateway", "Once"],
)
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


def test_where_the_text_ends_nothing_is_waited_for():
    seam = Seam(shown(STORY), is_prefilled=False)

    assert seam.feed("It stood at the sea") == ""
    assert seam.feed(".") == ""
    assert seam.is_closed


def test_nor_where_it_was_chance():
    seam = Seam(shown(STORY), is_prefilled=False)

    assert seam.feed("the sea") == ""
    assert seam.feed(".") == "the sea."
    assert seam.is_closed


NUMBERS = "".join(f"{number}," for number in range(3_000))


def test_a_repetition_is_looked_for_in_the_last_four_thousand_characters():
    again = NUMBERS[-MAX_REPEATED_CHARS:]
    too_much = NUMBERS[-MAX_REPEATED_CHARS - 1 :]

    assert joined(NUMBERS, [again, "new"], is_prefilled=False) == NUMBERS + "new"
    assert joined(NUMBERS, [too_much], is_prefilled=False) == NUMBERS + too_much


@pytest.mark.parametrize("size", [1, 999, 100_000])
@pytest.mark.parametrize("before", ["", " ", "\n\n"])
def test_all_of_a_text_of_any_length_may_be_repeated(before, size):
    text = before + NUMBERS + "\n"
    whole = text + "new"
    pieces = [whole[i : i + size] for i in range(0, len(whole), size)]

    assert joined(text, pieces, is_prefilled=False) == text + "new"


@pytest.mark.parametrize("size", [1, 999, 100_000])
@pytest.mark.parametrize("length", [1, 64, 4_000, 4_001, len(NUMBERS) - 1])
@pytest.mark.parametrize("new", ["", "x", " and so on"])
def test_of_what_begins_like_a_long_text_and_then_differs_nothing_is_lost(length, size, new):
    other = NUMBERS[:length] + new
    pieces = [other[i : i + size] for i in range(0, len(other), size)]

    assert joined(NUMBERS, pieces, is_prefilled=False) == NUMBERS + other


def test_what_begins_like_a_long_text_may_be_the_repetition_of_its_end():
    refrain = "And the sea said nothing, and said it again. "
    text = refrain + NUMBERS + refrain

    assert joined(text, [*refrain, "The"], is_prefilled=False) == text + "The"


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
        ("x" + "a" * 10_000, "a" * 10_000, False),
        ("x" + "ab" * 5_000, "ab" * 5_000, False),
        ("a" * 3_999 + "b", "a" * 10_000, False),
        ("x" + ("a" * 63 + "b") * 100, ("a" * 63 + "b") * 100, False),
        ("a", " " * 10_000, False),
        ("x" + "a" * 10_000, " " * 100 + "a" * 10_000, False),
        ("x" + "a" * 10_000, " " * 3_999 + "a" * 10_000, False),
    ],
    ids=[
        "one letter",
        "two letters",
        "all but the last",
        "a long period",
        "white space",
        "white space and a repetition",
        "much white space and a repetition",
    ],
)
def test_no_more_is_held_back_than_what_is_looked_for(text, continuation, is_prefilled):
    found = held_back(text, continuation, is_prefilled=is_prefilled)

    assert found <= MAX_REPEATED_CHARS + MAX_SPACE_CHARS


LONG = [
    pytest.param("ab" * 50_000 + "c", "ab" * 50_000, False, id="all of the text"),
    pytest.param("a" * 100_001, "a" * 100_000, False, id="one letter"),
    pytest.param("a" * 3_000 + "b" * 3_000, "a" * 100_000, False, id="many places in the text"),
    pytest.param(("a" * 63 + "b") * 2_000, "a" * 63 + "b" * 99_937, False, id="none of them"),
    pytest.param("a", " " * 100_000, False, id="white space"),
    pytest.param("a" + " " * 100_001, " " * 100_000, True, id="the same white space, prefilled"),
    pytest.param("a" + " " * 100_001, " " * 100_000, False, id="the same white space, instructed"),
    pytest.param(
        "a" + " " * 100_001, "a" + " " * 99_999, False, id="the same, behind a repetition"
    ),
]


@pytest.mark.parametrize(("text", "continuation", "is_prefilled"), LONG)
def test_what_is_held_back_takes_no_memory_but_that_of_the_text(text, continuation, is_prefilled):
    seam = Seam(text, is_prefilled=is_prefilled)
    tracemalloc.start()

    for at in range(0, len(continuation), 10):
        seam.feed(continuation[at : at + 10])
    _, most_bytes = tracemalloc.get_traced_memory()

    tracemalloc.stop()
    assert most_bytes < 4 * MAX_REPEATED_CHARS


@pytest.mark.parametrize(("text", "continuation", "is_prefilled"), LONG)
def test_a_hundred_thousand_pieces_take_no_longer_than_a_hundred_thousand_times_one(
    text, continuation, is_prefilled
):
    seam = Seam(text, is_prefilled=is_prefilled)
    began_s = time.process_time()

    for character in continuation:
        seam.feed(character)

    # A hundred times less than if each piece cost what all before it did.
    assert time.process_time() - began_s < 1.0


@pytest.mark.parametrize("steps", [60, pytest.param(2_000, marks=pytest.mark.slow)])
def test_whatever_repeats_of_a_long_text_is_there_once(steps):
    random = Random(steps)
    for _ in range(steps):
        period = "".join(random.choices("ab \n", k=random.choice([1, 2, 7, 900])))
        text = "".join(
            random.choice([period * random.randrange(1, 5_000 // len(period) + 2), "c", "ab a"])
            for _ in range(random.randrange(1, 4))
        )
        visible = shown(text)
        start = random.choice([0, random.randrange(len(text)), max(0, len(visible) - 4_000)])
        end = random.choice([len(text), len(visible), random.randrange(start, len(text) + 1)])
        again = text[start:end]
        continuation = (
            random.choice(["", "", "\n", period]) + again + random.choice(["", "c", " a"])
        )
        is_prefilled = random.random() < 0.1
        wanted = expected(text, continuation, is_prefilled=is_prefilled)
        size = random.choice([1, 5, 300, 4_000])
        pieces = [continuation[i : i + size] for i in range(0, len(continuation), size)]

        assert joined(text, pieces, is_prefilled=is_prefilled) == wanted


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
        spaces = random.choices(["", " ", "\n", "\n\n", " \n", "\n" * 98 + "  \n"], k=4)
        self.text = spaces[0] + text[random.randrange(len(text)) :] + spaces[1]
        visible = shown(self.text)
        again = visible[random.choice([0, random.randrange(len(visible) + 1)]) :]
        new = "".join(random.choices(letters, k=random.choice([0, 1, 5, 20])))
        self.continuation = random.choice([spaces[2] + again + spaces[3] + new, new])
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
