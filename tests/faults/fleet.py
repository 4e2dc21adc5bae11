"""Services whose every route has a faulty provider first and a healthy one after it.

A breaker belongs to a model. With a model of its own for each request no breaker spares the faulty provider, so that
each request meets the fault; with one model for all, the breaker shows what it is for.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.faults.kinds import FAULTY, HEALTHY, Kind
from tests.faults.proxy import Fault, Proxy, proxy
from tests.faults.upstreams import (
    Ask,
    FaultyUpstream,
    black_hole,
    faulty,
    healthy,
    refusing,
    unknown_authority,
)
from tests.faults.wires import ENVIRONMENT, WIRES, Wire
from tests.support.service import model, service
from trunkline_server.app import Service


@dataclass
class Fleet:
    """A service, and what is behind it: by the name of the provider."""

    service: Service
    broken: Mapping[str, FaultyUpstream] = field(default_factory=dict)
    proxies: Mapping[str, Proxy] = field(default_factory=dict)
    well: Mapping[str, FaultyUpstream] = field(default_factory=dict)


def route(wire: str, number: int) -> str:
    """The route of a request: to the faulty provider of a dialect, by a model of its own."""
    return f"{wire}-{number}"


@asynccontextmanager
async def fleet(
    *kinds: Kind, models: int, wires: Sequence[str] = tuple(WIRES)
) -> AsyncIterator[Fleet]:
    """A healthy provider of each dialect, a faulty one for each kind too, and `models` routes for each dialect.

    The kinds take turns: the route of number n leads to kind n modulo their number.
    """
    async with AsyncExitStack() as stack:
        broken: dict[str, FaultyUpstream] = {}
        proxies: dict[str, Proxy] = {}
        well: dict[str, FaultyUpstream] = {}
        providers = []
        for wire in (WIRES[name] for name in wires):
            upstream = await stack.enter_async_context(healthy(wire, HEALTHY))
            well[f"{HEALTHY}-{wire.name}"] = upstream
            providers.append(wire.provider(f"{HEALTHY}-{wire.name}", upstream.url))
            for number, kind in enumerate(kinds):
                name = f"{FAULTY}-{wire.name}-{number}"
                url = await broken_provider(stack, kind, wire, name, broken, proxies)
                providers.append(wire.provider(name, url) | _patience(kind))
        sections = _models(len(kinds), models, wires) | {"providers": providers}
        started = await stack.enter_async_context(service(environment=ENVIRONMENT, **sections))
        yield Fleet(started, broken, proxies, well)


def _patience(kind: Kind) -> dict[str, Any]:
    if kind.patience_s is None:
        return {}
    return {"first_token_timeout_s": kind.patience_s, "idle_timeout_s": kind.patience_s}


async def broken_provider(
    stack: AsyncExitStack,
    kind: Kind,
    wire: Wire,
    name: str,
    broken: dict[str, FaultyUpstream],
    proxies: dict[str, Proxy],
) -> str:
    """The URL of a faulty provider."""
    if kind.listens == "nobody":
        return stack.enter_context(refusing())
    if kind.listens == "hole":
        return stack.enter_context(black_hole())
    tls = unknown_authority() if kind.tls else None
    upstream = await stack.enter_async_context(
        faulty(wire, kind.script, tls=tls) if kind.script else healthy(wire, FAULTY, tls=tls)
    )
    broken[name] = upstream
    if kind.network is None and kind.on_accept is None:
        return upstream.url
    fault = kind.network

    def choose(sent: bytes) -> Fault | None:
        if fault is None:
            return None
        # Nothing can be read of what goes through TLS, and nothing has to be.
        return fault(Ask(wire, "", False, "") if kind.tls else Ask.of(wire, sent))

    passing = await stack.enter_async_context(
        proxy(upstream.port, choose, on_accept=kind.on_accept)
    )
    passing.scheme = upstream.scheme
    proxies[name] = passing
    return passing.url


def _models(kinds: int, models: int, names: Sequence[str]) -> dict[str, Any]:
    """The next candidate speaks another dialect, so that a mix of two answers would show."""
    found: dict[str, Any] = {"models": [], "routes": []}
    for position, name in enumerate(names):
        following = names[(position + 1) % len(names)]
        found["models"].append(model(f"{HEALTHY}-{name}", f"{HEALTHY}-{name}"))
        for number in range(models):
            broken = f"{FAULTY}-{name}-{number % kinds}"
            found["models"].append(model(f"{FAULTY}-{name}.{number}", broken))
            found["routes"].append(
                {
                    "id": route(name, number),
                    "candidates": [f"{FAULTY}-{name}.{number}", f"{HEALTHY}-{following}"],
                    "strategy": "ordered",
                }
            )
    return found
