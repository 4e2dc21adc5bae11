"""Signatures that AWS would accept, from credentials that are looked for without anybody waiting."""

import asyncio
import sys
import threading

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.session import Session

from tests.providers.specs import ask
from tests.support.upstream import upstream
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure
from trunkline_server.core.ports import Prompt
from trunkline_server.providers import aws
from trunkline_server.providers.aws import NoSigner, Signer, base_url_of, region_of
from trunkline_server.providers.bedrock import BedrockTranslator
from trunkline_server.providers.registry import Address, Provider, Upstreams
from trunkline_server.providers.transport import Endpoint, HttpTransport

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
MODELS = [
    "us.anthropic.claude-opus-4-8",
    "amazon.nova-lite-v1:0",
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0",
]


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Credentials in the environment, and nothing else of this machine."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return monkeypatch


@pytest.fixture
def without_credentials(environment):
    environment.delenv("AWS_ACCESS_KEY_ID")
    environment.delenv("AWS_SECRET_ACCESS_KEY")


def loaded(**options) -> Signer:
    """A signer that has looked for credentials."""
    signer = Signer("bedrock", "us-east-1", "bedrock-runtime.us-east-1.amazonaws.com", **options)
    signer.load()
    return signer


def recomputed(path: str, body: bytes, head: dict[str, str], region: str, scheme: str) -> str:
    """The signature of a request as it arrived, by what its own header says was signed."""
    signed = head["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    request = AWSRequest(
        method="POST",
        url=f"{scheme}://{head['host']}{path}",
        data=body,
        headers={name: head[name] for name in signed if name != "host"},
    )
    auth = SigV4Auth(Credentials(KEY, SECRET), "bedrock", region)
    request.context["timestamp"] = head["x-amz-date"]
    canonical = auth.canonical_request(request)
    return str(auth.signature(auth.string_to_sign(request, canonical), request))


@pytest.mark.parametrize("model", MODELS)
async def test_a_server_that_recomputes_the_signature_of_what_arrives_finds_the_same(model):
    async with upstream([b"HTTP/1.1 400 X\r\ncontent-length: 2\r\n\r\n{}"]) as served:
        endpoint = Endpoint("127.0.0.1", served.port)
        signer = Signer("bedrock", "eu-west-1", endpoint.authority, is_tls=False)
        signer.load()
        address = Address(endpoint, "/base", [])
        provider = Provider("aws", BedrockTranslator(), address, sign=signer)
        transport = HttpTransport()
        upstreams = Upstreams(transport, {"aws": provider}, lambda: "c")
        candidate = Candidate(provider="aws", id="m", model=model, family="bedrock")
        with pytest.raises(UpstreamError):
            await upstreams.open(
                candidate, Prompt(ask(), stream=True), asyncio.get_running_loop().time() + 5
            )
        await transport.__aexit__()

    [exchange] = served.exchanges
    lines = exchange.head.split("\r\n")[1:]
    head = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    signature = head["authorization"].partition("Signature=")[2]
    assert signature == recomputed(exchange.path, exchange.body, head, "eu-west-1", "http")
    assert (
        f"Credential={KEY}/{head['x-amz-date'][:8]}/eu-west-1/bedrock/aws4_request"
        in (head["authorization"])
    )
    assert "SignedHeaders=content-type;host;x-amz-date" in head["authorization"]
    assert len([line for line in lines if line.lower().startswith("host:")]) == 1
    assert len([line for line in lines if line.lower().startswith("content-type:")]) == 1


@pytest.mark.parametrize("model", MODELS)
async def test_the_path_is_the_one_that_botocores_client_asks_for(model):
    seen: list[str] = []
    client = Session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}),
    )

    def stop(request: AWSRequest, **_: object) -> None:
        seen.append(request.url)
        raise StopHere

    client.meta.events.register("before-send.bedrock-runtime", stop)
    with pytest.raises(StopHere):
        client.converse(modelId=model, messages=[{"role": "user", "content": [{"text": "Hi"}]}])

    candidate = Candidate(provider="aws", id="m", model=model, family="bedrock")
    path = BedrockTranslator().encode(candidate, Prompt(ask(), stream=False)).path
    assert seen == [base_url_of("us-east-1") + path]


class StopHere(Exception):
    pass


def test_a_session_token_and_the_providers_own_headers_are_signed(environment):
    environment.setenv("AWS_SESSION_TOKEN", "a-token")

    lines = dict(loaded(headers=[("x-amz-source", "here")])("/model/m/converse", b"{}"))

    assert lines["X-Amz-Security-Token"] == "a-token"
    assert (
        "content-type;host;x-amz-date;x-amz-security-token;x-amz-source" in (lines["Authorization"])
    )
    assert lines.keys() == {"X-Amz-Date", "X-Amz-Security-Token", "Authorization"}


def test_keys_are_not_shown():
    assert SECRET not in repr(aws.Keys(KEY, SECRET, None))


@pytest.mark.usefixtures("without_credentials")
async def test_without_credentials_an_attempt_fails_for_them_until_there_are_some(environment):
    signer = Signer("bedrock", "us-east-1", "h")
    await signer.start()

    with pytest.raises(UpstreamError) as caught:
        signer("/", b"")
    environment.setenv("AWS_ACCESS_KEY_ID", KEY)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    signer.load()

    assert caught.value.failure is Failure.CREDENTIAL
    assert signer.problem == ""
    assert signer("/", b"")
    await signer.stop()


async def test_a_chain_that_hangs_holds_up_neither_start_nor_end(monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(aws, "FIRST_LOAD_S", 0.05)
    monkeypatch.setattr(Session, "get_credentials", lambda self: hangs.wait(30))
    signer = Signer("bedrock", "us-east-1", "h")

    await asyncio.wait_for(signer.start(), 5)
    problem = signer.problem
    await asyncio.wait_for(signer.stop(), 5)

    assert problem == "not looked for yet"
    hangs.set()


async def test_credentials_that_end_are_replaced_in_the_background(monkeypatch):
    found = Renewed()
    monkeypatch.setattr(Session, "get_credentials", lambda self: found)
    monkeypatch.setattr(aws, "REFRESH_S", 0.01)
    signer = Signer("bedrock", "us-east-1", "h")
    await signer.start()

    assert await asyncio.to_thread(found.third.wait, 10)
    credential = dict(signer("/", b""))["Authorization"].partition("Credential=")[2]
    await signer.stop()
    assert int(credential.partition("/")[0].removeprefix("key")) >= 3
    assert threading.main_thread() not in found.threads


class Renewed:
    """Credentials of a role, new at each look."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.third = threading.Event()

    def get_frozen_credentials(self) -> aws.Keys:
        self.threads.append(threading.current_thread())
        if len(self.threads) > 3:  # So the third ones are in use.
            self.third.set()
        return aws.Keys(f"key{len(self.threads)}", "secret", "token")


async def test_keys_serve_on_when_no_new_ones_can_be_had(monkeypatch):
    signer = loaded()

    def fails(self: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(Session, "get_credentials", fails)
    signer.load()

    assert signer.problem == ""
    assert f"Credential={KEY}/" in dict(signer("/", b""))["Authorization"]


def test_a_missing_library_is_told_apart(monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore.auth", None)

    with pytest.raises(NoSigner):
        Signer("bedrock", "us-east-1", "h")


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("bedrock-runtime.us-east-1.amazonaws.com", "us-east-1"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("bedrock-runtime.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("vpce-0a-1b.bedrock-runtime.eu-west-3.vpce.amazonaws.com", "eu-west-3"),
        ("bedrock-runtime.us-west-2.api.aws", "us-west-2"),
        ("bedrock-runtime.us-east-1.amazonaws.com.evil.test", ""),
        ("proxy.test", ""),
        ("", ""),
    ],
)
def test_the_region_is_in_the_name_of_awss_own_hosts(host, region):
    assert region_of(host) == region


@pytest.mark.parametrize("region", ["us-east-1", "us-gov-west-1", "cn-north-1"])
def test_the_address_in_a_region_is_the_one_that_botocore_knows(region):
    client = Session().create_client("bedrock-runtime", region_name=region)

    assert base_url_of(region) == client.meta.endpoint_url
    assert region_of(base_url_of(region).removeprefix("https://")) == region
