"""How hard a model thinks where the caller does not say: as what is optimised for suggests.

Balanced, or without an intent, it is the provider's own default; and it is for callers who want each option honoured or
refused, because thinking leaves no room for some of them.
"""

from collections.abc import Mapping
from typing import Final

from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    OptimizeFor,
    ReasoningEffort,
    UnsupportedPolicy,
)

REJECT: Final = UnsupportedPolicy.UNSUPPORTED_POLICY_REJECT
EFFORT: Final = frozenset({"spec.reasoning.effort"})
NOTHING: Final[frozenset[str]] = frozenset()
TUNED: Final[Mapping[OptimizeFor.ValueType, ReasoningEffort.ValueType]] = {
    OptimizeFor.OPTIMIZE_FOR_ACCURACY: ReasoningEffort.REASONING_EFFORT_HIGH,
    OptimizeFor.OPTIMIZE_FOR_COST: ReasoningEffort.REASONING_EFFORT_LOW,
    OptimizeFor.OPTIMIZE_FOR_LATENCY: ReasoningEffort.REASONING_EFFORT_MINIMAL,
}


def tuned(spec: CompletionSpec) -> tuple[CompletionSpec, frozenset[str]]:
    """The same spec, or a copy with the effort that its intent suggests; and the fields that were filled in."""
    if not spec.HasField("intent"):
        return spec, NOTHING
    effort = TUNED.get(spec.intent.optimize_for)
    if effort is None or spec.unsupported_policy == REJECT:
        return spec, NOTHING
    reasoning = spec.reasoning
    if reasoning.effort or reasoning.HasField("budget_tokens"):
        return spec, NOTHING
    copy = CompletionSpec()
    copy.CopyFrom(spec)
    copy.reasoning.effort = effort
    return copy, EFFORT
