"""The audit log: what is written, what can be erased, what is listed."""

import hashlib
import json
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.accounts.audit_log import START_US, Database, record
from trunkline_server.accounts.audit import (
    DEFAULT_PAGE,
    ERASED,
    GENESIS,
    MAX_AT_US,
    MAX_DETAILS_BYTES,
    MAX_FIELD_CHARS,
    MAX_PAGE,
    MAX_PRIVATE_BYTES,
    MAX_RECORDS,
    AuditRecord,
    append,
    canonical_json,
    commitment_of,
    entry_hash,
    page,
)
from trunkline_server.core.errors import InvalidRequest, NotFound

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TEXTS = st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT)
HASH = st.binary(min_size=32, max_size=32)
ENTRY = st.tuples(
    st.integers(1, 2**63 - 1), HASH, st.integers(0, MAX_AT_US), TEXTS, st.none() | HASH
)


@pytest.fixture
def database():
    return Database()


# The chain


@given(ENTRY)
def test_the_hash_is_the_documented_one(entry):
    encoded, expected = documented(*entry)

    assert entry_hash(*entry) == expected
    # What can be read back is not the encoding of anything else.
    at_us, *texts, commitment = json.loads(encoded)
    assert (at_us, tuple(texts)) == entry[2:4]
    assert commitment == (entry[4].hex() if entry[4] is not None else None)


def documented(sequence, previous, at_us, texts, commitment):
    """The entry and its hash, as somebody else would compute them, who has read the documentation only."""
    fields = [at_us, *texts, commitment.hex() if commitment is not None else None]
    encoded = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    head = b"trunkline-audit-v1\0" + sequence.to_bytes(8, "big") + previous
    return encoded, hashlib.sha256(head + encoded).digest()


def test_every_character_is_encoded_as_documented():
    all_of_them = "".join(chr(n) for n in range(0x110000) if not 0xD800 <= n < 0xE000)
    entry: Any = (1, GENESIS, 0, (all_of_them, *"abcdef"), None)

    assert entry_hash(*entry) == documented(*entry)[1]


@given(TEXTS, st.integers(0, 6), st.integers(0, 20))
def test_a_character_that_moves_to_the_next_field_changes_the_hash(texts, field, place):
    joined = texts[field] + texts[(field + 1) % 7]
    moved = list(texts)
    moved[field], moved[(field + 1) % 7] = joined[:place], joined[place:]

    one = entry_hash(1, GENESIS, 0, texts, None)
    other = entry_hash(1, GENESIS, 0, cast(Any, tuple(moved)), None)

    assert (one == other) == (tuple(moved) == texts)


@pytest.mark.parametrize("field", range(7))
def test_bytes_are_no_text(field):
    texts: list[Any] = ["aGk="] * 7
    texts[field] = b"hi"

    with pytest.raises(TypeError):
        entry_hash(1, GENESIS, 0, cast(Any, tuple(texts)), None)


@given(st.binary(min_size=64, max_size=80), st.integers(16, 64), st.integers(16, 64))
def test_where_the_salt_ends_is_part_of_the_commitment(joined, one, other):
    text = joined.hex()

    commitments = {commitment_of(text[:end].encode(), text[end:]) for end in {one, other}}

    assert len(commitments) == len({one, other})


def test_entries_are_chained_from_32_zero_bytes(database):
    first = database.append(record(1), record(2))
    second = database.append(record(3))

    rows = database.rows("SELECT sequence, previous_hash, hash FROM audit ORDER BY sequence")
    assert (first, second) == (2, 3)
    assert [row[0] for row in rows] == [1, 2, 3]
    assert [row[1] for row in rows] == [GENESIS, rows[0][2], rows[1][2]]
    assert database.rows("SELECT * FROM audit_head") == [(1, 3, rows[2][2])]


def test_it_makes_no_difference_how_records_are_grouped():
    together, apart = Database(), Database()
    records = [record(number) for number in range(600)]

    together.append(*records)
    for entry in records:
        apart.append(entry)

    for table in ("audit", "audit_head", "audit_private"):
        assert together.rows(f"SELECT * FROM {table}") == apart.rows(f"SELECT * FROM {table}")


@pytest.mark.parametrize(("records", "statements"), [(1, 3), (2, 3), (256, 3), (MAX_RECORDS, 9)])
def test_many_records_are_few_statements(database, records, statements):
    database.append(*[record(1)] * records)

    assert len(database.statements) == statements
    assert max(len(statement.values) for statement in database.statements) < 32_767
    assert database.rows("SELECT COUNT(*), MAX(sequence) FROM audit") == [(records, records)]


def test_a_change_that_fails_leaves_no_entry(database):
    def change():
        yield from append([record(1)])
        raise NotFound("no such key")

    with pytest.raises(NotFound):
        database.run(change)

    assert database.rows("SELECT COUNT(*) FROM audit") == [(0,)]
    assert database.append(record(1)) == 1


@pytest.mark.parametrize("count", [0, MAX_RECORDS + 1])
def test_the_number_of_records_is_bounded(database, count):
    with pytest.raises(ValueError, match="records at a time"):
        database.append(*[record(1)] * count)


@pytest.mark.parametrize(
    "changes",
    [
        {"at_us": -1},
        {"at_us": MAX_AT_US + 1},
        {"actor": "a" * (MAX_FIELD_CHARS + 1)},
        {"entity_id": "a\0b"},
        {"organization": "\ud800"},
        {"details": "a\0b"},
        {"details": "é" * (MAX_DETAILS_BYTES // 2 + 1)},
        {"private": "a\0b", "salt": bytes(16)},
        {"private": "a" * (MAX_PRIVATE_BYTES + 1), "salt": bytes(16)},
        {"private": "a", "salt": bytes(15)},
        {"private": "a", "salt": bytes(65)},
        {"private": "a", "salt": b""},
    ],
    ids=str,
)
def test_what_no_database_should_hold_is_refused_before_it_is_asked(changes):
    with pytest.raises(ValueError, match=r"^audit: "):
        record(1, **changes)


def test_the_largest_record_is_taken(database):
    names = dict.fromkeys(("action", "actor", "organization"), "é" * MAX_FIELD_CHARS)
    private = {"private": "p" * MAX_PRIVATE_BYTES, "salt": bytes(64)}

    database.append(record(1, **names, **private, details="d" * MAX_DETAILS_BYTES))

    [entry] = database.run(lambda: page(None)).entries
    assert (entry.actor, entry.private) == (names["actor"], private["private"])


def test_a_record_does_not_show_what_is_private(database):
    entry = record(1, private="secret note", salt=b"sixteen salty by")
    database.append(entry)
    [listed] = database.run(lambda: page(None)).entries

    for shown in (repr(entry), repr(listed)):
        assert "secret" not in shown
        assert "salty" not in shown


def test_canonical_json_does_not_depend_on_the_order_of_keys():
    assert canonical_json({"b": 1, "a": {"d": None, "c": "é"}}) == '{"a":{"c":"é","d":null},"b":1}'


# Erasing


def test_what_is_erased_is_gone_and_said_to_be(database):
    database.append(record(1, private="a note", salt=bytes(16)), record(2))
    before = database.rows("SELECT * FROM audit")

    assert database.erase(1, START_US + 9, "req_erase")

    assert database.rows("SELECT * FROM audit_private") == []
    assert database.rows("SELECT * FROM audit WHERE sequence <= 2") == before
    [erasure] = database.run(lambda: page("org_1", page_size=1)).entries
    assert (erasure.sequence, erasure.action, erasure.entity_id) == (3, ERASED, "1")
    assert (erasure.at_us, erasure.actor, erasure.request_id) == (
        START_US + 9,
        "key_admin",
        "req_erase",
    )


def test_nothing_is_erased_twice_and_nothing_that_never_was(database):
    database.append(record(1, private="a note", salt=bytes(16)), record(2))

    assert [database.erase(1), database.erase(1), database.erase(2)] == [True, False, False]
    assert database.rows("SELECT COUNT(*) FROM audit") == [(3,)]


@pytest.mark.parametrize(
    ("sequence", "organization"), [(2, None), (0, None), (1, "org_2"), (1, "")]
)
def test_the_entry_of_another_looks_like_none(database, sequence, organization):
    database.append(record(1, private="a note", salt=bytes(16)))

    with pytest.raises(NotFound) as caught:
        database.erase(sequence, organization=organization)

    assert str(caught.value) == "no such audit entry"
    assert database.rows("SELECT COUNT(*) FROM audit_private") == [(1,)]


def test_the_owner_may_erase(database):
    database.append(record(1, private="a note", salt=bytes(16)))

    assert database.erase(1, organization="org_1")


# Listing


def test_an_organisation_sees_its_own_newest_first(database):
    database.append(*map(record, range(1, 10)))

    found = database.run(lambda: page("org_1"))

    assert [entry.entity_id for entry in found.entries] == ["cmpl_7", "cmpl_4", "cmpl_1"]
    assert found.next_page_token == ""


def test_an_entry_is_listed_as_it_was_recorded(database):
    database.append(record(3), record(6), record(1))
    database.erase(2)

    _, plain, erased, private = database.run(lambda: page(None)).entries

    for number, entry in ((3, private), (6, erased), (1, plain)):
        expected = record(number)
        for name in AuditRecord.__slots__:
            if name not in {"private", "salt"}:
                assert getattr(entry, name) == getattr(expected, name)
    assert [(e.private, e.is_erased) for e in (private, erased, plain)] == [
        (record(3).private, False),
        (None, True),
        (None, False),
    ]
    assert (erased.previous_hash, plain.previous_hash) == (private.hash, erased.hash)


@pytest.mark.parametrize("organization", [None, "org_2"])
@pytest.mark.parametrize("size", [1, 2, 7, 50, MAX_PAGE])
def test_pages_hold_everything_once_even_while_the_log_grows(database, organization, size):
    database.append(*map(record, range(60)))
    expected = [
        row[0]
        for row in database.rows("SELECT sequence, organization FROM audit ORDER BY sequence DESC")
        if organization in (None, row[1])
    ]

    found, token = [], ""
    while True:
        part = database.run(partial(page, organization, page_size=size, page_token=token))
        assert 1 <= len(part.entries) <= size
        found += [entry.sequence for entry in part.entries]
        token = part.next_page_token
        if not token:
            break
        database.append(record(100))

    assert found == expected


@pytest.mark.parametrize(
    ("asked", "given"), [(0, DEFAULT_PAGE), (MAX_PAGE + 1, MAX_PAGE), (2**31 - 1, MAX_PAGE)]
)
def test_a_page_is_bounded(database, asked, given):
    database.append(*[record(1)] * (MAX_PAGE + 50))

    assert len(database.run(lambda: page("org_1", page_size=asked)).entries) == given


def test_a_page_of_large_entries_ends_early(database):
    large = {"private": "p" * MAX_PRIVATE_BYTES, "salt": bytes(16)}
    database.append(*[record(1, **large)] * 100)

    first = database.run(lambda: page(None, page_size=100))
    second = database.run(lambda: page(None, page_token=first.next_page_token))

    assert len(first.entries) == 31
    assert second.entries[0].sequence == first.entries[-1].sequence - 1


def test_an_organisation_without_entries_has_an_empty_page(database):
    database.append(record(1))

    found = database.run(lambda: page("org_unknown"))

    assert (found.entries, found.next_page_token) == ((), "")


@pytest.mark.parametrize("token", ["x", "-1", "1.5", "²", "9" * 19, "1 OR 1"])
def test_a_token_of_someone_else_is_refused(database, token):
    with pytest.raises(InvalidRequest, match="page_token"):
        database.run(lambda: page(None, page_token=token))


def test_a_negative_size_is_refused(database):
    with pytest.raises(InvalidRequest, match="page_size"):
        database.run(lambda: page(None, page_size=-1))
