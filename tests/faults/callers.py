"""The four ways to ask: gRPC and REST, streamed and not. Each tells in one `Outcome` all that its caller saw."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from trunkline import text as text_of
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import Attempt, Completion, Usage
from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.app import Service

WAYS: Final = ("gRPC stream", "gRPC unary", "SSE", "REST unary")
STREAMS: Final = ("gRPC stream", "SSE")
TIMEOUT_S: Final = 60.0
# What a stream may end with after content.
CODES: Final = {
    "STREAM_INTERRUPTED": grpc.StatusCode.ABORTED,
    "DRAINING": grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True)
class Outcome:
    """What a caller saw of one request.

    Attributes:
        text: all of it, in the order it came.
        ends: how often the answer was said to be complete.
        errors: reasons, one for each time an error was told.
        attempts: provider and reason of each; the reason of the one that answered is empty.
    """

    text: str = ""
    ends: int = 0
    errors: tuple[str, ...] = ()
    attempts: tuple[tuple[str, str], ...] = ()
    tokens: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Patience:
    """How long a caller lets an attempt be silent; None: as long as the model's settings say."""

    first_token_s: float | None = None
    idle_s: float | None = None


def spec(model: str, prompt: str, patience: Patience = Patience()) -> CompletionSpec:
    """What is asked for."""
    found = CompletionSpec(
        model=model, messages=[Message(role=Role.ROLE_USER, parts=[Part(text=prompt)])]
    )
    if patience.first_token_s is not None:
        found.constraints.first_token_timeout.FromNanoseconds(int(patience.first_token_s * 1e9))
    if patience.idle_s is not None:
        found.constraints.idle_timeout.FromNanoseconds(int(patience.idle_s * 1e9))
    return found


def chat(
    model: str,
    prompt: str,
    patience: Patience = Patience(),
    *,
    stream: bool,
    choices: int = 1,
) -> bytes:
    """The same for the OpenAI API, as a whole HTTP request on a connection of its own."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    if choices != 1:
        body["n"] = choices
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    limits = {
        "first_token_timeout_s": patience.first_token_s,
        "idle_timeout_s": patience.idle_s,
    }
    if constraints := {name: value for name, value in limits.items() if value is not None}:
        body["trunkline"] = {"constraints": constraints}
    encoded = json.dumps(body).encode()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: gateway",
        "content-type: application/json",
        f"content-length: {len(encoded)}",
        "connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + encoded


class Callers:
    """Callers of one service. Nothing is retried on this side."""

    def __init__(self, channel: grpc.aio.Channel, http_address: str) -> None:
        self.stub = CompletionServiceStub(channel)
        host, _, port = http_address.rpartition(":")
        self.http = (host, int(port))

    async def ask(
        self,
        way: str,
        model: str,
        prompt: str,
        patience: Patience = Patience(),
    ) -> Outcome:
        """One request in one of the `WAYS`."""
        if way == "gRPC stream":
            return (await self.stream(spec(model, prompt, patience)))[1]
        if way == "gRPC unary":
            return await self._unary(spec(model, prompt, patience))
        if way == "SSE":
            return (await self.sse(model, prompt, patience))[1]
        async with asyncio.timeout(TIMEOUT_S):
            return _rest_outcome(await self._http(chat(model, prompt, patience, stream=False)))

    async def sse(
        self, model: str, prompt: str, patience: Patience = Patience(), *, choices: int = 1
    ) -> tuple[list[dict[str, Any]], Outcome]:
        """Every chunk of one SSE stream, and what they come to."""
        asked = chat(model, prompt, patience, stream=True, choices=choices)
        async with asyncio.timeout(TIMEOUT_S):
            response = await self._http(asked)
        chunks = _chunks(response) if response.status == 200 else []
        return chunks, _sse_outcome(response, chunks)

    async def stream(self, asked: CompletionSpec) -> tuple[list[CompleteResponse], Outcome]:
        """Every event of one gRPC stream, and what they come to."""
        call: Any = self.stub.Complete(CompleteRequest(spec=asked), timeout=TIMEOUT_S)
        events: list[CompleteResponse] = []
        error: grpc.aio.AioRpcError | None = None
        try:
            async for event in call:
                events.append(event)  # noqa: PERF401 - what came before an error counts
        except grpc.aio.AioRpcError as caught:
            error = caught
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        text = "".join(event.text_delta.text for event in events)
        completed = [event.completed.completion for event in events if event.HasField("completed")]
        interrupted = [event.interrupted for event in events if event.HasField("interrupted")]
        attempts = [attempt for found in completed + interrupted for attempt in found.attempts]
        if error is None:
            assert not interrupted
            assert events[-1].HasField("completed")
            told = Outcome(text, len(completed), (), _attempts(attempts), _tokens(completed[0]))
            return events, told
        reason = _reason(error)
        if any(content_of(event) is not None for event in events):
            # The stream's last message says the same as its status.
            assert error.code() is CODES[reason]
            assert [_reason_of(found.error) for found in interrupted] == [reason]
            assert events[-1].HasField("interrupted")
        else:
            assert not events
        tokens = _used(interrupted[0].usage) if interrupted else (0, 0)
        return events, Outcome(text, len(completed), (reason,), _attempts(attempts), tokens)

    async def _unary(self, asked: CompletionSpec) -> Outcome:
        call: Any = self.stub.CompleteUnary(CompleteUnaryRequest(spec=asked), timeout=TIMEOUT_S)
        try:
            completion = (await call).completion
        except grpc.aio.AioRpcError as error:
            return Outcome(errors=(_reason(error),))
        return Outcome(
            text_of(completion), 1, (), _attempts(completion.attempts), _tokens(completion)
        )

    async def _http(self, request: bytes) -> "Response":
        reader, writer = await asyncio.open_connection(*self.http)
        try:
            writer.write(request)
            return response_of(await reader.read())
        finally:
            writer.close()


@dataclass(frozen=True)
class Response:
    """One HTTP response, read to the end of its connection."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool


def response_of(data: bytes) -> Response:
    """Takes a response apart, chunks included."""
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    status = int(first.split(" ")[1]) if first else 0
    if headers.get("transfer-encoding") != "chunked":
        is_whole = len(rest) == int(headers.get("content-length", "-1"))
        return Response(status, headers, rest, is_whole)
    body: list[bytes] = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return Response(status, headers, b"".join(body), True)
        body.append(rest[:length])
        rest = rest[length + 2 :]
    return Response(status, headers, b"".join(body), False)


def _events(response: Response) -> list[bytes]:
    blocks = [block for block in response.body.split(b"\n\n") if block]
    return [block.removeprefix(b"data: ") for block in blocks if not block.startswith(b":")]


def _chunks(response: Response) -> list[dict[str, Any]]:
    return [json.loads(data) for data in _events(response) if data != b"[DONE]"]


def _sse_outcome(response: Response, chunks: list[dict[str, Any]]) -> Outcome:
    if response.status != 200:
        return _rest_outcome(response)
    assert response.is_whole
    assert response.headers["content-type"].startswith("text/event-stream")
    found = _events(response)
    ends = found.count(b"[DONE]")
    assert not ends or found[-1] == b"[DONE]"
    errors = [chunk["error"]["code"].upper() for chunk in chunks if "error" in chunk]
    assert not errors or "error" in chunks[-1]
    text = "".join(
        choice["delta"].get("content") or ""
        for chunk in chunks
        for choice in chunk.get("choices", ())
    )
    finishes = [
        choice["finish_reason"]
        for chunk in chunks
        for choice in chunk.get("choices", ())
        if choice["finish_reason"]
    ]
    assert bool(finishes) == bool(ends)
    extensions = [chunk["trunkline"] for chunk in chunks if "trunkline" in chunk]
    counts = next((chunk["usage"] for chunk in chunks if chunk.get("usage")), None)
    return Outcome(
        text, ends, tuple(errors), _told(extensions[-1:]), _counts(counts) if counts else (0, 0)
    )


def _rest_outcome(response: Response) -> Outcome:
    assert response.is_whole
    body = json.loads(response.body)
    if response.status != 200:
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return Outcome(errors=(body["error"]["code"].upper(),))
    text = body["choices"][0]["message"]["content"]
    return Outcome(text, 1, (), _told([body["trunkline"]]), _counts(body["usage"]))


def _told(extensions: Sequence[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (attempt["provider"], (attempt["error"] or "").upper().replace(" ", "_"))
        for extension in extensions
        for attempt in extension.get("attempts", ())
    )


def _counts(usage: dict[str, int]) -> tuple[int, int]:
    return usage["prompt_tokens"], usage["completion_tokens"]


def _tokens(completion: Completion) -> tuple[int, int]:
    return _used(completion.usage)


def _used(usage: Usage) -> tuple[int, int]:
    return usage.input_tokens, usage.output_tokens


def content_of(event: CompleteResponse) -> tuple[tuple[Any, ...], str] | None:
    """Where content belongs, and the piece of it that an event brings; None for all other events."""
    kind = event.WhichOneof("event")
    if kind == "part_completed":
        done = event.part_completed
        part = Part()
        part.CopyFrom(done.part)
        part.tool_call.id = ""  # Some dialects have none, so it is minted anew each time.
        place = (kind, done.choice_index, done.part_index)
        return place, part.SerializeToString(deterministic=True).hex()
    if kind not in ("text_delta", "reasoning_delta", "refusal_delta", "tool_call_delta"):
        return None
    said = getattr(event, kind)
    key = (kind, said.choice_index, said.part_index)
    return key, said.arguments_json if kind == "tool_call_delta" else said.text


def _attempts(attempts: Sequence[Attempt]) -> tuple[tuple[str, str], ...]:
    return tuple((a.provider, _reason_of(a.error) if a.HasField("error") else "") for a in attempts)


def _reason(error: grpc.aio.AioRpcError) -> str:
    status = status_pb2.Status()
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            status.ParseFromString(value)
    assert status.code == error.code().value[0], error
    return _reason_of(status)


def _reason_of(status: status_pb2.Status) -> str:
    found = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(found):
            return found.reason
    return ""


@asynccontextmanager
async def callers(service: Service) -> AsyncIterator[Callers]:
    """Of this service."""
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(service.grpc_address, options) as channel:
        yield Callers(channel, service.http_address)
