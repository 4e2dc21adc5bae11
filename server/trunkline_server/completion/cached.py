"""An answer from the cache, as the answer to another request: at no cost, and saying what it is."""

import time

from trunkline.v1.completion_pb2 import CacheReport, Completion, Cost, RouteReason, Usage
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.core.attempts import set_duration, set_time
from trunkline_server.core.cache import Hit
from trunkline_server.core.pricing import CURRENCY

# What belongs to the request that the answer was first given to.
_NOT_SHARED = (
    "attempts",
    "cache",
    "conversation_id",
    "metadata_json",
    "request_id",
    "timing",
    "usage",
)


def given_again(
    hit: Hit, completion_id: str, request_id: str, asked: CompletionSpec, total_s: float
) -> Completion:
    """The whole answer."""
    completion = Completion()
    completion.CopyFrom(hit.completion)
    for name in _NOT_SHARED:
        completion.ClearField(name)  # type: ignore[arg-type]
    completion.id = completion_id
    completion.request_id = request_id
    set_time(completion.create_time, time.time())
    if completion.HasField("panel"):
        completion.panel.ClearField("members")  # Nobody was asked.
    completion.usage.CopyFrom(Usage(cost=Cost(amount_nanos=0, currency_code=CURRENCY)))
    report = CacheReport(hit=True, kind=hit.kind, entry_id=hit.entry_id)
    if hit.similarity is not None:
        report.similarity = hit.similarity
    set_duration(report.age, hit.age_s)
    completion.cache.CopyFrom(report)
    completion.route.reason = RouteReason.ROUTE_REASON_CACHE
    for name in ("hop", "attempt", "failover_count", "total_failover_count"):
        completion.route.ClearField(name)  # type: ignore[arg-type]
    if asked.metadata_json:
        completion.metadata_json = asked.metadata_json
    completion.route.requested_model = asked.model
    set_duration(completion.timing.total, total_s)
    return completion
