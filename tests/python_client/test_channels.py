"""Where a key may travel, and what is said when it may not."""

import grpc
import pytest
import trustme

from tests.python_client.scripted import Gateway
from trunkline import Unavailable
from trunkline.v1.completion_service_pb2 import CompleteUnaryResponse

KEY = "sk-very-secret"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure_gateway(authority: trustme.CA):
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
    with Gateway(credentials) as running:
        running.plays([CompleteUnaryResponse()])
        yield running


@pytest.mark.parametrize(
    "target",
    [
        "gateway.example:50051",
        "dns:///gateway.example:50051",
        "10.0.0.1:50051",
        "[2001:db8::1]:50051",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "localhost.example:50051",
        "127.0.0.1.example:50051",
        "127.0.0.1:1@gateway.example",
        "dns:///gateway.example?/localhost:50051",
        "dns:///gateway.example#/localhost",
        "dns://names.example/localhost:50051",
        "localhost%2egateway.example:50051",
        "\\\\localhost",
        "",
    ],
)
async def test_a_key_does_not_leave_this_machine_in_plaintext(connect, target):
    with pytest.raises(ValueError, match="plaintext") as raised:
        connect(target, api_key=KEY)

    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:50051",
        "127.8.8.8:50051",
        "localhost:50051",
        "LOCALHOST",
        "[::1]:50051",
        "::1",
        "dns:///localhost:50051",
        "ipv4:127.0.0.1:1,127.0.0.2:1",
        "ipv6:[::1]:50051",
        "ipv6:%5B::1%5D:50051",
        "unix:/run/trunkline.sock",
        "unix:///run/trunkline.sock",
        "unix-abstract:trunkline",
    ],
)
async def test_a_key_may_be_used_on_this_machine(connect, target):
    connect(target, api_key=KEY)


async def test_a_caller_may_insist(connect):
    connect("gateway.example:50051", api_key=KEY, allow_insecure_key=True)


async def test_without_a_key_plaintext_is_nobodys_secret(connect):
    connect("gateway.example:50051")


async def test_over_tls_the_key_goes_with_each_call(connect, secure_gateway, authority):
    client = connect(
        f"localhost:{secure_gateway.port}",
        api_key=KEY,
        root_certificates=authority.cert_pem.bytes(),
    )

    await client.complete("Hi")

    assert secure_gateway.calls[0].metadata["authorization"] == f"Bearer {KEY}"


async def test_credentials_of_the_callers_own_are_used(connect, secure_gateway, authority):
    own = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    client = connect(secure_gateway.target, api_key=KEY, channel_credentials=own)

    await client.complete("Hi")

    assert secure_gateway.calls[0].metadata["authorization"] == f"Bearer {KEY}"


async def test_a_stranger_with_a_certificate_of_its_own_gets_no_key(connect, secure_gateway):
    client = connect(
        secure_gateway.target, api_key=KEY, root_certificates=trustme.CA().cert_pem.bytes()
    )

    with pytest.raises(Unavailable) as raised:
        await client.complete("Hi")

    assert secure_gateway.calls == []
    assert KEY not in repr(raised.value) + repr(raised.value.__cause__)


@pytest.mark.parametrize("key", ["", f"{KEY}\n", f"{KEY} ", f"{KEY}é"], ids=ascii)
async def test_a_key_that_is_no_header_is_refused_without_repeating_it(connect, key):
    with pytest.raises(ValueError, match="api_key") as raised:
        connect("127.0.0.1:1", api_key=key)

    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bad name", "x"),
        ("", "x"),
        ("grpc-timeout", "1S"),
        ("Authorization", f"Bearer {KEY}"),
        ("x-text", b"bytes"),
        ("x-bin", "text"),
        ("x-text", f"{KEY}\n"),
    ],
)
async def test_a_header_that_is_none_is_refused_without_repeating_it(gateway, connect, name, value):
    with pytest.raises(ValueError, match=r"header|ASCII|-bin") as at_once:
        connect(gateway.target, metadata={name: value})
    client = connect(gateway.target, api_key=KEY)
    with pytest.raises(ValueError, match=r"header|ASCII|-bin") as later:
        await client.complete("Hi", metadata={name: value})

    assert KEY not in str(at_once.value) + str(later.value)
    assert gateway.calls == []


async def test_a_proxy_of_the_environment_does_not_see_local_calls(gateway, connect, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
    gateway.plays([CompleteUnaryResponse()])

    await connect(gateway.target, api_key=KEY).complete("Hi")

    assert gateway.calls[0].metadata["authorization"] == f"Bearer {KEY}"


async def test_channel_options_of_the_caller_win(gateway, connect):
    client = connect(gateway.target, options={"grpc.primary_user_agent": "checkout/1"})
    gateway.plays([CompleteUnaryResponse()])

    await client.complete("Hi")

    assert str(gateway.calls[0].metadata["user-agent"]).startswith("checkout/1")
