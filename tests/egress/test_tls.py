"""Whom the gateway talks to is proven before it says a word."""

import asyncio
import datetime
import ssl

import pytest
import trustme

from tests.egress.peers import (
    NAME,
    OK,
    Connection,
    allowing,
    always,
    door,
    peer,
    post,
    reply,
    told,
)
from trunkline_server.tools.egress import Egress

MIB = 1024 * 1024
LAST_YEAR = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def served_by(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """A peer that shows it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def test_the_name_is_asked_for_and_verified_though_the_address_was_connected_to(
    trusting, authority
):
    asked = []
    serving = served_by(authority.issue_cert(NAME))
    serving.sni_callback = lambda _, name, __: asked.append(name)
    async with peer(reply(OK), tls=serving) as outside:
        outcome = told(await post(allowing(tls=trusting), f"https://{NAME}:{outside.port}/"))

    assert outcome == 200
    assert asked == [NAME]
    assert f"host: {NAME}:{outside.port}".encode() in outside.requests[0]


async def test_large_requests_and_responses_pass_over_tls(trusting, serving):
    content = bytes(range(256)) * (3 * MIB // 256)

    async def echo(connection: Connection) -> None:
        await connection.take_request()
        body = connection.request.partition(b"\r\n\r\n")[2]
        await connection.say(b"HTTP/1.1 200 OK\r\n\r\n" + body)

    async with peer(echo, tls=serving) as outside:
        url = f"https://{NAME}:{outside.port}/"
        response = await post(allowing(tls=trusting), url, content, max_bytes=4 * MIB)

    assert told(response) == 200
    assert getattr(response, "body", b"") == content


@pytest.mark.parametrize("fault", ["another authority", "another name", "expired", "an address"])
async def test_a_certificate_that_does_not_prove_the_name_ends_it(trusting, authority, fault):
    certificate = {
        "another authority": lambda: trustme.CA().issue_cert(NAME),
        "another name": lambda: authority.issue_cert("other.example.com"),
        "expired": lambda: authority.issue_cert(NAME, not_after=LAST_YEAR),
        "an address": lambda: authority.issue_cert("127.0.0.1"),
    }[fault]()
    async with peer(reply(OK), tls=served_by(certificate)) as outside:
        outcome = told(await post(allowing(tls=trusting), f"https://{NAME}:{outside.port}/"))

    assert outcome == ("TLS_FAILED", False)
    assert outside.requests == []


async def test_the_authorities_of_the_system_are_trusted_by_default_and_no_others(serving):
    async with peer(reply(OK), tls=serving) as outside:
        egress = Egress([NAME], resolve=always("127.0.0.1"))
        outcome = told(await post(egress, f"https://{NAME}:{outside.port}/"))

    assert outcome == ("TLS_FAILED", False)
    assert outside.requests == []


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x16\x03\x03\xff\xff"]
)
async def test_a_peer_that_does_not_speak_tls_ends_it(trusting, said):
    async def plain(connection: Connection) -> None:
        await connection.reader.read(5)
        await connection.say(said)
        connection.writer.close()

    async with peer(plain) as outside:
        outcome = told(await post(allowing(tls=trusting), f"https://{NAME}:{outside.port}/"))

    assert outcome == ("TLS_FAILED", False)


async def test_old_versions_of_tls_are_not_spoken(trusting, authority):
    old = served_by(authority.issue_cert(NAME))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match=r"TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with peer(reply(OK), tls=old) as outside:
        outcome = told(await post(allowing(tls=trusting), f"https://{NAME}:{outside.port}/"))

    assert outcome == ("TLS_FAILED", False)


async def test_a_handshake_that_never_ends_is_left_when_the_time_is_over(trusting):
    async def mute(connection: Connection) -> None:
        await connection.wait_until_gone()

    async with peer(mute) as outside:
        url = f"https://{NAME}:{outside.port}/"
        outcome = told(await post(allowing(tls=trusting), url, limit_s=0.15))
        async with asyncio.timeout(2):
            await outside.gone.wait()

    assert outcome == ("TIMEOUT", False)


async def test_a_certificate_for_an_allowed_address_is_verified_too(trusting, authority):
    outcomes = []
    for name in ("127.0.0.1", NAME):
        async with peer(reply(OK), tls=served_by(authority.issue_cert(name))) as outside:
            egress = door(["127.0.0.1"], resolve=always(), tls=trusting)
            outcomes.append(told(await post(egress, f"https://127.0.0.1:{outside.port}/")))

    assert outcomes == [200, ("TLS_FAILED", False)]


def test_a_context_that_does_not_verify_is_refused():
    blind = ssl.create_default_context()
    blind.check_hostname = False
    careless = ssl.create_default_context()
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE

    for context in (blind, careless):
        with pytest.raises(ValueError, match="must verify"):
            Egress(tls=context)
