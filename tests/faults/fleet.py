"""Services whose every route has a faulty provider first and a healthy one after it.

A breaker belongs to a model. With a model of its own for each request no breaker spares the faulty provider, so that
each request meets the fault; with one model for all, the breaker shows what it is for.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.faults.kinds import FAULTY, HEALTHY, Kind
from tests.faults.upstreams import (
    FaultyUpstream,
    black_hole,
    faulty,
    healthy,
    refusing,
    unknown_authority,
)
from tests.faults.wires import WIRES, Wire
from tests.support.service import model, provider, service
from trunkline_server.app import Service


@dataclass
class Fleet:
    """A service, and by dialect what is behind it."""

    service: Service
    broken: Mapping[str, FaultyUpstream] = field(default_factory=dict)
    well: Mapping[str, FaultyUpstream] = field(default_factory=dict)


def route(wire: str, number: int) -> str:
    """The route of a request: to the faulty provider of a dialect, by a model of its own."""
    return f"{wire}-{number}"


@asynccontextmanager
async def fleet(kind: Kind, models: int) -> AsyncIterator[Fleet]:
    """Three faulty providers and three healthy ones, one of each dialect, and `models` routes over each pair."""
    async with AsyncExitStack() as stack:
        urls: dict[str, str] = {}
        broken: dict[str, FaultyUpstream] = {}
        well: dict[str, FaultyUpstream] = {}
        for wire in WIRES.values():
            urls[wire.name] = await _enter(stack, kind, wire, broken)
            well[wire.name] = await stack.enter_async_context(healthy(wire, HEALTHY))
        sections = _sections(urls, {name: found.url for name, found in well.items()}, models)
        if (patience_s := kind.patience_s) is not None:
            for entry in sections["models"]:
                if entry["provider"].startswith(FAULTY):
                    entry |= {"first_token_timeout_s": patience_s, "idle_timeout_s": patience_s}
        started = await stack.enter_async_context(service(**sections))
        yield Fleet(started, broken, well)


async def _enter(
    stack: AsyncExitStack, kind: Kind, wire: Wire, broken: dict[str, FaultyUpstream]
) -> str:
    if kind.listens == "nobody":
        return stack.enter_context(refusing())
    if kind.listens == "hole":
        return stack.enter_context(black_hole())
    tls = unknown_authority() if kind.listens == "bad certificate" else None
    accepts = "requests" if tls else kind.listens
    broken[wire.name] = await stack.enter_async_context(
        faulty(wire, kind.script, accepts=accepts, tls=tls)
    )
    return broken[wire.name].url


def _sections(urls: Mapping[str, str], well: Mapping[str, str], models: int) -> dict[str, Any]:
    """The next candidate speaks another dialect, so that a mix of two answers would show."""
    found: dict[str, Any] = {"providers": [], "models": [], "routes": []}
    names = list(urls)
    for position, name in enumerate(names):
        following = names[(position + 1) % len(names)]
        found["providers"] += [
            provider(f"{FAULTY}-{name}", urls[name], name),
            provider(f"{HEALTHY}-{name}", well[name], name),
        ]
        found["models"].append(model(f"{HEALTHY}-{name}", f"{HEALTHY}-{name}"))
        for number in range(models):
            found["models"].append(model(f"{FAULTY}-{name}-{number}", f"{FAULTY}-{name}"))
            found["routes"].append(
                {
                    "id": route(name, number),
                    "candidates": [f"{FAULTY}-{name}-{number}", f"{HEALTHY}-{following}"],
                    "strategy": "ordered",
                }
            )
    return found
