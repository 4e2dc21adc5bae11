"""Is the audit log the one that was written? Everything is read once, in order, in little memory.

Every entry's hash is computed again and has to be the one that is stored and that the next entry names. Private
contents have to fit their commitments; one that is gone needs the entry that says so. Every checkpoint, in the database
and in the file, has to be signed with a known key and to name the hash that its entry has. And the log must be as long
as its head, the checkpoints and the file say.

    what was done                              what finds it
    an entry changed                           its hash
    an entry deleted, added, or moved          sequence, and the hash before
    a private content changed or deleted       its commitment; no entry says that it was erased
    all hashes computed anew after a change    the signed hash of the next checkpoint
    the end cut off                            the head; if that was set back too, a checkpoint; if those were
                                               deleted too, the file

The log may grow while it is read. Memory is one page and one bit for each entry that was read (for those whose private
content is gone), whatever the length of the log.
"""

from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Final

from trunkline_server.accounts.audit import (
    COLUMNS,
    GENESIS,
    MAX_SEQUENCE,
)
from trunkline_server.accounts.audit_chain import MAX_FINDINGS, Chain, Finding, Findings
from trunkline_server.accounts.audit_checkpoints import (
    DEFAULT_ORIGIN,
    Checkpoint,
    CheckpointVerifier,
    checkpoints_from,
)
from trunkline_server.accounts.audit_file import CheckpointFile
from trunkline_server.accounts.audit_keys import load_public_key
from trunkline_server.core.transactions import Row, Statement, Storage, Transaction

PAGE_ROWS: Final = 500  # At most 40 MB, if all of them are as large as they may be.
FIRST: Final = -(2**63)

_JOINED: Final = (
    ", ".join(f"a.{column}" for column in COLUMNS.split(", ")) + ", p.sequence, p.salt, p.content "
    "FROM audit a LEFT JOIN audit_private p ON p.sequence = a.sequence"
)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a verification saw.

    Attributes:
        entries: how many were read.
        head: the hash of the last one.
        signed: up to which sequence good checkpoints vouch for the log; 0: no checkpoint.
        filed: the same of the file; None: no file was given.
        checkpoints: how many there were, a checkpoint in both places counted once.
        unreadable_lines: of the file. A crash may leave half of one; what follows it still counts.
        private: contents that were checked.
        erased: contents that are gone, with an entry that says so.
        findings: by sequence; at most `MAX_FINDINGS`.
        problems: how many there were.
    """

    entries: int
    head: bytes
    signed: int
    filed: int | None
    checkpoints: int
    unreadable_lines: int
    private: int
    erased: int
    findings: tuple[Finding, ...]
    problems: int

    @property
    def is_intact(self) -> bool:
        """Is everything as it was written, as far as checkpoints vouch for it?"""
        return self.problems == 0

    def lines(self) -> Iterator[str]:
        """The report in words."""
        yield f"{self.entries:,} entries, the last with hash {self.head.hex()}"
        yield f"{self.private:,} private contents fit, {self.erased:,} were erased"
        yield f"{self.checkpoints:,} checkpoints vouch for all up to {self.signed:,}"
        if self.filed is not None:
            yield f"the file vouches for all up to {self.filed:,}"
        if self.unreadable_lines:
            yield f"warning: {self.unreadable_lines:,} lines of the file are no checkpoints"
        if self.is_intact and self.entries > self.signed:
            yield f"note: the last {self.entries - self.signed:,} are under no checkpoint yet"
        for finding in self.findings:
            yield f"BROKEN at {finding.sequence:,}: {finding.text}"
        if self.problems > len(self.findings):
            yield f"and {self.problems - len(self.findings):,} more"
        yield "the log is intact" if self.is_intact else "the log was changed"


async def verify(
    storage: Storage, verifier: CheckpointVerifier, file: CheckpointFile | None = None
) -> AuditReport:
    """Check everything.

    Raises:
        StorageUnavailable, OSError: it can't be read now, which says nothing about it.
    """
    findings = Findings()
    chain = Chain(findings)
    # The file is opened first: what it has by now, the database has had before.
    filed = _Filed(file, findings)
    start = await storage.read(_start)
    findings.add_all(_of_head(start))
    chain.erasures.known_to = start.last_entry
    vouchers = _Vouchers(verifier, findings)
    async with (
        aclosing(_pages(storage, findings, FIRST, MAX_SEQUENCE)) as pages,
        aclosing(_anchors(storage, filed, start.last_checkpoint)) as anchors,
    ):
        anchor = await anext(anchors, None)
        async for rows in pages:
            chain.follow(rows)
            while anchor is not None and anchor.sequence <= chain.sequence:
                vouchers.check(anchor, _hash_at(rows, anchor.sequence))
                anchor = await anext(anchors, None)
        while anchor is not None:
            vouchers.check(anchor, None)
            anchor = await anext(anchors, None)
    for number in await storage.read(partial(_strays, chain.sequence)):
        findings.add(number, "there is a private content, or an entry, out of place")
    for number in chain.erasures.unexplained():
        findings.add(number, "the private content is gone, and no entry says that it was erased")
    return AuditReport(
        entries=chain.entries,
        head=chain.digest if isinstance(chain.digest, bytes) else b"",
        signed=vouchers.signed,
        filed=None if file is None else vouchers.filed,
        checkpoints=vouchers.count,
        unreadable_lines=filed.unreadable,
        private=chain.private,
        erased=chain.erasures.erased,
        findings=tuple(sorted(findings.kept, key=lambda finding: finding.sequence)),
        problems=findings.count,
    )


async def verify_with(
    storage: Storage,
    public_keys: Sequence[Path],
    file: Path | None = None,
    origin: str = DEFAULT_ORIGIN,
) -> AuditReport:
    """The same, with the public keys and the file of checkpoints where they lie on the disk.

    Raises:
        UnusableKey: a file is no public key.
        StorageUnavailable, OSError: as `verify`; a file that is not there is no empty one.
    """
    verifier = CheckpointVerifier([load_public_key(path) for path in public_keys], origin)
    return await verify(storage, verifier, CheckpointFile(file, origin) if file else None)


async def verify_between(
    storage: Storage, verifier: CheckpointVerifier, older: Checkpoint, newer: Checkpoint
) -> tuple[Finding, ...]:
    """Does the log lead from one checkpoint to the other? What speaks against it; empty: it does.

    Reads only what lies between them, so who kept a checkpoint can ask what became of the log since.
    """
    findings = Findings()
    for checkpoint in (older, newer):
        if not verifier.is_signed(checkpoint):
            findings.add(checkpoint.sequence, "the checkpoint has no good signature")
    if older.sequence > newer.sequence:
        findings.add(newer.sequence, "the newer checkpoint is of a shorter log")
    if findings.count:
        return tuple(findings.kept)
    chain = Chain(findings, older.sequence, older.hash)
    chain.erasures.known_to = 0  # Of contents that lie before it nothing is known here.
    async with aclosing(_pages(storage, findings, older.sequence + 1, newer.sequence)) as pages:
        async for rows in pages:
            chain.follow(rows)
    if chain.sequence != newer.sequence:
        findings.add(chain.sequence + 1, "the log ends before the newer checkpoint")
    elif chain.digest != newer.hash:
        findings.add(newer.sequence, "the log does not lead to the newer checkpoint")
    return tuple(findings.kept)


# What the database says


@dataclass(frozen=True, slots=True)
class _Start:
    """What it said first, all at one time."""

    sequence: int
    digest: object
    last_entry: int
    last_digest: object
    last_checkpoint: int


def _start() -> Transaction[_Start]:
    # SQLite takes text for a number too, and sorts it behind all numbers.
    numbers = (MAX_SEQUENCE,)
    head = yield Statement(
        "SELECT sequence, hash FROM audit_head WHERE id = 1 AND sequence <= $1", numbers
    )
    entry = yield Statement(
        "SELECT sequence, hash FROM audit WHERE sequence <= $1 ORDER BY sequence DESC LIMIT 1",
        numbers,
    )
    checkpoint = yield Statement(
        "SELECT MAX(sequence) FROM audit_checkpoints WHERE sequence <= $1", numbers
    )
    sequence, digest = head[0] if head else (0, GENESIS)
    last_entry, last_digest = entry[0] if entry else (0, GENESIS)
    return _Start(sequence, digest, last_entry, last_digest, checkpoint[0][0] or 0)


def _of_head(start: _Start) -> Iterator[Finding]:
    if start.sequence > start.last_entry:
        yield Finding(start.last_entry + 1, f"the log ends, but had {start.sequence} entries")
    elif start.sequence < start.last_entry:
        yield Finding(start.sequence + 1, "the head does not know of it")
    elif start.digest != start.last_digest:
        yield Finding(start.sequence, "the head has another hash")


async def _pages(
    storage: Storage, findings: Findings, start: int, last: int
) -> AsyncGenerator[Sequence[Row]]:
    """Entries from `start` to `last`, as long as more of them come."""
    limit = PAGE_ROWS
    while start <= last:
        try:
            rows = await storage.read(partial(_page, start, last, limit))
        except UnicodeError:  # Text that is none. One by one, to say which.
            if limit == 1:
                start = await storage.read(partial(_first, start))
                findings.add(start, "the entry can't be read")
                start += 1
            limit = 1
            continue
        if not rows:
            return
        yield rows
        start = int(rows[-1][0]) + 1
        limit = min(limit * 2, PAGE_ROWS)


def _page(start: int, last: int, limit: int) -> Transaction[Sequence[Row]]:
    return (
        yield Statement(
            f"SELECT {_JOINED} WHERE a.sequence >= $1 AND a.sequence <= $2 "
            "ORDER BY a.sequence LIMIT $3",
            (start, last, limit),
        )
    )


def _first(start: int) -> Transaction[int]:
    rows = yield Statement("SELECT MIN(sequence) FROM audit WHERE sequence >= $1", (start,))
    return int(rows[0][0])


def _strays(last: int) -> Transaction[list[int]]:
    """What the pages have not shown: private contents of no entry, and entries without a number."""
    private = yield Statement(
        "SELECT p.sequence FROM audit_private p WHERE (p.sequence < 1 OR p.sequence > $1) "
        "AND NOT EXISTS (SELECT 1 FROM audit a WHERE a.sequence = p.sequence) LIMIT $2",
        (last, MAX_FINDINGS),
    )
    # SQLite takes anything for a key, and text is more than any number.
    entries = yield Statement(
        "SELECT COUNT(*) FROM audit WHERE sequence IS NULL OR sequence > $1",
        (MAX_SEQUENCE,),
    )
    found = [row[0] if isinstance(row[0], int) else last for row in private]
    return found + [last] * min(entries[0][0], MAX_FINDINGS)


async def _stored(storage: Storage, last: int) -> AsyncGenerator[Checkpoint]:
    start = FIRST
    while page := await storage.read(partial(checkpoints_from, start, last)):
        for checkpoint in page:
            yield checkpoint
        start = page[-1].sequence + 1


# Checkpoints against the chain


class _Filed:
    """The lines of the file that are checkpoints, in order."""

    def __init__(self, file: CheckpointFile | None, findings: Findings) -> None:
        self.unreadable = 0
        self._findings = findings
        self._lines = iter(()) if file is None else self._read(file)
        self.next = next(self._lines, None)

    def advance(self) -> None:
        """To the next line."""
        self.next = next(self._lines, None)

    def _read(self, file: CheckpointFile) -> Iterator[Checkpoint]:
        last: Checkpoint | None = None
        for checkpoint in file.read():
            if checkpoint is None:
                self.unreadable += 1
            elif last is None or checkpoint.sequence > last.sequence:
                yield checkpoint
                last = checkpoint
            elif checkpoint != last:
                self._findings.add(checkpoint.sequence, "a line of the file is out of its order")


@dataclass(frozen=True, slots=True)
class _Anchor:
    """What is said of one sequence: in the database, in the file, or in both."""

    sequence: int
    stored: Checkpoint | None
    filed: Checkpoint | None


async def _anchors(storage: Storage, filed: _Filed, last: int) -> AsyncGenerator[_Anchor]:
    """Both places in one order."""
    async with aclosing(_stored(storage, last)) as checkpoints:
        stored = await anext(checkpoints, None)
        while stored is not None or filed.next is not None:
            numbers = [place.sequence for place in (stored, filed.next) if place is not None]
            number = min(numbers)
            here = stored if stored is not None and stored.sequence == number else None
            there = filed.next if filed.next and filed.next.sequence == number else None
            yield _Anchor(number, here, there)
            if here is not None:
                stored = await anext(checkpoints, None)
            if there is not None:
                filed.advance()


class _Vouchers:
    """Checkpoints that were found good, and up to where."""

    def __init__(self, verifier: CheckpointVerifier, findings: Findings) -> None:
        self.count = 0
        self.signed = 0
        self.filed = 0
        self._skipped: int | None = None
        self._verifier = verifier
        self._findings = findings

    def check(self, anchor: _Anchor, digest: object) -> None:
        """Compare with the hash of the entry, None where there is no such entry."""
        self.count += 1
        if anchor.stored is None:
            self._findings.add(anchor.sequence, "its checkpoint is in the file only")
        if anchor.filed is None:
            # Behind the last line it is not there yet, before the first there was no file yet.
            if self._skipped is None and self.filed:
                self._skipped = anchor.sequence
        elif self._skipped is not None:
            self._findings.add(self._skipped, "its checkpoint is not in the file")
            self._skipped = None
        found = [place for place in (anchor.stored, anchor.filed) if place is not None]
        if found[0] == found[-1]:
            del found[1:]
        if all(self._is_good(checkpoint, digest) for checkpoint in found):
            self.signed = max(self.signed, anchor.sequence)
            if anchor.filed is not None:
                self.filed = anchor.sequence

    def _is_good(self, checkpoint: Checkpoint, digest: object) -> bool:
        wrong = ""
        if not self._verifier.knows(checkpoint):
            wrong = "its checkpoint is signed with a key that was not given"
        elif not self._verifier.is_signed(checkpoint):
            wrong = "its checkpoint has a false signature"
        elif digest is None:
            wrong = "the log ends, or has a gap, where a checkpoint was signed"
        elif digest != checkpoint.hash:
            wrong = (
                f"the checkpoint was signed for another log: an entry after {self.signed} was changed, "
                "and the hashes computed anew"
            )
        if wrong:
            self._findings.add(checkpoint.sequence, wrong)
        return not wrong


def _hash_at(rows: Sequence[Row], sequence: int) -> object:
    place = bisect_left(rows, sequence, key=itemgetter(0))
    if place < len(rows) and rows[place][0] == sequence:
        return rows[place][11]
    return None
