"""The door: who comes in, who waits, who is sent away, and who is put out."""

import asyncio
from typing import Any

import pytest

from trunkline_server.completion.admission import Admission, Ticket
from trunkline_server.core.errors import Draining, Overloaded
from trunkline_server.core.line import INTERVAL_S, TARGET_S
from trunkline_server.core.pace import (
    DEBT_S,
    FEW_IN_FLIGHT_S,
    FEW_WAITING_S,
    HICCUP_S,
    LASTING_S,
    STRAIN_S,
    USUAL_WORK_S,
)
from trunkline_server.core.pressure import (
    Criticality,
    Pressure,
    Sample,
)

BATCH, STANDARD, INTERACTIVE = Criticality
FEW_IN_FLIGHT = int(FEW_IN_FLIGHT_S / USUAL_WORK_S)
FEW_WAITING = int(FEW_WAITING_S / USUAL_WORK_S)
MIB = 1024 * 1024


def door(max_in_flight: int = 10, max_waiting: int = 4) -> Admission:
    """One that is soon full."""
    return Admission(Pressure(max_in_flight), max_waiting)


async def enter(
    admission: Admission, count: int, criticality: Criticality = INTERACTIVE
) -> list[Ticket]:
    """So many requests, all let in."""
    tickets = [await admission.admit(criticality, 0) for _ in range(count)]
    for ticket in tickets:
        ticket.__enter__()
    return tickets


async def in_line(admission: Admission, criticality: Criticality) -> asyncio.Task[Ticket]:
    """One more request, which waits by the time this is back."""
    task = asyncio.create_task(admission.admit(criticality, 0))
    await asyncio.sleep(0)
    assert not task.done()
    assert admission.waiting
    return task


@pytest.mark.parametrize(("criticality", "room"), [(BATCH, 5), (STANDARD, 9), (INTERACTIVE, 10)])
async def test_the_house_is_full_the_earlier_the_less_a_request_matters(criticality, room):
    admission = door()
    await enter(admission, room, criticality)

    waiting = await in_line(admission, criticality)

    assert (admission.in_flight, admission.waiting) == (room, 1)
    waiting.cancel()


async def test_who_waits_comes_in_when_somebody_leaves_and_whoever_matters_most_comes_first():
    admission = door(max_in_flight=1)
    (inside,) = await enter(admission, 1)
    batch = await in_line(admission, BATCH)
    interactive = await in_line(admission, INTERACTIVE)

    inside.__exit__(None, None, None)
    ticket = await interactive

    assert not batch.done()
    assert admission.in_flight == 1
    with ticket:
        assert admission.in_flight == 1
    with await batch:
        assert admission.in_flight == 1
    assert admission.in_flight == 0


async def test_who_has_waited_too_long_is_sent_away_and_told_when_to_come_again():
    admission = door(max_in_flight=1)
    await enter(admission, 1)
    began_s = asyncio.get_running_loop().time()

    with pytest.raises(Overloaded) as caught:
        await admission.admit(INTERACTIVE, 0)

    assert asyncio.get_running_loop().time() - began_s == pytest.approx(0.5, abs=0.15)
    assert caught.value.retry_after_s == 1.0
    assert admission.waiting == 0


async def test_a_line_that_stands_has_less_patience():
    admission = door(max_in_flight=1, max_waiting=64)
    await enter(admission, 1)
    loop = asyncio.get_running_loop()
    waits_s = []

    async def ask() -> None:
        began_s = loop.time()
        with pytest.raises(Overloaded):
            await admission.admit(INTERACTIVE, 0)
        waits_s.append(loop.time() - began_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(30):
            group.create_task(ask())
            await asyncio.sleep(0.03)

    assert max(waits_s) < 0.65
    assert waits_s[-1] == pytest.approx(0.1, abs=0.09)


class Clock:
    """The loop's, which stands still until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self.now_s = loop.time()
        self.timers = 0
        call_at = loop.call_at

        def counted(*args: Any, **more: Any) -> asyncio.TimerHandle:
            self.timers += 1
            return call_at(*args, **more)

        monkeypatch.setattr(loop, "time", lambda: self.now_s)
        monkeypatch.setattr(loop, "call_at", counted)

    async def move(self, by_s: float) -> None:
        """And let happen what is due by then."""
        self.now_s += by_s
        for _ in range(5):
            await asyncio.sleep(0)


async def test_who_may_wait_for_a_moment_only_is_sent_away_then_whoever_else_waits(monkeypatch):
    clock = Clock(monkeypatch)
    admission = door(max_in_flight=1, max_waiting=64)
    await enter(admission, 1)
    first = await in_line(admission, INTERACTIVE)
    await clock.move(INTERVAL_S + 0.001)
    assert isinstance(first.exception(), Overloaded)  # So from now on that line is stressed.

    burst = [await in_line(admission, STANDARD) for _ in range(3)]
    await clock.move(0.02)
    stressed = await in_line(admission, INTERACTIVE)
    await clock.move(TARGET_S - 0.001)
    assert not stressed.done()
    await clock.move(0.002)

    assert isinstance(stressed.exception(), Overloaded)
    assert admission.waiting == 3
    await clock.move(INTERVAL_S - 0.02 - TARGET_S)
    assert [type(waiting.exception()) for waiting in burst] == [Overloaded] * 3


async def test_who_joins_those_who_wait_costs_no_timer(monkeypatch):
    clock = Clock(monkeypatch)
    admission = door(max_in_flight=1, max_waiting=64)
    await enter(admission, 1)

    waiting = []
    for _ in range(30):
        waiting.append(await in_line(admission, STANDARD))
        await clock.move(0.01)

    assert clock.timers == 1
    admission.close()
    await asyncio.wait(waiting)


async def test_a_full_line_sends_away_at_once():
    admission = door(max_in_flight=1, max_waiting=1)
    await enter(admission, 1)
    waiting = await in_line(admission, INTERACTIVE)

    with pytest.raises(Overloaded):
        await asyncio.wait_for(admission.admit(INTERACTIVE, 0), 0.05)

    waiting.cancel()


async def test_a_full_line_gives_the_place_of_a_lower_one_to_a_higher_one():
    admission = door(max_in_flight=1, max_waiting=1)
    await enter(admission, 1)
    lower = await in_line(admission, BATCH)

    higher = await in_line(admission, STANDARD)

    with pytest.raises(Overloaded):
        await lower
    assert admission.waiting == 1
    higher.cancel()


async def test_who_leaves_the_line_loses_nobody_a_place():
    admission = door(max_in_flight=1)
    (inside,) = await enter(admission, 1)
    gone = await in_line(admission, INTERACTIVE)
    stays = await in_line(admission, INTERACTIVE)

    gone.cancel()
    await asyncio.sleep(0)
    inside.__exit__(None, None, None)

    with await stays:
        assert admission.in_flight == 1


async def test_who_leaves_just_as_the_place_is_given_gives_it_back():
    admission = door(max_in_flight=1)
    (inside,) = await enter(admission, 1)
    gone = await in_line(admission, INTERACTIVE)

    inside.__exit__(None, None, None)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone

    assert (admission.in_flight, admission.waiting) == (0, 0)
    await asyncio.wait_for(admission.wait_until_idle(), 1)


async def test_a_closed_door_lets_nobody_in_who_waits_or_comes():
    admission = door(max_in_flight=1)
    await enter(admission, 1)
    waiting = await in_line(admission, INTERACTIVE)

    admission.close()

    with pytest.raises(Draining):
        await waiting
    with pytest.raises(Draining):
        await admission.admit(INTERACTIVE, 0)


async def strain(admission: Admission) -> None:
    """The loop has been too late for so long that it is no burst."""
    admission.feel(0.2)
    await asyncio.sleep(HICCUP_S + 0.01)
    admission.feel(0.2)
    await asyncio.sleep(LASTING_S + 0.01)
    admission.feel(0.0)


async def test_when_the_loop_is_late_more_than_a_few_come_in_at_its_pace_only():
    admission = door(max_in_flight=1000, max_waiting=128)
    await enter(admission, FEW_IN_FLIGHT, STANDARD)
    assert not admission.is_strained(asyncio.get_running_loop().time())

    await strain(admission)

    assert admission.is_strained(asyncio.get_running_loop().time())
    came_in = await asyncio.gather(
        *(admission.admit(STANDARD, 0) for _ in range(100)), return_exceptions=True
    )
    refused = [found for found in came_in if isinstance(found, Overloaded)]
    # Those who wait, and those for whom there was a turn meanwhile.
    assert FEW_WAITING <= 100 - len(refused) <= FEW_WAITING + 20
    assert admission.waiting == 0


async def test_however_late_the_loop_a_few_are_always_let_in_at_once():
    admission = door(max_in_flight=1000)
    await strain(admission)

    await asyncio.wait_for(enter(admission, FEW_IN_FLIGHT, STANDARD), 0.05)

    assert admission.in_flight == FEW_IN_FLIGHT


async def test_when_the_loop_is_late_what_matters_most_comes_in_all_the_same():
    admission = door(max_in_flight=1000)
    await strain(admission)
    await enter(admission, FEW_IN_FLIGHT, INTERACTIVE)

    ahead = int(admission.pace.rate_per_s * DEBT_S) - FEW_IN_FLIGHT
    await asyncio.wait_for(enter(admission, ahead, INTERACTIVE), 0.5)

    assert admission.in_flight == FEW_IN_FLIGHT + ahead


async def test_who_was_let_through_the_gate_has_its_turn_already():
    admission = door(max_in_flight=1000, max_waiting=128)
    await strain(admission)
    await enter(admission, FEW_IN_FLIGHT, STANDARD)

    others = [asyncio.create_task(admission.admit(STANDARD, 0)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.gather(*others)
    await asyncio.sleep(0.05)

    with admission.expect(STANDARD):
        assert isinstance(await asyncio.wait_for(admission.admit(STANDARD, 0), 0.001), Ticket)


async def test_in_a_burst_there_is_waiting_for_the_pace_too():
    admission = door(max_in_flight=1000, max_waiting=128)
    await enter(admission, FEW_IN_FLIGHT, STANDARD)
    admission.feel(0.2)
    await asyncio.sleep(HICCUP_S + 0.01)
    admission.feel(0.2)
    admission.feel(0.0)

    async def one() -> bool:
        with await admission.admit(STANDARD, 0):
            await asyncio.sleep(0.001)
        return True

    assert await asyncio.gather(*(one() for _ in range(40))) == [True] * 40


async def test_nobody_takes_the_turn_of_one_who_waits():
    admission = door(max_in_flight=1000, max_waiting=128)
    await strain(admission)
    await enter(admission, FEW_IN_FLIGHT, STANDARD)
    first = asyncio.create_task(admission.admit(STANDARD, 0))
    waiting = asyncio.create_task(admission.admit(STANDARD, 0))
    done = [first]
    while not admission.waiting:  # Until there is no turn left for one of them.
        done.append(waiting)
        waiting = asyncio.create_task(admission.admit(STANDARD, 0))
        await asyncio.sleep(0)

    late = asyncio.create_task(admission.admit(STANDARD, 0))
    finished, _ = await asyncio.wait([waiting, late], return_when=asyncio.FIRST_COMPLETED)

    assert waiting in finished
    await asyncio.gather(late, *done)


async def test_whoever_comes_after_one_who_waits_is_kept_out_and_shows_that_it_is_not_over(
    monkeypatch,
):
    admission = door(max_in_flight=1000, max_waiting=128)
    await strain(admission)
    monkeypatch.setattr(admission.pace, "has_turn", lambda *_: False)  # Nor does it tell.
    waiting = await in_line(admission, STANDARD)

    with admission.expect(STANDARD):
        now_s = asyncio.get_running_loop().time()

    assert admission.pace.is_strained(now_s + STRAIN_S - 0.005)
    assert not admission.pace.is_strained(now_s + STRAIN_S)
    with pytest.raises(Overloaded):
        await waiting


async def test_the_time_of_a_round_counts_from_the_first_who_asks_in_it(monkeypatch):
    admission = door(max_in_flight=1000, max_waiting=128)
    await strain(admission)
    rounds_s = []

    def has_turn(criticality, now_s, in_flight, round_s):
        rounds_s.append(round_s)
        return True

    loop = asyncio.get_running_loop()
    now_s = loop.time()
    monkeypatch.setattr(admission.pace, "has_turn", has_turn)
    monkeypatch.setattr(loop, "time", lambda: now_s)

    for _ in range(2):
        await admission.admit(STANDARD, 0)
        now_s += 0.02
        await admission.admit(STANDARD, 0)
        await asyncio.sleep(0)

    assert rounds_s == pytest.approx([0.0, 0.02, 0.0, 0.02])


async def test_in_a_line_that_stands_there_wait_as_many_as_keep_the_house_full():
    admission = door(max_in_flight=16, max_waiting=128)
    await enter(admission, 16)
    waiting = [await in_line(admission, INTERACTIVE) for _ in range(20)]
    with admission.expect(INTERACTIVE):  # A burst.
        pass
    await asyncio.sleep(INTERVAL_S + 0.05)
    assert admission.waiting == 0

    overloaded = [await in_line(admission, INTERACTIVE) for _ in range(2)]

    with pytest.raises(Overloaded):
        admission.expect(INTERACTIVE)
    with pytest.raises(Overloaded):
        await admission.admit(INTERACTIVE, 0)
    assert admission.waiting == 2
    with admission.expect(BATCH):  # Another line.
        pass
    for task in overloaded:
        task.cancel()
    await asyncio.gather(*waiting, *overloaded, return_exceptions=True)


async def test_with_little_memory_big_requests_are_refused_and_with_less_all_of_them():
    admission = door()

    admission.observe(Sample(memory_share=0.85))
    with pytest.raises(Overloaded):
        await admission.admit(INTERACTIVE, MIB)
    assert isinstance(await admission.admit(INTERACTIVE, 1000), Ticket)

    admission.observe(Sample(memory_share=0.91))
    with pytest.raises(Overloaded):
        await admission.admit(INTERACTIVE, 1000)


async def test_with_hardly_any_memory_the_largest_request_is_ended():
    admission = door()
    told = []

    async def run(size_bytes: int) -> None:
        with await admission.admit(INTERACTIVE, size_bytes) as ticket:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                told.append((size_bytes, type(ticket.expulsion())))

    async with asyncio.TaskGroup() as group:
        small, large = (group.create_task(run(size)) for size in (10, MIB))
        await asyncio.sleep(0)
        admission.observe(Sample(memory_share=0.96))
        await asyncio.wait([large], timeout=1)
        assert not small.done()
        small.cancel()

    assert told == [(MIB, Overloaded), (10, type(None))]


async def test_who_is_expected_counts_as_waiting_until_it_has_come():
    admission = door(max_in_flight=16, max_waiting=128)
    await enter(admission, 16)
    first = await in_line(admission, INTERACTIVE)
    await asyncio.sleep(INTERVAL_S + 0.05)
    waiting = await in_line(admission, INTERACTIVE)

    with admission.expect(INTERACTIVE):
        with pytest.raises(Overloaded):
            admission.expect(INTERACTIVE)
        come = await in_line(admission, INTERACTIVE)
    come.cancel()
    await asyncio.gather(come, return_exceptions=True)
    with admission.expect(INTERACTIVE):
        pass  # It turned out bad.
    with admission.expect(INTERACTIVE):
        assert admission.waiting == 1

    waiting.cancel()
    await asyncio.gather(first, waiting, return_exceptions=True)


async def test_who_is_expected_takes_room_before_it_has_come():
    admission = door(max_in_flight=1, max_waiting=0)

    with admission.expect(INTERACTIVE):
        with pytest.raises(Overloaded):
            admission.expect(INTERACTIVE)
        ticket = await admission.admit(INTERACTIVE, 0)

    with ticket, pytest.raises(Overloaded):
        admission.expect(INTERACTIVE)


class Served:
    """A request that gives its caller something, who takes as long as he likes.

    Attributes:
        told: what it ended with.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.is_taken = asyncio.Event()
        self.told: BaseException | None = None

    async def serve(self) -> None:
        """As a use case does, and whoever sends for it."""
        with await self._admission.admit(INTERACTIVE, 0) as ticket:
            try:
                ticket.is_sending = True
                await self.is_taken.wait()
                ticket.is_sending = False
                if ticket.is_due:
                    raise ticket.take()
                await asyncio.Event().wait()  # What it works on never ends.
            except asyncio.CancelledError as error:
                self.told = ticket.expulsion() or error
                raise
            except Draining as error:
                self.told = error
                raise


async def sending(admission: Admission) -> tuple[Served, asyncio.Task[None]]:
    """One that is sending."""
    served = Served(admission)
    task = asyncio.create_task(served.serve())
    await asyncio.sleep(0)
    assert admission.in_flight == 1
    return served, task


async def test_one_that_is_sending_is_put_out_when_it_is_done_with_that():
    admission = door()
    served, task = await sending(admission)

    assert admission.expel() == 1
    served.is_taken.set()
    await asyncio.wait([task])

    assert isinstance(served.told, Draining)
    assert not task.cancelled()
    assert admission.in_flight == 0


async def test_one_that_goes_on_sending_is_put_out_all_the_same():
    admission = door()
    served, task = await sending(admission)

    admission.expel()
    await asyncio.wait([task], timeout=2)

    assert isinstance(served.told, Draining)
    assert admission.in_flight == 0


async def test_who_leaves_by_himself_meanwhile_has_not_been_put_out():
    admission = door()
    served, task = await sending(admission)

    admission.expel()
    task.cancel()
    await asyncio.wait([task])

    assert isinstance(served.told, asyncio.CancelledError)
    assert task.cancelled()
    assert task.cancelling() == 1
    assert admission.in_flight == 0
