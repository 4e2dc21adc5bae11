"""Keys from the configuration: a fixed list, each with an id for the log."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from trunkline_server.core.errors import InvalidApiKey
from trunkline_server.core.ports import Caller
from trunkline_server.core.pressure import Criticality

MAX_AUTHORIZATION_CHARS: Final = 4096


@dataclass(frozen=True, slots=True)
class StaticKey:
    """One key. The secret is shown nowhere."""

    id: str
    secret: str = field(repr=False)
    criticality: Criticality = Criticality.STANDARD


class StaticKeys:
    """The `Callers` port over a list of keys. Without any, everyone is `anonymous`."""

    def __init__(self, keys: Sequence[StaticKey]) -> None:
        # Found by hash, so that the time it takes tells nothing about how much of a guess was right.
        self._callers: Mapping[bytes, tuple[Caller, bytes]] = {
            _digest(key.secret): (
                Caller(key.id, key.criticality),
                _digest(key.secret),
            )
            for key in keys
        }
        self._anonymous = Caller()

    def authenticate(self, authorization: str) -> Caller:
        """The caller behind `Bearer <key>`."""
        if not self._callers:
            return self._anonymous
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or len(authorization) > MAX_AUTHORIZATION_CHARS:
            raise InvalidApiKey
        digest = _digest(secret.strip())
        found = self._callers.get(digest)
        if found is None or not hmac.compare_digest(found[1], digest):
            raise InvalidApiKey
        return found[0]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
