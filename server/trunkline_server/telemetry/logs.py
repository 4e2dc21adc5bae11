"""JSON lines on standard error."""

import asyncio
import sys
from collections.abc import MutableMapping
from typing import Any, BinaryIO, Final

import msgspec
import structlog

FLUSH_S: Final = 0.1
MAX_PENDING_BYTES: Final = 256 * 1024


class LineBuffer:
    """Gathers lines and writes them together, at most `FLUSH_S` later: one system call a batch, not one a line.

    Outside an event loop every line is written at once.
    """

    name = "<stderr>"

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def write(self, line: bytes) -> int:
        """Take a line."""
        self._pending.append(line)
        self._pending_bytes += len(line)
        if self._pending_bytes > MAX_PENDING_BYTES:
            self.drain()
        return len(line)

    def flush(self) -> None:
        """Called after every line by the logger; the lines leave when the timer says so."""
        if self._timer is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.drain()
        else:
            self._timer = loop.call_later(FLUSH_S, self.drain)

    def drain(self) -> None:
        """Write what is there."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.spill()

    def spill(self) -> None:
        """The same from another thread: the timer is the loop's own."""
        if self._pending:
            data = b"".join(self._pending)
            self._pending.clear()
            self._pending_bytes = 0
            self._file.write(data)
            self._file.flush()


_buffer: Final = LineBuffer(sys.stderr.buffer)


def configure(level: str) -> structlog.typing.FilteringBoundLogger:
    """The process's logger. `level`: debug, info, warning or error."""
    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.processors.add_log_level,
            _with_traceback,
            structlog.processors.TimeStamper(fmt=None),
            structlog.processors.JSONRenderer(serializer=_encode),
        ],
        logger_factory=structlog.BytesLoggerFactory(file=_buffer),  # type: ignore[arg-type]
    )
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def flush() -> None:
    """Write every line that still waits. The last thing that a process does."""
    _buffer.drain()


def last_words() -> None:
    """The same, from a thread that ends the process, whatever the event loop does."""
    _buffer.spill()


def _with_traceback(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    if "exc_info" in event:
        formatted = structlog.processors.format_exc_info(logger, method, event)
        assert isinstance(formatted, MutableMapping)
        return formatted
    return event


_encoder: Final = msgspec.json.Encoder(enc_hook=str)


def _encode(event: Any, **_: Any) -> bytes:
    return _encoder.encode(event)
