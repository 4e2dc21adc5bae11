"""The Anthropic dialect: the Messages API.

A message is a list of typed blocks here, and so is an answer, so parts and blocks map one to one.
What a model takes beside that has changed with nearly every generation: how thinking is asked for,
whether it can be turned off, whether sampling can be steered. `anthropic_models` has a row for
each way.

Sources, read 2026-11-21: below https://platform.claude.com/docs/en the pages /api/messages,
/api/errors, /build-with-claude/streaming, /build-with-claude/thinking, /build-with-claude/effort;
and the types of the `anthropic` SDK 2.12.0.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import FinishReason, Usage
from trunkline.v1.completion_spec_pb2 import ReasoningEffort, Tool, ToolChoiceMode
from trunkline.v1.message_pb2 import Media, Message, Part, Role, ToolResult
from trunkline_server.core.candidate import USUAL, Candidate, Capability
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure, classify
from trunkline_server.core.ports import AttemptFacts, Prompt, Unencodable
from trunkline_server.providers.answer import (
    MAX_TOKENS,
    AnswerDecoder,
    AnswerEvents,
    count_of,
    is_count,
)
from trunkline_server.providers.anthropic_models import EFFORTS, model_of
from trunkline_server.providers.closed_schema import closed_schema, object_schema
from trunkline_server.providers.translator import (
    UpstreamRequest,
    Warnings,
    base64_of,
    choice_mode,
    json_object,
    offered_tools,
    provider_options,
    system_texts,
)
from trunkline_server.wire.sse import MalformedStream, SSEDecoder

FINISH_REASONS: Final[Mapping[str, FinishReason.ValueType]] = {
    "end_turn": FinishReason.FINISH_REASON_STOP,
    "max_tokens": FinishReason.FINISH_REASON_LENGTH,
    "stop_sequence": FinishReason.FINISH_REASON_STOP_SEQUENCE,
    "tool_use": FinishReason.FINISH_REASON_TOOL_CALLS,
    "pause_turn": FinishReason.FINISH_REASON_PAUSED,
    "refusal": FinishReason.FINISH_REASON_REFUSAL,
    "model_context_window_exceeded": FinishReason.FINISH_REASON_CONTEXT_LENGTH,
}
EFFORT_WORDS: Final[Mapping[ReasoningEffort.ValueType, str]] = {
    ReasoningEffort.REASONING_EFFORT_MINIMAL: "minimal",
    ReasoningEffort.REASONING_EFFORT_LOW: "low",
    ReasoningEffort.REASONING_EFFORT_MEDIUM: "medium",
    ReasoningEffort.REASONING_EFFORT_HIGH: "high",
    ReasoningEffort.REASONING_EFFORT_XHIGH: "xhigh",
    ReasoningEffort.REASONING_EFFORT_MAX: "max",
}
# For models that know a budget where others know an effort. Ours to choose: the API says only 1,024
# and more.
EFFORT_BUDGETS: Final[Mapping[ReasoningEffort.ValueType, int]] = {
    ReasoningEffort.REASONING_EFFORT_MINIMAL: 1_024,
    ReasoningEffort.REASONING_EFFORT_LOW: 2_048,
    ReasoningEffort.REASONING_EFFORT_MEDIUM: 8_192,
    ReasoningEffort.REASONING_EFFORT_HIGH: 16_384,
    ReasoningEffort.REASONING_EFFORT_XHIGH: 24_576,
    ReasoningEffort.REASONING_EFFORT_MAX: 32_768,
}
MIN_BUDGET_TOKENS: Final = 1_024
# `max_tokens` is required here and nowhere else, so one is chosen where neither caller nor catalog
# names one. Thinking counts towards it, and 4,096 would be used up before the answer begins.
ANSWER_TOKENS: Final = 4_096
THINKING_ANSWER_TOKENS: Final = 16_384
SERVICE_TIERS: Final[Mapping[str, str]] = {
    "auto": "auto",
    "priority": "auto",  # Used wherever the account has it; it can't be insisted on.
    "default": "standard_only",
    "standard": "standard_only",
    "standard_only": "standard_only",
}
IMAGE_TYPES: Final[Mapping[str, str]] = {
    "image/jpeg": "image/jpeg",
    "image/jpg": "image/jpeg",
    "image/png": "image/png",
    "image/gif": "image/gif",
    "image/webp": "image/webp",
}
TEXT_TYPES: Final = frozenset(
    {"application/json", "application/xml", "application/yaml", "application/x-yaml"}
)
# Parameters that extra options may not set: the gateway's own promises hang on them.
RESERVED: Final = frozenset({"model", "messages", "system", "stream", "tools"})
MERGED: Final = frozenset({"metadata", "output_config"})  # Objects that hold more than one option.
BETA: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}\Z")
CALL_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
FIRST_TURN: Final = "(The conversation begins.)"


# Codes of `error.details.error_code` that say it is our account that was refused, whatever status
# they come with.
ACCOUNT_CODES: Final[Mapping[str, Failure]] = {
    "contract_spend_limit_reached": Failure.EXHAUSTED,
    "linked_organization_spend_limit_reached": Failure.EXHAUSTED,
    "linked_organization_billing_unavailable": Failure.EXHAUSTED,
    "organization_on_hold": Failure.CREDENTIAL,
    "organization_type_not_supported": Failure.CREDENTIAL,
    "parent_organization_required": Failure.CREDENTIAL,
    "cmek_key_disabled": Failure.CREDENTIAL,
    "cmek_key_network_blocked": Failure.CREDENTIAL,
}
# `invalid_request_error` stands for all of these and has no code, only a sentence. It is read in a
# 400 alone. Whose money is gone must not be taken from a quoted prompt, so those sentences are read
# from their beginning; a wrong guess at the others only asks one more candidate.
# Source: https://platform.claude.com/docs/en/api/errors, /api/rate-limits and
# /build-with-claude/thinking-troubleshooting there.
SENTENCES: Final[Sequence[tuple[re.Pattern[str], Failure]]] = (
    (
        re.compile(
            r"You have reached your specified (workspace )?API usage limits"
            r"|Your credit balance is too low"
        ),
        Failure.EXHAUSTED,
    ),
    (re.compile(r"Output blocked by content filtering policy"), Failure.POLICY),
    (
        re.compile(r".*(prompt is too long|exceeds? (the )?context (limit|window))", re.DOTALL),
        Failure.CONTEXT_LENGTH,
    ),
    (
        re.compile(
            r".*((not supported|deprecated) (for|on|by) this model|This model does not support)",
            re.DOTALL,
        ),
        Failure.CAPABILITY,
    ),
)


class _Typed(msgspec.Struct):
    type: str = ""


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: Any = None


class _Message(msgspec.Struct):
    type: str = ""
    model: str | None = None
    content: list[msgspec.Raw] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: Any = None
    usage: Any = None
    error: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    content_block: msgspec.Raw = msgspec.Raw()
    message: _Message | None = None
    usage: Any = None
    error: Any = None


class _Content(msgspec.Struct):
    """A block of the types that are read."""

    type: str = ""
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw()
    thinking: str | None = None
    signature: str | None = None


# What reading JSON raises: not what it should be, too deep, no UTF-8.
BAD_JSON: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_content = msgspec.json.Decoder(_Content).decode
_decode_typed = msgspec.json.Decoder(_Typed).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode

EVENTS: Final = frozenset(
    {
        "message_start",
        "message_delta",
        "message_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "error",
    }
)
DELTAS: Final = frozenset({"text_delta", "input_json_delta", "thinking_delta", "signature_delta"})
# Blocks of other types, such as those of tools that the provider runs itself, are read over.
BLOCKS: Final = frozenset({"text", "tool_use", "thinking", "redacted_thinking"})
STATES: Final = frozenset({"thinking", "redacted_thinking"})


@dataclass(frozen=True, slots=True)
class AnthropicTranslator:
    """Anthropic's dialect."""

    capabilities: frozenset[Capability] = USUAL - {
        Capability.LOGPROBS,
        Capability.SEED,
        Capability.MULTIPLE_CHOICES,
        Capability.AUDIO_INPUT,
        Capability.VIDEO_INPUT,
    }
    name: str = "anthropic"

    def encode(self, candidate: Candidate, prompt: Prompt) -> UpstreamRequest:
        """The body of POST /messages."""
        return _Request(candidate, prompt).encoded()

    def decoder(
        self, candidate: Candidate, prompt: Prompt, facts: AttemptFacts, mint_id: Callable[[], str]
    ) -> "AnthropicDecoder":
        """For one response, streamed or whole."""
        events = AnswerEvents.of(candidate, prompt, facts, mint_id)
        return AnthropicDecoder(events)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """A spend limit looks like a rate limit, but does not say when to come back."""
        try:
            value = msgspec.json.decode(body)
        except BAD_JSON:
            value = None
        error = _error(value.get("error", value) if isinstance(value, dict) else None, status)
        if (
            status == 429
            and error.code
            and "retry-after" not in headers
            and error.failure is Failure.THROTTLED
        ):
            error.failure = Failure.EXHAUSTED
        return error


@dataclass(slots=True)
class _Turn:
    """One message as it is sent. Results stand before all other content of their turn."""

    role: str
    results: list[Any] = field(default_factory=list)
    blocks: list[Any] = field(default_factory=list)

    def written(self) -> dict[str, Any]:
        return {"role": self.role, "content": self.results + self.blocks}


class _Request:
    """Writes one request body."""

    def __init__(self, candidate: Candidate, prompt: Prompt) -> None:
        self.candidate = candidate
        self.prompt = prompt
        self.spec = prompt.spec
        self.warnings = Warnings(candidate.provider)
        self.model = model_of(candidate.model)
        self.called: dict[str, None] = {}  # Names of the tools that the history calls, in order.
        self.thinks = self.model.thinks_unasked
        self.forces_tool = False

    def encoded(self) -> UpstreamRequest:
        spec = self.spec
        system = [text for text in system_texts(spec, self.warnings) if text.strip()]
        turns = self._turns()
        if not turns and system:
            # Nothing but instructions. A message is required, so the last of them is asked as a
            # question.
            turns = [_Turn("user", blocks=[_text(system.pop())])]
        if not turns:
            raise Unencodable("spec.messages", "only blank text, which the provider refuses")
        body: dict[str, Any] = {"model": self.candidate.model, "max_tokens": self._room() or 0}
        if system:
            # System text is a top-level field here, not a message role.
            body["system"] = system[0] if len(system) == 1 else [_text(text) for text in system]
        body["messages"] = [turn.written() for turn in turns]
        if self.prompt.stream:
            body["stream"] = True
        if self.called or spec.HasField("tool_options"):
            self._tools(body)
        if spec.HasField("reasoning"):
            self._reasoning(body, turns)
        if not body["max_tokens"]:
            body["max_tokens"] = THINKING_ANSWER_TOKENS if self.thinks else ANSWER_TOKENS
        if spec.HasField("sampling"):
            self._sampling(body)
        if spec.HasField("response_format"):
            self._response_format(body)
        if spec.end_user_id:
            body["metadata"] = {"user_id": spec.end_user_id}
        if spec.service_tier:
            self._service_tier(body)
        headers = self._options(body) if spec.provider_options_json else ()
        return UpstreamRequest("/messages", _encode(body), headers, self.warnings.found)

    def _room(self) -> int | None:
        """The most tokens that the answer may have, where someone said so."""
        most = self.candidate.max_output_tokens
        if not self.spec.sampling.HasField("max_output_tokens"):
            return most
        wanted = self.spec.sampling.max_output_tokens
        if most is not None and wanted > most:
            self.warnings.clamped(
                "spec.sampling.max_output_tokens", f"the model writes at most {most}"
            )
            return most
        return wanted

    # Messages

    def _turns(self) -> list[_Turn]:
        turns: list[_Turn] = []
        for message in self.spec.messages:
            if message.role in (Role.ROLE_SYSTEM, Role.ROLE_DEVELOPER):
                continue
            turn = self._turn(message)
            if not turn.blocks and not turn.results:
                continue
            if turns and turns[-1].role == turn.role:
                turns[-1].results += turn.results
                turns[-1].blocks += turn.blocks
            else:
                turns.append(turn)
        if turns and turns[0].role == "assistant":
            # A greeting. The first message must be the user's.
            turns.insert(0, _Turn("user", blocks=[_text(FIRST_TURN)]))
        if turns and turns[-1].role == "assistant":
            last = turns[-1].blocks[-1]
            if isinstance(last, dict) and last["type"] == "text":
                last["text"] = last["text"].rstrip()  # Refused at the end of a prefilled answer.
        return turns

    def _turn(self, message: Message) -> _Turn:
        turn = _Turn("assistant" if message.role == Role.ROLE_ASSISTANT else "user")
        write = self._assistant if turn.role == "assistant" else self._user
        for part in message.parts:
            write(turn, part)
        if message.name:
            _fold_name(turn, message.name)
        return turn

    def _user(self, turn: _Turn, part: Part) -> None:
        kind = part.WhichOneof("content")
        if kind == "tool_result":
            turn.results.append(self._result(part.tool_result))
        elif kind in ("reasoning", "refusal", "tool_call"):
            raise Unencodable(
                f"spec.messages[].parts[].{kind}", "only the assistant's turn can hold it"
            )
        elif kind is not None and (block := self._input(kind, part, "spec.messages[].parts[]")):
            turn.blocks.append(block)

    def _assistant(self, turn: _Turn, part: Part) -> None:
        kind = part.WhichOneof("content")
        if kind == "tool_call":
            call = part.tool_call
            self.called[call.name] = None
            turn.blocks.append(
                {
                    "type": "tool_use",
                    "id": _call_id(call.id),
                    "name": call.name,
                    "input": _call_input(call.arguments_json),
                }
            )
        elif kind == "text" or kind == "refusal":
            text = part.text or part.refusal
            if text.strip():
                turn.blocks.append(_text(text))
        elif kind is not None and kind != "reasoning":
            raise Unencodable(
                f"spec.messages[].parts[].{kind}", "the assistant's turn can't hold it here"
            )
        if part.HasField("provider_state"):
            state = part.provider_state
            if state.provider != self.candidate.family or not _is_state(state.data):
                self.warnings.state_dropped()
            else:
                # Signed: one byte that differs, and the request is refused.
                turn.blocks.append(msgspec.Raw(state.data))

    def _result(self, result: ToolResult) -> dict[str, Any]:
        where = "spec.messages[].parts[].tool_result.parts[]"
        block: dict[str, Any] = {
            "type": "tool_result",
            "tool_use_id": _call_id(result.tool_call_id),
        }
        inputs = [
            self._input(part.WhichOneof("content") or "text", part, where) for part in result.parts
        ]
        content = [inner for inner in inputs if inner is not None]
        if content:
            block["content"] = content
        if result.is_error:
            block["is_error"] = True
        return block

    def _input(self, kind: str, part: Part, where: str) -> dict[str, Any] | None:
        """A block of text or media; None for blank text, which the provider refuses."""
        if kind == "text":
            return _text(part.text) if part.text.strip() else None
        if kind == "image":
            return self._image(part.image, f"{where}.image")
        if kind == "document":
            return _document(part.document, f"{where}.document")
        raise Unencodable(f"{where}.{kind}", "the dialect has no such input")

    def _image(self, image: Media, where: str) -> dict[str, Any]:
        if image.detail not in ("", "auto"):
            self.warnings.dropped(f"{where}.detail")
        if image.data:
            mime_type = IMAGE_TYPES.get(_mime_type(image))
            if mime_type is None:
                raise Unencodable(f"{where}.mime_type", "only jpeg, png, gif and webp")
            return {
                "type": "image",
                "source": {"type": "base64", "media_type": mime_type, "data": base64_of(image)},
            }
        return {"type": "image", "source": _reference(image, where)}

    # Options

    def _tools(self, body: dict[str, Any]) -> None:
        options = self.spec.tool_options
        offered = offered_tools(options)
        if not offered:
            if self.called:
                # A history with calls is refused unless tools are declared. None of these can be
                # called.
                body["tools"] = [_tool(Tool(name=name)) for name in self.called]
                body["tool_choice"] = {"type": "none"}
            return
        body["tools"] = [_tool(tool) for tool in offered]
        choice = self._tool_choice()
        if options.HasField("parallel_calls") and not options.parallel_calls:
            choice = choice or {"type": "auto"}
            if choice["type"] != "none":
                choice["disable_parallel_tool_use"] = True
        if choice:
            body["tool_choice"] = choice

    def _tool_choice(self) -> dict[str, Any]:
        choice = self.spec.tool_options.choice
        mode = choice_mode(self.spec.tool_options)
        named = choice.WhichOneof("choice") == "tool_name"
        if named or mode == ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED:
            if not self.model.forced_tools:
                self.warnings.dropped(
                    "spec.tool_options.choice", "the model can't be made to call a tool"
                )
                return {"type": "auto"}
            self.forces_tool = True
            return {"type": "tool", "name": choice.tool_name} if named else {"type": "any"}
        if mode == ToolChoiceMode.TOOL_CHOICE_MODE_NONE:
            return {"type": "none"}
        return {"type": "auto"} if mode == ToolChoiceMode.TOOL_CHOICE_MODE_AUTO else {}

    def _reasoning(self, body: dict[str, Any], turns: Sequence[_Turn]) -> None:
        reasoning = self.spec.reasoning
        model = self.model
        budget = reasoning.budget_tokens if reasoning.HasField("budget_tokens") else None
        if reasoning.effort == ReasoningEffort.REASONING_EFFORT_NONE or budget == 0:
            self._no_thinking(body)
        elif reasoning.effort or budget:
            if model.budget and (budget or not model.adaptive):
                self._budget(body, turns, budget)
            elif model.adaptive:
                if budget:
                    self.warnings.dropped(
                        "spec.reasoning.budget_tokens", "the model takes an effort only"
                    )
                self._adaptive(body)
            else:
                self._drop_thinking("the model does not think")
        elif reasoning.include and model.thinks_unasked:
            self._adaptive(body)

    def _no_thinking(self, body: dict[str, Any]) -> None:
        if self.model.off:
            body["thinking"] = {"type": self.model.off}
            self.thinks = False
        elif self.model.thinks_unasked:
            self.warnings.clamped(
                "spec.reasoning.effort", "the model always thinks: none is called low here"
            )
            body["output_config"] = {"effort": "low"}

    def _adaptive(self, body: dict[str, Any]) -> None:
        self.thinks = True
        body["thinking"] = {"type": "adaptive"}
        if self.spec.reasoning.include:
            # Newer models send the signature alone unless the text is asked for.
            body["thinking"]["display"] = "summarized"
        self._effort(body)

    def _effort(self, body: dict[str, Any]) -> None:
        effort = self.spec.reasoning.effort
        if not effort or not self.model.efforts:
            return
        asked = EFFORT_WORDS[effort]
        used = asked
        if asked not in self.model.efforts:
            below = EFFORTS[: EFFORTS.index(asked)] if asked in EFFORTS else ()
            used = next(
                (word for word in reversed(below) if word in self.model.efforts),
                self.model.efforts[0],
            )
            self.warnings.clamped("spec.reasoning.effort", f"{asked} is called {used} here")
        body["output_config"] = {"effort": used}

    def _budget(self, body: dict[str, Any], turns: Sequence[_Turn], asked: int | None) -> None:
        room: int = body["max_tokens"]
        if self.forces_tool:
            self._drop_thinking("a tool can't be forced while the model thinks")
        elif not _began_thinking(turns):
            self._drop_thinking("the turn to be continued began without thinking")
        elif room and room <= MIN_BUDGET_TOKENS:
            self._drop_thinking(f"thinking takes more than {MIN_BUDGET_TOKENS} output tokens")
        else:
            self.thinks = True
            budget = self._budget_tokens(asked, room)
            body["thinking"] = {"type": "enabled", "budget_tokens": budget}
            body["max_tokens"] = room or budget + ANSWER_TOKENS
            self._effort(body)

    def _budget_tokens(self, asked: int | None, room: int) -> int:
        if asked is None:
            # The answer needs room too. A caller who names a budget has thought of that.
            budget = EFFORT_BUDGETS[self.spec.reasoning.effort]
            return min(budget, max(MIN_BUDGET_TOKENS, room // 2)) if room else budget
        budget = max(asked, MIN_BUDGET_TOKENS)
        budget = min(budget, room - 1) if room else budget
        if budget != asked:
            self.warnings.clamped(
                "spec.reasoning.budget_tokens", f"{budget} is the nearest that is possible"
            )
        return budget

    def _drop_thinking(self, why: str) -> None:
        reasoning = self.spec.reasoning
        if reasoning.effort:
            self.warnings.dropped("spec.reasoning.effort", why)
        if reasoning.HasField("budget_tokens"):
            self.warnings.dropped("spec.reasoning.budget_tokens", why)

    def _sampling(self, body: dict[str, Any]) -> None:
        sampling = self.spec.sampling
        if sampling.candidate_count > 1:
            raise Unencodable("spec.sampling.candidate_count", "the provider gives one answer")
        self._samplers(body)
        if sampling.stop:
            # White space alone is refused.
            stops = [stop for stop in sampling.stop if stop.strip()]
            if len(stops) != len(sampling.stop):
                self.warnings.dropped(
                    "spec.sampling.stop", "a sequence of white space alone is not taken"
                )
            if stops:
                body["stop_sequences"] = stops
        if sampling.HasField("seed"):
            self.warnings.dropped("spec.sampling.seed")
        for name in _UNKNOWN:
            if getattr(sampling, name):
                self.warnings.dropped(f"spec.sampling.{name}")

    def _samplers(self, body: dict[str, Any]) -> None:
        sampling = self.spec.sampling
        if not self.model.sampling or self.thinks:
            why = (
                "the model does not take it"
                if not self.model.sampling
                else "not taken while the model thinks"
            )
            for name, default in _SAMPLERS.items():
                # What is said anyway costs nothing to leave out.
                if sampling.HasField(name) and getattr(sampling, name) != default:  # type: ignore[arg-type]
                    self.warnings.dropped(f"spec.sampling.{name}", why)
            return
        if sampling.HasField("temperature"):
            body["temperature"] = min(sampling.temperature, 1.0)
            if sampling.temperature > 1:
                self.warnings.clamped("spec.sampling.temperature", "the provider's scale ends at 1")
        if sampling.HasField("top_p"):
            if "temperature" in body and self.model.one_sampler:
                self.warnings.dropped("spec.sampling.top_p", "not taken together with temperature")
            else:
                body["top_p"] = sampling.top_p
        if sampling.HasField("top_k"):
            body["top_k"] = sampling.top_k

    def _response_format(self, body: dict[str, Any]) -> None:
        wanted = self.spec.response_format
        kind = wanted.WhichOneof("format")
        if kind == "json_object":
            # Who asks for this has to ask for JSON in the prompt as well, so the prompt is left as
            # it is.
            self.warnings.dropped(
                "spec.response_format.json_object", "only a schema can be enforced"
            )
        elif kind == "json_schema":
            schema, lost = closed_schema(wanted.json_schema.schema_json)
            if lost:
                self.warnings.clamped(
                    "spec.response_format.json_schema.schema_json",
                    f"not enforced: {', '.join(lost)}"[:300],
                )
            body.setdefault("output_config", {})["format"] = {
                "type": "json_schema",
                "schema": msgspec.Raw(schema),
            }

    def _service_tier(self, body: dict[str, Any]) -> None:
        tier = SERVICE_TIERS.get(self.spec.service_tier)
        if tier is None:
            self.warnings.dropped("spec.service_tier", "the provider has no such tier")
        else:
            body["service_tier"] = tier

    def _options(self, body: dict[str, Any]) -> Sequence[tuple[str, str]]:
        """Merges the caller's extra parameters. `betas`, a header by its SDK name, is returned."""
        headers: list[tuple[str, str]] = []
        for key, value in provider_options(self.spec, self.candidate, openai_dialect=False).items():
            if key in RESERVED:
                self.warnings.dropped(
                    f"spec.provider_options_json.{key[:64]}", "the gateway sets this itself"
                )
            elif key == "betas":
                if isinstance(value, list) and all(
                    isinstance(beta, str) and BETA.match(beta) for beta in value
                ):
                    headers.append(("anthropic-beta", ",".join(value)))
                else:
                    self.warnings.dropped(
                        "spec.provider_options_json.betas", "must be a list of names"
                    )
            elif key in MERGED and isinstance(value, dict):
                body[key] = {**body.get(key, {}), **value}
            else:
                body[key] = value
        return headers


_SAMPLERS: Final[Mapping[str, float | None]] = {"temperature": 1.0, "top_p": 1.0, "top_k": None}
_UNKNOWN: Final = (
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "verbosity",
)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _mime_type(media: Media) -> str:
    return media.mime_type.partition(";")[0].strip().lower()


def _reference(media: Media, where: str) -> dict[str, Any]:
    if media.file_id:
        return {"type": "file", "file_id": media.file_id}
    if not media.url.lower().startswith("https://"):
        raise Unencodable(f"{where}.url", "the provider fetches https only")
    return {"type": "url", "url": media.url}


def _document(document: Media, where: str) -> dict[str, Any]:
    mime_type = _mime_type(document)
    is_pdf = mime_type == "application/pdf"
    if document.data and is_pdf:
        source = {"type": "base64", "media_type": "application/pdf", "data": base64_of(document)}
    elif document.data:
        source = {
            "type": "text",
            "media_type": "text/plain",
            "data": _document_text(document, mime_type, where),
        }
    elif document.url and mime_type and not is_pdf:
        raise Unencodable(f"{where}.url", "the provider fetches PDF only")
    else:
        source = _reference(document, where)
    block: dict[str, Any] = {"type": "document", "source": source}
    if document.filename:
        block["title"] = document.filename
    return block


def _document_text(document: Media, mime_type: str, where: str) -> str:
    if not mime_type.startswith("text/") and mime_type not in TEXT_TYPES:
        raise Unencodable(f"{where}.mime_type", "only PDF and text")
    try:
        return document.data.decode()
    except UnicodeDecodeError as error:
        raise Unencodable(f"{where}.data", "text must be UTF-8") from error


def _fold_name(turn: _Turn, name: str) -> None:
    for block in turn.blocks:
        if isinstance(block, dict) and block["type"] == "text":
            block["text"] = f"{name}: {block['text']}"
            return
    if turn.role == "user" and turn.blocks:
        turn.blocks.insert(0, _text(f"{name}:"))


def _call_id(call_id: str) -> str:
    """Ids of other families may have any characters, and any length."""
    # The same id must come out for the call and for its result, so it is derived and not drawn.
    if CALL_ID.match(call_id):
        return call_id
    return "toolu_" + hashlib.sha256(call_id.encode()).hexdigest()[:24]


def _call_input(arguments: str) -> Any:
    """The arguments as they were written, when they are an object."""
    try:
        _decode_object(arguments or "{}")
    except BAD_JSON:
        return json_object(arguments)
    return msgspec.Raw((arguments or "{}").encode())


def _is_state(data: bytes) -> bool:
    """Is it a whole block of thinking? It was in the caller's hands, so it may be anything."""
    try:
        return _decode_object(data).get("type") in STATES
    except (*BAD_JSON, TypeError):
        return False


def _began_thinking(turns: Sequence[_Turn]) -> bool:
    """Does the turn that is to be continued begin with thinking? True when a new one begins, too.

    A turn lasts from the user's words over all calls and results to the answer. With a budget, the
    provider refuses to think in the middle of one that began without.
    """
    first: _Turn | None = None
    for turn in reversed(turns):
        if turn.role == "assistant":
            first = turn
        elif not turn.results:
            break
    return first is None or isinstance(first.blocks[0], msgspec.Raw)


def _tool(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name}
    if tool.description:
        written["description"] = tool.description
    schema = object_schema(tool.parameters_schema_json)
    if tool.strict:
        # The loosened limits are not worth a word: without `strict` nothing at all would be
        # enforced.
        schema, _ = closed_schema(schema.decode())
        written["strict"] = True
    written["input_schema"] = msgspec.Raw(schema)
    return written


class _Block:
    """A block that is being read."""

    __slots__ = ("has_deltas", "input", "raw", "signature", "text", "type")

    def __init__(self, kind: str, raw: bytes) -> None:
        self.type = kind
        self.raw = raw  # As it came.
        self.text: list[str] = []  # Of thinking.
        self.signature = ""
        self.input = b""
        self.has_deltas = False

    def state(self) -> bytes:
        """What must go back; empty for thinking that was never signed, because it was cut off."""
        if self.type == "redacted_thinking":
            return self.raw
        if not self.signature:
            return b""
        if not self.has_deltas:
            return self.raw
        # Fields that are not known here stay as they came.
        whole: dict[str, Any] = _decode_fields(self.raw)
        return _encode({**whole, "thinking": "".join(self.text), "signature": self.signature})


class AnthropicDecoder(AnswerDecoder):
    """One response. Events are read as typed structs: nothing is decoded that is not used."""

    def __init__(self, events: AnswerEvents) -> None:
        self._sse = SSEDecoder()
        super().__init__(events)
        self._blocks: dict[int, _Block] = {}
        self._counts: dict[str, int] = {}
        self._has_output_count = False

    def feed(self, chunk: bytes) -> list[CompleteResponse]:
        """One read of the stream."""
        try:
            for data in self._sse.feed(chunk):
                self._data(data)
        except MalformedStream as error:
            raise UpstreamError(Failure.PROTOCOL, str(error)) from error
        return self._events.take()

    def finish(self) -> list[CompleteResponse]:
        """The end of the stream: fine once the stop reason has come, `message_stop` or not."""
        for data in self._sse.finish():
            self._data(data)
        if not self._events.is_finished:
            raise UpstreamError(Failure.AMBIGUOUS, "the stream ended before the answer")
        return self._events.take()

    def whole(self, body: bytes) -> list[CompleteResponse]:
        """A response that is one message."""
        try:
            message = _decode_message(body)
        except BAD_JSON as error:
            raise _malformed(error) from error
        if message.type == "error" or message.error:
            raise _error(message.error, 200)
        if message.content is None or not message.stop_reason:
            raise UpstreamError(Failure.PROTOCOL, "a message without content or end")
        self._begin(message)
        self._usage(message.usage)
        for index, content in enumerate(message.content):
            self._start(index, content)
            self._stop(index)
        self._finish(message)
        self.is_done = True
        return self._events.take()

    def _data(self, data: bytes) -> None:
        if self.is_done or not data:
            return
        try:
            event = _decode_event(data)
        except msgspec.ValidationError as error:
            if _is_unknown(data):
                return
            raise _malformed(error) from error
        except BAD_JSON as error:
            raise _malformed(error) from error
        kind = event.type
        if kind == "content_block_delta":
            if event.delta is not None:
                self._delta(event.index, event.delta)
        elif kind == "content_block_start":
            self._start(event.index, event.content_block)
        elif kind == "content_block_stop":
            self._stop(event.index)
        elif kind == "message_delta":
            if event.delta is not None:
                self._finish(event.delta)
            self._usage(event.usage)
        elif kind == "message_start":
            if event.message is not None:
                self._begin(event.message)
                self._usage(event.message.usage, is_final=False)
        elif kind == "message_stop":
            self.is_done = True
        elif kind == "error" or event.error:
            raise _error(event.error, 200)

    def _begin(self, message: _Message) -> None:
        facts = self._events.facts
        facts.response_model = (message.model or "")[:256]
        if isinstance(message.usage, dict) and isinstance(
            tier := message.usage.get("service_tier"), str
        ):
            facts.service_tier = tier[:64]

    def _start(self, index: int, raw: msgspec.Raw) -> None:
        data = bytes(raw)
        try:
            data.decode()  # Fields that are not read are not checked, but go back as they came.
            kind = _decode_typed(data).type
            content = _decode_content(data) if kind in BLOCKS else _Content()
        except BAD_JSON as error:
            raise _malformed(error) from error
        block = self._blocks[index] = _Block(content.type, data)
        if kind == "text":
            self._events.text(0, content.text or "")
        elif kind == "tool_use":
            if not content.name:
                raise UpstreamError(Failure.PROTOCOL, "a tool call without a name")
            block.input = bytes(content.input)
            self._events.begin_call(0, block, content.id or "", content.name)
        elif kind in STATES:
            # Thinking whose text is not sent is progress all the same.
            self._events.progressed = True
            block.text.append(content.thinking or "")
            block.signature = content.signature or ""
            self._events.reasoning(0, content.thinking or "")

    def _delta(self, index: int, delta: _Delta) -> None:
        events = self._events
        kind = delta.type
        if kind == "text_delta":
            events.text(0, delta.text or "")
            return
        if kind not in DELTAS:
            return
        block = self._blocks.get(index)
        if block is None:
            raise UpstreamError(Failure.PROTOCOL, f"a {kind} without its block")
        if kind == "input_json_delta":
            # The first one may be empty.
            if delta.partial_json and block.type == "tool_use":
                block.has_deltas = True
                events.call_arguments(0, block, delta.partial_json)
        elif block.type == "thinking":
            block.has_deltas = True
            if kind == "thinking_delta":
                block.text.append(delta.thinking or "")
                events.reasoning(0, delta.thinking or "")
            else:
                block.signature = delta.signature or ""

    def _stop(self, index: int) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        if block.type == "tool_use":
            # The whole input may stand in the block's start, where an empty object is a
            # placeholder.
            if not block.has_deltas and block.input not in (b"", b"{}", b"null"):
                self._events.call_arguments(0, block, block.input.decode())
        elif block.type in STATES and (state := block.state()):
            text = "".join(block.text)
            self._events.reasoning_done(0, text, state, redacted=block.type == "redacted_thinking")
        # A block is a part: what comes next is another.
        self._events.break_part(0)

    def _finish(self, end: _Delta | _Message) -> None:
        if not end.stop_reason:
            return
        for index in list(self._blocks):
            self._stop(index)
        if isinstance(end.stop_details, dict) and isinstance(
            why := end.stop_details.get("explanation"), str
        ):
            self._events.refusal(0, why)
        reason = FINISH_REASONS.get(end.stop_reason, FinishReason.FINISH_REASON_OTHER)
        self._events.finish(0, reason, end.stop_reason, end.stop_sequence or "")

    def _usage(self, usage: Any, *, is_final: bool = True) -> None:
        """Cumulative, so the last of each count wins; one that is left out later still stands.

        What a stream begins with counts one token or so of output, and stands as an estimate until there is more.
        """
        if not isinstance(usage, dict):
            return
        counts = self._counts
        if is_final and is_count(usage.get("output_tokens")):
            self._has_output_count = True
        details = usage.get("output_tokens_details")
        thinking = details.get("thinking_tokens") if isinstance(details, dict) else None
        for name, value in [(name, usage.get(name)) for name in _COUNTS] + [("thinking", thinking)]:
            if is_count(value):
                counts[name] = count_of(value)
        if "input_tokens" not in counts or "output_tokens" not in counts:
            return
        read = counts.get("cache_read_input_tokens", 0)
        written = counts.get("cache_creation_input_tokens", 0)
        # input_tokens leaves out what the cache held or took; ours includes it.
        input_tokens = min(counts["input_tokens"] + read + written, MAX_TOKENS)
        output_tokens = counts["output_tokens"]
        self._events.usage(
            Usage(
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                total_tokens=input_tokens + output_tokens,
                cached_input_tokens=read,
                cache_write_input_tokens=written,
                reasoning_tokens=min(counts.get("thinking", 0), output_tokens),
                estimated=not self._has_output_count,
            )
        )


_COUNTS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


def _is_unknown(data: bytes) -> bool:
    """Is it an event or a delta of a later type, which uses a field in another way?"""
    try:
        event = msgspec.json.decode(data)
    except BAD_JSON:
        return False
    if not isinstance(event, dict):
        return False
    kind, delta = event.get("type"), event.get("delta")
    if kind == "content_block_delta" and isinstance(delta, dict):
        return isinstance(delta.get("type"), str) and delta["type"] not in DELTAS
    return isinstance(kind, str) and kind not in EVENTS


def _malformed(error: Exception) -> UpstreamError:
    return UpstreamError(Failure.PROTOCOL, f"malformed JSON: {type(error).__name__}")


def _error(error: Any, status: int) -> UpstreamError:
    """The type is broad. Where there is a code in the details, it says more."""
    if not isinstance(error, dict):
        return UpstreamError(classify(status), f"HTTP {status}", http_status=status)
    details = error.get("details")
    codes = [details.get("error_code") if isinstance(details, dict) else None, error.get("type")]
    words = tuple(code for code in codes if isinstance(code, str))
    message = error.get("message")
    message = message if isinstance(message, str) else f"HTTP {status}"
    failure = next(
        (ACCOUNT_CODES[word] for word in words if word in ACCOUNT_CODES), None
    ) or classify(status, words)
    if failure is Failure.CALLER:
        failure = next((meant for sentence, meant in SENTENCES if sentence.match(message)), failure)
    return UpstreamError(failure, message, http_status=status, code=next(iter(words), ""))
