"""Kinds of work: what a request that names one, or leaves it to be found out, is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from trunkline.v1.completion_spec_pb2 import ReasoningEffort

AUTO: Final = "auto"
FAST: Final = "fast"
MODE_ROUTE: Final = "mode:"  # Begins the names of routes that stand for the models of a mode.
PROMOTE_AT: Final = 0.85  # Confidence from which an explicit mode may be overridden.
MAX_QUESTION_CHARS: Final = (
    4_000  # Of a prompt, for telling what kind of work it is: its head and tail.
)


@dataclass(frozen=True, slots=True)
class Mode:
    """One kind of work.

    Attributes:
        models: who may answer, best first chosen among them; empty: every model that the mode allows.
        route: the route that answers, instead of `models`.
        engine: the name under which callers of Theo's API know who answers.
        system_prompt: comes after the persona's or the caller's own.
        max_output_tokens: where the request says nothing.
        max_hops: of the agent loop, where the request says nothing.
        max_tokens, max_cost_nanos, max_s: budgets of the agent loop over all its turns; None: none.
        tools: names of registered tools that its requests have without asking.
        cache_s: how long answers are kept; 0: they are not.
        artifacts: kinds that are made of answers: code, document, image.
        offers_follow_ups: the answer comes with questions to ask next.
        is_job: too long for a call; asked for as a job.
        is_costly: chosen by itself only when that is all but certain.
        modalities: what the answer is made of beside text.
    """

    id: str
    label: str = ""
    description: str = ""
    models: tuple[str, ...] = ()
    route: str = ""
    engine: str = ""
    system_prompt: str = ""
    effort: "ReasoningEffort.ValueType" = ReasoningEffort.REASONING_EFFORT_UNSPECIFIED
    temperature: float | None = None
    max_output_tokens: int | None = None
    max_hops: int | None = None
    max_tokens: int | None = None
    max_cost_nanos: int | None = None
    max_s: float | None = None
    tools: tuple[str, ...] = ()
    cache_s: float = 3_600.0
    artifacts: frozenset[str] = frozenset()
    offers_follow_ups: bool = False
    is_job: bool = False
    is_costly: bool = False
    modalities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModeQuestion:
    """What is known of a request whose kind of work is to be found out.

    Attributes:
        text: the last user turn.
        modes: those to choose from, `fast` among them.
        media: kinds of parts beside text: image, audio, document, video.
    """

    text: str
    modes: frozenset[str]
    media: frozenset[str] = frozenset()
    has_tools: bool = False


@dataclass(frozen=True, slots=True)
class ModeChoice:
    """A kind of work, and how sure that is.

    Attributes:
        confidence: 0 to 1, calibrated: of a hundred choices at .8 eighty are right.
        tier: who decided: rules, linear, embedding, or default where nobody was sure.
        alternatives: the other modes with their probabilities, best first.
    """

    mode: str
    confidence: float
    tier: str
    alternatives: tuple[tuple[str, float], ...] = ()


class Classifier(Protocol):
    """Tells what kind of work a request is."""

    async def classify(self, question: ModeQuestion) -> ModeChoice:
        """Never raises and never takes long: where nothing is known, it is `fast` by the tier default."""
        ...


@dataclass(frozen=True, slots=True)
class Modes:
    """All modes of a server, by id."""

    by_id: Mapping[str, Mode] = field(default_factory=dict)
    promotes: bool = False  # May an explicit mode be overridden?
