"""Counts what the cache does: the `CacheMeter` port."""

from typing import Final

from prometheus_client import Counter

from trunkline_server.core.cache import CacheEvent
from trunkline_server.telemetry.tally import Tally

EVENTS: Final = Counter(
    "trunkline_cache_events_total",
    "What the cache of answers did: hits by kind, misses, waits, comparisons of answers.",
    ("event",),
)


class CacheTelemetry:
    """Adds in bulk."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._adds = {event: EVENTS.labels(event.value).inc for event in CacheEvent}

    def count(self, event: CacheEvent) -> None:
        """See `CacheMeter`."""
        self._tally.add(self._adds[event], 1)

    def flush(self) -> None:
        """Before a page shows them."""
        self._tally.flush()
