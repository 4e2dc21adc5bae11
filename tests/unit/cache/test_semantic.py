"""The semantic tier: what it lets through, what it learns, and when it gives an answer."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pytest

from tests.unit.cache.asking import Clock, Meter, about, answers, ask, asks, opened, shown
from trunkline.v1.completion_spec_pb2 import CacheMode, CachePolicy
from trunkline_server.cache.answers import Answers
from trunkline_server.cache.evidence import Count
from trunkline_server.cache.sections import MAX_NEAREST, Question, Section, Sections, Vector
from trunkline_server.cache.semantic import RECHECKED, Mode, Semantic, means_the_same
from trunkline_server.core.cache import CacheEvent, Hit

SKY: Final = "Why is the sky blue in the morning hours?"
ALSO_SKY: Final = "In the morning hours, why is the sky blue?"
OTHER: Final = "How do I bake bread without any yeast at home?"
FOR_EVER_US: Final = 2**60
# How similar these questions are, as a model may tell.
COSINES: Final[Mapping[str, float]] = {SKY: 1.0, ALSO_SKY: 0.97, OTHER: 0.1}


class Scripted:
    """Tells what a test says of a question, and that answers are about the same."""

    def __init__(self, cosines: Mapping[str, float] = COSINES) -> None:
        self.cosines = cosines
        self.is_there = True

    async def vector(self, text: str) -> Vector | None:
        """In the plane of the first two directions."""
        if not self.is_there:
            return None
        found = np.zeros(384, dtype=np.float32)
        found[0] = self.cosines.get(text, 0.0)
        found[1] = np.sqrt(1 - found[0] ** 2)
        return found

    async def cosine(self, first: str, second: str) -> float | None:
        """Of answers."""
        return 0.99


def tier(clock: Clock, meter: Meter, model: Scripted, mode: Mode = "on", **more: Any) -> Semantic:
    given = {"least": 0.9, "max_false": 0.02, "random": lambda: 0.5, "storage": None, **more}
    return Semantic(embedder=model, similarity=model, mode=mode, now_us=clock, meter=meter, **given)


class World:
    """A cache with a semantic tier."""

    def __init__(self, **more: Any) -> None:
        self.clock, self.meter, self.model = Clock(), Meter(), Scripted()
        self.semantic = tier(self.clock, self.meter, self.model, **more)
        self.opened = opened(self.clock, semantic=self.semantic, meter=self.meter)

    async def prove(self, cache: Answers, times: int = 149, second: str = "It scatters.") -> None:
        """Have both questions asked so often, each time anew, as a shadow."""
        for _ in range(times):
            await cache.clear("acme")
            self.clock.pass_s(1)
            for text, answer in ((SKY, "It scatters."), (ALSO_SKY, second)):
                await ask(cache, about(asks(text)), answers(answer))
                await cache.settled()


# the guard


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param(SKY, ALSO_SKY, True, id="in another order"),
        pytest.param("How can I learn to swim?", "How do I learn to swim?", True, id="other words"),
        pytest.param("Is it 20 miles?", "Is it 30 miles?", False, id="number"),
        pytest.param("How far is Rome from here?", "How far is Oslo from here?", False, id="name"),
        pytest.param("Why is it legal here?", "Why is it not legal here?", False, id="negation"),
        pytest.param("How do I open the door?", "How do I close the door?", False, id="opposite"),
        pytest.param(
            "How far is it from Rome to Oslo?", "How far is it from Oslo to Rome?", False, id="swap"
        ),
        pytest.param("How do I turn it on?", "How do I turn it off?", False, id="on and off"),
        pytest.param("Is it refundable?", "Is it non-refundable?", False, id="non"),
        pytest.param("Warum ist es so kalt?", "Warum ist es so warm?", False, id="not English"),
    ],
)
def test_the_guard_lets_through_what_claims_the_same(first, second, expected):
    assert means_the_same(first, second) is expected


# shadow and on


@pytest.mark.parametrize("mode", ["shadow", "on"])
async def test_what_has_not_proved_itself_is_asked_and_compared(mode):
    world = World(mode=mode)
    async with world.opened as cache:
        await world.prove(cache, times=3)
        found = await ask(cache, about(asks(ALSO_SKY)))
        stats = await cache.stats("acme")

    assert shown(found) == "It scatters."  # Its own, exactly.
    assert world.meter.counts[CacheEvent.SHADOW_SAME] == 3
    assert world.meter.counts[CacheEvent.SEMANTIC_HIT] == 0
    assert (stats.semantic, stats.threshold, stats.evidence) == (mode, None, {8: Count(3, 0)})


async def asked_again(world: World, cache: Answers) -> Any:
    """SKY is known; ALSO_SKY is asked."""
    await cache.clear("acme")
    world.clock.pass_s(1)
    await ask(cache, about(asks(SKY)), answers("It scatters."))
    await cache.settled()
    return await ask(cache, about(asks(ALSO_SKY)))


async def test_what_has_proved_itself_is_given():
    world = World()
    async with world.opened as cache:
        await world.prove(cache)
        hit = await asked_again(world, cache)
        stranger = await ask(cache, about(asks(ALSO_SKY), "globex"))
        different = await ask(cache, about(asks(OTHER)))
        elsewhere = await ask(cache, about(asks(ALSO_SKY, system_prompt="Be brief.")))

    assert isinstance(hit, Hit)
    assert (hit.kind, shown(hit)) == ("semantic", "It scatters.")
    assert hit.similarity == pytest.approx(0.97)
    assert [shown(found) for found in (stranger, different, elsewhere)] == ["", "", ""]


async def test_a_shadow_gives_nothing_however_sure_it_is():
    world = World(mode="shadow")
    async with world.opened as cache:
        await world.prove(cache)
        found = await asked_again(world, cache)
        stats = await cache.stats("acme")

    assert shown(found) == ""
    assert stats.threshold == 0.96


async def test_a_small_part_goes_on_being_asked():
    world = World(random=lambda: RECHECKED / 2)
    async with world.opened as cache:
        await world.prove(cache)

        assert shown(await asked_again(world, cache)) == ""


async def test_answers_that_differ_are_no_evidence_and_one_takes_it_away():
    world = World()
    async with world.opened as cache:
        await world.prove(cache)
        await world.semantic.settled()
        world.semantic.blame("acme", 0.97)
        found = await asked_again(world, cache)
        await world.prove(cache, times=1, second="It does not scatter.")
        stats = await cache.stats("acme")

    assert shown(found) == ""
    assert stats.evidence == {8: Count(149, 2)}
    assert world.meter.counts[CacheEvent.SHADOW_OTHER] == 1


async def test_a_semantic_hit_that_was_wrong_counts_against_the_tier():
    world = World()
    async with world.opened as cache:
        await world.prove(cache)
        hit = await asked_again(world, cache)
        assert isinstance(hit, Hit)
        await cache.report("acme", hit.entry_id, is_wrong=True)
        await cache.settled()
        stats = await cache.stats("acme")
        gone = await ask(cache, about(asks(SKY)))

    assert (stats.threshold, stats.evidence) == (None, {8: Count(149, 1)})
    assert shown(gone) == ""


async def test_a_caller_may_want_only_what_is_cached():
    only = CachePolicy(mode=CacheMode.CACHE_MODE_ONLY_IF_CACHED)
    world = World()
    async with world.opened as cache:
        await world.prove(cache)
        await asked_again(world, cache)
        hit = await ask(cache, about(asks(ALSO_SKY, cache=only)))

    assert isinstance(hit, Hit)
    assert hit.kind == "semantic"


async def test_without_the_model_answers_are_still_given_exactly():
    world = World()
    world.model.is_there = False
    async with world.opened as cache:
        await ask(cache, about(asks(SKY)), answers())

        assert shown(await ask(cache, about(asks(SKY)))) == "Paris."
        assert shown(await ask(cache, about(asks(ALSO_SKY)))) == ""


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("The answer is 4.", "The answer is 4.", True),
        ("The answer is 4.", "The answer is 5.", False),
        ("Yes, it is so.", "No, it is not so.", False),
        ("It rains a lot in the hills.", "In the hills it rains a lot.", True),
    ],
)
async def test_answers_are_compared_as_those_of_a_panel(first, second, expected):
    semantic = tier(Clock(), Meter(), Scripted())

    assert await semantic.say_the_same(first, second) is expected


# vectors


def unit(cosine: float) -> Vector:
    return np.array([cosine, np.sqrt(1 - cosine**2)], dtype=np.float32)


def question(number: int) -> Question:
    return Question(number.to_bytes(4, "big"), f"Q{number}", FOR_EVER_US)


def test_the_nearest_come_first_and_only_the_near():
    section = Section("acme")
    for number, cosine in enumerate((0.5, 0.99, 0.85, 0.95, 0.79)):
        section.put(question(number), unit(cosine))

    found = list(section.nearest(unit(1.0), 0.8, 0))

    assert [q.text for q, _ in found] == ["Q1", "Q3", "Q2"]
    assert [similarity for _, similarity in found] == pytest.approx([0.99, 0.95, 0.85])


def test_no_more_than_a_few_are_looked_at_and_the_best_are_among_them():
    section = Section("acme")
    cosines = np.linspace(0.81, 0.99, 60)
    for number, cosine in enumerate(cosines):
        section.put(question(number), unit(float(cosine)))

    found = [q.text for q, _ in section.nearest(unit(1.0), 0.8, 0)]

    assert found == [f"Q{number}" for number in range(59, 59 - MAX_NEAREST, -1)]


def test_what_is_gone_or_expired_is_not_found():
    section = Section("acme")
    section.put(question(1), unit(1.0))
    section.put(Question(b"old", "Old", 10), unit(1.0))
    section.drop(question(1).key)

    assert list(section.nearest(unit(1.0), 0.8, 10)) == []
    assert [q.text for q, _ in section.nearest(unit(1.0), 0.8, 9)] == ["Old"]


def test_a_full_section_forgets_the_oldest():
    section = Section("acme", max_rows=20)
    for number in range(50):
        section.put(question(number), unit(1.0))
        section.put(question(number), unit(0.9))

    every = {q.text for n in range(30) for q, _ in section.nearest(unit(0.9), 0.8, n)}
    assert (len(section), section.size) == (20, 20)
    assert every <= {f"Q{number}" for number in range(30, 50)}


def test_all_sections_together_are_bounded():
    sections = Sections(max_vectors=64)
    for number in range(12):
        section = sections.make(bytes([number]), "acme")
        for each in range(17):
            section.put(question(each), unit(1.0))
        sections.shrink()

        assert sections.vectors <= 64
    assert sections.find(bytes([11])) is not None
    assert sections.find(bytes([0])) is None
