"""Theo's API over sockets: before a service that plays a script, local and remote, and before the whole one."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import httpx
import pytest
import structlog
from google.protobuf.message import Message as Proto
from google.protobuf.timestamp_pb2 import Timestamp

from tests.edges.http11 import serving
from tests.edges.observed import LIMIT_S, observed
from tests.support.service import model, provider, service, service_over
from tests.support.upstream import (
    Exchange,
    Hang,
    Pause,
    Reset,
    answer,
    delta,
    event,
    head,
    hello,
    upstream,
    whole,
)
from tests.support.upstream import Step as Bytes
from trunkline.v1.catalog_service_pb2 import (
    InstallSkillRequest,
    InstallSkillResponse,
    ListModelsRequest,
    ListModelsResponse,
    ListSkillsRequest,
    ListSkillsResponse,
    Model,
    ModelKind,
    Skill,
    UninstallSkillRequest,
    UninstallSkillResponse,
)
from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    RouteSelected,
    StreamCompleted,
    StreamStarted,
    TextDelta,
)
from trunkline.v1.completion_pb2 import Choice, Completion, FinishReason, Route, Usage
from trunkline.v1.completion_service_pb2 import (
    CompleteUnaryRequest,
    CompleteUnaryResponse,
)
from trunkline.v1.completion_spec_pb2 import CacheMode, CachePolicy, CompletionSpec
from trunkline.v1.conversation_service_pb2 import (
    Conversation,
    CreateConversationRequest,
    CreateConversationResponse,
    DeleteConversationRequest,
    DeleteConversationResponse,
    GetConversationRequest,
    GetConversationResponse,
    ListConversationsRequest,
    ListConversationsResponse,
    ListMessagesRequest,
    ListMessagesResponse,
    StoredMessage,
)
from trunkline.v1.job_service_pb2 import (
    CreateJobRequest,
    CreateJobResponse,
    GetJobRequest,
    GetJobResponse,
    Job,
    JobState,
    ResearchResult,
)
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.core.errors import (
    AllProvidersFailed,
    ConversationNotFound,
    InsufficientCredits,
    InvalidApiKey,
    InvalidRequest,
    JobNotFound,
    NotFound,
    Overloaded,
    PermissionDenied,
    RateLimited,
    StorageUnavailable,
    TokenRateLimited,
    TrunklineError,
)
from trunkline_server.edges.grpc.call import Calls, abort_on_error, answer_unary
from trunkline_server.edges.grpc.local import LocalChannel
from trunkline_server.edges.grpc.methods import methods
from trunkline_server.edges.grpc.server import new_server
from trunkline_server.edges.rest.app import RestApp
from trunkline_server.edges.rest.theo import TheoShim

COMPLETIONS: Final = "/api/v1/completions"
CHAT: Final = "/api/v1/chat/completions"
SKILLS: Final = "/api/v1/skills"
CONVERSATIONS: Final = "/api/v1/conversations"
KEY: Final = "sk-a-key-of-these-tests"
HEARTBEAT_S: Final = 0.1  # The least that a service can be set to.
AT: Final = Timestamp(seconds=1_795_377_600)
WRITTEN_AT: Final = "2026-11-22T20:00:00Z"
HELLO: Final = {"prompt": "hi"}


# A service that plays a script

Answer = Proto | TrunklineError | Sequence[Any] | Callable[[Any], Any]
"""Of a unary method a message, of a streaming one a list of events, each perhaps with an error in its place."""


@dataclass
class Theo:
    """The shim before a service that plays a script."""

    http: httpx.AsyncClient
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)


def played(theo: Theo, calls: Calls, answers: dict[str, Answer]) -> dict[str, object]:
    """Servicers of all services, whose methods are those that have an answer."""

    def unary(name: str, given: Answer) -> Any:
        async def serve(_: Any, request: Any, context: Any) -> Any:
            call = calls.read(name, context)
            theo.requests.append(request)
            theo.metadata.append(dict(context.invocation_metadata()))
            async with answer_unary(context, call):
                found = given(request) if callable(given) else given
                if isinstance(found, TrunklineError):
                    raise found
                return found

        return serve

    async def complete(_: Any, request: Any, context: Any) -> AsyncIterator[list[Any]]:
        call = calls.read("Complete", context)
        theo.requests.append(request)
        theo.metadata.append(dict(context.invocation_metadata()))
        given = answers["Complete"]
        steps = given(request) if callable(given) else given
        assert isinstance(steps, Sequence)
        async with abort_on_error(context, call):
            events = [step for step in steps if not isinstance(step, TrunklineError)]
            if events:
                await context.send_initial_metadata([("trunkline-provider", "openai")])
                yield events
            for step in steps:
                if isinstance(step, TrunklineError):
                    raise step

    served = {name: unary(name, given) for name, given in answers.items() if name != "Complete"}
    if "Complete" in answers:
        served["Complete"] = complete
    servicer = type("Played", (), served)()
    services = ("Completion", "Catalog", "Conversation", "Job")
    return {f"trunkline.v1.{name}Service": servicer for name in services}


@asynccontextmanager
async def theo(wire: str, **answers: Answer) -> AsyncIterator[Theo]:
    """Over the local channel all events come as one batch, over a real one as they are sent."""
    calls = Calls(lambda: "01", lambda: "0" * 16)
    found = Theo(http=None)  # type: ignore[arg-type]
    table = methods(played(found, calls, answers), calls)
    if wire == "local":
        async with _theo(LocalChannel(table), found):
            yield found
        return
    server, _health = new_server(table, calls, shares_port=False)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
            _theo(channel, found),
        ):
            yield found
    finally:
        await server.stop(0)


@asynccontextmanager
async def _theo(channel: Any, found: Theo) -> AsyncIterator[None]:
    app = RestApp([TheoShim(channel)], {})
    async with serving(app) as served, asking(f"http://127.0.0.1:{served.port}") as http:
        found.http = http
        yield


@asynccontextmanager
async def asking(url: str, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one server, without certificates, whose reading would take most of a test."""
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=LIMIT_S, verify=False
    ) as http:
        yield http


@pytest.fixture(params=["local", "grpc"])
def wire(request: pytest.FixtureRequest) -> str:
    """How the shim reaches its service."""
    name: str = request.param
    return name


def completion(**fields: Any) -> Completion:
    """A finished answer."""
    message = Message(role=Role.ROLE_ASSISTANT, parts=[Part(text="Four.")])
    known = {
        "id": "cmpl_1",
        "request_id": "req_1",
        "create_time": AT,
        "choices": [Choice(message=message, finish_reason=FinishReason.FINISH_REASON_STOP)],
        "route": Route(provider="openai", model="gpt-5", engine="theo-1-flash", resolved_mode="fast"),
        "usage": Usage(input_tokens=9, output_tokens=4, total_tokens=13),
    }  # fmt: skip
    return Completion(**{**known, **fields})


WHOLE: Final = CompleteUnaryResponse(completion=completion())
STREAM: Final = [
    CompleteResponse(started=StreamStarted(completion_id="cmpl_1", request_id="req_1", create_time=AT)),
    CompleteResponse(route_selected=RouteSelected(route=completion().route)),
    CompleteResponse(text_delta=TextDelta(text="Four.")),
    CompleteResponse(choice_finished=ChoiceFinished(finish_reason=FinishReason.FINISH_REASON_STOP)),
    CompleteResponse(completed=StreamCompleted(completion=completion())),
]  # fmt: skip
SPEC: Final = CompletionSpec(
    messages=[Message(role=Role.ROLE_USER, parts=[Part(text="hi")])],
    mode="auto",
    persona="theo",
    cache=CachePolicy(mode=CacheMode.CACHE_MODE_ALLOW),
)


def sse(data: bytes) -> list[tuple[str, Any]]:
    """The events of a stream, name and value; the value of a heartbeat as it came."""
    found: list[tuple[str, Any]] = []
    assert data.endswith(b"\n\n")
    for block in data.decode().removesuffix("\n\n").split("\n\n"):
        name, value = block.split("\n")
        assert name.startswith("event: ")
        assert value.startswith("data: ")
        name, value = name.removeprefix("event: "), value.removeprefix("data: ")
        found.append((name, value if name == "thinking" else json.loads(value)))
    return found


def names(data: bytes) -> list[str]:
    """Of a stream's events."""
    return [name for name, _ in sse(data)]


def error(response: httpx.Response) -> tuple[int, str, str, str]:
    """Status, type, code and message; all four keys are there, and the id is that of the header."""
    told = response.json()["error"]
    assert told.keys() == {"message", "type", "code", "request_id"}
    assert told["request_id"] == response.headers["x-request-id"]
    return response.status_code, told["type"], told["code"], told["message"]


# Completions


async def test_an_answer_is_one_object(wire):
    async with theo(wire, CompleteUnary=WHOLE) as running:
        response = await running.http.post(COMPLETIONS, json=HELLO)

    assert response.status_code == 200
    assert response.headers["theo-api-version"] == "2026-03-28"
    assert response.headers["content-type"] == "application/json"
    found = response.json()
    assert (found["id"], found["object"], found["content"]) == ("cmpl_1", "completion", "Four.")
    assert (found["mode"], found["resolved_mode"]) == ("auto", "fast")
    assert running.requests == [CompleteUnaryRequest(spec=SPEC)]


async def test_a_stream_is_events_in_theos_order(wire):
    async with theo(wire, Complete=STREAM) as running:
        response = await running.http.post(COMPLETIONS, json={**HELLO, "stream": True})

    assert response.status_code == 200
    assert response.headers["theo-api-version"] == "2026-03-28"
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["trunkline-provider"] == "openai"
    found = sse(response.content)
    assert [name for name, _ in found] == ["thinking", "meta", "token", "done"]
    assert found[0][1] == "."
    assert found[2][1] == {"token": "Four."}
    assert found[3][1]["content"] == "Four."
    (request,) = running.requests
    assert (request.spec, request.stream_options.buffer_tool_arguments) == (SPEC, True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETIONS, {"prompt": "hi", "format": "openai"}),
        (CHAT, {"messages": [{"role": "user", "content": "hi"}], "model": "gpt-5"}),
    ],
)
async def test_openais_format_is_openais(wire, path, body):
    async with theo(wire, CompleteUnary=WHOLE, Complete=STREAM) as running:
        one = await running.http.post(path, json=body)
        many = await running.http.post(path, json={**body, "stream": True})

    assert one.headers["theo-api-version"] == many.headers["theo-api-version"] == "2026-03-28"
    assert (one.json()["object"], one.json()["model"]) == ("chat.completion", "theo-1-flash")
    assert one.json()["theo_metadata"]["engine"] == "openai/gpt-5"
    *chunks, end = [block.removeprefix("data: ") for block in many.text.split("\n\n")[:-1]]
    told = [json.loads(chunk) for chunk in chunks]
    assert end == "[DONE]"
    assert {chunk["object"] for chunk in told} == {"chat.completion.chunk"}
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in told) == "Four."
    assert told[-1]["theo_metadata"] == one.json()["theo_metadata"]
    assert [request.spec for request in running.requests] == [SPEC, SPEC]


async def test_requests_have_ids_of_the_gateways_own(wire):
    with structlog.testing.capture_logs() as lines:
        async with theo(wire, CompleteUnary=WHOLE) as running:
            named = await running.http.post(
                COMPLETIONS, json=HELLO, headers={"x-request-id": "my-own-id-1"}
            )
            unnamed = await running.http.post(COMPLETIONS, json=HELLO)

    ids = [named.headers["x-request-id"], unnamed.headers["x-request-id"]]
    assert all(found.startswith("req_") for found in ids)
    assert [metadata["x-request-id"] for metadata in running.metadata] == ids
    assert [line for line in lines if line["event"] == "request_renamed"] == [
        {
            "event": "request_renamed",
            "log_level": "info",
            "request_id": ids[0],
            "caller_request_id": "my-own-id-1",
        }
    ]


# Errors

REFUSALS: Final[dict[str, tuple[TrunklineError, int, str, str]]] = {
    "invalid": (InvalidRequest("spec.temperature", "no"), 400, "invalid_request_error", "validation_error"),
    "nobody": (InvalidApiKey("missing or unknown API key"), 401, "authentication_error", "invalid_api_key"),
    "poor": (InsufficientCredits("too few"), 402, "billing_error", "insufficient_credits"),
    "not yours": (PermissionDenied("no"), 403, "permission_error", "forbidden"),
    "not there": (ConversationNotFound(), 404, "not_found_error", "not_found"),
    "too many": (RateLimited("wait", retry_after_s=7.0), 429, "rate_limit_error", "rate_limit_exceeded"),
    "too much": (TokenRateLimited("wait", retry_after_s=7.0), 429, "rate_limit_error", "token_limit_exceeded"),
    "failed": (AllProvidersFailed("all failed"), 502, "server_error", "server_error"),
    "busy": (Overloaded(retry_after_s=1.0), 503, "server_error", "server_error"),
}  # fmt: skip


@pytest.mark.usefixtures("no_chance")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETIONS, {}),
        (COMPLETIONS, {"stream": True}),
        (COMPLETIONS, {"format": "openai", "stream": True}),
        (CHAT, {}),
    ],
    ids=["whole", "stream", "chunks", "chat"],
)
async def test_errors_have_theos_status_type_and_code(wire, path, body):
    def refuse(request: Any) -> TrunklineError:
        return REFUSALS[request.spec.messages[0].parts[0].text][0]

    async with theo(
        wire, CompleteUnary=refuse, Complete=lambda request: [refuse(request)]
    ) as running:
        found = {}
        for name in REFUSALS:
            asked = (
                {"messages": [{"role": "user", "content": name}]}
                if path == CHAT
                else {"prompt": name}
            )
            found[name] = await running.http.post(path, json={**body, **asked})

    assert {name: error(response)[:3] for name, response in found.items()} == {
        name: tuple(told) for name, (_, *told) in REFUSALS.items()
    }
    assert {response.headers["theo-api-version"] for response in found.values()} == {"2026-03-28"}
    waits = {name: response.headers.get("retry-after") for name, response in found.items()}
    assert {name: wait for name, wait in waits.items() if wait} == {
        "too many": "7",
        "too much": "7",
        "busy": "1",
    }


async def test_a_guardrail_is_422():
    async with (
        upstream(whole({"error": {"message": "no", "code": "content_filter"}}, 400)) as blocking,
        service_over(blocking.url) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        response = await http.post(COMPLETIONS, json=HELLO)

    assert error(response)[:3] == (422, "guardrail_error", "guardrail_violation")


@pytest.mark.parametrize("form", ["theo", "openai"])
async def test_an_error_after_the_first_event_is_the_last_event(wire, form):
    lost = RateLimited("slow down", retry_after_s=7.0)
    async with theo(wire, Complete=[*STREAM[:3], lost]) as running:
        response = await running.http.post(
            COMPLETIONS, json={**HELLO, "stream": True, "format": form}
        )

    *_, last = response.text.removesuffix("\n\n").split("\n\n")
    assert response.status_code == 200
    assert json.loads(last.partition("data: ")[2]) == {
        "error": {
            "message": "slow down",
            "type": "rate_limit_error",
            "code": "rate_limit_exceeded",
            "request_id": response.headers["x-request-id"],
        }
    }
    assert last.startswith("event: error\n") == (form == "theo")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/nothing"),
        ("GET", COMPLETIONS),
        ("PUT", SKILLS),
        ("GET", f"{SKILLS}/tone"),
        ("GET", "/api/v1/jobs/"),
        ("GET", "/api/v1/jobs/job_1/events"),
        ("GET", f"{CONVERSATIONS}/{'x' * 129}"),
    ],
)
async def test_a_path_that_is_not_there_is_refused_in_theos_words(method, path):
    async with theo("local", CompleteUnary=WHOLE) as running:
        response = await running.http.request(method, path)

    assert error(response)[:3] == (404, "not_found_error", "not_found")
    assert running.requests == []


async def test_what_is_refused_at_the_door_has_an_id_too():
    async with theo("local", CompleteUnary=WHOLE) as running:
        response = await running.http.post(
            COMPLETIONS, content=b"", headers={"content-encoding": "gzip"}
        )

    assert error(response) == (
        400,
        "invalid_request_error",
        "validation_error",
        "content-encoding: a compressed body is not accepted",
    )


# Jobs


def a_job(**fields: Any) -> Job:
    """A job."""
    known = {
        "id": "job_01",
        "kind": "research",
        "state": JobState.JOB_STATE_QUEUED,
        "create_time": AT,
    }
    return Job(**{**known, **fields})  # fmt: skip


@pytest.mark.parametrize(
    ("path", "prefix", "options"),
    [("research", "res_", '{"depth":2,"max_sources":10}'), ("video", "vid_", "")],
)
async def test_a_job_is_taken_with_202(wire, path, prefix, options):
    async with theo(wire, CreateJob=CreateJobResponse(job=a_job())) as running:
        response = await running.http.post(
            f"/api/v1/{path}", json=HELLO, headers={"idempotency-key": "k1"}
        )

    assert (response.status_code, response.headers["theo-api-version"]) == (202, "2026-03-28")
    assert response.json() == {
        "id": f"{prefix}01",
        "job_id": "job_01",
        "status": "queued",
        "created": WRITTEN_AT,
        "poll_url": "/api/v1/jobs/job_01",
    }
    assert running.requests == [
        CreateJobRequest(
            kind=path,
            spec=CompletionSpec(
                messages=SPEC.messages, mode=path, persona="theo", mode_options_json=options
            ),
        )
    ]
    assert running.metadata[0]["idempotency-key"] == "k1"


async def test_a_job_is_told_as_the_page_has_it_and_as_the_sdk_reads_it(wire):
    result = ResearchResult(report="# A")
    job = a_job(
        state=JobState.JOB_STATE_SUCCEEDED, progress_percent=100, end_time=AT, research=result
    )
    async with theo(wire, GetJob=GetJobResponse(job=job)) as running:
        response = await running.http.get("/api/v1/jobs/job_01")

    found = response.json()
    assert (found["status"], found["progress"], found["completed_at"]) == (
        "completed",
        100,
        WRITTEN_AT,
    )
    assert found["result"]["report"] == "# A"
    assert found.pop("job") == found
    assert running.requests == [GetJobRequest(job_id="job_01")]


@pytest.mark.parametrize(
    ("refused", "told"),
    [
        (StorageUnavailable(retry_after_s=1.0), (503, "server_error", "queue_unavailable")),
        (Overloaded(retry_after_s=1.0), (503, "server_error", "queue_unavailable")),
        (InsufficientCredits("too few"), (402, "billing_error", "insufficient_credits")),
    ],
)
async def test_a_queue_that_takes_nothing_says_so(refused, told):
    async with theo("grpc", CreateJob=refused) as running:
        response = await running.http.post("/api/v1/research", json=HELLO)

    assert error(response)[:3] == told


async def test_a_job_of_somebody_else_is_not_there(wire):
    async with theo(wire, GetJob=JobNotFound()) as running:
        response = await running.http.get("/api/v1/jobs/job_02")

    assert error(response) == (
        404,
        "not_found_error",
        "not_found",
        "no job of yours has this id",
    )


async def test_a_job_without_a_prompt_reaches_nobody():
    async with theo("local", CreateJob=CreateJobResponse(job=a_job())) as running:
        response = await running.http.post("/api/v1/video", json={"style": "cinematic"})

    assert error(response)[:3] == (400, "invalid_request_error", "missing_prompt")
    assert running.requests == []


# Skills and models

TONE: Final = Skill(id="tone", slug="tone", name="Tone", installed=True)
REVIEW: Final = Skill(id="review", slug="review", name="Review")


@pytest.mark.parametrize(
    ("query", "slugs"),
    [
        ("", ["tone", "review"]),
        ("?filter=marketplace", ["tone", "review"]),
        ("?filter=installed", ["tone"]),
    ],
)
async def test_skills_are_listed_over_all_pages(wire, query, slugs):
    def listed(request: ListSkillsRequest) -> ListSkillsResponse:
        if request.page_token:
            return ListSkillsResponse(skills=[REVIEW])
        return ListSkillsResponse(skills=[TONE], next_page_token="1")

    async with theo(wire, ListSkills=listed) as running:
        response = await running.http.get(f"{SKILLS}{query}")

    assert [skill["slug"] for skill in response.json()["skills"]] == slugs


@pytest.mark.parametrize(
    ("path", "body"), [(f"{SKILLS}/tone", None), (SKILLS, {"skillId": "tone"})]
)
async def test_a_skill_is_installed_and_taken_away_by_path_and_by_body(wire, path, body):
    async with theo(
        wire,
        InstallSkill=InstallSkillResponse(skill=TONE),
        UninstallSkill=UninstallSkillResponse(skill=REVIEW),
    ) as running:
        put = await running.http.request("POST", path, json=body)
        gone = await running.http.request("DELETE", path, json=body)

    assert (put.status_code, gone.status_code) == (201, 200)
    assert (put.json()["installed"], put.json()["skill"]["slug"]) == (True, "tone")
    assert (gone.json()["installed"], gone.json()["skill"]["slug"]) == (False, "review")
    assert running.requests == [
        InstallSkillRequest(slug="tone"),
        UninstallSkillRequest(slug="tone"),
    ]


async def test_a_skill_that_there_is_not_is_not_found(wire):
    async with theo(wire, InstallSkill=NotFound("no skill is called 'x'")) as running:
        response = await running.http.post(f"{SKILLS}/x")

    assert error(response) == (404, "not_found_error", "not_found", "no skill is called 'x'")


async def test_models_are_engines(wire):
    mode = Model(id="theo-1-flash", kind=ModelKind.MODEL_KIND_MODE, label="Fast", modes=["fast"])
    async with theo(wire, ListModels=ListModelsResponse(models=[mode])) as running:
        response = await running.http.get("/api/v1/models")

    assert [found["model_id"] for found in response.json()["models"]] == ["theo-1-flash"]
    assert running.requests == [ListModelsRequest(page_size=1000)]


# Conversations

CONVERSATION: Final = Conversation(
    id="conv_1", title="T", message_count=2, create_time=AT, update_time=AT
)
TOLD: Final = {
    "id": "conv_1",
    "title": "T",
    "messageCount": 2,
    "createdAt": WRITTEN_AT,
    "updatedAt": WRITTEN_AT,
    "metadata": None,
}


def stored(sequence: int, role: Role.ValueType, text: str) -> StoredMessage:
    """A message that is kept."""
    message = Message(role=role, parts=[Part(text=text)])
    return StoredMessage(sequence=sequence, message=message, completion_id="cmpl_1", create_time=AT)


ASKED: Final = stored(1, Role.ROLE_USER, "hi")
ANSWERED: Final = stored(2, Role.ROLE_ASSISTANT, "Hello.")
MESSAGES: Final = [
    {"id": "1", "role": "user", "content": "hi", "createdAt": WRITTEN_AT, "completionId": "cmpl_1"},
    {"id": "2", "role": "assistant", "content": "Hello.", "createdAt": WRITTEN_AT, "completionId": "cmpl_1"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b"", CreateConversationRequest()),
        (
            b'{"title": "T", "metadata": {"a": 1}}',
            CreateConversationRequest(title="T", metadata_json='{"a": 1}'),
        ),
    ],
)
async def test_a_conversation_is_begun(wire, body, asked):
    made = CreateConversationResponse(conversation=CONVERSATION)
    async with theo(wire, CreateConversation=made) as running:
        response = await running.http.post(CONVERSATIONS, content=body)

    assert (response.status_code, response.json()) == (201, {"conversation": TOLD})
    assert running.requests == [asked]


async def test_conversations_are_listed_page_by_page(wire):
    page = ListConversationsResponse(conversations=[CONVERSATION], next_page_token="t2")
    async with theo(wire, ListConversations=page) as running:
        usual = await running.http.get(CONVERSATIONS)
        small = await running.http.get(f"{CONVERSATIONS}?limit=1&cursor=t1")

    listed = {"conversations": [TOLD], "has_more": True, "next_cursor": "t2"}
    assert usual.json() == small.json() == listed
    assert running.requests == [
        ListConversationsRequest(page_size=100),
        ListConversationsRequest(page_size=1, page_token="t1"),
    ]


async def test_a_conversation_is_told_with_all_its_messages(wire):
    def messages(request: ListMessagesRequest) -> ListMessagesResponse:
        if request.page_token:
            return ListMessagesResponse(messages=[ANSWERED])
        return ListMessagesResponse(messages=[ASKED], next_page_token="1")

    found = GetConversationResponse(conversation=CONVERSATION)
    async with theo(wire, GetConversation=found, ListMessages=messages) as running:
        response = await running.http.get(f"{CONVERSATIONS}/conv_1")

    told = {**TOLD, "messages": MESSAGES, "has_more": False, "next_cursor": None}
    assert response.json() == {"conversation": told}
    assert running.requests[0] == GetConversationRequest(conversation_id="conv_1")


async def test_messages_are_told_page_by_page(wire):
    page = ListMessagesResponse(messages=[ASKED, ANSWERED])
    async with theo(wire, ListMessages=page) as running:
        response = await running.http.get(f"{CONVERSATIONS}/conv_1/messages?limit=2&cursor=0")

    assert response.json() == {"messages": MESSAGES, "has_more": False, "next_cursor": None}
    assert running.requests == [
        ListMessagesRequest(conversation_id="conv_1", page_size=2, page_token="0")
    ]


async def test_a_conversation_is_deleted(wire):
    async with theo(wire, DeleteConversation=DeleteConversationResponse()) as running:
        response = await running.http.delete(f"{CONVERSATIONS}/conv_1")

    assert (response.status_code, response.json()) == (200, {"id": "conv_1", "deleted": True})
    assert running.requests == [DeleteConversationRequest(conversation_id="conv_1")]


@pytest.mark.parametrize(
    ("method", "path", "body", "text"),
    [
        ("GET", f"{CONVERSATIONS}?limit=0", None, "limit: must be a whole number, 1 to 1000"),
        ("GET", f"{CONVERSATIONS}?limit=1&limit=2", None, "limit: comes twice"),
        ("GET", f"{CONVERSATIONS}?page=2", None, "page: must be one of limit, cursor"),
        ("GET", f"{CONVERSATIONS}?cursor={'x' * 1025}", None, "cursor: at most 1024 characters"),
        ("GET", f"{CONVERSATIONS}/conv_1?limit=1", None, "limit: is no parameter of this"),
        ("GET", f"{SKILLS}?filter=all", None, "filter: must be one of installed, marketplace"),
        ("GET", f"{SKILLS}?{'&'.join(['filter=installed'] * 9)}", None, "at most 8 parameters"),
        (
            "POST",
            CONVERSATIONS,
            {"name": "T"},
            "name: Object contains unknown field `name`",
        ),
        ("POST", SKILLS, {}, "skillId: Object missing required field `skillId`"),
    ],
)
async def test_what_can_not_be_asked_is_named(method, path, body, text):
    async with theo("local", ListConversations=ListConversationsResponse()) as running:
        response = await running.http.request(method, path, json=body)

    assert error(response) == (400, "invalid_request_error", "validation_error", text)
    assert running.requests == []


# Through the whole service


async def test_what_the_service_refuses_is_named_in_theos_spelling():
    invalid: dict[str, tuple[dict[str, Any], str]] = {
        "heat": ({"temperature": 3}, "temperature: 0 to 2"),
        "21 turns": ({"max_iterations": 21}, "max_iterations: 1 to 20"),
        "metadata": ({"metadata": [1]}, "metadata: must be a JSON object"),
        "a schema": (
            {"tools": [{"name": "f", "input_schema": {"type": 5}}]},
            "tools[0].input_schema: is no JSON Schema (at /type)",
        ),
        "a tool's name": (
            {"tools": [{"name": "f!"}]},
            "tools[0].name: must match [a-zA-Z0-9_-]{1,64}",
        ),
        "an address": (
            {"attachments": [{"type": "image_url", "url": "ftp://a"}]},
            "attachments[0]: must be an http(s), gs or s3 URL of at most 8,000 characters",
        ),
        "a skill": ({"skills": ["nope"]}, "skills[0]: no skill is called 'nope'"),
        "a mode": (
            {"mode": "thnk"},
            "mode: no mode is called 'thnk'; did you mean 'think'?",
        ),
        "a persona": ({"persona": "teo"}, "persona: no persona is called 'teo'; did you mean 'theo'?"),
        "research": (
            {"mode": "research"},
            "mode: research takes long: ask for it as a job",
        ),
    }  # fmt: skip
    async with (
        upstream(answer("no")) as scripted,
        service_over(scripted.url) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        found = {
            name: error(await http.post(COMPLETIONS, json={**HELLO, **body}))
            for name, (body, _) in invalid.items()
        }

    assert found == {
        name: (400, "invalid_request_error", "validation_error", text)
        for name, (_, text) in invalid.items()
    }
    assert not scripted.exchanges


def calling(exchange: Exchange) -> Sequence[Bytes]:
    """Calls the tool `check` until it sees a result."""
    messages = exchange.json["messages"]
    if not exchange.json.get("tools") or messages[-1]["role"] == "tool":
        return hello(exchange)
    call = {"id": "c1", "type": "function", "function": {"name": "check", "arguments": '{"sku":1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    counts = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    return whole(
        {"id": "c", "object": "chat.completion", "model": "m-1", "choices": [choice], "usage": counts}
    )  # fmt: skip


async def test_a_conversation_goes_on_with_the_results_of_the_callers_tools():
    tools = [{"name": "check", "description": "Looks.", "input_schema": {"type": "object"}}]
    async with (
        upstream(calling) as scripted,
        service_over(scripted.url) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        begun = (
            await http.post(
                COMPLETIONS,
                json={**HELLO, "conversation_id": "new", "tools": tools, "metadata": {"n": 1}},
            )
        ).json()
        name = begun["conversation_id"]
        result = {"tool_call_id": begun["tool_calls"][0]["id"], "content": "3 left"}
        ended = (
            await http.post(
                COMPLETIONS,
                json={"conversation_id": name, "tools": tools, "tool_results": [result]},
            )
        ).json()
        kept = (await http.get(f"{CONVERSATIONS}/{name}")).json()["conversation"]
        gone = [(await http.delete(f"{CONVERSATIONS}/{name}")).status_code for _ in range(2)]
        lost = await http.post(COMPLETIONS, json={**HELLO, "conversation_id": name})

    assert (begun["finish_reason"], begun["content"], begun["metadata"]) == (
        "tool_calls",
        "",
        {"n": 1},
    )
    assert begun["tool_calls"] == [{"id": "c1", "name": "check", "arguments": '{"sku":1}'}]
    assert (ended["content"], ended["conversation_id"], ended["finish_reason"]) == (
        "Hello",
        name,
        "stop",
    )
    assert [(m["role"], m["content"]) for m in kept["messages"]] == [
        ("user", "hi"),
        ("assistant", ""),
        ("tool", ""),
        ("assistant", "Hello"),
    ]
    assert kept["messages"][2]["toolResults"] == [{**result, "is_error": False}]
    _, second = (e.json["messages"] for e in scripted.exchanges if e.json.get("tools"))
    assert [message["role"] for message in second] == [
        "system",
        "user",
        "assistant",
        "tool",
    ]
    assert gone == [200, 404]
    assert error(lost) == (
        404,
        "not_found_error",
        "not_found",
        "no conversation of yours has this id",
    )


async def test_a_mode_is_chosen_and_named_by_its_engine():
    async with (
        upstream(hello) as scripted,
        service_over(scripted.url) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        models = {
            m["model_id"]: m["mode"] for m in (await http.get("/api/v1/models")).json()["models"]
        }
        auto = (await http.post(COMPLETIONS, json=HELLO)).json()
        code = (await http.post(COMPLETIONS, json={**HELLO, "mode": "code"})).json()
        override = (
            await http.post(
                COMPLETIONS, json={**HELLO, "mode": "code", "model_overrides": {"code": "m-a"}}
            )
        ).json()
        chat = await http.post(
            CHAT, json={"model": "theo-1-reason", "messages": [{"role": "user", "content": "hi"}]}
        )

    assert models == {
        "theo-1-flash": "fast",
        "theo-1-reason": "think",
        "theo-1-code": "code",
        "theo-1-create": "image",
    }
    assert (auto["mode"], auto["resolved_mode"], auto["model"]["id"]) == (
        "auto",
        "fast",
        "theo-1-flash",
    )
    assert auto["routing"]["reason"] == "classified"
    assert (code["mode"], code["resolved_mode"], code["model"]["id"]) == (
        "code",
        "code",
        "theo-1-code",
    )
    assert code["model"]["engine"] == override["model"]["engine"] == "a/m-a"
    assert chat.json()["theo_metadata"]["resolved_mode"] == "think"
    assert chat.json()["model"] == "theo-1-reason"


QUIET: Final = [{"id": name, "follow_ups": False} for name in ("fast", "code")]


async def test_the_same_again_comes_from_the_cache_in_every_format():
    async with (
        upstream(hello) as scripted,
        service_over(scripted.url, modes=QUIET) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        first, again = [
            (await http.post(COMPLETIONS, json={**HELLO, "metadata": {"n": n}})).json()
            for n in range(2)
        ]
        stream = await http.post(COMPLETIONS, json={**HELLO, "stream": True})
        chat = await http.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]})
        kept = (await http.post(COMPLETIONS, json={**HELLO, "conversation_id": "new"})).json()

    done = sse(stream.content)[-1][1]
    assert "_cached" not in first
    assert "cached" not in first["usage"]
    for hit in (again, done):
        assert (hit["content"], hit["_cached"]) == ("Hello", True)
        assert hit["usage"] == {
            "cost_cents": 0, "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "cached": True,
        }  # fmt: skip
    assert (first["metadata"], again["metadata"]) == ({"n": 0}, {"n": 1})
    assert again["id"] != first["id"]
    assert names(stream.content)[:2] == ["thinking", "meta"]
    assert chat.json()["theo_metadata"]["_cached"] is True
    assert "_cached" not in kept
    assert len(scripted.exchanges) == 2


async def test_a_stream_of_the_whole_service_has_skills_and_artifacts():
    code = "Here:\n\n```python\nfor n in range(3):\n    print(n)\n    print(n + 1)\n```\n"
    async with (
        upstream(answer(code)) as scripted,
        service_over(scripted.url, modes=QUIET) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        asked = {**HELLO, "mode": "code", "skills": ["code-review"], "stream": True}
        response = await http.post(COMPLETIONS, json=asked)

    found = sse(response.content)
    skill = {"id": "code-review", "slug": "code-review", "name": "Code review", "intensity": 2}
    told = dict(found)
    assert told["meta"]["resolved_mode"] == "code"
    assert told["skills"] == {"active": [skill]}
    assert (told["artifact"]["type"], told["artifact"]["language"]) == ("code", "python")
    assert told["artifact"]["code"].startswith("for n in range(3):")
    assert (told["done"]["content"], told["done"]["skills_active"]) == (code, [skill])
    order = [name for name, _ in found]
    assert order[:3] == ["thinking", "meta", "skills"]
    assert order[-1] == "done"


async def test_research_is_asked_for_and_polled():
    async with (
        upstream(hello) as scripted,
        service_over(scripted.url) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        taken = await http.post("/api/v1/research", json={"prompt": "Lakes.", "depth": "basic"})
        async with asyncio.timeout(LIMIT_S):
            while True:
                job = (await http.get(taken.json()["poll_url"])).json()
                if job["status"] not in ("queued", "active"):
                    break
                await asyncio.sleep(0.02)
        refused = await http.post("/api/v1/video", json={"prompt": "Lakes."})

    assert (taken.status_code, job["status"], job["progress"]) == (202, "completed", 100)
    assert (job["id"], job["type"], job["error"]) == (taken.json()["job_id"], "research", None)
    assert job["result"]["report"].startswith("Hello")
    assert (job["result"]["sources"], job["result"]["sourceCount"]) == ([], 0)
    assert error(refused)[3] == "no provider of videos is configured: [jobs] video_url"


async def test_a_silent_answer_is_kept_awake_by_thinking():
    steps: list[Bytes] = [Pause(3.5 * HEARTBEAT_S), *answer("Hel", "lo")]
    async with (
        upstream(steps) as slow,
        service_over(slow.url, server={"heartbeat_s": HEARTBEAT_S}) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        response = await http.post(COMPLETIONS, json={**HELLO, "stream": True})

    found = names(response.content)
    assert found[:2] == ["thinking", "thinking"]
    assert [name for name in found if name != "thinking"] == ["meta", "token", "token", "done"]


async def test_a_provider_that_is_cut_off_ends_the_answer_with_an_error():
    async with (
        upstream([head(), event(delta("Hel")), Reset()]) as cut,
        service_over(cut.url) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        response = await http.post(COMPLETIONS, json={**HELLO, "stream": True})

    assert names(response.content) == ["thinking", "meta", "token", "error"]
    assert sse(response.content)[-1][1]["error"] == {
        "message": "the provider's stream broke off",
        "type": "server_error",
        "code": "server_error",
        "request_id": response.headers["x-request-id"],
    }


async def test_a_key_is_asked_for():
    async with (
        upstream(hello) as scripted,
        service(
            environment={"KEY": KEY},
            providers=[provider("a", scripted.url)],
            models=[model("m", "a")],
            keys=[{"id": "tests", "key_env": "KEY"}],
        ) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        paths = (
            ("POST", COMPLETIONS, HELLO),
            ("POST", CHAT, {"messages": [{"role": "user", "content": "hi"}]}),
            ("POST", "/api/v1/research", HELLO),
            ("GET", "/api/v1/jobs/job_1", None),
            ("GET", SKILLS, None),
            ("POST", f"{SKILLS}/tone", None),
            ("GET", "/api/v1/models", None),
            ("GET", CONVERSATIONS, None),
            ("DELETE", f"{CONVERSATIONS}/conv_1", None),
        )
        without = [error(await http.request(m, path, json=body)) for m, path, body in paths]
        right = await http.post(COMPLETIONS, json=HELLO, headers={"authorization": f"Bearer {KEY}"})

    told = (401, "authentication_error", "invalid_api_key", "missing or unknown API key")
    assert without == [told] * len(paths)
    assert right.status_code == 200


async def test_a_caller_who_goes_closes_the_provider():
    async with (
        upstream([head(), event(delta("Hel")), Hang()]) as endless,
        observed(providers=[provider("a", endless.url)], models=[model("m", "a")]) as running,
        asking(f"http://{running.service.http_address}") as http,
    ):
        async with http.stream("POST", COMPLETIONS, json={**HELLO, "stream": True}) as response:
            async for piece in response.aiter_text():
                if "token" in piece:
                    break
        async with asyncio.timeout(LIMIT_S):
            for exchange in endless.exchanges:
                await exchange.closed.wait()
        told = await running.request()

    assert told["reason"] == "CANCELLED"
