"""AWS credentials and signatures: what Bedrock asks for where it is given no API key.

Signing and the search for credentials (environment, profiles, roles of a machine, a container or a pod, single sign-on)
are botocore's. Credentials of roles expire, and getting new ones asks the network, in code that blocks. So that is
done in a thread, ahead of time, and a request is signed with what is there.

botocore comes with the extra `bedrock`, and is imported by whoever needs it: docs/decisions/0007.
"""

import asyncio
import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure

# botocore asks for new credentials a quarter of an hour before the old ones end, so most looks find nothing to do.
REFRESH_S: Final = 60.0
FIRST_LOAD_S: Final = 5.0
_HOST: Final = re.compile(
    r"(?:[\w-]+\.)?bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.(?:vpce\.)?(?:amazonaws\.com(?:\.cn)?|api\.aws)\Z"
)


class NoSigner(Exception):
    """The library that signs is not installed."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials as botocore's signer reads them."""

    access_key: str
    secret_key: str
    token: str | None

    def __repr__(self) -> str:
        return "Keys(...)"


def region_of(host: str) -> str:
    """The region in the name of one of Bedrock's own hosts; empty for any other host."""
    found = _HOST.match(host)
    return found[1] if found else ""


def base_url_of(region: str) -> str:
    """Where Bedrock's runtime is in a region."""
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://bedrock-runtime.{region}.{domain}"


class Signer:
    """Signs requests to one service of one region (Signature Version 4), from `start` to `stop`.

    Args:
        authority: the value of the Host header.
        headers: lines that every request carries and that are signed too.

    Raises:
        NoSigner.
    """

    def __init__(
        self,
        service: str,
        region: str,
        authority: str,
        *,
        is_tls: bool = True,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        try:
            from botocore.auth import SigV4Auth
            from botocore.awsrequest import AWSRequest
            from botocore.session import Session
        except ImportError as error:
            raise NoSigner("botocore is not installed") from error
        self._auth = SigV4Auth
        self._request = AWSRequest
        self._session = Session()
        self._service = service
        self._region = region
        self._url = f"{'https' if is_tls else 'http'}://{authority}"
        self._headers = {name: value for name, value in headers if name.lower() != "authorization"}
        self._keys: Keys | None = None
        self._problem = "not looked for yet"
        self._task: asyncio.Task[None] | None = None

    @property
    def problem(self) -> str:
        """Why requests can't be signed; empty when they can."""
        return "" if self._keys is not None else self._problem

    def __call__(self, path: str, body: bytes) -> list[tuple[str, str]]:
        """The header lines that sign a POST.

        Raises:
            UpstreamError: there are no credentials.
        """
        if self._keys is None:
            problem = f"no AWS credentials: {self._problem}"
            raise UpstreamError(Failure.CREDENTIAL, problem, code="no_aws_credentials")
        request = self._request(
            method="POST",
            url=self._url + path,
            data=body,
            headers={"Content-Type": "application/json", **self._headers},
        )
        self._auth(self._keys, self._service, self._region).add_auth(request)
        return [(name, request.headers[name]) for name in _WRITTEN if name in request.headers]

    def load(self) -> None:
        """Look for credentials, or for new ones. Blocks; never raises."""
        try:
            found = self._session.get_credentials()
            frozen = found.get_frozen_credentials() if found is not None else None
        except Exception as error:  # noqa: BLE001 (botocore has no common class for what a chain may meet)
            self._problem = type(
                error
            ).__name__  # The keys that are there serve until AWS refuses them.
            return
        if frozen is None:
            self._problem = "none in the environment, a profile or a role"
            return
        self._keys = Keys(frozen.access_key, frozen.secret_key, frozen.token)

    async def start(self) -> None:
        """Back once credentials are there, or after a while without: requests are then refused until they come."""
        loading = asyncio.ensure_future(_in_thread(self.load))
        await asyncio.wait([loading], timeout=FIRST_LOAD_S)
        self._task = asyncio.create_task(self._keep_fresh(loading))

    async def stop(self) -> None:
        """End the search for new ones."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _keep_fresh(self, loading: "asyncio.Future[None]") -> None:
        await loading
        while True:
            await asyncio.sleep(REFRESH_S)
            await _in_thread(self.load)


_WRITTEN: Final = ("X-Amz-Date", "X-Amz-Security-Token", "Authorization")


def _in_thread(load: Any) -> "asyncio.Future[None]":
    """Runs in a thread that no exit waits for: a chain may hang in a network that answers nothing."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        load()
        with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(_finish, done)

    threading.Thread(target=run, name="aws-credentials", daemon=True).start()
    return done


def _finish(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)
