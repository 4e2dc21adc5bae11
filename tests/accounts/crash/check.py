"""What must be true of the ledger after a service was killed and has started again.

Three parties know what was served: the upstream (what it sent), the callers (what they saw) and the ledger (what it
charged). What a caller saw was charged, and what was charged was sent. For a request that ended, all three are equal;
for one that a kill cut, what was sent and not charged was on its way to the service, and is counted.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.accounts.crash.load import HELD, UNARY, Seen
from tests.accounts.crash.meter import FAIL, HANG, INPUT_TOKENS, Meter, Serving
from trunkline_server.accounts import ledger
from trunkline_server.accounts.ledger import State
from trunkline_server.core.transactions import Statement, Transaction
from trunkline_server.core.usage import CHARS_PER_TOKEN
from trunkline_server.storage.postgres import PostgresStorage
from trunkline_server.storage.sqlite import SqliteStorage
from trunkline_server.storage.upgrade import sqlite_path

INPUT_NANOS: Final = 1_000  # Of a token: `tests.support.accounts.PRICES`.
OUTPUT_NANOS: Final = 2_000
ABANDONED: Final = "ABANDONED"
ROWS: Final = (
    "SELECT id, end_user, state, reason, is_estimated, COALESCE(cost, 0), charged, prompt_tokens, input_tokens,"
    " output_tokens FROM requests ORDER BY created_at, id"
)
OK: Final = "OK"


@dataclass(frozen=True)
class Row:
    """A request, as the ledger has it."""

    id: str
    mark: str
    state: int
    reason: str
    is_estimated: int
    cost: int
    charged: int
    prompt_tokens: int
    input_tokens: int
    output_tokens: int

    @property
    def price(self) -> int:
        return self.input_tokens * INPUT_NANOS + self.output_tokens * OUTPUT_NANOS


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[PostgresStorage | SqliteStorage]:
    """Beside a server that runs."""
    path = sqlite_path(url)
    storage: PostgresStorage | SqliteStorage
    storage = PostgresStorage(url) if path is None else SqliteStorage(path, only_reads=True)
    await storage.start()
    try:
        yield storage
    finally:
        await storage.close()


def _select(sql: str) -> Transaction[Sequence[Any]]:
    return (yield Statement(sql))


@dataclass(frozen=True)
class Terms:
    """What may be less than exact after some kinds of death.

    Attributes:
        has_progress: it is known how far each request had come.
        is_synced: a request without a key that was answered has its own settlement, because the disk took it.
    """

    has_progress: bool = True
    is_synced: bool = True


class Inspector:
    """Looks into the ledger after each life, and remembers what it has seen there.

    Attributes:
        granted: nanos that the organisation was given.
    """

    def __init__(self, url: str, meter: Meter) -> None:
        self._url = url
        self._meter = meter
        self._seen: dict[str, list[Seen]] = defaultdict(list)
        self._ended: dict[str, Row] = {}
        self._counts: dict[str, Counter[str]] = {}
        self.granted = 0

    @property
    def totals(self) -> Counter[str]:
        """Of all requests."""
        return sum(self._counts.values(), Counter[str]())

    async def look(self, seen: Sequence[Seen], terms: Terms = Terms()) -> None:
        """At a database in which nothing runs any more; `seen`: by callers since the last look."""
        async with reading(self._url) as storage:
            problems = await storage.read(lambda: ledger.problems(is_deep=True))
            rows = [Row(*row) for row in await storage.read(lambda: _select(ROWS))]
            balance = await storage.read(lambda: ledger.balance("acme"))
        assert problems == [], problems
        left = [row for row in rows if row.state == State.OPEN]
        assert left == [], left
        now = {row.id: row for row in rows}
        changed = {id_: now.get(id_) for id_, row in self._ended.items() if now.get(id_) != row}
        assert changed == {}, (changed, [self._ended[id_] for id_ in changed])
        self._ended = now
        wrong = [row for row in rows if not row.charged == row.cost == row.price]
        assert wrong == [], wrong
        charged = sum(row.charged for row in rows)
        assert (balance.available, balance.held) == (self.granted - charged, 0)

        by_mark: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_mark[row.mark].append(row)
        # What went upstream was held before.
        assert self._meter.servings.keys() <= by_mark.keys()
        for each in seen:
            self._seen[each.ask.mark].append(each)
        for mark in {each.ask.mark for each in seen}:
            servings = self._meter.servings.get(mark, [])
            self._counts[mark] = judged(self._seen[mark], by_mark[mark], servings, terms)


GRANTED: Final = "SELECT COALESCE(SUM(amount), 0) FROM entries WHERE request_id = ''"


async def granted(url: str) -> int:
    """What the ledger says that it was given."""
    async with reading(url) as storage:
        ((nanos,),) = await storage.read(lambda: _select(GRANTED))
    return int(nanos)


def judged(
    seen: Sequence[Seen], rows: Sequence[Row], servings: Sequence[Serving], terms: Terms
) -> Counter[str]:
    """All that is known of one request, or of all that were made under one key. Returns what it adds to the sums."""
    ask = seen[0].ask
    told = f"{seen} {rows} {servings}"
    answered = [row for row in rows if row.reason == OK]
    others = [row for row in rows if row.reason != OK]
    assert len(servings) <= len(rows) <= len(seen), told
    for row in answered:
        assert (row.input_tokens, row.output_tokens) == (INPUT_TOKENS, ask.tokens), told
        assert (row.state, row.is_estimated) == (State.SETTLED, 0), told
    assert len(answered) <= 1, told  # A second answer under its key is the first one.
    for each in seen:
        if each.completion is not None:
            ends = answered if ask.key or terms.is_synced else rows
            assert [row.id for row in ends] == [each.completion.id], told
            assert each.completion.usage.cost.amount_nanos == ends[0].charged, told
            assert each.tokens == ask.tokens, told
    known = {INPUT_TOKENS, -(-len(ask.prompt) // CHARS_PER_TOKEN)}
    for row in others:
        assert row.is_estimated or not row.charged, told
        assert row.input_tokens in (known | {row.prompt_tokens} if row.charged else {0}), told
        assert ask.kind != UNARY or row.output_tokens in (0, ask.tokens), told
        assert ask.kind != FAIL or not row.charged or not terms.has_progress, told
    sent = sum(serving.tokens for serving in servings)
    charged = sum(row.output_tokens for row in rows)
    assert charged <= sent, told
    cut_tokens = max((each.tokens for each in seen if each.completion is None), default=0)
    most_tokens = max((row.output_tokens for row in rows), default=0)
    cut = [row for row in others if row.reason == ABANDONED]
    is_quiet = ask.kind in (HANG, HELD)  # Nothing was on its way.
    if is_quiet and cut_tokens == ask.tokens and terms.has_progress:
        assert charged == sent, told
    return Counter(
        {
            "requests": len(seen),
            "answered": len(answered),
            "told so": sum(each.completion is not None for each in seen),
            "replayed": sum(each.is_replayed for each in seen),
            "cut": len(cut),
            "cut and charged": sum(row.charged > 0 for row in cut),
            "tokens sent": sent,
            "tokens charged": charged,
            "tokens lost on their way": sent - charged,
            "tokens seen, not charged": max(0, cut_tokens - most_tokens),
        }
    )
