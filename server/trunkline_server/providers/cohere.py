"""The Cohere dialect: version 2 of Cohere's chat API.

An answer is a list of content blocks, text or thinking, and beside it a plan for tools and the calls. The plan is
thinking too: the model's own template writes both the same way, so here both are reasoning, and what goes back with
calls goes back as their plan. Citations have no event.

Sources: https://docs.cohere.com/reference/chat, https://docs.cohere.com/docs (streaming, tool use, reasoning,
    structured outputs) and https://docs.cohere.com/errors-reference; the API's own description in
    cohere-ai/cohere-developer-experience; the types of the `cohere` SDK 7.3.1; read 2026-11-22.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import FinishReason, TokenLogprob, Usage
from trunkline.v1.completion_spec_pb2 import ReasoningEffort, Tool, ToolChoiceMode
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.core.candidate import Candidate, Capability
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure, classify
from trunkline_server.core.ports import AttemptFacts, Prompt, Unencodable
from trunkline_server.providers.answer import AnswerDecoder, AnswerEvents, count_of, is_count
from trunkline_server.providers.translator import (
    UpstreamRequest,
    Warnings,
    beside_results,
    choice_mode,
    data_url,
    offered_tools,
    provider_options,
    raw_json,
    system_texts,
    text_of,
)
from trunkline_server.wire.sse import MalformedStream, SSEDecoder

PATH: Final = "/chat"

FINISH_REASONS: Final[Mapping[str, FinishReason.ValueType]] = {
    "COMPLETE": FinishReason.FINISH_REASON_STOP,
    "STOP_SEQUENCE": FinishReason.FINISH_REASON_STOP_SEQUENCE,
    "MAX_TOKENS": FinishReason.FINISH_REASON_LENGTH,
    "TOOL_CALL": FinishReason.FINISH_REASON_TOOL_CALLS,
}
FAILED_FINISHES: Final = frozenset({"ERROR", "TIMEOUT"})

# Tokens. Thinking shares the answer's 32,000, so the largest budget leaves 1,000 of them; without one there is no end.
EFFORT_BUDGETS: Final[Mapping[ReasoningEffort.ValueType, int | None]] = {
    ReasoningEffort.REASONING_EFFORT_MINIMAL: 1024,
    ReasoningEffort.REASONING_EFFORT_LOW: 2048,
    ReasoningEffort.REASONING_EFFORT_MEDIUM: 8192,
    ReasoningEffort.REASONING_EFFORT_HIGH: 24576,
    ReasoningEffort.REASONING_EFFORT_XHIGH: 31000,
    ReasoningEffort.REASONING_EFFORT_MAX: None,
}
# All that came before reasoning, and those of their generation that were made for something else.
NEVER_REASONS: Final = re.compile(
    r"^command$|command-(r|light|nightly|a-(03|vision|translate))|aya"
)
# Least and most that the API takes.
RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "top_p": (0.01, 0.99),
    "top_k": (0, 500),
    "frequency_penalty": (0.0, 1.0),
    "presence_penalty": (0.0, 1.0),
}
MAX_STOP: Final = 5
SEED_MASK: Final = 0x7FFF_FFFF_FFFF_FFFF  # A seed has no sign here.
# Parameters that extra options may not set: the gateway's own promises hang on them.
RESERVED: Final = frozenset({"model", "messages", "stream", "tools"})
# Errors are a sentence, without a code.
STATUSES: Final[Mapping[int, Failure]] = {
    # A prompt that is too long, a model without tools or images, and a wrong field look alike. The first two are no
    # problem of the next candidate.
    400: Failure.CAPABILITY,
    498: Failure.POLICY,  # A word on the list of denied ones, in the prompt or in the answer.
    501: Failure.CAPABILITY,
}
BAD_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None


class _Content(msgspec.Struct):
    text: str | None = None
    thinking: str | None = None


class _Message(msgspec.Struct):
    """Whole or a delta: a delta has one object where the whole has a list."""

    content: _Content | list[_Content] | None = None
    tool_plan: str | None = None
    tool_calls: _ToolCall | list[_ToolCall] | None = None


class _Logprobs(msgspec.Struct):
    text: str | None = None
    logprobs: list[float] | None = None


class _Delta(msgspec.Struct):
    message: _Message | None = None
    finish_reason: str | None = None
    usage: Any = None
    error: Any = None


class _Event(msgspec.Struct):
    type: str | None = None
    id: str | None = None
    index: int | None = None
    delta: _Delta | None = None
    logprobs: _Logprobs | None = None
    message: Any = None


class _Answer(msgspec.Struct):
    id: str | None = None
    message: _Message | str | None = None
    finish_reason: str | None = None
    usage: Any = None
    logprobs: list[_Logprobs] | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class CohereTranslator:
    """Cohere's dialect."""

    name: str = "cohere"
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
        """The body of POST /v2/chat."""
        return _Request(candidate, prompt).encoded()

    def decoder(
        self, candidate: Candidate, prompt: Prompt, facts: AttemptFacts, mint_id: Callable[[], str]
    ) -> "CohereDecoder":
        """For one response, streamed or whole."""
        return CohereDecoder(AnswerEvents.of(candidate, prompt, facts, mint_id))

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """A sentence under `message`, or under `data` for a denied word."""
        try:
            value = msgspec.json.decode(body)
        except BAD_JSON:
            value = None
        if not isinstance(value, dict):
            value = {}
        return _error(value.get("message") or value.get("data"), status)


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
            "stream": self.prompt.stream,
        }
        if spec.tool_options.tools:
            self._tools(body)
        if spec.HasField("sampling"):
            self._sampling(body)
        if spec.HasField("response_format"):
            self._response_format(body)
        if spec.HasField("reasoning"):
            self._reasoning(body)
        if spec.end_user_id:
            self.warnings.dropped("spec.end_user_id")
        if spec.service_tier not in ("", "auto", "default"):
            self.warnings.dropped("spec.service_tier", "the provider has no such tier")
        if spec.provider_options_json:
            self._options(body)
        return UpstreamRequest(PATH, _encode(body), (), self.warnings.found)

    # Messages

    def _messages(self) -> list[dict[str, Any]]:
        results = self._results()
        turns: list[dict[str, Any]] = []
        for message in self.spec.messages:
            if message.role == Role.ROLE_USER:
                turns += self._user(message)
            elif message.role == Role.ROLE_TOOL:
                turns += self._user(beside_results(message, self.warnings))
            elif message.role == Role.ROLE_ASSISTANT:
                turns += self._assistant(message)
                calls = (part.tool_call.id for part in message.parts if part.HasField("tool_call"))
                turns += [results[call_id] for call_id in calls if call_id in results]
        texts = system_texts(self.spec, self.warnings)
        if not turns:
            # Nothing but instructions. A turn is required, so the last of them is asked as a question.
            if not texts:
                raise Unencodable("spec.messages", "only blank text, which the provider refuses")
            turns = [{"role": "user", "content": texts.pop()}]
        # The system's turn is the first, and there is one.
        return [{"role": "system", "content": _content(texts)}, *turns] if texts else turns

    def _user(self, message: Message) -> list[dict[str, Any]]:
        written = [found for part in message.parts if (found := self._part(part))]
        if not written:
            return []  # An empty turn is refused.
        if message.name:
            # There is no other place for the author's name.
            if written[0]["type"] == "text":
                written[0]["text"] = f"{message.name}: {written[0]['text']}"
            else:
                written.insert(0, {"type": "text", "text": f"{message.name}:"})
        is_text = len(written) == 1 and written[0]["type"] == "text"
        return [{"role": "user", "content": written[0]["text"] if is_text else written}]

    def _part(self, part: Part) -> dict[str, Any] | None:
        kind = part.WhichOneof("content")
        if kind == "text":
            return {"type": "text", "text": part.text} if part.text else None
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
        if kind in ("tool_result", None):
            return None
        raise Unencodable(f"spec.messages[].parts[].{kind}", "the dialect has no such input")

    def _assistant(self, message: Message) -> list[dict[str, Any]]:
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
                function = {"name": call.name, "arguments": call.arguments_json or "{}"}
                calls.append({"id": call.id, "type": "function", "function": function})
            elif kind is not None:
                raise Unencodable(
                    f"spec.messages[].parts[].{kind}", "the assistant's turn can't hold it here"
                )
            if part.HasField("provider_state"):
                self.warnings.state_dropped()
        written: dict[str, Any] = {"role": "assistant"}
        if text := "".join(texts):
            written["content"] = f"{message.name}: {text}" if message.name else text
        if calls:
            written["tool_calls"] = calls
            # What the model thought before an answer without calls is of no use to it any more.
            if plan := "".join(thoughts):
                written["tool_plan"] = plan
        return [written] if len(written) > 1 else []

    def _results(self) -> dict[str, dict[str, Any]]:
        """All results as messages, by the id of their call. They belong right behind it."""
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
                found[result.tool_call_id] = {
                    "role": "tool",
                    "tool_call_id": result.tool_call_id,
                    "content": text,
                }
        return found

    # Options

    def _tools(self, body: dict[str, Any]) -> None:
        options = self.spec.tool_options
        mode = choice_mode(options)
        tools: Sequence[Tool] = offered_tools(options)
        if named := options.choice.tool_name:
            # No tool can be named, but the only one that is shown can be required.
            tools = [tool for tool in tools if tool.name == named]
        body["tools"] = [_tool(tool) for tool in tools]
        if named or mode == ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED:
            body["tool_choice"] = "REQUIRED"
        elif mode == ToolChoiceMode.TOOL_CHOICE_MODE_NONE:
            body["tool_choice"] = "NONE"
        if options.HasField("parallel_calls") and not options.parallel_calls:
            self.warnings.dropped("spec.tool_options.parallel_calls")
        if all(tool.strict for tool in tools):
            body["strict_tools"] = True
        elif any(tool.strict for tool in tools):
            self.warnings.dropped("spec.tool_options.tools[].strict", "it is for all tools or none")

    def _sampling(self, body: dict[str, Any]) -> None:
        sampling = self.spec.sampling
        if sampling.candidate_count > 1:
            raise Unencodable("spec.sampling.candidate_count", "the provider gives one answer")
        if sampling.HasField("temperature"):
            body["temperature"] = sampling.temperature
        if sampling.HasField("max_output_tokens"):
            body["max_tokens"] = sampling.max_output_tokens
        if sampling.HasField("top_p"):
            body["p"] = self._ranged("top_p")
        if sampling.HasField("top_k"):
            body["k"] = self._ranged("top_k")
        self._penalties(body)
        if sampling.stop:
            body["stop_sequences"] = list(sampling.stop[:MAX_STOP])
            if len(sampling.stop) > MAX_STOP:
                self.warnings.clamped("spec.sampling.stop", f"only the first {MAX_STOP} are used")
        if sampling.HasField("seed"):
            body["seed"] = sampling.seed & SEED_MASK
            if sampling.seed < 0:
                self.warnings.clamped("spec.sampling.seed", "a seed has no sign here")
        if sampling.logprobs:
            body["logprobs"] = True
            if sampling.top_logprobs:
                self.warnings.dropped("spec.sampling.top_logprobs")
        if sampling.logit_bias:
            self.warnings.dropped("spec.sampling.logit_bias")
        if sampling.verbosity:
            self.warnings.dropped("spec.sampling.verbosity")

    def _penalties(self, body: dict[str, Any]) -> None:
        for name in ("frequency_penalty", "presence_penalty"):
            # 0 is what it is anyway, and of the two only one is taken.
            if not self.spec.sampling.HasField(name) or not (used := self._ranged(name)):
                continue
            if "frequency_penalty" in body:
                self.warnings.dropped(
                    f"spec.sampling.{name}", "not taken together with frequency_penalty"
                )
            else:
                body[name] = used

    def _ranged(self, name: str) -> float:
        wanted: float = getattr(self.spec.sampling, name)
        least, most = RANGES[name]
        used = min(max(wanted, least), most)
        if used != wanted:
            self.warnings.clamped(f"spec.sampling.{name}", f"it is {least} to {most} here")
        return used

    def _response_format(self, body: dict[str, Any]) -> None:
        wanted = self.spec.response_format
        kind = wanted.WhichOneof("format")
        if kind not in ("json_object", "json_schema"):
            return
        if "tools" in body:
            raise Unencodable(
                "spec.response_format", "the provider has structured output or tools, not both"
            )
        body["response_format"] = {"type": "json_object"}
        if kind == "json_schema":
            body["response_format"]["json_schema"] = raw_json(wanted.json_schema.schema_json)

    def _reasoning(self, body: dict[str, Any]) -> None:
        # Models that can think do so where nothing is said, and always show it.
        reasoning = self.spec.reasoning
        if reasoning.HasField("budget_tokens"):
            field, budget = "spec.reasoning.budget_tokens", reasoning.budget_tokens or None
            rests = reasoning.budget_tokens == 0
        elif reasoning.effort:
            field, budget = "spec.reasoning.effort", EFFORT_BUDGETS.get(reasoning.effort)
            rests = reasoning.effort == ReasoningEffort.REASONING_EFFORT_NONE
        else:
            return
        if not self._can_reason():
            if not rests:  # A model that does not reason at all already does what "none" asks.
                self.warnings.dropped(field, "the model does not reason")
            return
        body["thinking"] = {"type": "disabled" if rests else "enabled"}
        if budget is not None:
            body["thinking"]["token_budget"] = budget

    def _can_reason(self) -> bool:
        candidate = self.candidate
        return (
            Capability.REASONING in candidate.capabilities
            and NEVER_REASONS.search(candidate.model) is None
        )

    def _options(self, body: dict[str, Any]) -> None:
        for key, value in provider_options(self.spec, self.candidate, openai_dialect=False).items():
            if key in RESERVED:
                self.warnings.dropped(
                    f"spec.provider_options_json.{key[:64]}", "the gateway sets this itself"
                )
            else:
                body[key] = value


def _content(texts: Sequence[str]) -> str | list[dict[str, str]]:
    return texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = raw_json(
        tool.parameters_schema_json, '{"type":"object","properties":{}}'
    )
    return {"type": "function", "function": function}


class CohereDecoder(AnswerDecoder):
    """One response. Events are read as typed structs: nothing is decoded that is not used."""

    def __init__(self, events: AnswerEvents) -> None:
        self._sse = SSEDecoder()
        super().__init__(events)
        # Calls by their number, which some deltas leave out: they belong to the last one.
        self._calls: dict[int | None, object] = {}

    @property
    def is_finished(self) -> bool:
        """The same: that event also says why."""
        return self.is_done

    def feed(self, chunk: bytes) -> list[CompleteResponse]:
        """One read of the stream."""
        try:
            for data in self._sse.feed(chunk):
                self._data(data)
        except MalformedStream as error:
            raise UpstreamError(Failure.PROTOCOL, str(error)) from error
        return self._events.take()

    def finish(self) -> list[CompleteResponse]:
        """The end of the stream: fine after the event that ends the message."""
        for data in self._sse.finish():
            self._data(data)
        if not self.is_done:
            raise UpstreamError(Failure.AMBIGUOUS, "the stream ended before the answer")
        return self._events.take()

    def whole(self, body: bytes) -> list[CompleteResponse]:
        """One JSON object."""
        answer: _Answer = _decoded(_decode_answer, body)
        if not isinstance(answer.message, _Message) or not answer.finish_reason:
            raise _error(answer.message, 200)
        self._identify(answer.id)
        self._message(answer.message, answer.logprobs or ())
        self._end(answer.finish_reason, answer.usage, None)
        return self._events.take()

    def _data(self, data: bytes) -> None:
        # After the end comes `[DONE]`, or the last event once more.
        if data and not self.is_done and data != b"[DONE]":
            self._event(_decoded(_decode_event, data))

    def _event(self, event: _Event) -> None:
        delta = event.delta
        match event.type:
            case "content-delta" | "content-start" | "tool-plan-delta" if delta and delta.message:
                self._message(delta.message, (event.logprobs,) if event.logprobs else ())
            case "tool-call-start" if delta and delta.message:
                for call in _listed(delta.message.tool_calls):
                    self._begin(event.index, call)
            case "tool-call-delta" if delta and delta.message:
                for call in _listed(delta.message.tool_calls):
                    self._more(event.index, call)
            case "message-start":
                self._identify(event.id)
            case "message-end":
                end = delta or _Delta()
                self._end(end.finish_reason or "", end.usage, end.error)
            case None if event.message is not None:
                raise _error(event.message, 200)
            case _:
                pass  # Ends of blocks and calls say nothing new; citations and later kinds have no event.

    def _identify(self, answer_id: str | None) -> None:
        facts = self._events.facts
        facts.upstream_request_id = facts.upstream_request_id or (answer_id or "")[:128]

    def _message(self, message: _Message, logprobs: Sequence[_Logprobs]) -> None:
        """A message or some of it, but for deltas of calls."""
        events = self._events
        if message.tool_plan:
            events.reasoning(0, message.tool_plan)
        for content in _listed(message.content):
            if content.thinking:
                events.reasoning(0, content.thinking)
            if content.text:
                events.text(0, content.text, [_logprob(piece) for piece in logprobs])
                logprobs = ()
        for call in _listed(message.tool_calls):
            self._begin(None, call)

    def _begin(self, index: int | None, call: _ToolCall) -> None:
        if call.function is None or not call.function.name:
            raise UpstreamError(Failure.PROTOCOL, "a tool call without a name")
        key = object()
        self._calls[index] = self._calls[None] = key
        self._events.begin_call(0, key, call.id or "", call.function.name)
        self._events.call_arguments(0, key, call.function.arguments or "")

    def _more(self, index: int | None, call: _ToolCall) -> None:
        if index not in self._calls:
            raise UpstreamError(Failure.PROTOCOL, "arguments of a tool call that never began")
        if call.function is not None:
            self._events.call_arguments(0, self._calls[index], call.function.arguments or "")

    def _end(self, native: str, usage: Any, error: Any) -> None:
        if error or native in FAILED_FINISHES:
            raise UpstreamError(
                Failure.SERVER,
                error if isinstance(error, str) else native,
                http_status=200,
                code=native,
            )
        self.is_done = True
        self._events.finish(0, FINISH_REASONS.get(native, FinishReason.FINISH_REASON_OTHER), native)
        # What is billed leaves out what the API itself writes into the prompt.
        tokens = usage.get("tokens") if isinstance(usage, dict) else None
        if not isinstance(tokens, dict) or not all(is_count(tokens.get(name)) for name in _COUNTS):
            return
        input_tokens, output_tokens = (count_of(tokens[name]) for name in _COUNTS)
        self._events.usage(
            Usage(
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                total_tokens=input_tokens + output_tokens,
                cached_input_tokens=min(count_of(usage.get("cached_tokens")), input_tokens),
            )
        )


_COUNTS: Final = ("input_tokens", "output_tokens")


T = TypeVar("T")


def _listed(value: T | list[T] | None) -> Sequence[T]:
    """One object or a list of them, as a list."""
    if value is None:
        return ()
    return value if isinstance(value, list) else (value,)


def _decoded(decode: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return decode(data)
    except BAD_JSON as error:
        raise UpstreamError(Failure.PROTOCOL, f"malformed JSON: {type(error).__name__}") from error


def _logprob(piece: _Logprobs) -> TokenLogprob:
    """Of a piece of text, which mostly is one token. The probability of several is their product."""
    text = piece.text or ""
    return TokenLogprob(token=text, logprob=sum(piece.logprobs or ()), utf8=text.encode())


def _error(message: Any, status: int) -> UpstreamError:
    return UpstreamError(
        STATUSES.get(status) or classify(status),
        message if isinstance(message, str) else f"HTTP {status}",
        http_status=status,
    )
