"""Speko's API: `/v1/complete` and `/v1/routing/preview`; what it says of money is in `speko_accounts`.

An answer is always a stream of server-sent events, each with a name and JSON: `meta` for each model turn, `delta`,
`tool_call`, `server_tool_call`, and at the end `done` or `error`.

Source: the pages of https://docs.speko.dev, and the `spekoai` SDK, whose tests of this module decide.
"""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

import grpc
import msgspec

from trunkline.v1.completion_pb2 import Completion, Route, ServerToolState
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    PreviewRouteResponse,
    RouteCandidate,
)
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.message_pb2 import Part
from trunkline_server.edges.rest.body import encode, encode_plain
from trunkline_server.edges.rest.call_state import CallIds
from trunkline_server.edges.rest.http import (
    EventStream,
    Headers,
    Refused,
    Request,
    batches_of,
    head_of,
    keep_awake,
    refusal_of,
    response_headers,
)
from trunkline_server.edges.rest.routes import Routes
from trunkline_server.edges.rest.speko_accounts import SpekoAccounts
from trunkline_server.edges.rest.speko_fields import code_of, in_their_words
from trunkline_server.edges.rest.speko_request import read_complete, read_preview
from trunkline_server.edges.status import Refusal

COMPLETE: Final = "/v1/complete"
PREVIEW: Final = "/v1/routing/preview"
DEFAULT_HEARTBEAT_S: Final = 15.0
STREAM_ERROR: Final = "STREAM_ERROR"
# Clients are promised arguments that parse, and would fail far from the cause.
UNFINISHED_CALL: Final = "the arguments of a tool call are no complete JSON object"

STATUS_WORDS: Final[Mapping[int, str]] = {
    ServerToolState.SERVER_TOOL_STATE_STARTED: "started",
    ServerToolState.SERVER_TOOL_STATE_SUCCEEDED: "completed",
    ServerToolState.SERVER_TOOL_STATE_FAILED: "failed",
}


class SpekoShim:
    """A client of the contract that looks like Speko."""

    def __init__(self, channel: Any, *, heartbeat_s: float = DEFAULT_HEARTBEAT_S) -> None:
        self._completions = CompletionServiceStub(channel)
        self._channel = channel
        self._heartbeat_s = heartbeat_s
        self.routes = Routes(
            {
                ("POST", COMPLETE): self._complete,
                ("GET", PREVIEW): self._preview,
                **{("GET", path): serve for path, serve in SpekoAccounts(channel).handlers.items()},
            }
        )

    def error(self, refused: Refusal) -> bytes:
        """Speko's error object."""
        return _error(_text(refused), code_of(refused))

    async def _complete(self, request: Request) -> None:
        complete = CompleteRequest()
        read_complete(request.body, complete.spec)
        complete.spec.session_id = _session_id(request.headers)
        complete.stream_options.buffer_tool_arguments = True
        keep_awake(complete.stream_options, self._channel, self._heartbeat_s)
        stream = EventStream(request, self._heartbeat_s)
        try:
            call = self._completions.Complete(complete, metadata=request.metadata)
            stream.set_known(call)
            events = _Events()
            async with aclosing(batches_of(call)) as batches:
                async for batch in batches:
                    data = events.encode(batch)
                    if not stream.is_open:
                        known = head_of(await call.initial_metadata(), batch)
                        stream.set_head(known + events.headers())
                    if data:
                        stream.write(data)
                        if stream.is_slow:
                            await stream.drain(batches)
            stream.end()
        except grpc.aio.AioRpcError as error:
            stream.close()
            refused = in_their_words(refusal_of(error), complete.spec)
            if not stream.is_open:
                raise Refused(refused) from error
            # Too late for a status: the error is the last event.
            stream.end(_event(b"error", _error(_text(refused), STREAM_ERROR)))
        finally:
            stream.close()

    async def _preview(self, request: Request) -> None:
        preview = read_preview(request.query)
        try:
            call = self._completions.PreviewRoute(preview, metadata=request.metadata)
            found = await call
        except grpc.aio.AioRpcError as error:
            raise Refused(in_their_words(refusal_of(error), preview.spec)) from error
        headers = response_headers(await call.initial_metadata())
        request.respond(200, encode(preview_object(found)), headers)


def _text(refused: Refusal) -> str:
    """This API has no key for the field."""
    return f"{refused.field}: {refused.message}" if refused.field else refused.message


def _error(text: str, code: str) -> bytes:
    return encode({"error": text, "code": code})


def _event(name: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, data)


def _session_id(headers: Headers) -> str:
    for name, value in headers:
        if name == b"x-session-id":
            return value.decode("latin-1").strip()
    return ""


def preview_object(found: PreviewRouteResponse) -> dict[str, Any]:
    """Candidates best first, then those that are left out."""
    return {
        "scoresRunId": found.scores_run_id or None,
        "candidates": [_candidate(candidate) for candidate in found.candidates],
    }


def _candidate(candidate: RouteCandidate) -> dict[str, Any]:
    is_scored = candidate.HasField("score")
    return {
        "provider": candidate.provider,
        "model": candidate.model,
        "eligible": candidate.eligible,
        "exclusionReason": candidate.exclusion_reason or None,
        "score": candidate.score if is_scored else None,
        "terms": {
            "accuracy": candidate.accuracy,
            "latency": candidate.latency,
            "cost": candidate.cost,
        }
        if is_scored
        else None,
    }


class _Events:
    """Writes one answer's events, and keeps what the last of them says again."""

    def __init__(self) -> None:
        self._route = Route()
        self._texts: list[str] = []
        self._calls: list[dict[str, str]] = []
        self._ids = CallIds()
        self._is_unfinished = False

    def headers(self) -> Headers:
        """What is known of the route when the head goes out."""
        route = self._route
        if not route.provider:
            return []
        headers = [
            (b"x-speko-provider", route.provider.encode("ascii", "replace")),
            (b"x-speko-model", route.model.encode("ascii", "replace")),
            (b"x-speko-failover-count", b"%d" % route.total_failover_count),
        ]
        if route.scores_run_id:
            headers.append(
                (b"x-speko-scores-run-id", route.scores_run_id.encode("ascii", "replace"))
            )
        return headers

    def encode(self, batch: list[Any]) -> bytes:
        """The bytes of a batch; empty when none of its events shows here."""
        events: list[bytes] = []
        for response in batch:
            kind = response.WhichOneof("event")
            if kind == "text_delta":
                text = response.text_delta.text
                self._texts.append(text)
                data = encode_plain(text)
                if not data.isascii():
                    data = encode(text)
                events.append(b'event: delta\ndata: {"text":%b}\n\n' % data)
            elif kind == "part_completed":
                events.append(self._part(response.part_completed.part))
            elif kind == "refusal_delta":
                text = response.refusal_delta.text
                self._texts.append(text)
                events.append(_event(b"delta", encode({"text": text})))
            elif kind == "server_tool_call":
                call = response.server_tool_call
                if word := STATUS_WORDS.get(call.state):
                    told = {"id": call.id, "name": call.name, "status": word}
                    events.append(_event(b"server_tool_call", encode(told)))
            elif kind == "route_selected":
                self._route = response.route_selected.route
                events.append(_event(b"meta", encode(_meta(self._route))))
            elif kind == "completed":
                events.append(self._end(response.completed.completion))
        return b"".join(events)

    def _part(self, part: Part) -> bytes:
        kind = part.WhichOneof("content")
        if kind == "reasoning" and part.HasField("provider_state"):
            self._ids.add_reasoning(part)
        if kind != "tool_call":
            return b""
        call = part.tool_call
        arguments = call.arguments_json or "{}"
        if not _is_object(arguments):
            self._is_unfinished = True
            return b""
        state = part.provider_state if part.HasField("provider_state") else None
        told = {"id": self._ids.written(call.id, state), "name": call.name, "args": arguments}
        self._calls.append(told)
        return _event(b"tool_call", encode(told))

    def _end(self, completion: Completion) -> bytes:
        if self._is_unfinished:
            return _event(b"error", _error(UNFINISHED_CALL, STREAM_ERROR))
        route, usage = completion.route, completion.usage
        done: dict[str, Any] = {
            "text": "".join(self._texts),
            "provider": route.provider,
            "model": route.model,
            "usage": {
                "promptTokens": usage.input_tokens,
                "completionTokens": usage.output_tokens,
            },
            "failoverCount": route.total_failover_count,
            "scoresRunId": route.scores_run_id or None,
        }
        if self._calls:
            done["toolCalls"] = self._calls
        return _event(b"done", encode(done))


def _meta(route: Route) -> dict[str, Any]:
    return {
        "provider": route.provider,
        "model": route.model,
        "failoverCount": route.failover_count,
        "totalFailoverCount": route.total_failover_count,
        "scoresRunId": route.scores_run_id or None,
        "hop": route.hop,
    }


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
