"""`trunkline jobs`: work that outlives a call: how it is getting on, and to end it."""

import argparse
import sys
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from trunkline.v1.job_service_pb2 import Job, JobState, WatchJobResponse
from trunkline_server.commands.calling import COMPLETION_TIMEOUT_S, changing, new_client
from trunkline_server.commands.output import (
    MAX_PAGE,
    Column,
    add_listing_options,
    print_messages,
    print_table,
)
from trunkline_server.commands.words import NONE, time_of, visible

COLUMNS: Final = (
    Column("id"),
    Column("kind"),
    Column("state"),
    Column("%", is_number=True),
    Column("asked for"),
    Column("ended"),
)


def add_jobs(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """The parsers."""
    jobs = commands.add_parser("jobs", help="list, watch and cancel work that takes its time")
    actions = jobs.add_subparsers(metavar="ACTION", required=True)

    listing = actions.add_parser("list", parents=parents, help="those of the key, newest first")
    add_listing_options(listing)
    listing.set_defaults(run=_list)

    for name, run, told in (
        ("show", _show, "how a job is, and its result"),
        ("watch", _watch, "what happens in a job, from its beginning to its end"),
        ("cancel", _cancel, "end a job"),
    ):
        action = actions.add_parser(name, parents=parents, help=told)
        action.add_argument("job_id", metavar="ID")
        action.add_argument("--json", action="store_true", help="as JSON")
        if name == "watch":
            action.add_argument(
                "--after", type=int, default=0, metavar="N", help="only what comes after event N"
            )
        action.set_defaults(run=run)


def _list(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        page_size = min(arguments.limit, MAX_PAGE)
        found = islice(client.list_jobs(page_size=page_size), arguments.limit)
        if arguments.json:
            print_messages(found)
            return 0
        listed = list(found)
    print_table(COLUMNS, [_row(job) for job in listed])
    return 0


def _row(job: Job) -> list[str]:
    times = (time_of(job, "create_time"), time_of(job, "end_time"))
    return [job.id, job.kind, _state(job), str(job.progress_percent), *times]


def _state(job: Job) -> str:
    known = JobState.DESCRIPTOR.values_by_number.get(job.state)
    return known.name.removeprefix("JOB_STATE_").lower() if known else str(job.state)


def _show(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        job = client.get_job(arguments.job_id)
    if arguments.json:
        print_messages([job])
        return 0
    for name, value in (
        ("id", job.id),
        ("kind", job.kind),
        ("state", f"{_state(job)}, {job.progress_percent} %"),
        ("asked for", time_of(job, "create_time")),
        ("began", time_of(job, "start_time")),
        ("ended", time_of(job, "end_time")),
        ("error", job.error.message if job.HasField("error") else NONE),
    ):
        print(f"{name:10} {visible(value)}")
    if told := _told(job):
        print(f"\n{told}")
    return 0


def _told(job: Job) -> str:
    """Its result, as far as that is text."""
    if job.HasField("research"):
        return _lines(job.research.report)
    texts = [p.text for c in job.completion.choices for p in c.message.parts]
    links = [a.url or f"{a.mime_type}, {a.size_bytes} bytes" for a in job.media.artifacts]
    return _lines("\n".join([*texts, *links]))


def _lines(text: str) -> str:
    return "\n".join(visible(line) for line in text.splitlines())


def _watch(arguments: argparse.Namespace) -> int:
    with new_client(arguments, COMPLETION_TIMEOUT_S) as client:
        events = client.watch_job(arguments.job_id, arguments.after)
        if arguments.json:
            print_messages(events)
            return 0
        last = _printed(events)
    return 0 if last.state == JobState.JOB_STATE_SUCCEEDED else 1


def _printed(events: Iterable[WatchJobResponse]) -> Job:
    """Text as it comes, everything else beside it. Returns how the job ended."""
    last = Job()
    for event in events:
        told = event.completion_event
        if told.HasField("text_delta"):
            for piece in told.text_delta.text.splitlines(keepends=True):
                print(visible(piece.rstrip("\r\n")), end="\n" if piece[-1:] in "\r\n" else "")
            sys.stdout.flush()
        elif told.HasField("completed"):
            print(flush=True)
        elif told.HasField("stream_reset"):
            print("\n[it was interrupted, and begins again]", file=sys.stderr)
        elif event.HasField("job"):
            last = event.job
            error = f": {visible(last.error.message)}" if last.HasField("error") else ""
            print(
                f"[{event.sequence}: {_state(last)}, {last.progress_percent} %{error}]",
                file=sys.stderr,
            )
    return last


def _cancel(arguments: argparse.Namespace) -> int:
    advice = f"see `trunkline jobs show {visible(arguments.job_id)}`"
    with new_client(arguments) as client, changing(advice):
        job = client.cancel_job(arguments.job_id)
    if arguments.json:
        print_messages([job])
        return 0
    print(f"{visible(job.id)}: {_state(job)}")
    return 0
