"""An upstream that counts what it serves, token by token.

A prompt begins with `MARK KIND TOKENS`: a mark of its own, how to answer, and with how many tokens. A token is exactly
`TOKEN`, which is also what an estimate takes for one token, so that sums can be compared to the token.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from tests.support.upstream import END, delta, event, finish, head, usage, whole

TOKEN: Final = "tok "
INPUT_TOKENS: Final = 9  # Whatever was asked.
STREAM: Final = "stream"
HANG: Final = "hang"  # Streams so many tokens, and then is silent.
FAIL: Final = "fail"


@dataclass
class Serving:
    """Of one request.

    Attributes:
        tokens: handed to the system, before whoever asked for them was killed.
        is_cut: it was killed meanwhile.
    """

    kind: str
    tokens: int = 0
    is_cut: bool = False

    def sends(self, tokens: int) -> None:
        if not self.is_cut:
            self.tokens += tokens


class Meter:
    """Servings by mark. `pace_s`: of a token of a stream."""

    def __init__(self, pace_s: float) -> None:
        self.servings: dict[str, list[Serving]] = defaultdict(list)
        self.pace_s = pace_s
        self.port = 0

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Whoever asked until now is dead, and reads nothing more."""
        for servings in self.servings.values():
            for serving in servings:
                serving.is_cut = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.partition(b":")[2])
                    for line in request.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                )
                await self._answer(reader, writer, json.loads(await reader.readexactly(length)))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: Any
    ) -> None:
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        mark, kind, count = text.split()[:3]
        serving = Serving(kind)
        self.servings[mark].append(serving)
        if kind == FAIL:
            writer.writelines(whole({"error": {"message": "no"}}, 400))  # type: ignore[arg-type]
        elif body.get("stream"):
            await self._stream(reader, writer, serving, int(count))
        else:
            await asyncio.sleep(self.pace_s * int(count))
            serving.sends(int(count))
            if not writer.transport.is_closing():
                writer.writelines(_message(int(count)))
        await writer.drain()

    async def _stream(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        serving: Serving,
        count: int,
    ) -> None:
        writer.write(head())
        for _ in range(count):
            serving.sends(1)
            writer.write(event(delta(TOKEN)))
            await writer.drain()
            await asyncio.sleep(self.pace_s)
            if reader.at_eof() or writer.transport.is_closing():
                raise ConnectionResetError
        if serving.kind == HANG:
            await reader.read(1)
            raise ConnectionResetError
        steps = (finish(), usage(INPUT_TOKENS, count), "[DONE]")
        writer.write(b"".join(event(step) for step in steps) + END)


def _message(count: int) -> list[bytes]:
    message = {"role": "assistant", "content": TOKEN * count}
    answer = {
        "id": "c",
        "object": "chat.completion",
        "model": "m-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage(INPUT_TOKENS, count)["usage"],
    }
    return whole(answer)  # type: ignore[return-value]


@asynccontextmanager
async def metering(pace_s: float) -> AsyncIterator[Meter]:
    """On a free port of loopback."""
    meter = Meter(pace_s)
    server = await asyncio.start_server(meter.serve, "127.0.0.1", 0)
    meter.port = server.sockets[0].getsockname()[1]
    try:
        yield meter
    finally:
        server.close()
