"""Budgets: what they refuse, when they warn, and that the warning arrives."""

import asyncio
import base64
import json

import grpc
import pytest
from standardwebhooks import Webhook

from tests.accounts.test_charges import COST, LIMIT_S, PLENTY, settled
from tests.edges.errors import info_of, reason_of
from tests.edges.observed import spec
from tests.support.accounts import NANOS, desk
from tests.support.upstream import hello, upstream, whole
from trunkline.v1.completion_service_pb2 import CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
# What `spec` may cost at most: its bytes as tokens, and an answer of 100 tokens.
MOST = 300_000


def budget(name: str, nanos: int, **more: object) -> dict[str, object]:
    """An entry of `[[budgets]]`."""
    return {"id": name, "organization": "acme", "limit_usd": nanos / NANOS, **more}


def request() -> CompleteUnaryRequest:
    """One whose worst case is small, so that budgets can be, too."""
    asked = CompleteUnaryRequest(spec=spec("m"))
    asked.spec.sampling.max_output_tokens = 100
    return asked


async def refused(stub: CompletionServiceStub, key: tuple[tuple[str, str], ...]) -> str:
    """The budget that refused; empty when none did."""
    try:
        await stub.CompleteUnary(request(), metadata=key)  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        refusal = error
    else:
        return ""
    assert reason_of(refusal) == (grpc.StatusCode.FAILED_PRECONDITION, "BUDGET_EXHAUSTED")
    return info_of(refusal).metadata["budget"]


@pytest.mark.parametrize("plan", ["prepaid", "default"])
async def test_a_hard_budget_refuses_what_it_does_not_cover(url, plan):
    budgets = [budget("acme", MOST + 2 * COST), budget("other", 1, organization="other")]
    async with upstream(hello) as provider, desk(url, provider.url, budgets=budgets) as found:
        key = await found.new_key(plan=plan)
        await found.grant(PLENTY)
        stub = CompletionServiceStub(found.channel)

        outcomes = [await refused(stub, key) for _ in range(8)]

        left = await settled(found)
    served = outcomes.count("")
    assert outcomes == [""] * served + ["acme"] * (8 - served)
    # At least two fit, whatever the worst case is exactly; and never one that might not have fitted.
    assert 2 <= served < 8
    assert len(provider.exchanges) == served
    assert left == PLENTY - (served * COST if plan == "prepaid" else 0)


async def test_requests_at_once_do_not_overrun_a_budget(url):
    async with (
        upstream(hello) as provider,
        desk(url, provider.url, budgets=[budget("acme", MOST)]) as found,
    ):
        key = await found.new_key()
        stub = CompletionServiceStub(found.channel)

        outcomes = await asyncio.gather(*(refused(stub, key) for _ in range(16)))

    assert 1 <= outcomes.count("") < 16
    assert len(provider.exchanges) == outcomes.count("")


async def test_a_budget_of_a_project_is_no_matter_of_another_one(url):
    budgets = [budget("batch", 1, project="batch", period="day")]
    async with upstream(hello) as provider, desk(url, provider.url, budgets=budgets) as found:
        stub = CompletionServiceStub(found.channel)

        batch = await refused(stub, await found.new_key(project="batch"))
        web = await refused(stub, await found.new_key(project="web"))

    assert (batch, web) == ("batch", "")


async def test_a_soft_budget_only_warns_once_and_the_warning_is_signed(url):
    budgets = [budget("acme", 3 * COST, hard=False, warn_at=0.5)]
    accounts = {
        "database_url": url,
        "pepper_env": "PEPPER",
        "alert_secret_env": "ALERT_SECRET",
    }
    async with upstream(hello) as provider, upstream(whole({"ok": True})) as receiver:
        accounts["alert_url"] = f"{receiver.url}/hook"
        environment = {"ALERT_SECRET": SECRET}
        async with desk(
            url, provider.url, environment=environment, budgets=budgets, accounts=accounts
        ) as found:
            key = await found.new_key()
            stub = CompletionServiceStub(found.channel)

            for _ in range(5):
                assert await refused(stub, key) == ""

            async with asyncio.timeout(LIMIT_S):
                while len(receiver.exchanges) < 2:  # noqa: ASYNC110 - a list tells nobody
                    await asyncio.sleep(0.05)
            await asyncio.sleep(2.5)  # Another look for alerts: none comes twice.
    seen = []
    for exchange in receiver.exchanges:
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        headers = {name: exchange.header(name) or "" for name in names}
        assert Webhook(SECRET).verify(exchange.body.decode(), headers)
        seen.append(json.loads(exchange.body))
    by_type = {alert["type"]: alert for alert in seen}
    assert sorted(by_type) == ["budget.exhausted", "budget.warning"]
    assert len(seen) == 2
    assert by_type["budget.warning"]["spent_nanos"] == 2 * COST
    assert by_type["budget.exhausted"]["spent_nanos"] == 3 * COST


async def test_an_alert_that_is_not_received_is_tried_again_later(url, monkeypatch):
    budgets = [budget("acme", COST, hard=False)]
    answers = iter([whole({"error": "no"}, 500)])

    accounts = {
        "database_url": url,
        "pepper_env": "PEPPER",
        "alert_secret_env": "ALERT_SECRET",
    }
    monkeypatch.setattr("trunkline_server.accounts.alerts.FIRST_RETRY_US", 100_000)
    async with (
        upstream(hello) as provider,
        upstream(lambda _: next(answers, whole({"ok": True}))) as receiver,
    ):
        accounts["alert_url"] = f"{receiver.url}/hook"
        async with desk(
            url,
            provider.url,
            environment={"ALERT_SECRET": SECRET},
            budgets=budgets,
            accounts=accounts,
        ) as found:
            key = await found.new_key()
            stub = CompletionServiceStub(found.channel)

            assert await refused(stub, key) == ""

            async with asyncio.timeout(LIMIT_S):
                while len(receiver.exchanges) < 2:  # noqa: ASYNC110 - a list tells nobody
                    await asyncio.sleep(0.05)
    first, second = receiver.exchanges
    assert first.header("webhook-id") == second.header("webhook-id")
    assert first.body == second.body
