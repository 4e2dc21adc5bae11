"""What comes with a call beside its message: keys, ids, traces; and what is refused by name."""

import asyncio
import random
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import message_factory
from google.rpc import error_details_pb2

from tests.edges.errors import fields_of, reason_of, request_id_of, status_of
from tests.edges.observed import LIMIT_S, Observed, observed, spec, stream
from tests.faults.waiting import until
from tests.support.service import model, provider, service_over
from tests.support.upstream import hello, upstream
from trunkline.v1 import (
    account_service_pb2,
    admin_service_pb2,
)
from trunkline.v1.catalog_service_pb2 import GetModelRequest, ListModelsRequest
from trunkline.v1.catalog_service_pb2_grpc import CatalogServiceStub
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    CompleteUnaryRequest,
    PreviewRouteRequest,
)
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import SamplingOptions

SECRET = "sk-the-key-of-the-shop"
KEYS: dict[str, Any] = {"keys": [{"id": "shop", "key_env": "KEY"}]}
ENVIRONMENT = {"KEY": SECRET}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
BAD_KEYS = {
    "none": {},
    "another": {"authorization": "Bearer sk-another"},
    "no scheme": {"authorization": SECRET},
    "another scheme": {"authorization": f"Basic {SECRET}"},
}


def over(url: str) -> dict[str, Any]:
    """The model m at this address."""
    return {"providers": [provider("a", url)], "models": [model("m", "a")]}


async def error_of(call: Any) -> grpc.aio.AioRpcError:
    """The error that a call of any kind ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(call)
    return caught.value


async def read(call: Any) -> None:
    """A call to its end."""
    if hasattr(call, "__aiter__"):
        async for _ in call:
            pass
    else:
        await call


@pytest.mark.parametrize("headers", BAD_KEYS.values(), ids=BAD_KEYS)
@pytest.mark.parametrize(
    "method", ["Complete", "CompleteUnary", "PreviewRoute", "ListModels", "GetModel"]
)
async def test_without_a_good_key_no_method_is_served(method, headers):
    options: dict[str, Any] = {"timeout": LIMIT_S, "metadata": tuple(headers.items())}
    requests: dict[str, Any] = {
        "Complete": CompleteRequest(spec=spec("m")),
        "CompleteUnary": CompleteUnaryRequest(spec=spec("m")),
        "PreviewRoute": PreviewRouteRequest(spec=spec("m")),
        "ListModels": ListModelsRequest(),
        "GetModel": GetModelRequest(model_id="m"),
    }
    async with (
        upstream(hello) as good,
        observed(ENVIRONMENT, **over(good.url), **KEYS) as running,
        grpc.aio.insecure_channel(running.service.grpc_address) as channel,
    ):
        is_catalog = method in ("ListModels", "GetModel")
        stub = CatalogServiceStub(channel) if is_catalog else CompletionServiceStub(channel)
        error = await error_of(getattr(stub, method)(requests[method], **options))

    assert reason_of(error) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY")
    assert error.details() == "missing or unknown API key"
    assert SECRET not in str(error)
    assert good.exchanges == []


async def test_a_good_key_is_served_and_logged_by_its_id():
    async with (
        upstream(hello) as good,
        observed(ENVIRONMENT, **over(good.url), **KEYS) as running,
    ):
        found = await stream(
            running.service, spec("m"), metadata=(("authorization", f"Bearer {SECRET}"),)
        )
        line = await running.request()

    assert found.text == "Hello"
    assert line["key_id"] == "shop"
    assert good.exchanges[0].header("authorization") is None


def waits(response: httpx.Response) -> tuple[str, str]:
    """How long a refused caller is told to wait, in seconds and milliseconds."""
    return response.headers["retry-after"], response.headers["retry-after-ms"]


async def posted(running: Observed, path: str = "/v1/chat/completions", **more: Any) -> Any:
    """A response of the REST edge."""
    async with httpx.AsyncClient(timeout=LIMIT_S) as http:
        url = f"http://{running.service.http_address}{path}"
        method = "POST" if path.endswith("completions") else "GET"
        body = {"json": CHAT} if method == "POST" else {}
        return await http.request(method, url, **{**body, **more})


@pytest.mark.parametrize("headers", BAD_KEYS.values(), ids=BAD_KEYS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/models/m"])
async def test_over_http_too_no_path_is_served_without_a_good_key(path, headers):
    async with (
        upstream(hello) as good,
        observed(ENVIRONMENT, **over(good.url), **KEYS) as running,
    ):
        response = await posted(running, path, headers=headers)

    assert response.status_code == 401
    assert response.json() == {
        "error": {
            "message": "missing or unknown API key",
            "type": "authentication_error",
            "param": None,
            "code": "invalid_api_key",
        }
    }
    assert good.exchanges == []


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_operators_pages_need_no_key(path):
    async with observed(ENVIRONMENT, **over("http://127.0.0.1:9"), **KEYS) as running:
        response = await posted(running, path)

    assert response.status_code == 200


@pytest.mark.parametrize("asked", ["my-request-id_42", "", "bad id"])
async def test_a_requests_id_is_echoed_on_every_error_too(asked):
    metadata = (("x-request-id", asked),) if asked else ()
    async with service_over("http://127.0.0.1:9") as running:
        found = await stream(running, spec("unknown"), metadata=metadata)

    given = request_id_of(found.error)
    assert given == asked if asked.startswith("my") else given.startswith("req_")


async def test_over_http_the_id_reaches_the_log():
    async with upstream(hello) as good, observed(**over(good.url)) as running:
        response = await posted(running, headers={"x-request-id": "my-request-id_42"})
        line = await running.request()

    assert response.headers["x-request-id"] == line["request_id"] == "my-request-id_42"


@pytest.mark.parametrize("edge", ["gRPC", "HTTP"])
async def test_a_trace_goes_on_to_the_upstream_with_our_span_and_into_the_log(edge):
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=x"}
    async with upstream(hello) as good, observed(**over(good.url)) as running:
        if edge == "gRPC":
            await stream(running.service, spec("m"), metadata=tuple(headers.items()))
        else:
            await posted(running, headers=headers)
        line = await running.request()

    version, trace, span, flags = str(good.exchanges[0].header("traceparent")).split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span not in TRACEPARENT
    assert int(span, 16) > 0
    assert good.exchanges[0].header("tracestate") == "vendor=x"
    assert line["trace_id"] == TRACE


@pytest.mark.parametrize("traceparent", ["", "garbage", f"00-{'0' * 32}-00f067aa0ba902b7-01"])
async def test_without_a_good_trace_none_is_passed_on(traceparent):
    async with upstream(hello) as good, observed(**over(good.url)) as running:
        metadata = (("traceparent", traceparent), ("tracestate", "vendor=x"))
        await stream(running.service, spec("m"), metadata=metadata)

    assert good.exchanges[0].header("traceparent") is None
    assert good.exchanges[0].header("tracestate") is None


async def test_each_request_has_a_span_of_its_own():
    async with upstream(hello) as good, observed(**over(good.url)) as running:
        for _ in range(3):
            await stream(running.service, spec("m"), metadata=(("traceparent", TRACEPARENT),))

    spans = {str(exchange.header("traceparent")) for exchange in good.exchanges}
    assert len(spans) == 3


@pytest.mark.parametrize("way", ["field", "metadata", "both alike"])
async def test_an_idempotency_key_is_refused_rather_than_ignored(way):
    async with upstream(hello) as good, service_over(good.url) as running:
        found = await stream(
            running,
            spec(),
            metadata=() if way == "field" else (("idempotency-key", "k1"),),
            idempotency_key="" if way == "metadata" else "k1",
        )

    assert reason_of(found.error) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")
    assert fields_of(found.error) == ["idempotency_key"]
    assert good.exchanges == []


@pytest.mark.parametrize(
    ("header", "field"), [("k1", "k2"), ("k" * 256, ""), ("", "k" * 256)], ids=range(3)
)
async def test_idempotency_keys_that_make_no_sense_are_refused_as_such(header, field):
    async with service_over("http://127.0.0.1:9") as running:
        found = await stream(
            running,
            spec(),
            metadata=(("idempotency-key", header),) if header else (),
            idempotency_key=field,
        )

    assert reason_of(found.error) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert fields_of(found.error) == ["idempotency_key"]


async def test_over_http_an_idempotency_key_is_refused_too():
    async with upstream(hello) as good, observed(**over(good.url)) as running:
        response = await posted(running, headers={"idempotency-key": "k1"})

    assert response.status_code == 501
    assert response.json()["error"]["code"] == "unimplemented"
    assert good.exchanges == []


@pytest.mark.parametrize(
    ("fields", "code", "reason", "field"),
    [
        ({"conversation_id": "c1"}, "NOT_FOUND", "CONVERSATION_NOT_FOUND", None),
        ({"skills": ["s"]}, "INVALID_ARGUMENT", "INVALID_REQUEST", "spec.skills[0]"),
        ({"persona": "pirate"}, "INVALID_ARGUMENT", "INVALID_REQUEST", "spec.persona"),
        ({"mode": "fats"}, "INVALID_ARGUMENT", "INVALID_REQUEST", "spec.mode"),
        ({"mode": "research"}, "INVALID_ARGUMENT", "MODE_REQUIRES_JOB", "spec.mode"),
        (
            {"component_library": "x"},
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
            "spec.component_library",
        ),
    ],
    ids=range(6),
)
async def test_what_is_not_there_is_refused_by_name(fields, code, reason, field):
    async with upstream(hello) as good, service_over(good.url) as running:
        found = await stream(running, spec(**fields))

    assert reason_of(found.error) == (grpc.StatusCode[code], reason)
    assert fields_of(found.error) == ([field] if field else [])
    assert good.exchanges == []


UNSERVED = [
    (service.full_name, method.name, method.input_type, method.server_streaming)
    for file in (account_service_pb2, admin_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


async def test_without_accounts_their_methods_are_unimplemented_with_details():
    found = {}
    async with (
        service_over("http://127.0.0.1:9") as running,
        grpc.aio.insecure_channel(running.grpc_address) as channel,
    ):
        for service, method, input_type, streams in UNSERVED:
            new_call: Any = channel.unary_stream if streams else channel.unary_unary
            request = message_factory.GetMessageClass(input_type)()
            call = new_call(f"/{service}/{method}")(request.SerializeToString(), timeout=LIMIT_S)
            found[method] = reason_of(await error_of(call))

    assert len(found) == len(UNSERVED) > 10
    assert set(found.values()) == {(grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")}


@pytest.mark.parametrize("path", ["/trunkline.v1.CompletionService/Nope", "/no.Such/Method"])
async def test_methods_that_do_not_exist_are_unimplemented_with_details(path):
    async with (
        service_over("http://127.0.0.1:9") as running,
        grpc.aio.insecure_channel(running.grpc_address) as channel,
    ):
        method: Any = channel.unary_unary(path)
        error = await error_of(method(b"", timeout=LIMIT_S))

    assert reason_of(error) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")


async def test_bytes_that_are_no_message_are_refused_with_details():
    async with (
        service_over("http://127.0.0.1:9") as running,
        grpc.aio.insecure_channel(running.grpc_address) as channel,
    ):
        complete: Any = channel.unary_stream("/trunkline.v1.CompletionService/Complete")
        error = await error_of(complete(b"\xff\xff\xff", timeout=LIMIT_S))

    assert reason_of(error) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert fields_of(error) == ["request"]


async def test_the_largest_error_arrives_whole():
    bad = {("🙂%é" * 20) + str(number): 1000.0 for number in range(20)}
    async with service_over("http://127.0.0.1:9") as running:
        found = await stream(running, spec(sampling=SamplingOptions(logit_bias=bad)))

    assert reason_of(found.error) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert found.error is not None
    assert status_of(found.error).message == found.error.details()
    assert fields_of(found.error)


async def test_more_requests_than_allowed_are_told_to_come_again(monkeypatch):
    monkeypatch.setattr(random, "random", lambda: 0.25)
    gate = asyncio.Event()

    async def held(_: Any) -> Any:
        await gate.wait()
        return hello(_)

    async with (
        upstream(held) as slow,
        observed(limits={"max_in_flight": 1}, **over(slow.url)) as running,
    ):
        first = asyncio.create_task(stream(running.service, spec("m")))
        async with asyncio.timeout(LIMIT_S):
            while running.service.admission.in_flight == 0:  # noqa: ASYNC110 - a number tells nobody
                await asyncio.sleep(0.002)
        second = await stream(running.service, spec("m"))
        third = await posted(running)
        gate.set()
        answered = await first

    assert answered.text == "Hello"
    assert reason_of(second.error) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
    assert third.status_code == 503
    delay = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(delay) for detail in status_of(second.error).details)
    assert delay.retry_delay.ToMilliseconds() == 1050  # A second, and a quarter of a fifth.
    assert waits(third) == ("2", "1050")
    assert "x-should-retry" not in third.headers


async def test_a_request_that_can_not_even_wait_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(random, "random", lambda: 0.25)
    gate = asyncio.Event()

    async def held(_: Any) -> Any:
        await gate.wait()
        return hello(_)

    limits = {"max_in_flight": 1, "max_waiting": 0}
    async with upstream(held) as slow, observed(limits=limits, **over(slow.url)) as running:
        before = await posted(running, json=None, content=b"no JSON")
        first = asyncio.create_task(stream(running.service, spec("m")))
        await until(lambda: running.service.admission.in_flight == 1, "the house is full")
        refused = await posted(running, json=None, content=b"no JSON")
        counted = (await posted(running, "/metrics")).text
        gate.set()
        await first

    assert before.status_code == 400
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "overloaded"
    assert waits(refused) == ("2", "1050")
    assert 'trunkline_requests_turned_away_total{criticality="standard"}' in counted
