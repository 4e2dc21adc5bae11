"""The disk of a service fails, or it is killed, at exactly the n-th write or sync: strace does it."""

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

SYNC: Final = "fdatasync,fsync"
WRITE: Final = "pwrite64"
KILL: Final = "signal=SIGKILL"
PROBE_S: Final = 30.0
CALL: Final = re.compile(r"^(\d+) +(\w+)\(", re.MULTILINE)
INJECTED: Final = "(INJECTED)"
INJECTED_FILE: Final = re.compile(r"\(\d+<([^>]*)>.*\(INJECTED\)")
# With the path of the file, as `-y` has it.
WROTE: Final = re.compile(r"pwrite64\(\d+<([^>]*)>, .*, (\d+), (\d+)\) += (\d+)$")
SYNCED: Final = re.compile(r"f(?:data)?sync\(\d+<([^>]*)>\) += 0$")


@dataclass(frozen=True)
class Fault:
    """At the `when`-th of these calls.

    Attributes:
        is_power_loss: what was not synced is lost too.
    """

    calls: str
    effect: str
    when: int
    is_power_loss: bool = False

    @property
    def is_kill(self) -> bool:
        return self.effect == KILL

    @property
    def is_broken_disk(self) -> bool:
        return self.effect == "error=EIO"

    def must_stop(self, calls: Path) -> bool:
        """Has it come, and is the service to stop its accounts until it is started again?"""
        # SQLite syncs the folder of a new file too, and takes no notice of how that went.
        found = INJECTED_FILE.search(calls.read_text(errors="replace")) if calls.exists() else None
        return self.is_broken_disk and found is not None and not Path(found[1]).is_dir()

    def prefix(self, calls: Path) -> list[str]:
        """Runs a program so that it happens, and writes down all writes and syncs."""
        # Quicker, but then strace sends no signals.
        filtered = [] if self.is_kill else ["--seccomp-bpf"]
        return [
            *("strace", "-f", *filtered, "-qq", "-y", "-o", str(calls)),
            *("-e", f"trace={SYNC},{WRITE}", "-e", "signal=none"),
            *("-e", f"inject={self.calls}:{self.effect}:when={self.when}"),
        ]

    def has_come(self, calls: Path) -> bool:
        """Is it in what was written down?"""
        if not calls.exists():
            return False
        text = calls.read_text(errors="replace")
        if not self.is_kill:
            return INJECTED in text
        names = self.calls.split(",")
        counts = Counter(
            call[1] for call in CALL.finditer(text) if call[2] in names
        )  # Each thread is counted for itself.
        return self.when in counts.values()


def lose_unsynced(calls: Path, wal: Path) -> None:
    """Take away from the log of a database what was written to it after its last sync, as a loss of power would."""
    size = synced = 0
    for line in calls.read_text(errors="replace").splitlines():
        if (wrote := WROTE.search(line)) and wrote[1] == str(wal):
            size = max(size, int(wrote[3]) + int(wrote[4]))
        elif (sync := SYNCED.search(line)) and sync[1] == str(wal) and INJECTED not in line:
            synced = size
    if wal.exists() and wal.stat().st_size > synced:
        with wal.open("r+b") as file:
            file.truncate(synced)


@cache
def missing() -> str:
    """Why no fault can be injected here; empty: it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    try:
        done = subprocess.run(
            ["strace", "-f", "--seccomp-bpf", "-e", "inject=fsync:error=EIO", "true"],
            capture_output=True,
            timeout=PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "strace does not work here"
    return "" if not done.returncode else "strace may not trace here"
