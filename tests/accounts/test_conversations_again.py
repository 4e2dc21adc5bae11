"""A conversation and money: what was answered once is answered so again, and what was said before is paid for."""

import asyncio

from tests.edges.observed import spec
from tests.support.accounts import desk, new_sqlite
from tests.support.upstream import Pause, hello, upstream
from trunkline.v1.completion_service_pb2 import CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.conversation_service_pb2 import ListMessagesRequest
from trunkline.v1.conversation_service_pb2_grpc import ConversationServiceStub


async def test_a_turn_that_is_asked_for_again_is_replayed_and_in_the_conversation_once(tmp_path):
    url = new_sqlite(tmp_path)
    async with upstream(hello) as good, desk(url, good.url) as front:
        key = await front.new_key(plan="default", scopes=["complete"])
        completions = CompletionServiceStub(front.channel)
        conversations = ConversationServiceStub(front.channel)
        begun = await completions.CompleteUnary(
            CompleteUnaryRequest(spec=spec("m", conversation_id="new")), metadata=key, timeout=20
        )
        id_ = begun.completion.conversation_id
        again = CompleteUnaryRequest(
            spec=spec("m", "more", conversation_id=id_), idempotency_key="turn-2"
        )
        first = await completions.CompleteUnary(again, metadata=key, timeout=20)
        second = await completions.CompleteUnary(again, metadata=key, timeout=20)
        kept = await conversations.ListMessages(
            ListMessagesRequest(conversation_id=id_), metadata=key, timeout=20
        )

    assert second.completion == first.completion
    assert len(good.exchanges) == 2
    assert [m.message.parts[0].text for m in kept.messages] == ["hi", "Hello", "more", "Hello"]


async def test_what_was_said_before_is_held_for_too(tmp_path):
    url = new_sqlite(tmp_path)
    limit = {"max_output_tokens": 10}
    async with (
        upstream(lambda exchange: [Pause(0.3), *hello(exchange)]) as slow,
        desk(url, slow.url) as front,
    ):
        key = await front.new_key(plan="prepaid", scopes=["complete"])
        await front.grant(10**9)
        completions = CompletionServiceStub(front.channel)

        async def held(text: str, id_: str) -> tuple[int, str]:
            request = CompleteUnaryRequest(
                spec=spec("m", text, conversation_id=id_, sampling=limit)
            )
            call = completions.CompleteUnary(request, metadata=key, timeout=20)
            async with asyncio.timeout(20):
                while len(slow.exchanges) < (1 if id_ == "new" else 2):  # noqa: ASYNC110 - a list tells nobody
                    await asyncio.sleep(0.005)
            nanos = (await front.balance()).held_nanos
            return nanos, (await call).completion.conversation_id

        first_nanos, id_ = await held("word " * 6_000, "new")
        second_nanos, _ = await held("more", id_)
        left = await front.balance()

    assert first_nanos > 10_000 * 1_000
    assert second_nanos >= first_nanos
    assert left.held_nanos == 0
