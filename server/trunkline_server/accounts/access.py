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
    TokenRateLimited,
)
from trunkline_server.core.limits import Demand, Limit, Limiter, Verdict, rate_limit_headers
from trunkline_server.core.plans import ANONYMOUS, Caller, Plan, Scope

REQUESTS: Final = "requests"
TOKENS: Final = "tokens"
MINUTE_S: Final = 60
LEASE_SPARE_S: Final = 60.0  # Beyond the longest that a completion may take.
CONCURRENCY_RETRY_S: Final = 1.0

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Limits:
    """Of one plan."""

    requests: Limit | None
    tokens: Limit | None


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
            self.access.spawn(self.access.limiter.release(self.bucket, self.holder))
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

    async def enter(
        self, authorization: str, peer: Callable[[], str], scope: Scope, headers: Headers
    ) -> Caller:
        """Who may do this. What its limits say is added to `headers`, whatever the outcome.

        Args:
            peer: names the address that the call comes from.

        Raises:
            InvalidApiKey, PermissionDenied, RateLimited, StorageUnavailable.
        """
        caller = await self._known(authorization, peer, headers)
        await self._take(caller, peer, 0, headers)
        _check_scope(caller, scope)
        return caller

    async def enter_completion(
        self,
        authorization: str,
        peer: Callable[[], str],
        headers: Headers,
        tokens: int,
        holder: str,
    ) -> Pass:
        """The same for a completion, which is also limited by tokens and in how many run at once.

        Args:
            tokens: an estimate of those that it will use.
            holder: names the completion among those that run.

        Raises:
            InvalidApiKey, PermissionDenied, RateLimited, StorageUnavailable.
        """
        caller = await self._known(authorization, peer, headers)
        demand = await self._take(caller, peer, tokens, headers)
        _check_scope(caller, Scope.COMPLETE)
        plan = caller.plan
        if plan.concurrency is None:
            return Pass(caller, self, demand)
        bucket = f"{_subject(caller, peer)}:running"
        seconds = plan.max_deadline_s + LEASE_SPARE_S
        if not await self.limiter.lease(bucket, plan.concurrency, holder, seconds):
            if demand is not None:
                await self.limiter.shift(demand, -demand.cost)
            raise ConcurrencyExhausted(retry_after_s=CONCURRENCY_RETRY_S)
        return Pass(caller, self, demand, bucket, holder)

    async def close(self) -> None:
        """Wait for what is being given back."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        await self.limiter.close()

    def spawn(self, what: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for, such as a caller that is on its way out."""
        task = asyncio.get_running_loop().create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _known(self, authorization: str, peer: Callable[[], str], headers: Headers) -> Caller:
        try:
            return await self.callers.authenticate(authorization)
        except InvalidApiKey:
            nobody = Caller(plan=self._anonymous)
            await self._take(nobody, peer, 0, headers)
            raise

    async def _take(
        self, caller: Caller, peer: Callable[[], str], tokens: int, headers: Headers
    ) -> Demand | None:
        plan = caller.plan
        limits = self._limits.get(plan.id)
        if limits is None:
            limits = self._limits[plan.id] = _limits_of(plan)
        subject = _subject(caller, peer)
        demands: list[Demand] = []
        if limits.requests is not None:
            demands.append(Demand(f"{subject}:{REQUESTS}", limits.requests))
        by_tokens: Demand | None = None
        if limits.tokens is not None:
            by_tokens = Demand(
                f"{subject}:{TOKENS}", limits.tokens, min(tokens, limits.tokens.burst)
            )
            demands.append(by_tokens)
        if not demands:
            return None
        verdict = await self.limiter.take(demands)
        headers += rate_limit_headers(verdict)
        if not verdict.is_allowed:
            raise _refusal(verdict)
        return by_tokens


def _check_scope(caller: Caller, scope: Scope) -> None:
    if scope not in caller.scopes and Scope.ADMIN not in caller.scopes:
        raise PermissionDenied(f"the key lacks the scope {scope.value!r}", scope=scope.value)


def _refusal(verdict: Verdict) -> RateLimited:
    refused = verdict.refused
    retry_after_s = verdict.retry_after_s if verdict.retry_after_s is not None else float(MINUTE_S)
    if refused is not None and refused.limit.name == TOKENS:
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
        window_s = 1 if per_second == int(per_second) else MINUTE_S
        quantity = max(1, round(per_second * window_s))
        requests = Limit(REQUESTS, quantity, window_s, max(1, plan.burst))
    if plan.tokens_per_minute is not None:
        tokens = Limit(TOKENS, plan.tokens_per_minute, MINUTE_S, plan.tokens_per_minute)
    return _Limits(requests, tokens)
