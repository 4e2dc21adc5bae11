"""A gateway that plays the cases: a real gRPC server on loopback, in a thread and with a loop of its own.

A call names its case in the header `x-case`; the first call of a case plays its first script, the second its second.
Messages go out as bytes, so that a script can say what this contract does not know.

    python -m tests.conformance.server FOLDER    plays the cases of a folder, says where, and stops when stdin ends
"""

import asyncio
import socket
import struct
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Final, TypeAlias

import grpc
import grpc.aio
from google.protobuf.json_format import ParseDict
from google.rpc import error_details_pb2, status_pb2

from tests.conformance.cases import RPCS, Case, Fail, Step, read_cases
from trunkline.v1.completion_event_pb2 import CompleteResponse, StreamCompleted, TextDelta
from trunkline.v1.completion_pb2 import Completion

READY_S: Final = 20.0
HOLD_S: Final = 30.0
READ_BYTES: Final = 65_536
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),
    # As the gateway has it: clients may ping a connection on which no stream sends anything.
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


@dataclass
class Call:
    """One call as the gateway saw it."""

    rpc: str
    headers: Mapping[str, str | bytes]
    request: bytes
    time_remaining_s: float | None
    began_at_s: float
    ended_at_s: float | None = None
    told: int = 0
    """Messages that the transport has taken."""


@dataclass
class Played:
    """One case, and the calls that came of it."""

    scripts: Sequence[Sequence[Step]]
    calls: list[Call] = field(default_factory=list)
    encoded: dict[tuple[int, str], list[list[bytes]]] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Have all calls ended?"""
        return all(call.ended_at_s is not None for call in self.calls)

    def wait_until_over(self, limit_s: float) -> bool:
        """Whether all calls ended in this time."""
        end_s = monotonic() + limit_s
        while not self.is_over and monotonic() < end_s:
            sleep(0.002)
        return self.is_over


class Gateway:
    """The server. Its methods may be called in any thread."""

    def __init__(self) -> None:
        self.port = 0
        self.tls_port = 0
        self.relay_port = 0
        self._cases: dict[str, Played] = {}
        self._relayed: set[asyncio.StreamWriter] = set()

    def play(self, case: Case, key: str = "") -> Played:
        """Begins a case, whose calls come with the header x-case: key."""
        played = Played(case.server)
        self._cases[key or case.name] = played
        return played

    def forget(self, key: str) -> None:
        """Ends a case; further calls of it are refused."""
        del self._cases[key]

    @asynccontextmanager
    async def serving(self, tls: grpc.ServerCredentials | None) -> AsyncIterator[None]:
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers([_Handlers(self)])
        self.port = server.add_insecure_port("127.0.0.1:0")
        if tls is not None:
            self.tls_port = server.add_secure_port("127.0.0.1:0", tls)
        await server.start()
        relay = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.relay_port = relay.sockets[0].getsockname()[1]
        async with AsyncExitStack() as closing:
            closing.push_async_callback(server.stop, None)
            closing.callback(self._drop)
            closing.callback(relay.close)
            yield

    async def answer(
        self, rpc: str, request: bytes, context: Context
    ) -> AsyncGenerator[bytes, None]:
        headers = dict(context.invocation_metadata() or ())
        played = self._cases.get(str(headers.get("x-case")))
        if played is None or not played.scripts:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no case of this name has a script")
        call = Call(rpc, headers, request, context.time_remaining(), monotonic())
        played.calls.append(call)
        number = min(len(played.calls), len(played.scripts)) - 1
        script = played.scripts[number]
        if (number, rpc) not in played.encoded:
            played.encoded[number, rpc] = encoded(rpc, script)
        try:
            for step, messages in zip(script, played.encoded[number, rpc], strict=True):
                for message in messages:
                    yield message
                    call.told += 1
                if not messages:
                    await self._do(step, context)
        finally:
            call.ended_at_s = monotonic()

    async def _do(self, step: Step, context: Context) -> None:
        if step.headers is not None:
            await context.send_initial_metadata(tuple(step.headers.items()))
        elif step.pause_s is not None:
            await asyncio.sleep(step.pause_s)
        elif step.hold:
            await asyncio.sleep(HOLD_S)
        elif step.drop:
            # What was said before is to arrive, as far as a connection that breaks lets it.
            await asyncio.sleep(0.1)
            self._drop()
            await asyncio.sleep(HOLD_S)
        elif step.fail is not None:
            await _fail(step.fail, context)

    def _drop(self) -> None:
        """Resets all connections that came through the relay."""
        for writer in tuple(self._relayed):
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client: socket.socket = writer.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        there, here = await asyncio.open_connection("127.0.0.1", self.port)
        self._relayed.update((writer, here))
        try:
            await asyncio.gather(_copy(reader, here), _copy(there, writer))
        finally:
            for end in (writer, here):
                self._relayed.discard(end)
                end.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


class _Handlers(grpc.GenericRpcHandler):
    """All methods of the contract, as bytes. One response is a stream of one on the wire."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def service(
        self, call: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        rpc = call.method.rpartition("/")[2]
        if rpc not in RPCS:
            return None

        # The library asks whether this very function is an async generator.
        async def answer(request: bytes, context: Context) -> AsyncIterator[bytes]:
            async with aclosing(self._gateway.answer(rpc, request, context)) as messages:
                async for message in messages:
                    yield message

        return grpc.unary_stream_rpc_method_handler(answer)


def encoded(rpc: str, script: Sequence[Step]) -> list[list[bytes]]:
    """For each step the messages that it says, none where it does something else. Events are numbered."""
    kind = RPCS[rpc][1]
    sequence = 0
    steps: list[list[bytes]] = []
    for step in script:
        messages: list[bytes] = []
        for event in _events(step):
            sequence += 1
            event.sequence = sequence
            messages.append(event.SerializeToString())
        if step.message is not None:
            messages.append(ParseDict(step.message, kind()).SerializeToString())
        elif step.raw_hex is not None:
            messages.append(bytes.fromhex(step.raw_hex))
        steps.append(messages)
    return steps


def _events(step: Step) -> Iterator[CompleteResponse]:
    if step.event is not None:
        yield ParseDict(step.event, CompleteResponse())
    elif step.text is not None:
        yield CompleteResponse(text_delta=TextDelta(text=step.text))
    elif step.done is not None:
        completion = ParseDict(step.done, Completion())
        yield CompleteResponse(completed=StreamCompleted(completion=completion))
    elif step.repeat is not None:
        text = "x" * step.repeat.chars
        for _ in range(step.repeat.count):
            yield CompleteResponse(text_delta=TextDelta(text=text))


async def _fail(fail: Fail, context: Context) -> None:
    code = grpc.StatusCode[fail.code]
    trailing: list[tuple[str, str | bytes]] = []
    if fail.pushback_ms:
        trailing.append(("grpc-retry-pushback-ms", fail.pushback_ms))
    details = status_bytes(fail) if fail.details_hex is None else bytes.fromhex(fail.details_hex)
    if details:
        trailing.append(("grpc-status-details-bin", details))
    context.set_trailing_metadata(tuple(trailing))
    await context.abort(code, fail.message)


def status_bytes(fail: Fail) -> bytes:
    """The google.rpc.Status of a failure of the gateway's; nothing where the failure is somebody else's."""
    status = status_pb2.Status(code=grpc.StatusCode[fail.code].value[0], message=fail.message)
    if fail.reason:
        info = error_details_pb2.ErrorInfo(
            reason=fail.reason, domain=fail.domain, metadata=fail.metadata
        )
        if fail.padding_chars:
            info.metadata["padding"] = "x" * fail.padding_chars
        status.details.add().Pack(info)
    if fail.request_id:
        status.details.add().Pack(error_details_pb2.RequestInfo(request_id=fail.request_id))
    if fail.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(fail.retry_after_s * 1e9))
        status.details.add().Pack(retry)
    if fail.violations:
        bad = ParseDict({"fieldViolations": fail.violations}, error_details_pb2.BadRequest())
        status.details.add().Pack(bad)
    return status.SerializeToString() if status.details else b""


@contextmanager
def gateway_in_thread(tls: grpc.ServerCredentials | None = None) -> Iterator[Gateway]:
    """A gateway that serves until the block is left."""
    gateway = Gateway()
    is_ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with gateway.serving(tls):
            is_ready.set()
            await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, name="scripted gateway", daemon=True)
    thread.start()
    if not is_ready.wait(READY_S):
        raise RuntimeError("the scripted gateway did not start")
    try:
        yield gateway
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(READY_S)


def main() -> None:
    with gateway_in_thread() as gateway:
        for case in read_cases(Path(sys.argv[1])):
            gateway.play(case)
        print(f"127.0.0.1:{gateway.port}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
