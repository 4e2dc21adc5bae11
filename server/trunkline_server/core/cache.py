"""Answers that are given again: what the use case needs of the cache, and the cache of its surroundings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_spec_pb2 import CompletionSpec


@dataclass(frozen=True, slots=True)
class CacheSubject:
    """What a lookup is about, beside the request itself.

    Attributes:
        owner: `Caller.owner`: nothing is ever shared beyond it.
        asked: the request as the caller sent it.
        spec: the same as a model would get it: with history, persona, skills and mode.
        mode: resolved; may be empty.
        skills: version by slug, of all that is active.
        keep_s: how long its mode keeps answers; 0: no mode says so, and `[cache] keep_s` does.
    """

    owner: str
    asked: CompletionSpec
    spec: CompletionSpec
    mode: str = ""
    skills: Mapping[str, str] = field(default_factory=dict)
    keep_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer that was given before.

    Attributes:
        completion: nobody else's: it may be changed.
        kind: exact or semantic.
        similarity: of the two questions; None for an exact hit.
        entry_id: by which a caller can say that the answer was wrong.
    """

    completion: Completion
    kind: str
    age_s: float
    similarity: float | None = None
    entry_id: str = ""


class Miss(Protocol):
    """Nobody has asked this before, or it is to be asked anew. Whoever holds a miss asks for all who wait for it."""

    async def store(self, completion: Completion) -> None:
        """Keep the answer, if it is one that may be kept, and hand it to those who wait. Never raises."""
        ...

    def close(self) -> None:
        """Nothing came of it: somebody else may ask. Does nothing after `store`. Never raises."""
        ...


class AnswerCache(Protocol):
    """All answers that are kept."""

    def is_eligible(self, spec: CompletionSpec) -> bool:
        """Could a request as the caller sent it be answered from the cache? Cheap: asked for every request."""
        ...

    async def look(self, subject: CacheSubject, until_s: float) -> Hit | Miss | None:
        """Find an answer, or the right to ask for it; None: this request has nothing to do with the cache.

        Waits while somebody else asks the very same, at most until the instant `until_s`. A cache that can't be
        reached is a miss, never an error.

        Raises:
            NotCached: only an answer that was given before was wanted.
        """
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it is kept.

    Attributes:
        key: SHA-256 of whose it is, of everything that shaped it, and of the question.
        answer: a serialised `Completion`, without what belongs to one request.
        kept_us: when it was asked for, in microseconds since 1970. So whatever is cleared meanwhile is not kept.
    """

    key: bytes
    owner: str
    answer: bytes
    kept_us: int
    expires_us: int


@dataclass(frozen=True, slots=True)
class Clearing:
    """What an owner has had forgotten: all that was asked for at `before_us` or earlier, and `changes` so far."""

    before_us: int
    changes: int


@dataclass(frozen=True, slots=True)
class Clearings:
    """Those of all owners. `mark` is another one after every change."""

    mark: str
    by_owner: Mapping[str, Clearing]


class ShelfAway(Exception):
    """A shelf gave no answer."""


class Shelf(Protocol):
    """Where answers outlive a process, or are there for several. Everything may raise `ShelfAway`."""

    async def find(self, key: bytes, owner: str) -> Kept | None:
        """Expired answers may be found; those that were cleared are not."""
        ...

    async def put(self, kept: Kept) -> None:
        """In the place of any other with the same key."""
        ...

    async def drop(self, key: bytes, owner: str) -> None:
        """This one, and tell other processes that the owner has changed something."""
        ...

    async def clear(self, owner: str, before_us: int) -> None:
        """All that the owner asked for at that instant or earlier."""
        ...

    async def clearings(self, mark: str) -> Clearings | None:
        """None where nothing has changed since `mark`."""
        ...

    async def count(self, owner: str, now_us: int) -> tuple[int, int] | None:
        """How many answers an owner has there, and their bytes; None where that is not known."""
        ...

    async def sweep(self, now_us: int) -> None:
        """Forget some of what has expired, or is too much."""
        ...

    async def close(self) -> None:
        """Let go of connections that are its own."""
        ...


class CacheEvent(StrEnum):
    """What is counted."""

    EXACT_HIT = "exact_hit"
    SEMANTIC_HIT = "semantic_hit"
    MISS = "miss"
    WAIT = "wait"  # For somebody else's answer to the same.
    STORED = "stored"
    AWAY = "away"  # A shelf was too slow, or broken.
    SHADOW_SAME = "shadow_same"
    SHADOW_OTHER = "shadow_other"
    REPORTED = "reported"  # As wrong.


class CacheMeter(Protocol):
    """Where that is counted."""

    def count(self, event: CacheEvent) -> None:
        """One more."""
        ...
