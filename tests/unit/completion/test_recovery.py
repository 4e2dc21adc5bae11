"""What follows when an answer breaks off after content: nothing, all of it again, or its continuation."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from tests.support.scripted import (
    QuietTelemetry,
    ScriptedProviders,
    counted,
    cut,
    ended,
    text,
    upstream_over,
)
from trunkline.v1.completion_event_pb2 import CompleteResponse, PartCompleted
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_spec_pb2 import CompletionSpec, Recovery
from trunkline.v1.message_pb2 import Message, Part, Reasoning, Role
from trunkline_server.completion.attempts import Hop, Limits
from trunkline_server.completion.recovery import INSTRUCTION
from trunkline_server.core.candidate import Candidate, Plan
from trunkline_server.core.deadline import Deadline
from trunkline_server.core.errors import StreamInterrupted, TrunklineError, UpstreamError
from trunkline_server.core.failure import Failure
from trunkline_server.core.fold import Fold, end
from trunkline_server.core.ports import Prompt

A, B, C = (Candidate(name, "m", "m") for name in "abc")
RESTART = Recovery.RECOVERY_RESTART
CONTINUE = Recovery.RECOVERY_CONTINUE


def asked(**fields: Any) -> CompletionSpec:
    """A request with one message."""
    question = Message(role=Role.ROLE_USER, parts=[Part(text="Sing.")])
    return CompletionSpec(model="m", messages=[question], **fields)


async def run(
    providers: ScriptedProviders,
    recovery: "Recovery.ValueType",
    candidates: Sequence[Candidate] = (A, B, C),
    spec: CompletionSpec | None = None,
) -> tuple[Hop, list[CompleteResponse], TrunklineError | None]:
    """One hop: itself, its events, and the error that it ended with."""
    telemetry = QuietTelemetry()
    hop = Hop(
        upstream_over(providers, telemetry),
        Plan("m", "", "", tuple(candidates)),
        Prompt(spec or asked(), stream=True),
        Deadline(asyncio.get_running_loop().time() + 60),
        Limits(recovery=recovery),
        "hop",
    )
    events: list[CompleteResponse] = []
    try:
        async with aclosing(hop.batches()) as batches:
            async for batch in batches:
                events += batch
    except TrunklineError as error:
        return hop, events, error
    return hop, events, None


def kinds(events: Sequence[CompleteResponse]) -> list[str | None]:
    """The events' names."""
    return [event.WhichOneof("event") for event in events]


def written(events: Sequence[CompleteResponse]) -> str:
    """The text as a caller has it in the end."""
    pieces: list[str] = []
    for event in events:
        if event.HasField("stream_reset"):
            pieces.clear()
        pieces.append(event.text_delta.text)
    return "".join(pieces)


async def test_restart_voids_what_was_said_and_says_all_of_it_again():
    providers = ScriptedProviders(
        a=[[text("La "), text("la"), cut()]], b=[[text("Tra la"), ended()]]
    )

    hop, events, error = await run(providers, RESTART)

    assert error is None
    assert kinds(events) == [
        "text_delta",
        "text_delta",
        "stream_reset",
        "text_delta",
        "choice_finished",
    ]
    assert written(events) == "Tra la"
    assert events[2].stream_reset.failed_attempt == hop.attempts[0]


async def test_restart_happens_once():
    providers = ScriptedProviders(
        a=[[text("x"), cut()]], b=[[text("y"), cut()]], c=[[text("z"), ended()]]
    )

    _, events, error = await run(providers, RESTART)

    assert isinstance(error, StreamInterrupted)
    assert providers.opened == ["a", "b"]
    assert written(events) == "y"


async def test_nothing_is_voided_until_there_is_something_in_its_place():
    providers = ScriptedProviders(a=[[text("x"), cut()]], b=[[cut()]], c=[[cut()]])

    _, events, error = await run(providers, RESTART)

    assert isinstance(error, StreamInterrupted)
    assert providers.opened == ["a", "b", "c"]
    assert kinds(events) == ["text_delta"]


async def test_the_only_candidate_may_take_up_its_own_answer_once():
    providers = ScriptedProviders(a=[[text("x"), cut()], [text("xy"), ended()]])

    _, events, error = await run(providers, RESTART, (A,))

    assert error is None
    assert written(events) == "xy"


async def test_who_is_told_to_continue_sees_what_was_said_and_may_repeat_it():
    providers = ScriptedProviders(
        a=[[text("The quick brown "), cut()]],
        b=[[text("The quick "), text("brown fox"), text(" jumps."), ended()]],
    )

    hop, events, error = await run(providers, CONTINUE)

    assert error is None
    assert written(events) == "The quick brown fox jumps."
    said, instruction = providers.prompts[1].spec.messages[-2:]
    assert (said.role, said.parts[0].text) == (Role.ROLE_ASSISTANT, "The quick brown")
    assert (instruction.role, instruction.parts[0].text) == (Role.ROLE_USER, INSTRUCTION)
    assert [warning.code for warning in hop.continued] == ["CONTINUED"]
    assert [attempt.HasField("error") for attempt in hop.attempts] == [True, False]


async def test_who_continues_its_own_turn_is_given_no_instruction():
    prefilling = replace(B, prefills=True)
    providers = ScriptedProviders(a=[[text("ha "), cut()]], b=[[text(" ha"), text(" ha"), ended()]])

    _, events, _ = await run(providers, CONTINUE, (A, prefilling))

    assert written(events) == "ha ha ha"
    assert providers.prompts[1].spec.messages[-1].parts[0].text == "ha"


async def test_an_answer_may_be_continued_more_than_once():
    candidates = tuple(replace(c, prefills=True) for c in (A, B, C))
    providers = ScriptedProviders(
        a=[[text("one"), cut()]], b=[[text(" two"), cut()]], c=[[text(" three"), ended()]]
    )

    hop, events, error = await run(providers, CONTINUE, candidates)

    assert error is None
    assert written(events) == "one two three"
    assert len(hop.continued) == 2


async def test_an_answer_that_lacked_only_its_end_gets_it():
    providers = ScriptedProviders(a=[[text("All."), cut()]], b=[[counted(), ended()]])

    _, events, error = await run(providers, CONTINUE, (A, replace(B, prefills=True)))

    assert error is None
    assert written(events) == "All."
    assert kinds(events)[-1] == "choice_finished"


async def test_what_is_left_of_the_length_is_all_that_a_continuation_may_use():
    spec = asked()
    spec.sampling.max_output_tokens = 10
    providers = ScriptedProviders(a=[[text("x" * 16), cut()]], b=[[text("y"), ended()]])

    await run(providers, CONTINUE, spec=spec)

    assert providers.prompts[1].spec.sampling.max_output_tokens == 6
    assert spec.sampling.max_output_tokens == 10


def with_schema(spec: CompletionSpec) -> None:
    spec.response_format.json_schema.schema_json = "{}"


def with_choices(spec: CompletionSpec) -> None:
    spec.sampling.candidate_count = 2


def with_logprobs(spec: CompletionSpec) -> None:
    spec.sampling.logprobs = True


def with_reasoning(spec: CompletionSpec) -> None:
    spec.reasoning.include = True


@pytest.mark.parametrize("ask", [with_schema, with_choices, with_logprobs, with_reasoning])
async def test_only_plain_text_is_continued(ask):
    spec = asked()
    ask(spec)
    providers = ScriptedProviders(a=[[text("x"), cut()]], b=[[text("y"), ended()]])

    _, _, error = await run(providers, CONTINUE, spec=spec)

    assert isinstance(error, StreamInterrupted)
    assert providers.opened == ["a"]


async def test_nothing_is_continued_once_a_tool_call_has_begun():
    call = CompleteResponse()
    call.tool_call_delta.name = "pay"
    providers = ScriptedProviders(a=[[text("x"), call, cut()]], b=[[text("y"), ended()]])

    _, _, error = await run(providers, CONTINUE)

    assert isinstance(error, StreamInterrupted)
    assert providers.opened == ["a"]


async def test_what_follows_the_text_of_a_continuation_comes_after_it():
    call = CompleteResponse()
    call.tool_call_delta.name = "look"
    whole = CompleteResponse()
    whole.part_completed.part.tool_call.name = "look"
    providers = ScriptedProviders(
        a=[[text("Let me look "), cut()]], b=[[text(" it up."), call, whole, ended()]]
    )

    _, events, error = await run(providers, CONTINUE, (A, replace(B, prefills=True)))

    assert error is None
    assert [e.text_delta.part_index for e in events if e.HasField("text_delta")] == [0, 0]
    assert events[-3].tool_call_delta.part_index == 1
    assert events[-2].part_completed.part_index == 1
    fold = Fold()
    fold.add(events)
    choices = Completion().choices
    end(choices, providers.answers[-1].facts.finishes)
    fold.fill(choices)
    assert [part.WhichOneof("content") for part in choices[0].message.parts] == [
        "text",
        "tool_call",
    ]


async def test_who_refuses_the_continuation_as_such_is_passed_over():
    refused = UpstreamError(Failure.CALLER, "no prefill here", http_status=400)
    providers = ScriptedProviders(
        a=[[text("The quick brown "), cut()]], b=[[refused]], c=[[text("fox."), ended()]]
    )

    _, events, error = await run(providers, CONTINUE)

    assert error is None
    assert written(events) == "The quick brown fox."


@pytest.mark.parametrize("prefills", [True, False])
async def test_a_continuation_of_nothing_that_was_not_even_counted_is_none(prefills):
    other = replace(B, prefills=prefills)
    providers = ScriptedProviders(
        a=[[text("The capital is"), cut()]], b=[[ended()]], c=[[text(" Paris."), ended()]]
    )

    _, events, error = await run(providers, CONTINUE, (A, other, replace(C, prefills=True)))

    assert error is None
    assert written(events) == "The capital is Paris."
    assert providers.opened == ["a", "b", "c"]


async def test_an_answer_that_has_ended_is_not_continued():
    providers = ScriptedProviders(a=[[text("All."), ended(), cut()]], b=[[text("More."), ended()]])

    _, events, error = await run(providers, CONTINUE)

    assert isinstance(error, StreamInterrupted)
    assert written(events) == "All."


def signed(part_index: int, part: Part) -> CompleteResponse:
    """State that goes back to the provider, such as the signature of what was thought and is not shown."""
    part.provider_state.data = b"signature"
    return CompleteResponse(part_completed=PartCompleted(part_index=part_index, part=part))


def thought() -> CompleteResponse:
    """Reasoning that is not shown, whole."""
    return signed(0, Part(reasoning=Reasoning(redacted=True)))


@pytest.mark.parametrize("state", [thought(), signed(1, Part())], ids=["thought", "signature"])
async def test_who_thinks_before_it_continues_repeats_nothing_either(state):
    providers = ScriptedProviders(
        a=[[text("The quick brown "), cut()]],
        b=[[state, text("The quick "), text("brown fox"), state, text(" jumps."), ended()]],
    )

    _, events, error = await run(providers, CONTINUE)

    assert error is None
    assert written(events) == "The quick brown fox jumps."
    # What was thought for a part of this text alone goes back to nobody.
    assert "part_completed" not in kinds(events)


async def test_an_answer_that_was_thought_about_unseen_is_continued():
    providers = ScriptedProviders(
        a=[[thought(), text("La "), signed(0, Part()), cut()]], b=[[text("la"), ended()]]
    )

    _, events, error = await run(providers, CONTINUE)

    assert error is None
    assert written(events) == "La la"
    assert kinds(events)[:3] == ["part_completed", "text_delta", "part_completed"]


async def test_thoughts_that_nobody_sees_are_no_beginning_of_an_answer():
    providers = ScriptedProviders(a=[[thought(), cut()]], b=[[text("La"), ended()]])

    hop, events, error = await run(providers, Recovery.RECOVERY_TERMINATE)

    assert error is None
    assert kinds(events) == ["text_delta", "choice_finished"]
    assert hop.failover_count == 1
