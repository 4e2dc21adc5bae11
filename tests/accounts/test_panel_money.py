"""What a panel uses, tells and costs is one and the same, whatever its members and its callers do.

Panels, what their upstreams do, and callers are drawn by lot. After each run three parties are heard: the caller (what
it was told), the ledger (what it charged) and the upstreams (what they told and did).
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from tests.accounts.crash.check import reading
from tests.accounts.panels.actors import Stage
from tests.accounts.panels.asks import Callers, Seen, drawn
from tests.accounts.panels.judged import (
    CUT_SHORT,
    LONG_OVERRUNS,
    OVERRUNS,
    RESTARTED_OVERRUNS,
    ROWS,
    Row,
    Run,
    judge,
)
from tests.accounts.panels.world import world
from tests.accounts.test_charges import settled
from tests.edges.observed import spec
from tests.faults.tables import Tables
from tests.faults.waiting import until
from tests.support.accounts import PRICES, desk, new_sqlite
from tests.support.service import model
from tests.support.upstream import Exchange, Hang, Step, answer, delta, event, head, upstream
from trunkline.v1.account_service_pb2 import QueryUsageRequest
from trunkline.v1.completion_service_pb2 import CompleteRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline_server.accounts import ledger
from trunkline_server.core.transactions import Statement, Transaction

AT_ONCE: Final = 48
OF_A_WORLD: Final = 500  # Runs over the same panels.
SHORT: Final = 240
LONG: Final = 10_000
TITLE: Final = "Panels drawn by lot: runs, and what came of them"
PARTS_TITLE: Final = "Panels drawn by lot: what upstreams did"
ALWAYS: Final = (OVERRUNS, RESTARTED_OVERRUNS, LONG_OVERRUNS)  # Shown where there were none, too.
# Without these a run would have shown nothing.
KINDS: Final = (
    "whole",
    "escalated",
    "degraded",
    "drafts that were read",
    "rows equal to what was reported",
    "rows that are estimated",
    CUT_SHORT,
    "left or failed, and charged for what had begun",
    "replayed under its key",
)
# Of these there are few.
RARE: Final = (
    "stopped early",
    "escalated more than once",
    "critic, used",
    "long, so that more was held",
    "unfinished, after drafts were read",
)


PANEL: Final = {
    "proposers": ["a", "b"],
    "aggregator": "c",
    "critique": True,
}


def _select(sql: str) -> Transaction[Sequence[Any]]:
    return (yield Statement(sql))


async def played(folder: Path, seed: int, runs: int) -> tuple[Counter[str], Counter[str]]:
    """So many runs over panels of one lot. Returns what there was of each kind, and what the upstreams did."""
    random = Random(seed)
    stage = Stage(random)
    url = new_sqlite(folder)
    async with upstream(stage.script) as scripted:
        found = world(random, runs, scripted.url)
        asks = [drawn(random, found, number) for number in range(runs)]
        async with desk(url, "", environment=found.environment, **found.sections) as running:
            callers = Callers(running.channel, running.service.http_address)
            places = asyncio.Semaphore(AT_ONCE)

            async def one(number: int) -> Seen:
                async with places:
                    await running.grant(asks[number].granted, f"org{number}")
                    return await callers.ask(asks[number])

            everyone = await asyncio.gather(*(one(number) for number in range(runs)))
        # The service has ended: whatever was still under way has been settled.
        async with reading(url) as storage:
            problems = await storage.read(lambda: ledger.problems(is_deep=True))
            rows = [Row(*row) for row in await storage.read(lambda: _select(ROWS))]
            balances = {
                row[0]: (row[1], row[2])
                for row in await storage.read(
                    lambda: _select("SELECT organization, available, held FROM accounts")
                )
            }
    assert problems == []
    of: dict[str, list[Row]] = {}
    for row in rows:
        of.setdefault(row.organization, []).append(row)
    sums = Counter[str]()
    for seen in everyone:
        number = seen.ask.number
        name = f"org{number}"
        account = balances[name]
        run = Run(seen, of.get(name, []), stage.acts[number], account, found.rates)
        judge(run, sums)
    return sums, stage.parts


def report(tables: Tables, name: str, sums: Counter[str], parts: Counter[str]) -> None:
    table = tables.table(f"{TITLE} ({name})", ("", "times"))
    kinds = sorted({*ALWAYS, *(kind for kind, times in sums.items() if times)})
    for kind in dict.fromkeys(("runs", *kinds)):
        table.add(kind, f"{sums[kind]:,}")
    played_parts = tables.table(f"{PARTS_TITLE} ({name})", ("", "times"))
    for part, times in parts.most_common():
        played_parts.add(part, f"{times:,}")


async def test_what_is_told_is_what_is_charged_is_what_upstreams_did(tmp_path, tables):
    sums, parts = await played(tmp_path, 0, SHORT)

    report(tables, "short", sums, parts)
    assert sums["runs"] == SHORT
    assert not [kind for kind in KINDS if not sums[kind]]


@pytest.mark.slow
async def test_what_is_told_is_what_is_charged_is_what_upstreams_did_in_10_000_runs(
    tmp_path_factory, tables
):
    folders = tmp_path_factory.mktemp
    sums, parts = Counter[str](), Counter[str]()

    for seed in range(1, LONG // OF_A_WORLD + 1):
        found = await played(folders(f"world-{seed}"), seed, OF_A_WORLD)
        sums += found[0]
        parts += found[1]

    report(tables, "long", sums, parts)
    assert sums["runs"] == LONG
    assert not [kind for kind in (*KINDS, *RARE) if not sums[kind]]


# One of each kind, to the token. Two propose, `c` criticises and makes the answer.

TEXT: Final = "word " * 8  # 10 tokens, by its characters.
WHOLE: Final = answer(TEXT)  # 9 tokens in and 4 out, as it reports.
BEGUN: Final = (head(), event(delta(TEXT)), Hang())
ACCEPTED: Final = (head(), Hang())
SILENT: Final = (Hang(),)
CRITIQUE: Final = answer('{"consensus": ["all"]}')
PLENTY: Final = 10**12
READ_S: Final = 0.2  # In which the service reads what was sent to it.


@dataclass(frozen=True)
class Case:
    """What the four upstreams do, and what each of them costs: reported, estimated, its prompt alone, or nothing."""

    a: Sequence[Step]
    b: Sequence[Step]
    critic: Sequence[Step]
    maker: Sequence[Step]
    costs: str
    calls: int


def is_critics(exchange: Exchange) -> bool:
    return "Now compare the drafts." in exchange.json["messages"][-1]["content"]


def prompt_tokens_of(exchange: Exchange) -> int:
    """By its characters."""
    chars = sum(len(message["content"]) for message in exchange.json["messages"])
    return -(-chars // 4)


def tokens_of(exchange: Exchange, kind: str) -> tuple[int, int]:
    if kind == "reported":
        return 9, 4
    if kind == "estimated":
        return prompt_tokens_of(exchange), len(TEXT) // 4
    return (prompt_tokens_of(exchange), 0) if kind == "prompt" else (0, 0)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case(BEGUN, ACCEPTED, (), (), "estimated prompt", 2), id="while all propose"),
        pytest.param(Case(SILENT, SILENT, (), (), "nothing nothing", 2), id="before any head"),
        pytest.param(Case(WHOLE, BEGUN, (), (), "reported estimated", 2), id="after one proposal"),
        pytest.param(
            Case(WHOLE, WHOLE, BEGUN, (), "reported reported estimated", 3),
            id="during the critique",
        ),
        pytest.param(
            Case(WHOLE, WHOLE, ACCEPTED, (), "reported reported prompt", 3),
            id="before the critique",
        ),
        pytest.param(
            Case(WHOLE, WHOLE, CRITIQUE, BEGUN, "reported reported reported estimated", 4),
            id="during the answer",
        ),
        pytest.param(
            Case(WHOLE, WHOLE, CRITIQUE, ACCEPTED, "reported reported reported nothing", 4),
            id="before the answer",
        ),
    ],
)
async def test_a_caller_who_leaves_pays_for_what_had_begun_and_nothing_else(
    tmp_path: Path, case: Case
) -> None:
    def script(exchange: Exchange) -> Sequence[Step]:
        if exchange.json["model"] == "a":
            return case.a
        if exchange.json["model"] == "b":
            return case.b
        return case.critic if is_critics(exchange) else case.maker

    url = new_sqlite(tmp_path)
    async with (
        upstream(script) as provider,
        desk(
            url,
            provider.url,
            models=[model(name, "a", **PRICES) for name in "abc"],
            routes=[{"id": "three", "panel": PANEL}],
        ) as found,
    ):
        key = await found.new_key(plan="prepaid")
        await found.grant(PLENTY)
        call = CompletionServiceStub(found.channel).Complete(
            CompleteRequest(spec=spec("three")), metadata=key
        )
        leaving = asyncio.ensure_future(anext(aiter(call), None))
        await until(lambda: len(provider.exchanges) == case.calls, "all calls")
        await asyncio.sleep(READ_S)

        call.cancel()

        left = await settled(found)
        leaving.cancel()
        usage = await found.account.QueryUsage(QueryUsageRequest(), metadata=key)
    by_order = sorted(provider.exchanges, key=lambda e: "abc".index(e.json["model"]))
    used = [tokens_of(*pair) for pair in zip(by_order, case.costs.split(), strict=True)]
    tokens_in, tokens_out = (sum(counts) for counts in zip(*used, strict=True))
    (row,) = usage.rows
    assert (row.input_tokens, row.output_tokens) == (tokens_in, tokens_out)
    assert PLENTY - left == tokens_in * 1_000 + tokens_out * 2_000


async def test_a_critique_that_takes_too_long_is_paid_for_as_far_as_it_came(tmp_path):
    def script(exchange: Exchange) -> Sequence[Step]:
        return BEGUN if is_critics(exchange) else WHOLE

    url = new_sqlite(tmp_path)
    async with (
        upstream(script) as provider,
        desk(
            url,
            provider.url,
            models=[model(name, "a", **PRICES) for name in "abc"],
            routes=[{"id": "three", "panel": PANEL}],
        ) as found,
    ):
        key = await found.new_key(plan="prepaid")
        await found.grant(PLENTY)
        call = CompletionServiceStub(found.channel).Complete(
            CompleteRequest(spec=spec("three")), metadata=key, timeout=2.0
        )

        events = [event async for event in call]

        left = await settled(found)
    completion = events[-1].completed.completion
    critic = next(member for member in completion.panel.members if member.role == "critic")
    asked = next(exchange for exchange in provider.exchanges if is_critics(exchange))
    assert critic.status == "cancelled"
    assert (critic.usage.input_tokens, critic.usage.output_tokens) == tokens_of(asked, "estimated")
    assert [(m.role, m.status) for m in completion.panel.members] == [
        ("proposer", "used"),
        ("proposer", "used"),
        ("critic", "cancelled"),
        ("aggregator", "used"),
    ]
    assert completion.usage.output_tokens == 4 + 4 + len(TEXT) // 4 + 4
    assert PLENTY - left == completion.usage.cost.amount_nanos
