"""OpenAI's API: `/v1/chat/completions` and `/v1/models`, exact to the wire.

Source: https://platform.openai.com/docs/api-reference/chat, and the `openai` SDKs, whose tests of this module decide.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration

from trunkline.v1.catalog_service_pb2 import GetModelRequest, ListModelsRequest, Model
from trunkline.v1.catalog_service_pb2_grpc import CatalogServiceStub
from trunkline.v1.completion_pb2 import (
    CacheReport,
    Completion,
    FinishReason,
    Route,
    TokenLogprob,
    Usage,
)
from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.message_pb2 import Artifact, Message
from trunkline_server.edges.rest.artifacts import address
from trunkline_server.edges.rest.body import encode, encode_plain
from trunkline_server.edges.rest.call_state import CallIds
from trunkline_server.edges.rest.http import (
    EventStream,
    Request,
    batches_of,
    head_of,
    keep_awake,
    refusal_of,
    response_headers,
)
from trunkline_server.edges.rest.openai_fields import in_their_words, param_of
from trunkline_server.edges.rest.openai_request import (
    ChatRequest,
    read_chat_request,
    write_spec,
)
from trunkline_server.edges.rest.routes import Routes
from trunkline_server.edges.rest.waymark import ROUTE, read_version, waymark
from trunkline_server.edges.status import Refusal

COMPLETIONS: Final = "/v1/chat/completions"
MODELS: Final = "/v1/models"
DEFAULT_HEARTBEAT_S: Final = 15.0

FINISH_WORDS: Final[Mapping[int, str]] = {
    FinishReason.FINISH_REASON_STOP: "stop",
    FinishReason.FINISH_REASON_STOP_SEQUENCE: "stop",
    FinishReason.FINISH_REASON_PAUSED: "stop",
    FinishReason.FINISH_REASON_HOP_LIMIT: "stop",
    FinishReason.FINISH_REASON_LENGTH: "length",
    FinishReason.FINISH_REASON_CONTEXT_LENGTH: "length",
    FinishReason.FINISH_REASON_INSUFFICIENT_CREDITS: "length",
    FinishReason.FINISH_REASON_TOOL_CALLS: "tool_calls",
    FinishReason.FINISH_REASON_CONTENT_FILTER: "content_filter",
    FinishReason.FINISH_REASON_REFUSAL: "content_filter",
    FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL: "stop",
    FinishReason.FINISH_REASON_OTHER: "stop",
}


class OpenAIShim:
    """A client of the contract that looks like OpenAI."""

    def __init__(self, channel: Any, *, heartbeat_s: float = DEFAULT_HEARTBEAT_S) -> None:
        self._completions = CompletionServiceStub(channel)
        self._catalog = CatalogServiceStub(channel)
        self._channel = channel
        self._heartbeat_s = heartbeat_s
        self.routes = Routes(
            {
                ("POST", COMPLETIONS): self._chat,
                ("GET", MODELS): self._list,
                ("GET", f"{MODELS}/"): self._get,
            }
        )

    def error(self, refused: Refusal) -> bytes:
        """OpenAI's error object, with all four fields."""
        return encode({"error": error_object(refused)})

    async def _chat(self, request: Request) -> None:
        read_version(request)
        chat = read_chat_request(request.body)
        if chat.stream:
            complete = CompleteRequest()
            write_spec(chat, complete.spec)
            keep_awake(complete.stream_options, self._channel, self._heartbeat_s)
            await self._stream(request, chat, complete)
            return
        unary = CompleteUnaryRequest()
        write_spec(chat, unary.spec)
        call = self._completions.CompleteUnary(unary, metadata=request.metadata)
        completion = (await call).completion
        headers = response_headers(await call.initial_metadata())
        request.respond(200, encode(whole(completion)), headers)

    async def _stream(self, request: Request, chat: ChatRequest, complete: CompleteRequest) -> None:
        stream = EventStream(request, self._heartbeat_s)
        try:
            call = self._completions.Complete(complete, metadata=request.metadata)
            stream.set_known(call)
            chunks = Chunks(chat.includes_usage)
            async with aclosing(batches_of(call)) as batches:
                async for batch in batches:
                    if not chunks.have_begun:
                        headers = head_of(await call.initial_metadata(), batch)
                        stream.set_head(headers)
                        # Also where a comment has sent the head: the chunks bear the panel's name.
                        chunks.is_panel = ROUTE in dict(headers)
                    if data := chunks.encode(batch):
                        stream.write(data)
                        if stream.is_slow:
                            await stream.drain(batches)
            stream.end(b"data: [DONE]\n\n")
        except grpc.aio.AioRpcError as error:
            stream.close()
            if not stream.is_open:
                raise
            # Too late for a status: the error goes into the stream, which then ends without [DONE].
            stream.end(b"data: %b\n\n" % self.error(refusal_of(error)))
        finally:
            stream.close()

    async def _list(self, request: Request) -> None:
        models: list[Model] = []
        token = ""
        while True:
            call = self._catalog.ListModels(
                ListModelsRequest(page_size=1000, page_token=token), metadata=request.metadata
            )
            page = await call
            models += page.models
            token = page.next_page_token
            if not token:
                break
        headers = response_headers(await call.initial_metadata())
        listed = {"object": "list", "data": [_model(model) for model in models]}
        request.respond(200, encode(listed), headers)

    async def _get(self, request: Request) -> None:
        name = request.path.removeprefix(f"{MODELS}/")
        call = self._catalog.GetModel(GetModelRequest(model_id=name), metadata=request.metadata)
        model = (await call).model
        headers = response_headers(await call.initial_metadata())
        request.respond(200, encode(_model(model)), headers)


def error_object(refused: Refusal) -> dict[str, Any]:
    """message, type, param, code."""
    status = refused.status
    return {
        "message": in_their_words(refused.message),
        "type": status.type,
        "param": param_of(refused.field),
        "code": status.code,
    }


def _model(model: Model) -> dict[str, Any]:
    listed: dict[str, Any] = {
        "id": model.id,
        "object": "model",
        "created": model.create_time.seconds,
        "owned_by": model.provider or "trunkline",
    }
    if model.HasField("shutdown_time"):
        listed["shutdown_date"] = model.shutdown_time.ToJsonString()
    return listed


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
            "audio_tokens": usage.input_audio_tokens,
            "image_tokens": usage.input_image_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.output_audio_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _extension(completion: Completion, artifacts: Iterable[Artifact]) -> dict[str, Any]:
    """The answer's extra key `trunkline`."""
    route = completion.route
    extension: dict[str, Any] = {
        "provider": route.provider,
        "model": route.model,
        "failover_count": route.total_failover_count,
        "attempts": [
            {
                "provider": attempt.provider,
                "model": attempt.model,
                "http_status": attempt.http_status or None,
                "error": attempt.error.message if attempt.HasField("error") else None,
                "duration_s": _seconds(attempt.duration),
            }
            for attempt in completion.attempts
        ],
    }
    if route.route:
        extension["route"] = route.route
    usage = completion.usage
    if usage.HasField("cost"):
        extension["cost_usd"] = usage.cost.amount_nanos / 1e9
    if usage.estimated:
        extension["usage_estimated"] = True
    if route.resolved_mode:
        extension["mode"] = route.resolved_mode
    if completion.conversation_id:
        extension["conversation_id"] = completion.conversation_id
    if completion.HasField("cache") and completion.cache.hit:
        extension["cache"] = _cache(completion.cache)
    if files := [_artifact(artifact) for artifact in artifacts]:
        extension["artifacts"] = files
    if completion.warnings:
        extension["warnings"] = [
            {
                "code": w.code,
                "param": param_of(w.field),
                "message": w.message,
                "provider": w.provider,
            }
            for w in completion.warnings
        ]
    reasons = {
        str(choice.index): FinishReason.Name(choice.finish_reason)
        .removeprefix("FINISH_REASON_")
        .lower()
        for choice in completion.choices
        if choice.finish_reason in _INEXACT
    }
    if reasons:
        extension["finish_reasons"] = reasons
    return extension


def _artifact(artifact: Artifact) -> dict[str, Any]:
    told = {
        "id": artifact.id,
        "type": artifact.type,
        "title": artifact.title,
        "mime_type": artifact.mime_type or None,
    }
    if artifact.HasField("text"):
        told |= {"text": artifact.text, "language": artifact.language or None}
    else:
        told["url"] = address(artifact)
    return told


def _cache(report: CacheReport) -> dict[str, Any]:
    return {
        "kind": report.kind,
        "age_s": _seconds(report.age),
        "similarity": report.similarity if report.HasField("similarity") else None,
    }


def _seconds(duration: Duration) -> float:
    return round(duration.seconds + duration.nanos / 1e9, 3)


# Finish reasons that this API has no word for.
_INEXACT: Final = frozenset(FinishReason.values()) - {
    FinishReason.FINISH_REASON_UNSPECIFIED,
    FinishReason.FINISH_REASON_STOP,
    FinishReason.FINISH_REASON_LENGTH,
    FinishReason.FINISH_REASON_TOOL_CALLS,
    FinishReason.FINISH_REASON_CONTENT_FILTER,
}


def _model_of(route: Route, *, is_panel: bool) -> str:
    """Of a panel the route that served: no single model did."""
    return route.route if is_panel else route.model


def chat_id(completion_id: str) -> str:
    """The id that this API's clients expect, with our own suffix."""
    return f"chatcmpl-{completion_id.removeprefix('cmpl_')}"


def whole(completion: Completion) -> dict[str, Any]:
    """The object `chat.completion`."""
    answer: dict[str, Any] = {
        "id": chat_id(completion.id),
        "object": "chat.completion",
        "created": completion.create_time.seconds,
        "model": _model_of(completion.route, is_panel=completion.HasField("panel")),
        "choices": [
            {
                "index": choice.index,
                "message": _message(choice.message),
                "logprobs": _logprobs(choice.logprobs) if choice.logprobs else None,
                "finish_reason": FINISH_WORDS.get(choice.finish_reason, "stop"),
            }
            for choice in completion.choices
        ],
        "usage": _usage(completion.usage),
    }
    if completion.service_tier:
        answer["service_tier"] = completion.service_tier
    answer["system_fingerprint"] = completion.system_fingerprint or None
    answer["trunkline"] = _extension(completion, completion.artifacts)
    if completion.HasField("panel"):
        answer["waymark"] = waymark(completion.panel)
    return answer


def _message(message: Message) -> dict[str, Any]:
    texts: list[str] = []
    refusals: list[str] = []
    reasoning: list[str] = []
    calls: list[dict[str, Any]] = []
    ids = CallIds()
    for part in message.parts:
        kind = part.WhichOneof("content")
        if kind == "text":
            texts.append(part.text)
        elif kind == "tool_call":
            call = part.tool_call
            state = part.provider_state if part.HasField("provider_state") else None
            calls.append(
                {
                    "id": ids.written(call.id, state),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments_json},
                }
            )
        elif kind == "reasoning":
            if part.HasField("provider_state"):
                ids.add_reasoning(part)
            if part.reasoning.text:
                reasoning.append(part.reasoning.text)
        elif kind == "refusal":
            refusals.append(part.refusal)
    written: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) if texts or not (calls or refusals) else None,
        "refusal": "".join(refusals) if refusals else None,
        "annotations": [],
    }
    if reasoning:
        written["reasoning_content"] = "".join(reasoning)
    if calls:
        written["tool_calls"] = calls
    return written


def _logprobs(tokens: Any) -> dict[str, Any]:
    return {"content": [_logprob(token) for token in tokens], "refusal": None}


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    return {**_token(token), "top_logprobs": [_token(top) for top in token.top]}


def _token(token: TokenLogprob) -> dict[str, Any]:
    utf8 = list(token.utf8) if token.HasField("utf8") else None
    return {"token": token.token, "logprob": token.logprob, "bytes": utf8}


class Chunks:
    """Writes one stream's chunks. All of a chunk that is the same for the whole stream is encoded once.

    Args:
        named: the model that a route stands for; None: what it has in `model`, or its own name where it is a panel.
        extras: keys that the last chunk has beside the usual ones; files are then told in them, if at all.
    """

    def __init__(
        self,
        includes_usage: bool,
        *,
        named: Callable[[Route], str] | None = None,
        extras: Callable[[Completion], Mapping[str, Any]] | None = None,
    ) -> None:
        self._includes_usage = includes_usage
        self._named = named
        self._extras = extras
        self.is_panel = False
        self.artifacts: list[Artifact] = []
        self._id = ""
        self._created = 0
        self._route = Route()
        self._prefix = b""
        self._suffix = b',"usage":null}\n\n' if includes_usage else b"}\n\n"
        self._begun: set[int] = set()
        self._finishes: list[tuple[int, str]] = []
        self._ids: dict[int, CallIds] = {}

    @property
    def have_begun(self) -> bool:
        """Is it known who answers?"""
        return bool(self._prefix)

    def encode(self, batch: list[Any]) -> bytes:
        """The bytes of a batch; empty when none of its events shows here."""
        chunks: list[bytes] = []
        for response in batch:
            kind = response.WhichOneof("event")
            if kind == "text_delta":
                delta = response.text_delta
                index = delta.choice_index
                if index not in self._begun:
                    chunks.append(self._begin(index))
                text = encode_plain(delta.text)
                if not text.isascii():
                    text = encode(delta.text)
                if delta.logprobs:
                    logprobs = encode(_logprobs(delta.logprobs))
                    chunks.append(self._chunk(index, b'{"content":%b}' % text, logprobs))
                else:
                    chunks.append(
                        b'%b{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}]%b'
                        % (self._prefix, index, text, self._suffix)
                    )
            elif kind == "tool_call_delta":
                chunks.append(self._tool_call(response.tool_call_delta))
            elif kind == "reasoning_delta":
                chunks.append(self._piece(response.reasoning_delta, b"reasoning_content"))
            elif kind == "refusal_delta":
                chunks.append(self._piece(response.refusal_delta, b"refusal"))
            elif kind == "part_completed":
                part = response.part_completed.part
                if part.HasField("reasoning") and part.HasField("provider_state"):
                    self._call_ids(response.part_completed.choice_index).add_reasoning(part)
            elif kind == "choice_finished":
                finished = response.choice_finished
                word = FINISH_WORDS.get(finished.finish_reason, "stop")
                self._finishes.append((finished.choice_index, word))
            elif kind == "artifact":
                self.artifacts.append(response.artifact)
            elif kind == "started":
                self._id = chat_id(response.started.completion_id)
                self._created = response.started.create_time.seconds
            elif kind == "route_selected":
                self._route = response.route_selected.route
                head = encode(
                    {
                        "id": self._id,
                        "object": "chat.completion.chunk",
                        "created": self._created,
                        "model": self._model(),
                    }
                )
                self._prefix = b'data: %b,"choices":[' % head[:-1]
            elif kind == "completed":
                chunks.append(self._end(response.completed.completion))
        return b"".join(chunks)

    def _model(self) -> str:
        if self._named is not None:
            return self._named(self._route)
        return _model_of(self._route, is_panel=self.is_panel)

    def _begin(self, choice_index: int) -> bytes:
        is_first = not self._begun
        self._begun.add(choice_index)
        delta = b'{"role":"assistant","content":"","refusal":null}'
        suffix = self._suffix
        if is_first:
            route = self._route
            extension = {
                "provider": route.provider,
                "model": route.model,
                "failover_count": route.total_failover_count,
            }
            if route.route:
                extension["route"] = route.route
            suffix = b',"trunkline":%b%b' % (encode(extension), suffix)
        return self._chunk(choice_index, delta, b"null", b"null", suffix)

    def _chunk(
        self,
        choice_index: int,
        delta: bytes,
        logprobs: bytes = b"null",
        finish: bytes = b"null",
        suffix: bytes | None = None,
    ) -> bytes:
        return b'%b{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}]%b' % (
            self._prefix,
            choice_index,
            delta,
            logprobs,
            finish,
            self._suffix if suffix is None else suffix,
        )

    def _started(self, choice_index: int) -> bytes:
        return b"" if choice_index in self._begun else self._begin(choice_index)

    def _piece(self, delta: Any, name: bytes) -> bytes:
        head = self._started(delta.choice_index)
        return head + self._chunk(delta.choice_index, b'{"%b":%b}' % (name, encode(delta.text)))

    def _tool_call(self, delta: Any) -> bytes:
        head = self._started(delta.choice_index)
        call: dict[str, Any] = {"index": delta.tool_call_index}
        if delta.id:
            state = delta.provider_state if delta.HasField("provider_state") else None
            call["id"] = self._call_ids(delta.choice_index).written(delta.id, state)
            call["type"] = "function"
            call["function"] = {"name": delta.name, "arguments": delta.arguments_json}
        else:
            call["function"] = {"arguments": delta.arguments_json}
        return head + self._chunk(delta.choice_index, b'{"tool_calls":[%b]}' % encode(call))

    def _call_ids(self, choice_index: int) -> CallIds:
        return self._ids.setdefault(choice_index, CallIds())

    def _end(self, completion: Completion) -> bytes:
        """Finish chunks wait for the end, so that the last of them can carry the extension."""
        files = self.artifacts if self._extras is None else ()
        extension = b',"trunkline":%b' % encode(_extension(completion, files))
        if completion.HasField("panel"):
            extension += b',"waymark":%b' % encode(waymark(completion.panel))
        if self._extras is not None:
            for name, value in self._extras(completion).items():
                extension += b',"%b":%b' % (name.encode(), encode(value))
        chunks = []
        for number, (choice_index, word) in enumerate(self._finishes, start=1):
            chunks.append(self._started(choice_index))
            suffix = self._suffix
            if number == len(self._finishes) and not self._includes_usage:
                suffix = extension + suffix
            chunks.append(
                self._chunk(choice_index, b"{}", b"null", b'"%b"' % word.encode(), suffix)
            )
        if self._includes_usage:
            usage = encode(_usage(completion.usage))
            chunks.append(b'%b],"usage":%b%b}\n\n' % (self._prefix, usage, extension))
        return b"".join(chunks)
