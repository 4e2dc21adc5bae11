"""What is installed is pinned, hashed, and does not say where it came from."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIP_LOCKS = sorted((ROOT / "locks").glob("*.txt"))
NPM_LOCKS = [
    ROOT / "tests/clients/node/package-lock.json",
    ROOT / "tests/faults/mocks/package-lock.json",
]


def pins(lock: Path) -> dict[str, str]:
    """Version by package."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", PIP_LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_is_pinned_and_hashed(lock):
    text = re.sub(r"\s*\\\n\s*|^\s*#.*\n", " ", lock.read_text(), flags=re.MULTILINE)
    requirements = [line for line in text.splitlines() if line.strip()]

    assert requirements
    assert [
        line for line in requirements if "==" not in line or " --hash=sha256:" not in line
    ] == []


@pytest.mark.parametrize(
    "lock", [*PIP_LOCKS, *NPM_LOCKS], ids=lambda lock: f"{lock.parent.name}/{lock.name}"
)
def test_no_lock_holds_an_address(lock):
    assert "://" not in lock.read_text()


@pytest.mark.parametrize("lock", NPM_LOCKS, ids=lambda lock: lock.parent.name)
def test_every_node_package_is_pinned_and_hashed(lock):
    packages = {
        name: package for name, package in json.loads(lock.read_text())["packages"].items() if name
    }

    assert packages
    assert [
        name for name, package in packages.items() if not {"version", "integrity"} <= package.keys()
    ] == []


def test_an_environment_can_grow_from_running_to_developing():
    run, dev = pins(ROOT / "locks/run.txt"), pins(ROOT / "locks/dev.txt")

    assert run
    assert run.items() <= dev.items()
