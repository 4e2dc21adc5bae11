"""The one way in: every call of every surface passes here, and is told its limits whatever becomes of it.

Who asks is found out first; then the scope is checked that the method names, and the plan's limits are taken. Who has
no key, or a wrong one, counts against the anonymous plan of their address, so that guessing keys is limited too.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

from trunkline_server.accounts.callers import Callers
from trunkline_server.core.errors import (
    ConcurrencyExhausted,
    InvalidApiKey,
    PermissionDenied,
    RateLimited,
    StorageUnavailable,
    TokenRateLimited,
)
from trunkline_server.core.limits import Demand, Limit, Limiter, Verdict, rate_limit_headers
from trunkline_server.core.plans import ANONYMOUS, Caller, Plan, Scope

REQUESTS: Final = "requests"
TOKENS: Final = "tokens"
MINUTE_S: Final = 60
# Of a rate: the first in which a whole number of requests comes, so that slow rates are exact too.
WINDOWS_S: Final = (1, MINUTE_S, 3_600)
LEASE_S: Final = 30.0  # After that long, the place of a process that was killed is free again.
RENEW_S: Final = 10.0
RENEWED_AT_ONCE: Final = 128
CONCURRENCY_RETRY_S: Final = 1.0
ANY_NUMBER: Final = 1_000_000_000

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Limits:
    """Of one plan."""

    requests: Limit | None
    tokens: Limit | None

    def demands(self, subject: str, tokens: int) -> list[Demand]:
        """Of one request, first that it is one."""
        found: list[Demand] = []
        if self.requests is not None:
            found.append(Demand(f"{subject}:{REQUESTS}", self.requests))
        if self.tokens is not None:
            cost = min(tokens, self.tokens.burst)
            found.append(Demand(f"{subject}:{TOKENS}", self.tokens, cost))
        return found


@dataclass(slots=True)
class Pass:
    """A completion that was let in. `leave` it at the end."""

    caller: Caller
    access: "Access"
    tokens: Demand | None = None
    bucket: str = ""
    holder: str = ""

    def leave(self, used_tokens: int | None) -> None:
        """Give back the place, and count the tokens that were used instead of those that were foreseen.

        Args:
            used_tokens: None where nothing is known.
        """
        if self.bucket:
            self.access.give_back(self.bucket, self.holder)
            self.bucket = ""
        if self.tokens is not None and used_tokens is not None:
            more = used_tokens - self.tokens.cost
            if more:
                self.access.spawn(self.access.limiter.shift(self.tokens, more))
            self.tokens = None


class Access:
    """For all surfaces of one service."""

    def __init__(self, callers: Callers, limiter: Limiter, plans: Mapping[str, Plan]) -> None:
        self.callers = callers
        self.limiter = limiter
        self._anonymous = plans.get(ANONYMOUS) or Plan(ANONYMOUS)
        self._limits: dict[str, _Limits] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[str, str] = {}  # Buckets, by who holds a place in them.
        self._keeper: asyncio.Task[None] | None = None

    async def enter(
        self, authorization: str, peer: Callable[[], str], scope: Scope, headers: Headers
    ) -> Caller:
        """Who may do this. What its limits say is added to `headers`, whatever the outcome.

        Args:
            peer: names the address that the call comes from.

        Raises:
            InvalidApiKey, PermissionDenied, RateLimited, StorageUnavailable.
        """
        caller = await self.greet(authorization, peer, headers)
        _check_scope(caller, scope)
        return caller

    async def greet(self, authorization: str, peer: Callable[[], str], headers: Headers) -> Caller:
        """The same for what needs no scope: to be told that there is no such thing, or that it can't be read.

        Raises:
            InvalidApiKey, RateLimited, StorageUnavailable.
        """
        caller = await self._known(authorization, peer, headers)
        limits = self._limits_of(caller.plan)
        demands = limits.demands(_subject(caller, peer), 0)
        verdict = await self.limiter.take(demands)
        if not verdict.is_allowed and limits.requests is not None and _is_of_tokens(verdict):
            # A debt of tokens is nothing to what uses none.
            owed = verdict.levels[1:]
            verdict = await self.limiter.take(demands[:1])
            verdict = verdict._replace(demands=demands, levels=[*verdict.levels, *owed])
        _tell(verdict, headers)
        return caller

    async def enter_completion(
        self,
        authorization: str,
        peer: Callable[[], str],
        headers: Headers,
        tokens: int,
        holder: str,
        key_id: str = "",
    ) -> Pass:
        """The same for a completion, which is also limited by tokens and in how many run at once.

        Args:
            tokens: an estimate of those that it will use.
            holder: names the completion among those that run.
            key_id: of a job: whose key it is, instead of what a call brings along.

        Raises:
            InvalidApiKey, PermissionDenied, RateLimited, StorageUnavailable.
        """
        if key_id:
            caller = await self.callers.of_key(key_id)
        else:
            caller = await self._known(authorization, peer, headers)
        plan = caller.plan
        subject = _subject(caller, peer)
        limits = self._limits_of(plan)
        is_allowed = _has_scope(caller, Scope.COMPLETE)
        # Who may not complete uses up none of the tokens of those who may.
        demands = limits.demands(subject, tokens if is_allowed else 0)
        _tell(await self.limiter.take(demands), headers)
        if not is_allowed:
            _check_scope(caller, Scope.COMPLETE)
        by_tokens = demands[-1] if limits.tokens is not None else None
        if plan.concurrency is None:
            return Pass(caller, self, by_tokens)
        bucket = f"{subject}:running"
        is_given = False
        try:
            is_given = await self.limiter.lease(bucket, plan.concurrency, holder, LEASE_S)
        finally:
            if not is_given:  # Refused or cancelled: it costs nothing.
                for demand in demands:
                    self.spawn(self.limiter.shift(demand, -demand.cost))
        if not is_given:
            raise ConcurrencyExhausted(retry_after_s=CONCURRENCY_RETRY_S)
        self._held[holder] = bucket
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.get_running_loop().create_task(self._keep())
        return Pass(caller, self, by_tokens, bucket, holder)

    async def close(self) -> None:
        """Wait for what is being given back."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        await self.limiter.close()

    def give_back(self, bucket: str, holder: str) -> None:
        """A completion has ended: somebody else may have its place."""
        self._held.pop(holder, None)
        self.spawn(self.limiter.release(bucket, holder))

    async def _keep(self) -> None:
        """Renew the leases of all that still runs."""
        while self._held:
            await asyncio.sleep(RENEW_S)
            held = list(self._held.items())
            for start in range(0, len(held), RENEWED_AT_ONCE):
                some = held[start : start + RENEWED_AT_ONCE]
                await asyncio.gather(*(self._renew(bucket, holder) for holder, bucket in some))

    async def _renew(self, bucket: str, holder: str) -> None:
        if await self.limiter.renew(bucket, holder, LEASE_S) or holder not in self._held:
            return
        # This process was held up for so long that the lease expired. It still runs, so it counts, whatever the limit.
        await self.limiter.lease(bucket, ANY_NUMBER, holder, LEASE_S)
        if holder not in self._held:
            await self.limiter.release(bucket, holder)

    def spawn(self, what: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for, such as a caller that is on its way out."""
        task = asyncio.get_running_loop().create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _known(self, authorization: str, peer: Callable[[], str], headers: Headers) -> Caller:
        try:
            return await self.callers.authenticate(authorization)
        except InvalidApiKey:
            _tell(await self._count_address(peer), headers)
            raise
        except StorageUnavailable:
            # Nobody is told to be over a limit who may have another one.
            headers += rate_limit_headers(await self._count_address(peer))
            raise

    async def _count_address(self, peer: Callable[[], str]) -> Verdict:
        nobody = Caller(plan=self._anonymous)
        demands = self._limits_of(nobody.plan).demands(_subject(nobody, peer), 0)
        return await self.limiter.take(demands)

    def _limits_of(self, plan: Plan) -> _Limits:
        limits = self._limits.get(plan.id)
        if limits is None:
            limits = self._limits[plan.id] = _limits_of(plan)
        return limits


def _tell(verdict: Verdict, headers: Headers) -> None:
    """What the limits say is added. Raises: RateLimited."""
    headers += rate_limit_headers(verdict)
    if not verdict.is_allowed:
        raise _refusal(verdict)


def _has_scope(caller: Caller, scope: Scope) -> bool:
    return scope in caller.scopes or Scope.ADMIN in caller.scopes


def _check_scope(caller: Caller, scope: Scope) -> None:
    if not _has_scope(caller, scope):
        raise PermissionDenied(f"the key lacks the scope {scope.value!r}", scope=scope.value)


def _is_of_tokens(verdict: Verdict) -> bool:
    return verdict.refused is not None and verdict.refused.limit.name == TOKENS


def _refusal(verdict: Verdict) -> RateLimited:
    retry_after_s = verdict.retry_after_s if verdict.retry_after_s is not None else float(MINUTE_S)
    if _is_of_tokens(verdict):
        return TokenRateLimited(retry_after_s=retry_after_s)
    return RateLimited(retry_after_s=retry_after_s)


def _subject(caller: Caller, peer: Callable[[], str]) -> str:
    """Whose bucket it is. All keys of an organisation that have one plan share it."""
    if caller.organization:
        return f"org:{caller.organization}:{caller.plan.id}"
    return f"address:{peer()}"


def _limits_of(plan: Plan) -> _Limits:
    requests = tokens = None
    per_second = plan.requests_per_second
    if per_second is not None:
        quantity, window_s = _in_window(per_second)
        requests = Limit(REQUESTS, quantity, window_s, max(1, plan.burst))
    if plan.tokens_per_minute is not None:
        tokens = Limit(TOKENS, plan.tokens_per_minute, MINUTE_S, plan.tokens_per_minute)
    return _Limits(requests, tokens)


def _in_window(per_second: float) -> tuple[int, int]:
    for window_s in WINDOWS_S:
        quantity = round(per_second * window_s)
        if quantity and abs(quantity - per_second * window_s) < 1e-6 * quantity:
            break
    return max(1, quantity), window_s
