"""Sends the operator's alerts to the operator's own address, signed as Standard Webhooks says."""

import asyncio
import ssl
import time
from typing import Final
from urllib.parse import urlsplit

from trunkline_server.tools.egress import Egress, EgressError
from trunkline_server.tools.webhook import USER_AGENT, signature, signing_key

TIMEOUT_S: Final = 10.0
MAX_REPLY_BYTES: Final = 64 * 1024


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
        self._key = signing_key(secret)
        parts = urlsplit(url)
        # It is the operator who names it, so it may be inside.
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        allowed = f"{host}:{parts.port}" if parts.port else f"{host}"
        self._egress = Egress([allowed], tls=tls)
        self._egress.check(url)

    async def send(self, id_: str, body: bytes) -> str:
        """Returns what went wrong; empty when it was received."""
        now_s = int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            "webhook-id": id_,
            "webhook-timestamp": str(now_s),
            "webhook-signature": signature(self._key, id_, now_s, body),
        }
        until_s = asyncio.get_running_loop().time() + TIMEOUT_S
        try:
            response = await self._egress.request(
                "POST",
                self._url,
                headers=headers,
                content=body,
                until_s=until_s,
                max_bytes=MAX_REPLY_BYTES,
            )
        except EgressError as error:
            return error.reason
        return "" if 200 <= response.status < 300 else f"status {response.status}"
