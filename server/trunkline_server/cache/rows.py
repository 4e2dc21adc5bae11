"""Cached answers, the questions of the semantic tier, and what is known of them, as rows.

What an owner has cleared is a row of its own, and rows that it covers count as gone from that moment on: to delete them
is only tidying up. So an answer that was asked for before and comes in after a clearing is not found either.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from trunkline_server.cache.evidence import Count
from trunkline_server.core.cache import Clearing, Clearings, Kept
from trunkline_server.core.transactions import Statement, Transaction

SWEEP: Final = 1_000  # Rows at once.
MAX_OWNERS: Final = 100_000  # With a clearing, that a process hears of.

_CLEARED: Final = "COALESCE((SELECT before_at FROM cache_clearings WHERE owner = $2), 0)"
_FIND: Final = (
    "SELECT answer, kept_at, expires_at FROM cached_answers"
    f" WHERE key = $1 AND owner = $2 AND kept_at > {_CLEARED}"
)
_PUT: Final = (
    "INSERT INTO cached_answers (key, owner, answer, kept_at, expires_at) VALUES ($1, $2, $3, $4, $5)"
    " ON CONFLICT (key) DO UPDATE SET answer = $3, kept_at = $4, expires_at = $5"
)
_CLEAR: Final = (
    "INSERT INTO cache_clearings (owner, before_at, changes) VALUES ($1, $2, 1) ON CONFLICT (owner) DO UPDATE"
    " SET changes = cache_clearings.changes + 1, before_at ="
    " CASE WHEN cache_clearings.before_at < $2 THEN $2 ELSE cache_clearings.before_at END"
)


def find(key: bytes, owner: str) -> Transaction[Kept | None]:
    """One answer, expired or not."""
    rows = yield Statement(_FIND, (key, owner))
    if not rows:
        return None
    answer, kept_us, expires_us = rows[0]
    return Kept(key, owner, bytes(answer), kept_us, expires_us)


def put(kept: Kept) -> Transaction[None]:
    """In the place of any other."""
    values = (kept.key, kept.owner, kept.answer, kept.kept_us, kept.expires_us)
    yield Statement(_PUT, values)


def drop(key: bytes, owner: str) -> Transaction[None]:
    """One answer, and its question. Counts as a change."""
    for table in ("cached_answers", "cached_questions"):
        yield Statement(f"DELETE FROM {table} WHERE key = $1 AND owner = $2", (key, owner))
    yield Statement(_CLEAR, (owner, 0))


def clear(owner: str, before_us: int) -> Transaction[None]:
    """All of an owner that was asked for at that instant or earlier."""
    yield Statement(_CLEAR, (owner, before_us))


def sweep_cleared(owner: str, before_us: int) -> Transaction[bool]:
    """Delete some of what is cleared. True: there is more."""
    is_more = False
    for table in ("cached_answers", "cached_questions"):
        rows = yield Statement(
            f"DELETE FROM {table} WHERE key IN (SELECT key FROM {table}"
            " WHERE owner = $1 AND kept_at <= $2 LIMIT $3) RETURNING key",
            (owner, before_us, SWEEP),
        )
        is_more = is_more or len(rows) == SWEEP
    return is_more


def clearings(mark: str) -> Transaction[Clearings | None]:
    """All of them; None where there was no change since `mark`."""
    rows = yield Statement("SELECT COUNT(*), SUM(changes) FROM cache_clearings")
    found = f"{rows[0][0]}-{int(rows[0][1] or 0)}"
    if found == mark:
        return None
    rows = yield Statement(
        "SELECT owner, before_at, changes FROM cache_clearings ORDER BY before_at DESC LIMIT $1",
        (MAX_OWNERS,),
    )
    return Clearings(found, {owner: Clearing(before, changes) for owner, before, changes in rows})


def count(owner: str, now_us: int) -> Transaction[tuple[int, int]]:
    """How many answers an owner has that can still be found, and their bytes."""
    rows = yield Statement(
        "SELECT COUNT(*), SUM(LENGTH(answer)) FROM cached_answers WHERE expires_at > $1 AND owner = $2"
        f" AND kept_at > {_CLEARED}",
        (now_us, owner),
    )
    return rows[0][0], int(rows[0][1] or 0)


def sweep(now_us: int, max_entries: int) -> Transaction[None]:
    """Delete some of what has expired, and of the oldest where there are more than that."""
    for table in ("cached_answers", "cached_questions"):
        yield Statement(
            f"DELETE FROM {table} WHERE key IN (SELECT key FROM {table} WHERE expires_at <= $1 LIMIT $2)",
            (now_us, SWEEP),
        )
        rows = yield Statement(f"SELECT COUNT(*) FROM {table}")
        if (surplus := rows[0][0] - max_entries) > 0:
            yield Statement(
                f"DELETE FROM {table} WHERE key IN (SELECT key FROM {table} ORDER BY kept_at LIMIT $1)",
                (min(surplus, SWEEP),),
            )


class QuestionRow(NamedTuple):
    """A question of the semantic tier. The vector is 384 halves, as bytes."""

    key: bytes
    question: str
    vector: bytes
    kept_us: int
    expires_us: int


def put_question(owner: str, section: bytes, row: QuestionRow) -> Transaction[None]:
    """In the place of any other."""
    yield Statement(
        "INSERT INTO cached_questions (key, owner, section, question, vector, kept_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)"
        " ON CONFLICT (key) DO UPDATE SET kept_at = $6, expires_at = $7",
        (row.key, owner, section, row.question, row.vector, row.kept_us, row.expires_us),
    )


def questions(
    owner: str, section: bytes, after_us: int, limit: int
) -> Transaction[Sequence[QuestionRow]]:
    """Of a section, the newest, from old to new; only those that came after an instant."""
    rows = yield Statement(
        "SELECT key, question, vector, kept_at, expires_at FROM cached_questions"
        f" WHERE section = $1 AND owner = $2 AND kept_at > $3 AND kept_at > {_CLEARED}"
        " ORDER BY kept_at DESC LIMIT $4",
        (section, owner, after_us, limit),
    )
    return [
        QuestionRow(bytes(key), question, bytes(vector), kept_us, expires_us)
        for key, question, vector, kept_us, expires_us in reversed(rows)
    ]


def evidence(owner: str, rules: str) -> Transaction[dict[int, Count]]:
    """By bins."""
    rows = yield Statement(
        "SELECT bin, same, other FROM cache_evidence WHERE owner = $1 AND rules = $2",
        (owner, rules),
    )
    return {number: Count(same, other) for number, same, other in rows}


def judge(owner: str, rules: str, number: int, is_same: bool) -> Transaction[Count]:
    """One more pair of answers. Returns what is known of the bin now."""
    rows = yield Statement(
        "SELECT same, other FROM cache_evidence WHERE owner = $1 AND rules = $2 AND bin = $3",
        (owner, rules, number),
    )
    count = Count(*rows[0]) if rows else Count()
    count = count.plus(is_same)
    yield Statement(
        "INSERT INTO cache_evidence (owner, rules, bin, same, other) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (owner, rules, bin) DO UPDATE SET same = $4, other = $5",
        (owner, rules, number, count.same, count.other),
    )
    return count
