"""Descriptions of webhooks, of requests and of the operator's, to what runs them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from trunkline.v1.completion_spec_pb2 import WebhookResponseMode, WebhookSource
from trunkline_server.core.tools import ToolRunner
from trunkline_server.tools.egress import Egress, EgressError
from trunkline_server.tools.problem import Problem, url_problem
from trunkline_server.tools.secret_store import SecretStore
from trunkline_server.tools.webhook import (
    DEFAULT_TIMEOUT_S,
    MAX_ACK_CHARS,
    MAX_HEADERS,
    MAX_TIMEOUT_S,
    AsyncWebhookRunner,
    Deliveries,
    WebhookRunner,
    header_problem,
    signing_key,
)

NANOS: Final = 1_000_000_000
_RESPONSE_MODES: Final = frozenset(WebhookResponseMode.values())


@dataclass(frozen=True, slots=True)
class _Fields:
    """What the parts of a webhook are called where it is described."""

    url: str
    secret: str
    headers: str
    auth_headers: str
    ack: str


_REQUEST_FIELDS: Final = _Fields(
    "webhook.url",
    "webhook.secret_ref",
    "webhook.headers",
    "webhook.auth_header_secret_refs",
    "webhook.async_ack",
)
_CONFIG_FIELDS: Final = _Fields("url", "secret", "headers", "auth_headers", "async_ack")


class Webhooks:
    """Makes runners of webhooks.

    Args:
        now: seconds since 1970.
    """

    def __init__(
        self,
        egress: Egress,
        secrets: SecretStore,
        deliveries: Deliveries,
        now: Callable[[], float],
    ) -> None:
        self._egress = egress
        self._secrets = secrets
        self._deliveries = deliveries
        self._now = now

    def of_source(self, name: str, source: WebhookSource) -> tuple[ToolRunner, float]:
        """What runs a request's webhook, and its timeout in seconds. Raises: Problem."""
        timeout_s = _timeout_s(source)
        runner = self._runner(
            name,
            source.url,
            source.secret_ref,
            source.headers,
            source.auth_header_secret_refs,
            ack=source.async_ack if _is_async(source) else None,
            timeout_s=timeout_s,
            fields=_REQUEST_FIELDS,
        )
        return runner, timeout_s

    def of_operator(
        self,
        name: str,
        url: str,
        secret: str,
        headers: Mapping[str, str],
        auth_headers: Mapping[str, str],
        response_mode: Literal["sync", "async"],
        async_ack: str,
        timeout_s: float,
    ) -> ToolRunner:
        """What runs an operator's webhook. Raises: Problem."""
        return self._runner(
            name,
            url,
            secret,
            headers,
            auth_headers,
            ack=async_ack if response_mode == "async" else None,
            timeout_s=timeout_s,
            fields=_CONFIG_FIELDS,
        )

    def _runner(
        self,
        name: str,
        url: str,
        secret: str,
        headers: Mapping[str, str],
        auth_headers: Mapping[str, str],
        *,
        ack: str | None,
        timeout_s: float,
        fields: _Fields,
    ) -> ToolRunner:
        try:
            self._egress.check(url)
        except EgressError as error:
            raise url_problem(fields.url, error.reason) from error
        if len(headers) + len(auth_headers) > MAX_HEADERS:
            raise Problem(fields.headers, f"are more than {MAX_HEADERS}")
        if len(ack or "") > MAX_ACK_CHARS:
            raise Problem(fields.ack, f"has more than {MAX_ACK_CHARS} characters")
        is_asked = fields is _REQUEST_FIELDS
        secrets = self._secrets
        authorised = secrets.values(auth_headers, fields.auth_headers, url, is_asked=is_asked)
        check_headers(headers, fields.headers)
        check_headers(authorised, fields.auth_headers)
        try:
            key = b""
            if secret:
                key = signing_key(secrets.value(secret, fields.secret, url, is_asked=is_asked))
        except ValueError as error:
            raise Problem(fields.secret, f"names a secret that {error}") from error
        runner = WebhookRunner(
            name, url, self._egress, self._now, headers={**headers, **authorised}, key=key
        )
        if ack is None:
            return runner
        return AsyncWebhookRunner(runner, name, self._deliveries, ack, timeout_s)


def check_headers(headers: Mapping[str, str], path: str) -> None:
    """Raises: Problem."""
    for name, value in headers.items():
        if problem := header_problem(name, value):
            raise Problem(f"{path}[{name[:64]!r}]", problem)


def _is_async(source: WebhookSource) -> bool:
    if source.response_mode not in _RESPONSE_MODES:
        raise Problem("webhook.response_mode", "unknown value")
    return source.response_mode == WebhookResponseMode.WEBHOOK_RESPONSE_MODE_ASYNC


def _timeout_s(source: WebhookSource) -> float:
    if not source.HasField("timeout"):
        return DEFAULT_TIMEOUT_S
    timeout_nanos = source.timeout.seconds * NANOS + source.timeout.nanos
    if not 0 < timeout_nanos <= MAX_TIMEOUT_S * NANOS:
        raise Problem("webhook.timeout", f"more than 0 s and at most {MAX_TIMEOUT_S:.0f} s")
    return timeout_nanos / NANOS
