"""Who waits for a turn in this process, in the order of arrival."""

import asyncio
from collections import deque
from collections.abc import Hashable


class Place:
    """In the line for one conversation. Whoever has it leaves it, whatever happens."""

    __slots__ = ("_lines", "_turn", "ahead", "what")

    def __init__(
        self, lines: "Lines", what: Hashable, turn: asyncio.Future[None], ahead: int
    ) -> None:
        self._lines = lines
        self._turn = turn
        self.what = what
        self.ahead = ahead  # How many were there before.

    @property
    def is_first(self) -> bool:
        """Is it its turn?"""
        return self._turn.done()

    async def wait(self) -> None:
        """Until it is the first."""
        # Shielded, because a turn that is cancelled would look like one that has come.
        await asyncio.shield(self._turn)

    def leave(self) -> None:
        """Let the next one be the first. Leaving twice is leaving once."""
        self._lines.leave(self.what, self._turn)


class Lines:
    """One line for each conversation that somebody speaks in, or waits for."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def join(self, what: Hashable) -> Place:
        """At the end of the line."""
        line = self._lines.setdefault(what, deque())
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not line:
            turn.set_result(None)
        line.append(turn)
        return Place(self, what, turn, len(line) - 1)

    def leave(self, what: Hashable, turn: asyncio.Future[None]) -> None:
        """See `Place`."""
        line = self._lines.get(what)
        if line is None or turn not in line:
            return
        line.remove(turn)
        if not line:
            del self._lines[what]
        elif not line[0].done():
            line[0].set_result(None)
