"""The OpenAI dialect: chat completions, as OpenAI and a dozen others speak it.

Source: https://platform.openai.com/docs/api-reference/chat, and the type definitions of the `openai` SDK 3.54.0.
Where others deviate, a flag of `Deviations` says so; `services.py` has a row for each.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote

import msgspec

from trunkline.v1.completion_spec_pb2 import ReasoningEffort, Tool, ToolChoiceMode
from trunkline.v1.message_pb2 import Media, Message, Part, ProviderState, Role
from trunkline_server.core.candidate import Candidate, Capability
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.ports import AttemptFacts, Prompt, Unencodable
from trunkline_server.providers.answer import IMAGE, AnswerEvents
from trunkline_server.providers.openai_answer import BAD_JSON, OpenAIDecoder, error_of
from trunkline_server.providers.translator import (
    UpstreamRequest,
    Warnings,
    base64_of,
    beside_results,
    choice_mode,
    data_url,
    offered_tools,
    provider_options,
    raw_json,
    system_text,
    text_of,
    without_idle_turns,
)

# By their values: an enum's name is looked up anew each time.
USER: Final = Role.ROLE_USER
ASSISTANT: Final = Role.ROLE_ASSISTANT
TOOL: Final = Role.ROLE_TOOL
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


_encode = msgspec.json.Encoder().encode

# What OpenAI's reasoning models refuse outright.
SAMPLING: Final = frozenset(
    {"temperature", "top_p", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs"}
)


@dataclass(frozen=True, slots=True)
class Efforts:
    """Which models take an effort, and what they call it where their words differ."""

    models: re.Pattern[str]
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deviations:
    """How a service differs from OpenAI. The defaults are OpenAI's own ways.

    Attributes:
        path: below the base address; `{model}` stands for the deployment.
        max_tokens: the parameter that limits the answer.
        seed: the parameter that seeds sampling.
        required_word: for a tool choice that must call some tool.
        asks_for_usage: sends `stream_options.include_usage`; some send usage unasked and refuse the option.
        developer_role: knows the role `developer`; else it becomes `system`.
        names: messages carry their author's name; else it is folded into the text.
        refusals: an assistant's turn has a field for them; else they are text.
        joins_text: content is one string; lists are only for media.
        prefix: an assistant's turn at the end has to be marked as the beginning of the answer.
        document_urls: documents are `document_url` parts, by address or as a data URL.
        file_urls: a file may be given by its address.
        tool_names: tool results carry the tool's name.
        call_id_chars: exact length that tool call ids must have; 0 for any.
        allowed_tools: can narrow a choice without hiding tools.
        schemas: can hold an answer to a schema, and not to JSON alone.
        top_k: takes `top_k`, which OpenAI has not.
        unsupported: options that are left out: those of `SamplingOptions`, `parallel_calls`, `end_user_id`,
            `service_tier`.
        service_tiers: the service's words for tiers, where they are not OpenAI's; others are left out.
        reasoning_models: names of models that reason whatever they are asked.
        refused: sampling options that those models refuse.
        efforts: who takes an effort; the first pattern that is found in the name counts. Empty: nobody.
        reasoning_object: effort or budget are fields of an object `reasoning`.
        thinking_switch: effort `none` is said by `thinking`, and the others need it on.
        keeps: the field in which an assistant's reasoning goes back: `reasoning_content` is its text, and has to be
            there whenever the turn holds calls; `reasoning_details` are blocks that nobody may change.
        show_reasoning: parameters that make it return its reasoning.
        extra: parameters that every request gets.
    """

    path: str = "/chat/completions"
    max_tokens: str = "max_completion_tokens"
    seed: str = "seed"
    required_word: str = "required"
    asks_for_usage: bool = True
    developer_role: bool = True
    names: bool = True
    refusals: bool = True
    joins_text: bool = False
    prefix: bool = False
    document_urls: bool = False
    file_urls: bool = False
    tool_names: bool = False
    call_id_chars: int = 0
    allowed_tools: bool = False
    schemas: bool = True
    top_k: bool = False
    unsupported: frozenset[str] = frozenset()
    service_tiers: Mapping[str, str] = field(default_factory=dict)
    reasoning_models: re.Pattern[str] | None = None
    refused: frozenset[str] = SAMPLING
    efforts: Sequence[Efforts] = (Efforts(re.compile("")),)
    reasoning_object: bool = False
    thinking_switch: bool = False
    keeps: str = ""
    show_reasoning: Sequence[tuple[re.Pattern[str], Mapping[str, Any]]] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


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

    def without_deployment(self) -> "OpenAITranslator":
        """The same for an address below which the path is OpenAI's own (Azure's v1)."""
        return replace(self, deviations=replace(self.deviations, path=Deviations().path))

    def encode(self, candidate: Candidate, prompt: Prompt) -> UpstreamRequest:
        """The body of POST /chat/completions."""
        return _Request(self.deviations, candidate, prompt).encoded()

    def decoder(
        self, candidate: Candidate, prompt: Prompt, facts: AttemptFacts, mint_id: Callable[[], str]
    ) -> "OpenAIDecoder":
        """For one response, streamed or whole."""
        spec = prompt.spec
        choices = 1
        # Where more than one can't be asked for, one is all that comes.
        if spec.HasField("sampling") and "candidate_count" not in self.deviations.unsupported:
            choices = spec.sampling.candidate_count or 1
        events = AnswerEvents.of(candidate, prompt, facts, mint_id, choices)
        return OpenAIDecoder(events, self.deviations.keeps)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """OpenAI nests the error; others write it in other ways."""
        return error_of(body, status)


def _is_silent(message: Message) -> bool:
    """Is there no word in it, nor anything else?"""
    return all(part.WhichOneof("content") == "text" and not part.text for part in message.parts)


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
        if IMAGE in spec.output_modalities:
            body["modalities"] = ["image", "text"]  # As OpenRouter has it.
        if spec.end_user_id:
            self._unless("end_user_id", "user", body, spec.end_user_id)
        if spec.service_tier:
            self._service_tier(body)
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
        # What stands beside results, until all of them are written: nothing may come between calls and results.
        beside: list[dict[str, Any]] = []
        has_silence = False
        if spec.system_prompt:
            messages.append({"role": system_role, "content": spec.system_prompt})
        for message in spec.messages:
            role = message.role
            if role == TOOL:
                messages.extend(self._results(message))
                said = beside_results(message, self.warnings)
                if not _is_silent(said):
                    beside.append(self._user(said))
                continue
            if beside:
                messages += beside
                beside = []
            if role == USER:
                messages.append(self._user(message))
                has_silence = has_silence or not messages[-1]["content"]
            elif role == ASSISTANT:
                messages.append(self._assistant(message))
            else:
                content = system_text(message, self.warnings)
                messages.append({"role": system_role, "content": content})
        messages += beside
        if has_silence:
            messages = without_idle_turns(messages)
        if self.deviations.prefix and messages and messages[-1]["role"] == "assistant":
            messages[-1]["prefix"] = True
        return messages

    def _user(self, message: Message) -> dict[str, Any]:
        parts = message.parts
        texts = [part.text for part in parts if part.WhichOneof("content") == "text"]
        content: Any
        if _is_silent(message):
            content = ""
        elif len(texts) == len(parts) and (len(texts) == 1 or self.deviations.joins_text):
            content = "".join(texts)
        else:
            content = [self._part(part) for part in parts]
        return self._signed({"role": "user", "content": content}, message.name)

    def _signed(self, written: dict[str, Any], name: str) -> dict[str, Any]:
        """With its author's name, in whichever way the service has for that."""
        if not name:
            return written
        content = written["content"]
        if self.deviations.names:
            written["name"] = name
        elif isinstance(content, list) and content[0]["type"] == "text":
            content[0]["text"] = f"{name}: {content[0]['text']}"
        elif isinstance(content, list):
            content.insert(0, {"type": "text", "text": f"{name}:"})
        elif content:
            written["content"] = f"{name}: {content}"
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
            return {
                "type": "input_audio",
                "input_audio": {"data": base64_of(part.audio), "format": sound},
            }
        if kind == "document":
            return self._document(part.document)
        raise Unencodable(f"spec.messages[].parts[].{kind}", "the dialect has no such input")

    def _document(self, document: Media) -> dict[str, Any]:
        source = document.WhichOneof("source")
        deviations = self.deviations
        if deviations.document_urls and source != "file_id":
            written = {
                "type": "document_url",
                "document_url": document.url or data_url(document),
            }
            if document.filename:
                written["document_name"] = document.filename
            return written
        if source == "file_id":
            return {"type": "file", "file": {"file_id": document.file_id}}
        if source == "url" and not deviations.file_urls:
            raise Unencodable(
                "spec.messages[].parts[].document.url", "documents are sent as data or by file id"
            )
        file = {
            "filename": document.filename or "document",
            "file_data": document.url or data_url(document),
        }
        return {"type": "file", "file": file}

    def _assistant(self, message: Message) -> dict[str, Any]:
        texts: list[str] = []
        refusals: list[str] = []
        thoughts: list[str] = []
        states: list[Any] = []
        calls: list[dict[str, Any]] = []
        for part in message.parts:
            kind = part.WhichOneof("content")
            if kind == "text" or (kind == "refusal" and not self.deviations.refusals):
                texts.append(part.text or part.refusal)
            elif kind == "refusal":
                refusals.append(part.refusal)
            elif kind == "tool_call":
                call = part.tool_call
                function = {"name": call.name, "arguments": call.arguments_json or "{}"}
                calls.append(
                    {"id": self._call_id(call.id), "type": "function", "function": function}
                )
            elif kind == "reasoning":
                thoughts.append(part.reasoning.text)
            elif kind is not None:
                raise Unencodable(
                    f"spec.messages[].parts[].{kind}", "the assistant's turn can't hold it here"
                )
            if part.HasField("provider_state"):
                states.extend(self._state(part.provider_state))
        content = "".join(texts) if texts else None
        written: dict[str, Any] = {"role": "assistant", "content": content}
        if refusals:
            written["refusal"] = "".join(refusals)
        if calls:
            written["tool_calls"] = calls
        if not calls and not refusals and not texts:
            written["content"] = ""
        if self.deviations.keeps == "reasoning_content":
            if calls:  # Refused without it, even when there was none.
                written["reasoning_content"] = "".join(states or thoughts)
        elif states:
            written["reasoning_details"] = states
        return self._signed(written, message.name)

    def _state(self, state: ProviderState) -> list[Any]:
        """State as the service wants it back. It was in the caller's hands, so it may be anything."""
        keeps = self.deviations.keeps
        if keeps and state.provider == self.candidate.family:
            try:
                if keeps == "reasoning_content":
                    return [state.data.decode()]
                return list(_decode_details(state.data))
            except BAD_JSON:
                pass
        self.warnings.state_dropped()
        return []

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
        refused = self.deviations.refused if self.reasons else frozenset()
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
            if "stop" in refused:
                self.warnings.dropped("spec.sampling.stop", "reasoning models refuse it")
            else:
                self._unless("sampling.stop", "stop", body, list(sampling.stop))
        if sampling.logit_bias:
            # Whole numbers are all that OpenAI takes.
            bias = {key: _number(value) for key, value in sampling.logit_bias.items()}
            self._unless("sampling.logit_bias", "logit_bias", body, bias)
        if sampling.verbosity:
            self._unless("sampling.verbosity", "verbosity", body, sampling.verbosity)

    def _unless(self, option: str, name: str, body: dict[str, Any], value: Any) -> None:
        """Writes an option that the service may not have."""
        if option.rpartition(".")[2] in self.deviations.unsupported:
            self.warnings.dropped(f"spec.{option}")
        else:
            body[name] = value

    def _service_tier(self, body: dict[str, Any]) -> None:
        tier = self.spec.service_tier
        tiers = self.deviations.service_tiers
        if tiers and tier not in tiers:
            self.warnings.dropped("spec.service_tier", "the provider has no such tier")
        else:
            self._unless("service_tier", "service_tier", body, tiers.get(tier, tier))

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
        elif narrows and mode != ToolChoiceMode.TOOL_CHOICE_MODE_NONE:
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
            self._unless(
                "tool_options.parallel_calls", "parallel_tool_calls", body, options.parallel_calls
            )

    def _response_format(self, body: dict[str, Any]) -> None:
        wanted = self.spec.response_format
        kind = wanted.WhichOneof("format")
        if kind == "json_object":
            body["response_format"] = {"type": "json_object"}
        elif kind == "json_schema" and not self.deviations.schemas:
            self.warnings.clamped("spec.response_format.json_schema", "only JSON is enforced")
            body["response_format"] = {"type": "json_object"}
        elif kind == "json_schema":
            schema: dict[str, Any] = {
                "name": wanted.json_schema.name or "answer",
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
        word = self._effort()
        if word:
            if deviations.reasoning_object:
                body["reasoning"] = {"effort": word}
            elif deviations.thinking_switch and word == "none":
                body["thinking"] = {"type": "disabled"}
            else:
                if deviations.thinking_switch:
                    body["thinking"] = {"type": "enabled"}
                body["reasoning_effort"] = word
        if reasoning.HasField("budget_tokens"):
            if deviations.reasoning_object and not word:
                body["reasoning"] = {"max_tokens": reasoning.budget_tokens}
            else:
                self.warnings.dropped("spec.reasoning.budget_tokens")
        if reasoning.include:
            for models, parameters in deviations.show_reasoning:
                if models.search(self.candidate.model):
                    body.update(parameters)
                    break

    def _effort(self) -> str:
        """The model's word for the effort; empty where none is sent."""
        effort = self.spec.reasoning.effort
        if not effort:
            return ""
        model = self.candidate.model
        words = next((e.words for e in self.deviations.efforts if e.models.search(model)), None)
        if words is None:
            # A model that does not reason at all already does what "none" asks.
            if effort != ReasoningEffort.REASONING_EFFORT_NONE:
                self.warnings.dropped("spec.reasoning.effort", "the model does not take an effort")
            return ""
        asked = EFFORT_WORDS[effort]
        used = words.get(asked, asked)
        if used != asked:
            self.warnings.clamped("spec.reasoning.effort", f"{asked} is called {used} here")
        return used


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
_decode_details = msgspec.json.Decoder(list[dict[str, Any]]).decode


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


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
