"""`trunkline doctor`: what is configured, what is reachable, what is missing, and how to fix it."""

import importlib.metadata
import platform
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

import httpx

from trunkline_server.app import Parts, build
from trunkline_server.app_providers import provider_addresses
from trunkline_server.config import ConfigError, Settings, is_loopback, split_address

TIMEOUT_S: Final = 5.0
OK: Final = "ok     "
WARN: Final = "warning"
FAIL: Final = "FAILED "


def diagnose(
    settings: Settings, source: str, environment: Mapping[str, str], *, tries: bool
) -> int:
    """Print one line a check; 0 when a request could be answered."""
    failed = False
    for level, line in _checks(settings, source, environment, tries):
        failed = failed or level == FAIL
        print(f"{level}  {line}")
    return 1 if failed else 0


def _checks(
    settings: Settings, source: str, environment: Mapping[str, str], tries: bool
) -> Iterator[tuple[str, str]]:
    yield (
        OK,
        f"Python {platform.python_version()}, trunkline {importlib.metadata.version('trunkline')}",
    )
    yield (
        OK,
        f"configuration: {source or 'none, so defaults (write trunkline.toml to change them)'}",
    )
    try:
        parts = build(settings, environment)
    except ConfigError as error:
        for problem in error.problems:
            yield FAIL, problem
        return
    for missing in parts.missing:
        yield WARN, missing
    if settings.keys:
        yield OK, f"{len(settings.keys)} keys"
    elif is_loopback(settings.server.grpc) and is_loopback(settings.server.http):
        yield OK, "no keys: open to this machine only (add [[keys]] to listen elsewhere)"
    for name in ("grpc", "http"):
        yield _port(name, getattr(settings.server, name))
    if parts.local is not None:
        yield OK, "embedded model: installed, starts with the first request that needs it"
    if tries:
        yield from _reach(parts)
        yield from _credentials(parts)
    if parts.candidates:
        names = ", ".join(sorted({c.provider for c in parts.candidates}))
        yield OK, f"{len(parts.candidates)} models at {names}"
    else:
        yield (
            FAIL,
            "no model is enabled: set a provider's key (such as OPENAI_API_KEY), or install trunkline[local]",
        )


def _port(name: str, address: str) -> tuple[str, str]:
    if address.startswith("unix:"):
        return OK, f"{name}: {address}"
    host, port = split_address(address)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return (
                WARN,
                f"{name}: {address} is not free ({error.strerror}): is the service running already?",
            )
    return OK, f"{name}: {address} is free"


def _credentials(parts: Parts) -> Iterator[tuple[str, str]]:
    """Look for the credentials of those whose requests are signed."""
    for provider, signer in parts.signers.items():
        signer.load()
        if signer.problem:
            yield WARN, f"{provider}: no AWS credentials ({signer.problem})"
        else:
            yield OK, f"{provider}: AWS credentials found"


def _reach(parts: Parts) -> Iterator[tuple[str, str]]:
    """Open a connection to each provider. Nothing is asked of it: a request could cost money."""
    for provider, url in provider_addresses(parts.providers):
        host = urlsplit(url).hostname
        try:
            with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
                client.head(url)
            yield OK, f"{provider}: {host} answers"
        except (httpx.HTTPError, ssl.SSLError, OSError) as error:
            reason = type(error).__name__
            yield (
                WARN,
                f"{provider}: {host} can't be reached ({reason}); check base_url, DNS and the firewall",
            )
