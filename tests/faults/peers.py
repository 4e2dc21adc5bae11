"""The same faults against another gateway, side by side, and the table of them in docs/reliability.md.

    .venv/bin/python -m tests.faults.peers

Installs the peer under build/peers at the version named here, where it is not there yet, and starts it over the
providers of the laboratory: for each kind of fault a broken one, and one that is well to fall back to. Every gateway is
as it comes, but for the fallback and one limit of silence, and is asked by the same caller in the OpenAI API.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Final

import httpx
import uvloop

from tests.faults.fleet import broken_provider
from tests.faults.gateway import gateway
from tests.faults.kinds import BY_PHASE, FAULTY, HEALTHY, Kind
from tests.faults.publish import DOCS, put, stamped, table
from tests.faults.stamp import ROOT, Stamp
from tests.faults.upstreams import healthy
from tests.faults.wires import WIRES, said
from tests.support.service import model

PEERS: Final = ROOT / "build" / "peers"
LITELLM: Final = "1.106.2"
WIRE: Final = WIRES["openai"]
PATIENCE_S: Final = 2
EACH: Final = 3
LIMIT_S: Final = 20.0
AT_ONCE: Final = 6
START_S: Final = 120.0


@dataclass(frozen=True)
class Upstreams:
    """URLs: of the broken providers by the name of their kind, and of the one that is well."""

    broken: Mapping[str, str]
    well: str

    @property
    def names(self) -> list[str]:
        """Of the kinds; a route has the number of its kind for its name."""
        return [*self.broken]


@dataclass(frozen=True)
class Asked:
    """Where and how a gateway is asked for the route of a kind."""

    url: str
    models: Mapping[str, str]
    headers: Mapping[str, Mapping[str, str]]


# The gateways


@asynccontextmanager
async def trunkline(upstreams: Upstreams, folder: Path) -> AsyncIterator[Asked]:
    """This one."""
    patience = {"first_token_timeout_s": PATIENCE_S, "idle_timeout_s": PATIENCE_S}
    numbered = list(enumerate(upstreams.broken.values()))
    async with gateway(
        folder,
        providers=[
            *(WIRE.provider(f"p-{n}", url) | patience for n, url in numbered),
            WIRE.provider("well", upstreams.well),
        ],
        models=[*(model(f"m-{n}", f"p-{n}") for n, _ in numbered), model("well", "well")],
        routes=[
            {"id": f"k-{n}", "candidates": [f"m-{n}", "well"], "strategy": "ordered"}
            for n, _ in numbered
        ],
    ) as running:
        models = {name: f"k-{n}" for n, name in enumerate(upstreams.names)}
        yield Asked(f"http://{running.http_address}/v1", models, {})


@asynccontextmanager
async def litellm(upstreams: Upstreams, folder: Path) -> AsyncIterator[Asked]:
    """LiteLLM's proxy, without a database."""
    venv = PEERS / "litellm" / "venv"
    if not (venv / "bin" / "litellm").exists():
        _run(sys.executable, "-m", "venv", str(venv))
        _run(str(venv / "bin" / "pip"), "install", "-q", f"litellm[proxy]=={LITELLM}")

    def entry(name: str, url: str) -> dict[str, Any]:
        at = {"model": "openai/m", "api_base": f"{url}/v1", "api_key": "k"}
        patience = {"timeout": PATIENCE_S, "stream_timeout": PATIENCE_S}
        return {"model_name": name, "litellm_params": at | patience}

    models = {name: f"k-{n}" for n, name in enumerate(upstreams.names)}
    config = {
        "model_list": [
            *(entry(models[name], url) for name, url in upstreams.broken.items()),
            entry("well", upstreams.well),
        ],
        "router_settings": {"fallbacks": [{name: ["well"]} for name in models.values()]},
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML too.
    port = free_port()
    command = [str(venv / "bin" / "litellm"), "--config", str(path)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    key = f"sk-{token_hex(32)}"
    # Its list of prices would be fetched.
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": key}
    async with running([*command, *options], environment, folder) as process:
        await answering(f"http://127.0.0.1:{port}/health/liveliness", process, folder)
        headers = {name: {"authorization": f"Bearer {key}"} for name in models}
        yield Asked(f"http://127.0.0.1:{port}/v1", models, headers)


GATEWAYS: Final = {
    "Trunkline": trunkline,
    f"LiteLLM {LITELLM}": litellm,
}


def _run(*command: str) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, check=True, timeout=900)


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@asynccontextmanager
async def running(
    command: list[str], environment: Mapping[str, str], folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that is ended when the block is left. What it writes is in `log`."""
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()


async def answering(url: str, process: asyncio.subprocess.Process, folder: Path) -> None:
    """Waits until a gateway does."""
    end_s = monotonic() + START_S
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                await client.get(url)
            except httpx.TransportError:
                is_hopeless = process.returncode is not None or monotonic() > end_s
                assert not is_hopeless, (folder / "log").read_text()[-2000:]
                await asyncio.sleep(0.2)
            else:
                return


# The caller


@dataclass(frozen=True)
class Seen:
    """What the caller saw, in words, and how long it took."""

    what: str
    took_s: float


async def ask(client: httpx.AsyncClient, asked: Asked, name: str, mark: str) -> Seen:
    """One stream."""
    body = {
        "model": asked.models[name],
        "messages": [{"role": "user", "content": f"say {mark}"}],
        "stream": True,
    }
    headers = {"authorization": "Bearer sk-1", **asked.headers.get(name, {})}
    lines: list[str] = []
    end, status = "clean", 0
    since_s = monotonic()
    try:
        async with (
            asyncio.timeout(LIMIT_S),
            client.stream(
                "POST", f"{asked.url}/chat/completions", json=body, headers=headers
            ) as response,
        ):
            status = response.status_code
            async for line in response.aiter_lines():
                lines.append(line)  # noqa: PERF401 - what came before an error counts
    except TimeoutError:
        end = "none"
    except httpx.TransportError:
        end = "broken"
    return Seen(words_for(status, lines, end, mark), monotonic() - since_s)


def words_for(status: int, lines: list[str], end: str, mark: str) -> str:
    """What it was."""
    if end == "none":
        return "**hangs**"
    if status != 200:
        return f"HTTP {status}" if status else "connection broken"
    events = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    chunks = []
    for event in events:
        with suppress(json.JSONDecodeError):
            chunks.append(json.loads(event))
    chunks = [chunk for chunk in chunks if isinstance(chunk, dict)]
    text = "".join(
        choice.get("delta", {}).get("content") or ""
        for chunk in chunks
        for choice in chunk.get("choices") or ()
    )
    is_told = end == "broken" or any("error" in chunk for chunk in chunks)
    ours, well = said(mark, FAULTY), said(mark, HEALTHY)
    if text in (ours, well):
        return "complete answer, then an error" if is_told else "complete answer"
    if f" {FAULTY}>" in text and f" {HEALTHY}>" in text:
        return "**two answers mixed**"
    if text.startswith((ours, well)):
        return "**text doubled**"
    if ours.startswith(text):
        begun = "its beginning" if text else "nothing"
        if is_told:
            return f"{begun}, then an error"
        # As an end that is none.
        return f"**{begun}, and a clean end**"
    return "**something else**"


async def measure(name: str, upstreams: Upstreams) -> dict[str, list[Seen]]:
    """What the callers of one gateway saw."""
    turns = asyncio.Semaphore(AT_ONCE)
    found: dict[str, list[Seen]] = {}
    with TemporaryDirectory() as folder:
        async with (
            GATEWAYS[name](upstreams, Path(folder)) as asked,
            httpx.AsyncClient(trust_env=False, timeout=None) as client,
        ):

            async def kind_of(number: int, kind: str) -> None:
                async with turns:
                    found[kind] = [
                        await ask(client, asked, kind, f"mark-{number}-{n}-{len(name)}")
                        for n in range(EACH)
                    ]

            async with asyncio.TaskGroup() as group:
                for number, kind in enumerate(upstreams.names):
                    group.create_task(kind_of(number, kind))
    return found


def cell(seen: list[Seen]) -> str:
    """Of the table."""
    whats = " or ".join(sorted({each.what for each in seen}))
    return f"{whats}; {median(each.took_s for each in seen):.2f} s"


async def main(only: str) -> None:
    """Measures, and writes."""
    stamp = Stamp.now()
    kinds: dict[str, tuple[str, Kind]] = {
        kind.name: (phase, kind)
        for phase, kinds in BY_PHASE.items()
        for kind in kinds
        if only in kind.name
    }
    async with AsyncExitStack() as stack:
        well = await stack.enter_async_context(healthy(WIRE, HEALTHY))
        urls = {
            name: await broken_provider(stack, kind, WIRE, name, {}, {})
            for name, (_, kind) in kinds.items()
        }
        upstreams = Upstreams(urls, well.url)
        found = {name: await measure(name, upstreams) for name in GATEWAYS}
    lines = [
        (phase, name, *(cell(found[gateway][name]) for gateway in GATEWAYS))
        for name, (phase, _) in kinds.items()
    ]
    written = table(("Phase", "Fault", *GATEWAYS), lines)
    print(written)
    if only:
        return
    about = (
        f"{stamped(stamp)} {EACH} streams for each fault, over a broken provider and one that is well. Each gateway "
        f"falls back to the second, and is told to bear {PATIENCE_S} s of silence; all else is as it comes, so that "
        f"LiteLLM asks the broken one again first. A caller who waits for {LIMIT_S:.0f} s gives up. Times are medians."
    )
    put(DOCS, "peers", f"{about}\n\n{written}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "-k", default="", help="only kinds whose name holds this; writes nothing"
    )
    uvloop.run(main(arguments.parse_args().k))
