"""TLS by file on both ports, and clients that ping."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from tests.edges.observed import LIMIT_S, spec
from tests.support.service import model, provider, service, service_over
from tests.support.upstream import hello, upstream
from trunkline import text
from trunkline.v1.completion_service_pb2 import CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline_server.config import ConfigError

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def authority() -> trustme.CA:
    """Whom clients trust."""
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """The keys of `[server]` that turn TLS on, for localhost."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in issued.cert_chain_pems:
        pem.write_to_path(tmp_path / "cert.pem", append=True)
    return {
        "tls_cert_file": str(tmp_path / "cert.pem"),
        "tls_key_file": str(tmp_path / "key.pem"),
    }


def over(url: str) -> dict[str, Any]:
    """The model m at this address."""
    return {"providers": [provider("a", url)], "models": [model("m", "a")]}


async def test_both_ports_speak_tls_with_the_certificate_of_the_files(authority, files):
    roots = authority.cert_pem.bytes()
    trusting = ssl.create_default_context(cadata=roots.decode())
    async with (
        upstream(hello) as good,
        service(server=files, **over(good.url)) as running,
        grpc.aio.secure_channel(
            running.grpc_address, grpc.ssl_channel_credentials(roots)
        ) as channel,
        httpx.AsyncClient(verify=trusting, timeout=LIMIT_S) as http,
    ):
        unary = CompletionServiceStub(channel).CompleteUnary
        answer = await unary(CompleteUnaryRequest(spec=spec("m")), timeout=LIMIT_S)
        url = f"https://{running.http_address}"
        whole = await http.post(f"{url}/v1/chat/completions", json=CHAT)
        async with http.stream(
            "POST", f"{url}/v1/chat/completions", json={**CHAT, "stream": True}
        ) as response:
            streamed = [line async for line in response.aiter_lines()]

    assert text(answer.completion) == "Hello"
    assert whole.json()["choices"][0]["message"]["content"] == "Hello"
    assert streamed[-2:] == ["data: [DONE]", ""]


async def test_who_speaks_no_tls_is_not_served(files):
    async with (
        upstream(hello) as good,
        service(server=files, **over(good.url)) as running,
        grpc.aio.insecure_channel(running.grpc_address) as channel,
        httpx.AsyncClient(timeout=LIMIT_S) as http,
    ):
        unary = CompletionServiceStub(channel).CompleteUnary
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(CompleteUnaryRequest(spec=spec("m")), timeout=LIMIT_S)
        with pytest.raises(httpx.TransportError):
            await http.post(f"http://{running.http_address}/v1/chat/completions", json=CHAT)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert good.exchanges == []


async def test_a_client_that_goes_closes_the_upstream_over_tls_too(authority, files):
    gone = asyncio.Event()

    async def held(_: Any) -> Any:
        await gone.wait()
        return hello(_)

    trusting = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    async with (
        upstream(held) as slow,
        service(server=files, **over(slow.url)) as running,
    ):
        host, port = running.http_address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=trusting)
        body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        async with asyncio.timeout(LIMIT_S):
            while not slow.exchanges:  # noqa: ASYNC110 - a list tells nobody
                await asyncio.sleep(0.005)
            writer.transport.abort()
            while running.admission.in_flight:  # noqa: ASYNC110 - a number tells nobody
                await asyncio.sleep(0.005)
        gone.set()
        await reader.read()


@pytest.mark.parametrize("how", ["empty", "another's key", "an encrypted key"])
def test_files_that_are_no_pair_are_refused_at_the_start(authority, files, how):
    key = Path(files["tls_key_file"])
    if how == "empty":
        key.write_text("")
    elif how == "another's key":
        authority.issue_cert("localhost").private_key_pem.write_to_path(key)
    else:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        sealed = serialization.BestAvailableEncryption(b"secret")
        key.write_bytes(private.private_bytes(pem, pkcs8, sealed))

    async def start() -> None:
        async with service(server=files, **over("http://127.0.0.1:9")):
            raise AssertionError("it must not start")

    with pytest.raises(ConfigError) as caught:
        asyncio.run(start())

    cert = files["tls_cert_file"]
    assert caught.value.problems == [f"server: {cert} and {key} are no certificate and its key"]


@pytest.mark.slow
async def test_a_client_that_pings_every_ten_seconds_keeps_its_connection():
    options = [
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with (
        service_over("http://127.0.0.1:9") as running,
        grpc.aio.insecure_channel(running.grpc_address, options) as channel,
    ):
        await asyncio.wait_for(channel.channel_ready(), LIMIT_S)
        states = []
        for _ in range(45):
            await asyncio.sleep(1)
            states.append(channel.get_state())

    assert set(states) == {grpc.ChannelConnectivity.READY}
