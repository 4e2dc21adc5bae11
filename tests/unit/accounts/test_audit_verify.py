"""Every kind of tampering with the audit log, at each of its entries, is found and named.

The short version has a log of 1,000 entries, the long one of 10,000. The end cut off and hashes computed anew can't be
tried at several places of one log at once; the short version tries them at each 37th entry.
"""

import hashlib
import json
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import apsw
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.accounts.audit_log import KEY, SIGNER, START_US, Database, fill, record, sequences
from trunkline_server.accounts.audit import ERASED, GENESIS, entry_hash
from trunkline_server.accounts.audit_chain import MAX_FINDINGS
from trunkline_server.accounts.audit_checkpoints import (
    Checkpoint,
    CheckpointSigner,
    CheckpointVerifier,
    make_checkpoint,
)
from trunkline_server.accounts.audit_file import CheckpointFile, keep_checkpoint
from trunkline_server.accounts.audit_keys import UnusableKey, create_key, load_signer
from trunkline_server.accounts.audit_verify import (
    PAGE_ROWS,
    AuditReport,
    verify,
    verify_between,
    verify_with,
)
from trunkline_server.core.transactions import MakeTransaction, T

LONG = 10_000
SHORT_STEP = 37
PARTS = 10  # Of what takes minutes in the long version.
AT_ONCE = 40  # Entries that are changed at once, far from each other: each change is a finding of its own.
STRANGER = CheckpointSigner(Ed25519PrivateKey.from_private_bytes(bytes(32)))
HASHED = "at, action, actor, organization, entity_type, entity_id, request_id, details, commitment"


class Log:
    """A finished log, and as many copies of it as a test wants, one at a time.

    Attributes:
        places: entries to start from where one change touches all that follow, so that each is tried alone.
    """

    def __init__(self, entries: int, path: Path, image: bytes) -> None:
        self.entries = entries
        self.places = range(1, entries + 1, 1 if entries >= LONG else SHORT_STEP)
        self.path = path
        self.file = CheckpointFile(path)
        self._image = image
        self._copy = Database()

    def copy(self) -> Database:
        self._copy.db.deserialize("main", self._image)
        return self._copy


async def make_log(folder: Path, entries: int) -> Log:
    database, path = Database(), folder / f"{entries}.jsonl"
    await fill(database, entries, entries // 10, CheckpointFile(path))
    return Log(entries, path, database.db.serialize("main"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("audit")


@pytest_asyncio.fixture(
    params=[1_000, pytest.param(LONG, marks=[pytest.mark.slow, pytest.mark.once])],
    scope="module",
    loop_scope="module",
)
async def log(request, folder):
    return await make_log(folder, request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(folder):
    return await make_log(folder, 100)


async def check(database: Database, file: CheckpointFile | None = None) -> AuditReport:
    return await verify(database, SIGNER.verifier, file)


def groups(entries: int, size: int = AT_ONCE) -> Sequence[range]:
    """All entries, in groups of which no two members are near each other."""
    step = entries // size
    return [range(first, entries + 1, step) for first in range(1, step + 1)]


# What nobody touched


async def test_a_log_that_nobody_touched_is_intact(log):
    database = log.copy()

    report = await check(database, log.file)

    contents = database.rows("SELECT COUNT(*) FROM audit_private")[0][0]
    erased = database.rows("SELECT COUNT(*) FROM audit WHERE action = $1", ERASED)[0][0]
    assert report == AuditReport(
        entries=log.entries,
        head=database.rows("SELECT hash FROM audit_head")[0][0],
        signed=log.entries,
        filed=log.entries,
        checkpoints=10,
        unreadable_lines=0,
        private=contents,
        erased=erased,
        findings=(),
        problems=0,
    )
    assert report.is_intact
    assert contents > log.entries // 5
    assert erased > log.entries // 100


async def test_keys_and_checkpoints_may_be_given_as_files(tmp_path):
    private, public = tmp_path / "audit.key", tmp_path / "audit.pub"
    create_key(private, public)
    create_key(tmp_path / "other.key", tmp_path / "other.pub")
    database, path = Database(), tmp_path / "checkpoints.jsonl"
    database.append(*map(record, range(5)))
    await keep_checkpoint(
        database, load_signer(private, "here"), START_US, CheckpointFile(path, "here")
    )

    report = await verify_with(database, [tmp_path / "other.pub", public], path, "here")
    stranger = await verify_with(database, [tmp_path / "other.pub"], None, "here")

    assert (report.problems, report.signed, report.filed) == (0, 5, 5)
    assert [finding.text for finding in stranger.findings] == [
        "its checkpoint is signed with a key that was not given"
    ]
    with pytest.raises(UnusableKey):
        await verify_with(database, [private])
    with pytest.raises(FileNotFoundError):
        await verify_with(database, [public], tmp_path / "no file")


async def test_an_empty_log_is_intact(tmp_path):
    report = await check(Database())

    assert (report.entries, report.head, report.problems) == (0, GENESIS, 0)


@pytest.mark.parametrize("entries", [1, PAGE_ROWS - 1, PAGE_ROWS, PAGE_ROWS + 1])
async def test_a_log_of_any_length_is_read_to_its_end(entries):
    database = Database()
    database.append(*map(record, range(entries)))

    report = await check(database)

    assert (report.entries, report.signed, report.filed, report.problems) == (entries, 0, None, 0)
    assert f"note: the last {entries} are under no checkpoint yet" in list(report.lines())


async def test_the_chain_is_the_documented_one(small):
    """As somebody else would check it, who has read the documentation only."""
    previous = bytes(32)
    rows = small.copy().rows(f"SELECT sequence, hash, {HASHED} FROM audit ORDER BY sequence")
    for sequence, digest, *fields, commitment in rows:
        entry = [*fields, commitment.hex() if commitment else None]
        encoded = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode()
        head = b"trunkline-audit-v1\0" + sequence.to_bytes(8, "big")
        assert hashlib.sha256(head + previous + encoded).digest() == digest
        previous = digest


async def test_memory_does_not_grow_with_the_log():
    peaks = []
    for entries in (1_000, 8_000):
        database = Database()
        for first in range(0, entries, 1_000):
            database.append(*map(record, range(first, first + 1_000)))
        database.rows("DELETE FROM audit_private")  # The worst case: a bit for each entry.
        tracemalloc.start()
        await check(database)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < peaks[0] * 1.1 + 20_000


# One entry


def flipped(value: Any) -> Any:
    """Another value of the same type, as near as can be."""
    match value:
        case None:
            return bytes(32)
        case bytes():
            return value[:-1] + bytes([value[-1] ^ 1])
        case int():
            return value + 1
        case _:
            return value + " "


@pytest.mark.parametrize("column", [*HASHED.split(", "), "previous_hash", "hash"])
async def test_a_changed_entry_is_found(log, column):
    for group in groups(log.entries):
        database = log.copy()
        for sequence in group:
            [(value,)] = database.rows(f"SELECT {column} FROM audit WHERE sequence = $1", sequence)
            database.rows(
                f"UPDATE audit SET {column} = $1 WHERE sequence = $2", flipped(value), sequence
            )

        report = await check(database)

        assert set(group) <= set(sequences(report.findings))


@pytest.mark.parametrize("column", [*HASHED.split(", "), "previous_hash", "hash"])
async def test_a_value_of_another_type_is_found(small, column):
    for group in (range(first, 101, 5) for first in range(1, 6)):
        database = small.copy()
        for sequence in group:
            [(value,)] = database.rows(f"SELECT {column} FROM audit WHERE sequence = $1", sequence)
            other = value.encode() if isinstance(value, str) else f"x{value!r}"
            database.rows(f"UPDATE audit SET {column} = $1 WHERE sequence = $2", other, sequence)

        report = await check(database)

        assert set(group) <= set(sequences(report.findings))


@pytest.mark.parametrize("digest", [b"", "", bytes(32)], ids=repr)
async def test_what_never_had_a_hash_has_no_other_one_either(small, digest):
    database = small.copy()
    database.rows("UPDATE audit SET actor = x'00', hash = $1 WHERE sequence = 100", digest)
    database.rows("DELETE FROM audit_checkpoints")
    set_head(database)

    report = await check(database)

    assert sequences(report.findings) == [100]


async def test_a_deleted_entry_is_found(log):
    for group in groups(log.entries):
        database = log.copy()
        for sequence in group:
            database.rows("DELETE FROM audit WHERE sequence = $1", sequence)

        report = await check(database)

        assert set(group) <= set(sequences(report.findings))


def swap(database: Database, sequence: int, columns: str) -> None:
    """Exchange an entry and the next."""
    names = columns.split(", ")
    places = ", ".join(f"{name} = ${place}" for place, name in enumerate(names, 2))
    one, other = (
        database.rows(f"SELECT {columns} FROM audit WHERE sequence = $1", number)[0]
        for number in (sequence, sequence + 1)
    )
    database.rows(f"UPDATE audit SET {places} WHERE sequence = $1", sequence, *other)
    database.rows(f"UPDATE audit SET {places} WHERE sequence = $1", sequence + 1, *one)


async def test_two_entries_that_changed_places_are_found(log):
    for group in groups(log.entries - 1, AT_ONCE // 3):
        database = log.copy()
        for sequence in group:
            swap(database, sequence, f"{HASHED}, previous_hash, hash")

        report = await check(database)

        assert set(group) <= set(sequences(report.findings))


async def test_two_entries_that_changed_all_but_their_links_are_found(small):
    for group in groups(small.entries - 1, AT_ONCE // 3):
        database = small.copy()
        for sequence in group:
            swap(database, sequence, HASHED)

        report = await check(database)

        assert set(group) <= set(sequences(report.findings))


async def test_an_entry_that_was_put_between_others_is_found(small):
    """All later ones move by one: whoever adds has to."""
    for sequence in range(1, small.entries + 1):
        database = small.copy()
        for number in range(small.entries, sequence - 1, -1):
            database.rows("UPDATE audit SET sequence = sequence + 1 WHERE sequence = $1", number)
        database.rows(
            "INSERT INTO audit SELECT $1, at, action, actor, organization, entity_type, entity_id, request_id, "
            "details, commitment, previous_hash, hash FROM audit WHERE sequence = $2",
            sequence,
            sequence + 1,
        )
        database.rows("UPDATE audit_head SET sequence = sequence + 1")

        report = await check(database)

        assert {sequence, sequence + 1} & set(sequences(report.findings))


@pytest.mark.parametrize(
    "change", ["content = content || ' '", "salt = CAST(salt || x'00' AS BLOB)"]
)
async def test_a_changed_private_content_is_found(log, change):
    numbers = [row[0] for row in log.copy().rows("SELECT sequence FROM audit_private")]
    for first in range(0, len(numbers), MAX_FINDINGS):
        database, group = log.copy(), numbers[first : first + MAX_FINDINGS]
        for number in group:
            database.rows(f"UPDATE audit_private SET {change} WHERE sequence = $1", number)

        report = await check(database)

        assert sequences(report.findings) == group


async def test_a_private_content_that_is_gone_without_a_word_is_found(log):
    numbers = [row[0] for row in log.copy().rows("SELECT sequence FROM audit_private")]
    for first in range(0, len(numbers), MAX_FINDINGS):
        database, group = log.copy(), numbers[first : first + MAX_FINDINGS]
        for number in group:
            database.rows("DELETE FROM audit_private WHERE sequence = $1", number)

        report = await check(database)

        assert sequences(report.findings) == group


async def test_an_erased_content_that_is_back_is_found(log):
    original = {f"{number}": record(number) for number in range(log.entries)}
    for (target,) in log.copy().rows("SELECT entity_id FROM audit WHERE action = $1", ERASED):
        database = log.copy()
        [(entity,)] = database.rows("SELECT entity_id FROM audit WHERE sequence = $1", int(target))
        lost = original[entity.removeprefix("cmpl_")]
        database.rows(
            "INSERT INTO audit_private VALUES ($1, $2, $3)", int(target), lost.salt, lost.private
        )

        report = await check(database)

        assert sequences(report.findings) == [int(target)]


@pytest.mark.parametrize("sequence", [-1, 0, 2, 101, 10**18])
async def test_a_private_content_that_nobody_recorded_is_found(small, sequence):
    database = small.copy()
    database.rows("INSERT INTO audit_private VALUES ($1, $2, 'forged')", sequence, bytes(16))

    report = await check(database)

    assert sequences(report.findings) == [sequence]


@pytest.mark.parametrize("sequence", [-(2**63), -1, 0, 102, 10**18, 2**63 - 1, None, "x"])
async def test_an_entry_out_of_place_is_found(small, sequence):
    database = small.copy()
    database.rows(
        "INSERT INTO audit SELECT $1, at, action, actor, organization, entity_type, entity_id, request_id, "
        "details, commitment, previous_hash, hash FROM audit WHERE sequence = 1",
        sequence,
    )

    report = await check(database, small.file)

    assert not report.is_intact


async def test_text_that_is_none_is_found_and_the_rest_is_read(small):
    database = small.copy()
    database.rows("UPDATE audit SET actor = CAST(x'6bff' AS TEXT) WHERE sequence IN (7, 50)")

    report = await check(database)

    assert {7, 50} <= set(sequences(report.findings))
    assert report.entries == small.entries - 2
    assert report.signed == small.entries


async def test_one_change_is_one_finding(small):
    database = small.copy()
    database.rows("UPDATE audit SET actor = 'key_other' WHERE sequence = 42")

    report = await check(database, small.file)

    assert [(f.sequence, f.text) for f in report.findings] == [
        (42, "the entry does not have its hash")
    ]
    assert "BROKEN at 42: the entry does not have its hash" in list(report.lines())
    assert list(report.lines())[-1] == "the log was changed"


async def test_what_is_told_of_many_changes_is_bounded(log):
    database = log.copy()
    database.rows("UPDATE audit SET actor = 'key_other'")

    report = await check(database)

    assert len(report.findings) == MAX_FINDINGS
    assert report.problems >= log.entries
    assert f"and {report.problems - MAX_FINDINGS:,} more" in list(report.lines())


# The end


def cut(database: Database, length: int, *tables: str) -> None:
    """Leave this many entries, as if there had never been more."""
    for table in ("audit", "audit_private", *tables):
        database.rows(f"DELETE FROM {table} WHERE sequence > $1", length)


def set_head(database: Database) -> None:
    rows = database.rows("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1")
    database.rows("UPDATE audit_head SET sequence = $1, hash = $2", *(rows or [(0, GENESIS)])[0])


async def test_an_end_that_was_cut_off_is_found_by_the_head(small):
    for length in range(small.entries):
        database = small.copy()
        cut(database, length, "audit_checkpoints")

        report = await check(database)

        assert length + 1 in sequences(report.findings)


async def test_an_end_that_was_cut_off_is_found_by_a_checkpoint(small):
    for length in range(small.entries):
        database = small.copy()
        cut(database, length)
        set_head(database)

        report = await check(database)

        assert small.entries in sequences(report.findings)


@pytest.mark.parametrize("part", range(PARTS))
async def test_an_end_that_was_cut_off_without_a_trace_is_found_by_the_file(log, part):
    for length in (place - 1 for place in log.places[part::PARTS]):
        database = log.copy()
        cut(database, length, "audit_checkpoints")
        set_head(database)

        report = await check(database, log.file)

        assert log.entries in sequences(report.findings)
        assert report.filed == length - length % (log.entries // 10)


async def test_a_head_that_was_changed_is_found(small):
    for change in ("sequence = 99", "sequence = 101", "hash = x'00'", "sequence = 'x'", "id = 2"):
        database = small.copy()
        database.rows(f"UPDATE audit_head SET {change}")

        assert not (await check(database)).is_intact


# All of it


def restamp(database: Database, first: int) -> None:
    """Change an entry and compute all hashes anew."""
    database.rows("UPDATE audit SET actor = 'key_other' WHERE sequence = $1", first)
    found = database.rows("SELECT hash FROM audit WHERE sequence = $1", first - 1)
    previous = found[0][0] if found else GENESIS
    rows = database.rows(
        f"SELECT sequence, {HASHED} FROM audit WHERE sequence >= $1 ORDER BY sequence", first
    )
    changes = []
    for sequence, at_us, *texts, commitment in rows:
        digest = entry_hash(sequence, previous, at_us, cast(Any, texts), commitment)
        changes.append((previous, digest, sequence))
        previous = digest
    with database.db:
        database.db.executemany(
            "UPDATE audit SET previous_hash = ?, hash = ? WHERE sequence = ?", changes
        )
    set_head(database)


@pytest.mark.parametrize("part", range(PARTS))
async def test_a_log_with_new_hashes_is_found_by_checkpoints_and_by_the_file(log, part):
    every = log.entries // 10
    for turn, first in enumerate(log.places[part::PARTS]):
        database = log.copy()
        restamp(database, first)
        if turn % 2:
            database.rows("DELETE FROM audit_checkpoints WHERE sequence >= $1", first)

        report = await check(database, log.file if turn % 2 else None)

        next_checkpoint = first + -first % every
        assert report.findings[0].sequence == next_checkpoint
        assert report.signed == next_checkpoint - every


async def test_without_checkpoints_a_log_with_new_hashes_is_not_found_and_that_is_said(small):
    database = small.copy()
    restamp(database, 42)
    database.rows("DELETE FROM audit_checkpoints")

    report = await check(database)

    assert report.is_intact
    assert report.signed == 0
    assert "note: the last 100 are under no checkpoint yet" in list(report.lines())


async def test_checkpoints_of_a_stranger_are_not_believed(small):
    database = small.copy()
    restamp(database, 42)
    resign(database, STRANGER)

    report = await check(database)

    assert sequences(report.findings) == list(range(10, 101, 10))
    assert report.signed == 0


def resign(database: Database, signer: CheckpointSigner) -> None:
    for sequence, at_us, digest in database.rows(
        "SELECT c.sequence, c.at, a.hash FROM audit_checkpoints c JOIN audit a USING (sequence)"
    ):
        forged = signer.sign(sequence, digest, at_us)
        database.rows(
            "UPDATE audit_checkpoints SET hash = $1, key_id = $2, signature = $3 WHERE sequence = $4",
            forged.hash,
            forged.key_id,
            forged.signature,
            sequence,
        )


# Checkpoints themselves


@pytest.mark.parametrize("column", ["at", "hash", "key_id", "signature"])
async def test_a_changed_checkpoint_is_found(small, column):
    for sequence in range(10, 101, 10):
        database = small.copy()
        [(value,)] = database.rows(
            f"SELECT {column} FROM audit_checkpoints WHERE sequence = $1", sequence
        )
        database.rows(
            f"UPDATE audit_checkpoints SET {column} = $1 WHERE sequence = $2",
            flipped(value),
            sequence,
        )

        report = await check(database)

        assert sequences(report.findings) == [sequence]


async def test_a_deleted_checkpoint_is_found_by_the_file(small):
    for sequence in range(10, 101, 10):
        database = small.copy()
        database.rows("DELETE FROM audit_checkpoints WHERE sequence = $1", sequence)

        report = await check(database, small.file)

        assert sequences(report.findings) == [sequence]
        assert report.findings[0].text == "its checkpoint is in the file only"


Edit = Callable[[list[str]], list[str]]


async def check_with(small: Log, folder: Path, edit: Edit) -> AuditReport:
    """With a file whose lines were edited."""
    edited = folder / "edited.jsonl"
    edited.write_text("".join(f"{line}\n" for line in edit(small.path.read_text().splitlines())))
    return await check(small.copy(), CheckpointFile(edited))


@pytest.mark.parametrize("number", range(1, 9))
async def test_a_line_that_was_taken_out_of_the_file_is_found(small, tmp_path, number):
    report = await check_with(small, tmp_path, lambda lines: lines[:number] + lines[number + 1 :])

    assert sequences(report.findings) == [(number + 1) * 10]


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("word", ["sequence", "hash", "at_us", "key_id", "signature"])
async def test_a_line_that_was_changed_is_found(small, tmp_path, number, word):
    def edit(lines: list[str]) -> list[str]:
        line = json.loads(lines[number])
        value = line[word]
        line[word] = (
            value + 1 if isinstance(value, int) else value[:-1] + f"{int(value[-1], 16) ^ 1:x}"
        )
        return [*lines[:number], json.dumps(line), *lines[number + 1 :]]

    report = await check_with(small, tmp_path, edit)

    assert (number + 1) * 10 in {finding.sequence // 10 * 10 for finding in report.findings}


async def test_lines_in_another_order_are_found(small, tmp_path):
    report = await check_with(small, tmp_path, lambda lines: [lines[1], lines[0], *lines[2:]])

    assert sequences(report.findings) == [10]


@pytest.mark.parametrize(
    ("edit", "filed", "unreadable"),
    [
        (lambda lines: lines[4:], 100, 0),  # The file was named later than the log began.
        (lambda lines: lines[:4], 40, 0),  # It was not written since.
        (lambda lines: [], 0, 0),
        (lambda lines: [*lines, lines[-1]], 100, 0),
        (lambda lines: [*lines[:4], lines[4][:100], *lines[4:]], 100, 1),  # A crash, and once more.
        (lambda lines: [*lines, "{"], 100, 1),
    ],
    ids=["late", "forgotten", "new", "twice", "crashed", "crashing"],
)
async def test_what_happens_to_a_file_in_an_honest_life_is_no_finding(
    small, tmp_path, edit, filed, unreadable
):
    report = await check_with(small, tmp_path, edit)

    assert (report.problems, report.filed, report.unreadable_lines) == (0, filed, unreadable)
    assert (f"warning: {unreadable} lines of the file are no checkpoints" in report.lines()) == (
        unreadable > 0
    )


async def test_a_file_of_another_log_is_found(small, tmp_path):
    other = CheckpointFile(tmp_path / "other.jsonl")
    other.extend([SIGNER.sign(10, bytes(32), START_US)])

    report = await check(small.copy(), other)

    assert sequences(report.findings) == [10]


async def test_a_log_that_was_signed_under_another_name_is_found(small):
    report = await verify(small.copy(), CheckpointVerifier([KEY.public_key()], "elsewhere"))

    assert sequences(report.findings) == list(range(10, 101, 10))


# While the log grows


class Growing:
    """The port over a database to which, before each read but the first, somebody does something more."""

    def __init__(self, database: Database, act: Callable[[int], None]) -> None:
        self._database = database
        self._act = act
        self._reads = 0

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        if self._reads:
            self._act(self._reads)
        self._reads += 1
        return await self._database.read(make)

    async def write(self, make: MakeTransaction[T]) -> T:
        raise AssertionError("a verification writes nothing")


async def test_a_log_that_grows_while_it_is_read_is_intact(small):
    database = small.copy()
    left = [row[0] for row in database.rows("SELECT sequence FROM audit_private")]

    def act(turn: int) -> None:
        if turn < 12:
            database.append(record(1000 + 3 * turn))
            database.erase(left.pop(turn % len(left)))

    report = await verify(Growing(database, act), SIGNER.verifier, small.file)

    assert report.findings == ()
    assert report.entries > small.entries


async def test_a_checkpoint_that_comes_while_the_log_is_read_is_not_missed(small, tmp_path):
    database, file = small.copy(), CheckpointFile(tmp_path / "growing.jsonl")
    file.extend(taken(database))

    def act(turn: int) -> None:
        if turn < 5:
            database.append(record(1000))
            made = database.run(lambda: make_checkpoint(SIGNER, START_US))
            assert made is not None
            file.extend([made])

    report = await verify(Growing(database, act), SIGNER.verifier, file)

    assert report.findings == ()
    assert report.entries > small.entries
    assert report.filed == small.entries


# Between two checkpoints


def taken(database: Database) -> list[Checkpoint]:
    return [
        Checkpoint(*row)
        for row in database.rows(
            "SELECT sequence, hash, at, key_id, signature FROM audit_checkpoints ORDER BY sequence"
        )
    ]


async def test_the_log_leads_from_each_checkpoint_to_each_later_one(small):
    database = small.copy()
    checkpoints = taken(database)

    for older in checkpoints:
        for newer in checkpoints:
            found = await verify_between(database, SIGNER.verifier, older, newer)
            assert (found == ()) == (older.sequence <= newer.sequence)


async def test_what_lies_between_two_checkpoints_is_read_and_nothing_else(small):
    database = small.copy()
    _, older, *_, newer, _ = taken(database)

    for sequence in range(1, small.entries + 1):
        database = small.copy()
        database.rows("UPDATE audit SET actor = 'key_other' WHERE sequence = $1", sequence)
        found = await verify_between(database, SIGNER.verifier, older, newer)
        is_between = older.sequence < sequence <= newer.sequence
        assert sequences(found) == ([sequence] if is_between else [])


async def test_a_log_with_new_hashes_does_not_lead_to_the_newer_checkpoint(small):
    checkpoints = taken(small.copy())

    for sequence in range(11, 91):
        database = small.copy()
        restamp(database, sequence)
        found = await verify_between(database, SIGNER.verifier, checkpoints[0], checkpoints[8])
        assert sequences(found) == [90]


async def test_a_log_that_is_too_short_does_not_lead_to_the_newer_checkpoint(small):
    database = small.copy()
    older, *_, newer = taken(database)
    cut(database, 70)

    found = await verify_between(database, SIGNER.verifier, older, newer)

    assert sequences(found) == [71]


async def test_a_forged_checkpoint_leads_nowhere(small):
    database = small.copy()
    older, *_, newer = taken(database)

    found = await verify_between(database, SIGNER.verifier, replace(older, hash=bytes(32)), newer)

    assert sequences(found) == [older.sequence]


async def test_a_damaged_database_is_no_finding(small):
    """That it can't be read is not that somebody changed it: the error is the reader's."""
    database = small.copy()
    database.rows("DROP TABLE audit_private")

    with pytest.raises(apsw.SQLError):
        await check(database)
