"""Streams of events at random, for folding: what a gateway may say, and orders in which it never would."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.rpc.status_pb2 import Status

from trunkline.v1.completion_event_pb2 import (
    AttemptFailed,
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
    StreamReset,
    StreamStarted,
    TextDelta,
    ToolCallDelta,
    UsageUpdate,
)
from trunkline.v1.completion_pb2 import (
    Attempt,
    Choice,
    Completion,
    Cost,
    GenuiMeta,
    Route,
    ServerToolCall,
    SkillActivation,
    TokenLogprob,
    Usage,
)
from trunkline.v1.message_pb2 import (
    ROLE_ASSISTANT,
    Artifact,
    Message,
    Part,
    ProviderState,
    Reasoning,
    ToolCall,
)

MOST_EVENTS: Final = 40
# Field 900 of a response, which this contract does not have.
UNKNOWN_EVENT: Final = bytes.fromhex("a238020801")
WORDS: Final = ("", "a", "Hé", "llo ", "日本", "👩\u200d🔬", '{"a":', "1}", "\n", "\u0000")


def answers(rng: Random) -> list[CompleteResponse]:
    """The events of one stream."""
    return [_event(rng, number) for number in range(1, rng.randint(1, MOST_EVENTS))]


def _event(rng: Random, sequence: int) -> CompleteResponse:
    if rng.random() < 0.02:
        return CompleteResponse.FromString(UNKNOWN_EVENT)
    event = rng.choice(_EVENTS)(rng)
    event.sequence = sequence
    return event


def _word(rng: Random) -> str:
    return rng.choice(WORDS)


def _place(rng: Random) -> Mapping[str, Any]:
    return {"choice_index": rng.choice((0, 0, 0, 1, 7)), "part_index": rng.choice((0, 0, 1, 2))}


def _logprobs(rng: Random) -> list[TokenLogprob]:
    return [
        TokenLogprob(token=_word(rng), logprob=-rng.random(), utf8=b"\xff\x00")
        for _ in range(rng.choice((0, 0, 2)))
    ]


def _text(rng: Random) -> CompleteResponse:
    delta = TextDelta(text=_word(rng), logprobs=_logprobs(rng), **_place(rng))
    return CompleteResponse(text_delta=delta)


def _reasoning(rng: Random) -> CompleteResponse:
    delta = ReasoningDelta(text=_word(rng), summary=rng.random() < 0.5, **_place(rng))
    return CompleteResponse(reasoning_delta=delta)


def _refusal(rng: Random) -> CompleteResponse:
    return CompleteResponse(refusal_delta=RefusalDelta(text=_word(rng), **_place(rng)))


def _tool_call(rng: Random) -> CompleteResponse:
    is_first = rng.random() < 0.4
    delta = ToolCallDelta(
        arguments_json=_word(rng),
        id=f"call_{rng.randint(0, 3)}" if is_first else "",
        name="weather" if is_first else "",
        **_place(rng),
    )
    return CompleteResponse(tool_call_delta=delta)


def _part(rng: Random) -> Part:
    part = rng.choice(
        (
            Part(),
            Part(text=_word(rng)),
            Part(refusal=_word(rng)),
            Part(reasoning=Reasoning(text=_word(rng), redacted=rng.random() < 0.3)),
            Part(tool_call=ToolCall(id="call_9", name="add", arguments_json=_word(rng))),
        )
    )
    made = Part()
    made.CopyFrom(part)
    if rng.random() < 0.5:
        made.provider_state.CopyFrom(ProviderState(provider="p", data=rng.randbytes(5)))
    if rng.random() < 0.2:
        made.citations.add(url="https://example.com", start_index=0)
    return made


def _part_completed(rng: Random) -> CompleteResponse:
    return CompleteResponse(part_completed=PartCompleted(part=_part(rng), **_place(rng)))


def _choice_finished(rng: Random) -> CompleteResponse:
    finished = ChoiceFinished(
        choice_index=rng.choice((0, 0, 1)),
        # 77 is no reason that this contract knows.
        finish_reason=rng.choice((1, 2, 4, 77)),  # type: ignore[arg-type]
        native_finish_reason=_word(rng),
    )
    return CompleteResponse(choice_finished=finished)


def _route(rng: Random) -> Route:
    return Route(
        provider="p", model=_word(rng), hop=rng.randint(0, 2), attempt=1, confidence=rng.random()
    )


def _route_selected(rng: Random) -> CompleteResponse:
    return CompleteResponse(route_selected=RouteSelected(route=_route(rng)))


def _attempt(rng: Random) -> Attempt:
    return rng.choice(
        (
            Attempt(),
            Attempt(id="a1", provider="p", error=Status(code=14, message="no")),
            Attempt(id="a2", provider="q", duration=Duration(nanos=rng.choice((1, 2)))),
        )
    )


def _attempt_failed(rng: Random) -> CompleteResponse:
    return CompleteResponse(attempt_failed=AttemptFailed(attempt=_attempt(rng)))


def _reset(rng: Random) -> CompleteResponse:
    return CompleteResponse(
        stream_reset=StreamReset(hop=rng.randint(0, 2), failed_attempt=_attempt(rng))
    )


def _artifact(rng: Random) -> CompleteResponse:
    return CompleteResponse(
        artifact=Artifact(id=f"art_{rng.randint(0, 9)}", text=_word(rng), size_bytes=2**60)
    )


def _server_tool_call(rng: Random) -> CompleteResponse:
    call = ServerToolCall(
        id=f"s{rng.randint(0, 2)}",
        name="search",
        state=rng.choice((1, 2, 3)),  # type: ignore[arg-type]
        error_message=_word(rng),
        duration=Duration(seconds=1) if rng.random() < 0.5 else None,
    )
    return CompleteResponse(server_tool_call=call)


def _usage(rng: Random) -> Usage:
    # More than a double holds exactly.
    cost = Cost(amount_nanos=2**53 + rng.randint(1, 9), currency_code="USD")
    return Usage(input_tokens=rng.randint(0, 9), output_tokens=3, cost=cost)


def _usage_update(rng: Random) -> CompleteResponse:
    return CompleteResponse(usage_update=UsageUpdate(usage=_usage(rng)))


def _started(rng: Random) -> CompleteResponse:
    started = StreamStarted(completion_id="cmpl_1", request_id=_word(rng))
    if rng.random() < 0.5:
        started.create_time.FromSeconds(1_790_000_000)
    return CompleteResponse(started=started)


def _interrupted(rng: Random) -> CompleteResponse:
    interrupted = StreamInterrupted(attempts=[_attempt(rng)], error=Status(code=10))
    if rng.random() < 0.5:
        interrupted.route.CopyFrom(_route(rng))
    if rng.random() < 0.5:
        interrupted.usage.CopyFrom(_usage(rng))
    return CompleteResponse(interrupted=interrupted)


def _completed(rng: Random) -> CompleteResponse:
    completion = Completion(id="cmpl_2", metadata_json=rng.choice(("", "{}")))
    if rng.random() < 0.5:
        completion.usage.CopyFrom(_usage(rng))
    for index in rng.sample((0, 1, 7, 9), rng.randint(0, 3)):
        choice = Choice(index=index, finish_reason=rng.choice((0, 1, 77)))  # type: ignore[arg-type]
        if rng.random() < 0.4:
            choice.message.CopyFrom(Message(role=ROLE_ASSISTANT, parts=[_part(rng)]))
        completion.choices.append(choice)
    return CompleteResponse(completed=StreamCompleted(completion=completion))


_EVENTS: Final[tuple[Callable[[Random], CompleteResponse], ...]] = (
    *(_text, _text, _text, _reasoning, _refusal, _tool_call, _tool_call, _part_completed),
    *(_choice_finished, _route_selected, _attempt_failed, _reset, _artifact, _server_tool_call),
    *(_usage_update, _started, _interrupted, _completed),
    lambda rng: CompleteResponse(heartbeat=Heartbeat()),
    lambda rng: CompleteResponse(genui_meta=GenuiMeta(library="openui", tools=[_word(rng)])),
    lambda rng: CompleteResponse(
        skills_activated=SkillsActivated(skills=[SkillActivation(id="s", intensity=0)])
    ),
)
