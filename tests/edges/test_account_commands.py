"""`trunkline keys`, `credits`, `usage` and `audit` as people and scripts run them, against a scripted service."""

import asyncio
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.python_client.scripted import Failure, Hold, error_info
from tests.python_client.scripted_accounts import AccountGateway
from tests.support.accounts import ROOT_KEY, desk, new_sqlite
from tests.support.upstream import hello, upstream
from trunkline.v1.account_service_pb2 import (
    GetBalanceRequest,
    GetBalanceResponse,
    ListLedgerEntriesRequest,
    ListLedgerEntriesResponse,
    QueryUsageRequest,
    QueryUsageResponse,
    UsageRow,
)
from trunkline.v1.admin_service_pb2 import (
    AdjustCreditsRequest,
    AdjustCreditsResponse,
    AuditEvent,
    CreateKeyRequest,
    CreateKeyResponse,
    Key,
    ListAuditEventsResponse,
    ListKeysResponse,
    RevokeKeyRequest,
    RevokeKeyResponse,
    RotateKeyResponse,
)
from trunkline.v1.completion_pb2 import Cost
from trunkline.v1.ledger_pb2 import LedgerEntry, LedgerKind
from trunkline_server.cli import main

LIMIT_S: Final = 30.0
SECRET: Final = f"gw_live_{'k' * 12}_{'S' * 43}_{'c' * 6}"
ESCAPE: Final = "\x1b[2J"


def at(text: str) -> Timestamp:
    """An instant."""
    timestamp = Timestamp()
    timestamp.FromJsonString(text)
    return timestamp


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[AccountGateway]:
    """Not at the usual address."""
    monkeypatch.delenv("TRUNKLINE_API_KEY", raising=False)
    with AccountGateway() as running:
        yield running


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(gateway: AccountGateway, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process, as its entry point calls it. Standard output is no terminal."""

    def command(*arguments: str) -> Ended:
        words = arguments[0].split()
        try:
            code = main([*words, "--target", gateway.target, *arguments[1:]])
        except SystemExit as exit:  # argparse's own.
            code = int(exit.code or 0)
        found = capsys.readouterr()
        return Ended(code, found.out, found.err)

    return command


# Keys

KEY: Final = Key(
    id="k" * 12,
    organization="acme",
    name="shop",
    plan="pro",
    scopes=["complete", "read"],
    create_time=at("2026-11-22T12:00:00Z"),
)


def test_a_new_secret_is_all_of_standard_output(gateway, run):
    gateway.plays([CreateKeyResponse(key=KEY, secret=SECRET)])

    found = run(
        "keys create",
        *("--organization", "acme", "--name", "shop", "--plan", "pro", "--project", "p"),
        *("--scope", "read", "--scope", "admin", "--expires", "2999-12-31"),
    )

    assert (found.code, found.out) == (0, f"{SECRET}\n")
    assert found.err == (
        "key kkkkkkkkkkkk (shop) of acme is made: plan pro, scopes complete, read, expires never\n"
        "its secret is shown this once and never again: keep it now\n"
    )
    assert gateway.requests == [
        CreateKeyRequest(
            organization="acme",
            name="shop",
            plan="pro",
            scopes=["read", "admin"],
            project="p",
            expire_time=at("3000-01-01T00:00:00Z"),
        )
    ]


def test_a_quiet_key_says_nothing_but_its_secret(gateway, run):
    gateway.plays([CreateKeyResponse(key=KEY, secret=SECRET)])

    found = run("keys create", "--organization", "acme", "--quiet")

    assert found == Ended(0, f"{SECRET}\n", "")
    assert gateway.requests == [CreateKeyRequest(organization="acme", scopes=["complete", "read"])]


def test_a_key_expires_after_a_time_from_now(gateway, run):
    gateway.plays([CreateKeyResponse(key=KEY, secret=SECRET)])

    before = datetime.now(UTC)
    run("keys create", "--organization", "acme", "--expires", "90d")
    after = datetime.now(UTC)

    (asked,) = gateway.requests
    assert before <= asked.expire_time.ToDatetime(UTC) - timedelta(days=90) <= after


def test_a_key_that_has_expired_already_is_not_made(gateway, run):
    found = run("keys create", "--organization", "acme", "--expires", "2026-01-01T00:00Z")

    assert found == Ended(2, "", "trunkline: --expires: this is over already\n")
    assert not gateway.calls


async def test_a_shell_can_take_the_secret(gateway, tmp_path):
    gateway.plays([CreateKeyResponse(key=KEY, secret=SECRET)])
    options = f"--organization acme --quiet --target {gateway.target}"
    command = f"{sys.executable} -m trunkline_server keys create {options}"

    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'KEY="$({command})" && printf "<%s>" "$KEY"'),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate()

    assert (process.returncode, out.decode(), err.decode()) == (0, f"<{SECRET}>", "")


class Full(io.StringIO):
    """A standard output that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_secret_that_can_not_be_written_is_told_to_be_lost(gateway, run, monkeypatch):
    gateway.plays([CreateKeyResponse(key=KEY, secret=SECRET)])

    with monkeypatch.context() as context:
        context.setattr(sys, "stdout", Full())
        found = run("keys create", "--organization", "acme", "--quiet")

    assert found == Ended(
        1,
        "",
        "trunkline: the secret could not be written (No space left on device) and is lost: "
        "rotate or revoke kkkkkkkkkkkk\n",
    )


@pytest.mark.parametrize("command", ["keys create --organization acme", "keys rotate k"])
def test_a_secret_that_nobody_could_read_is_not_made(gateway, run, monkeypatch, command):
    with monkeypatch.context() as context:
        context.setattr(sys, "stdout", None)
        found = run(command)

    closed = "trunkline: standard output is closed, and the secret would be lost\n"
    assert found == Ended(2, "", closed)
    assert not gateway.calls


@pytest.mark.parametrize(
    ("given", "overlap_s", "told"),
    [
        ([], 3600, "works for another 1h"),
        (["--overlap", "90m"], 5400, "works for another 90m"),
        (["--overlap", "24h"], 86_400, "works for another 1d"),
        (["--overlap", "0"], 0, "is refused within a second"),
    ],
)
def test_a_rotation_says_what_becomes_of_the_former_secret(gateway, run, given, overlap_s, told):
    gateway.plays([RotateKeyResponse(key=KEY, secret=SECRET)])

    found = run("keys rotate", KEY.id, *given)

    assert (found.code, found.out) == (0, f"{SECRET}\n")
    assert f"of acme has a new secret; the former one {told}\n" in found.err
    (asked,) = gateway.requests
    assert (asked.key_id, asked.HasField("overlap")) == (KEY.id, True)
    assert asked.overlap.ToTimedelta() == timedelta(seconds=overlap_s)


def test_a_revocation_names_what_it_revoked(gateway, run):
    gateway.plays([RevokeKeyResponse(key=KEY)])

    found = run("keys revoke", KEY.id)

    told = "key kkkkkkkkkkkk (shop) of acme is revoked: it is refused everywhere within a second\n"
    assert found == Ended(0, told, "")


@pytest.mark.parametrize("action", ["revoke", "rotate"])
def test_of_a_whole_key_the_secret_goes_nowhere(gateway, run, action):
    gateway.plays([Failure(grpc.StatusCode.NOT_FOUND, "no such key", [error_info("NOT_FOUND")])])

    found = run(f"keys {action}", SECRET)

    assert found == Ended(1, "", "trunkline: NOT_FOUND: no such key\n")
    assert gateway.requests[0].key_id == "k" * 12
    assert isinstance(gateway.requests[0], RevokeKeyRequest) == (action == "revoke")


def test_keys_are_listed_in_columns(gateway, run):
    used = at("2026-11-22T13:00:00Z")
    expired = Key(id="b", organization="acme", expire_time=at("2026-01-01T00:00:00Z"))
    gateway.plays(
        [ListKeysResponse(keys=[KEY], next_page_token="more")],
        [
            ListKeysResponse(
                keys=[
                    expired,
                    Key(id="c", organization="acme", revoke_time=used, last_use_time=used),
                ]
            )
        ],
    )

    found = run("keys list", "--organization", "acme")

    assert (found.code, found.err) == (0, "")
    rows = [re.split(r" {2,}", line) for line in found.out.splitlines()]
    assert rows == [
        ["id", "organization", "project", "name", "plan", "scopes", "created", "expires", "last used", "state"],
        ["k" * 12, "acme", "-", "shop", "pro", "complete, read", "2026-11-22 12:00:00Z", "never", "never", "active"],
        ["b", "acme", "-", "-", "-", "-", "-", "2026-01-01 00:00:00Z", "never", "expired"],
        ["c", "acme", "-", "-", "-", "-", "-", "never", "2026-11-22 13:00:00Z", "revoked"],
    ]  # fmt: skip
    assert [request.organization for request in gateway.requests] == ["acme", "acme"]


def test_more_keys_than_a_table_takes_are_not_hidden(gateway, run):
    gateway.plays([ListKeysResponse(keys=[KEY] * 1000, next_page_token="more")])

    found = run("keys list")

    assert found.out.count("\n") == 1 + 10_000
    assert found.err == "and more than these 10000: see --organization, or --json\n"


# Credits


def test_a_balance_is_shown_to_the_last_digit(gateway, run):
    balance = GetBalanceResponse(
        organization="acme",
        available_nanos=9_007_199_254_740_993_001,
        held_nanos=20_000_000,
        update_time=at("2026-11-22T12:00:00.5Z"),
    )
    gateway.plays([balance])

    found = run("credits show", "--organization", "acme")

    assert found.out == (
        "organization  acme\n"
        "available     9007199254.740993001 USD\n"
        "held                   0.020000000 USD, by requests that run\n"
        "updated       2026-11-22 12:00:00Z\n"
    )
    assert gateway.requests == [GetBalanceRequest(organization="acme")]


def entry(number: int, kind: LedgerKind.ValueType, nanos: int, after: int) -> LedgerEntry:
    """An entry."""
    return LedgerEntry(
        id=f"e{number}",
        kind=kind,
        amount_nanos=nanos,
        balance_after_nanos=after,
        request_id=f"req_{number}",
        description="why not",
        create_time=at("2026-11-22T12:00:00Z"),
    )


ENTRIES: Final = [
    entry(2, LedgerKind.LEDGER_KIND_DEBIT, -42_750, 9_999_957_250),
    entry(1, LedgerKind.LEDGER_KIND_TOPUP, 10_000_000_000, 10_000_000_000),
]


def test_a_ledger_is_listed_newest_first_and_no_further_than_asked(gateway, run):
    gateway.plays([ListLedgerEntriesResponse(entries=ENTRIES, next_page_token="more")])

    found = run("credits ledger", "--limit", "2")

    assert found.out.splitlines() == [
        "time                  kind           USD      balance  request  description",
        "2026-11-22 12:00:00Z  debit  -0.00004275   9.99995725  req_2    why not",
        "2026-11-22 12:00:00Z  topup  10.00000000  10.00000000  req_1    why not",
    ]
    assert gateway.requests == [ListLedgerEntriesRequest(page_size=2)]


@pytest.mark.parametrize("limit", ["0", "-1", "10001", "x", "1e3", "٣", "9" * 5000])
def test_a_limit_is_a_number(gateway, run, limit):
    found = run("credits ledger", f"--limit={limit}")

    assert found.code == 2
    assert found.err.endswith("error: argument --limit: a limit is 1 to 10000\n")
    assert not gateway.calls


@pytest.mark.parametrize(
    ("action", "kind", "word"),
    [
        ("grant", LedgerKind.LEDGER_KIND_GRANT, "grant"),
        ("topup", LedgerKind.LEDGER_KIND_TOPUP, "topup"),
        ("refund", LedgerKind.LEDGER_KIND_REFUND, "refund"),
        ("adjust", LedgerKind.LEDGER_KIND_ADJUSTMENT, "adjustment"),
    ],
)
def test_a_change_is_exact_to_a_nano_and_says_what_it_did(gateway, run, action, kind, word):
    gateway.plays([AdjustCreditsResponse(entry=entry(1, kind, 100_000_000_1, 7_000_000_000))])

    found = run(
        f"credits {action}",
        *("1.000000001", "--organization", "acme"),
        *("--description", "thanks", "--idempotency-key", "once"),
    )

    told = f"{word} of 1.000000001 USD to acme: the balance is 7.00 USD (entry e1)\n"
    assert found == Ended(0, told, "")
    assert gateway.requests == [
        AdjustCreditsRequest(
            organization="acme",
            kind=kind,
            amount_nanos=1_000_000_001,
            description="thanks",
            idempotency_key="once",
        )
    ]


@pytest.mark.parametrize("amount", ["-5", "-0.25", "+5"])
def test_an_adjustment_may_take_off(gateway, run, amount):
    gateway.plays([AdjustCreditsResponse(entry=ENTRIES[0])])

    assert run("credits adjust", amount, "--organization", "acme").code == 0
    assert gateway.requests[0].amount_nanos == float(amount) * 1e9


@pytest.mark.parametrize("action", ["grant", "topup", "refund", "adjust"])
@pytest.mark.parametrize(
    "amount", ["0", "0.0000000001", "1e3", "1,50", "nan", "inf", "$5", "9223372036.854775808", ""]
)
def test_what_is_no_amount_is_refused(gateway, run, action, amount):
    found = run(f"credits {action}", amount)

    assert found.code == 2
    assert "error: argument USD: an amount " in found.err
    assert not gateway.calls


@pytest.mark.parametrize("action", ["grant", "topup", "refund"])
def test_credits_are_not_given_by_taking_them(gateway, run, action):
    found = run(f"credits {action}", "-5")

    assert found.code == 2
    assert found.err.endswith("an amount is more than zero; see `credits adjust`\n")


def test_a_change_of_which_nobody_knows_can_be_given_again(gateway, run):
    gateway.plays([Failure(grpc.StatusCode.UNAVAILABLE, "gone")])

    lost = run("credits grant", "5", "--organization", "acme")
    (key,) = re.findall(r"--idempotency-key (\S+)", lost.err)
    again = run("credits grant", "5", "--organization", "acme", "--idempotency-key", key)

    assert lost.code == again.code == 1
    assert lost.err == (
        "trunkline: this may have been done all the same: to be sure, give the same command again "
        f"with --idempotency-key {key}\ntrunkline: UNAVAILABLE: gone\n"
    )
    first, second = gateway.requests
    assert first == second
    assert first.idempotency_key == key


async def test_a_change_that_is_interrupted_can_be_given_again(gateway, tmp_path):
    gateway.plays([Hold()])
    arguments = ("credits", "grant", "5", "--organization", "acme", "--target", gateway.target)

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline_server", *arguments, "--idempotency-key", "once"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await asyncio.to_thread(gateway.is_called.wait, LIMIT_S)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate()

    assert (process.returncode, out) == (130, b"")
    assert err.decode().endswith("give the same command again with --idempotency-key once\n")


def test_a_change_that_was_refused_was_not_made(gateway, run):
    refused = Failure(grpc.StatusCode.PERMISSION_DENIED, "no", [error_info("PERMISSION_DENIED")])
    gateway.plays([refused])

    assert run("credits grant", "5", "--organization", "acme") == Ended(
        1, "", "trunkline: PERMISSION_DENIED: no\n"
    )


# Usage


def used(
    group: dict[str, str], requests: int, tokens: int, nanos: int | None, *, estimated: bool = False
) -> UsageRow:
    """What a group used."""
    return UsageRow(
        group=group,
        requests=requests,
        cached_requests=1,
        input_tokens=tokens,
        output_tokens=2,
        cost=None if nanos is None else Cost(amount_nanos=nanos, estimated=estimated),
    )


def test_usage_is_a_table_with_a_total(gateway, run):
    gateway.plays(
        [
            QueryUsageResponse(
                rows=[used({"provider": "local", "model": "tiny"}, 5, 40, 0)],
                next_page_token="more",
            )
        ],
        [
            QueryUsageResponse(
                rows=[
                    used({"provider": "new", "model": ""}, 1, 10, None),
                    used({"provider": "openai", "model": "m"}, 3, 100, 1_500, estimated=True),
                ]
            )
        ],
    )

    found = run(
        "usage",
        *("--by", "provider", "--by", "model", "--by", "provider", "--organization", "acme"),
        *("--from", "2026-11-01", "--to", "2026-11-30"),
    )

    assert found.out.splitlines() == [
        "provider  model  requests  cached  input tokens  output tokens         USD",
        "openai    m             3       1           100              2  ~0.0000015",
        "local     tiny          5       1            40              2   0.0000000",
        "new       -             1       1            10              2           -",
        "total                   9       3           150              6  ~0.0000015",
    ]
    assert (
        found.err
        == "a cost that is not known is not in the total\n~ is estimated, or a price is not known\n"
    )
    asked = QueryUsageRequest(
        start_time=at("2026-11-01T00:00:00Z"),
        end_time=at("2026-12-01T00:00:00Z"),
        group_by=["provider", "model"],
        page_size=1000,
        organization="acme",
    )
    assert gateway.requests[0] == asked


@pytest.mark.parametrize("more", [[], ["--by", "model"], ["--chart"], ["--chart", "day"]])
def test_that_nothing_was_used_is_said(gateway, run, more):
    gateway.plays([QueryUsageResponse()])

    found = run("usage", *more)

    assert (found.code, found.err) == (0, "nothing was used in this time\n")


def test_usage_of_everybody_is_one_row_of_the_current_month(gateway, run):
    gateway.plays([QueryUsageResponse(rows=[used({}, 3, 100, 1_000_000_000)])])

    before = datetime.now(UTC)
    found = run("usage")

    assert [line.split() for line in found.out.splitlines()] == [
        ["requests", "cached", "input", "tokens", "output", "tokens", "USD"],
        ["3", "1", "100", "2", "1.00"],
    ]
    (asked,) = gateway.requests
    end = asked.end_time.ToDatetime(UTC)
    assert before <= end <= datetime.now(UTC)
    assert asked.start_time.ToDatetime(UTC) == end.replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )


def test_groups_are_bars_the_largest_first(gateway, run):
    rows = [
        used({"provider": "small"}, 1, 0, 1),
        used({"provider": "none"}, 1, 0, 0),
        used({"provider": "large"}, 1, 98, 2_000_000_000),
        used({"provider": "half"}, 1, 48, 1_000_000_000),
    ]
    gateway.plays([QueryUsageResponse(rows=rows)])

    cost = run("usage", "--by", "provider", "--chart")
    tokens = run("usage", "--by", "provider", "--chart", "--measure", "tokens")

    lines = cost.out.splitlines()
    bars = [line.count("#") for line in lines]
    assert [line.split()[:3] for line in lines] == [
        ["large", "2.000000000", "USD"],
        ["half", "1.000000000", "USD"],
        ["small", "0.000000001", "USD"],
        ["none", "0.000000000", "USD"],
    ]
    assert (bars[1], bars[2], bars[3]) == (bars[0] // 2, 1, 0)
    assert len(lines[0]) == 79
    assert [line.split()[:2] for line in tokens.out.splitlines()] == [
        ["large", "100"],
        ["half", "50"],
        ["none", "2"],
        ["small", "2"],
    ]


def test_days_are_bars_and_none_is_left_out(gateway, run):
    rows = [
        used({"day": "2026-11-03", "provider": "a"}, 4, 0, 0),
        used({"day": "2026-11-01", "provider": "a"}, 2, 0, 0),
        used({"day": "2026-11-01", "provider": "b"}, 1, 0, 0),
    ]
    gateway.plays([QueryUsageResponse(rows=rows)])
    asked = (
        *("--chart", "day", "--measure", "requests"),
        *("--from", "2026-11-01", "--to", "2026-11-03"),
    )

    together = run("usage", *asked)
    apart = run("usage", "--by", "day", "--by", "provider", *asked)

    assert [(line.split()[:2], "#" in line) for line in together.out.splitlines()] == [
        (["2026-11-01", "3"], True),
        (["2026-11-02", "0"], False),
        (["2026-11-03", "4"], True),
    ]
    lines = apart.out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["a"], ["2026-11-01", "2"], ["2026-11-02", "0"], ["2026-11-03", "4"],
        ["b"], ["2026-11-01", "1"], ["2026-11-02", "0"], ["2026-11-03", "0"],
    ]  # fmt: skip
    assert abs(lines[1].count("#") - 2 * lines[5].count("#")) <= 1, "to one scale"
    assert [list(request.group_by) for request in gateway.requests] == [
        ["day"],
        ["provider", "day"],
    ]


def test_many_groups_are_cut_and_counted(gateway, run):
    rows = [used({"end_user": f"u{n:03}"}, n, 0, n) for n in range(60)]
    gateway.plays([QueryUsageResponse(rows=rows)])

    found = run("usage", "--by", "end_user", "--chart")

    lines = found.out.splitlines()
    assert (len(lines), lines[0].split()[0], lines[-1]) == (51, "u059", "and 10 more")


def test_more_groups_than_a_table_takes_are_an_error(gateway, run):
    page = QueryUsageResponse(rows=[used({"session": "s"}, 1, 1, 1)] * 1000, next_page_token="more")
    gateway.plays([page])

    found = run("usage", "--by", "session")

    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("trunkline: more than 10000 groups: ")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--by", "colour"], "'colour' is none of provider, "),
        (["--by", "label:"], "'label:' is none of provider, "),
        (["--from", "yesterday"], "'yesterday' is no date such as 2026-11-01"),
        (["--from", "2026-02-30"], "'2026-02-30' is no date"),
        (["--from", "2026-W01-1"], "'2026-W01-1' is no date"),
        (["--to", "9999-12-31"], "'9999-12-31' is no date"),
        (["--from", "2026-11-03", "--to", "2026-11-02"], "--to must be after --from"),
        (["--from", "2999-01-01"], "--from must be in the past"),
        (["--chart", "day", "--from", "2020-01-01"], "--chart day: at most 400 days"),
        (["--chart", "week"], "invalid choice: 'week'"),
    ],
)
def test_what_can_not_be_asked_is_said_before_it_is(gateway, run, arguments, problem):
    found = run("usage", *arguments)

    assert (found.code, found.out) == (2, "")
    assert problem in found.err
    assert not gateway.calls


# The audit log


def test_audit_events_are_listed(gateway, run):
    event = AuditEvent(
        sequence=7,
        event_time=at("2026-11-22T12:00:00Z"),
        action="key.revoked",
        actor="admin",
        organization="acme",
        entity_type="key",
        entity_id="k",
        request_id="req_1",
        metadata_json="x" * 300,
    )
    gateway.plays([ListAuditEventsResponse(events=[event] * 3, next_page_token="more")])

    found = run("audit list", "--organization", "acme", "--limit", "1")

    assert [re.split(r" {2,}", line.strip()) for line in found.out.splitlines()] == [
        ["number", "time", "action", "actor", "organization", "entity", "request", "details"],
        [
            "7",
            "2026-11-22 12:00:00Z",
            "key.revoked",
            "admin",
            "acme",
            "key k",
            "req_1",
            f"{'x' * 200}...",
        ],
    ]
    assert [(request.organization, request.page_size) for request in gateway.requests] == [
        ("acme", 1)
    ]


# All of them

LISTINGS: Final[dict[str, tuple[Any, list[dict[str, Any]]]]] = {
    "keys list": (ListKeysResponse(keys=[KEY, Key(id="b")]), [{"id": KEY.id}, {"id": "b"}]),
    "credits show": (
        GetBalanceResponse(available_nanos=9_007_199_254_740_993_001),
        [{"available_nanos": "9007199254740993001", "held_nanos": "0"}],
    ),
    "credits ledger": (
        ListLedgerEntriesResponse(entries=ENTRIES),
        [
            {"id": "e2", "kind": "LEDGER_KIND_DEBIT", "amount_nanos": "-42750"},
            {"id": "e1", "create_time": "2026-11-22T12:00:00Z"},
        ],
    ),
    "usage": (
        QueryUsageResponse(rows=[used({"provider": ESCAPE}, 3, 5, 7)]),
        [{"group": {"provider": ESCAPE}, "requests": "3", "input_tokens": "5"}],
    ),
    "audit list": (
        ListAuditEventsResponse(events=[AuditEvent(sequence=7)]),
        [{"sequence": "7", "action": ""}],
    ),
    "keys create --organization acme": (
        CreateKeyResponse(key=KEY, secret=SECRET),
        [{"secret": SECRET}],
    ),
    "keys rotate k": (RotateKeyResponse(key=KEY, secret=SECRET), [{"secret": SECRET}]),
    "keys revoke k": (RevokeKeyResponse(key=KEY), [{"id": KEY.id, "revoke_time": None}]),
    "credits grant 5 --organization acme": (
        AdjustCreditsResponse(entry=ENTRIES[1]),
        [{"id": "e1"}],
    ),
}


@pytest.mark.parametrize("command", LISTINGS)
def test_for_programs_everything_is_json_in_the_contracts_names(gateway, run, command):
    response, expected = LISTINGS[command]
    gateway.plays([response])

    found = run(command, "--json")

    told = [json.loads(line) for line in found.out.splitlines()]
    assert found.code == 0
    assert ESCAPE not in found.out
    assert [
        {name: message.get(name) for name in fields}
        for message, fields in zip(told, expected, strict=True)
    ] == expected


@pytest.mark.parametrize("command", LISTINGS)
def test_an_error_is_a_line_and_a_code(gateway, run, monkeypatch, command):
    monkeypatch.setenv("TRUNKLINE_API_KEY", "gw_wrong")
    wrong = "missing or unknown API key"
    gateway.plays(
        [Failure(grpc.StatusCode.UNAUTHENTICATED, wrong, [error_info("INVALID_API_KEY")])]
    )

    found = run(command)

    assert found == Ended(1, "", f"trunkline: INVALID_API_KEY: {wrong}\n")
    assert gateway.calls[0].metadata["authorization"] == "Bearer gw_wrong"
    remaining_s = gateway.calls[0].time_remaining_s
    assert remaining_s is not None
    assert remaining_s < 35


@pytest.mark.parametrize("command", ["keys", "credits", "audit"])
def test_a_group_of_commands_alone_says_what_there_is(run, capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([command])

    assert ended.value.code == 2
    assert "the following arguments are required: ACTION" in capsys.readouterr().err


def test_a_key_does_not_leave_this_machine_in_plaintext(monkeypatch, capsys):
    monkeypatch.setenv("TRUNKLINE_API_KEY", "gw_secret")

    code = main(["usage", "--target", "gateway.example.com:50051"])

    found = capsys.readouterr()
    assert (code, found.out) == (2, "")
    assert found.err == (
        "trunkline: the key would travel to gateway.example.com:50051 in plaintext: use --tls\n"
    )


def test_others_words_do_not_steer_the_terminal(gateway, run):
    gateway.plays([QueryUsageResponse(rows=[used({"end_user": f"a{ESCAPE}b\nc"}, 1, 1, 1)])])

    table = run("usage", "--by", "end_user")
    chart = run("usage", "--by", "end_user", "--chart")

    for found in (table, chart):
        assert "a\ufffd[2Jb\ufffdc" in found.out
        assert "\x1b" not in found.out


def test_a_name_that_can_not_be_shown_does_not_stop_a_listing(gateway, run, monkeypatch):
    gateway.plays([ListKeysResponse(keys=[Key(id="k", name="Zoë 東京")])])
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")

    with monkeypatch.context() as context:
        context.setattr(sys, "stdout", narrow)
        found = run("keys list")

    narrow.seek(0)
    assert found.code == 0
    assert "Zoë ??" in narrow.read()


# On a terminal


async def looked_at(gateway: AccountGateway, folder: Path, *arguments: str) -> str:
    """What a terminal of 100 columns shows."""
    seen, shown = pty.openpty()
    fcntl.ioctl(shown, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline_server", *arguments, "--target", gateway.target),
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=shown,
        stderr=shown,
    )
    os.close(shown)
    reading = asyncio.get_running_loop().run_in_executor(None, _everything, seen)
    async with asyncio.timeout(LIMIT_S):
        await process.wait()
        data = await reading
    assert process.returncode == 0, data
    return re.sub(r"\x1b\[[0-9;]*m", "", data.decode())  # Colours.


def _everything(terminal: int) -> bytes:
    data = b""
    with open(terminal, "rb", buffering=0) as reader:
        while True:
            try:
                piece = reader.read(65_536)
            except OSError:  # How Linux says that nobody has it open any more.
                return data
            if not piece:
                return data
            data += piece


async def test_a_terminal_shows_a_table_and_bars(gateway, tmp_path):
    rows = [
        used({"provider": "openai"}, 3, 100, 2_000_000_000),
        used({"provider": f"[red]x{ESCAPE}"}, 1, 10, 1_000_000_000),
    ]
    gateway.plays([QueryUsageResponse(rows=rows)])

    table = await looked_at(gateway, tmp_path, "usage", "--by", "provider", "--from", "2026-11-01")
    chart = await looked_at(gateway, tmp_path, "usage", "--by", "provider", "--chart")

    assert "2026-11-01 00:00Z to " in table
    assert "─" in table
    assert re.search(r"openai +3 +1 +100 +2 +2\.00", table)
    assert re.search(r"total.* +4 +2 +110 +4 +3\.00", table)
    assert ESCAPE not in table + chart
    assert "[red]x\ufffd[2J" in table
    bars = [line.count("█") for line in chart.splitlines()]
    assert bars[0] > 50
    assert abs(bars[0] - 2 * bars[1]) <= 1


# Through the whole service


async def test_an_operator_opens_an_account_and_a_caller_spends_it(monkeypatch, capsys, tmp_path):
    async with (
        upstream(hello) as scripted,
        desk(new_sqlite(tmp_path), scripted.url) as running,
    ):

        async def run(key: str, command: str) -> Ended:
            monkeypatch.setenv("TRUNKLINE_API_KEY", key)
            words = [*command.split(), "--target", running.service.grpc_address]
            code = await asyncio.to_thread(main, words)
            found = capsys.readouterr()
            return Ended(code, found.out, found.err)

        async def root(command: str) -> Ended:
            return await run(ROOT_KEY, command)

        made = await root("keys create --organization acme --plan prepaid --name shop --quiet")
        secret = made.out.strip()
        twice = [
            await root("credits grant 1.000100001 --organization acme --idempotency-key once")
            for _ in range(2)
        ]
        asked = await run(secret, "chat --model m hi")
        shown = await run(secret, "credits show")
        ledger = await run(secret, "credits ledger")
        usage = await run(secret, "usage --by model --by day --json")
        others = await run(secret, "credits show --organization operators")
        forbidden = await run(secret, "keys list")
        rotated = await root(f"keys rotate {secret} --overlap 0 --quiet")
        async with asyncio.timeout(LIMIT_S):
            while (former := await run(secret, "credits show")).code == 0:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
        revoked = await root(f"keys revoke {secret.split('_')[2]}")
        listed = await root("keys list --organization acme --json")
        audit = await root("audit list --organization acme --json")

    assert (made.code, made.err) == (0, "")
    told = "grant of 1.000100001 USD to acme: the balance is 1.000100001 USD (entry acme-1)\n"
    assert twice == [Ended(0, told, ""), Ended(0, told, "")]
    assert (asked.code, asked.out) == (0, "Hello")
    # 9 tokens at 1 dollar a million, and 4 at 2.
    assert "available     1.000083001 USD\n" in shown.out
    assert [line.split()[2:5] for line in ledger.out.splitlines()[1:]] == [
        ["debit", "-0.000017000", "1.000083001"],
        ["grant", "1.000100001", "1.000100001"],
    ]
    (row,) = map(json.loads, usage.out.splitlines())
    assert (row["group"]["model"], row["requests"], row["output_tokens"]) == ("m", "1", "4")
    assert row["cost"]["amount_nanos"] == "17000"
    assert others == Ended(1, "", others.err)
    assert others.err.startswith("trunkline: NOT_FOUND: no such organization")
    assert forbidden.code == 1
    assert forbidden.err.startswith("trunkline: PERMISSION_DENIED: ")
    assert rotated.code == revoked.code == 0
    assert rotated.out.strip() != secret
    assert (former.code, former.err.split(": ")[1]) == (1, "INVALID_API_KEY")
    assert revoked.out.endswith(
        "(shop) of acme is revoked: it is refused everywhere within a second\n"
    )
    assert [json.loads(line)["revoke_time"] is not None for line in listed.out.splitlines()] == [
        True
    ]
    actions = [json.loads(line)["action"] for line in audit.out.splitlines()]
    assert [action for action in actions if not action.startswith("completion.")] == [
        "key.revoked",
        "key.rotated",
        "credits.adjusted",
        "key.created",
    ]
    everything = [made, *twice, asked, shown, ledger, usage, others, forbidden, former, revoked]
    assert sum(found.out.count(secret) + found.err.count(secret) for found in everything) == 1
