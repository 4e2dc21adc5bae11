"""The kind `video`: a clip, made by a provider that takes its time: asked for, waited for, fetched.

The provider is an HTTP API below one address:

    POST /videos                    {"model": ..., "prompt": ..., and whatever the job's options say}
    GET  /videos/{id}               {"id": ..., "status": "queued" | "in_progress" | "completed" | "failed",
                                     "progress": 0 to 100, "url": ...}
    GET  /videos/{id}/content       the clip, where its status names no `url`

The first answers as the second does. It carries the job's id as `idempotency-key`, because a process that is killed
right after it does not know that it was sent.

Source: https://platform.openai.com/docs/api-reference/videos, whose shape this is.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec

from trunkline.v1.completion_pb2 import Usage
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.job_service_pb2 import MediaResult
from trunkline.v1.message_pb2 import Artifact, Role
from trunkline_server.core.errors import (
    AllProvidersFailed,
    ContentBlocked,
    InvalidRequest,
    UpstreamRejected,
)
from trunkline_server.jobs.runner import Work

MODE: Final = "video"
VIDEO: Final = "video"
MP4: Final = "video/mp4"
POLL_S: Final = 1.0
CONNECT_S: Final = 10.0
READ_S: Final = 60.0
MAX_STATUS_BYTES: Final = 256 * 1024
MAX_CONTENT_BYTES: Final = 32 * 1024 * 1024  # What the answer to a call has room for.
MAX_PROMPT_CHARS: Final = 32_000
MAX_URL_CHARS: Final = 4_000
MAX_ID_CHARS: Final = 256
MAX_OPTIONS: Final = 16
MAX_OPTION_CHARS: Final = 256
TRIES: Final = 5  # Of each call, when the provider does not answer or is busy.
PAUSE_S: Final = 1.0
RESERVED: Final = frozenset({"model", "prompt"})
_PASSING: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_MIME: Final = re.compile(r"video/[a-z0-9.+-]{1,64}")


class Status(msgspec.Struct):
    """What the provider says of a clip."""

    id: str = ""
    status: str = ""
    progress: float | None = None
    url: str | None = None
    error: Any = None


@dataclass(frozen=True, slots=True)
class VideoProvider:
    """Where clips are made. `poll_s`: between two looks."""

    url: str
    model: str = ""
    key: str = field(default="", repr=False)
    poll_s: float = POLL_S


def check(spec: CompletionSpec) -> None:
    """Can a clip be made of this? Raises: InvalidRequest."""
    if spec.mode not in ("", MODE):
        raise InvalidRequest("spec.mode", f"a video has the mode {MODE!r}")
    if spec.conversation_id:
        raise InvalidRequest("spec.conversation_id", "a video is part of no conversation")
    if len(_prompt(spec)) > MAX_PROMPT_CHARS:
        raise InvalidRequest("spec.messages", f"at most {MAX_PROMPT_CHARS} characters")
    if not _prompt(spec):
        raise InvalidRequest("spec.messages", "the last message must have text")
    _options(spec)


def _options(spec: CompletionSpec) -> Mapping[str, Any]:
    """Seconds, size and the like, as the provider calls them."""
    try:
        found = json.loads(spec.mode_options_json or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict) or len(found) > MAX_OPTIONS:
        raise InvalidRequest("spec.mode_options_json", f"an object of at most {MAX_OPTIONS} names")
    for name, value in found.items():
        is_plain = isinstance(value, int | float | str | bool)
        if name in RESERVED or not is_plain or len(str(value)) > MAX_OPTION_CHARS:
            raise InvalidRequest(
                "spec.mode_options_json", "values are text or numbers, other than model and prompt"
            )
    return found


class Video:
    """Makes clips at one provider."""

    def __init__(self, provider: VideoProvider) -> None:
        self._provider = provider

    async def make(self, work: Work) -> bytes:
        """A `MediaResult`, serialised."""
        video_id = (await work.once("submit", lambda: self._submit(work))).decode()
        url = (await work.once("wait", lambda: self._wait(work, video_id))).decode()
        return await work.once("fetch", lambda: self._fetch(work, video_id, url))

    async def _submit(self, work: Work) -> bytes:
        """Its id."""
        body = {"prompt": _prompt(work.spec), **_options(work.spec)}
        if model := self._model(work.spec):
            body["model"] = model
        headers = {"idempotency-key": work.job_id}
        status = await self._status("POST", "/videos", json=body, headers=headers)
        if not status.id or len(status.id) > MAX_ID_CHARS:
            raise AllProvidersFailed("the provider named no video")
        return status.id.encode()

    async def _wait(self, work: Work, video_id: str) -> bytes:
        """The address of the clip, where the provider names one."""
        while True:
            status = await self._status("GET", f"/videos/{quote(video_id, safe='')}")
            match status.status:
                case "completed":
                    url = status.url or ""
                    if url and (len(url) > MAX_URL_CHARS or not url.startswith("https://")):
                        url = ""
                    return url.encode()
                case "failed" | "cancelled":
                    raise _failure(status)
            # The last percent are for fetching it.
            await work.tell(min(95, max(1, int(status.progress or 0))))
            await asyncio.sleep(self._provider.poll_s)

    async def _fetch(self, work: Work, video_id: str, url: str) -> bytes:
        artifact = Artifact(id=f"{work.job_id}-1", type=VIDEO, model=self._model(work.spec))
        if url:
            artifact.url, artifact.mime_type = url, MP4
        else:
            path = f"/videos/{quote(video_id, safe='')}/content"
            content, kind = await self._asked("GET", path, MAX_CONTENT_BYTES)
            artifact.data, artifact.size_bytes = content, len(content)
            artifact.mime_type = kind if _MIME.fullmatch(kind) else MP4
        return MediaResult(artifacts=[artifact], usage=Usage()).SerializeToString()

    def _model(self, spec: CompletionSpec) -> str:
        return spec.model if spec.model not in ("", "auto") else self._provider.model

    async def _status(self, method: str, path: str, **more: Any) -> Status:
        content, _ = await self._asked(method, path, MAX_STATUS_BYTES, **more)
        try:
            return msgspec.json.decode(content, type=Status)
        except msgspec.MsgspecError as error:
            raise AllProvidersFailed("the video provider's answer can't be read") from error

    async def _asked(
        self, method: str, path: str, max_bytes: int, **more: Any
    ) -> tuple[bytes, str]:
        """The body and its type. Raises: AllProvidersFailed, UpstreamRejected."""
        failure = ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(PAUSE_S * 2 ** (attempt - 1))
            try:
                status, content, kind = await self._once(method, path, max_bytes, **more)
            except httpx.HTTPError as error:
                failure = type(error).__name__
                continue
            if 200 <= status < 300:
                return content, kind
            failure = f"status {status}"
            if status in (401, 403):
                break  # Our key: that is not the caller's fault, and does not change.
            if status not in _PASSING:
                raise UpstreamRejected(f"the video provider refused the request: status {status}")
        raise AllProvidersFailed(f"the video provider failed: {failure}")

    async def _once(
        self,
        method: str,
        path: str,
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> tuple[int, bytes, str]:
        provider = self._provider
        sent = dict(headers or {})
        if provider.key:
            sent["authorization"] = f"Bearer {provider.key}"
        timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
        # One for each call, as for tools: a shared one loses connections when calls are cancelled.
        async with (
            httpx.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=False) as client,
            client.stream(method, provider.url.rstrip("/") + path, headers=sent, **more) as answer,
        ):
            content = bytearray()
            async for piece in answer.aiter_bytes():
                content += piece
                if len(content) > max_bytes:
                    raise AllProvidersFailed(f"the video is larger than {max_bytes} bytes")
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            return answer.status_code, bytes(content), kind


def _failure(status: Status) -> Exception:
    code = status.error.get("code") if isinstance(status.error, dict) else None
    if code in ("moderation_blocked", "content_policy_violation"):
        return ContentBlocked()
    return AllProvidersFailed("the provider could not make the video")


def _prompt(spec: CompletionSpec) -> str:
    for message in reversed(spec.messages):
        if message.role == Role.ROLE_USER:
            return "\n".join(p.text for p in message.parts if p.HasField("text")).strip()
    return ""
