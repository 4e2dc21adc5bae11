"""Who may answer a request, best first: names to candidates, hard filters, order."""

from collections.abc import Sequence
from typing import Final

from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.core.candidate import Candidate, Capability, Exclusion, Plan, Score
from trunkline_server.core.errors import CapabilityUnsupported, NoEligibleProvider
from trunkline_server.routing.catalog import AUTO, Catalog, Selection, Strategy
from trunkline_server.routing.ranking import ranked, score, weighted

WEIGHTED: Final = Strategy.WEIGHTED
MAX_NAMED: Final = 16  # Candidates in an error.
MAX_CANDIDATES: Final = 64  # Of one plan. Nobody waits for the sixty-fifth.

_MEDIA: Final = {
    "image": Capability.VISION,
    "audio": Capability.AUDIO_INPUT,
    "video": Capability.VIDEO_INPUT,
    "document": Capability.DOCUMENTS,
}


class Router:
    """The `Router` port over one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        # Most requests ask for nothing but a name, and then always the same follows. Bounded by the catalog's names.
        self._plans: dict[tuple[str, int], Plan] = {}

    def plan(self, spec: CompletionSpec, request_id: str) -> Plan:
        """Candidates in the order in which they are asked."""
        selection = self.catalog.select(spec.model)
        needs = required(spec)
        if needs or spec.mode or spec.HasField("constraints") or selection.strategy is WEIGHTED:
            return self._plan(spec, request_id, selection, needs)
        key = (spec.model, spec.intent.optimize_for)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._plan(spec, request_id, selection, needs)
        return plan

    def _plan(
        self,
        spec: CompletionSpec,
        request_id: str,
        selection: Selection,
        needs: Sequence[tuple[Capability, str]],
    ) -> Plan:
        mode = spec.mode or ("" if selection.pinned or selection.route else AUTO)
        excluded: list[Exclusion] = []
        candidates: list[Candidate] = []
        scores: dict[str, Score] = {}
        has_constraints = spec.HasField("constraints")
        for number, group in enumerate(selection.groups):
            kept = group
            if needs or has_constraints or (mode and not selection.pinned):
                kept = tuple(
                    c for c in group if not _excludes(c, spec, needs, mode, selection, excluded)
                )
            if number == 0 and selection.strategy is WEIGHTED:
                kept = weighted(kept, selection.weights, request_id)
            elif len(kept) > 1:
                group_scores = score(kept, spec.intent.optimize_for)
                kept = ranked(kept, group_scores)
                scores.update(group_scores)
            candidates += kept
        if not candidates:
            raise _nobody(excluded)
        return Plan(
            requested_model=spec.model,
            route=selection.route,
            resolved_mode="" if mode == AUTO else mode,
            candidates=tuple(candidates[:MAX_CANDIDATES]),
            excluded=tuple(excluded),
            scores=scores,
            pinned=selection.pinned,
            recovery=selection.recovery,
            hedges=selection.hedges,
        )


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
    if spec.HasField("sampling"):
        if spec.sampling.candidate_count > 1:
            needs[Capability.MULTIPLE_CHOICES] = "spec.sampling.candidate_count"
        if spec.sampling.logprobs:
            needs[Capability.LOGPROBS] = "spec.sampling.logprobs"
    return list(needs.items())


def _excludes(
    candidate: Candidate,
    spec: CompletionSpec,
    needs: Sequence[tuple[Capability, str]],
    mode: str,
    selection: Selection,
    excluded: list[Exclusion],
) -> bool:
    exclusion = _constraint(candidate, spec) or _capability(candidate, needs)
    if (
        exclusion is None
        and mode
        and not selection.pinned
        and candidate.modes
        and mode not in candidate.modes
    ):
        exclusion = Exclusion(candidate, f"not a candidate of the mode {mode[:64]!r}", "spec.mode")
    if exclusion is not None:
        excluded.append(exclusion)
    return exclusion is not None


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
