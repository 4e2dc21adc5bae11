"""A service whose log lines a test can read, and what the tests of this folder ask it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import msgspec
import structlog

from tests.support.service import SETTINGS
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_service_pb2 import CompleteRequest, StreamOptions
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.app import Service, build, running
from trunkline_server.config import Settings

LIMIT_S: Final = 20.0


@dataclass
class Observed:
    """A running service and its log."""

    service: Service
    lines: list[Mapping[str, Any]]

    def logged(self, event: str) -> list[Mapping[str, Any]]:
        """The lines of one kind."""
        return [line for line in self.lines if line["event"] == event]

    async def request(self) -> Mapping[str, Any]:
        """The line of the one request that was made, once it is there."""
        return await self.told("request")

    async def told(self, event: str) -> Mapping[str, Any]:
        """The one line of this kind, once it is there."""
        async with asyncio.timeout(LIMIT_S):
            while not self.logged(event):  # noqa: ASYNC110 - a list tells nobody
                await asyncio.sleep(0.005)
        (line,) = self.logged(event)
        return line


@asynccontextmanager
async def observed(
    environment: Mapping[str, str] | None = None, **sections: Any
) -> AsyncIterator[Observed]:
    """As `tests.support.service.service`, with a log."""
    tree = {**SETTINGS, **sections}
    tree["server"] = {**SETTINGS["server"], **sections.get("server", {})}
    settings = msgspec.convert(tree, Settings)
    lines: list[Mapping[str, Any]] = []

    def keep(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
        lines.append(dict(event))
        return ""

    log = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[structlog.processors.add_log_level, keep],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    )
    async with running(settings, build(settings, environment or {}), log) as service:
        yield Observed(service, lines)


def spec(model: str = "all", text: str = "hi", **fields: Any) -> CompletionSpec:
    """A question."""
    message = Message(role=Role.ROLE_USER, parts=[Part(text=text)])
    return CompletionSpec(model=model, messages=[message], **fields)


@dataclass
class Streamed:
    """A stream, to its end."""

    events: list[CompleteResponse] = field(default_factory=list)
    head: list[tuple[str, Any]] = field(default_factory=list)
    code: grpc.StatusCode = grpc.StatusCode.OK
    error: grpc.aio.AioRpcError | None = None

    @property
    def kinds(self) -> list[str | None]:
        """What each event is."""
        return [event.WhichOneof("event") for event in self.events]

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(event.text_delta.text for event in self.events)


async def stream(
    service: Service,
    spec: CompletionSpec,
    options: StreamOptions | None = None,
    *,
    timeout_s: float | None = LIMIT_S,
    metadata: tuple[tuple[str, str], ...] = (),
    **request: Any,
) -> Streamed:
    """Asks over a socket and reads to the end."""
    found = Streamed()
    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        call = CompletionServiceStub(channel).Complete(
            CompleteRequest(spec=spec, stream_options=options, **request),
            timeout=timeout_s,
            metadata=metadata,
        )
        try:
            async for event in call:
                found.events.append(event)
        except grpc.aio.AioRpcError as error:
            found.error, found.code = error, error.code()
        found.head = [(str(key), value) for key, value in await call.initial_metadata()]
    return found
