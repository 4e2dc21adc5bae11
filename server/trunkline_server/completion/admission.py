"""The door: how many requests run at once, and how they end when the process goes down."""

import asyncio
from types import TracebackType
from typing import Final, Self

from trunkline_server.core.errors import Draining, Overloaded

DEFAULT_MAX_IN_FLIGHT: Final = 2_000
RETRY_AFTER_S: Final = 1.0


class Admission:
    """Counts requests in flight. Each one is a `Ticket`, held for as long as the request runs."""

    def __init__(self, max_in_flight: int = DEFAULT_MAX_IN_FLIGHT) -> None:
        self._max_in_flight = max_in_flight
        self._tickets: set[Ticket] = set()
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests running now."""
        return len(self._tickets)

    def admit(self) -> "Ticket":
        """A ticket, to be used as a context manager.

        Raises:
            Draining, Overloaded.
        """
        if self._is_closed:
            raise Draining(retry_after_s=RETRY_AFTER_S)
        if len(self._tickets) >= self._max_in_flight:
            raise Overloaded(retry_after_s=RETRY_AFTER_S)
        return Ticket(self)

    def close(self) -> None:
        """Admit nobody from now on."""
        self._is_closed = True

    async def wait_until_idle(self) -> None:
        """Until the last request has ended."""
        await self._idle.wait()

    def expel(self) -> int:
        """End all requests that still run; their callers are told `Draining`. Returns how many."""
        tickets = list(self._tickets)
        for ticket in tickets:
            ticket.expel()
        return len(tickets)

    def enter(self, ticket: "Ticket") -> None:
        """Called by a ticket."""
        self._tickets.add(ticket)
        self._idle.clear()

    def leave(self, ticket: "Ticket") -> None:
        """Called by a ticket."""
        self._tickets.discard(ticket)
        if not self._tickets:
            self._idle.set()


class Ticket:
    """One request in flight. Turns the cancellation that `expel` causes into `Draining`."""

    __slots__ = ("_admission", "_is_expelled", "_task")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._task: asyncio.Task[object] | None = None
        self._is_expelled = False

    def __enter__(self) -> Self:
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

    def expel(self) -> None:
        """Cancel the request's task."""
        if self._task is not None:
            self._is_expelled = True
            self._task.cancel()

    def was_expelled(self) -> bool:
        """Did the cancellation that is under way come from us? Answers yes once, and takes the cancellation back."""
        if not self._is_expelled:
            return False
        self._is_expelled = False
        if self._task is not None:
            self._task.uncancel()
        return True
