"""How often each owner was answered from the cache, since this process began."""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Final

from trunkline_server.core.cache import CacheEvent

MAX_OWNERS: Final = 10_000  # Beyond that, who was not seen longest begins anew.


class Tallies:
    """By owner and event."""

    def __init__(self) -> None:
        self._by_owner: OrderedDict[str, Counter[CacheEvent]] = OrderedDict()

    def count(self, owner: str, event: CacheEvent) -> None:
        """One more."""
        tally = self._by_owner.get(owner)
        if tally is None:
            tally = self._by_owner[owner] = Counter()
            if len(self._by_owner) > MAX_OWNERS:
                self._by_owner.popitem(last=False)
        self._by_owner.move_to_end(owner)
        tally[event] += 1

    def of(self, owner: str) -> Mapping[CacheEvent, int]:
        """Nothing for an owner that was not seen."""
        return self._by_owner.get(owner, Counter())
