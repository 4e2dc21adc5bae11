"""Makes the environments of this checkout agree with the locks.

    setup.py run        .venv with what the service needs
    setup.py dev        .venv with what developers need
    setup.py proto      dev, and what generates the contract's TypeScript
    setup.py clients    our clients in other languages, as far as their tools are installed
    setup.py sdks       the second SDK versions and the mock servers that tests use
    setup.py test       dev, clients, sdks, and one .venv-VERSION for each other Python that is installed

Each environment holds a file that says which locks it was made from. It is removed before an
installation starts and written after it ended, so an installation that was interrupted is started
again, from nothing.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTED_VERSIONS = ("3.11", "3.12", "3.13")

# pip is given complete locks: nothing is left to resolve. Wheels only, because a source
# distribution would be built with a build backend that no lock names.
PIP_INSTALL = ("-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps")
PIP_INSTALL_LOCKED = (*PIP_INSTALL, "--require-hashes", "--only-binary=:all:")
PIP_INSTALL_PROJECT = (*PIP_INSTALL, "--no-build-isolation", "--editable", ".")
NPM_INSTALL = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


class SetupError(Exception):
    """Something that the reader must see; its text is all they get."""


@dataclass(frozen=True)
class Venv:
    """A virtual environment, what is installed in it, and which sets of locks that covers too."""

    folder: str
    locks: tuple[str, ...]
    covers: tuple[tuple[str, ...], ...] = ()
    has_project: bool = True
    version: str | None = None

    @property
    def stamp(self) -> Path:
        return ROOT / self.folder / ".ready"

    @property
    def python(self) -> Path:
        return ROOT / self.folder / "bin" / "python"

    @property
    def is_ready(self) -> bool:
        # A link into a Python that was removed since does not exist.
        return self.python.exists() and self._digest(self.locks) in read_lines(self.stamp)

    def install(self) -> None:
        python = str(self.python)
        if not self.stamp.exists() or not works(python, "-c", ""):
            call(find_python(self.version), "-m", "venv", "--clear", self.folder)
        self.stamp.unlink(missing_ok=True)
        call(python, *PIP_INSTALL_LOCKED, *(f"--requirement={lock}" for lock in self.locks))
        if self.has_project:
            call(python, *PIP_INSTALL_PROJECT)
        self.stamp.write_text("".join(f"{self._digest(s)}\n" for s in (self.locks, *self.covers)))

    def _digest(self, locks: Iterable[str]) -> str:
        sources = (*locks, "pyproject.toml") if self.has_project else locks
        return digest(ROOT / source for source in sources)


@dataclass(frozen=True)
class NodeModules:
    """A folder of Node packages, as its package-lock.json says."""

    folder: str

    @property
    def stamp(self) -> Path:
        return ROOT / self.folder / "node_modules" / ".ready"

    @property
    def is_ready(self) -> bool:
        return self._digest() in read_lines(self.stamp)

    def install(self) -> None:
        # `npm ci` begins by removing what is there, the stamp included.
        call(*NPM_INSTALL, cwd=ROOT / self.folder)
        self.stamp.write_text(f"{self._digest()}\n")

    def _digest(self) -> str:
        return digest([ROOT / self.folder / "package-lock.json"])


@dataclass(frozen=True)
class Build:
    """A client that its own tool builds with what it needs, kept where the tool keeps it. Later builds are short."""

    folder: str
    command: tuple[str, ...]
    lock: str
    stamp_folder: str

    @property
    def stamp(self) -> Path:
        return ROOT / self.folder / self.stamp_folder / ".ready"

    @property
    def is_ready(self) -> bool:
        return self._digest() in read_lines(self.stamp)

    def install(self) -> None:
        call(*self.command, cwd=ROOT / self.folder)
        self.stamp.parent.mkdir(exist_ok=True)
        self.stamp.write_text(f"{self._digest()}\n")

    def _digest(self) -> str:
        return digest([ROOT / self.folder / self.lock])


Environment = Venv | NodeModules | Build

RUN_LOCKS = ("locks/run.txt", "locks/model.txt")
DEV_LOCKS = ("locks/dev.txt", "locks/model.txt")
RUN = Venv(".venv", RUN_LOCKS)
DEV = Venv(".venv", DEV_LOCKS, covers=(RUN_LOCKS,))
OPENAI_1X = Venv(".venv-openai-1x", ("locks/openai-1x.txt",), has_project=False)
SPEKO = Venv(".venv-speko", ("locks/speko.txt",), has_project=False)
MOCKS = Venv(".venv-mocks", ("locks/mocks.txt",), has_project=False)
TYPESCRIPT = NodeModules("clients/typescript")
GO = Build(
    "clients/go", ("go", "build", "-o", "build/conformance", "./conformance"), "go.sum", "build"
)
JAVA = Build(
    "clients/java",
    ("mvn", "--batch-mode", "--quiet", "-DskipTests", "package"),
    "pom.xml",
    "target",
)
NODE_SDK = NodeModules("tests/clients/node")
NODE_MOCKS = NodeModules("tests/faults/mocks")


def if_there(
    name: str, probes: Iterable[tuple[str, ...]], wanted: list[Environment]
) -> list[Environment]:
    """What is wanted, if its tools work; on CI they must."""
    if all(works(*probe) for probe in probes):
        return wanted
    if os.environ.get("CI"):
        raise SetupError(f"{name} is missing, and on CI no test may be skipped for that.")
    print(f"{name} was not found: tests that need it are skipped.")
    return []


def with_node(*wanted: Environment) -> list[Environment]:
    return if_there("Node.js with npm", (("node", "--version"), ("npm", "--version")), [*wanted])


def clients() -> list[Environment]:
    return [
        # The slowest first.
        *if_there("Java with Maven", (("java", "-version"), ("mvn", "--version")), [JAVA]),
        *if_there("Go", (("go", "version"),), [GO]),
        *with_node(TYPESCRIPT),
    ]


def sdks() -> list[Environment]:
    return [OPENAI_1X, SPEKO, MOCKS, *with_node(NODE_SDK, NODE_MOCKS)]


def other_pythons() -> list[Environment]:
    own = ".".join(map(str, sys.version_info[:2]))
    others = [Venv(f".venv-{v}", DEV_LOCKS, version=v) for v in TESTED_VERSIONS if v != own]
    # A version manager takes a second to say what it has: what was found before is not asked for.
    return [other for other in others if other.is_ready or has_python(other.version)]


GOALS: Mapping[str, Callable[[], list[Environment]]] = {
    "run": lambda: [RUN],
    "dev": lambda: [DEV],
    "proto": lambda: [DEV, *with_node(TYPESCRIPT)],
    "clients": lambda: [DEV, *clients()],
    "sdks": sdks,
    "test": lambda: [DEV, *clients(), *sdks(), *other_pythons()],
}


def set_up(environments: Iterable[Environment]) -> None:
    started_s = time.monotonic()
    if all(environment.is_ready for environment in environments):
        return
    with only_one_at_a_time():
        missing = [environment for environment in environments if not environment.is_ready]
        # Installing is mostly unpacking: more at once than processors gains nothing.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(set_up_one, missing))
    print(f"Setup took {time.monotonic() - started_s:.1f} s.", flush=True)


def set_up_one(environment: Environment) -> None:
    print(f"Setting up {environment.folder} ...", flush=True)
    environment.install()


@contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Two makes in one checkout wait for each other, and for none that was killed."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def find_python(version: str | None) -> str:
    found = subprocess.run(
        [ROOT / "scripts/find-python", *filter(None, [version])], capture_output=True, text=True
    )
    if found.returncode != 0:
        raise SetupError(found.stderr.strip() or f"Python {version} was not found.")
    return found.stdout.strip()


def has_python(version: str | None) -> bool:
    return works(str(ROOT / "scripts/find-python"), *filter(None, [version]))


def works(program: str, *arguments: str) -> bool:
    """Whether a program runs, which its presence alone does not show."""
    try:
        return subprocess.run([program, *arguments], capture_output=True).returncode == 0
    except OSError:
        return False


def call(*command: str, cwd: Path = ROOT) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise SetupError(f"{' '.join(command)} failed:\n{done.stdout}")


def read_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []


def digest(paths: Iterable[Path]) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def main() -> int:
    os.chdir(ROOT)
    try:
        set_up(GOALS[sys.argv[1]]())
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
