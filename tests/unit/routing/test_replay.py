"""The replay of a simulated world over real sockets. Its figures are for `python -m bench.routing.replay`."""

import pytest

from bench.routing.replay import FastLoop, replayed
from bench.routing.worlds import TUNING_SEEDS

pytestmark = pytest.mark.once

SPEED = 40.0


def test_a_world_is_replayed_and_judged_like_the_simulation():
    found = replayed("outages", TUNING_SEEDS[0], 60, SPEED)

    assert (found.requests, found.failed) == (60, 0)
    assert found.static_s > 0
    assert 0 <= found.regret_s < 5 * found.static_s


def test_a_fast_loop_keeps_its_own_time():
    loop = FastLoop(SPEED)
    ended_s: list[float] = []
    started_s = loop.time()
    loop.call_later(2.0, lambda: ended_s.append(loop.time()))
    loop.call_later(2.0, loop.stop)

    loop.run_forever()
    loop.close()

    assert 2.0 <= ended_s[0] - started_s < 2.0 + SPEED
