"""Sends the operator's alerts to the operator's own address, signed as Standard Webhooks says."""

import ssl
from urllib.parse import urlsplit

from trunkline_server.tools.callback import CallbackSender
from trunkline_server.tools.egress import Egress
from trunkline_server.tools.webhook import signing_key


class AlertSender:
    """To one address.

    Args:
        secret: in base64, with `whsec_` before it or without.

    Raises:
        ValueError: the secret is no base64 or too short.
        EgressError: the URL is none.
    """

    def __init__(self, url: str, secret: str, tls: ssl.SSLContext | None = None) -> None:
        self._url = url
        key = signing_key(secret)
        parts = urlsplit(url)
        # It is the operator who names it, so it may be inside.
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        allowed = f"{host}:{parts.port}" if parts.port else f"{host}"
        self._sender = CallbackSender(Egress([allowed], tls=tls), key)
        self._sender.check(url)

    async def send(self, id_: str, body: bytes) -> str:
        """Returns what went wrong; empty when it was received."""
        return await self._sender.send(self._url, body, id_)
