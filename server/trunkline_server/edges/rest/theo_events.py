"""An answer in Theo's words: the whole object, and the events of a stream.

What an answer is called by: `model.id` is the engine, as requests name it in `model_overrides`, or the model where the
mode has no engine; `model.engine` is who really answered, `provider/model`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from msgspec import Raw

from trunkline.v1.completion_pb2 import (
    Completion,
    GenuiMeta,
    Route,
    RouteReason,
    ServerToolCall,
    ServerToolState,
    SkillActivation,
    StructuredOutput,
)
from trunkline.v1.message_pb2 import Artifact, Message, ToolCall
from trunkline_server.edges.rest.artifacts import address
from trunkline_server.edges.rest.body import encode, encode_plain
from trunkline_server.edges.rest.http import HEARTBEAT
from trunkline_server.edges.rest.openai import FINISH_WORDS, Chunks, whole
from trunkline_server.edges.rest.theo_fields import envelope
from trunkline_server.edges.status import Refusal

NANOS_PER_CENT: Final = 10_000_000
# Modes that are not paid by the token.
UNCOUNTED: Final = frozenset({"image", "video", "tts", "stt"})
GENUI: Final = "genui"
THINKING: Final = b"event: thinking\ndata: .\n\n"

TOOL_WORDS: Final[Mapping[int, str]] = {
    ServerToolState.SERVER_TOOL_STATE_STARTED: "started",
    ServerToolState.SERVER_TOOL_STATE_SUCCEEDED: "success",
    ServerToolState.SERVER_TOOL_STATE_FAILED: "error",
}
CALLERS_TURN: Final = "requires_action"


# Parts of an answer


def cents(nanos: int) -> Raw:
    """An amount as a JSON number, to the last digit."""
    sign = "-" if nanos < 0 else ""
    digits, rest = divmod(abs(nanos), NANOS_PER_CENT)
    fraction = f".{rest:07}".rstrip("0") if rest else ""
    return Raw(f"{sign}{digits}{fraction}".encode())


def raw_or_null(json: str) -> Raw | None:
    """JSON of the contract as it came."""
    return Raw(json.encode()) if json else None


def model_id(route: Route) -> str:
    """Under which name callers know who answers."""
    return route.engine or route.model or route.route


def model_object(route: Route) -> dict[str, str]:
    """Who answers."""
    name = model_id(route)
    engine = f"{route.provider}/{route.model}" if route.provider else name
    return {"id": name, "label": route.label or name, "engine": engine}


def routing(route: Route, mode: str) -> dict[str, Any]:
    """Why this mode. `confidence` is null where nobody had to guess."""
    reason = RouteReason.Name(route.reason) if route.reason in RouteReason.values() else ""
    return {
        "requested_mode": mode,
        "resolved_mode": route.resolved_mode or mode,
        "promoted": route.promoted,
        "reason": reason.removeprefix("ROUTE_REASON_").lower() if route.reason else None,
        "confidence": route.confidence or None,
    }


def usage(completion: Completion) -> dict[str, Any]:
    """Counts and cost; the cost is 0 where no price is known."""
    counts = completion.usage
    counted = completion.route.resolved_mode not in UNCOUNTED
    found: dict[str, Any] = {
        "cost_cents": cents(counts.cost.amount_nanos),
        "prompt_tokens": counts.input_tokens if counted else 0,
        "completion_tokens": counts.output_tokens if counted else 0,
        "total_tokens": counts.total_tokens if counted else 0,
    }
    if completion.cache.hit:
        found["cached"] = True
    return found


def tool_object(call: ServerToolCall) -> dict[str, Any]:
    """A tool that the gateway ran."""
    return {
        "name": call.name,
        "status": TOOL_WORDS.get(call.state, "started"),
        "description": call.description,
    }


def call_object(call: ToolCall) -> dict[str, str]:
    """A tool that the caller is to run. `arguments` is JSON as text, as the model wrote it."""
    return {"id": call.id, "name": call.name, "arguments": call.arguments_json}


def skill_object(skill: SkillActivation) -> dict[str, Any]:
    """A skill that was used."""
    told: dict[str, Any] = {"id": skill.id, "slug": skill.slug, "name": skill.name}
    if skill.HasField("intensity"):
        told["intensity"] = skill.intensity
    return told


def artifact_object(artifact: Artifact) -> dict[str, Any]:
    """A file. Its keys depend on its type."""
    told: dict[str, Any] = {
        "id": artifact.id,
        "type": artifact.type,
        "title": artifact.title,
        "mimeType": artifact.mime_type or None,
        "providerId": artifact.provider or None,
        "modelId": artifact.model or None,
    }
    if artifact.type == "image":
        told["imageUrl"] = address(artifact)
    elif artifact.type == "video":
        told["videoUrl"] = address(artifact)
    elif artifact.type == "code":
        told["code"] = artifact.text
        told["language"] = artifact.language or None
    else:
        told["downloadUrl"] = address(artifact)
        told["sizeBytes"] = artifact.size_bytes or None
        if artifact.HasField("text"):
            told["content"] = artifact.text
    if artifact.attributes_json:
        told["attributes"] = Raw(artifact.attributes_json.encode())
    return told


def _structured(output: StructuredOutput) -> dict[str, Any]:
    told: dict[str, Any] = {"type": output.type, "data": raw_or_null(output.data_json)}
    if output.parse_error:
        told["parse_error"] = output.parse_error
    return told


def _genui(meta: GenuiMeta) -> dict[str, Any]:
    return {"library": meta.library, "tools": list(meta.tools)}


def _shared(completion: Completion, mode: str) -> dict[str, Any]:
    """What the whole answer and the last event of a stream both say."""
    told: dict[str, Any] = {
        "follow_ups": [{"label": f.label, "prompt": f.prompt} for f in completion.follow_ups],
        "usage": usage(completion),
        "routing": routing(completion.route, mode),
        "conversation_id": completion.conversation_id or None,
        "request_id": completion.request_id,
    }
    if completion.HasField("structured_output"):
        told["structured_output"] = _structured(completion.structured_output)
    if completion.skills:
        told["skills_active"] = [skill_object(skill) for skill in completion.skills]
    if completion.warnings:
        told["warnings"] = [
            {"code": warning.code, "message": warning.message} for warning in completion.warnings
        ]
    if completion.cache.hit:
        told["_cached"] = True
    return told


def _finish(completion: Completion) -> str:
    if not completion.choices:
        return "stop"
    return FINISH_WORDS.get(completion.choices[0].finish_reason, "stop")


def content_of(message: Message) -> str:
    """Its text; what it refuses is text too."""
    return "".join(part.text or part.refusal for part in message.parts)


def calls_of(message: Message) -> list[dict[str, str]]:
    """Its calls of tools."""
    return [call_object(p.tool_call) for p in message.parts if p.HasField("tool_call")]


# The whole answer


def completion_object(completion: Completion, mode: str) -> dict[str, Any]:
    """The object `completion`. Args: mode: as requested."""
    message = completion.choices[0].message if completion.choices else Message()
    content = content_of(message)
    resolved = completion.route.resolved_mode or mode
    told: dict[str, Any] = {
        "id": completion.id,
        "object": "completion",
        "created": completion.create_time.ToJsonString(),
        "content": content,
        "mode": mode,
        "resolved_mode": resolved,
        "model": model_object(completion.route),
        "tools_used": [tool_object(call) for call in completion.server_tool_calls],
        "artifacts": [artifact_object(artifact) for artifact in completion.artifacts],
        **_shared(completion, mode),
        "metadata": raw_or_null(completion.metadata_json),
        "finish_reason": _finish(completion),
    }
    if calls := calls_of(message):
        told["tool_calls"] = calls
    if resolved == GENUI:
        told["genui_code"] = content
    if completion.HasField("genui"):
        told["genui_meta"] = _genui(completion.genui)
    return told


def chat_object(completion: Completion, mode: str) -> dict[str, Any]:
    """The object `chat.completion`, with Theo's own key."""
    told = whole(completion)
    told["model"] = model_id(completion.route)
    told["trunkline"].pop("artifacts", None)  # Once is enough for what may be a picture.
    told["theo_metadata"] = _metadata(completion, completion.artifacts, mode)
    return told


def _metadata(completion: Completion, artifacts: Iterable[Artifact], mode: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "mode": mode,
        "resolved_mode": completion.route.resolved_mode or mode,
        "tools_used": [tool_object(call) for call in completion.server_tool_calls],
        "artifacts": [artifact_object(artifact) for artifact in artifacts],
        "engine": model_object(completion.route)["engine"],
        "conversation_id": completion.conversation_id or None,
        "cost_cents": cents(completion.usage.cost.amount_nanos),
    }
    if completion.cache.hit:
        told["_cached"] = True
    return told


# Streams


class Writer(Protocol):
    """Writes one stream in one format."""

    @property
    def beat(self) -> bytes:
        """What is sent after a silence."""
        ...

    def encode(self, batch: list[Any]) -> bytes:
        """The bytes of a batch; empty when none of its events shows here."""
        ...

    def end(self) -> bytes:
        """What follows the last event."""
        ...

    def error(self, refused: Refusal) -> bytes:
        """The end of an answer that failed."""
        ...


def _event(name: bytes, value: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, encode(value))


class TheoEvents:
    """Theo's own format. Args: mode: as requested."""

    beat = THINKING

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._id = ""
        self._request_id = ""
        self._conversation_id = ""
        self._has_meta = False
        self._early: list[bytes] = []  # Events that came before it was known who answers.
        self._texts: list[str] = []
        self._calls: list[dict[str, str]] = []

    def encode(self, batch: list[Any]) -> bytes:
        """See `Writer`."""
        events: list[bytes] = []
        for response in batch:
            kind = response.WhichOneof("event")
            if kind == "text_delta":
                events.append(self._token(response.text_delta.text))
            elif kind == "refusal_delta":
                events.append(self._token(response.refusal_delta.text))
            elif kind == "started":
                self._id = response.started.completion_id
                self._request_id = response.started.request_id
                self._conversation_id = response.started.conversation_id
            elif kind == "route_selected":
                if not self._has_meta:
                    events.append(self._meta(response.route_selected.route))
            elif kind == "completed":
                completion = response.completed.completion
                if not self._has_meta:
                    events.append(self._meta(completion.route))
                events.append(_event(b"done", self._done(completion)))
            elif kind is not None and (event := self._other(kind, response)):
                if self._has_meta:
                    events.append(event)
                else:
                    self._early.append(event)
        return b"".join(events)

    def end(self) -> bytes:
        """`done` was the last."""
        return b""

    def error(self, refused: Refusal) -> bytes:
        """The body that the error would have had without a stream."""
        return _event(b"error", envelope(refused))

    def _token(self, text: str) -> bytes:
        self._texts.append(text)
        data = encode_plain(text)
        if not data.isascii():
            data = encode(text)
        return b'event: token\ndata: {"token":%b}\n\n' % data

    def _meta(self, route: Route) -> bytes:
        self._has_meta = True
        told: dict[str, Any] = {
            "id": self._id,
            "mode": self._mode,
            "resolved_mode": route.resolved_mode or self._mode,
            "model": model_object(route),
            "tools": [],
            "artifacts": [],
            "routing": routing(route, self._mode),
            "conversation_id": self._conversation_id or None,
            "request_id": self._request_id,
        }
        early, self._early = b"".join(self._early), []
        return THINKING + _event(b"meta", told) + early

    def _other(self, kind: str, response: Any) -> bytes:
        if kind == "server_tool_call":
            return _event(b"tool", tool_object(response.server_tool_call))
        if kind == "artifact":
            return _event(b"artifact", artifact_object(response.artifact))
        if kind == "skills_activated":
            skills = [skill_object(skill) for skill in response.skills_activated.skills]
            return _event(b"skills", {"active": skills})
        if kind == "genui_meta":
            return _event(b"genui_meta", _genui(response.genui_meta))
        if kind == "part_completed" and response.part_completed.part.HasField("tool_call"):
            call = call_object(response.part_completed.part.tool_call)
            self._calls.append(call)
            return _event(b"tool", {**call, "status": CALLERS_TURN})
        return b""

    def _done(self, completion: Completion) -> dict[str, Any]:
        content = "".join(self._texts)
        told: dict[str, Any] = {
            "id": completion.id,
            "content": content,
            **_shared(completion, self._mode),
            "metadata": raw_or_null(completion.metadata_json),
            "finish_reason": _finish(completion),
        }
        if self._calls:
            told["tool_calls"] = self._calls
        if completion.route.resolved_mode == GENUI:
            told["genui_code"] = content
        return told


class ChatChunks:
    """OpenAI's format. Args: mode: as requested."""

    beat = HEARTBEAT

    def __init__(self, mode: str, *, includes_usage: bool) -> None:
        self._chunks = Chunks(
            includes_usage,
            named=model_id,
            extras=lambda completion: {
                "theo_metadata": _metadata(completion, self._chunks.artifacts, mode)
            },
        )

    def encode(self, batch: list[Any]) -> bytes:
        """See `Writer`."""
        return self._chunks.encode(batch)

    def end(self) -> bytes:
        """As OpenAI ends a stream."""
        return b"data: [DONE]\n\n"

    def error(self, refused: Refusal) -> bytes:
        """Without the end that a good stream has."""
        return b"data: %b\n\n" % encode(envelope(refused))
