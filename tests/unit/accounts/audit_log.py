"""A real SQLite for the audit log, and records to fill it with."""

import importlib
import re
from collections.abc import Sequence
from typing import Any

import apsw
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trunkline_server.accounts.audit import AuditRecord, append, canonical_json, erase
from trunkline_server.accounts.audit_checkpoints import (
    CheckpointSigner,
)
from trunkline_server.accounts.audit_file import (
    CheckpointFile,
    keep_checkpoint,
)
from trunkline_server.core.transactions import MakeTransaction, Statement, T, Transaction

SCHEMA: str = importlib.import_module(
    "trunkline_server.storage.migrations.versions.0001_accounts"
).SCHEMA
PARAMETER = re.compile(r"\$(\d+)")
START_US = 1_790_000_000_000_000
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = CheckpointSigner(KEY)


class Database:
    """The `Storage` port over a database in memory. `statements` is what was asked of it."""

    def __init__(self) -> None:
        self.db = apsw.Connection(":memory:", statementcachesize=200)
        for statement in SCHEMA.split(";"):
            if statement.strip():
                self.db.execute(statement)
        self.statements: list[Statement] = []
        self._translated: dict[str, str] = {}

    def run(self, make: MakeTransaction[T]) -> T:
        outcome: list[T] = []
        with self.db:
            self._drive(make(), outcome)
        return outcome[0]

    def _drive(self, transaction: Transaction[T], outcome: list[T]) -> None:
        try:
            statement = next(transaction)
            while True:
                self.statements.append(statement)
                sql = self._translated.get(statement.sql)
                if sql is None:
                    sql = self._translated[statement.sql] = PARAMETER.sub(r"?\1", statement.sql)
                statement = transaction.send(self.db.execute(sql, statement.values).fetchall())
        except StopIteration as stop:
            outcome.append(stop.value)

    async def write(self, make: MakeTransaction[T]) -> T:
        return self.run(make)

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        before = self.db.total_changes()
        outcome = self.run(make)
        assert self.db.total_changes() == before, "a reader wrote"
        return outcome

    def rows(self, sql: str, *values: Any) -> list[Any]:
        return self.db.execute(PARAMETER.sub(r"?\1", sql), values).fetchall()

    def append(self, *records: AuditRecord) -> int:
        return self.run(lambda: append(records))

    def erase(
        self,
        sequence: int,
        at_us: int = START_US,
        request_id: str = "",
        organization: str | None = None,
    ) -> bool:
        return self.run(
            lambda: erase(
                sequence,
                at_us=at_us,
                actor="key_admin",
                request_id=request_id,
                organization=organization,
            )
        )


def record(number: int = 0, **changes: Any) -> AuditRecord:
    """One that differs from those with other numbers; every third has a private content."""
    fields: dict[str, Any] = {
        "at_us": START_US + number,
        "action": "completion.settled",
        "actor": f"key_{number % 7}",
        "organization": f"org_{number % 3}",
        "entity_type": "completion",
        "entity_id": f"cmpl_{number}",
        "request_id": f"req_{number}",
        "details": canonical_json({"cost": number, "model": "gpt-5-mini"}),
    }
    if number % 3 == 0:
        fields |= {"private": f'{{"note":"für {number}"}}', "salt": number.to_bytes(16, "big")}
    return AuditRecord(**fields | changes)


async def fill(
    database: Database, entries: int, checkpoint_every: int, file: CheckpointFile | None
) -> None:
    """Entries in groups of different sizes, some contents erased, checkpoints at the multiples of a multiple of ten."""
    sequence = 0
    while sequence < entries:
        size = min(1 + sequence % 5, entries - sequence)
        if sequence % 40 == 20:
            database.erase((sequence - 1) // 3 * 3 + 1)
            sequence += 1
        else:
            sequence = database.append(*map(record, range(sequence, sequence + size)))
        if sequence // checkpoint_every > (sequence - size) // checkpoint_every:
            await keep_checkpoint(database, SIGNER, START_US + sequence, file)
    await keep_checkpoint(database, SIGNER, START_US + sequence, file)


def sequences(found: Sequence[Any]) -> list[int]:
    return [finding.sequence for finding in found]
