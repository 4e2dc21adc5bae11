"""The audit log on every backend: one chain, whoever writes to it at once."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from tests.storage.conftest import opened
from tests.unit.accounts.audit_log import SIGNER, START_US, record
from trunkline_server.accounts.audit import MAX_RECORDS, append, erase, page
from trunkline_server.accounts.audit_chain import Finding
from trunkline_server.accounts.audit_file import (
    CheckpointFile,
    keep_checkpoint,
)
from trunkline_server.accounts.audit_verify import verify, verify_between
from trunkline_server.core.transactions import Row, Statement, Storage, Transaction
from trunkline_server.storage.upgrade import sqlite_path

CALLERS = 16
EACH = 8


async def run(storage: Storage, sql: str, *values: Any) -> Sequence[Row]:
    def one() -> Transaction[Sequence[Row]]:
        return (yield Statement(sql, values))

    return await storage.write(one)


async def write(storage: Storage, *numbers: int) -> None:
    for number in numbers:
        await storage.write(partial(append, [record(number), record(number + 1)]))


async def forget(storage: Storage, sequence: int) -> bool:
    return await storage.write(partial(erase, sequence, at_us=START_US, actor="key_admin"))


async def test_callers_at_once_write_one_chain(storage, tmp_path):
    file = CheckpointFile(tmp_path / "checkpoints.jsonl")

    callers = (write(storage, *range(caller, caller + EACH)) for caller in range(CALLERS))
    await asyncio.gather(*callers)
    made = await keep_checkpoint(storage, SIGNER, START_US, file)
    private = await run(storage, "SELECT sequence FROM audit_private ORDER BY sequence")
    erased = await asyncio.gather(
        *(forget(storage, row[0]) for row in [*private[:9], *private[:9]])
    )

    report = await verify(storage, SIGNER.verifier, file)
    entries = CALLERS * EACH * 2
    assert made is not None
    assert (made.sequence, sum(erased)) == (entries, 9)
    assert (report.entries, report.signed, report.filed) == (entries + 9, entries, entries)
    assert (report.private, report.erased) == (len(private) - 9, 9)
    assert report.findings == ()


async def test_two_servers_write_one_chain_and_sign_it(url, tmp_path):
    if sqlite_path(url) is not None:
        pytest.skip("a file has one server")
    files = [CheckpointFile(tmp_path / name) for name in ("mine", "theirs")]
    async with opened(url) as mine, opened(url) as theirs:
        for turn in range(3):
            await asyncio.gather(
                *(
                    write(server, turn, turn + 1)
                    for server in (mine, theirs)
                    for _ in range(CALLERS)
                )
            )
            await asyncio.gather(
                keep_checkpoint(mine, SIGNER, START_US + turn, files[0]),
                keep_checkpoint(theirs, SIGNER, START_US + turn, files[1]),
            )
        for server, file in zip((mine, theirs), files, strict=True):
            await keep_checkpoint(server, SIGNER, START_US, file)

        reports = [await verify(mine, SIGNER.verifier, file) for file in files]

    for report in reports:
        assert report.findings == ()
        assert (report.entries, report.signed, report.filed) == (384, 384, 384)
        assert report.checkpoints >= 3


async def test_as_many_records_as_may_be_are_written_and_listed(storage):
    last = await storage.write(partial(append, [record(number) for number in range(MAX_RECORDS)]))

    found, token = [], ""
    while True:
        part = await storage.read(partial(page, "org_1", page_size=150, page_token=token))
        found += [entry.entity_id for entry in part.entries]
        token = part.next_page_token
        if not token:
            break
    assert last == MAX_RECORDS
    assert found == [f"cmpl_{number}" for number in range(997, 0, -3)]


@pytest.mark.parametrize(
    ("sql", "finding"),
    [
        (
            "UPDATE audit SET details = '{}' WHERE sequence = 7",
            Finding(7, "the entry does not have its hash"),
        ),
        ("DELETE FROM audit WHERE sequence = 7", Finding(7, "the entry is missing")),
        (
            "DELETE FROM audit WHERE sequence > 15",
            Finding(16, "the log ends, but had 16 entries"),
        ),
        (
            "UPDATE audit_private SET content = 'else' WHERE sequence = 7",
            Finding(7, "the private content is not the one that was written"),
        ),
        (
            "DELETE FROM audit_private WHERE sequence = 7",
            Finding(7, "the private content is gone, and no entry says that it was erased"),
        ),
        (
            "UPDATE audit_checkpoints SET at = at + 1",
            Finding(16, "its checkpoint has a false signature"),
        ),
        (
            "DELETE FROM audit_checkpoints",
            Finding(16, "its checkpoint is in the file only"),
        ),
    ],
)
async def test_tampering_is_found(storage, tmp_path, sql, finding):
    file = CheckpointFile(tmp_path / "checkpoints.jsonl")
    await storage.write(partial(append, [record(number) for number in range(16)]))
    await keep_checkpoint(storage, SIGNER, START_US, file)

    await run(storage, sql)

    assert finding in (await verify(storage, SIGNER.verifier, file)).findings


async def test_the_log_leads_from_one_checkpoint_to_the_next(storage, tmp_path):
    made = []
    for _ in range(2):
        await write(storage, 1, 2, 3)
        made.append(await keep_checkpoint(storage, SIGNER, START_US, None))
    older, newer = made
    assert older is not None
    assert newer is not None

    assert await verify_between(storage, SIGNER.verifier, older, newer) == ()

    await run(storage, "UPDATE audit SET actor = 'key_other' WHERE sequence = 9")
    [finding] = await verify_between(storage, SIGNER.verifier, older, newer)
    assert finding.sequence == 9
