"""Requests, answers and a cache for these tests, with a clock of its own."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from trunkline.v1.completion_pb2 import Choice, Completion, FinishReason
from trunkline.v1.completion_spec_pb2 import CompletionSpec, SamplingOptions
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.cache.answers import Answers, CacheRules
from trunkline_server.cache.question import OpenQuestion
from trunkline_server.cache.semantic import Semantic
from trunkline_server.core.cache import CacheEvent, CacheSubject, Hit, Shelf

START_US = 1_800_000_000_000_000
FOR_EVER_S = 1e12
STOP = FinishReason.FINISH_REASON_STOP
PARIS = "What is the capital of France?"


@dataclass
class Clock:
    """Microseconds since 1970, as the test says."""

    now_us: int = START_US

    def __call__(self) -> int:
        return self.now_us

    def pass_s(self, seconds: float) -> None:
        """Go on."""
        self.now_us += round(seconds * 1_000_000)


@dataclass
class Meter:
    """What was counted."""

    counts: Counter[CacheEvent] = field(default_factory=Counter)

    def count(self, event: CacheEvent) -> None:
        """See `CacheMeter`."""
        self.counts[event] += 1


def said(text: str, role: "Role.ValueType" = Role.ROLE_USER) -> Message:
    """A message."""
    return Message(role=role, parts=[Part(text=text)])


def asks(text: str = PARIS, **fields: Any) -> CompletionSpec:
    """A request that may be answered from the cache, unless `fields` say otherwise."""
    given = {"sampling": SamplingOptions(temperature=0), "messages": [said(text)], **fields}
    return CompletionSpec(**given)


def about(
    spec: CompletionSpec,
    owner: str = "acme",
    *,
    mode: str = "",
    skills: Mapping[str, str] | None = None,
    keep_s: float = 0.0,
) -> CacheSubject:
    """What the use case asks the cache, of a request that nothing was added to."""
    return CacheSubject(owner, spec, spec, mode, skills or {}, keep_s)


def answers(text: str = "Paris.", **fields: Any) -> Completion:
    """A whole answer."""
    choice = Choice(message=said(text, Role.ROLE_ASSISTANT), finish_reason=STOP)
    return Completion(choices=[choice], **fields)


def shown(hit: object) -> str:
    """The text of a hit; empty for a miss."""
    if not isinstance(hit, Hit):
        return ""
    return hit.completion.choices[0].message.parts[0].text


async def ask(
    cache: Answers, subject: CacheSubject, answer: Completion | None = None
) -> Hit | OpenQuestion | None:
    """Look; and where there is nothing, store `answer`."""
    found = await cache.look(subject, FOR_EVER_S)
    if isinstance(found, OpenQuestion):
        if answer is None:
            found.close()
        else:
            await found.store(answer)
    return found


@asynccontextmanager
async def opened(
    clock: Clock,
    *,
    shelf: Shelf | None = None,
    semantic: Semantic | None = None,
    meter: Meter | None = None,
    max_front_bytes: int = 2**20,
    **rules: Any,
) -> AsyncIterator[Answers]:
    """A cache that runs."""
    cache = Answers(
        CacheRules(**rules),
        shelf=shelf,
        semantic=semantic,
        now_us=clock,
        meter=meter or Meter(),
        max_front_bytes=max_front_bytes,
    )
    cache.start()
    try:
        yield cache
    finally:
        await cache.close()
