import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    *("Makefile", "buf.yaml", "pyproject.toml", "locks", "protos", "scripts", "third_party"),
    "clients/python/trunkline/v1",
    *("clients/go/go.mod", "clients/go/go.sum", "clients/go/trunkline"),
    *("clients/typescript/proto-options.txt", "clients/typescript/src"),
)

Make = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what make needs, with the environment that runs this test: nothing is installed."""
    checkout = tmp_path / "checkout"
    for name in COPIED:
        source, target = ROOT / name, checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    (checkout / ".venv").symlink_to(sys.prefix)
    (checkout / "clients/typescript/node_modules").symlink_to(
        ROOT / "clients/typescript/node_modules"
    )
    return checkout


@pytest.fixture
def make(checkout: Path) -> Make:
    def make(target: str) -> subprocess.CompletedProcess[str]:
        # The environment is borrowed, so a make without setup. What a make around this one says to
        # its children is not meant for this one.
        environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
        return subprocess.run(
            ["make", "SETUP=true", target],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
        )

    return make
