"""The Gemini dialect: generateContent, as Google's Gemini API speaks it.

An answer is a list of parts, and a part is the unit of everything: a piece of text, a whole
function call, a thought. What the model needs back of its own thinking is a signature on one of
these parts, so the order and the borders of parts are kept in both directions. Roles are `user` and
`model` only; results of calls are a `user` turn of their own.

The dialect is stable, what a model of it takes is not: `MODELS` says which generation takes what.

Sources: https://ai.google.dev/api/generate-content, https://ai.google.dev/gemini-api/docs
    (thinking, function calling, thought signatures, latest model), and the types of the
    `google-genai` SDK 3.4.0, read 2026-11-20.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

import msgspec

from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import FinishReason, TokenLogprob, Usage
from trunkline.v1.completion_spec_pb2 import ReasoningEffort, Tool, ToolChoiceMode
from trunkline.v1.message_pb2 import Media, Part, Role, ToolCall, ToolResult
from trunkline_server.core.candidate import Candidate, Capability
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure, classify
from trunkline_server.core.ports import AttemptFacts, Prompt, Unencodable
from trunkline_server.providers.answer import (
    IMAGE,
    MAX_TOKENS,
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
    choice_mode,
    extension_of,
    json_object,
    offered_tools,
    provider_options,
    raw_json,
    system_texts,
    text_of,
)
from trunkline_server.wire.retry_after import duration_s
from trunkline_server.wire.sse import MalformedStream

FINISH_REASONS: Final[Mapping[str, FinishReason.ValueType]] = {
    "STOP": FinishReason.FINISH_REASON_STOP,  # Also after calls and at a stop sequence.
    "MAX_TOKENS": FinishReason.FINISH_REASON_LENGTH,
    # The limit of one response; the rest would have to be asked for with a token that only the API
    # understands.
    "CONTINUATION": FinishReason.FINISH_REASON_LENGTH,
    "SAFETY": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "RECITATION": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "BLOCKLIST": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "PROHIBITED_CONTENT": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "SPII": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "MODEL_ARMOR": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "IMAGE_SAFETY": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "IMAGE_RECITATION": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "IMAGE_OTHER": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "MALFORMED_FUNCTION_CALL": FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL,
    "UNEXPECTED_TOOL_CALL": FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL,
    "MISSING_THOUGHT_SIGNATURE": FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL,
}
NOT_FINISHED: Final = "FINISH_REASON_UNSPECIFIED"

LEVELS: Final = ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")
EFFORT_LEVELS: Final[Mapping[ReasoningEffort.ValueType, str]] = {
    ReasoningEffort.REASONING_EFFORT_NONE: "MINIMAL",
    ReasoningEffort.REASONING_EFFORT_MINIMAL: "MINIMAL",
    ReasoningEffort.REASONING_EFFORT_LOW: "LOW",
    ReasoningEffort.REASONING_EFFORT_MEDIUM: "MEDIUM",
    ReasoningEffort.REASONING_EFFORT_HIGH: "HIGH",
    ReasoningEffort.REASONING_EFFORT_XHIGH: "XHIGH",
    ReasoningEffort.REASONING_EFFORT_MAX: "XHIGH",
}
# Tokens. The first four are Google's own, from https://ai.google.dev/gemini-api/docs/openai; what
# lies above ends at the most that a model takes.
EFFORT_BUDGETS: Final[Mapping[ReasoningEffort.ValueType, int]] = {
    ReasoningEffort.REASONING_EFFORT_MINIMAL: 1024,
    ReasoningEffort.REASONING_EFFORT_LOW: 1024,
    ReasoningEffort.REASONING_EFFORT_MEDIUM: 8192,
    ReasoningEffort.REASONING_EFFORT_HIGH: 24576,
    ReasoningEffort.REASONING_EFFORT_XHIGH: 32768,
    ReasoningEffort.REASONING_EFFORT_MAX: 32768,
}
CHOICE_MODES: Final[Mapping[ToolChoiceMode.ValueType, str]] = {
    ToolChoiceMode.TOOL_CHOICE_MODE_AUTO: "AUTO",
    ToolChoiceMode.TOOL_CHOICE_MODE_NONE: "NONE",
    ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED: "ANY",
}
SERVICE_TIERS: Final[Mapping[str, str]] = {
    "default": "standard",
    "standard": "standard",
    "flex": "flex",
    "priority": "priority",
}
# A file by URL needs its type, and OpenAI's clients never send one.
TYPES_BY_EXTENSION: Final[Mapping[str, str]] = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "aac": "audio/aac",
    "ogg": "audio/ogg",
    "flac": "audio/flac",
    "mp4": "video/mp4",
    "mpeg": "video/mpeg",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
}
FILES_URL: Final = "https://generativelanguage.googleapis.com/v1beta/files/"
# The API knows the type of what lies here by itself.
TYPED_URLS: Final = re.compile(
    r"https://(generativelanguage\.googleapis\.com/|(www\.)?youtube\.com/|youtu\.be/)"
)

# Parameters that extra options may not set: the gateway's own promises hang on them.
RESERVED: Final = frozenset(
    {"model", "contents", "systemInstruction", "tools", "candidateCount", "continuationToken"}
)
# Refused for what lies outside the request and inside it alike: a country without a free tier, a
# file that is not ready yet. The next provider may see neither.
PRECONDITION: Final = "FAILED_PRECONDITION"
# A conversation that is too long has no code, only a sentence. It is looked for in a 400 alone,
# where a wrong guess only asks one more candidate.
CONTEXT_TEXT: Final = re.compile(
    r"input token count .{0,40}exceeds the maximum number of tokens", re.IGNORECASE | re.DOTALL
)
MAX_STOP: Final = 5
SEED_MASK: Final = 0x7FFF_FFFF  # A seed has 32 bits here, with a sign.
FUNCTION_NAME: Final = re.compile(r"[a-zA-Z_]")
# What the documentation says to send with calls that another model made, in place of the signature
# they never had.
NO_SIGNATURE: Final = "skip_thought_signature_validator"


@dataclass(frozen=True, slots=True)
class Model:
    """What the models of one generation take.

    Attributes:
        levels: words for the level of thinking, weakest first.
        budget_tokens: the least and the most of a thinking budget; None where there is no budget.
        can_rest: a budget of 0 turns thinking off.
        signs_calls: generation 3 and later. Calls have ids and signatures, which must come back;
            results may hold media; tools go with structured output; there is only one choice.
        is_strict: refuses, or is about to, sampling parameters and a conversation that ends with
            its own turn.
    """

    levels: tuple[str, ...] = ()
    budget_tokens: tuple[int, int] | None = None
    can_rest: bool = False
    signs_calls: bool = True
    is_strict: bool = True


_BUDGETED = Model(budget_tokens=(1, 24576), can_rest=True, signs_calls=False, is_strict=False)
_LEVELLED = Model(levels=LEVELS[1:4])
# The first pattern that is found in the name counts.
MODELS: Final[Sequence[tuple[re.Pattern[str], Model]]] = tuple(
    (re.compile(pattern), model)
    for pattern, model in (
        (
            r"gemini-(1\.|2\.0|2\.5-flash-image)|gemma-|learnlm-",
            replace(_BUDGETED, budget_tokens=None),
        ),
        (r"gemini-2\.5-pro", replace(_BUDGETED, budget_tokens=(128, 32768), can_rest=False)),
        (r"gemini-2\.5-flash-lite", replace(_BUDGETED, budget_tokens=(512, 24576))),
        (r"gemini-2\.", _BUDGETED),
        (
            r"gemini-3(\.[0-4])?-flash|gemini-3\.5-flash(?!-lite)",
            replace(_LEVELLED, levels=LEVELS[:4], is_strict=False),
        ),
        (r"gemini-3(\.[0-4])?-", replace(_LEVELLED, is_strict=False)),
        (r"gemini-3\.\d+-flash-lite|gemini-3\.[56]-flash", replace(_LEVELLED, levels=LEVELS[:4])),
        (r"gemini-4", replace(_LEVELLED, levels=LEVELS[1:])),
    )
)
UNKNOWN_MODEL: Final = (
    _LEVELLED  # As all newer ones have it: aliases such as gemini-flash-latest move on.
)


def model_of(name: str) -> Model:
    """What a model takes, by its name."""
    return next((model for pattern, model in MODELS if pattern.search(name)), UNKNOWN_MODEL)


class _Struct(msgspec.Struct, rename="camel"):
    """The API writes all names in camel case."""


class _FunctionCall(_Struct):
    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = msgspec.Raw()


class _Blob(_Struct):
    mime_type: str | None = None
    data: str | None = None


class _Part(_Struct):
    text: str | None = None
    inline_data: _Blob | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None


class _Content(_Struct):
    parts: list[_Part] | None = None


class _Logprob(_Struct):
    token: str | None = None
    log_probability: float | None = None


class _TopLogprobs(_Struct):
    candidates: list[_Logprob] | None = None


class _Logprobs(_Struct):
    chosen_candidates: list[_Logprob] | None = None
    top_candidates: list[_TopLogprobs] | None = None


class _Candidate(_Struct):
    index: int = 0
    content: _Content | None = None
    finish_reason: str | None = None
    logprobs_result: _Logprobs | None = None


class _PromptFeedback(_Struct):
    block_reason: str | None = None


class _Chunk(_Struct):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _PromptFeedback | None = None
    usage_metadata: Any = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_chunks = msgspec.json.Decoder(list[_Chunk]).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class GeminiTranslator:
    """Google's dialect."""

    name: str = "gemini"
    capabilities: frozenset[Capability] = frozenset(Capability)

    def encode(self, candidate: Candidate, prompt: Prompt) -> UpstreamRequest:
        """The body of POST /models/{model}:generateContent, or of its streaming sister."""
        return _Request(candidate, prompt).encoded()

    def decoder(
        self, candidate: Candidate, prompt: Prompt, facts: AttemptFacts, mint_id: Callable[[], str]
    ) -> "GeminiDecoder":
        """For one response, streamed or whole."""
        choices = prompt.spec.sampling.candidate_count or 1
        events = AnswerEvents.of(candidate, prompt, facts, mint_id, choices=choices)
        return GeminiDecoder(events, choices)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """A google.rpc.Status under `error`. Streaming methods wrap it in a list of one."""
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = None
        if isinstance(value, list) and value:
            value = value[0]
        return _error(value.get("error", value) if isinstance(value, dict) else None, status)


class _Request:
    """Writes one request body."""

    def __init__(self, candidate: Candidate, prompt: Prompt) -> None:
        self.candidate = candidate
        self.prompt = prompt
        self.spec = prompt.spec
        self.model = model_of(candidate.model)
        self.warnings = Warnings(candidate.provider)
        self.results = {
            part.tool_result.tool_call_id: part.tool_result
            for message in self.spec.messages
            for part in message.parts
            if part.HasField("tool_result")
        }

    def encoded(self) -> UpstreamRequest:
        spec = self.spec
        texts = system_texts(spec, self.warnings)
        body: dict[str, Any] = {"contents": self._contents() or self._only_system(texts)}
        # System text is a field of its own here, not a role.
        if texts:
            body["systemInstruction"] = {"parts": [{"text": text} for text in texts]}
        if spec.tool_options.tools:
            self._tools(body)
        config: dict[str, Any] = {}
        if spec.HasField("sampling"):
            self._sampling(config)
        if spec.HasField("response_format"):
            self._response_format(config)
        if spec.HasField("reasoning") and (thinking := self._thinking()):
            config["thinkingConfig"] = thinking
        if IMAGE in spec.output_modalities:
            # Not all models draw without a word.
            config["responseModalities"] = ["TEXT", "IMAGE"]
        if config:
            body["generationConfig"] = config
        if spec.service_tier:
            self._service_tier(body)
        if spec.provider_options_json:
            self._options(body)
        name = quote(self.candidate.model.removeprefix("models/"), safe="")
        method = "streamGenerateContent?alt=sse" if self.prompt.stream else "generateContent"
        return UpstreamRequest(f"/models/{name}:{method}", _encode(body), (), self.warnings.found)

    # Messages

    def _contents(self) -> list[dict[str, Any]]:
        turns = _Turns(self.model, self._responses)
        for message in self.spec.messages:
            if message.role == Role.ROLE_ASSISTANT:
                parts = [part for part in map(self._model_part, message.parts) if part is not None]
                calls = [part.tool_call for part in message.parts if part.HasField("tool_call")]
                turns.model(_named(message.name, parts), calls)
            elif message.role in (Role.ROLE_USER, Role.ROLE_TOOL):
                parts = [part for part in map(self._user_part, message.parts) if part is not None]
                has_results = any(part.HasField("tool_result") for part in message.parts)
                turns.user(_named(message.name, parts), has_results)
        contents = turns.contents
        if contents and contents[-1]["role"] == "model" and self.model.is_strict:
            raise Unencodable("spec.messages", "the last turn can't be the model's")
        return contents

    def _only_system(self, texts: list[str]) -> list[dict[str, Any]]:
        # Nothing but instructions. A turn is required, so the last of them is asked as a question.
        if not texts:
            raise Unencodable("spec.messages", "only blank text, which the provider refuses")
        return [{"role": "user", "parts": [{"text": texts.pop()}]}]

    def _user_part(self, part: Part) -> dict[str, Any] | None:
        kind = part.WhichOneof("content")
        if kind == "text":
            return {"text": part.text} if part.text else None  # An empty part is refused.
        if kind in _MEDIA:
            return self._media(kind, getattr(part, kind))
        if kind == "tool_result" or kind is None:
            return None
        raise Unencodable(f"spec.messages[].parts[].{kind}", "the user's turn can't hold it here")

    def _model_part(self, part: Part) -> dict[str, Any] | None:
        kind = part.WhichOneof("content")
        signature = self._signature(part)
        written: dict[str, Any] | None
        if kind == "reasoning":
            # Thoughts are summaries: without their signature the model gains nothing from reading
            # them.
            written = {"text": part.reasoning.text, "thought": True} if signature else None
        elif kind == "tool_call":
            call = part.tool_call
            written = {
                "functionCall": {"name": call.name, "args": json_object(call.arguments_json)}
            }
            if self.model.signs_calls:
                written["functionCall"]["id"] = call.id
        elif kind in _MEDIA:
            written = self._media(kind, getattr(part, kind))
        elif kind == "tool_result":
            raise Unencodable(
                "spec.messages[].parts[].tool_result", "the assistant's turn can't hold it here"
            )
        else:
            # A signature often comes on an empty part at the end of a stream, and goes back on one.
            text = part.refusal if kind == "refusal" else part.text
            written = {"text": text} if text or signature else None
        if written is not None and signature:
            written["thoughtSignature"] = signature
        return written

    def _signature(self, part: Part) -> str:
        if not part.HasField("provider_state"):
            return ""
        state = part.provider_state
        if state.provider == self.candidate.family and state.data.isascii():
            return state.data.decode("ascii")
        self.warnings.state_dropped()
        return ""

    def _media(self, kind: str, media: Media) -> dict[str, Any]:
        if kind == "image" and media.detail not in ("", "auto"):
            self.warnings.dropped("spec.messages[].parts[].image.detail")
        if media.WhichOneof("source") == "data":
            return {"inlineData": {"mimeType": media.mime_type, "data": base64_of(media)}}
        url = media.url
        if media.file_id:
            url = media.file_id
            if not url.startswith("https://"):
                url = FILES_URL + quote(url.removeprefix("files/"), safe="")
        elif url.lower().startswith("s3://"):
            raise Unencodable(f"spec.messages[].parts[].{kind}.url", "s3 addresses can't be read")
        file = {"fileUri": url}
        if mime_type := media.mime_type or _type_of(url):
            file["mimeType"] = mime_type
        elif not TYPED_URLS.match(url):
            raise Unencodable(
                f"spec.messages[].parts[].{kind}.mime_type",
                "is needed for a URL that does not show it",
            )
        return {"fileData": file}

    def _responses(self, calls: Sequence[ToolCall]) -> Iterator[dict[str, Any]]:
        if not all(call.id in self.results for call in calls):
            self.warnings.add(
                "RESULT_MISSING", "spec.messages", "calls without a result were given an error"
            )
        for call in calls:
            result = self.results.get(call.id)
            if result is None:
                # The API counts: without as many responses as calls it refuses the whole
                # conversation.
                response: dict[str, Any] = {"name": call.name, "response": {"error": "no result"}}
            else:
                # Never the text's own object: its keys could be `error` or `output`, which mean
                # something here.
                word = "error" if result.is_error else "result"
                response = {"name": call.name, "response": {word: text_of(result.parts)}}
                if media := self._result_media(result):
                    response["parts"] = media
            if self.model.signs_calls:
                response["id"] = call.id
            yield {"functionResponse": response}

    def _result_media(self, result: ToolResult) -> list[dict[str, Any]]:
        kinds = [(part.WhichOneof("content"), part) for part in result.parts]
        media = [self._media(kind, getattr(part, kind)) for kind, part in kinds if kind in _MEDIA]
        if media and not self.model.signs_calls:
            raise Unencodable(
                "spec.messages[].parts[].tool_result.parts",
                "only text goes into a tool result here",
            )
        return media

    # Options

    def _tools(self, body: dict[str, Any]) -> None:
        options = self.spec.tool_options
        choice = options.choice
        mode = choice_mode(options)
        config: dict[str, Any] = {}
        tools: Sequence[Tool] = options.tools
        if choice.WhichOneof("choice") == "tool_name":
            config = {"mode": "ANY", "allowedFunctionNames": [choice.tool_name]}
        elif mode == ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED and choice.allowed_tool_names:
            config = {"mode": "ANY", "allowedFunctionNames": list(choice.allowed_tool_names)}
        else:
            # Only ANY can be narrowed by name, so otherwise the tools that may not be called are
            # not shown.
            tools = offered_tools(options)
            if mode in CHOICE_MODES:
                config = {"mode": CHOICE_MODES[mode]}
        body["tools"] = [{"functionDeclarations": [self._tool(tool) for tool in tools]}]
        if config:
            body["toolConfig"] = {"functionCallingConfig": config}
        if options.HasField("parallel_calls") and not options.parallel_calls:
            self.warnings.dropped("spec.tool_options.parallel_calls")
        # Under ANY the API holds every call to its schema; otherwise it does its best.
        if config.get("mode") != "ANY" and any(tool.strict for tool in tools):
            self.warnings.dropped("spec.tool_options.tools[].strict")

    def _tool(self, tool: Tool) -> dict[str, Any]:
        if not FUNCTION_NAME.match(tool.name):
            raise Unencodable(
                "spec.tool_options.tools[].name", "must start with a letter or an underscore here"
            )
        written: dict[str, Any] = {"name": tool.name}
        if tool.description:
            written["description"] = tool.description
        if tool.parameters_schema_json:
            written["parametersJsonSchema"] = raw_json(tool.parameters_schema_json)
        return written

    def _sampling(self, config: dict[str, Any]) -> None:
        sampling = self.spec.sampling
        for name, word in _SCALARS.items():
            if not sampling.HasField(name):  # type: ignore[arg-type]
                continue
            if name in _REFUSED_WHEN_STRICT and self.model.is_strict:
                self.warnings.dropped(f"spec.sampling.{name}", "the model no longer takes it")
            else:
                config[word] = getattr(sampling, name)
        if sampling.candidate_count > 1:
            if self.model.signs_calls:
                raise Unencodable(
                    "spec.sampling.candidate_count", "the model gives one choice only"
                )
            config["candidateCount"] = sampling.candidate_count
        if sampling.HasField("seed"):
            seed = sampling.seed
            if not -SEED_MASK <= seed <= SEED_MASK:
                seed &= SEED_MASK
                self.warnings.clamped("spec.sampling.seed", "a seed has 32 bits here")
            config["seed"] = seed
        if sampling.stop:
            config["stopSequences"] = list(sampling.stop[:MAX_STOP])
            if len(sampling.stop) > MAX_STOP:
                self.warnings.clamped("spec.sampling.stop", f"only the first {MAX_STOP} are used")
        if sampling.logit_bias:
            self.warnings.dropped("spec.sampling.logit_bias")
        if sampling.verbosity:
            self.warnings.dropped("spec.sampling.verbosity")

    def _response_format(self, config: dict[str, Any]) -> None:
        wanted = self.spec.response_format
        kind = wanted.WhichOneof("format")
        if kind not in ("json_object", "json_schema"):
            return
        if self.spec.tool_options.tools and not self.model.signs_calls:
            raise Unencodable(
                "spec.response_format", "the model has structured output or tools, not both"
            )
        config["responseMimeType"] = "application/json"
        if kind == "json_schema":
            config["responseJsonSchema"] = raw_json(wanted.json_schema.schema_json)

    def _thinking(self) -> dict[str, Any]:
        reasoning = self.spec.reasoning
        model = self.model
        thinking: dict[str, Any] = {}
        if model.budget_tokens:
            budget = self._budget(*model.budget_tokens)
            if budget is not None:
                thinking["thinkingBudget"] = budget
        elif model.levels:
            if reasoning.effort:
                thinking["thinkingLevel"] = self._level(reasoning.effort)
            if reasoning.HasField("budget_tokens"):
                # The old parameter is still taken alone, but not beside a level, and never as a
                # limit.
                self.warnings.dropped("spec.reasoning.budget_tokens", "the model takes an effort")
        else:
            # A model that does not reason at all already does what "none" asks.
            if reasoning.effort > ReasoningEffort.REASONING_EFFORT_NONE:
                self.warnings.dropped("spec.reasoning.effort", "the model does not reason")
            if reasoning.budget_tokens:
                self.warnings.dropped("spec.reasoning.budget_tokens", "the model does not reason")
            return thinking
        if reasoning.include:
            thinking["includeThoughts"] = True
        return thinking

    def _level(self, effort: ReasoningEffort.ValueType) -> str:
        wanted = EFFORT_LEVELS[effort]
        levels = self.model.levels
        # The next stronger one; thinking too much is wrong in cost only.
        used = next(
            (level for level in levels if LEVELS.index(level) >= LEVELS.index(wanted)), levels[-1]
        )
        asked = ReasoningEffort.Name(effort).removeprefix("REASONING_EFFORT_")
        if used != asked:
            self.warnings.clamped(
                "spec.reasoning.effort", f"{asked.lower()} is {used.lower()} here"
            )
        return used

    def _budget(self, least: int, most: int) -> int | None:
        """None where nothing was said. A budget that was asked for goes before an effort."""
        reasoning = self.spec.reasoning
        if reasoning.HasField("budget_tokens"):
            field, wanted = "spec.reasoning.budget_tokens", reasoning.budget_tokens
        elif reasoning.effort == ReasoningEffort.REASONING_EFFORT_NONE:
            field, wanted = "spec.reasoning.effort", 0
        elif reasoning.effort:
            return min(max(EFFORT_BUDGETS[reasoning.effort], least), most)
        else:
            return None
        if wanted == 0 and self.model.can_rest:
            return 0
        used = min(max(wanted, least), most)
        if used != wanted:
            self.warnings.clamped(field, f"the budget is {least} to {most} tokens")
        return used

    def _service_tier(self, body: dict[str, Any]) -> None:
        tier = self.spec.service_tier
        if tier in SERVICE_TIERS:
            body["serviceTier"] = SERVICE_TIERS[tier]
        elif tier != "auto":
            self.warnings.dropped("spec.service_tier", "the provider has no such tier")

    def _options(self, body: dict[str, Any]) -> None:
        self._merge(
            body, provider_options(self.spec, self.candidate, openai_dialect=False), depth=2
        )

    def _merge(self, into: dict[str, Any], options: Mapping[str, Any], depth: int) -> None:
        # The API takes both spellings of a name but not twice, so all become the one that is used
        # above.
        for key, value in options.items():
            name = _camel(key)
            if name in RESERVED:
                self.warnings.dropped(
                    f"spec.provider_options_json.{key[:64]}", "the gateway sets this itself"
                )
            elif depth > 1 and isinstance(value, dict):
                self._merge(into.setdefault(name, {}), value, depth - 1)
            else:
                into[name] = value


class _Turns:
    """The conversation as turns that alternate: neighbours of one role are one turn.

    The API matches the calls of a turn with the responses of the very next one, by order and
    number, so responses are written where the calls are, in one turn that holds nothing else,
    wherever the caller had put the results.
    """

    def __init__(
        self, model: Model, responses: Callable[[Sequence[ToolCall]], Iterable[dict[str, Any]]]
    ) -> None:
        self.contents: list[dict[str, Any]] = []
        self._model = model
        self._responses = responses
        self._open_role = ""
        self._open_calls: list[ToolCall] = []

    def model(self, parts: list[dict[str, Any]], calls: Sequence[ToolCall]) -> None:
        """A message of the assistant. Its calls stay open until a user's turn follows."""
        if calls and self._model.signs_calls and not self._open_calls:
            first = next(part for part in parts if "functionCall" in part)
            # One for the whole turn is what the model itself writes; without any the API refuses
            # the conversation.
            first.setdefault("thoughtSignature", NO_SIGNATURE)
        self._add("model", parts)
        self._open_calls.extend(calls)

    def user(self, parts: list[dict[str, Any]], has_results: bool) -> None:
        """A message of the user or of tools, without the results."""
        if self._open_calls and (parts or has_results):
            self._add("user", list(self._responses(self._open_calls)))
            self._open_role = ""
            self._open_calls = []
        self._add("user", parts)

    def _add(self, role: str, parts: list[dict[str, Any]]) -> None:
        if not parts:
            return
        if role == self._open_role:
            self.contents[-1]["parts"].extend(parts)
        else:
            self.contents.append({"role": role, "parts": parts})
            self._open_role = role


_MEDIA: Final = frozenset({"image", "audio", "document", "video"})
_SCALARS: Final[Mapping[str, str]] = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_output_tokens": "maxOutputTokens",
    "frequency_penalty": "frequencyPenalty",
    "presence_penalty": "presencePenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
_REFUSED_WHEN_STRICT: Final = frozenset({"temperature", "top_p", "top_k"})


def _named(name: str, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts, with the author's name before the first text: there is no other place for it."""
    if name:
        texts = [part for part in parts if part.get("text") and "thought" not in part]
        if texts:
            texts[0]["text"] = f"{name}: {texts[0]['text']}"
        elif parts and "functionCall" not in parts[0]:
            return [{"text": f"{name}:"}, *parts]
    return parts


def _type_of(url: str) -> str:
    """The media type that a URL's extension stands for, or nothing."""
    return TYPES_BY_EXTENSION.get(extension_of(url), "")


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


class GeminiDecoder(AnswerDecoder):
    """One response. Chunks are read as typed structs: nothing is decoded that is not used.

    Every chunk may say why a candidate finished, and relays in front of the API write STOP into all
    of them, so how a candidate ended is only told when the stream does.
    """

    def __init__(self, events: AnswerEvents, choices: int) -> None:
        self._sse = events.sse_decoder()
        super().__init__(events)
        self._choices = choices
        self._ends: dict[int, str] = {}
        self._thoughts: dict[int, list[str]] = {}
        self._knows_model = False
        self._last_end = b""
        self._chunks_with_end = 0

    @property
    def is_finished(self) -> bool:
        """Every choice has said why it ended. `finish` still has to tell it."""
        return len(self._ends) >= self._choices

    def feed(self, chunk: bytes) -> list[CompleteResponse]:
        """One read of the stream."""
        try:
            for data in self._sse.feed(chunk):
                self._data(data)
        except MalformedStream as error:
            raise UpstreamError(Failure.PROTOCOL, str(error)) from error
        return self._events.take()

    def finish(self) -> list[CompleteResponse]:
        """The end of the stream: fine once every choice has said why it ended."""
        for data in self._sse.finish():
            self._data(data)
        if not self.is_finished:
            raise UpstreamError(Failure.AMBIGUOUS, "the stream ended before the answer")
        self._finish_choices()
        return self._events.take()

    def whole(self, body: bytes) -> list[CompleteResponse]:
        """One JSON object; or a list of chunks, which is what a stream is without `alt=sse`."""
        chunks = self._decoded(_decode_chunks if body.lstrip()[:1] == b"[" else _decode_chunk, body)
        for chunk in chunks:
            self._chunk(chunk)
        if not any(chunk.candidates for chunk in chunks):
            raise UpstreamError(Failure.PROTOCOL, "no candidates")
        if not self.is_finished:
            raise UpstreamError(Failure.PROTOCOL, "a candidate without an end")
        self._finish_choices()
        return self._events.take()

    def _finish_choices(self) -> None:
        for index, native in sorted(self._ends.items()):
            reason = FINISH_REASONS.get(native, FinishReason.FINISH_REASON_OTHER)
            self._events.finish(index, reason, native)

    def _decoded(self, decode: Callable[[bytes], Any], data: bytes) -> list[_Chunk]:
        try:
            decoded = decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise UpstreamError(
                Failure.PROTOCOL, f"malformed JSON: {type(error).__name__}"
            ) from error
        return decoded if isinstance(decoded, list) else [decoded]

    def _data(self, data: bytes) -> None:
        if data and data != b"[DONE]":  # Relays that also speak OpenAI's dialect write it here too.
            if data == self._last_end and self._chunks_with_end == 1:
                return  # The last chunk once more. Where every chunk has an end, equal ones are equal text.
            for chunk in self._decoded(_decode_chunk, data):
                self._chunk(chunk)
                if any(candidate.finish_reason for candidate in chunk.candidates or ()):
                    self._last_end = data
                    self._chunks_with_end += 1

    def _chunk(self, chunk: _Chunk) -> None:
        if chunk.error:
            raise _error(chunk.error, 200)
        if not self._knows_model and chunk.model_version:
            self._knows_model = True
            facts = self._events.facts
            facts.response_model = chunk.model_version[:256]
            facts.upstream_request_id = facts.upstream_request_id or (chunk.response_id or "")[:128]
        if chunk.candidates:
            for candidate in chunk.candidates:
                self._candidate(candidate)
        elif chunk.prompt_feedback is not None and (blocked := chunk.prompt_feedback.block_reason):
            raise UpstreamError(
                Failure.POLICY, f"the prompt was blocked: {blocked}", http_status=200, code=blocked
            )
        if chunk.usage_metadata is not None:
            self._usage(chunk.usage_metadata)

    def _candidate(self, candidate: _Candidate) -> None:
        index = candidate.index
        if index and self._events.is_unasked(index):
            return
        logprobs = _logprobs(candidate.logprobs_result) if candidate.logprobs_result else []
        for part in (candidate.content.parts if candidate.content else None) or ():
            if part.function_call is not None:
                self._call(index, part.function_call, part.thought_signature)
            elif part.thought:
                self._thought(index, part)
            elif part.text is not None or part.thought_signature:
                self._text(index, part, logprobs)
                logprobs = []
            if part.inline_data is not None and not part.thought:
                self._image(part.inline_data)
            # Other kinds (code that the model ran) have no event.
        reason = candidate.finish_reason
        if reason and reason != NOT_FINISHED:
            self._ends[index] = reason

    def _image(self, blob: _Blob) -> None:
        # What comes this way may be sound, too.
        if (blob.mime_type or "").startswith("image/") and blob.data:
            self._events.image(blob.mime_type or "", blob.data)

    def _text(self, index: int, part: _Part, logprobs: Sequence[TokenLogprob]) -> None:
        events = self._events
        events.text(index, part.text or "", logprobs)
        if part.thought_signature:
            # Text that follows is a part of its own: the signature stands for what came up to here.
            events.text_state(index, part.thought_signature.encode())
            events.break_part(index)

    def _thought(self, index: int, part: _Part) -> None:
        events = self._events
        text = part.text or ""
        events.reasoning(index, text, summary=True)
        thoughts = self._thoughts.setdefault(index, [])
        thoughts.append(text)
        if part.thought_signature:
            events.reasoning_done(
                index, "".join(thoughts), part.thought_signature.encode(), summary=True
            )
            thoughts.clear()

    def _call(self, index: int, call: _FunctionCall, signature: str | None) -> None:
        if not call.name:
            raise UpstreamError(Failure.PROTOCOL, "a tool call without a name")
        key = object()  # A call comes whole, so nothing ever refers to it again.
        state = signature.encode() if signature else None
        self._events.begin_call(index, key, call.id or "", call.name, state=state)
        self._events.call_arguments(index, key, raw_arguments(call.args))

    def _usage(self, usage: Any) -> None:
        if not isinstance(usage, dict) or not is_count(usage.get("promptTokenCount")):
            return
        # Cumulative, so the last one wins. Thoughts are not part of the candidates' count, nor what
        # built-in tools found of the prompt's.
        found = count_of(usage.get("toolUsePromptTokenCount"))
        thoughts = count_of(usage.get("thoughtsTokenCount"))
        input_tokens = min(count_of(usage["promptTokenCount"]) + found, MAX_TOKENS)
        output_tokens = min(count_of(usage.get("candidatesTokenCount")) + thoughts, MAX_TOKENS)
        prompt = usage.get("promptTokensDetails")
        candidates = usage.get("candidatesTokensDetails")
        self._events.usage(
            Usage(
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                total_tokens=input_tokens + output_tokens,
                cached_input_tokens=min(
                    count_of(usage.get("cachedContentTokenCount")), input_tokens
                ),
                reasoning_tokens=min(thoughts, output_tokens),
                input_audio_tokens=min(_tokens_of("AUDIO", prompt), input_tokens),
                output_audio_tokens=min(_tokens_of("AUDIO", candidates), output_tokens),
                input_image_tokens=min(_tokens_of("IMAGE", prompt), input_tokens),
            )
        )


def _tokens_of(modality: str, details: Any) -> int:
    """Tokens of one kind of content in a list of counts."""
    return sum(
        count_of(detail.get("tokenCount"))
        for detail in (details if isinstance(details, list) else ())
        if isinstance(detail, dict) and detail.get("modality") == modality
    )


def _logprobs(result: _Logprobs) -> list[TokenLogprob]:
    tokens = []
    tops = result.top_candidates or []
    for position, chosen in enumerate(result.chosen_candidates or ()):
        token = _token(chosen)
        if position < len(tops):
            token.top.extend(_token(top) for top in tops[position].candidates or ())
        tokens.append(token)
    return tokens


def _token(entry: _Logprob) -> TokenLogprob:
    text = entry.token or ""
    token = TokenLogprob(token=text, logprob=entry.log_probability or 0.0)
    if "\ufffd" not in text:
        token.utf8 = text.encode()
    return token


def _error(error: Any, status: int) -> UpstreamError:
    """A google.rpc.Status as JSON. What is telling stands in its details, by type."""
    if not isinstance(error, dict):
        said = error if isinstance(error, str) else f"HTTP {status}"
        return UpstreamError(classify(status), said, http_status=status)
    number = error.get("code")
    if status == 200 and isinstance(number, int) and 400 <= number <= 599:
        status = number  # An error inside a 200 says there what its status would have been.
    details = _details(error)
    codes = [detail.get("reason") for detail in details.get("ErrorInfo", ())]
    if any(_is_daily(failure) for failure in details.get("QuotaFailure", ())):
        codes.insert(0, "quota_per_day")
    words = [code for code in (*codes, error.get("status")) if isinstance(code, str)]
    delays = [detail.get("retryDelay") for detail in details.get("RetryInfo", ())]
    message = error.get("message")
    failure = classify(status, tuple(words))
    if failure is Failure.CALLER and PRECONDITION in words:
        failure = Failure.CAPABILITY
    if failure is Failure.CALLER and CONTEXT_TEXT.search(str(message)):
        failure = Failure.CONTEXT_LENGTH
    return UpstreamError(
        failure,
        message if isinstance(message, str) else f"HTTP {status}",
        http_status=status,
        retry_after_s=next((duration_s(delay) for delay in delays if isinstance(delay, str)), None),
        code=next(iter(words), ""),
    )


def _details(error: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The details by the last word of their type."""
    found: dict[str, list[dict[str, Any]]] = {}
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            found.setdefault(str(detail.get("@type")).rpartition(".")[2], []).append(detail)
    return found


def _is_daily(quota_failure: dict[str, Any]) -> bool:
    """Is one of the exhausted quotas filled again only tomorrow?"""
    violations = quota_failure.get("violations")
    return any(
        isinstance(violation, dict) and "PerDay" in str(violation.get("quotaId"))
        for violation in (violations if isinstance(violations, list) else ())
    )
