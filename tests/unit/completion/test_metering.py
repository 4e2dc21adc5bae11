"""What attempts used, by their upstreams' counts or by ours."""

from collections.abc import Sequence

import pytest

from tests.support.scripted import (
    QuietTelemetry,
    ScriptedProviders,
    Step,
    counted,
    cut,
    ended,
    text,
    upstream_over,
)
from trunkline.v1.completion_pb2 import Cost, Usage
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message, Part, Role, ToolCall, ToolResult
from trunkline_server.completion.attempts import Hop, Limits, Try
from trunkline_server.completion.circuits import Circuits
from trunkline_server.completion.metering import (
    estimated_input_tokens,
    usage_of,
    usage_of_hops,
)
from trunkline_server.core.candidate import Candidate, Plan, Price
from trunkline_server.core.deadline import Deadline
from trunkline_server.core.errors import StreamInterrupted
from trunkline_server.core.ports import Prompt

# 1 dollar for a million tokens in, and 2 for as many out.
PRICED = Price(1_000_000_000, 2_000_000_000)
FREE = Price(0, 0)
UNKNOWN = Price()
PROMPT = "0123456789"  # Two and a half tokens, by their characters.


def hop_over(scripts: Sequence[Sequence[Step]], price: Price, *, whole: bool = False) -> Hop:
    """A turn of the only candidate."""
    candidate = Candidate("a", "m", "m", price=price)
    plan = Plan("", "", "", (candidate,))
    spec = CompletionSpec(messages=[Message(role=Role.ROLE_USER, parts=[Part(text=PROMPT)])])
    providers = ScriptedProviders(a=scripts)
    upstream = upstream_over(providers, QuietTelemetry())
    prompt = Prompt(spec=spec, stream=True)
    return Hop(upstream, plan, prompt, Deadline(1e12), Limits(whole=whole), "hop")


async def read(hop: Hop) -> Hop:
    async for _ in hop.batches():
        pass
    return hop


async def test_what_the_upstream_reports_is_what_was_used():
    hop = await read(hop_over([[text("Hello"), counted(3), ended()]], PRICED))

    usage = usage_of_hops([hop])

    cost = Cost(amount_nanos=5 * 1_000 + 3 * 2_000, currency_code="USD")
    assert usage == Usage(input_tokens=5, output_tokens=3, total_tokens=8, cost=cost)


async def test_what_nobody_reports_is_estimated_from_the_text():
    hop = await read(hop_over([[text("Hello"), ended()]], PRICED))

    usage = usage_of_hops([hop])

    cost = Cost(amount_nanos=3 * 1_000 + 2 * 2_000, currency_code="USD", estimated=True)
    assert usage == Usage(
        input_tokens=3, output_tokens=2, total_tokens=5, estimated=True, cost=cost
    )


@pytest.mark.parametrize(("chars", "tokens"), [(4, 9), (80, 20)])
async def test_what_was_counted_before_a_break_is_no_less_than_what_was_written(chars, tokens):
    hop = hop_over([[text("x" * chars), counted(9), cut()]], PRICED)

    with pytest.raises(StreamInterrupted):
        await read(hop)

    usage = usage_of(hop.prompt.spec, hop.served)
    cost = Cost(amount_nanos=5 * 1_000 + tokens * 2_000, currency_code="USD", estimated=True)
    assert usage == Usage(
        input_tokens=5, output_tokens=tokens, total_tokens=5 + tokens, estimated=True, cost=cost
    )


@pytest.mark.parametrize(
    ("prices", "nanos"),
    [
        ([PRICED, PRICED], 2 * 11_000),
        ([PRICED, FREE], 11_000),
        ([PRICED, UNKNOWN], None),
        ([UNKNOWN, PRICED], None),
        ([FREE], 0),
        ([UNKNOWN], None),
    ],
)
async def test_a_sum_costs_what_its_parts_do_and_is_unknown_where_one_of_them_is(prices, nanos):
    script = [[text("Hello"), counted(3), ended()]]
    hops = [await read(hop_over(script, price)) for price in prices]

    usage = usage_of_hops(hops)

    n = len(hops)
    expected = Usage(input_tokens=5 * n, output_tokens=3 * n, total_tokens=8 * n)
    if nanos is not None:
        expected.cost.CopyFrom(Cost(amount_nanos=nanos, currency_code="USD"))
    assert usage == expected


async def test_a_sum_changes_none_of_its_parts():
    hops = [await read(hop_over([[text("Hi"), counted(3), ended()]], PRICED)) for _ in range(2)]
    alone = [usage_of_hops([hop]) for hop in hops]

    usage_of_hops(hops)

    assert [usage_of_hops([hop]) for hop in hops] == alone


async def test_of_an_answer_that_began_again_unseen_the_last_attempt_is_paid_for():
    broken: list[Step] = [text("Hel"), cut()]
    hop = hop_over([broken, [text("Hello"), counted(3), ended()]], PRICED, whole=True)
    other = Candidate("b", "m", "m", price=PRICED)
    hop.plan = Plan("", "", "", (*hop.plan.candidates, other))
    hop.upstream.providers.scripts["b"] = [[text("Hello"), counted(7), ended()]]  # type: ignore[attr-defined]

    await read(hop)

    cost = Cost(amount_nanos=5 * 1_000 + 7 * 2_000, currency_code="USD")
    assert usage_of_hops([hop]) == Usage(
        input_tokens=5, output_tokens=7, total_tokens=12, cost=cost
    )


async def test_a_turn_that_is_abandoned_costs_what_had_come():
    hop = hop_over([[text("Hello"), text(" world"), 60.0, ended()]], PRICED, whole=True)
    batches = hop.batches()
    await anext(batches)
    await anext(batches)

    hop.abandon()

    await batches.aclose()
    cost = Cost(amount_nanos=3 * 1_000 + 3 * 2_000, currency_code="USD", estimated=True)
    assert usage_of_hops([hop]) == Usage(
        input_tokens=3, output_tokens=3, total_tokens=6, estimated=True, cost=cost
    )


async def test_a_turn_that_was_never_asked_costs_nothing():
    hop = hop_over([[text("Hello"), ended()]], PRICED)

    hop.abandon()

    assert usage_of_hops([hop]) == Usage()


def test_an_estimate_counts_all_text_of_a_conversation():
    call = ToolCall(name="f", arguments_json='{"a": 1}')
    result = ToolResult(parts=[Part(text="four")])
    spec = CompletionSpec(
        system_prompt="12345678",
        messages=[
            Message(role=Role.ROLE_USER, parts=[Part(text="abcd"), Part(text="efgh")]),
            Message(role=Role.ROLE_ASSISTANT, parts=[Part(tool_call=call)]),
            Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=result)]),
        ],
    )

    assert estimated_input_tokens(spec) == 2 + 2 + 2 + 1


def limited(
    usage: Usage,
    said: str,
    max_output_tokens: int | None = None,
    context_window_tokens: int | None = None,
) -> Usage:
    """What a provider's counts of a whole answer come to."""
    asked = Candidate("a", "m", "m", price=PRICED, context_window_tokens=context_window_tokens)
    permit = Circuits(lambda: 0.0).begin(asked, 0.0, is_first=True)
    attempt = Try(asked, permit, 0.0, 0.0, is_whole=True, output_chars=len(said))
    attempt.facts.usage = usage
    spec = CompletionSpec(messages=[Message(role=Role.ROLE_USER, parts=[Part(text=PROMPT)])])
    if max_output_tokens is not None:
        spec.sampling.max_output_tokens = max_output_tokens
    return usage_of(spec, attempt)


@pytest.mark.parametrize(
    ("counted", "limits"),
    [
        (Usage(input_tokens=3, output_tokens=999_999_999), {"max_output_tokens": 10}),
        (Usage(input_tokens=3, output_tokens=300_000), {"max_output_tokens": 10}),
        (Usage(input_tokens=3, output_tokens=300_000), {}),
        (Usage(input_tokens=3, output_tokens=45_000), {"context_window_tokens": 8_192}),
        (Usage(input_tokens=999_999_999, output_tokens=1), {}),
        (Usage(input_tokens=250_000, output_tokens=1), {"context_window_tokens": 200_000}),
    ],
)
def test_counts_that_can_not_be_of_this_request_are_estimated(counted, limits):
    usage = limited(counted, "Hi", **limits)

    assert usage.estimated
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (3, 1, 4)
    assert usage.cost.amount_nanos == 3 * 1_000 + 1 * 2_000


@pytest.mark.parametrize(
    ("counted", "said", "limits"),
    [
        # Reasoning that nobody sees, and images, are not in the text.
        (Usage(input_tokens=3, output_tokens=30_000), "Hi", {"max_output_tokens": 10}),
        (Usage(input_tokens=3, output_tokens=60_000), "Hi", {"max_output_tokens": 2_000}),
        (Usage(input_tokens=900_000, output_tokens=9), "Hi", {"context_window_tokens": 1_000_000}),
        (Usage(input_tokens=3, output_tokens=620_000), "Hi", {"max_output_tokens": 600_000}),
        # It wrote more than it was allowed.
        (Usage(input_tokens=3, output_tokens=900_000), "a" * 900_000, {"max_output_tokens": 10}),
    ],
)
def test_counts_that_can_be_are_believed(counted, said, limits):
    usage = limited(counted, said, **limits)

    assert not usage.estimated
    assert (usage.input_tokens, usage.output_tokens) == (
        counted.input_tokens,
        counted.output_tokens,
    )
