"""gRPC for those who know nothing of the service: reflection, health, and the status of whatever is no request."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.clients.gateway import LIMIT_S, ROOT, need, run
from tests.support.service import service_over
from tests.support.upstream import Upstream, hello, upstream
from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message, Part, Role, ToolResult

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVED: Final = (
    "trunkline.v1.CompletionService/Complete",
    "trunkline.v1.CompletionService/CompleteUnary",
    "trunkline.v1.CompletionService/PreviewRoute",
    "trunkline.v1.CatalogService/ListModels",
    "trunkline.v1.CatalogService/GetModel",
)
SERVICES: Final = (
    "trunkline.v1.AccountService",
    "trunkline.v1.AdminService",
    "trunkline.v1.CatalogService",
    "trunkline.v1.CompletionService",
    "trunkline.v1.CacheService",
    "trunkline.v1.ConversationService",
    "trunkline.v1.JobService",
)
ACCOUNTS: Final = ("trunkline.v1.AccountService", "trunkline.v1.AdminService")
BESIDE: Final = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
REFLECTIONS: Final = ("grpc-v1", "grpc-v1alpha")
COMPLETE, UNARY, _, LIST, GET = SERVED
MIB: Final = 1024 * 1024
MAX_TRAILER_BYTES: Final = 4096
REQUEST_ID: Final = "asked-by-a-test"


@dataclass
class Running:
    """A service whose upstream says hello, and a channel that sends whatever it is given."""

    target: str
    upstream: Upstream
    channel: grpc.aio.Channel


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Running]:
    options = [("grpc.max_send_message_length", -1)]
    async with (
        upstream(hello) as scripted,
        service_over(scripted.url) as service,
        grpc.aio.insecure_channel(service.grpc_address, options=options) as channel,
    ):
        yield Running(service.grpc_address, scripted, channel)


async def buf(
    running: Running, folder: Path, *arguments: str, method: str = ""
) -> tuple[int, str, str]:
    """`buf curl` where no schema is near."""
    program = need(ROOT / ".venv/bin/buf", "make setup")
    code, out, err = await run(
        "env", "-C", folder, program, "curl", "--protocol", "grpc", "--http2-prior-knowledge",
        *arguments, f"http://{running.target}/{method}".rstrip("/"),
    )  # fmt: skip
    return code, out.decode(), err.decode()


def documents(text: str) -> list[Any]:
    """All JSON values of a text, one after the other."""
    decoder = json.JSONDecoder()
    found = []
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


@pytest.mark.parametrize("protocol", REFLECTIONS)
async def test_a_stranger_lists_the_services(running, tmp_path, protocol):
    code, out, err = await buf(running, tmp_path, "--reflect-protocol", protocol, "--list-services")

    assert code == 0, err
    assert sorted(out.split()) == sorted((*SERVICES, *BESIDE))


@pytest.mark.parametrize("protocol", REFLECTIONS)
async def test_a_stranger_lists_the_methods(running, tmp_path, protocol):
    code, out, err = await buf(running, tmp_path, "--reflect-protocol", protocol, "--list-methods")

    assert code == 0, err
    assert set(SERVED) < set(out.split())


@pytest.mark.parametrize("protocol", REFLECTIONS)
async def test_a_stranger_streams_an_answer(running, tmp_path, protocol):
    spec = {"model": "m-a", "messages": [{"role": "ROLE_USER", "parts": [{"text": "hi"}]}]}

    code, out, err = await buf(
        running, tmp_path, "--reflect-protocol", protocol, "-d", json.dumps({"spec": spec}),
        method=COMPLETE,
    )  # fmt: skip

    assert code == 0, err
    events = documents(out)
    assert [event.get("sequence") for event in events] == [str(n + 1) for n in range(len(events))]
    kinds = [next(key for key in event if key != "sequence") for event in events]
    assert kinds[:2] == ["started", "routeSelected"]
    assert kinds[-2:] == ["choiceFinished", "completed"]
    assert "".join(e["textDelta"]["text"] for e in events if "textDelta" in e) == "Hello"


async def test_a_stranger_is_told_what_is_wrong(running, tmp_path):
    spec = {"model": "m-a", "messages": [{"role": "ROLE_USER", "parts": [{"text": "hi"}]}]}
    spec["sampling"] = {"temperature": 9}  # type: ignore[assignment]

    code, _, err = await buf(running, tmp_path, "-d", json.dumps({"spec": spec}), method=COMPLETE)

    (error,) = documents(err)
    assert code != 0
    assert error["code"] == "invalid_argument"
    assert error["message"] == "spec.sampling.temperature: 0 to 2"
    assert [detail["type"] for detail in error["details"]] == [
        "google.rpc.ErrorInfo",
        "google.rpc.RequestInfo",
        "google.rpc.BadRequest",
    ]


# health


@pytest.mark.parametrize("name", ["", *SERVICES])
async def test_every_service_is_healthy(running, name):
    health = health_pb2_grpc.HealthStub(running.channel)
    request = health_pb2.HealthCheckRequest(service=name)

    checked = await health.Check(request)
    watch = health.Watch(request)
    first = await watch.read()
    watch.cancel()

    assert checked.status == first.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_health_of_an_unknown_service_is_unknown(running):
    health = health_pb2_grpc.HealthStub(running.channel)
    request = health_pb2.HealthCheckRequest(service="trunkline.v1.NoService")

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(request)
    watch = health.Watch(request)
    first = await watch.read()
    watch.cancel()

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert first.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def test_who_watches_sees_the_drain():
    async with (
        upstream(hello) as scripted,
        service_over(scripted.url) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
        asyncio.timeout(LIMIT_S),
    ):
        health = health_pb2_grpc.HealthStub(channel)
        watches = [
            health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", *SERVICES)
        ]
        before = [(await watch.read()).status for watch in watches]
        draining = asyncio.create_task(service.drain())
        after = [(await watch.read()).status for watch in watches]
        await draining

    assert set(before) == {health_pb2.HealthCheckResponse.SERVING}
    assert set(after) == {health_pb2.HealthCheckResponse.NOT_SERVING}


# what is no request


@dataclass(frozen=True)
class Told:
    """A status as a caller gets it. `field` is the first field that is wrong."""

    code: grpc.StatusCode
    reason: str
    message: str
    field: str = ""


async def ended(
    running: Running, method: str, data: bytes, *, streams: bool
) -> grpc.aio.AioRpcError:
    """How a call with these bytes ends."""
    metadata = (("x-request-id", REQUEST_ID),)
    multi: Any = running.channel.unary_stream if streams else running.channel.unary_unary
    call = multi(f"/{method}")(data, metadata=metadata, timeout=LIMIT_S)
    before = len(running.upstream.exchanges)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call.read() if streams else call)
    assert len(running.upstream.exchanges) == before, "the upstream was asked"
    return caught.value


def told(error: grpc.aio.AioRpcError) -> Told:
    """Its status, which must carry ErrorInfo and RequestInfo and fit the trailers."""
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(request)
    for detail in status.details[2:]:
        detail.Unpack(bad)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    assert info.domain == "trunkline"
    assert request.request_id == REQUEST_ID
    assert wire_bytes(error) < MAX_TRAILER_BYTES
    field = bad.field_violations[0].field if bad.field_violations else ""
    return Told(error.code(), info.reason, status.message, field)


def wire_bytes(error: grpc.aio.AioRpcError) -> int:
    """The trailers as HTTP/2 counts them: names, encoded values, and 32 for each."""
    message = quote((error.details() or "").encode(), safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    headers = [("grpc-status", "00"), ("grpc-message", message)]
    for name, value in error.trailing_metadata() or ():
        text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        headers.append((name, text))
    return sum(len(name) + len(value) + 32 for name, value in headers)


INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
UNIMPLEMENTED: Final = grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("streams", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize(
    "method",
    [
        "trunkline.v1.CompletionService/Compleat",
        "trunkline.v1.NoService/Complete",
        "trunkline.v2.CompletionService/Complete",
        "a/b",
    ],
)
async def test_what_nobody_knows_is_not_served(running, method, streams):
    error = await ended(running, method, b"\x00\xff", streams=streams)

    assert told(error) == Told(UNIMPLEMENTED, "UNIMPLEMENTED", "no such method")


def methods() -> list[Any]:
    """All methods of the contract that need accounts."""
    pool = descriptor_pool.Default()
    return [method for name in ACCOUNTS for method in pool.FindServiceByName(name).methods]


async def test_what_needs_accounts_is_not_served_without_them(running):
    for method in methods():
        path = f"{method.containing_service.full_name}/{method.name}"

        error = await ended(running, path, b"", streams=method.server_streaming)

        assert told(error) == Told(UNIMPLEMENTED, "UNIMPLEMENTED", f"/{path} is not served yet")


def spec(**fields: Any) -> CompletionSpec:
    """A good one but for these fields."""
    hi = Message(role=Role.ROLE_USER, parts=[Part(text="hi")])
    return CompletionSpec(**{"model": "m-a", "messages": [hi], **fields})


def nested(levels: int) -> bytes:
    """A request with parts within parts, this many."""
    part = field_bytes(Part.DESCRIPTOR, "tool_result")
    inner = field_bytes(ToolResult.DESCRIPTOR, "parts")
    heads = [
        field_bytes(CompleteRequest.DESCRIPTOR, "spec"),
        field_bytes(CompletionSpec.DESCRIPTOR, "messages"),
        field_bytes(Message.DESCRIPTOR, "parts"),
        *[part, inner] * levels,
    ]
    size, pieces = 0, []
    for tag in reversed(heads):
        piece = tag + varint(size)
        pieces.append(piece)
        size += len(piece)
    return b"".join(reversed(pieces))


def field_bytes(message: Any, name: str) -> bytes:
    """The tag of a field that holds bytes."""
    return varint(message.fields_by_name[name].number << 3 | 2)


def varint(value: int) -> bytes:
    """As protobuf writes it."""
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


GARBAGE: Final = {
    "noise": b"\xff" * 64,
    "a cut message": CompleteRequest(spec=spec()).SerializeToString()[:-1],
    "JSON": b'{"spec": {}}',
    "no UTF-8": CompleteRequest(spec=spec(model="mmmm"))
    .SerializeToString()
    .replace(b"mmmm", b"m\xff\xfem"),
    "10,000 levels": nested(10_000),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_bytes_that_are_no_message_are_refused(running, name):
    stream = await ended(running, COMPLETE, GARBAGE[name], streams=True)
    unary = await ended(running, UNARY, GARBAGE[name], streams=False)

    assert told(stream) == Told(
        INVALID, "INVALID_REQUEST", "request: is no trunkline.v1.CompleteRequest", "request"
    )
    assert told(unary) == Told(
        INVALID, "INVALID_REQUEST", "request: is no trunkline.v1.CompleteUnaryRequest", "request"
    )


async def test_nothing_at_all_is_an_empty_prompt(running):
    expected = Told(
        INVALID, "EMPTY_PROMPT", "spec.messages: at least one message is needed", "spec.messages"
    )

    assert told(await ended(running, COMPLETE, b"", streams=True)) == expected
    assert told(await ended(running, UNARY, b"", streams=False)) == expected


@pytest.mark.parametrize("streams", [False, True], ids=["unary", "stream"])
async def test_33_mib_are_too_large(running, streams):
    message = Message(role=Role.ROLE_USER, parts=[Part(text="x" * 33 * MIB)])
    request: Any = CompleteRequest if streams else CompleteUnaryRequest
    data = request(spec=spec(messages=[message])).SerializeToString()

    error = await ended(running, COMPLETE if streams else UNARY, data, streams=streams)

    assert told(error) == Told(
        INVALID, "PAYLOAD_TOO_LARGE", "request: larger than 33554432 bytes", "request"
    )


async def test_what_the_library_itself_refuses_has_a_status(running):
    error = await ended(running, UNARY, bytes(49 * MIB), streams=False)

    # It never reaches us, so it carries no details.
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def many(count: int) -> Sequence[Message]:
    """Messages without a role, each a violation."""
    return [Message(parts=[Part(text="x")]) for _ in range(count)]


LONG: Final = {
    "a model's name": spec(model="\U0001f600" * 256),
    "a name next to another": spec(model="m-a" + "é" * 200),
    "a token": spec(
        sampling={"logit_bias": {"\U0001f600" * 5000 + str(n): 500 for n in range(20)}}
    ),
    "a provider": spec(
        provider_options_json={"\U0001f600" * 300 + str(n): "[]" for n in range(20)}
    ),
    "10,000 messages": spec(messages=many(10_000)),
    "a path of a schema": spec(
        tool_options={
            "tools": [
                {
                    "name": f"t{n}",
                    "parameters_schema_json": json.dumps(
                        {"properties": {"\U0001f600" * 500: {"type": 5}}}
                    ),
                }
                for n in range(20)
            ]
        }
    ),
    "an allowed provider": spec(constraints={"allowed_providers": ["\U0001f600" * 300] * 100}),
}


@pytest.mark.parametrize("name", LONG)
async def test_trailers_stay_small_whatever_an_error_quotes(running, name):
    data = CompleteRequest(spec=LONG[name]).SerializeToString()

    error = await ended(running, COMPLETE, data, streams=True)

    assert told(error).code in (
        INVALID,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
    )
