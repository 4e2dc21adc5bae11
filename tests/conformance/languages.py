"""The clients that the cases are run with: how each is built and checked, and the process that makes its calls."""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any, Final, Self

ROOT: Final = Path(__file__).resolve().parent.parent.parent
CLIENTS: Final = ROOT / "clients"
BUILD_LIMIT_S: Final = 900.0
END_LIMIT_S: Final = 10.0
SHOWN_CHARS: Final = 4_000

Command = tuple[str, ...]


@dataclass(frozen=True)
class Language:
    """A client, and what its folder is built and checked with."""

    name: str
    tools: tuple[str, ...]
    build: tuple[Command, ...]
    checks: tuple[Command, ...]
    stream_answer: Command
    """The example that streams an answer, and the one that talks about tools."""
    tool_conversation: Command

    @property
    def folder(self) -> Path:
        return CLIENTS / self.name

    @property
    def missing_tools(self) -> list[str]:
        """What must be installed before this client can be built."""
        return [tool for tool in self.tools if shutil.which(tool) is None]

    def run(self, command: Command) -> None:
        """Runs one of its commands in its folder.

        Raises:
            AssertionError: it failed, or took too long; with what it said last.
        """
        done = subprocess.run(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_LIMIT_S,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-SHOWN_CHARS:]}"


@dataclass(frozen=True)
class Column:
    """A way to use a client, with a runner of its own."""

    name: str
    language: Language
    command: Command


PYTHON: Final = Language(
    "python",
    (),
    (),
    (),
    (sys.executable, "-W", "error", "examples/stream_answer.py"),
    (sys.executable, "-W", "error", "examples/tool_conversation.py"),
)
TYPESCRIPT: Final = Language(
    "typescript",
    ("node", "npm"),
    (("npm", "run", "--silent", "build"),),
    (("npm", "test", "--silent"),),
    ("node", "build/examples/stream-answer.js"),
    ("node", "build/examples/tool-conversation.js"),
)
GO: Final = Language(
    "go",
    ("go",),
    (("go", "build", "-o", "build/conformance", "./conformance"),),
    (("go", "vet", "./..."), ("go", "test", "./...")),
    ("go", "run", "./examples/stream_answer"),
    ("go", "run", "./examples/tool_conversation"),
)
_JVM: Final = ("java", "-cp", "target/test-classes:target/classes:target/dependencies/*")
_MAVEN: Final = ("mvn", "--batch-mode", "--quiet")
JAVA: Final = Language(
    "java",
    ("java", "mvn"),
    ((*_MAVEN, "-DskipTests", "package"),),
    ((*_MAVEN, "test"),),
    (*_JVM, "dev.trunkline.examples.StreamAnswer"),
    (*_JVM, "dev.trunkline.examples.ToolConversation"),
)
LANGUAGES: Final = (PYTHON, TYPESCRIPT, GO, JAVA)

_PYTHON_RUNNER: Final = (sys.executable, "conformance/runner.py", "--flavour")
_JAVA_RUNNER: Final = (*_JVM, "dev.trunkline.conformance.Runner", "--flavour")
COLUMNS: Final = (
    Column("python", PYTHON, (*_PYTHON_RUNNER, "blocking")),
    Column("python-asyncio", PYTHON, (*_PYTHON_RUNNER, "asyncio")),
    Column("typescript", TYPESCRIPT, ("node", "--expose-gc", "build/conformance/runner.js")),
    Column("go", GO, ("build/conformance",)),
    Column("java", JAVA, (*_JAVA_RUNNER, "blocking")),
    Column("java-async", JAVA, (*_JAVA_RUNNER, "async")),
)


class RunnerFailed(Exception):
    """A runner ended or did not answer in time; the text says what it complained of last."""


class Runner:
    """One process: a line of JSON in, a line of JSON out. It is started when it is first asked, and again where it
    has failed."""

    def __init__(self, column: Column) -> None:
        self._column = column
        self._process: subprocess.Popen[str] | None = None
        self._lines: Queue[str | None] = Queue()
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`

    def ask(self, order: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """What came of one case.

        Raises:
            RunnerFailed: see there.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            line = self._lines.get(timeout=limit_s)
        except (BrokenPipeError, Empty) as error:
            self.close()
            raise RunnerFailed(f"no answer in {limit_s:g} s: {self._complained()}") from error
        if line is None:
            self.close()
            raise RunnerFailed(f"ended: {self._complained()}")
        observed: dict[str, Any] = json.loads(line)
        return observed

    def _start(self) -> subprocess.Popen[str]:
        self._complaints.truncate(0)
        self._lines = Queue()
        self._process = subprocess.Popen(
            self._column.command,
            cwd=self._column.language.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )
        threading.Thread(
            target=self._read, args=(self._process.stdout, self._lines), daemon=True
        ).start()
        return self._process

    @staticmethod
    def _read(stdout: IO[str], lines: Queue[str | None]) -> None:
        for line in stdout:
            lines.put(line)
        lines.put(None)

    def _complained(self) -> str:
        self._complaints.seek(0)
        return self._complaints.read().decode(errors="replace")[-SHOWN_CHARS:]

    def close(self) -> None:
        """Ends the process."""
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
            process.wait(END_LIMIT_S)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._complaints.close()
