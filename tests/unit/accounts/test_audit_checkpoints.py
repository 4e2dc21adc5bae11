"""Signed checkpoints: keys, what is signed and when, and the file that they are kept in."""

import fcntl
import json
import os
import shutil
import stat
import subprocess
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.unit.accounts.audit_log import KEY, SIGNER, START_US, Database, record
from trunkline_server.accounts.audit_checkpoints import (
    EVERY_ENTRIES,
    EVERY_S,
    MAX_EXPORTED,
    MAX_ORIGIN_CHARS,
    ChainBroken,
    Checkpoint,
    CheckpointSigner,
    CheckpointVerifier,
    is_due,
    key_id_of,
    make_checkpoint,
)
from trunkline_server.accounts.audit_file import (
    CheckpointFile,
    keep_checkpoint,
)
from trunkline_server.accounts.audit_keys import (
    UnusableKey,
    create_key,
    load_public_key,
    load_signer,
)

STRANGER = CheckpointSigner(Ed25519PrivateKey.from_private_bytes(bytes(32)))
ONE = SIGNER.sign(1, bytes([1] * 32), START_US)
TWO = SIGNER.sign(2, bytes([2] * 32), START_US + 1)
THREE = SIGNER.sign(3, bytes([3] * 32), START_US + 2)


@pytest.fixture
def database():
    return Database()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoints.jsonl"


@pytest.fixture
def file(path):
    return CheckpointFile(path)


def stored(database: Database) -> list[Checkpoint]:
    return [
        Checkpoint(*row)
        for row in database.rows(
            "SELECT sequence, hash, at, key_id, signature FROM audit_checkpoints ORDER BY sequence"
        )
    ]


# When


@pytest.mark.parametrize(
    ("entries", "elapsed_s", "due"),
    [
        (0, 0.0, False),
        (0, 1e9, False),
        (1, EVERY_S - 0.001, False),
        (1, EVERY_S, True),
        (EVERY_ENTRIES - 1, 0.0, False),
        (EVERY_ENTRIES, 0.0, True),
    ],
)
def test_a_checkpoint_is_due_each_minute_and_each_thousand_entries(entries, elapsed_s, due):
    assert is_due(entries, elapsed_s) is due


# Signatures


def test_a_signature_can_be_checked_with_what_is_documented():
    message = (
        b"trunkline-audit-checkpoint-v1\0"
        + json.dumps(
            ["trunkline", 2, "02" * 32, START_US + 1, SIGNER.key_id], separators=(",", ":")
        ).encode()
    )

    KEY.public_key().verify(TWO.signature, message)
    assert TWO.key_id == key_id_of(KEY.public_key())


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence": 3},
        {"hash": bytes(32)},
        {"hash": "02" * 32},
        {"at_us": START_US},
        {"key_id": STRANGER.key_id},
        {"key_id": ""},
        {"signature": b""},
        {"signature": TWO.signature[:-1] + bytes([TWO.signature[-1] ^ 1])},
        {"signature": "text"},
    ],
    ids=str,
)
def test_a_changed_checkpoint_is_not_signed(changes):
    assert SIGNER.verifier.is_signed(TWO)
    assert not SIGNER.verifier.is_signed(replace(TWO, **changes))


def test_a_checkpoint_of_another_log_or_key_is_not_signed():
    other_log = CheckpointSigner(KEY, "other").sign(2, TWO.hash, TWO.at_us)
    other_key = STRANGER.sign(2, TWO.hash, TWO.at_us)

    assert not SIGNER.verifier.is_signed(other_log)
    assert not SIGNER.verifier.is_signed(other_key)


def test_a_former_key_is_still_believed_if_it_is_given():
    former = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()

    both = CheckpointVerifier([KEY.public_key(), former])

    assert both.is_signed(STRANGER.sign(2, TWO.hash, TWO.at_us))
    assert both.is_signed(TWO)


@pytest.mark.parametrize("origin", ["", "x" * (MAX_ORIGIN_CHARS + 1)])
def test_an_origin_is_bounded(origin):
    with pytest.raises(ValueError, match="origin"):
        CheckpointSigner(KEY, origin)


# Keys


def test_a_key_is_made_for_its_owner_alone(tmp_path):
    private, public = tmp_path / "audit.key", tmp_path / "audit.pub"

    key_id = create_key(private, public)

    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    signer = load_signer(private, "here")
    verifier = CheckpointVerifier([load_public_key(public)], "here")
    assert signer.key_id == key_id
    assert verifier.is_signed(signer.sign(1, bytes(32), START_US))


@pytest.mark.parametrize("there", ["audit.key", "audit.pub"])
def test_no_key_is_overwritten(tmp_path, there):
    (tmp_path / there).write_text("mine")

    with pytest.raises(FileExistsError):
        create_key(tmp_path / "audit.key", tmp_path / "audit.pub")

    assert [entry.name for entry in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_a_file_that_is_no_key_is_refused_without_its_content(tmp_path):
    def pem(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    wrong = generate_private_key(SECP256R1())
    locked = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))
    private = [
        pem("text", b"hunter2"),
        pem("locked", locked),
        pem("curve", wrong.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
    ]
    curve = wrong.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public = [pem("text", b"hunter2"), pem("public", curve)]

    for load, paths in ((load_signer, private), (load_public_key, public)):
        for path in paths:
            with pytest.raises(UnusableKey) as caught:
                load(path)
            assert "hunter2" not in str(caught.value)


# In the database


def test_the_head_is_signed_once(database):
    database.append(record(1), record(2))

    made = database.run(lambda: make_checkpoint(SIGNER, START_US))
    again = database.run(lambda: make_checkpoint(SIGNER, START_US + 1))

    [(sequence, digest)] = database.rows("SELECT sequence, hash FROM audit_head")
    assert made == SIGNER.sign(2, digest, START_US)
    assert sequence == 2
    assert again is None
    assert stored(database) == [made]


def test_an_empty_log_is_not_signed(database):
    assert database.run(lambda: make_checkpoint(SIGNER, START_US)) is None


def test_a_log_that_was_written_anew_is_not_signed(database):
    database.append(record(1), record(2))
    database.run(lambda: make_checkpoint(SIGNER, START_US))
    database.rows("UPDATE audit SET hash = $1 WHERE sequence = 2", bytes(32))
    database.append(record(3))

    with pytest.raises(ChainBroken, match="entry 2 "):
        database.run(lambda: make_checkpoint(SIGNER, START_US))

    assert [checkpoint.sequence for checkpoint in stored(database)] == [2]


def test_a_log_that_is_shorter_than_the_file_knows_is_not_signed(database):
    database.append(record(1))

    with pytest.raises(ChainBroken, match="entry 2 "):
        database.run(lambda: make_checkpoint(SIGNER, START_US, TWO))


@pytest.mark.parametrize("sequence", [2, 1000])
def test_a_forged_checkpoint_does_not_keep_the_log_from_being_signed(database, sequence):
    database.append(record(1), record(2), record(3))
    database.rows(
        "INSERT INTO audit_checkpoints (sequence, at, hash, key_id, signature) "
        "SELECT $1, at, hash, $2, $3 FROM audit WHERE sequence = 2",
        sequence,
        SIGNER.key_id,
        bytes(64),
    )

    with pytest.raises(ChainBroken, match="false signature"):
        database.run(lambda: make_checkpoint(SIGNER, START_US))


def test_a_new_key_goes_on_from_what_the_former_one_signed(database):
    database.append(record(1))
    database.run(lambda: make_checkpoint(STRANGER, START_US))
    database.append(record(2))

    database.run(lambda: make_checkpoint(SIGNER, START_US))

    assert [entry.key_id for entry in stored(database)] == [STRANGER.key_id, SIGNER.key_id]


# In the file


def test_lines_are_json_and_for_the_owner_alone(path, file):
    assert file.extend([ONE, TWO]) == 2

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[1] == {
        "origin": "trunkline",
        "sequence": 2,
        "hash": "02" * 32,
        "at_us": START_US + 1,
        "key_id": SIGNER.key_id,
        "signature": TWO.signature.hex(),
    }
    assert list(file.read()) == [ONE, TWO]
    assert file.last() == TWO


def test_only_what_is_newer_is_appended(path, file):
    file.extend([ONE, TWO])
    before = path.read_bytes()

    assert file.extend([]) == 0
    assert file.extend([ONE, TWO]) == 0
    assert path.read_bytes() == before
    assert CheckpointFile(path).extend([TWO, THREE]) == 1
    assert path.read_bytes().startswith(before)
    assert list(file.read()) == [ONE, TWO, THREE]


@pytest.mark.parametrize("kept", range(0, 300, 7))
def test_a_line_that_a_crash_cut_is_written_again(path, file, kept):
    file.extend([ONE, TWO])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: first + kept])

    assert file.last() == ONE
    file.extend([ONE, TWO, THREE])

    assert [found for found in file.read() if found] == [ONE, TWO, THREE]
    assert list(file.read()).count(None) == (1 if kept else 0)


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"{}\n",
        b"\xff\n",
        b"\n",
        b"x" * 10_000 + b"\n",
        b'{"origin":"trunkline","sequence":"1"}\n',
        json.dumps(
            {
                "origin": "other",
                "sequence": 3,
                "hash": "",
                "at_us": 1,
                "key_id": "",
                "signature": "",
            }
        ).encode()
        + b"\n",
    ],
    ids=lambda line: line[:20].decode(errors="replace"),
)
def test_a_line_that_is_no_checkpoint_of_this_log_is_read_as_none(path, file, line):
    file.extend([ONE])
    with path.open("ab") as end:
        end.write(line)

    found = list(file.read())

    assert found[0] == ONE
    assert set(found[1:]) == {None}


def test_while_another_process_writes_nothing_is_written(path, file):
    file.extend([ONE])
    holder = os.open(path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)

    try:
        assert file.extend([TWO]) == 0
    finally:
        os.close(holder)

    assert file.extend([TWO]) == 1
    assert list(file.read()) == [ONE, TWO]


def test_a_file_that_is_not_there_has_no_last_line_but_can_not_be_read(file):
    assert file.last() is None
    with pytest.raises(FileNotFoundError):
        list(file.read())


def test_a_file_in_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        CheckpointFile(tmp_path / "no" / "file").extend([ONE])


# In both


async def test_a_checkpoint_is_kept_in_both_places(database, file):
    database.append(record(1), record(2))

    made = await keep_checkpoint(database, SIGNER, START_US, file)
    again = await keep_checkpoint(database, SIGNER, START_US, file)

    assert made is not None
    assert again is None
    assert list(file.read()) == stored(database) == [made]


async def test_a_file_that_came_late_or_missed_some_gets_them_all(database, tmp_path):
    mine, theirs = (CheckpointFile(tmp_path / name) for name in ("mine", "theirs"))
    for number in range(5):
        database.append(record(number))
        await keep_checkpoint(database, SIGNER, START_US, [None, mine, theirs][number % 3])

    await keep_checkpoint(database, SIGNER, START_US, mine)
    await keep_checkpoint(database, SIGNER, START_US, theirs)

    assert list(mine.read()) == list(theirs.read()) == stored(database)
    assert len(stored(database)) == 5


async def test_a_file_that_lacks_many_gets_them_in_parts(database, file):
    database.append(*[record(1)] * 1000)
    database.append(*[record(1)] * 500)
    for sequence, digest in database.rows("SELECT sequence, hash FROM audit ORDER BY sequence"):
        checkpoint = SIGNER.sign(sequence, digest, START_US)
        database.rows(
            "INSERT INTO audit_checkpoints (sequence, hash, at, key_id, signature) "
            "VALUES ($1, $2, $3, $4, $5)",
            sequence,
            digest,
            START_US,
            checkpoint.key_id,
            checkpoint.signature,
        )
    database.append(record(2))

    lengths = []
    for _ in range(3):
        await keep_checkpoint(database, SIGNER, START_US, file)
        lengths.append(len(list(file.read())))

    assert lengths == [MAX_EXPORTED, 1501, 1501]
    assert list(file.read()) == stored(database)


async def test_a_forged_checkpoint_never_reaches_the_file(database, file):
    database.append(record(1))
    await keep_checkpoint(database, SIGNER, START_US, file)
    database.append(record(2))
    database.run(lambda: make_checkpoint(SIGNER, START_US))
    database.append(record(3))
    database.run(lambda: make_checkpoint(SIGNER, START_US))
    database.rows("UPDATE audit_checkpoints SET at = at + 1 WHERE sequence = 2")

    with pytest.raises(ChainBroken, match="at 2 has a false signature"):
        await keep_checkpoint(database, SIGNER, START_US, file)

    assert [found.sequence for found in file.read() if found] == [1]


async def test_a_database_that_swallows_checkpoints_is_noticed(database, file):
    database.append(record(1))
    database.rows(
        "CREATE TRIGGER swallow AFTER INSERT ON audit_checkpoints "
        "BEGIN DELETE FROM audit_checkpoints; END"
    )

    with pytest.raises(ChainBroken, match="did not stay"):
        await keep_checkpoint(database, SIGNER, START_US, file)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_reads_our_keys(tmp_path):
    create_key(tmp_path / "audit.key", tmp_path / "audit.pub")
    command = ["openssl", "pkey", "-in", str(tmp_path / "audit.key"), "-pubout"]

    shown = subprocess.run(command, capture_output=True, text=True, check=True)

    assert shown.stdout == (tmp_path / "audit.pub").read_text()
