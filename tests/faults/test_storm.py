"""A provider that fails is not asked more often for it, and one that fails now and then harms nobody."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random
from time import monotonic
from typing import Any, Final

import pytest

from tests.faults.callers import callers
from tests.faults.kinds import FAULTY, HEALTHY
from tests.faults.lag import share_of
from tests.faults.pace import open_loop
from tests.faults.tables import Tables
from tests.faults.upstreams import Ask, Step, complete, faulty, healthy, whole
from tests.faults.wires import WIRES
from tests.support.service import model, service
from tests.support.upstream import Reset
from trunkline_server.core.breaker import State

WIRE: Final = WIRES["openai"]
OTHER: Final = WIRES["anthropic"]
FAILING: Final[dict[str, Callable[[Ask], Iterable[Step]]]] = {
    "503": lambda ask: whole(WIRE.refusal(503), 503),
    "reset": lambda ask: [Reset()],
}
MAX_RATIO: Final = 1.2
MAX_RATIO_OPEN: Final = 1.02
WINDOW_S: Final = 10.0


@dataclasses.dataclass(frozen=True)
class Load:
    """How much, for how long, and how long the windows are in which attempts are counted."""

    rate_per_s: float
    seconds: float
    window_s: float = WINDOW_S


def sections(*candidates: str, urls: dict[str, str]) -> dict[str, Any]:
    """One route over these candidates, in order."""
    wires = {FAULTY: WIRE, HEALTHY: OTHER}
    return {
        "providers": [wires[name].provider(name, urls[name]) for name in candidates],
        "models": [model(f"m-{name}", name) for name in candidates],
        "routes": [
            {
                "id": "all",
                "candidates": [f"m-{name}" for name in candidates],
                "strategy": "ordered",
            }
        ],
    }


def ratios(
    attempts_s: Sequence[float], requests_s: Sequence[float], window_s: float
) -> list[tuple[float, float]]:
    """When each window begins, ten of them in the length of one, and attempts in it for each request in it."""
    start_s, end_s = min(requests_s), max(requests_s)
    found = []
    for step in range(int((end_s - start_s - window_s) / window_s * 10) + 1):
        since_s = start_s + step * window_s / 10
        until_s = since_s + window_s
        made = sum(since_s <= at_s < until_s for at_s in attempts_s)
        asked = sum(since_s <= at_s < until_s for at_s in requests_s)
        found.append((since_s, made / asked))
    return found


@pytest.mark.parametrize(
    ("failing", "beside", "load"),
    [
        pytest.param("503", True, Load(100, 3, 1), id="503-beside-short"),
        pytest.param("reset", False, Load(100, 3, 1), id="reset-alone-short"),
        *(
            pytest.param(
                failing,
                beside,
                Load(100, 60),
                id=f"{failing}-{'beside' if beside else 'alone'}",
                marks=pytest.mark.slow,
            )
            for failing in FAILING
            for beside in (True, False)
        ),
    ],
)
async def test_a_provider_that_is_down_is_not_asked_more_often_for_it(
    failing: str, beside: bool, load: Load, tables: Tables
):
    endings = Counter[str]()
    requests_s: list[float] = []
    opened_s: list[float] = []

    async with (
        faulty(WIRE, FAILING[failing]) as down,
        healthy(OTHER, HEALTHY) as well,
    ):
        names = (FAULTY, HEALTHY) if beside else (FAULTY,)
        urls = {FAULTY: down.url, HEALTHY: well.url}
        async with (
            service(**sections(*names, urls=urls)) as started,
            callers(started) as asking,
        ):
            (candidate, *_) = started.parts.candidates
            breaker = started.circuits.health(candidate).breaker

            async def ask(number: int) -> None:
                requests_s.append(monotonic())
                outcome = await asking.ask("gRPC stream", "all", f"say mark-{number}")
                endings["complete" if outcome.ends else "".join(outcome.errors)] += 1
                if not opened_s and breaker.state(monotonic()) is not State.CLOSED:
                    opened_s.append(monotonic())

            await open_loop(ask, load.rate_per_s, load.seconds)
        attempts_s = [asked.at_s for asked in (*down.asks, *well.asks)]

    windows = ratios(attempts_s, requests_s, load.window_s)
    worst = max(ratio for _, ratio in windows)
    worst_open = max(ratio for since_s, ratio in windows if since_s >= opened_s[0])
    tables.table(
        "A provider that is down: attempts for each request, the most in a window",
        (
            "how, where",
            "window",
            "requests",
            "attempts",
            "complete",
            "refused",
            "worst",
            "breaker open",
        ),
    ).add(
        f"{failing}, {'beside a healthy one' if beside else 'alone'}",
        f"{load.window_s:g} s",
        len(requests_s),
        len(attempts_s),
        endings["complete"],
        sum(endings.values()) - endings["complete"],
        f"{worst:.3f}",
        f"{worst_open:.3f}",
    )
    assert worst <= MAX_RATIO
    assert worst_open <= MAX_RATIO_OPEN
    assert endings["complete"] == (len(requests_s) if beside else 0)


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(Load(50, 3), id="short"),
        pytest.param(Load(50, 600), id="long", marks=pytest.mark.slow),
    ],
)
async def test_a_provider_that_fails_now_and_then_harms_nobody(load: Load, tables: Tables):
    random = Random(7)
    endings = Counter[str]()
    took_s: list[float] = []
    ejections = 0

    def now_and_then(ask: Ask) -> Iterable[Step]:
        return FAILING["503"](ask) if random.random() < 0.3 else complete(ask, FAULTY)

    async with (
        faulty(WIRE, now_and_then) as flaky,
        healthy(OTHER, HEALTHY) as well,
        service(
            **sections(FAULTY, HEALTHY, urls={FAULTY: flaky.url, HEALTHY: well.url})
        ) as started,
        callers(started) as asking,
    ):
        good = next(c for c in started.parts.candidates if c.provider == HEALTHY)
        breaker = started.circuits.health(good).breaker

        async def ask(number: int) -> None:
            nonlocal ejections
            since_s = monotonic()
            outcome = await asking.ask("gRPC stream", "all", f"say mark-{number}")
            took_s.append(monotonic() - since_s)
            endings["complete" if outcome.ends else "".join(outcome.errors)] += 1
            ejections += breaker.state(monotonic()) is not State.CLOSED

        await open_loop(ask, load.rate_per_s, load.seconds)
        asked = len(flaky.asks)

    requests = sum(endings.values())
    success = endings["complete"] / requests
    tables.table(
        "A provider that fails at 30 %, beside a healthy one",
        (
            "",
            "requests",
            "success",
            "asked the flaky one",
            "p50 ms",
            "p99 ms",
            "healthy one ejected",
        ),
    ).add(
        f"{load.rate_per_s:g} requests/s",
        requests,
        f"{success:.4%}",
        asked,
        *(f"{share_of(took_s, percent) * 1000:.1f}" for percent in (50, 99)),
        ejections,
    )
    assert success >= 0.9995
    assert ejections == 0
    assert asked > 0
