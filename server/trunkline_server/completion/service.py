"""A completion from the door to the last event: admit, choose, answer, settle.

`events` is the whole story, top to bottom. What the later rooms add (memory, cache, tools, panels) goes between its
lines; the edges see only batches of events.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from trunkline.v1.completion_event_pb2 import CompleteResponse, UsageUpdate
from trunkline.v1.completion_pb2 import Completion, Usage
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    CompleteUnaryResponse,
    PreviewRouteRequest,
    PreviewRouteResponse,
    RouteCandidate,
    StreamOptions,
)
from trunkline.v1.completion_spec_pb2 import CompletionSpec, UnsupportedPolicy
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.accounts.access import Access, Pass
from trunkline_server.completion.admission import Admission
from trunkline_server.completion.answering import Answering
from trunkline_server.completion.attempts import (
    DEFAULT_MAX_ATTEMPTS,
    Batch,
    Hop,
    Limits,
    Upstream,
)
from trunkline_server.completion.bill import (
    Billing,
    fingerprint,
    output_tokens,
    prompt_tokens,
    worst_of,
)
from trunkline_server.completion.cached import given_again
from trunkline_server.completion.decisions import Decisions
from trunkline_server.completion.effort import tuned
from trunkline_server.completion.follow_ups import FOLLOW_UPS_S, FollowUps, follow_up_spec
from trunkline_server.completion.kept import KeptTurns
from trunkline_server.completion.order import NOTHING, Call, Order
from trunkline_server.completion.panel import NewHop, NewTurns, Panel
from trunkline_server.completion.preparation import (
    Preparation,
    Prepared,
    last_user_message,
    text_of,
)
from trunkline_server.completion.replay import forget_messages, replayed
from trunkline_server.completion.turns import Toolbox, Turns, toolbox
from trunkline_server.core.breaker import State
from trunkline_server.core.cache import Hit
from trunkline_server.core.candidate import Candidate, Plan, Score
from trunkline_server.core.deadline import Deadline
from trunkline_server.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NoEligibleProvider,
    NotFound,
    NotSupported,
    RequestError,
    RouteNotAllowed,
    ServiceError,
    TrunklineError,
)
from trunkline_server.core.loop_budget import LoopBudget
from trunkline_server.core.plans import Caller, Scope
from trunkline_server.core.ports import Prompt, RequestRecord, Router, Similarity, Unencodable
from trunkline_server.core.tools import ServerTool, ToolContext, Tools
from trunkline_server.core.validation import MAX_IDEMPOTENCY_KEY_CHARS, check_spec

MAX_REQUEST_ID_CHARS: Final = 64
MAX_STREAM_S: Final = 600.0
MAX_UNARY_S: Final = 300.0
SETTLE_EARLY_S: Final = 0.05  # Before the first heartbeat, which may send the head.
AUTO: Final = "auto"
REPLAYED: Final = ("idempotent-replayed", "true")
CACHE_HEADER: Final = "trunkline-cache"  # exact or semantic; not there where somebody was asked.
PANEL_HEADER: Final = "trunkline-panel"  # The panel route that serves, after any escalation.
REJECT: Final = UnsupportedPolicy.UNSUPPORTED_POLICY_REJECT


class Completions:
    """The use case behind every edge."""

    def __init__(
        self,
        *,
        admission: Admission,
        access: Access,
        billing: Billing | None,
        router: Router,
        upstream: Upstream,
        tools: Tools,
        similarity: Similarity,
        preparation: Preparation,
        settle_s: float,
        mint_id: Callable[[], str],
    ) -> None:
        """Args: settle_s: after so long a stream's head may go out, so a panel's route does not change any more."""
        self.admission = admission
        self._access = access
        self._billing = billing
        self._router = router
        self._upstream = upstream
        self._tools = tools
        self._similarity = similarity
        self._preparation = preparation
        self._settle_s = settle_s
        self._kept = KeptTurns(time.monotonic)
        self._decisions = Decisions()
        self._mint_id = mint_id

    async def enter(self, call: Call, scope: Scope) -> Caller:
        """Who calls, if they may. Raises: as `Access.enter`."""
        return await self._access.enter(call.authorization, call.peer, scope, call.headers)

    def stream(self, request: CompleteRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """The events of one completion, batch by batch. Close it when leaving early.

        Nothing comes before content unless a heartbeat was asked for; then StreamStarted comes at once, but a panel's
        comes with the content.
        The last event is StreamCompleted, or StreamInterrupted when content was sent and an error follows.

        Raises:
            TrunklineError.
        """
        return self._events(request.spec, request.idempotency_key, request.stream_options, call)

    async def unary(
        self, spec: CompletionSpec, idempotency_key: str, call: Call
    ) -> CompleteUnaryResponse:
        """The finished answer. Raises: TrunklineError."""
        response = CompleteUnaryResponse()
        # Nothing comes, so there is nothing at which it could be left before its end.
        async for _ in self._events(spec, idempotency_key, _UNARY, call, response.completion):
            pass
        return response

    async def preview(self, request: PreviewRouteRequest, call: Call) -> PreviewRouteResponse:
        """Who would be asked, best first, and who not and why; or who was, for an earlier request.

        Raises:
            RequestError.
        """
        caller = await self.enter(call, Scope.COMPLETE)
        if request.request_id:
            return self._review(request, caller.key_id)
        spec = request.spec
        if not spec.messages:  # A decision needs none.
            spec = CompletionSpec(messages=[_ANY_MESSAGE])
            spec.MergeFrom(request.spec)
        check_spec(spec)
        if self._preparation.is_needed(spec, caller):
            spec = await self._preparation.previewed(spec, caller)
        plan = self._router.plan(spec, call.request_id)
        prompt = Prompt(spec=spec, stream=True)
        now_s = asyncio.get_running_loop().time()
        return _preview(plan, lambda candidate: self._exclusion(candidate, prompt, now_s))

    def _review(self, request: PreviewRouteRequest, key_id: str) -> PreviewRouteResponse:
        """The decision as it was made."""
        if request.HasField("spec"):
            raise InvalidRequest("spec", "either a spec or the id of an earlier request")
        if len(request.request_id) > MAX_REQUEST_ID_CHARS:
            raise InvalidRequest("request_id", f"at most {MAX_REQUEST_ID_CHARS} characters")
        plan = self._decisions.find(key_id, request.request_id)
        if plan is None:
            raise NotFound("no decision of a request of yours with this id is remembered")
        return _preview(plan, lambda _: "")

    def _exclusion(self, candidate: Candidate, prompt: Prompt, now_s: float) -> str:
        if not self._upstream.circuits.allows(candidate, now_s):
            health = self._upstream.circuits.health(candidate)
            if health.breaker.state(now_s) is State.OPEN:
                return "the breaker is open"
            return "as busy as it can be" if health.is_full(now_s) else "cooling down or on trial"
        try:
            warnings = self._upstream.providers.warnings(candidate, prompt)
        except Unencodable as error:
            return f"can't express {error}"
        if warnings and prompt.spec.unsupported_policy == REJECT:
            return f"can't honour {warnings[0].field}"
        return ""

    async def _events(
        self,
        spec: CompletionSpec,
        idempotency_key: str,
        options: StreamOptions,
        call: Call,
        unary: Completion | None = None,
    ) -> AsyncGenerator[Batch, None]:
        """All events; none for a unary caller, whose answer is written into `unary` instead."""
        clock = asyncio.get_running_loop().time
        started_s = clock()
        record = RequestRecord(call.request_id, call.method, started_s, trace_id=call.trace_id)
        record.requested_model = spec.model
        record.reason = "CANCELLED"  # Until another end is known.
        completion_id = f"cmpl_{self._mint_id()}"
        size_bytes = spec.ByteSize()
        order = Order(spec, spec, options, call, unary, started_s, size_bytes, completion_id)
        entered: Pass | None = None
        answering: Answering | None = None
        try:
            # admit
            entered = await self._access.enter_completion(
                call.authorization,
                call.peer,
                call.headers,
                prompt_tokens(size_bytes) + output_tokens(spec),
                completion_id,
                call.key_id,
            )
            caller = entered.caller
            record.key_id = caller.key_id
            with await self.admission.admit(caller.criticality, size_bytes) as ticket:
                try:
                    key = self._idempotency_key(idempotency_key, call)
                    check_spec(spec, size_bytes)
                    _check_plan(spec, caller)
                    deadline = _deadline(call, started_s, unary is not None, caller)
                    # remember, choose
                    given = await self._choose(order, caller, deadline, key)
                    if given is not None:
                        record.reason = "OK"
                        if unary is None:
                            yield replayed(given, options)
                        else:
                            unary.CopyFrom(given)
                        return
                    # answer
                    bill = order.bill
                    answering = self._begin(order, caller, deadline)
                    if options.HasField("heartbeat_interval") and order.plan.panel is None:
                        # A panel's head tells the route that serves: it waits for the first heartbeat.
                        yield [answering.report.started()]
                    async with aclosing(answering.batches) as batches:
                        async for batch in batches:
                            batch = answering.pass_on(batch, clock)
                            # Before it is passed on: what a caller has seen is charged, whatever happens next.
                            is_outgrown = bill is not None and bill.is_outgrown(answering.hops[-1])
                            if unary is None and batch:
                                ticket.is_sending = True
                                yield batch
                                ticket.is_sending = False
                                if ticket.is_due:
                                    raise ticket.take()
                            if bill is None or not is_outgrown:
                                continue
                            if not await bill.extend():
                                ended = answering.end_for_lack_of_credits()
                                if unary is None and ended:
                                    yield ended
                                break
                    # settle
                    last = await self._settle(order, answering, caller)
                    record.reason = "OK"
                    if unary is None:
                        yield last
                except asyncio.CancelledError:
                    if (expulsion := ticket.expulsion()) is not None:
                        raise expulsion from None
                    if call.timeout_s is not None and clock() - started_s >= call.timeout_s:
                        # The gRPC library ends a call that is out of time by cancelling it, sometimes before we do.
                        record.reason = DeadlineExceeded.reason
                    raise
        except Exception as error:
            record.reason = error.reason if isinstance(error, TrunklineError) else "INTERNAL_ERROR"
            if answering is not None:
                turns = answering.turns
                if isinstance(error, ServiceError) and turns is not None and turns.has_effects:
                    error.is_repeatable = False
                if (last := answering.interrupted()) and unary is None:
                    yield last
            raise
        finally:
            try:
                if answering is not None:
                    answering.leave(record)
                else:
                    record.route = order.plan.route
                if order.bill is not None:
                    billed = [] if answering is None else answering.billed
                    used = Usage() if answering is None else answering.report.used(billed)
                    order.bill.settle_later(used, billed, record.reason)
            finally:  # Whatever becomes of the bill: a place that is not given back is renewed for ever.
                order.give_back()
                if entered is not None:
                    entered.leave(record.input_tokens + record.output_tokens)
                self._upstream.telemetry.record(record, clock())

    async def _settle(self, order: Order, answering: Answering, caller: Caller) -> Batch:
        """The answer is whole: write it down, remember it, charge it.

        Returns the last batch. Raises: StorageUnavailable.
        """
        unary, options, prepared = order.unary, order.options, order.prepared
        last = CompleteResponse()
        completion = last.completed.completion if unary is None else unary
        if answering.follow_ups is not None:
            wait_s = FOLLOW_UPS_S if unary is None else 0.0
            completion.follow_ups.extend(await answering.follow_ups.found(wait_s))
        turns, report, billed = answering.turns, answering.report, answering.billed
        report.fill(
            completion,
            answering.hops,
            billed,
            turns,
            answering.fold,
            asyncio.get_running_loop().time() - order.started_s,
            answering.first_token_s,
        )
        if answering.shape is not None:
            completion.warnings.extend(answering.shape.warnings)
        if prepared is not None:
            await prepared.remember(completion)
        if turns is not None:
            self._kept.keep(caller.key_id, order.asked, turns.open_calls, turns.transcript)
        if order.bill is not None:
            await order.bill.settle(report.used(billed), billed, completion)
        if order.miss is not None:
            await order.miss.store(completion)
        if answering.keeps and not options.include_final_messages and unary is None:
            forget_messages(completion)
        if options.include_usage_updates:
            return [CompleteResponse(usage_update=UsageUpdate(usage=report.usage)), last]
        return [last]

    async def _choose(
        self,
        order: Order,
        caller: Caller,
        deadline: Deadline,
        key: str,
    ) -> Completion | None:
        """Fill in an order: how the request is understood, who is asked, and what is held for it.

        Returns an answer that is there already: of its idempotency key, or from the cache.
        """
        asked, call = order.asked, order.call
        prepared: Prepared | None = None
        chooser: ServerTool | None = None
        unasked: frozenset[str] = NOTHING
        spec = asked
        billing = self._billing if caller.organization else None
        key_fingerprint = fingerprint(asked) if key else b""
        if key and asked.conversation_id and billing is not None:
            # The conversation has gone on since then: understood anew, the request might be refused.
            earlier = await billing.replay(caller, key, key_fingerprint)
            if earlier is not None:
                return _replay(earlier, call)
        if self._preparation.is_needed(asked, caller):
            is_job = bool(call.key_id)
            prepared = order.prepared = await self._preparation.prepare(
                asked, caller, deadline.at_s, is_job=is_job
            )
            spec, unasked, chooser = prepared.spec, prepared.unasked, prepared.chooser
        spec = self._kept.restored(caller.key_id, spec)
        spec, tuned_too = tuned(spec)
        order.unasked = unasked | tuned_too if unasked else tuned_too
        order.box = toolbox(spec, self._tools, chooser)
        if order.box is not None or spec is not asked:
            # What was said before, instructions and tools are read, and paid for, as what the caller sent.
            order.size_bytes = (spec if order.box is None else order.box.spec).ByteSize()
        plan = self._router.plan(spec, call.request_id, whole=order.unary is not None)
        order.spec, order.plan = spec, plan
        _check_route(plan, caller, spec)
        self._decisions.keep(caller.key_id, call.request_id, plan)
        hit: Hit | None = None
        if prepared is not None and prepared.subject is not None:
            found = await self._preparation.cache.look(prepared.subject, deadline.at_s)
            if isinstance(found, Hit):
                hit = found
            else:
                order.miss = found
        if billing is not None:
            if hit is None:
                order.plan = plan = billing.payable(caller, plan)
            opened = await billing.open(
                caller=caller,
                spec=spec,
                plan=plan,
                completion_id=order.completion_id,
                request_id=call.request_id,
                size_bytes=order.size_bytes,
                idempotency_key=key,
                key_fingerprint=key_fingerprint,
                is_free=hit is not None,
            )
            if isinstance(opened, Completion):
                return _replay(opened, call)
            order.bill = opened
        if hit is None:
            return None
        total_s = asyncio.get_running_loop().time() - order.started_s
        again = given_again(hit, order.completion_id, call.request_id, asked, total_s)
        if order.bill is not None:
            await order.bill.settle(again.usage, (), again, is_cached=True)
        call.headers.append((CACHE_HEADER, hit.kind))
        if again.HasField("panel"):
            call.headers.append((PANEL_HEADER, again.panel.route))
        return again

    def _idempotency_key(self, key: str, call: Call) -> str:
        """The request's key; empty where it has none."""
        header = call.idempotency_key
        if not key and not header:
            return ""
        if key and header and key != header:
            raise InvalidRequest("idempotency_key", "differs from the idempotency-key header")
        key = key or header
        if len(key) > MAX_IDEMPOTENCY_KEY_CHARS or not key.isprintable():
            raise InvalidRequest(
                "idempotency_key", f"at most {MAX_IDEMPOTENCY_KEY_CHARS} printable characters"
            )
        if key and self._billing is None:
            # Ignoring it would be a broken promise: the caller counts on being charged once.
            raise NotSupported("idempotency keys need [accounts]", field="idempotency_key")
        return key

    def _begin(self, order: Order, caller: Caller, deadline: Deadline) -> Answering:
        """All that gives the answer. Nobody is asked before it is read, but for follow-ups."""
        spec = order.spec if order.box is None else order.box.spec
        new_hop = self._hops(order, deadline)
        new_turns = None if order.box is None else self._turns(order, order.box, deadline)
        turns: Turns | None = None
        panel: Panel | None = None
        follow_ups: FollowUps | None = None
        if order.plan.panel is not None:
            panel = self._panel(order, spec, caller, deadline, new_hop, new_turns)
            hops, batches = panel.hops, panel.batches()
        else:
            if new_turns is None:
                hop = new_hop(spec, order.plan, 0)
                hops, batches = [hop], hop.batches()
            else:
                turns = new_turns(spec, order.plan, new_hop)
                hops, batches = turns.hops, turns.batches()
            if order.prepared is not None:
                follow_ups = self._follow_ups(order, order.prepared, new_hop)
        answering = Answering(order, batches, hops, turns, panel, follow_ups, self._mint_id)
        if follow_ups is not None:
            follow_ups.start()
        return answering

    def _hops(self, order: Order, deadline: Deadline) -> NewHop:
        """Makes the model turns of one answer."""
        call, whole, unasked = order.call, order.unary is not None, order.unasked

        def new_hop(spec: CompletionSpec, plan: Plan, number: int, is_member: bool = False) -> Hop:
            # A member's answer is read as a stream, so that it can be left half-way and silence is noticed; but nobody
            # sees it, so that one which breaks off simply starts again.
            is_unseen = whole or is_member
            streams = is_member or _streams(spec, plan, whole)
            prompt = Prompt(
                spec, streams, call.traceparent, call.tracestate, unasked, merges=is_unseen
            )
            limits = _limits(spec, plan, is_unseen)
            hop_id = f"{order.completion_id}.{number}"
            is_paid_for = None if order.bill is None else order.bill.again
            return Hop(self._upstream, plan, prompt, deadline, limits, hop_id, number, is_paid_for)

        return new_hop

    def _turns(self, order: Order, box: Toolbox, deadline: Deadline) -> NewTurns:
        """Makes the loop over the turns of an answer."""
        bill, prepared = order.bill, order.prepared
        budget = NO_BUDGET if prepared is None else prepared.budget
        skills = () if prepared is None else prepared.skills
        context = ToolContext(order.completion_id, order.call.request_id, box.spec.session_id)

        async def is_paid_for(hop: Hop, spec: CompletionSpec) -> bool:
            return bill is None or await bill.next_hop(hop, spec.ByteSize())

        def new_turns(
            spec: CompletionSpec, plan: Plan, new_hop: Callable[[CompletionSpec, Plan, int], Hop]
        ) -> Turns:
            return Turns(
                box=replace(box, spec=spec),
                tools=self._tools,
                plan=plan,
                deadline=deadline,
                new_hop=new_hop,
                context=context,
                is_paid_for=is_paid_for,
                budget=budget,
                skills=skills,
            )

        return new_turns

    def _follow_ups(self, order: Order, prepared: Prepared, new_hop: NewHop) -> FollowUps | None:
        """What asks for them; None where nobody wants them, or nobody could be asked."""
        mode, asked, bill = prepared.mode, order.asked, order.bill
        question = text_of(last_user_message(asked))
        bounds_cost = asked.constraints.HasField("max_cost_nanos")
        if mode is None or not mode.offers_follow_ups or not question or bounds_cost:
            return None
        spec = follow_up_spec(question)
        spec.constraints.CopyFrom(asked.constraints)
        spec.intent.region = asked.intent.region
        try:
            usual = self._router.plan(spec, order.call.request_id)
        except RequestError:
            usual = order.plan
        hosted = tuple(c for c in usual.candidates if not c.embedded)
        if not hosted:
            return None

        async def is_paid_for(plan: Plan, spec: CompletionSpec) -> bool:
            return bill is None or await bill.also(plan, spec)

        return FollowUps(spec, replace(usual, candidates=hosted), new_hop, is_paid_for)

    def _panel(
        self,
        order: Order,
        spec: CompletionSpec,
        caller: Caller,
        deadline: Deadline,
        new_hop: NewHop,
        new_turns: NewTurns | None,
    ) -> Panel:
        call, plan, bill = order.call, order.plan, order.bill
        settled_at_s: float | None = None
        if order.unary is None:
            settled_at_s = order.started_s + _settle_s(order.options, self._settle_s)

        def tell(route: str) -> None:
            call.headers[:] = [h for h in call.headers if h[0] != PANEL_HEADER]
            call.headers.append((PANEL_HEADER, route))

        def wider(route: str) -> Plan | None:
            try:
                found = self._router.plan(
                    spec, call.request_id, whole=settled_at_s is None, route=route
                )
                _check_route(found, caller, spec, plan)
                if bill is not None and self._billing is not None:
                    found = self._billing.payable(caller, found)
            except RequestError:
                return None  # Not for this caller: it keeps the answer that it has.
            return found

        async def is_paid_for(wider: Plan) -> bool:
            return bill is None or await bill.widen(wider, order.size_bytes)

        tell(plan.route)
        return Panel(
            plan=plan,
            spec=spec,
            deadline=deadline,
            new_hop=new_hop,
            new_turns=new_turns,
            wider=wider,
            is_paid_for=is_paid_for,
            similarity=self._similarity,
            tell=tell,
            settled_at_s=settled_at_s,
            seed=order.completion_id,
        )


def _replay(earlier: Completion, call: Call) -> Completion:
    """An answer that was given before, with headers that say so."""
    call.headers.append(REPLAYED)
    if earlier.HasField("panel"):
        call.headers.append((PANEL_HEADER, earlier.panel.route))
    return earlier


NO_BUDGET: Final = LoopBudget()
_UNARY: Final = StreamOptions()
_ANY_MESSAGE: Final = Message(role=Role.ROLE_USER, parts=[Part(text="?")])


def _check_plan(spec: CompletionSpec, caller: Caller) -> None:
    """Does the caller's plan have what is asked for by name?"""
    plan = caller.plan
    if plan.routes is not None and (spec.model or AUTO) not in plan.routes:
        raise RouteNotAllowed(f"the plan {plan.id!r} does not have this model or route")
    if plan.routes is not None and not plan.routes.issuperset(spec.model_overrides.values()):
        raise RouteNotAllowed(
            f"the plan {plan.id!r} does not have all of these models", field="spec.model_overrides"
        )
    if plan.modes is not None and (spec.mode or AUTO) not in plan.modes:
        raise RouteNotAllowed(f"the plan {plan.id!r} does not have this mode", field="spec.mode")


def _check_route(
    plan: Plan, caller: Caller, spec: CompletionSpec, earlier: Plan | None = None
) -> None:
    """Is the route for this caller's plan, and for such a request? `earlier`: the panel that is asked before it."""
    terms = caller.plan
    if plan.plans is not None and terms.id not in plan.plans:
        raise RouteNotAllowed(f"the plan {terms.id!r} does not have the route {plan.route!r}")
    if plan.panel is not None:
        if terms.routes is not None and plan.route not in terms.routes:
            raise RouteNotAllowed(f"the plan {terms.id!r} does not have the route {plan.route!r}")
        if plan.panel.mixes and spec.sampling.candidate_count > 1:
            raise InvalidRequest("spec.sampling.candidate_count", "must be 1 with a panel")
        if spec.constraints.HasField("max_cost_nanos"):
            # The router has looked at each candidate; together they cost more.
            tokens = prompt_tokens(spec.ByteSize())
            plans = (plan,) if earlier is None else (earlier, plan)
            could = sum(worst_of(each, spec, tokens) for each in plans)
            if could > spec.constraints.max_cost_nanos:
                raise NoEligibleProvider(
                    f"too dear: the panel {plan.route!r} could cost {could} nanos"
                )


def _settle_s(options: StreamOptions, usual_s: float) -> float:
    """When the head of a stream may have to go out before there is content."""
    if options.HasField("heartbeat_interval"):
        interval = options.heartbeat_interval
        usual_s = min(usual_s, interval.seconds + interval.nanos / 1e9)
    return usual_s - SETTLE_EARLY_S


def _deadline(call: Call, now_s: float, whole: bool, caller: Caller) -> Deadline:
    limit_s = min(MAX_UNARY_S if whole else MAX_STREAM_S, caller.plan.max_deadline_s)
    if call.timeout_s is not None:
        if call.timeout_s <= 0:
            raise DeadlineExceeded
        limit_s = min(limit_s, call.timeout_s)
    return Deadline(now_s + limit_s)


def _streams(spec: CompletionSpec, plan: Plan, whole: bool) -> bool:
    """A unary caller who limits silence, or may be hedged, can be served only by watching the upstream's stream."""
    if not whole or plan.hedges:
        return True
    constraints = spec.constraints
    return constraints.HasField("first_token_timeout") or constraints.HasField("idle_timeout")


def _limits(spec: CompletionSpec, plan: Plan, whole: bool) -> Limits:
    refuses = spec.unsupported_policy == REJECT
    if not spec.HasField("constraints"):
        return Limits(whole=whole, recovery=plan.recovery, refuses_drops=refuses)
    constraints = spec.constraints
    first, idle = constraints.first_token_timeout, constraints.idle_timeout
    return Limits(
        max_attempts=constraints.max_attempts
        if constraints.HasField("max_attempts")
        else DEFAULT_MAX_ATTEMPTS,
        first_token_timeout_s=(first.seconds + first.nanos / 1e9) or None,
        idle_timeout_s=(idle.seconds + idle.nanos / 1e9) or None,
        whole=whole,
        recovery=constraints.recovery or plan.recovery,
        refuses_drops=refuses,
    )


def _preview(plan: Plan, exclusion: Callable[[Candidate], str]) -> PreviewRouteResponse:
    decision = plan.decision
    scores = decision.scores() if decision is not None else {}
    chosen: list[RouteCandidate] = []
    excluded = [_row(e.candidate, e.reason, None) for e in plan.excluded]
    for candidate in plan.candidates:
        reason = exclusion(candidate) or plan.demoted.get(candidate.key, "")
        row = _row(candidate, reason, scores.get(candidate.key))
        (excluded if reason else chosen).append(row)
    response = PreviewRouteResponse(
        candidates=chosen + excluded, resolved_mode=plan.resolved_mode, route=plan.route
    )
    if decision is not None:
        response.scores_run_id = decision.scores_run_id
        response.language = decision.language
        response.region = decision.region
        response.explored = decision.is_explored
    return response


def _row(candidate: Candidate, reason: str, score: Score | None) -> RouteCandidate:
    row = RouteCandidate(
        provider=candidate.provider,
        model=candidate.id,
        eligible=not reason,
        exclusion_reason=reason,
    )
    if score is not None:
        row.score, row.accuracy, row.latency, row.cost = (
            score.total,
            score.accuracy,
            score.latency,
            score.cost,
        )
    return row
