"""A real service in this process, on ports of its own, with the settings that a test gives."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog

from trunkline_server.app import Service, build, running
from trunkline_server.config import Settings

SETTINGS: dict[str, Any] = {
    "server": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
    "local": {"enabled": False},
    # Learning asks another than the best one of 50 times, so tests of an order go without, and tests of it ask for it.
    "routing": {"learn": False},
}


def provider(name: str, url: str, dialect: str = "openai", **more: Any) -> dict[str, Any]:
    """An entry of `[[providers]]` at a scripted upstream."""
    path = {"anthropic": "/v1", "gemini": "/v1beta"}.get(dialect, "/v1")
    return {"id": name, "dialect": dialect, "base_url": f"{url}{path}", **more}


def model(name: str, provider: str, **more: Any) -> dict[str, Any]:
    """An entry of `[[models]]`."""
    return {"id": name, "provider": provider, **more}


@asynccontextmanager
async def service(
    *, environment: Mapping[str, str] | None = None, **sections: Any
) -> AsyncIterator[Service]:
    """Starts with `sections` over the defaults; stops when the block is left."""
    tree = {**SETTINGS, **sections}
    tree["server"] = {**SETTINGS["server"], **sections.get("server", {})}
    settings = msgspec.convert(tree, Settings)
    parts = build(settings, environment or {})
    log = structlog.wrap_logger(
        structlog.ReturnLogger(), wrapper_class=structlog.make_filtering_bound_logger("critical")
    )
    async with running(settings, parts, log) as started:
        yield started


@asynccontextmanager
async def service_over(*urls: str, **sections: Any) -> AsyncIterator[Service]:
    """Providers a, b, c, ... at these addresses, each with the model `m`, tried in that order as the route `all`."""
    names = "abcdefgh"[: len(urls)]
    found = {
        "providers": [provider(name, url) for name, url in zip(names, urls, strict=True)],
        "models": [model(f"m-{name}", name) for name in names],
        "routes": [
            {"id": "all", "candidates": [f"m-{name}" for name in names], "strategy": "ordered"}
        ],
    }
    async with service(**{**found, **sections}) as started:
        yield started
