"""Answers that are given again, over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.edges.errors import fields_of, reason_of
from tests.edges.observed import Streamed, spec, stream
from tests.support.accounts import PRICES, desk, new_sqlite
from tests.support.service import model, provider, service
from tests.support.upstream import Exchange, Pause, Step, Upstream, hello, message, upstream
from trunkline.v1.account_service_pb2 import QueryUsageRequest
from trunkline.v1.cache_service_pb2 import (
    ClearCacheRequest,
    GetCacheStatsRequest,
    GetCacheStatsResponse,
    ReportHitRequest,
)
from trunkline.v1.cache_service_pb2_grpc import CacheServiceStub
from trunkline.v1.completion_pb2 import CacheReport, Completion, RouteReason
from trunkline.v1.completion_service_pb2 import CompleteUnaryRequest, StreamOptions
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import (
    CacheMode,
    CachePolicy,
    CompletionSpec,
    SamplingOptions,
)
from trunkline_server.app import Service
from trunkline_server.cache.evidence import BINS
from trunkline_server.cache.place import RULES
from trunkline_server.core.transactions import Statement, Transaction
from trunkline_server.storage.sqlite import SqliteStorage

WHY = "Why is the sky blue?"
EXACT = SamplingOptions(temperature=0)


def asked(text: str = WHY, **fields: Any) -> CompletionSpec:
    """A question that may be answered from the cache."""
    return spec("m", text, **{"sampling": EXACT, **fields})


def policy(name: str) -> CachePolicy:
    return CachePolicy(mode=CacheMode.Value(f"CACHE_MODE_{name}"))


@dataclass
class Asking:
    """A service without accounts, over one upstream."""

    service: Service
    upstream: Upstream
    channel: grpc.aio.Channel

    async def unary(self, request: CompletionSpec) -> Completion:
        response = await CompletionServiceStub(self.channel).CompleteUnary(
            CompleteUnaryRequest(spec=request), timeout=30
        )
        completion: Completion = response.completion
        return completion

    async def stream(self, request: CompletionSpec) -> Streamed:
        return await stream(self.service, request)

    async def in_flight(self, number: int) -> None:
        """Waits until so many requests are being answered."""
        async with asyncio.timeout(30):
            while self.service.admission.in_flight < number:  # noqa: ASYNC110 - a count tells nobody
                await asyncio.sleep(0.005)

    @property
    def cache(self) -> Any:
        return CacheServiceStub(self.channel)


@asynccontextmanager
async def asking(script: Any = hello, **sections: Any) -> AsyncIterator[Asking]:
    async with (
        upstream(script) as up,
        service(
            **{"providers": [provider("a", up.url)], "models": [model("m", "a")], **sections}
        ) as running,
        grpc.aio.insecure_channel(running.grpc_address) as channel,
    ):
        yield Asking(running, up, channel)


def text_of(completion: Completion) -> str:
    return completion.choices[0].message.parts[0].text


async def test_the_same_question_is_asked_once():
    async with asking() as here:
        first = await here.unary(asked(metadata_json='{"n": 1}'))
        again = await here.unary(asked(metadata_json='{"n": 2}'))
        streamed = await here.stream(asked())

    end = streamed.events[-1].completed.completion
    assert len(here.upstream.exchanges) == 1
    assert (text_of(first), text_of(again), streamed.text) == ("Hello", "Hello", "Hello")
    assert (first.cache.hit, again.cache.hit, end.cache.hit) == (False, True, True)
    assert (again.cache.kind, again.route.reason) == ("exact", RouteReason.ROUTE_REASON_CACHE)
    assert (again.usage.total_tokens, again.usage.cost.amount_nanos) == (0, 0)
    assert again.metadata_json == '{"n": 2}'
    assert len({first.id, again.id, end.id}) == 3
    assert ("trunkline-cache", "exact") in streamed.head


async def test_what_an_answer_costs_is_told_of_one_that_is_given_again_too():
    async with asking() as here:
        updates = StreamOptions(include_usage_updates=True)
        first = await stream(here.service, asked(), updates)
        again = await stream(here.service, asked(), updates)

    assert [found.kinds[-2:] for found in (first, again)] == [["usage_update", "completed"]] * 2
    last = again.events[-1].completed.completion
    assert again.events[-2].usage_update.usage == last.usage


async def test_a_panels_answer_is_a_panels_when_it_is_given_again():
    body = {
        "model": "waymark-fast",
        "messages": [{"role": "user", "content": WHY}],
        "temperature": 0,
    }
    async with (
        asking() as here,
        httpx.AsyncClient(base_url=f"http://{here.service.http_address}", timeout=30) as http,
    ):
        first, again, streamed = [
            await http.post("/v1/chat/completions", json={**body, "stream": streams})
            for streams in (False, False, True)
        ]

    heads = [response.headers.get("speechify-route") for response in (first, again, streamed)]
    assert heads == ["waymark-fast"] * 3
    assert "trunkline-cache" in again.headers
    assert [response.json()["model"] for response in (first, again)] == ["waymark-fast"] * 2
    assert [len(response.json()["waymark"]["models"]) for response in (first, again)] == [1, 0]
    assert '"model":"waymark-fast","choices"' in streamed.text


async def test_a_plain_request_is_asked_every_time():
    async with asking() as here:
        for _ in range(2):
            answer = await here.unary(asked(sampling=None))

    assert len(here.upstream.exchanges) == 2
    assert answer.cache == CacheReport()


async def test_only_an_answer_that_was_given_before_is_wanted():
    only = asked(cache=policy("ONLY_IF_CACHED"))
    async with asking() as here:
        missing = await here.stream(only)
        await here.unary(asked())
        found = await here.unary(only)

    assert reason_of(missing.error) == (grpc.StatusCode.NOT_FOUND, "NOT_CACHED")
    assert (text_of(found), len(here.upstream.exchanges)) == ("Hello", 1)


async def many(number: int) -> tuple[int, set[str]]:
    """So many at once. Returns how many calls that made, and the answers."""

    all_have_come = asyncio.Event()

    async def once_all_have_come(exchange: Exchange) -> Sequence[Step]:
        await all_have_come.wait()
        return message("Hello") if not exchange.json.get("stream") else hello(exchange)

    limits = {"max_in_flight": 2 * number, "max_waiting": 2 * number}
    async with asking(once_all_have_come, limits=limits) as here:
        tasks = [asyncio.create_task(here.unary(asked())) for _ in range(number)]
        await here.in_flight(number)
        all_have_come.set()
        found = await asyncio.gather(*tasks)
        return len(here.upstream.exchanges), {text_of(each) for each in found}


async def test_many_at_once_make_one_call():
    assert await many(100) == (1, {"Hello"})


@pytest.mark.slow
async def test_a_thousand_at_once_make_one_call():
    assert await many(1_000) == (1, {"Hello"})


async def test_a_leader_that_leaves_leaves_the_question_to_another():
    async with asking([Pause(0.2), *message("Hello")]) as here:
        leader = asyncio.create_task(here.unary(asked()))
        while not here.upstream.exchanges:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.005)
        followers = [asyncio.create_task(here.unary(asked())) for _ in range(5)]
        await here.in_flight(6)
        leader.cancel()
        found = await asyncio.gather(*followers)

    assert [text_of(each) for each in found] == ["Hello"] * 5
    assert len(here.upstream.exchanges) == 2


async def test_what_fails_is_not_kept():
    def failing(exchange: Exchange) -> Sequence[Step]:
        return [b"HTTP/1.1 400 X\r\ncontent-length: 2\r\n\r\n{}"]

    async with asking(failing) as here:
        found = await asyncio.gather(
            *(here.unary(asked()) for _ in range(5)), return_exceptions=True
        )
        here.upstream.script = hello
        answer = await here.unary(asked())

    assert {type(each) for each in found} == {grpc.aio.AioRpcError}
    assert (text_of(answer), answer.cache.hit) == ("Hello", False)


async def test_what_is_wrong_is_asked_anew():
    async with asking() as here:
        await here.unary(asked())
        hit = await here.unary(asked())
        await here.cache.ReportHit(ReportHitRequest(entry_id=hit.cache.entry_id))
        still = await here.unary(asked())
        await here.cache.ReportHit(ReportHitRequest(entry_id=hit.cache.entry_id, wrong=True))
        anew = await here.unary(asked())

    assert [each.cache.hit for each in (hit, still, anew)] == [True, True, False]


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("ReportHit", ReportHitRequest(entry_id="x"), "entry_id"),
        ("ClearCache", ClearCacheRequest(older_than=Duration(seconds=-1)), "older_than"),
        ("ClearCache", ClearCacheRequest(older_than=Duration(seconds=10**10)), "older_than"),
    ],
    ids=["entry", "past", "for ever"],
)
async def test_bad_requests_name_the_field(method, request_, field):
    async with asking() as here:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(here.cache, method)(request_)

    assert fields_of(caught.value) == [field]


async def test_stats_and_clearing():
    async with asking() as here:
        for text in (WHY, WHY, "Why is grass green?"):
            await here.unary(asked(text))
        stats = await here.cache.GetCacheStats(GetCacheStatsRequest())
        await here.cache.ClearCache(ClearCacheRequest(older_than=Duration(seconds=3_600)))
        kept = await here.unary(asked())
        await here.cache.ClearCache(ClearCacheRequest())
        gone = await here.unary(asked())

    assert stats == GetCacheStatsResponse(
        organization="key:anonymous",
        entries=2,
        size_bytes=stats.size_bytes,
        exact_hits=1,
        misses=2,
        semantic_mode="off",
    )
    assert stats.size_bytes > 0
    assert (kept.cache.hit, gone.cache.hit) == (True, False)


async def test_what_happens_is_counted_without_content():
    async with asking() as here:
        for _ in range(2):
            await here.unary(asked())
        async with httpx.AsyncClient(base_url=f"http://{here.service.http_address}") as client:
            page = (await client.get("/metrics")).text

    lines = [line for line in page.splitlines() if line.startswith("trunkline_cache_events_total")]
    assert any('event="exact_hit"' in line for line in lines)
    assert "sky" not in page


# with accounts


async def test_organisations_share_nothing_and_hits_cost_nothing(tmp_path: Path):
    url = new_sqlite(tmp_path)
    async with upstream(hello) as up, desk(url, up.url) as at:
        acme, globex = await at.new_key("acme", plan="prepaid"), await at.new_key("globex")
        await at.grant(10**9)
        stub = CompletionServiceStub(at.channel)
        cache: Any = CacheServiceStub(at.channel)

        async def ask(metadata: Any) -> Completion:
            response = await stub.CompleteUnary(
                CompleteUnaryRequest(spec=asked()), metadata=metadata, timeout=30
            )
            completion: Completion = response.completion
            return completion

        found = [await ask(key) for key in (acme, acme, globex, globex)]
        spent = 10**9 - (await at.balance()).available_nanos
        usage = await at.account.QueryUsage(QueryUsageRequest(), metadata=acme)
        report = ReportHitRequest(entry_id=found[1].cache.entry_id, wrong=True)
        stats = GetCacheStatsRequest(organization="acme")
        refused = []
        for call in (
            cache.GetCacheStats(stats, metadata=globex),
            cache.ClearCache(ClearCacheRequest(organization="acme"), metadata=globex),
            cache.ReportHit(report, metadata=globex),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            refused.append(reason_of(caught.value))
        still = await ask(acme)
        seen = await cache.GetCacheStats(stats, metadata=at.root)
        await cache.ClearCache(ClearCacheRequest(organization="acme"), metadata=at.root)
        gone = await ask(acme)
        other = await ask(globex)

    assert [each.cache.hit for each in found] == [False, True, False, True]
    assert spent == 9 * 1_000 + 4 * 2_000
    assert PRICES == {"input_price": 1.0, "output_price": 2.0}
    assert [(row.requests, row.cached_requests) for row in usage.rows] == [(2, 1)]
    assert refused == [(grpc.StatusCode.NOT_FOUND, "NOT_FOUND")] * 3
    assert (still.cache.hit, gone.cache.hit, other.cache.hit) == (True, False, True)
    assert (seen.organization, seen.entries, seen.exact_hits) == ("acme", 1, 2)


async def test_answers_outlive_the_process_where_there_is_a_database(tmp_path: Path):
    url = new_sqlite(tmp_path)
    found = []
    async with upstream(hello) as up:
        for _ in range(2):
            async with (
                service(
                    providers=[provider("a", up.url)],
                    models=[model("m", "a")],
                    state={"database_url": url},
                ) as running,
                grpc.aio.insecure_channel(running.grpc_address) as channel,
            ):
                response = await CompletionServiceStub(channel).CompleteUnary(
                    CompleteUnaryRequest(spec=asked()), timeout=30
                )
                found.append(response.completion.cache.hit)

        assert len(up.exchanges) == 1

    assert found == [False, True]


def proved() -> Transaction[None]:
    """Evidence enough, for every similarity."""
    for number in range(BINS):
        yield Statement(
            "INSERT INTO cache_evidence (owner, rules, bin, same, other) VALUES ($1, $2, $3, 149, 0)",
            ("key:anonymous", RULES, number),
        )


@pytest.mark.once
async def test_a_similar_question_is_answered_where_that_has_proved_itself(tmp_path: Path):
    url = new_sqlite(tmp_path)
    storage = SqliteStorage(tmp_path / "accounts.db")
    await storage.start()
    await storage.write(proved)
    await storage.close()
    other = "In the morning hours, why is the sky blue?"
    sections = {"state": {"database_url": url}, "cache": {"semantic": "on"}}
    async with asking(**sections) as here:
        await here.unary(asked("Why is the sky blue in the morning hours?"))
        for _ in range(300):  # The model is being loaded, and the questions are being read.
            with suppress(grpc.aio.AioRpcError):
                hit = await here.unary(asked(other, cache=policy("ONLY_IF_CACHED")))
                break
            await asyncio.sleep(0.1)
        stats = await here.cache.GetCacheStats(GetCacheStatsRequest())

    assert (hit.cache.kind, text_of(hit)) == ("semantic", "Hello")
    assert hit.cache.similarity > 0.95
    assert (stats.semantic_hits, stats.semantic_mode, stats.threshold) == (1, "on", 0.95)
    assert len(here.upstream.exchanges) == 1
