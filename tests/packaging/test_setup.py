"""Environments are made once, again when a lock changed, and never believed half-made.

A script stands in for Python, the environments and pip: it writes down what it was asked, and its
pip fails while a file named "broken" exists. Only setup.py itself is run by a real Python.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "chmod", "cp", "dirname", "env", "mkdir", "rm")
PYTHON = f"""#!/usr/bin/env bash
set -euo pipefail
case "$*" in
    *"scripts/setup.py"*) exec {sys.executable} "$@" ;;
    *"ensurepip"*) echo "$0" ;;
    "-m venv "*) echo venv >> calls; rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
    *" install "*) echo pip >> calls; [ ! -e broken ] ;;
esac
"""


@dataclass(frozen=True)
class Checkout:
    folder: Path
    tools: Path

    def setup(self, goal: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "scripts/setup", goal],
            env={"PATH": str(self.tools), "HOME": str(self.folder), **environment},
            capture_output=True,
            text=True,
        )

    def calls(self) -> list[str]:
        """What was asked of the stand-in since this was last read."""
        calls = self.folder / "calls"
        lines = calls.read_text().split() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return lines


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder, tools = tmp_path / "checkout", tmp_path / "tools"
    for name in ("scripts", "locks"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy2(ROOT / "pyproject.toml", folder)
    tools.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    write_program(tools / "python3", PYTHON)
    return Checkout(folder, tools)


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_setup_makes_the_environment_once(checkout):
    first = checkout.setup("run")
    first_calls = checkout.calls()
    second = checkout.setup("run")

    assert (first.returncode, first_calls) == (0, ["venv", "pip", "pip"])
    assert (second.returncode, checkout.calls()) == (0, [])
    assert "Setup took" in first.stdout


def test_setup_for_developers_also_serves_those_who_run(checkout):
    checkout.setup("dev")
    checkout.calls()

    done = checkout.setup("run")

    assert (done.returncode, checkout.calls()) == (0, [])


def test_changed_lock_is_installed_into_the_environment_there_is(checkout):
    checkout.setup("run")
    checkout.calls()
    with (checkout.folder / "locks/run.txt").open("a") as lock:
        lock.write("# changed\n")

    done = checkout.setup("run")

    assert (done.returncode, checkout.calls()) == (0, ["pip", "pip"])


def test_installation_that_did_not_end_is_started_again_from_nothing(checkout):
    (checkout.folder / "broken").touch()
    failed = checkout.setup("run")
    failed_calls = checkout.calls()
    (checkout.folder / "broken").unlink()
    repeated = checkout.setup("run")

    assert (failed.returncode, failed_calls) == (1, ["venv", "pip"])
    assert "failed" in failed.stderr
    assert (repeated.returncode, checkout.calls()) == (0, ["venv", "pip", "pip"])


def test_shim_without_a_python_behind_it_is_passed_over(checkout):
    write_program(checkout.tools / "python3.13", "#!/usr/bin/env bash\nexit 127\n")

    done = checkout.setup("run")

    assert (done.returncode, checkout.calls()) == (0, ["venv", "pip", "pip"])


def test_machine_without_python_is_told_what_to_install(checkout):
    (checkout.tools / "python3").unlink()

    done = checkout.setup("run")

    assert done.returncode == 1
    assert "No working Python 3.11 or newer" in done.stderr


MISSING = pytest.mark.parametrize(
    ("goal", "tools"),
    [
        ("sdks", ["Node.js with npm"]),
        ("clients", ["Java with Maven", "Go", "Node.js with npm"]),
    ],
)


@MISSING
def test_missing_toolchains_are_said_and_forgiven(checkout, goal, tools):
    done = checkout.setup(goal)

    assert done.returncode == 0
    for tool in tools:
        assert f"{tool} was not found" in done.stdout


@MISSING
def test_missing_toolchains_are_not_forgiven_on_ci(checkout, goal, tools):
    done = checkout.setup(goal, CI="true")

    assert done.returncode == 1
    assert f"{tools[0]} is missing" in done.stderr


def test_find_python_names_an_interpreter_of_the_wanted_version():
    version = "{}.{}".format(*sys.version_info)

    found = subprocess.run(
        [ROOT / "scripts/find-python", version],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    ).stdout.strip()
    said = subprocess.run(
        [found, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
    ).stdout.strip()

    assert said == version
