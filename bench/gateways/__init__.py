"""Gateways that can be measured: one module each, named on the command line.

A module has one function, `gateway(place: Place) -> Gateway`. It writes what the gateway needs into
`place.folder` and says how to start it in the foreground and where it answers. The upstream's
models are `burst`, `paced` and `hold`; a gateway that serves them under other names says so in
`models`.
"""

import importlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Where a gateway is set up.

    Attributes:
        folder: empty, its own, gone after the run.
        upstream_port: an OpenAI-dialect provider at http://127.0.0.1:PORT/v1 that takes any key.
        checkout: root of the source tree that is measured, for gateways that are run from it.
    """

    folder: Path
    upstream_port: int
    checkout: Path


@dataclass(frozen=True)
class Gateway:
    """How to start a gateway and ask it.

    Attributes:
        command: runs in the foreground until SIGTERM; it and all its children are measured.
        environment: added to that of the run.
        http_port: serves `path` and `ready_path`.
        ready_path: answers 200 to a GET once the gateway can serve.
        grpc_port: serves trunkline.v1 without TLS; None: the gRPC rows are left out.
        headers: `name: value`, sent with every HTTP request.
        models: names of the upstream's models here, where they differ.
    """

    command: Sequence[str]
    http_port: int
    ready_path: str
    path: str = "/v1/chat/completions"
    grpc_port: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    headers: Sequence[str] = ()
    models: Mapping[str, str] = field(default_factory=dict)


class CannotMeasure(Exception):
    """Something that the run needs is missing; the text says what to do."""


def gateway(name: str, place: Place) -> Gateway:
    """Set up the gateway that `gateways/<name>.py` describes."""
    try:
        module = importlib.import_module(f"gateways.{name}")
    except ModuleNotFoundError as error:
        known = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
        raise CannotMeasure(f"no gateway {name!r}; known: {', '.join(known)}") from error
    described = module.gateway(place)
    assert isinstance(described, Gateway)
    return described


def free_port() -> int:
    """A loopback port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
