"""Lines are written together, and none is lost."""

import asyncio
import io
import json
import subprocess
import sys

from trunkline_server.telemetry.logs import FLUSH_S, MAX_PENDING_BYTES, LineBuffer

LIMIT_S = 10.0


class Writes(io.BytesIO):
    """Counts system calls, and tells of each."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.called = asyncio.Event()

    def flush(self) -> None:
        self.calls += 1
        self.called.set()


def log(buffer: LineBuffer, *lines: bytes) -> None:
    """As the logger does it."""
    for line in lines:
        assert buffer.write(line) == len(line)
        buffer.flush()


def test_outside_a_loop_every_line_is_written_at_once():
    file = Writes()

    log(LineBuffer(file), b"a\n", b"b\n")

    assert (file.getvalue(), file.calls) == (b"a\nb\n", 2)


async def test_in_a_loop_lines_are_written_together_a_moment_later():
    file = Writes()
    buffer = LineBuffer(file)

    log(buffer, *(b"%d\n" % number for number in range(100)))

    assert file.getvalue() == b""
    await asyncio.wait_for(file.called.wait(), LIMIT_S)
    assert file.getvalue() == b"".join(b"%d\n" % number for number in range(100))
    assert file.calls == 1


async def test_much_does_not_wait():
    file = Writes()
    line = b"x" * 999 + b"\n"

    log(LineBuffer(file), *[line] * (MAX_PENDING_BYTES // len(line) + 1))

    assert len(file.getvalue()) > MAX_PENDING_BYTES


async def test_the_last_lines_are_written_when_asked_for_and_once():
    file = Writes()
    buffer = LineBuffer(file)
    log(buffer, b"a\n")

    buffer.drain()
    buffer.drain()
    await asyncio.sleep(1.5 * FLUSH_S)

    assert (file.getvalue(), file.calls) == (b"a\n", 1)


async def test_after_writing_it_waits_for_the_next_lines_again():
    file = Writes()
    buffer = LineBuffer(file)
    log(buffer, b"a\n")
    buffer.drain()
    file.called.clear()

    log(buffer, b"b\n")

    await asyncio.wait_for(file.called.wait(), LIMIT_S)
    assert file.getvalue() == b"a\nb\n"


PROGRAM = """
from trunkline_server.telemetry.logs import configure, flush
log = configure("info")
log.debug("not shown")
log.info("started", count=3, text="a\\nb", other=object)
try:
    raise ValueError("why")
except ValueError as error:
    log.error("bug", exc_info=error)
flush()
"""


def test_a_line_is_one_json_object_on_standard_error():
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, check=True, timeout=60
    )

    started, bug = (json.loads(line) for line in ended.stderr.splitlines())
    assert ended.stdout == b""
    assert isinstance(started.pop("timestamp"), float)
    assert started == {
        "event": "started",
        "level": "info",
        "count": 3,
        "text": "a\nb",
        "other": "<class 'object'>",
    }
    assert (bug["event"], bug["level"]) == ("bug", "error")
    assert "ValueError: why" in bug["exception"]
