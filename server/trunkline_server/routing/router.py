"""Who may answer a request, best first: names to candidates, hard filters, order."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from trunkline.v1.completion_spec_pb2 import CompletionSpec, OptimizeFor
from trunkline_server.core.candidate import Candidate, Capability, Exclusion, Plan, Score
from trunkline_server.core.errors import CapabilityUnsupported, ModelNotFound, NoEligibleProvider
from trunkline_server.core.modes import MODE_ROUTE, Mode
from trunkline_server.routing.catalog import AUTO, Catalog, Selection, Strategy
from trunkline_server.routing.experience import Experience
from trunkline_server.routing.panels import panel_of
from trunkline_server.routing.ranking import Terms, terms, weighted
from trunkline_server.routing.scores import GLOBAL, Scores
from trunkline_server.routing.thompson import Ranking

WEIGHTED: Final = Strategy.WEIGHTED
MAX_NAMED: Final = 16  # Candidates in an error.
MAX_CANDIDATES: Final = 64  # Of one plan. Nobody waits for the sixty-fifth.
MAX_KEPT_TERMS: Final = 1_024
TERMS_S: Final = 10.0  # So long, what a second and a token are worth is taken as it was.
MAX_BYTES_PER_TOKEN: Final = 5  # No ordinary text has more, so a text has at least so many tokens.
BYTES_PER_TOKEN: Final = 4

_MEDIA: Final = {
    "image": Capability.VISION,
    "audio": Capability.AUDIO_INPUT,
    "video": Capability.VIDEO_INPUT,
    "document": Capability.DOCUMENTS,
}


@dataclass(frozen=True, slots=True)
class RankedGroup:
    """Candidates of one group, and what their order follows from."""

    terms: Terms
    ranking: Ranking


@dataclass(frozen=True, slots=True)
class Decision:
    """How the order of a plan came about: the `Decision` port."""

    scores_run_id: str
    language: str
    region: str
    groups: tuple[RankedGroup, ...]

    @property
    def is_explored(self) -> bool:
        """Was somebody asked first who is not thought to be the best?"""
        return any(group.ranking.is_explored for group in self.groups)

    def scores(self) -> Mapping[str, Score]:
        """By `Candidate.key`."""
        return {
            offer.name: group.terms.score(offer, group.ranking.losses_s[offer.name])
            for group in self.groups
            for offer in group.terms.offers
        }


class _Kind(NamedTuple):
    """What the order depends on beside what is learned. The tokens are a power of two, so there are few kinds."""

    name: str
    group: int
    optimize_for: OptimizeFor.ValueType
    cell: tuple[str, str]
    input_tokens: int
    whole: bool


class Router:
    """The `Router` port over one catalog.

    Args:
        clock: monotonic seconds.
        language_of: tells the language of a request that names none: a primary subtag, or nothing.
    """

    def __init__(
        self,
        catalog: Catalog,
        scores: Scores,
        experience: Experience,
        clock: Callable[[], float],
        language_of: Callable[[CompletionSpec], str] | None = None,
    ) -> None:
        self.catalog = catalog
        self._scores = scores
        self._experience = experience
        self._clock = clock
        self._language_of = language_of
        # Most requests ask for nothing but a name. Where one candidate alone goes by it, always the same follows.
        # Bounded by the catalog's names.
        self._plans: dict[str, Plan] = {}
        self._terms: dict[_Kind, tuple[float, Terms]] = {}

    def plan(
        self, spec: CompletionSpec, request_id: str, *, whole: bool = False, route: str = ""
    ) -> Plan:
        """Candidates in the order in which they are asked.

        Args:
            whole: the answer is not streamed.
            route: instead of the model that the request names.
        """
        needs = required(spec)
        name = route or spec.model
        has_region = spec.HasField("intent") and bool(spec.intent.region)
        has_bounds = has_region or spec.HasField("constraints")
        is_plain = not (route or needs or has_bounds or spec.mode or self._experience.knows_failing)
        if is_plain and (plan := self._plans.get(name)) is not None:
            return plan
        selection = self.catalog.select(name)
        filters = _Filters(spec, needs, selection)
        plan = self._plan(spec, request_id, selection, filters, whole, name)
        is_open = plan.decision is not None or selection.strategy is WEIGHTED
        depends_on_length = not selection.pinned and selection.min_window < math.inf
        if is_plain and not is_open and not depends_on_length:
            self._plans[name] = plan
        return plan

    def knows(self, name: str) -> bool:
        """See the port."""
        return name in self.catalog.routes or bool(self.catalog.deployments(name))

    def offers(self, capability: Capability, name: str = "") -> bool:
        """See the port."""
        return any(capability in candidate.capabilities for candidate in self._all_of(name))

    def largest_window(self, name: str) -> int | None:
        """See the port."""
        windows = [candidate.context_window_tokens for candidate in self._all_of(name)]
        known = [window for window in windows if window is not None]
        return max(known) if known and len(known) == len(windows) else None

    def route_of_mode(self, mode: Mode) -> str:
        """See the port."""
        return mode.route or (f"{MODE_ROUTE}{mode.id}" if mode.models else "")

    def _all_of(self, name: str) -> list[Candidate]:
        try:
            selection = self.catalog.select(name)
        except ModelNotFound:
            return []
        return [candidate for group in selection.groups for candidate in group]

    def _plan(
        self,
        spec: CompletionSpec,
        request_id: str,
        selection: Selection,
        filters: "_Filters",
        whole: bool,
        name: str,
    ) -> Plan:
        excluded: list[Exclusion] = []
        candidates: list[Candidate] = []
        ranked: list[RankedGroup] = []
        now_s = self._clock()
        cell: tuple[str, str] | None = None
        tokens = 0
        members = selection.members
        optimize_for = spec.intent.optimize_for
        if members is not None:
            optimize_for = optimize_for or members.rules.optimize_for
        for number, group in enumerate(selection.groups):
            kept = group if filters.pass_all else filters.apply(group, excluded)
            if number == 0 and selection.strategy is WEIGHTED:
                kept = weighted(kept, selection.weights, request_id)
            elif len(kept) > 1:
                if cell is None:
                    cell = self._cell(spec)
                    tokens = 1 << (filters.spec_bytes // BYTES_PER_TOKEN).bit_length()
                kind = _Kind(name, number, optimize_for, cell, tokens, whole)
                found = self._rank(kind, kept, len(kept) == len(group), request_id, now_s)
                ranked.append(found)
                by_name = found.terms.by_name
                kept = tuple([by_name[name] for name in found.ranking.names])
            candidates += kept
        if not candidates:
            raise _nobody(excluded)
        demoted = self._demoted(candidates, now_s)
        if demoted:
            candidates.sort(key=lambda c: c.key in demoted)
        decision = None
        if ranked:
            assert cell is not None
            language, region = cell
            decision = Decision(self._scores.run_id, language, region or GLOBAL, tuple(ranked))
        plan = Plan(
            requested_model=spec.model,
            route=selection.route,
            resolved_mode="" if filters.mode == AUTO else filters.mode,
            candidates=tuple(candidates[:MAX_CANDIDATES]),
            excluded=tuple(excluded),
            demoted=demoted,
            decision=decision,
            pinned=selection.pinned,
            recovery=selection.recovery,
            hedges=selection.hedges,
            plans=selection.plans,
        )
        if members is None:
            return plan
        cell = cell or self._cell(spec)
        return panel_of(members, plan, lambda c: self._scores.accuracy(c, cell))

    def _cell(self, spec: CompletionSpec) -> tuple[str, str]:
        language = spec.intent.language
        if not language and self._scores.knows_languages and self._language_of is not None:
            language = self._language_of(spec)
        return self._scores.cell(language, spec.intent.region)

    def _rank(
        self,
        kind: _Kind,
        candidates: tuple[Candidate, ...],
        is_whole_group: bool,
        request_id: str,
        now_s: float,
    ) -> RankedGroup:
        good_until_s, found = self._terms.get(kind, _NO_TERMS) if is_whole_group else _NO_TERMS
        if found is None or now_s >= good_until_s:
            found = self._terms_of(kind, candidates, now_s)
            if is_whole_group:
                if len(self._terms) >= MAX_KEPT_TERMS:
                    self._terms.clear()
                self._terms[kind] = (now_s + TERMS_S, found)
        policy = self._experience.policy(whole=kind.whole)
        # Fallbacks are asked when something has failed already: no time to be curious.
        return RankedGroup(
            found, policy.rank(now_s, request_id, found.rows, explores=kind.group == 0)
        )

    def _terms_of(self, kind: _Kind, candidates: tuple[Candidate, ...], now_s: float) -> Terms:
        experience = self._experience

        def expected_cost(candidate: Candidate) -> float | None:
            price = candidate.price
            if price.input_nanos is None or price.output_nanos is None:
                return None
            output_tokens = experience.output_tokens(candidate)
            return kind.input_tokens * price.input_nanos + output_tokens * price.output_nanos

        return terms(
            candidates,
            lambda c: experience.policy(whole=kind.whole).belief(c.key, now_s),
            kind.optimize_for,
            lambda c: self._scores.accuracy(c, kind.cell),
            expected_cost,
            now_s,
        )

    def _demoted(self, candidates: Sequence[Candidate], now_s: float) -> Mapping[str, str]:
        """Those of whose recent attempts most failed, unless that is true of all: why, by key."""
        failing = self._experience.failing(now_s)
        if not failing:
            return _NOBODY
        found = {
            c.key: f"{failing[c.key]:.0%} of its recent attempts failed: asked only when all others have"
            for c in candidates
            if c.key in failing
        }
        return found if len(found) < len(candidates) else _NOBODY


_NO_TERMS: Final[tuple[float, Terms | None]] = (0.0, None)
_NOBODY: Final[Mapping[str, str]] = {}


def required(spec: CompletionSpec) -> list[tuple[Capability, str]]:
    """What a candidate must be able to do, each with the field that asks for it.

    These are the things without which the answer would be another one. Options that only tune it (seed, top_k,
    log-probabilities) follow the request's UnsupportedPolicy instead.
    """
    needs: dict[Capability, str] = {}
    for i, message in enumerate(spec.messages):
        for j, part in enumerate(message.parts):
            kind = part.WhichOneof("content")
            if kind == "text":
                continue
            where = f"spec.messages[{i}].parts[{j}].{kind}"
            if kind in _MEDIA:
                needs.setdefault(_MEDIA[kind], where)
            elif kind == "tool_call" or kind == "tool_result":
                needs.setdefault(Capability.TOOLS, where)
                for inner in part.tool_result.parts:
                    inner_kind = inner.WhichOneof("content")
                    if inner_kind in _MEDIA:
                        needs.setdefault(_MEDIA[inner_kind], where)
    if spec.HasField("tool_options") and spec.tool_options.tools:
        needs.setdefault(Capability.TOOLS, "spec.tool_options.tools")
    if (
        spec.HasField("response_format")
        and spec.response_format.WhichOneof("format") == "json_schema"
    ):
        needs[Capability.STRUCTURED_OUTPUT] = "spec.response_format.json_schema"
    if "image" in spec.output_modalities:
        needs[Capability.IMAGE_OUTPUT] = "spec.output_modalities"
    if spec.HasField("sampling"):
        if spec.sampling.candidate_count > 1:
            needs[Capability.MULTIPLE_CHOICES] = "spec.sampling.candidate_count"
        if spec.sampling.logprobs:
            needs[Capability.LOGPROBS] = "spec.sampling.logprobs"
    return list(needs.items())


class _Filters:
    """What a candidate has to satisfy to answer one request.

    Attributes:
        mode: the one that was asked for, or the usual one; empty where there is none.
        least_tokens: the messages have at least so many; 0 where that is not known to matter.
        spec_bytes: of the whole message.
        pass_all: there is nothing to satisfy.
    """

    def __init__(
        self,
        spec: CompletionSpec,
        needs: Sequence[tuple[Capability, str]],
        selection: Selection,
    ) -> None:
        self._spec = spec
        self._needs = needs
        self.mode = spec.mode or ("" if selection.pinned or selection.route else AUTO)
        self._is_pinned = selection.pinned
        region = spec.intent.region.lower()
        self._region = "" if region == GLOBAL else region
        self.least_tokens = 0
        self.spec_bytes = spec.ByteSize()
        if not selection.pinned and self.spec_bytes >= MAX_BYTES_PER_TOKEN * selection.min_window:
            self.least_tokens = _text_bytes(spec) // MAX_BYTES_PER_TOKEN
        self.pass_all = not (
            needs
            or (self.mode and selection.has_modes)
            or self._region
            or self.least_tokens
            or spec.HasField("constraints")
        )

    def apply(
        self, group: tuple[Candidate, ...], excluded: list[Exclusion]
    ) -> tuple[Candidate, ...]:
        """Those who may answer; the others are added to `excluded`."""
        kept = []
        for candidate in group:
            exclusion = (
                _constraint(candidate, self._spec)
                or _capability(candidate, self._needs)
                or self._place(candidate)
                or self._length(candidate)
            )
            if exclusion is None:
                kept.append(candidate)
            else:
                excluded.append(exclusion)
        return tuple(kept)

    def _place(self, candidate: Candidate) -> Exclusion | None:
        mode, region = "" if self._is_pinned else self.mode, self._region
        if mode and candidate.modes and mode not in candidate.modes:
            return Exclusion(candidate, f"not a candidate of the mode {mode[:64]!r}", "spec.mode")
        if region and candidate.regions and not any(_is_in(r, region) for r in candidate.regions):
            return Exclusion(candidate, f"not in the region {region[:64]!r}")
        return None

    def _length(self, candidate: Candidate) -> Exclusion | None:
        window = candidate.context_window_tokens
        if window is None or self.least_tokens < window:
            return None
        return Exclusion(
            candidate, f"its context window holds {window} tokens, fewer than the messages have"
        )


def _is_in(place: str, region: str) -> bool:
    """Is one part of the other? `eu` holds `eu-west-1`."""
    place = place.lower()
    return place == region or place.startswith(f"{region}-") or region.startswith(f"{place}-")


def _text_bytes(spec: CompletionSpec) -> int:
    """Of all text that a model is given; media are not counted."""
    total = len(spec.system_prompt)
    for message in spec.messages:
        for part in message.parts:
            kind = part.WhichOneof("content")
            if kind == "text":
                total += len(part.text)
            elif kind == "tool_result":
                total += sum(len(inner.text) for inner in part.tool_result.parts)
    return total


def _capability(candidate: Candidate, needs: Sequence[tuple[Capability, str]]) -> Exclusion | None:
    for capability, field in needs:
        if capability is Capability.LOGPROBS:
            continue  # Left to the policy: an answer without them is still the answer.
        if capability not in candidate.capabilities:
            return Exclusion(candidate, f"has no {capability.value}", field)
    return None


def _constraint(candidate: Candidate, spec: CompletionSpec) -> Exclusion | None:
    if not spec.HasField("constraints"):
        return None
    constraints = spec.constraints
    if constraints.allowed_providers and candidate.provider not in constraints.allowed_providers:
        return Exclusion(candidate, "not an allowed provider")
    if candidate.provider in constraints.denied_providers:
        return Exclusion(candidate, "a denied provider")
    if constraints.allowed_models and not any(
        name in constraints.allowed_models
        for name in (candidate.id, candidate.key, *candidate.aliases)
    ):
        return Exclusion(candidate, "not an allowed model")
    if constraints.HasField("max_cost_nanos"):
        worst = _worst_cost_nanos(candidate, spec)
        if worst is None:
            return Exclusion(candidate, "without a known price, and a maximum cost was given")
        if worst > constraints.max_cost_nanos:
            return Exclusion(candidate, f"too dear: it could cost {worst} nanos")
    return None


def _worst_cost_nanos(candidate: Candidate, spec: CompletionSpec) -> int | None:
    price = candidate.price
    if price.input_nanos is None or price.output_nanos is None:
        return None
    output_tokens = (
        spec.sampling.max_output_tokens or candidate.max_output_tokens or DEFAULT_OUTPUT_TOKENS
    )
    input_tokens = spec.ByteSize() // 3  # More than any tokenizer makes of it.
    choices = max(1, spec.sampling.candidate_count)
    return (
        input_tokens * price.input_nanos + choices * output_tokens * price.output_nanos
    ) // 1_000_000


DEFAULT_OUTPUT_TOKENS: Final = 4096


def _nobody(excluded: Sequence[Exclusion]) -> CapabilityUnsupported | NoEligibleProvider:
    lacking = next((e for e in excluded if e.field), None)
    if lacking is not None and all(e.field for e in excluded):
        return CapabilityUnsupported(lacking.field, f"{lacking.candidate.key} {lacking.reason}")
    if excluded:
        named = [f"{e.candidate.key}: {e.reason}" for e in excluded[:MAX_NAMED]]
        if len(excluded) > MAX_NAMED:
            named.append(f"and {len(excluded) - MAX_NAMED} more")
        return NoEligibleProvider(f"no candidate is left: {'; '.join(named)}")
    return NoEligibleProvider("no provider is enabled")
