"""Answers in the OpenAI dialect: chunks, whole bodies and errors, as a dozen services write them.

Each of them leaves the form somewhere. What would be ambiguous is told by a flag of `Deviations`; the rest is read from
whoever writes it, because nobody else does.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import FinishReason, TokenLogprob, Usage
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure, classify
from trunkline_server.providers.answer import (
    MAX_CHOICES,
    MAX_TOKENS,
    AnswerDecoder,
    AnswerEvents,
    count_of,
    is_count,
)
from trunkline_server.wire.sse import MalformedStream

OTHER: Final = (
    FinishReason.FINISH_REASON_OTHER
)  # By its value: an enum's name is looked up anew each time.
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
# They tell nothing of why: another reason stands, whichever of them came first.
PLAIN: Final = frozenset({FinishReason.FINISH_REASON_STOP, OTHER})
# The stream failed, whatever came before it.
FAILED_FINISHES: Final = frozenset(
    {
        "error",  # OpenRouter, Mistral
        "insufficient_system_resource",  # DeepSeek
    }
)
# Codes that only this dialect's services write.
CODES: Final[Mapping[str, Failure]] = {
    "account_deactivated": Failure.CREDENTIAL,
    "billing_not_active": Failure.EXHAUSTED,
    "invalid_prompt": Failure.POLICY,  # OpenAI: flagged before a reasoning model saw it.
    "invalid_model": Failure.MODEL_MISSING,  # Mistral, with a 400.
    "model_decommissioned": Failure.MODEL_MISSING,  # Groq, with a 400.
    "unknown_parameter": Failure.CAPABILITY,  # Of a deployment or a version that is older than the parameter.
    # Azure
    "ResponsibleAIPolicyViolation": Failure.POLICY,
    "OperationNotSupported": Failure.MODEL_MISSING,  # The deployment is of another kind of model.
}
# Sentences, where a service has no code. They are looked for in a 400 alone. That a prompt is too long: a wrong guess
# does no harm, because another candidate is asked and the caller is told that the request was refused either way (vLLM
# and others). All others only at the very beginning, where no prompt can be quoted: that a key is bad (xAI), that the
# version of the API is too old for a model, and that one does not know a parameter (Azure).
CONTEXT_TEXT: Final = re.compile(
    r"maximum context length|context (window|length|size)", re.IGNORECASE
)
SENTENCES: Final[Sequence[tuple[re.Pattern[str], Failure]]] = (
    (re.compile(r"Incorrect API key provided"), Failure.CREDENTIAL),
    (re.compile(r"Model \S{1,128} is enabled only for api versions"), Failure.MODEL_MISSING),
    (re.compile(r"Unrecognized request arguments? supplied"), Failure.CAPABILITY),
)
# The word is ours: which efforts there are depends on the model.
EFFORT_PARAMETER: Final = "reasoning_effort"
STATUS_CODE: Final = re.compile(r"[45][0-9]{2}\Z")


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
    reasoning_details: list[dict[str, Any]] | None = None
    tool_calls: list[_ToolCall] | None = None
    images: Any = None  # OpenRouter


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    error: Any = None


class _Groq(msgspec.Struct):
    usage: Any = None
    error: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    x_groq: _Groq | None = None


# What reading JSON raises: not what it should be, too deep, no UTF-8.
BAD_JSON: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class _Thoughts:
    """Reasoning of one choice that has to go back, until it is handed over."""

    __slots__ = ("details", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.details: list[dict[str, Any]] = []

    def add_detail(self, detail: dict[str, Any]) -> None:
        """Pieces of one text are one detail; all others stay as they came."""
        last = self.details[-1] if self.details else {}
        kind = detail.get("type")
        key = TEXT_OF_DETAIL.get(kind) if isinstance(kind, str) else None
        is_more = key is not None and all(last.get(k) == detail.get(k) for k in ("type", "index"))
        if key is None or not is_more:
            self.details.append(dict(detail))
            return
        text = str(last.get(key) or "") + str(detail.get(key) or "")
        last.update({k: v for k, v in detail.items() if v is not None})
        last[key] = text


# Where a detail has words. Others are encrypted.
TEXT_OF_DETAIL: Final[Mapping[str, str]] = {
    "reasoning.text": "text",
    "reasoning.summary": "summary",
}


MAX_LOOKS: Final = (
    16  # At the arguments of a call; whoever repeats its name more often means one call.
)


# The end of a call's arguments is looked for in so much of the last pieces, which may be blank.
TAIL_PIECES: Final = 4
TAIL_CHARS: Final = 16


class _Slot:
    """A call whose pieces come under a number in the list of calls, or under several."""

    __slots__ = ("call_id", "is_named_again", "key", "looks_left", "name")

    def __init__(self, key: object, call_id: str, name: str) -> None:
        self.key = key
        self.call_id = call_id  # As it was sent.
        self.name = name
        self.is_named_again = False  # After its arguments were whole.
        self.looks_left = MAX_LOOKS


class OpenAIDecoder(AnswerDecoder):
    """One response. Chunks are read as typed structs: nothing is decoded that is not used.

    Some servers say "stop" in every chunk, in the first one, or beside each thought, so how a choice ended is only told
    when nothing more can come: at `[DONE]`, at the end of the stream, or with the usage that follows the last choice.

    Args:
        keeps: the field of an assistant's turn in which reasoning has to go back; empty where none has.
    """

    def __init__(self, events: AnswerEvents, keeps: str = "") -> None:
        self._sse = events.sse_decoder()
        super().__init__(events)
        self._keeps_text = keeps == "reasoning_content"
        self._keeps_details = keeps == "reasoning_details"
        self._kept: dict[int, _Thoughts] = {}
        self._slots: dict[tuple[int, int], _Slot] = {}
        self._known: dict[tuple[int, str], _Slot] = {}  # The first call of each id.
        self._knows_model = False
        self._ends: dict[int, str] = {}
        self._ended_at = 0  # Characters of the answer when a choice last said that it had ended.
        self._ends_early = False
        self._ends_after_words = (
            False  # An end in the first chunk with words may stand in all of them.
        )
        self._last = b""  # The chunk with the last end, which some send twice, its words too.

    @property
    def is_finished(self) -> bool:
        """Every choice has said why it ended. That may have been too early, and is told later."""
        return len(self._ends) >= self._events.expected

    @property
    def has_told_end(self) -> bool:
        """The end was told, or was said last and by a server that has not said it too early before."""
        if self._events.is_finished:
            return True
        if not self._ends or self._ends_early:
            return False
        return self.is_finished and self._events.output_chars == self._ended_at

    @property
    def survives_loss(self) -> bool:
        """Not where an end was said too early: any chunk may say it then."""
        return self.has_told_end

    def feed(self, chunk: bytes) -> list[CompleteResponse]:
        """One read of the stream."""
        try:
            for data in self._sse.feed(chunk):
                self._data(data)
        except MalformedStream as error:
            raise UpstreamError(Failure.PROTOCOL, str(error)) from error
        return self._events.take()

    def finish(self) -> list[CompleteResponse]:
        """The end of the stream: fine once every choice has said why it ended, [DONE] or not."""
        for data in self._sse.finish():
            self._data(data)
        if not self.is_finished:
            raise UpstreamError(Failure.AMBIGUOUS, "the stream ended before the answer")
        self._finish_choices()
        return self._events.take()

    def whole(self, body: bytes) -> list[CompleteResponse]:
        """A response that is one JSON object."""
        chunk = self._decoded(body)
        if not chunk.choices:
            raise UpstreamError(Failure.PROTOCOL, "no choices")
        self._chunk(chunk)
        if not self.is_finished:
            raise UpstreamError(Failure.PROTOCOL, "a choice without an end")
        self._finish_choices()
        self.is_done = True
        return self._events.take()

    def _decoded(self, data: bytes) -> _Chunk:
        try:
            chunk = _decode_chunk(data)
        except BAD_JSON as error:
            raise UpstreamError(
                Failure.PROTOCOL, f"malformed JSON: {type(error).__name__}"
            ) from error
        if chunk.error or (chunk.choices is None and chunk.usage is None and _is_error(data)):
            raise error_of(data, 200)
        return chunk

    def _data(self, data: bytes) -> None:
        if self.is_done:
            return
        if data == b"[DONE]":
            self.is_done = True
            if self.is_finished:
                self._finish_choices()
            return
        if not data:
            return
        ends = self._ends
        if not ends:
            self._chunk(self._decoded(data))
            if ends and self._ends_after_words:
                self._last = data
        elif data != self._last or self._ends_early:
            said = len(ends)
            self._chunk(self._decoded(data))
            if len(ends) > said:
                self._last = data

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
        usage = chunk.usage
        if chunk.x_groq is not None:
            if chunk.x_groq.error:
                raise _error(chunk.x_groq.error, 200)
            usage = usage or chunk.x_groq.usage
        if usage is not None:
            self._usage(usage)
            if not chunk.choices and self.is_finished:
                self._finish_choices()

    def _choice(self, choice: _Choice) -> None:
        events = self._events
        index = choice.index
        if index and events.is_unasked(index):
            return
        # Azure's last chunk has no delta at all.
        delta = choice.delta or choice.message
        if delta is not None:
            if delta.reasoning_content or delta.reasoning or delta.reasoning_details:
                self._reasoning(index, delta)
            content = delta.content
            if type(content) is str:
                if content and self._keeps_details:
                    self._hand_over(index)
                events.text(index, content, _logprobs(choice.logprobs) if choice.logprobs else ())
            elif content:
                self._parts(index, content)
            elif choice.logprobs:
                events.text(index, "", _logprobs(choice.logprobs))
            if delta.refusal:
                events.refusal(index, delta.refusal)
            if delta.images and events.draws and not events.is_finished:
                self._images(delta.images)
            if delta.tool_calls and not events.is_finished:
                self._tool_calls(index, delta.tool_calls)
        finish = choice.finish_reason
        if choice.error or (finish and finish in FAILED_FINISHES):
            raise _error(choice.error, 200)
        if finish:
            self._end(index, delta, finish)

    def _end(self, index: int, delta: _Delta | None, native: str) -> None:
        """A choice says why it ended, perhaps not for the last time. The last reason counts that tells why."""
        if not 0 <= index < MAX_CHOICES:
            raise UpstreamError(Failure.PROTOCOL, "a choice index out of range")
        earlier = self._ends.get(index)
        reason = FINISH_REASONS.get(native, OTHER)
        chars = self._events.output_chars
        is_more = earlier is not None and chars > self._ended_at
        is_thought = (
            delta is not None
            and not delta.content
            and bool(delta.reasoning_content or delta.reasoning)
        )
        if is_more or (reason in PLAIN and (is_thought or not chars)):
            self._ends_early = True  # What it says so of is no end, so silence after it is none.
        self._ended_at = chars
        words = delta.content if delta is not None else None
        self._ends_after_words = chars > (len(words) if isinstance(words, str) else 0)
        if earlier is None or reason not in PLAIN or FINISH_REASONS.get(earlier, OTHER) in PLAIN:
            self._ends[index] = native

    def _finish_choices(self) -> None:
        for index, native in self._ends.items():  # As they said it.
            if self._keeps_details:
                self._hand_over(index)
            self._events.finish(index, FINISH_REASONS.get(native, OTHER), native)

    def _reasoning(self, index: int, delta: _Delta) -> None:
        # vLLM and others say `reasoning` where DeepSeek says `reasoning_content`.
        text = delta.reasoning_content or delta.reasoning
        details = delta.reasoning_details
        is_summary = False
        if details:
            words = [_words(detail) for detail in details]
            text = text or "".join(words)
            is_summary = any(detail.get("type") == "reasoning.summary" for detail in details)
        if text:
            self._events.reasoning(index, text, summary=is_summary)
        if self._keeps_text or (self._keeps_details and details):
            kept = self._kept.setdefault(index, _Thoughts())
            kept.texts.append(text or "")
            for detail in details or ():
                kept.add_detail(detail)

    def _hand_over(self, index: int) -> None:
        """The reasoning is whole: its state goes out before what follows it."""
        kept = self._kept.pop(index, None) if self._kept else None
        if kept is None:
            return
        text = "".join(kept.texts)
        state = _encode(kept.details) if self._keeps_details else text.encode()
        if not state:
            return
        details = kept.details
        self._events.reasoning_done(
            index,
            text,
            state,
            # Text that stands in a part of its own already is not said twice.
            redacted=not text or not self._events.is_open(index, "reasoning"),
            summary=any(detail.get("type") == "reasoning.summary" for detail in details),
        )

    def _parts(self, index: int, content: str | list[_ContentPart]) -> None:
        # Mistral's reasoning models write content as a list of text and thinking parts.
        for part in content:
            if isinstance(part, _ContentPart):
                if part.text:
                    self._events.text(index, part.text)
                for thought in part.thinking if isinstance(part.thinking, list) else ():
                    if isinstance(thought, dict) and isinstance(thought.get("text"), str):
                        self._events.reasoning(index, thought["text"])

    def _images(self, images: Any) -> None:
        """Each `{"type": "image_url", "image_url": {"url": ...}}`, as pictures are sent to a model."""
        for image in images if isinstance(images, list) else ():
            address = image.get("image_url") if isinstance(image, dict) else None
            url = address.get("url") if isinstance(address, dict) else None
            if not isinstance(url, str):
                raise UpstreamError(Failure.PROTOCOL, "an image without an address")
            self._events.image_url(url)

    def _tool_calls(self, index: int, calls: Sequence[_ToolCall]) -> None:
        """Pieces of calls, of which one list may hold several."""
        named: set[int | str] = set()  # Numbers and ids.
        for position, call in enumerate(calls):
            number = position if call.index is None else call.index
            function = call.function
            name = (function.name if function else None) or ""
            arguments = function.arguments if function else None
            if arguments is None:
                written = ""
            elif isinstance(arguments, str):
                written = arguments
            else:
                written = _encode(arguments).decode()
            call_id = call.id or ""
            key = self._key(index, number, call_id, name, written, named)
            if key is not None:
                self._events.call_arguments(index, key, written)
            if name:
                named.add(number)
                if call_id:
                    named.add(call_id)

    def _key(
        self,
        index: int,
        number: int,
        call_id: str,
        name: str,
        written: str,
        named: set[int | str],
    ) -> object:
        """The call that a piece belongs to; None for a call that was only sent once more.

        Some servers number every call 0, some give all the same id or none, some repeat id and name with every piece,
        and some send one call under several numbers (LocalAI). A name under a number of its own is a new call, and so
        is one with an id of its own; the id of an earlier call means that one, unless with another name or twice in one
        list. What is left is told by the arguments: a call whose are whole has no more to say.

        Args:
            named: numbers and ids that the same list has named before.
        """
        slot = self._slots.get((index, number))
        if slot is None or (call_id and call_id != slot.call_id):
            known = self._known.get((index, call_id)) if call_id else None
            if known is not None and (not name or (name == known.name and call_id not in named)):
                if slot is None:
                    self._slots[index, number] = known
                slot = known
            elif slot is None or name:
                return self._begin(index, number, call_id, name)
        elif name and call_id == "null":  # Mistral's word for none.
            return self._begin(index, number, call_id, name)
        if name:
            return self._named_again(index, number, slot, call_id, name, written, number in named)
        if slot.is_named_again and not call_id and written.strip():
            return self._begin(index, number, call_id, slot.name)
        return slot.key

    def _named_again(
        self,
        index: int,
        number: int,
        slot: _Slot,
        call_id: str,
        name: str,
        written: str,
        is_second: bool,
    ) -> object:
        """The call of a name that comes where there is one already, with the same id or without: that one or another.

        Args:
            is_second: the same list has named a call of this number before.
        """
        is_new = is_second and not (call_id and name == slot.name)
        fragments = self._events.fragments(index, slot.key)
        if fragments:
            if not slot.looks_left or not _may_be_whole(fragments):
                return slot.key
            slot.looks_left -= 1
            arguments = _object("".join(fragments))
            if arguments is None:
                return slot.key
            says_more = bool(written.strip())
            if says_more and not is_second and name == slot.name and _object(written) == arguments:
                return None
            # A name alone may be the last one's once more; what follows will tell.
            slot.is_named_again = True
            is_new = is_new or says_more or name != slot.name
        return self._begin(index, number, call_id, name) if is_new else slot.key

    def _begin(self, index: int, number: int, call_id: str, name: str) -> object:
        if not name:
            raise UpstreamError(Failure.PROTOCOL, "a tool call without a name")
        self._hand_over(index)
        is_free = call_id not in ("", "null") and (index, call_id) not in self._known
        key = call_id if is_free else object()
        slot = self._slots[index, number] = _Slot(key, call_id, name)
        if is_free:
            self._known[index, call_id] = slot
        self._events.begin_call(index, key, call_id, name)
        return key

    def _usage(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        read, written = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
        if not (is_count(read) and is_count(written)):
            return
        input_tokens, output_tokens = int(read), int(written)
        counts = Usage()
        if completion := _counts(usage.get("completion_tokens_details")):
            reasoning_tokens = completion.get("reasoning_tokens", 0)
            # xAI counts reasoning beside the completion, and only its total gives that away.
            total = input_tokens + output_tokens + reasoning_tokens
            if reasoning_tokens and usage.get("total_tokens") == total:
                output_tokens = min(output_tokens + reasoning_tokens, MAX_TOKENS)
            counts.reasoning_tokens = min(reasoning_tokens, output_tokens)
            counts.output_audio_tokens = min(completion.get("audio_tokens", 0), output_tokens)
        cached = 0
        for name in _CACHED:
            if name in usage and not cached:
                cached = count_of(usage[name])
        if prompt := _counts(usage.get("prompt_tokens_details")):
            cached = prompt.get("cached_tokens", 0) or cached
            counts.cache_write_input_tokens = min(prompt.get("cache_write_tokens", 0), input_tokens)
            counts.input_audio_tokens = min(prompt.get("audio_tokens", 0), input_tokens)
            counts.input_image_tokens = min(prompt.get("image_tokens", 0), input_tokens)
        if cached:
            counts.cached_input_tokens = min(cached, input_tokens)
        counts.input_tokens = input_tokens
        counts.output_tokens = output_tokens
        counts.total_tokens = input_tokens + output_tokens
        self._events.usage(counts)


# DeepSeek has its own name for what was found in the cache; others keep it outside of the details.
_CACHED: Final = ("prompt_cache_hit_tokens", "cached_tokens")


def _counts(details: Any) -> dict[str, int]:
    """The counts among the details that are more than 0; absurd ones are left out."""
    if not isinstance(details, dict):
        return {}
    return {name: int(value) for name, value in details.items() if value and is_count(value)}


def _may_be_whole(fragments: Sequence[str]) -> bool:
    """Do a call's arguments end as an object does? As quick for long ones as for short ones."""
    tail = "".join(fragment[-TAIL_CHARS:] for fragment in fragments[-TAIL_PIECES:])
    return tail.rstrip().endswith("}")


def _object(text: str) -> dict[str, Any] | None:
    try:
        return _decode_object(text)
    except BAD_JSON:
        return None


def _words(detail: dict[str, Any]) -> str:
    """What a detail says aloud; encrypted ones say nothing."""
    kind = detail.get("type")
    text = detail.get(TEXT_OF_DETAIL.get(kind, "")) if isinstance(kind, str) else None
    return text if isinstance(text, str) else ""


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


def _is_error(data: bytes) -> bool:
    """Is it a flat error, without `error` around it? For chunks that hold nothing else."""
    value = _value(data)
    return isinstance(value, dict) and value.get("object") == "error"


def _value(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except BAD_JSON:
        return None


def error_of(body: bytes, status: int) -> UpstreamError:
    """What an error means. OpenAI nests it; Mistral and vLLM write it flat; some send a list of one."""
    value = _value(body)
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return _error(None, status)
    error = value.get("error") or value
    if isinstance(error, str):  # xAI: the text alone, and the code beside it.
        error = {"message": error, "code": value.get("code")}
    return _error(error, status)


def _error(error: Any, status: int) -> UpstreamError:
    """Codes come as `code`, `type` or both, and some services write numbers into `code`."""
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return UpstreamError(classify(status), f"HTTP {status}", http_status=status)
    inner = error.get("innererror")
    metadata = error.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    codes = [
        error.get("code"),
        error.get("type"),
        inner.get("code") if isinstance(inner, dict) else None,
        metadata.get("error_type"),
    ]
    words = tuple(code for code in codes if isinstance(code, str))
    status = _status(codes) or status if status == 200 else status
    message = error.get("message")
    return UpstreamError(
        _failure(error, status, words, str(message)),
        message if isinstance(message, str) else f"HTTP {status}",
        http_status=status,
        code=next(iter(words), ""),
    )


def _status(codes: Sequence[Any]) -> int | None:
    """An error inside a 200 says there what its status would have been."""
    numbers = (str(code) for code in codes if isinstance(code, int | str))
    return next((int(number) for number in numbers if STATUS_CODE.match(number)), None)


def _failure(error: dict[str, Any], status: int, words: tuple[str, ...], message: str) -> Failure:
    known = next((CODES[word] for word in words if word in CODES), None)
    failure = known or classify(status, words)
    metadata = error.get("metadata")
    if failure is Failure.CREDENTIAL and isinstance(metadata, dict) and "reasons" in metadata:
        # OpenRouter's moderation answers with a 403: the prompt was refused, and not our key.
        return Failure.POLICY
    if failure is not Failure.CALLER:
        return failure
    if isinstance(error.get("failed_generation"), str):
        return Failure.MODEL_FAULT
    if error.get("param") == EFFORT_PARAMETER:
        return Failure.CAPABILITY
    meant = next((meant for sentence, meant in SENTENCES if sentence.match(message)), None)
    if meant is None and CONTEXT_TEXT.search(message):
        return Failure.CONTEXT_LENGTH
    return meant or failure
