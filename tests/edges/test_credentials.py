"""What a provider is sent as a credential: keys, tokens that change, signatures, each only where it belongs."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.edges.observed import observed, spec, stream
from tests.support.service import SETTINGS, model, service
from tests.support.upstream import END, Exchange, Step, chunk, head, hello, upstream, whole
from trunkline_server.app import Parts, Service, build
from trunkline_server.config import ConfigError, Settings
from trunkline_server.doctor import diagnose

RECORDINGS = Path(__file__).parents[1] / "recordings" / "bedrock"
NOVA = "amazon.nova-lite-v1:0"
AWS_HOST = "https://bedrock-runtime.eu-west-1.amazonaws.com"


@pytest.fixture(autouse=True)
def chain(monkeypatch, tmp_path):
    """AWS credentials in the environment, and nothing else of this machine."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return monkeypatch


def bedrock(exchange: Exchange) -> list[Step]:
    """Answers as Bedrock does, in pieces that end anywhere."""
    data = (RECORDINGS / "hello.eventstream").read_bytes()
    pieces = [chunk(data[at : at + 100]) for at in range(0, len(data), 100)]
    kind = "application/vnd.amazon.eventstream"
    return [head(200, kind, "x-amzn-requestid: aws-1"), *pieces, END]


def built(environment: Mapping[str, str] | None = None, **provider: Any) -> Parts:
    """The parts of a configuration with one provider."""
    tree = {**SETTINGS, "providers": [provider], "models": [model("m", provider["id"], model=NOVA)]}
    return build(msgspec.convert(tree, Settings), environment or {})


def headers_of(parts: Parts, name: str = "bedrock") -> dict[str, str]:
    address = parts.providers[name].known_address
    assert address is not None
    return dict(address.headers)


@asynccontextmanager
async def running(
    url: str, environment: Mapping[str, str] | None = None, **provider: Any
) -> AsyncIterator[Service]:
    entry = {"base_url": url, **provider}
    models = [model("m", provider["id"], model=NOVA)]
    async with service(environment=environment, providers=[entry], models=models) as started:
        yield started


async def test_bedrock_is_signed_with_the_credentials_of_the_chain():
    async with (
        upstream(bedrock) as scripted,
        observed(
            providers=[{"id": "bedrock", "base_url": scripted.url, "region": "us-east-1"}],
            models=[model("m", "bedrock", model=NOVA)],
        ) as seen,
    ):
        answer = await stream(seen.service, spec("m"))
        line = await seen.request()

    [exchange] = scripted.exchanges
    authorization = exchange.header("authorization") or ""
    assert exchange.path == "/model/amazon.nova-lite-v1%3A0/converse-stream"
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/us-east-1/bedrock/aws4_request" in authorization
    assert "".join(event.text_delta.text for event in answer.events) == "Héllo, world 👋"
    assert (line["provider"], line["input_tokens"], line["output_tokens"]) == ("bedrock", 9, 6)


async def test_bedrock_takes_an_api_key_without_any_library(chain):
    chain.setitem(sys.modules, "botocore.auth", None)

    async with (
        upstream(bedrock) as scripted,
        running(scripted.url, {"KEY": "abc"}, id="bedrock", api_key_env="KEY") as started,
    ):
        await stream(started, spec("m"))

    [exchange] = scripted.exchanges
    assert exchange.header("authorization") == "Bearer abc"
    assert exchange.header("x-amz-date") is None


async def test_without_credentials_the_attempt_fails_for_them_and_nothing_is_sent(chain):
    chain.delenv("AWS_ACCESS_KEY_ID")
    chain.delenv("AWS_SECRET_ACCESS_KEY")

    async with (
        upstream(bedrock) as scripted,
        observed(
            providers=[{"id": "bedrock", "base_url": scripted.url, "region": "us-east-1"}],
            models=[model("m", "bedrock", model=NOVA)],
        ) as seen,
    ):
        answer = await stream(seen.service, spec("m"))
        [failed] = seen.logged("attempt_failed")

    assert answer.error is not None
    assert scripted.exchanges == []
    assert (failed["failure"], failed["code"]) == ("CREDENTIAL", "no_aws_credentials")


@pytest.mark.parametrize(
    ("provider", "environment", "host"),
    [
        ({"region": "eu-west-1"}, {}, "bedrock-runtime.eu-west-1.amazonaws.com"),
        ({}, {"AWS_REGION": "us-east-2"}, "bedrock-runtime.us-east-2.amazonaws.com"),
        ({}, {"AWS_DEFAULT_REGION": "cn-north-1"}, "bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        ({"base_url": AWS_HOST}, {"AWS_REGION": "x"}, "bedrock-runtime.eu-west-1.amazonaws.com"),
    ],
)
def test_the_region_is_configured_or_in_the_address_or_where_awss_tools_look(
    provider, environment, host
):
    parts = built(environment, id="bedrock", **provider)

    address = parts.providers["bedrock"].known_address
    assert address is not None
    assert address.endpoint.authority == host
    assert set(parts.signers) == {"bedrock"}


@pytest.mark.parametrize(
    ("base_url", "sent"),
    [
        (AWS_HOST, {"authorization": "Bearer abc"}),
        ("https://proxy.test", {}),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com.evil.test", {}),
    ],
)
def test_awss_usual_variable_is_read_for_awss_own_hosts_alone(base_url, sent):
    environment = {"AWS_BEARER_TOKEN_BEDROCK": "abc"}

    parts = built(environment, id="bedrock", base_url=base_url, region="eu-west-1")

    assert headers_of(parts) == sent
    assert (parts.providers["bedrock"].sign is None) == bool(sent)


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ({"id": "bedrock"}, "needs a region or a base_url"),
        ({"id": "bedrock", "base_url": "https://proxy.test"}, "needs a region, because"),
        ({"id": "openai", "region": "us-east-1"}, "only Bedrock has a region"),
        ({"id": "bedrock", "region": "us-east-1", "api_version": "1"}, "only Azure"),
        ({"id": "azure", "base_url": "https://a.test", "token_file": "missing"}, "missing"),
    ],
)
def test_what_can_not_work_is_said_at_the_start(provider, words):
    with pytest.raises(ConfigError, match=words):
        built({"OPENAI_API_KEY": "k"}, **provider)


def test_without_botocore_the_extra_is_named(chain):
    chain.setitem(sys.modules, "botocore.auth", None)

    with pytest.raises(ConfigError, match=r'pip install "trunkline\[bedrock\]"'):
        built(id="bedrock", region="us-east-1")


def test_a_key_that_is_named_and_missing_leaves_the_provider_out():
    parts = built(id="bedrock", region="us-east-1", api_key_env="NOWHERE")

    assert parts.providers == {}
    assert parts.missing == ["bedrock: the variable NOWHERE is not set, so it is left out"]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", "/openai/deployments/gpt/chat/completions?api-version=2024-10-21"),
        ("/openai/v1", "/openai/v1/chat/completions"),
        ("/openai/v1/", "/openai/v1/chat/completions"),
    ],
)
async def test_azure_has_two_forms_of_address(path, asked):
    async with (
        upstream(hello) as scripted,
        service(
            environment={"KEY": "abc"},
            providers=[{"id": "azure", "base_url": scripted.url + path, "api_key_env": "KEY"}],
            models=[model("gpt", "azure")],
        ) as started,
    ):
        await stream(started, spec("gpt"))

    [exchange] = scripted.exchanges
    assert exchange.path == asked
    assert exchange.header("api-key") == "abc"
    assert exchange.json["model"] == "gpt"


async def test_azure_takes_a_token_that_is_renewed_in_a_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("first\n")
    async with (
        upstream(hello) as scripted,
        service(
            environment={"AZURE_OPENAI_API_KEY": "not this one"},
            providers=[{"id": "azure", "base_url": scripted.url, "token_file": str(file)}],
            models=[model("gpt", "azure")],
        ) as started,
    ):
        await stream(started, spec("gpt"))
        fresh = tmp_path / "fresh"
        fresh.write_text("second, longer")
        fresh.replace(file)
        await stream(started, spec("gpt"))

    sent = [exchange.header("authorization") for exchange in scripted.exchanges]
    assert sent == ["Bearer first", "Bearer second, longer"]
    assert [exchange.header("api-key") for exchange in scripted.exchanges] == [None, None]


async def test_azures_retry_after_in_milliseconds_is_kept():
    refused = whole({"error": {"code": "429", "message": "x"}}, 429, "retry-after-ms: 9000")
    async with (
        upstream(refused) as scripted,
        observed(
            {"KEY": "abc"},
            providers=[{"id": "azure", "base_url": scripted.url, "api_key_env": "KEY"}],
            models=[model("gpt", "azure")],
        ) as seen,
    ):
        await stream(seen.service, spec("gpt"))
        failed = seen.logged("attempt_failed")

    assert {(line["failure"], line["retry_after_s"]) for line in failed} == {("THROTTLED", 9.0)}


@pytest.mark.parametrize(("status", "wait_s"), [(429, 7.0), (503, None)])
async def test_a_limit_that_is_used_up_says_how_long_to_stay_away(status, wait_s):
    used_up = ["x-ratelimit-remaining-requests: 0", "x-ratelimit-reset-requests: 7s"]
    refused = whole({"error": {"message": "x"}}, status, *used_up)
    async with (
        upstream(refused) as scripted,
        observed(
            {"KEY": "abc"},
            providers=[{"id": "openai", "base_url": scripted.url, "api_key_env": "KEY"}],
            models=[model("gpt", "openai")],
        ) as seen,
    ):
        await stream(seen.service, spec("gpt"))
        failed = seen.logged("attempt_failed")

    assert {line["retry_after_s"] for line in failed} == {wait_s}


@pytest.mark.parametrize(("has_keys", "said"), [(True, "credentials found"), (False, "no AWS")])
async def test_doctor_says_whether_there_are_credentials(chain, capsys, has_keys, said):
    if not has_keys:
        chain.delenv("AWS_ACCESS_KEY_ID")
        chain.delenv("AWS_SECRET_ACCESS_KEY")
    async with upstream(hello) as scripted:
        provider = {"id": "bedrock", "base_url": scripted.url, "region": "us-east-1"}
        tree = {**SETTINGS, "providers": [provider], "models": [model("m", "bedrock")]}
        settings = msgspec.convert(tree, Settings)

        code = await asyncio.to_thread(diagnose, settings, "", {}, tries=True)

    [line] = [line for line in capsys.readouterr().out.splitlines() if "AWS" in line]
    assert said in line
    assert code == 0
