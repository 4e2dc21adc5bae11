"""A service with accounts, on a database of its own."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tests.support.service import model, provider, service
from trunkline.v1.account_service_pb2 import GetBalanceRequest, GetBalanceResponse
from trunkline.v1.account_service_pb2_grpc import AccountServiceStub
from trunkline.v1.admin_service_pb2 import AdjustCreditsRequest, CreateKeyRequest
from trunkline.v1.admin_service_pb2_grpc import AdminServiceStub
from trunkline.v1.ledger_pb2 import LedgerKind
from trunkline_server.app import Service
from trunkline_server.storage.upgrade import upgrade

ROOT_KEY = "root-key-of-the-tests"
ENVIRONMENT = {"ROOT_KEY": ROOT_KEY, "PEPPER": "p" * 43}
ROOT: Mapping[str, Any] = {
    "id": "root",
    "key_env": "ROOT_KEY",
    "organization": "operators",
    "scopes": ("admin", "complete", "read"),
}
PREPAID: Mapping[str, Any] = {"id": "prepaid", "prepaid": True}
NANOS = 1_000_000_000
PRICES = {"input_price": 1.0, "output_price": 2.0}  # US dollars per million tokens.


@dataclass
class Desk:
    """A running service, and its administrator."""

    service: Service
    channel: grpc.aio.Channel
    root: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {ROOT_KEY}"),)

    @property
    def admin(self) -> Any:
        return AdminServiceStub(self.channel)

    @property
    def account(self) -> Any:
        return AccountServiceStub(self.channel)

    async def new_key(self, organization: str = "acme", **more: Any) -> tuple[tuple[str, str], ...]:
        """The metadata that its holder sends."""
        request = CreateKeyRequest(organization=organization, **more)
        created = await self.admin.CreateKey(request, metadata=self.root)
        return (("authorization", f"Bearer {created.secret}"),)

    async def grant(self, nanos: int, organization: str = "acme") -> None:
        await self.admin.AdjustCredits(
            AdjustCreditsRequest(
                organization=organization,
                kind=LedgerKind.LEDGER_KIND_GRANT,
                amount_nanos=nanos,
            ),
            metadata=self.root,
        )

    async def balance(self, organization: str = "acme") -> GetBalanceResponse:
        found: GetBalanceResponse = await self.account.GetBalance(
            GetBalanceRequest(organization=organization), metadata=self.root
        )
        return found


def account_sections(url: str, upstream: str, **sections: Any) -> dict[str, Any]:
    """Settings of a service whose model `m` is at `upstream`, and whose accounts are at `url`."""
    found: dict[str, Any] = {
        "accounts": {"database_url": url, "pepper_env": "PEPPER"},
        "keys": [ROOT],
        "plans": [PREPAID],
        "providers": [provider("a", upstream)],
        "models": [model("m", "a", **PRICES)],
    }
    return {**found, **sections}


@asynccontextmanager
async def desk(
    url: str, upstream: str, *, environment: Mapping[str, str] | None = None, **sections: Any
) -> AsyncIterator[Desk]:
    """The database at `url` is upgraded before."""
    found = account_sections(url, upstream, **sections)
    variables = {**ENVIRONMENT, **(environment or {})}
    async with (
        service(environment=variables, **found) as started,
        grpc.aio.insecure_channel(started.grpc_address) as channel,
    ):
        yield Desk(started, channel)


def new_sqlite(folder: Path) -> str:
    """A database with the schema."""
    url = f"sqlite:{folder / 'accounts.db'}"
    upgrade(url)
    return url
