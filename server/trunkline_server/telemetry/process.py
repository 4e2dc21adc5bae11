"""How the process feels: the lag of its event loop, its memory and its open files."""

import asyncio
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from prometheus_client import Gauge

from trunkline_server.core.pressure import SAMPLE_S, Sample

TICK_S: Final = 0.05
FILES_EVERY: Final = 4  # Samples. Counting open files takes longer the more there are.
CGROUP_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
UNLIMITED_BYTES: Final = 1 << 50  # What cgroup v1 says when there is no limit is more than this.

LAG: Final = Gauge(
    "trunkline_event_loop_lag_seconds",
    "The latest that the event loop ran in the last quarter of a second.",
    multiprocess_mode="livemax",
)


class ProcessWatch:
    """Looks at the process every `SAMPLE_S` seconds and tells `observe`.

    Args:
        feel: told at every tick how late it comes, in seconds.
        memory_bytes: what the process may use; 0 where that is unknown.
    """

    def __init__(
        self,
        observe: Callable[[Sample], None],
        feel: Callable[[float], None],
        memory_bytes: int,
    ) -> None:
        self._observe = observe
        self._feel = feel
        self._memory_bytes = memory_bytes
        self._page_bytes = resource.getpagesize()
        self._max_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._files_share = 0.0
        self._samples = 0
        self._lag_s = 0.0
        self._due_s = 0.0
        self._sample_at_s = 0.0
        self._cpu_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on, until `stop`."""
        loop = asyncio.get_running_loop()
        self._sample_at_s = loop.time() + SAMPLE_S
        self._cpu_s = time.process_time()
        self._schedule(loop)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_s = loop.time() + TICK_S
        self._timer = loop.call_at(self._due_s, self._tick)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        lag_s = now_s - self._due_s
        self._feel(lag_s)
        self._lag_s = max(self._lag_s, lag_s)
        if now_s >= self._sample_at_s:
            LAG.set(self._lag_s)
            cpu_s = time.process_time()
            spent_s, self._cpu_s = cpu_s - self._cpu_s, cpu_s
            self._observe(Sample(spent_s, self._memory_share(), self._open_files_share()))
            self._lag_s = 0.0
            self._sample_at_s = now_s + SAMPLE_S
        self._schedule(loop)

    def _memory_share(self) -> float:
        if not self._memory_bytes:
            return 0.0
        with open("/proc/self/statm", "rb") as file:
            resident_pages = int(file.read().split()[1])
        return resident_pages * self._page_bytes / self._memory_bytes

    def _open_files_share(self) -> float:
        if self._samples % FILES_EVERY == 0 and self._max_files > 0:
            self._files_share = len(os.listdir("/proc/self/fd")) / self._max_files
        self._samples += 1
        return self._files_share


def cgroup_limit_bytes() -> int:
    """The memory limit of the control group; 0 where there is none."""
    for path in CGROUP_LIMITS:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < UNLIMITED_BYTES:
            return int(text)
    return 0
