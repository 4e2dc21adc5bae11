"""Answers in the memory of this process: those asked for last, within bounds."""

from collections import OrderedDict, defaultdict

from trunkline_server.core.cache import Kept


class Front:
    """Finds in a microsecond. Whoever was not asked for longest goes first.

    Args:
        max_bytes: of answers.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._keys: defaultdict[str, set[bytes]] = defaultdict(set)
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size_bytes(self) -> int:
        """Of all answers."""
        return self._bytes

    def find(self, key: bytes, now_us: int) -> Kept | None:
        """One that has not expired."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.expires_us <= now_us:
            self.drop(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def put(self, kept: Kept) -> None:
        """Unless it alone is too much."""
        self.drop(kept.key)
        if len(kept.answer) > self._max_bytes:
            return
        self._kept[kept.key] = kept
        self._keys[kept.owner].add(kept.key)
        self._bytes += len(kept.answer)
        while self._bytes > self._max_bytes or len(self._kept) > self._max_entries:
            self.drop(next(iter(self._kept)))

    def drop(self, key: bytes) -> None:
        """If it is there."""
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        self._bytes -= len(kept.answer)
        keys = self._keys[kept.owner]
        keys.discard(key)
        if not keys:
            del self._keys[kept.owner]

    def drop_owner(self, owner: str, before_us: int | None = None) -> None:
        """All of one owner; with `before_us` only what was asked for at that instant or earlier."""
        for key in list(self._keys.get(owner, ())):
            if before_us is None or self._kept[key].kept_us <= before_us:
                self.drop(key)

    def count(self, owner: str) -> tuple[int, int]:
        """How many answers an owner has here, and their bytes."""
        keys = self._keys.get(owner, ())
        return len(keys), sum(len(self._kept[key].answer) for key in keys)
