"""How long callers of panels wait for the first token, when one proposer in a hundred never answers.

Every question is asked of a panel that goes on when its quorum is in, and of the same panel when it waits for all,
once with the default deadline for proposals and once with a short one. The upstream is told in the prompt when each
model's first token comes, so the panels meet the very same delays: they are drawn once, from a seed. Those that hang
are dealt out, exactly one in a hundred. Questions come at a fixed rate, whatever becomes of those before; which panel
comes first changes with each.
"""

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from gateways import CannotMeasure
from gateways.trunkline_panels import (
    AGGREGATOR,
    DEADLINE_S,
    QUORUMS,
    SHORT_S,
    all_route,
    quorum_route,
)
from rows import CHUNK_BYTES

MEDIAN_S: Final = 0.060  # Of the time to the first token, which is log-normal.
SIGMA: Final = 0.5
CHUNKS: Final = 40
GAP_MS: Final = 5
HANGS: Final = 0.01  # Of proposers.
LIMIT: Final = 0.60  # Of the p95 of waiting for all.
SEED: Final = 20_260
DRAWS: Final = 1_000  # Of the bootstrap.
ANSWER_S: Final = 45.0  # A caller's patience.
READ_BYTES: Final = 64 * 1024
REQUEST: Final = (
    "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    "connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
)
_TEXT: Final = re.compile(rb'"content":"([^"]+)"')
_LAST: Final = re.compile(rb'^data: (\{.*"waymark".*\})$', re.MULTILINE)


@dataclass(frozen=True)
class Question:
    """Seconds until the first token of each proposer, None for never, and of the aggregator."""

    proposers: Sequence[float | None]
    aggregator: float

    @property
    def hangs(self) -> bool:
        return None in self.proposers

    @property
    def prompt(self) -> str:
        told = list(self.proposers) + [None] * (AGGREGATOR - len(self.proposers))
        delays = [-1 if s is None else round(s * 1e6) for s in (*told, self.aggregator)]
        return f"What is the capital of France? first_us={','.join(map(str, delays))}"

    def at_best_s(self, count: int, deadline_s: float) -> float:
        """Until the caller's first token, if only models took time and exactly so many proposers were waited for."""
        answered = sorted(math.inf if s is None else s for s in self.proposers)[count - 1]
        return min(answered + CHUNKS * GAP_MS / 1_000, deadline_s) + self.aggregator


@dataclass(frozen=True)
class Waited:
    """One answer, as its caller got it.

    Attributes:
        drafts: proposals that the aggregator read.
    """

    first_s: float
    drafts: int


@dataclass(frozen=True)
class Panels:
    """All answers to the questions of panels of one size, in the same order."""

    size: int
    questions: Sequence[Question]
    waited: dict[str, list[Waited]]


@dataclass(frozen=True)
class Ratio:
    """The p95 with a quorum by that of waiting for all, with an interval of 95 %.

    Attributes:
        at_best: what the drawn delays alone allow.
    """

    found: float
    low: float
    high: float
    at_best: float

    @property
    def is_reached(self) -> bool:
        return self.found <= LIMIT

    @property
    def is_in_reach(self) -> bool:
        return self.at_best <= LIMIT


def routes_of(size: int) -> tuple[str, str, str]:
    return quorum_route(size), all_route(size), all_route(size, is_short=True)


def questions_of(size: int, count: int) -> list[Question]:
    """The same ones for the same numbers."""
    random = Random(f"{SEED}.{size}")
    hanging = set(random.sample(range(size * count), round(HANGS * size * count)))
    mu = math.log(MEDIAN_S)
    drawn = [[random.lognormvariate(mu, SIGMA) for _ in range(size + 1)] for _ in range(count)]
    return [
        Question(
            [None if number * size + seat in hanging else delays[seat] for seat in range(size)],
            delays[size],
        )
        for number, delays in enumerate(drawn)
    ]


async def measure(port: int, count: int, rate: float) -> list[Panels]:
    """So many questions of each size.

    Raises:
        CannotMeasure: an answer was not whole.
    """
    asked = [Panels(size, questions_of(size, count), {}) for size in QUORUMS]
    await asyncio.gather(*(ask(port, r, p.questions[0]) for p in asked for r in routes_of(p.size)))
    tasks: list[tuple[Panels, str, asyncio.Task[Waited]]] = []
    try:
        async with asyncio.TaskGroup() as group:
            began_s = time.monotonic()
            for panels, route, question in _in_turn(asked):
                await asyncio.sleep(began_s + len(tasks) / rate - time.monotonic())
                task = group.create_task(ask(port, route, question))
                tasks.append((panels, route, task))
    except ExceptionGroup as failed:  # The first one is the run's own error.
        raise failed.exceptions[0] from None
    for panels, route, task in tasks:
        panels.waited.setdefault(route, []).append(task.result())
    return asked


def _in_turn(asked: Sequence[Panels]) -> Iterator[tuple[Panels, str, Question]]:
    for number in range(len(asked[0].questions)):
        for panels in asked:
            routes = routes_of(panels.size)
            for place in range(len(routes)):
                route = routes[(number + place) % len(routes)]
                yield panels, route, panels.questions[number]


async def ask(port: int, route: str, question: Question) -> Waited:
    """One caller who reads to the end.

    Raises:
        CannotMeasure: the answer was not whole.
    """
    messages = [{"role": "user", "content": question.prompt}]
    body = json.dumps({"model": route, "stream": True, "messages": messages})
    began_s = time.monotonic()
    first_s = None
    answer = b""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(REQUEST.format(length=len(body), body=body).encode())
                while piece := await reader.read(READ_BYTES):
                    answer += piece
                    if first_s is None and _TEXT.search(answer):
                        first_s = time.monotonic() - began_s
            finally:
                writer.close()
    except TimeoutError:
        raise CannotMeasure(f"{route}: no end within {ANSWER_S:g} s: {answer[-300:]!r}") from None
    except OSError as error:
        raise CannotMeasure(f"{route}: {error}") from error
    text = b"".join(_TEXT.findall(answer))
    last = _LAST.search(answer)
    is_whole = len(text) == CHUNKS * CHUNK_BYTES and b"[DONE]" in answer
    if first_s is None or last is None or not is_whole:
        raise CannotMeasure(f"{route}: an answer that is not whole: {answer[-300:]!r}")
    models: list[dict[str, Any]] = json.loads(last[1])["waymark"]["models"]
    return Waited(first_s, sum(m["role"] == "proposer" and m["status"] == "used" for m in models))


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1]


def ratio(panels: Panels, other: str) -> Ratio:
    """Of the panel with a quorum to that other one.

    Questions are drawn again with both of their answers, those with a proposer that hangs and those without by
    themselves: their numbers were not left to chance.
    """
    ours, theirs = quorum_route(panels.size), other
    both = [
        (a.first_s, b.first_s)
        for a, b in zip(panels.waited[ours], panels.waited[theirs], strict=True)
    ]
    strata = [
        [pair for pair, q in zip(both, panels.questions, strict=True) if q.hangs is hangs]
        for hangs in (True, False)
    ]
    random = Random(SEED)
    drawn = sorted(
        _p95_ratio([pair for found in strata for pair in random.choices(found, k=len(found))])
        for _ in range(DRAWS)
    )
    quorum, size = QUORUMS[panels.size], panels.size
    deadline_s = SHORT_S if theirs == all_route(size, is_short=True) else DEADLINE_S
    at_best = [
        (q.at_best_s(quorum, deadline_s), q.at_best_s(size, deadline_s)) for q in panels.questions
    ]
    return Ratio(
        _p95_ratio(both),
        drawn[int(0.025 * DRAWS)],
        drawn[int(0.975 * DRAWS)],
        _p95_ratio(at_best),
    )


def _p95_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return percentile([a for a, _ in pairs], 0.95) / percentile([b for _, b in pairs], 0.95)


def show(every: Sequence[Panels], say: Callable[[str], None]) -> bool:
    """Print the table. True: the target is reached wherever it can be."""
    say(
        f"{'panel':<13} {'asked':>6} {'drafts':>6} {'first token ms p50':>19} {'p95':>7} {'p99':>7} "
        f"{'with one that hangs':>22}  quorum's p95 by this one's"
    )
    is_reached = True
    for panels in every:
        for route in routes_of(panels.size):
            waited = panels.waited[route]
            ms = [w.first_s * 1_000 for w in waited]
            hung = [t for t, q in zip(ms, panels.questions, strict=True) if q.hangs]
            which = f"{len(hung)}, p50 {percentile(hung, 0.5):,.0f}" if hung else "0"
            drafts = sum(w.drafts for w in waited) / len(waited)
            verdict = ""
            if route != quorum_route(panels.size):
                found = ratio(panels, route)
                is_reached &= found.is_reached or not found.is_in_reach
                verdict = _verdict(found)
            say(
                f"{route:<13} {len(waited):>6} {drafts:>6.2f} {percentile(ms, 0.5):>19,.0f} "
                f"{percentile(ms, 0.95):>7,.0f} {percentile(ms, 0.99):>7,.0f} {which:>22}  {verdict}".rstrip()
            )
    return is_reached


def _verdict(found: Ratio) -> str:
    said = f"{found.found:.0%} ({found.low:.0%} to {found.high:.0%}), target {LIMIT:.0%} "
    if found.is_reached:
        return said + "ok"
    if found.is_in_reach:
        return said + "MISS"
    return said + f"MISS, out of reach: {found.at_best:.0%} if nothing but the models took time"
