"""Who may do what: everything that the service can be asked, by everyone who might ask it.

Methods and routes are found by looking at the service, and what each may be used for is written down here. So a method
or a route that is new fails these tests until somebody has said who may use it.
"""

import asyncio
import itertools
import json
import random
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.accounts.everything import (
    CALL_S,
    CHANGING,
    METHODS,
    REQUEST_ID,
    Answer,
    Metadata,
    Rpc,
    served,
    text_fields,
    with_text,
)
from tests.edges.observed import spec
from tests.storage.conftest import opened
from tests.support.accounts import ENVIRONMENT, Desk, desk, new_sqlite
from tests.support.upstream import Upstream, hello, upstream
from trunkline.v1.account_service_pb2 import (
    GetBalanceRequest,
    ListLedgerEntriesRequest,
    QueryUsageRequest,
)
from trunkline.v1.admin_service_pb2 import (
    CreateKeyRequest,
    ListAuditEventsRequest,
    ListKeysRequest,
    RotateKeyRequest,
)
from trunkline.v1.completion_service_pb2 import CompleteUnaryRequest, PreviewRouteRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.conversation_service_pb2 import ListMessagesRequest
from trunkline.v1.job_service_pb2 import CreateJobRequest
from trunkline.v1.job_service_pb2_grpc import JobServiceStub
from trunkline_server.accounts.administration import Administration, NewKey
from trunkline_server.accounts.keys import Token, mint, read_token
from trunkline_server.app_accounts import now_us
from trunkline_server.core.errors import PermissionDenied
from trunkline_server.core.plans import Caller, Scope
from trunkline_server.edges.grpc.methods import SERVICES
from trunkline_server.edges.grpc.server import HEALTH, REFLECTIONS

# What may be done, and with which of the scopes. A key with the scope `admin` may do everything.
RPCS: Final[Mapping[str, str]] = {
    "CompletionService/Complete": "complete",
    "CompletionService/CompleteUnary": "complete",
    "CompletionService/PreviewRoute": "complete",
    "CatalogService/ListModels": "complete",
    "CatalogService/GetModel": "complete",
    "AccountService/GetBalance": "read",
    "AccountService/ListLedgerEntries": "read",
    "AccountService/QueryUsage": "read",
    "AdminService/CreateKey": "admin",
    "AdminService/ListKeys": "admin",
    "AdminService/RotateKey": "admin",
    "AdminService/RevokeKey": "admin",
    "AdminService/AdjustCredits": "admin",
    "AdminService/ListAuditEvents": "admin",
    "CacheService/GetCacheStats": "read",
    "CacheService/ClearCache": "complete",
    "CacheService/ReportHit": "complete",
    "CatalogService/ListSkills": "complete",
    "CatalogService/InstallSkill": "complete",
    "CatalogService/UninstallSkill": "complete",
    "JobService/CreateJob": "complete",
    "JobService/GetJob": "complete",
    "JobService/ListJobs": "complete",
    "JobService/CancelJob": "complete",
    "JobService/WatchJob": "complete",
    "ConversationService/CreateConversation": "complete",
    "ConversationService/GetConversation": "complete",
    "ConversationService/ListConversations": "complete",
    "ConversationService/ListMessages": "complete",
    "ConversationService/DeleteConversation": "complete",
}
# What these are asked for is not there, which whoever may do so is told.
ABSENT: Final[Mapping[str, str]] = {
    "CacheService/ReportHit": "INVALID_REQUEST",
    "CatalogService/InstallSkill": "NOT_FOUND",
    "CatalogService/UninstallSkill": "NOT_FOUND",
    "JobService/CreateJob": "INVALID_REQUEST",
    "JobService/GetJob": "JOB_NOT_FOUND",
    "JobService/CancelJob": "JOB_NOT_FOUND",
    "JobService/WatchJob": "JOB_NOT_FOUND",
    "ConversationService/GetConversation": "CONVERSATION_NOT_FOUND",
    "ConversationService/ListMessages": "CONVERSATION_NOT_FOUND",
    "ConversationService/DeleteConversation": "CONVERSATION_NOT_FOUND",
}
# There is nothing behind these yet, which every good key is told, and nobody else.
UNSERVED: Final = {
    "AdminService/ListProviderHealth",
    "AdminService/SetProviderState",
    "AdminService/ReloadConfig",
}
ROUTES: Final[Mapping[tuple[str, str], str]] = {
    ("POST", "/v1/chat/completions"): "complete",
    ("GET", "/v1/models"): "complete",
    ("GET", "/v1/models/"): "complete",
    ("POST", "/v1/complete"): "complete",
    ("GET", "/v1/routing/preview"): "complete",
    ("GET", "/v1/credits/balance"): "read",
    ("GET", "/v1/credits/ledger"): "read",
    ("GET", "/v1/usage"): "read",
    ("POST", "/api/v1/completions"): "complete",
    ("POST", "/api/v1/chat/completions"): "complete",
    ("POST", "/api/v1/research"): "complete",
    ("POST", "/api/v1/video"): "complete",
    ("GET", "/api/v1/jobs/"): "complete",
    ("GET", "/api/v1/skills"): "complete",
    ("POST", "/api/v1/skills"): "complete",
    ("DELETE", "/api/v1/skills"): "complete",
    ("POST", "/api/v1/skills/"): "complete",
    ("DELETE", "/api/v1/skills/"): "complete",
    ("GET", "/api/v1/models"): "complete",
    ("POST", "/api/v1/conversations"): "complete",
    ("GET", "/api/v1/conversations"): "complete",
    ("GET", "/api/v1/conversations/"): "complete",
    ("DELETE", "/api/v1/conversations/"): "complete",
    ("GET", "/livez"): "everyone",
    ("GET", "/readyz"): "everyone",
    ("GET", "/metrics"): "everyone",
}
# What these are asked for is not there, or not a question, which whoever may ask is told.
ANSWERS: Final[Mapping[tuple[str, str], int]] = {
    ("POST", "/api/v1/research"): 501,  # Nobody has set up calling back,
    ("POST", "/api/v1/video"): 501,  # nor videos.
    ("GET", "/api/v1/jobs/"): 404,
    ("POST", "/api/v1/skills"): 404,
    ("DELETE", "/api/v1/skills"): 404,
    ("POST", "/api/v1/skills/"): 404,
    ("DELETE", "/api/v1/skills/"): 404,
    ("POST", "/api/v1/conversations"): 201,
    ("GET", "/api/v1/conversations/"): 404,
    ("DELETE", "/api/v1/conversations/"): 404,
}
# Without a key, to the last path. Health and reflection tell of the program, and of nobody who uses it.
OPEN_ROUTES: Final = {("GET", "/livez"), ("GET", "/readyz"), ("GET", "/metrics")}
OPEN_SERVICES: Final = {HEALTH, *REFLECTIONS}

MESSAGES: Final = [{"role": "user", "content": "hi"}]
BODIES: Final[Mapping[tuple[str, str], tuple[str, Any]]] = {  # What to ask: a query, or a body.
    ("POST", "/v1/chat/completions"): ("", {"model": "m", "messages": MESSAGES}),
    ("GET", "/v1/models/"): ("m", None),
    ("POST", "/v1/complete"): ("", {"messages": MESSAGES, "intent": {"language": "en"}}),
    ("GET", "/v1/routing/preview"): ("?language=en", None),
    ("POST", "/api/v1/completions"): ("", {"prompt": "hi", "mode": "fast"}),
    ("POST", "/api/v1/chat/completions"): ("", {"model": "auto", "messages": MESSAGES}),
    ("POST", "/api/v1/research"): ("", {"prompt": "hi", "callback_url": "http://127.0.0.1:9/"}),
    ("POST", "/api/v1/video"): ("", {"prompt": "hi", "callback_url": "http://127.0.0.1:9/"}),
    ("GET", "/api/v1/jobs/"): ("none", None),
    ("POST", "/api/v1/skills"): ("", {"skillId": "none"}),
    ("DELETE", "/api/v1/skills"): ("", {"skillId": "none"}),
    ("POST", "/api/v1/skills/"): ("none", {}),
    ("DELETE", "/api/v1/skills/"): ("none", None),
    ("POST", "/api/v1/conversations"): ("", {}),
    ("GET", "/api/v1/conversations/"): ("none", None),
    ("DELETE", "/api/v1/conversations/"): ("none", None),
}

GOOD: Final = ("complete", "read", "admin", "another organisation")
SCOPES: Final[Mapping[str, set[str]]] = {
    "complete": {"complete"},
    "read": {"read"},
    "admin": {"complete", "read", "admin"},
    "another organisation": {"complete", "read"},
}
HOUR_US: Final = 3_600_000_000
PEPPER: Final = ENVIRONMENT["PEPPER"].encode()
ALL_SCOPES: Final = ("complete", "read", "admin")


@dataclass(frozen=True)
class House:
    """A service, and everyone who comes to its door: what each of them sends as Authorization."""

    desk: Desk
    upstream: Upstream
    callers: Mapping[str, str]
    spare_id: str

    @property
    def channel(self) -> grpc.aio.Channel:
        return self.desk.channel

    def metadata(self, who: str) -> Metadata:
        sent = self.callers[who]
        return (("authorization", sent),) if sent else ()

    async def audited(self) -> int:
        """How many changes there were."""
        request = ListAuditEventsRequest(page_size=1)
        found = await self.desk.admin.ListAuditEvents(request, metadata=self.desk.root)
        return int(found.events[0].sequence)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """For what says nothing of the database."""
    return new_sqlite(tmp_path)


async def expired_key(url: str) -> str:
    """Made, and ended, before the service started."""
    async with opened(url) as storage:
        then = Administration(
            storage,
            pepper=PEPPER,
            environment="live",
            plans=("default",),
            random=random.SystemRandom().randrange,
            now_us=lambda: now_us() - 2 * HOUR_US,
        )
        new = NewKey("acme", "", "", "default", ALL_SCOPES, now_us() - HOUR_US)
        _, token = await then.create_key(new, Caller(scopes=frozenset(Scope)), "req-0")
        return str(token)


@asynccontextmanager
async def house(url: str) -> AsyncIterator[House]:
    expired = await expired_key(url)
    async with upstream(hello) as provider, desk(url, provider.url) as found:

        async def bearer(organization: str = "acme", *scopes: str) -> str:
            return (await found.new_key(organization, scopes=scopes))[0][1]

        async def created(**fields: Any) -> Any:
            request = CreateKeyRequest(organization="acme", scopes=ALL_SCOPES, **fields)
            return await found.admin.CreateKey(request, metadata=found.root)

        revoked, rotated, spare = await created(), await created(), await created()
        rotate = RotateKeyRequest(key_id=rotated.key.id)
        await found.admin.RotateKey(rotate, metadata=found.root)
        revoke = {method.name: method for method in METHODS}["AdminService/RevokeKey"]
        await revoke.call(found.channel, found.root, served(revoked.key.id)[revoke.name])
        known = read_token(spare.secret)
        assert known is not None
        guess = mint("live", random.SystemRandom().randrange)
        yield House(
            found,
            provider,
            {
                "nobody": "",
                "an empty key": "Bearer",
                "noise": "Bearer nonsense",
                "another scheme": f"Basic {spare.secret}",
                "no scheme": spare.secret,
                "a bad check": f"Bearer {spare.secret[:-1]}{'0' if spare.secret[-1] != '0' else '1'}",
                "two keys": f"Bearer {spare.secret} {spare.secret}",
                "an unknown key": f"Bearer {guess}",
                "a wrong secret": f"Bearer {Token('live', known.id, guess.secret)}",
                "an expired key": f"Bearer {expired}",
                "a revoked key": f"Bearer {revoked.secret}",
                "a rotated key": f"Bearer {rotated.secret}",
                "complete": await bearer("acme", "complete"),
                "read": await bearer("acme", "read"),
                "admin": await bearer("acme", "admin"),
                "another organisation": await bearer("other"),
            },
            spare.key.id,
        )


def expected(needed: str, who: str) -> str:
    """What becomes of it."""
    if who not in GOOD:
        return "INVALID_API_KEY"
    return "OK" if needed in SCOPES[who] else "PERMISSION_DENIED"


# gRPC, over a socket and over the channel that the shims use


def test_every_method_of_the_contract_is_written_down():
    assert {method.name for method in METHODS} == RPCS.keys() | UNSERVED
    assert not RPCS.keys() & UNSERVED
    assert served("").keys() == RPCS.keys()


async def wrong_outcomes(found: House, channel: Any) -> list[tuple[str, str, str]]:
    """Each method by everyone: what became of it where that is not as it is written down."""
    wrong = []
    asked = served(found.spare_id)
    for method in METHODS:
        wanted = {who: expected(RPCS.get(method.name, ""), who) for who in found.callers}
        if method.name in UNSERVED:
            wanted.update(dict.fromkeys(GOOD, "UNIMPLEMENTED"))
        request = asked.get(method.name) or method.request_type()
        refused = [who for who in found.callers if wanted[who] != "OK"]
        others = [who for who in found.callers if wanted[who] == "OK"]
        before = len(found.upstream.exchanges), await found.audited()
        for number, who in enumerate([*refused, *others], start=1):
            answer = await method.call(channel, found.metadata(who), request)
            meant = ABSENT.get(method.name, "OK") if wanted[who] == "OK" else wanted[who]
            if answer.reason != meant:
                wrong.append((method.name, who, answer.reason))
            if number == len(refused):
                after = len(found.upstream.exchanges), await found.audited()
                if after != before:
                    wrong.append((method.name, "who was refused", "had an effect"))
    return wrong


async def test_each_method_is_for_those_whose_key_has_its_scope(url):
    async with house(url) as found:
        assert await wrong_outcomes(found, found.channel) == []


async def test_the_channel_of_the_shims_is_as_closed(sqlite_url):
    async with house(sqlite_url) as found:
        assert await wrong_outcomes(found, found.desk.service.channel) == []


async def test_all_who_are_let_in_by_no_key_are_told_the_same(sqlite_url):
    """Neither the answer nor what goes with it says what is wrong with a key."""
    async with house(sqlite_url) as found:
        for method in METHODS:
            request = served(found.spare_id).get(method.name) or method.request_type()
            answers = {
                who: await method.call(found.channel, found.metadata(who), request)
                for who in found.callers
                if who not in GOOD
            }
            assert len(set(answers.values())) == 1, (method.name, answers)


async def test_only_health_and_reflection_are_open_on_the_grpc_port(sqlite_url):
    async with house(sqlite_url) as found:
        listed = set()
        stub = reflection_pb2_grpc.ServerReflectionStub(found.channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        async for answer in stub.ServerReflectionInfo(iter([ask]), timeout=CALL_S):
            listed = {service.name for service in answer.list_services_response.service}
        health = health_pb2_grpc.HealthStub(found.channel)
        checked = await health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)
        refused = {
            path: (await _raw(found.channel, path, ())).name
            for path in (
                "/trunkline.v1.AdminService/createkey",
                "/trunkline.v1.AdminService/CreateKey/",
                "//trunkline.v1.AdminService/CreateKey",
                "/trunkline.v1.AdminService/",
                "/trunkline.v2.AdminService/CreateKey",
                "/grpc.health.v1.Health/../../trunkline.v1.AdminService/CreateKey",
                "/grpc.channelz.v1.Channelz/GetServers",
                "/",
            )
        }

    assert listed == {service.full_name for service in SERVICES} | OPEN_SERVICES
    assert checked.status == health_pb2.HealthCheckResponse.SERVING
    assert set(refused.values()) <= {"UNAUTHENTICATED", "UNIMPLEMENTED"}


async def _raw(channel: Any, path: str, metadata: Metadata) -> grpc.StatusCode:
    try:
        await channel.unary_unary(path)(b"", metadata=metadata, timeout=CALL_S)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


# HTTP


def http(found: House) -> httpx.AsyncClient:
    address = found.desk.service.http_address
    return httpx.AsyncClient(base_url=f"http://{address}", timeout=CALL_S)


async def asked(client: httpx.AsyncClient, route: tuple[str, str], sent: str) -> httpx.Response:
    """One route, with this Authorization."""
    method, path = route
    tail, body = BODIES.get(route, ("", None))
    headers = {"x-request-id": REQUEST_ID, **({"authorization": sent} if sent else {})}
    content = None if body is None else json.dumps(body)
    return await client.request(method, path + tail, content=content, headers=headers)


REQUEST_IDS: Final = re.compile(r"req_[0-9A-Z]{26}")  # Theo's are the gateway's own.
OUTCOMES: Final = {"OK": 200, "INVALID_API_KEY": 401, "PERMISSION_DENIED": 403}


async def test_each_route_is_for_those_whose_key_has_its_scope(url):
    wrong: list[tuple[tuple[str, str], str, object]] = []
    open_to_nobody = set()
    async with house(url) as found, http(found) as client:
        assert found.desk.service.rest is not None
        routes = found.desk.service.rest.routes
        for route in routes:
            for who, sent in found.callers.items():
                needed = ROUTES.get(route, "not written down")
                wanted = 200 if needed == "everyone" else OUTCOMES[expected(needed, who)]
                before = len(found.upstream.exchanges)

                answer = await asked(client, route, sent)

                meant = ANSWERS.get(route, wanted) if wanted == 200 else wanted
                if answer.status_code != meant:
                    wrong.append((route, who, answer.status_code))
                if wanted != 200 and len(found.upstream.exchanges) != before:
                    wrong.append((route, who, "had an effect"))
                if who == "nobody" and answer.status_code == 200:
                    open_to_nobody.add(route)
    assert wrong == []
    assert set(routes) == ROUTES.keys()
    assert len(routes) == len(set(routes))
    assert open_to_nobody == OPEN_ROUTES


async def test_no_spelling_of_a_path_or_a_host_is_a_way_in(sqlite_url):
    """Handlers are what is protected, not paths: however a path is written, who finds a handler has to pass it."""
    hosts = ("g", "/livez", "g/?", "g#", "g\\@x", "livez@g", "[::1]", "g:80/metrics?", "")
    async with house(sqlite_url) as found:
        assert found.desk.service.rest is not None
        told: list[tuple[str, str, str, str, int]] = []
        for method, path in found.desk.service.rest.routes:
            tail, body = BODIES.get((method, path), ("", None))
            target = path + tail
            for written in (
                target,
                f"/{target}",
                f"/livez/..{target}",
                f"/livez/%2e%2e{target}",
                f"http://g{target}",
                f"http://g/livez?{target}",
                target.replace("/v1", "/v1/.", 1),
                target.replace("/v1", "/%761", 1),
                target.upper(),
                f"{target};/livez",
                f"{target}%00",
                f"{target}#/livez",
            ):
                for host in hosts if written == target else ("g",):
                    outcome = await _status(found, method, written, host, body)
                    told.append((method, path, written, host, outcome))
    let_in = {(method, path, written) for method, path, written, _, status in told if status == 200}
    # What is open stays so under another host, and as long as the path is what it is.
    assert {(method, path) for method, path, _ in let_in} == OPEN_ROUTES | _absolute_livez(let_in)
    assert {status for *_, status in told} <= {200, 400, 401, 404}
    assert found.upstream.exchanges == []


def _absolute_livez(let_in: set[tuple[str, str, str]]) -> set[tuple[str, str]]:
    """`http://g/livez?...` is /livez with a query, whatever the query is."""
    return {
        (method, path) for method, path, written in let_in if written.startswith("http://g/livez?")
    }


async def _status(found: House, method: str, target: str, host: str, body: Any) -> int:
    """Of a request that is written byte by byte. No httpx: it would mend the path."""
    address, _, port = found.desk.service.http_address.rpartition(":")
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
    async with asyncio.timeout(CALL_S):
        reader, writer = await asyncio.open_connection(address, int(port))
        try:
            writer.write(head.encode() + content)
            line = await reader.readline()
        finally:
            writer.close()
    return int(line.split(b" ")[1])


async def test_errors_of_a_route_say_the_same_to_all_without_a_good_key(sqlite_url):
    async with house(sqlite_url) as found, http(found) as client:
        assert found.desk.service.rest is not None
        for route in found.desk.service.rest.routes:
            if route in OPEN_ROUTES:
                continue
            told = set()
            for who, sent in found.callers.items():
                if who not in GOOD:
                    answer = await asked(client, route, sent)
                    kept = [
                        h for h in answer.headers.multi_items() if not h[0].startswith(CHANGING)
                    ]
                    told.add(
                        REQUEST_IDS.sub("", f"{answer.status_code} {answer.text} {sorted(kept)}")
                    )
            assert len(told) == 1, route


# Another organisation


SECRET_ID: Final = "req-of-acme-1"
UNKNOWN_ID: Final = "req-of-nobody"


def the_rpc(name: str) -> Rpc:
    """A method by its name."""
    return next(method for method in METHODS if method.name == name)


async def test_another_organisations_things_look_like_none(url):
    """What acme has, looked for by another organisation, is answered to the byte like what nobody has."""
    async with house(url) as found:
        acme = found.metadata("admin")
        other = found.metadata("another organisation")
        await found.desk.grant(1_000)
        conversation = (
            await CompletionServiceStub(found.channel).CompleteUnary(
                CompleteUnaryRequest(
                    spec=spec("m", conversation_id="new"), idempotency_key="key-of-acme"
                ),
                metadata=(*acme, ("x-request-id", SECRET_ID)),
            )
        ).completion.conversation_id
        made = CreateJobRequest(kind="completion", spec=spec("m"))
        job = (await JobServiceStub(found.channel).CreateJob(made, metadata=acme)).job.id
        preview = the_rpc("CompletionService/PreviewRoute")
        own = await preview.call(found.channel, acme, PreviewRouteRequest(request_id=SECRET_ID))
        messages = the_rpc("ConversationService/ListMessages")
        said = ListMessagesRequest(conversation_id=conversation)
        own_said = await messages.call(found.channel, acme, said)
        pairs: list[tuple[Answer, Answer]] = []
        for method in METHODS:
            if method.name not in RPCS:
                continue
            for path in text_fields(method.request_type):
                known = NAMES_OF_THINGS.get((method.name, path))
                if known is None:
                    continue
                base = served(found.spare_id)[method.name]
                if method.name == preview.name and path == ("request_id",):
                    base = PreviewRouteRequest()
                mine = known.format(spare=found.spare_id, conversation=conversation, job=job)
                theirs, unknown = [
                    await method.call(
                        found.channel, other, with_text(method.request_type, path, text, base)
                    )
                    for text in (mine, UNKNOWN_ID)
                ]
                pairs.append((theirs, unknown))

    assert (own.reason, own_said.reason) == ("OK", "OK")
    assert len(pairs) == len(NAMES_OF_THINGS)
    for theirs, unknown in pairs:
        assert theirs == unknown
        assert theirs.reason in (
            "CONVERSATION_NOT_FOUND",
            "JOB_NOT_FOUND",
            "NOT_FOUND",
            "PERMISSION_DENIED",
        )


# Fields that name what an organisation has, with what is acme's.
NAMES_OF_THINGS: Final[Mapping[tuple[str, tuple[str, ...]], str]] = {
    ("CompletionService/Complete", ("spec", "conversation_id")): "{conversation}",
    ("CompletionService/CompleteUnary", ("spec", "conversation_id")): "{conversation}",
    ("CompletionService/PreviewRoute", ("request_id",)): SECRET_ID,
    ("JobService/GetJob", ("job_id",)): "{job}",
    ("JobService/CancelJob", ("job_id",)): "{job}",
    ("JobService/WatchJob", ("job_id",)): "{job}",
    ("CacheService/GetCacheStats", ("organization",)): "acme",
    ("CacheService/ClearCache", ("organization",)): "acme",
    ("AccountService/GetBalance", ("organization",)): "acme",
    ("AccountService/ListLedgerEntries", ("organization",)): "acme",
    ("AccountService/QueryUsage", ("organization",)): "acme",
    ("AdminService/CreateKey", ("organization",)): "acme",
    ("AdminService/ListKeys", ("organization",)): "acme",
    ("AdminService/RotateKey", ("key_id",)): "{spare}",
    ("AdminService/RevokeKey", ("key_id",)): "{spare}",
    ("AdminService/AdjustCredits", ("organization",)): "acme",
    ("AdminService/ListAuditEvents", ("organization",)): "acme",
    ("ConversationService/GetConversation", ("conversation_id",)): "{conversation}",
    ("ConversationService/ListMessages", ("conversation_id",)): "{conversation}",
    ("ConversationService/DeleteConversation", ("conversation_id",)): "{conversation}",
}
NAMING: Final = ("organization", "key_id", "request_id", "conversation_id", "job_id", "file_id")
# Files are where the model is; to say who would answer, nobody looks into a conversation.
NOT_OURS: Final = {"file_id"}
UNREAD: Final = {
    ("CompletionService/PreviewRoute", ("spec", "conversation_id")),
    ("JobService/CreateJob", ("spec", "conversation_id")),  # The job reads it, as its caller.
}


def test_every_field_that_names_a_thing_is_written_down():
    found = {
        (method.name, path)
        for method in METHODS
        if method.name in RPCS
        for path in text_fields(method.request_type)
        if path[-1] in NAMING and path[-1] not in NOT_OURS
    }

    assert found == NAMES_OF_THINGS.keys() | UNREAD


async def test_lists_hold_what_is_the_organisations_own_alone(url):
    async with house(url) as found:
        acme = found.metadata("admin")
        other = found.metadata("another organisation")
        await found.desk.grant(5_000)
        await found.desk.grant(7_000, "other")
        stub = CompletionServiceStub(found.channel)
        for metadata in (acme, acme, other):
            await stub.CompleteUnary(CompleteUnaryRequest(spec=spec("m")), metadata=metadata)

        account = found.desk.account
        balance = await account.GetBalance(GetBalanceRequest(), metadata=other)
        ledger = await account.ListLedgerEntries(ListLedgerEntriesRequest(), metadata=other)
        usage = await account.QueryUsage(
            QueryUsageRequest(group_by=["key", "project"]), metadata=other
        )
        keys = await found.desk.admin.ListKeys(
            ListKeysRequest(organization="other"), metadata=found.desk.root
        )
        async with http(found) as client:
            headers = {"authorization": found.callers["another organisation"]}
            over_http = [
                (await client.get(path, headers=headers)).json()
                for path in ("/v1/credits/balance", "/v1/credits/ledger", "/v1/usage")
            ]

    assert (balance.organization, balance.available_nanos) == ("other", 7_000)
    assert [entry.amount_nanos for entry in ledger.entries] == [7_000]
    assert [row.group["key"] for row in usage.rows] == [key.id for key in keys.keys]
    assert [row.requests for row in usage.rows] == [1]
    assert over_http[0]["balanceUsd"] == 0.000007
    assert [entry["amountMicroUsd"] for entry in over_http[1]["entries"]] == ["7"]
    assert over_http[2]["totalSessions"] == 1


async def test_an_idempotency_key_is_of_its_organisation(url):
    async with house(url) as found:
        stub = CompletionServiceStub(found.channel)
        request = CompleteUnaryRequest(spec=spec("m"), idempotency_key="the-same")
        different = CompleteUnaryRequest(spec=spec("m", "Else"), idempotency_key="the-same")

        first = stub.CompleteUnary(request, metadata=found.metadata("admin"))
        await first
        again = stub.CompleteUnary(request, metadata=found.metadata("admin"))
        await again
        theirs = stub.CompleteUnary(different, metadata=found.metadata("another organisation"))
        await theirs

        replayed = [
            dict(await call.initial_metadata()).get("idempotent-replayed")
            for call in (first, again, theirs)
        ]
    assert replayed == [None, "true", None]
    assert len(found.upstream.exchanges) == 2


async def test_a_request_id_that_two_use_is_explained_to_each_as_its_own(url):
    async with house(url) as found:
        stub = CompletionServiceStub(found.channel)
        preview = the_rpc("CompletionService/PreviewRoute")
        asked = PreviewRouteRequest(request_id=SECRET_ID)
        other = found.metadata("another organisation")
        await stub.CompleteUnary(
            CompleteUnaryRequest(spec=spec("m")),
            metadata=(*found.metadata("complete"), ("x-request-id", SECRET_ID)),
        )
        before = await preview.call(found.channel, other, asked)

        await stub.CompleteUnary(
            CompleteUnaryRequest(spec=spec("a/m")), metadata=(*other, ("x-request-id", SECRET_ID))
        )

        after = await preview.call(found.channel, other, asked)
        of_acme = await preview.call(found.channel, found.metadata("complete"), asked)
    assert (before.reason, after.reason, of_acme.reason) == ("NOT_FOUND", "OK", "OK")


# What is in a field gives nobody more than they have


SUBSETS: Final = [
    frozenset(chosen) for count in range(4) for chosen in itertools.combinations(Scope, count)
]


@pytest.mark.parametrize("had", SUBSETS, ids=lambda scopes: "+".join(sorted(scopes)) or "none")
async def test_no_key_is_made_with_scopes_that_its_maker_lacks(sqlite_url, had):
    """Also where the door would let them in: the rule is kept by who makes keys."""
    maker = Caller("maker", "acme", scopes=had)
    async with opened(sqlite_url) as storage:
        administration = Administration(
            storage,
            pepper=PEPPER,
            environment="live",
            plans=("default",),
            random=random.SystemRandom().randrange,
            now_us=now_us,
        )
        for wanted in SUBSETS:
            new = NewKey("acme", "", "", "default", tuple(sorted(wanted)), None)
            given = wanted or frozenset({Scope.COMPLETE, Scope.READ})  # By default.
            try:
                key, _ = await administration.create_key(new, maker, "req-1")
            except PermissionDenied:
                assert Scope.ADMIN not in had
                assert not given <= had
            else:
                assert key.scopes == given
                assert Scope.ADMIN in had or given <= had


async def test_no_field_of_a_caller_makes_it_another_one(sqlite_url):
    """Headers and fields that gateways have been known to believe."""
    async with house(sqlite_url) as found, http(found) as client:
        claims = {
            "x-organization": "acme",
            "x-organization-id": "acme",
            "openai-organization": "acme",
            "x-forwarded-user": "root",
            "x-user-role": "admin",
            "x-scopes": "admin",
            "trunkline-peer": "unix:",
            "x-forwarded-for": "127.0.0.1",
        }
        await found.desk.grant(5_000)
        sent = found.callers["another organisation"]
        balance = await found.desk.account.GetBalance(
            GetBalanceRequest(),
            metadata=(("authorization", sent), *claims.items()),
        )
        over_http = await client.get(
            "/v1/credits/balance", headers={"authorization": sent, **claims}
        )
        without_key = await client.get("/v1/credits/balance", headers=claims)

    assert (balance.organization, balance.available_nanos) == ("other", 0)
    assert over_http.json()["balanceUsd"] == 0
    assert without_key.status_code == 401
