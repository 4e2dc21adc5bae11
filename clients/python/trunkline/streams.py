"""An answer as it is made: typed events, the text alone, or the whole of it at the end.

A stream that is left early is cancelled, so that nobody pays for tokens that nobody reads. Leaving
the `with` block does it; a stream without one is cancelled when it is dropped, which the gRPC
library alone does not do (https://github.com/grpc/grpc/issues/43462).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Protocol, Self, TypeVar

import grpc
import grpc.aio

from trunkline.errors import (
    Cancelled,
    InternalError,
    StreamInterrupted,
    TrunklineError,
    error_from_rpc,
)
from trunkline.folding import CompletionFolder
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_service_pb2 import CompleteRequest

_Message = TypeVar("_Message")


class _EventCall(Protocol):
    """The part of grpc's streaming call that is used here."""

    def __next__(self) -> CompleteResponse: ...
    def cancel(self) -> object: ...


class CompletionStream:
    """One streamed answer: an iterator of events, of one reader. Made by `Client.stream`.

    Iteration raises `TrunklineError`, after the events that came before it. It raises
    `StreamInterrupted` also where the stream ends in good order but without its last event: an
    answer is never cut off silently.
    """

    def __init__(self, call: _EventCall) -> None:
        self._call = call
        self._folder = CompletionFolder()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> CompleteResponse:
        try:
            event = next(self._call)
        except StopIteration:
            if self._folder.is_completed:
                raise
            raise _cut_off() from None
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error
        self._folder.feed(event)
        return event

    def text_deltas(self, choice_index: int = 0) -> Iterator[str]:
        """The text of one choice as it comes; none of the pieces is empty.

        Raises:
            StreamInterrupted: text that was yielded already was taken back by a StreamReset, which
                happens only under RECOVERY_RESTART. Who asks for that iterates the events.
        """
        text = _HandedOutText(self._folder, choice_index)
        for event in self:
            if piece := text.of(event):
                yield piece

    def completion(self) -> Completion:
        """Reads what is left of the stream, and returns the whole answer, messages included."""
        for _ in self:
            pass
        return self._folder.completion()

    def snapshot(self) -> Completion:
        """The answer as far as it was read; also after an error."""
        return self._folder.completion()

    def close(self) -> None:
        """Cancels the call unless it has ended. Any thread may do it, and more than once."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._call.cancel()


class AsyncCompletionStream:
    """One streamed answer: an async iterator of events, of one reader. Made by
    `AsyncClient.stream`.

    Errors are those of `CompletionStream`.
    """

    def __init__(self, call: grpc.aio.UnaryStreamCall[CompleteRequest, CompleteResponse]) -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._events = call.__aiter__()
        self._folder = CompletionFolder()
        # To the library a stream that has failed is one that has ended, or goes on.
        self._failed: TrunklineError | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CompleteResponse:
        if self._failed is not None:
            raise self._failed
        try:
            event = readable(await anext(self._events))
        except StopAsyncIteration:
            if self._folder.is_completed:
                raise
            raise _cut_off() from None
        except grpc.RpcError as error:
            self._failed = error_from_rpc(error)
            raise self._failed from error
        except InternalError as error:  # Nothing is read past a hole: the answer would look whole.
            self._failed = error
            self._call.cancel()
            raise
        except asyncio.CancelledError:
            self._failed = Cancelled("the call was cancelled")
            raise_if_closed()
            raise
        self._folder.feed(event)
        return event

    async def text_deltas(self, choice_index: int = 0) -> AsyncIterator[str]:
        """As `CompletionStream.text_deltas`."""
        text = _HandedOutText(self._folder, choice_index)
        async for event in self:
            if piece := text.of(event):
                yield piece

    async def completion(self) -> Completion:
        """Reads what is left of the stream, and returns the whole answer, messages included."""
        async for _ in self:
            pass
        return self._folder.completion()

    def snapshot(self) -> Completion:
        """The answer as far as it was read; also after an error."""
        return self._folder.completion()

    async def aclose(self) -> None:
        """Cancels the call unless it has ended. May be called more than once."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # A collector may run in any thread, and calls belong to their loop's.
        if not self._call.done() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._call.cancel)


def readable(message: _Message | None) -> _Message:
    """A message that came over asyncio.

    Raises:
        InternalError: its bytes were none, for which grpc.aio gives None.
    """
    if message is None:
        raise InternalError("a message of the gateway's could not be read")
    return message


def raise_if_closed() -> None:
    """Turns the library's CancelledError into ours where the call was closed and the task itself
    was not cancelled.

    Raises:
        Cancelled: somebody closed the stream or the client while this task waited.
    """
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        raise Cancelled("the call was closed while it was waited for") from None


class _HandedOutText:
    """The text of one choice, which cannot be taken back once a caller has it."""

    def __init__(self, folder: CompletionFolder, choice_index: int) -> None:
        self._folder = folder
        self._choice_index = choice_index
        self._hops: set[int] = set()

    def of(self, event: CompleteResponse) -> str:
        """The text that this event adds, if any. The folder has taken the event already."""
        match event.WhichOneof("event"):
            case "text_delta" if event.text_delta.choice_index == self._choice_index:
                self._hops.add(self._folder.hop)
                return event.text_delta.text
            case "stream_reset" if event.stream_reset.hop in self._hops:
                raise StreamInterrupted("text that was handed out was taken back by a reset")
        return ""


def _cut_off() -> StreamInterrupted:
    return StreamInterrupted("the stream ended without its last event")
