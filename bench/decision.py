"""What choosing costs: the router's decision among candidates that all have been asked before, without any socket.

Half of the requests are told of an attempt that ended since the last one, so that what is expected of its candidate is
worked out anew; and all are told the order, so nothing is left for later.
"""

import time
from dataclasses import dataclass
from statistics import median
from typing import Final

from yardstick import slowness_now

from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.core.candidate import Candidate, Price
from trunkline_server.routing.catalog import Catalog
from trunkline_server.routing.experience import Experience
from trunkline_server.routing.router import Router
from trunkline_server.routing.scores import Scores

NAME: Final = "decision"
CANDIDATES: Final = 20
LIMIT_US: Final = 40.0
DECISIONS: Final = 5_000  # Of a round.
WARM_UP: Final = 500


@dataclass(frozen=True)
class DecisionCost:
    """Medians over the rounds, in us of CPU: of a decision, and of learning from an attempt."""

    decision_us: float
    learning_us: float
    slowness: float

    @property
    def is_reached(self) -> bool:
        return self.decision_us <= LIMIT_US


def measure(rounds: int) -> DecisionCost:
    """So many rounds."""
    candidates = [
        Candidate(
            f"provider-{number}",
            "model",
            "model",
            price=Price(number * 10**6, number * 10**7),
            scores={"accuracy": number / CANDIDATES},
        )
        for number in range(CANDIDATES)
    ]
    scores = Scores(None, candidates)
    experience = Experience(scores.measured)
    router = Router(Catalog(candidates, ()), scores, experience, time.monotonic)
    said = Message(role=Role.ROLE_USER, parts=[Part(text="What is the capital of France?")])
    spec = CompletionSpec(model="model", messages=[said])
    ids = [f"req_{number:026d}" for number in range(DECISIONS)]

    def learn(number: int) -> None:
        experience.ended(
            candidates[number % CANDIDATES],
            time.monotonic(),
            whole=False,
            latency_s=0.5 + number % 3,
            failed=number % 50 == 0,
            output_tokens=100,
        )

    def spent_us(decides: bool) -> float:
        started_s = time.thread_time()
        for number, request_id in enumerate(ids):
            if number % 2:
                learn(number)
            if decides:
                router.plan(spec, request_id)
        return (time.thread_time() - started_s) * 1e6 / DECISIONS

    for number in range(WARM_UP):
        learn(number)
        router.plan(spec, ids[number])
    found = [(spent_us(False), spent_us(True), slowness_now()) for _ in range(rounds)]
    return DecisionCost(
        decision_us=median(whole - learning for learning, whole, _ in found),
        learning_us=median(2 * learning for learning, _, _ in found),
        slowness=median(slowness for _, _, slowness in found),
    )


def show(cost: DecisionCost) -> str:
    """Its line."""
    verdict = "ok" if cost.is_reached else "MISS"
    return (
        f"{NAME:<11} {cost.decision_us:.1f} us among {CANDIDATES} candidates, {cost.learning_us:.1f} us "
        f"to learn from an attempt, slow {cost.slowness:.1f}  {LIMIT_US:g} us/decision {verdict} "
        f"({cost.decision_us / cost.slowness:,.3g} at reference speed)"
    )
