"""Bearer tokens that somebody else keeps fresh in a file: of Entra ID, of a cluster, of a short-term key."""

import os
from pathlib import Path
from typing import Final

from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure

MAX_TOKEN_BYTES: Final = 16 * 1024


class TokenFile:
    """Signs requests with the token of a file, which is read again when the file changed."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def __call__(self, path: str, body: bytes) -> list[tuple[str, str]]:
        """The header line of a request.

        Raises:
            UpstreamError: the file holds no token.
        """
        try:
            token = self.token()
        except (OSError, ValueError) as error:
            problem = f"no token in the file: {type(error).__name__}"
            raise UpstreamError(Failure.CREDENTIAL, problem, code="no_token") from error
        return [("authorization", f"Bearer {token}")]

    def token(self) -> str:
        """The token as it is now.

        Raises:
            OSError, ValueError.
        """
        # A look at a local file costs microseconds; its content is read only when that shows a change.
        stat = os.stat(self._path)
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen != self._seen:
            if stat.st_size > MAX_TOKEN_BYTES:
                raise ValueError("the file is too large for a token")
            token = self._path.read_text(encoding="ascii").strip()
            if not token or not token.isprintable():
                raise ValueError("what is there is no token")
            self._token, self._seen = token, seen
        return self._token
