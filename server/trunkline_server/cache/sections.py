"""Vectors of questions, a matrix for each section, so that the nearest are found by one multiplication."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_VECTORS: Final = 50_000  # Of all sections together, 1.5 KB each. Beyond that the oldest go.
MIN_ROWS: Final = 16
MAX_NEAREST: Final = 8  # Questions that are looked at.

Vector = NDArray[np.float32]


class Question(NamedTuple):
    """One that has an answer."""

    key: bytes
    text: str
    expires_us: int


class Section:
    """The questions of one section. When it is full, the oldest makes room."""

    def __init__(self, owner: str, max_rows: int = MAX_VECTORS) -> None:
        self.owner = owner
        self._max_rows = max_rows
        self._matrix: Vector | None = None
        self._questions: list[Question | None] = []
        self._rows: dict[bytes, int] = {}
        self._next = 0  # The row that is written to next.

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def size(self) -> int:
        """Rows that take up memory."""
        return 0 if self._matrix is None else len(self._matrix)

    def put(self, question: Question, vector: Vector) -> None:
        """In the place of the same question."""
        row = self._rows.get(question.key)
        if row is None:
            row = self._next
            self._next = (row + 1) % self._max_rows
            self._make_room(row, len(vector))
            self._rows[question.key] = row
        assert self._matrix is not None
        self._questions[row] = question
        self._matrix[row] = vector

    def drop(self, key: bytes) -> None:
        """If it is there."""
        row = self._rows.pop(key, None)
        if row is not None and self._matrix is not None:
            self._questions[row] = None
            self._matrix[row] = 0

    def nearest(
        self, vector: Vector, least: float, now_us: int
    ) -> Iterator[tuple[Question, float]]:
        """The most similar first, and only those that are no less similar than `least`, and have not expired."""
        if self._matrix is None:
            return
        used = len(self._questions)
        found = self._matrix[:used] @ vector
        near = np.flatnonzero(found >= least)
        if len(near) > MAX_NEAREST:
            near = near[np.argpartition(-found[near], MAX_NEAREST)[:MAX_NEAREST]]
        for row in near[np.argsort(-found[near], kind="stable")]:
            question = self._questions[row]
            if question is not None and question.expires_us > now_us:
                yield question, min(1.0, float(found[row]))

    def _make_room(self, row: int, width: int) -> None:
        if row == len(self._questions):
            self._questions.append(None)
        elif (old := self._questions[row]) is not None:
            del self._rows[old.key]
        if self._matrix is None:
            self._matrix = np.zeros((min(MIN_ROWS, self._max_rows), width), dtype=np.float32)
        elif row == len(self._matrix):
            more = min(self._max_rows, 2 * len(self._matrix)) - len(self._matrix)
            self._matrix = np.vstack([self._matrix, np.zeros((more, width), dtype=np.float32)])


class Sections:
    """Those that were asked for last, within one bound for all."""

    def __init__(self, max_vectors: int = MAX_VECTORS) -> None:
        self._max_vectors = max_vectors
        self._by_id: OrderedDict[bytes, Section] = OrderedDict()

    @property
    def vectors(self) -> int:
        """Rows that take up memory."""
        return sum(section.size for section in self._by_id.values())

    def find(self, section: bytes) -> Section | None:
        """If it is in memory."""
        found = self._by_id.get(section)
        if found is not None:
            self._by_id.move_to_end(section)
        return found

    def make(self, section: bytes, owner: str) -> Section:
        """An empty one."""
        made = self._by_id[section] = Section(owner, self._max_vectors)
        return made

    def shrink(self) -> None:
        """Forget what was not asked for longest, until the rest is within the bound."""
        while self.vectors > self._max_vectors and len(self._by_id) > 1:
            self._by_id.popitem(last=False)

    def drop_owner(self, owner: str) -> None:
        """All of one owner."""
        for section in [id_ for id_, found in self._by_id.items() if found.owner == owner]:
            del self._by_id[section]
