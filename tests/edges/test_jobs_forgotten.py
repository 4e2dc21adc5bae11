"""What a job has said goes with the job, wherever it was kept."""

import asyncio
import sqlite3
from contextlib import closing
from typing import Final

import grpc
import pytest

from tests.edges.observed import LIMIT_S, spec
from tests.support.service import service_over
from tests.support.upstream import answer, upstream
from trunkline.v1.job_service_pb2 import CreateJobRequest, ListJobsRequest, WatchJobRequest
from trunkline.v1.job_service_pb2_grpc import JobServiceStub
from trunkline_server.jobs import service as jobs
from trunkline_server.storage.upgrade import upgrade

pytestmark = pytest.mark.once

STEPS: Final = "operation_outputs"  # Where the library keeps what was done.


def rows(path: str, table: str) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


async def test_a_job_of_an_earlier_life_is_forgotten_by_the_library_too(tmp_path, monkeypatch):
    url = f"sqlite:{tmp_path}/state.db"
    upgrade(url)
    library = f"{tmp_path}/state.db.jobs"
    sections = {"state": {"database_url": url}}
    async with upstream(answer("A secret.")) as good:
        async with (
            service_over(good.url, **sections, jobs={"keep_days": 1e-6}) as first,
            grpc.aio.insecure_channel(first.grpc_address) as channel,
        ):
            stub = JobServiceStub(channel)
            asked = CreateJobRequest(kind="completion", spec=spec("m-a"))
            job = (await stub.CreateJob(asked, timeout=LIMIT_S)).job
            async for _ in stub.WatchJob(WatchJobRequest(job_id=job.id), timeout=LIMIT_S):
                pass
        before = rows(library, STEPS)
        monkeypatch.setattr(jobs, "UPKEEP_S", 0.1)
        async with (
            service_over(good.url, **sections) as second,
            grpc.aio.insecure_channel(second.grpc_address) as channel,
            asyncio.timeout(LIMIT_S),
        ):
            stub = JobServiceStub(channel)
            while (await stub.ListJobs(ListJobsRequest(), timeout=LIMIT_S)).jobs:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.05)

    assert (before, rows(library, STEPS)) == (1, 0)
