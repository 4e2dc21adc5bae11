"""A panel: several models asked at once, and one answer made of theirs.

Proposers answer side by side; when enough of them have, the rest is waited for a little and then ended. An aggregator
makes one answer of what they wrote, and its stream is the answer's stream. Where only one has answered, or the first
two say the same, there is nothing to aggregate: one of theirs is the answer. An answer that is not good enough is
dropped for that of a wider panel, as long as the caller has seen nothing of it.

Every model turn is a `Hop`, with failover of its own, and every one of them is paid for.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final, Protocol

from trunkline.v1.completion_event_pb2 import ChoiceFinished, CompleteResponse, StreamReset
from trunkline.v1.completion_pb2 import FinishReason
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.completion.attempts import CONTINUE, Batch, Hop
from trunkline_server.completion.judgement import Judgement
from trunkline_server.completion.panel_prompts import (
    aggregator_spec,
    critic_spec,
    critique_of,
    proposer_spec,
    room_chars,
    shuffled,
    text_bytes,
)
from trunkline_server.completion.turns import Turns
from trunkline_server.completion.verdict import verdict
from trunkline_server.core.agreement import (
    final_result,
    may_differ_in_topic,
    refuses,
    results_differ,
)
from trunkline_server.core.candidate import Capability, PanelPlan, Plan
from trunkline_server.core.claims import same_claims
from trunkline_server.core.deadline import Deadline
from trunkline_server.core.errors import (
    DeadlineExceeded,
    RequestError,
    StreamInterrupted,
    TrunklineError,
    UpstreamError,
)
from trunkline_server.core.failure import Failure
from trunkline_server.core.panels import Trigger
from trunkline_server.core.ports import Similarity

# How both were found, and that the first means little by itself, is in docs/decisions/0010.
AGREE: Final = 0.92  # Cosine from which two answers say the same, if they claim the same.
DISAGREE: Final = 0.15  # Mean cosine below which a panel is of different minds.
COMPARING_S: Final = 1.0  # To find that out. Until then nobody has begun to write the answer.
DEADLINE_SHARE: Final = 0.6  # Of the caller's time, that proposals may take at most.
CRITIQUE_S: Final = 10.0
CRITIQUE_SHARE: Final = 0.25  # Of the time that is left.
MAX_PROPOSAL_CHARS: Final = (
    256 * 1024
)  # An upstream that does not keep to the limit it was given is cut off.

PROPOSER: Final = "proposer"
CRITIC: Final = "critic"
AGGREGATOR: Final = "aggregator"
USED: Final = "used"
UNUSED: Final = "unused"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"

DISAGREEMENT: Final = Trigger.DISAGREEMENT


class NewHop(Protocol):
    """Makes a model turn."""

    def __call__(
        self, spec: CompletionSpec, plan: Plan, number: int, is_member: bool = False
    ) -> Hop:
        """Args: is_member: nobody but the panel sees its answer."""
        ...


# Of a spec, a plan, and what makes the hops: the turns of an answer with tools of the gateway's own.
NewTurns = Callable[[CompletionSpec, Plan, Callable[[CompletionSpec, Plan, int], Hop]], Turns]


@dataclass(slots=True, eq=False)
class Member:
    """One model turn of a panel.

    Attributes:
        layer: 0 for proposers, 1 for who reads what they wrote; a wider panel goes on counting.
        rank: its place among the proposers, the best first.
        status: used, unused, cancelled or failed.
        text: what it wrote, once it has ended well.
        is_usable: it gave an answer that another model can do something with.
    """

    hop: Hop
    role: str
    layer: int
    rank: int = 0
    status: str = CANCELLED
    events: Batch = field(default_factory=list)
    text: str = ""
    error: TrunklineError | None = None
    has_ended: bool = False
    is_usable: bool = False

    @property
    def has_answered(self) -> bool:
        """Did it come to its end, whatever it said?"""
        return self.has_ended and self.error is None


class Panel:
    """All turns of one answer. Iterate `batches`; `hops` has what was asked so far, the last one answers.

    Args:
        new_turns: for an answer that may use tools of the gateway's own; None where it may use none.
        wider: the plan of the route that a name stands for, if this caller may use it; else None.
        is_paid_for: may this plan be asked as well?
        tell: is told of the route that serves from now on.
        settled_at_s: from then on the caller of a stream may have been told which route serves. None: the caller sees
            nothing before the end.
        seed: of everything that is drawn.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        spec: CompletionSpec,
        deadline: Deadline,
        new_hop: NewHop,
        new_turns: NewTurns | None,
        wider: Callable[[str], Plan | None],
        is_paid_for: Callable[[Plan], Awaitable[bool]],
        similarity: Similarity,
        tell: Callable[[str], None],
        settled_at_s: float | None,
        seed: str,
    ) -> None:
        assert plan.panel is not None
        self.plan = plan
        self.requested_route = plan.route
        self.members: list[Member] = []
        self.hops: list[Hop] = []
        self.turns: Turns | None = None
        self.is_degraded = False
        self.stopped_early = False
        self.escalation_reason = ""
        self._panel: PanelPlan = plan.panel
        self._max_escalations = plan.panel.rules.max_escalations
        self._escalations = 0
        self._agreed: Member | None = None  # The better one of the two that say the same.
        self._is_shown = False
        self._dropped: tuple[Hop, Turns | None, Batch] | None = None  # Answers, the last of them.
        self._layer = 0
        self._spec = spec
        self._deadline = deadline
        self._new_hop = new_hop
        self._new_turns = new_turns
        self._wider = wider
        self._is_paid_for = is_paid_for
        self._similarity = similarity
        self._settled_at_s = settled_at_s
        self._tell = tell
        self._whole = settled_at_s is None
        self._seed = seed
        self._loop = asyncio.get_running_loop()
        # Whoever can't act can't say what an answer with actions would be.
        self._acts = bool(spec.tool_options.tools)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """The events of the answer, batch by batch. Nothing comes before it is settled which route serves.

        Raises:
            RequestError, ServiceError, StreamInterrupted: as a hop does.
        """
        try:
            is_answered = False
            while not is_answered:
                proposals = await self._proposals() if self._panel.mixes else []
                if await self._are_of_different_minds(proposals) and await self._escalate(
                    DISAGREEMENT
                ):
                    continue
                async with aclosing(self._judged(proposals)) as batches:
                    async for batch in batches:
                        if batch is None:
                            break
                        self._is_shown = not self._whole
                        yield batch
                    else:
                        is_answered = True
        except TrunklineError:
            if self._dropped is None or self._is_shown or self._acts:
                raise
            yield self._taken_up_again(*self._dropped)
        finally:
            for member in self.members:
                if not member.has_ended:
                    member.hop.abandon()

    # escalating

    @property
    def _may_escalate(self) -> bool:
        rules = self._panel.rules
        if not rules.escalate_to or self._escalations >= self._max_escalations:
            return False
        if self._spec.constraints.disable_escalation or self._spec.sampling.candidate_count > 1:
            return False
        return self._settled_at_s is None or self._loop.time() < self._settled_at_s

    async def _escalate(self, reason: Trigger) -> bool:
        """Ask the wider panel instead. False: it is not to be had."""
        if not self._may_escalate:
            return False
        plan = self._wider(self._panel.rules.escalate_to)
        if plan is None or plan.panel is None or not await self._is_paid_for(plan):
            return False
        if not self._may_escalate:  # The time for it has passed meanwhile.
            return False
        for member in self.members:
            if member.status == USED:
                member.status = UNUSED
        self.plan, self._panel = plan, plan.panel
        self.turns = None
        self.is_degraded = self.stopped_early = False
        self.escalation_reason = reason.value
        self._tell(plan.route)
        self._escalations += 1
        self._layer += 2
        return True

    async def _judged(self, proposals: Sequence[Member]) -> AsyncGenerator[Batch | None, None]:
        """The answer; None in the end of one that is dropped for that of a wider panel.

        It is held back for as long as it can be dropped, unless the caller sees nothing of it anyway.
        """
        judgement: Judgement | None = None
        hop: Hop | None = None
        triggers = self._panel.rules.escalate_on
        strips = Trigger.UNCERTAIN in triggers and not self._spec.sampling.logprobs
        if self._may_escalate:
            judgement = Judgement(self._spec, triggers, whole=self._whole)
        try:
            async with aclosing(self._answer(proposals)) as batches:
                async for batch in batches:
                    if judgement is not None:
                        if hop is not self.hops[-1]:
                            hop = self.hops[-1]
                            judgement.void()
                        judgement.add(batch)
                    if strips:
                        _strip(batch)
                    if judgement is not None:
                        judgement.hold(batch)
                    if judgement is None or self._whole:
                        yield batch
                        continue
                    if judgement.is_made or not self._may_escalate:
                        doubt = judgement.doubt(None)
                        if doubt is not None and await self._escalate(doubt):
                            yield None
                            return
                        for held in judgement.held:
                            yield held
                        judgement = None
        except TrunklineError:
            # It broke off: the caller gets what there is of it, as from one model.
            if judgement is not None and not self._whole:
                for held in judgement.held:
                    yield held
            raise
        if judgement is None:
            return
        hop, turns = self.hops[-1], self.turns
        doubt = judgement.doubt(hop.served.facts.finishes)
        if doubt is not None and await self._escalate(doubt):
            self._dropped = hop, turns, [event for held in judgement.held for event in held]
            yield None
            return
        if self._whole:
            return
        for held in judgement.held:
            yield held

    async def _are_of_different_minds(self, proposals: Sequence[Member]) -> bool:
        if DISAGREEMENT not in self._panel.rules.escalate_on or not self._may_escalate:
            return False
        texts = [member.text for member in proposals if member.is_usable]
        if len(texts) < 2:
            return False
        if results_differ(texts):
            return True
        known: list[float] = []
        try:
            async with asyncio.timeout(COMPARING_S):
                for first, second in combinations(texts, 2):
                    cosine = (
                        await self._similarity.cosine(first, second)
                        if may_differ_in_topic(first, second)
                        else 1.0
                    )
                    if cosine is not None:
                        known.append(cosine)
        except TimeoutError:
            return False
        return bool(known) and sum(known) / len(known) < DISAGREE

    # proposing

    async def _proposals(self) -> list[Member]:
        """Ask all proposers, until enough of them have answered. Best first; those that have not are left out.

        Raises:
            TrunklineError: nobody has answered.
        """
        rules, plans = self._panel.rules, self._panel.proposers
        began_s = self._loop.time()
        left_s = self._deadline.remaining_s(began_s)
        until_s = began_s + min(rules.deadline_s, DEADLINE_SHARE * left_s)
        meant = [plan.candidates[0].key for plan in plans]
        resamples = len(set(meant)) < len(meant)
        asked = proposer_spec(self._spec, rules.proposal_tokens, resamples=resamples)
        proposers = [self._join(asked, plan, PROPOSER, rank) for rank, plan in enumerate(plans)]
        running = {self._loop.create_task(self._ask(member)): member for member in proposers}
        try:
            await self._quorum(running, proposers, began_s, until_s)
        finally:
            # At once, before anything is waited for: whoever is cancelled here may be cancelled again.
            for task, member in running.items():
                task.cancel()
                if not member.has_ended:  # Else it is whole since the last look, and paid for.
                    member.hop.abandon()
            if running:
                await asyncio.wait(running)
        _raise_bugs(running)
        usable = [member for member in proposers if member.is_usable]
        if self.stopped_early:
            # One that ranks higher may have come while they were compared, and it may say something else.
            usable.sort(key=lambda member: member is not self._agreed)
        if usable:
            return usable
        answered = [member for member in proposers if member.has_answered]
        if not answered:
            raise self._nobody(proposers)
        return answered

    async def _quorum(
        self,
        running: dict[asyncio.Task[None], Member],
        proposers: Sequence[Member],
        began_s: float,
        until_s: float,
    ) -> None:
        """Wait for enough of them, and a little for the rest. Those that still run are left in `running`."""
        rules = self._panel.rules
        is_compared = not rules.stops_early or self._acts
        is_quorate = is_late = False
        while running:
            timeout_s = until_s - self._loop.time()
            if timeout_s <= 0:
                if is_late or any(member.has_answered for member in proposers):
                    return
                # Whoever has begun may take as long again: one slow answer is better than none at all.
                is_late = True
                until_s = min(self._deadline.at_s, self._loop.time() + rules.deadline_s)
                await _leave_silent(running)
                continue
            done, _ = await asyncio.wait(
                running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                del running[task]
                task.result()
            usable = [member for member in proposers if member.is_usable]
            if is_late and usable:
                return
            if not is_compared and len(usable) >= 2:
                is_compared = True
                if await self._agree(usable[0].text, usable[1].text):
                    self.stopped_early = True
                    self._agreed = usable[0]
                    return
            if not is_quorate and len(usable) >= self._panel.quorum:
                is_quorate = True
                now_s = self._loop.time()
                grace_s = min(rules.grace_share * (now_s - began_s), rules.grace_s)
                until_s = min(until_s, now_s + grace_s)

    async def _ask(self, member: Member) -> None:
        """Read one turn to its end. Its outcome is in the member."""
        hop = member.hop
        try:
            async with aclosing(hop.batches()) as batches:
                async for batch in batches:
                    if batch and batch[0].HasField("stream_reset"):
                        member.events.clear()
                        batch = batch[1:]
                    member.events += batch
                    answer = hop.served.answer
                    if answer is None or answer.is_complete:
                        continue
                    if answer.output_chars > MAX_PROPOSAL_CHARS:
                        _cut(member)
                        break
        except TrunklineError as error:
            member.error = error
            member.status = FAILED
            member.has_ended = True
            hop.abandon()
            return
        # Of an event of another kind this is empty, and asking for its kind would cost as much again.
        member.text = text = "".join([event.text_delta.text for event in member.events])
        member.is_usable = bool(text) and not text.isspace() and not refuses(text)
        member.status = UNUSED
        member.has_ended = True

    def _nobody(self, proposers: Sequence[Member]) -> TrunklineError:
        """As one model would fail. What one of them says of the request counts before what befell another."""
        errors = [member.error for member in proposers if member.error is not None]
        if errors:
            return next((e for e in errors if isinstance(e, RequestError)), errors[0])
        if self._deadline.remaining_s(self._loop.time()) <= 0:
            return DeadlineExceeded()
        attempts = [attempt for member in proposers for attempt in member.hop.attempts]
        slow = UpstreamError(Failure.SLOW, "no proposal in time")
        return verdict([slow], attempts, proposers[0].hop.plan.candidates[0].provider, False)

    # answering

    async def _answer(self, proposals: Sequence[Member]) -> AsyncGenerator[Batch, None]:
        """One model's answer, that of the only one or of the aggregator; or a proposal as it is."""
        panel = self._panel
        if not panel.mixes:
            self.is_degraded = panel.rules.mixes  # The others may not answer this request.
            async with aclosing(self._turn(self._spec, panel.proposers[0], PROPOSER)) as batches:
                async for batch in batches:
                    yield batch
            return
        has_quorum = len(proposals) >= panel.quorum or self.stopped_early
        self.is_degraded = not has_quorum
        is_single = len(proposals) < 2 or not proposals[0].is_usable
        if self.stopped_early or (is_single and not self._acts):
            yield self._as_it_is(proposals[0])
            return
        spec = await self._aggregated(proposals)
        for member in proposals:
            member.status = USED
        is_shown = False
        try:
            async with aclosing(self._turn(spec, panel.aggregator, AGGREGATOR)) as batches:
                async for batch in batches:
                    is_shown = True
                    yield batch
        except StreamInterrupted:
            raise
        except TrunklineError:
            if (is_shown and not self._whole) or self._acts:
                raise
            # What is there already is better than nothing.
            self.is_degraded = True
            for member in proposals:
                member.status = UNUSED
            yield self._as_it_is(proposals[0])

    async def _turn(
        self, spec: CompletionSpec, plan: Plan, role: str
    ) -> AsyncGenerator[Batch, None]:
        """A turn that the caller sees, and those that follow it when its model uses tools of the gateway's own."""
        layer = self._layer + (role == AGGREGATOR)
        joined: list[Member] = []
        asks = self._asks_for_logprobs(plan)
        if asks:
            doubted, spec = spec, CompletionSpec()
            spec.CopyFrom(doubted)
            spec.sampling.logprobs = True

        def new_hop(spec: CompletionSpec, plan: Plan, _: int) -> Hop:
            member = self._enter(self._new_hop(spec, plan, len(self.hops)), role, layer)
            joined.append(member)
            return member.hop

        turns = self._new_turns(spec, plan, new_hop) if self._new_turns is not None else None
        self.turns = turns
        source = turns.batches() if turns is not None else new_hop(spec, plan, 0).batches()
        try:
            async with aclosing(source) as batches:
                async for batch in batches:
                    yield batch
        except TrunklineError:
            for member in joined:
                member.status = FAILED if not member.hop.shown else UNUSED
            raise
        finally:
            for member in joined:
                member.has_ended = True
                if member.status == CANCELLED and member.hop.shown and member.hop.served.is_whole:
                    member.status = USED

    def _taken_up_again(self, hop: Hop, turns: Turns | None, events: Batch) -> Batch:
        """The answer that was dropped for that of a wider panel, which came to nothing."""
        self.is_degraded = True
        self.stopped_early = False
        self.turns = turns
        for member in self.members:
            if member.hop is hop:
                member.status = USED
            elif member.status == USED:
                member.status = UNUSED
        self.hops.remove(hop)
        self.hops.append(hop)
        # Who folds the answer for a caller that sees nothing before the end has it already, or part of another one.
        return [CompleteResponse(stream_reset=StreamReset()), *events] if self._whole else events

    def _asks_for_logprobs(self, plan: Plan) -> bool:
        """Are they wanted to tell how certain an answer is, although the caller did not ask for them?"""
        if Trigger.UNCERTAIN not in self._panel.rules.escalate_on or not self._may_escalate:
            return False
        if (self._spec.constraints.recovery or plan.recovery) == CONTINUE:
            return False  # An answer that has them can't be taken up by another model.
        can = all(Capability.LOGPROBS in c.capabilities for c in plan.candidates)
        return can and not self._spec.sampling.logprobs

    def _as_it_is(self, proposal: Member) -> Batch:
        """A proposal is the answer: its turn becomes the last one."""
        proposal.status = USED
        self.turns = None
        self.hops.remove(proposal.hop)
        self.hops.append(proposal.hop)
        return proposal.events

    async def _aggregated(self, proposals: Sequence[Member]) -> CompletionSpec:
        """What the aggregator is asked, after a critique where there is to be one."""
        plan = self._panel.aggregator
        window = plan.candidates[0].context_window_tokens
        room = room_chars(window, text_bytes(self._spec), len(proposals))
        texts = shuffled([member.text for member in proposals], f"{self._seed}.{self._layer}")
        critique = ""
        if self._panel.rules.critiques and len(texts) > 1:
            asked = critic_spec(self._spec, texts, f"{self._seed}.critic", room)
            critique = await self._critique(self._join(asked, plan, CRITIC, layer=self._layer + 1))
        return aggregator_spec(self._spec, texts, critique, self._seed, room)

    async def _critique(self, critic: Member) -> str:
        """What it has found; empty where it has nothing that can be read, or not in time."""
        left_s = self._deadline.remaining_s(self._loop.time())
        timeout_s = min(CRITIQUE_S, CRITIQUE_SHARE * max(0.0, left_s))
        task = self._loop.create_task(self._ask(critic))
        try:
            await asyncio.wait([task], timeout=timeout_s)
        finally:
            if not task.done():
                # Before it is cancelled: after that nobody knows any more what had begun and has to be paid for.
                critic.hop.abandon()
                task.cancel()
                await asyncio.wait([task])
        if task.cancelled():
            return ""
        task.result()
        found = critique_of(critic.text)
        if found:
            critic.status = USED
        return found

    # members

    def _join(
        self, spec: CompletionSpec, plan: Plan, role: str, rank: int = 0, layer: int | None = None
    ) -> Member:
        """A turn whose answer the caller does not see as it comes."""
        hop = self._new_hop(spec, plan, len(self.hops), is_member=True)
        member = self._enter(hop, role, self._layer if layer is None else layer)
        member.rank = rank
        return member

    def _enter(self, hop: Hop, role: str, layer: int) -> Member:
        member = Member(hop, role, layer)
        self.hops.append(hop)
        self.members.append(member)
        return member

    async def _agree(self, first: str, second: str) -> bool:
        results = final_result(first), final_result(second)
        if results[0] != results[1]:
            return False
        if first.strip() == second.strip():
            return True
        is_same = same_claims(first, second)
        if is_same is not None:
            return is_same
        cosine = await self._similarity.cosine(first, second)
        return cosine is not None and cosine >= AGREE


def _cut(member: Member) -> None:
    """End a turn that does not end by itself. Should it become the answer, its caller is told so."""
    finishes = member.hop.served.facts.finishes
    if not finishes:
        finished = ChoiceFinished(finish_reason=FinishReason.FINISH_REASON_LENGTH)
        finishes.append(finished)
        member.events.append(CompleteResponse(choice_finished=finished))


def _strip(batch: Batch) -> None:
    """Log-probabilities that the caller did not ask for."""
    for event in batch:
        if event.HasField("text_delta") and event.text_delta.logprobs:
            event.text_delta.ClearField("logprobs")


async def _leave_silent(running: dict[asyncio.Task[None], Member]) -> None:
    """End those that have said nothing yet."""
    silent = {task: member for task, member in running.items() if not member.hop.shown}
    for task, member in silent.items():
        task.cancel()
        member.hop.abandon()
    if silent:
        await asyncio.wait(silent)
    for task in silent:
        del running[task]
    _raise_bugs(silent)


def _raise_bugs(ended: Iterable[asyncio.Task[None]]) -> None:
    """A member's own failures are in it: whatever else ended its task must not be lost."""
    for task in ended:
        if not task.cancelled():
            task.result()
