"""What a caller is told beside the content: who answers, what failed, what it cost, and the whole at the end."""

import time
from collections.abc import Iterable, Sequence
from typing import Final

from google.rpc import code_pb2

from trunkline.v1.completion_event_pb2 import (
    AttemptFailed,
    CompleteResponse,
    SkillsActivated,
    StreamInterrupted,
)
from trunkline.v1.completion_pb2 import (
    Completion,
    CompletionWarning,
    Route,
    RouteReason,
    StructuredOutput,
    Usage,
)
from trunkline.v1.completion_service_pb2 import StreamOptions
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.completion.attempts import Batch, Hop, Try
from trunkline_server.completion.metering import usage_of_hops
from trunkline_server.completion.panel import Panel
from trunkline_server.completion.panel_report import panel_report
from trunkline_server.completion.preparation import Prepared
from trunkline_server.completion.turns import Turns
from trunkline_server.core.attempts import set_duration, set_time
from trunkline_server.core.candidate import Plan
from trunkline_server.core.fold import Fold, end
from trunkline_server.core.skill import activation

OUTRUN: Final = code_pb2.CANCELLED  # The code of an attempt that lost to another one.
_MESSAGES: Final = ("spec.messages", "messages")
# By their values: an enum's name is looked up anew each time.
FAILED_OVER: Final = RouteReason.ROUTE_REASON_FAILOVER
SCORED: Final = RouteReason.ROUTE_REASON_SCORED
REQUESTED: Final = RouteReason.ROUTE_REASON_REQUESTED
ESCALATED: Final = RouteReason.ROUTE_REASON_ESCALATION


class Report:
    """Of one request. Knows a hop from `begin` on, which is when content has come."""

    def __init__(
        self,
        spec: CompletionSpec,
        options: StreamOptions,
        request_id: str,
        completion_id: str,
        panel: Panel | None = None,
        prepared: Prepared | None = None,
    ) -> None:
        self._spec = spec
        self._panel = panel
        self._prepared = prepared
        self._has_told_skills = False
        self._options = options
        self._request_id = request_id
        self._completion_id = completion_id
        self._created_s = time.time()
        self._is_started = False
        self._told = 0  # Failed attempts that the caller knows of.
        self._route: Route | None = None
        self._hop: Hop | None = None  # That the caller has heard of last.
        self._is_new_hop = False
        self.served: Try | None = None
        self.usage: Usage | None = None

    def started(self) -> CompleteResponse:
        """The event that comes before all others."""
        self._is_started = True
        event = CompleteResponse()
        started = event.started
        started.completion_id = self._completion_id
        started.request_id = self._request_id
        set_time(started.create_time, self._created_s)
        if self._prepared is not None:
            started.conversation_id = self._prepared.conversation_id
        return event

    def begins_hop(self, hops: Sequence[Hop]) -> bool:
        """Does the last hop give its first content now, after others?"""
        return len(hops) > 1 and hops[-1] is not self._hop

    def begin(self, plan: Plan, hops: Sequence[Hop]) -> None:
        """Somebody serves from now on: the first time in its hop, the last one, or in the place of another one."""
        hop = hops[-1]
        # Not by its attempts: what a panel has held back may have seen several of them.
        self._is_new_hop = hop is not self._hop
        if self._is_new_hop:
            self._hop = hop
            self._told = 0
        self.served = hop.served
        self._route = _route(plan if self._panel is None else self._panel.plan, hops)
        if self._panel is not None and self._panel.escalation_reason:
            self._route.escalated = True
            self._route.reason = ESCALATED
        if self._prepared is not None:
            self._prepared.mark(self._route)

    def opening(self, hop: Hop, batch: Batch) -> Batch:
        """The first batch of whoever serves from now on, with what is said before it."""
        before: Batch = [] if self._is_started else [self.started()]
        if self._options.include_attempts:
            before += [
                CompleteResponse(attempt_failed=AttemptFailed(attempt=attempt, will_failover=True))
                for attempt in hop.attempts[self._told :]
                if attempt.HasField("error") and attempt.error.code != OUTRUN
            ]
            self._told = len(hop.attempts)
        selected = CompleteResponse()
        selected.route_selected.route.CopyFrom(self._route or Route())
        if self._is_new_hop:
            if self._prepared is not None:
                return [*before, selected, *self._furnished(self._prepared), *batch]
            return [*before, selected, *batch]
        if batch and batch[0].HasField("stream_reset"):
            return [*before, batch[0], selected, *batch[1:]]
        return before + batch

    def _furnished(self, prepared: Prepared) -> Batch:
        """What the request was given, once."""
        if self._has_told_skills:
            return []
        self._has_told_skills = True
        events: Batch = []
        if prepared.skills:
            skills = SkillsActivated(skills=map(activation, prepared.skills))
            events.append(CompleteResponse(skills_activated=skills))
        if (genui := prepared.genui) is not None:
            events.append(CompleteResponse(genui_meta=genui))
        return events

    def fill(
        self,
        completion: Completion,
        hops: Sequence[Hop],
        billed: Sequence[Hop],
        turns: Turns | None,
        fold: Fold | None,
        total_s: float,
        first_token_s: float | None,
    ) -> None:
        """The whole answer, into an empty message; its content only where it was folded.

        Args:
            hops: model turns of the answer; `billed` also has those that are paid for beside it.
            total_s, first_token_s: since the request came.
        """
        hop = hops[-1]
        facts = hop.served.facts
        spec = self._spec
        usage = self.usage = usage_of_hops(billed)
        completion.id = self._completion_id
        completion.request_id = self._request_id
        set_time(completion.create_time, self._created_s)
        finishes = facts.finishes if turns is None or turns.finish is None else [turns.finish]
        end(completion.choices, finishes)
        if fold is not None:
            fold.fill(completion.choices)
            if fold.artifacts:
                completion.artifacts.extend(fold.artifacts)
        if self._prepared is not None:
            self._prepared.fill(completion)
            skills = self._prepared.skills if turns is None else turns.skills
            completion.skills.extend(map(activation, skills))
        if self._panel is not None:
            self.begin(self._panel.plan, hops)  # An answer that was dropped may be taken up again.
        completion.route.MergeFrom(self._route or Route())
        completion.usage.MergeFrom(usage)
        for each in hops:
            completion.attempts.extend(each.attempts)
            if each.shown:
                warnings = each.served.facts.warnings
                if warnings:
                    completion.warnings.extend(_news(warnings, completion, each.number))
            if each.continued:
                completion.warnings.extend(each.continued)
        if turns is not None:
            completion.warnings.extend(turns.warnings)
            completion.server_tool_calls.extend(turns.calls)
            completion.transcript.extend(turns.transcript)
        if spec.metadata_json:
            completion.metadata_json = spec.metadata_json
        if facts.system_fingerprint:
            completion.system_fingerprint = facts.system_fingerprint
        if facts.service_tier:
            completion.service_tier = facts.service_tier
        timing = completion.timing
        set_duration(timing.total, total_s)
        if first_token_s is not None:
            set_duration(timing.time_to_first_token, first_token_s)
        _structure(spec, completion)
        if self._panel is not None:
            completion.panel.CopyFrom(panel_report(self._panel))

    def interrupted(self, hops: Sequence[Hop]) -> CompleteResponse:
        """The last event of a stream that broke off."""
        usage = self.usage = usage_of_hops(hops)
        attempts = [attempt for hop in hops for attempt in hop.attempts]
        event = StreamInterrupted(route=self._route, usage=usage, attempts=attempts)
        return CompleteResponse(interrupted=event)

    def used(self, hops: Sequence[Hop]) -> Usage:
        """What was used so far, by whoever gave content."""
        return self.usage or usage_of_hops(hops)


def _news(
    warnings: Iterable[CompletionWarning], told: Completion, hop: int
) -> list[CompletionWarning]:
    """Warnings that tell something new. What a later hop adds to the messages is not the caller's."""
    if hop == 0:
        return list(warnings)
    known = {(warning.code, warning.field, warning.provider) for warning in told.warnings}
    return [
        warning
        for warning in warnings
        if (warning.code, warning.field, warning.provider) not in known
        and not warning.field.startswith(_MESSAGES)
    ]


def _structure(spec: CompletionSpec, completion: Completion) -> None:
    if not spec.HasField("response_format"):
        return
    kind = spec.response_format.WhichOneof("format")
    if (
        kind in ("json_object", "json_schema")
        and completion.choices
        and completion.choices[0].message.parts
    ):
        text = "".join(part.text for part in completion.choices[0].message.parts)
        completion.structured_output.CopyFrom(StructuredOutput(type=kind, data_json=text))


def _route(plan: Plan, hops: Sequence[Hop]) -> Route:
    hop = hops[-1]
    candidate = hop.served.candidate
    failures = hop.failover_count
    if failures:
        reason = FAILED_OVER
    elif plan.decision is not None:
        reason = SCORED
    else:
        reason = REQUESTED
    # Field by field, and only what is not the default: that is what messages are written fastest by.
    route = Route()
    route.provider = candidate.provider
    route.model = candidate.id
    route.requested_model = plan.requested_model
    route.attempt = failures + 1
    route.reason = reason
    if plan.route:
        route.route = plan.route
    if plan.resolved_mode:
        route.resolved_mode = plan.resolved_mode
    if candidate.label:
        route.label = candidate.label
    if hop.number:
        route.hop = hop.number
    if failures:
        route.failover_count = failures
    if failures or len(hops) > 1:
        route.total_failover_count = sum(each.failover_count for each in hops)
    if plan.decision is not None:
        route.scores_run_id = plan.decision.scores_run_id
    return route
