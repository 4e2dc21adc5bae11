"""Tells somebody something: one POST, signed as Standard Webhooks says, and never sent again from here."""

import asyncio
import time
from typing import Final

from trunkline_server.tools.egress import Egress, EgressError
from trunkline_server.tools.webhook import USER_AGENT, signature

TIMEOUT_S: Final = 10.0
MAX_REPLY_BYTES: Final = 64 * 1024


class CallbackSender:
    """To any address that `egress` lets through. `key`: signs."""

    def __init__(self, egress: Egress, key: bytes) -> None:
        self._egress = egress
        self._key = key

    def check(self, url: str) -> None:
        """Would it be tried? Raises: EgressError."""
        self._egress.check(url)

    async def send(self, url: str, body: bytes, id_: str) -> str:
        """Returns what went wrong; empty when it was received.

        Args:
            body: JSON. `id_`: the same when it is sent again.
        """
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
                url,
                headers=headers,
                content=body,
                until_s=until_s,
                max_bytes=MAX_REPLY_BYTES,
            )
        except EgressError as error:
            return error.reason
        return "" if 200 <= response.status < 300 else f"status {response.status}"
