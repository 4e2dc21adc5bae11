"""Jobs over gRPC: what their callers see of them, from the queue to the callback."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio
from standardwebhooks import Webhook

from tests.edges.errors import fields_of, reason_of
from tests.edges.observed import LIMIT_S, spec
from tests.faults.waiting import until
from tests.support.service import model, provider, service
from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Step,
    Upstream,
    answer,
    delta,
    event,
    finish,
    head,
    upstream,
    usage,
    whole,
)
from trunkline import AsyncClient
from trunkline.v1.job_service_pb2 import (
    CancelJobRequest,
    CreateJobRequest,
    GetJobRequest,
    Job,
    JobState,
    ListJobsRequest,
    MediaResult,
    WatchJobRequest,
    WatchJobResponse,
)
from trunkline.v1.job_service_pb2_grpc import JobServiceStub
from trunkline.v1.message_pb2 import Artifact
from trunkline_server.cli import main

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.once]

SECRET = "whsec_" + "c2VjcmV0IHRoYXQgaXMgbG9uZyBlbm91Z2ggZm9yIGl0"
RED = {"id": "red", "key_env": "RED", "organization": "red"}
BLUE = {"id": "blue", "key_env": "BLUE", "organization": "blue"}
ENVIRONMENT = {"RED": "red-key", "BLUE": "blue-key", "HOOK": SECRET, "CLIPS": "clips-key"}
QUEUED = JobState.JOB_STATE_QUEUED
RUNNING = JobState.JOB_STATE_RUNNING
SUCCEEDED = JobState.JOB_STATE_SUCCEEDED
FAILED = JobState.JOB_STATE_FAILED
CANCELLED = JobState.JOB_STATE_CANCELLED
EXPIRED = JobState.JOB_STATE_EXPIRED
CLIP = b"\x00\x00\x00\x18ftypmp42"


@dataclass
class Asker:
    """Somebody with a key."""

    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...] = ()
    target: str = ""

    @property
    def _stub(self) -> Any:
        return JobServiceStub(self.channel)

    async def create(self, text: str = "hello", **more: Any) -> Job:
        request = CreateJobRequest(**{"kind": "completion", "spec": spec("m", text), **more})
        call = self._stub.CreateJob(request, metadata=self.metadata, timeout=LIMIT_S)
        job: Job = (await call).job
        return job

    async def get(self, job_id: str) -> Job:
        request = GetJobRequest(job_id=job_id)
        call = self._stub.GetJob(request, metadata=self.metadata, timeout=LIMIT_S)
        job: Job = (await call).job
        return job

    async def page(self, size: int = 0, token: str = "") -> Any:
        request = ListJobsRequest(page_size=size, page_token=token)
        return await self._stub.ListJobs(request, metadata=self.metadata, timeout=LIMIT_S)

    async def cancel(self, job_id: str) -> Job:
        request = CancelJobRequest(job_id=job_id)
        call = self._stub.CancelJob(request, metadata=self.metadata, timeout=LIMIT_S)
        job: Job = (await call).job
        return job

    async def watch(self, job_id: str, after: int = 0) -> list[WatchJobResponse]:
        """All of it, to the end of the job."""
        return [event async for event in self.watching(job_id, after)]

    def watching(self, job_id: str, after: int = 0) -> Any:
        request = WatchJobRequest(job_id=job_id, after_sequence=after)
        return self._stub.WatchJob(request, metadata=self.metadata, timeout=LIMIT_S)

    async def watched_until(self, job_id: str, field: str) -> list[WatchJobResponse]:
        """Up to the first event of a completion that is of this kind."""
        call = self.watching(job_id)
        found = []
        async for each in call:
            found.append(each)
            if each.completion_event.WhichOneof("event") == field:
                break
        call.cancel()
        return found

    async def error(self, what: Any) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await what
        return raised.value


def kinds(events: Sequence[WatchJobResponse]) -> list[str]:
    """What each event tells."""
    return [
        JobState.Name(each.job.state).removeprefix("JOB_STATE_").lower()
        if each.HasField("job")
        else str(each.completion_event.WhichOneof("event"))
        for each in events
    ]


def text_of(events: Sequence[WatchJobResponse]) -> str:
    return "".join(each.completion_event.text_delta.text for each in events)


def fetches(url: str) -> list[Step]:
    """A model turn that calls `look`."""
    function = {"name": "look", "arguments": json.dumps({"url": url})}
    call = {"index": 0, "id": "c1", "type": "function", "function": function}
    chosen = event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
    return [head(), chosen, event(finish("tool_calls")), event(usage()), event("[DONE]"), END]


@dataclass
class World:
    """A service, who answers for it, and everybody else: pages, clips and those who are called back."""

    red: Asker
    blue: Asker
    models: Upstream
    others: Upstream

    @property
    def elsewhere(self) -> str:
        return f"http://127.0.0.1:{self.others.port}"


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    def model_says(exchange: Exchange) -> Sequence[Step]:
        messages = exchange.json["messages"]
        said = messages[-1]["content"]
        asked = next(m["content"] for m in reversed(messages) if m["role"] == "user")
        if said == "hang":
            return [head(), event(delta("Hel")), Hang()]
        if said == "fail":
            return whole({"error": {"message": "no"}}, 400)
        if "List at most" in asked:
            return answer("1. How old is it?\n", "2. How large is it?")
        if "Answer this part" in asked and "tools" in exchange.json:
            if messages[-1]["role"] == "tool":
                return answer("Seven.")
            return fetches(f"http://127.0.0.1:{others.port}/page?{len(asked)}")
        if "Write the report" in asked:
            return answer("# It\n\n", "Seven [1].")
        return answer("Hel", "lo")

    def others_say(exchange: Exchange) -> Sequence[Step]:
        match exchange.head.split(" ")[:2]:
            case ["POST", "/v1/videos"]:
                return whole({"id": "v 1", "status": "queued", "progress": 0})
            case ["GET", "/v1/videos/v%201"]:
                looks.append(1)
                status = "in_progress" if len(looks) < 2 else "completed"
                return whole({"id": "v 1", "status": status, "progress": 40})
            case ["GET", "/v1/videos/v%201/content"]:
                size = len(CLIP)
                lines = f"HTTP/1.1 200 X\r\ncontent-type: video/mp4\r\ncontent-length: {size}\r\n"
                return [f"{lines}\r\n".encode() + CLIP]
            case _:
                return whole({"age": 7})

    looks: list[int] = []
    async with upstream(model_says) as models, upstream(others_say) as others:
        at = f"127.0.0.1:{others.port}"
        sections = {
            "providers": [provider("a", models.url)],
            "models": [model("m", "a")],
            "keys": [RED, BLUE],
            "secrets": {"hook": {"env": "HOOK"}},
            "egress": {"allowed_hosts": [at]},
            "tools": [{"name": "look", "builtin": "http_get", "config": {"hosts": [at]}}],
            "jobs": {
                "callback_secret": "hook",
                "video_url": f"{others.url}/v1",
                "video_api_key_env": "CLIPS",
                "video_model": "clips-1",
            },
        }
        async with (
            service(environment=ENVIRONMENT, **sections) as started,
            grpc.aio.insecure_channel(started.grpc_address) as channel,
        ):
            red, blue = (
                Asker(channel, (("authorization", f"Bearer {key}"),), started.grpc_address)
                for key in ("red-key", "blue-key")
            )
            yield World(red, blue, models, others)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def found() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def test_a_completion_is_told_event_by_event_and_its_result_is_kept(found):
    created = await found.red.create(spec=spec("m", "hello", metadata_json='{"a":1}'))
    events = await found.red.watch(created.id)
    job = await found.red.get(created.id)

    assert (created.kind, created.state, created.last_sequence) == ("completion", QUEUED, 1)
    assert [each.sequence for each in events] == list(range(1, len(events) + 1))
    assert kinds(events) == [
        "queued",
        "running",
        "started",
        "route_selected",
        "text_delta",
        "choice_finished",
        "completed",
        "succeeded",
    ]
    assert text_of(events) == "Hello"
    assert events[-1].job == job
    assert (job.state, job.progress_percent, job.metadata_json) == (SUCCEEDED, 100, '{"a":1}')
    assert job.completion.choices[0].message.parts[0].text == "Hello"
    assert job.completion == events[-2].completion_event.completed.completion
    assert job.create_time.ToNanoseconds() <= job.start_time.ToNanoseconds()
    assert job.start_time.ToNanoseconds() <= job.end_time.ToNanoseconds()
    assert job.expire_time.seconds - job.end_time.seconds == 7 * 86_400


async def test_who_watches_goes_on_after_what_was_seen(found):
    created = await found.red.create()
    events = await found.red.watch(created.id)

    for after in range(len(events) + 1):
        assert await found.red.watch(created.id, after) == events[after:]
    error = await found.red.error(found.red.watch(created.id, len(events) + 1))
    assert fields_of(error) == ["after_sequence"]


async def test_jobs_are_their_organisations_own(found):
    created = await found.red.create()

    for asked in (
        found.blue.get(created.id),
        found.blue.cancel(created.id),
        found.blue.watch(created.id),
        found.red.get("job_" + "0" * 26),
        found.red.get("no id"),
    ):
        assert reason_of(await found.red.error(asked)) == (
            grpc.StatusCode.NOT_FOUND,
            "JOB_NOT_FOUND",
        )
    assert created.id not in [job.id for job in (await found.blue.page()).jobs]
    assert created.id in [job.id for job in (await found.red.page()).jobs]


async def test_lists_come_newest_first_page_by_page_without_results(found):
    made = [(await found.blue.create()).id for _ in range(3)]
    for job_id in made:
        await found.blue.watch(job_id)

    first = await found.blue.page(2)
    second = await found.blue.page(2, first.next_page_token)

    assert [job.id for job in (*first.jobs, *second.jobs)][:3] == made[::-1]
    assert not any(job.HasField("completion") for job in first.jobs)
    error = await found.blue.error(found.blue.page(2, "x"))
    assert fields_of(error) == ["page_token"]


async def test_the_same_key_makes_the_same_job_once(found):
    created = await found.red.create(idempotency_key="one")
    again = await found.red.create(idempotency_key="one")
    others = await found.blue.create(idempotency_key="one")
    error = await found.red.error(found.red.create("else", idempotency_key="one"))

    assert again.id == created.id
    assert others.id != created.id
    assert reason_of(error) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")


async def test_cancelled_in_the_middle_it_closes_its_upstream_and_ends_once(found):
    created = await found.red.create("hang")
    seen = await found.red.watched_until(created.id, "text_delta")

    cancelled = await found.red.cancel(created.id)
    exchange = next(e for e in found.models.exchanges if b'"hang"' in e.body)
    await asyncio.wait_for(exchange.closed.wait(), LIMIT_S)
    again = await found.red.cancel(created.id)
    events = await found.red.watch(created.id)

    assert cancelled.state == CANCELLED
    assert again == cancelled
    assert events[: len(seen)] == seen
    assert kinds(events)[len(seen) :] == ["cancelled"]


async def test_a_job_whose_completion_fails_tells_why(found):
    created = await found.red.create("fail")
    events = await found.red.watch(created.id)
    job = events[-1].job

    assert (job.state, job.error.code) == (FAILED, grpc.StatusCode.INVALID_ARGUMENT.value[0])
    assert kinds(events) == ["queued", "running", "failed"]


async def test_who_asked_for_it_is_called_back_signed(found):
    url = f"{found.elsewhere}/back"
    created = await found.red.create(
        callback_url=url, spec=spec("m", "hello", metadata_json='{"order": 17}')
    )
    job = (await found.red.watch(created.id))[-1].job
    exchanges = found.others.exchanges
    await until(lambda: any(e.path == "/back" for e in exchanges), "a callback")
    told = [e for e in exchanges if e.path == "/back"]

    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    headers = {name: told[0].header(name) or "" for name in names}
    said = Webhook(SECRET).verify(told[0].body, headers)
    assert headers["webhook-id"] == created.id
    assert said == {
        "type": "job.succeeded",
        "timestamp": job.end_time.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ"),
        "data": {
            "id": created.id,
            "kind": "completion",
            "state": "succeeded",
            "create_time": job.create_time.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "end_time": job.end_time.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "metadata": {"order": 17},
        },
    }


async def test_research_plans_looks_things_up_and_writes_a_report_with_its_sources(found):
    options = {"mode_options_json": '{"depth": 1}'}
    created = await found.red.create(kind="research", spec=spec("m", "Tell me of it.", **options))
    events = await found.red.watch(created.id)
    job = events[-1].job

    pages = [e.path for e in found.others.exchanges if e.path.startswith("/page")]
    assert job.state == SUCCEEDED, job.error
    assert [citation.url for citation in job.research.sources] == [
        f"{found.elsewhere}{page}" for page in pages
    ]
    assert len(pages) == 2
    listed = "\n".join(f"{n}. <{found.elsewhere}{page}>" for n, page in enumerate(pages, 1))
    assert job.research.report == f"# It\n\nSeven [1].\n\n## Sources\n\n{listed}\n"
    # A plan, two answers of two turns each, and the report.
    assert job.research.usage.output_tokens == 6 * 4
    progress = [each.job.progress_percent for each in events if each.HasField("job")]
    assert progress == sorted(progress)
    assert progress[-2:] == [95, 100]


async def test_a_video_is_asked_for_waited_for_and_fetched(found):
    options = {"mode_options_json": '{"seconds": "4"}'}
    created = await found.red.create(kind="video", spec=spec("auto", "A cat.", **options))
    events = await found.red.watch(created.id)

    asked = next(e for e in found.others.exchanges if e.path == "/v1/videos")
    assert asked.json == {"model": "clips-1", "prompt": "A cat.", "seconds": "4"}
    assert asked.header("authorization") == "Bearer clips-key"
    assert asked.header("idempotency-key") == created.id
    assert [(each.job.state, each.job.progress_percent) for each in events] == [
        (QUEUED, 0),
        (RUNNING, 0),
        (RUNNING, 40),
        (SUCCEEDED, 100),
    ]
    clip = Artifact(
        id=f"{created.id}-1",
        type="video",
        mime_type="video/mp4",
        data=CLIP,
        size_bytes=len(CLIP),
        model="clips-1",
    )
    assert list(events[-1].job.media.artifacts) == list(MediaResult(artifacts=[clip]).artifacts)


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        ({"kind": "x"}, ["kind"]),
        ({"spec": spec("m", "")}, ["spec.messages"]),
        ({"idempotency_key": "k" * 256}, ["idempotency_key"]),
        ({"callback_url": "http://10.0.0.1/back"}, ["callback_url"]),
        ({"callback_url": "https://e.com/" + "x" * 2_048}, ["callback_url"]),
        ({"kind": "research", "spec": spec("m", mode="fast")}, ["spec.mode"]),
        ({"kind": "research", "spec": spec("m", conversation_id="c")}, ["spec.conversation_id"]),
        (
            {"kind": "research", "spec": spec("m", mode_options_json='{"depth": 4}')},
            ["spec.mode_options_json"],
        ),
        (
            {"kind": "video", "spec": spec("m", mode_options_json='{"model": "x"}')},
            ["spec.mode_options_json"],
        ),
    ],
)
async def test_a_job_that_can_not_be_done_is_refused_at_once(found, request_, fields):
    error = await found.red.error(found.red.create(**request_))

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert fields_of(error) == fields


async def test_the_command_lists_shows_watches_and_cancels(found, monkeypatch, capsys):
    monkeypatch.setenv("TRUNKLINE_API_KEY", "red-key")

    async def command(*words: str) -> tuple[int, str, str]:
        target = ["--target", found.red.target]
        code = await asyncio.to_thread(main, ["jobs", words[0], *target, *words[1:]])
        out, err = capsys.readouterr()
        told = [line for line in out.splitlines(keepends=True) if "[info" not in line]
        return code, "".join(told), err  # The service logs in this process.

    created = await found.red.create()
    watched = await command("watch", created.id)
    shown = await command("show", created.id)
    listed = await command("list", "--limit", "1")
    hanging = await found.red.create("hang")
    cancelled = await command("cancel", hanging.id)

    states = "[1: queued, 0 %]\n[2: running, 0 %]\n[8: succeeded, 100 %]\n"
    assert watched == (0, "Hello\n", states)
    assert shown[1].startswith(f"id         {created.id}\n")
    assert shown[1].endswith("\n\nHello\n")
    assert [line.split()[:4] for line in listed[1].splitlines()[1:]] == [
        [created.id, "completion", "succeeded", "100"]
    ]
    assert cancelled == (0, f"{hanging.id}: cancelled\n", "")


async def test_the_python_client_makes_and_watches_jobs(found):
    async with AsyncClient(found.red.target, api_key="red-key") as client:
        created = await client.create_job("completion", spec("m", "hello"), idempotency_key="py")
        events = [event async for event in client.watch_job(created.id)]
        listed = [job async for job in client.list_jobs(page_size=1)]
        job = await client.get_job(created.id)
        cancelled = await client.cancel_job(created.id)

    assert events == await found.red.watch(created.id)
    assert created.id in [each.id for each in listed]
    assert job == cancelled == events[-1].job
