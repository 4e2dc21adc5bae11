"""The HTTP server: a listening socket and the life of its connections."""

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Final

from trunkline_server.edges.rest.app import RestApp
from trunkline_server.edges.rest.connection import Connection, Connections

BACKLOG: Final = 2048
SWEEP_S: Final = 1.0
MAX_CONNECTIONS: Final = 8_192


class HttpServer:
    """Serves `app` on a socket that is bound already."""

    def __init__(self, app: RestApp, tls: ssl.SSLContext | None = None) -> None:
        self._connections = Connections(app, app.refuse, MAX_CONNECTIONS)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def open_connections(self) -> int:
        """Clients now."""
        return len(self._connections.open)

    async def start(self, listener: socket.socket) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._connections), sock=listener, ssl=self._tls, backlog=BACKLOG
        )
        self._sweep()

    def stop_listening(self) -> None:
        """No new connections; idle ones close, and the others after their response."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._connections.drain()

    async def finish(self, limit_s: float) -> None:
        """End once what runs has ended, or when `limit_s` is over."""
        self.stop_listening()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._connections.wait_until_empty()
        for connection in list(self._connections.open):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._connections.sweep(loop.time())
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)
