"""How a process ends that was asked to."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Timer
from threading import enumerate as threads

import pytest

from trunkline_server.app_ending import FAILED, HARD_STOP_S, Ending, gone_after_s
from trunkline_server.config import ServerSettings

LIMIT_S = 10.0


def check(holds: bool) -> None:
    """For use in an expression."""
    assert holds


class Ended:
    """What an ending did, in order."""

    def __init__(self, limit_s: float, say: Callable[[str], None] | None = None) -> None:
        self.told: SimpleQueue[object] = SimpleQueue()
        self.ending = Ending(
            limit_s, lambda: self.told.put("hurry"), say or self.told.put, self.told.put
        )

    def next(self) -> object:
        """Waits for it."""
        return self.told.get(timeout=LIMIT_S)


def test_a_first_signal_asks_a_second_hurries_and_a_third_ends():
    ended = Ended(600.0)

    ended.ending.signal()
    assert ended.ending.asked.is_set()
    assert ended.told.empty()
    assert all(timer.daemon for timer in threads() if isinstance(timer, Timer))
    ended.ending.signal()
    assert [ended.next(), ended.told.empty()] == ["hurry", True]
    ended.ending.signal()

    assert [ended.next() for _ in range(2)] == ["third signal", FAILED]


def test_a_process_that_is_not_gone_in_time_is_ended():
    ended = Ended(0.001)

    ended.ending.signal()

    assert [ended.next() for _ in range(2)] == ["not gone after 0.001 s", FAILED]


def test_a_log_that_nobody_reads_holds_it_no_longer():
    stuck = Event()
    ended = Ended(0.001, say=lambda _: check(stuck.wait()))

    ended.ending.signal()

    assert ended.next() == FAILED
    stuck.set()


@pytest.mark.parametrize(
    ("server", "grace_s"),
    [
        (ServerSettings(grpc="127.0.0.1:1", http="127.0.0.1:2"), 0.0),
        (ServerSettings(grpc="127.0.0.1:1", http="0.0.0.0:2"), 5.0),
        (ServerSettings(grpc="0.0.0.0:1", http="0.0.0.0:2", lb_grace_s=7.0), 7.0),
        (ServerSettings(grpc="127.0.0.1:1", http="127.0.0.1:2", lb_grace_s=7.0), 7.0),
    ],
    ids=["this machine's", "for all", "as configured", "this machine's, as configured"],
)
def test_the_end_is_as_long_after_the_drain_however_long_the_balancer_is_given(server, grace_s):
    assert gone_after_s(server) == grace_s + server.drain_s + HARD_STOP_S
