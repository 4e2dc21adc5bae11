"""Jobs and their events in a database: every change of one is a transaction here.

A job is written by one process at a time, its runner, for as long as that renews its lease; others only end it.
Whatever a runner writes is conditional on its still being the runner, so one that was given up for dead and wakes up
changes nothing. Events are numbered 1, 2, 3, ... in the transaction that writes them, and never changed or taken back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from trunkline.v1.job_service_pb2 import JobState
from trunkline_server.core.errors import IdempotencyConflict, Overloaded, RequestInProgress
from trunkline_server.core.transactions import Row, Statement, Transaction

# Values of `lease_until` that are no instants: nobody has seen it yet, whoever had it is gone, and it is in the queue.
NEW_US: Final = 0
LEFT_US: Final = 1
FOREVER_US: Final = 2**62
QUEUE_RETRY_S: Final = 5.0
MAX_EVENT_BYTES: Final = 64 * 1024 * 1024  # Of all events of a job.
ENDED: Final = frozenset(
    {
        JobState.JOB_STATE_SUCCEEDED,
        JobState.JOB_STATE_FAILED,
        JobState.JOB_STATE_CANCELLED,
        JobState.JOB_STATE_EXPIRED,
    }
)


class Lost(Exception):
    """The job has ended, or somebody else runs it: whoever is told so stops, and writes nothing more."""


class TooManyEvents(Exception):
    """The events of a job are larger than any job needs."""


@dataclass(frozen=True, slots=True)
class Record:
    """A job. Times are microseconds since 1970.

    Attributes:
        spec: a serialised `CompletionSpec`.
        expires_us: when it ends by itself; of one that has ended, when it is forgotten.
        starts: how often somebody began to run it.
        result: a serialised message, whose type depends on the kind.
        error: a serialised `google.rpc.Status`.
    """

    id: str
    owner: str
    key_id: str
    kind: str
    spec: bytes
    metadata_json: str
    state: "JobState.ValueType"
    created_us: int
    expires_us: int
    progress: int = 0
    started_us: int | None = None
    ended_us: int | None = None
    last_sequence: int = 1
    starts: int = 0
    runner: str = ""
    lease_until_us: int = 0
    result: bytes | None = None
    error: bytes | None = None
    callback_url: str = ""
    callback_tries: int = 0

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Event:
    """One event, serialised as a `WatchJobResponse` without its number.

    Attributes:
        step: of the job, that it comes from; empty for what is told of the job itself.
        is_answer: it is the last of its step, with the whole answer in it.
    """

    content: bytes
    step: str = ""
    is_answer: bool = False


_COLUMNS: Final = (
    "id, owner, key_id, kind, spec, metadata_json, state, created_at, expires_at, progress, started_at, ended_at,"
    " last_sequence, starts, runner, lease_until, result, error, callback_url, callback_tries"
)


def _record(row: Row) -> Record:
    spec, result, error = (None if row[i] is None else bytes(row[i]) for i in (4, 16, 17))
    values: list[Any] = [*row[:4], spec or b"", *row[5:16], result, error, *row[18:]]
    return Record(*values)


def create(
    record: Record,
    event: Event,
    *,
    idempotency_key: str,
    fingerprint: bytes,
    max_queued: int,
) -> Transaction[tuple[Record, bool]]:
    """Keep a new job. Returns it, or the one that was made under this key before; and whether it is new.

    Raises:
        IdempotencyConflict, Overloaded; RequestInProgress, after writes: another process took the key in between.
    """
    if idempotency_key:
        rows = yield Statement(
            f"SELECT fingerprint, {_COLUMNS} FROM jobs WHERE owner = $1 AND idempotency_key = $2",
            (record.owner, idempotency_key),
        )
        if rows:
            if bytes(rows[0][0]) != fingerprint:
                raise IdempotencyConflict
            return _record(rows[0][1:]), False
    queued = yield Statement(
        "SELECT COUNT(*) FROM jobs WHERE state = 1"  # JOB_STATE_QUEUED, as the index has it.
    )
    if queued[0][0] >= max_queued:
        raise Overloaded("too many jobs are waiting", retry_after_s=QUEUE_RETRY_S)
    rows = yield Statement(
        "INSERT INTO jobs (id, owner, key_id, kind, spec, metadata_json, idempotency_key, fingerprint, state,"
        " created_at, expires_at, last_sequence, lease_until, callback_url)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1, $13, $12)"
        " ON CONFLICT (owner, idempotency_key) DO NOTHING RETURNING id",
        (
            record.id,
            record.owner,
            record.key_id,
            record.kind,
            record.spec,
            record.metadata_json,
            idempotency_key or None,
            fingerprint,
            int(record.state),
            record.created_us,
            record.expires_us,
            record.callback_url,
            NEW_US,
        ),
    )
    if not rows:
        raise RequestInProgress
    yield _insert(record.id, 1, event)
    return record, True


def _insert(job_id: str, sequence: int, event: Event) -> Statement:
    return Statement(
        "INSERT INTO job_events (job_id, sequence, step, is_answer, event) VALUES ($1, $2, $3, $4, $5)",
        (job_id, sequence, event.step, int(event.is_answer), event.content),
    )


def find(job_id: str) -> Transaction[Record | None]:
    """Whoever it belongs to."""
    rows = yield Statement(f"SELECT {_COLUMNS} FROM jobs WHERE id = $1", (job_id,))
    return _record(rows[0]) if rows else None


def page(owner: str, before: str, count: int) -> Transaction[list[Record]]:
    """Newest first, without results. `before`: an id; empty for the beginning."""
    columns = _COLUMNS.replace("spec", "NULL").replace("result", "NULL")
    rows = yield Statement(
        f"SELECT {columns} FROM jobs WHERE owner = $1 AND ($2 = '' OR id < $2) ORDER BY id DESC LIMIT $3",
        (owner, before, count),
    )
    return [_record(row) for row in rows]


def events(job_id: str, after: int, count: int) -> Transaction[list[tuple[int, bytes]]]:
    """Numbers and contents, in order."""
    rows = yield Statement(
        "SELECT sequence, event FROM job_events WHERE job_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3",
        (job_id, after, count),
    )
    return [(row[0], bytes(row[1])) for row in rows]


def step_so_far(job_id: str, step: str) -> Transaction[tuple[bool, bytes | None]]:
    """Has this step told anything yet, and the event with its whole answer, where that is there."""
    answers = yield Statement(
        "SELECT event FROM job_events WHERE job_id = $1 AND step = $2 AND is_answer = 1 LIMIT 1",
        (job_id, step),
    )
    if answers:
        return True, bytes(answers[0][0])
    rows = yield Statement(
        "SELECT 1 FROM job_events WHERE job_id = $1 AND step = $2 LIMIT 1", (job_id, step)
    )
    return bool(rows), None


def begin(
    record: Record, event: Event, runner: str, now_us: int, lease_until_us: int, max_us: int
) -> Transaction[Record | None]:
    """Become the runner. None: it has ended, or somebody else runs it now.

    Args:
        record: as it was found; `event`: written when this is its first start.
    """
    started_us = record.started_us or now_us
    rows = yield Statement(
        "UPDATE jobs SET state = $2, runner = $3, lease_until = $4, starts = starts + 1, started_at = $5,"
        " expires_at = $6, last_sequence = last_sequence + $7 WHERE id = $1 AND ended_at IS NULL"
        f" AND starts = $8 AND (runner = '' OR lease_until < $9) RETURNING {_COLUMNS}",
        (
            record.id,
            int(JobState.JOB_STATE_RUNNING),
            runner,
            lease_until_us,
            started_us,
            started_us + max_us,
            int(record.started_us is None),
            record.starts,
            now_us,
        ),
    )
    if not rows:
        return None
    begun = _record(rows[0])
    if record.started_us is None:
        yield _insert(record.id, begun.last_sequence, event)
    return begun


def append(
    job_id: str, runner: str, last: int, added: Sequence[Event], progress: int
) -> Transaction[int]:
    """Write the next events. Done once, however often it is tried. Returns the number of the last one.

    Args:
        last: the number of the one before.
        progress: in percent, after these.

    Raises:
        Lost, TooManyEvents.
    """
    now_last = last + len(added)
    size_bytes = sum(len(event.content) for event in added)
    rows = yield Statement(
        "UPDATE jobs SET last_sequence = $4, progress = $5, event_bytes = event_bytes + $6"
        " WHERE id = $1 AND runner = $2 AND last_sequence = $3 AND ended_at IS NULL AND event_bytes + $6 <= $7"
        " RETURNING id",
        (job_id, runner, last, now_last, progress, size_bytes, MAX_EVENT_BYTES),
    )
    if rows:
        for sequence, event in enumerate(added, start=last + 1):
            yield _insert(job_id, sequence, event)
        return now_last
    rows = yield Statement(
        "SELECT runner, last_sequence, ended_at, event_bytes FROM jobs WHERE id = $1", (job_id,)
    )
    if not rows or rows[0][0] != runner or rows[0][2] is not None:
        raise Lost
    if rows[0][1] == now_last and added:
        return now_last  # An earlier try, of which nobody knew whether it was done.
    if rows[0][1] == last:
        raise TooManyEvents
    raise Lost


def finish(
    record: Record, event: Event, *, only_runner: str = "", now_us: int
) -> Transaction[bool]:
    """End a job, once. False: it had ended before.

    Args:
        record: as it is to be, with its end. `event`: tells of it.
        only_runner: nobody else may.

    Raises:
        Lost.
    """
    rows = yield Statement(
        "UPDATE jobs SET state = $2, progress = $3, ended_at = $4, expires_at = $5, result = $6, error = $7,"
        " callback_at = $8, last_sequence = last_sequence + 1, runner = ''"
        " WHERE id = $1 AND ended_at IS NULL AND ($9 = '' OR runner = $9) RETURNING last_sequence",
        (
            record.id,
            int(record.state),
            record.progress,
            record.ended_us,
            record.expires_us,
            record.result,
            record.error,
            now_us if record.callback_url else None,
            only_runner,
        ),
    )
    if rows:
        yield _insert(record.id, rows[0][0], event)
        return True
    rows = yield Statement("SELECT ended_at FROM jobs WHERE id = $1", (record.id,))
    if rows and rows[0][0] is None:
        raise Lost
    return False


def renew(runner: str, lease_until_us: int) -> Transaction[frozenset[str]]:
    """Go on being the runner. Returns the ids of what it runs: of what is missing it no longer is."""
    rows = yield Statement(
        "UPDATE jobs SET lease_until = $2 WHERE runner = $1 AND ended_at IS NULL RETURNING id",
        (runner, lease_until_us),
    )
    return frozenset(row[0] for row in rows)


def release(runner: str) -> Transaction[None]:
    """Run nothing any more: others may."""
    yield Statement(
        "UPDATE jobs SET runner = '', lease_until = $2 WHERE runner = $1 AND ended_at IS NULL",
        (runner, LEFT_US),
    )


def adopt() -> Transaction[None]:
    """All that has not ended is left behind by an earlier life: no other process runs any of it."""
    yield Statement(
        "UPDATE jobs SET runner = '', lease_until = $1 WHERE ended_at IS NULL AND lease_until > $1",
        (LEFT_US,),
    )


def unfinished(now_us: int) -> Transaction[tuple[bool, bool]]:
    """Is there any job that has not ended, and one that nobody attends to?"""
    rows = yield Statement("SELECT MIN(lease_until) FROM jobs WHERE ended_at IS NULL")
    first_us = rows[0][0]
    return first_us is not None, first_us is not None and first_us < now_us


def claim(now_us: int, lease_until_us: int, count: int) -> Transaction[list[tuple[str, bool]]]:
    """Take what nobody attends to, to see that somebody runs it. Returns ids, and whether each was never seen."""
    rows = yield Statement(
        "SELECT id, lease_until FROM jobs WHERE ended_at IS NULL AND lease_until < $1"
        " ORDER BY lease_until, id LIMIT $2",
        (now_us, count),
    )
    claimed: list[tuple[str, bool]] = []
    for job_id, until_us in rows:
        taken = yield Statement(
            "UPDATE jobs SET runner = '', lease_until = $3"
            " WHERE id = $1 AND lease_until = $2 AND ended_at IS NULL RETURNING id",
            (job_id, until_us, lease_until_us),
        )
        if taken:
            claimed.append((job_id, until_us == NEW_US))
    return claimed


def entrust(job_id: str) -> Transaction[None]:
    """It is in the queue: nobody has to look after it until it begins."""
    yield Statement(
        "UPDATE jobs SET lease_until = $2 WHERE id = $1 AND runner = '' AND ended_at IS NULL",
        (job_id, FOREVER_US),
    )


def overdue(now_us: int, count: int) -> Transaction[list[Record]]:
    """Those that should have ended."""
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM jobs WHERE expires_at <= $1 AND ended_at IS NULL ORDER BY expires_at LIMIT $2",
        (now_us, count),
    )
    return [_record(row) for row in rows]


def old(now_us: int, count: int) -> Transaction[list[str]]:
    """Ids of what was kept long enough."""
    rows = yield Statement(
        "SELECT id FROM jobs WHERE expires_at <= $1 AND ended_at IS NOT NULL ORDER BY expires_at LIMIT $2",
        (now_us, count),
    )
    return [row[0] for row in rows]


def forget(job_ids: Sequence[str]) -> Transaction[None]:
    """Delete them, with all that they told."""
    for job_id in job_ids:
        yield Statement("DELETE FROM job_events WHERE job_id = $1", (job_id,))
        yield Statement("DELETE FROM jobs WHERE id = $1", (job_id,))


def has_callback(now_us: int) -> Transaction[bool]:
    """Is any end still to be told?"""
    rows = yield Statement("SELECT 1 FROM jobs WHERE callback_at <= $1 LIMIT 1", (now_us,))
    return bool(rows)


def due_callback(now_us: int, next_us: int) -> Transaction[Record | None]:
    """A job whose end is still to be told. It is not due again before `next_us`."""
    due = yield Statement(
        "SELECT id, callback_at FROM jobs WHERE callback_at <= $1 ORDER BY callback_at LIMIT 1",
        (now_us,),
    )
    if not due:
        return None
    rows = yield Statement(
        "UPDATE jobs SET callback_at = $3, callback_tries = callback_tries + 1"
        f" WHERE id = $1 AND callback_at = $2 RETURNING {_COLUMNS}",
        (*due[0], next_us),
    )
    return _record(rows[0]) if rows else None


def end_callback(job_id: str, next_us: int | None) -> Transaction[None]:
    """It was told, or is not to be told again; or only then."""
    yield Statement("UPDATE jobs SET callback_at = $2 WHERE id = $1", (job_id, next_us))
