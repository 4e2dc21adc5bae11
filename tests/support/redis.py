"""A Redis of one's own: a private redis-server on a free port, that keeps nothing and ends with the test."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

SERVERS = ("redis-server", "valkey-server")
START_S = 10.0
STOP_S = 5.0
ATTEMPTS = 5  # Somebody else may take the port between our look and its start.


class RedisServer:
    """A process that this test started."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    @property
    def url(self) -> str:
        """For the default user."""
        return f"redis://127.0.0.1:{self.port}/0"

    def freeze(self) -> None:
        """Let it do nothing, while its connections stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it, frozen or not."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_S)


@contextmanager
def redis_server(options: Sequence[str] = (), *, port: int | None = None) -> Iterator[RedisServer]:
    """A server that answers; the test is skipped where none is installed.

    Args:
        options: for its command line, such as ["--maxmemory", "1mb"].
        port: a free one when absent.
    """
    program = next(filter(None, map(shutil.which, SERVERS)), None)
    if program is None:
        pytest.skip("needs redis-server or valkey-server (Debian: apt-get install redis-server)")
    with tempfile.TemporaryDirectory(prefix="trunkline-redis-") as folder:
        server = _started(program, Path(folder), options, port)
        try:
            yield server
        finally:
            server.stop()


def _started(program: str, folder: Path, options: Sequence[str], port: int | None) -> RedisServer:
    for _ in range(1 if port else ATTEMPTS):
        at = port or _free_port()
        command = [program, "--bind", "127.0.0.1", "--port", str(at), "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no", *options]
        with (folder / "log").open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        if _answers(process, at):
            return RedisServer(process, at)
        process.kill()
        process.wait(STOP_S)
    raise RuntimeError(f"{program} did not start: {(folder / 'log').read_text()[-2_000:]}")


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    until_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until_s:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(64):  # A refusal for want of a password is an answer, too.
                    return process.poll() is None
        except OSError:
            time.sleep(0.01)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
