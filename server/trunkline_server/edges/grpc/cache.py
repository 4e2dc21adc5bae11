"""`trunkline.v1.CacheService`: what the cache holds, and how to make it forget."""

from typing import Final

from trunkline.v1.cache_service_pb2 import (
    ClearCacheRequest,
    ClearCacheResponse,
    GetCacheStatsRequest,
    GetCacheStatsResponse,
    ReportHitRequest,
    ReportHitResponse,
    SimilarityBin,
)
from trunkline_server.cache.answers import Answers, CacheStats
from trunkline_server.cache.evidence import floor_of
from trunkline_server.completion.service import Completions
from trunkline_server.core.cache import CacheEvent
from trunkline_server.core.errors import InvalidRequest, NotFound
from trunkline_server.core.plans import Caller, Scope
from trunkline_server.edges.grpc.account import check_filter
from trunkline_server.edges.grpc.call import Calls, Context, answer_unary

MAX_AGE_S: Final = 10 * 365 * 86_400
NANOS: Final = 1_000_000_000


class CacheServicer:
    """Everyone sees and clears what is their own; who is no administrator is told that others do not exist.

    To look takes the scope READ. To clear, or to say that an answer was wrong, takes COMPLETE, and no more: whoever
    may ask can have any answer replaced by asking anew.
    """

    def __init__(self, cache: Answers, completions: Completions, calls: Calls) -> None:
        self._cache = cache
        self._completions = completions
        self._calls = calls

    async def GetCacheStats(
        self, request: GetCacheStatsRequest, context: Context
    ) -> GetCacheStatsResponse:
        """What there is now."""
        call = self._calls.read("GetCacheStats", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.READ)
            owner = _owner(request.organization, caller)
            return _stats_message(owner, await self._cache.stats(owner))

    async def ClearCache(self, request: ClearCacheRequest, context: Context) -> ClearCacheResponse:
        """All of it, or what is old."""
        call = self._calls.read("ClearCache", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            owner = _owner(request.organization, caller)
            await self._cache.clear(owner, _age_s(request))
            return ClearCacheResponse()

    async def ReportHit(self, request: ReportHitRequest, context: Context) -> ReportHitResponse:
        """One answer, as its caller found it."""
        call = self._calls.read("ReportHit", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            await self._cache.report(caller.owner, request.entry_id, is_wrong=request.wrong)
            return ReportHitResponse()


def _owner(named: str, caller: Caller) -> str:
    if named and named != caller.owner and Scope.ADMIN not in caller.scopes:
        raise NotFound("no such organization")
    check_filter("organization", named)
    return named or caller.owner


def _age_s(request: ClearCacheRequest) -> float:
    age = request.older_than
    if not 0 <= age.seconds <= MAX_AGE_S or not 0 <= age.nanos < NANOS:
        raise InvalidRequest("older_than", "is no time from 0 to ten years")
    return float(age.seconds + age.nanos / NANOS)


def _stats_message(owner: str, stats: CacheStats) -> GetCacheStatsResponse:
    return GetCacheStatsResponse(
        organization=owner,
        entries=stats.entries,
        size_bytes=stats.size_bytes,
        exact_hits=stats.counts.get(CacheEvent.EXACT_HIT, 0),
        semantic_hits=stats.counts.get(CacheEvent.SEMANTIC_HIT, 0),
        misses=stats.counts.get(CacheEvent.MISS, 0),
        waits=stats.counts.get(CacheEvent.WAIT, 0),
        semantic_mode=stats.semantic,
        threshold=stats.threshold,
        bins=[
            SimilarityBin(
                similarity=floor_of(number),
                same=count.same,
                other=count.other,
                max_false_share=count.max_false_share,
            )
            for number, count in sorted(stats.evidence.items())
        ],
    )
