"""How the gateway is reached: one endpoint's address, credentials, channel options and headers."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote

import grpc

Metadata = Mapping[str, str | bytes]
"""Header name to value: text, or bytes where the name ends with "-bin"."""

_COMPLETIONS = "trunkline.v1.CompletionService"
SERVICE_CONFIG: Mapping[str, Any] = {
    "methodConfig": [
        {
            "name": [
                {"service": _COMPLETIONS, "method": "Complete"},
                {"service": _COMPLETIONS, "method": "CompleteUnary"},
            ],
            "timeout": "600s",
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        },
        {
            "name": [{"service": "trunkline.v1.CatalogService"}],
            "timeout": "10s",
            "waitForReady": True,
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        },
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    "healthCheckConfig": {"serviceName": _COMPLETIONS},
}
"""What Trunkline publishes for its clients.

Its timeouts are upper bounds. The library keeps them on this side only, and up to a second early
(https://github.com/grpc/grpc/issues/34547): only the timeout of a call tells the gateway when to
stop.
"""

_KIB = 1024
_MIB = 1024 * 1024
_OPTIONS: Mapping[str, Any] = {
    "grpc.service_config": json.dumps(SERVICE_CONFIG),
    # The gateway takes 32 MiB, and its PAYLOAD_TOO_LARGE tells more than a limit here would.
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": 64 * _MIB,
    # A call whose request does not fit in here is never retried; the library's default is 256 KiB.
    "grpc.per_rpc_retry_buffer_size": 33 * _MIB,
    # Details of an error come as a header. From the first limit on the library refuses some at random.
    "grpc.max_metadata_size": 64 * _KIB,
    "grpc.absolute_max_metadata_size": 64 * _KIB,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    # Without this the library stops after two pings while a stream waits for its first token.
    "grpc.http2.max_pings_without_data": 0,
}

_NO_TIME_S = -1.0
_LONGEST_TIMEOUT_S = 1e9
_RESERVED_HEADERS = re.compile(r"grpc-|authorization$")
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")
_HEADER_TEXT = re.compile(r"[\x20-\x7e]*")
# Nothing that a library may read as another part of an address: no path, query, user or escape.
_ADDRESS = re.compile(
    r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|([^\s:/?#@%\[\]\\]+)(?::\d+)?|([0-9A-Fa-f.]*:[0-9A-Fa-f:.]+)"
)
_API_KEY = re.compile(r"[\x21-\x7e]+")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Everything a channel is made of. Without credentials it speaks plaintext."""

    target: str
    credentials: grpc.ChannelCredentials | None = field(repr=False)
    options: tuple[tuple[str, Any], ...]
    metadata: tuple[tuple[str, str | bytes], ...] = field(repr=False)


def endpoint(
    target: str,
    *,
    api_key: str | None,
    tls: bool,
    root_certificates: bytes | None,
    channel_credentials: grpc.ChannelCredentials | None,
    allow_insecure_key: bool,
    metadata: Metadata,
    options: Mapping[str, Any],
) -> Endpoint:
    """Checks a client's arguments and puts them together.

    Raises:
        ValueError: the key cannot be sent as it is, or would leave this machine in plaintext, or a
            header is invalid. No message repeats a secret.
    """
    if api_key is not None and not _API_KEY.fullmatch(api_key):
        raise ValueError("api_key must be printable ASCII without spaces or line ends")
    credentials = channel_credentials
    if credentials is None and (tls or root_certificates is not None):
        credentials = grpc.ssl_channel_credentials(root_certificates)
    headers = checked_metadata(metadata)
    defaults = dict(_OPTIONS)
    if credentials is not None and api_key is not None:
        credentials = grpc.composite_channel_credentials(
            credentials, grpc.access_token_call_credentials(api_key)
        )
    elif credentials is None:
        is_here = is_local(target)
        if is_here:
            # A proxy of the environment's would carry the call, and the key, off this machine.
            defaults["grpc.enable_http_proxy"] = 0
        if api_key is not None:
            if not is_here and not allow_insecure_key:
                raise ValueError(
                    f"the key would travel to {target} in plaintext: "
                    "use tls=True or root_certificates, or say allow_insecure_key=True"
                )
            headers = (*headers, ("authorization", f"Bearer {api_key}"))
    return Endpoint(target, credentials, tuple({**defaults, **options}.items()), headers)


def call_timeout_s(timeout_s: float) -> float:
    """As the library takes it: 0 is no deadline to grpc.aio, and one that it cannot count to has passed to both."""
    return min(timeout_s, _LONGEST_TIMEOUT_S) if timeout_s > 0 else _NO_TIME_S


def checked_metadata(metadata: Metadata) -> tuple[tuple[str, str | bytes], ...]:
    """Headers as the gRPC library takes them, names in lower case.

    Raises:
        ValueError: a header is not one. The library would say so too, but repeats all values, the
            key included.
    """
    headers = tuple((name.lower(), value) for name, value in metadata.items())
    for name, value in headers:
        if not _HEADER_NAME.fullmatch(name) or _RESERVED_HEADERS.match(name):
            # "authorization" is the key's: as a header it would pass by the check for plaintext.
            raise ValueError(f"{name!r} cannot be sent as a header; a key is given as api_key")
        if isinstance(value, bytes) != name.endswith("-bin"):
            raise ValueError(
                f"{name}: bytes need a name that ends with -bin, and text one that does not"
            )
        if isinstance(value, str) and not _HEADER_TEXT.fullmatch(value):
            raise ValueError(f"{name}: only printable ASCII can be sent")
    return headers


def call_metadata(
    base: tuple[tuple[str, str | bytes], ...],
    metadata: Metadata | None,
    *,
    request_id: str | None = None,
    traceparent: str | None = None,
    tracestate: str | None = None,
) -> tuple[tuple[str, str | bytes], ...]:
    """The headers of one call: the client's, then the call's own.

    Raises:
        ValueError: a header is not one, or the gateway would not take the request id and mint
            another.
    """
    if request_id is not None and not _REQUEST_ID.fullmatch(request_id):
        raise ValueError("request_id must be 8 to 64 of A-Z, a-z, 0-9, _ and -")
    own: dict[str, str | bytes] = {**(metadata or {})}
    named = {"x-request-id": request_id, "traceparent": traceparent, "tracestate": tracestate}
    own.update({name: value for name, value in named.items() if value is not None})
    return (*base, *checked_metadata(own)) if own else base


def is_local(target: str) -> bool:
    """Does every address of this gRPC target stay on this machine? Of names only localhost does."""
    scheme, _, rest = target.partition(":")
    addresses: Sequence[str]
    match scheme:
        case "unix" | "unix-abstract":
            return True
        case "ipv4" | "ipv6":
            addresses = unquote(rest).lstrip("/").split(",")
        case "dns":
            # With an authority a name server is asked, and who knows what it answers.
            addresses = [rest.removeprefix("///")]
        case _:
            addresses = [target]
    return all(_is_loopback(_host(address)) for address in addresses)


def _host(address: str) -> str:
    """The host of "host:port", "[v6]:port", or of an address without a port; "" of anything else."""
    found = _ADDRESS.fullmatch(address)
    return next(filter(None, found.groups()), "") if found else ""


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
