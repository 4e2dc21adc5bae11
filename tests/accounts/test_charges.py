"""What a completion does to an account, over the wire and on both databases."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.edges.errors import reason_of
from tests.edges.observed import spec
from tests.support.accounts import PRICES, Desk, desk
from tests.support.service import model, provider
from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Pause,
    Reset,
    Step,
    Upstream,
    answer,
    delta,
    event,
    finish,
    head,
    hello,
    message,
    upstream,
    usage,
    whole,
)
from trunkline.v1.account_service_pb2 import ListLedgerEntriesRequest, QueryUsageRequest
from trunkline.v1.admin_service_pb2 import ListAuditEventsRequest
from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import Recovery, RoutingConstraints
from trunkline.v1.ledger_pb2 import LedgerKind

# 9 tokens in and 4 out, at 1 and 2 dollars for a million.
COST = 9 * 1_000 + 4 * 2_000
PLENTY = 1_000_000_000
LIMIT_S = 10.0


async def settled(found: Desk, organization: str = "acme") -> int:
    """What is left once nothing is held any more."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            balance = await found.balance(organization)
            if not balance.held_nanos:
                return balance.available_nanos
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", ["unary", "stream"])
async def test_an_answer_is_charged_for_what_it_used(url, way):
    async with upstream(hello) as provider, desk(url, provider.url) as found:
        key = await found.new_key(plan="prepaid")
        await found.grant(PLENTY)
        stub = CompletionServiceStub(found.channel)

        if way == "unary":
            done = await stub.CompleteUnary(CompleteUnaryRequest(spec=spec("m")), metadata=key)
            completion = done.completion
        else:
            events = [e async for e in stub.Complete(CompleteRequest(spec=spec("m")), metadata=key)]
            completion = events[-1].completed.completion

        # Before the caller was told that it is done, it was charged.
        balance = await found.balance()
        listed = await found.account.ListLedgerEntries(
            ListLedgerEntriesRequest(organization="acme"), metadata=found.root
        )
        usage = await found.account.QueryUsage(
            QueryUsageRequest(group_by=["provider", "model"]), metadata=key
        )
    assert completion.usage.cost.amount_nanos == COST
    assert (balance.available_nanos, balance.held_nanos) == (PLENTY - COST, 0)
    debit, grant = listed.entries
    assert (debit.kind, debit.amount_nanos) == (LedgerKind.LEDGER_KIND_DEBIT, -COST)
    assert debit.balance_after_nanos == PLENTY - COST
    assert debit.request_id == completion.id
    assert (grant.kind, grant.amount_nanos) == (LedgerKind.LEDGER_KIND_GRANT, PLENTY)
    (row,) = usage.rows
    assert dict(row.group) == {"provider": "a", "model": "m"}
    assert (row.requests, row.input_tokens, row.output_tokens) == (1, 9, 4)
    assert row.cost.amount_nanos == COST


async def test_an_empty_account_asks_nobody(url):
    async with upstream(hello) as provider, desk(url, provider.url) as found:
        key = await found.new_key(plan="prepaid")
        stub = CompletionServiceStub(found.channel)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CompleteUnary(CompleteUnaryRequest(spec=spec("m")), metadata=key)

        trailers = dict(caught.value.trailing_metadata() or ())
    assert reason_of(caught.value) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "INSUFFICIENT_CREDITS",
    )
    assert trailers["grpc-retry-pushback-ms"] == "-1"
    assert not provider.exchanges


async def test_a_request_that_fails_costs_nothing(url):
    failing = whole({"error": {"message": "no"}}, 400)
    async with upstream(failing) as provider, desk(url, provider.url) as found:
        key = await found.new_key(plan="prepaid")
        await found.grant(PLENTY)
        stub = CompletionServiceStub(found.channel)

        with pytest.raises(grpc.aio.AioRpcError):
            await stub.CompleteUnary(CompleteUnaryRequest(spec=spec("m")), metadata=key)

        left = await settled(found)
    assert left == PLENTY


async def test_a_stream_that_is_left_costs_what_had_come(url):
    text = "word " * 40
    begun: list[Step] = [head(), event(delta(text)), Hang()]
    async with upstream(begun) as provider, desk(url, provider.url) as found:
        key = await found.new_key(plan="prepaid")
        await found.grant(PLENTY)
        stub = CompletionServiceStub(found.channel)
        call = stub.Complete(CompleteRequest(spec=spec("m")), metadata=key)
        async for response in call:
            if response.HasField("text_delta"):
                break
        during = await found.balance()

        call.cancel()

        left = await settled(found)
        usage = await found.account.QueryUsage(QueryUsageRequest(), metadata=key)
    assert during.held_nanos > 0
    (row,) = usage.rows
    assert row.output_tokens == len(text) // 4
    assert row.cost.estimated
    assert PLENTY - left == row.cost.amount_nanos > 0


async def test_a_plan_without_credits_is_only_counted(url):
    async with upstream(hello) as provider, desk(url, provider.url) as found:
        key = await found.new_key()
        stub = CompletionServiceStub(found.channel)

        await stub.CompleteUnary(CompleteUnaryRequest(spec=spec("m")), metadata=key)

        usage = await found.account.QueryUsage(QueryUsageRequest(), metadata=key)
        balance = await found.balance()
    assert usage.rows[0].cost.amount_nanos == COST
    assert (balance.available_nanos, balance.held_nanos) == (0, 0)


async def test_credits_that_end_in_the_middle_end_the_answer(url):
    def endless(_: Exchange) -> Sequence[Step]:
        pieces = [step for _ in range(64) for step in (event(delta("x" * 4_000)), Pause(0.01))]
        return [head(), *pieces, Hang()]

    async with upstream(endless) as provider, desk(url, provider.url) as found:
        key = await found.new_key(plan="prepaid")
        await found.grant(10_000_000)  # One block of 4,096 tokens and a bit.
        stub = CompletionServiceStub(found.channel)

        events = [e async for e in stub.Complete(CompleteRequest(spec=spec("m")), metadata=key)]

        left = await settled(found)
    completion = events[-1].completed.completion
    assert completion.choices[0].finish_reason == 12  # INSUFFICIENT_CREDITS
    assert left == 10_000_000 - completion.usage.cost.amount_nanos >= 0


def one_two(exchange: Exchange) -> Sequence[Step]:
    """The same words, streamed or not."""
    return answer("One", " two") if exchange.json.get("stream") else message("One two")


async def asked_with_key(
    stub: Any, way: str, key: tuple[tuple[str, str], ...]
) -> tuple[str, dict[str, str | bytes]]:
    """Text and initial metadata of a request that has an idempotency key."""
    if way == "unary":
        unary = stub.CompleteUnary(
            CompleteUnaryRequest(spec=spec("m"), idempotency_key="k-1"), metadata=key
        )
        completion = (await unary).completion
        text = completion.choices[0].message.parts[0].text
        return text, dict(await unary.initial_metadata())
    asked = CompleteRequest(spec=spec("m"), idempotency_key="k-1")
    stream = stub.Complete(asked, metadata=key)
    events = [e async for e in stream]
    assert events[-1].HasField("completed")
    return "".join(e.text_delta.text for e in events), dict(await stream.initial_metadata())


@pytest.mark.parametrize("way", ["unary", "stream"])
async def test_the_same_idempotency_key_is_answered_and_charged_once(url, way):
    async with upstream(one_two) as provider, desk(url, provider.url) as found:
        key = await found.new_key(plan="prepaid")
        await found.grant(PLENTY)
        stub = CompletionServiceStub(found.channel)

        told = [await asked_with_key(stub, way, key) for _ in range(3)]

        other = CompleteUnaryRequest(spec=spec("m"), idempotency_key="k-1")
        other.spec.messages[0].parts[0].text = "Something else"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CompleteUnary(other, metadata=key)
        left = await settled(found)
    assert [text for text, _ in told] == ["One two"] * 3
    assert ["idempotent-replayed" in head for _, head in told] == [False, True, True]
    assert len(provider.exchanges) == 1
    assert left == PLENTY - COST
    assert reason_of(caught.value)[1] == "IDEMPOTENCY_CONFLICT"


async def test_a_key_that_is_in_use_tells_the_second_caller_to_wait(url):
    begun: list[Step] = [head(), event(delta("Hello")), Hang()]
    async with upstream(begun) as provider, desk(url, provider.url) as found:
        key = await found.new_key(plan="prepaid")
        await found.grant(PLENTY)
        stub = CompletionServiceStub(found.channel)
        request = CompleteRequest(spec=spec("m"), idempotency_key="k-2")
        first = stub.Complete(request, metadata=key)
        async for response in first:
            if response.HasField("text_delta"):
                break

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [_ async for _ in stub.Complete(request, metadata=key)]

        first.cancel()
        await settled(found)
    assert reason_of(caught.value) == (grpc.StatusCode.ABORTED, "REQUEST_IN_PROGRESS")


async def test_a_request_that_was_cut_may_be_run_again_under_its_key(url):
    cut: list[Step] = [head(), event(delta("Hello")), Hang()]
    answers = iter([cut, answer("Hello", " again")])

    def script(_: Exchange) -> Sequence[Step]:
        return next(answers)

    async with upstream(script) as provider, desk(url, provider.url) as found:
        key = await found.new_key(plan="prepaid")
        await found.grant(PLENTY)
        stub = CompletionServiceStub(found.channel)
        request = CompleteRequest(spec=spec("m"), idempotency_key="k-3")
        first = stub.Complete(request, metadata=key)
        async for response in first:
            if response.HasField("text_delta"):
                break
        first.cancel()
        await settled(found)

        events = [e async for e in stub.Complete(request, metadata=key)]

    assert "".join(e.text_delta.text for e in events) == "Hello again"


async def test_metadata_is_echoed_and_written_to_the_audit_log(url):
    metadata = '{"order":  17}'  # Byte for byte, blanks included.
    async with upstream(hello) as provider, desk(url, provider.url) as found:
        key = await found.new_key()
        stub = CompletionServiceStub(found.channel)
        request = CompleteUnaryRequest(spec=spec("m"))
        request.spec.metadata_json = metadata

        completion = (await stub.CompleteUnary(request, metadata=key)).completion

        listed = await found.admin.ListAuditEvents(
            ListAuditEventsRequest(organization="acme"), metadata=found.root
        )
    told = listed.events[0]
    assert completion.metadata_json == metadata
    assert (told.action, told.entity_id) == ("completion.created", completion.id)
    assert told.metadata_json == metadata
    assert told.status_reason == "OK"
    assert (told.route.provider, told.route.model) == ("a", "m")
    assert (told.usage.input_tokens, told.usage.output_tokens) == (9, 4)
    assert told.usage.cost.amount_nanos == COST


def in_order(first: Upstream, second: Upstream) -> dict[str, Any]:
    """Two models at the usual prices, one after the other."""
    return {
        "providers": [provider("a", first.url), provider("b", second.url)],
        "models": [model("m-a", "a", **PRICES), model("m-b", "b", **PRICES)],
        "routes": [{"id": "all", "candidates": ["m-a", "m-b"], "strategy": "ordered"}],
    }


async def test_who_waits_for_the_whole_pays_for_none_of_what_broke_off(url):
    cut: list[Step] = [head(), event(delta("word " * 400)), Pause(0.02), Reset()]
    failing = whole({"error": {"message": "no"}}, 500)
    async with (
        upstream(cut) as first,
        upstream(failing) as second,
        desk(url, first.url, **in_order(first, second)) as found,
    ):
        key = await found.new_key(plan="prepaid")
        await found.grant(PLENTY)
        # A limit of silence makes it read a stream.
        asked = spec("all", constraints=RoutingConstraints(idle_timeout=Duration(seconds=20)))

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await CompletionServiceStub(found.channel).CompleteUnary(
                CompleteUnaryRequest(spec=asked), metadata=key
            )

        left = await settled(found)
    assert reason_of(caught.value)[1] == "ALL_PROVIDERS_FAILED"
    assert left == PLENTY


LONG_TEXT = "x" * 4_000
# 20 tokens in and 4,000 out; of one that broke off, our own estimate.
WHOLE_COST = 20 * 1_000 + 4_000 * 2_000


@pytest.mark.parametrize("recovery", ["RESTART", "CONTINUE"])
@pytest.mark.parametrize(("credit", "is_taken_up"), [(17_000_000, True), (9_000_000, False)])
async def test_an_answer_is_taken_up_where_both_parts_are_held(url, recovery, credit, is_taken_up):
    pieces = [event(delta(LONG_TEXT))] * 4
    cut: list[Step] = [head(), *pieces, Pause(0.02), Reset()]
    whole_one: list[Step] = [
        head(),
        *pieces,
        event(finish()),
        event(usage(20, 4_000)),
        event("[DONE]"),
        END,
    ]
    async with (
        upstream(cut) as first,
        upstream(whole_one) as second,
        desk(url, first.url, **in_order(first, second)) as found,
    ):
        key = await found.new_key(plan="prepaid")
        await found.grant(credit)
        asked = spec(
            "all", constraints=RoutingConstraints(recovery=Recovery.Value(f"RECOVERY_{recovery}"))
        )
        asked.sampling.max_output_tokens = 4_000
        events = []
        error = ""
        try:
            stub = CompletionServiceStub(found.channel)
            async for each in stub.Complete(CompleteRequest(spec=asked), metadata=key):
                events.append(each)  # noqa: PERF401 - what came before an error is looked at too
        except grpc.aio.AioRpcError as broken:
            error = reason_of(broken)[1]
        left = await settled(found)

    last = events[-1]
    used = last.completed.completion.usage if is_taken_up else last.interrupted.usage
    cost = used.cost.amount_nanos
    # Nothing was asked for that its account could not pay, and what was told is what was charged.
    assert left == credit - cost
    assert (len(second.exchanges), error) == ((1, "") if is_taken_up else (0, "STREAM_INTERRUPTED"))
    assert (cost > WHOLE_COST) is is_taken_up
