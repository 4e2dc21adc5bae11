"""`trunkline cache` against a running service."""

import asyncio
import json
from typing import Any

import pytest

from tests.edges.test_cache import asked, asking
from trunkline_server.cli import main


async def run(target: str, *arguments: str) -> int:
    """In a thread, because the service is in this one."""
    return await asyncio.to_thread(main, ["cache", *arguments, "--target", target])


async def test_the_cache_is_seen_cleared_and_complained_of(capsys: pytest.CaptureFixture[str]):
    told: list[tuple[int, str]] = []
    async with asking() as here:

        async def tell(*arguments: str) -> str:
            code = await run(here.service.grpc_address, *arguments)
            out = capsys.readouterr().out
            told.append((code, out))
            return out

        await here.unary(asked())
        entry = (await here.unary(asked())).cache.entry_id
        shown = await tell("stats")
        found: dict[str, Any] = json.loads(await tell("stats", "--json"))
        await tell("report", entry, "--right")
        await tell("clear", "--older-than", "1h")
        kept = await here.unary(asked())
        await tell("report", entry, "--wrong")
        wrong = await here.unary(asked())
        await tell("clear")
        cleared = await here.unary(asked())

    assert shown.splitlines() == [
        "organization  key:anonymous",
        f"entries       1, {int(found['size_bytes']):,} bytes",
        "hits          1 exact, 0 semantic",
        "misses        1",
        "waits         0",
        "semantic      off",
    ]
    assert (found["entries"], found["exact_hits"], found["bins"]) == ("1", "1", [])
    assert [kept.cache.hit, wrong.cache.hit, cleared.cache.hit] == [True, False, False]
    assert [out for _, out in told[2:]] == [
        "noted\n",
        "forgotten\n",
        "it is not given again\n",
        "forgotten\n",
    ]
    assert {code for code, _ in told} == {0}


async def test_an_entry_that_can_not_be_is_refused(capsys: pytest.CaptureFixture[str]):
    async with asking() as here:
        code = await run(here.service.grpc_address, "report", "x", "--wrong")

    assert code == 1
    assert "entry_id" in capsys.readouterr().err
