"""The Bedrock dialect: Converse and ConverseStream, as Amazon Bedrock's runtime speaks them.

One dialect for the models of many vendors. A message is a list of blocks, and so is an answer; the kind of a block is
the name of its only field. What a vendor alone knows travels beside, in `additionalModelRequestFields`:
`bedrock_models` says which model wants what. Streams are binary (`wire/event_stream.py`), and a failure may be one of
their messages.

Sources, read 2026-11-22: the service model `bedrock-runtime` of botocore 1.44.5 with its documentation; below
https://docs.aws.amazon.com/bedrock/latest the pages /userguide/conversation-inference.html,
/userguide/prompt-caching.html, /userguide/structured-output.html and /APIReference/CommonErrors.html.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

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
from trunkline_server.providers.anthropic_models import Model as Claude
from trunkline_server.providers.anthropic_models import model_of
from trunkline_server.providers.bedrock_models import EFFORTS, Asks, row_of, vendor_of
from trunkline_server.providers.closed_schema import closed_schema, object_schema
from trunkline_server.providers.translator import (
    UpstreamRequest,
    Warnings,
    base64_of,
    choice_mode,
    extension_of,
    json_object,
    offered_tools,
    provider_options,
    system_texts,
)
from trunkline_server.wire import event_stream
from trunkline_server.wire.event_stream import EventStreamDecoder, MalformedMessage

STREAM_TYPE: Final = "application/vnd.amazon.eventstream"

FINISH_REASONS: Final[Mapping[str, FinishReason.ValueType]] = {
    "end_turn": FinishReason.FINISH_REASON_STOP,
    "tool_use": FinishReason.FINISH_REASON_TOOL_CALLS,
    "max_tokens": FinishReason.FINISH_REASON_LENGTH,
    "stop_sequence": FinishReason.FINISH_REASON_STOP_SEQUENCE,
    "guardrail_intervened": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "content_filtered": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "malformed_model_output": FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL,
    "malformed_tool_use": FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL,
    "model_context_window_exceeded": FinishReason.FINISH_REASON_CONTEXT_LENGTH,
}
EFFORT_WORDS: Final[Mapping[ReasoningEffort.ValueType, str]] = {
    ReasoningEffort.REASONING_EFFORT_NONE: "none",
    ReasoningEffort.REASONING_EFFORT_MINIMAL: "minimal",
    ReasoningEffort.REASONING_EFFORT_LOW: "low",
    ReasoningEffort.REASONING_EFFORT_MEDIUM: "medium",
    ReasoningEffort.REASONING_EFFORT_HIGH: "high",
    ReasoningEffort.REASONING_EFFORT_XHIGH: "xhigh",
    ReasoningEffort.REASONING_EFFORT_MAX: "max",
}
# For models of Claude that know a budget where others know an effort; those of `anthropic`.
EFFORT_BUDGETS: Final[Mapping[str, int]] = {
    "minimal": 1_024,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 24_576,
    "max": 32_768,
}
MIN_BUDGET_TOKENS: Final = 1_024
ANSWER_TOKENS: Final = 4_096  # Room for the answer beside a budget, where nobody says how much.
SERVICE_TIERS: Final[Mapping[str, str]] = {
    "default": "default",
    "standard": "default",
    "priority": "priority",
    "flex": "flex",
    "reserved": "reserved",
}
IMAGE_FORMATS: Final[Mapping[str, str]] = {
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/png": "png",
    "image/gif": "gif",
    "image/webp": "webp",
}
DOCUMENT_FORMATS: Final[Mapping[str, str]] = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
    "application/json": "txt",
    "application/xml": "txt",
    "application/yaml": "txt",
    "application/x-yaml": "txt",
}
AUDIO_FORMATS: Final[Mapping[str, str]] = {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/opus": "opus",
    "audio/mp4": "mp4",
    "audio/x-m4a": "m4a",
    "audio/webm": "webm",
    "audio/pcm": "pcm",
}
VIDEO_FORMATS: Final[Mapping[str, str]] = {
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/x-matroska": "mkv",
    "video/webm": "webm",
    "video/x-flv": "flv",
    "video/mpeg": "mpeg",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
FORMATS: Final[Mapping[str, Mapping[str, str]]] = {
    "image": IMAGE_FORMATS,
    "document": DOCUMENT_FORMATS,
    "audio": AUDIO_FORMATS,
    "video": VIDEO_FORMATS,
}
# Names of files that end otherwise than the format is called.
EXTENSIONS: Final[Mapping[str, str]] = {"jpg": "jpeg", "htm": "html", "markdown": "md"}
IN_RESULTS: Final = frozenset({"image", "document", "video"})

# What a document may be called: see `DocumentBlock` in the service model.
NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9\s\-()\[\]]+")
MAX_NAME_CHARS: Final = 200
CALL_ID: Final = re.compile(r"[a-zA-Z0-9_.:-]{1,64}\Z")
FIRST_TURN: Final = "(The conversation begins.)"
DOCUMENT_TURN: Final = "(See the document.)"
RESULTS_TURN: Final = "(The results are in.)"
NO_OUTPUT: Final = "(no output)"
WITHDRAWN: Final = "No longer available: do not call it."

# Parameters that extra options may not set: the gateway's own promises hang on them.
RESERVED: Final = frozenset({"modelId", "messages", "system", "toolConfig"})
MERGED: Final = frozenset({"inferenceConfig", "additionalModelRequestFields", "outputConfig"})

# A ValidationException stands for all of these and has no finer code, only a sentence. It is read from its beginning,
# where no prompt can be quoted; a wrong guess only asks one more candidate.
# Source: aws-samples/bedrock-chat#95, continuedev/continue#6005, strands-agents/harness-sdk#1241, vercel/ai#4396;
# for turns, strands-agents/harness-sdk#1223 and quarkiverse/quarkus-langchain4j#1983.
_RELAYED: Final = r"(The model returned the following errors: )?"
SENTENCES: Final[Sequence[tuple[re.Pattern[str], Failure]]] = (
    (
        re.compile(
            _RELAYED + r"(Input is too long for requested model|prompt is too long"
            r"|input length and `max_tokens` exceed context limit|too many total text bytes"
            r"|Too many input tokens|Input Tokens Exceeded|This model's maximum context length"
            r"|Malformed input request: [^,]{0,200}expected maxLength:)"
        ),
        Failure.CONTEXT_LENGTH,
    ),
    (
        re.compile(
            _RELAYED + r"(This model (doesn't|does not) support "
            r"|The maximum tokens you requested exceeds the model limit"
            r"|`[^`]{1,64}` is deprecated for this model"
            r"|(messages\.\d{1,6}\.content: )?Conversation blocks and tool (result|use) blocks"
            r" cannot be provided in the same turn)"
        ),
        Failure.CAPABILITY,
    ),
    (
        re.compile(r"(The provided model identifier is invalid|Invocation of model ID )"),
        Failure.MODEL_MISSING,
    ),
)


class _Struct(msgspec.Struct, rename="camel"):
    """The API writes all names in camel case."""


class _ReasoningText(_Struct):
    text: str | None = None
    signature: str | None = None


class _Reasoning(_Struct):
    """A piece of reasoning, or, with `reasoning_text`, a whole block of it."""

    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None
    reasoning_text: _ReasoningText | None = None


class _ToolUse(_Struct):
    """The start of a call, a piece of its input, or all of it."""

    tool_use_id: str | None = None
    name: str | None = None
    type: str | None = None
    input: msgspec.Raw = msgspec.Raw()


class _Cited(_Struct):
    text: str | None = None


class _Citations(_Struct):
    content: list[_Cited] | None = None


class _Content(_Struct):
    """A block, or what one event says of it."""

    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Citations | None = None


class _Event(_Struct):
    """An event of a stream. The name of its kind is in a header."""

    content_block_index: int = 0
    start: _Content | None = None
    delta: _Content | None = None
    stop_reason: str | None = None
    additional_model_response_fields: Any = None
    usage: Any = None
    service_tier: Any = None
    trace: Any = None


class _Message(_Struct):
    content: list[_Content] | None = None


class _Output(_Struct):
    message: _Message | None = None


class _Response(_Struct):
    output: _Output | None = None
    stop_reason: str | None = None
    additional_model_response_fields: Any = None
    usage: Any = None
    service_tier: Any = None
    trace: Any = None


# What reading JSON raises: not what it should be, too deep, no UTF-8.
BAD_JSON: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class BedrockTranslator:
    """Amazon Bedrock's dialect."""

    capabilities: frozenset[Capability] = USUAL - {
        Capability.LOGPROBS,
        Capability.SEED,
        Capability.MULTIPLE_CHOICES,
    }
    name: str = "bedrock"

    def encode(self, candidate: Candidate, prompt: Prompt) -> UpstreamRequest:
        """The body of POST /model/{id}/converse, or of its streaming sister."""
        return _Request(candidate, prompt).encoded()

    def decoder(
        self, candidate: Candidate, prompt: Prompt, facts: AttemptFacts, mint_id: Callable[[], str]
    ) -> "BedrockDecoder":
        """For one response, streamed or whole."""
        events = AnswerEvents.of(candidate, prompt, facts, mint_id)
        return BedrockDecoder(events)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """The kind is in a header, or in the body where a proxy lost that."""
        try:
            error = _decode_object(body)
        except (*BAD_JSON, TypeError):
            error = {}
        kind = headers.get("x-amzn-errortype") or error.get("__type") or error.get("code")
        return _error(kind, error, status)


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
        self.model = row_of(candidate.model)
        self.claude = model_of(candidate.model) if self.model.asks is Asks.CLAUDE else None
        self.thinks = self.claude is not None and self.claude.thinks_unasked
        self.forces_tool = False
        self.called: dict[str, None] = {}  # Names of the tools that the history calls, in order.
        self.document_names: set[str] = set()
        self.inference: dict[str, Any] = {}
        self.fields: dict[str, Any] = {}  # What only the model's vendor knows.
        self.output: dict[str, Any] = {}

    def encoded(self) -> UpstreamRequest:
        spec = self.spec
        system = [text for text in system_texts(spec, self.warnings) if text.strip()]
        turns = self._turns()
        if not turns and system:
            # Nothing but instructions. A message is required, so the last of them is asked as a question.
            turns = [_Turn("user", blocks=[{"text": system.pop()}])]
        if not turns:
            raise Unencodable("spec.messages", "only blank text, which the provider refuses")
        body: dict[str, Any] = {"messages": [turn.written() for turn in turns]}
        if system:
            body["system"] = [{"text": text} for text in system]
        if self.called or spec.tool_options.tools:
            self._tools(body)
        self._room()
        if spec.HasField("reasoning"):
            self._reasoning(turns)
        if spec.HasField("sampling"):
            self._sampling(body)
        if spec.HasField("response_format"):
            self._response_format()
        if spec.service_tier:
            self._service_tier(body)
        if spec.end_user_id:
            self.warnings.dropped("spec.end_user_id")
        if self.inference:
            body["inferenceConfig"] = self.inference
        if self.fields:
            body["additionalModelRequestFields"] = self.fields
        if self.output:
            body["outputConfig"] = self.output
        if spec.provider_options_json:
            self._options(body)
        # Ids hold colons, and ARNs slashes, which would be path segments of their own.
        model = quote(self.candidate.model, safe="")
        method = "converse-stream" if self.prompt.stream else "converse"
        return UpstreamRequest(f"/model/{model}/{method}", _encode(body), (), self.warnings.found)

    # Messages

    def _turns(self) -> list[_Turn]:
        turns: list[_Turn] = []
        for message in self.spec.messages:
            if message.role in (Role.ROLE_SYSTEM, Role.ROLE_DEVELOPER):
                continue  # System text is a field of its own here.
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
            turns.insert(0, _Turn("user", blocks=[{"text": FIRST_TURN}]))
        if turns and turns[-1].role == "assistant":
            last = turns[-1].blocks[-1]
            if isinstance(last, dict) and "text" in last:
                last["text"] = last["text"].rstrip()  # Refused at the end of a prefilled answer.
        if self.claude is None:
            turns = list(_parted(turns))
        for turn in turns:
            kinds = {kind for block in turn.blocks if isinstance(block, dict) for kind in block}
            if "document" in kinds and "text" not in kinds:
                turn.blocks.append({"text": DOCUMENT_TURN})  # Not taken without any text.
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
        where = f"spec.messages[].parts[].{kind}"
        if kind == "text":
            if part.text.strip():  # Blank text is refused.
                turn.blocks.append({"text": part.text})
        elif kind == "tool_result":
            turn.results.append(self._result(part.tool_result))
        elif kind is not None and kind in FORMATS:
            turn.blocks.append(self._media(kind, getattr(part, kind), where))
        elif kind is not None:
            raise Unencodable(where, "only the assistant's turn can hold it")

    def _assistant(self, turn: _Turn, part: Part) -> None:
        kind = part.WhichOneof("content")
        if kind == "tool_call":
            call = part.tool_call
            self.called[call.name] = None
            use = {
                "toolUseId": _call_id(call.id),
                "name": call.name,
                "input": json_object(call.arguments_json),
            }
            turn.blocks.append({"toolUse": use})
        elif kind == "text" or kind == "refusal":
            text = part.text or part.refusal
            if text.strip():
                turn.blocks.append({"text": text})
        elif kind is not None and kind != "reasoning":
            raise Unencodable(
                f"spec.messages[].parts[].{kind}", "the assistant's turn can't hold it here"
            )
        if part.HasField("provider_state"):
            state = part.provider_state
            # One dialect for many vendors, who do not read each other's signatures.
            is_own = state.provider == self.candidate.family and (
                vendor_of(state.model) == vendor_of(self.candidate.model)
            )
            if is_own and _is_state(state.data):
                turn.blocks.append(msgspec.Raw(state.data))
            else:
                self.warnings.state_dropped()

    def _result(self, result: ToolResult) -> dict[str, Any]:
        content = []
        for part in result.parts:
            kind = part.WhichOneof("content")
            where = f"spec.messages[].parts[].tool_result.parts[].{kind}"
            if kind == "text":
                if part.text.strip():
                    content.append({"text": part.text})
            elif kind in IN_RESULTS:
                content.append(self._media(kind, getattr(part, kind), where))
            elif kind is not None:
                raise Unencodable(where, "a tool result can't hold it here")
        written: dict[str, Any] = {
            "toolUseId": _call_id(result.tool_call_id),
            "content": content or [{"text": NO_OUTPUT}],
        }
        if result.is_error:
            written["status"] = "error"  # Only some models know the field, so success is not said.
        return {"toolResult": written}

    def _media(self, kind: str, media: Media, where: str) -> dict[str, Any]:
        if kind == "image" and media.detail not in ("", "auto"):
            self.warnings.dropped(f"{where}.detail")
        if media.data:
            source: dict[str, Any] = {"bytes": base64_of(media)}
        elif media.url.lower().startswith("s3://"):
            source = {"s3Location": {"uri": media.url}}
        else:
            raise Unencodable(where, "the provider takes bytes and s3 addresses only")
        written = {"format": _format(kind, media, where), "source": source}
        if kind == "document":
            written["name"] = self._document_name(media.filename)
        return {kind: written}

    def _document_name(self, filename: str) -> str:
        """A name that the API takes, and that no other document of the request has."""
        stem = filename.rpartition(".")[0] or filename
        words = NOT_IN_NAMES.sub(" ", stem).split()
        name = wanted = " ".join(words)[:MAX_NAME_CHARS].strip() or "document"
        number = 2
        while name in self.document_names:
            name = f"{wanted[: MAX_NAME_CHARS - 8]} {number}"
            number += 1
        self.document_names.add(name)
        return name

    # Options

    def _tools(self, body: dict[str, Any]) -> None:
        options = self.spec.tool_options
        offered = offered_tools(options)
        mode = choice_mode(options)
        if not offered or mode == ToolChoiceMode.TOOL_CHOICE_MODE_NONE:
            # No choice is called "none", so the tools are withheld.
            self._declare_called(body)
            return
        config: dict[str, Any] = {"tools": [_tool(tool) for tool in offered]}
        if choice := self._tool_choice(mode):
            config["toolChoice"] = choice
        if options.HasField("parallel_calls") and not options.parallel_calls:
            self.warnings.dropped("spec.tool_options.parallel_calls")
        body["toolConfig"] = config

    def _declare_called(self, body: dict[str, Any]) -> None:
        """A history with calls is refused unless tools are declared."""
        if self.called:
            withdrawn = [_tool(Tool(name=name, description=WITHDRAWN)) for name in self.called]
            body["toolConfig"] = {"tools": withdrawn}
            self.warnings.add(
                "TOOLS_DECLARED",
                "spec.tool_options.choice",
                "the tools of the history are declared, and the provider can't be told to call none",
            )

    def _tool_choice(self, mode: "ToolChoiceMode.ValueType") -> dict[str, Any]:
        choice = self.spec.tool_options.choice
        is_named = choice.WhichOneof("choice") == "tool_name"
        if not is_named and mode != ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED:
            return {}  # Automatic unless something else is said, and some models refuse the word.
        if self.claude is not None and not self.claude.forced_tools:
            self.warnings.dropped(
                "spec.tool_options.choice", "the model can't be made to call a tool"
            )
            return {}
        self.forces_tool = True
        return {"tool": {"name": choice.tool_name}} if is_named else {"any": {}}

    def _room(self) -> None:
        """The most tokens that the answer may have, where someone said so."""
        sampling = self.spec.sampling
        most = self.candidate.max_output_tokens
        if not sampling.HasField("max_output_tokens"):
            return
        wanted = sampling.max_output_tokens
        if most is not None and wanted > most:
            self.warnings.clamped(
                "spec.sampling.max_output_tokens", f"the model writes at most {most}"
            )
            wanted = most
        self.inference["maxTokens"] = wanted

    def _sampling(self, body: dict[str, Any]) -> None:
        sampling = self.spec.sampling
        if sampling.candidate_count > 1:
            raise Unencodable("spec.sampling.candidate_count", "the provider gives one answer")
        self._samplers()
        # White space alone is refused.
        stops = [stop for stop in sampling.stop if stop.strip()]
        if len(stops) != len(sampling.stop):
            self.warnings.dropped(
                "spec.sampling.stop", "a sequence of white space alone is not taken"
            )
        if stops:
            self.inference["stopSequences"] = stops
            if self.claude is not None:
                # Which one it was is a field of Claude's own answer.
                body["additionalModelResponseFieldPaths"] = ["/stop_sequence"]
        if sampling.HasField("seed"):
            self.warnings.dropped("spec.sampling.seed")
        for name in _UNKNOWN:
            if getattr(sampling, name):
                self.warnings.dropped(f"spec.sampling.{name}")

    def _samplers(self) -> None:
        sampling = self.spec.sampling
        if why := self._refuses_samplers():
            for name, default in _SAMPLERS.items():
                # What is said anyway costs nothing to leave out.
                if sampling.HasField(name) and getattr(sampling, name) != default:  # type: ignore[arg-type]
                    self.warnings.dropped(f"spec.sampling.{name}", why)
            return
        if sampling.HasField("temperature"):
            self.inference["temperature"] = min(sampling.temperature, 1.0)
            if sampling.temperature > 1:
                self.warnings.clamped("spec.sampling.temperature", "the provider's scale ends at 1")
        if sampling.HasField("top_p"):
            is_second = self.claude is not None and self.claude.one_sampler
            if is_second and "temperature" in self.inference:
                self.warnings.dropped("spec.sampling.top_p", "not taken together with temperature")
            else:
                self.inference["topP"] = sampling.top_p
        if sampling.HasField("top_k"):
            if self.model.top_k:
                _put(self.fields, self.model.top_k, sampling.top_k)
            else:
                self.warnings.dropped("spec.sampling.top_k")

    def _refuses_samplers(self) -> str:
        """Why the model takes no sampling parameters; empty when it does."""
        if self.claude is not None and not self.claude.sampling:
            return "the model does not take it"
        is_thinking_hard = (
            self.fields.get("reasoningConfig", {}).get("maxReasoningEffort") == "high"
        )
        if (self.claude is not None and self.thinks) or is_thinking_hard:
            return "not taken while the model thinks"
        return ""

    def _response_format(self) -> None:
        wanted = self.spec.response_format
        kind = wanted.WhichOneof("format")
        if kind == "json_object":
            # Who asks for this has to ask for JSON in the prompt as well, so the prompt is left as it is.
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
            definition = {"schema": schema.decode()}  # As text, unlike a tool's.
            if wanted.json_schema.name:
                definition["name"] = wanted.json_schema.name
            if wanted.json_schema.description:
                definition["description"] = wanted.json_schema.description
            self.output["textFormat"] = {
                "type": "json_schema",
                "structure": {"jsonSchema": definition},
            }

    def _service_tier(self, body: dict[str, Any]) -> None:
        tier = self.spec.service_tier
        if tier in SERVICE_TIERS:
            body["serviceTier"] = {"type": SERVICE_TIERS[tier]}
        elif tier != "auto":
            self.warnings.dropped("spec.service_tier", "the provider has no such tier")

    def _options(self, body: dict[str, Any]) -> None:
        for key, value in provider_options(self.spec, self.candidate, openai_dialect=False).items():
            if key in RESERVED:
                self.warnings.dropped(
                    f"spec.provider_options_json.{key[:64]}", "the gateway sets this itself"
                )
            elif key in MERGED and isinstance(value, dict):
                body[key] = {**body.get(key, {}), **value}
            else:
                body[key] = value

    # Reasoning

    def _reasoning(self, turns: Sequence[_Turn]) -> None:
        reasoning = self.spec.reasoning
        if self.claude is not None:
            self._claude(self.claude, turns)
            return
        if reasoning.budget_tokens:
            self.warnings.dropped("spec.reasoning.budget_tokens", "the model takes no budget")
        if not reasoning.effort:
            return
        asked = EFFORT_WORDS[reasoning.effort]
        match self.model.asks:
            case Asks.NOWHERE:
                if asked != "none":  # Which a model that is not asked to reason already does.
                    self.warnings.dropped("spec.reasoning.effort", "the model takes no effort")
            case Asks.NOVA:
                self._nova(asked)
            case Asks.FIELD:
                self.fields["reasoning_effort"] = self._effort(asked, self.model.efforts)
            case _:
                self.output["effort"] = self._effort(asked, self.model.efforts)

    def _nova(self, asked: str) -> None:
        if asked == "none":
            self.fields["reasoningConfig"] = {"type": "disabled"}
            return
        used = self._effort(asked, self.model.efforts)
        self.fields["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": used}
        if used == "high" and self.inference.pop("maxTokens", None):
            self.warnings.dropped(
                "spec.sampling.max_output_tokens", "not taken while the model thinks hard"
            )

    def _effort(self, asked: str, efforts: Sequence[str]) -> str:
        """The nearest effort that the model takes, not above the one that was asked for where there is one."""
        if asked in efforts:
            return asked
        below = EFFORTS[: EFFORTS.index(asked)] if asked in EFFORTS else ()
        used = next((word for word in reversed(below) if word in efforts), efforts[0])
        self.warnings.clamped("spec.reasoning.effort", f"{asked} is called {used} here")
        return used

    def _claude(self, model: Claude, turns: Sequence[_Turn]) -> None:
        reasoning = self.spec.reasoning
        budget = reasoning.budget_tokens if reasoning.HasField("budget_tokens") else None
        if reasoning.effort == ReasoningEffort.REASONING_EFFORT_NONE or budget == 0:
            self._no_thinking(model)
        elif reasoning.effort or budget:
            if model.budget and (budget or not model.adaptive):
                self._budget(model, turns, budget)
            elif model.adaptive:
                if budget:
                    self.warnings.dropped(
                        "spec.reasoning.budget_tokens", "the model takes an effort only"
                    )
                self._adaptive(model)
            else:
                self._drop_thinking("the model does not think")
        elif reasoning.include and model.thinks_unasked:
            self._adaptive(model)

    def _no_thinking(self, model: Claude) -> None:
        if model.off:
            self.fields["thinking"] = {"type": model.off}
            self.thinks = False
        elif model.thinks_unasked:
            self.warnings.clamped(
                "spec.reasoning.effort", "the model always thinks: none is called low here"
            )
            self.output["effort"] = "low"

    def _adaptive(self, model: Claude) -> None:
        self.thinks = True
        self.fields["thinking"] = {"type": "adaptive"}
        if self.spec.reasoning.include:
            # Newer models send the signature alone unless the text is asked for.
            self.fields["thinking"]["display"] = "summarized"
        self._claude_effort(model)

    def _claude_effort(self, model: Claude) -> None:
        effort = self.spec.reasoning.effort
        if effort and model.efforts:
            self.output["effort"] = self._effort(EFFORT_WORDS[effort], model.efforts)

    def _budget(self, model: Claude, turns: Sequence[_Turn], asked: int | None) -> None:
        room: int | None = self.inference.get("maxTokens")
        if self.forces_tool:
            self._drop_thinking("a tool can't be forced while the model thinks")
        elif not _began_thinking(turns):
            self._drop_thinking("the turn to be continued began without thinking")
        elif room is not None and room <= MIN_BUDGET_TOKENS:
            self._drop_thinking(f"thinking takes more than {MIN_BUDGET_TOKENS} output tokens")
        else:
            self.thinks = True
            budget = self._budget_tokens(asked, room)
            self.fields["thinking"] = {"type": "enabled", "budget_tokens": budget}
            self.inference.setdefault("maxTokens", budget + ANSWER_TOKENS)
            self._claude_effort(model)

    def _budget_tokens(self, asked: int | None, room: int | None) -> int:
        if asked is None:
            # The answer needs room too. A caller who names a budget has thought of that.
            budget = EFFORT_BUDGETS[EFFORT_WORDS[self.spec.reasoning.effort]]
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


_SAMPLERS: Final[Mapping[str, float | None]] = {"temperature": 1.0, "top_p": 1.0, "top_k": None}
_UNKNOWN: Final = (
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "verbosity",
)


def _parted(turns: Iterable[_Turn]) -> Iterator[_Turn]:
    """Without a turn that holds results and other content: llama, mistral and nova refuse it.

    Text beside calls is refused by some of them as well, but it is what the others write themselves, and there is no
    other place for it.
    """
    for turn in turns:
        if turn.results and turn.blocks:
            yield _Turn(turn.role, results=turn.results)
            yield _Turn("assistant", blocks=[{"text": RESULTS_TURN}])
            yield _Turn(turn.role, blocks=turn.blocks)
        else:
            yield turn


def _put(into: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *folders, name = path
    for folder in folders:
        into = into.setdefault(folder, {})
    into[name] = value


def _fold_name(turn: _Turn, name: str) -> None:
    """The author's name before the first text: there is no other place for it."""
    for block in turn.blocks:
        if isinstance(block, dict) and "text" in block:
            block["text"] = f"{name}: {block['text']}"
            return
    if turn.role == "user" and turn.blocks:
        turn.blocks.insert(0, {"text": f"{name}:"})


def _format(kind: str, media: Media, where: str) -> str:
    """The API's word for a type of media, from the type or the name of the file."""
    formats = FORMATS[kind]
    mime_type = media.mime_type.partition(";")[0].strip().lower()
    if mime_type in formats:
        return formats[mime_type]
    if kind == "document" and mime_type.startswith("text/"):
        return "txt"
    extension = extension_of(media.url or media.filename)
    extension = EXTENSIONS.get(extension, extension)
    if mime_type or extension not in formats.values():
        known = ", ".join(sorted(set(formats.values())))
        raise Unencodable(f"{where}.mime_type", f"only {known}")
    return extension


def _call_id(call_id: str) -> str:
    """Ids of other families may have any characters, and any length."""
    # The same id must come out for the call and for its result, so it is derived and not drawn.
    if CALL_ID.match(call_id):
        return call_id
    return "tooluse_" + hashlib.sha256(call_id.encode()).hexdigest()[:24]


def _tool(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name}
    if tool.description:
        written["description"] = tool.description
    schema = object_schema(tool.parameters_schema_json)
    if tool.strict:
        # The loosened limits are not worth a word: without `strict` nothing at all would be enforced.
        schema, _ = closed_schema(schema.decode())
        written["strict"] = True
    written["inputSchema"] = {"json": msgspec.Raw(schema)}
    return {"toolSpec": written}


def _is_state(data: bytes) -> bool:
    """Is it a whole block of reasoning? It was in the caller's hands, so it may be anything."""
    try:
        state = _decode_object(data)
    except (*BAD_JSON, TypeError):
        return False
    return state.keys() == {"reasoningContent"} and isinstance(state["reasoningContent"], dict)


def _began_thinking(turns: Sequence[_Turn]) -> bool:
    """Does the turn that is to be continued begin with reasoning? True when a new one begins, too.

    A turn lasts from the user's words over all calls and results to the answer. With a budget, Claude refuses to think
    in the middle of one that began without.
    """
    first: _Turn | None = None
    for turn in reversed(turns):
        if turn.role == "assistant":
            first = turn
        elif not turn.results:
            break
    return first is None or isinstance(first.blocks[0], msgspec.Raw)


class _Block:
    """A block that is being read."""

    __slots__ = ("is_call", "is_foreign", "redacted", "signature", "text")

    def __init__(self) -> None:
        self.is_call = False
        self.is_foreign = False  # Of a tool that the provider runs itself.
        self.text: list[str] = []  # Of reasoning.
        self.signature = ""
        self.redacted: list[bytes] = []

    def state(self) -> bytes:
        """What must go back; empty for reasoning that was not signed."""
        if self.redacted:
            content = base64.b64encode(b"".join(self.redacted)).decode("ascii")
            return _encode({"reasoningContent": {"redactedContent": content}})
        if not self.signature:
            return b""
        text = {"text": "".join(self.text), "signature": self.signature}
        return _encode({"reasoningContent": {"reasoningText": text}})


class BedrockDecoder(AnswerDecoder):
    """One response. Events are read as typed structs: nothing is decoded that is not used."""

    def __init__(self, events: AnswerEvents) -> None:
        self._stream = EventStreamDecoder()
        super().__init__(events)
        self._blocks: dict[int, _Block] = {}

    def feed(self, chunk: bytes) -> list[CompleteResponse]:
        """One read of the stream."""
        try:
            for message in self._stream.feed(chunk):
                self._message(message)
        except MalformedMessage as error:
            raise UpstreamError(Failure.PROTOCOL, str(error)) from error
        return self._events.take()

    def finish(self) -> list[CompleteResponse]:
        """The end of the stream: fine once `messageStop` has come, with usage or without."""
        if not self._events.is_finished:
            raise UpstreamError(Failure.AMBIGUOUS, "the stream ended before the answer")
        return self._events.take()

    def whole(self, body: bytes) -> list[CompleteResponse]:
        """A response that came in one piece."""
        try:
            response = _decode_response(body)
        except BAD_JSON as error:
            raise _malformed(error) from error
        message = response.output.message if response.output else None
        if message is None or message.content is None or not response.stop_reason:
            raise UpstreamError(Failure.PROTOCOL, "a response without a message or its end")
        for index, content in enumerate(message.content):
            self._start(index, content)
            self._whole_block(index, content)
            self._stop(index)
        self._finish(response.stop_reason, response.additional_model_response_fields)
        self._metadata(response)
        self.is_done = True
        return self._events.take()

    def _message(self, message: event_stream.Message) -> None:
        if self.is_done:
            return
        headers = message.headers
        kind = headers.get(":message-type")
        if kind == "event":
            self._event(headers.get(":event-type", ""), message.payload)
        elif self._events.is_finished:
            self.is_done = True  # Whatever failed then, the answer had its end.
        elif kind == "exception":
            raise _failed(headers.get(":exception-type", ""), message.payload)
        elif kind == "error":  # One that the service model does not know.
            text = {"message": headers.get(":error-message", "")}
            raise _error(headers.get(":error-code", ""), text, 200)
        else:
            raise UpstreamError(Failure.PROTOCOL, "a message of no known type")

    def _event(self, kind: str, payload: bytes) -> None:
        if kind not in _EVENTS:
            return
        try:
            event = _decode_event(payload)
        except BAD_JSON as error:
            raise _malformed(error) from error
        if kind == "contentBlockDelta":
            if event.delta is not None:
                self._delta(event.content_block_index, event.delta)
        elif kind == "contentBlockStart":
            if event.start is not None:
                self._start(event.content_block_index, event.start)
        elif kind == "contentBlockStop":
            self._stop(event.content_block_index)
        elif kind == "messageStop":
            if not event.stop_reason:
                raise UpstreamError(Failure.PROTOCOL, "an end without a reason")
            self._finish(event.stop_reason, event.additional_model_response_fields)
        else:
            self._metadata(event)
            self.is_done = self._events.is_finished

    def _start(self, index: int, start: _Content) -> None:
        block = self._blocks[index] = _Block()
        use = start.tool_use
        if use is None:
            return
        if use.type:
            block.is_foreign = True
            return
        if not use.name:
            raise UpstreamError(Failure.PROTOCOL, "a tool call without a name")
        block.is_call = True
        self._events.begin_call(0, block, use.tool_use_id or "", use.name)

    def _delta(self, index: int, delta: _Content) -> None:
        if delta.text is not None:
            self._events.text(0, delta.text)
        elif delta.reasoning_content is not None:
            # Only calls announce their blocks.
            self._thought(self._blocks.setdefault(index, _Block()), delta.reasoning_content)
        elif delta.tool_use is not None:
            block = self._blocks.get(index)
            if block is None or not (block.is_call or block.is_foreign):
                raise UpstreamError(Failure.PROTOCOL, "a piece of a tool call without its start")
            if block.is_call:
                self._events.call_arguments(0, block, _fragment(delta.tool_use.input))

    def _whole_block(self, index: int, content: _Content) -> None:
        block = self._blocks[index]
        if content.text is not None:
            self._events.text(0, content.text)
        elif content.reasoning_content is not None:
            self._thought(block, content.reasoning_content)
        elif content.citations_content is not None:
            for cited in content.citations_content.content or ():
                self._events.text(0, cited.text or "")
        elif content.tool_use is not None and block.is_call:
            raw = bytes(content.tool_use.input)
            self._events.call_arguments(0, block, "{}" if raw in (b"", b"null") else _text(raw))

    def _thought(self, block: _Block, thought: _Reasoning) -> None:
        # Reasoning whose text is not sent is progress all the same.
        self._events.progressed = True
        whole = thought.reasoning_text
        text = (whole.text if whole else thought.text) or ""
        block.text.append(text)
        block.signature += (whole.signature if whole else thought.signature) or ""
        if thought.redacted_content:
            try:
                block.redacted.append(base64.b64decode(thought.redacted_content, validate=True))
            except (binascii.Error, ValueError) as error:
                raise UpstreamError(Failure.PROTOCOL, "redacted reasoning is no base64") from error
        self._events.reasoning(0, text)

    def _stop(self, index: int) -> None:
        block = self._blocks.pop(index, None)
        if block is not None and (state := block.state()):
            text = "".join(block.text)
            self._events.reasoning_done(0, text, state, redacted=bool(block.redacted))
        # A block is a part: what comes next is another.
        self._events.break_part(0)

    def _finish(self, native: str, fields: Any) -> None:
        for index in list(self._blocks):
            self._stop(index)
        stop = fields.get("stop_sequence") if isinstance(fields, dict) else None
        reason = FINISH_REASONS.get(native, FinishReason.FINISH_REASON_OTHER)
        self._events.finish(0, reason, native, stop if isinstance(stop, str) else "")

    def _metadata(self, said: _Event | _Response) -> None:
        facts = self._events.facts
        facts.service_tier = _word(said.service_tier, "type")[:64]
        # Only a prompt router says which model it chose.
        facts.response_model = _word(said.trace, "promptRouter", "invokedModelId")[:256]
        usage = said.usage
        if not isinstance(usage, dict) or not is_count(usage.get("inputTokens")):
            return
        read = count_of(usage.get("cacheReadInputTokens"))
        written = count_of(usage.get("cacheWriteInputTokens"))
        # inputTokens leaves out what the cache held or took; ours includes it.
        input_tokens = min(count_of(usage["inputTokens"]) + read + written, MAX_TOKENS)
        output_tokens = count_of(usage.get("outputTokens"))
        self._events.usage(
            Usage(
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                total_tokens=input_tokens + output_tokens,
                cached_input_tokens=read,
                cache_write_input_tokens=written,
            )
        )


# `messageStart` says nothing but the role.
_EVENTS: Final = frozenset(
    {"contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"}
)


def _fragment(raw: msgspec.Raw) -> str:
    """A piece of a call's input: a string that holds a piece of JSON."""
    if not bytes(raw):
        return ""
    try:
        return _decode_text(raw)
    except BAD_JSON as error:
        raise _malformed(error) from error


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _malformed(error) from error


def _word(tree: Any, *path: str) -> str:
    """The text at a path of objects; empty where there is none."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, str) else ""


def _malformed(error: Exception) -> UpstreamError:
    return UpstreamError(Failure.PROTOCOL, f"malformed JSON: {type(error).__name__}")


def _failed(kind: str, payload: bytes) -> UpstreamError:
    """An exception inside a stream."""
    try:
        error = _decode_object(payload)
    except (*BAD_JSON, TypeError):
        error = {}
    return _error(kind, error, 200)


def _error(kind: Any, error: Mapping[str, Any], status: int) -> UpstreamError:
    code = _code(kind) if isinstance(kind, str) else ""
    message = error.get("message") or error.get(
        "Message"
    )  # The latter where the caller is checked.
    if not isinstance(message, str):
        message = code or f"HTTP {status}"
    failure = classify(status, (code,))
    if failure is Failure.CALLER:
        failure = next((meant for sentence, meant in SENTENCES if sentence.match(message)), failure)
    return UpstreamError(failure, message, http_status=status, code=code)


def _code(kind: str) -> str:
    """The name of an exception, which comes bare, with a namespace before it or an address after it.

    Inside streams it begins with a small letter.
    """
    name = kind.partition(":")[0].rpartition("#")[2].strip()
    return name[:1].upper() + name[1:]
