"""The effort of a request that names none."""

import pytest

from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    OptimizeFor,
    ReasoningEffort,
    ReasoningOptions,
    RoutingIntent,
    UnsupportedPolicy,
)
from trunkline_server.completion.effort import tuned

LATENCY = RoutingIntent(optimize_for=OptimizeFor.OPTIMIZE_FOR_LATENCY)


@pytest.mark.parametrize(
    ("optimize_for", "effort"),
    [
        (OptimizeFor.OPTIMIZE_FOR_UNSPECIFIED, ReasoningEffort.REASONING_EFFORT_UNSPECIFIED),
        (OptimizeFor.OPTIMIZE_FOR_BALANCED, ReasoningEffort.REASONING_EFFORT_UNSPECIFIED),
        (OptimizeFor.OPTIMIZE_FOR_ACCURACY, ReasoningEffort.REASONING_EFFORT_HIGH),
        (OptimizeFor.OPTIMIZE_FOR_COST, ReasoningEffort.REASONING_EFFORT_LOW),
        (OptimizeFor.OPTIMIZE_FOR_LATENCY, ReasoningEffort.REASONING_EFFORT_MINIMAL),
    ],
)
def test_it_follows_from_what_is_optimised_for(optimize_for, effort):
    spec = CompletionSpec(intent=RoutingIntent(optimize_for=optimize_for))

    found, unasked = tuned(spec)

    assert found.reasoning.effort == effort
    assert not spec.HasField("reasoning")
    assert (found is spec) == (not effort)
    assert unasked == ({"spec.reasoning.effort"} if effort else set())


@pytest.mark.parametrize(
    "spec",
    [
        CompletionSpec(
            intent=LATENCY,
            reasoning=ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_MAX),
        ),
        CompletionSpec(intent=LATENCY, reasoning=ReasoningOptions(budget_tokens=0)),
        CompletionSpec(
            intent=LATENCY, unsupported_policy=UnsupportedPolicy.UNSUPPORTED_POLICY_REJECT
        ),
        CompletionSpec(),
    ],
    ids=["effort", "budget", "reject", "nothing"],
)
def test_it_is_left_alone_where_the_caller_has_a_say_in_it(spec):
    assert tuned(spec) == (spec, frozenset())
