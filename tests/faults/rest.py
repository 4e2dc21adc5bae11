"""A caller of the OpenAI API that costs next to nothing, so that it is the gateway that is measured."""

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """The status, and of the headers the one that tells when to come back."""

    status: int
    retry_after: bool


class RestPool:
    """Connections that are kept, as many as are needed at once."""

    def __init__(self, http_address: str) -> None:
        host, _, port = http_address.rpartition(":")
        self._address = (host, int(port))
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: bytes, timeout_s: float) -> Answer:
        """One whole answer. Raises: TimeoutError, ConnectionError."""
        reader, writer = await self._connection()
        is_kept = False
        try:
            async with asyncio.timeout(timeout_s):
                writer.write(
                    b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\n"
                    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                    % (len(body), body)
                )
                try:
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                    await reader.readexactly(length)
                except asyncio.IncompleteReadError as error:
                    raise ConnectionError("closed") from error
            is_kept = b"connection: close" not in head
            return Answer(int(head.split(b" ", 2)[1]), b"\r\nretry-after:" in head)
        finally:
            if is_kept:
                self._idle.append((reader, writer))
            else:
                writer.close()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One that is kept and was not closed meanwhile, or a new one."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(*self._address)

    def close(self) -> None:
        """All of them."""
        for _, writer in self._idle:
            writer.close()
