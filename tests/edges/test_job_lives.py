"""Jobs and the service around them: its limits, its end, and its accounts."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from tests.edges.errors import fields_of, reason_of
from tests.edges.observed import LIMIT_S, spec
from tests.edges.test_jobs import QUEUED, RUNNING, SUCCEEDED, Asker, kinds
from tests.support.accounts import PREPAID, desk, new_sqlite
from tests.support.service import model, provider, service
from tests.support.upstream import Exchange, Hang, Step, answer, delta, event, head, upstream
from trunkline.v1.admin_service_pb2 import RevokeKeyRequest
from trunkline.v1.completion_service_pb2 import CompleteRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.job_service_pb2 import WatchJobResponse
from trunkline_server.storage.upgrade import upgrade

pytestmark = pytest.mark.once


async def test_what_is_not_set_up_is_told(tmp_path):
    sections: dict[str, Any] = {
        "providers": [provider("a", "http://127.0.0.1:9")],
        "models": [model("m", "a")],
    }
    async with (
        service(**sections) as started,
        grpc.aio.insecure_channel(started.grpc_address) as channel,
    ):
        asker = Asker(channel)
        video = await asker.error(asker.create(kind="video"))
        callback = await asker.error(asker.create(callback_url="https://example.com"))

    assert (video.code(), fields_of(video)) == (grpc.StatusCode.UNIMPLEMENTED, ["kind"])
    assert (callback.code(), fields_of(callback)) == (
        grpc.StatusCode.UNIMPLEMENTED,
        ["callback_url"],
    )


async def test_jobs_wait_for_a_place_expire_and_are_refused_when_too_many_wait():
    def script(exchange: Exchange) -> Sequence[Step]:
        return [head(), event(delta("Hel")), Hang()]

    async with upstream(script) as models:
        sections: dict[str, Any] = {
            "providers": [provider("a", models.url)],
            "models": [model("m", "a")],
            "jobs": {"max_running": 1, "max_queued": 1, "max_s": 1},
        }
        async with (
            service(**sections) as started,
            grpc.aio.insecure_channel(started.grpc_address) as channel,
        ):
            asker = Asker(channel)
            first = await asker.create()
            await asker.watched_until(first.id, "text_delta")
            second = await asker.create()
            refused = await asker.error(asker.create())
            waiting = await asker.get(second.id)
            ended = await asker.watch(first.id)
            # Its turn has come.
            await asker.watched_until(second.id, "text_delta")
            running = await asker.get(second.id)

    assert reason_of(refused) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
    assert waiting.state == QUEUED
    assert kinds(ended)[-1] == "expired"
    took_s = (
        ended[-1].job.end_time.ToNanoseconds() - ended[-1].job.start_time.ToNanoseconds()
    ) / 1e9
    assert 1.0 <= took_s < 6.0
    assert running.state == RUNNING


async def _read_on(call: Any, seen: list[WatchJobResponse]) -> None:
    seen += [each async for each in call]


async def test_a_job_that_a_shutdown_interrupts_goes_on_at_the_next_start(tmp_path):
    async def script(exchange: Exchange) -> Sequence[Step]:
        if len(models.exchanges) == 1:
            return [head(), event(delta("Hel")), Hang()]
        return answer("Hello again")

    url = f"sqlite:{tmp_path / 'state.db'}"
    upgrade(url)
    async with upstream(script) as models:
        sections: dict[str, Any] = {
            "providers": [provider("a", models.url)],
            "models": [model("m", "a")],
            "state": {"database_url": url},
            "server": {"drain_s": 3},
        }
        async with (
            service(**sections) as started,
            grpc.aio.insecure_channel(started.grpc_address) as channel,
        ):
            asker = Asker(channel)
            created = await asker.create()
            call = asker.watching(created.id)
            seen = []
            async for each in call:
                seen.append(each)
                if each.completion_event.HasField("text_delta"):
                    break
            draining = asyncio.create_task(started.drain())
            sent_away = await asker.error(_read_on(call, seen))
            await asyncio.wait_for(draining, LIMIT_S)
        async with (
            service(**sections) as started,
            grpc.aio.insecure_channel(started.grpc_address) as channel,
        ):
            rest = await Asker(channel).watch(created.id, seen[-1].sequence)

    assert reason_of(sent_away) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    events = [*seen, *rest]
    assert [each.sequence for each in events] == list(range(1, len(events) + 1))
    assert kinds(rest) == [
        "stream_reset",
        "started",
        "route_selected",
        "text_delta",
        "choice_finished",
        "completed",
        "succeeded",
    ]
    assert rest[-1].job.completion.choices[0].message.parts[0].text == "Hello again"


async def test_a_job_is_charged_once_to_its_caller_and_fails_when_the_key_is_revoked(tmp_path):
    def script(exchange: Exchange) -> Sequence[Step]:
        if exchange.json["messages"][-1]["content"] == "hang":
            return [head(), event(delta("Hel")), Hang()]
        return answer("Hello")

    async with upstream(script) as models:
        sections: dict[str, Any] = {"plans": [PREPAID], "jobs": {"max_running": 1}}
        async with desk(new_sqlite(tmp_path), models.url, **sections) as at:
            metadata = await at.new_key(plan="prepaid", name="jobs")
            await at.grant(10**9)
            asker = Asker(at.channel, metadata)
            job = (await asker.watch((await asker.create()).id))[-1].job
            charged = 10**9 - (await at.balance()).available_nanos
            # A completion under the key of the job's is the job's.
            stub: Any = CompletionServiceStub(at.channel)
            asked = CompleteRequest(spec=spec("m", "hello"), idempotency_key=f"{job.id}:answer")
            replay = [e async for e in stub.Complete(asked, metadata=metadata, timeout=LIMIT_S)]
            after = 10**9 - (await at.balance()).available_nanos
            blocker = await asker.create("hang")
            await asker.watched_until(blocker.id, "text_delta")
            waiting = await asker.create()
            other = Asker(at.channel, await at.new_key(plan="prepaid", name="other"))
            key_id = metadata[0][1].split("_")[2]
            await at.admin.RevokeKey(RevokeKeyRequest(key_id=key_id), metadata=at.root)
            await other.cancel(blocker.id)
            events = await other.watch(waiting.id)

    assert job.state == SUCCEEDED
    assert job.completion.usage.cost.amount_nanos == charged == after > 0
    assert replay[-1].completed.completion.id == job.completion.id
    assert kinds(events)[-1] == "failed"
    assert events[-1].job.error.code == grpc.StatusCode.UNAUTHENTICATED.value[0]
