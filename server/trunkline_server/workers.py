"""Several processes that share both ports: SO_REUSEPORT spreads connections over them.

The parent serves nothing. It starts the workers before any of them serves, passes signals on, and starts a worker again
that died.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import msgspec

from trunkline_server.app_ending import gone_after_s
from trunkline_server.config import ConfigError, Settings, split_address

DIRECTORY: Final = (
    "PROMETHEUS_MULTIPROC_DIR"  # Of prometheus_client: the counts of all workers are added up.
)
RESTART_S: Final = (
    1.0  # Between two starts of the same worker, so that a worker that can't start does not spin.
)
WRONG: Final = 2  # The exit code of a command or configuration that is wrong.
POLL_S: Final = 0.2
SPARE_S: Final = 5.0  # For a worker that hangs to end itself, before it is killed.


def supervise(settings: Settings, config: str | None, announce: Callable[[Settings], None]) -> int:
    """Run `settings.server.workers` workers until a signal. Returns the exit code."""
    with ExitStack() as stack:
        server = settings.server
        grpc = _reserve(stack, server.grpc) if not server.grpc.startswith("unix:") else server.grpc
        http = _reserve(stack, server.http)
        metrics = stack.enter_context(tempfile.TemporaryDirectory(prefix="trunkline-metrics-"))
        command = [sys.executable, "-m", "trunkline_server", "serve", "--worker"]
        command += ["--grpc", grpc, "--http", http, "--workers", str(server.workers)]
        if config:
            command += ["--config", config]
        environment = {**os.environ, DIRECTORY: metrics}
        asked: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda n, _: asked.append(n))
        workers = [_start(command, environment) for _ in range(server.workers)]
        first = frozenset(workers)
        announce(
            msgspec.structs.replace(
                settings, server=msgspec.structs.replace(server, grpc=grpc, http=http)
            )
        )
        started_s = [time.monotonic()] * len(workers)
        while not asked:
            time.sleep(POLL_S)
            for i, worker in enumerate(workers):
                if worker.poll() == WRONG and worker in first:
                    # It has said what is wrong with the configuration, which is so for all. A later one goes on
                    # trying: the others still serve what was read before.
                    asked.append(signal.SIGTERM)
                elif worker.returncode is not None and time.monotonic() - started_s[i] >= RESTART_S:
                    print(
                        f"trunkline: a worker ended with {worker.returncode}, starting another",
                        file=sys.stderr,
                    )
                    workers[i], started_s[i] = _start(command, environment), time.monotonic()
        return _stop(workers, asked, gone_after_s(server) + SPARE_S)


def _start(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches the parent alone, which then passes it on once.
    # Its standard input ends with the parent, even when that is killed: then it goes down too.
    return subprocess.Popen(command, env=environment, start_new_session=True, stdin=subprocess.PIPE)


def _stop(workers: list[subprocess.Popen[bytes]], asked: list[int], limit_s: float) -> int:
    until_s = time.monotonic() + limit_s
    passed_on = 0
    while any(worker.poll() is None for worker in workers):
        if len(asked) > passed_on:  # A second signal ends the drain at once.
            passed_on = len(asked)
            for worker in workers:
                if worker.poll() is None:
                    worker.send_signal(signal.SIGTERM)
        if time.monotonic() > until_s:
            for worker in workers:
                worker.kill()
        time.sleep(0.05)
    return max(_exit_code(worker) for worker in workers)


def _exit_code(worker: subprocess.Popen[bytes]) -> int:
    # One that had not come far enough to listen for it ends by the signal itself.
    return 0 if worker.returncode == -signal.SIGTERM else abs(int(worker.returncode))


def _reserve(stack: ExitStack, address: str) -> str:
    """Hold a port without listening, so that all workers get the same one even when 0 was asked for."""
    host, port = split_address(address)
    holder = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        holder.bind((host, port))
    except OSError as error:
        raise ConfigError([f"can't listen on {address}: {error.strerror}"]) from error
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{holder.getsockname()[1]}"
