"""A service is killed again and again while it works for many callers, and its ledger loses nothing."""

import asyncio
from collections import Counter
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final

import pytest

from tests.accounts.crash.check import Inspector
from tests.accounts.crash.lives import Life, Spawner, configure, spawner
from tests.accounts.crash.load import CLIENTS, HELD, Ask, Callers, Seen, calling, mix
from tests.accounts.crash.meter import Meter, metering
from tests.faults.tables import Tables
from tests.faults.waiting import until
from tests.support.postgres import Postgres
from trunkline_server.storage.upgrade import upgrade

PACE_S: Final = 0.004
GRANT: Final = 10**12
HELD_STREAMS: Final = 3
HELD_TOKENS: Final = 7
AGAIN: Final = 24  # Keys that are asked again after a kill.
MIN_LOAD_S: Final = 0.1  # Until what the held streams got is noted as well.
MAX_LOAD_S: Final = 0.5
MAX_START_S: Final = 0.6
SHORT_KILLS: Final = 6
KILLS: Final = 25
TITLE: Final = "kill -9 under load"
COLUMNS: Final = (
    "",
    "kills",
    "of them while starting",
    "requests",
    "answered",
    "told so",
    "replayed",
    "cut",
    "cut and charged",
    "tokens sent",
    "tokens charged",
    "tokens lost on their way",
    "tokens seen, not charged",
    "seconds",
)


class Lives:
    """One database, and the services that live and die on it."""

    def __init__(self, spawner: Spawner, config: Path, meter: Meter, inspector: Inspector) -> None:
        self._spawner = spawner
        self._config = config
        self._meter = meter
        self._inspector = inspector
        self.kills: Counter[str] = Counter()

    async def born(self, random: Random) -> Life:
        """A service that listens. Once in a while it is killed before, while it cleans up after the last one."""
        while random.random() < 0.25:
            life = await self._spawner.start(self._config)
            await asyncio.sleep(random.uniform(0.0, MAX_START_S))
            await self._spawner.kill(life)
            self.kills["starting"] += 1
        life = await self._spawner.start(self._config)
        assert await life.listens(), life.said
        return life

    async def lived(self, life: Life, random: Random, name: str) -> list[Seen]:
        """Works for its callers, and is killed."""
        async with calling(life) as callers:
            if not self._inspector.granted:
                await callers.grant(GRANT)
                self._inspector.granted = GRANT
            asks = mix(random, name)
            asked: list[asyncio.Task[Any]] = [
                asyncio.create_task(callers.keep_asking(asks)) for _ in range(CLIENTS)
            ]
            held = [Ask(f"{name}-held-{n}", HELD, HELD_TOKENS) for n in range(HELD_STREAMS)]
            asked += [asyncio.create_task(callers.ask(ask)) for ask in held]
            await until(lambda: _is_busy(callers), "answers, and streams that have all they get")
            await asyncio.sleep(random.uniform(MIN_LOAD_S, MAX_LOAD_S))
            self._meter.cut()
            await self._spawner.kill(life)
            self.kills["working"] += 1
            await asyncio.wait_for(asyncio.gather(*asked), 30)
        assert "Traceback" not in life.said, life.said
        return callers.seen

    async def asked_again(self, life: Life, seen: list[Seen]) -> list[Seen]:
        """Those under a key: what was answered is replayed, and what was cut is run again."""
        keyed = [each for each in seen if each.ask.key]
        cut = [each for each in keyed if each.completion is None]
        whole = [each for each in keyed if each.completion is not None]
        whole = whole[-max(0, AGAIN - len(cut)) :]
        async with calling(life) as callers:
            again = await callers.ask_again([*cut, *whole])
        for now in again:
            assert now.completion is not None, now
        for now in again[len(cut) :]:
            assert now.is_replayed, now
        return again


def _is_busy(callers: Callers) -> bool:
    held = [each for each in callers.seen if each.ask.kind == HELD]
    has_all = all(each.tokens == HELD_TOKENS for each in held) and len(held) == HELD_STREAMS
    return has_all and any(each.completion is not None for each in callers.seen)


async def killed(
    url: str, folder: Path, kills: int, random: Random
) -> tuple[Counter[str], Counter[str]]:
    """Kills, and what they cost."""
    async with metering(PACE_S) as meter, spawner(folder, url) as spawning:
        inspector = Inspector(url, meter)
        lives = Lives(spawning, configure(folder, meter), meter, inspector)
        life = await lives.born(random)
        number = 0
        while lives.kills.total() < kills:
            number += 1
            seen = await lives.lived(life, random, f"life{number}")
            life = await lives.born(random)
            await inspector.look(seen)
            await inspector.look(await lives.asked_again(life, seen))
        await spawning.kill(life)
    return lives.kills, inspector.totals


@pytest.fixture
def new_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> str:
    """A database with the schema."""
    if backend == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        return server.migrated()
    url = f"sqlite:{tmp_path / 'trunkline.db'}"
    upgrade(url)
    return url


@pytest.mark.parametrize(
    ("backend", "kills", "seed"),
    [
        pytest.param("sqlite", SHORT_KILLS, 0, id="short", marks=pytest.mark.once),
        *(
            pytest.param("sqlite", KILLS, n, id=f"sqlite-{n}", marks=pytest.mark.slow)
            for n in range(1, 41)
        ),
        *(
            pytest.param("postgres", KILLS, n, id=f"postgres-{n}", marks=pytest.mark.slow)
            for n in range(1, 11)
        ),
    ],
)
async def test_a_service_that_is_killed_loses_and_doubles_nothing(
    new_url: str,
    kills: int,
    seed: int,
    tmp_path: Path,
    tables: Tables,
    request: pytest.FixtureRequest,
) -> None:
    began_s = monotonic()

    times, totals = await killed(new_url, tmp_path, kills, Random(seed))

    assert times.total() >= kills
    assert totals["answered"] > kills
    assert totals["cut and charged"] > 0
    cells = (totals[name] for name in COLUMNS[3:-1])
    tables.table(TITLE, COLUMNS).add(
        request.node.callspec.id,
        *(times.total(), times["starting"], *cells, f"{monotonic() - began_s:.0f}"),
    )
