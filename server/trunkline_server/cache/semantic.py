"""The semantic tier: answers to questions that mean the same.

A model tells how similar two questions are, and a guard lets only those through that name the same numbers and names
and negate the same. That alone decides nothing. Whoever asks something similar gets an answer of a model all the same,
and both answers are compared (*shadow*); only where an owner's own answers have proved to be the same from a similarity
on (see `evidence`) is one given again. Of those, too, a small part goes on being asked and compared, for ever.

Nothing here is waited for by more than the lookup's own bound: sections and evidence are read from the database in the
background, and are not there until then.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np

from trunkline_server.cache import rows
from trunkline_server.cache.evidence import LOWEST, Count, bin_of, threshold
from trunkline_server.cache.place import RULES, Place
from trunkline_server.cache.question import Near, Nearest
from trunkline_server.cache.rows import QuestionRow
from trunkline_server.cache.sections import MAX_VECTORS, Question, Section, Sections, Vector
from trunkline_server.core.agreement import final_result
from trunkline_server.core.cache import CacheEvent, CacheMeter
from trunkline_server.core.claims import same_claims
from trunkline_server.core.errors import StorageUnavailable
from trunkline_server.core.ports import Similarity
from trunkline_server.core.transactions import Storage

AGREE: Final = (
    0.92  # Cosine from which two answers say the same, if they claim the same: as for panels.
)
RECHECKED: Final = 0.02  # Of the hits that could be given.
MAX_QUESTION_CHARS: Final = 1_000  # The model reads no more of a question.
MAX_LOADED: Final = 10_000  # Questions of a section that are read from the database, the newest.
FRESH_S: Final = 30.0  # So long other processes' questions may be missing.
MAX_OWNERS: Final = 10_000  # Whose evidence is in memory.
MAX_TASKS: Final = 32  # At once, in the background; what comes beyond is not done.
HALF: Final = np.float16

# A question is short, so that one such word is all of the difference: turn it on or off, members or non-members.
_TURNING: Final = re.compile(r"\b(?:non|off|on|stop|quit|avoid|cancel|undo)(?!\w)")

Mode = Literal["shadow", "on"]


class Embedder(Protocol):
    """A model that knows what texts are about."""

    async def vector(self, text: str) -> Vector | None:
        """Of length 1; None where the model can't tell, or not in time."""
        ...


class Evidence(NamedTuple):
    """Of one owner. `asked_at_s`: when the database was last asked for it; nothing is known until it has told."""

    counts: dict[int, Count]
    is_read: bool
    asked_at_s: float


class Semantic:
    """Put together once, used for all owners.

    Args:
        storage: None: everything goes with the process.
        least: similarity below which nothing is ever given.
        max_false: share of wrong answers that is accepted.
        random: 0 to 1.
    """

    def __init__(
        self,
        *,
        embedder: Embedder,
        similarity: Similarity,
        storage: Storage | None,
        mode: Mode,
        least: float,
        max_false: float,
        random: Callable[[], float],
        now_us: Callable[[], int],
        meter: CacheMeter,
        max_vectors: int = MAX_VECTORS,
    ) -> None:
        self.mode = mode
        self._embedder = embedder
        self._similarity = similarity
        self._storage = storage
        self._least = least
        self._max_false = max_false
        self._random = random
        self._now_us = now_us
        self._meter = meter
        self._sections = Sections(max_vectors)
        self._read_at_s: dict[bytes, float] = {}  # Of sections.
        self._seen_us: dict[bytes, int] = {}  # The newest question of each that was read.
        self._evidence: dict[str, Evidence] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # looking

    async def nearest(self, place: Place) -> Nearest:
        """The nearest question of the section that the guard lets through."""
        if not is_askable(place.question):
            return Nearest(None, None)
        section = self._section(place)
        self.counts(place.owner)  # To be read by the time that they are needed.
        vector = await self._embedder.vector(place.question)
        if vector is None or section is None:
            return Nearest(vector, None)
        for question, similarity in section.nearest(vector, LOWEST, self._now_us()):
            if means_the_same(question.text, place.question):
                is_served = self._is_served(place.owner, similarity)
                return Nearest(vector, Near(question.key, similarity, is_served))
        return Nearest(vector, None)

    def _is_served(self, owner: str, similarity: float) -> bool:
        if self.mode != "on":
            return False
        least = self.threshold(owner)
        return least is not None and similarity >= least and self._random() >= RECHECKED

    def threshold(self, owner: str) -> float | None:
        """From which similarity on answers would be given; None: from none, so far."""
        return threshold(self.counts(owner), self._least, self._max_false)

    def counts(self, owner: str) -> dict[int, Count]:
        """What is known of an owner, by bins; nothing while it is being read."""
        now_s = asyncio.get_running_loop().time()
        found = self._evidence.get(owner)
        if found is None and len(self._evidence) >= MAX_OWNERS:
            del self._evidence[next(iter(self._evidence))]
        if found is None:
            found = self._evidence[owner] = Evidence({}, self._storage is None, -FRESH_S)
        if self._storage is not None and now_s - found.asked_at_s >= FRESH_S:
            # Other processes may have learned something, too.
            found = self._evidence[owner] = found._replace(asked_at_s=now_s)
            self._begin(partial(self._read_evidence, self._storage, owner))
        return found.counts if found.is_read else {}

    async def evidence_of(self, owner: str) -> dict[int, Count]:
        """The same, read from the database. Raises: StorageUnavailable."""
        if self._storage is not None:
            await self._read_evidence(self._storage, owner)
        return self.counts(owner)

    def _section(self, place: Place) -> Section | None:
        """None while it is being read."""
        found = self._sections.find(place.section)
        if self._storage is None:
            return found
        now_s = asyncio.get_running_loop().time()
        read_at_s = self._read_at_s.get(place.section)
        if read_at_s is None or now_s - read_at_s >= FRESH_S:
            self._read_at_s[place.section] = now_s
            self._begin(partial(self._read_section, self._storage, place.owner, place.section))
        return found

    # keeping

    def put(self, place: Place, vector: Vector | None, kept_us: int, expires_us: int) -> None:
        """The question has an answer now."""
        if is_askable(place.question):
            self._begin(partial(self._put, place, vector, kept_us, expires_us))

    def drop(self, key: bytes, section: bytes) -> None:
        """The answer is gone."""
        found = self._sections.find(section)
        if found is not None:
            found.drop(key)

    def drop_owner(self, owner: str) -> None:
        """All questions of one owner."""
        self._sections.drop_owner(owner)
        self._read_at_s.clear()
        self._seen_us.clear()

    def compare(self, owner: str, near: Near, old: str, new: str) -> None:
        """Two questions were answered: do the answers say the same?"""
        self._begin(partial(self._compare, owner, near.similarity, old, new))

    def blame(self, owner: str, similarity: float) -> None:
        """An answer that was given again was wrong."""
        self._begin(partial(self._judged, owner, similarity, is_same=False))

    async def settled(self) -> None:
        """Everything that was begun in the background is done."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Leave what is not done undone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # in the background

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if len(self._tasks) >= MAX_TASKS:
            return
        task = asyncio.get_running_loop().create_task(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _quietly(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except StorageUnavailable:
            self._meter.count(CacheEvent.AWAY)

    async def _read_section(self, storage: Storage, owner: str, section: bytes) -> None:
        after_us = self._seen_us.get(section, 0)
        found = await storage.read(lambda: rows.questions(owner, section, after_us, MAX_LOADED))
        if len(self._seen_us) >= MAX_OWNERS:
            self._seen_us.clear()
            self._read_at_s.clear()
        for row in found:
            self._remember(owner, section, row)
            self._seen_us[section] = row.kept_us

    def _remember(self, owner: str, section: bytes, row: QuestionRow) -> None:
        vector = np.frombuffer(row.vector, dtype=HALF).astype(np.float32)
        self._place(owner, section, Question(row.key, row.question, row.expires_us), vector)

    def _place(self, owner: str, section: bytes, question: Question, vector: Vector) -> None:
        found = self._sections.find(section) or self._sections.make(section, owner)
        found.put(question, vector)
        self._sections.shrink()

    async def _put(self, place: Place, vector: Vector | None, kept_us: int, expires: int) -> None:
        if vector is None:
            vector = await self._embedder.vector(place.question)
        if vector is None:
            return
        question = Question(place.key, place.question, expires)
        self._place(place.owner, place.section, question, vector)
        if self._storage is not None:
            halves = vector.astype(HALF).tobytes()
            row = QuestionRow(place.key, place.question, halves, kept_us, expires)
            await self._storage.write(lambda: rows.put_question(place.owner, place.section, row))

    async def _read_evidence(self, storage: Storage, owner: str) -> None:
        asked_at_s = asyncio.get_running_loop().time()
        counts = await storage.read(lambda: rows.evidence(owner, RULES))
        self._evidence[owner] = Evidence(counts, True, asked_at_s)

    async def _compare(self, owner: str, similarity: float, old: str, new: str) -> None:
        is_same = await self.say_the_same(old, new)
        self._meter.count(CacheEvent.SHADOW_SAME if is_same else CacheEvent.SHADOW_OTHER)
        await self._judged(owner, similarity, is_same=is_same)

    async def say_the_same(self, first: str, second: str) -> bool:
        """Two answers: as panels tell it. What can't be told counts as another answer."""
        if final_result(first) != final_result(second):
            return False
        if first.strip() == second.strip():
            return True
        is_same = same_claims(first, second)
        if is_same is not None:
            return is_same
        cosine = await self._similarity.cosine(first, second)
        return cosine is not None and cosine >= AGREE

    async def _judged(self, owner: str, similarity: float, *, is_same: bool) -> None:
        number = bin_of(similarity)
        counts = self.counts(owner)
        if self._storage is None:
            counts[number] = counts.get(number, Count()).plus(is_same)
            return
        storage = self._storage
        count = await storage.write(lambda: rows.judge(owner, RULES, number, is_same))
        counts[number] = count


def is_askable(question: str) -> bool:
    """Is it a question that the model can read?"""
    return 0 < len(question) <= MAX_QUESTION_CHARS and "\0" not in question


def means_the_same(first: str, second: str) -> bool:
    """The guard: the same numbers, names, negations and opposites, as far as English words tell. In doubt: no."""
    return same_claims(first, second) is not False and _turned(first) == _turned(second)


def _turned(text: str) -> Counter[str]:
    return Counter(_TURNING.findall(text.lower()))
