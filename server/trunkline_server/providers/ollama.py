"""The Ollama dialect: /api/chat, as an Ollama server speaks it itself.

An answer is a line of JSON after the other; the last one says `done` and counts the tokens. A call of a tool comes
whole, with its arguments as an object, and a result is known by its tool's name and its place alone. What a model can
do, only the server knows: it refuses the rest with a 400.

Sources: the types of the `ollama` SDK 0.6.3; `api/types.go`, `server/routes.go` and `docs/api.md` of ollama/ollama;
    read 2026-11-22.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import FinishReason, TokenLogprob, Usage
from trunkline.v1.completion_spec_pb2 import ReasoningEffort, Tool, ToolChoiceMode
from trunkline.v1.message_pb2 import Media, Message, Role
from trunkline_server.core.candidate import Candidate, Capability
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure, classify
from trunkline_server.core.ports import AttemptFacts, Prompt, Unencodable
from trunkline_server.providers.answer import (
    AnswerDecoder,
    AnswerEvents,
    count_of,
    is_count,
    raw_arguments,
)
from trunkline_server.providers.translator import (
    UpstreamRequest,
    Warnings,
    base64_of,
    beside_results,
    choice_mode,
    json_object,
    offered_tools,
    provider_options,
    raw_json,
    system_text,
    text_of,
    tool_names_by_id,
    without_idle_turns,
)
from trunkline_server.wire.ndjson import NDJSONDecoder
from trunkline_server.wire.sse import MalformedStream

PATH: Final = "/api/chat"
STREAM_TYPE: Final = "application/x-ndjson"

FINISH_REASONS: Final[Mapping[str, FinishReason.ValueType]] = {
    "stop": FinishReason.FINISH_REASON_STOP,  # Also after calls and at a stop sequence.
    "length": FinishReason.FINISH_REASON_LENGTH,
    "": FinishReason.FINISH_REASON_STOP,  # Older servers only say that they are done.
}
# The server has loaded or unloaded the model and asked it nothing.
FAILED_FINISHES: Final = frozenset({"load", "unload"})

# Levels for models that have some; for the others each of them means to think.
EFFORTS: Final[Mapping[ReasoningEffort.ValueType, str | bool]] = {
    ReasoningEffort.REASONING_EFFORT_NONE: False,
    ReasoningEffort.REASONING_EFFORT_MINIMAL: "low",
    ReasoningEffort.REASONING_EFFORT_LOW: "low",
    ReasoningEffort.REASONING_EFFORT_MEDIUM: "medium",
    ReasoningEffort.REASONING_EFFORT_HIGH: "high",
    ReasoningEffort.REASONING_EFFORT_XHIGH: "high",
    ReasoningEffort.REASONING_EFFORT_MAX: "high",
}
# Parameters that extra options may not set: the gateway's own promises hang on them.
RESERVED: Final = frozenset({"model", "messages", "stream", "tools"})
# Errors are a sentence, without a code. Most 400s say that the model lacks something: tools, thinking, images, room for
# a prompt of this length. The next candidate may have it.
STATUSES: Final[Mapping[int, Failure]] = {400: Failure.CAPABILITY}
BAD_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()


class _ToolCall(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Token(msgspec.Struct):
    token: str | None = None
    logprob: float | None = None


class _Logprob(_Token):
    top_logprobs: list[_Token] | None = None


class _Line(msgspec.Struct):
    message: _Message | None = None
    done: bool | None = None
    done_reason: str | None = None
    model: str | None = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    logprobs: list[_Logprob] | None = None
    error: Any = None


_decode_line = msgspec.json.Decoder(_Line).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class OllamaTranslator:
    """Ollama's own dialect."""

    name: str = "ollama"
    capabilities: frozenset[Capability] = frozenset(
        {
            Capability.TOOLS,
            Capability.PARALLEL_TOOLS,
            Capability.STRUCTURED_OUTPUT,
            Capability.REASONING,
            Capability.VISION,
            Capability.PROMPT_CACHING,
            Capability.LOGPROBS,
            Capability.SEED,
        }
    )

    def encode(self, candidate: Candidate, prompt: Prompt) -> UpstreamRequest:
        """The body of POST /api/chat."""
        return _Request(candidate, prompt).encoded()

    def decoder(
        self, candidate: Candidate, prompt: Prompt, facts: AttemptFacts, mint_id: Callable[[], str]
    ) -> "OllamaDecoder":
        """For one response, streamed or whole."""
        return OllamaDecoder(AnswerEvents.of(candidate, prompt, facts, mint_id))

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """A sentence under `error`."""
        try:
            value = msgspec.json.decode(body)
        except BAD_JSON:
            value = None
        return _error(value.get("error") if isinstance(value, dict) else None, status)


class _Request:
    """Writes one request body."""

    def __init__(self, candidate: Candidate, prompt: Prompt) -> None:
        self.candidate = candidate
        self.prompt = prompt
        self.spec = prompt.spec
        self.warnings = Warnings(candidate.provider)

    def encoded(self) -> UpstreamRequest:
        spec = self.spec
        body: dict[str, Any] = {
            "model": self.candidate.model,
            "messages": self._messages(),
            "stream": self.prompt.stream,  # A stream is what comes where nothing is said.
            # Where a prompt is too long, the server would drop the oldest turns without a word.
            "truncate": False,
        }
        options: dict[str, Any] = {}
        if self.candidate.context_window_tokens:
            # The server's own choice is far below what most models have.
            options["num_ctx"] = self.candidate.context_window_tokens
        if spec.tool_options.tools:
            self._tools(body)
        if spec.HasField("sampling"):
            self._sampling(body, options)
        if spec.HasField("response_format"):
            self._response_format(body)
        if spec.HasField("reasoning"):
            self._reasoning(body)
        if options:
            body["options"] = options
        if spec.end_user_id:
            self.warnings.dropped("spec.end_user_id")
        if spec.service_tier not in ("", "auto", "default"):
            self.warnings.dropped("spec.service_tier", "the provider has no such tier")
        if spec.provider_options_json:
            self._options(body)
        return UpstreamRequest(PATH, _encode(body), (), self.warnings.found)

    # Messages

    def _messages(self) -> list[dict[str, Any]]:
        spec = self.spec
        results = self._results()
        messages: list[dict[str, Any]] = []
        if spec.system_prompt:
            messages.append({"role": "system", "content": spec.system_prompt})
        for message in spec.messages:
            if message.role == Role.ROLE_USER:
                messages.append(self._user(message))
            elif message.role == Role.ROLE_TOOL:
                said = self._user(beside_results(message, self.warnings))
                if said["content"] or "images" in said:
                    messages.append(said)
            elif message.role == Role.ROLE_ASSISTANT:
                messages.append(self._assistant(message))
                # Without ids a result belongs to the call in its place, so they stand in the order of the calls.
                calls = (part.tool_call.id for part in message.parts if part.HasField("tool_call"))
                messages += [results[call_id] for call_id in calls if call_id in results]
            else:
                content = system_text(message, self.warnings)
                messages.append({"role": "system", "content": content})
        return without_idle_turns(messages)

    def _user(self, message: Message) -> dict[str, Any]:
        texts: list[str] = []
        images: list[str] = []
        for part in message.parts:
            kind = part.WhichOneof("content")
            if kind == "text":
                texts.append(part.text)
            elif kind == "image":
                images.append(self._image(part.image))
            elif kind not in ("tool_result", None):
                raise Unencodable(
                    f"spec.messages[].parts[].{kind}", "the dialect has no such input"
                )
        written: dict[str, Any] = {"role": "user", "content": _named(message.name, texts)}
        if images:
            written["images"] = images
        return written

    def _image(self, image: Media) -> str:
        if image.WhichOneof("source") != "data":
            raise Unencodable("spec.messages[].parts[].image", "images are sent as data only")
        if image.detail not in ("", "auto"):
            self.warnings.dropped("spec.messages[].parts[].image.detail")
        return base64_of(image)

    def _assistant(self, message: Message) -> dict[str, Any]:
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[dict[str, Any]] = []
        for part in message.parts:
            kind = part.WhichOneof("content")
            if kind in ("text", "refusal"):
                texts.append(part.text or part.refusal)
            elif kind == "reasoning":
                thoughts.append(part.reasoning.text)
            elif kind == "tool_call":
                call = part.tool_call
                arguments = json_object(call.arguments_json)
                calls.append({"function": {"name": call.name, "arguments": arguments}})
            elif kind is not None:
                raise Unencodable(
                    f"spec.messages[].parts[].{kind}", "the assistant's turn can't hold it here"
                )
            if part.HasField("provider_state"):
                self.warnings.state_dropped()
        written: dict[str, Any] = {"role": "assistant", "content": _named(message.name, texts)}
        if thinking := "".join(thoughts):
            written["thinking"] = thinking
        if calls:
            written["tool_calls"] = calls
        return written

    def _results(self) -> dict[str, dict[str, Any]]:
        """All results as messages, by the id of their call."""
        names = tool_names_by_id(self.spec.messages)
        found: dict[str, dict[str, Any]] = {}
        for message in self.spec.messages:
            for part in message.parts:
                if part.WhichOneof("content") != "tool_result":
                    continue
                result = part.tool_result
                if any(inner.WhichOneof("content") != "text" for inner in result.parts):
                    raise Unencodable(
                        "spec.messages[].parts[].tool_result.parts",
                        "only text goes into a tool result here",
                    )
                text = text_of(result.parts)
                if result.is_error:
                    # There is no field for it, so the model is told in the content.
                    text = _encode({"error": text}).decode()
                name = names.get(result.tool_call_id, result.tool_name)
                found[result.tool_call_id] = {"role": "tool", "tool_name": name, "content": text}
        return found

    # Options

    def _tools(self, body: dict[str, Any]) -> None:
        options = self.spec.tool_options
        mode = choice_mode(options)
        if mode == ToolChoiceMode.TOOL_CHOICE_MODE_NONE:
            return  # A choice has no field, so tools that may not be called are not shown.
        tools: Sequence[Tool] = offered_tools(options)
        if named := options.choice.tool_name:
            tools = [tool for tool in tools if tool.name == named]
        if named or mode == ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED:
            self.warnings.dropped("spec.tool_options.choice", "no call can be required here")
        body["tools"] = [_tool(tool) for tool in tools]
        if options.HasField("parallel_calls") and not options.parallel_calls:
            self.warnings.dropped("spec.tool_options.parallel_calls")
        if any(tool.strict for tool in tools):
            self.warnings.dropped("spec.tool_options.tools[].strict")

    def _sampling(self, body: dict[str, Any], options: dict[str, Any]) -> None:
        sampling = self.spec.sampling
        if sampling.candidate_count > 1:
            raise Unencodable("spec.sampling.candidate_count", "the provider gives one answer")
        for name, word in _SCALARS.items():
            if sampling.HasField(name):  # type: ignore[arg-type]
                options[word] = getattr(sampling, name)
        if sampling.stop:
            options["stop"] = list(sampling.stop)
        if sampling.logprobs:
            body["logprobs"] = True
            if sampling.top_logprobs:
                body["top_logprobs"] = sampling.top_logprobs
        if sampling.logit_bias:
            self.warnings.dropped("spec.sampling.logit_bias")
        if sampling.verbosity:
            self.warnings.dropped("spec.sampling.verbosity")

    def _response_format(self, body: dict[str, Any]) -> None:
        wanted = self.spec.response_format
        kind = wanted.WhichOneof("format")
        if kind == "json_object":
            body["format"] = "json"
        elif kind == "json_schema":
            body["format"] = raw_json(wanted.json_schema.schema_json)

    def _reasoning(self, body: dict[str, Any]) -> None:
        # Models that can think do so where nothing is said; the others are refused when they are asked to.
        reasoning = self.spec.reasoning
        if reasoning.effort:
            think = EFFORTS[reasoning.effort]
            if think and Capability.REASONING not in self.candidate.capabilities:
                self.warnings.dropped("spec.reasoning.effort", "the model does not reason")
            else:
                body["think"] = think
                asked = ReasoningEffort.Name(reasoning.effort).removeprefix("REASONING_EFFORT_")
                if think and think != asked.lower():
                    self.warnings.clamped(
                        "spec.reasoning.effort", f"{asked.lower()} is called {think} here"
                    )
        if reasoning.HasField("budget_tokens"):
            if reasoning.budget_tokens == 0 and "think" not in body:
                body["think"] = False
            else:
                self.warnings.dropped("spec.reasoning.budget_tokens", "the model takes an effort")

    def _options(self, body: dict[str, Any]) -> None:
        for key, value in provider_options(self.spec, self.candidate, openai_dialect=False).items():
            if key in RESERVED:
                self.warnings.dropped(
                    f"spec.provider_options_json.{key[:64]}", "the gateway sets this itself"
                )
            elif key == "options" and isinstance(value, dict):
                body["options"] = {**body.get("options", {}), **value}
            else:
                body[key] = value


_SCALARS: Final[Mapping[str, str]] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_output_tokens": "num_predict",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}


def _named(name: str, texts: Sequence[str]) -> str:
    """The texts as one, after the author's name: there is no other place for it."""
    text = "".join(texts)
    return f"{name}: {text}" if name and text else text


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = raw_json(
        tool.parameters_schema_json, '{"type":"object","properties":{}}'
    )
    return {"type": "function", "function": function}


class OllamaDecoder(AnswerDecoder):
    """One response. Lines are read as typed structs: nothing is decoded that is not used."""

    def __init__(self, events: AnswerEvents) -> None:
        self._ndjson = NDJSONDecoder()
        super().__init__(events)
        self._knows_model = False

    @property
    def is_finished(self) -> bool:
        """The same: that line also says why."""
        return self.is_done

    def feed(self, chunk: bytes) -> list[CompleteResponse]:
        """One read of the stream."""
        try:
            for line in self._ndjson.feed(chunk):
                if (
                    not self.is_done
                ):  # After it comes the last line once more, or what a proxy adds.
                    self._line(_decoded(line))
        except MalformedStream as error:
            raise UpstreamError(Failure.PROTOCOL, str(error)) from error
        return self._events.take()

    def finish(self) -> list[CompleteResponse]:
        """The end of the stream: fine after the line that says so, whose own end may be missing."""
        for rest in () if self.is_done else self._ndjson.finish():
            try:
                line = _decode_line(rest)
            except BAD_JSON as error:
                raise UpstreamError(
                    Failure.AMBIGUOUS, "the stream ended inside of a line"
                ) from error
            self._line(line)
        if not self.is_done:
            raise UpstreamError(Failure.AMBIGUOUS, "the stream ended before the answer")
        return self._events.take()

    def whole(self, body: bytes) -> list[CompleteResponse]:
        """One JSON object: all of the answer in one line."""
        self._line(_decoded(body))
        if not self.is_done:
            raise UpstreamError(Failure.PROTOCOL, "an answer without an end")
        return self._events.take()

    def _line(self, line: _Line) -> None:
        if line.error:
            raise _error(line.error, 200)
        if not self._knows_model and line.model:
            self._knows_model = True
            self._events.facts.response_model = line.model[:256]
        if line.message is not None:
            self._message(line.message, line.logprobs)
        if line.done:
            self._end(line)

    def _message(self, message: _Message, logprobs: Sequence[_Logprob] | None) -> None:
        events = self._events
        if message.thinking:
            events.reasoning(0, message.thinking)
        if message.content:
            # Those of thinking and of calls have no place.
            events.text(0, message.content, [_logprob(entry) for entry in logprobs or ()])
        for call in message.tool_calls or ():
            self._call(call)

    def _call(self, call: _ToolCall) -> None:
        if call.function is None or not call.function.name:
            raise UpstreamError(Failure.PROTOCOL, "a tool call without a name")
        # A call comes whole, so nothing ever refers to it again. The index beside it starts anew with each line.
        key = object()
        self._events.begin_call(0, key, call.id or "", call.function.name)
        self._events.call_arguments(0, key, raw_arguments(call.function.arguments))

    def _end(self, line: _Line) -> None:
        native = line.done_reason or ""
        if native in FAILED_FINISHES:
            raise UpstreamError(
                Failure.SERVER, f"nothing was asked of the model: {native}", http_status=200
            )
        self.is_done = True
        reason = FINISH_REASONS.get(native, FinishReason.FINISH_REASON_OTHER)
        self._events.finish(0, reason, native)
        # Counts of 0 are left out, and so is what the server did not count: a prompt that it still had in its cache.
        if is_count(line.prompt_eval_count) and is_count(line.eval_count):
            input_tokens, output_tokens = (
                count_of(line.prompt_eval_count),
                count_of(line.eval_count),
            )
            self._events.usage(
                Usage(
                    input_tokens=input_tokens,
                    output_tokens=output_tokens,
                    total_tokens=input_tokens + output_tokens,
                )
            )


def _decoded(data: bytes) -> _Line:
    try:
        return _decode_line(data)
    except BAD_JSON as error:
        raise UpstreamError(Failure.PROTOCOL, f"malformed JSON: {type(error).__name__}") from error


def _logprob(entry: _Logprob) -> TokenLogprob:
    token = _token(entry)
    token.top.extend(_token(top) for top in entry.top_logprobs or ())
    return token


def _token(entry: _Token) -> TokenLogprob:
    text = entry.token or ""
    token = TokenLogprob(token=text, logprob=entry.logprob or 0.0)
    if "\ufffd" not in text:
        token.utf8 = text.encode()
    return token


def _error(error: Any, status: int) -> UpstreamError:
    """A sentence; proxies in front of the server write an object, as OpenAI does."""
    message = error.get("message") if isinstance(error, dict) else error
    return UpstreamError(
        STATUSES.get(status) or classify(status),
        message if isinstance(message, str) else f"HTTP {status}",
        http_status=status,
    )
