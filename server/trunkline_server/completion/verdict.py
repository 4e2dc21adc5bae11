"""What the caller is told when nobody answered."""

from collections.abc import Sequence
from typing import Final

from trunkline.v1.completion_pb2 import Attempt
from trunkline_server.core.errors import (
    AllProvidersFailed,
    AllProvidersThrottled,
    ContentBlocked,
    ContextLengthExceeded,
    DeadlineExceeded,
    TrunklineError,
    UpstreamError,
    UpstreamRejected,
    UpstreamTimeout,
)
from trunkline_server.core.failure import CONSEQUENCES, Failure

MAX_NAMED: Final = 16  # Candidates that were not asked, in an error.


def verdict(
    failures: Sequence[UpstreamError],
    attempts: Sequence[Attempt],
    provider: str,
    is_late: bool,
    left: Sequence[str] = (),
) -> TrunklineError:
    """One error for all failed attempts.

    Args:
        failures: one or more, in order.
        provider: who failed last.
        is_late: the deadline has passed.
        left: keys of candidates that were not asked: they failed lately, or enough others were asked.
    """
    kinds = {error.failure for error in failures}
    last = failures[-1].failure
    if is_late or Failure.DEADLINE in kinds:
        return DeadlineExceeded(attempts=attempts)
    if last is Failure.POLICY:
        return ContentBlocked(provider=provider)
    if last is Failure.CALLER:
        return UpstreamRejected(provider=provider)
    if kinds <= {Failure.CONTEXT_LENGTH}:
        return ContextLengthExceeded(provider=provider)
    if all(CONSEQUENCES[kind].blames_request for kind in kinds):
        return UpstreamRejected(provider=provider)
    if kinds <= {Failure.THROTTLED}:
        waits = [error.retry_after_s for error in failures if error.retry_after_s is not None]
        return AllProvidersThrottled(
            retry_after_s=max(min(waits, default=1.0), 0.0), attempts=attempts
        )
    if kinds <= {Failure.SLOW}:
        return UpstreamTimeout(attempts=attempts)
    failed = [
        f"{attempt.provider}/{attempt.model}: {attempt.error.message}" for attempt in attempts
    ]
    failed += [f"{key}: not asked" for key in left[:MAX_NAMED]]
    if len(left) > MAX_NAMED:
        failed.append(f"and {len(left) - MAX_NAMED} more")
    named = "; ".join(dict.fromkeys(failed))
    return AllProvidersFailed(f"all providers failed: {named}", attempts=attempts)
