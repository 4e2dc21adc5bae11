"""What every REST dialect needs of HTTP: a request, a response, a stream, and errors in between."""

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import grpc

from trunkline.v1.catalog_service_pb2 import ListModelsRequest
from trunkline.v1.catalog_service_pb2_grpc import CatalogServiceStub
from trunkline.v1.completion_service_pb2 import StreamOptions
from trunkline_server.core.validation import MAX_REQUEST_BYTES
from trunkline_server.edges.status import LIMIT_HEADERS, Refusal, refusal

Headers = list[tuple[bytes, bytes]]

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
PASSED_ON: Final = ("trunkline-", *LIMIT_HEADERS, "idempotent-replayed")
ASKING_S: Final = 2.0
HEARTBEAT: Final = b": hb\n\n"  # A comment, which clients pass over.
LEAST_HEARTBEAT_S: Final = 0.1  # That a service takes.
AHEAD_SHARE: Final = 0.8
REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_-]{8,64}\Z")


class Refused(Exception):
    """The request ends here, with this error."""

    def __init__(self, refused: Refusal) -> None:
        super().__init__(refused.reason)
        self.refusal = refused


class Exchange(Protocol):
    """The connection's side of one request: where its response goes."""

    def write_head(self, status: int, headers: Headers, length: int | None) -> None:
        """Status and headers. `length` None: the body comes in pieces until `end`."""
        ...

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        ...

    def end(self, data: bytes = b"") -> None:
        """The last piece, which may be empty."""
        ...

    @property
    def is_slow(self) -> bool:
        """Is more buffered than the client takes?"""
        ...

    @property
    def peer(self) -> str:
        """The client's address, as gRPC names one."""
        ...

    async def drain(self) -> None:
        """Wait until it is not."""
        ...


@dataclass(slots=True)
class Request:
    """One HTTP request, whole. Header names are in lower case, `query` is without its question mark.

    `echoed`: headers that every response to it carries.
    """

    method: str
    path: str
    headers: Headers
    body: bytes
    exchange: Exchange
    request_id: str = ""
    metadata: list[tuple[str, str]] = field(default_factory=list)
    query: str = ""
    echoed: Headers = field(default_factory=list)

    def respond(
        self,
        status: int,
        body: bytes,
        headers: Iterable[tuple[bytes, bytes]] = (),
        content_type: bytes = b"application/json",
    ) -> None:
        """The whole response."""
        head = [
            (b"content-type", content_type),
            (b"x-request-id", self.request_id.encode()),
            *headers,
            *self.echoed,
        ]
        self.exchange.write_head(status, head, len(body))
        self.exchange.end(body)


def too_large() -> Refusal:
    """The body is over its limit."""
    return Refusal("PAYLOAD_TOO_LARGE", f"the body is larger than {MAX_BODY_BYTES} bytes")


def request_id_of(headers: Headers, mint: Callable[[], str]) -> str:
    """The caller's own where it is a good one. Known before all else, so that every response carries it."""
    for name, value in headers:
        if name == b"x-request-id":
            return value.decode("ascii") if REQUEST_ID.match(value) else mint()
    return mint()


def read_headers(request: Request) -> list[tuple[str, str]]:
    """The metadata of the call that this request becomes.

    Raises:
        Refused.
    """
    metadata = [("x-request-id", request.request_id), ("trunkline-peer", request.exchange.peer)]
    for name, value in request.headers:
        if name in FORWARDED:
            text = value.decode("latin-1").strip()
            # What gRPC can't carry as text would fail later and far from its cause.
            if not text.isascii() or not text.isprintable():
                raise Refused(
                    Refusal(
                        "INVALID_REQUEST", f"the header {FORWARDED[name]} is no printable ASCII"
                    )
                )
            if name == b"authorization" and any(key == "authorization" for key, _ in metadata):
                raise Refused(Refusal("INVALID_REQUEST", "the header authorization comes twice"))
            if text:
                metadata.append((FORWARDED[name], text))
        elif name == b"content-encoding" and value.lower() not in (b"", b"identity"):
            raise Refused(
                Refusal(
                    "INVALID_REQUEST", "a compressed body is not accepted", field="content-encoding"
                )
            )
    return metadata


class Limits:
    """Asks the service about a caller's limits, for responses to requests that become no call of its."""

    def __init__(self, channel: Any) -> None:
        self._catalog = CatalogServiceStub(channel)

    async def tell(self, metadata: list[tuple[str, str]], refused: Refusal) -> Refusal:
        """The refusal with what the limits say. It counts as a request: who is over a limit, or nobody, is told that.

        Paths that are not there are no secret.
        """
        call = self._catalog.ListModels(
            ListModelsRequest(page_size=1), timeout=ASKING_S, metadata=metadata
        )
        try:
            await call
        except grpc.aio.AioRpcError as error:
            found = refusal_of(error)
            is_nobody = found.status.http_status == 401 and refused.reason != "NOT_FOUND"
            if is_nobody or found.status.http_status == 429:
                return found
            return replace(refused, headers=found.headers)
        told = await call.initial_metadata()
        return replace(
            refused, headers=tuple((n, v) for n, v in told if n.startswith(LIMIT_HEADERS))
        )


def keep_awake(options: StreamOptions, channel: Any, heartbeat_s: float) -> None:
    """Ask for heartbeats over a network: before the first comes metadata, for a head that can't wait for content."""
    if not getattr(channel, "is_local", False):
        # A little before our own: a head that goes out then has to know what that metadata says.
        ahead_s = max(LEAST_HEARTBEAT_S, AHEAD_SHARE * heartbeat_s)
        options.heartbeat_interval.FromMilliseconds(round(ahead_s * 1000))


class EventStream:
    """A `text/event-stream` response.

    While nothing else is written it keeps itself awake: after `heartbeat_s` without a write it sends `beat`, and its
    head first if that has not gone out yet. One timer serves the whole stream.
    """

    def __init__(self, request: Request, heartbeat_s: float, beat: bytes = HEARTBEAT) -> None:
        self._beat = beat
        self._exchange = request.exchange
        self._request_id = request.request_id.encode()
        self._echoed = request.echoed
        self._heartbeat_s = heartbeat_s
        self._loop = asyncio.get_running_loop()
        self._written_at_s = self._loop.time()
        self._timer = self._loop.call_later(heartbeat_s, self._wake)
        self._head: dict[bytes, bytes] = {}
        self._known: Callable[[], Headers] | None = None
        self.is_open = False

    def set_head(self, headers: Headers) -> None:
        """What the head will say, beside what it was told before; before the first write."""
        self._head.update(headers)

    def set_known(self, call: Any) -> None:
        """For a head that has to go out before the call has any metadata: what it knows by then."""
        known = getattr(call, "known_metadata", None)
        if known is not None:
            self._known = lambda: response_headers(known())

    @property
    def is_slow(self) -> bool:
        """Does the client read more slowly than we write? Then `drain` before the next write."""
        return self._exchange.is_slow

    async def drain(self, batches: AsyncGenerator[list[Any], None]) -> None:
        """Wait for the client. Whoever makes the batches hears of a cancellation, and may have an error for him."""
        try:
            await self._exchange.drain()
        except asyncio.CancelledError as error:
            await batches.athrow(error)

    def write(self, data: bytes) -> None:
        """Bytes of one or more events. The head goes first."""
        self._written_at_s = self._loop.time()
        if not self.is_open:
            self._open()
        self._exchange.write(data)

    def end(self, data: bytes = b"") -> None:
        """The last bytes."""
        self.close()
        if not self.is_open:
            self._open()
        self._exchange.end(data)

    def close(self) -> None:
        """No more heartbeats."""
        self._timer.cancel()

    def _open(self) -> None:
        self.is_open = True
        head = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-request-id", self._request_id),
            *self._head.items(),
            *self._echoed,
        ]
        self._exchange.write_head(200, head, None)

    def _wake(self) -> None:
        now_s = self._loop.time()
        if now_s - self._written_at_s >= self._heartbeat_s - 0.01:
            self._written_at_s = now_s
            if not self.is_open:
                if not self._head and self._known is not None:
                    self._head.update(self._known())
                self._open()
            self._exchange.write(self._beat)
        self._timer = self._loop.call_at(self._written_at_s + self._heartbeat_s, self._wake)


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """The error that a call ended with."""
    metadata = dict(error.trailing_metadata() or ())
    return refusal(error.code(), error.details() or "", metadata)


def error_headers(refused: Refusal) -> Headers:
    """Headers that go with an error."""
    headers: Headers = [(name.encode(), value.encode()) for name, value in refused.headers]
    if refused.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(refused.retry_after_s))))
        headers.append((b"retry-after-ms", b"%d" % max(1, math.ceil(refused.retry_after_s * 1000))))
    if not (refused.status.retryable and refused.is_repeatable):
        # The gateway has tried what there was to try; the OpenAI SDKs would otherwise repeat every 5xx and 409.
        headers.append((b"x-should-retry", b"false"))
    return headers


def response_headers(metadata: Iterable[tuple[str, Any]]) -> Headers:
    """Response headers from a call's initial metadata: ours only, and not the id, which was known before."""
    # Without a loop of our own: there are a dozen for each request.
    return list(filter(None, map(_HEADERS.__getitem__, metadata)))


class _Headers(dict[tuple[str, Any], tuple[bytes, bytes] | None]):
    """The header that an item of metadata becomes, None where it stays inside. Most say what they said lately."""

    def __missing__(self, item: tuple[str, Any]) -> tuple[bytes, bytes] | None:
        name, value = item
        if not name.startswith(PASSED_ON) or name.endswith("-bin"):
            return None
        header = _RENAMED.get(name) or name.encode("ascii"), value.encode("ascii", "replace")
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        self[item] = header
        return header


MAX_REMEMBERED: Final = 1_024
# The route that is a panel has the name that Speechify's clients know.
_RENAMED: Final = {"trunkline-panel": b"speechify-route"}
_HEADERS: Final = _Headers()


def head_of(metadata: Iterable[tuple[str, Any]], batch: Iterable[Any]) -> Headers:
    """The same, and the route: metadata that came before content can't tell it, so the event does."""
    headers = response_headers(metadata)
    known = {name for name, _ in headers}
    for response in batch:
        if response.HasField("route_selected"):
            route = response.route_selected.route
            found = [
                (b"trunkline-provider", route.provider),
                (b"trunkline-model", route.model),
                (b"trunkline-failover-count", str(route.total_failover_count)),
                (b"trunkline-route", route.route),
            ]
            headers += [
                (name, value.encode("ascii", "replace"))
                for name, value in found
                if value and name not in known
            ]
            break
    return headers


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
