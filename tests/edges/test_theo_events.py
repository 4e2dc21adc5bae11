"""The contract's answers as Theo's clients read them: objects whole, and streams to the byte."""

import json
from decimal import Decimal
from typing import Any, Final

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from trunkline.v1.catalog_service_pb2 import Model, ModelKind, Skill
from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    Heartbeat,
    PartCompleted,
    ReasoningDelta,
    RefusalDelta,
    RouteSelected,
    SkillsActivated,
    StreamCompleted,
    StreamInterrupted,
    StreamStarted,
    TextDelta,
)
from trunkline.v1.completion_pb2 import (
    CacheReport,
    Choice,
    Completion,
    CompletionWarning,
    Cost,
    FinishReason,
    FollowUp,
    GenuiMeta,
    Route,
    RouteReason,
    ServerToolCall,
    ServerToolState,
    SkillActivation,
    StructuredOutput,
    Usage,
)
from trunkline.v1.conversation_service_pb2 import Conversation, StoredMessage
from trunkline.v1.job_service_pb2 import Job, JobState, MediaResult, ResearchResult
from trunkline.v1.message_pb2 import (
    Artifact,
    Citation,
    Media,
    Message,
    Part,
    Reasoning,
    Role,
    ToolCall,
    ToolResult,
)
from trunkline_server.edges.rest.body import encode
from trunkline_server.edges.rest.theo_conversations import conversation_object, message_object
from trunkline_server.edges.rest.theo_events import (
    ChatChunks,
    TheoEvents,
    artifact_object,
    cents,
    chat_object,
    completion_object,
)
from trunkline_server.edges.rest.theo_fields import CODES, envelope, theos
from trunkline_server.edges.rest.theo_jobs import created_object, job_object
from trunkline_server.edges.rest.theo_skills import models_object, skill_object
from trunkline_server.edges.status import STATUSES, Refusal

STARTED: Final = ServerToolState.SERVER_TOOL_STATE_STARTED
SUCCEEDED: Final = ServerToolState.SERVER_TOOL_STATE_SUCCEEDED
FAILED: Final = ServerToolState.SERVER_TOOL_STATE_FAILED
AT: Final = Timestamp(seconds=1_795_377_600)
WRITTEN_AT: Final = "2026-11-22T20:00:00Z"


def written(value: Any) -> Any:
    """As a client reads it."""
    return json.loads(encode(value))


def route(**fields: Any) -> Route:
    """Who answers."""
    known = {
        "provider": "openai",
        "model": "gpt-5",
        "label": "GPT-5",
        "engine": "theo-1-reason",
        "mode": "auto",
        "resolved_mode": "think",
        "reason": RouteReason.ROUTE_REASON_CLASSIFIED,
        "confidence": 0.75,
    }
    return Route(**{**known, **fields})


def answer(*parts: Part, **fields: Any) -> Completion:
    """A finished answer, of a route with a price."""
    finish = fields.pop("finish", FinishReason.FINISH_REASON_STOP)
    message = Message(role=Role.ROLE_ASSISTANT, parts=parts)
    known = {
        "id": "cmpl_1",
        "request_id": "req_1",
        "create_time": AT,
        "choices": [Choice(message=message, finish_reason=finish)],
        "route": route(),
        "usage": Usage(
            input_tokens=12,
            output_tokens=156,
            total_tokens=168,
            cost=Cost(amount_nanos=200_001, currency_code="USD"),
        ),
    }
    return Completion(**{**known, **fields})


MODEL: Final = {"id": "theo-1-reason", "label": "GPT-5", "engine": "openai/gpt-5"}
ROUTING: Final = {
    "requested_mode": "auto",
    "resolved_mode": "think",
    "promoted": False,
    "reason": "classified",
    "confidence": 0.75,
}
USAGE: Final = {
    "cost_cents": 0.0200001,
    "prompt_tokens": 12,
    "completion_tokens": 156,
    "total_tokens": 168,
}


# The whole answer


def test_an_answer_has_every_field_of_the_page():
    completion = answer(
        Part(reasoning=Reasoning(text="Hm.")),
        Part(text="It is"),
        Part(text=" four."),
        server_tool_calls=[
            ServerToolCall(name="calculate", state=SUCCEEDED, description="Works it out."),
            ServerToolCall(name="look_up", state=FAILED),
        ],
        artifacts=[Artifact(id="a1", type="code", title="x.py", text="print()", language="python")],
        follow_ups=[FollowUp(label="Why", prompt="Why is it four?")],
        skills=[SkillActivation(id="tone", slug="tone", name="Tone", intensity=2)],
        structured_output=StructuredOutput(type="json", data_json='{"n":4}'),
        warnings=[CompletionWarning(code="VALUE_CLAMPED", message="temperature: at most 1")],
        conversation_id="conv_1",
        metadata_json='{"team": "a", "n": 1.50}',
    )

    found = encode(completion_object(completion, "auto"))

    assert b'"cost_cents":0.0200001,' in found
    assert b'"metadata":{"team": "a", "n": 1.50}' in found, "as it came"
    assert json.loads(found) == {
        "id": "cmpl_1",
        "object": "completion",
        "created": WRITTEN_AT,
        "content": "It is four.",
        "mode": "auto",
        "resolved_mode": "think",
        "model": MODEL,
        "tools_used": [
            {"name": "calculate", "status": "success", "description": "Works it out."},
            {"name": "look_up", "status": "error", "description": ""},
        ],
        "artifacts": [
            {
                "id": "a1",
                "type": "code",
                "title": "x.py",
                "mimeType": None,
                "providerId": None,
                "modelId": None,
                "code": "print()",
                "language": "python",
            }
        ],
        "follow_ups": [{"label": "Why", "prompt": "Why is it four?"}],
        "usage": USAGE,
        "routing": ROUTING,
        "conversation_id": "conv_1",
        "request_id": "req_1",
        "structured_output": {"type": "json", "data": {"n": 4}},
        "skills_active": [{"id": "tone", "slug": "tone", "name": "Tone", "intensity": 2}],
        "warnings": [{"code": "VALUE_CLAMPED", "message": "temperature: at most 1"}],
        "metadata": {"team": "a", "n": 1.5},
        "finish_reason": "stop",
    }


def test_a_plain_answer_says_null_where_there_is_nothing():
    plain = Route(provider="local", model="smol", reason=RouteReason.ROUTE_REASON_REQUESTED)
    completion = answer(Part(text="Hi."), route=plain, usage=Usage())

    assert written(completion_object(completion, "fast")) == {
        "id": "cmpl_1",
        "object": "completion",
        "created": WRITTEN_AT,
        "content": "Hi.",
        "mode": "fast",
        "resolved_mode": "fast",
        "model": {"id": "smol", "label": "smol", "engine": "local/smol"},
        "tools_used": [],
        "artifacts": [],
        "follow_ups": [],
        "usage": {
            "cost_cents": 0,
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "total_tokens": 0,
        },
        "routing": {
            "requested_mode": "fast",
            "resolved_mode": "fast",
            "promoted": False,
            "reason": "requested",
            "confidence": None,
        },
        "conversation_id": None,
        "request_id": "req_1",
        "metadata": None,
        "finish_reason": "stop",
    }


@pytest.mark.parametrize(
    ("nanos", "number"),
    [
        (0, "0"),
        (1, "0.0000001"),
        (200_001, "0.0200001"),
        (10_000_000, "1"),
        (12_345_678_901, "1234.5678901"),
        (-25_000_000, "-2.5"),
        (2**63 - 1, "922337203685.4775807"),
    ],
)
def test_a_cost_is_an_exact_number_of_cents(nanos, number):
    found = encode(cents(nanos)).decode()

    assert found == number
    assert Decimal(found) * 10_000_000 == nanos


@pytest.mark.parametrize("mode", ["image", "video", "tts", "stt"])
def test_what_is_not_paid_by_the_token_counts_none(mode):
    completion = answer(Part(text="A lake."), route=route(resolved_mode=mode))

    assert written(completion_object(completion, mode))["usage"] == {
        "cost_cents": 0.0200001,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
    }


def test_an_answer_from_the_cache_says_so_and_costs_nothing():
    completion = answer(
        Part(text="It is four."),
        usage=Usage(cost=Cost(amount_nanos=0, currency_code="USD")),
        cache=CacheReport(hit=True, kind="exact", age=Duration(seconds=5)),
    )

    whole = written(completion_object(completion, "auto"))
    last = TheoEvents("auto").encode(
        [CompleteResponse(completed=StreamCompleted(completion=completion))]
    )
    done = json.loads(last.split(b"event: done\ndata: ")[1])

    for found in (whole, done):
        assert found["_cached"] is True
        assert found["usage"] == {
            "cost_cents": 0,
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "total_tokens": 0,
            "cached": True,
        }


def test_a_call_of_the_callers_own_tool_comes_back():
    call = ToolCall(id="c1", name="check", arguments_json='{"sku": 1}')
    completion = answer(
        Part(text="Let me look."),
        Part(tool_call=call),
        finish=FinishReason.FINISH_REASON_TOOL_CALLS,
    )

    found = written(completion_object(completion, "auto"))

    assert (found["content"], found["finish_reason"]) == ("Let me look.", "tool_calls")
    assert found["tool_calls"] == [{"id": "c1", "name": "check", "arguments": '{"sku": 1}'}]


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (FinishReason.FINISH_REASON_LENGTH, "length"),
        (FinishReason.FINISH_REASON_INSUFFICIENT_CREDITS, "length"),
        (FinishReason.FINISH_REASON_HOP_LIMIT, "stop"),
        (FinishReason.FINISH_REASON_REFUSAL, "content_filter"),
        (FinishReason.FINISH_REASON_UNSPECIFIED, "stop"),
    ],
)
def test_an_answer_says_how_it_ended(reason, word):
    found = completion_object(answer(Part(refusal="No."), finish=reason), "auto")

    assert (found["content"], found["finish_reason"]) == ("No.", word)


def test_a_generated_interface_names_its_library():
    completion = answer(
        Part(text="root = Card()"),
        route=route(resolved_mode="genui"),
        genui=GenuiMeta(library="shop", tools=["order"]),
    )

    found = written(completion_object(completion, "genui"))

    assert found["content"] == found["genui_code"] == "root = Card()"
    assert found["genui_meta"] == {"library": "shop", "tools": ["order"]}


@pytest.mark.parametrize(
    ("artifact", "keys"),
    [
        (
            Artifact(type="image", url="https://example.com/a.png", provider="p", model="m"),
            {"imageUrl": "https://example.com/a.png", "providerId": "p", "modelId": "m"},
        ),
        (
            Artifact(type="image", data=b"GIF", mime_type="image/gif"),
            {"imageUrl": "data:image/gif;base64,R0lG", "mimeType": "image/gif"},
        ),
        (Artifact(type="video", url="https://example.com/a.mp4"), {"videoUrl": "https://example.com/a.mp4"}),
        (
            Artifact(type="document", url="https://example.com/a.pdf", size_bytes=9),
            {"downloadUrl": "https://example.com/a.pdf", "sizeBytes": 9},
        ),
        (
            Artifact(type="document", text="# A", mime_type="text/markdown"),
            {
                "downloadUrl": "data:text/markdown;base64,IyBB",
                "sizeBytes": None,
                "content": "# A",
                "mimeType": "text/markdown",
            },
        ),
        (Artifact(type="code", text="x"), {"code": "x", "language": None}),
        (Artifact(type="image", attributes_json='{"w": 1}'), {"imageUrl": None, "attributes": {"w": 1}}),
    ],
)  # fmt: skip
def test_an_artifact_has_the_keys_of_its_type(artifact, keys):
    artifact.id, artifact.title = "a1", "A"

    common = {"id": "a1", "type": artifact.type, "title": "A", "mimeType": None}
    assert written(artifact_object(artifact)) == {
        **common,
        "providerId": None,
        "modelId": None,
        **keys,
    }


# Streams


def text(piece: str) -> CompleteResponse:
    """Some text."""
    return CompleteResponse(text_delta=TextDelta(text=piece))


def started(conversation_id: str = "") -> CompleteResponse:
    """The beginning."""
    told = StreamStarted(
        completion_id="cmpl_1",
        request_id="req_1",
        create_time=AT,
        conversation_id=conversation_id,
    )
    return CompleteResponse(started=told)


def routed(**fields: Any) -> CompleteResponse:
    """A model turn begins."""
    return CompleteResponse(route_selected=RouteSelected(route=route(**fields)))


def ran(state: ServerToolState.ValueType) -> CompleteResponse:
    """What becomes of a tool of the gateway's."""
    call = ServerToolCall(id="s1", name="calculate", description="Works it out.", state=state)
    return CompleteResponse(server_tool_call=call)


def ended(**fields: Any) -> CompleteResponse:
    """The end. Messages and artifacts were said before."""
    return CompleteResponse(completed=StreamCompleted(completion=answer(**fields)))


FINISHED: Final = CompleteResponse(
    choice_finished=ChoiceFinished(finish_reason=FinishReason.FINISH_REASON_STOP)
)
SKILLS: Final = CompleteResponse(
    skills_activated=SkillsActivated(
        skills=[SkillActivation(id="tone", slug="tone", name="Tone", intensity=0)]
    )
)
ARTIFACT: Final = CompleteResponse(
    artifact=Artifact(id="a1", type="code", title="A", text="x", language="py")
)
THINKING: Final = "event: thinking\ndata: .\n\n"
META: Final = (
    'event: meta\ndata: {"id":"cmpl_1","mode":"auto","resolved_mode":"think","model":{"id":"theo-1-reason",'
    '"label":"GPT-5","engine":"openai/gpt-5"},"tools":[],"artifacts":[],"routing":{"requested_mode":"auto",'
    '"resolved_mode":"think","promoted":false,"reason":"classified","confidence":0.75},"conversation_id":"conv_1",'
    '"request_id":"req_1"}\n\n'
)


def shown(name: str, data: str) -> str:
    """An event."""
    return f"event: {name}\ndata: {data}\n\n"


def test_a_stream_has_every_event_of_the_page_to_the_byte():
    events = TheoEvents("auto")
    genui = CompleteResponse(genui_meta=GenuiMeta(library="shop", tools=["order"]))
    unseen = [
        CompleteResponse(heartbeat=Heartbeat()),
        CompleteResponse(reasoning_delta=ReasoningDelta(text="Hm.")),
        CompleteResponse(interrupted=StreamInterrupted()),
        CompleteResponse(),
    ]

    batches = [
        events.encode([started("conv_1"), routed(), SKILLS, genui]),
        events.encode([*unseen, ran(STARTED), ran(SUCCEEDED), routed(hop=1)]),
        events.encode([text("Hé\u2028"), text("!"), ARTIFACT]),
        events.encode(
            [
                FINISHED,
                ended(
                    conversation_id="conv_1",
                    follow_ups=[FollowUp(label="Why", prompt="Why?")],
                    skills=[SkillActivation(id="tone", slug="tone", name="Tone")],
                    structured_output=StructuredOutput(type="json", parse_error="no JSON"),
                ),
            ]
        ),
        events.end(),
    ]

    assert [batch.decode() for batch in batches] == [
        THINKING
        + META
        + shown("skills", '{"active":[{"id":"tone","slug":"tone","name":"Tone","intensity":0}]}')
        + shown("genui_meta", '{"library":"shop","tools":["order"]}'),
        shown("tool", '{"name":"calculate","status":"started","description":"Works it out."}')
        + shown("tool", '{"name":"calculate","status":"success","description":"Works it out."}'),
        shown("token", '{"token":"Hé\\u2028"}')
        + shown("token", '{"token":"!"}')
        + shown(
            "artifact",
            '{"id":"a1","type":"code","title":"A","mimeType":null,"providerId":null,"modelId":null,"code":"x",'
            '"language":"py"}',
        ),
        shown(
            "done",
            '{"id":"cmpl_1","content":"Hé\\u2028!","follow_ups":[{"label":"Why","prompt":"Why?"}],'
            '"usage":{"cost_cents":0.0200001,"prompt_tokens":12,"completion_tokens":156,"total_tokens":168},'
            '"routing":{"requested_mode":"auto","resolved_mode":"think","promoted":false,"reason":"classified",'
            '"confidence":0.75},"conversation_id":"conv_1","request_id":"req_1",'
            '"structured_output":{"type":"json","data":null,"parse_error":"no JSON"},'
            '"skills_active":[{"id":"tone","slug":"tone","name":"Tone"}],"metadata":null,"finish_reason":"stop"}',
        ),
        "",
    ]


def names(data: bytes) -> list[str]:
    """Of the events."""
    return [
        line.removeprefix("event: ")
        for line in data.decode().split("\n")
        if line.startswith("event: ")
    ]


def test_what_comes_before_the_route_waits_for_meta():
    events = TheoEvents("auto")

    early = events.encode([started(), SKILLS])
    late = events.encode([routed(), text("Hi.")])

    assert early == b""
    assert names(late) == ["thinking", "meta", "skills", "token"]


def test_an_answer_without_a_route_still_begins_with_meta():
    assert names(TheoEvents("auto").encode([started(), ended()])) == ["thinking", "meta", "done"]


def test_meta_comes_once_however_many_turns_there_are():
    events = TheoEvents("auto")

    found = events.encode([started(), routed(), ran(FAILED), routed(hop=1), text("Hi."), ended()])

    assert names(found) == ["thinking", "meta", "tool", "token", "done"]
    assert b'"name":"calculate","status":"error"' in found


def test_a_refusal_is_told_token_by_token():
    events = TheoEvents("auto")
    refused = CompleteResponse(refusal_delta=RefusalDelta(text="No."))

    found = events.encode([started(), routed(), refused, ended()])

    assert b'event: token\ndata: {"token":"No."}\n\n' in found
    assert b'"content":"No."' in found


def test_a_call_of_the_callers_own_tool_is_an_event_and_comes_again_at_the_end():
    call = ToolCall(id="c1", name="check", arguments_json='{"sku":1}')
    told = CompleteResponse(part_completed=PartCompleted(part=Part(tool_call=call)))
    thought = CompleteResponse(
        part_completed=PartCompleted(part=Part(reasoning=Reasoning(text="Hm.")))
    )
    choice = Choice(finish_reason=FinishReason.FINISH_REASON_TOOL_CALLS)

    found = TheoEvents("auto").encode([started(), routed(), thought, told, ended(choices=[choice])])

    blocks = found.decode().split("\n\n")
    assert blocks[2] == (
        'event: tool\ndata: {"id":"c1","name":"check","arguments":"{\\"sku\\":1}","status":"requires_action"}'
    )
    done = json.loads(blocks[3].removeprefix("event: done\ndata: "))
    assert done["finish_reason"] == "tool_calls"
    assert done["tool_calls"] == [{"id": "c1", "name": "check", "arguments": '{"sku":1}'}]


def test_a_generated_interface_ends_with_its_code():
    found = TheoEvents("genui").encode(
        [started(), routed(resolved_mode="genui"), text("root = Card()"), ended(route=route(resolved_mode="genui"))]
    )  # fmt: skip

    done = json.loads(found.split(b"event: done\ndata: ")[1])
    assert done["genui_code"] == done["content"] == "root = Card()"


def test_an_error_is_the_envelope_of_an_error():
    refused = theos(Refusal("RATE_LIMITED", "wait a little"), "req_1")

    data = (
        b'{"error":{"message":"wait a little","type":"rate_limit_error","code":"rate_limit_exceeded",'
        b'"request_id":"req_1"}}'
    )

    assert TheoEvents("auto").error(refused) == b"event: error\ndata: %b\n\n" % data
    assert ChatChunks("auto", includes_usage=False).error(refused) == b"data: %b\n\n" % data


# In OpenAI's format

METADATA: Final = {
    "mode": "auto",
    "resolved_mode": "think",
    "tools_used": [{"name": "calculate", "status": "success", "description": ""}],
    "artifacts": [
        {
            "id": "a1",
            "type": "code",
            "title": "A",
            "mimeType": None,
            "providerId": None,
            "modelId": None,
            "code": "x",
            "language": "py",
        }
    ],
    "engine": "openai/gpt-5",
    "conversation_id": "conv_1",
    "cost_cents": 0.0200001,
}
TOLD: Final[dict[str, Any]] = {
    "conversation_id": "conv_1",
    "server_tool_calls": [ServerToolCall(name="calculate", state=SUCCEEDED)],
}


def test_in_openais_format_an_answer_has_theos_own_key():
    completion = answer(Part(text="Four."), artifacts=[ARTIFACT.artifact], **TOLD)

    found = written(chat_object(completion, "auto"))

    extension = found.pop("trunkline")
    assert extension["mode"] == "think"
    assert "artifacts" not in extension
    assert found.pop("usage")["total_tokens"] == 168
    assert found == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": AT.seconds,
        "model": "theo-1-reason",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Four.",
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "system_fingerprint": None,
        "theo_metadata": METADATA,
    }


@pytest.mark.parametrize("includes_usage", [False, True])
def test_in_openais_format_the_last_chunk_has_theos_own_key(includes_usage):
    chunks = ChatChunks("auto", includes_usage=includes_usage)

    data = chunks.encode([started(), routed(), text("Four."), ARTIFACT])
    data += chunks.encode([FINISHED, ended(**TOLD)])

    lines = [json.loads(block.removeprefix("data: ")) for block in data.decode().split("\n\n")[:-1]]
    assert {line["model"] for line in lines} == {"theo-1-reason"}
    assert [line.get("theo_metadata") for line in lines[:-1]] == [None] * (len(lines) - 1)
    assert lines[-1]["theo_metadata"] == METADATA
    assert "artifacts" not in lines[-1]["trunkline"]
    assert len(lines[-1]["choices"]) == (0 if includes_usage else 1)
    assert chunks.end() == b"data: [DONE]\n\n"


def test_in_openais_format_a_hit_is_marked_too():
    completion = answer(Part(text="Four."), cache=CacheReport(hit=True, kind="exact"))

    assert written(chat_object(completion, "auto"))["theo_metadata"]["_cached"] is True


# Jobs


def test_a_job_that_was_taken_says_where_to_look():
    job = Job(id="job_01", kind="video", state=JobState.JOB_STATE_QUEUED, create_time=AT)

    assert created_object(job, "video") == {
        "id": "vid_01",
        "job_id": "job_01",
        "status": "queued",
        "created": WRITTEN_AT,
        "poll_url": "/api/v1/jobs/job_01",
    }
    assert created_object(job, "research")["id"] == "res_01"


@pytest.mark.parametrize(
    ("state", "word", "error"),
    [
        (JobState.JOB_STATE_QUEUED, "queued", None),
        (JobState.JOB_STATE_RUNNING, "active", None),
        (JobState.JOB_STATE_FAILED, "failed", "the job failed"),
        (JobState.JOB_STATE_CANCELLED, "failed", "the job was cancelled"),
        (JobState.JOB_STATE_EXPIRED, "failed", "the job has expired"),
    ],
)
def test_a_job_says_how_far_it_is(state, word, error):
    job = Job(id="job_01", kind="research", state=state, progress_percent=45, create_time=AT)

    assert job_object(job) == {
        "id": "job_01",
        "type": "research",
        "status": word,
        "progress": 45,
        "result": None,
        "error": error,
        "created_at": WRITTEN_AT,
        "completed_at": None,
        "metadata": None,
    }


def finished(**fields: Any) -> Any:
    """The result of a job that took 90 s."""
    end = Timestamp(seconds=AT.seconds + 90)
    state = fields.pop("state", JobState.JOB_STATE_SUCCEEDED)
    job = Job(id="job_01", state=state, create_time=AT, start_time=AT, end_time=end, **fields)
    return written(job_object(job))


def test_research_ends_in_a_report_and_its_sources():
    sources = [
        Citation(url="https://example.com/a", title="A"),
        Citation(url="https://example.com/b"),
    ]
    usage = Usage(
        input_tokens=9, output_tokens=4, total_tokens=13, cost=Cost(amount_nanos=25_000_000)
    )

    found = finished(research=ResearchResult(report="# A", sources=sources, usage=usage))

    assert (found["status"], found["completed_at"]) == ("completed", "2026-11-22T20:01:30Z")
    assert found["result"] == {
        "report": "# A",
        "sources": [
            {"url": "https://example.com/a", "title": "A"},
            {"url": "https://example.com/b", "title": None},
        ],
        "sourceCount": 2,
        "usage": {
            "cost_cents": 2.5,
            "prompt_tokens": 9,
            "completion_tokens": 4,
            "total_tokens": 13,
        },
    }


def test_a_video_ends_in_an_address():
    clip = Artifact(
        id="a1", type="video", title="A", url="https://example.com/a.mp4", provider="p", model="m"
    )

    found = finished(media=MediaResult(artifacts=[clip]))["result"]

    assert found == {
        "videoUrl": "https://example.com/a.mp4",
        "model": "m",
        "engine": "p",
        "durationMs": 90_000,
        "artifacts": [written(artifact_object(clip))],
        "usage": {"cost_cents": 0},
    }


def test_a_completion_that_was_queued_ends_in_an_answer():
    completion = answer(Part(text="Four."))

    found = finished(completion=completion)["result"]

    assert found == written(completion_object(completion, "auto"))


def test_a_job_that_failed_says_why():
    found = finished(state=JobState.JOB_STATE_FAILED, error=Status(message="all providers failed"))

    assert (found["status"], found["error"], found["result"]) == (
        "failed",
        "all providers failed",
        None,
    )


# Skills, models and conversations


def test_a_skill_is_named_by_its_slug():
    skill = Skill(
        id="tone", slug="tone", name="Tone", description="Sets it.", category="writing", version="1.2.0", installed=True
    )  # fmt: skip

    assert skill_object(skill) == {
        "id": "tone",
        "slug": "tone",
        "name": "Tone",
        "description": "Sets it.",
        "category": "writing",
        "version": "1.2.0",
        "installed": True,
        "installCount": 1,
        "isPublic": True,
    }


def test_engines_are_modes_and_models_that_go_by_the_name_of_one():
    models = [
        Model(id="gpt-5", provider="openai", kind=ModelKind.MODEL_KIND_MODEL),
        Model(
            id="coder",
            provider="groq",
            kind=ModelKind.MODEL_KIND_MODEL,
            label="Coder",
            aliases=["x", "theo-1-code"],
        ),
        Model(id="checkout", kind=ModelKind.MODEL_KIND_ROUTE),
        Model(
            id="theo-1-flash",
            kind=ModelKind.MODEL_KIND_MODE,
            label="Fast",
            description="At once.",
            engine="theo-1-flash",
            modes=["fast"],
        ),
    ]

    assert models_object(models) == {
        "models": [
            {
                "mode": "code",
                "model_id": "theo-1-code",
                "label": "Coder",
                "engine": "groq/coder",
                "description": "",
            },
            {
                "mode": "fast",
                "model_id": "theo-1-flash",
                "label": "Fast",
                "engine": "theo-1-flash",
                "description": "At once.",
            },
        ],
        "object": "list",
        "data": [
            {"id": "theo-1-code", "object": "model", "created": 0, "owned_by": "trunkline"},
            {"id": "theo-1-flash", "object": "model", "created": 0, "owned_by": "trunkline"},
        ],
    }


def test_a_conversation_has_its_times_and_its_metadata():
    conversation = Conversation(
        id="conv_1", title="T", message_count=3, create_time=AT, update_time=AT, metadata_json='{"a": 1}'
    )  # fmt: skip

    assert written(conversation_object(conversation)) == {
        "id": "conv_1",
        "title": "T",
        "messageCount": 3,
        "createdAt": WRITTEN_AT,
        "updatedAt": WRITTEN_AT,
        "metadata": {"a": 1},
    }


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            Message(role=Role.ROLE_DEVELOPER, parts=[Part(text="Be kind.")]),
            {"role": "system", "content": "Be kind."},
        ),
        (
            Message(
                role=Role.ROLE_USER,
                parts=[
                    Part(text="What is it?"),
                    Part(image=Media(url="https://example.com/a.png")),
                    Part(image=Media(data=b"GIF", mime_type="image/gif")),
                ],
            ),
            {
                "role": "user",
                "content": "What is it?",
                "attachments": [
                    {"type": "image_url", "url": "https://example.com/a.png"},
                    {"type": "image_url", "url": "data:image/gif;base64,R0lG"},
                ],
            },
        ),
        (
            Message(
                role=Role.ROLE_ASSISTANT,
                parts=[
                    Part(reasoning=Reasoning(text="Hm.")),
                    Part(text="Let me look."),
                    Part(tool_call=ToolCall(id="c1", name="f", arguments_json="{}")),
                ],
            ),
            {
                "role": "assistant",
                "content": "Let me look.",
                "toolCalls": [{"id": "c1", "name": "f", "arguments": "{}"}],
            },
        ),
        (
            Message(
                role=Role.ROLE_TOOL,
                parts=[Part(tool_result=ToolResult(tool_call_id="c1", parts=[Part(text="42")]))],
            ),
            {
                "role": "tool",
                "content": "",
                "toolResults": [{"tool_call_id": "c1", "content": "42", "is_error": False}],
            },
        ),
    ],
)
def test_a_message_that_is_kept_says_all_that_was_said(message, told):
    stored = StoredMessage(sequence=7, message=message, completion_id="cmpl_1", create_time=AT)

    assert message_object(stored) == {
        "id": "7",
        "createdAt": WRITTEN_AT,
        "completionId": "cmpl_1",
        **told,
    }


# Errors


def test_every_reason_has_a_code():
    statuses: dict[str, set[int]] = {}
    for reason in STATUSES:
        refused = theos(Refusal(reason, "no"), "req_1")
        code = envelope(refused)["error"]["code"]
        statuses.setdefault(code, set()).add(refused.status.http_status)

    assert CODES.keys() >= STATUSES.keys()
    assert statuses == {
        "validation_error": {400, 409, 413, 501},
        "empty_prompt": {400},
        "guardrail_violation": {422},
        "invalid_api_key": {401},
        "insufficient_credits": {402},
        "forbidden": {403},
        "not_found": {404},
        "rate_limit_exceeded": {409, 429},
        "token_limit_exceeded": {429},
        "server_error": {499, 500, 502, 503, 504},
    }


def test_a_limit_of_a_mode_has_a_code_of_its_own():
    assert CODES["MODE_RATE_LIMITED"] == "mode_rate_limit_exceeded"
