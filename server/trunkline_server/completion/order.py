"""A request at the door, and what is held for it until it is settled."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_service_pb2 import StreamOptions
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.accounts.access import Headers
from trunkline_server.completion.bill import Bill
from trunkline_server.completion.preparation import Prepared
from trunkline_server.completion.turns import Toolbox
from trunkline_server.core.cache import Miss
from trunkline_server.core.candidate import Plan

NOTHING: Final[frozenset[str]] = frozenset()
NOBODY: Final = Plan(requested_model="", route="", resolved_mode="", candidates=())


# Not frozen, as all that is made for each request: freezing makes that three times as dear.
@dataclass(slots=True)
class Call:
    """What came with a request beside its message.

    Attributes:
        authorization: the header's value, empty where none came.
        peer: names the address that it comes from.
        key_id: of a job: the key that it was asked for with, which is looked up anew; empty for every other call.
        timeout_s: what the caller gave it, None for no limit.
        traceparent: for the upstream: the caller's trace, our span.
        headers: what every response to it says, filled on the way in.
    """

    method: str
    request_id: str
    authorization: str = ""
    peer: Callable[[], str] = str
    key_id: str = ""
    timeout_s: float | None = None
    idempotency_key: str = ""
    traceparent: str = ""
    tracestate: str = ""
    trace_id: str = ""
    headers: Headers = field(default_factory=list)


@dataclass(slots=True)
class Order:
    """A completion that is asked for: how it came, and from `plan` on what it is found to need.

    Attributes:
        asked: as the caller sent it; `spec` is the same as models get it.
        unary: what the answer is written into, for a caller who gets it whole; None for a stream.
        started_s: when it came, by the loop's clock.
        size_bytes: of what models get.
        unasked: fields that were filled in here.
    """

    asked: CompletionSpec
    spec: CompletionSpec
    options: StreamOptions
    call: Call
    unary: Completion | None
    started_s: float
    size_bytes: int
    completion_id: str
    plan: Plan = NOBODY
    unasked: frozenset[str] = NOTHING
    prepared: Prepared | None = None
    box: Toolbox | None = None
    miss: Miss | None = None
    bill: Bill | None = None

    def give_back(self) -> None:
        """Places that others wait for. Whoever is not done with one by now, loses it."""
        if self.miss is not None:
            self.miss.close()
        if self.prepared is not None:
            self.prepared.release()
