"""Theo's API: `/api/v1/completions` in two formats; its jobs, skills and conversations are in files of their own.

Source: the pages of https://docs.hitheo.ai, version 2026-03-28, and the types of its SDK.
"""

from contextlib import aclosing
from typing import Any, Final

import grpc
import structlog

from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.edges.rest.app import mint_request_id
from trunkline_server.edges.rest.body import encode
from trunkline_server.edges.rest.http import (
    EventStream,
    Refused,
    Request,
    batches_of,
    head_of,
    keep_awake,
    refusal_of,
    response_headers,
)
from trunkline_server.edges.rest.routes import Handler, Routes, wrong_method
from trunkline_server.edges.rest.theo_conversations import TheoConversations
from trunkline_server.edges.rest.theo_events import (
    ChatChunks,
    TheoEvents,
    Writer,
    chat_object,
    completion_object,
)
from trunkline_server.edges.rest.theo_fields import envelope, in_their_words, theos
from trunkline_server.edges.rest.theo_jobs import TheoJobs
from trunkline_server.edges.rest.theo_request import Wanted, read_chat, read_completion
from trunkline_server.edges.rest.theo_skills import TheoSkills
from trunkline_server.edges.status import Refusal

ROOT: Final = "/api/v1/"
COMPLETIONS: Final = f"{ROOT}completions"
CHAT: Final = f"{ROOT}chat/completions"
VERSION: Final = (b"theo-api-version", b"2026-03-28")
DEFAULT_HEARTBEAT_S: Final = 15.0

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class TheoShim:
    """A client of the contract that looks like Theo."""

    def __init__(self, channel: Any, *, heartbeat_s: float = DEFAULT_HEARTBEAT_S) -> None:
        self._completions = CompletionServiceStub(channel)
        self._channel = channel
        self._heartbeat_s = heartbeat_s
        self.routes: Routes = _TheoRoutes(
            {
                ("POST", COMPLETIONS): self._complete,
                ("POST", CHAT): self._chat,
                **TheoJobs(channel).handlers,
                **TheoSkills(channel).handlers,
                **TheoConversations(channel).handlers,
            }
        )

    def error(self, refused: Refusal) -> bytes:
        """Theo's envelope."""
        return encode(envelope(refused))

    async def _complete(self, request: Request) -> None:
        spec = CompletionSpec()
        await self._answer(request, spec, read_completion(request.body, spec))

    async def _chat(self, request: Request) -> None:
        spec = CompletionSpec()
        await self._answer(request, spec, read_chat(request.body, spec))

    async def _answer(self, request: Request, spec: CompletionSpec, wanted: Wanted) -> None:
        if wanted.streams:
            writer: Writer = TheoEvents(spec.mode)
            if wanted.is_openai:
                writer = ChatChunks(spec.mode, includes_usage=wanted.includes_usage)
            await self._stream(request, spec, wanted, writer)
            return
        call = self._completions.CompleteUnary(
            CompleteUnaryRequest(spec=spec), metadata=request.metadata
        )
        try:
            completion = (await call).completion
        except grpc.aio.AioRpcError as error:
            raise Refused(in_their_words(refusal_of(error), wanted.origins)) from error
        headers = response_headers(await call.initial_metadata())
        told = (chat_object if wanted.is_openai else completion_object)(completion, spec.mode)
        request.respond(200, encode(told), headers)

    async def _stream(
        self, request: Request, spec: CompletionSpec, wanted: Wanted, writer: Writer
    ) -> None:
        complete = CompleteRequest(spec=spec)
        complete.stream_options.buffer_tool_arguments = not wanted.is_openai
        keep_awake(complete.stream_options, self._channel, self._heartbeat_s)
        stream = EventStream(request, self._heartbeat_s, writer.beat)
        try:
            call = self._completions.Complete(complete, metadata=request.metadata)
            stream.set_known(call)
            async with aclosing(batches_of(call)) as batches:
                async for batch in batches:
                    data = writer.encode(batch)
                    if not stream.is_open:
                        stream.set_head(head_of(await call.initial_metadata(), batch))
                    if data:
                        stream.write(data)
                        if stream.is_slow:
                            await stream.drain(batches)
            stream.end(writer.end())
        except grpc.aio.AioRpcError as error:
            stream.close()
            refused = in_their_words(refusal_of(error), wanted.origins)
            if not stream.is_open:
                raise Refused(refused) from error
            # Too late for a status: the error is the last event.
            stream.end(writer.error(theos(refused, request.request_id)))
        finally:
            stream.close()


class _TheoRoutes(Routes):
    """All below `/api/v1/`, whether it is served or not: errors too are in Theo's words."""

    def find(self, method: str, path: str) -> Handler | None:
        handler = super().find(method, path)
        if handler is None:
            if not path.startswith(ROOT):
                return None
            handler = wrong_method
        return _theos_own(handler)


def _theos_own(handler: Handler) -> Handler:
    async def handle(request: Request) -> None:
        request.echoed.append(VERSION)
        _name(request)
        try:
            await handler(request)
        except Refused as error:
            refused = theos(error.refusal, request.request_id)
            raise Refused(refused) from error.__cause__
        except grpc.aio.AioRpcError as error:
            refused = theos(in_their_words(refusal_of(error)), request.request_id)
            raise Refused(refused) from error

    return handle


def _name(request: Request) -> None:
    """Requests have ids of the gateway's own here. A caller's own id is kept in the log."""
    if all(name != b"x-request-id" for name, _ in request.headers):
        return
    theirs, request.request_id = request.request_id, mint_request_id()
    request.metadata = [
        (name, request.request_id if name == "x-request-id" else value)
        for name, value in request.metadata
    ]
    log.info("request_renamed", request_id=request.request_id, caller_request_id=theirs)
