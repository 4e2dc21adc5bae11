"""The REST edge as one application: paths to dialects, errors to responses.

A shim is a client of the contract: it is given a channel, local or real, and nothing else of the service.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Final, Protocol

import grpc
import structlog

from trunkline_server.core.ids import ENTROPY_BYTES, ulid
from trunkline_server.edges.rest.http import (
    Limits,
    Refused,
    Request,
    error_headers,
    read_headers,
    refusal_of,
    request_id_of,
)
from trunkline_server.edges.rest.routes import Handler, Routes
from trunkline_server.edges.status import Refusal

OVERLOADED: Final = "OVERLOADED"

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Dialect(Protocol):
    """One published API."""

    @property
    def routes(self) -> Routes:
        """All that it serves."""
        ...

    def error(self, refused: Refusal) -> bytes:
        """The body of an error."""
        ...


def mint_request_id() -> str:
    """A new id, as the service makes them."""
    return f"req_{ulid(time.time_ns() // 1_000_000, os.urandom(ENTROPY_BYTES))}"


class RestApp:
    """All dialects, and the operators' pages.

    Args:
        pages: operators' pages by path, each a function without arguments that gives status, type and body.
        arrival: put around each POST before its body is parsed, made from its metadata; raises Refused. Only a shim in
            the service's own process can know.
        mint_id: makes ids for requests that came without one.
        limits: tells callers of their limits where a request becomes no call; None: they are not told.
    """

    def __init__(
        self,
        dialects: list[Dialect],
        pages: Mapping[str, Callable[[], tuple[int, bytes, bytes]]],
        mint_id: Callable[[], str] = mint_request_id,
        arrival: Callable[[Sequence[tuple[str, str]]], AbstractContextManager[None]] = (
            lambda _: nullcontext()
        ),
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits
        self._arrival = arrival
        self._dialects = dialects
        self._pages = pages
        self._mint_id = mint_id

    @property
    def routes(self) -> tuple[tuple[str, str], ...]:
        """Method and path of everything that is served, the operators' pages last."""
        of_dialects = [name for dialect in self._dialects for name in dialect.routes.names]
        return (*of_dialects, *(("GET", path) for path in self._pages))

    async def __call__(self, request: Request) -> None:
        """Answer one request."""
        request.request_id = request_id_of(request.headers, self._mint_id)
        path = request.path
        for dialect in self._dialects:
            handler = dialect.routes.find(request.method, path)
            if handler is not None:
                await self._handle(request, dialect, handler)
                return
        page = self._pages.get(path)
        if page is not None and request.method in ("GET", "HEAD"):
            status, kind, body = page()
            request.respond(status, body, content_type=kind)
            return
        unknown = Refusal("NOT_FOUND", f"no such path: {request.method} {path[:128]}")
        with suppress(Refused):
            request.metadata = read_headers(request)
        self.refuse(request, await self._counted(request, unknown))

    def refuse(self, request: Request, refused: Refusal, dialect: Dialect | None = None) -> None:
        """Answer with an error."""
        if not request.request_id:
            request.request_id = request_id_of(request.headers, self._mint_id)
        refused = replace(refused, request_id=refused.request_id or request.request_id)
        body = (dialect or self._dialects[0]).error(refused)
        request.respond(refused.status.http_status, body, error_headers(refused))

    async def _counted(self, request: Request, refused: Refusal) -> Refusal:
        """A refusal of our own, as a request that counts. Not where there is too much to do already."""
        if self._limits is None or refused.reason == OVERLOADED or not request.metadata:
            return refused
        return await self._limits.tell(request.metadata, refused)

    async def _handle(self, request: Request, dialect: Dialect, handler: Handler) -> None:
        try:
            request.metadata = read_headers(request)
            if request.method == "POST":
                with self._arrival(request.metadata):
                    await handler(request)
            else:
                await handler(request)
        except Refused as error:
            refused = error.refusal
            if not isinstance(error.__cause__, grpc.aio.AioRpcError):
                refused = await self._counted(request, refused)
            self.refuse(request, refused, dialect)
        except grpc.aio.AioRpcError as error:
            self.refuse(request, refusal_of(error), dialect)
        except Exception as error:
            log.error(
                "bug",
                path=request.path,
                exc_info=RuntimeError(type(error).__name__).with_traceback(error.__traceback__),
            )
            self.refuse(request, Refusal("INTERNAL_ERROR", "internal error"), dialect)


def json_page(status: int, body: bytes) -> tuple[int, bytes, bytes]:
    """A page of JSON."""
    return status, b"application/json", body


Page = Callable[[], tuple[int, bytes, bytes]]
