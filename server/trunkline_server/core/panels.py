"""What a panel is: several models asked at once, and one answer made of theirs.

Source of the defaults: simulated waits and published results, see docs/panels.md.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from trunkline.v1.completion_spec_pb2 import OptimizeFor

MAX_PROPOSERS: Final = 8
MAX_ESCALATIONS: Final = 4
DEFAULT_SIZE: Final = 3
DEFAULT_PANEL_IDS: Final = frozenset({"waymark-fast", "waymark-moa", "waymark-max"})


class Trigger(StrEnum):
    """Why an answer is not good enough, so that a wider panel is asked instead."""

    REFUSAL = "refusal"
    EMPTY = "empty"
    CUT = "cut"
    INVALID_OUTPUT = "invalid_output"
    UNCERTAIN = "uncertain"
    DISAGREEMENT = "disagreement"


@dataclass(frozen=True, slots=True)
class PanelRules:
    """How a panel works. Names are model ids, aliases or `provider/model`.

    Attributes:
        proposers: who proposes; empty: the best `size` of all that are enabled.
        size: proposers, where none are named. 1: that one answers, and nothing is mixed.
        quorum: so many proposals are enough.
        grace_share, grace_s: how long the rest is waited for then: a share of the time it took, and at most so long.
        deadline_s: when nobody is waited for any more, quorum or not.
        aggregator: who makes one answer of the proposals; empty: the best of all that are enabled.
        critiques: the aggregator's model is first asked what the proposals agree on and where they differ.
        stops_early: when the first two proposals agree, the better one is the answer.
        proposal_tokens: what a proposal may have at most.
        optimize_for: how members are chosen, where the caller does not say.
        escalate_to: the route that is asked when this one's answer is not good enough; empty: none.
        escalate_on: what counts as that.
        max_escalations: of one request, counted from the route that it asked for.
    """

    proposers: tuple[str, ...] = ()
    size: int = DEFAULT_SIZE
    quorum: int = 2
    grace_share: float = 0.25
    grace_s: float = 1.5
    deadline_s: float = 20.0
    aggregator: str = ""
    critiques: bool = False
    stops_early: bool = False
    proposal_tokens: int = 4_096
    optimize_for: "OptimizeFor.ValueType" = OptimizeFor.OPTIMIZE_FOR_UNSPECIFIED
    escalate_to: str = ""
    escalate_on: frozenset[Trigger] = frozenset()
    max_escalations: int = 1

    @property
    def mixes(self) -> bool:
        """Is one answer made of several?"""
        return (len(self.proposers) or self.size) > 1
