"""Rows of the audit log, followed link by link. Sans-I/O: rows in, findings out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from trunkline_server.accounts.audit import (
    ENTITY,
    ERASED,
    GENESIS,
    MAX_SEQUENCE,
    commitment_of,
    entry_hash,
)
from trunkline_server.core.transactions import Row

MAX_FINDINGS: Final = 100  # The others are counted.
MAX_GAP: Final = 1_000_000  # An entry whose number is further off than that is not believed.
IMPOSSIBLE: Final = (TypeError, AttributeError, OverflowError, UnicodeError)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written: at which sequence, and what."""

    sequence: int
    text: str


class Findings:
    """The first of them, and how many."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.count = 0

    def add_all(self, found: Iterable[Finding]) -> None:
        """Several things are wrong."""
        for finding in found:
            self.add(finding.sequence, finding.text)

    def add(self, sequence: int, text: str) -> None:
        """Something is wrong."""
        self.count += 1
        if len(self.kept) < MAX_FINDINGS:
            self.kept.append(Finding(sequence, text))


class Chain:
    """The entries, in order. After something wrong it goes on from what is stored, so that one change is one finding.

    Args:
        sequence, digest: the entry before the first.
    """

    def __init__(self, findings: Findings, sequence: int = 0, digest: object = GENESIS) -> None:
        self.sequence = sequence
        self.digest = digest
        self.entries = 0
        self.private = 0
        self.erasures = _Erasures(findings)
        self._findings = findings

    def follow(self, rows: Sequence[Row]) -> None:
        """The next rows: the columns of an entry, then sequence, salt and content of its private row, or None."""
        add = self._findings.add
        sequence, digest = self.sequence, self.digest
        self.entries += len(rows)
        for row in rows:
            (
                number,
                at_us,
                action,
                actor,
                organization,
                entity_type,
                entity_id,
                request_id,
                details,
                commitment,
                previous,
                stored,
                private,
                salt,
                content,
            ) = row
            computed: bytes | None
            try:
                computed = entry_hash(
                    number,
                    previous,
                    at_us,
                    (action, actor, organization, entity_type, entity_id, request_id, details),
                    commitment,
                )
            except IMPOSSIBLE:
                computed = None
            if number != sequence + 1:
                add(*_gap(sequence, number))
            elif previous != digest:
                add(number, "it does not follow the entry before it")
            if computed != stored or computed is None:
                add(number, "the entry does not have its hash")
            sequence, digest = number, stored
            if private is not None:
                self._check_private(number, commitment, salt, content)
            elif commitment is not None:
                self.erasures.miss(number, self.entries)
            if action == ERASED and entity_type == ENTITY:
                self.erasures.explain(entity_id, number)
        self.sequence, self.digest = sequence, digest

    def _check_private(self, number: int, commitment: bytes, salt: bytes, content: str) -> None:
        self.private += 1
        try:
            fits = commitment_of(salt, content) == commitment
        except IMPOSSIBLE:
            fits = False
        if not fits:
            self._findings.add(number, "the private content is not the one that was written")


class _Erasures:
    """Which private contents are gone, a bit for each, until an entry says that they were erased."""

    def __init__(self, findings: Findings) -> None:
        self.erased = 0
        self.known_to = MAX_SEQUENCE  # An entry after it may tell of a content that was read before it was erased.
        self._bits = bytearray()
        self._findings = findings

    def miss(self, number: int, entries: int) -> None:
        """The content of an entry is gone."""
        if not 0 < number <= entries + MAX_GAP:
            self._findings.add(number, "the private content is gone")
            return
        place, bit = divmod(number, 8)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 - len(self._bits) + len(self._bits) // 8))
        self._bits[place] |= 1 << bit

    def explain(self, entity_id: object, by: int) -> None:
        """An entry says that a content was erased."""
        if not (isinstance(entity_id, str) and entity_id.isascii() and entity_id.isdigit()):
            return
        if len(entity_id) > 18:
            return
        number = int(entity_id)
        place, bit = divmod(number, 8)
        if place < len(self._bits) and self._bits[place] & 1 << bit:
            self._bits[place] ^= 1 << bit
            self.erased += 1
        elif by <= self.known_to:
            self._findings.add(number, f"its private content is there, but entry {by} erased it")

    def unexplained(self) -> Iterator[int]:
        """The entries whose content is gone without a word."""
        for place, byte in enumerate(self._bits):
            if byte:
                yield from (place * 8 + bit for bit in range(8) if byte >> bit & 1)


def _gap(sequence: int, number: int) -> tuple[int, str]:
    if number < 1:
        return number, "an entry from before the first"
    missing = number - sequence - 1
    return (
        sequence + 1,
        "the entry is missing" if missing == 1 else f"{missing} entries are missing",
    )
