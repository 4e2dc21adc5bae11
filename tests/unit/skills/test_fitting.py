"""Which skills fit a question: by a model's word, else by words in common."""

import asyncio

import pytest

from trunkline_server.core.skill import Skill
from trunkline_server.embedding.minilm import MiniLM, is_installed
from trunkline_server.embedding.unknown import Unknown
from trunkline_server.skills import fitting as module
from trunkline_server.skills.fitting import fitting, ranked
from trunkline_server.skills.folder import BUNDLED, load

SHIPPED = [loaded.skill for loaded in load(BUNDLED, None)]
FOR: dict[str, str] = {
    "Summarise this meeting transcript": "meeting-minutes",
    "Please turn the following chat log into minutes": "meeting-minutes",
    "Please check my pull request diff for bugs": "code-review",
    "How much interest do I pay on a 200000 loan at 3.1% over 20 years?": "checked-arithmetic",
}
FOR_NONE = [
    "Hello",
    "",
    "What is the capital of France?",
    "write a python function that reverses a string",
    "I want to use what the user asks for",
    "どうもありがとう",
]


class Measured:
    """Knows how much alike texts are by heart."""

    def __init__(self, cosines: dict[str, float | None], takes_s: float = 0.0) -> None:
        self._cosines = cosines
        self._takes_s = takes_s

    async def cosine(self, first: str, second: str) -> float | None:
        await asyncio.sleep(self._takes_s)
        return self._cosines[second]


def skill(slug: str, description: str) -> Skill:
    """Of this description."""
    return Skill(slug, slug, description, "1", "", "Do it.")


A, B, C = skill("a", "Bakes bread."), skill("b", "Brews beer."), skill("c", "Bakes beer bread.")


def slugs(skills: list[Skill]) -> list[str]:
    """Their names."""
    return [found.slug for found in skills]


@pytest.mark.parametrize(("text", "slug"), FOR.items())
async def test_by_words_the_shipped_skills_are_found(text, slug):
    assert slugs(await fitting(text, SHIPPED, Unknown(), 2)) == [slug]
    assert slugs(await ranked(text, SHIPPED, Unknown()))[0] == slug


@pytest.mark.parametrize("text", FOR_NONE)
async def test_by_words_nothing_is_found_for_other_questions(text):
    assert await fitting(text, SHIPPED, Unknown(), 2) == []


@pytest.mark.skipif(not is_installed(), reason="needs the extra embeddings")
@pytest.mark.once
async def test_by_meaning_the_shipped_skills_are_found_and_nothing_else():
    model = MiniLM(pytest.fail)
    try:
        await model.cosine("load", "the model")
        found = {text: slugs(await fitting(text, SHIPPED, model, 2)) for text in [*FOR, *FOR_NONE]}
    finally:
        await model.close()

    assert found == {text: [slug] for text, slug in FOR.items()} | {text: [] for text in FOR_NONE}


async def test_the_best_come_first_and_equals_keep_their_order():
    measured = Measured(
        {"a. Bakes bread.": 0.3, "b. Brews beer.": 0.9, "c. Bakes beer bread.": 0.3}
    )

    assert slugs(await ranked("x", [A, B, C], measured)) == ["b", "a", "c"]
    assert slugs(await fitting("x", [A, B, C], measured, 2)) == ["b", "a"]


async def test_what_lies_below_the_threshold_does_not_fit():
    measured = Measured({"a. Bakes bread.": 0.249, "b. Brews beer.": 0.25})

    assert slugs(await fitting("x", [A, B], measured, 2)) == ["b"]


async def test_words_decide_where_the_model_does_not_know_all(monkeypatch):
    unknown = Measured({"a. Bakes bread.": 0.9, "c. Bakes beer bread.": None})

    assert slugs(await fitting("bake bread with beer", [A, C], unknown, 2)) == ["c", "a"]
    assert slugs(await fitting("bread with beer", [A, C], unknown, 2)) == ["c"]

    monkeypatch.setattr(module, "RANK_S", 0.01)
    late = Measured({"a. Bakes bread.": 0.9, "b. Brews beer.": 0.9}, takes_s=5.0)

    assert slugs(await fitting("brewing beer", [A, B], late, 2)) == []
    assert slugs(await fitting("beer to brew", [A, B], late, 2)) == ["b"]
