"""The books of a running service: opens a tab for each request, and closes every one of them, whatever happens.

A tab is durable before its request goes upstream. It is settled when the answer is whole, before the caller is told so;
a request that ends in any other way is settled right after. A settlement that the database does not take now is tried
again until it does; its answer is told all the same, unless it has an idempotency key, which promises that the answer
can be replayed. What a process could not settle because it was killed, the next start settles from how far each request
had come, and other processes do so once they have not heard of it for `DEAD_S`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from trunkline_server.accounts import ledger
from trunkline_server.accounts.audit import AuditRecord
from trunkline_server.accounts.idempotency import Claim, Replay, seen_before, sweep_keys
from trunkline_server.accounts.ledger import Hold, OpenRequest, Outcome
from trunkline_server.core.candidate import Price
from trunkline_server.core.errors import StorageUnavailable
from trunkline_server.core.pricing import TOKENS_PER_PRICE
from trunkline_server.core.progress import Progressed
from trunkline_server.core.transactions import Storage
from trunkline_server.core.usage import CHARS_PER_TOKEN

BEAT_S: Final = 5.0
DEAD_S: Final = 15.0
RECOVER_S: Final = 30.0
RECOVERED_AT_ONCE: Final = 100
MAX_UNSETTLED: Final = 100_000
SETTLE_S: Final = 2.0  # So long an answer under a key waits until it is known to be settled.
RETRY_AFTER_S: Final = 1.0
RETRY_S: Final = 0.25
MAX_RETRY_S: Final = 5.0
CHECK_S: Final = 60.0
CLOSE_S: Final = 5.0
MICROS: Final = 1_000_000
GROUP: Final = 128  # Settlements that are written together.
MAX_OPEN_S: Final = 900.0  # No request runs as long.
EVER_US: Final = 2**63 - 1  # A clock that was set back keeps nobody's credits.
ABANDONED: Final = "ABANDONED"

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Progress(Protocol):
    """Where it is kept how far requests have come, so that it outlives the process."""

    def take(self, id_: str) -> int: ...
    def answers(
        self,
        slot: int,
        id_: str,
        provider: str,
        model: str,
        prices: tuple[int | None, int | None, int | None],
        earlier: tuple[int, int, int | None],
    ) -> None: ...
    def count(
        self, slot: int, input_tokens: int, output_tokens: int, output_chars: int
    ) -> None: ...
    def give_back(self, slot: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _Ending:
    """A settlement, or a tab that is to be void, that is still to be written."""

    id: str
    outcome: Outcome
    audit: AuditRecord | None
    is_void: bool
    slot: int
    written: asyncio.Event | None = None  # Set when it is, where somebody waits for that.


class Books:
    """All tabs of one process.

    Args:
        owner: names the process, and no other one ever.
        left_behind: processes that were killed on this machine, and how far their requests had come, by id.
        is_alone: no other process uses the database, so every open request is one that was left behind.
        now_us: microseconds since 1970.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        owner: str,
        progress: Progress,
        left_behind: Mapping[str, Mapping[str, Progressed]],
        is_alone: bool,
        now_us: Callable[[], int],
    ) -> None:
        self._storage = storage
        self._owner = owner
        self.progress = progress
        self._left_behind = dict(left_behind)
        self._is_alone = is_alone
        self.now_us = now_us
        self._endings: deque[_Ending] = deque()
        self._open: set[str] = set()
        self._has_endings = asyncio.Event()
        self._is_flushed = asyncio.Event()
        self._is_flushed.set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def owner(self) -> str:
        """Names this process in the database."""
        return self._owner

    @property
    def unsettled(self) -> int:
        """Settlements that are still to be written."""
        return len(self._endings)

    async def start(self) -> None:
        """Settle what was left behind, and begin to keep the books. Raises: StorageUnavailable."""
        await self._storage.write(lambda: ledger.beat(self._owner, self.now_us()))
        # A process that was killed on this machine is gone, whatever its last sign of life says.
        for owner in list(self._left_behind):
            await self._recover_owner(owner)
        if self._is_alone:
            for owner in await self._storage.read(lambda: ledger.owners(self._owner)):
                await self._recover_owner(owner)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._flush()), loop.create_task(self._keep())]

    async def close(self) -> bool:
        """Write what is still to be written. False: some of it could not be."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._is_flushed.wait()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._endings:
            log.warning("books_left_open", requests=len(self._endings))
            return False
        with suppress(StorageUnavailable):
            await self._storage.write(lambda: ledger.leave(self._owner))
        return True

    async def open(self, hold: Hold, claim: Claim | None) -> "Tab | Replay":
        """Hold what the request may cost. Durable when it returns.

        Raises:
            InsufficientCredits, BudgetExhausted, IdempotencyConflict, RequestInProgress, StorageUnavailable.
        """
        key = claim.key if claim is not None else ""
        if len(self._endings) >= MAX_UNSETTLED:
            raise StorageUnavailable(retry_after_s=RETRY_AFTER_S)
        try:
            replay = await self._storage.write(lambda: ledger.reserve(hold, claim))
        except (StorageUnavailable, asyncio.CancelledError):
            # It may have been written all the same.
            self._end(
                _Ending(
                    hold.id, Outcome(0, None, "NEVER_SENT", idempotency_key=key), None, True, -1
                )
            )
            raise
        if replay is not None:
            return replay
        self._open.add(hold.id)
        return Tab(self, hold, key, self.progress.take(hold.id))

    async def replay(self, claim: Claim, organization: str) -> "Replay | None":
        """The answer that an idempotency key has already, if any; without holding anything.

        Raises:
            IdempotencyConflict, RequestInProgress, StorageUnavailable.
        """
        now_us = self.now_us()
        return await self._storage.read(
            lambda: seen_before(claim, organization, now_us), is_short=True
        )

    async def extend(self, hold: Hold, amount: int) -> bool:
        """Hold more. False: there is no more."""
        return await self._storage.write(lambda: ledger.extend(hold, amount, self.now_us()))

    async def settle(self, ending: _Ending) -> None:
        """Write a settlement now, or hand it to who tries until it is written.

        Raises:
            StorageUnavailable: it has an idempotency key, and is not known to be written.
        """
        try:
            await self._write(ending)
        except StorageUnavailable:
            if ending.outcome.idempotency_key:
                await self._settle_soon(ending)
            else:
                self._end(ending)
        except BaseException:
            self._end(ending)
            raise
        else:
            self._ended(ending)

    async def _settle_soon(self, ending: _Ending) -> None:
        """Wait for it a while: an answer under a key is not said to be whole unless it can be replayed."""
        written = asyncio.Event()
        self._end(replace(ending, written=written))
        try:
            async with asyncio.timeout(SETTLE_S):
                await written.wait()
        except TimeoutError:
            raise StorageUnavailable(retry_after_s=RETRY_AFTER_S) from None

    def settle_later(self, ending: _Ending) -> None:
        """Write a settlement as soon as possible."""
        self._end(ending)

    def _ended(self, ending: _Ending) -> None:
        self._open.discard(ending.id)
        self.progress.give_back(ending.slot)

    def _end(self, ending: _Ending) -> None:
        self._endings.append(ending)
        self._has_endings.set()
        self._is_flushed.clear()

    async def _write(self, ending: _Ending) -> None:
        if ending.is_void:
            outcome = ending.outcome
            key, now_us = outcome.idempotency_key, outcome.now_us or self.now_us()
            await self._storage.write(lambda: ledger.void(ending.id, outcome.reason, key, now_us))
        else:
            settled = await self._storage.write(
                lambda: ledger.settle(ending.id, ending.outcome, ending.audit)
            )
            if settled is None:
                log.warning("settled_before", id=ending.id)

    async def _flush(self) -> None:
        """Write what is to be written, together, until it is."""
        retry_s = RETRY_S
        while True:
            await self._has_endings.wait()
            count = min(len(self._endings), GROUP)
            endings = [self._endings[i] for i in range(count)]
            results = await asyncio.gather(
                *(self._write(ending) for ending in endings), return_exceptions=True
            )
            again: list[_Ending] = []
            for ending, result in zip(endings, results, strict=True):
                self._endings.popleft()
                if isinstance(result, StorageUnavailable):
                    again.append(ending)
                    continue
                if isinstance(result, BaseException):
                    # A bug: the row stays open, and a recovery settles it from what it knows itself.
                    log.error("settlement_failed", id=ending.id, error=type(result).__name__)
                elif ending.written is not None:
                    ending.written.set()
                self._ended(ending)
            self._endings.extend(again)
            if not self._endings:
                self._has_endings.clear()
                self._is_flushed.set()
            if again:
                await asyncio.sleep(retry_s)
                retry_s = min(MAX_RETRY_S, retry_s * 2)
            else:
                retry_s = RETRY_S

    async def _keep(self) -> None:
        """Show that this process lives, settle for those that do not, and check the books."""
        clock = asyncio.get_running_loop().time
        recovered_s = checked_s = clock()
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self._storage.write(lambda: ledger.beat(self._owner, self.now_us()))
                if clock() - recovered_s >= RECOVER_S:
                    recovered_s = clock()
                    await self._recover()
                if clock() - checked_s >= CHECK_S:
                    checked_s = clock()
                    await self._storage.write(lambda: sweep_keys(self.now_us()))
                    for problem in await self._storage.read(ledger.problems):
                        log.error("books_unbalanced", problem=problem)
            except StorageUnavailable:
                continue
            except Exception as error:  # noqa: BLE001 - a bug in a check must not end the signs of life
                log.error("books_not_kept", error=type(error).__name__)

    async def _recover_owner(self, owner: str) -> None:
        """All that a process left open which is gone for certain."""
        progress = self._left_behind.pop(owner, None)
        while True:
            found = await self._storage.read(
                lambda: ledger.requests_of(owner, RECOVERED_AT_ONCE, EVER_US)
            )
            for request in found:
                # Where it is known how far all had come, one that is not among them had not begun.
                known = None if progress is None else progress.get(request.id, Progressed())
                await self._settle_for(request, known)
            if len(found) < RECOVERED_AT_ONCE:
                break
        await self._storage.write(lambda: ledger.leave(owner))

    async def _recover(self) -> None:
        """What others left open that have not been heard of, and what this process itself has lost track of."""
        now_us = self.now_us()
        dead_before_us = now_us - int(DEAD_S * MICROS)
        if not self._is_alone:
            for request in await self._storage.read(
                lambda: ledger.abandoned_requests(RECOVERED_AT_ONCE, dead_before_us)
            ):
                await self._settle_for(request, None)
        lost_before_us = now_us - int(MAX_OPEN_S * MICROS)
        for request in await self._storage.read(
            lambda: ledger.requests_of(self._owner, RECOVERED_AT_ONCE, lost_before_us)
        ):
            if request.id not in self._open:
                await self._settle_for(request, Progressed())

    async def _settle_for(self, request: OpenRequest, progressed: Progressed | None) -> None:
        if progressed is not None and not progressed.provider:
            # Nobody had begun to answer: whatever was sent upstream, nobody got anything for it.
            outcome = Outcome(self.now_us(), 0, ABANDONED, is_estimated=True)
        else:
            outcome = _estimate(request, progressed, self.now_us())
        settled = await self._storage.write(lambda: ledger.settle(request.id, outcome))
        if settled is not None:
            log.info("settled_for_another", id=request.id, charged_nanos=settled.charged)


def _estimate(request: OpenRequest, progressed: Progressed | None, now_us: int) -> Outcome:
    """What a request used whose process is gone: as it was last seen, else its prompt alone."""
    if progressed is None:
        price = Price(request.input_price, request.output_price)
        input_tokens, output_tokens = request.prompt_tokens, 0
        provider, model = request.provider, request.model
    else:
        price = Price(progressed.input_price, progressed.output_price)
        input_tokens = progressed.input_tokens or request.prompt_tokens
        output_tokens = progressed.output_tokens or -(-progressed.output_chars // CHARS_PER_TOKEN)
        provider, model = progressed.provider, progressed.model
    cost = None
    earlier = Progressed() if progressed is None else progressed
    if (
        price.input_nanos is not None
        and price.output_nanos is not None
        and earlier.earlier_nanos is not None
    ):
        total = input_tokens * price.input_nanos + output_tokens * price.output_nanos
        cost = total // TOKENS_PER_PRICE + earlier.earlier_nanos
    input_tokens += earlier.earlier_input_tokens
    output_tokens += earlier.earlier_output_tokens
    return Outcome(
        now_us,
        cost,
        ABANDONED,
        provider,
        model,
        request.route,
        request.mode,
        input_tokens,
        output_tokens,
        is_estimated=True,
    )


class Tab:
    """One request's account, from its hold to its settlement. Ends once: what comes second does nothing."""

    __slots__ = ("_books", "_key", "hold", "is_ended", "slot")

    def __init__(self, books: Books, hold: Hold, key: str, slot: int) -> None:
        self._books = books
        self._key = key
        self.hold = hold
        self.slot = slot
        self.is_ended = False

    async def extend(self, amount: int) -> bool:
        """Hold more, for an answer that grows beyond what was foreseen. False: there is no more."""
        return await self._books.extend(self.hold, amount)

    async def settle(self, outcome: Outcome, audit: AuditRecord | None) -> None:
        """Charge what was used. Raises: StorageUnavailable."""
        if not self.is_ended:
            self.is_ended = True
            await self._books.settle(_Ending(self.hold.id, outcome, audit, False, self.slot))

    def settle_later(self, outcome: Outcome, audit: AuditRecord | None) -> None:
        """The same without waiting, for a caller that is on its way out."""
        if not self.is_ended:
            self.is_ended = True
            self._books.settle_later(_Ending(self.hold.id, outcome, audit, False, self.slot))

    def void_later(self, reason: str) -> None:
        """Nothing was sent upstream: give it all back."""
        if not self.is_ended:
            self.is_ended = True
            outcome = Outcome(0, None, reason, idempotency_key=self._key)
            self._books.settle_later(_Ending(self.hold.id, outcome, None, True, self.slot))
