"""Tools behind a URL: each call is one POST, signed as Standard Webhooks says, and is never sent again from here.

The body is an event of that standard:

    {"type": "tool.call", "timestamp": "2026-11-20T09:30:00Z",
     "data": {"id": ..., "name": ..., "arguments": {...}, "request_id": ..., "session_id": ...}}

`data.id` is the `webhook-id` too and stays the same when a call is repeated, so a receiver can recognise a repetition.
A 2xx is the result, its body handed to the model as it stands, JSON or text. Everything else is an error result.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import asyncio
import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from trunkline_server.core.tools import ToolContext, ToolOutcome
from trunkline_server.tools.egress import Egress, EgressError
from trunkline_server.tools.replies import (
    MAX_REPLY_BYTES,
    failed,
    outcome_of_error,
    outcome_of_response,
)

DEFAULT_TIMEOUT_S: Final = 10.0
MAX_TIMEOUT_S: Final = 60.0
MAX_HEADERS: Final = 32
MAX_HEADER_CHARS: Final = 4096
MAX_ACK_CHARS: Final = 4096
MAX_BACKGROUND: Final = 256  # Calls under way whose result nobody waits for.
CLOSE_S: Final = 3.0  # The last of a drain's steps has to end before the process is ended.
MIN_KEY_BYTES: Final = (
    24  # The standard's least, and the only guard against a key that can be guessed.
)
DEFAULT_ACK: Final = "accepted; the work goes on in the background"
USER_AGENT: Final = "trunkline/0.1"
SECRET_PREFIX: Final = "whsec_"

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?\Z")
_WEBHOOK_ID: Final = re.compile(r"[A-Za-z0-9_:/+=-]{1,255}\Z")  # A dot would part what is signed.
# What the body, the signature or the connection depend on is not a caller's to set.
_RESERVED: Final = frozenset(
    {
        "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
        "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_RESERVED_PREFIXES: Final = ("webhook-", "proxy-")


def header_problem(name: str, value: str) -> str:
    """Why a tool's request can't carry this header; empty when it can. Never quotes the value."""
    if not _HEADER_NAME.match(name):
        return "is no header name"
    if name.lower() in _RESERVED or name.lower().startswith(_RESERVED_PREFIXES):
        return "is set by the gateway itself"
    if len(value) > MAX_HEADER_CHARS or not _HEADER_VALUE.match(value):
        return f"needs a value of 1 to {MAX_HEADER_CHARS} printable ASCII characters"
    return ""


def signing_key(secret: str) -> bytes:
    """The key of a signing secret: base64, with `whsec_` before it or without.

    Raises:
        ValueError: it is no base64, or the key is too short.
    """
    text = secret.removeprefix(SECRET_PREFIX).rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:  # Also raised for what is no ASCII.
        raise ValueError("is no base64") from None
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(f"is shorter than {MIN_KEY_BYTES} bytes")
    return key


def signature(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The value of the `webhook-signature` header."""
    signed = b"%b.%d.%b" % (webhook_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii")


def webhook_id_of(call_id: str) -> str:
    """The id of a call where a header can carry it, else one that stands for it and is the same each time."""
    if _WEBHOOK_ID.match(call_id):
        return call_id
    return "call_" + hashlib.sha256(call_id.encode()).hexdigest()[:32]


class Deliveries:
    """Owns the calls whose result nobody waits for.

    Args:
        report: told of each that failed: the tool's name and the reason. Without content.
        close_s: for what is under way when the server goes down.
    """

    def __init__(
        self,
        report: Callable[[str, str], None] = lambda name, reason: None,
        close_s: float = CLOSE_S,
    ) -> None:
        self._report = report
        self._close_s = close_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def start(self, name: str, delivery: Callable[[], Coroutine[Any, Any, ToolOutcome]]) -> bool:
        """Let a call go on by itself; False when too many do already."""
        if self._is_closed or len(self._tasks) >= MAX_BACKGROUND:
            return False
        task = asyncio.create_task(self._deliver(name, delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _deliver(
        self, name: str, delivery: Callable[[], Coroutine[Any, Any, ToolOutcome]]
    ) -> None:
        outcome = await delivery()
        if outcome.is_error:
            self._report(name, outcome.text)

    async def close(self) -> None:
        """Wait for what is under way, `close_s` at most; what is not through by then is cancelled."""
        self._is_closed = True
        tasks = set(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._close_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class WebhookRunner:
    """Calls one webhook.

    Args:
        headers: checked by `header_problem`; with secrets in them, so they are never shown.
        key: signs; without one nothing is signed.
        now: seconds since 1970.
    """

    def __init__(
        self,
        name: str,
        url: str,
        egress: Egress,
        now: Callable[[], float],
        *,
        headers: Mapping[str, str],
        key: bytes = b"",
    ) -> None:
        self._name = name
        self._url = url
        self._egress = egress
        self._now = now
        self._headers = dict(headers)
        self._key = key

    async def run(self, arguments_json: str, context: ToolContext, until_s: float) -> ToolOutcome:
        """Send the call and wait for its result."""
        now_s = int(self._now())
        webhook_id = webhook_id_of(context.call_id)
        body = self._body(arguments_json, webhook_id, context, now_s)
        try:
            response = await self._egress.request(
                "POST",
                self._url,
                headers=self._all_headers(webhook_id, now_s, body),
                content=body,
                until_s=until_s,
                max_bytes=MAX_REPLY_BYTES,
            )
        except EgressError as error:
            return outcome_of_error(error)
        return outcome_of_response(response)

    def _body(
        self, arguments_json: str, webhook_id: str, context: ToolContext, now_s: int
    ) -> bytes:
        return msgspec.json.encode(
            {
                "type": "tool.call",
                "timestamp": datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "data": {
                    "id": webhook_id,
                    "name": self._name,
                    # As the model wrote them: a number of twenty digits stays one.
                    "arguments": msgspec.Raw(arguments_json.encode() or b"{}"),
                    "request_id": context.request_id,
                    "session_id": context.session_id,
                },
            }
        )

    def _all_headers(self, webhook_id: str, now_s: int, body: bytes) -> dict[str, str]:
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/*;q=0.9, */*;q=0.1",
            "user-agent": USER_AGENT,
            **{name.lower(): value for name, value in self._headers.items()},
            "webhook-id": webhook_id,
            "webhook-timestamp": str(now_s),
        }
        if self._key:
            headers["webhook-signature"] = signature(self._key, webhook_id, now_s, body)
        return headers


class AsyncWebhookRunner:
    """Starts calls of a webhook; the model is told at once that they were accepted.

    Args:
        timeout_s: for a call, which outlives the request it came from.
    """

    def __init__(
        self, webhook: WebhookRunner, name: str, deliveries: Deliveries, ack: str, timeout_s: float
    ) -> None:
        self._webhook = webhook
        self._name = name
        self._deliveries = deliveries
        self._ack = ack or DEFAULT_ACK
        self._timeout_s = timeout_s

    async def run(self, arguments_json: str, context: ToolContext, until_s: float) -> ToolOutcome:
        """Start the call. `until_s` bounds the answer to the model, and that comes at once."""
        call_until_s = asyncio.get_running_loop().time() + self._timeout_s

        async def deliver() -> ToolOutcome:
            return await self._webhook.run(arguments_json, context, call_until_s)

        if not self._deliveries.start(self._name, deliver):
            return failed("the tool was not called: too many calls are under way in the background")
        return ToolOutcome(self._ack)
