"""Who could answer: deployments of models at providers, and the order in which they are tried."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from trunkline.v1.completion_spec_pb2 import Recovery
from trunkline_server.core.panels import PanelRules


class Capability(StrEnum):
    """What a model can do. The names are those of the contract's `Capabilities` and of `[[models]] capabilities`."""

    TOOLS = "tools"
    PARALLEL_TOOLS = "parallel_tools"
    STRUCTURED_OUTPUT = "structured_output"
    REASONING = "reasoning"
    VISION = "vision"
    AUDIO_INPUT = "audio_input"
    VIDEO_INPUT = "video_input"
    DOCUMENTS = "documents"
    PROMPT_CACHING = "prompt_caching"
    LOGPROBS = "logprobs"
    SEED = "seed"
    MULTIPLE_CHOICES = "multiple_choices"
    IMAGE_OUTPUT = "image_output"


# What a model is taken to have. Who draws is known by name.
USUAL: Final = frozenset(Capability) - {Capability.IMAGE_OUTPUT}


@dataclass(frozen=True, slots=True)
class Price:
    """Nanos (1e-9) of a US dollar per million tokens. None: unknown, which is not free."""

    input_nanos: int | None = None
    output_nanos: int | None = None
    cached_input_nanos: int | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One deployment that may be tried.

    Attributes:
        id: the catalog id that callers use; several candidates may share it.
        model: the name that the provider knows it by.
        family: whose opaque state it understands: the dialect, or the provider where a dialect has several.
        first_token_timeout_s: how long it may stay silent.
        fast_first_token_timeout_s: the same for a request of the mode "fast".
        idle_timeout_s: the longest gap between its events.
        max_concurrency: attempts that may run at once, however well it does.
        prefills: it continues a last message of the assistant's as its own.
        drain_on_disconnect: it bills the whole generation whoever listens, so an answer that the caller left is read to
            its end.
        scores: static scores, 0 to 1: accuracy, latency, cost.
        key: names it among all candidates.
    """

    provider: str
    id: str
    model: str
    family: str = ""
    aliases: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    capabilities: frozenset[Capability] = USUAL
    label: str = ""
    description: str = ""
    regions: tuple[str, ...] = ()
    context_window_tokens: int | None = None
    max_output_tokens: int | None = None
    price: Price = field(default_factory=Price)
    scores: Mapping[str, float] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()
    first_token_timeout_s: float = 60.0
    fast_first_token_timeout_s: float = 15.0
    idle_timeout_s: float = 30.0
    max_concurrency: int = 1024
    prefills: bool = False
    drain_on_disconnect: bool = False
    embedded: bool = False
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.provider}/{self.id}")


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A candidate that may not answer this request, and why. `field` is what the caller could change, or empty."""

    candidate: Candidate
    reason: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """How a candidate was ranked: the total and its weighted terms, each 0 to 1."""

    total: float
    accuracy: float
    latency: float
    cost: float


class Decision(Protocol):
    """How the candidates of a plan were put in order."""

    @property
    def scores_run_id(self) -> str:
        """Of the scoring run that it is based on; empty where there was none."""
        ...

    @property
    def language(self) -> str:
        """A primary subtag; empty where none made a difference."""
        ...

    @property
    def region(self) -> str:
        """`global` where none made a difference."""
        ...

    @property
    def is_explored(self) -> bool:
        """Was somebody put first who is not thought to be the best, to learn about them?"""
        ...

    def scores(self) -> Mapping[str, Score]:
        """Of all that were ranked, by `Candidate.key`."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """The candidates of one request, best first, and how the choice came about.

    Attributes:
        route: the named route, or empty.
        pinned: the caller named one model, so nothing else may stand in but its fallbacks.
        recovery: the route's own, for callers who name none.
        hedges: another provider may be asked while the first is silent.
        demoted: who is asked only when all others have failed, by `Candidate.key`, and why.
        decision: how the order came about; None where there was nothing to decide.
        plans: ids of the plans whose holders may ask the route; None: everybody.
        panel: who answers together, where several do.
    """

    requested_model: str
    route: str
    resolved_mode: str
    candidates: tuple[Candidate, ...]
    excluded: tuple[Exclusion, ...] = ()
    demoted: Mapping[str, str] = field(default_factory=dict)
    decision: Decision | None = None
    pinned: bool = False
    recovery: "Recovery.ValueType" = Recovery.RECOVERY_TERMINATE
    hedges: bool = False
    plans: frozenset[str] | None = None
    panel: "PanelPlan | None" = None


@dataclass(frozen=True, slots=True)
class PanelPlan:
    """The members of a panel. Each has candidates of its own, the first of which is meant; the others stand in for it.

    Attributes:
        proposers: one or more. A single one answers itself.
        aggregator: who makes one answer of the proposals.
        quorum: so many proposals are enough; no more than there are proposers.
    """

    rules: PanelRules
    proposers: tuple[Plan, ...]
    aggregator: Plan
    quorum: int

    @property
    def mixes(self) -> bool:
        """Is one answer made of several?"""
        return len(self.proposers) > 1
