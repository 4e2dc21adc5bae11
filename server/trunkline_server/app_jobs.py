"""The part of the composition root that jobs need: where they are kept, who runs their requests, who is told."""

import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_service_pb2 import CompleteRequest, StreamOptions
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.app_accounts import now_us
from trunkline_server.app_state import State
from trunkline_server.completion.order import Call
from trunkline_server.completion.service import Completions
from trunkline_server.config import ConfigError, JobsSettings, Settings, secret
from trunkline_server.core.errors import InvalidRequest
from trunkline_server.core.ids import ENTROPY_BYTES, ulid
from trunkline_server.core.modes import Modes
from trunkline_server.edges.status import status_message
from trunkline_server.jobs.messages import RESEARCH, VIDEO
from trunkline_server.jobs.runner import Kind
from trunkline_server.jobs.service import JobRules, Jobs
from trunkline_server.jobs.video import Video, VideoProvider, check
from trunkline_server.storage.upgrade import UpgradeError, sqlite_path
from trunkline_server.tools.callback import CallbackSender
from trunkline_server.tools.egress import Egress, EgressError
from trunkline_server.tools.webhook import signing_key

SUFFIX: Final = "jobs"
METHOD: Final = "Job"
PEER: Final = "jobs"
DAY_S: Final = 86_400.0
# The result of a job has the whole answer in it.
_WHOLE: Final = StreamOptions(include_final_messages=True)


@dataclass(frozen=True, slots=True)
class JobParts:
    """What `[jobs]` amounts to. `url`: empty where it goes by that of `[state]`."""

    settings: JobsSettings
    url: str = field(default="", repr=False)
    sender: CallbackSender | None = None
    video_key: str = field(default="", repr=False)


def build_jobs(settings: Settings, environment: Mapping[str, str]) -> JobParts:
    """With its secrets.

    Raises:
        ConfigError.
    """
    jobs = settings.jobs
    url = jobs.database_url or secret(environment, jobs.database_url_env, "")
    if jobs.database_url_env and not url:
        raise ConfigError([f"jobs: the variable {jobs.database_url_env} is not set"])
    if url:
        try:
            sqlite_path(url)
        except UpgradeError as error:
            raise ConfigError([f"jobs.database_url: {error}"]) from error
    video_key = secret(environment, jobs.video_api_key_env, "")
    if jobs.video_api_key_env and not video_key:
        raise ConfigError([f"jobs: the variable {jobs.video_api_key_env} is not set"])
    return JobParts(jobs, url, _sender(settings, environment), video_key)


def _sender(settings: Settings, environment: Mapping[str, str]) -> CallbackSender | None:
    name = settings.jobs.callback_secret
    if not name:
        return None
    source = settings.secrets[name]
    try:
        key = signing_key(secret(environment, source.env, source.file))
        tls = ssl.create_default_context(cafile=settings.egress.ca_file or None)
        return CallbackSender(Egress(settings.egress.allowed_hosts, tls=tls), key)
    except ValueError as error:
        raise ConfigError([f"jobs.callback_secret: {name!r}: {error}"]) from error


def new_jobs(
    parts: JobParts, state: State, completions: Completions, *, name: str, keeps_keys: bool
) -> Jobs:
    """Jobs whose completions are run by `completions`.

    Args:
        name: of the process, and of no other one ever.
        keeps_keys: completions honour idempotency keys.
    """

    def complete(
        spec: CompletionSpec, key_id: str, request_id: str, idempotency_key: str
    ) -> AsyncGenerator[list[CompleteResponse], None]:
        call = Call(METHOD, request_id, peer=lambda: PEER, key_id=key_id)
        request = CompleteRequest(spec=spec, idempotency_key=idempotency_key, stream_options=_WHOLE)
        return completions.stream(request, call)

    def check_url(url: str) -> None:
        if parts.sender is not None:
            try:
                parts.sender.check(url)
            except EgressError as error:
                raise InvalidRequest("callback_url", error.reason) from error

    settings = parts.settings
    return Jobs(
        state.storage,
        JobRules(
            max_running=settings.max_running,
            max_queued=settings.max_queued,
            max_s=settings.max_s,
            keep_s=settings.keep_days * DAY_S,
        ),
        url=lambda: parts.url or _beside(state),
        is_lasting=state.is_lasting,
        is_alone=state.is_alone,
        name=name,
        complete_for=complete,
        describe=status_message,
        kinds=_kinds(parts),
        keeps_keys=keeps_keys,
        check_url=check_url,
        deliver=None if parts.sender is None else parts.sender.send,
        now_us=now_us,
        mint_id=lambda: ulid(now_us() // 1_000, os.urandom(ENTROPY_BYTES)),
    )


def _kinds(parts: JobParts) -> dict[str, Kind]:
    """Beside those that there always are."""
    settings = parts.settings
    if not settings.video_url:
        return {}
    video = Video(VideoProvider(settings.video_url, settings.video_model, parts.video_key))
    return {VIDEO: Kind(video.make, check)}


def with_research_tools(modes: Modes, settings: Settings) -> Modes:
    """Where nothing says which tools research has: those that can be called again without harm, which is to look."""
    mode = modes.by_id.get(RESEARCH)
    if mode is None or any(m.id == RESEARCH and m.tools is not None for m in settings.modes):
        return modes
    tools = tuple(tool.name for tool in settings.tools if tool.builtin or tool.idempotent)
    by_id = {**modes.by_id, RESEARCH: replace(mode, tools=tools)}
    return replace(modes, by_id=by_id)


def _beside(state: State) -> str:
    """A database beside that of the state."""
    if not state.url:
        return f"sqlite:{state.scratch_folder}/{SUFFIX}.db"
    path = sqlite_path(state.url)
    if path is not None:
        return f"sqlite:{path}.{SUFFIX}"
    parts = urlsplit(state.url)
    return parts._replace(path=f"{parts.path}_{SUFFIX}").geturl()
