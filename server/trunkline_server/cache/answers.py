"""The cache of answers: the `AnswerCache` port.

First the memory of this process, then what all share (Redis, or a database that lasts), then similar questions, where
that is asked for. Nobody waits for more than `LOOK_S` of it: what is slow or broken is a miss. What is written is
written after the answer has gone to its caller.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.protobuf.message import DecodeError

from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_spec_pb2 import CacheMode, CompletionSpec
from trunkline_server.cache.eligibility import (
    ONLY_IF_CACHED,
    is_answerable,
    may_ask,
    may_keep,
    shared_part,
    text_of,
)
from trunkline_server.cache.evidence import LOWEST, Count
from trunkline_server.cache.flights import Flights, Turn
from trunkline_server.cache.front import Front
from trunkline_server.cache.place import place_of
from trunkline_server.cache.question import MODEL, Found, OpenQuestion
from trunkline_server.cache.tallies import Tallies
from trunkline_server.core.cache import (
    CacheEvent,
    CacheMeter,
    CacheSubject,
    Clearing,
    Clearings,
    Hit,
    Kept,
    Shelf,
    ShelfAway,
)
from trunkline_server.core.errors import InvalidRequest, NotCached, NotFound, StorageUnavailable

if TYPE_CHECKING:  # It needs numpy, which comes with the extra.
    from trunkline_server.cache.semantic import Semantic

LOOK_S: Final = 0.05  # For all that a lookup waits for, but somebody else's answer.
PAUSE_S: Final = 1.0  # A shelf that was away is left alone for so long.
WATCH_S: Final = 1.0  # So long an answer may still be given that another process has cleared.
SWEEP_S: Final = 60.0
CLOSE_S: Final = 2.0
WRITE_S: Final = 5.0
MAX_WRITING: Final = 64  # Answers that are being written. What comes beyond is kept in memory only.
MAX_FRONT_BYTES: Final = 64 * 1024 * 1024
MAX_CLEARED: Final = 100_000  # Owners.
MICROS: Final = 1_000_000
NANOS: Final = 1_000_000_000
EXACT: Final = "exact"
SEMANTIC: Final = "semantic"
REFRESH: Final = CacheMode.CACHE_MODE_REFRESH
OFF: Final = "off"

_ENTRY_ID: Final = re.compile(r"([0-9a-f]{64})(?:-([01]\.[0-9]{4}))?", re.ASCII)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CacheRules:
    """`[cache]`.

    Attributes:
        exact: False: there is no cache at all.
        shared: between the users of an owner.
        keep_s: of answers whose mode says nothing.
        policy: names all of a server that shapes answers beside the request: another one, and nothing is found.
    """

    exact: bool = True
    shared: bool = True
    max_entries: int = 100_000
    max_entry_bytes: int = 256 * 1024
    keep_s: float = 3_600.0
    policy: str = ""


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Of one owner.

    Attributes:
        counts: of this process, since it began.
        semantic: off, shadow or on.
        threshold: from which similarity on answers would be given; None: from none.
        evidence: by bins of similarity.
    """

    entries: int
    size_bytes: int
    counts: Mapping[CacheEvent, int]
    semantic: str
    threshold: float | None
    evidence: Mapping[int, Count]


class Answers:
    """Between `start` and `close`.

    Args:
        shelf: None: answers go with the process.
        semantic: None: the tier is off.
        now_us: microseconds since 1970.
        language_of: a question's, where the request does not say.
    """

    def __init__(
        self,
        rules: CacheRules,
        *,
        shelf: Shelf | None,
        semantic: "Semantic | None",
        now_us: Callable[[], int],
        meter: CacheMeter,
        language_of: Callable[[CompletionSpec], str] | None = None,
        max_front_bytes: int = MAX_FRONT_BYTES,
    ) -> None:
        self._rules = rules
        self._shelf = shelf
        self._semantic = semantic
        self._now_us = now_us
        self._meter = meter
        self._language_of = None if semantic is None else language_of
        self._policy = rules.policy if semantic is None else f"{rules.policy}/{MODEL}"
        self._front = Front(rules.max_entries, max_front_bytes)
        self._flights: Flights[Found] = Flights()
        self._tallies = Tallies()
        self._mark = ""
        self._cleared: dict[str, Clearing] = {}
        self._away_until_s = float("-inf")
        self._writing: set[asyncio.Task[None]] = set()
        self._watcher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to hear of what others clear."""
        if self._shelf is not None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch(self._shelf))

    async def close(self) -> None:
        """Write what is being written, for a moment."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        if self._writing:
            await asyncio.wait(self._writing, timeout=CLOSE_S)
        for task in self._writing:
            task.cancel()
        await asyncio.gather(*self._writing, return_exceptions=True)
        if self._semantic is not None:
            await self._semantic.close()
        if self._shelf is not None:
            await self._shelf.close()

    async def settled(self) -> None:
        """Everything that was begun in the background is done."""
        while self._writing:
            await asyncio.wait(self._writing)
        if self._semantic is not None:
            await self._semantic.settled()

    # looking

    def is_eligible(self, spec: CompletionSpec) -> bool:
        """See `AnswerCache`."""
        return may_ask(spec) and (self._rules.exact or spec.cache.mode == ONLY_IF_CACHED)

    async def look(self, subject: CacheSubject, until_s: float) -> Hit | OpenQuestion | None:
        """See `AnswerCache`."""
        asked = subject.asked
        mode = asked.cache.mode
        if not (self._rules.exact and may_ask(asked) and is_answerable(asked, subject.spec)):
            if mode == ONLY_IF_CACHED:
                raise NotCached
            return None
        question = self._question(subject)
        if mode == REFRESH:
            return question
        hit = await self._answer(question, until_s, only=mode == ONLY_IF_CACHED)
        if hit is not None:
            is_exact = hit.kind == EXACT
            event = CacheEvent.EXACT_HIT if is_exact else CacheEvent.SEMANTIC_HIT
            self._count(subject.owner, event)
            return hit
        self._count(subject.owner, CacheEvent.MISS)
        if mode == ONLY_IF_CACHED:
            raise NotCached
        return question

    def _question(self, subject: CacheSubject) -> OpenQuestion:
        place = place_of(
            subject,
            shared=self._rules.shared,
            policy=self._policy,
            language_of=self._language_of,
        )
        policy = subject.asked.cache
        max_age_s = None
        if policy.HasField("max_age"):
            max_age_s = policy.max_age.seconds + policy.max_age.nanos / NANOS
        keep_s = subject.keep_s or self._rules.keep_s
        return OpenQuestion(place, self._now_us(), max_age_s, keep_s, self._keep)

    async def _answer(self, question: OpenQuestion, until_s: float, *, only: bool) -> Hit | None:
        place = question.place
        kept = self._front.find(place.key, question.asked_us)
        if kept is not None and (hit := self._hit(question, Found(kept, None))):
            return hit
        if only:
            found = await self._search(question)
            return None if found is None else self._hit(question, found)
        flight = self._flights.find(place.key)
        if flight is None:
            question.flight = self._flights.begin(place.key)
            return await self._lead(question)
        self._count(place.owner, CacheEvent.WAIT)
        outcome = await flight.wait(until_s)
        if isinstance(outcome, Found):
            return self._hit(question, outcome)
        if outcome is Turn.LEADS:
            question.flight = flight
        return None

    async def _lead(self, question: OpenQuestion) -> Hit | None:
        """Look for all who wait."""
        try:
            found = await self._search(question)
            hit = None if found is None else self._hit(question, found)
        except BaseException:
            question.close()
            raise
        if found is not None and hit is not None:
            question.land(found)
        return hit

    async def _search(self, question: OpenQuestion) -> Found | None:
        """Where looking takes a while, but never longer than LOOK_S."""
        until_s = asyncio.get_running_loop().time() + LOOK_S
        kept = await self._shelved(question.place.key, question.place.owner, until_s)
        if kept is not None and self._is_fresh(question, kept):
            return Found(kept, None)
        if self._semantic is None:
            return None
        return await self._similar(self._semantic, question, until_s)

    async def _shelved(self, key: bytes, owner: str, until_s: float) -> Kept | None:
        """Of the shelf, and into memory."""
        shelf = self._shelf
        if shelf is None or asyncio.get_running_loop().time() < self._away_until_s:
            return None
        try:
            async with asyncio.timeout_at(until_s):
                kept = await shelf.find(key, owner)
        except (ShelfAway, TimeoutError):
            self._lose()
            return None
        if kept is None or kept.expires_us <= self._now_us() or self._is_cleared(kept):
            return None
        self._front.put(kept)
        return kept

    async def _similar(
        self, semantic: "Semantic", question: OpenQuestion, until_s: float
    ) -> Found | None:
        place = question.place
        try:
            async with asyncio.timeout_at(until_s):
                question.nearest = await semantic.nearest(place)
        except TimeoutError:
            return None
        near = question.nearest.near
        if near is None:
            return None
        kept = self._front.find(near.key, question.asked_us)
        kept = kept or await self._shelved(near.key, place.owner, until_s)
        if kept is None:
            semantic.drop(near.key, place.section)
            return None
        if near.is_served and self._is_fresh(question, kept):
            return Found(kept, near)
        question.rival = kept
        return None

    def _hit(self, question: OpenQuestion, found: Found) -> Hit | None:
        """If it is fresh enough."""
        kept, near = found
        if not self._is_fresh(question, kept):
            return None
        try:
            completion = Completion.FromString(kept.answer)
        except DecodeError:
            self._front.drop(kept.key)
            return None
        age_s = max(0, question.asked_us - kept.kept_us) / MICROS
        if near is None:
            return Hit(completion, EXACT, age_s, None, kept.key.hex())
        entry_id = f"{kept.key.hex()}-{near.similarity:.4f}"
        return Hit(completion, SEMANTIC, age_s, near.similarity, entry_id)

    def _is_fresh(self, question: OpenQuestion, kept: Kept) -> bool:
        """May it be given to whoever asks?"""
        if kept.owner != question.place.owner or self._is_cleared(kept):
            return False
        if question.max_age_s is None:
            return True
        return question.asked_us - kept.kept_us <= question.max_age_s * MICROS

    def _is_cleared(self, kept: Kept) -> bool:
        clearing = self._cleared.get(kept.owner)
        return clearing is not None and kept.kept_us <= clearing.before_us

    def _lose(self) -> None:
        self._away_until_s = asyncio.get_running_loop().time() + PAUSE_S
        self._meter.count(CacheEvent.AWAY)

    def _count(self, owner: str, event: CacheEvent) -> None:
        self._meter.count(event)
        self._tallies.count(owner, event)

    # keeping

    def _keep(self, question: OpenQuestion, completion: Completion) -> Found | None:
        """If it may be kept. It is found at once; what lasts is written in the background."""
        if not may_keep(completion):
            return None
        answer = shared_part(completion).SerializeToString()
        if len(answer) > self._rules.max_entry_bytes:
            return None
        place, asked_us = question.place, question.asked_us
        expires_us = asked_us + int(question.keep_s * MICROS)
        kept = Kept(place.key, place.owner, answer, asked_us, expires_us)
        if self._is_cleared(kept) or expires_us <= self._now_us():
            return None
        self._front.put(kept)
        self._count(place.owner, CacheEvent.STORED)
        if self._shelf is not None:
            self._write(partial(self._shelf.put, kept))
        if self._semantic is not None:
            self._semantic.put(place, question.nearest.vector, asked_us, expires_us)
            self._compare(self._semantic, question, completion)
        return Found(kept, None)

    def _compare(
        self, semantic: "Semantic", question: OpenQuestion, completion: Completion
    ) -> None:
        near, rival = question.nearest.near, question.rival
        if near is not None and rival is not None:
            with suppress(DecodeError):
                old = text_of(Completion.FromString(rival.answer))
                semantic.compare(question.place.owner, near, old, text_of(completion))

    def _write(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        is_away = asyncio.get_running_loop().time() < self._away_until_s
        if is_away or len(self._writing) >= MAX_WRITING:
            return
        task = asyncio.get_running_loop().create_task(self._written(work))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _written(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            async with asyncio.timeout(WRITE_S):
                await work()
        except (ShelfAway, TimeoutError):
            self._lose()

    # forgetting

    async def clear(self, owner: str, older_than_s: float = 0.0) -> None:
        """Forget what an owner asked for so long ago, or longer.

        Raises:
            StorageUnavailable: other processes may still have it.
        """
        before_us = self._now_us() - int(older_than_s * MICROS)
        known = self._cleared.get(owner, Clearing(0, 0))
        if len(self._cleared) >= MAX_CLEARED:
            del self._cleared[next(iter(self._cleared))]
        self._cleared[owner] = Clearing(max(before_us, known.before_us), known.changes)
        self._front.drop_owner(owner, before_us)
        if self._semantic is not None:
            self._semantic.drop_owner(owner)
        if self._shelf is not None:
            await self._surely(self._shelf.clear(owner, before_us))

    async def report(self, owner: str, entry_id: str, *, is_wrong: bool) -> None:
        """What a caller found of an answer that was given again. A wrong one is forgotten.

        Raises:
            InvalidRequest: no entry is named so. NotFound: none of this owner's is. StorageUnavailable.
        """
        key, similarity = _named(entry_id)
        kept = self._front.find(key, self._now_us())
        if (kept is None or kept.owner != owner) and self._shelf is not None:
            kept = await self._surely(self._shelf.find(key, owner))
        if kept is None or kept.owner != owner or self._is_cleared(kept):
            raise NotFound("no such answer of yours is cached")
        if not is_wrong:
            return
        self._front.drop(key)
        self._count(owner, CacheEvent.REPORTED)
        if self._semantic is not None and similarity is not None:
            self._semantic.blame(owner, similarity)
        if self._shelf is not None:
            await self._surely(self._shelf.drop(key, owner))

    async def stats(self, owner: str) -> CacheStats:
        """Raises: StorageUnavailable."""
        found = None
        if self._shelf is not None:
            found = await self._surely(self._shelf.count(owner, self._now_us()))
        entries, size_bytes = found or self._front.count(owner)
        counts = self._tallies.of(owner)
        if self._semantic is None:
            return CacheStats(entries, size_bytes, counts, OFF, None, {})
        evidence = await self._semantic.evidence_of(owner)
        threshold = self._semantic.threshold(owner)
        return CacheStats(entries, size_bytes, counts, self._semantic.mode, threshold, evidence)

    async def _surely(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(WRITE_S):
                return await work
        except (ShelfAway, TimeoutError) as error:
            raise StorageUnavailable(retry_after_s=PAUSE_S) from error

    async def _watch(self, shelf: Shelf) -> None:
        """Hear of what other processes have cleared, and tidy up."""
        clock = asyncio.get_running_loop().time
        swept_s = clock()
        while True:
            try:
                async with asyncio.timeout(WRITE_S):
                    self._hear(await shelf.clearings(self._mark))
                    if clock() - swept_s >= SWEEP_S:
                        swept_s = clock()
                        await shelf.sweep(self._now_us())
            except (ShelfAway, TimeoutError):
                self._meter.count(CacheEvent.AWAY)
            await asyncio.sleep(WATCH_S)

    def _hear(self, clearings: Clearings | None) -> None:
        if clearings is None:
            return
        self._mark = clearings.mark
        for owner, clearing in clearings.by_owner.items():
            known = self._cleared.get(owner)
            if known is None or known.changes != clearing.changes:
                before_us = max(clearing.before_us, 0 if known is None else known.before_us)
                self._cleared[owner] = Clearing(before_us, clearing.changes)
                # It may have been a single answer, and which one is not known here.
                self._front.drop_owner(owner)
                if self._semantic is not None:
                    self._semantic.drop_owner(owner)


def _named(entry_id: str) -> tuple[bytes, float | None]:
    """The key of an answer, and the similarity of a semantic hit. Raises: InvalidRequest."""
    named = _ENTRY_ID.fullmatch(entry_id)
    if named is None:
        raise InvalidRequest("entry_id", "is not the entry_id of a cached answer")
    similarity = None if named[2] is None else float(named[2])
    if similarity is not None and not LOWEST <= similarity <= 1:
        raise InvalidRequest("entry_id", "is not the entry_id of a cached answer")
    return bytes.fromhex(named[1]), similarity
