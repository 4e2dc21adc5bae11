"""Events to one completion."""

from google.protobuf.timestamp_pb2 import Timestamp

from tests.python_client.events import (
    answer,
    call_delta,
    call_part,
    completed,
    finished,
    part_completed,
    reasoning_delta,
    refusal_delta,
    reset,
    routed,
    said,
    started,
    text_delta,
)
from trunkline import CompletionFolder, fold
from trunkline.v1.completion_event_pb2 import (
    AttemptFailed,
    CompleteResponse,
    SkillsActivated,
    StreamInterrupted,
    StreamReset,
    TextDelta,
    UsageUpdate,
)
from trunkline.v1.completion_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_TOOL_CALLS,
    SERVER_TOOL_STATE_STARTED,
    SERVER_TOOL_STATE_SUCCEEDED,
    Attempt,
    Choice,
    Completion,
    Route,
    ServerToolCall,
    SkillActivation,
    TokenLogprob,
    Usage,
)
from trunkline.v1.message_pb2 import Artifact, Part, ProviderState, Reasoning

STATE = ProviderState(provider="p", data=b"\x00\x01")


def test_no_events_are_an_empty_completion():
    assert fold([]) == Completion()


def test_interleaved_kinds_of_parts_keep_their_order():
    folded = fold(
        [
            reasoning_delta("Hm", 0),
            text_delta("A", 1),
            reasoning_delta("m.", 0),
            call_delta('{"x":', 2, call_id="a", name="f"),
            text_delta("B", 1),
            call_delta("1}", 2),
            refusal_delta("No", 3),
            text_delta("C", 10),
        ]
    )

    assert folded.choices[0].message == said(
        Part(reasoning=Reasoning(text="Hmm.")),
        "AB",
        call_part("a", "f", '{"x":1}'),
        Part(refusal="No"),
        "C",
    )


def test_choices_are_folded_apart():
    folded = fold(
        [
            text_delta("B", choice=1),
            text_delta("A"),
            finished(FINISH_REASON_LENGTH, choice=1),
            text_delta("b", choice=1),
            finished(),
        ]
    )

    assert folded.choices == [
        Choice(index=0, message=said("A"), finish_reason=FINISH_REASON_STOP),
        Choice(index=1, message=said("Bb"), finish_reason=FINISH_REASON_LENGTH),
    ]


def test_a_completed_part_takes_the_place_of_its_deltas():
    whole = call_part("a", "f", '{"x": 1}')
    whole.provider_state.CopyFrom(STATE)

    folded = fold([call_delta('{"x', 0, call_id="a", name="f"), part_completed(whole)])

    assert folded.choices[0].message == said(whole)


def test_a_part_that_comes_whole_needs_no_deltas():
    image = Part(text="t", provider_state=STATE)

    assert fold([part_completed(image, 4)]).choices[0].message == said(image)


def test_state_alone_joins_what_the_deltas_said():
    folded = fold([text_delta("Hé"), part_completed(Part(provider_state=STATE))])

    assert folded.choices[0].message == said(Part(text="Hé", provider_state=STATE))


def test_state_of_nothing_that_was_said_is_kept_with_an_empty_text():
    folded = fold([part_completed(Part(provider_state=STATE))])

    assert folded.choices[0].message == said(Part(text="", provider_state=STATE))


def test_state_without_any_content_is_kept():
    opaque = Part(reasoning=Reasoning(redacted=True), provider_state=STATE)

    assert fold([part_completed(opaque)]).choices[0].message == said(opaque)


def test_a_completed_part_that_leaves_its_text_out_means_what_was_said():
    thought = Part(reasoning=Reasoning(), provider_state=STATE)

    folded = fold([reasoning_delta("Hm"), part_completed(thought)])

    expected = Part(reasoning=Reasoning(text="Hm"), provider_state=STATE)
    assert folded.choices[0].message == said(expected)


def test_a_reset_forgets_its_hop_and_no_other():
    events = [
        routed(hop=0),
        text_delta("kept", 0),
        routed(hop=1),
        text_delta("lost", 1),
        CompleteResponse(artifact=Artifact(id="lost")),
        finished(FINISH_REASON_LENGTH),
        reset(hop=1),
        routed(hop=1, model="other"),
        text_delta("again", 1),
    ]

    folded = fold(events)

    assert folded.choices == [Choice(message=said("kept", "again"))]
    assert not folded.artifacts
    assert folded.route == Route(provider="p", model="other", hop=1)


def test_logprobs_follow_their_parts():
    def delta(text: str, part: int) -> CompleteResponse:
        return CompleteResponse(
            text_delta=TextDelta(
                part_index=part, text=text, logprobs=[TokenLogprob(token=text, logprob=-1)]
            )
        )

    folded = fold([delta("a", 0), reset(hop=0), delta("c", 1), delta("b", 0)])

    assert [logprob.token for logprob in folded.choices[0].logprobs] == ["b", "c"]


def test_the_last_event_fills_in_and_wins_but_need_not_repeat_messages():
    final = Completion(
        id="cmpl_2",
        choices=[Choice(index=0, finish_reason=FINISH_REASON_STOP, native_finish_reason="end")],
        usage=Usage(output_tokens=7),
    )
    folder = CompletionFolder()

    for event in [started("cmpl_1"), text_delta("Hé"), completed(final)]:
        assert not folder.is_completed
        folder.feed(event)

    assert folder.is_completed
    assert folder.completion() == Completion(
        id="cmpl_2",
        request_id="req_12345",
        choices=[
            Choice(
                message=said("Hé"),
                finish_reason=FINISH_REASON_STOP,
                native_finish_reason="end",
            )
        ],
        usage=Usage(output_tokens=7),
    )


def test_messages_that_the_last_event_repeats_are_not_doubled():
    whole = answer("Hé")
    whole.artifacts.add(id="a")

    events = [text_delta("Hé"), CompleteResponse(artifact=Artifact(id="a")), completed(whole)]

    assert fold(events) == whole


def test_a_choice_that_only_the_last_event_knows_is_taken():
    assert fold([completed(answer("cached"))]) == answer("cached")


def test_reports_are_gathered():
    attempt = Attempt(id="1", provider="a")
    other = Attempt(id="2", provider="b")
    running = ServerToolCall(id="t", name="search", state=SERVER_TOOL_STATE_STARTED)
    done = ServerToolCall(id="t", state=SERVER_TOOL_STATE_SUCCEEDED)
    events = [
        started(),
        CompleteResponse(attempt_failed=AttemptFailed(attempt=attempt)),
        CompleteResponse(stream_reset=StreamReset(failed_attempt=attempt)),
        CompleteResponse(skills_activated=SkillsActivated(skills=[SkillActivation(id="s")])),
        CompleteResponse(server_tool_call=running),
        CompleteResponse(server_tool_call=done),
        CompleteResponse(artifact=Artifact(id="x")),
        CompleteResponse(usage_update=UsageUpdate(usage=Usage(output_tokens=1))),
        CompleteResponse(usage_update=UsageUpdate(usage=Usage(output_tokens=2))),
        CompleteResponse(
            interrupted=StreamInterrupted(usage=Usage(input_tokens=5), attempts=[attempt, other])
        ),
    ]

    assert fold(events) == Completion(
        id="cmpl_1",
        request_id="req_12345",
        attempts=[attempt, other],
        skills=[SkillActivation(id="s")],
        server_tool_calls=[
            ServerToolCall(id="t", name="search", state=SERVER_TOOL_STATE_SUCCEEDED)
        ],
        artifacts=[Artifact(id="x")],
        usage=Usage(input_tokens=5),
    )


def test_when_it_began_is_kept():
    begun = started()
    begun.started.create_time.CopyFrom(Timestamp(seconds=1))

    assert fold([begun]).create_time == Timestamp(seconds=1)


def test_what_was_folded_is_a_copy():
    folder = CompletionFolder()
    folder.feed(completed(answer("Hé")))

    folder.completion().choices[0].message.parts[0].text = "changed"

    assert folder.completion() == answer("Hé")


def test_a_tool_turn_says_why_it_ended():
    folded = fold([call_delta("{}", 0, call_id="a", name="f"), finished(FINISH_REASON_TOOL_CALLS)])

    assert folded.choices[0].finish_reason == FINISH_REASON_TOOL_CALLS
