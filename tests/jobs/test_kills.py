"""A service is killed again and again while it works on jobs, and none is lost, ended twice, or told with a gap."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final

import grpc
import pytest

from tests.accounts.crash.check import reading
from tests.accounts.crash.lives import CLIENT_KEY, Life, Spawner, configure, spawner
from tests.accounts.crash.load import calling
from tests.accounts.crash.meter import INPUT_TOKENS, TOKEN, Meter
from tests.faults.tables import Tables
from tests.support.postgres import Postgres
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.job_service_pb2 import (
    CreateJobRequest,
    Job,
    JobState,
    ListJobsRequest,
    WatchJobRequest,
    WatchJobResponse,
)
from trunkline.v1.job_service_pb2_grpc import JobServiceStub
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.accounts import ledger
from trunkline_server.core.transactions import Statement, Transaction
from trunkline_server.storage.upgrade import upgrade

PACE_S: Final = 0.004
GRANT: Final = 10**12
AT_ONCE: Final = 6
MAX_TOKENS: Final = 120
LIMIT_S: Final = 60.0
MIN_LIFE_S: Final = 0.05
MAX_LIFE_S: Final = {"sqlite": 1.0, "postgres": 9.0}
SHORT_KILLS: Final = 5
KILLS: Final = 25
SUCCEEDED: Final = JobState.JOB_STATE_SUCCEEDED
ENDED: Final = frozenset({SUCCEEDED, *range(JobState.JOB_STATE_FAILED, 7)})
HEADERS: Final = (("authorization", f"Bearer {CLIENT_KEY}"),)
PROMPT: Final = re.compile(r"\S+ stream \d+")
TITLE: Final = "jobs under kill -9"
COLUMNS: Final = ("", "kills", "jobs", "answers begun again", "watches resumed", "seconds")
STEPS: Final = {"completion": 1, "research": 3}


class JobMeter(Meter):
    """Finds what it is to do in any prompt, since research puts its own words around it."""

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: Any
    ) -> None:
        content = body["messages"][-1]["content"]
        found = PROMPT.search(content if isinstance(content, str) else content[0]["text"])
        assert found is not None
        await super()._answer(reader, writer, {**body, "messages": [{"content": found[0]}]})


@asynccontextmanager
async def metering() -> AsyncIterator[Meter]:
    """On a free port of loopback."""
    meter = JobMeter(PACE_S)
    server = await asyncio.start_server(meter.serve, "127.0.0.1", 0)
    meter.port = server.sockets[0].getsockname()[1]
    try:
        yield meter
    finally:
        server.close()


@dataclass
class Watched:
    """A job, and what its one watcher has seen of it over all lives.

    Attributes:
        id: known once its creation was answered; it may have happened before.
    """

    mark: str
    kind: str
    tokens: int
    id: str = ""
    events: list[WatchJobResponse] = field(default_factory=list)
    resumed: int = 0

    @property
    def request(self) -> CreateJobRequest:
        text = f"{self.mark} stream {self.tokens}"
        message = Message(role=Role.ROLE_USER, parts=[Part(text=text)])
        spec = CompletionSpec(model="m", messages=[message], end_user_id=self.mark)
        return CreateJobRequest(kind=self.kind, spec=spec, idempotency_key=self.mark)

    @property
    def last(self) -> int:
        return self.events[-1].sequence if self.events else 0

    @property
    def has_ended(self) -> bool:
        return bool(self.events) and self.events[-1].job.state in ENDED

    async def follow(self, channel: grpc.aio.Channel) -> None:
        """Make it, if that is not known to have happened, and watch it on from what was seen."""
        stub: Any = JobServiceStub(channel)
        if not self.id:
            call = stub.CreateJob(self.request, metadata=HEADERS, timeout=LIMIT_S)
            self.id = (await call).job.id
        self.resumed += bool(self.events)
        asked = WatchJobRequest(job_id=self.id, after_sequence=self.last)
        async for event in stub.WatchJob(asked, metadata=HEADERS, timeout=LIMIT_S):
            assert event.sequence == self.last + 1, (self.mark, event, self.last)
            self.events.append(event)

    def check(self) -> int:
        """All of it. Returns how often a part of it began again."""
        told = [e.completion_event for e in self.events if e.HasField("completion_event")]
        jobs = [e.job for e in self.events if e.HasField("job")]
        assert [job.state for job in jobs if job.state in ENDED] == [SUCCEEDED], jobs[-1]
        answers = [e.completed.completion for e in told if e.HasField("completed")]
        assert len(answers) == STEPS[self.kind], (self.mark, len(answers))
        texts, resets = [""], 0
        for event in told:
            texts[-1] += event.text_delta.text
            if event.HasField("stream_reset"):
                texts[-1] = ""
                resets += 1
            elif event.HasField("completed"):
                said = event.completed.completion.choices[0].message.parts[0].text
                assert texts[-1] == said == TOKEN * self.tokens, self.mark
                texts.append("")
        result = jobs[-1]
        if self.kind == "completion":
            assert result.completion == answers[0]
        else:
            assert result.research.report.startswith((TOKEN * self.tokens).strip())
        return resets


class World:
    """One database, the services that live and die on it, and the jobs of their only caller."""

    def __init__(self, spawning: Spawner, config: Path, random: Random, max_life_s: float) -> None:
        self._spawner = spawning
        self._config = config
        self._random = random
        self._max_life_s = max_life_s
        self._is_granted = False
        self.jobs: list[Watched] = []
        self.kills = 0

    async def live(self, *, is_last: bool = False) -> None:
        """A service is started, works, and is killed at some moment; the last one when all is done."""
        life = await self._spawner.start(self._config)
        life_s = self._random.uniform(MIN_LIFE_S, self._max_life_s)
        if not is_last and self._is_granted and self._random.random() < 0.2:
            await asyncio.sleep(life_s)  # Maybe before it listens.
        else:
            assert await life.listens(), life.said
            await self._work(life, None if is_last else life_s)
        await self._spawner.kill(life)
        self.kills += not is_last
        assert "Traceback" not in life.said, life.said

    async def _work(self, life: Life, life_s: float | None) -> None:
        async with calling(life) as callers:
            if not self._is_granted:
                await callers.grant(GRANT, "grant")
                self._is_granted = True
            while life_s is not None and self._open < AT_ONCE:
                self._add()
            following = [
                asyncio.create_task(job.follow(callers.channel))
                for job in self.jobs
                if not job.has_ended
            ]
            if life_s is None:
                await asyncio.wait_for(asyncio.gather(*following), LIMIT_S)
                await self._compare(callers.channel)
            else:
                await asyncio.sleep(life_s)
                life.kill()
                for ended in await asyncio.gather(*following, return_exceptions=True):
                    if isinstance(ended, BaseException):
                        assert isinstance(ended, grpc.aio.AioRpcError), ended
                        assert ended.code() is grpc.StatusCode.UNAVAILABLE, ended

    @property
    def _open(self) -> int:
        return sum(not job.has_ended for job in self.jobs)

    def _add(self) -> None:
        number = len(self.jobs) + 1
        kind = "research" if number % 5 == 0 else "completion"
        tokens = self._random.randint(1, MAX_TOKENS if kind == "completion" else 20)
        self.jobs.append(Watched(f"mark-{number}", kind, tokens))

    async def _compare(self, channel: grpc.aio.Channel) -> None:
        """What is told from the beginning is what was told piece by piece; and there is no other job."""
        stub: Any = JobServiceStub(channel)
        listed: list[Job] = []
        token = ""
        while not listed or token:
            asked = ListJobsRequest(page_token=token)
            page = await stub.ListJobs(asked, metadata=HEADERS, timeout=LIMIT_S)
            listed, token = [*listed, *page.jobs], page.next_page_token
        assert [job.id for job in listed] == sorted((job.id for job in self.jobs), reverse=True)
        for job in self.jobs:
            call = stub.WatchJob(WatchJobRequest(job_id=job.id), metadata=HEADERS, timeout=LIMIT_S)
            assert [event async for event in call] == job.events, job.mark


def _answered() -> Transaction[dict[str, list[tuple[int, int]]]]:
    rows = yield Statement(
        "SELECT end_user, input_tokens, output_tokens FROM requests WHERE reason = 'OK' ORDER BY end_user"
    )
    found: dict[str, list[tuple[int, int]]] = {}
    for mark, *tokens in rows:
        found.setdefault(mark, []).append((tokens[0], tokens[1]))
    return found


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
            for n in range(1, 9)
        ),
        *(
            pytest.param("postgres", KILLS, n, id=f"postgres-{n}", marks=pytest.mark.slow)
            for n in range(1, 3)
        ),
    ],
)
async def test_no_job_is_lost_or_ended_twice_and_watchers_go_on_without_a_gap(
    new_url: str,
    backend: str,
    kills: int,
    seed: int,
    tmp_path: Path,
    tables: Tables,
    request: pytest.FixtureRequest,
) -> None:
    began_s = monotonic()

    async with (
        metering() as meter,
        spawner(tmp_path, new_url, "tests.jobs.spawner") as spawning,
    ):
        config = configure(tmp_path, meter)
        world = World(spawning, config, Random(seed), MAX_LIFE_S[backend])
        while world.kills < kills:
            await world.live()
        await world.live(is_last=True)
        async with reading(new_url) as storage:
            problems = await storage.read(lambda: ledger.problems(is_deep=True))
            answered = await storage.read(_answered)

    resets = sum(job.check() for job in world.jobs)
    assert problems == []
    assert answered == {
        job.mark: [(INPUT_TOKENS, job.tokens)] * STEPS[job.kind] for job in world.jobs
    }
    assert kills == world.kills
    resumed = Counter(job.resumed for job in world.jobs)
    watches = sum(times * count for times, count in resumed.items())
    assert watches > 0
    tables.table(TITLE, COLUMNS).add(
        request.node.callspec.id,
        *(world.kills, len(world.jobs), resets, watches, f"{monotonic() - began_s:.0f}"),
    )
