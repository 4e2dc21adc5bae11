"""What every call has beside its message: who calls, its ids, its deadline; and how it fails."""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf.message import DecodeError

from trunkline_server.completion.order import Call
from trunkline_server.completion.service import MAX_REQUEST_ID_CHARS
from trunkline_server.core.errors import InvalidRequest, PayloadTooLarge, TrunklineError
from trunkline_server.core.trace import NO_TRACE, child_of
from trunkline_server.core.validation import MAX_REQUEST_BYTES
from trunkline_server.edges.status import status_message, trailers

MAX_TIMEOUT_S: Final = 86_400.0
MAX_PEERS: Final = 4_096  # Whose addresses are remembered: a connection has many calls.

Metadata = Sequence[tuple[str, str | bytes]]
REQUEST_ID: Final = re.compile(rf"[A-Za-z0-9_-]{{8,{MAX_REQUEST_ID_CHARS}}}\Z")

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Context(Protocol):
    """What a method needs of a call's context: grpc.aio's has it, and so has the local channel's."""

    def invocation_metadata(self) -> Metadata | None: ...

    def time_remaining(self) -> float | None: ...

    def peer(self) -> str: ...

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None: ...

    async def abort(
        self, code: Any, details: str = "", trailing_metadata: Any = ()
    ) -> NoReturn: ...


class Calls:
    """Reads calls, and ends those that no method is asked for.

    Args:
        mint_id: makes request ids.
        mint_span_id: makes 16 hexadecimal digits.
        greet: finds out who calls, counts the call, and fills its headers. Raises TrunklineError. None: nobody is
            counted.
    """

    def __init__(
        self,
        mint_id: Callable[[], str],
        mint_span_id: Callable[[], str],
        greet: Callable[[Call], Awaitable[object]] | None = None,
    ) -> None:
        self._mint_id = mint_id
        self._mint_span_id = mint_span_id
        self._greet = greet

    def read(self, method: str, context: Context) -> Call:
        """The call as the use case wants it."""
        metadata = {
            key: value
            for key, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        request_id = metadata.get("x-request-id", "")
        if not REQUEST_ID.match(request_id):
            request_id = f"req_{self._mint_id()}"
        trace = NO_TRACE
        if traceparent := metadata.get("traceparent"):
            trace = child_of(traceparent, metadata.get("tracestate", ""), self._mint_span_id())
        call = Call(
            method=method,
            request_id=request_id,
            peer=lambda: address_of(context.peer()),
            authorization=metadata.get("authorization", ""),
            timeout_s=_timeout_s(context, metadata),
            idempotency_key=metadata.get("idempotency-key", ""),
            traceparent=trace.traceparent,
            tracestate=trace.tracestate,
            trace_id=trace.trace_id,
        )
        note = getattr(context, "note_headers", None)
        if (
            note is not None
        ):  # The local channel's: its callers may have to answer before there is content.
            note(call.headers)
        return call

    async def refuse(self, method: str, context: Context, error: TrunklineError) -> NoReturn:
        """End a call that can't be handed on. It counts as others do, or it would be a way around the limits."""
        call = self.read(method, context)
        try:
            if self._greet is not None:
                await self._greet(call)
        except TrunklineError as refusal:
            error = refusal
        except Exception as bug:  # What there is to tell the caller is known without it.
            log.error("bug", request_id=call.request_id, exc_info=_without_values(bug))
        await abort(context, error, call)


@lru_cache(maxsize=MAX_PEERS)
def address_of(peer: str) -> str:
    """The host of a peer as gRPC names it: `ipv4:HOST:PORT`, `ipv6:[HOST]:PORT` or `unix:PATH`."""
    kind, _, rest = peer.partition(":")
    if kind == "ipv4":
        return rest.rpartition(":")[0]
    if kind == "ipv6":
        host = unquote(rest).rpartition(":")[0]
        return _network(host.strip("[]").partition("%")[0])
    return kind or "unknown"


def _network(host: str) -> str:
    """Who has one address of IPv6 has 2**64 of them, so they count as one."""
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return "unknown"
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def _timeout_s(context: Context, metadata: Mapping[str, str]) -> float | None:
    remaining_s = context.time_remaining()
    # A call without a deadline shows as one some centuries away.
    return remaining_s if remaining_s is not None and remaining_s < MAX_TIMEOUT_S else None


class abort_on_error:
    """Turns errors into statuses. What is no error of ours is a bug: logged with its traceback, answered INTERNAL.

    Without this grpc.aio would answer UNKNOWN with the exception's own text, secrets included.
    """

    __slots__ = ("_call", "_context")

    def __init__(self, context: Context, call: Call) -> None:
        self._context = context
        self._call = call

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or not isinstance(error, Exception):
            return  # Cancellation and the closing of a generator go on as they are.
        if isinstance(error, grpc.aio.AbortError | grpc.aio.AioRpcError):
            return  # The call has its status already.
        if not isinstance(error, TrunklineError):
            log.error("bug", request_id=self._call.request_id, exc_info=_without_values(error))
        await abort(self._context, error, self._call)


class answer_unary(abort_on_error):
    """The same for a unary call: what is answered has the headers that every response has."""

    __slots__ = ()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self._context.send_initial_metadata(head(self._call))
        await super().__aexit__(kind, error, trace)


def head(call: Call) -> list[tuple[str, str]]:
    """The metadata that every response has."""
    return [("x-request-id", call.request_id), *call.headers]


async def abort(context: Context, error: BaseException, call: Call) -> NoReturn:
    """End the call with the error's status."""
    status = status_message(error, call.request_id)
    row = _CODES[status.code]
    await context.abort(row, status.message, (*trailers(status, error), *call.headers))


def _without_values(error: BaseException) -> BaseException:
    """A traceback shows where, and the exception's type what: its text could quote content."""
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)


def parse(message_type: Any, data: Any) -> Any:
    """A request message from bytes, or as the local channel hands it over.

    Raises:
        InvalidRequest, PayloadTooLarge.
    """
    if not isinstance(data, bytes):
        return data
    if len(data) > MAX_REQUEST_BYTES:
        raise PayloadTooLarge("request", f"larger than {MAX_REQUEST_BYTES} bytes")
    try:
        return message_type.FromString(data)
    except (DecodeError, RecursionError, ValueError) as error:
        raise InvalidRequest("request", f"is no {message_type.DESCRIPTOR.full_name}") from error


_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
