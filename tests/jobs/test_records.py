"""The rules that jobs are kept by, on every database."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from trunkline.v1.job_service_pb2 import JobState
from trunkline_server.core.errors import IdempotencyConflict, Overloaded
from trunkline_server.core.transactions import Storage
from trunkline_server.jobs import records
from trunkline_server.jobs.callbacks import PAUSES_S, Callbacks
from trunkline_server.jobs.records import FOREVER_US, LEFT_US, Event, Lost, Record, TooManyEvents

SECOND = 1_000_000
JOB = Record(
    id="job_1",
    owner="acme",
    key_id="k",
    kind="completion",
    spec=b"spec",
    metadata_json="",
    state=JobState.JOB_STATE_QUEUED,
    created_us=1,
    expires_us=100 * SECOND,
)
RUN = partial(records.begin, event=Event(b"running"), now_us=10, lease_until_us=20, max_us=50)
DONE = replace(JOB, state=JobState.JOB_STATE_SUCCEEDED, ended_us=30, expires_us=90, result=b"r")


async def created(storage: Storage, job: Record = JOB, key: str = "", queued: int = 9) -> Any:
    make = partial(
        records.create,
        job,
        Event(b"queued"),
        idempotency_key=key,
        fingerprint=job.spec,
        max_queued=queued,
    )
    return await storage.write(make)


async def begun(storage: Storage, runner: str = "a") -> Record:
    await created(storage)
    found = await storage.write(lambda: RUN(JOB, runner=runner))
    assert found is not None
    return found


async def told(storage: Storage) -> list[tuple[int, bytes]]:
    return await storage.read(lambda: records.events("job_1", 0, 99))


async def test_a_job_has_one_runner_until_its_lease_has_run_out(storage):
    first = await begun(storage)
    second = await storage.write(lambda: RUN(first, runner="b"))
    third = await storage.write(lambda: RUN(first, runner="b", now_us=21))

    assert (first.state, first.runner, first.starts) == (JobState.JOB_STATE_RUNNING, "a", 1)
    assert second is None
    assert third is not None
    assert (third.runner, third.starts, third.started_us) == ("b", 2, 10)
    assert await told(storage) == [(1, b"queued"), (2, b"running")]


async def test_events_are_written_once_however_often_it_is_tried(storage):
    await begun(storage)
    make = partial(records.append, "job_1", "a", 2, [Event(b"x"), Event(b"y")], 5)

    assert [await storage.write(make) for _ in range(3)] == [4, 4, 4]
    assert await told(storage) == [(1, b"queued"), (2, b"running"), (3, b"x"), (4, b"y")]


@pytest.mark.parametrize("loss", ["other runner", "ended", "other events"])
async def test_who_has_lost_a_job_writes_nothing_more(storage, loss):
    first = await begun(storage)
    if loss == "other runner":
        await storage.write(lambda: RUN(first, runner="b", now_us=21))
    elif loss == "ended":
        await storage.write(partial(records.finish, DONE, Event(b"done"), now_us=30))
    else:
        await storage.write(partial(records.append, "job_1", "a", 2, [Event(b"x")] * 2, 5))
    before = await told(storage)

    with pytest.raises(Lost):
        await storage.write(partial(records.append, "job_1", "a", 2, [Event(b"z")], 5))
    assert await told(storage) == before


async def test_a_job_tells_no_more_than_its_limit(storage, monkeypatch):
    monkeypatch.setattr(records, "MAX_EVENT_BYTES", 3)
    await begun(storage)
    await storage.write(partial(records.append, "job_1", "a", 2, [Event(b"abc")], 5))

    with pytest.raises(TooManyEvents):
        await storage.write(partial(records.append, "job_1", "a", 3, [Event(b"d")], 5))


async def test_of_all_who_end_a_job_at_once_one_does(storage):
    await begun(storage)
    ends: Sequence[JobState.ValueType] = [
        JobState.JOB_STATE_SUCCEEDED,
        JobState.JOB_STATE_CANCELLED,
        JobState.JOB_STATE_EXPIRED,
    ]
    made = [
        partial(records.finish, replace(DONE, state=s), Event(JobState.Name(s).encode()), now_us=30)
        for s in ends
    ]

    won = await asyncio.gather(*(storage.write(make) for make in made))
    job = await storage.read(lambda: records.find("job_1"))

    assert sorted(won) == [False, False, True]
    assert job is not None
    name = JobState.Name(job.state).encode()
    assert await told(storage) == [(1, b"queued"), (2, b"running"), (3, name)]


async def test_who_is_no_longer_the_runner_ends_nothing(storage):
    await begun(storage)

    with pytest.raises(Lost):
        await storage.write(
            partial(records.finish, DONE, Event(b"done"), only_runner="b", now_us=30)
        )


async def test_a_job_that_nobody_attends_to_is_claimed_once(storage):
    await created(storage)
    assert await storage.read(lambda: records.unfinished(5)) == (True, True)

    claims = await asyncio.gather(
        *(storage.write(partial(records.claim, 5, 50, 9)) for _ in range(3))
    )
    await storage.write(partial(records.entrust, "job_1"))
    entrusted = await storage.read(lambda: records.unfinished(FOREVER_US))
    await storage.write(records.adopt)
    again = await storage.write(partial(records.claim, 5, 50, 9))

    assert sorted(claims) == [[], [], [("job_1", True)]]
    assert entrusted == (True, False)
    assert again == [("job_1", False)]


async def test_a_runner_that_goes_leaves_its_jobs_to_others(storage):
    await begun(storage)
    kept = await storage.write(partial(records.renew, "a", 60))
    await storage.write(partial(records.release, "a"))
    job = await storage.read(lambda: records.find("job_1"))

    assert kept == {"job_1"}
    assert await storage.write(partial(records.renew, "a", 60)) == frozenset()
    assert job is not None
    assert (job.runner, job.lease_until_us) == ("", LEFT_US)


async def test_a_key_makes_one_job_and_the_queue_has_an_end(storage):
    job, is_new = await created(storage, key="one")
    again, is_again_new = await created(storage, replace(JOB, id="job_2"), key="one")
    with pytest.raises(IdempotencyConflict):
        await created(storage, replace(JOB, id="job_2", spec=b"other"), key="one")
    with pytest.raises(Overloaded):
        await created(storage, replace(JOB, id="job_2"), queued=1)

    assert (job.id, is_new) == (again.id, not is_again_new) == ("job_1", True)


async def test_what_was_kept_long_enough_is_forgotten_with_its_events(storage):
    await begun(storage)
    await storage.write(partial(records.finish, DONE, Event(b"done"), now_us=30))

    early = await storage.read(partial(records.old, 89, 9))
    old = await storage.read(partial(records.old, 90, 9))
    await storage.write(partial(records.forget, old))

    assert (early, old) == ([], ["job_1"])
    assert await storage.read(lambda: records.find("job_1")) is None
    assert await told(storage) == []


async def test_an_end_is_told_until_it_is_heard_and_then_no_more(storage):
    now_us = 30
    heard: list[tuple[str, str]] = []

    async def deliver(url: str, body: bytes, id_: str) -> str:
        heard.append((url, id_))
        return "" if len(heard) == 3 else "status 500"

    callbacks = Callbacks(storage, deliver, lambda: now_us)
    await created(storage, replace(JOB, callback_url="https://e.com"))
    end = replace(DONE, callback_url="https://e.com")
    await storage.write(partial(records.finish, end, Event(b"done"), now_us=30))
    counts = []
    for pause_s in (0.0, PAUSES_S[0] - 1, 1.0, PAUSES_S[1], 10**6):
        now_us += round(pause_s * SECOND)
        while await callbacks.tell_next(deliver):
            pass
        counts.append(len(heard))

    assert counts == [1, 1, 2, 3, 3]
    assert set(heard) == {("https://e.com", "job_1")}
