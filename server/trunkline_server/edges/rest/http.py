"""What every REST dialect needs of HTTP: a request, a response, a stream, and errors in between.

Raw ASGI: each layer between the socket and the dialect would cost more than the translation itself.
"""

import asyncio
import math
import re
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from trunkline_server.core.validation import MAX_REQUEST_BYTES
from trunkline_server.edges.status import Refusal, refusal

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Scope = dict[str, Any]
Headers = list[tuple[bytes, bytes]]

BODY_TIMEOUT_S: Final = 30.0
# As JSON a request may be this much larger than its limit as a message: media travels as base64.
MAX_BODY_BYTES: Final = MAX_REQUEST_BYTES
MAX_HEADER_BYTES: Final = 16 * 1024
# The keys of calls that a client's headers become. Everything else stays at the door.
FORWARDED: Final[Mapping[bytes, str]] = {
    b"authorization": "authorization",
    b"idempotency-key": "idempotency-key",
    b"traceparent": "traceparent",
    b"tracestate": "tracestate",
}


REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{8,64}\Z")


class Refused(Exception):
    """The request ends here, with this error."""

    def __init__(self, refused: Refusal) -> None:
        super().__init__(refused.reason)
        self.refusal = refused


class Gone(Exception):
    """The client went away before its request was complete."""


@dataclass(slots=True)
class Request:
    """One HTTP request."""

    scope: Scope
    receive: Receive
    send: Send
    request_id: str
    metadata: list[tuple[str, str]] = field(default_factory=list)

    @property
    def method(self) -> str:
        """In upper case."""
        return str(self.scope["method"])

    async def body(self) -> bytes:
        """All of it.

        Raises:
            Refused: too long, too slow, or compressed; Gone.
        """
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            if len(body) > MAX_BODY_BYTES:
                raise Refused(_too_large())
            return body
        chunks = []
        size = 0
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while True:
                    if message["type"] == "http.disconnect":
                        raise Gone
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > MAX_BODY_BYTES:
                        raise Refused(_too_large())
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
                    message = await self.receive()
        except TimeoutError as error:
            raise Refused(Refusal("INVALID_REQUEST", "the body did not arrive in time")) from error

    async def respond(
        self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """One JSON response."""
        head = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self.request_id.encode()),
            *headers,
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": head})
        await self.send({"type": "http.response.body", "body": body})


def _too_large() -> Refusal:
    return Refusal("PAYLOAD_TOO_LARGE", f"the body is larger than {MAX_BODY_BYTES} bytes")


def request_id_of(scope: Scope, mint: Callable[[], str]) -> str:
    """The caller's own where it is a good one. Known before all else, so that every response carries it."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            return text if REQUEST_ID.match(text) else mint()
    return mint()


def read_headers(request: Request) -> list[tuple[str, str]]:
    """The metadata of the call that this request becomes.

    Raises:
        Refused.
    """
    metadata = [("x-request-id", request.request_id)]
    size = 0
    for name, value in request.scope["headers"]:
        size += len(name) + len(value)
        if name in FORWARDED:
            text = value.decode("latin-1").strip()
            # What gRPC can't carry as text would fail later and far from its cause.
            if not text.isascii() or not text.isprintable():
                raise Refused(
                    Refusal(
                        "INVALID_REQUEST", f"the header {FORWARDED[name]} is no printable ASCII"
                    )
                )
            if text:
                metadata.append((FORWARDED[name], text))
        elif name == b"content-encoding" and value.lower() not in (b"", b"identity"):
            raise Refused(
                Refusal(
                    "INVALID_REQUEST", "a compressed body is not accepted", field="content-encoding"
                )
            )
        elif name == b"content-length" and value.isdigit() and int(value) > MAX_BODY_BYTES:
            raise Refused(_too_large())
    if size > MAX_HEADER_BYTES:
        raise Refused(
            Refusal("INVALID_REQUEST", f"headers are larger than {MAX_HEADER_BYTES} bytes")
        )
    return metadata


class EventStream:
    """A `text/event-stream` response.

    While nothing else is written it keeps itself awake: after `heartbeat_s` without a write it sends a comment, and its
    head first if that has not gone out yet. One timer serves the whole stream.
    """

    def __init__(self, request: Request, heartbeat_s: float) -> None:
        self._send = request.send
        self._request_id = request.request_id.encode()
        self._heartbeat_s = heartbeat_s
        self._loop = asyncio.get_running_loop()
        self._written_at_s = self._loop.time()
        self._timer = self._loop.call_later(heartbeat_s, self._wake)
        self._beat: asyncio.Task[None] | None = None
        self._head: Headers = []
        self.is_open = False

    def set_head(self, headers: Headers) -> None:
        """What the head will say; before the first write."""
        if not self.is_open:
            self._head = headers

    async def write(self, data: bytes) -> None:
        """Bytes of one or more events. The head goes first."""
        self._written_at_s = self._loop.time()
        if self._beat is not None:
            await self._settle_beat()
        if not self.is_open:
            await self._open()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """The last bytes."""
        await self.close()
        if not self.is_open:
            await self._open()
        await self._send({"type": "http.response.body", "body": data})

    async def close(self) -> None:
        """No more heartbeats."""
        self._timer.cancel()
        if self._beat is not None:
            await self._settle_beat()

    async def _open(self) -> None:
        self.is_open = True
        head = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-request-id", self._request_id),
            *self._head,
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": head})

    def _wake(self) -> None:
        quiet_s = self._loop.time() - self._written_at_s
        if quiet_s >= self._heartbeat_s - 0.01:
            # One that still waits for a slow reader is enough; one that failed is for the next write to tell.
            if self._beat is None or (self._beat.done() and self._beat.exception() is None):
                self._beat = self._loop.create_task(self._write_comment())
            quiet_s = 0.0
        self._timer = self._loop.call_later(self._heartbeat_s - quiet_s, self._wake)

    async def _write_comment(self) -> None:
        self._written_at_s = self._loop.time()
        if not self.is_open:
            await self._open()
        await self._send({"type": "http.response.body", "body": b": hb\n\n", "more_body": True})

    async def _settle_beat(self) -> None:
        beat, self._beat = self._beat, None
        if beat is not None:
            await beat


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """The error that a call ended with."""
    metadata = dict(error.trailing_metadata() or ())
    return refusal(error.code(), error.details() or "", metadata)


def error_headers(refused: Refusal) -> Headers:
    """Headers that go with an error."""
    headers: Headers = []
    if refused.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(refused.retry_after_s))))
        headers.append((b"retry-after-ms", b"%d" % max(1, math.ceil(refused.retry_after_s * 1000))))
    if not refused.status.retryable:
        # The gateway has tried what there was to try; the OpenAI SDKs would otherwise repeat every 5xx and 409.
        headers.append((b"x-should-retry", b"false"))
    return headers


def response_headers(metadata: Iterable[tuple[str, Any]]) -> Headers:
    """Response headers from a call's initial metadata: ours only, and not the id, which was known before."""
    return [
        (name.encode("ascii"), value.encode("ascii", "replace"))
        for name, value in metadata
        if isinstance(value, str) and name.startswith(("trunkline-", "ratelimit-"))
    ]


def batches_of(call: Any) -> AsyncGenerator[list[Any], None]:
    """The responses of a streaming call, in batches where the channel has them. Closing it cancels the call."""
    if hasattr(call, "batches"):
        batches: AsyncGenerator[list[Any], None] = call.batches()
        return batches
    return _batches_of_one(call)


async def _batches_of_one(call: Any) -> AsyncGenerator[list[Any], None]:
    try:
        async for response in call:
            yield [response]
    finally:
        call.cancel()
