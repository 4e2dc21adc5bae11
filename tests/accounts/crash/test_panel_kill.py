"""A service is killed while a panel's answer comes: what its proposers had used is charged with it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from tests.accounts.crash.check import ABANDONED, reading
from tests.accounts.crash.lives import configure, spawner
from tests.accounts.crash.load import HELD, Ask, calling
from tests.accounts.crash.meter import TOKEN, Meter
from tests.faults.waiting import until
from tests.support.service import model, provider
from tests.support.upstream import (
    Exchange,
    Hang,
    Step,
    answer,
    delta,
    event,
    head,
    upstream,
)
from trunkline_server.accounts import ledger
from trunkline_server.accounts.ledger import State
from trunkline_server.core.transactions import Statement, Transaction
from trunkline_server.storage.upgrade import upgrade

GRANT: Final = 10**12
TOKENS: Final = 7  # That the caller has seen.
PROPOSED: Final = (9, 4)  # Tokens in and out, as the proposers' upstreams report.
# Nanos of a token, in and out.
PRICES: Final = {"a": (1_000, 2_000), "b": (10_000, 20_000), "c": (3_000, 5_000)}
ROWS: Final = (
    "SELECT state, reason, provider, model, input_tokens, output_tokens, is_estimated, cost, charged"
    " FROM requests"
)


def script(exchange: Exchange) -> Sequence[Step]:
    """Two propose; who makes the answer of theirs falls silent in the middle of it."""
    if exchange.json["model"] != "c":
        return answer(f"Draft of {exchange.json['model']}")
    return [head(), *(event(delta(TOKEN)) for _ in range(TOKENS)), Hang()]


def configured(folder: Path, upstream_url: str) -> Path:
    """The panel is called `m`, as callers ask for."""
    config = configure(
        folder,
        Meter(0.0),
        providers=[provider("a", upstream_url)],
        models=[
            model(name, "a", input_price=nanos[0] / 1_000, output_price=nanos[1] / 1_000)
            for name, nanos in PRICES.items()
        ],
    )
    panel = '[[routes]]\nid = "m"\npanel = { proposers = ["a", "b"], aggregator = "c" }\n'
    config.write_text(config.read_text() + panel)
    return config


def _select(sql: str) -> Transaction[Sequence[Any]]:
    return (yield Statement(sql))


@pytest.mark.once
async def test_a_kill_in_the_middle_of_a_panels_answer_charges_its_proposals(
    tmp_path: Path,
) -> None:
    url = f"sqlite:{tmp_path / 'trunkline.db'}"
    upgrade(url)
    async with upstream(script) as scripted, spawner(tmp_path, url) as spawning:
        config = configured(tmp_path, scripted.url)
        life = await spawning.start(config)
        assert await life.listens(), life.said
        async with calling(life) as callers:
            await callers.grant(GRANT)
            asking = asyncio.create_task(callers.ask(Ask("panel", HELD, TOKENS)))
            await until(
                lambda: bool(callers.seen) and callers.seen[0].tokens == TOKENS, "the answer"
            )

            await spawning.kill(life)

            seen = await asking
        life = await spawning.start(config)
        assert await life.listens(), life.said
        async with reading(url) as storage:
            rows = await storage.read(lambda: _select(ROWS))
            balance = await storage.read(lambda: ledger.balance("acme"))
            problems = await storage.read(lambda: ledger.problems(is_deep=True))
        await spawning.kill(life)
    (asked,) = (each for each in scripted.exchanges if each.json["model"] == "c")
    # By its characters, with the drafts that were in it.
    read = -(-sum(len(message["content"]) for message in asked.json["messages"]) // 4)
    used = {"a": PROPOSED, "b": PROPOSED, "c": (read, TOKENS)}
    cost = sum(
        tokens * nanos
        for name, counts in used.items()
        for tokens, nanos in zip(counts, PRICES[name], strict=True)
    )
    tokens_in, tokens_out = (sum(counts) for counts in zip(*used.values(), strict=True))
    assert seen.code is grpc.StatusCode.UNAVAILABLE
    assert [tuple(row) for row in rows] == [
        (State.SETTLED, ABANDONED, "a", "c", tokens_in, tokens_out, 1, cost, cost)
    ]
    assert (balance.available, balance.held) == (GRANT - cost, 0)
    assert problems == []
