"""A service is killed, or its disk fails, at each write and each sync of a scripted run."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Final

import grpc
import pytest

from tests.accounts.crash.check import Inspector, Terms, granted
from tests.accounts.crash.faults import KILL, SYNC, WRITE, Fault, lose_unsynced, missing
from tests.accounts.crash.lives import Life, Spawner, configure, executed, spawner
from tests.accounts.crash.load import UNARY, Ask, Callers, Seen, calling
from tests.accounts.crash.meter import FAIL, HANG, STREAM, Meter, metering
from tests.faults.tables import Tables
from tests.storage.conftest import opened
from tests.support.accounts import new_sqlite

PACE_S: Final = 0.002
GRANT: Final = 10**12
TITLE: Final = "A fault at each write and each sync of a scripted run"
COLUMNS: Final = ("", "points", "requests", "answered", "cut", "replayed", "holds left", "problems")
UNAVAILABLE: Final = grpc.StatusCode.UNAVAILABLE
SETTLED_S: Final = (
    0.05  # A request that its caller has left is settled after that, if the disk lets it.
)
STOPS_S: Final = 10.0
SCRIPT: Final = (
    Ask("plain", UNARY, 5),
    Ask("stream", STREAM, 5),
    Ask("left", HANG, 5),
    Ask("unary-key", UNARY, 5, "key-1"),
    Ask("stream-key", STREAM, 5, "key-2"),
    Ask("failed", FAIL, 5),
    Ask("last", STREAM, 5),
)
FAULTS: Final = {
    "killed at a sync": Fault(SYNC, KILL, 0),
    "power lost at a sync": Fault(SYNC, KILL, 0, is_power_loss=True),
    "EIO at a sync": Fault(SYNC, "error=EIO", 0, is_power_loss=True),
    "killed at a write": Fault(WRITE, KILL, 0),
    "EIO at a write": Fault(WRITE, "error=EIO", 0),
    "ENOSPC at a write": Fault(WRITE, "error=ENOSPC", 0),
}
SHORT: Final = {"killed at a sync": 10, "power lost at a sync": 12, "EIO at a sync": 9}
PARTS: Final = 8

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


@dataclass
class Stage:
    """What all points of a case share."""

    folder: Path
    meter: Meter
    spawner: Spawner
    config: Path
    database: Path
    template: Path

    @property
    def url(self) -> str:
        return f"sqlite:{self.database}"

    def clean(self) -> None:
        """A new database, and an upstream that has served nothing."""
        for path in self.folder.glob(f"{self.database.name}*"):
            path.unlink()
        shutil.rmtree(self.folder / "progress", ignore_errors=True)
        shutil.copy(self.template, self.database)
        self.meter.servings.clear()


@dataclass
class Played:
    """What the callers of a scripted run saw. `was_hit`: the fault came."""

    seen: list[Seen]
    is_granted: bool = False
    was_hit: bool = False


async def played(stage: Stage, fault: Fault) -> Played:
    """One life, to its end by the fault or after the script."""
    calls = stage.folder / "calls"
    calls.unlink(missing_ok=True)
    log = stage.folder / "faulty.log"
    found = Played([])
    async with executed(stage.config, stage.url, log, fault.prefix(calls)) as life:
        if await life.listens():
            async with calling(life) as callers:
                found.seen = callers.seen
                refused: grpc.StatusCode | None = None
                try:
                    await callers.grant(GRANT, "grant")
                    found.is_granted = True
                except grpc.aio.AioRpcError as error:
                    refused = error.code()
                assert refused in (None, UNAVAILABLE)
                await _play(stage, fault, life, callers, calls)
                was_cut = bool(refused) or any(each.code is UNAVAILABLE for each in callers.seen)
                if fault.is_kill and was_cut:
                    await life.ended()
        found.was_hit = fault.has_come(calls)
        if fault.is_kill:
            found.was_hit = not life.is_running
            assert fault.has_come(calls) or not found.was_hit, life.said
        stage.meter.cut()
    assert not life.grpc_address or "Traceback" not in life.said, life.said
    if fault.is_power_loss:
        lose_unsynced(calls, stage.database.with_name(f"{stage.database.name}-wal"))
    return found


async def _play(stage: Stage, fault: Fault, life: Life, callers: Callers, calls: Path) -> None:
    has_stopped = False
    for ask in SCRIPT:
        served = sum(map(len, stage.meter.servings.values()))
        seen = await callers.ask(ask)
        if has_stopped:
            # Nobody is let in, and nothing goes upstream.
            assert seen.code is UNAVAILABLE, seen
            assert sum(map(len, stage.meter.servings.values())) == served
        await asyncio.sleep(SETTLED_S if ask.kind == HANG else 0)
        if not has_stopped and fault.must_stop(calls):
            async with asyncio.timeout(STOPS_S):
                while await life.is_ready():  # noqa: ASYNC110 - it is another process
                    await asyncio.sleep(0.01)
            has_stopped = True
        if fault.is_kill and seen.code is UNAVAILABLE:
            return
    if not (fault.is_kill or fault.is_broken_disk):
        # What the disk refused is written when it is tried again, unless the life ends before.
        async with asyncio.timeout(STOPS_S):
            while await callers.held():  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.01)


async def survived(stage: Stage, fault: Fault) -> tuple[bool, Inspector]:
    """One point: the fault, and all that must be true after the next start. False: there is no such point."""
    stage.clean()
    found = await played(stage, fault)
    inspector = Inspector(stage.url, stage.meter)
    if fault.is_power_loss and fault.is_kill:
        shutil.rmtree(stage.folder / "progress", ignore_errors=True)
    life = await stage.spawner.start(stage.config)
    assert await life.listens(), life.said
    # What was said to be granted is there; what was not may be.
    inspector.granted = await granted(stage.url)
    assert inspector.granted in ((GRANT,) if found.is_granted else (0, GRANT))
    terms = Terms(
        has_progress=not (fault.is_power_loss and fault.is_kill), is_synced=not fault.is_broken_disk
    )
    await inspector.look(found.seen, terms)
    async with calling(life) as callers:
        await callers.grant(GRANT, "grant")
        inspector.granted = GRANT
        again = await callers.ask_again([each for each in found.seen if each.ask.key])
        await callers.ask(Ask("after", UNARY, 5))
    for before, now in zip([s for s in found.seen if s.ask.key], again, strict=True):
        assert now.completion is not None, now
        assert before.completion is None or now.is_replayed, now
    await inspector.look(callers.seen, terms)
    await stage.spawner.kill(life)
    return found.was_hit, inspector


async def judged(folder: Path, points: Iterator[Fault]) -> tuple[int, Counter[str]]:
    """One point after the other, until there is none any more. Returns how many there were, and sums."""
    template = folder / "template"
    template.mkdir()
    async with opened(new_sqlite(template)):
        pass  # Its first start, which turns on the write-ahead log.
    database = folder / "trunkline.db"
    found, sums = 0, Counter[str]()
    async with metering(PACE_S) as meter, spawner(folder, f"sqlite:{database}") as spawning:
        config = configure(folder, meter)
        stage = Stage(folder, meter, spawning, config, database, template / "accounts.db")
        for point in points:
            was_hit, inspector = await survived(stage, point)
            if not was_hit:
                break
            found += 1
            sums += inspector.totals
    return found, sums


def report(tables: Tables, name: str, points: int, sums: Counter[str]) -> None:
    cells = (sums[key] for key in ("requests", "answered", "cut", "replayed"))
    tables.table(TITLE, COLUMNS).add(name, points, *cells, 0, 0)


@pytest.mark.once
async def test_some_points_of_failure_lose_and_double_nothing(
    tmp_path: Path, tables: Tables
) -> None:
    points = [replace(FAULTS[name], when=when) for name, when in SHORT.items()]

    found, sums = await judged(tmp_path, iter(points))

    report(tables, "short", found, sums)
    assert found == len(points)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, PARTS + 1))
@pytest.mark.parametrize("name", FAULTS)
async def test_no_point_of_failure_loses_or_doubles_anything(
    name: str, part: int, tmp_path: Path, tables: Tables
) -> None:
    points = (replace(FAULTS[name], when=when) for when in count(part, PARTS))

    found, sums = await judged(tmp_path, points)

    report(tables, f"{name}, part {part} of {PARTS}", found, sums)
    assert found > 0
