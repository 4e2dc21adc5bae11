"""The REST edge as one ASGI application: paths to dialects, errors to responses.

A shim is a client of the contract: it is given a channel, local or real, and nothing else of the service.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import grpc
import structlog

from trunkline_server.core.ids import ulid
from trunkline_server.edges.rest.http import (
    Gone,
    Receive,
    Refused,
    Request,
    Scope,
    Send,
    error_headers,
    read_headers,
    refusal_of,
    request_id_of,
)
from trunkline_server.edges.status import Refusal

TASK_KEY: Final = "trunkline.task"

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Dialect(Protocol):
    """One published API."""

    def find(self, method: str, path: str) -> Callable[[Request], Awaitable[None]] | None:
        """The handler of a path; None when it is not of this dialect."""
        ...

    def error(self, refused: Refusal) -> bytes:
        """The body of an error."""
        ...


def mint_request_id() -> str:
    """A new id, as the service makes them."""
    return f"req_{ulid(time.time_ns() // 1_000_000, os.urandom(10))}"


class RestApp:
    """All dialects, and the operators' pages.

    Args:
        pages: operators' pages by path, each a function without arguments that gives status, type and body.
        mint_id: makes ids for requests that came without one.
    """

    def __init__(
        self,
        dialects: list[Dialect],
        pages: Mapping[str, Callable[[], tuple[int, bytes, bytes]]],
        mint_id: Callable[[], str] = mint_request_id,
    ) -> None:
        self._dialects = dialects
        self._pages = pages
        self._mint_id = mint_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return
        # The connection cancels this task when the client goes away.
        scope[TASK_KEY] = asyncio.current_task()
        request = Request(scope, receive, send, request_id_of(scope, self._mint_id))
        path = scope["path"]
        page = self._pages.get(path)
        if page is not None and request.method in ("GET", "HEAD"):
            await self._page(request, page)
            return
        for dialect in self._dialects:
            handler = dialect.find(request.method, path)
            if handler is not None:
                await self._handle(request, dialect, handler)
                return
        await self._refuse(
            request,
            self._dialects[0],
            Refusal("NOT_FOUND", f"no such path: {request.method} {path[:128]}"),
        )

    async def _page(self, request: Request, page: Callable[[], tuple[int, bytes, bytes]]) -> None:
        status, kind, body = page()
        head = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        await request.send({"type": "http.response.start", "status": status, "headers": head})
        await request.send({"type": "http.response.body", "body": body})

    async def _handle(
        self, request: Request, dialect: Dialect, handler: Callable[[Request], Awaitable[None]]
    ) -> None:
        try:
            request.metadata = read_headers(request)
            await handler(request)
        except Refused as error:
            await self._refuse(request, dialect, error.refusal)
        except grpc.aio.AioRpcError as error:
            await self._refuse(request, dialect, refusal_of(error))
        except Gone:
            return
        except asyncio.CancelledError:
            # The client is gone and everything below has been cleaned up on the way here. This task ends with its
            # connection, so there is nobody left to tell.
            if request.scope.get("trunkline.gone"):
                return
            raise
        except Exception as error:
            log.error(
                "bug",
                path=request.scope["path"],
                exc_info=RuntimeError(type(error).__name__).with_traceback(error.__traceback__),
            )
            await self._refuse(request, dialect, Refusal("INTERNAL_ERROR", "internal error"))

    async def _refuse(self, request: Request, dialect: Dialect, refused: Refusal) -> None:
        await request.respond(
            refused.status.http_status, dialect.error(refused), error_headers(refused)
        )


def json_page(status: int, body: bytes) -> tuple[int, bytes, bytes]:
    """A page of JSON."""
    return status, b"application/json", body


Page = Callable[[], tuple[int, bytes, bytes]]
