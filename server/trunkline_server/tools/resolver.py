"""The machine's resolver, asked in threads of its own.

The loop's threads also look up providers' names. A user's name servers that never answer must not keep those waiting,
nor hold up the end of the process: so there are other threads, a bounded number, and they are daemons.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

MAX_LOOKUPS: Final = 64

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From host and port to the texts of IP addresses. Raises OSError when there are none."""


class SystemResolver:
    """A `Resolve` over getaddrinfo. At most `max_lookups` at once; more wait."""

    def __init__(self, max_lookups: int = MAX_LOOKUPS) -> None:
        self._free = asyncio.Semaphore(max_lookups)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """All addresses of a name. Raises: OSError."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()

        def finish(found: Sequence[str] | OSError) -> None:
            # Only now, though the caller may be gone for long: the thread was busy until here.
            self._free.release()
            if answer.done():
                return
            if isinstance(found, OSError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def look_up() -> None:
            found = _look_up(host, port)
            with suppress(RuntimeError):  # The loop is closed.
                loop.call_soon_threadsafe(finish, found)

        try:
            threading.Thread(target=look_up, name="egress-lookup", daemon=True).start()
        except RuntimeError as error:  # The system gives no more threads.
            self._free.release()
            raise OSError("no thread") from error
        return await answer


def _look_up(host: str, port: int) -> Sequence[str] | OSError:
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return error
    except UnicodeError:  # Python's own reading of IDNA.
        return socket.gaierror(socket.EAI_NONAME, "no name")
    return [str(row[4][0]) for row in rows]
