"""Who is asked what kind of work a request is, in which order, and what comes of being unsure."""

import pytest

from trunkline_server.core.modes import ModeChoice, ModeQuestion
from trunkline_server.routing.default_modes import DEFAULT_MODES
from trunkline_server.routing.mode_classifier import VECTOR_WAIT_S, ModeClassifier
from trunkline_server.routing.mode_heads import Heads, load_heads

ALL = frozenset(mode.id for mode in DEFAULT_MODES)
COSTLY = frozenset({"image", "video", "research"})
# One word for each mode, which says how sure it is, and a model of one dimension that says code.
HEADS = Heads(
    modes=("code", "fast", "image", "think"),
    bias=(0.0, 0.0, 0.0, 0.0),
    weights={
        "compile": (4_000, 0, 0, 0),
        "maybe": (1_000, 0, 0, 900),
        "sunset": (0, 0, 2_000, 0),
        "meadow": (0, 0, 4_000, 0),
        "pottery": (0, 3_000, 3_000, 0),
    },
    temperature=1.0,
    embedding_bias=(0.0, 0.0, 0.0, 0.0),
    embedding_rows=((5.0,), (0.0,), (0.0,), (0.0,)),
    joint_temperature=1.0,
)


class Numbers:
    def tolist(self):
        return [1.0]


class Embedder:
    """Answers, or does not know."""

    def __init__(self, vector):
        self.vector = vector
        self.asked = []

    async def glimpse(self, text, wait_s):
        self.asked.append((text, wait_s))
        return self.vector


def classifier(embedder=None):
    return ModeClassifier(HEADS, COSTLY, embedder)


def question(text, **rest):
    return ModeQuestion(text, **{"modes": ALL, **rest})


def only(word):
    """A text of which one word is known."""
    return f"zzz {word} zzz"


def shown(choice):
    """With probabilities to two digits."""
    others = [(mode, round(p, 2)) for mode, p in choice.alternatives]
    return choice.mode, round(choice.confidence, 2), choice.tier, others


async def test_rule_decides_before_anybody_is_asked():
    embedder = Embedder(Numbers())

    choice = await classifier(embedder).classify(question("roast my haircut"))

    assert choice == ModeChoice("roast", 0.97, "rules")
    assert embedder.asked == []


async def test_words_that_are_sure_decide_alone():
    embedder = Embedder(Numbers())

    choice = await classifier(embedder).classify(question(only("compile")))

    assert shown(choice) == (
        "code", 0.95, "linear", [("fast", 0.02), ("image", 0.02), ("think", 0.02)],
    )  # fmt: skip
    assert embedder.asked == []


async def test_model_is_asked_where_the_words_are_not_sure():
    embedder = Embedder(Numbers())

    choice = await classifier(embedder).classify(question(only("maybe")))

    assert (choice.mode, choice.tier) == ("code", "embedding")
    assert choice.confidence > 0.9
    assert embedder.asked == [(only("maybe"), VECTOR_WAIT_S)]


@pytest.mark.parametrize("embedder", [None, Embedder(None)], ids=["none", "does not know"])
async def test_without_a_model_nobody_s_guess_is_fast(embedder):
    choice = await classifier(embedder).classify(question(only("maybe")))

    assert shown(choice) == (
        "fast", 0.14, "default", [("code", 0.38), ("think", 0.34), ("image", 0.14)],
    )  # fmt: skip


async def test_mode_that_costs_money_must_be_all_but_certain():
    sunset = await classifier().classify(question(only("sunset")))
    meadow = await classifier().classify(question(only("meadow")))

    assert shown(sunset)[:3] == ("fast", 0.1, "default")
    assert sunset.alternatives[0] == ("image", pytest.approx(0.71, abs=0.01))
    assert shown(meadow)[:3] == ("image", 0.95, "linear")


async def test_model_is_asked_before_a_costly_mode_is_given_up():
    embedder = Embedder(None)

    await classifier(embedder).classify(question(only("sunset")))

    assert len(embedder.asked) == 1


@pytest.mark.parametrize(
    "rest",
    [
        {"has_tools": True},
        {"media": frozenset({"image"})},
        {"modes": frozenset({"fast", "code", "think"})},
    ],
    ids=["tools", "media", "not to be had"],
)
async def test_mode_that_is_out_of_the_question_is_not_chosen_nor_named(rest):
    choice = await classifier().classify(question(only("meadow"), **rest))

    assert (choice.mode, choice.tier) == ("fast", "default")
    assert [mode for mode, _ in choice.alternatives] == ["code", "think"]


async def test_text_in_another_script_is_no_guess_of_a_costly_mode():
    choice = await classifier().classify(
        question(
            "\u0437\u0430\u043a\u0430\u0442 meadow \u043d\u0430\u0434 \u0440\u0435\u043a\u043e\u0439"
        )
    )

    assert (choice.mode, choice.tier) == ("fast", "default")


async def test_where_fast_alone_may_be_chosen_it_is():
    choice = await classifier().classify(question(only("compile"), modes=frozenset({"fast"})))

    assert shown(choice) == ("fast", 0.02, "default", [])


@pytest.mark.parametrize("text", ["", " ", "\ud800", "\x00" * 50, "?" * 5_000, "\u05d0" * 9_000])
async def test_no_text_is_too_odd(text):
    choice = await ModeClassifier(load_heads(), COSTLY, None).classify(question(text))

    assert choice.mode in ALL
    assert 0 <= choice.confidence <= 1
