"""A channel without sockets: the same calls, straight into the servicers, batches and all.

It has the part of `grpc.aio.Channel` that generated stubs and the shims use: unary and server-streaming calls, metadata
both ways, status, timeout and cancel. A call runs in its caller's own task, so cancelling the caller cancels the call.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, NoReturn

import grpc
from grpc.aio import AioRpcError
from grpc.aio import Metadata as AioMetadata

from trunkline_server.edges.grpc.methods import Method

PEER: Final = "trunkline-peer"  # Only here: of a call over the network the connection tells.
Metadata = Sequence[tuple[str, str | bytes]]


class LocalChannel:
    """Calls `methods` directly."""

    is_local = True

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods

    def unary_unary(self, method: str, *_: Any, **__: Any) -> "LocalUnary":
        """For stubs."""
        return LocalUnary(self._methods[method])

    def unary_stream(self, method: str, *_: Any, **__: Any) -> "LocalStream":
        """For stubs."""
        return LocalStream(self._methods[method])

    async def close(self, grace: float | None = None) -> None:
        """Nothing is open."""


class LocalContext:
    """The context that a servicer sees."""

    __slots__ = ("_deadline_s", "_metadata", "_noted", "initial")

    def __init__(self, metadata: Metadata, timeout_s: float | None) -> None:
        self._metadata = metadata
        self._deadline_s = (
            None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        )
        self.initial: Metadata = ()
        self._noted: Metadata = ()

    def note_headers(self, headers: Metadata) -> None:
        """What the response will say, whatever it is. Filled by the servicer as it becomes known."""
        self._noted = headers

    @property
    def known(self) -> Metadata:
        """The initial metadata as far as it is known."""
        return self.initial or self._noted

    def peer(self) -> str:
        """As the caller names the address that it serves."""
        for key, value in self._metadata:
            if key == PEER:
                return str(value)
        return ""

    def invocation_metadata(self) -> Metadata:
        """As the caller sent it."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Seconds left of the caller's timeout."""
        if self._deadline_s is None:
            return None
        return self._deadline_s - asyncio.get_running_loop().time()

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        """Kept for the caller."""
        self.initial = initial_metadata

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """Ends the call, in the words that a client hears."""
        raise AioRpcError(
            code, AioMetadata(*self.initial), AioMetadata(*trailing_metadata), details
        )


class LocalUnary:
    """A unary method, ready to be called."""

    def __init__(self, method: Method) -> None:
        self._method = method

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        **_: Any,
    ) -> "LocalUnaryCall":
        return LocalUnaryCall(self._method, request, LocalContext(metadata or (), timeout))


class LocalUnaryCall:
    """Await it for the response. Its metadata is known then."""

    def __init__(self, method: Method, request: Any, context: LocalContext) -> None:
        self._method = method
        self._request = request
        self._context = context

    def __await__(self) -> Generator[Any, None, Any]:
        call: Coroutine[Any, Any, Any] = self._method.serve(self._request, self._context)
        return call.__await__()

    async def initial_metadata(self) -> Metadata:
        """What the servicer sent."""
        return self._context.initial


class LocalStream:
    """A server-streaming method, ready to be called."""

    def __init__(self, method: Method) -> None:
        self._method = method

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        **_: Any,
    ) -> "LocalStreamCall":
        return LocalStreamCall(self._method, request, LocalContext(metadata or (), timeout))


class LocalStreamCall:
    """Iterate it for responses, or take `batches`."""

    def __init__(self, method: Method, request: Any, context: LocalContext) -> None:
        self._numbers = method.numbers
        self._context = context
        self._batches: AsyncGenerator[list[Any], None] = method.serve(request, context)

    def batches(self) -> AsyncGenerator[list[Any], None]:
        """All responses of one read of the upstream at a time. Close it when leaving early."""
        return self._batches

    async def __aiter__(self) -> AsyncIterator[Any]:
        sequence = 0
        async with aclosing(self._batches) as batches:
            async for batch in batches:
                for response in batch:
                    if self._numbers:
                        sequence += 1
                        response.sequence = sequence
                    yield response

    async def initial_metadata(self) -> Metadata:
        """What the servicer sent, once the first batch has come."""
        return self._context.initial

    def known_metadata(self) -> Metadata:
        """What is known of it before."""
        return self._context.known
