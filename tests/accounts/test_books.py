"""Books whose storage fails in ways that nobody foresaw."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.storage.conftest import opened
from trunkline_server.accounts import books as books_module
from trunkline_server.accounts import ledger
from trunkline_server.accounts.books import Books, Tab
from trunkline_server.accounts.idempotency import KEPT_US, Claim
from trunkline_server.accounts.ledger import Hold, Outcome, Payer
from trunkline_server.core.errors import StorageUnavailable
from trunkline_server.core.transactions import MakeTransaction, Storage, T

LIMIT_S = 10.0
NOW_US = 1_000_000_000
WHOLE = Outcome(NOW_US, 5, "OK", response=b"answer", idempotency_key="k")


class NoProgress:
    """Nothing is kept."""

    def take(self, id_: str) -> int:
        return -1

    def answers(self, *_: object) -> None: ...

    def count(self, *_: object) -> None: ...

    def give_back(self, slot: int) -> None: ...


class Failing:
    """A storage that raises what `failure` gives, instead of reading or writing."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.on_write: Callable[[], Exception | None] = lambda: None
        self.on_read: Callable[[], Exception | None] = lambda: None

    async def write(self, make: MakeTransaction[T]) -> T:
        if (error := self.on_write()) is not None:
            raise error
        return await self._storage.write(make)

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        if (error := self.on_read()) is not None:
            raise error
        return await self._storage.read(make, is_short=is_short)


@pytest.fixture
async def failing(url: str) -> AsyncIterator[Failing]:
    async with opened(url) as storage:
        yield Failing(storage)


def kept_in(storage: Failing) -> Books:
    return Books(
        storage,
        owner="this",
        progress=NoProgress(),
        left_behind={},
        is_alone=True,
        now_us=lambda: NOW_US,
    )


async def test_an_answer_under_a_key_is_not_told_when_its_settlement_failed_by_a_bug(
    failing, monkeypatch
):
    monkeypatch.setattr(books_module, "SETTLE_S", 0.5)
    books = kept_in(failing)
    await books.start()
    hold = Hold("cmpl_1", "req_1", Payer("acme", "", "k1"), "this", 0, NOW_US)
    tab = await books.open(hold, Claim("k", b"f" * 32, NOW_US + KEPT_US))
    assert isinstance(tab, Tab)
    errors = iter([StorageUnavailable(retry_after_s=1.0), RuntimeError("a bug")])
    failing.on_write = lambda: next(errors, None)

    with pytest.raises(StorageUnavailable):
        await tab.settle(WHOLE, None)

    failing.on_write = lambda: None
    open_now = await failing.read(lambda: ledger.requests_of("this", 10, NOW_US + 1))
    assert [request.id for request in open_now] == ["cmpl_1"]
    await books.close()


async def test_a_bug_in_a_check_does_not_end_the_signs_of_life(failing, monkeypatch):
    monkeypatch.setattr(books_module, "BEAT_S", 0.02)
    monkeypatch.setattr(books_module, "CHECK_S", 0.0)
    books = kept_in(failing)
    await books.start()
    beats_after = 0
    has_failed = False

    def fails() -> Exception:
        nonlocal has_failed
        has_failed = True
        return RuntimeError("a bug")

    def counts() -> None:
        nonlocal beats_after
        beats_after += has_failed

    failing.on_read = fails
    failing.on_write = counts

    async with asyncio.timeout(LIMIT_S):
        while beats_after < 3:  # noqa: ASYNC110 - a number tells nobody
            await asyncio.sleep(0.01)

    await books.close()
