"""Messages to and from an MCP server that runs here, one a line. Like the SDK's own, but no line is read without end.

Its standard error goes nowhere: what a server prints there is often what it was asked.
"""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process, SubprocessStreamProtocol
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

EXIT_S: Final = 1.0  # To go by itself once its input ends, and again after it was told to.

Incoming = MemoryObjectSendStream[SessionMessage | Exception]
Outgoing = MemoryObjectReceiveStream[SessionMessage]


@asynccontextmanager
async def stdio_streams(
    command: Sequence[str], env: Mapping[str, str], max_line_bytes: int, end: Callable[[], None]
) -> AsyncIterator[
    tuple[
        MemoryObjectReceiveStream[SessionMessage | Exception],
        MemoryObjectSendStream[SessionMessage],
    ]
]:
    """Start a server, and stop it on the way out.

    Args:
        end: called when no more messages can come.

    Raises:
        OSError: it can't be started.
    """
    # As `create_subprocess_exec` does it, which keeps the transport to itself; and only that can close the pipe from a
    # server that was stopped in mid-sentence.
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        lambda: SubprocessStreamProtocol(max_line_bytes, loop),
        *command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env=get_default_environment() | dict(env),
        start_new_session=True,
    )
    process = Process(transport, protocol, loop)
    incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as group:
        group.start_soon(_read, process, incoming, end)
        group.start_soon(_write, process, outgoing, incoming)
        try:
            yield read, write
        finally:
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await _stop(process)
                transport.close()


async def _read(process: Process, incoming: Incoming, end: Callable[[], None]) -> None:
    assert process.stdout is not None
    try:
        async with incoming:
            while line := await process.stdout.readline():
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    continue  # Not for us: some servers print a greeting.
                await incoming.send(SessionMessage(message))
    except (ValueError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # A line too long, a broken pipe, or nobody listens any more: this server is of no more use.
    finally:
        end()


async def _write(process: Process, outgoing: Outgoing, incoming: Incoming) -> None:
    assert process.stdin is not None
    try:
        async with outgoing:
            async for item in outgoing:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()
    except OSError:
        await incoming.aclose()  # So that who waits for an answer learns that there is none.


async def _stop(process: Process) -> None:
    """As the protocol says: its input ends, then it is told to stop, then it is killed; and all that it started."""
    assert process.stdin is not None
    process.stdin.close()
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        if await _has_ended(process):
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal_number)
    await _has_ended(process)


async def _has_ended(process: Process) -> bool:
    # Waiting may outlast the process, for whoever inherited its pipes; so the code is looked at in any case.
    with suppress(TimeoutError):
        async with asyncio.timeout(EXIT_S):
            await process.wait()
    return process.returncode is not None
