"""`trunkline panel eval` as an operator runs it: a real service, and panels that win, lose, fail and dither."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import pytest

from tests.edges.test_command import Ended, run
from tests.support.service import model, provider, service
from tests.support.upstream import Exchange, Step, Upstream, answer, upstream, whole
from trunkline_server.app import Service
from trunkline_server.commands.panel import show
from trunkline_server.config import ConfigError
from trunkline_server.scoring.panel_command import EvalOptions, evaluate
from trunkline_server.scoring.run import GIVE_UP, MAX_OUTPUT_TOKENS

pytestmark = pytest.mark.once

KEY: Final = "sk-caller-0123456789"
QUESTIONS: Final = 24
WON_AND_LOST: Final = """\
name           kind   accuracy        95 %   USD each  mean s  p95 s  first s
wise           panel    100.0%  86% - 100%   0.000221    N.NN   N.NN     N.NN
first/first    model     66.7%   47% - 82%  0.0000130    N.NN   N.NN     N.NN
second/second  model     66.7%   47% - 82%  0.0000260    N.NN   N.NN     N.NN
third/third    model     66.7%   47% - 82%  0.0000520    N.NN   N.NN     N.NN
spoiled        panel      0.0%    0% - 14%  0.0000780    N.NN   N.NN     N.NN

name              right  tokens in  out  errors  silent  degraded  early  escalated
wise           24 of 24         36   16       0       0         0      0          0
first/first    16 of 24          9    4       0       0         -      -          -
second/second  16 of 24          9    4       0       0         -      -          -
third/third    16 of 24          9    4       0       0         -      -          -
spoiled         0 of 24         27   12       0       0         0      0          0
"""
IN_TROUBLE: Final = """\
name         kind   accuracy        95 %   USD each  mean s  p95 s  first s
moves-up     panel    100.0%  51% - 100%   0.000234    N.NN   N.NN     N.NN
agreed       panel     75.0%   30% - 95%  0.0000520    N.NN   N.NN     N.NN
first/first  model     50.0%   15% - 85%  0.0000130    N.NN   N.NN     N.NN
lame         panel     50.0%   15% - 85%  0.0000130    N.NN   N.NN     N.NN
broken       panel      0.0%    0% - 49%          -       -      -        -
gone/gone    model      0.0%    0% - 49%          -       -      -        -
mute/mute    model      0.0%    0% - 49%  0.0000130    N.NN   N.NN        -

name          right  tokens in  out  errors  silent  degraded  early  escalated
moves-up     4 of 4         45   20       0       0         0      0          4
agreed       3 of 4         18    8       0       0         0      4          0
first/first  2 of 4          9    4       0       0         -      -          -
lame         2 of 4          9    4       0       0         4      0          0
broken       0 of 4          -    -       4       0         0      0          0
gone/gone    0 of 4          -    -       4       0         -      -          -
mute/mute    0 of 4          9    4       0       4         -      -          -
"""
_SVG: Final = "{http://www.w3.org/2000/svg}"
_SUM: Final = re.compile(r"What is (\d+) \+ 1000\?")


def questions(folder: Path, count: int = QUESTIONS) -> str:
    """A file of sums. Its name."""
    lines = [
        {"id": f"q{n}", "kind": "number", "prompt": f"What is {n} + 1000?", "answer": str(n + 1000)}
        for n in range(count)
    ]
    path = folder / "sums.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return str(path)


def asked(exchange: Exchange) -> int:
    """Which sum is asked for, by whomever."""
    content = exchange.json["messages"][-1]["content"]
    found = _SUM.search(content if isinstance(content, str) else content[0]["text"])
    assert found is not None
    return int(found[1])


def reads_drafts(exchange: Exchange) -> bool:
    """Is it asked to make one answer of several?"""
    return "drafts of an answer" in exchange.body.decode()


def knows(*but: int) -> Callable[[Exchange], Sequence[Step]]:
    """Is right, but for sums whose number leaves one of these when divided by 6."""

    def script(exchange: Exchange) -> Sequence[Step]:
        number = asked(exchange)
        return answer(f"{number + 1000}" if number % 6 not in but else "I think 7")

    return script


def judges(exchange: Exchange) -> Sequence[Step]:
    """Knows half of the sums, and all of them once it has read drafts."""
    return (knows() if reads_drafts(exchange) else knows(1, 3, 5))(exchange)


def spoils(exchange: Exchange) -> Sequence[Step]:
    """Knows all but one of six, and none once it has read drafts."""
    return answer("0") if reads_drafts(exchange) else knows(1)(exchange)


def fails(exchange: Exchange) -> Sequence[Step]:
    """Is broken."""
    return whole({"error": {"message": "broken"}}, 500)


def mute(exchange: Exchange) -> Sequence[Step]:
    """Says nothing."""
    return answer("")


SCRIPTS: Final = {
    "first": knows(0, 2),
    "second": knows(1, 4),
    "third": knows(3, 5),
    "judge": judges,
    "spoiler": spoils,
    "gone": fails,
    "mute": mute,
}
PRICES: Final = {
    "first": 1.0,
    "second": 2.0,
    "third": 4.0,
    "judge": 10.0,
    "spoiler": 3.0,
    "mute": 1.0,
}
WISE: Final = {
    "id": "wise",
    "panel": {"proposers": ["first", "second", "third"], "quorum": 3, "aggregator": "judge"},
}
SPOILED: Final = {
    "id": "spoiled",
    "panel": {"proposers": ["first", "second"], "quorum": 2, "aggregator": "spoiler"},
}
LAME: Final = {"id": "lame", "panel": {"proposers": ["first", "gone"], "quorum": 2}}
BROKEN: Final = {"id": "broken", "panel": {"proposers": ["gone"], "quorum": 1}}
AGREED: Final = {
    "id": "agreed",
    "panel": {
        "proposers": ["second", "second"],
        "quorum": 2,
        "early_stop": True,
        "aggregator": "judge",
    },
}
MOVES_UP: Final = {
    "id": "moves-up",
    "panel": {"proposers": ["mute"], "quorum": 1},
    "escalate_to": "wise",
    "escalate_on": ["empty"],
}


@asynccontextmanager
async def gateway(
    *routes: Any, unpriced: str = "", **more: Any
) -> AsyncIterator[tuple[Service, dict[str, Upstream]]]:
    """A service with all the scripted models, that needs a key, and these panels."""
    async with AsyncExitStack() as stack:
        there = {
            name: await stack.enter_async_context(upstream(script))
            for name, script in SCRIPTS.items()
        }
        priced = {
            name: {"input_price": PRICES[name], "output_price": PRICES[name]}
            for name in SCRIPTS
            if name in PRICES and name != unpriced
        }
        sections = {
            "providers": [provider(name, up.url) for name, up in there.items()],
            "models": [model(name, name, **priced.get(name, {})) for name in there],
            "routes": list(routes),
            "routing": {"learn": False, "default_panels": False},
            "keys": [{"id": "k", "key_env": "KEY"}],
            **more,
        }
        running = await stack.enter_async_context(service(environment={"KEY": KEY}, **sections))
        yield running, there


async def panel_eval(running: Service, folder: Path, *arguments: str) -> Ended:
    """The command against this service, with its key."""
    return await run(
        *("panel", "eval", "--target", running.grpc_address, "--yes", *arguments),
        folder=folder,
        environment={"TRUNKLINE_API_KEY": KEY, "PATH": os.environ["PATH"]},
    )


def tables(out: str) -> str:
    """Both tables as they are printed, but for times of less than ten seconds, which nobody can foretell."""
    results, events = out.split("\n\n")[:2]
    return re.sub(r"\b\d\.\d\d\b", "N.NN", f"{results}\n\n{events}\n")


def paragraphs(out: str) -> list[str]:
    """What is said below the table, but for how many times as long it took."""
    told = out.split("\n\n")[2].splitlines()
    return [re.sub(r"takes [\d.]+ times as long", "takes N times as long", line) for line in told]


def announcement(count: int, names: str, cost: str) -> str:
    """What is said before anything is asked."""
    return (
        f"{count * (names.count(',') + 1)} requests in all, {count} to each of: {names}\n"
        f"the models alone: {cost}; a panel asks several of them for each question, and costs as much as all of them\n"
    )


def said(claim: str, shares: str, counts: tuple[int, int], p: str, cost: str) -> str:
    """What is said of a panel that 24 questions told from the first model."""
    better, worse = counts
    return (
        f"{claim} first/first, the best single model: {shares}, better on {better} of 24 questions, worse on {worse} "
        f"(p = {p}). {cost} times as much and takes N times as long."
    )


def left_open(
    name: str, share: str, counts: tuple[int, int], p: str, size: str, needed: int, cost: str
) -> str:
    """What is said of a panel that 4 questions could not tell from the first model."""
    better, worse = counts
    return (
        f"{name} can't be told from first/first, the best single model, by 4 questions: {share} right against 50.0%, "
        f"better on {better} of 4 questions, worse on {worse} (p = {p}). To tell a difference {size} would take about "
        f"{needed} questions. It costs {cost} times as much and takes N times as long. It is not shown to pay."
    )


async def test_a_panel_that_wins_and_one_that_loses_are_told_plainly(tmp_path):
    async with gateway(WISE, SPOILED) as (running, there):
        found = await panel_eval(
            *(running, tmp_path, "--questions", questions(tmp_path)),
            *("--models", "first,second", "third", "--plot", "plot.svg"),
        )

    listed = "first/first, second/second, third/third, wise, spoiled"
    assert (found.code, found.err) == (0, announcement(24, listed, "at most about 0.19 USD"))
    assert tables(found.out) == WON_AND_LOST
    assert paragraphs(found.out) == [
        said("wise wins against", "100.0% right against 66.7%", (8, 0), "0.008", "It costs 17.0"),
        said(
            "spoiled loses to",
            "0.0% right against 66.7%",
            (0, 16),
            "less than 0.001",
            "It costs 6.0",
        )
        + " Ask the model instead.",
    ]
    drawn = ET.parse(tmp_path / "plot.svg").getroot()
    assert len(drawn.findall(f".//{_SVG}g[@class='panel']")) == 2 * 2  # In the picture and below.
    assert len(drawn.findall(f".//{_SVG}g[@class='model']")) == 2 * 3
    # As any caller asks: nobody is told to be cold, or to keep an answer.
    single = [e.json for e in there["first"].exchanges if not reads_drafts(e)]
    assert {"temperature", "seed"}.isdisjoint(single[0])
    assert {sent["max_completion_tokens"] for sent in single} == {MAX_OUTPUT_TOKENS}
    assert len(single) == 3 * QUESTIONS


async def test_what_panels_do_about_troubles_is_counted(tmp_path):
    async with gateway(LAME, BROKEN, AGREED, MOVES_UP, WISE) as (running, _):
        found = await panel_eval(
            *(running, tmp_path, "--questions", questions(tmp_path), "--limit", "4"),
            *("--models", "first", "gone", "mute", "--panels", "lame,broken,agreed,moves-up"),
        )

    assert found.code == 0
    assert tables(found.out) == IN_TROUBLE
    assert paragraphs(found.out) == [
        left_open("moves-up", "100.0%", (2, 0), "0.500", "of this size", 14, "18.0"),
        left_open("agreed", "75.0%", (2, 1), "1.000", "of this size", 92, "4.0"),
        left_open("lame", "50.0%", (0, 0), "1.000", "of 5 points", 160, "1.0"),
        "broken can't be judged: it answered nothing.",
    ]
    listed = "first/first, gone/gone, mute/mute, lame, broken, agreed, moves-up"
    cost = "at most about 0.01 USD, not counting 1 without a known price"
    assert found.err.startswith(announcement(4, listed, cost))
    assert [line.rpartition("; ")[0] for line in found.err.splitlines()[2:]] == [
        "trunkline: broken: 4 failed",
        "trunkline: gone/gone: 4 failed",
    ]


async def test_programs_read_lines_of_json_and_what_is_not_known_is_null(tmp_path):
    async with gateway(WISE, BROKEN, unpriced="third") as (running, _):
        found = await panel_eval(
            *(running, tmp_path, "--questions", questions(tmp_path, 12), "--json"),
            *("--models", "third", "first", "--repeat", "2"),
        )

    rows = {row["name"]: row for row in map(json.loads, found.out.splitlines())}
    for told in rows.values():
        for key in ("mean_s", "p95_s", "first_token_s"):
            seconds = told.pop(key)
            assert seconds is None if told["name"] == "broken" else seconds > 0
    assert found.code == 0
    assert list(rows) == ["wise", "first/first", "third/third", "broken"]
    single = {
        "kind": "model", "asked": 24, "unasked": 0, "right": 16, "accuracy": 0.6667, "low": 0.3906,
        "high": 0.8619, "answers_without_cost": 0, "estimated": False, "input_tokens": 9.0,
        "output_tokens": 4.0, "errors": 0, "silent": 0,
    }  # fmt: skip
    assert rows["first/first"] == {"name": "first/first", "cost_usd": "0.0000130", **single}
    assert rows["third/third"] == {
        "name": "third/third",
        "cost_usd": None,
        **single,
        "answers_without_cost": 24,
    }
    verdict = rows["wise"].pop("verdict")
    assert verdict.pop("time_ratio") > 0
    assert verdict == {
        "verdict": "open", "best_model": "first/first", "questions": 12, "better": 4, "worse": 0,
        "difference": 0.3333, "p": 0.125, "questions_needed": 22, "cost_ratio": None,
    }  # fmt: skip
    assert rows["wise"] == {
        "name": "wise", "kind": "panel", "asked": 24, "unasked": 0, "right": 24, "accuracy": 1.0,
        "low": 0.7575, "high": 1.0, "cost_usd": None, "answers_without_cost": 24,
        "estimated": False, "input_tokens": 36.0, "output_tokens": 16.0, "errors": 0, "silent": 0,
        "degraded": 0, "stopped_early": 0, "escalated": 0,
    }  # fmt: skip
    broken = rows["broken"]
    assert GIVE_UP <= broken["errors"] <= GIVE_UP + 1  # Two are asked at once.
    assert broken["asked"] + broken["unasked"] == 24
    assert broken["verdict"] is None
    left = f"{broken['errors']} failed, {broken['unasked']} were not asked any more"
    assert found.err.splitlines()[2].startswith(f"trunkline: broken: {left}; the last one: ")


async def test_all_panels_and_the_best_few_models_are_asked_where_none_is_named(tmp_path):
    scores = {name: {"accuracy": place / 10} for place, name in enumerate("abcdefgh")}
    async with upstream(knows()) as there:
        sections: dict[str, Any] = {
            "providers": [provider("p", there.url)],
            "models": [model(name, "p", scores=scores[name]) for name in scores],
            "routes": [
                {"id": "plain", "candidates": ["a"]},
                {"id": "of-two", "panel": {"proposers": ["a", "b"], "quorum": 2}},
            ],
        }
        async with service(**sections) as running:
            found = await run(
                *("panel", "eval", "--target", running.grpc_address, "--limit", "1"),
                *("--questions", questions(tmp_path)),
                folder=tmp_path,
            )

    left, asked_of = found.err.splitlines()[:2]
    _, _, listed = asked_of.partition(": ")
    assert found.code == 0
    assert left == "2 more models are left out: --models names others"
    assert asked_of.startswith("10 requests in all, 1 to each of: ")
    models, panels = listed.split(", ")[:6], listed.split(", ")[6:]
    assert panels == ["of-two", "waymark-fast", "waymark-moa", "waymark-max"]
    # Those on a panel and those who would be, by turns.
    assert {"p/a", "p/b", "p/h"} <= set(models)
    assert tables(found.out).count("\n") == 2 * (1 + 10) + 1


async def test_where_nobody_answers_that_is_told_and_the_exit_code_is_1(tmp_path):
    async with gateway(BROKEN) as (running, _):
        to = ("--questions", questions(tmp_path, 12), "--models", "gone")
        found = await panel_eval(running, tmp_path, *to)

    assert found.code == 1
    assert paragraphs(found.out) == [
        "broken can't be judged: it failed too often to be asked everything."
    ]


async def test_a_png_is_made_by_the_converter_of_the_machine(tmp_path):
    converter = tmp_path / "bin" / "rsvg-convert"
    converter.parent.mkdir()
    converter.write_text('#!/bin/sh\necho "made with $@"\ncat\n')
    converter.chmod(0o755)
    async with gateway(WISE) as (running, _):
        found = await run(
            *("panel", "eval", "--target", running.grpc_address, "--models", "first"),
            *("--questions", questions(tmp_path), "--limit", "1", "--plot", "plot.png"),
            folder=tmp_path,
            environment={"TRUNKLINE_API_KEY": KEY, "PATH": f"{converter.parent}:/usr/bin:/bin"},
        )

    assert found.code == 0
    head, _, drawn = (tmp_path / "plot.png").read_text().partition("\n")
    assert head == "made with --format=png --zoom=2"
    assert ET.fromstring(drawn).tag == f"{_SVG}svg"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (EvalOptions("h:1", repeat=0), "--repeat: 1 to 20"),
        (EvalOptions("h:1", concurrency=65), "--concurrency: 1 to 64"),
        (EvalOptions("h:1", max_tokens=0), "--max-tokens: 1 to 1000000"),
        (EvalOptions("h:1", temperature=2.5), "--temperature: 0 to 2"),
        (EvalOptions("h:1", questions="no.jsonl"), "no.jsonl can't be read: No such file"),
        (EvalOptions("h:1", plot="no/where.svg"), "no is no folder that can be written to"),
        (EvalOptions("h:1", plot="plot.pdf"), "--plot: plot.pdf is neither a .svg nor a .png"),
        (EvalOptions("h:1", plot="there.svg"), "--plot: there.svg is a folder"),
        (EvalOptions("h:1", plot="plot.png"), "--plot: a .png needs the program rsvg-convert"),
        (EvalOptions("far.example:1"), "the key would travel to far.example:1"),
    ],
    ids=lambda value: None,
)
def test_mistakes_are_told_before_anything_is_asked(tmp_path, monkeypatch, options, problem):
    (tmp_path / "there.svg").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigError) as caught:
        evaluate(options, "sk-key", show)

    assert str(caught.value).startswith(problem)


async def test_nothing_is_asked_where_a_name_or_the_key_is_not_known(tmp_path):
    async with gateway(WISE) as (running, there):
        no_panel, no_model, no_key = await asyncio.gather(
            panel_eval(running, tmp_path, "--panels", "wize"),
            panel_eval(running, tmp_path, "--models", "frist"),
            run(
                *("panel", "eval", "--target", running.grpc_address, "--plot", "plot.svg"),
                folder=tmp_path,
            ),
        )
        asked_in_all = sum(len(up.exchanges) for up in there.values())

    assert no_panel == Ended(
        2, "", "trunkline: --panels: no panel is called 'wize'; did you mean 'wise'?\n"
    )
    assert no_model == Ended(
        2, "", "trunkline: --models: no model is called 'frist'; did you mean 'first'?\n"
    )
    assert (no_key.code, no_key.out) == (1, "")
    assert no_key.err.startswith("trunkline: INVALID_API_KEY")
    assert asked_in_all == 0
    assert list(tmp_path.iterdir()) == []


async def test_a_gateway_without_panels_says_so(tmp_path):
    async with gateway() as (running, _):
        found = await panel_eval(running, tmp_path)

    assert found == Ended(2, "", "trunkline: the gateway has no panels\n")
