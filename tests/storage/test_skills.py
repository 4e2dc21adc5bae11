"""Installed skills on every database: each owner's own, in their order, and known to every process soon."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from tests.faults.waiting import until
from tests.storage.conftest import opened
from trunkline_server.core.errors import InvalidRequest, NotFound, StorageUnavailable
from trunkline_server.core.skill import Skill
from trunkline_server.core.transactions import MakeTransaction, Storage, T
from trunkline_server.embedding.unknown import Unknown
from trunkline_server.skills import installed, library
from trunkline_server.skills.folder import Loaded
from trunkline_server.skills.installed import MAX_INSTALLED, Installed
from trunkline_server.skills.library import SkillLibrary

SLUGS = [f"skill-{n}" for n in range(MAX_INSTALLED + 1)]


def loaded(*slugs: str) -> list[Loaded]:
    """Skills of these names."""
    return [Loaded(Skill(slug, slug, "Does it.", "1", "", "Do it."), {}) for slug in slugs]


@asynccontextmanager
async def process(
    storage: Storage, *slugs: str, is_lasting: bool = True
) -> AsyncIterator[SkillLibrary]:
    """What one process knows, with these skills or all."""
    found = SkillLibrary(loaded(*(slugs or SLUGS)), storage, Unknown(), is_lasting=is_lasting)
    await found.start()
    try:
        yield found
    finally:
        await found.close()


def names(found: SkillLibrary, owner: str = "acme") -> Sequence[str]:
    """What an owner has."""
    return [skill.slug for skill in found.installed(owner)]


@pytest.fixture
def _polls_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "POLL_S", 0.01)


class Outage:
    """A database that can be taken away."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.is_away = False
        self.reads = 0

    async def write(self, make: MakeTransaction[T]) -> T:
        return await self._storage.write(make)

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        self.reads += 1
        if self.is_away:
            raise StorageUnavailable
        return await self._storage.read(make, is_short=is_short)


async def test_what_was_installed_is_there_after_a_restart_in_its_order(url):
    async with opened(url) as storage, process(storage) as first:
        for slug in ("skill-2", "skill-0", "skill-1", "skill-0"):
            assert (await first.install("acme", slug)).slug == slug
        await first.uninstall("acme", "skill-2")
        await first.install("acme", "skill-2")
        await first.install("key:7", "skill-5")

        assert names(first) == ["skill-0", "skill-1", "skill-2"]

    async with opened(url) as storage, process(storage) as second:
        assert names(second) == ["skill-0", "skill-1", "skill-2"]
        assert names(second, "key:7") == ["skill-5"]
        assert (second.knows("acme"), second.knows("key:7"), second.knows("other")) == (
            True,
            True,
            False,
        )


async def test_what_is_not_installed_or_not_there_is_not_found(storage):
    async with process(storage) as found:
        await found.install("other", "skill-1")

        with pytest.raises(NotFound, match="did you mean 'skill-1'"):
            await found.install("acme", "skil-1")
        for owner, slug in (("acme", "skill-1"), ("other", "skill-2"), ("other", "\0' OR 1=1")):
            with pytest.raises(NotFound):
                await found.uninstall(owner, slug)

        assert (names(found), names(found, "other")) == ([], ["skill-1"])


async def test_an_owner_has_a_hundred_at_most(storage):
    async with process(storage) as found:
        for slug in SLUGS[:MAX_INSTALLED]:
            await found.install("acme", slug)

        with pytest.raises(InvalidRequest) as refused:
            await found.install("acme", SLUGS[MAX_INSTALLED])
        await found.install("acme", SLUGS[0])

        assert [v.field for v in refused.value.violations] == ["slug"]
        assert names(found) == SLUGS[:MAX_INSTALLED]


async def test_all_who_install_at_once_get_what_they_asked_for(storage):
    owners = [f"owner-{n % 5}" for n in range(50)]

    async with process(storage) as first, process(storage) as second:
        await asyncio.gather(
            *((first, second)[n % 2].install(owner, SLUGS[n]) for n, owner in enumerate(owners))
        )
        written = await storage.read(lambda: installed.changes(0))

    assert {change.owner: set(change.slugs) for change in written} == {
        f"owner-{n}": set(SLUGS[n:50:5]) for n in range(5)
    }
    assert [change.number for change in written] == sorted({change.number for change in written})
    assert written[-1].number == 50


async def test_changes_come_in_pages_and_from_a_number_on(storage, monkeypatch):
    monkeypatch.setattr(installed, "PAGE", 3)
    for n in range(7):
        await storage.write(lambda n=n: installed.install(f"owner-{n}", "a"))
    await storage.write(lambda: installed.install("owner-0", "b"))

    expected = [Installed(f"owner-{n}", ("a",), n + 1) for n in range(1, 7)]
    expected.append(Installed("owner-0", ("a", "b"), 8))
    for after in (0, 3, 4, 8, 99):
        assert await storage.read(lambda after=after: installed.changes(after)) == [
            change for change in expected if change.number > after
        ]


@pytest.mark.usefixtures("_polls_fast")
async def test_what_one_process_installs_or_takes_away_every_other_knows_soon(storage):
    async with process(storage) as first, process(storage) as second:
        await first.install("acme", "skill-1")
        await second.install("acme", "skill-2")
        await until(lambda: names(first) == names(second) == ["skill-1", "skill-2"], "in step")

        await second.uninstall("acme", "skill-1")
        await second.uninstall("acme", "skill-2")
        await until(lambda: not first.knows("acme"), "gone")

        assert names(second) == []


class Slow:
    """A database whose answers come when a test lets them, and say what they said when they were asked for."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.go = asyncio.Event()
        self.lets_one = False
        self.answers: list[object] = []

    async def write(self, make: MakeTransaction[T]) -> T:
        return await self._storage.write(make)

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        answer = await self._storage.read(make, is_short=is_short)
        self.answers.append(answer)
        await self.go.wait()
        if self.lets_one:
            self.go.clear()
        return answer


@pytest.mark.usefixtures("_polls_fast")
async def test_an_answer_that_comes_late_undoes_nothing_and_nothing_is_read_twice(storage):
    slow = Slow(storage)
    slow.go.set()
    async with process(storage) as other, process(slow) as found:
        await other.install("acme", "skill-1")
        await until(lambda: found.knows("acme"), "heard")
        slow.go.clear()
        await other.install("acme", "skill-2")
        late = [Installed("acme", ("skill-1", "skill-2"), 2)]
        await until(lambda: slow.answers[-1] == late, "asked")

        await found.install("acme", "skill-3")
        slow.answers.clear()
        slow.lets_one = True
        slow.go.set()
        await until(lambda: len(slow.answers) == 1, "asked again, having heard the late answer")
        assert names(found) == ["skill-1", "skill-2", "skill-3"]

        slow.go.set()
        await until(lambda: len(slow.answers) == 2, "and again")
        assert names(found) == ["skill-1", "skill-2", "skill-3"]
        assert slow.answers == [[Installed("acme", ("skill-1", "skill-2", "skill-3"), 3)], []]


@pytest.mark.usefixtures("_polls_fast")
async def test_while_the_database_is_away_what_is_known_counts_on(storage):
    outage = Outage(storage)
    with capture_logs() as logs:
        async with process(outage) as found, process(storage) as other:
            await found.install("acme", "skill-1")
            outage.is_away = True
            await other.install("acme", "skill-2")
            seen = outage.reads
            await until(lambda: outage.reads > seen + 3, "asked again and again")
            assert names(found) == ["skill-1"]

            outage.is_away = False
            await until(lambda: names(found) == ["skill-1", "skill-2"], "back")
            seen = outage.reads
            await until(lambda: outage.reads > seen + 1, "asked once more")

    assert [entry["event"] for entry in logs] == [
        "installed_skills_unknown",
        "installed_skills_known_again",
    ]


async def test_a_database_that_is_away_at_the_start_is_told_of(storage):
    outage = Outage(storage)
    outage.is_away = True

    with pytest.raises(StorageUnavailable):
        async with process(outage):
            pass


async def test_a_skill_whose_folder_is_gone_counts_for_nothing_but_can_be_taken_away(storage):
    async with process(storage, "old", "new") as before:
        await before.install("acme", "old")
        await before.install("acme", "new")
        await before.install("other", "old")

    async with process(storage, "new") as after:
        assert (names(after), after.knows("other")) == (["new"], False)
        assert await after.uninstall("acme", "old") == Skill("old", "", "", "", "", "")
        with pytest.raises(NotFound):
            await after.uninstall("acme", "old")


async def test_a_database_that_goes_with_the_process_is_not_asked(storage):
    outage = Outage(storage)
    outage.is_away = True

    async with process(outage, is_lasting=False) as found:
        await found.install("acme", "skill-1")

        assert names(found) == ["skill-1"]
        assert outage.reads == 0
