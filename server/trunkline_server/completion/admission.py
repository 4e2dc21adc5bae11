"""The door: how many requests run at once, who waits, who is sent away, and how they end when the process goes down."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, Self

from trunkline_server.core.errors import Draining, Overloaded, ServiceError
from trunkline_server.core.line import MAX_WAITING, Line
from trunkline_server.core.pressure import Criticality, Pressure, Sample

RETRY_AFTER_S: Final = 1.0
# Under overload there wait as many as keep the house full: one for so many that have room. More would wait in vain.
CUSHION: Final = 8
JITTER: Final = 0.2  # So that those who were sent away together do not come back together.
HIGHEST_FIRST: Final = tuple(sorted(Criticality, reverse=True))


class Admission:
    """Counts requests in flight. Each one is a `Ticket`, held for as long as the request runs.

    A request that finds the house full waits in the line of its criticality, and is sent away when it has waited too
    long; the higher criticality is served first, and takes the place of a lower one when there is none left.
    """

    def __init__(
        self,
        pressure: Pressure,
        random: Callable[[], float],
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.pressure = pressure
        self._random = random
        self._max_waiting = max_waiting
        self._lines: dict[Criticality, Line[asyncio.Future[Ticket]]] = {
            criticality: Line(max_waiting) for criticality in Criticality
        }
        self._timer: asyncio.TimerHandle | None = None
        self._tickets: set[Ticket] = set()
        self._expected: Counter[Criticality] = Counter()
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests running now."""
        return len(self._tickets)

    @property
    def waiting(self) -> int:
        """Requests in line now."""
        return sum(len(line) for line in self._lines.values())

    @property
    def is_strained(self) -> bool:
        """May `expect` have something to say? Most of the time it has not."""
        is_full = len(self._tickets) >= self.pressure.room(HIGHEST_FIRST[-1])
        return is_full or self.pressure.is_overwhelmed

    def expect(self, criticality: Criticality) -> "Expected":
        """A request has come that is still to be read, and will ask to be admitted unless it turns out bad.

        An edge that asks this before it reads a request saves most of what a refusal costs. To be used as a context
        manager around all that follows.

        Raises:
            Overloaded: the house is so full that there is no waiting either.
        """
        self._turn_away(criticality)
        return Expected(self, criticality)

    def _turn_away(self, criticality: Criticality) -> None:
        expected = self._expected[criticality]
        taken = len(self._tickets) + expected
        pressure = self.pressure
        if criticality is not HIGHEST_FIRST[0] and pressure.overwhelms(taken):
            raise self._overloaded()
        room = pressure.room(criticality)
        if taken < room:
            return
        if self.waiting >= self._max_waiting and not self._waits_below(criticality):
            raise self._overloaded()
        line = self._lines[criticality]
        if len(line) + expected >= max(1, room // CUSHION) and (
            line.is_overloaded(asyncio.get_running_loop().time())
        ):
            raise self._overloaded()

    async def admit(self, criticality: Criticality, size_bytes: int) -> "Ticket":
        """A ticket, to be used as a context manager.

        Raises:
            Draining, Overloaded.
        """
        if self._is_closed:
            raise Draining(retry_after_s=RETRY_AFTER_S)
        expected = _EXPECTED.get()
        if expected is not None:
            expected.come()
        self._turn_away(criticality)
        if self.pressure.refuses(size_bytes):
            raise self._overloaded()
        if len(self._tickets) < self.pressure.room(criticality):
            return Ticket(self, size_bytes)
        return await self._wait(criticality, size_bytes)

    async def _wait(self, criticality: Criticality, size_bytes: int) -> "Ticket":
        if self.waiting >= self._max_waiting:
            self._make_place(criticality)
        loop = asyncio.get_running_loop()
        place: asyncio.Future[Ticket] = loop.create_future()
        self._lines[criticality].join(place, loop.time())
        self._set_timer(loop)
        try:
            ticket = await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave(place.result())
            else:
                self._lines[criticality].leave(place, loop.time())
            raise
        ticket.size_bytes = size_bytes
        return ticket

    def _waits_below(self, criticality: Criticality) -> bool:
        return any(self._lines[lower] for lower in Criticality if lower < criticality)

    def _make_place(self, criticality: Criticality) -> None:
        """Send away one who waits with a lower criticality: the lowest first."""
        now_s = asyncio.get_running_loop().time()
        lower = next(lower for lower in Criticality if lower < criticality and self._lines[lower])
        place = self._lines[lower].next(now_s)
        if place is not None and not place.done():  # One who has left already has made a place too.
            place.set_exception(self._overloaded())

    def _overloaded(self) -> Overloaded:
        return Overloaded(retry_after_s=RETRY_AFTER_S * (1 + JITTER * self._random()))

    def _serve(self) -> None:
        """Let in whoever has room now."""
        now_s = asyncio.get_running_loop().time()
        for criticality in HIGHEST_FIRST:
            line = self._lines[criticality]
            room = self.pressure.room(criticality)
            while len(self._tickets) < room:
                place = line.next(now_s, max(1, room // CUSHION))
                if place is None:
                    break
                if not place.done():
                    ticket = Ticket(self, 0)
                    self.enter(ticket)
                    place.set_result(ticket)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            return
        now_s = loop.time()
        expiries = (line.next_expiry_s(now_s) for line in self._lines.values())
        next_s = min((at_s for at_s in expiries if at_s is not None), default=None)
        if next_s is not None:
            self._timer = loop.call_at(next_s, self._expire)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for line in self._lines.values():
            for place in line.expired(loop.time()):
                if not place.done():
                    place.set_exception(self._overloaded())
        self._set_timer(loop)

    def observe(self, sample: Sample) -> None:
        """How the process feels now. May let in those who wait, or end the largest request in flight."""
        self.pressure.observe(sample, len(self._tickets))
        if self.pressure.must_expel and self._tickets:
            largest = max(self._tickets, key=lambda ticket: ticket.size_bytes)
            largest.expel(self._overloaded())
        if self.waiting:
            self._serve()

    def close(self) -> None:
        """Admit nobody from now on."""
        self._is_closed = True
        for line in self._lines.values():
            while (place := line.next(0.0)) is not None:
                if not place.done():
                    place.set_exception(Draining(retry_after_s=RETRY_AFTER_S))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def wait_until_idle(self) -> None:
        """Until the last request has ended."""
        await self._idle.wait()

    def expel(self) -> int:
        """End all requests that still run; their callers are told `Draining`. Returns how many."""
        tickets = list(self._tickets)
        for ticket in tickets:
            ticket.expel(Draining(retry_after_s=RETRY_AFTER_S))
        return len(tickets)

    def awaited(self, criticality: Criticality, count: int) -> None:
        """Called by an expected request."""
        self._expected[criticality] += count

    def enter(self, ticket: "Ticket") -> None:
        """Called by a ticket."""
        self._tickets.add(ticket)
        self._idle.clear()

    def leave(self, ticket: "Ticket") -> None:
        """Called by a ticket."""
        self._tickets.discard(ticket)
        if self._timer is not None:  # Somebody waits.
            self._serve()
        if not self._tickets:
            self._idle.set()


class Expected:
    """One request that was let through the gate and has not come to the door yet."""

    __slots__ = ("_admission", "_criticality", "_is_due", "_token")

    def __init__(self, admission: Admission, criticality: Criticality) -> None:
        self._admission = admission
        self._criticality = criticality
        self._is_due = False
        self._token: Token[Expected | None] | None = None

    def __enter__(self) -> None:
        self._is_due = True
        self._admission.awaited(self._criticality, 1)
        self._token = _EXPECTED.set(self)

    def __exit__(self, *_: object) -> None:
        self.come()
        if self._token is not None:
            _EXPECTED.reset(self._token)

    def come(self) -> None:
        """It is here, or will never come."""
        if self._is_due:
            self._is_due = False
            self._admission.awaited(self._criticality, -1)


# Of the request that is being served by this task, or by one that it began.
_EXPECTED: Final[ContextVar[Expected | None]] = ContextVar("expected", default=None)


class Ticket:
    """One request in flight. Turns the cancellation that `expel` causes into the error it was given."""

    __slots__ = ("_admission", "_expulsion", "_task", "size_bytes")

    def __init__(self, admission: Admission, size_bytes: int) -> None:
        self._admission = admission
        self._task: asyncio.Task[object] | None = None
        self._expulsion: ServiceError | None = None
        self.size_bytes = size_bytes

    def __enter__(self) -> Self:
        if self._expulsion is not None:  # Between the end of its wait and its start.
            self._admission.leave(self)
            raise self._expulsion
        self._task = asyncio.current_task()
        self._admission.enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admission.leave(self)

    def expel(self, error: ServiceError) -> None:
        """Cancel the request's task; its caller is told the error."""
        if self._expulsion is None:
            self._expulsion = error
            if self._task is not None:
                self._task.cancel()

    def expulsion(self) -> ServiceError | None:
        """The error, if the cancellation that is under way came from us. Answers once, and takes it back."""
        error, self._expulsion = self._expulsion, None
        if error is not None and self._task is not None:
            self._task.uncancel()
        return error
