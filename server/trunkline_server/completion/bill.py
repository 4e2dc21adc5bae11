"""What one completion costs, from what it may cost at most to what it did.

A bill is opened when the plan is known and before anything is sent. While the answer comes, the bill notes how far it
is, and holds more when an answer without a limit of its own outgrows what was foreseen. In the end it is settled.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from trunkline.v1.completion_pb2 import Completion, Usage
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.accounts.audit import AuditRecord
from trunkline_server.accounts.books import Books, Tab
from trunkline_server.accounts.budgets import Budgets
from trunkline_server.accounts.idempotency import KEPT_US, MAX_RESPONSE_BYTES, Claim, Replay
from trunkline_server.accounts.ledger import MAX_NANOS, Hold, Outcome, Payer
from trunkline_server.completion.attempts import Hop
from trunkline_server.completion.metering import estimated_input_tokens, usage_of_attempts
from trunkline_server.completion.panel_prompts import (
    CRITIQUE_TOKENS,
    FRAME_TOKENS,
    draft_tokens,
)
from trunkline_server.core.candidate import Candidate, Plan
from trunkline_server.core.errors import NoEligibleProvider, StorageUnavailable
from trunkline_server.core.plans import Caller
from trunkline_server.core.pricing import TOKENS_PER_PRICE
from trunkline_server.core.usage import CHARS_PER_TOKEN

BYTES_PER_TOKEN: Final = (
    3  # Fewer than any tokeniser needs on average, so that a hold is rarely too small.
)
PROMPT_SPARE_TOKENS: Final = 64
BLOCK_TOKENS: Final = 4_096  # Held at a time for an answer without a limit.
EXTEND_AT: Final = 0.8
MAX_ID_CHARS: Final = 256
SALT_BYTES: Final = 16
UNPRICED: Final = "no price is known for any model that could answer"
_NOTHING: Final = Usage()


def prompt_tokens(size_bytes: int) -> int:
    """An upper estimate, from the size of the whole request."""
    return size_bytes // BYTES_PER_TOKEN + PROMPT_SPARE_TOKENS


def output_tokens(spec: CompletionSpec) -> int:
    """What an answer may have at most, or the first block of one that has no limit."""
    if not spec.HasField("sampling"):
        return BLOCK_TOKENS
    sampling = spec.sampling
    limit = sampling.max_output_tokens if sampling.HasField("max_output_tokens") else BLOCK_TOKENS
    return int(limit) * max(1, int(sampling.candidate_count))


def fingerprint(spec: CompletionSpec) -> bytes:
    """The same for the same request, and for no other one."""
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).digest()


class Bill:
    """Of one completion."""

    __slots__ = (
        "_base_chars",
        "_books",
        "_caller",
        "_candidates",
        "_chars",
        "_earlier",
        "_input_tokens",
        "_key",
        "_limit_chars",
        "_spec",
        "_tab",
    )

    def __init__(
        self,
        books: Books,
        tab: Tab,
        caller: Caller,
        spec: CompletionSpec,
        key: str,
        candidates: Sequence[Candidate],
    ) -> None:
        self._books = books
        self._tab = tab
        self._caller = caller
        self._spec = spec
        self._key = key
        self._candidates = candidates
        self._base_chars = 0
        self._chars = 0
        self._earlier = Usage()
        self._input_tokens = 0
        self._limit_chars = _limit_chars(spec)

    @property
    def has_key(self) -> bool:
        """Is the answer to be kept for an idempotency key?"""
        return bool(self._key)

    def begins(self, hops: Sequence[Hop]) -> None:
        """Somebody has begun to answer: the last of these."""
        served = hops[-1].served
        candidate = served.candidate
        price = candidate.price
        # Earlier turns, and of this one whoever broke off.
        before = [(hop, attempt) for hop in hops for attempt in hop.billed if attempt is not served]
        earlier = self._earlier = usage_of_attempts(before) if before else _NOTHING
        is_priced = earlier.HasField("cost") or not before
        nanos = earlier.cost.amount_nanos if is_priced else None
        # Whoever comes later reads more than the caller sent: what others wrote, or what tools brought.
        self._input_tokens = estimated_input_tokens(hops[-1].prompt.spec) if before else 0
        self._books.progress.answers(
            self._tab.slot,
            self._tab.hold.id,
            candidate.provider,
            candidate.id,
            (price.input_nanos, price.output_nanos, price.cached_input_nanos),
            (earlier.input_tokens, earlier.output_tokens, nanos),
        )

    def is_outgrown(self, hop: Hop) -> bool:
        """Note how far the answer is. Has it nearly used up what is held?"""
        attempt = hop.served
        chars = attempt.answer.output_chars if attempt.answer is not None else attempt.output_chars
        self._books.progress.count(self._tab.slot, self._input_tokens, 0, chars)
        self._chars = chars + self._base_chars
        return self._chars >= self._limit_chars

    async def extend(self) -> bool:
        """Hold as many more blocks as it takes. False: there are no credits for them.

        While the database is away an answer that runs goes on; what it costs beyond its hold is charged in the end.
        """
        block_chars = BLOCK_TOKENS * CHARS_PER_TOKEN
        blocks = int((self._chars - self._limit_chars) // block_chars) + 1
        self._limit_chars += blocks * block_chars
        try:
            amount = _worst(self._candidates, 0, blocks * BLOCK_TOKENS)
            return not amount or await self._tab.extend(amount)
        except StorageUnavailable:
            return True

    async def next_hop(self, hop: Hop, size_bytes: int) -> bool:
        """Hold what a further model turn may cost, before it is asked. False: there are no credits for it."""
        self._base_chars += hop.served.output_chars
        amount = _worst(hop.plan.candidates, prompt_tokens(size_bytes), output_tokens(self._spec))
        return not amount or await self._tab.extend(amount)

    async def again(self, hop: Hop) -> bool:
        """Hold what one more answer in this model turn may cost, before it is asked. False: it can't be held."""
        try:
            return await self.next_hop(hop, hop.prompt.spec.ByteSize())
        except StorageUnavailable:
            return False

    async def also(self, plan: Plan, spec: CompletionSpec) -> bool:
        """Hold what another model turn beside the answer may cost. False: it can't be held."""
        amount = worst_of(plan, spec, prompt_tokens(spec.ByteSize()))
        try:
            return not amount or await self._tab.extend(amount)
        except StorageUnavailable:
            return False

    async def widen(self, plan: Plan, size_bytes: int) -> bool:
        """Hold what a wider panel may cost, before it is asked. False: it can't be held."""
        amount = worst_of(plan, self._spec, prompt_tokens(size_bytes))
        try:
            if amount and not await self._tab.extend(amount):
                return False
        except StorageUnavailable:
            return False
        # Its answer has a hold of its own, and begins anew.
        self._candidates = (*self._candidates, *plan.candidates)
        self._base_chars = 0
        self._limit_chars = _limit_chars(self._spec)
        return True

    async def settle(
        self,
        usage: Usage,
        hops: Sequence[Hop],
        completion: Completion,
        *,
        is_cached: bool = False,
    ) -> None:
        """The answer is whole. `is_cached`: nobody was asked for it. Raises: StorageUnavailable."""
        self._note(usage)
        response = None
        if self._key:
            data = completion.SerializeToString()
            response = data if len(data) <= MAX_RESPONSE_BYTES else None
        outcome = self._outcome(usage, hops, "OK", response, is_cached=is_cached)
        await self._tab.settle(outcome, self._audit(outcome))

    def settle_later(self, usage: Usage, hops: Sequence[Hop], reason: str) -> None:
        """It ended in another way. Does nothing for a bill that is settled."""
        if self._tab.is_ended:
            return
        if not any(hop.attempts or hop.shown for hop in hops):
            self._tab.void_later(reason)
        else:
            self._note(usage)
            outcome = self._outcome(usage, hops, reason, None)
            self._tab.settle_later(outcome, self._audit(outcome))

    def _note(self, usage: Usage) -> None:
        """What was used, for who has to settle it if this process does not come to it."""
        earlier = self._earlier
        self._books.progress.count(
            self._tab.slot,
            max(0, usage.input_tokens - earlier.input_tokens),
            max(0, usage.output_tokens - earlier.output_tokens),
            0,
        )

    def _outcome(
        self,
        usage: Usage,
        hops: Sequence[Hop],
        reason: str,
        response: bytes | None,
        *,
        is_cached: bool = False,
    ) -> Outcome:
        billed = [attempt for hop in reversed(hops) for attempt in hop.billed]
        served = billed[0] if billed else None
        hold = self._tab.hold
        if served is None:
            cost: int | None = 0
        else:
            cost = usage.cost.amount_nanos if usage.HasField("cost") else None
        return Outcome(
            self._books.now_us(),
            cost if cost is None else min(cost, MAX_NANOS),
            reason,
            served.candidate.provider if served else "",
            served.candidate.id if served else "",
            hold.route,
            hold.mode,
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.estimated,
            is_cached=is_cached,
            response=response,
            idempotency_key=self._key,
        )

    def _audit(self, outcome: Outcome) -> AuditRecord | None:
        """Requests that carry metadata are written to the audit log."""
        hold, spec = self._tab.hold, self._spec
        if not spec.metadata_json:
            return None
        details = {
            "cost_nanos": outcome.cost,
            "input_tokens": outcome.input_tokens,
            "model": outcome.model,
            "output_tokens": outcome.output_tokens,
            "provider": outcome.provider,
            "reason": outcome.reason,
            "route": outcome.route,
        }
        return AuditRecord(
            outcome.now_us,
            "completion.created",
            self._caller.key_id,
            hold.payer.organization,
            "completion",
            hold.id,
            hold.request_id,
            json.dumps(details, separators=(",", ":")),
            spec.metadata_json,
            os.urandom(SALT_BYTES),
        )


def _limit_chars(spec: CompletionSpec) -> float:
    """From which an answer needs more than is held for it."""
    is_open = not spec.sampling.HasField("max_output_tokens")
    return EXTEND_AT * BLOCK_TOKENS * CHARS_PER_TOKEN if is_open else float("inf")


class Billing:
    """Opens bills."""

    def __init__(self, books: Books, budgets: Budgets) -> None:
        self._books = books
        self._budgets = budgets

    def payable(self, caller: Caller, plan: Plan) -> Plan:
        """Without the candidates whose price is unknown, where the caller's plan wants to know it.

        Raises:
            NoEligibleProvider.
        """
        terms = caller.plan
        if not (terms.is_prepaid and terms.refuses_unknown_price):
            return plan
        if all(_is_priced(c) for c in plan.candidates):
            return plan
        priced = _priced(plan)
        panel = plan.panel
        if panel is None:
            return priced
        proposers = [p for p in panel.proposers if any(_is_priced(c) for c in p.candidates)]
        if not proposers:
            raise NoEligibleProvider(UNPRICED)
        return replace(
            priced,
            panel=replace(
                panel,
                proposers=tuple(_priced(p) for p in proposers),
                aggregator=_priced(panel.aggregator),
                quorum=min(panel.quorum, len(proposers)),
            ),
        )

    async def replay(
        self, caller: Caller, idempotency_key: str, key_fingerprint: bytes
    ) -> Completion | None:
        """The answer that the key has already, before anything else is looked at.

        Raises:
            IdempotencyConflict, RequestInProgress, StorageUnavailable.
        """
        claim = Claim(idempotency_key, key_fingerprint, self._books.now_us() + KEPT_US)
        found = await self._books.replay(claim, caller.organization)
        return None if found is None else Completion.FromString(found.response)

    async def open(
        self,
        *,
        caller: Caller,
        spec: CompletionSpec,
        plan: Plan,
        completion_id: str,
        request_id: str,
        size_bytes: int,
        idempotency_key: str,
        key_fingerprint: bytes,
        is_free: bool = False,
    ) -> Bill | Completion:
        """Hold what the request may cost. A `Completion`: the answer that its idempotency key has already.

        Args:
            is_free: nobody is asked, so nothing is held.

        Raises:
            InsufficientCredits, BudgetExhausted, IdempotencyConflict, RequestInProgress, StorageUnavailable.
        """
        now_us = self._books.now_us()
        candidates = plan.candidates
        first = candidates[0]
        tokens = prompt_tokens(size_bytes)
        organization = caller.organization
        hold = Hold(
            completion_id,
            request_id,
            Payer(organization, caller.project, caller.key_id),
            self._books.owner,
            0 if is_free else worst_of(plan, spec, tokens),
            now_us,
            caller.plan.is_prepaid,
            self._budgets.claims(organization, caller.project, caller.key_id, now_us),
            size_bytes // CHARS_PER_TOKEN,
            first.price.input_nanos,
            first.price.output_nanos,
            first.price.cached_input_nanos,
            first.provider,
            first.id,
            plan.route,
            _storable(plan.resolved_mode),
            _storable(spec.end_user_id),
            _storable(spec.session_id),
            _labels(spec),
        )
        claim = None
        if idempotency_key:
            claim = Claim(idempotency_key, key_fingerprint, now_us + KEPT_US)
        opened = await self._books.open(hold, claim)
        if isinstance(opened, Replay):
            return Completion.FromString(opened.response)
        return Bill(self._books, opened, caller, spec, idempotency_key, candidates)


def _priced(plan: Plan) -> Plan:
    known = tuple(c for c in plan.candidates if _is_priced(c))
    if not known:
        raise NoEligibleProvider(UNPRICED)
    return replace(plan, candidates=known)


def _is_priced(candidate: Candidate) -> bool:
    price = candidate.price
    return price.input_nanos is not None and price.output_nanos is not None


def _worst(candidates: Sequence[Candidate], input_tokens: int, output_tokens: int) -> int:
    """What the dearest of them would cost, in nanos; those of unknown price aside."""
    worst = 0
    for candidate in candidates:
        price = candidate.price
        if price.input_nanos is not None and price.output_nanos is not None:
            input_nanos = max(price.input_nanos, price.cached_input_nanos or 0)
            cost = input_tokens * input_nanos + output_tokens * price.output_nanos
            if cost > worst:
                worst = cost
    return min(MAX_NANOS, -(-worst // TOKENS_PER_PRICE))


def worst_of(plan: Plan, spec: CompletionSpec, tokens: int) -> int:
    """What all model turns of a plan would cost at most, in nanos, for a prompt of so many tokens."""
    answer_tokens = output_tokens(spec)
    panel = plan.panel
    if panel is None:
        return _worst(plan.candidates, tokens, answer_tokens)
    if not panel.mixes:
        return _worst(panel.proposers[0].candidates, tokens, answer_tokens)
    rules = panel.rules
    each_tokens = draft_tokens(spec, rules.proposal_tokens)
    read_tokens = tokens + len(panel.proposers) * each_tokens + FRAME_TOKENS
    makers = panel.aggregator.candidates
    total = sum(_worst(proposer.candidates, tokens, each_tokens) for proposer in panel.proposers)
    if rules.critiques:
        total += _worst(makers, read_tokens, CRITIQUE_TOKENS)
        read_tokens += CRITIQUE_TOKENS
    return min(MAX_NANOS, total + _worst(makers, read_tokens, answer_tokens))


def _storable(text: str) -> str:
    """Databases do not take a NUL in a text."""
    return text.replace("\0", "")[:MAX_ID_CHARS]


def _labels(spec: CompletionSpec) -> tuple[tuple[str, str], ...]:
    if not spec.labels:
        return ()
    labels = {_storable(name): _storable(value) for name, value in spec.labels.items()}
    return tuple(sorted(labels.items()))
