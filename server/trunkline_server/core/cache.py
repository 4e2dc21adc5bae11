"""Answers that are given again: what the use case needs of the cache."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
        keep_s: how long its mode keeps answers; 0: not at all.
    """

    owner: str
    asked: CompletionSpec
    spec: CompletionSpec
    mode: str = ""
    skills: Mapping[str, str] = field(default_factory=dict)
    keep_s: float = 3_600.0


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer that was given before.

    Attributes:
        kind: exact or semantic.
        similarity: of the two questions; None for an exact hit.
    """

    completion: Completion
    kind: str
    age_s: float
    similarity: float | None = None


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
        """
        ...
