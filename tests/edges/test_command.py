"""The command as an operator runs it: exit codes, advice, and every subcommand against a running service."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import pytest

from tests.edges.observed import spec
from tests.faults.gateway import Gateway, gateway, written
from tests.support.service import model, provider, service
from tests.support.upstream import answer, hello, upstream, whole
from trunkline import AsyncClient, TrunklineError, text
from trunkline.v1.completion_service_pb2 import CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub

pytestmark = pytest.mark.once

LIMIT_S: Final = 60.0
LOCAL_OFF: Final = {"TRUNKLINE_LOCAL_ENABLED": "false"}
NOWHERE: Final = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


async def run(
    *arguments: str, folder: Path, environment: Mapping[str, str] = LOCAL_OFF, typed: str = ""
) -> Ended:
    """`trunkline` with these arguments, in this folder, with nothing else set."""
    kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline_server", *arguments),
        cwd=folder,
        env={**kept, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            out, err = await process.communicate(typed.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def configured(folder: Path, **sections: Any) -> None:
    """Writes `trunkline.toml`."""
    (folder / "trunkline.toml").write_text(written(sections))


def over(url: str) -> dict[str, Any]:
    """The model m at this address, and the route r over it."""
    return {
        "providers": [provider("p", url)],
        "models": [model("m", "p", aliases=["alias"])],
        "routes": [{"id": "r", "candidates": ["m"]}],
    }


async def test_a_good_configuration_is_counted(tmp_path):
    configured(tmp_path, **over(NOWHERE))

    found = await run("config", "check", folder=tmp_path)

    assert found == Ended(0, "trunkline.toml: 1 providers, 1 models, 4 routes\n", "")


async def test_what_is_missing_is_told_and_is_no_mistake(tmp_path):
    keyed = {"id": "openai", "api_key_env": "NO_SUCH_KEY"}
    configured(tmp_path, providers=[keyed], models=[model("m", "openai")])

    found = await run("config", "check", folder=tmp_path)

    missing = "missing: openai: the variable NO_SUCH_KEY is not set, so it is left out\n"
    assert found == Ended(0, missing + "trunkline.toml: 0 providers, 0 models, 0 routes\n", "")


async def test_every_mistake_is_named_on_a_line_of_its_own(tmp_path):
    configured(tmp_path, server={"gprc": "x", "workres": 2})

    found = await run("config", "check", folder=tmp_path)

    assert found == Ended(
        2,
        "",
        "trunkline: unknown key server.'gprc'; did you mean 'grpc'?\n"
        "trunkline: unknown key server.'workres'; did you mean 'workers'?\n",
    )


async def test_a_file_that_is_named_and_not_there_is_a_mistake(tmp_path):
    found = await run("config", "check", "--config", "no.toml", folder=tmp_path)

    assert found == Ended(2, "", "trunkline: no.toml can't be read: No such file or directory\n")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_serving_nothing_is_refused_with_advice(tmp_path, workers):
    found = await run("serve", "--workers", workers, folder=tmp_path)

    advice = "no model is enabled: set a provider's key, or install the extra `local`"
    assert found == Ended(2, "", f"trunkline: {advice}\n")


@pytest.mark.parametrize("flag", ["--grpc", "--http"])
async def test_listening_for_others_without_keys_is_refused(tmp_path, flag):
    configured(tmp_path, **over(NOWHERE))

    found = await run("serve", flag, "0.0.0.0:0", folder=tmp_path)

    assert found.code == 2
    assert found.err.startswith(
        f"trunkline: server.{flag[2:]}: 0.0.0.0:0 is open to other machines"
    )


@pytest.mark.parametrize("flag", ["--grpc", "--http"])
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_port_that_is_taken_is_refused(tmp_path, flag, workers):
    configured(tmp_path, **over(NOWHERE))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = {"--grpc": "127.0.0.1:0", "--http": "127.0.0.1:0", flag: address}
        arguments = [part for pair in flags.items() for part in pair]
        found = await run("serve", "--workers", workers, *arguments, folder=tmp_path)

    assert (found.code, found.out) == (2, "")
    assert f"can't listen on {address}" in found.err


async def test_the_command_alone_says_what_there_is(tmp_path):
    found = await run(folder=tmp_path)

    assert found.code == 2
    for command in ("serve", "shim", "chat", "route", "models", "config", "doctor"):
        assert f"\n    {command} " in found.out


async def test_a_doctor_finds_what_is_there(tmp_path):
    configured(tmp_path, server={"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}, **over(NOWHERE))

    found = await run("doctor", "--offline", folder=tmp_path)

    lines = found.out.splitlines()
    assert (found.code, found.err) == (0, "")
    assert lines[1:] == [
        "ok       configuration: trunkline.toml",
        "ok       no keys: open to this machine only (add [[keys]] to listen elsewhere)",
        "ok       grpc: 127.0.0.1:0 is free",
        "ok       http: 127.0.0.1:0 is free",
        "ok       1 models at p",
    ]


async def test_a_doctor_tells_what_is_missing_and_how_to_fix_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        configured(
            tmp_path,
            server={"grpc": address, "http": "127.0.0.1:0"},
            providers=[{"id": "openai"}],
            models=[model("m", "openai")],
        )
        found = await run("doctor", "--offline", folder=tmp_path)

    lines = found.out.splitlines()
    assert found.code == 1
    assert "warning  openai: the variable OPENAI_API_KEY is not set, so it is left out" in lines
    assert any(
        line.startswith(f"warning  grpc: {address} is not free")
        and line.endswith("is the service running already?")
        for line in lines
    )
    assert lines[-1] == (
        "FAILED   no model is enabled: set a provider's key (such as OPENAI_API_KEY), "
        "or install trunkline[local]"
    )


async def test_a_doctor_tries_providers_without_asking_them_anything(tmp_path):
    silent = whole({}, 404)
    async with upstream(silent) as there:
        sections = over(there.url)
        sections["providers"].append(provider("gone", NOWHERE))
        configured(tmp_path, server={"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}, **sections)
        found = await run("doctor", folder=tmp_path)

    assert found.code == 0
    assert "ok       p: 127.0.0.1 answers\n" in found.out
    assert "warning  gone: 127.0.0.1 can't be reached (ConnectError)" in found.out
    assert [exchange.head.split(" ")[0] for exchange in there.exchanges] == ["HEAD"]


async def test_models_are_listed_with_provider_and_aliases(tmp_path):
    async with service(**over(NOWHERE)) as running:
        found = await run("models", "--target", running.grpc_address, folder=tmp_path)

    assert found.code == 0
    assert [line.split() for line in found.out.splitlines()] == [
        ["m", "p", "(alias)"],
        ["r", "route"],
        *([name, "panel"] for name in ("waymark-fast", "waymark-moa", "waymark-max")),
        *([f"theo-1-{name}", "mode"] for name in ("flash", "reason", "code", "create")),
    ]


async def test_a_route_is_shown_with_scores_and_exclusions(tmp_path):
    models = [
        model("good", "p", scores={"accuracy": 1.0}),
        model("poor", "p", scores={"accuracy": 0.0}),
        model("none", "p", modes=["deep"]),
    ]
    # Without learning, which now and then puts another one first.
    routing = {"learn": False}
    async with service(
        providers=[provider("p", NOWHERE)], models=models, routing=routing
    ) as running:
        arguments = ("route", "hi", "--target", running.grpc_address)
        found = await run(*arguments, "--optimize-for", "accuracy", folder=tmp_path)

    assert (found.code, found.err) == (0, "")
    good, poor, none = (line.split() for line in found.out.splitlines())
    assert (good[:2], poor[:2], none[:3]) == (
        ["1.", "p/good"],
        ["2.", "p/poor"],
        ["-.", "p/none", "not"],
    )
    # Of times nobody knows anything: half of what latency counts, less what a failure now and then costs.
    assert float(good[2]) == pytest.approx(0.9, abs=0.01)
    assert float(poor[2]) == pytest.approx(0.1, abs=0.01)


async def test_a_chat_streams_its_answer_and_says_who_gave_it(tmp_path):
    async with upstream(answer("Hel", "lo")) as good, service(**over(good.url)) as running:
        found = await run(
            *("chat", "--target", running.grpc_address, "--model", "r"),
            *("--system", "Be brief.", "--temperature", "0", "--max-tokens", "9", "Hi there"),
            folder=tmp_path,
        )

    assert found == Ended(0, "Hello", "\n[p/m, 9 + 4 tokens]\n")
    body = good.exchanges[0].json
    assert [message["content"] for message in body["messages"]] == ["Be brief.", "Hi there"]
    assert (body["temperature"], body["max_completion_tokens"]) == (0, 9)


async def test_a_conversation_remembers_what_was_said(tmp_path):
    async with upstream(hello) as good, service(**over(good.url)) as running:
        arguments = ("chat", "--target", running.grpc_address)
        found = await run(*arguments, folder=tmp_path, typed="one\n\ntwo\n")

    assert (found.code, found.out) == (0, "> Hello> > Hello> \n")
    contents = [[m["content"] for m in e.json["messages"]] for e in good.exchanges]
    assert contents == [["one"], ["one", "Hello", "two"]]


async def test_an_error_is_a_line_and_a_code(tmp_path):
    async with service(**over(NOWHERE)) as running:
        arguments = ("chat", "--target", running.grpc_address, "--model", "mm", "hi")
        found = await run(*arguments, folder=tmp_path)

    assert (found.code, found.out) == (1, "")
    assert found.err.startswith("trunkline: ")
    assert found.err.count("\n") == 1
    assert "MODEL_NOT_FOUND" in found.err or "did you mean 'm'" in found.err


@pytest.mark.parametrize("key", ["sk-good", "sk-bad"])
async def test_the_commands_key_comes_from_the_environment(tmp_path, key):
    keys = [{"id": "k", "key_env": "KEY"}]
    async with service(environment={"KEY": "sk-good"}, keys=keys, **over(NOWHERE)) as running:
        arguments = ("models", "--target", running.grpc_address)
        found = await run(*arguments, folder=tmp_path, environment={"TRUNKLINE_API_KEY": key})

    assert found.code == (0 if key == "sk-good" else 1)
    assert key not in found.err


async def answers(running: Gateway) -> bool:
    """Do both ports?"""
    try:
        async with (
            AsyncClient(running.grpc_address) as client,
            httpx.AsyncClient(timeout=LIMIT_S) as http,
        ):
            completion = await client.complete("hi", model="m")
            page = await http.get(f"http://{running.http_address}/v1/models")
    except (TrunklineError, httpx.TransportError):
        return False
    assert text(completion) == "Hello"
    return page.status_code == 200


async def served(running: Gateway) -> None:
    """Waits until both ports answer."""
    async with asyncio.timeout(LIMIT_S):
        while not await answers(running):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_workers_share_both_ports_and_go_down_together(tmp_path, number):
    async with (
        upstream(hello) as good,
        gateway(tmp_path, server={"workers": 2}, **over(good.url)) as running,
    ):
        await served(running)
        running.process.send_signal(number)
        code = await running.exit_code(LIMIT_S)
        log = (await running.log).decode()

    assert code == 0
    assert log.count('"event":"stopped"') <= 2
    assert "Traceback" not in log
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*running.http_address.split(":"))


async def test_workers_that_have_not_started_yet_go_down_as_well(tmp_path):
    async with gateway(tmp_path, server={"workers": 2}, **over(NOWHERE)) as running:
        running.terminate()
        code = await running.exit_code(LIMIT_S)

    assert code == 0


async def test_workers_whose_configuration_is_wrong_are_not_started_again(tmp_path):
    (tmp_path / "empty.pem").write_text("")
    pair = {"tls_cert_file": "empty.pem", "tls_key_file": "empty.pem"}
    server = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "workers": 2, **pair}
    configured(tmp_path, server=server, **over(NOWHERE))

    found = await run("serve", folder=tmp_path)

    wrong = "trunkline: server: empty.pem and empty.pem are no certificate and its key"
    assert found.code == 2
    assert set(found.err.splitlines()) == {wrong}


async def test_counts_of_all_workers_are_added_up(tmp_path):
    async with (
        upstream(hello) as good,
        gateway(tmp_path, server={"workers": 2}, **over(good.url)) as running,
        httpx.AsyncClient(timeout=LIMIT_S) as http,
    ):
        await served(running)
        before = len(good.exchanges)
        for _ in range(12):
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(running.grpc_address, options) as channel:
                await unary(channel)
        # The worker that is not asked for the page writes its counts down a moment later.
        counts: list[float] = []
        async with asyncio.timeout(LIMIT_S):
            while sum(counts) != before + 12:
                await asyncio.sleep(0.05)
                found = (await http.get(f"http://{running.http_address}/metrics")).text
                lines = [n for n in found.splitlines() if n.startswith("trunkline_requests_total{")]
                counts = [float(line.split()[-1]) for line in lines]

    assert counts == [before + 12]


async def unary(channel: grpc.aio.Channel) -> None:
    """One request."""
    stub = CompletionServiceStub(channel)
    await stub.CompleteUnary(CompleteUnaryRequest(spec=spec("m")), timeout=LIMIT_S)


async def test_a_worker_that_died_is_started_again(tmp_path):
    async with (
        upstream(hello) as good,
        gateway(tmp_path, server={"workers": 2}, **over(good.url)) as running,
    ):
        await served(running)
        first = children(running)
        os.kill(first[0], signal.SIGKILL)
        async with asyncio.timeout(LIMIT_S):
            while len(set(children(running)) - set(first)) < 1:  # noqa: ASYNC110 - of the system
                await asyncio.sleep(0.05)
        await served(running)
        running.terminate()
        code = await running.exit_code(LIMIT_S)

    assert code == 0


async def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    async with (
        upstream(hello) as good,
        gateway(tmp_path, server={"workers": 2}, **over(good.url)) as running,
    ):
        await served(running)
        workers = children(running)
        running.process.kill()
        async with asyncio.timeout(LIMIT_S):
            while any(is_running(worker) for worker in workers):  # noqa: ASYNC110 - of the system
                await asyncio.sleep(0.05)

    assert len(workers) == 2


def children(running: Gateway) -> list[int]:
    """The processes that it started."""
    task = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    return [int(child) for child in task.read_text().split()]


def is_running(process: int) -> bool:
    """Is it there, and no zombie?"""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
