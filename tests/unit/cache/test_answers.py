"""The cache as the use case sees it: one process, and a clock that the test moves."""

import asyncio
import random
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.unit.cache.asking import (
    FOR_EVER_S,
    PARIS,
    Clock,
    Meter,
    about,
    answers,
    ask,
    asks,
    opened,
    shown,
)
from trunkline.v1.completion_pb2 import (
    Attempt,
    CacheReport,
    FinishReason,
    Route,
    Timing,
    Usage,
)
from trunkline.v1.completion_spec_pb2 import CacheMode, CachePolicy, SamplingOptions
from trunkline_server.cache.answers import Answers
from trunkline_server.cache.flights import MAX_LEADERS
from trunkline_server.cache.question import OpenQuestion
from trunkline_server.core.cache import CacheEvent, CacheSubject, Hit
from trunkline_server.core.errors import InvalidRequest, NotCached, NotFound

BERLIN = "What is the capital of Germany?"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def policy(name: str, **more: Any) -> CachePolicy:
    return CachePolicy(mode=CacheMode.Value(f"CACHE_MODE_{name}"), **more)


def allowed(text: str = PARIS, **more: Any) -> CacheSubject:
    return about(asks(text, sampling=None, cache=policy("ALLOW", **more)))


async def test_an_answer_is_given_again_without_what_belonged_to_one_request(clock):
    first = answers(
        id="cmpl_1",
        request_id="req_1",
        conversation_id="conv_1",
        metadata_json='{"secret": 1}',
        attempts=[Attempt(id="a")],
        cache=CacheReport(kind="x"),
        timing=Timing(total=Duration(seconds=1)),
        route=Route(provider="a", model="m"),
        usage=Usage(input_tokens=3),
    )
    async with opened(clock) as cache:
        await ask(cache, about(asks()), first)
        clock.pass_s(2.5)
        hit = await ask(cache, about(asks(f" {PARIS}\n", labels={"team": "b"})))

    assert isinstance(hit, Hit)
    assert (hit.kind, hit.age_s, hit.similarity) == ("exact", 2.5, None)
    assert hit.completion == answers(
        route=Route(provider="a", model="m"), usage=Usage(input_tokens=3)
    )


async def test_every_hit_has_a_completion_of_its_own(clock):
    async with opened(clock) as cache:
        await ask(cache, about(asks()), answers())
        first = await ask(cache, about(asks()))
        assert isinstance(first, Hit)
        first.completion.choices[0].message.parts[0].text = "changed"

        assert shown(await ask(cache, about(asks()))) == "Paris."


async def test_a_request_that_the_cache_has_nothing_to_do_with(clock):
    async with opened(clock) as cache, opened(clock, exact=False) as off:
        assert await ask(cache, about(asks(sampling=None))) is None
        assert await ask(cache, about(asks("What is new today?"))) is None
        assert await ask(off, about(asks())) is None
        assert not off.is_eligible(asks())


@pytest.mark.parametrize(
    ("subject_keeps_s", "rule_keeps_s", "expected_s"), [(0.0, 60.0, 60), (30.0, 60.0, 30)]
)
async def test_answers_expire(clock, subject_keeps_s, rule_keeps_s, expected_s):
    subject = about(asks(), keep_s=subject_keeps_s)
    async with opened(clock, keep_s=rule_keeps_s) as cache:
        await ask(cache, subject, answers())
        clock.pass_s(expected_s - 0.001)
        before = await ask(cache, subject)
        clock.pass_s(0.001)
        after = await ask(cache, subject)

    assert (shown(before), shown(after)) == ("Paris.", "")


async def test_the_age_of_an_answer_is_counted_from_its_question(clock):
    async with opened(clock, keep_s=60) as cache:
        question = await cache.look(about(asks()), FOR_EVER_S)
        assert isinstance(question, OpenQuestion)
        clock.pass_s(40)
        await question.store(answers())
        hit = await ask(cache, about(asks()))

    assert isinstance(hit, Hit)
    assert hit.age_s == 40


async def test_refresh_asks_anew_and_replaces_the_answer(clock):
    refresh = about(asks(cache=policy("REFRESH")))
    async with opened(clock) as cache:
        await ask(cache, about(asks()), answers())
        anew = await ask(cache, refresh, answers("Paris, France."))
        hit = await ask(cache, about(asks()))

    assert (shown(anew), shown(hit)) == ("", "Paris, France.")


async def test_bypass_neither_looks_nor_keeps(clock):
    bypass = about(asks(cache=policy("BYPASS")))
    async with opened(clock) as cache:
        await ask(cache, about(asks()), answers())

        assert await ask(cache, bypass) is None


@pytest.mark.parametrize(
    "subject",
    [
        about(asks(cache=policy("ONLY_IF_CACHED"))),
        about(asks(conversation_id="conv_1", cache=policy("ONLY_IF_CACHED"))),
        about(asks("What is new today?", cache=policy("ONLY_IF_CACHED"))),
    ],
    ids=["not there", "conversation", "time"],
)
async def test_only_if_cached_is_refused_where_there_is_no_answer(clock, subject):
    async with opened(clock) as cache, opened(clock, exact=False) as off:
        for each in (cache, off):
            assert each.is_eligible(subject.asked)
            with pytest.raises(NotCached):
                await ask(each, subject)


async def test_only_if_cached_finds_and_does_not_wait(clock):
    only = about(asks(cache=policy("ONLY_IF_CACHED")))
    async with opened(clock) as cache:
        question = await cache.look(about(asks()), FOR_EVER_S)
        assert isinstance(question, OpenQuestion)
        with pytest.raises(NotCached):
            await ask(cache, only)
        await question.store(answers())

        assert shown(await ask(cache, only)) == "Paris."


async def test_max_age_is_of_the_caller_and_not_of_the_answer(clock):
    fresh = allowed(max_age=Duration(seconds=10))
    async with opened(clock) as cache:
        await ask(cache, allowed(), answers())
        clock.pass_s(10)
        at_ten = await ask(cache, fresh)
        clock.pass_s(0.5)
        later = await ask(cache, fresh, answers("Paris!"))
        now = await ask(cache, fresh)

    assert (shown(at_ten), shown(later), shown(now)) == ("Paris.", "", "Paris!")


async def test_allow_and_a_temperature_of_zero_share_nothing_they_should_not(clock):
    warm = about(asks(sampling=SamplingOptions(temperature=1.5), cache=policy("ALLOW")))
    async with opened(clock) as cache:
        await ask(cache, warm, answers("Bonn?"))

        assert shown(await ask(cache, about(asks()))) == ""
        assert shown(await ask(cache, warm)) == "Bonn?"


async def test_an_answer_that_is_too_large_or_unfinished_is_not_kept(clock):
    cut = answers()
    cut.choices[0].finish_reason = FinishReason.FINISH_REASON_LENGTH
    async with opened(clock, max_entry_bytes=1_024) as cache:
        for answer in (cut, answers("x" * 1_024)):
            await ask(cache, about(asks()), answer)

            assert shown(await ask(cache, about(asks()))) == ""


# one call for many


async def test_a_thousand_at_once_make_one_call(clock):
    meter = Meter()
    calls = 0

    async def complete(cache: Answers) -> str:
        nonlocal calls
        found = await cache.look(about(asks()), FOR_EVER_S)
        if isinstance(found, OpenQuestion):
            calls += 1
            await asyncio.sleep(0.01)
            await found.store(answers())
            return "Paris."
        return shown(found)

    async with opened(clock, meter=meter) as cache:
        found = await asyncio.gather(*(complete(cache) for _ in range(1_000)))

    assert (calls, set(found)) == (1, {"Paris."})
    assert meter.counts == {
        CacheEvent.MISS: 1,
        CacheEvent.STORED: 1,
        CacheEvent.WAIT: 999,
        CacheEvent.EXACT_HIT: 999,
    }


async def followers(cache: Answers, number: int) -> list["asyncio.Task[Any]"]:
    """Who wait for somebody that asks already."""
    tasks = [asyncio.create_task(cache.look(about(asks()), FOR_EVER_S)) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


async def begun(cache: Answers) -> OpenQuestion:
    found = await cache.look(about(asks()), FOR_EVER_S)
    assert isinstance(found, OpenQuestion)
    return found


async def test_if_it_fails_the_next_one_asks(clock):
    async with opened(clock) as cache:
        leader = await begun(cache)
        first, *rest = await followers(cache, 3)
        leader.close()
        leader.close()
        second = await first
        assert not any(task.done() for task in rest)
        await second.store(answers())
        second.close()

        assert [shown(await task) for task in rest] == ["Paris.", "Paris."]


async def test_whoever_leaves_while_the_turn_comes_passes_it_on(clock):
    async with opened(clock) as cache:
        leader = await begun(cache)
        first, second, third = await followers(cache, 3)
        second.cancel()
        leader.close()
        first.cancel()  # Its turn has come, but it has not heard of it.
        found = await third

        assert isinstance(found, OpenQuestion)
        await found.store(answers())
        assert shown(await ask(cache, about(asks()))) == "Paris."


async def test_after_a_few_failures_the_rest_ask_for_themselves(clock):
    async with opened(clock) as cache:
        leader = await begun(cache)
        tasks = await followers(cache, 6)
        for task in tasks[: MAX_LEADERS - 1]:
            leader.close()
            leader = await task
        assert not any(task.done() for task in tasks[MAX_LEADERS - 1 :])
        leader.close()
        rest = [await task for task in tasks[MAX_LEADERS - 1 :]]

        assert all(isinstance(found, OpenQuestion) for found in rest)
        again = await begun(cache)
        assert again.flight is not None


async def test_an_answer_that_may_not_be_kept_lets_all_go(clock):
    cut = answers()
    cut.choices[0].finish_reason = FinishReason.FINISH_REASON_LENGTH
    async with opened(clock) as cache:
        leader = await begun(cache)
        tasks = await followers(cache, 3)
        await leader.store(cut)

        found = await asyncio.gather(*tasks)

    assert all(isinstance(each, OpenQuestion) for each in found)


async def test_nobody_waits_longer_than_they_may(clock):
    loop = asyncio.get_running_loop()
    async with opened(clock) as cache:
        leader = await begun(cache)
        found = await cache.look(about(asks()), loop.time() + 0.01)
        late = await cache.look(about(asks()), loop.time() - 1)
        await leader.store(answers())

        assert isinstance(found, OpenQuestion)
        assert isinstance(late, OpenQuestion)
        await found.store(answers("Paris!"))
        assert shown(await ask(cache, about(asks()))) == "Paris!"


async def test_whoever_waits_gets_nothing_that_is_too_old_for_them(clock):
    fresh = allowed(max_age=Duration(seconds=1))
    async with opened(clock) as cache:
        leader = await cache.look(allowed(), FOR_EVER_S)
        assert isinstance(leader, OpenQuestion)
        clock.pass_s(5)
        waiting = asyncio.create_task(cache.look(fresh, FOR_EVER_S))
        await asyncio.sleep(0)
        await leader.store(answers())

        assert isinstance(await waiting, OpenQuestion)


async def test_leaving_at_once_leaves_nobody_waiting(clock):
    async with opened(clock) as cache:
        leader = await begun(cache)
        tasks = await followers(cache, 3)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        leader.close()
        again = await begun(cache)

        assert again.flight is not None


# forgetting


async def test_an_owner_forgets_what_is_theirs(clock):
    other = about(asks(), "globex")
    async with opened(clock) as cache:
        for subject in (about(asks()), other):
            await ask(cache, subject, answers())
        await cache.clear("acme")

        assert shown(await ask(cache, about(asks()))) == ""
        assert shown(await ask(cache, other)) == "Paris."


async def test_forgetting_by_age_leaves_what_is_younger(clock):
    async with opened(clock) as cache:
        await ask(cache, about(asks()), answers())
        clock.pass_s(10)
        await ask(cache, about(asks(BERLIN)), answers("Berlin."))
        await cache.clear("acme", older_than_s=10)

        assert shown(await ask(cache, about(asks()))) == ""
        assert shown(await ask(cache, about(asks(BERLIN)))) == "Berlin."


async def test_what_was_asked_before_a_clearing_is_not_kept_after_it(clock):
    async with opened(clock) as cache:
        question = await begun(cache)
        clock.pass_s(1)
        await cache.clear("acme")
        await question.store(answers())

        assert shown(await ask(cache, about(asks()))) == ""


async def test_a_wrong_answer_is_not_given_again(clock):
    async with opened(clock) as cache:
        await ask(cache, about(asks()), answers("Lyon."))
        await ask(cache, about(asks(BERLIN)), answers("Berlin."))
        hit = await ask(cache, about(asks()))
        assert isinstance(hit, Hit)
        await cache.report("acme", hit.entry_id, is_wrong=False)
        still = await ask(cache, about(asks()))
        with pytest.raises(NotFound):
            await cache.report("globex", hit.entry_id, is_wrong=True)
        await cache.report("acme", hit.entry_id, is_wrong=True)
        with pytest.raises(NotFound):
            await cache.report("acme", hit.entry_id, is_wrong=True)

        assert shown(still) == "Lyon."
        assert shown(await ask(cache, about(asks()))) == ""
        assert shown(await ask(cache, about(asks(BERLIN)))) == "Berlin."


@pytest.mark.parametrize(
    "entry_id", ["", "x", "0" * 63, f"{'0' * 64}-0.1000", f"{'0' * 64}-2.0000"]
)
async def test_an_entry_that_can_not_be(clock, entry_id):
    async with opened(clock) as cache:
        with pytest.raises(InvalidRequest, match="entry_id"):
            await cache.report("acme", entry_id, is_wrong=True)


async def test_the_memory_of_a_process_is_bounded(clock):
    sizes = []
    async with opened(clock, max_entries=20, max_front_bytes=4_000) as cache:
        for number in range(200):
            text = f"Number {number}: {'x' * (number % 7 * 100)}"
            await ask(cache, about(asks(text)), answers(text))
            sizes.append(await cache.stats("acme"))
        last = await ask(cache, about(asks(text)))

    assert max(stats.entries for stats in sizes) <= 20
    assert max(stats.size_bytes for stats in sizes) <= 4_000
    assert shown(last) == text


async def test_what_is_counted_is_of_one_owner(clock):
    async with opened(clock) as cache:
        for _ in range(3):
            await ask(cache, about(asks()), answers())
        stats = await cache.stats("acme")
        other = await cache.stats("globex")

    assert (stats.entries, stats.semantic, stats.threshold) == (1, "off", None)
    assert stats.counts == {CacheEvent.MISS: 1, CacheEvent.STORED: 1, CacheEvent.EXACT_HIT: 2}
    assert (other.entries, other.size_bytes, other.counts) == (0, 0, {})


# nobody gets what is somebody else's

ORGANIZATIONS = ("acme", "globex", "initech", "key:anonymous")
USERS = ("", "ann", "bob")
MODELS = ("", "m-1", "all")
QUESTIONS = [f"What is the {n}th prime?" for n in range(40)]


async def crosses(clock: Clock, operations: int, seed: int) -> tuple[int, int]:
    """Hits, and those that were given to somebody else than whoever asked for them first."""
    chance = random.Random(seed)
    hits = crossed = 0
    async with opened(clock, shared=False, keep_s=900, max_entries=500) as cache:
        for _ in range(operations):
            clock.pass_s(chance.random())
            owner, user, model = map(chance.choice, (ORGANIZATIONS, USERS, MODELS))
            if chance.random() < 0.002:
                await cache.clear(owner, older_than_s=chance.choice([0.0, 60.0]))
                continue
            text = chance.choice(QUESTIONS)
            system = chance.choice(["", "Be brief."])
            subject = about(asks(text, end_user_id=user, model=model, system_prompt=system), owner)
            mine = f"{owner} {user} {model} {system} {text}"
            found = await ask(cache, subject, answers(mine))
            if isinstance(found, Hit):
                hits += 1
                crossed += shown(found) != mine
                if chance.random() < 0.01:
                    await cache.report(owner, found.entry_id, is_wrong=True)
    return hits, crossed


async def test_no_hit_crosses_from_one_organisation_to_another(clock):
    hits, crossed = await crosses(clock, 5_000, seed=1)

    assert crossed == 0
    assert hits > 500


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_no_hit_crosses_in_a_hundred_thousand_operations(clock, seed):
    hits, crossed = await crosses(clock, 100_000, seed)

    assert crossed == 0
    assert hits > 10_000
