"""Callers drawn by lot: over gRPC and over the shim, for a whole answer or a stream, patient or not, rich or not."""

import asyncio
import json
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

import grpc
import grpc.aio

from tests.accounts.panels.world import World, key_of
from tests.edges.errors import reason_of
from tests.edges.http11 import Wire
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import Completion, Usage
from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest, StreamOptions
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec, Recovery
from trunkline.v1.message_pb2 import Message, Part, Role

UNARY: Final = "gRPC, whole"
STREAM: Final = "gRPC, streamed"
SHIM: Final = "shim, whole"
SHIM_STREAM: Final = "shim, streamed"
WAYS: Final = (UNARY, STREAM, STREAM, SHIM, SHIM_STREAM)
PLENTY: Final = 10**12
LIMIT_S: Final = 20.0
LEFT: Final = "LEFT"
TURNED_AWAY: Final = ("overloaded", "unavailable")  # There was too much to do just then.


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        number: of the run, and of its caller.
        leaves_s: when its caller cancels it.
        deadline_s: what it is given.
        granted: what the caller's account has.
    """

    number: int
    way: str
    route: str
    text: str
    max_tokens: int | None = None
    leaves_s: float | None = None
    deadline_s: float | None = None
    key: str = ""
    granted: int = PLENTY
    asks_json: bool = False
    stays: bool = False
    restarts: bool = False
    heartbeat: bool = False

    @property
    def spec(self) -> CompletionSpec:
        """For gRPC."""
        message = Message(role=Role.ROLE_USER, parts=[Part(text=self.text)])
        spec = CompletionSpec(model=self.route, messages=[message])
        if self.max_tokens is not None:
            spec.sampling.max_output_tokens = self.max_tokens
        if self.asks_json:
            spec.response_format.json_object.SetInParent()
        if self.stays:
            spec.constraints.disable_escalation = True
        if self.restarts:
            spec.constraints.recovery = Recovery.RECOVERY_RESTART
        return spec

    @property
    def body(self) -> dict[str, Any]:
        """For the shim."""
        body: dict[str, Any] = {
            "model": self.route,
            "messages": [{"role": "user", "content": self.text}],
        }
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        if self.asks_json:
            body["response_format"] = {"type": "json_object"}
        if self.way == SHIM_STREAM:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


@dataclass
class Seen:
    """What its caller got.

    Attributes:
        completion: over gRPC, when it was told that the answer is whole.
        told: the shim's whole answer: its usage and its object `waymark`.
        interrupted: what a stream that broke off was told to have used.
        reason: of the error otherwise.
        again: what came when the same was asked again under its key.
    """

    ask: Ask
    chars: int = 0
    completion: Completion | None = None
    told: dict[str, Any] | None = None
    interrupted: Usage | None = None
    reason: str = ""
    is_replayed: bool = False
    again: "Seen | None" = None

    @property
    def is_whole(self) -> bool:
        return self.completion is not None or self.told is not None


def drawn(random: Random, found: World, number: int) -> Ask:
    """A request of one caller."""
    way = random.choice(WAYS)
    is_grpc = way in (UNARY, STREAM)
    is_poor = random.random() < 0.2
    return Ask(
        number,
        way,
        random.choice(found.routes),
        f"run-{number}- What is it?" + " Tell me more." * random.choice((0, 0, 10, 100)),
        max_tokens=random.choice((None, None, 1, 30, 1_000)),
        leaves_s=random.uniform(0.0, 0.4) if random.random() < 0.25 else None,
        deadline_s=random.uniform(0.02, 0.5) if is_grpc and random.random() < 0.1 else None,
        key=f"key-{number}" if random.random() < 0.25 else "",
        granted=int(10 ** random.uniform(3, 9)) if is_poor else PLENTY,
        asks_json=random.random() < 0.1,
        stays=is_grpc and random.random() < 0.1,
        restarts=way == STREAM and random.random() < 0.05,
        heartbeat=way == STREAM and random.random() < 0.1,
    )


class Callers:
    """All callers of one service."""

    def __init__(self, channel: grpc.aio.Channel, http_address: str) -> None:
        self._stub: Any = CompletionServiceStub(channel)
        self._address = http_address.rpartition(":")

    async def ask(self, ask: Ask) -> Seen:
        """Until it is answered, refused, or left; and once more, where it has a key and was answered."""
        seen = Seen(ask)
        asking = self._grpc if ask.way in (UNARY, STREAM) else self._shim
        try:
            async with asyncio.timeout(LIMIT_S if ask.leaves_s is None else ask.leaves_s):
                await asking(seen)
        except TimeoutError:
            assert ask.leaves_s is not None, ask
            seen.reason = LEFT
        if ask.key and seen.is_whole:
            async with asyncio.timeout(LIMIT_S):
                while seen.again is None or seen.again.reason.lower() in TURNED_AWAY:
                    seen.again = Seen(replace(ask, deadline_s=None))
                    await asking(seen.again)
        return seen

    async def _grpc(self, seen: Seen) -> None:
        ask = seen.ask
        metadata = (("authorization", f"Bearer {key_of(ask.number)}"),)
        call: Any
        try:
            if ask.way == UNARY:
                unary = CompleteUnaryRequest(spec=ask.spec, idempotency_key=ask.key)
                call = self._stub.CompleteUnary(unary, metadata=metadata, timeout=ask.deadline_s)
                seen.completion = (await call).completion
            else:
                options = StreamOptions(include_final_messages=ask.number % 2 == 0)
                if ask.heartbeat:
                    options.heartbeat_interval.FromMilliseconds(1_000)
                asked = CompleteRequest(
                    spec=ask.spec, idempotency_key=ask.key, stream_options=options
                )
                call = self._stub.Complete(asked, metadata=metadata, timeout=ask.deadline_s)
                try:
                    async for response in call:
                        _take(seen, response)
                finally:
                    call.cancel()
            seen.is_replayed = "idempotent-replayed" in dict(await call.initial_metadata())
        except grpc.aio.AioRpcError as error:
            has_told = error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
            seen.reason = reason_of(error)[1] if has_told else "DEADLINE_EXCEEDED"

    async def _shim(self, seen: Seen) -> None:
        ask = seen.ask
        body = json.dumps(ask.body).encode()
        host, _, port = self._address
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            "host: g",
            f"authorization: Bearer {key_of(ask.number)}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *([f"idempotency-key: {ask.key}"] if ask.key else []),
        ]
        wire = Wire(*await asyncio.open_connection(host, int(port)))
        try:
            wire.send("\r\n".join([*lines, "", ""]).encode() + body)
            response = await wire.response()
        finally:
            wire.writer.close()
        seen.is_replayed = "idempotent-replayed" in response.headers
        if response.status != 200:
            seen.reason = str(json.loads(response.body)["error"]["code"])
        elif ask.way == SHIM:
            seen.told = json.loads(response.body)
        else:
            _read(seen, response.body)


def _take(seen: Seen, response: CompleteResponse) -> None:
    kind = response.WhichOneof("event")
    if kind == "text_delta":
        seen.chars += len(response.text_delta.text)
    elif kind == "stream_reset":
        seen.chars = 0
    elif kind == "completed":
        seen.completion = response.completed.completion
    elif kind == "interrupted":
        seen.interrupted = response.interrupted.usage


def _read(seen: Seen, body: bytes) -> None:
    last: dict[str, Any] = {}
    for line in body.split(b"\n"):
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        last = json.loads(line[6:])
        if "error" in last:
            seen.reason = str(last["error"].get("code"))
    if "waymark" in last:
        seen.told = last
