"""Theo's `/api/v1/research`, `/api/v1/video` and `/api/v1/jobs`, over `trunkline.v1.JobService`."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import grpc
import msgspec
from msgspec import Meta, Raw, Struct

from trunkline.v1.job_service_pb2 import (
    CreateJobRequest,
    GetJobRequest,
    Job,
    JobState,
    MediaResult,
    ResearchResult,
)
from trunkline.v1.job_service_pb2_grpc import JobServiceStub
from trunkline.v1.message_pb2 import Role
from trunkline_server.edges.rest.artifacts import address
from trunkline_server.edges.rest.body import read_body
from trunkline_server.edges.rest.http import Refused, Request, refusal_of
from trunkline_server.edges.rest.openai_request import NULL
from trunkline_server.edges.rest.query import parameters
from trunkline_server.edges.rest.routes import Handler
from trunkline_server.edges.rest.theo_events import (
    artifact_object,
    cents,
    completion_object,
    raw_or_null,
)
from trunkline_server.edges.rest.theo_fields import (
    MISSING_PROMPT,
    PROMPT,
    QUEUE_UNAVAILABLE,
    TheoRefusal,
    in_their_words,
    theos,
)
from trunkline_server.edges.rest.theo_pages import called, id_in, respond
from trunkline_server.edges.rest.theo_request import THEO, is_blank, is_null

RESEARCH: Final = "/api/v1/research"
VIDEO: Final = "/api/v1/video"
JOBS: Final = "/api/v1/jobs"
UNAVAILABLE_STATUS: Final = 503
Kind = Literal["research", "video"]
MAX_SOURCES: Final = 50
USUAL_SOURCES: Final = 10
DEPTHS: Final[Mapping[str, int]] = {"basic": 1, "advanced": 2}  # Rounds of questions.
PREFIXES: Final[Mapping[Kind, str]] = {"research": "res_", "video": "vid_"}

STATES: Final[Mapping[int, str]] = {
    JobState.JOB_STATE_QUEUED: "queued",
    JobState.JOB_STATE_RUNNING: "active",
    JobState.JOB_STATE_SUCCEEDED: "completed",
    JobState.JOB_STATE_FAILED: "failed",
    JobState.JOB_STATE_CANCELLED: "failed",
    JobState.JOB_STATE_EXPIRED: "failed",
}
# Ends that have no error of their own.
ENDS: Final[Mapping[int, str]] = {
    JobState.JOB_STATE_FAILED: "the job failed",
    JobState.JOB_STATE_CANCELLED: "the job was cancelled",
    JobState.JOB_STATE_EXPIRED: "the job has expired",
}


class JobIn(Struct, forbid_unknown_fields=True):
    """What the bodies of all jobs have. A field that is null counts as absent."""

    prompt: str | None = None
    skills: list[str] | None = None
    model_overrides: dict[str, str] | None = None
    metadata: Raw = NULL
    callback_url: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Of the mode, as the service wants them."""
        return {}


class ResearchIn(JobIn):
    """The body of a research."""

    depth: Literal["basic", "advanced"] | None = None
    max_sources: Annotated[int, Meta(ge=1, le=MAX_SOURCES)] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """With the defaults of Theo's page."""
        return {
            "depth": DEPTHS[self.depth or "advanced"],
            "max_sources": self.max_sources or USUAL_SOURCES,
        }


class VideoIn(JobIn):
    """The body of a video."""

    duration: str | None = None
    style: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """For the provider."""
        found = {"duration": self.duration, "style": self.style}
        return {name: value for name, value in found.items() if value is not None}


_DECODERS: Final[Mapping[Kind, Callable[[bytes], JobIn]]] = {
    "research": msgspec.json.Decoder(ResearchIn).decode,
    "video": msgspec.json.Decoder(VideoIn).decode,
}


class TheoJobs:
    """A part of `TheoShim`."""

    def __init__(self, channel: Any) -> None:
        self._jobs = JobServiceStub(channel)
        self.handlers: Mapping[tuple[str, str], Handler] = {
            ("POST", RESEARCH): self._research,
            ("POST", VIDEO): self._video,
            ("GET", f"{JOBS}/"): self._get,
        }

    async def _research(self, request: Request) -> None:
        await self._create(request, "research")

    async def _video(self, request: Request) -> None:
        await self._create(request, "video")

    async def _create(self, request: Request, kind: Kind) -> None:
        asked = read_job(request.body, kind)
        try:
            made, headers = await called(request, self._jobs.CreateJob, asked)
        except grpc.aio.AioRpcError as error:
            refused = in_their_words(refusal_of(error))
            is_queue = refused.status.http_status == UNAVAILABLE_STATUS
            code = QUEUE_UNAVAILABLE if is_queue else ""
            raise Refused(theos(refused, request.request_id, code)) from error
        respond(request, created_object(made.job, kind), headers, 202)

    async def _get(self, request: Request) -> None:
        parameters(request.query, ())
        name = id_in(request.path, f"{JOBS}/")
        found, headers = await called(request, self._jobs.GetJob, GetJobRequest(job_id=name))
        told = job_object(found.job)
        # Theo's page has the fields themselves, its SDK reads them from `job`.
        respond(request, {**told, "job": told}, headers)


def read_job(body: bytes, kind: Kind) -> CreateJobRequest:
    """What the caller wants to be done.

    Raises:
        Refused: naming the field.
    """
    wanted = read_body(_DECODERS[kind], body)
    if is_blank(wanted.prompt):
        raise Refused(
            TheoRefusal("INVALID_REQUEST", "is required", field=PROMPT, code=MISSING_PROMPT)
        )
    asked = CreateJobRequest(kind=kind, callback_url=wanted.callback_url or "")
    spec = asked.spec
    spec.mode = kind
    spec.persona = THEO
    spec.messages.add(role=Role.ROLE_USER).parts.add().text = wanted.prompt or ""
    spec.skills.extend(wanted.skills or ())
    spec.model_overrides.update(wanted.model_overrides or {})
    if not is_null(wanted.metadata):
        spec.metadata_json = bytes(wanted.metadata).decode()
    if options := wanted.options:
        spec.mode_options_json = msgspec.json.encode(options).decode()
    return asked


def created_object(job: Job, kind: Kind) -> dict[str, Any]:
    """The answer to a job that was taken."""
    return {
        "id": PREFIXES[kind] + job.id.removeprefix("job_"),
        "job_id": job.id,
        "status": STATES.get(job.state, "queued"),
        "created": job.create_time.ToJsonString(),
        "poll_url": f"{JOBS}/{job.id}",
    }


def job_object(job: Job) -> dict[str, Any]:
    """How far a job is, and what came of it."""
    state = STATES.get(job.state, "queued")
    error = job.error.message or ENDS.get(job.state, "")
    return {
        "id": job.id,
        "type": job.kind,
        "status": state,
        "progress": job.progress_percent,
        "result": _result(job) if state == "completed" else None,
        "error": error if state == "failed" else None,
        "created_at": job.create_time.ToJsonString() if job.HasField("create_time") else None,
        "completed_at": job.end_time.ToJsonString() if job.HasField("end_time") else None,
        "metadata": raw_or_null(job.metadata_json),
    }


def _result(job: Job) -> dict[str, Any] | None:
    match job.WhichOneof("result"):
        case "research":
            return _research(job.research)
        case "media":
            return _video(job, job.media)
        case "completion":
            completion = job.completion
            return completion_object(completion, completion.route.mode)
    return None


def _research(found: ResearchResult) -> dict[str, Any]:
    return {
        "report": found.report,
        "sources": [{"url": source.url, "title": source.title or None} for source in found.sources],
        "sourceCount": len(found.sources),
        "usage": {
            "cost_cents": cents(found.usage.cost.amount_nanos),
            "prompt_tokens": found.usage.input_tokens,
            "completion_tokens": found.usage.output_tokens,
            "total_tokens": found.usage.total_tokens,
        },
    }


def _video(job: Job, media: MediaResult) -> dict[str, Any]:
    """Who made it, and how long that took."""
    first = media.artifacts[0] if media.artifacts else None
    begun = job.start_time if job.HasField("start_time") else job.create_time
    took_ms = max(0, job.end_time.ToMilliseconds() - begun.ToMilliseconds())
    return {
        "videoUrl": None if first is None else address(first),
        "model": first.model if first else None,
        "engine": first.provider if first else None,
        "durationMs": took_ms,
        "artifacts": [artifact_object(artifact) for artifact in media.artifacts],
        "usage": {"cost_cents": cents(media.usage.cost.amount_nanos)},
    }
