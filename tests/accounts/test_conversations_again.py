"""A conversation and an idempotency key: what was answered once is answered so again, and said once."""

from tests.edges.observed import spec
from tests.support.accounts import desk, new_sqlite
from tests.support.upstream import hello, upstream
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
