"""How rules speak to a database without knowing which: a transaction is a generator of statements.

It yields one statement at a time and is sent its rows; what it returns is the outcome. So the rules of the ledger are
written once, run alike on every backend, and can be stopped between any two statements by a test. Backends are in
`storage`: one file each.

Two rules make it cheap to commit many transactions at once:

- A refusal comes before the first write; a statement that found no row to change is none. A transaction that raises
  after it has written makes its backend undo the whole group and run its members one by one.
- A transaction may be run again from its beginning, so it reads nothing but its arguments and its rows. Clocks, ids and
  randomness come in as arguments.

Statements are in the part of SQL that SQLite and PostgreSQL share, with the parameters `$1`, `$2`, ... Values are
integers of 64 bits, strings, bytes and None; times are whole microseconds since 1970, amounts nanos of a US dollar.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

Value = int | str | bytes | None
Row = Sequence[Any]
T = TypeVar("T")


class Statement(NamedTuple):
    """One statement, and the values of its parameters in order."""

    sql: str
    values: tuple[Value, ...] = ()


Transaction = Generator[Statement, Sequence[Row], T]
MakeTransaction = Callable[[], Transaction[T]]


class Storage(Protocol):
    """A database."""

    async def write(self, make: MakeTransaction[T]) -> T:
        """Run a transaction to its durable end, together with whatever else is waiting.

        Cancelling the caller does not stop a transaction that has begun; its outcome is lost then, not its effect.

        Raises:
            StorageUnavailable: the database did not answer in time, or said that it can't. Whether the transaction
                happened is not known; whatever the transaction itself raises: it did not happen.
        """
        ...

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        """Run a transaction that writes nothing, over one state of the database.

        Args:
            is_short: it finds a row or two, and does not wait behind those that look through many.

        Raises:
            StorageUnavailable.
        """
        ...
