"""The OpenAI dialect: chat completions, as OpenAI and a dozen others speak it.

Source: https://platform.openai.com/docs/api-reference/chat, and the type definitions of the `openai` SDK 3.54.0.
Where others deviate, a flag of `Deviations` says so; `services.py` has a row for each.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote

import msgspec

from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import FinishReason, TokenLogprob, Usage
from trunkline.v1.completion_spec_pb2 import ReasoningEffort, Tool, ToolChoiceMode
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.core.candidate import Candidate, Capability
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure, classify
from trunkline_server.core.ports import AttemptFacts, Prompt, Unencodable
from trunkline_server.providers.answer import AnswerEvents, count_of, is_count
from trunkline_server.providers.translator import (
    UpstreamRequest,
    Warnings,
    choice_mode,
    data_url,
    offered_tools,
    provider_options,
    raw_json,
    text_of,
)
from trunkline_server.wire.sse import MalformedStream, SSEDecoder

FINISH_REASONS: Final[Mapping[str, FinishReason.ValueType]] = {
    "stop": FinishReason.FINISH_REASON_STOP,
    "length": FinishReason.FINISH_REASON_LENGTH,
    "model_length": FinishReason.FINISH_REASON_LENGTH,  # Mistral
    "tool_calls": FinishReason.FINISH_REASON_TOOL_CALLS,
    "function_call": FinishReason.FINISH_REASON_TOOL_CALLS,
    "content_filter": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "eos": FinishReason.FINISH_REASON_STOP,  # Together
    # xAI
    "REASON_STOP": FinishReason.FINISH_REASON_STOP,
    "REASON_MAX_LEN": FinishReason.FINISH_REASON_LENGTH,
    "REASON_MAX_CONTEXT": FinishReason.FINISH_REASON_CONTEXT_LENGTH,
    "REASON_TOOL_CALLS": FinishReason.FINISH_REASON_TOOL_CALLS,
    "REASON_TIME_LIMIT": FinishReason.FINISH_REASON_LENGTH,
}
FAILED_FINISHES: Final = frozenset(
    {"error"}
)  # OpenRouter, Mistral: the stream failed, whatever came before.

EFFORT_WORDS: Final[Mapping[ReasoningEffort.ValueType, str]] = {
    ReasoningEffort.REASONING_EFFORT_NONE: "none",
    ReasoningEffort.REASONING_EFFORT_MINIMAL: "minimal",
    ReasoningEffort.REASONING_EFFORT_LOW: "low",
    ReasoningEffort.REASONING_EFFORT_MEDIUM: "medium",
    ReasoningEffort.REASONING_EFFORT_HIGH: "high",
    ReasoningEffort.REASONING_EFFORT_XHIGH: "xhigh",
    ReasoningEffort.REASONING_EFFORT_MAX: "max",
}
AUDIO_FORMATS: Final[Mapping[str, str]] = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}
# Parameters that extra options may not set: the gateway's own promises hang on them.
RESERVED: Final = frozenset(
    {"model", "messages", "stream", "stream_options", "n", "tools", "functions"}
)
MISTRAL_IDS: Final = 9
BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Deviations:
    """How a service differs from OpenAI. The defaults are OpenAI's own ways.

    Attributes:
        max_tokens: the parameter that limits the answer.
        developer_role: knows the role `developer`; else it becomes `system`.
        asks_for_usage: sends `stream_options.include_usage`; some send usage unasked and refuse the option.
        reasoning_models: names of models that refuse sampling parameters and may be given an effort.
        efforts: the words for effort, where they differ; empty means that the service has no such option.
        effort_needs_reasoning_model: only those models take an effort.
        unsupported: options of `SamplingOptions` that are left out.
        top_k: takes `top_k`, which OpenAI has not.
        required_word: for a tool choice that must call some tool.
        allowed_tools: can narrow a choice without hiding tools.
        call_id_chars: exact length that tool call ids must have; 0 for any.
        tool_names: tool results carry the tool's name.
        returns_reasoning: reasoning text goes back with the assistant's turn.
        extra: parameters that every request gets.
        show_reasoning: parameters that make it return its reasoning.
        path: below the base address; `{model}` stands for the deployment.
    """

    max_tokens: str = "max_completion_tokens"
    developer_role: bool = True
    asks_for_usage: bool = True
    reasoning_models: re.Pattern[str] | None = None
    efforts: Mapping[str, str] = field(default_factory=dict)
    has_effort: bool = True
    effort_needs_reasoning_model: bool = False
    unsupported: frozenset[str] = frozenset()
    seed: str = "seed"
    top_k: bool = False
    required_word: str = "required"
    allowed_tools: bool = False
    call_id_chars: int = 0
    tool_names: bool = False
    returns_reasoning: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    show_reasoning: Mapping[str, Any] = field(default_factory=dict)
    path: str = "/chat/completions"
    sends_metadata: bool = False


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _ContentPart(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: Any = None


class _TopLogprob(msgspec.Struct):
    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None


class _Logprob(_TopLogprob):
    top_logprobs: list[_TopLogprob] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Logprob] | None = None
    refusal: list[_Logprob] | None = None


class _Delta(msgspec.Struct):
    content: str | list[_ContentPart] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    error: Any = None


class _Groq(msgspec.Struct):
    usage: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    x_groq: _Groq | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class OpenAITranslator:
    """OpenAI's dialect, with the deviations of one service."""

    deviations: Deviations = field(default_factory=Deviations)
    capabilities: frozenset[Capability] = frozenset(Capability) - {Capability.VIDEO_INPUT}
    name: str = "openai"

    def with_api_version(self, version: str) -> "OpenAITranslator":
        """The same for another version of the API, where the path carries one (Azure)."""
        path, _, _ = self.deviations.path.partition("?")
        return replace(
            self, deviations=replace(self.deviations, path=f"{path}?api-version={quote(version)}")
        )

    def encode(self, candidate: Candidate, prompt: Prompt) -> UpstreamRequest:
        """The body of POST /chat/completions."""
        return _Request(self.deviations, candidate, prompt).encoded()

    def decoder(
        self, candidate: Candidate, prompt: Prompt, facts: AttemptFacts, mint_id: Callable[[], str]
    ) -> "OpenAIDecoder":
        """For one response, streamed or whole."""
        spec = prompt.spec
        events = AnswerEvents(
            family=candidate.family,
            model=candidate.model,
            shows_reasoning=spec.reasoning.include,
            choices=spec.sampling.candidate_count or 1,
            mint_id=mint_id,
            facts=facts,
        )
        return OpenAIDecoder(events)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """OpenAI nests the error; Mistral and others write it flat; some send a list of one."""
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = None
        if isinstance(value, list) and value:
            value = value[0]
        return _error(value.get("error", value) if isinstance(value, dict) else None, status)


class _Request:
    """Writes one request body."""

    def __init__(self, deviations: Deviations, candidate: Candidate, prompt: Prompt) -> None:
        self.deviations = deviations
        self.candidate = candidate
        self.prompt = prompt
        self.spec = prompt.spec
        self.warnings = Warnings(candidate.provider)
        pattern = deviations.reasoning_models
        self.reasons = pattern.search(candidate.model) is not None if pattern else False

    def encoded(self) -> UpstreamRequest:
        spec = self.spec
        deviations = self.deviations
        body: dict[str, Any] = {"model": self.candidate.model, "messages": self._messages()}
        if self.prompt.stream:
            body["stream"] = True
            if deviations.asks_for_usage:
                body["stream_options"] = {"include_usage": True}
        if spec.HasField("sampling"):
            self._sampling(body)
        if spec.HasField("tool_options"):
            self._tools(body)
        if spec.HasField("response_format"):
            self._response_format(body)
        if spec.HasField("reasoning"):
            self._reasoning(body)
        if spec.end_user_id:
            body["user"] = spec.end_user_id
        if spec.service_tier:
            body["service_tier"] = spec.service_tier
        if deviations.extra:
            body.update(deviations.extra)
        if spec.provider_options_json:
            self._options(body)
        path = deviations.path
        if "{model}" in path:
            path = path.replace("{model}", quote(self.candidate.model, safe=""))
        return UpstreamRequest(path, _encode(body), (), self.warnings.found)

    def _options(self, body: dict[str, Any]) -> None:
        for key, value in provider_options(self.spec, self.candidate, openai_dialect=True).items():
            if key in RESERVED:
                self.warnings.dropped(
                    f"spec.provider_options_json.{key[:64]}", "the gateway sets this itself"
                )
            else:
                body[key] = value

    def _messages(self) -> list[dict[str, Any]]:
        spec = self.spec
        system_role = "developer" if self.reasons and self.deviations.developer_role else "system"
        messages: list[dict[str, Any]] = []
        if spec.system_prompt:
            messages.append({"role": system_role, "content": spec.system_prompt})
        for message in spec.messages:
            role = message.role
            if role == Role.ROLE_USER:
                messages.append(self._user(message))
            elif role == Role.ROLE_ASSISTANT:
                messages.append(self._assistant(message))
            elif role == Role.ROLE_TOOL:
                messages.extend(self._results(message))
            else:
                messages.append({"role": system_role, "content": text_of(message.parts)})
        return messages

    def _user(self, message: Message) -> dict[str, Any]:
        parts = message.parts
        content: Any
        if len(parts) == 1 and parts[0].WhichOneof("content") == "text":
            content = parts[0].text
        else:
            content = [self._part(part) for part in parts]
        written: dict[str, Any] = {"role": "user", "content": content}
        if message.name:
            written["name"] = message.name
        return written

    def _part(self, part: Part) -> dict[str, Any]:
        kind = part.WhichOneof("content")
        if kind == "text":
            return {"type": "text", "text": part.text}
        if kind == "image":
            image = part.image
            if image.WhichOneof("source") == "file_id":
                raise Unencodable(
                    "spec.messages[].parts[].image.file_id", "images are sent by URL or as data"
                )
            shown = {"url": image.url or data_url(image)}
            if image.detail:
                shown["detail"] = image.detail
            return {"type": "image_url", "image_url": shown}
        if kind == "audio" and part.audio.data:
            sound = AUDIO_FORMATS.get(part.audio.mime_type.partition(";")[0].strip().lower())
            if sound is None:
                raise Unencodable("spec.messages[].parts[].audio.mime_type", "only wav and mp3")
            encoded = data_url(part.audio).partition(",")[2]
            return {"type": "input_audio", "input_audio": {"data": encoded, "format": sound}}
        if kind == "document":
            document = part.document
            if document.file_id:
                return {"type": "file", "file": {"file_id": document.file_id}}
            if document.data:
                file = {
                    "filename": document.filename or "document",
                    "file_data": data_url(document),
                }
                return {"type": "file", "file": file}
        raise Unencodable(f"spec.messages[].parts[].{kind}", "the dialect has no such input")

    def _assistant(self, message: Message) -> dict[str, Any]:
        texts: list[str] = []
        refusals: list[str] = []
        reasoning: list[str] = []
        calls: list[dict[str, Any]] = []
        for part in message.parts:
            kind = part.WhichOneof("content")
            if kind == "text":
                texts.append(part.text)
            elif kind == "refusal":
                refusals.append(part.refusal)
            elif kind == "tool_call":
                call = part.tool_call
                function = {"name": call.name, "arguments": call.arguments_json or "{}"}
                calls.append(
                    {"id": self._call_id(call.id), "type": "function", "function": function}
                )
            elif kind == "reasoning":
                reasoning.append(part.reasoning.text)
            elif kind is not None:
                raise Unencodable(
                    f"spec.messages[].parts[].{kind}", "the assistant's turn can't hold it here"
                )
            if part.HasField("provider_state"):
                self.warnings.state_dropped()
        written: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(texts) if texts else None,
        }
        if refusals:
            written["refusal"] = "".join(refusals)
        if calls:
            written["tool_calls"] = calls
        if not calls and not refusals and not texts:
            written["content"] = ""
        if message.name:
            written["name"] = message.name
        if self.deviations.returns_reasoning and calls and any(reasoning):
            written["reasoning_content"] = "".join(reasoning)
        return written

    def _results(self, message: Message) -> Iterable[dict[str, Any]]:
        for part in message.parts:
            if part.WhichOneof("content") != "tool_result":
                continue
            result = part.tool_result
            if any(inner.WhichOneof("content") != "text" for inner in result.parts):
                raise Unencodable(
                    "spec.messages[].parts[].tool_result.parts",
                    "only text goes into a tool result here",
                )
            if result.is_error:
                self.warnings.dropped("spec.messages[].parts[].tool_result.is_error")
            written = {
                "role": "tool",
                "tool_call_id": self._call_id(result.tool_call_id),
                "content": text_of(result.parts),
            }
            if self.deviations.tool_names and result.tool_name:
                written["name"] = result.tool_name
            yield written

    def _call_id(self, call_id: str) -> str:
        chars = self.deviations.call_id_chars
        if not chars or (len(call_id) == chars and call_id.isascii() and call_id.isalnum()):
            return call_id
        # The same id must come out for the call and for its result, so it is derived and not drawn.
        number = int.from_bytes(hashlib.sha256(call_id.encode()).digest()[:16], "big")
        digits = []
        for _ in range(chars):
            number, digit = divmod(number, 62)
            digits.append(BASE62[digit])
        return "".join(digits)

    def _sampling(self, body: dict[str, Any]) -> None:
        sampling = self.spec.sampling
        unsupported = self.deviations.unsupported
        # Reasoning models refuse these outright.
        refused = _REFUSED_WHEN_REASONING if self.reasons else frozenset()
        for name in _SCALARS:
            if not sampling.HasField(name):
                continue
            if name in unsupported:
                self.warnings.dropped(f"spec.sampling.{name}")
            elif name in refused:
                self.warnings.dropped(f"spec.sampling.{name}", "reasoning models refuse it")
            elif name == "max_output_tokens":
                body[self.deviations.max_tokens] = sampling.max_output_tokens
            elif name == "candidate_count":
                if sampling.candidate_count > 1:
                    body["n"] = sampling.candidate_count
            elif name == "top_k":
                if self.deviations.top_k:
                    body["top_k"] = sampling.top_k
                else:
                    self.warnings.dropped("spec.sampling.top_k")
            elif name == "seed":
                body[self.deviations.seed] = sampling.seed
            else:
                body[name] = getattr(sampling, name)
        if sampling.stop:
            self._unless(unsupported, "stop", body, list(sampling.stop))
        if sampling.logit_bias:
            self._unless(unsupported, "logit_bias", body, dict(sampling.logit_bias))
        if sampling.verbosity:
            self._unless(unsupported, "verbosity", body, sampling.verbosity)

    def _unless(
        self, unsupported: frozenset[str], name: str, body: dict[str, Any], value: Any
    ) -> None:
        if name in unsupported:
            self.warnings.dropped(f"spec.sampling.{name}")
        else:
            body[name] = value

    def _tools(self, body: dict[str, Any]) -> None:
        options = self.spec.tool_options
        if not options.tools:
            return
        allowed = list(options.choice.allowed_tool_names)
        mode = choice_mode(options)
        narrows = bool(allowed) and self.deviations.allowed_tools
        body["tools"] = [
            _tool(tool) for tool in (options.tools if narrows else offered_tools(options))
        ]
        if options.choice.WhichOneof("choice") == "tool_name":
            body["tool_choice"] = {
                "type": "function",
                "function": {"name": options.choice.tool_name},
            }
        elif narrows:
            required = mode == ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED
            names = [{"type": "function", "function": {"name": name}} for name in allowed]
            body["tool_choice"] = {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required" if required else "auto", "tools": names},
            }
        elif mode == ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED:
            body["tool_choice"] = self.deviations.required_word
        elif mode == ToolChoiceMode.TOOL_CHOICE_MODE_NONE:
            body["tool_choice"] = "none"
        elif mode == ToolChoiceMode.TOOL_CHOICE_MODE_AUTO:
            body["tool_choice"] = "auto"
        if options.HasField("parallel_calls"):
            if "parallel_calls" in self.deviations.unsupported:
                self.warnings.dropped("spec.tool_options.parallel_calls")
            else:
                body["parallel_tool_calls"] = options.parallel_calls

    def _response_format(self, body: dict[str, Any]) -> None:
        wanted = self.spec.response_format
        kind = wanted.WhichOneof("format")
        if kind == "json_object":
            body["response_format"] = {"type": "json_object"}
        elif kind == "json_schema":
            schema: dict[str, Any] = {
                "name": wanted.json_schema.name,
                "schema": raw_json(wanted.json_schema.schema_json),
            }
            if wanted.json_schema.description:
                schema["description"] = wanted.json_schema.description
            if wanted.json_schema.HasField("strict"):
                schema["strict"] = wanted.json_schema.strict
            body["response_format"] = {"type": "json_schema", "json_schema": schema}

    def _reasoning(self, body: dict[str, Any]) -> None:
        reasoning = self.spec.reasoning
        deviations = self.deviations
        if reasoning.effort:
            word = EFFORT_WORDS[reasoning.effort]
            if not deviations.has_effort or (
                deviations.effort_needs_reasoning_model and not self.reasons
            ):
                # A model that does not reason at all already does what "none" asks.
                if reasoning.effort != ReasoningEffort.REASONING_EFFORT_NONE:
                    self.warnings.dropped(
                        "spec.reasoning.effort", "the model does not take an effort"
                    )
            else:
                used = deviations.efforts.get(word, word)
                if used != word:
                    self.warnings.clamped("spec.reasoning.effort", f"{word} is called {used} here")
                body["reasoning_effort"] = used
        if reasoning.HasField("budget_tokens"):
            self.warnings.dropped("spec.reasoning.budget_tokens")
        if reasoning.include and deviations.show_reasoning:
            body.update(deviations.show_reasoning)


_SCALARS: Final = (
    "temperature",
    "top_p",
    "top_k",
    "max_output_tokens",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "candidate_count",
    "logprobs",
    "top_logprobs",
)
_REFUSED_WHEN_REASONING: Final = frozenset(
    {"temperature", "top_p", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs"}
)


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = raw_json(
        tool.parameters_schema_json, '{"type":"object","properties":{}}'
    )
    if tool.HasField("strict"):
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


class OpenAIDecoder:
    """One response. Chunks are read as typed structs: nothing is decoded that is not used."""

    def __init__(self, events: AnswerEvents) -> None:
        self._sse = SSEDecoder()
        self._events = events
        self._keys: dict[tuple[int, int], object] = {}
        self._is_done = False
        self._knows_model = False

    @property
    def progressed(self) -> bool:
        """Content came since this was last cleared."""
        return self._events.progressed

    @progressed.setter
    def progressed(self, value: bool) -> None:
        self._events.progressed = value

    @property
    def output_chars(self) -> int:
        """Characters of the answer so far, reasoning included."""
        return self._events.output_chars

    @property
    def is_done(self) -> bool:
        """[DONE] has come."""
        return self._is_done

    @property
    def is_finished(self) -> bool:
        """Every choice has its finish reason."""
        return self._events.is_finished

    def feed(self, chunk: bytes) -> list[CompleteResponse]:
        """One read of the stream."""
        try:
            for data in self._sse.feed(chunk):
                self._data(data)
        except MalformedStream as error:
            raise UpstreamError(Failure.PROTOCOL, str(error)) from error
        return self._events.take()

    def finish(self) -> list[CompleteResponse]:
        """The end of the stream: fine once every choice has ended, [DONE] or not."""
        for data in self._sse.finish():
            self._data(data)
        if not self._events.is_finished:
            raise UpstreamError(Failure.AMBIGUOUS, "the stream ended before the answer")
        return self._events.take()

    def whole(self, body: bytes) -> list[CompleteResponse]:
        """A response that is one JSON object."""
        chunk = self._decoded(body)
        if not chunk.choices:
            raise UpstreamError(Failure.PROTOCOL, "no choices")
        self._chunk(chunk)
        if not self._events.is_finished:
            raise UpstreamError(Failure.PROTOCOL, "a choice without an end")
        self._is_done = True
        return self._events.take()

    def _decoded(self, data: bytes) -> _Chunk:
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise UpstreamError(
                Failure.PROTOCOL, f"malformed JSON: {type(error).__name__}"
            ) from error
        if chunk.error:
            raise _error(chunk.error, 200)
        return chunk

    def _data(self, data: bytes) -> None:
        if self._is_done:
            return
        if data == b"[DONE]":
            self._is_done = True
            return
        if data:
            self._chunk(self._decoded(data))

    def _chunk(self, chunk: _Chunk) -> None:
        if not self._knows_model and chunk.model:
            self._knows_model = True
            facts = self._events.facts
            facts.response_model = chunk.model[:256]
            facts.system_fingerprint = (chunk.system_fingerprint or "")[:256]
            facts.service_tier = (chunk.service_tier or "")[:64]
        if chunk.choices:
            for choice in chunk.choices:
                self._choice(choice)
        usage = chunk.usage or (chunk.x_groq.usage if chunk.x_groq else None)
        if usage is not None:
            self._usage(usage)

    def _choice(self, choice: _Choice) -> None:
        events = self._events
        index = choice.index
        # Azure's last chunk has no delta at all.
        delta = choice.delta or choice.message
        if delta is not None:
            # vLLM and others say `reasoning` where DeepSeek says `reasoning_content`.
            if reasoning := delta.reasoning_content or delta.reasoning:
                events.reasoning(index, reasoning)
            content = delta.content
            if type(content) is str:
                events.text(index, content, _logprobs(choice.logprobs) if choice.logprobs else ())
            elif content:
                self._parts(index, content)
            elif choice.logprobs:
                events.text(index, "", _logprobs(choice.logprobs))
            if delta.refusal:
                events.refusal(index, delta.refusal)
            if delta.tool_calls:
                for position, call in enumerate(delta.tool_calls):
                    self._tool_call(index, call, position)
        if choice.error or choice.finish_reason in FAILED_FINISHES:
            raise _error(choice.error, 200)
        if choice.finish_reason:
            reason = FINISH_REASONS.get(choice.finish_reason, FinishReason.FINISH_REASON_OTHER)
            events.finish(index, reason, choice.finish_reason)

    def _parts(self, index: int, content: str | list[_ContentPart]) -> None:
        # Mistral's reasoning models write content as a list of text and thinking parts.
        for part in content:
            if isinstance(part, _ContentPart):
                if part.text:
                    self._events.text(index, part.text)
                for thought in part.thinking if isinstance(part.thinking, list) else ():
                    if isinstance(thought, dict) and isinstance(thought.get("text"), str):
                        self._events.reasoning(index, thought["text"])

    def _tool_call(self, index: int, call: _ToolCall, position: int) -> None:
        events = self._events
        slot = (index, position if call.index is None else call.index)
        key = self._keys.get(slot)
        function = call.function
        name = function.name if function else None
        # Some servers number every call 0. A new id with a name is a new call whatever its number says.
        if key is None or (call.id and name and call.id != key):
            if not name:
                raise UpstreamError(Failure.PROTOCOL, "a tool call without a name")
            key = call.id if call.id and call.id != "null" else object()
            self._keys[slot] = key
            events.begin_call(index, key, call.id or "", name)
        arguments = function.arguments if function else None
        if isinstance(arguments, str):
            events.call_arguments(index, key, arguments)
        elif arguments is not None:
            events.call_arguments(index, key, _encode(arguments).decode())

    def _usage(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        if not is_count(usage.get("prompt_tokens")) or not is_count(
            usage.get("completion_tokens", 0)
        ):
            return
        prompt = usage.get("prompt_tokens_details")
        prompt = prompt if isinstance(prompt, dict) else {}
        completion = usage.get("completion_tokens_details")
        completion = completion if isinstance(completion, dict) else {}
        input_tokens = count_of(usage["prompt_tokens"])
        output_tokens = count_of(usage.get("completion_tokens", 0))
        # DeepSeek has its own name for what was found in the cache.
        cached = count_of(prompt.get("cached_tokens")) or count_of(
            usage.get("prompt_cache_hit_tokens")
        )
        self._events.usage(
            Usage(
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                total_tokens=input_tokens + output_tokens,
                cached_input_tokens=min(cached, input_tokens),
                cache_write_input_tokens=min(
                    count_of(prompt.get("cache_write_tokens")), input_tokens
                ),
                reasoning_tokens=min(count_of(completion.get("reasoning_tokens")), output_tokens),
                input_audio_tokens=min(count_of(prompt.get("audio_tokens")), input_tokens),
                output_audio_tokens=min(count_of(completion.get("audio_tokens")), output_tokens),
                input_image_tokens=min(count_of(prompt.get("image_tokens")), input_tokens),
            )
        )


def _logprobs(logprobs: _Logprobs) -> list[TokenLogprob]:
    tokens = []
    for entry in (logprobs.content or []) + (logprobs.refusal or []):
        token = _token(entry)
        token.top.extend(_token(top) for top in entry.top_logprobs or ())
        tokens.append(token)
    return tokens


def _token(entry: _TopLogprob) -> TokenLogprob:
    token = TokenLogprob(token=entry.token, logprob=entry.logprob)
    if entry.bytes is not None and all(0 <= byte <= 255 for byte in entry.bytes):
        token.utf8 = bytes(entry.bytes)
    return token


def _error(error: Any, status: int) -> UpstreamError:
    """Codes come as `code`, `type` or both, and some services write numbers into `code`."""
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return UpstreamError(classify(status), f"HTTP {status}", http_status=status)
    inner = error.get("innererror")
    codes = [
        error.get("code"),
        error.get("type"),
        inner.get("code") if isinstance(inner, dict) else None,
    ]
    numbers = [code for code in codes if isinstance(code, int) and not isinstance(code, bool)]
    if status == 200 and numbers:
        # An error inside a 200 says there what its status would have been.
        status = numbers[0] if 400 <= numbers[0] <= 599 else status
    words = [code for code in codes if isinstance(code, str)]
    if status == 200 and words and words[0].isdigit():
        status = int(words[0][:3])
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("error_type"), str):
        words.append(metadata["error_type"])
    message = error.get("message")
    failure = classify(status, tuple(words))
    if failure is Failure.CALLER and isinstance(error.get("failed_generation"), str):
        failure = Failure.MODEL_FAULT
    if failure is Failure.CALLER and _CONTEXT_TEXT.search(str(message)):
        failure = Failure.CONTEXT_LENGTH
    return UpstreamError(
        failure,
        message if isinstance(message, str) else f"HTTP {status}",
        http_status=status,
        code=next(iter(words), ""),
    )


# vLLM has no code for this, only a sentence. It is looked for in a 400 alone, where a wrong guess does no harm: another
# candidate is asked, and the caller is told that the request was refused either way.
_CONTEXT_TEXT = re.compile(r"maximum context length|context (window|length|size)", re.IGNORECASE)
