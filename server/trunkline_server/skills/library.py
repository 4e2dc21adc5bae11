"""All skills of a server, and who has installed which: the `Skills` port.

Who has installed what is known in memory, because every request asks for it. A database that others write to as well
is asked every `POLL_S` for what has changed there, so what is installed anywhere counts everywhere within that time.
While it is away what is known counts on.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Final

import structlog

from trunkline_server.core.errors import InvalidRequest, NotFound, StorageUnavailable
from trunkline_server.core.ports import Similarity
from trunkline_server.core.skills import Skill, SkillSet
from trunkline_server.core.transactions import Storage
from trunkline_server.skills import installed
from trunkline_server.skills.activation import activate_skill
from trunkline_server.skills.fitting import fitting, ranked
from trunkline_server.skills.folder import Loaded
from trunkline_server.skills.installed import Installed

POLL_S: Final = 1.0
MAX_OFFERED: Final = 30  # To a model that chooses by itself.
MAX_FITTING: Final = 2  # Added for a model that can't.
SHOWN_SLUG_CHARS: Final = 64

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class SkillLibrary:
    """Serves between `start` and `close`.

    Args:
        loaded: in the order in which they are listed; of two with one slug the last one counts.
        is_lasting: the database is there after a restart, and others may write to it.
    """

    def __init__(
        self,
        loaded: Iterable[Loaded],
        storage: Storage,
        similarity: Similarity,
        *,
        is_lasting: bool,
    ) -> None:
        self._loaded = {item.skill.slug: item for item in loaded}
        self._storage = storage
        self._similarity = similarity
        self._is_lasting = is_lasting
        self._installed: dict[str, Installed] = {}
        self._heard = 0  # The number of the last change that was read from the database.
        self._task: asyncio.Task[None] | None = None

    @property
    def skills(self) -> Sequence[Skill]:
        """All there are."""
        return [item.skill for item in self._loaded.values()]

    async def start(self) -> None:
        """Learn who has installed what. Raises: StorageUnavailable."""
        if self._is_lasting:
            await self._listen()
            self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Stop asking for changes."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def knows(self, owner: str) -> bool:
        """See `Skills`."""
        return bool(self.installed(owner))

    def installed(self, owner: str) -> Sequence[Skill]:
        """What an owner has installed, the oldest first, as far as it is still there."""
        known = self._installed.get(owner)
        if known is None:
            return ()
        return [self._loaded[slug].skill for slug in known.slugs if slug in self._loaded]

    async def choose(
        self, owner: str, named: Sequence[str], text: str, *, can_call: bool
    ) -> SkillSet:
        """See `Skills`."""
        active = self._named(named)
        others = [skill for skill in self.installed(owner) if skill not in active]
        if not can_call:
            found = await fitting(text, others, self._similarity, MAX_FITTING) if others else []
            # A request with tools would find nobody.
            return SkillSet(tuple(replace(skill, tools=()) for skill in (*active, *found)))
        if len(others) > MAX_OFFERED:
            others = (await ranked(text, others, self._similarity))[:MAX_OFFERED]
        # What belongs to a skill that is active already can be read, too.
        offered = [*others, *(skill for skill in active if skill.resources)]
        if not offered:
            return SkillSet(active)
        return SkillSet(active, activate_skill([self._loaded[s.slug] for s in offered]))

    async def install(self, owner: str, slug: str) -> Skill:
        """Add a skill to all requests of an owner.

        Raises:
            NotFound, InvalidRequest: too many; StorageUnavailable.
        """
        found = self._loaded.get(slug)
        if found is None:
            raise NotFound(self._unknown(slug))
        self._hear(await self._storage.write(lambda: installed.install(owner, slug)))
        return found.skill

    async def uninstall(self, owner: str, slug: str) -> Skill:
        """Take it away again. One that is in no folder any more has nothing but its slug.

        Raises:
            NotFound: it is not installed; StorageUnavailable.
        """
        self._hear(await self._storage.write(lambda: installed.uninstall(owner, slug)))
        found = self._loaded.get(slug)
        return found.skill if found is not None else Skill(slug, "", "", "", "", "")

    def _named(self, named: Sequence[str]) -> tuple[Skill, ...]:
        for number, slug in enumerate(named):
            if slug not in self._loaded:
                raise InvalidRequest(f"spec.skills[{number}]", self._unknown(slug))
        return tuple(self._loaded[slug].skill for slug in named)

    def _unknown(self, slug: str) -> str:
        shown = slug[:SHOWN_SLUG_CHARS]
        nearest = get_close_matches(shown, self._loaded, 1, 0.5)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        return f"no skill is called {shown!r}{hint}"

    def _hear(self, change: Installed) -> None:
        """One owner's skills, which may be older than what is known already."""
        known = self._installed.get(change.owner)
        if known is None or known.number < change.number:
            self._installed[change.owner] = change

    async def _listen(self) -> None:
        for change in await self._storage.read(lambda: installed.changes(self._heard)):
            self._hear(change)
            self._heard = change.number

    async def _watch(self) -> None:
        is_away = False
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self._listen()
                if is_away:
                    log.info("installed_skills_known_again")
                is_away = False
            except StorageUnavailable:
                if not is_away:
                    log.warning("installed_skills_unknown")
                is_away = True
