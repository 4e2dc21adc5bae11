"""Addresses, names and URLs that must lead nowhere, and 0 connections counted at the socket."""

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest

from tests.egress.corpus import denied_addresses, denied_urls, many_addresses
from tests.egress.peers import (
    MAX_BYTES,
    NAME,
    OK,
    PUBLIC,
    Names,
    allowing,
    always,
    door,
    peer,
    post,
    reply,
    told,
)
from tests.egress.sockets import connections
from trunkline_server.tools.egress import Egress, EgressError

REFUSED = {("ADDRESS_DENIED", False), ("URL_INVALID", False)}
URL = f"https://{NAME}/hook"


def checked(egress: Egress, url: str) -> tuple[str, bool] | None:
    """What `check` says of it."""
    try:
        egress.check(url)
    except EgressError as error:
        return error.reason, error.was_sent
    return None


def is_free(host: str, port: int) -> bool:
    """Can a server listen there?"""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return True
    except OSError:
        return False


def test_the_corpus_is_as_large_as_promised():
    assert len(denied_addresses()) >= 500
    assert len(denied_urls()) >= 900


async def test_no_url_of_the_corpus_is_looked_up_or_connected_to():
    names = always("127.0.0.1", "::1", "127.0.0.2")
    egress = door(resolve=names)
    with connections() as tried:
        passed = [url for url in denied_urls() if told(await post(egress, url)) not in REFUSED]

    assert passed == []
    assert names.asked == []
    assert tried == []


def test_checking_alone_refuses_the_same_urls():
    egress = Egress()
    outcomes = {url: checked(egress, url) for url in denied_urls()}

    assert [url for url, outcome in outcomes.items() if outcome not in REFUSED] == []


@pytest.mark.parametrize("place", ["alone", "last", "first"])
async def test_a_name_with_one_denied_address_is_denied_wherever_that_stands(place):
    denied = denied_addresses()
    others = (PUBLIC, "2606:4700::1111")
    answers = {
        "alone": [[address] for address in denied],
        "last": [[*others, address] for address in denied],
        "first": [[address, *others] for address in denied],
    }[place]
    egress = door(resolve=Names(default=answers))
    with connections() as tried:
        outcomes = [told(await post(egress, URL)) for _ in denied]

    assert [
        address
        for address, outcome in zip(denied, outcomes, strict=True)
        if outcome != ("ADDRESS_DENIED", False)
    ] == []
    assert tried == []


@pytest.mark.slow
async def test_a_hundred_thousand_denied_addresses_get_no_connection():
    names = Names(default=[[address] for address in many_addresses(13, 100_000)])
    egress = door(resolve=names)
    with connections() as tried:
        outcomes = {told(await post(egress, URL)) for _ in range(100_000)}

    assert outcomes == {("ADDRESS_DENIED", False)}
    assert len(names.asked) == 100_000
    assert tried == []


async def test_listeners_of_this_machine_are_not_reached_through_names_that_lead_to_them():
    hosts = ("127.0.0.1", "127.0.0.2", "::1")
    if not all(is_free(host, 8443) for host in hosts):
        pytest.skip("something else listens on port 8443, or one of the addresses is missing")
    async with AsyncExitStack() as stack:
        inside = [
            await stack.enter_async_context(peer(reply(OK), host=host, port=8443)) for host in hosts
        ]
        egress = door(resolve=Names(default=[["127.0.0.1"], ["127.0.0.2"], ["::1"]]))
        outcomes = [told(await post(egress, f"https://{NAME}:8443/")) for _ in inside]
        with connections() as tried:  # The same name and port, for an operator who wants it.
            allowed = door([f"{NAME}:8443"], resolve=always("127.0.0.1"))
            reached = told(await post(allowed, f"http://{NAME}:8443/"))

    assert outcomes == [("ADDRESS_DENIED", False)] * 3
    assert reached == 200
    assert tried == [("127.0.0.1", 8443)]
    assert [len(listener.connections) for listener in inside] == [1, 0, 0]


async def test_a_public_name_is_looked_up_once_and_only_its_addresses_are_connected_to():
    names = Names(default=[[PUBLIC, "2606:4700::1111"], ["127.0.0.1"]])
    egress = door(resolve=names)
    with connections() as tried:
        first = told(await post(egress, URL))
        asked = list(names.asked)
        second = told(await post(egress, URL))

    assert first == ("CONNECT_FAILED", False)
    assert tried == [(PUBLIC, 443), ("2606:4700::1111", 443)]
    assert asked == [NAME]
    assert second == ("ADDRESS_DENIED", False)


async def test_rebinding_finds_no_moment_between_the_check_and_the_connection():
    answers = [[PUBLIC], ["127.0.0.1"]] * 50
    names = Names(default=answers)
    egress = door(resolve=names)
    with connections() as tried:
        outcomes = [
            told(outcome) for outcome in await asyncio.gather(*(post(egress, URL) for _ in answers))
        ]

    assert sorted(outcomes) == [("ADDRESS_DENIED", False)] * 50 + [("CONNECT_FAILED", False)] * 50
    assert tried == [(PUBLIC, 443)] * 50


async def test_no_more_than_a_few_addresses_of_a_name_are_tried():
    egress = door(resolve=always(*(f"93.184.216.{number}" for number in range(200))))
    with connections() as tried:
        outcome = told(await post(egress, URL))

    assert outcome == ("CONNECT_FAILED", False)
    assert tried == [(f"93.184.216.{number}", 443) for number in range(4)]


async def test_a_name_with_hundreds_of_addresses_is_denied():
    egress = door(resolve=always(*(f"93.184.{number}.1" for number in range(256)), PUBLIC))
    with connections() as tried:
        outcome = told(await post(egress, URL))

    assert outcome == ("ADDRESS_DENIED", False)
    assert tried == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(status):
    async with peer(reply(OK)) as inside:
        location = f"http://127.0.0.1:{inside.port}/admin"
        head = f"HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
        async with peer(reply(head.encode())) as outside:
            with connections() as tried:
                until_s = asyncio.get_running_loop().time() + 10
                response = await allowing().request(
                    "GET",
                    f"http://{NAME}:{outside.port}/",
                    headers={},
                    until_s=until_s,
                    max_bytes=MAX_BYTES,
                )

    assert (response.status, response.headers["location"]) == (status, location)
    assert tried == [("127.0.0.1", outside.port)]
    assert inside.connections == []


async def test_proxies_and_passwords_of_the_environment_are_not_used(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {NAME} login user password secret\n")
    netrc.chmod(0o600)
    async with peer(reply(OK)) as proxy, peer(reply(OK)) as outside:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NETRC", str(netrc))
        outcome = told(await post(allowing(), f"http://{NAME}:{outside.port}/"))

    assert outcome == 200
    assert proxy.connections == []
    assert b"authorization" not in outside.requests[0].lower()


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("tool.example.com", "http://tool.example.com:{port}/"),
        ("tool.example.com:{port}", "http://TOOL.example.com.:{port}/"),
        ("Tool.Example.Com.", "http://tool.example.com:{port}/"),
        ("redis", "http://redis:{port}/"),
        ("my_service", "http://my_service:{port}/"),
        ("tool.internal", "http://tool.internal:{port}/"),
        ("bücher.example", "http://BÜCHER.example:{port}/"),
        ("xn--bcher-kva.example", "http://bücher。example:{port}/"),
        ("127.0.0.1", "http://127.0.0.1:{port}/"),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}/"),
    ],
)
async def test_a_host_that_the_operator_allowed_is_reached(entry, url):
    async with peer(reply(OK)) as inside:
        egress = door([entry.format(port=inside.port)], resolve=always("127.0.0.1"))
        outcome = told(await post(egress, url.format(port=inside.port)))

    assert outcome == 200
    assert len(inside.requests) == 1


@pytest.mark.parametrize("entry", ["::1", "[::1]", "[0::1]:{port}"])
async def test_an_ipv6_address_that_the_operator_allowed_is_reached(entry):
    if not is_free("::1", 0):
        pytest.skip("no IPv6 here")
    async with peer(reply(OK), host="::1") as inside:
        egress = door([entry.format(port=inside.port)], resolve=always())
        outcome = told(await post(egress, f"http://[::1]:{inside.port}/"))

    assert outcome == 200
    assert f"host: [::1]:{inside.port}".encode() in inside.requests[0].lower()


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("127.0.0.1", "http://2130706433:{port}/"),
        ("127.0.0.1", "http://0x7f.1:{port}/"),
        ("127.0.0.1", "http://127.0.0.01:{port}/"),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]:{port}/"),
        ("127.0.0.1:1", "http://127.0.0.1:{port}/"),
        ("127.0.0.1", "http://tool.example.com:8443/"),
        ("tool.example.com", "http://a.tool.example.com:{port}/"),
        ("tool.example.com", "http://tool.example.com.evil.example:{port}/"),
        ("tool.example.com", "http://atool.example.com:{port}/"),
        ("tool.example.com", "http://user@tool.example.com:{port}/"),
        ("tool.example.com", "ftp://tool.example.com:{port}/"),
        ("tool.example.com", "https://evil.example/?tool.example.com"),
    ],
)
async def test_allowing_a_host_allows_nothing_beside_it(entry, url):
    async with peer(reply(OK)) as inside:
        egress = door([entry], resolve=always("127.0.0.1"))
        with connections() as tried:
            outcome = told(await post(egress, url.format(port=inside.port)))

    assert outcome in REFUSED
    assert tried == []


@pytest.mark.parametrize(
    "entry",
    ["", "http://a.example", "a.example/", "a b", "0x7f.1", "127.1", "[fe80::1%1]", "a:0", "a:b"],
)
def test_an_entry_that_is_no_host_stops_the_start(entry):
    with pytest.raises(ValueError, match="is no HOST or HOST:PORT"):
        door([entry], resolve=always())


def test_plain_http_passes_the_check_only_where_it_is_asked_for():
    egress = Egress()
    egress.check("http://pictures.example.com/a.png", https_only=False)
    egress.check("https://pictures.example.com/a.png", https_only=False)

    for url in ("http://127.0.0.1/a.png", "http://localhost/", "http://a.example:25/"):
        with pytest.raises(EgressError):
            egress.check(url, https_only=False)
    with pytest.raises(EgressError) as caught:
        egress.check("http://pictures.example.com/a.png")
    assert caught.value.reason == "URL_INVALID"


async def test_a_name_that_nobody_knows_is_unresolved():
    async def nobody(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    outcomes = [told(await post(door(resolve=resolve), URL)) for resolve in (nobody, always())]

    assert outcomes == [("UNRESOLVED", False)] * 2


async def test_a_resolver_that_answers_no_address_is_denied():
    with connections() as tried:
        outcome = told(await post(door(resolve=always("localhost")), URL))

    assert outcome == ("ADDRESS_DENIED", False)
    assert tried == []
