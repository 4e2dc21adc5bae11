"""Conversations as callers have them: over gRPC, with real callers at once, and on the command line."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest

from tests.edges.errors import fields_of, reason_of, status_of
from tests.edges.observed import LIMIT_S, stream
from tests.storage.conftest import postgres
from tests.support.postgres import Postgres
from tests.support.service import model, provider, service
from tests.support.upstream import (
    Exchange,
    Pause,
    Step,
    answer,
    event,
    head,
    hello,
    message,
    upstream,
    usage,
    whole,
)
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_service_pb2 import CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec, Tool, ToolOptions
from trunkline.v1.conversation_service_pb2 import (
    CreateConversationRequest,
    DeleteConversationRequest,
    GetConversationRequest,
    ListConversationsRequest,
    ListMessagesRequest,
)
from trunkline.v1.conversation_service_pb2_grpc import ConversationServiceStub
from trunkline.v1.message_pb2 import Message, Part, Role, ToolResult
from trunkline_server.app import Service
from trunkline_server.cli import main
from trunkline_server.core.conversations import NEW
from trunkline_server.storage.upgrade import upgrade

__all__ = ["postgres"]

USER, ASSISTANT = Role.ROLE_USER, Role.ROLE_ASSISTANT
NOBODYS: Final = "conv_01ARZ3NDEKTSV4RRFFQ69G5FAV"
NOT_FOUND: Final = (grpc.StatusCode.NOT_FOUND, "CONVERSATION_NOT_FOUND")
ENVIRONMENT: Final = {"ACME": "a" * 20, "ACME_TOO": "b" * 20, "OTHER": "c" * 20, "READER": "d" * 20}
KEYS: Final = [
    {"id": "acme", "key_env": "ACME", "organization": "acme"},
    {"id": "acme-too", "key_env": "ACME_TOO", "organization": "acme"},
    {"id": "other", "key_env": "OTHER", "organization": "other", "scopes": ["admin", "complete"]},
    {"id": "reader", "key_env": "READER", "organization": "acme", "scopes": ["read"]},
]


def key(name: str) -> tuple[tuple[str, str], ...]:
    """What its holder sends."""
    return (("authorization", f"Bearer {ENVIRONMENT[name]}"),)


def said(text: str, role: "Role.ValueType" = USER) -> Message:
    return Message(role=role, parts=[Part(text=text)])


@dataclass
class Caller:
    """One caller of a running service, over a socket."""

    service: Service
    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...] = ()

    def holding(self, name: str) -> "Caller":
        """With this key."""
        return Caller(self.service, self.channel, key(name))

    @property
    def conversations(self) -> Any:
        return ConversationServiceStub(self.channel)

    async def ask(self, conversation_id: str, *messages: Message, **fields: Any) -> Completion:
        """One turn, in one piece."""
        spec = CompletionSpec(
            model="m", conversation_id=conversation_id, messages=messages, **fields
        )
        response = await CompletionServiceStub(self.channel).CompleteUnary(
            CompleteUnaryRequest(spec=spec), metadata=self.metadata, timeout=LIMIT_S
        )
        completion: Completion = response.completion
        return completion

    async def stream(self, conversation_id: str, *messages: Message) -> Completion:
        """One turn, as it comes."""
        spec = CompletionSpec(model="m", conversation_id=conversation_id, messages=messages)
        found = await stream(self.service, spec, metadata=self.metadata)
        if found.error is not None:
            raise found.error
        assert (
            found.events[0].started.conversation_id
            == found.events[-1].completed.completion.conversation_id
        )
        return found.events[-1].completed.completion

    async def kept(self, conversation_id: str) -> list[tuple[Message, str]]:
        """What was said, and in which completion."""
        response = await self.conversations.ListMessages(
            ListMessagesRequest(conversation_id=conversation_id, page_size=1_000),
            metadata=self.metadata,
        )
        assert [m.sequence for m in response.messages] == list(range(1, len(response.messages) + 1))
        return [(m.message, m.completion_id) for m in response.messages]

    async def texts(self, conversation_id: str) -> list[str]:
        return [m.parts[0].text for m, _ in await self.kept(conversation_id)]

    async def ids(self) -> list[str]:
        response = await self.conversations.ListConversations(
            ListConversationsRequest(), metadata=self.metadata
        )
        return [conversation.id for conversation in response.conversations]


def sections(url: str, **more: Any) -> dict[str, Any]:
    return {
        "providers": [provider("a", url)],
        "models": [model("m", "a", capabilities=["tools"])],
        **more,
    }


@asynccontextmanager
async def calling(url: str, **more: Any) -> AsyncIterator[Caller]:
    async with (
        service(environment=ENVIRONMENT, **sections(url, **more)) as running,
        grpc.aio.insecure_channel(running.grpc_address) as channel,
    ):
        yield Caller(running, channel)


def heard(exchange: Exchange) -> list[tuple[str, Any]]:
    """Who said what, as the upstream got it."""
    return [(m["role"], m["content"]) for m in exchange.json["messages"]]


async def refused(work: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await work
    return raised.value


# Turns


@pytest.mark.parametrize("how", ["ask", "stream"])
async def test_a_conversation_goes_on_by_its_id(how):
    async with upstream(hello) as good, calling(good.url) as caller:
        ask = getattr(caller, how)
        first = await ask(NEW, said("a"))
        second = await ask(first.conversation_id, said("b"))
        third = await ask(first.conversation_id, said("c"))
        kept = await caller.kept(first.conversation_id)

    assert first.conversation_id == second.conversation_id == third.conversation_id
    a, b, c = (("user", text) for text in "abc")
    answered = ("assistant", "Hello")
    assert [heard(exchange) for exchange in good.exchanges] == [
        [a],
        [a, answered, b],
        [a, answered, b, answered, c],
    ]
    assert kept == [
        (message, completion.id)
        for text, completion in zip("abc", (first, second, third), strict=True)
        for message in (said(text), said("Hello", ASSISTANT))
    ]


async def test_nobody_who_names_no_conversation_has_one():
    async with upstream(hello) as good, calling(good.url) as caller:
        completion = await caller.ask("", said("a"))
        ids = await caller.ids()

    assert (completion.conversation_id, ids) == ("", [])


async def test_a_result_answers_a_call_of_the_turn_before():
    call = {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": "{}"}}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    calls = {"id": "c", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice]}

    def script(exchange: Exchange) -> Sequence[Step]:
        if len(exchange.json["messages"]) > 1:
            return hello(exchange)
        return [head(), event(calls), event(usage()), event("[DONE]"), b"0\r\n\r\n"]

    tools = ToolOptions(tools=[Tool(name="weather", parameters_schema_json='{"type": "object"}')])
    async with upstream(script) as good, calling(good.url) as caller:
        first = await caller.ask(NEW, said("rain?"), tool_options=tools)
        (part,) = [p for p in first.choices[0].message.parts if p.HasField("tool_call")]
        result = Part(
            tool_result=ToolResult(tool_call_id=part.tool_call.id, parts=[Part(text="no")])
        )
        second = await caller.ask(
            first.conversation_id, Message(role=Role.ROLE_TOOL, parts=[result]), tool_options=tools
        )

    assert second.choices[0].message == said("Hello", ASSISTANT)
    asked, called, answered = good.exchanges[1].json["messages"]
    assert (asked["role"], asked["content"]) == ("user", "rain?")
    assert [c["function"]["name"] for c in called["tool_calls"]] == ["weather"]
    assert (answered["role"], answered["tool_call_id"]) == ("tool", called["tool_calls"][0]["id"])


async def test_a_turn_that_fails_is_not_in_the_conversation():
    def script(exchange: Exchange) -> Sequence[Step]:
        if exchange.json["messages"][-1]["content"] == "fail":
            return whole({"error": {"message": "no", "type": "server_error"}}, 500)
        return hello(exchange)

    async with upstream(script) as bad, calling(bad.url) as caller:
        first = await caller.ask(NEW, said("a"))
        error = await refused(caller.ask(first.conversation_id, said("fail")))
        begun = await refused(caller.ask(NEW, said("fail")))
        await caller.ask(first.conversation_id, said("b"))
        texts = await caller.texts(first.conversation_id)
        ids = await caller.ids()

    assert error.code() == begun.code() == grpc.StatusCode.UNAVAILABLE
    assert texts == ["a", "Hello", "b", "Hello"]
    assert ids == [first.conversation_id]


async def test_a_long_conversation_is_cut_to_the_context_window_and_says_so():
    models = [model("m", "a", context_window_tokens=2_000)]
    async with upstream(hello) as good, calling(good.url, models=models) as caller:
        id_ = (await caller.ask(NEW, said("old " * 1_000))).conversation_id
        middle = await caller.ask(id_, said("middle " * 200))
        last = await caller.ask(id_, said("new"))
        texts = await caller.texts(id_)

    warned = [[w.code for w in c.warnings] for c in (middle, last)]
    assert warned == [["CONVERSATION_TRUNCATED"], ["CONVERSATION_TRUNCATED"]]
    assert heard(good.exchanges[-1])[-1] == ("user", "new")
    assert all("old" not in content for _, content in heard(good.exchanges[-1]))
    assert len(texts) == 6  # Nothing of what is kept is cut.


# At once


async def counting(exchange: Exchange) -> Sequence[Step]:
    """Says how many messages it got, and which was the last, a while later."""
    messages = exchange.json["messages"]
    text = f"{len(messages)} {messages[-1]['content']}"
    steps = answer(*text) if exchange.json.get("stream") else message(text)
    return [Pause(0.01), *steps]


async def crowd(callers: Sequence[Caller], id_: str, turns: int) -> None:
    """All of them speak at once, in one piece and as it comes."""

    async def speak(n: int) -> None:
        caller = callers[n % len(callers)]
        ask = caller.ask if n % 4 < 2 else caller.stream
        await ask(id_, said(f"q{n}"))

    await asyncio.gather(*(speak(n) for n in range(turns)))


def is_in_order(kept: list[tuple[Message, str]], turns: int) -> bool:
    """Each question is followed by its answer, which was given by one who had heard all that comes before."""
    texts = [m.parts[0].text for m, _ in kept]
    completions = [completion for _, completion in kept]
    questions, answers = texts[::2], texts[1::2]
    return (
        sorted(questions) == sorted(f"q{n}" for n in range(turns))
        and answers == [f"{2 * n + 1} {question}" for n, question in enumerate(questions)]
        and completions[::2] == completions[1::2]
        and len(set(completions)) == turns
    )


async def test_callers_of_one_conversation_at_once_never_interleave():
    async with upstream(counting) as good, calling(good.url) as caller:
        request = CreateConversationRequest()
        id_ = (await caller.conversations.CreateConversation(request)).conversation.id
        await crowd([caller], id_, 16)
        kept = await caller.kept(id_)

    assert is_in_order(kept, 16), kept


async def test_callers_of_two_servers_at_once_never_interleave(postgres: Postgres):
    state = {"database_url": await asyncio.to_thread(postgres.migrated)}
    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(upstream(counting))
        callers = [
            await stack.enter_async_context(calling(good.url, state=state)) for _ in range(2)
        ]
        request = CreateConversationRequest()
        id_ = (await callers[0].conversations.CreateConversation(request)).conversation.id
        await crowd(callers, id_, 12)
        kept = await callers[1].kept(id_)

    assert is_in_order(kept, 12), kept


async def test_one_who_goes_away_lets_the_next_one_speak():
    held = asyncio.Event()

    def script(exchange: Exchange) -> Sequence[Step]:
        if exchange.json["messages"][-1]["content"] == "slow":
            held.set()
            return [Pause(LIMIT_S)]
        return hello(exchange)

    async with upstream(script) as good, calling(good.url) as caller:
        id_ = (await caller.ask(NEW, said("a"))).conversation_id
        slow = asyncio.ensure_future(caller.ask(id_, said("slow")))
        await held.wait()
        next_ = asyncio.ensure_future(caller.ask(id_, said("b")))
        await asyncio.sleep(0)
        slow.cancel()
        await next_
        texts = await caller.texts(id_)

    assert texts == ["a", "Hello", "b", "Hello"]


async def test_what_is_deleted_while_it_is_answered_is_gone_and_the_answer_says_so():
    held, deleted = asyncio.Event(), asyncio.Event()

    async def script(exchange: Exchange) -> Sequence[Step]:
        if exchange.json["messages"][-1]["content"] == "slow":
            held.set()
            await deleted.wait()
        return hello(exchange)

    async with upstream(script) as good, calling(good.url) as caller:
        id_ = (await caller.ask(NEW, said("a"))).conversation_id
        slow = asyncio.ensure_future(caller.ask(id_, said("slow")))
        await held.wait()
        await caller.conversations.DeleteConversation(
            DeleteConversationRequest(conversation_id=id_)
        )
        deleted.set()
        completion = await slow
        gone = await refused(caller.kept(id_))
        ids = await caller.ids()

    assert completion.choices[0].message == said("Hello", ASSISTANT)
    assert [w.code for w in completion.warnings] == ["CONVERSATION_NOT_STORED"]
    assert reason_of(gone) == NOT_FOUND
    assert ids == []


# Whose it is

METHODS: Final[dict[str, Callable[[str], Any]]] = {
    "GetConversation": lambda id_: GetConversationRequest(conversation_id=id_),
    "ListMessages": lambda id_: ListMessagesRequest(conversation_id=id_),
    "DeleteConversation": lambda id_: DeleteConversationRequest(conversation_id=id_),
}


async def told(caller: Caller, id_: str) -> list[tuple[Any, ...]]:
    """How every call that names a conversation is refused."""
    found = []
    calls = [
        getattr(caller.conversations, name)(request(id_), metadata=caller.metadata)
        for name, request in METHODS.items()
    ]
    for work in [*calls, caller.ask(id_, said("hi")), caller.stream(id_, said("hi"))]:
        error = await refused(work)
        found.append((reason_of(error), status_of(error).message))
    return found


async def test_another_organisation_is_told_that_there_is_none():
    async with upstream(hello) as good, calling(good.url, keys=KEYS) as anyone:
        mine, too, other = (anyone.holding(name) for name in ("ACME", "ACME_TOO", "OTHER"))
        id_ = (await mine.ask(NEW, said("secret"))).conversation_id
        there, nowhere, nothing = [await told(other, name) for name in (id_, NOBODYS, "../etc")]
        ids = [await caller.ids() for caller in (mine, too, other)]
        await too.ask(id_, said("of the same organisation"))
        texts = await mine.texts(id_)

    assert there == nowhere == nothing
    assert {reason for reason, _ in there} == {NOT_FOUND}
    assert ids == [[id_], [id_], []]
    assert texts == ["secret", "Hello", "of the same organisation", "Hello"]
    assert len(good.exchanges) == 2


async def test_another_user_of_the_organisation_is_told_that_there_is_none():
    async with upstream(hello) as good, calling(good.url) as caller:
        id_ = (await caller.ask(NEW, said("a"), end_user_id="alice")).conversation_id
        errors = [
            await refused(caller.ask(name, said("b"), end_user_id=user))
            for user in ("bob", "")
            for name in (id_, NOBODYS)
        ]
        await caller.ask(id_, said("c"), end_user_id="alice")
        texts = await caller.texts(id_)

    assert {(reason_of(error), status_of(error).message) for error in errors} == {
        (NOT_FOUND, "no conversation of yours has this id")
    }
    assert texts == ["a", "Hello", "c", "Hello"]


async def test_who_reads_bills_reads_no_conversations():
    async with upstream(hello) as good, calling(good.url, keys=KEYS) as anyone:
        id_ = (await anyone.holding("ACME").ask(NEW, said("a"))).conversation_id
        requests = {name: request(id_) for name, request in METHODS.items()}
        requests |= {
            "CreateConversation": CreateConversationRequest(),
            "ListConversations": ListConversationsRequest(),
        }
        errors = [
            await refused(getattr(anyone.conversations, name)(request, metadata=key("READER")))
            for name, request in requests.items()
        ]

    assert [reason_of(error) for error in errors] == 5 * [
        (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    ]


# The service


async def test_one_is_made_found_listed_and_deleted():
    async with upstream(hello) as good, calling(good.url) as caller:
        stub = caller.conversations
        request = CreateConversationRequest(
            title="Träume", metadata_json='{"a":1}', idempotency_key="once"
        )
        made = [(await stub.CreateConversation(request)).conversation for _ in range(2)]
        id_ = made[0].id
        before = (
            await stub.GetConversation(GetConversationRequest(conversation_id=id_))
        ).conversation
        completion = await caller.ask(id_, said("a"))
        after = (
            await stub.GetConversation(GetConversationRequest(conversation_id=id_))
        ).conversation
        await stub.DeleteConversation(DeleteConversationRequest(conversation_id=id_))
        gone = await refused(stub.GetConversation(GetConversationRequest(conversation_id=id_)))

    assert made[0] == made[1] == before
    assert (before.title, before.metadata_json, before.message_count) == ("Träume", '{"a":1}', 0)
    assert completion.conversation_id == id_
    assert (after.message_count, after.create_time) == (2, before.create_time)
    assert after.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()
    assert reason_of(gone) == NOT_FOUND


async def test_lists_go_on_from_page_to_page():
    async with upstream(hello) as good, calling(good.url) as caller:
        stub = caller.conversations
        made = [await stub.CreateConversation(CreateConversationRequest()) for _ in range(5)]
        ids = [response.conversation.id for response in made]
        for n in range(2):
            await caller.ask(ids[0], said(f"{n}"))
        listed, messages, token = [], [], ""
        while True:
            page = await stub.ListConversations(
                ListConversationsRequest(page_size=2, page_token=token)
            )
            listed.append([conversation.id for conversation in page.conversations])
            if not (token := page.next_page_token):
                break
        while True:
            some = await stub.ListMessages(
                ListMessagesRequest(conversation_id=ids[0], page_size=3, page_token=token)
            )
            messages.append([m.message.parts[0].text for m in some.messages])
            if not (token := some.next_page_token):
                break

    assert listed == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]
    assert messages == [["0", "Hello", "1"], ["Hello"]]


WRONG: Final[Sequence[tuple[str, str, Any, str]]] = [
    ("title", "CreateConversation", CreateConversationRequest(title="x" * 257), ""),
    ("metadata_json", "CreateConversation", CreateConversationRequest(metadata_json="[]"), ""),
    ("idempotency_key", "CreateConversation", CreateConversationRequest(idempotency_key="a"), "b"),
    ("page_size", "ListConversations", ListConversationsRequest(page_size=-1), ""),
    ("page_token", "ListConversations", ListConversationsRequest(page_token="x"), ""),
    ("page_size", "ListMessages", ListMessagesRequest(page_size=-1), ""),
    ("page_token", "ListMessages", ListMessagesRequest(page_token="-1"), ""),
]


async def test_what_is_wrong_is_named():
    found = []
    async with upstream(hello) as good, calling(good.url) as caller:
        for _, method, request, header in WRONG:
            metadata = (("idempotency-key", header),) if header else ()
            call = getattr(caller.conversations, method)
            error = await refused(call(request, metadata=metadata))
            found.append((reason_of(error), fields_of(error)))

    invalid = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert found == [(invalid, [field]) for field, *_ in WRONG]


async def test_a_key_of_another_request_is_a_conflict():
    async with upstream(hello) as good, calling(good.url) as caller:
        create = caller.conversations.CreateConversation
        header = (("idempotency-key", "once"),)
        await create(CreateConversationRequest(title="a"), metadata=header)
        error = await refused(create(CreateConversationRequest(title="b", idempotency_key="once")))

    assert reason_of(error) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")


# Where it is kept, and on the command line


async def test_a_database_of_its_own_keeps_conversations_over_a_restart(tmp_path):
    state = {"database_url": f"sqlite:{tmp_path / 'state.db'}"}
    upgrade(state["database_url"])
    async with upstream(hello) as good:
        async with calling(good.url, state=state) as caller:
            id_ = (await caller.ask(NEW, said("a"))).conversation_id
        async with calling(good.url, state=state) as caller:
            await caller.ask(id_, said("b"))
            texts = await caller.texts(id_)

    assert texts == ["a", "Hello", "b", "Hello"]


@dataclass
class Ended:
    """A command."""

    code: int
    out: str
    err: str


async def test_conversations_on_the_command_line(capsys):
    async def run(*words: str) -> Ended:
        code = await asyncio.to_thread(
            main, ["conversations", *words, "--target", caller.service.grpc_address]
        )
        return Ended(code, *capsys.readouterr())

    async with upstream(hello) as good, calling(good.url) as caller:
        stub = caller.conversations
        request = CreateConversationRequest(title="About \x1b[2J dreams")
        id_ = (await stub.CreateConversation(request)).conversation.id
        await caller.ask(id_, said("two\nlines \x1b[2J"))
        listed = await run("list")
        as_json = await run("list", "--json")
        shown = await run("show", id_)
        short = await run("show", id_, "--limit", "1")
        deleted = await run("delete", id_)
        gone = await run("show", id_)

    header, row = listed.out.splitlines()
    assert header.split() == ["id", "title", "messages", "begun", "last", "said"]
    assert row.startswith(f"{id_}  About \ufffd[2J dreams         2  20")
    assert json.loads(as_json.out)["message_count"] == 2
    assert shown == Ended(0, "user: two\n  lines \ufffd[2J\nassistant: Hello\n", "")
    assert short == Ended(
        0, "user: two\n  lines \ufffd[2J\n", "and more than these 1: see --limit\n"
    )
    assert deleted == Ended(0, f"{id_} is deleted\n", "")
    assert (gone.code, gone.out) == (1, "")
    assert "no conversation of yours has this id" in gone.err


def test_a_database_of_state_is_upgraded_and_checked(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TRUNKLINE_CONFIG", raising=False)
    file = tmp_path / "trunkline.toml"
    database = tmp_path / "state.db"

    def run(*words: str) -> Ended:
        return Ended(main([*words, "--config", str(file)]), *capsys.readouterr())

    def configure(state: str) -> None:
        file.write_text(
            f"[state]\n{state}\n[local]\nenabled = false\n"
            '[[providers]]\nid = "a"\ndialect = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'
            '[[models]]\nid = "m"\nprovider = "a"\n'
        )

    configure(f'database_url = "sqlite:{database}"')
    before = run("serve")
    upgraded = [run("db", "upgrade") for _ in range(2)]
    checked = run("config", "check")
    configure('database_url = "mysql:x"')
    wrong = [run(*words) for words in (("config", "check"), ("db", "upgrade"))]
    configure('database_url_env = "NOT_SET"')
    unset = run("config", "check")

    assert (before.code, before.out) == (2, "")
    assert before.err.startswith("trunkline: state: the database lacks 0001, 0002")
    assert upgraded[0].out.startswith("state: applied 0001\nstate: applied 0002\n")
    assert [ended.out for ended in upgraded[1:]] == ["up to date\n"]
    assert (checked.code, checked.err) == (0, "")
    problem = (
        "trunkline: state.database_url: a database is named as sqlite:PATH or postgresql://...\n"
    )
    assert wrong == 2 * [Ended(2, "", problem)]
    assert unset == Ended(2, "", "trunkline: state: the variable NOT_SET is not set\n")
