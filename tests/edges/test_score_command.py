"""`trunkline score` as an operator runs it, against upstreams that know everything, nothing, or fail."""

import asyncio
import os
import pty
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.edges.test_command import LIMIT_S, LOCAL_OFF, configured, over, run
from tests.faults.gateway import gateway
from tests.faults.waiting import until
from tests.support.service import model, provider, service
from tests.support.upstream import Exchange, Hang, Step, Upstream, answer, head, upstream, whole
from trunkline_server.config import ConfigError
from trunkline_server.core.candidate import Candidate
from trunkline_server.routing.scores import Scores
from trunkline_server.routing.scoring_run import Cell, ScoringRun, encoded, load, sealed
from trunkline_server.scoring.command import ScoreOptions, score
from trunkline_server.scoring.questions import bundled
from trunkline_server.scoring.run import GIVE_UP, MAX_OUTPUT_TOKENS

pytestmark = pytest.mark.once

QUESTIONS = {question.prompt: question for question in bundled().questions}
ENGLISH = sum(question.language == "en" for question in QUESTIONS.values())
IN_ENGLISH = ("--languages", "en")
Ask = Callable[[Exchange], Sequence[Step]]


def prompt_of(exchange: Exchange) -> str:
    """What was asked."""
    content = exchange.json["messages"][-1]["content"]
    return content if isinstance(content, str) else content[0]["text"]


def knows(exchange: Exchange) -> Sequence[Step]:
    """Knows every answer, and says it in two pieces."""
    right = QUESTIONS[prompt_of(exchange)].answer
    return answer(right[:1], right[1:])


def guesses(exchange: Exchange) -> Sequence[Step]:
    """Is never right."""
    return answer("I have no idea.")


def fails(exchange: Exchange) -> Sequence[Step]:
    """Is broken."""
    return whole({"error": {"message": "broken", "type": "server_error"}}, 500)


def refuses(exchange: Exchange) -> Sequence[Step]:
    """Does not know the key. Such a model is kept out at once, so half of the requests wait."""
    return whole({"error": {"message": "no such key"}}, 401)


def hangs(exchange: Exchange) -> Sequence[Step]:
    """Begins and never goes on."""
    return [head(), Hang()]


def sections(**upstreams: Upstream) -> dict[str, Any]:
    """A provider for each, with a model `m-NAME` that falls back to the first."""
    names = list(upstreams)
    return {
        "providers": [provider(name, there.url) for name, there in upstreams.items()],
        "models": [model(f"m-{name}", name, fallbacks=[f"m-{names[0]}"]) for name in names],
    }


async def test_who_is_right_who_is_wrong_and_who_fails_is_told_and_stored(tmp_path):
    async with AsyncExitStack() as stack:
        good, poor, gone = [
            await stack.enter_async_context(upstream(script)) for script in (knows, guesses, fails)
        ]
        taken = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        # Those of a gateway that serves: neither its ports nor its keys are needed.
        serving = {
            "server": {"grpc": address, "http": address},
            "keys": [{"id": "k", "key_env": "NOT_SET"}],
        }
        configured(tmp_path, **serving, **sections(good=good, poor=poor, gone=gone))
        found = await run("score", "--languages", "en", "de", "--region", "eu", folder=tmp_path)

    stored = load(tmp_path / "scores.json")
    asked = 2 * ENGLISH
    cells = {(cell.model, cell.language, cell.region): cell for cell in stored.cells}
    times = {timing.model: timing for timing in stored.timings}
    assert found.code == 0
    assert found.out.startswith(
        f"{3 * asked} requests in all, {asked} to each of: good/m-good, poor/m-poor, gone/m-gone\n"
        "languages: en, de; prices are not known\n"
    )
    table = [line.split() for line in found.out.splitlines()[4:7]]
    assert [line[0] for line in table] == ["good/m-good", "poor/m-poor", "gone/m-gone"]
    assert table[0][1:5] == [f"{asked}", "of", f"{asked}", "1.000"]
    assert table[1][1:5] == ["0", "of", f"{asked}", "0.000"]
    assert f"stored as {stored.id} in scores.json" in found.out
    assert found.out.endswith(f'\n[scoring]\nfile = "{tmp_path / "scores.json"}"\n')
    failed = times["gone/m-gone"].failures
    unasked = f"{failed} failed, {asked - failed} were not asked any more"
    assert found.err.startswith(f"trunkline: gone/m-gone: {unasked}; the last one: ")
    assert found.err.count("\n") == 1

    assert set(cells) == {
        (name, language, region)
        for name in ("good/m-good", "poor/m-poor")
        for language in ("", "en", "de")
        for region in ("", "eu")
    }
    assert cells["good/m-good", "de", "eu"] == Cell(
        "good/m-good", 1.0, language="de", region="eu", n=8, low=0.6756, high=1.0
    )
    assert (cells["poor/m-poor", "", ""].mean, cells["poor/m-poor", "", ""].n) == (0.0, asked)
    assert [len(times[f"{name}/m-{name}"].first_token_ms) for name in ("good", "poor", "gone")] == [
        asked,
        asked,
        0,
    ]
    assert times["good/m-good"].failures == times["poor/m-poor"].failures == 0
    assert GIVE_UP <= failed <= GIVE_UP + 1
    assert stored.data_set.name == "trunkline questions 1, of which de en"
    # Nobody stood in for anybody, and nobody was asked twice.
    assert sorted(map(prompt_of, good.exchanges)) == sorted(
        q.prompt for q in QUESTIONS.values() if q.language in ("en", "de")
    )
    assert len(gone.exchanges) == failed


async def test_a_running_gateway_is_asked_as_any_caller_asks_it(tmp_path):
    async with upstream(knows) as good, upstream(guesses) as poor:
        tree = sections(good=good, poor=poor)
        tree["models"][0] |= {"input_price": 1.0, "output_price": 10.0, "aliases": ["best"]}
        tree["models"].append(model("m-good", "poor"))  # A second deployment of the same id.
        keys = [{"id": "k", "key_env": "KEY"}]
        environment = {"KEY": "sk-caller-0123456789"}
        async with service(environment=environment, keys=keys, **tree) as running:
            to = ("--target", running.grpc_address, "--yes", *IN_ENGLISH)
            found, refused = await asyncio.gather(
                run(
                    *("score", *to, "--models", "best", "--repeat", "2"),
                    folder=tmp_path,
                    environment={"TRUNKLINE_API_KEY": environment["KEY"]},
                ),
                run("score", *to, "--output", "refused.json", folder=tmp_path),
            )

    stored = load(tmp_path / "scores.json")
    assert (found.code, found.err) == (0, "")
    assert found.out.splitlines()[0] == (
        f"{4 * ENGLISH} requests in all, {2 * ENGLISH} to each of: good/m-good, poor/m-good"
    )
    assert "at most about 0." in found.out.splitlines()[1]
    assert {(c.model, c.mean, c.n) for c in stored.cells} == {
        ("good/m-good", 1.0, 2 * ENGLISH),
        ("poor/m-good", 0.0, 2 * ENGLISH),
    }
    assert refused.code == 1
    assert "INVALID_API_KEY" in refused.err
    assert not (tmp_path / "refused.json").exists()
    assert len(good.exchanges) == len(poor.exchanges) == 2 * ENGLISH
    for exchange in good.exchanges:
        assert exchange.json["stream"] is True
        assert exchange.json["temperature"] == 0
        assert exchange.json["max_completion_tokens"] == MAX_OUTPUT_TOKENS
        assert len(exchange.json["messages"]) == 1


async def test_a_model_that_asks_to_be_left_alone_is_left_alone_and_then_asked(tmp_path):
    limited = whole({"error": {"message": "slow down"}}, 429, "retry-after: 1")

    def throttles(exchange: Exchange) -> Sequence[Step]:
        return limited if len(busy.exchanges) <= 2 else knows(exchange)

    async with upstream(throttles) as busy:
        configured(tmp_path, **over(busy.url))
        found = await run("score", *IN_ENGLISH, folder=tmp_path)

    stored = load(tmp_path / "scores.json")
    assert (found.code, found.err) == (0, "")
    assert [(cell.mean, cell.n) for cell in stored.cells] == [(1.0, ENGLISH)] * 2
    assert stored.timings[0].failures == 0


async def test_where_no_model_can_be_scored_nothing_is_stored(tmp_path):
    async with upstream(refuses) as gone, upstream(answer("  ")) as silent:
        configured(tmp_path, **sections(gone=gone, silent=silent))
        found = await run("score", *IN_ENGLISH, folder=tmp_path)
        asked = len(gone.exchanges)

    table = [line.split() for line in found.out.splitlines()[4:6]]
    assert found.code == 1
    assert found.err.endswith("trunkline: no model could be scored, so nothing is stored\n")
    assert any(
        f"gone/m-gone: {failed} failed, {ENGLISH - failed} were not asked any more" in found.err
        for failed in (GIVE_UP, GIVE_UP + 1)
    )
    assert 1 <= asked <= GIVE_UP + 1  # Whoever is kept out fails without being asked.
    assert [(line[0], line[-1]) for line in table] == [
        ("gone/m-gone", "0"),
        ("silent/m-silent", f"{ENGLISH}"),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trunkline.toml"]


async def test_a_run_takes_the_place_of_an_older_one_and_of_nothing_else(tmp_path):
    candidate = Candidate("p", "m", "m")
    older = sealed(
        ScoringRun(
            time="2026-11-22T10:00:00Z",
            data_set=bundled().data_set,
            judge="none",
            cells=[Cell(candidate.key, 1.0)],
        )
    )
    (tmp_path / "scores.json").write_bytes(encoded(older))
    async with upstream(guesses) as poor:
        configured(tmp_path, **over(poor.url))
        again, taken, unknown = await asyncio.gather(
            run("score", *IN_ENGLISH, folder=tmp_path),
            run("score", "--output", "trunkline.toml", folder=tmp_path),
            run("score", "--models", "mm", folder=tmp_path),
        )
        asked = len(poor.exchanges)

    newer = load(tmp_path / "scores.json")
    assert again.code == 0
    assert newer.id != older.id
    assert Scores(older, [candidate]).accuracy(candidate, ("en", "")) == 1.0
    assert Scores(newer, [candidate]).accuracy(candidate, ("en", "")) == 0.0
    assert (taken.code, unknown.code) == (2, 2)
    assert taken.err == (
        "trunkline: trunkline.toml is there and is no scoring run, so it is left alone: "
        "name another --output\n"
    )
    assert unknown.err == "trunkline: --models: no model is called 'mm'; did you mean 'm'?\n"
    assert asked == ENGLISH
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.json", "trunkline.toml"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (ScoreOptions(languages=["xx"]), "--languages: no questions in 'xx': there are en, de,"),
        (ScoreOptions(repeat=0), "--repeat: 1 to 20"),
        (ScoreOptions(repeat=21), "--repeat: 1 to 20"),
        (ScoreOptions(region="E U"), "--region: 'e u' is none"),
        (ScoreOptions(output="no/where.json"), "no is no folder that can be written to"),
        (ScoreOptions(output="."), ". is there and is no scoring run"),
        (ScoreOptions(config="no.toml"), "no.toml can't be read"),
        (ScoreOptions(target="far.example:1"), "the key would travel to far.example:1"),
    ],
    ids=lambda value: None,
)
def test_mistakes_of_the_command_are_told_before_anything_starts(
    tmp_path, monkeypatch, options, problem
):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError) as caught:
        score(options, LOCAL_OFF, "sk-key")

    assert str(caught.value).startswith(problem)


async def test_ctrl_c_stores_nothing_and_leaves_nothing_running(tmp_path):
    async with upstream(hangs) as slow:
        configured(tmp_path, **over(slow.url))
        # Where tests run in the background, children ignore the signal unless they are told not to.
        program = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
            "from trunkline_server.cli import main; sys.exit(main())"
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, "score"),
            cwd=tmp_path,
            env={**os.environ, **LOCAL_OFF},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await until(lambda: bool(slow.exchanges), "a question")
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(LIMIT_S):
                _, err = await process.communicate()
            await until(lambda: not slow.open_sockets, "the model is left")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    assert process.returncode == 130
    assert b"Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trunkline.toml"]


async def test_a_gateway_that_goes_away_is_no_models_fault(tmp_path):
    async with upstream(hangs) as slow, gateway(tmp_path, **over(slow.url)) as serving:
        to = ("--target", serving.grpc_address, *IN_ENGLISH)
        command = asyncio.create_task(run("score", *to, folder=tmp_path))
        await until(lambda: bool(slow.exchanges), "a question")
        serving.process.kill()
        found = await command

    assert found.code == 1
    assert found.err.startswith("trunkline: UNAVAILABLE: ")
    assert found.err.count("\n") == 1
    assert not (tmp_path / "scores.json").exists()


async def on_terminal(folder: Path, typed: bytes, *arguments: str) -> tuple[int, str]:
    """`trunkline score` on a terminal where this is typed: its exit code and all that is shown."""
    outside, inside = pty.openpty()
    shown = bytearray()
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            shown.extend(os.read(outside, 65_536))
        except OSError:  # Nothing is left, or the other side is closed.
            loop.remove_reader(outside)

    os.set_blocking(outside, False)
    try:
        kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trunkline_server", "score", *IN_ENGLISH, *arguments),
            cwd=folder,
            env={**kept, **LOCAL_OFF, "TERM": "xterm", "COLUMNS": "100"},
            stdin=inside,
            stdout=inside,
            stderr=inside,
        )
        loop.add_reader(outside, read)
        try:
            await until(lambda: not typed or b"Go on?" in shown, "the question whether to go on")
            os.write(outside, typed)
            async with asyncio.timeout(LIMIT_S):
                code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        read()
    finally:
        loop.remove_reader(outside)
        os.close(inside)
        os.close(outside)
    return code, shown.decode()


async def test_whoever_sits_at_a_terminal_is_asked_first_and_sees_a_bar(tmp_path):
    async with upstream(knows) as unasked, upstream(knows) as good:
        folders = [tmp_path / name for name in ("no", "yes", "sure")]
        for folder, there in zip(folders, (unasked, good, good), strict=True):
            folder.mkdir()
            configured(folder, **over(there.url))
        (no, no_text), (yes, yes_text), (sure, sure_text) = await asyncio.gather(
            on_terminal(folders[0], b"n\n"),
            on_terminal(folders[1], b"y\n"),
            on_terminal(folders[2], b"", "--yes"),
        )

    assert (no, unasked.exchanges) == (1, [])
    assert "nothing was asked" in no_text
    assert yes == sure == 0
    assert "asking" in yes_text
    assert f"/{ENGLISH}" in yes_text
    assert "Go on?" in yes_text
    assert "Go on?" not in sure_text
    assert len(good.exchanges) == 2 * ENGLISH
