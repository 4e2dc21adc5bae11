"""Secrets and content stay where they belong.

Everything that comes into the service, credentials and requests alike, is marked with a word of its own that occurs
nowhere else. Then all that can go right or wrong with requests is done, against `trunkline serve` in a process of its
own with its log at its lowest level, and every place that keeps or tells something is searched for every mark.
"""

import asyncio
import base64
import json
import re
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import grpc
import httpx
import pytest
from redis.asyncio import Redis

from tests.accounts.process import Process, process
from tests.edges.observed import spec
from tests.edges.test_command import run
from tests.edges.test_server_tools import calls
from tests.support.accounts import PREPAID, PRICES, ROOT, account_sections
from tests.support.postgres import Postgres
from tests.support.redis import RedisServer, redis_server
from tests.support.service import model as configured_model
from tests.support.service import provider
from tests.support.upstream import (
    Exchange,
    Hang,
    Reset,
    Step,
    Upstream,
    answer,
    chunk,
    delta,
    event,
    head,
    message,
    upstream,
    whole,
)
from trunkline.v1.account_service_pb2 import (
    GetBalanceRequest,
    ListLedgerEntriesRequest,
    QueryUsageRequest,
)
from trunkline.v1.account_service_pb2_grpc import AccountServiceStub
from trunkline.v1.admin_service_pb2 import (
    AdjustCreditsRequest,
    CreateKeyRequest,
    ListAuditEventsRequest,
    ListKeysRequest,
    RevokeKeyRequest,
)
from trunkline.v1.admin_service_pb2_grpc import AdminServiceStub
from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec, Tool, ToolOptions, WebhookSource
from trunkline.v1.ledger_pb2 import LedgerKind
from trunkline.v1.message_pb2 import Media, Message, Part, Role, ToolCall, ToolResult
from trunkline_server.accounts.keys import mint

pytestmark = pytest.mark.once

CALL_S: Final = 20.0
SETTLE_S: Final = 0.5
LATE: Final = b'"error":{'
FROZEN_S: Final = 1.5

FAILURES: Final = (
    "do-400",
    "do-401",
    "do-429",
    "do-500",
    "do-nonsense",
    "do-html",
    "do-cut",
    "do-error-inside",
)

# Where a mark may be found, and why. All others may be nowhere.
ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    name: frozenset(where.split())
    for name, where in {
        # Which model was asked for is an operator's business, and an error names the one that is not known.
        "model": "log errors",
        # A mode is an id like a model's; what was resolved is kept for the usage by mode. So is a persona.
        "mode": "requests.mode",
        "persona": "errors",
        # What was said is nobody's business but the caller's: it is kept only where the caller asked for it to be, as
        # the answer of an idempotency key, for a day.
        "answer": "idempotency.response",
        # Kept to be queried by: usage by end user, session and label. Names and values alike.
        "end user": "requests.end_user",
        "session": "requests.session",
        "label name": "request_labels.name",
        "label value": "request_labels.value",
        # The caller's note to the audit log, beside the chain, where it can be erased; and in the answer, which echoes
        # it, where that is kept for an idempotency key.
        "metadata": "audit_private.content idempotency.response",
        # To ask a provider about. It is logged if it is a word, as its error codes are.
        "upstream request id": "log",
        # Kept to be found again.
        "idempotency key": "idempotency.key",
        "operation id": "entries.operation_id audit.details",
        # What administrators write about keys and movements.
        "key name": "keys.name",
        "description": "entries.description",
        # An error names the path that is not there, to who asked for it.
        "path": "errors",
    }.items()
}
FILES: Final = "files"  # Whole files hold whatever any of their tables may.


@dataclass
class Marks:
    """Words that occur nowhere else, by what they mark."""

    words: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.words.setdefault(name, f"Cn{secrets.token_hex(12)}")

    def add(self, name: str, word: str) -> None:
        """One that somebody else has made."""
        self.words[name] = word

    def found_in(self, data: bytes) -> list[str]:
        """Whose marks are there, in plain or encoded as programs do it."""
        return [name for name, word in self.words.items() if any(w in data for w in _forms(word))]


def _forms(word: str) -> Iterable[bytes]:
    plain = word.encode()
    yield plain
    yield plain[::-1]
    yield plain.hex().encode()
    yield word.encode("utf-16-le")
    for before in range(3):  # In base64 it looks different at each of three places.
        cut = base64.b64encode(b"x" * before + plain)
        yield cut[4 if before else 0 : -4]


@dataclass
class World:
    """A service with a mark in all that it is given, and what came of it."""

    marks: Marks
    running: Process
    url: str
    channel: grpc.aio.Channel
    model: Upstream
    tool: Upstream
    redis: RedisServer
    told: list[bytes] = field(default_factory=list)  # Errors, with all that came with them.
    codes: set[str] = field(default_factory=set)
    key: str = ""

    @property
    def root(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.marks['root key']}"),)

    @property
    def caller(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.key}"),)

    @property
    def completions(self) -> Any:
        return CompletionServiceStub(self.channel)

    async def rpc(self, call: Any) -> None:
        """Wait for a call, of either kind, and keep its error."""
        try:
            if isinstance(call, grpc.aio.UnaryStreamCall):
                async for _ in call:
                    pass
            else:
                await call
        except grpc.aio.AioRpcError as error:
            self.codes.add(error.code().name)
            self.told.append((error.details() or "").encode())
            self.told.append((error.debug_error_string() or "").encode())
            for key, value in (
                *(error.initial_metadata() or ()),
                *(error.trailing_metadata() or ()),
            ):
                self.told += [key.encode(), value if isinstance(value, bytes) else value.encode()]
        else:
            self.codes.add("OK")

    def http(self, response: httpx.Response) -> None:
        """The same over HTTP."""
        self.codes.add(str(response.status_code))
        if response.status_code != 200:
            self.told += [response.content, repr(response.headers.multi_items()).encode()]
        else:  # Of a stream that failed late.
            self.told += [line for line in response.content.split(b"\n\n") if LATE in line[:32]]


# What the model does is told by the prompt.


def script(marks: Marks) -> Any:
    def model(exchange: Exchange) -> Sequence[Step]:
        body = exchange.json
        text = json.dumps(body["messages"])
        # Providers have been seen to quote all of this.
        quoted = f"{text} {exchange.header('authorization')} {marks['upstream error']}"
        error = {"error": {"message": quoted, "type": quoted, "code": quoted, "param": quoted}}
        for word, status in (("do-400", 400), ("do-401", 401), ("do-429", 429), ("do-500", 500)):
            if word in text:
                return whole(error, status, f"x-request-id: {marks['upstream request id']}")
        if "do-nonsense" in text:
            return [head(), chunk(f"data: {{{quoted}\n\n"), b"0\r\n\r\n"]
        if "do-html" in text:
            return whole(f"<html>{quoted}</html>", 502)
        if "do-cut" in text:
            return [head(), event(delta(f"{marks['answer']} ")), Reset()]
        if "do-error-inside" in text:
            return [head(), event(delta(marks["answer"])), event(error), b"0\r\n\r\n"]
        if "do-hang" in text:
            return [head(), event(delta(marks["answer"])), Hang()]
        if "do-tool" in text and marks["tool arguments"] not in text:
            return calls(("c-1", "lookup", json.dumps({"q": marks["tool arguments"]})))
        said = f"{marks['answer']} {text}" if "do-echo" in text else marks["answer"]
        return answer(said) if body.get("stream") else message(said)

    return model


def webhook(marks: Marks) -> Any:
    def tool(exchange: Exchange) -> Sequence[Step]:
        if exchange.path.startswith("/broken"):
            return whole({"error": f"{marks['tool result']} {exchange.body.decode()}"}, 500)
        return whole({"result": marks["tool result"]})

    return tool


@pytest.fixture
def canary_url(url: str, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Marks]:
    """The database, with a password that is a mark where it has one."""
    marks = Marks()
    if url.startswith("sqlite:"):
        return url, marks
    server: Postgres = request.getfixturevalue("postgres")
    role = f"canary_{secrets.token_hex(4)}"
    server.execute(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{marks['database password']}'")
    parts = urlsplit(url)
    address = f"{role}:{marks['database password']}@127.0.0.1:{server.port}"
    return parts._replace(netloc=address).geturl(), marks


def _signing(word: str) -> str:
    """A secret as Standard Webhooks writes one."""
    return f"whsec_{base64.b64encode(word.encode()).decode()}"


@asynccontextmanager
async def world(url: str, marks: Marks, folder: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(upstream(script(marks)))
        tool = await stack.enter_async_context(upstream(webhook(marks)))
        redis = stack.enter_context(redis_server(["--requirepass", marks["redis password"]]))
        at_tool = f"127.0.0.1:{tool.port}"
        sections = account_sections(
            "",
            model.url,
            accounts={
                "database_url_env": "DB",
                "redis_url_env": "REDIS",
                "pepper_env": "PEPPER",
                "progress_dir": str(folder / "progress"),
                "alert_url": f"{tool.url}/alert",
                "alert_secret_env": "ALERT",
            },
            keys=[ROOT],
            budgets=[{"id": "low", "organization": "acme", "limit_usd": 0.0001, "hard": False}],
            server={"log_level": "debug"},
        )
        # One for each failure: after some of them nobody would ask the same one again.
        for name in FAILURES:
            sections["providers"].append(provider(name, model.url))
            sections["models"].append(configured_model(name, name, **PRICES))
        sections["models"][0]["modes"] = [marks["mode"]]
        for each in sections["providers"]:
            each["api_key_env"] = "PROVIDER"
        sections["secrets.hook"] = {"env": "HOOK", "hosts": [at_tool]}
        sections["secrets.token"] = {"env": "TOKEN", "hosts": [at_tool]}
        sections["egress"] = {"allowed_hosts": [at_tool]}
        # So that there is something to be kept in Redis for longer than a moment.
        sections["plans"] = [{**PREPAID, "tokens_per_minute": 10**6, "concurrency": 100}]
        environment = {
            "DB": url,
            "REDIS": f"redis://:{marks['redis password']}@127.0.0.1:{redis.port}/0",
            "PEPPER": marks["pepper"] * 2,
            "PROVIDER": marks["provider key"],
            "HOOK": _signing(marks["webhook secret"]),
            "TOKEN": f"Bearer {marks['webhook token']}",
            "ALERT": _signing(marks["alert secret"]),
            "ROOT_KEY": marks["root key"],
            "UNRELATED_SECRET": marks["environment"],
        }
        running = await stack.enter_async_context(process(folder, environment, **sections))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(running.grpc_address))
        yield World(marks, running, url, channel, model, tool, redis)


def asking(marks: Marks, what: str = "") -> CompletionSpec:
    """A request with a mark in everything that can be said."""
    asked = spec(what if what in FAILURES else "m", f"{what} {marks['prompt']}")
    asked.system_prompt = marks["system prompt"]
    asked.end_user_id = marks["end user"]
    asked.session_id = marks["session"]
    asked.mode = "auto"
    asked.labels[marks["label name"]] = marks["label value"]
    asked.metadata_json = json.dumps({"note": marks["metadata"]})
    asked.provider_options_json["*"] = json.dumps({"user": marks["provider option"]})
    asked.sampling.stop.append(marks["stop"])
    asked.messages.insert(0, Message(role=Role.ROLE_USER, parts=[Part(text=marks["earlier turn"])]))
    call = ToolCall(id="c-0", name="lookup", arguments_json=f'{{"q":"{marks["earlier call"]}"}}')
    asked.messages.insert(1, Message(role=Role.ROLE_ASSISTANT, parts=[Part(tool_call=call)]))
    result = ToolResult(tool_call_id="c-0", parts=[Part(text=marks["earlier result"])])
    asked.messages.insert(2, Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=result)]))
    return asked


def with_tool(asked: CompletionSpec, found: World, path: str) -> CompletionSpec:
    """The same with a tool that the service runs."""
    source = WebhookSource(
        url=f"{found.tool.url}/{path}?key={found.marks['webhook query']}",
        secret_ref="hook",
        headers={"x-note": found.marks["webhook header"]},
        auth_header_secret_refs={"authorization": "token"},
    )
    tool = Tool(name="lookup", description=found.marks["tool description"], webhook=source)
    asked.tool_options.CopyFrom(ToolOptions(tools=[tool]))
    return asked


async def administer(found: World) -> None:
    """Make keys and credits, and make them wrong."""
    marks = found.marks
    admin = AdminServiceStub(found.channel)
    for plan, name in (("prepaid", "key"), ("prepaid", "poor key"), ("default", "revoked key")):
        made = await admin.CreateKey(
            CreateKeyRequest(
                organization="poor" if name == "poor key" else "acme",
                name=marks["key name"],
                plan=plan,
            ),
            metadata=found.root,
        )
        marks.add(name, made.secret.split("_")[3])
        if name == "key":
            found.key = made.secret
        if name == "revoked key":
            await admin.RevokeKey(RevokeKeyRequest(key_id=made.key.id), metadata=found.root)
        if name == "poor key":
            poor = (("authorization", f"Bearer {made.secret}"),)
            await found.rpc(
                found.completions.CompleteUnary(
                    CompleteUnaryRequest(spec=asking(marks)), metadata=poor
                )
            )
        else:
            await found.rpc(admin.ListKeys(ListKeysRequest(), metadata=_bearer(made.secret)))
    grant = AdjustCreditsRequest(
        organization="acme",
        kind=LedgerKind.LEDGER_KIND_GRANT,
        amount_nanos=10**12,
        description=marks["description"],
        idempotency_key=marks["operation id"],
    )
    await admin.AdjustCredits(grant, metadata=found.root)
    grant.amount_nanos = 1  # Another movement under the same id.
    await found.rpc(admin.AdjustCredits(grant, metadata=found.root))
    for wrong in (
        CreateKeyRequest(organization=marks["wrong organization"] + "/"),
        CreateKeyRequest(organization="acme", plan=marks["wrong plan"]),
        CreateKeyRequest(organization="acme", scopes=[marks["wrong scope"]]),
        CreateKeyRequest(organization="acme", name=marks["wrong name"] + "\n"),
    ):
        await found.rpc(admin.CreateKey(wrong, metadata=found.root))
    await found.rpc(
        admin.RevokeKey(RevokeKeyRequest(key_id=marks["wrong key id"][:12]), metadata=found.root)
    )
    await found.rpc(
        admin.ListAuditEvents(
            ListAuditEventsRequest(page_token=marks["wrong page token"]), metadata=found.root
        )
    )


def _bearer(secret: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"),)


async def complete(found: World) -> None:
    """All that completions can come to, unary and as streams."""
    marks = found.marks
    asked = [asking(marks, word) for word in ("", *FAILURES)]
    asked += [with_tool(asking(marks, "do-tool"), found, path) for path in ("fine", "broken")]
    for one in asked:
        unary = CompleteUnaryRequest(spec=one)
        await found.rpc(found.completions.CompleteUnary(unary, metadata=found.caller))
        stream = CompleteRequest(spec=one)
        await found.rpc(found.completions.Complete(stream, metadata=found.caller))
    hanging = CompleteRequest(spec=asking(marks, "do-hang"))
    await found.rpc(found.completions.Complete(hanging, metadata=found.caller, timeout=0.3))
    left = found.completions.Complete(hanging, metadata=found.caller)
    async for _ in left:
        break
    left.cancel()
    # The same key: answered, replayed, and a conflict.
    keyed = CompleteUnaryRequest(spec=asking(marks), idempotency_key=marks["idempotency key"])
    for _ in range(2):
        await found.rpc(found.completions.CompleteUnary(keyed, metadata=found.caller))
    keyed.spec.messages[-1].parts[0].text = marks["conflicting prompt"]
    await found.rpc(found.completions.CompleteUnary(keyed, metadata=found.caller))
    # Wrong in every field that is looked at.
    for change in (
        {"model": marks["model"]},
        {"mode": marks["mode"]},
        {"metadata_json": marks["wrong metadata"]},
        {"persona": marks["persona"]},
        {"conversation_id": marks["conversation"]},
        {"skills": [marks["skill"]]},
        {"end_user_id": marks["long end user"] * 20},
        {"labels": {marks["wrong label"] * 20: "x"}},
        {"provider_options_json": {"*": marks["wrong option"]}},
        {"tool_options": ToolOptions(tools=[Tool(name=marks["wrong tool"] + "!")])},
        {
            "tool_options": ToolOptions(
                tools=[Tool(name="t", parameters_schema_json=marks["schema"])]
            )
        },
    ):
        wrong = spec("m", marks["prompt"])
        wrong.MergeFrom(CompletionSpec(**change))
        if "model" in change:
            wrong.model = marks["model"]
        await found.rpc(
            found.completions.CompleteUnary(CompleteUnaryRequest(spec=wrong), metadata=found.caller)
        )
    media = spec("m", marks["prompt"])
    media.messages[0].parts.add(image=Media(url=f"ftp://{marks['media url']}/x"))
    media.messages[0].parts.add(image=Media(data=marks["media"].encode(), mime_type="image/png"))
    await found.rpc(
        found.completions.CompleteUnary(CompleteUnaryRequest(spec=media), metadata=found.caller)
    )


async def come_without_a_key(found: World) -> None:
    """With what is none, and with what is no request."""
    marks = found.marks
    guess = mint("live", secrets.randbelow)
    marks.add("guessed key", guess.secret)
    unary = CompleteUnaryRequest(spec=asking(marks))
    for authorization in (
        marks["noise for a key"],
        f"Bearer {marks['noise for a token']}",
        f"Basic {marks['basic']}",
        f"Bearer {guess}",
        f"Bearer {found.key} {marks['after a key']}",
    ):
        metadata = (
            ("authorization", authorization),
            ("x-api-key", marks["header x-api-key"]),
            ("cookie", marks["cookie"]),
            ("tracestate", f"vendor={marks['tracestate']}"),
            ("idempotency-key", marks["unused idempotency key"]),
        )
        await found.rpc(found.completions.CompleteUnary(unary, metadata=metadata))
    garbage = b"\x0a\xff" + marks["grpc garbage"].encode()
    for path in ("CompletionService/CompleteUnary", f"CompletionService/{marks['method']}"):
        raw: Any = found.channel.unary_unary(f"/trunkline.v1.{path}")
        await found.rpc(raw(garbage, metadata=found.caller, timeout=CALL_S))
    bad_key = CompleteUnaryRequest(spec=spec("m"), idempotency_key=marks["wrong key"] + "\n")
    await found.rpc(found.completions.CompleteUnary(bad_key, metadata=found.caller))
    account = AccountServiceStub(found.channel)
    for call in (
        account.GetBalance(
            GetBalanceRequest(organization=marks["another organization"]), metadata=found.caller
        ),
        account.ListLedgerEntries(
            ListLedgerEntriesRequest(page_token=marks["wrong cursor"]), metadata=found.caller
        ),
        account.QueryUsage(
            QueryUsageRequest(group_by=[marks["wrong group"]]), metadata=found.caller
        ),
    ):
        await found.rpc(call)


async def come_over_http(found: World) -> None:
    """The same through the shims: whole, streamed, malformed, with secrets in all the wrong places."""
    marks = found.marks
    good = {"authorization": f"Bearer {found.key}", "x-session-id": marks["session"]}
    odd = {
        "user-agent": marks["user agent"],
        "cookie": marks["cookie"],
        "referer": f"http://{marks['referer']}/",
        "x-api-key": marks["header x-api-key"],
    }

    def chat(what: str, **more: Any) -> dict[str, Any]:
        said = [{"role": "user", "content": f"{what} {marks['prompt']}"}]
        name = what if what in FAILURES else "m"
        return {"model": name, "messages": said, "user": marks["end user"], **more}

    speko = {
        "messages": [{"role": "user", "content": marks["prompt"]}],
        "intent": {"language": "en"},
    }
    async with httpx.AsyncClient(
        base_url=f"http://{found.running.http_address}", timeout=CALL_S
    ) as client:
        for stream in (False, True):
            for what in ("", *FAILURES):
                body = chat(what, stream=stream)
                found.http(
                    await client.post("/v1/chat/completions", json=body, headers={**good, **odd})
                )
        for path, broken in (
            ("/v1/chat/completions", b'{"messages": "%s", ' % marks["malformed body"].encode()),
            ("/v1/chat/completions", b"\xff\xfe" + marks["malformed body"].encode()),
            (
                "/v1/chat/completions",
                json.dumps(chat("", temperature=marks["wrong type"])).encode(),
            ),
            ("/v1/complete", b"[" * 100 + marks["malformed body"].encode()),
            ("/v1/complete", json.dumps({**speko, "model": {"x": marks["wrong type"]}}).encode()),
            ("/v1/complete", json.dumps(speko).encode()),
        ):
            found.http(await client.post(path, content=broken, headers={**good, **odd}))
        bad = {"authorization": f"Bearer {marks['noise for a token']}"}
        query = f"?key={marks['query']}&api_key={found.key}"
        for path in ("/v1/models", "/v1/credits/balance", "/v1/usage", "/v1/credits/ledger"):
            for headers in (good, bad, {}):
                found.http(await client.get(path + query, headers=headers))
        found.http(await client.get(f"/v1/models/{marks['model']}", headers=good))
        found.http(await client.get(f"/{marks['path']}", headers=good))
        found.http(await client.request("DELETE", f"/v1/models/{marks['path']}", headers=good))
    await _raw_http(found, f"GET /{marks['http garbage']} HTTQ/9\r\nx: {found.key}\r\n\r\n")
    await _raw_http(found, f"POST /v1/complete HTTP/1.1\r\n{'x' * 20_000}{marks['http garbage']}")


async def _raw_http(found: World, text: str) -> None:
    host, _, port = found.running.http_address.rpartition(":")
    async with asyncio.timeout(CALL_S):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(text.encode())
            writer.write_eof()
            found.told.append(await reader.read(65_536))
        except ConnectionError:
            pass
        finally:
            writer.close()


async def lose_the_database(found: World, server: Postgres) -> None:
    """For a while it answers nobody."""
    marks = found.marks
    unary = CompleteUnaryRequest(spec=asking(marks))
    fresh = mint("live", secrets.randbelow)
    marks.add("key while away", fresh.secret)
    server.freeze()
    try:
        asked = [
            asyncio.create_task(
                found.rpc(found.completions.CompleteUnary(unary, metadata=_bearer(str(key))))
            )
            for key in (found.key, fresh)
        ]
        await asyncio.sleep(FROZEN_S)
    finally:
        server.thaw()
    await asyncio.gather(*asked)


async def tables_of(url: str) -> dict[str, bytes]:
    """All that is in the database, by table and column."""
    found: dict[str, bytes] = {}

    def note(table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            for column, value in row.items():
                data = (
                    bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
                )
                name = f"{table}.{column}"
                found[name] = found.get(name, b"") + b"\n" + data

    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:"))) as db:
            db.row_factory = sqlite3.Row
            for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
                note(table, map(dict, db.execute(f'SELECT * FROM "{table}"').fetchall()))
        return found
    connection = await asyncpg.connect(url)
    try:
        for (table,) in await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ):
            note(table, map(dict, await connection.fetch(f'SELECT * FROM "{table}"')))
    finally:
        await connection.close()
    return found


async def kept_in_redis(found: World) -> bytes:
    """Names and values of all keys, as they are."""
    client = Redis(port=found.redis.port, password=found.marks["redis password"])
    try:
        names: list[Any] = await client.keys("*")
        values: list[Any] = [await client.dump(name) for name in names]
    finally:
        await client.aclose()
    return b"\n".join([*names, *values])


def files_of(folder: Path, *, but: Iterable[str] = ()) -> bytes:
    """Everything that the service has written beside its database."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in but]
    return b"\n".join(path.name.encode() + b"\n" + path.read_bytes() for path in found)


async def test_no_secret_and_no_content_is_found_where_it_must_not_be(
    canary_url, request, tmp_path, tmp_path_factory
):
    url, marks = canary_url
    folder = tmp_path if url.startswith("sqlite:") else tmp_path_factory.mktemp("canaries")
    places: dict[str, bytes] = {}
    async with world(url, marks, folder) as found:
        await administer(found)
        await complete(found)
        await come_without_a_key(found)
        await come_over_http(found)
        places["redis"] = await kept_in_redis(found)
        if not url.startswith("sqlite:"):
            await lose_the_database(found, request.getfixturevalue("postgres"))
        await asyncio.sleep(SETTLE_S)
        async with httpx.AsyncClient(timeout=CALL_S) as client:
            for page in ("metrics", "readyz", "livez"):
                told = await client.get(f"http://{found.running.http_address}/{page}")
                places[page] = told.content + repr(told.headers.multi_items()).encode()
        places["files while it runs"] = files_of(folder, but=["trunkline.toml"])
        places["command line"] = _command_line(found.running.process.pid)
        proofs = [exchange.head + exchange.body.decode() for exchange in found.model.exchanges]
        alerts = await _alerts(found)
    places["log"] = bytes(found.running.said)
    places["errors"] = b"\n".join(found.told)
    places["files"] = files_of(folder, but=["trunkline.toml"])
    tables = await tables_of(url)
    places.update(tables)

    leaks = []
    for place, data in places.items():
        for name in marks.found_in(data):
            allowed = ALLOWED.get(name, frozenset())
            in_tables = any("." in where for where in allowed)
            if place not in allowed and not (place.startswith(FILES) and in_tables):
                leaks.append((name, place))
    assert leaks == []
    # The search does find: what may be somewhere is there, and the model was told what it was to be told.
    assert {name for where, data in tables.items() for name in marks.found_in(data)} == {
        name for name, allowed in ALLOWED.items() if any("." in where for where in allowed)
    }
    for name in ("prompt", "provider key", "system prompt", "earlier result", "tool result"):
        assert any(marks[name] in proof for proof in proofs), name
    # And all of it has happened.
    assert found.codes >= EXPECTED_CODES, EXPECTED_CODES - found.codes
    assert re.search(rb'"level":"(warning|error)"', places["log"])
    assert b'"event":"bug"' not in places["log"]
    assert alerts
    empty = [name for name in ("metrics", "redis", "files while it runs") if not places[name]]
    assert empty == []
    assert len(tables) > 40


async def _alerts(found: World) -> list[Exchange]:
    """Those that came, within the time that a busy machine may take to send the first."""
    for _ in range(200):
        if alerts := [e for e in found.tool.exchanges if e.path == "/alert"]:
            return alerts
        await asyncio.sleep(0.1)
    return []


EXPECTED_CODES: Final = {
    *("OK", "INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "UNAVAILABLE"),
    *("ALREADY_EXISTS", "FAILED_PRECONDITION", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "ABORTED"),
    *("200", "400", "401", "404", "502"),
}


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


# Before it runs


URLS: Final = (
    "postgresql://trunkline:{}@127.0.0.1:9/none",
    "postgresql://trunkline:{}@[::1/none",
    "postgresql://trunkline:{}@127.0.0.1:port/none",
    "mysql://trunkline:{}@127.0.0.1/none",
    "{}",
)
COMMANDS: Final = (("config", "check"), ("doctor",), ("db", "upgrade"), ("audit", "verify"))


@pytest.mark.parametrize(
    ("command", "url"),
    [*((("serve",), url) for url in URLS), *zip(COMMANDS, URLS, strict=False)],
)
async def test_a_database_that_can_not_be_used_is_told_without_its_password(command, url, tmp_path):
    marks = Marks()
    (tmp_path / "trunkline.toml").write_text(
        '[accounts]\ndatabase_url_env = "DB"\npepper_env = "PEPPER"\n[local]\nenabled = false\n'
        '[[providers]]\nid = "openai"\napi_key_env = "PROVIDER"\n[[models]]\nid = "m"\nprovider = "openai"\n'
    )
    environment = {
        "DB": url.format(marks["database password"]),
        "PEPPER": marks["pepper"] * 2,
        "PROVIDER": marks["provider key"],
    }

    ended = await run(*command, folder=tmp_path, environment=environment)

    said = (ended.out + ended.err).encode()
    assert marks.found_in(said) == []
    assert said
    assert b"Traceback" not in said
