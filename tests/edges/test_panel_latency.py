"""A proposer that hangs is not waited for: the first token comes as if it had not been asked."""

import asyncio
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from tests.support.service import model, provider, service
from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Pause,
    Step,
    delta,
    event,
    finish,
    head,
    upstream,
    usage,
)
from trunkline import AsyncClient

SIZE: Final = 6
QUORUM: Final = 4
CHUNKS: Final = 40
GAP_S: Final = 0.005
MEDIAN_S: Final = 0.060
SIGMA: Final = 0.5
DEADLINE_S: Final = 3.0
QUESTIONS: Final = 10
EVERY: Final = 5  # So many questions have one proposer that hangs, by turns.
PACE_S: Final = 0.2
LIMIT: Final = 0.60
BENCH: Final = Path(__file__).parents[2] / "bench" / "panels.py"
SLOW_S: Final = 300


@dataclass(frozen=True)
class Answered:
    """What a caller got, and which proposers ran when it began."""

    first_token_s: float
    text: str
    cancelled: Sequence[str]


def panel(**more: Any) -> dict[str, Any]:
    proposers = [f"p{seat}" for seat in range(SIZE)]
    return {"proposers": proposers, "aggregator": "z", "deadline_s": DEADLINE_S, **more}


def hanging(number: int) -> str | None:
    """The proposer of this question that hangs."""
    return None if number % EVERY else f"p{number // EVERY % SIZE}"


def script(exchange: Exchange) -> Sequence[Step]:
    """The same delays for the same question and model. Whoever aggregates never hangs."""
    asked, content = exchange.json["model"], exchange.json["messages"][-1]["content"]
    number = int(content.split()[1])
    if asked == hanging(number):
        return [head(), Hang()]
    first_s = Random(f"{number} {asked}").lognormvariate(math.log(MEDIAN_S), SIGMA)
    texts = [step for _ in range(CHUNKS) for step in (Pause(GAP_S), event(delta("so ")))]
    return [
        head(),
        Pause(first_s),
        *texts[1:],
        event(finish()),
        event(usage()),
        event("[DONE]"),
        END,
    ]


async def ask(client: AsyncClient, route: str, number: int) -> Answered:
    began_s = time.monotonic()
    async with client.stream(f"Question {number} ?", model=route) as stream:
        pieces, first_token_s = [], 0.0
        async for piece in stream.text_deltas():
            first_token_s = first_token_s or time.monotonic() - began_s
            pieces.append(piece)
        completion = await stream.completion()
    rows = completion.panel.members
    return Answered(
        first_token_s,
        "".join(pieces),
        [row.model for row in rows if row.role == "proposer" and row.status == "cancelled"],
    )


def p95(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


async def test_a_quorum_takes_the_wait_for_those_who_hang_out_of_the_time_to_the_first_token():
    async with upstream(script) as scripted:
        sections: dict[str, Any] = {
            "providers": [provider("up", scripted.url)],
            "models": [model(name, "up") for name in (*(f"p{n}" for n in range(SIZE)), "z")],
            "routes": [
                {"id": "quorum", "panel": panel(quorum=QUORUM)},
                {"id": "all", "panel": panel(quorum=SIZE)},
            ],
        }
        async with service(**sections) as running, AsyncClient(running.grpc_address) as client:
            tasks: dict[str, list[asyncio.Task[Answered]]] = {"quorum": [], "all": []}
            async with asyncio.TaskGroup() as group:
                for number in range(QUESTIONS):
                    for route, asked in tasks.items():
                        asked.append(group.create_task(ask(client, route, number)))
                        await asyncio.sleep(PACE_S / len(tasks))
    quorum, waiting = ([task.result() for task in asked] for asked in tasks.values())

    hung = [[name] if (name := hanging(number)) else [] for number in range(QUESTIONS)]
    assert {answered.text for answered in quorum + waiting} == {"so " * CHUNKS}
    assert [answered.cancelled for answered in waiting] == hung
    assert all(set(h) <= set(a.cancelled) for h, a in zip(hung, quorum, strict=True))
    assert [a.first_token_s > DEADLINE_S for a in waiting] == [bool(h) for h in hung]
    assert p95([a.first_token_s for a in quorum]) <= LIMIT * p95([a.first_token_s for a in waiting])


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ["cc", "gcc", "clang"])), reason="no C compiler for the upstream"
)
async def test_the_bench_finds_the_target_reached_where_it_can_be():
    process = await asyncio.create_subprocess_exec(
        sys.executable, BENCH, "waits", stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(SLOW_S):
        printed, _ = await process.communicate()

    assert process.returncode == 0, printed.decode()
