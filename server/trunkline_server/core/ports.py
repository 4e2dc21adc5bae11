"""What the use case needs of the outside. Adapters fill these; the use case imports none of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from trunkline.v1.completion_event_pb2 import ChoiceFinished, CompleteResponse
from trunkline.v1.completion_pb2 import CompletionWarning, Usage
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.core.candidate import Candidate, Capability, Plan
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.modes import Mode


# Not frozen, as all that is made for each attempt: freezing makes that three times as dear.
@dataclass(slots=True)
class Prompt:
    """What a candidate is asked: the spec as the caller gave it, and what travels with it.

    Attributes:
        stream: the caller reads a stream, so the upstream is asked for one.
        unasked: fields that this service filled in. Nobody is told when a candidate can't honour them.
        traceparent, tracestate: W3C trace context for the upstream; empty when there is none.
        merges: nobody sees single deltas, so text that arrives together may be one.
    """

    spec: CompletionSpec
    stream: bool
    traceparent: str = ""
    tracestate: str = ""
    unasked: frozenset[str] = frozenset()
    merges: bool = False


@dataclass(slots=True)
class AttemptFacts:
    """What an attempt learned beside its events. Filled while the answer is read."""

    http_status: int = 0
    upstream_request_id: str = ""
    response_model: str = ""
    system_fingerprint: str = ""
    service_tier: str = ""
    usage: Usage | None = None
    warnings: list[CompletionWarning] = field(default_factory=list)
    finishes: list[ChoiceFinished] = field(default_factory=list)


class Answer(Protocol):
    """One attempt's answer, read batch by batch."""

    @property
    def facts(self) -> AttemptFacts:
        """What is known so far beside the events."""
        ...

    @property
    def is_complete(self) -> bool:
        """Is there nothing more to read?"""
        ...

    @property
    def output_chars(self) -> int:
        """Characters of content so far, shown or not."""
        ...

    async def read(self, until_s: float) -> list[CompleteResponse]:
        """All events of the next read of the upstream that held content, shown or not; may be empty.

        Keep-alives are read over: they don't count as progress. Once `is_complete`, there is nothing more to read.

        Raises:
            UpstreamError: the attempt failed; TimeoutError when `until_s` passed first.
        """
        ...

    def close(self) -> None:
        """Give up the connection: at once when the answer is not complete. Never raises, never waits."""
        ...


class Unencodable(Exception):
    """A candidate can't express the request. `field` is the option, as a path."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Providers(Protocol):
    """Opens attempts at upstream providers."""

    async def open(self, candidate: Candidate, prompt: Prompt, until_s: float) -> Answer:
        """Send the request and wait for a good status, at most until the instant `until_s`.

        Raises:
            UpstreamError, TimeoutError, Unencodable.
        """
        ...

    def warnings(self, candidate: Candidate, prompt: Prompt) -> list[CompletionWarning]:
        """What would be dropped or changed for this candidate, without sending anything.

        Raises:
            Unencodable.
        """
        ...


class Router(Protocol):
    """Chooses candidates."""

    def plan(
        self, spec: CompletionSpec, request_id: str, *, whole: bool = False, route: str = ""
    ) -> Plan:
        """Who may answer, best first.

        Args:
            whole: the answer is not streamed.
            route: instead of the model that the request names.

        Raises:
            ModelNotFound, NoEligibleProvider, CapabilityUnsupported.
        """
        ...

    def knows(self, name: str) -> bool:
        """Is there a model, alias or route of this name?"""
        ...

    def offers(self, capability: Capability, name: str = "") -> bool:
        """Can any of those who go by this name do it? Nobody goes by a name that is unknown."""
        ...

    def largest_window(self, name: str) -> int | None:
        """Tokens of the largest context window among those who go by this name; None where one is not known."""
        ...

    def route_of_mode(self, mode: Mode) -> str:
        """The name under which those answer who answer in this mode; empty for everybody."""
        ...


class Experience(Protocol):
    """Learns from attempts who should be asked first."""

    def ended(
        self,
        candidate: Candidate,
        now_s: float,
        *,
        whole: bool,
        latency_s: float | None,
        failed: bool,
        output_tokens: int = 0,
    ) -> None:
        """An attempt ended, and that says something about the candidate.

        Args:
            latency_s: until the first token, or the end of a whole answer, or until it failed; None: not known.
        """
        ...

    def gave_up(self, candidate: Candidate, now_s: float, *, whole: bool, waited_s: float) -> None:
        """Its answer had not begun when the caller left, or when another one's came."""
        ...


@dataclass(slots=True)
class AttemptRecord:
    """One attempt, for the log line."""

    candidate: Candidate
    failure: str
    http_status: int
    duration_s: float


@dataclass(slots=True)
class RequestRecord:
    """What is logged and counted of one request. No content, no secrets."""

    request_id: str
    method: str
    started_s: float
    key_id: str = ""
    requested_model: str = ""
    route: str = ""
    provider: str = ""
    routed_model: str = ""
    response_model: str = ""
    attempts: list[AttemptRecord] = field(default_factory=list)
    time_to_first_token_s: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reason: str = "OK"
    trace_id: str = ""


class Telemetry(Protocol):
    """Where finished requests are reported."""

    def record(self, request: RequestRecord, now_s: float) -> None:
        """Called exactly once for each request, however it ended."""
        ...

    def attempt_failed(self, request_id: str, candidate: Candidate, error: UpstreamError) -> None:
        """Called for each failed attempt, with the provider's own words, for the log."""
        ...

    def hedged(self, route: str, candidate: Candidate) -> None:
        """Called when another provider is asked while the first is silent."""
        ...

    def drained(self, request_id: str, candidate: Candidate, usage: Usage | None) -> None:
        """Called when an answer that its caller left was read to its end, with what the provider counted, if it did."""
        ...


Clock = Callable[[], float]


class Similarity(Protocol):
    """How much alike two texts are."""

    async def cosine(self, first: str, second: str) -> float | None:
        """-1 to 1, where 1 says the same; None where it is not known."""
        ...
