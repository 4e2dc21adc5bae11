"""The door: how many requests run at once, who waits, who is sent away, and how they end when the process goes down."""

import asyncio
from collections import Counter
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, Self

from trunkline_server.core.errors import Draining, Overloaded, ServiceError
from trunkline_server.core.line import MAX_WAITING, Line
from trunkline_server.core.pace import Pace
from trunkline_server.core.pressure import Criticality, Pressure, Sample

RETRY_AFTER_S: Final = 1.0
# Under overload there wait as many as keep the house full: one for so many that have room. More would wait in vain.
CUSHION: Final = 8
MIN_TURN_S: Final = 0.002  # Between two looks whether somebody who waits has a turn.
LAST_WRITE_S: Final = 0.25  # For what is being sent when its request has to end.
HIGHEST_FIRST: Final = tuple(sorted(Criticality, reverse=True))


class Admission:
    """Counts requests in flight. Each one is a `Ticket`, held for as long as the request runs.

    A request that finds the house full waits in the line of its criticality, and is sent away when it has waited too
    long; the higher criticality is served first, and takes the place of a lower one when there is none left.
    """

    def __init__(self, pressure: Pressure, max_waiting: int = MAX_WAITING) -> None:
        self.pressure = pressure
        self.pace = Pace()
        self._max_waiting = max_waiting
        self._lines: dict[Criticality, Line[asyncio.Future[Ticket]]] = {
            criticality: Line(max_waiting) for criticality in Criticality
        }
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0  # Not every loop says it of its timers.
        self._turn_timer: asyncio.TimerHandle | None = None
        self._round_from_s: float | None = None
        self._served = 0  # Since the last look at the process.
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

    def is_strained(self, now_s: float) -> bool:
        """May `expect` have something to say? Most of the time it has not."""
        is_full = len(self._tickets) >= self.pressure.room(HIGHEST_FIRST[-1])
        return is_full or self.pace.is_strained(now_s)

    def expect(self, criticality: Criticality) -> "Expected":
        """A request has come that is still to be read, and will ask to be admitted unless it turns out bad.

        An edge that asks this before it reads a request saves most of what a refusal costs. To be used as a context
        manager around all that follows.

        Raises:
            Overloaded: the house is so full that there is no waiting either.
        """
        has_turn = self._takes_turn(criticality)
        if not has_turn:
            self._turn_away(criticality)
        return Expected(self, criticality, has_turn)

    def _takes_turn(self, criticality: Criticality) -> bool:
        """Is there room, and a turn that nobody else waits for? Then it is taken."""
        now_s = asyncio.get_running_loop().time()
        if self.pace.is_strained(now_s) and self._waits_above(criticality):
            self.pace.keep_out(criticality, now_s)
            return False
        # Those who are expected come before this one.
        taken = len(self._tickets) + self._expected[criticality]
        if not self._may_come_in(criticality, now_s, taken):
            return False
        self.pace.take_turn()
        return True

    def _may_come_in(self, criticality: Criticality, now_s: float, in_flight: int) -> bool:
        has_room = in_flight < self.pressure.room(criticality)
        return has_room and self.pace.has_turn(criticality, now_s, in_flight, self._round_s(now_s))

    def _round_s(self, now_s: float) -> float:
        """For how long the loop has been in its present round, since the first who asked in it."""
        if not self.pace.is_strained(now_s):
            return 0.0
        if self._round_from_s is None:
            self._round_from_s = now_s
            asyncio.get_running_loop().call_soon(self._end_round)
        return now_s - self._round_from_s

    def _end_round(self) -> None:
        self._round_from_s = None

    def _turn_away(self, criticality: Criticality) -> None:
        """Refuse one who would wait in vain."""
        if self.waiting >= self._max_waiting and not self._waits_below(criticality):
            raise Overloaded(retry_after_s=RETRY_AFTER_S)
        line = self._lines[criticality]
        now_s = asyncio.get_running_loop().time()
        waiting = len(line) + self._expected[criticality]
        is_stressed = line.is_stressed(now_s) or self.pace.is_lasting(now_s)
        if waiting >= self._few(criticality, now_s) and is_stressed:
            raise Overloaded(retry_after_s=RETRY_AFTER_S)

    def _few(self, criticality: Criticality, now_s: float) -> int:
        """So many may wait under overload: who comes after them would wait in vain."""
        if self.pace.is_strained(now_s):
            return self.pace.few_waiting
        return max(1, self.pressure.room(criticality) // CUSHION)

    async def admit(self, criticality: Criticality, size_bytes: int) -> "Ticket":
        """A ticket, to be used as a context manager.

        Raises:
            Draining, Overloaded.
        """
        if self._is_closed:
            raise Draining(retry_after_s=RETRY_AFTER_S)
        expected = _EXPECTED.get()
        has_turn = expected is not None and expected.come()
        if self.pressure.refuses(size_bytes):
            raise Overloaded(retry_after_s=RETRY_AFTER_S)
        if has_turn or self._takes_turn(criticality):
            return Ticket(self, size_bytes)
        self._turn_away(criticality)
        return await self._wait(criticality, size_bytes)

    async def _wait(self, criticality: Criticality, size_bytes: int) -> "Ticket":
        if self.waiting >= self._max_waiting:
            self._make_place(criticality)
        loop = asyncio.get_running_loop()
        place: asyncio.Future[Ticket] = loop.create_future()
        now_s = loop.time()
        self._lines[criticality].join(place, now_s, is_stressed=self.pace.is_lasting(now_s))
        self._set_timer(loop)
        self._set_turn_timer(loop)
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

    def _waits_above(self, criticality: Criticality) -> bool:
        """Does somebody wait who matters as much, or more?"""
        return any(self._lines[other] for other in Criticality if other >= criticality)

    def _waits_below(self, criticality: Criticality) -> bool:
        return any(self._lines[lower] for lower in Criticality if lower < criticality)

    def _make_place(self, criticality: Criticality) -> None:
        """Send away one who waits with a lower criticality: the lowest first."""
        now_s = asyncio.get_running_loop().time()
        lower = next(lower for lower in Criticality if lower < criticality and self._lines[lower])
        place = self._lines[lower].next(now_s)
        if place is not None and not place.done():  # One who has left already has made a place too.
            place.set_exception(Overloaded(retry_after_s=RETRY_AFTER_S))

    def _serve(self) -> None:
        """Let in whoever has room now."""
        now_s = asyncio.get_running_loop().time()
        for criticality in HIGHEST_FIRST:
            line = self._lines[criticality]
            while line and self._may_come_in(criticality, now_s, len(self._tickets)):
                place = line.next(now_s, self._few(criticality, now_s))
                if place is not None and not place.done():
                    self.pace.take_turn()
                    ticket = Ticket(self, 0)
                    self.enter(ticket)
                    place.set_result(ticket)

    def _set_turn_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look again when there is a turn, as long as turns are what somebody waits for."""
        now_s = loop.time()
        if self._turn_timer is None and self.waiting and self.pace.is_strained(now_s):
            wait_s = max(MIN_TURN_S, self.pace.next_turn_s())
            self._turn_timer = loop.call_later(wait_s, self._look_for_turn)

    def _look_for_turn(self) -> None:
        self._turn_timer = None
        self._serve()
        self._set_turn_timer(asyncio.get_running_loop())

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for all lines, for whoever's time is up first.

        Who joins a line that others wait in is not the first: nothing is to be done. The first of a line with less
        patience than the others may be.
        """
        now_s = loop.time()
        expiries = (line.next_expiry_s(now_s) for line in self._lines.values())
        next_s = min((at_s for at_s in expiries if at_s is not None), default=None)
        if next_s is None or (self._timer is not None and self._timer_at_s <= next_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at_s = loop.call_at(next_s, self._expire), next_s

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for line in self._lines.values():
            for place in line.expired(loop.time()):
                if not place.done():
                    place.set_exception(Overloaded(retry_after_s=RETRY_AFTER_S))
        self._set_timer(loop)

    def feel(self, lag_s: float) -> None:
        """The event loop has ticked, so much too late."""
        self.pace.feel(lag_s, asyncio.get_running_loop().time())

    def observe(self, sample: Sample) -> None:
        """How the process feels now. May let in those who wait, or end the largest request in flight."""
        now_s = asyncio.get_running_loop().time()
        self.pace.observe(sample.cpu_s, self._served, len(self._tickets), now_s)
        self._served = 0
        self.pressure.observe(sample)
        if self.pressure.must_expel and self._tickets:
            largest = max(self._tickets, key=lambda ticket: ticket.size_bytes)
            largest.expel(Overloaded(retry_after_s=RETRY_AFTER_S))
        if self.waiting:
            self._serve()

    def close(self) -> None:
        """Admit nobody from now on."""
        self._is_closed = True
        for line in self._lines.values():
            while (place := line.next(0.0)) is not None:
                if not place.done():
                    place.set_exception(Draining(retry_after_s=RETRY_AFTER_S))
        for timer in (self._timer, self._turn_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._turn_timer = None

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
        self._served += 1
        if self._timer is not None:  # Somebody waits.
            self._serve()
        if not self._tickets:
            self._idle.set()


class Expected:
    """One request that was let through the gate and has not come to the door yet: with a turn, or to wait for one."""

    __slots__ = ("_admission", "_criticality", "_has_turn", "_is_due", "_token")

    def __init__(self, admission: Admission, criticality: Criticality, has_turn: bool) -> None:
        self._admission = admission
        self._criticality = criticality
        self._has_turn = has_turn
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

    def come(self) -> bool:
        """It is here, or will never come. Does it have a turn?"""
        if not self._is_due:
            return False
        self._is_due = False
        self._admission.awaited(self._criticality, -1)
        return self._has_turn


# Of the request that is being served by this task, or by one that it began.
_EXPECTED: Final[ContextVar[Expected | None]] = ContextVar("expected", default=None)


class Ticket:
    """One request in flight. Turns the cancellation that `expel` causes into the error it was given.

    Attributes:
        is_sending: its caller is being given something, which may take him as long as he likes.
    """

    __slots__ = (
        "_admission",
        "_expulsion",
        "_has_cancelled",
        "_task",
        "_timer",
        "is_sending",
        "size_bytes",
    )

    def __init__(self, admission: Admission, size_bytes: int) -> None:
        self._admission = admission
        self._task: asyncio.Task[object] | None = None
        self._expulsion: ServiceError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_cancelled = False
        self.size_bytes = size_bytes
        self.is_sending = False

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
        if self._timer is not None:
            self._timer.cancel()
        self._admission.leave(self)

    @property
    def is_due(self) -> bool:
        """Is the request to end, and has been neither told so nor cancelled?"""
        return self._expulsion is not None and not self._has_cancelled

    def take(self) -> ServiceError:
        """The error of one that `is_due`. There is no cancellation then."""
        error, self._expulsion = self._expulsion, None
        assert error is not None
        return error

    def expel(self, error: ServiceError) -> None:
        """Cancel the request's task; its caller is told the error.

        One that is sending has a moment to be done with it: the library can't send a last event while it is not.
        """
        if self._expulsion is not None:
            return
        self._expulsion = error
        if self.is_sending:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LAST_WRITE_S, self._cancel)
        else:
            self._cancel()

    def _cancel(self) -> None:
        if self._expulsion is not None and self._task is not None:
            self._has_cancelled = True
            self._task.cancel()

    def expulsion(self) -> ServiceError | None:
        """The error, if the cancellation that is under way came from us. Answers once, and takes it back."""
        if not self._has_cancelled:
            return None  # Somebody else's, which may come first.
        error, self._expulsion = self._expulsion, None
        if error is not None and self._task is not None:
            self._task.uncancel()
        return error
