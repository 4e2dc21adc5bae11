"""A scripted upstream: a real HTTP server on loopback that answers with given bytes, pauses and failures."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Pause:
    """Wait this long."""

    seconds: float


@dataclass(frozen=True)
class Hang:
    """Send nothing more until the peer closes."""


@dataclass(frozen=True)
class Reset:
    """Close with a reset."""


Step = bytes | Pause | Hang | Reset


@dataclass
class Exchange:
    """One request as the upstream saw it. `closed` is set when the peer closed before the script ended.

    Attributes:
        is_kept: others came on the same connection before.
    """

    head: str
    body: bytes
    started_at_s: float
    closed_at_s: float | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    is_kept: bool = False

    @property
    def path(self) -> str:
        """Of the request line."""
        return self.head.split(" ")[1]

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


Script = Callable[[Exchange], Sequence[Step] | Awaitable[Sequence[Step]]]


class Upstream:
    """Answers every request with what `script` returns for it. Counts open sockets."""

    def __init__(self, script: Script | Sequence[Step]) -> None:
        self.script = script
        self.exchanges: list[Exchange] = []
        self.port = 0
        self.open_sockets = 0

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_sockets += 1
        is_kept = False
        try:
            while await self._exchange(reader, writer, is_kept):
                is_kept = True
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_sockets -= 1
            writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_kept: bool
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        loop = asyncio.get_running_loop()
        exchange = Exchange(head, b"", loop.time(), is_kept=is_kept)
        exchange.body = await reader.readexactly(int(exchange.header("content-length") or 0))
        self.exchanges.append(exchange)
        steps = self.script(exchange) if callable(self.script) else self.script
        if isinstance(steps, Awaitable):
            steps = await steps
        closed = asyncio.ensure_future(reader.read(1))
        try:
            for step in steps:
                if closed.done():
                    break
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                elif isinstance(step, Reset):
                    writer.transport.abort()
                    return False
                else:
                    limit_s = step.seconds if isinstance(step, Pause) else None
                    await asyncio.wait([closed], timeout=limit_s)
            if not closed.done():
                await asyncio.sleep(0)
            if closed.done():
                exchange.closed_at_s = loop.time()
                exchange.closed.set()
                return False
            last = steps[-1] if steps else b""
            return isinstance(last, bytes) and b"connection: close" not in b"".join(
                step for step in steps if isinstance(step, bytes)
            )
        finally:
            closed.cancel()
            await asyncio.wait([closed])


@asynccontextmanager
async def upstream(script: Script | Sequence[Step]) -> AsyncIterator[Upstream]:
    """A scripted upstream on a free port of loopback."""
    scripted = Upstream(script)
    server = await asyncio.start_server(scripted._serve, "127.0.0.1", 0)  # noqa: SLF001
    scripted.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted
    finally:
        server.close()


def head(status: int = 200, content_type: str = "text/event-stream", *extra: str) -> bytes:
    """A response head without a length: the body is chunked."""
    lines = [
        f"HTTP/1.1 {status} X",
        f"content-type: {content_type}",
        "transfer-encoding: chunked",
        *extra,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data: bytes | str) -> bytes:
    """One HTTP chunk."""
    data = data.encode() if isinstance(data, str) else data
    return b"%x\r\n%b\r\n" % (len(data), data)


END = b"0\r\n\r\n"


def event(value: Any) -> bytes:
    """One server-sent event in an HTTP chunk of its own."""
    text = value if isinstance(value, str) else json.dumps(value)
    return chunk(f"data: {text}\n\n")


def whole(value: Any, status: int = 200, *extra: str) -> list[Step]:
    """A JSON response."""
    body = json.dumps(value).encode()
    lines = [
        f"HTTP/1.1 {status} X",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *extra,
    ]
    return [("\r\n".join(lines) + "\r\n\r\n").encode() + body]


def delta(text: str, index: int = 0) -> dict[str, Any]:
    """An OpenAI chunk with text."""
    choice = {"index": index, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice]}


def finish(reason: str = "stop", index: int = 0) -> dict[str, Any]:
    """An OpenAI chunk that ends a choice."""
    choice = {"index": index, "delta": {}, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice]}


def usage(prompt: int = 9, completion: int = 4) -> dict[str, Any]:
    """OpenAI's chunk with usage."""
    counts = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "model": "m-1",
        "choices": [],
        "usage": counts,
    }


def answer(*texts: str) -> list[Step]:
    """A whole OpenAI stream."""
    steps = [event(delta(text)) for text in texts]
    return [head(), *steps, event(finish()), event(usage()), event("[DONE]"), END]


def message(text: str = "Hello") -> list[Step]:
    """A whole OpenAI response that is not streamed."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    counts = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    return whole(
        {
            "id": "c",
            "object": "chat.completion",
            "model": "m-1",
            "choices": [choice],
            "usage": counts,
        }
    )


def hello(exchange: Exchange) -> Sequence[Step]:
    """Says Hello, streamed or not, as asked."""
    return answer("Hel", "lo") if exchange.json.get("stream") else message("Hello")
