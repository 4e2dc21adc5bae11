"""A disk without room: nothing new is let in, nothing is said that is not there, and all is well when there is room."""

import asyncio
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import grpc
import httpx
import pytest

from tests.accounts.crash.check import Inspector
from tests.accounts.crash.lives import CLIENT_KEY, STOP_S, Life, configure, spawner
from tests.accounts.crash.load import HELD, UNARY, Ask, Callers, Seen, calling
from tests.accounts.crash.meter import STREAM, Meter, metering
from tests.faults.waiting import until
from tests.storage.conftest import opened
from tests.support.accounts import new_sqlite
from trunkline_server.core.errors import StorageUnavailable
from trunkline_server.core.transactions import (
    MakeTransaction,
    Row,
    Statement,
    Transaction,
    Value,
)
from trunkline_server.storage.progress import left_behind, read

UNAVAILABLE: Final = grpc.StatusCode.UNAVAILABLE
SIZE: Final = b"size=8m"
GRANT: Final = 10**12
PACE_S: Final = 0.02
LONG_TOKENS: Final = 40
HELD_TOKENS: Final = 3
HEALED_S: Final = 10.0
DETACH: Final = 2


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    system = ctypes.CDLL(None, use_errno=True)
    where = os.fsencode(folder)
    if system.mount(b"none", where, b"tmpfs", 0, SIZE):
        pytest.skip(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
    try:
        yield folder
    finally:
        system.umount2(where, DETACH)


def fill(disk: Path) -> Path:
    """Returns what takes all the room that was left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4_096)):
            pass
    return filler


async def status_over_http(life: Life) -> tuple[int, bool]:
    """Of a completion; and does it say when to try again?"""
    body = {"model": "m", "messages": [{"role": "user", "content": "rest unary 1"}]}
    async with httpx.AsyncClient(timeout=STOP_S) as http:
        found = await http.post(
            f"http://{life.http_address}/v1/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {CLIENT_KEY}"},
        )
    return found.status_code, "retry-after" in found.headers


async def begun(callers: Callers, meter: Meter, *asks: Ask) -> list[asyncio.Task[Seen]]:
    """Requests that are being answered."""
    tasks = [asyncio.create_task(callers.ask(ask)) for ask in asks]
    await until(
        lambda: all(
            any(seen.ask == ask and seen.tokens >= HELD_TOKENS for seen in callers.seen)
            for ask in asks
        ),
        "the first tokens of all",
    )
    return tasks


@pytest.mark.once
async def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path, disk: Path) -> None:
    url = new_sqlite(disk)
    async with metering(PACE_S) as meter, spawner(tmp_path, url) as spawning:
        config = configure(disk, meter)
        inspector = Inspector(url, meter)
        life = await spawning.start(config)
        assert await life.listens(), life.said
        async with calling(life) as callers:
            await callers.grant(GRANT)
            inspector.granted = GRANT
            assert (await callers.ask(Ask("before", UNARY, 5))).completion is not None
            running = await begun(
                callers,
                meter,
                Ask("running", STREAM, LONG_TOKENS),
                Ask("running-key", STREAM, LONG_TOKENS, "key-1"),
            )
            held = await begun(callers, meter, Ask("held", HELD, HELD_TOKENS))

            filler = fill(disk)
            served = len(meter.servings)
            refused = [await callers.ask(Ask(f"full-{n}", UNARY, 5)) for n in range(3)]
            over_http = await status_over_http(life)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await callers.grant(GRANT)
            ran, ran_with_key = await asyncio.gather(*running)
            held[0].cancel()

            filler.unlink()
            await _answered(callers, Ask("room", UNARY, 5, "key-2"))
            again = await _answered(callers, Ask("running-key", STREAM, LONG_TOKENS, "key-1"))
            async with asyncio.timeout(HEALED_S):
                while await callers.held():  # noqa: ASYNC110 - it is another process
                    await asyncio.sleep(0.1)
        await inspector.look(callers.seen)
        await spawning.kill(life)
        life = await spawning.start(config)
        assert await life.listens(), life.said
        await inspector.look([])
        await spawning.kill(life)

    assert [seen.code for seen in refused] == [UNAVAILABLE] * len(refused)
    assert over_http == (503, True)
    assert caught.value.code() is UNAVAILABLE
    assert served == len({"before", "running", "running-key", "held"})
    # Its settlement waits for room; one whose answer could not be replayed is not said to be whole.
    assert ran.completion is not None
    assert (ran_with_key.code, ran_with_key.completion) == (UNAVAILABLE, None)
    assert again.is_replayed
    assert "database_refused" in life_log(tmp_path, 1)
    assert "database_back" in life_log(tmp_path, 1)
    assert "Traceback" not in life_log(tmp_path, 1)


async def _answered(callers: Callers, ask: Ask) -> Seen:
    """As soon as the service does."""
    async with asyncio.timeout(HEALED_S):
        seen = await callers.ask(ask)
        while seen.completion is None:
            await asyncio.sleep(0.1)
            seen = await callers.ask(ask)
    return seen


def life_log(folder: Path, number: int) -> str:
    return (folder / f"life-{number}.log").read_text()


@pytest.mark.once
async def test_a_service_killed_on_a_full_disk_is_whole_when_there_is_room(
    tmp_path: Path, disk: Path
) -> None:
    url = new_sqlite(disk)
    async with metering(PACE_S) as meter, spawner(tmp_path, url) as spawning:
        config = configure(disk, meter)
        inspector = Inspector(url, meter)
        life = await spawning.start(config)
        assert await life.listens(), life.said
        async with calling(life) as callers:
            await callers.grant(GRANT)
            inspector.granted = GRANT
            held = await begun(callers, meter, Ask("held", HELD, HELD_TOKENS))
            filler = fill(disk)
            late = await callers.ask(Ask("late", UNARY, 5))
            meter.cut()
            await spawning.kill(life)
            await asyncio.gather(*held)
        without_room = await spawning.start(config)
        has_started = await without_room.listens()
        filler.unlink()

        life = await spawning.start(config)
        assert await life.listens(), life.said

        await inspector.look(callers.seen)
        assert not has_started
        assert late.code is UNAVAILABLE
        assert inspector.totals["tokens charged"] == HELD_TOKENS
        await spawning.kill(life)


# As many as the file has slots, each of which is written to for the first time.
NOTES: Final = """
import sys
from pathlib import Path
from trunkline_server.storage.progress import Progress
progress = Progress(Path(sys.argv[1]), "owner", 2_000)
progress.open()
print("open", flush=True)
sys.stdin.readline()
for n in range(2_000):
    slot = progress.take(f"cmpl_{n}")
    progress.answers(slot, f"cmpl_{n}", "a", "m", (1, 2, None), (0, 0, 0))
    progress.count(slot, 0, 0, n)
print("noted", flush=True)
"""


def test_how_far_requests_are_is_noted_on_a_full_disk_too(disk: Path) -> None:
    noting = subprocess.Popen(
        [sys.executable, "-c", NOTES, str(disk)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert noting.stdout is not None
    assert noting.stdout.readline() == "open\n"
    fill(disk)

    said, _ = noting.communicate("\n", timeout=STOP_S)

    assert (said, noting.returncode) == ("noted\n", 0)
    (left,) = left_behind(disk)
    assert read(left)["cmpl_1999"].output_chars == 1_999


def one(sql: str, *values: Value) -> MakeTransaction[Sequence[Row]]:
    """A transaction of one statement."""

    def run() -> Transaction[Sequence[Row]]:
        return (yield Statement(sql, values))

    return run


async def test_a_statement_that_finds_no_room_holds_up_nobody(tmp_path: Path) -> None:
    note = "INSERT INTO generations (name, value) VALUES ($1, 1)"
    async with opened(new_sqlite(tmp_path)) as storage:
        await storage.write(one("PRAGMA max_page_count = 1"))

        # SQLite ends the transaction of a statement that finds no room, not the statement alone.
        refused = await asyncio.gather(
            *(storage.write(one(note, f"{n}" * 1_000_000)) for n in range(3)),
            return_exceptions=True,
        )

        await storage.write(one("PRAGMA max_page_count = 1000000"))
        await storage.write(one(note, "small"))
        found = await storage.read(one("SELECT name FROM generations WHERE value = 1"))
    assert [type(each) for each in refused] == [StorageUnavailable] * 3
    assert [tuple(row) for row in found] == [("small",)]
