"""What the tests here measure, as tables for the end of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest


@dataclass(frozen=True)
class Row:
    """One row, and the table it is of."""

    title: str
    columns: tuple[str, ...]
    name: str
    cells: tuple[str, ...]


@dataclass
class Table:
    """Rows by name. `required` names must have one; `log` gets every row as it is added."""

    title: str
    columns: tuple[str, ...]
    required: tuple[str, ...] = ()
    rows: dict[str, tuple[str, ...]] = field(default_factory=dict)
    log: list[Row] = field(default_factory=list)

    def add(self, name: str, *cells: object) -> None:
        """A row; it takes the place of an earlier one of that name."""
        assert len(cells) == len(self.columns) - 1
        self.rows[name] = tuple(str(cell) for cell in cells)
        self.log.append(Row(self.title, self.columns, name, self.rows[name]))

    def missing(self) -> list[str]:
        """Names without a row."""
        return [name for name in self.required if name not in self.rows]

    def lines(self) -> Iterator[str]:
        """As text, columns aligned."""
        names = [*self.required, *(name for name in self.rows if name not in self.required)]
        cells = [
            (name, *self.rows.get(name, ("NO ROW", *[""] * (len(self.columns) - 2))))
            for name in names
        ]
        widths = [max(map(len, column)) for column in zip(self.columns, *cells, strict=True)]
        yield ""
        yield self.title
        for row in (self.columns, *cells):
            first, *others = zip(row, widths, strict=True)
            padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
            yield "  " + "  ".join(padded).rstrip()


class Tables:
    """All tables of a run."""

    def __init__(self) -> None:
        self._tables: dict[str, Table] = {}
        self._log: list[Row] = []

    def table(self, title: str, columns: Sequence[str], required: Sequence[str] = ()) -> Table:
        """The table of this title, made when it is first asked for."""
        found = self._tables.setdefault(title, Table(title, tuple(columns), log=self._log))
        found.required = tuple(required) or found.required
        return found

    def taken(self) -> list[Row]:
        """The rows that were added since this was last called."""
        rows, self._log[:] = [*self._log], []
        return rows

    def missing(self) -> list[str]:
        """Required rows that no test wrote."""
        return [name for table in self._tables.values() for name in table.missing()]

    def lines(self) -> Iterator[str]:
        """All tables."""
        for table in self._tables.values():
            yield from table.lines()


TABLES = pytest.StashKey[Tables]()
