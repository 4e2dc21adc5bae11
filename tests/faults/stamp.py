"""What a run was of: the commit, and whatever was changed since."""

import hashlib
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build" / "faults"
# What a result depends on. A change of the docs makes no result stale.
TREES: Final = ("server", "clients/python", "tests", "pyproject.toml", "locks")


@dataclass(frozen=True)
class Stamp:
    """Of results.

    Attributes:
        changes: a digest of what is not committed; empty when all is.
    """

    commit: str
    changes: str
    python: str = platform.python_version()
    cpus: int = os.cpu_count() or 1

    @property
    def name(self) -> str:
        """Of the folder that holds them."""
        return f"{self.commit}-{self.changes}" if self.changes else self.commit

    @property
    def folder(self) -> Path:
        """Where they are."""
        return BUILD / self.name

    @staticmethod
    def now() -> "Stamp":
        """Of the working tree as it is."""
        changes = hashlib.sha256(_git("diff", "HEAD", "--binary", "--", *TREES))
        new = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *TREES)
        for name in filter(None, new.decode().split("\0")):
            changes.update(name.encode() + (ROOT / name).read_bytes())
        nothing = hashlib.sha256().digest()
        return Stamp(
            _git("rev-parse", "--short=12", "HEAD").decode().strip(),
            "" if changes.digest() == nothing else changes.hexdigest()[:8],
        )


def _git(*arguments: str) -> bytes:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, check=True, timeout=60
    ).stdout
