"""Jobs as their callers see them."""

from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.job_service_pb2 import Job, WatchJobResponse
from trunkline_server.jobs.records import Event, Record

MICROS: Final = 1_000_000
COMPLETION: Final = "completion"
RESEARCH: Final = "research"
VIDEO: Final = "video"
_RESULTS: Final = {COMPLETION: "completion", RESEARCH: "research", VIDEO: "media"}


def job_message(record: Record) -> Job:
    """With its result, where the record has it."""
    job = Job(
        id=record.id,
        kind=record.kind,
        state=record.state,
        progress_percent=record.progress,
        create_time=_timestamp(record.created_us),
        expire_time=_timestamp(record.expires_us),
        metadata_json=record.metadata_json,
        last_sequence=record.last_sequence,
    )
    if record.started_us is not None:
        job.start_time.CopyFrom(_timestamp(record.started_us))
    if record.ended_us is not None:
        job.end_time.CopyFrom(_timestamp(record.ended_us))
    if record.error is not None:
        job.error.CopyFrom(Status.FromString(record.error))
    if record.result is not None:
        getattr(job, _RESULTS[record.kind]).ParseFromString(record.result)
        getattr(job, _RESULTS[record.kind]).SetInParent()
    return job


def job_event(record: Record) -> Event:
    """Tells how a job is now, without its result, which is added when somebody reads it, and without a number."""
    job = job_message(record)
    job.ClearField("last_sequence")
    if record.result is not None:
        job.ClearField(_RESULTS[record.kind])  # type: ignore[arg-type]
    return Event(WatchJobResponse(job=job).SerializeToString())


def completion_event(step: str, event: CompleteResponse) -> Event:
    """What a completion of the job has told."""
    content = WatchJobResponse(completion_event=event).SerializeToString()
    return Event(content, step, event.HasField("completed"))


def response(sequence: int, content: bytes, record: Record | None) -> WatchJobResponse:
    """An event as it is read. `record`: with the result, for the last event."""
    found = WatchJobResponse.FromString(content)
    found.sequence = sequence
    if found.HasField("job"):
        found.job.last_sequence = sequence
        if record is not None and record.result is not None:
            getattr(found.job, _RESULTS[record.kind]).ParseFromString(record.result)
            getattr(found.job, _RESULTS[record.kind]).SetInParent()
    return found


def _timestamp(at_us: int) -> Timestamp:
    return Timestamp(seconds=at_us // MICROS, nanos=at_us % MICROS * 1_000)


def instant(at_us: int) -> str:
    """As JSON has it, to the second."""
    return datetime.fromtimestamp(at_us // MICROS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
