"""Addresses that nobody outside may have the gateway connect to, through the whole service: none is connected to.

What the door itself refuses is shown in `tests/egress`; here it is shown that all tools go through it.
"""

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import grpc
import pytest

from tests.edges.observed import spec
from tests.edges.test_server_tools import Turn, World, calls, world
from tests.egress.corpus import denied_addresses, denied_urls
from tests.egress.peers import PUBLIC
from tests.egress.sockets import connections
from tests.support.upstream import Exchange, answer
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_service_pb2 import CompleteRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import BuiltinSource, Tool, ToolOptions, WebhookSource
from trunkline_server.app import Service

pytestmark = pytest.mark.once

AT_ONCE: Final = 32  # Calls of one turn that are run.
DOMAIN: Final = ".rebind.example.com"

Answers = Callable[[str], str]


@contextmanager
def names_lead_to(answers: Answers) -> Iterator[list[str]]:
    """The machine's resolver says this of names in `DOMAIN`; those that it was asked for."""
    asked: list[str] = []
    system = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if not str(host).endswith(DOMAIN):
            return system(host, port, *args, **options)
        asked.append(str(host))
        address = answers(str(host))
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        where = (address, port, 0, 0) if ":" in address else (address, port)
        return [(kind, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        yield asked


async def ask(running: Service, tools: Sequence[Tool]) -> list[CompleteResponse] | str:
    """The events of an answer, or the code of an error."""
    asked = CompleteRequest(spec=spec("m", tool_options=ToolOptions(tools=tools)))
    try:
        stub: Any = CompletionServiceStub(cast(Any, running.channel))
        return [event async for event in stub.Complete(asked)]
    except grpc.aio.AioRpcError as error:
        return error.code().name


def calling_all(exchange: Exchange) -> Turn:
    """A model that calls each of its tools once, and then answers."""
    if exchange.json["messages"][-1]["role"] == "tool":
        return answer("Done.")
    names = [tool["function"]["name"] for tool in exchange.json["tools"]]
    return calls(*((f"c{n}", name, "{}") for n, name in enumerate(names)))


def hooks(urls: Sequence[str]) -> list[Tool]:
    """A webhook for each."""
    return [Tool(name=f"t{n}", webhook=WebhookSource(url=url)) for n, url in enumerate(urls)]


def results(exchange: Exchange) -> list[str]:
    """What the model was told of its calls."""
    return [m["content"] for m in exchange.json["messages"] if m["role"] == "tool"]


async def test_a_request_with_a_webhook_at_an_address_that_is_denied_is_refused():
    urls = sendable(denied_urls())
    async with world(lambda number, exchange: calling_all(exchange)) as found:
        with connections() as tried:
            told = [await ask(found.running.service, hooks([url])) for url in urls]

    assert len(urls) >= 500
    assert set(map(str, told)) == {"INVALID_ARGUMENT"}
    assert elsewhere(tried, found) == []
    assert not found.model.exchanges
    assert not found.tool.exchanges


async def test_a_webhook_at_a_name_that_leads_to_a_denied_address_is_an_error_result():
    addresses = denied_addresses()
    urls = [f"https://n{number}{DOMAIN}/" for number in range(len(addresses))]
    async with world(lambda number, exchange: calling_all(exchange)) as found:
        with (
            names_lead_to(lambda host: addresses[int(host.partition(".")[0][1:])]) as asked,
            connections() as tried,
        ):
            answers = [
                await ask(found.running.service, hooks(some)) for some in batched_of(urls, AT_ONCE)
            ]

    told = [text for exchange in found.model.exchanges for text in results(exchange)]
    assert len(addresses) >= 500
    assert len(asked) == len(set(asked)) == len(addresses)
    assert told == ["the tool could not be reached (ADDRESS_DENIED)"] * len(addresses)
    assert all(not isinstance(events, str) for events in answers)
    assert elsewhere(tried, found) == []


async def test_a_name_that_changes_its_mind_is_looked_up_once_for_each_call():
    """To be checked and to be connected to: an answer that differs the second time would lead inside."""
    flips = {"count": 0}

    def flip(_: str) -> str:
        flips["count"] += 1
        return PUBLIC if flips["count"] % 2 else "127.0.0.1"

    async with world(lambda number, exchange: calling_all(exchange)) as found:
        with names_lead_to(flip) as asked, connections() as tried:
            for _ in range(4):
                await ask(found.running.service, hooks([f"https://n0{DOMAIN}/"]))

    told = [text for exchange in found.model.exchanges for text in results(exchange)]
    assert len(asked) == 4
    assert elsewhere(tried, found) == [(PUBLIC, 443)] * 2
    assert (
        told
        == [
            "the tool could not be reached (CONNECT_FAILED)",
            "the tool could not be reached (ADDRESS_DENIED)",
        ]
        * 2
    )


async def test_http_get_goes_nowhere_but_to_the_operators_hosts():
    urls = sendable(denied_urls())
    fetch = Tool(name="fetch", builtin=BuiltinSource(name="http_get"))
    batches = batched_of(urls, AT_ONCE)

    def script(number: int, exchange: Exchange) -> Turn:
        if exchange.json["messages"][-1]["role"] == "tool":
            return answer("Done.")
        some = batches[number // 2]
        return calls(*((f"c{n}", "fetch", json.dumps({"url": url})) for n, url in enumerate(some)))

    registered = {"name": "r", "builtin": "http_get", "config": {"hosts": ["docs.example.com"]}}
    async with world(script, tools=[registered]) as found:
        with connections() as tried:
            for _ in batches:
                await ask(found.running.service, [fetch])

    told = [text for exchange in found.model.exchanges for text in results(exchange)]
    assert len(urls) >= 500
    assert len(told) == len(urls)
    refused = ("this host is not allowed", "This call was not made: at /url")
    assert [text for text in told if not text.startswith(refused)] == []
    assert elsewhere(tried, found) == []


def sendable(urls: Sequence[str]) -> list[str]:
    """Those that a message of the contract can hold: all but half characters."""
    return [url for url in urls if url.encode(errors="ignore").decode() == url]


def elsewhere(tried: Sequence[tuple[str, int]], found: World) -> list[tuple[str, int]]:
    """Connections that are not to the model."""
    return [where for where in tried if where != ("127.0.0.1", found.model.port)]


def batched_of(items: Sequence[str], count: int) -> list[Sequence[str]]:
    """In groups of so many."""
    return [items[start : start + count] for start in range(0, len(items), count)]
