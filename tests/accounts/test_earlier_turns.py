"""What is charged for a request of several model turns whose process was killed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.accounts.test_books import NoProgress
from tests.storage.conftest import opened
from trunkline.v1.ledger_pb2 import LedgerKind
from trunkline_server.accounts import ledger
from trunkline_server.accounts.audit import AuditRecord
from trunkline_server.accounts.books import ABANDONED, Books
from trunkline_server.accounts.ledger import Adjustment, Hold, Payer, State
from trunkline_server.core.progress import Progressed
from trunkline_server.core.transactions import Statement, Transaction

NOW_US = 1_000_000_000
GRANTED = 10**9
# 1 and 2 dollars for a million tokens; its prompt is of 7 tokens, as far as the hold knows.
HOLD = Hold(
    "cmpl_1",
    "req_1",
    Payer("acme", "", "k1"),
    "dead",
    500_000,
    NOW_US,
    is_prepaid=True,
    prompt_tokens=7,
    input_price=10**9,
    output_price=2 * 10**9,
    provider="first",
    model="m",
)
ALONE = Progressed("b", "n", input_price=10**9, output_price=2 * 10**9, output_chars=42)
LATER = replace(ALONE, earlier_input_tokens=30, earlier_output_tokens=20, earlier_nanos=99_000)
ROW = (
    "SELECT state, reason, provider, model, input_tokens, output_tokens, is_estimated, cost, charged"
    " FROM requests"
)


def _select(sql: str) -> Transaction[Sequence[Any]]:
    return (yield Statement(sql))


@pytest.mark.parametrize(
    ("progressed", "row"),
    [
        pytest.param(
            LATER,
            ("b", "n", 37, 31, 1, 99_000 + 29_000, 99_000 + 29_000),
            id="earlier turns, and this one by its text",
        ),
        pytest.param(
            replace(LATER, input_tokens=50),
            ("b", "n", 80, 31, 1, 99_000 + 72_000, 99_000 + 72_000),
            id="earlier turns, and what this one read",
        ),
        pytest.param(
            replace(LATER, input_tokens=50, output_tokens=5, output_chars=0),
            ("b", "n", 80, 25, 1, 99_000 + 60_000, 99_000 + 60_000),
            id="earlier turns, and this one as its upstream told",
        ),
        pytest.param(
            ALONE,
            ("b", "n", 7, 11, 1, 29_000, 29_000),
            id="one turn alone",
        ),
        pytest.param(
            replace(LATER, earlier_nanos=None),
            ("b", "n", 37, 31, 1, None, 0),
            id="earlier turns of unknown price",
        ),
        pytest.param(
            replace(LATER, input_price=None, output_price=None),
            ("b", "n", 37, 31, 1, None, 0),
            id="this turn of unknown price",
        ),
        pytest.param(
            replace(LATER, earlier_nanos=2 * GRANTED),
            ("b", "n", 37, 31, 1, 2 * GRANTED + 29_000, GRANTED),
            id="more than there is",
        ),
        pytest.param(Progressed(), ("", "", 0, 0, 1, 0, 0), id="nobody had begun"),
    ],
)
async def test_what_earlier_turns_used_is_charged_with_the_last_one(url, progressed, row):
    async with opened(url) as storage:
        grant = LedgerKind.LEDGER_KIND_GRANT
        record = AuditRecord(NOW_US, "test.granted", "key", "acme", "account", "acme")
        change = Adjustment("acme", grant, GRANTED, "", "once", NOW_US)
        await storage.write(lambda: ledger.adjust(change, record))
        await storage.write(lambda: ledger.reserve(HOLD))
        books = Books(
            storage,
            owner="this",
            progress=NoProgress(),
            left_behind={"dead": {"cmpl_1": progressed}},
            is_alone=True,
            now_us=lambda: NOW_US,
        )

        await books.start()

        await books.close()
        (found,) = await storage.read(lambda: _select(ROW))
        balance = await storage.read(lambda: ledger.balance("acme"))
        problems = await storage.read(lambda: ledger.problems(is_deep=True))
    assert tuple(found) == (State.SETTLED, ABANDONED, *row)
    assert (balance.available, balance.held) == (GRANTED - row[-1], 0)
    assert problems == []
