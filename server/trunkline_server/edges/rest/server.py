"""The HTTP server: a listening socket and the life of its connections."""

import asyncio
import errno
import socket
import ssl
from contextlib import suppress
from typing import Final

import structlog

from trunkline_server.edges.rest.app import RestApp
from trunkline_server.edges.rest.connection import Connection, Connections

BACKLOG: Final = 2048
ACCEPTS_AT_ONCE: Final = 128
ACCEPT_PAUSE_S: Final = 1.0  # When there are no more files, for others to close some.
TLS_HANDSHAKE_S: Final = 10.0
SWEEP_S: Final = 1.0
MAX_CONNECTIONS: Final = 8_192

_OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class HttpServer:
    """Serves `app` on a socket that is bound already.

    It accepts by itself. The loop's own server takes one connection in each turn of the loop
    (https://github.com/libuv/libuv/pull/3696): under load, when a turn is long, newcomers would wait for seconds
    without even being refused.
    """

    def __init__(self, app: RestApp, tls: ssl.SSLContext | None = None) -> None:
        self._connections = Connections(app, app.refuse, MAX_CONNECTIONS)
        self._tls = tls
        self._listener: socket.socket | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def open_connections(self) -> int:
        """Clients now."""
        return len(self._connections.open)

    def start(self, listener: socket.socket) -> None:
        """Listen. The socket is ours from now on."""
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._listener = listener
        self._accept_from_now_on()
        self._sweep()

    def stop_listening(self) -> None:
        """No new connections; idle ones close, and the others after their response."""
        if self._listener is not None:
            if self._pause is not None:
                self._pause.cancel()
            else:
                asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        self._connections.drain()

    async def finish(self, limit_s: float) -> None:
        """End once what runs has ended, or when `limit_s` is over."""
        self.stop_listening()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._connections.wait_until_empty()
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        if opening:
            await asyncio.wait(opening)
        for connection in list(self._connections.open):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _accept_from_now_on(self) -> None:
        self._pause = None
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        """All who wait in the kernel, or as many of them as one turn of the loop should have."""
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                client, _address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_FILES:
                    raise
                log.error("no_connection_accepted", reason=errno.errorcode[error.errno])
                loop.remove_reader(listener)
                self._pause = loop.call_later(ACCEPT_PAUSE_S, self._accept_from_now_on)
                return
            client.setblocking(False)
            task = loop.create_task(self._open(client))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: Connection(self._connections),
                client,
                ssl=self._tls,
                ssl_handshake_timeout=TLS_HANDSHAKE_S if self._tls is not None else None,
            )
        except (
            OSError
        ):  # A handshake that failed, or took too long, or a client that has gone meanwhile.
            client.close()
        except BaseException:
            client.close()
            raise

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._connections.sweep(loop.time())
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)
