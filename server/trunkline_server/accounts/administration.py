"""What administrators do: keys and credits. Every change is written to the audit log in its own transaction."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from trunkline.v1.ledger_pb2 import LedgerKind
from trunkline_server.accounts import keys, ledger
from trunkline_server.accounts.audit import AuditRecord
from trunkline_server.accounts.keys import MAX_OVERLAP_US, Key, Token
from trunkline_server.accounts.ledger import COUNTERS, MAX_NANOS, Adjustment, Entry
from trunkline_server.core.errors import InvalidRequest, PermissionDenied
from trunkline_server.core.plans import Caller, Scope
from trunkline_server.core.transactions import Storage

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
MAX_NAME_CHARS: Final = 128
MAX_DESCRIPTION_CHARS: Final = 256
MAX_OPERATION_CHARS: Final = 255
KINDS: Final = (
    LedgerKind.LEDGER_KIND_GRANT,
    LedgerKind.LEDGER_KIND_TOPUP,
    LedgerKind.LEDGER_KIND_REFUND,
    LedgerKind.LEDGER_KIND_ADJUSTMENT,
)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be made. Empty scopes: complete and read. `expires_us` None: never."""

    organization: str
    project: str
    name: str
    plan: str
    scopes: tuple[str, ...]
    expires_us: int | None


class Administration:
    """Of one service.

    Args:
        random: a number below its argument, unguessable.
        now_us: microseconds since 1970.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        pepper: bytes,
        environment: str,
        plans: Collection[str],
        random: Callable[[int], int],
        now_us: Callable[[], int],
    ) -> None:
        self.storage = storage
        self._pepper = pepper
        self._environment = environment
        self._plans = plans
        self._random = random
        self._now_us = now_us

    async def create_key(self, new: NewKey, actor: Caller, request_id: str) -> tuple[Key, Token]:
        """The key, and its secret, which is shown this once.

        Raises:
            InvalidRequest, PermissionDenied, StorageUnavailable.
        """
        _check_name("organization", new.organization)
        if new.project:
            _check_name("project", new.project)
        _check_text("name", new.name, MAX_NAME_CHARS)
        if new.plan not in self._plans:
            raise InvalidRequest("plan", f"is none of {', '.join(sorted(self._plans))}"[:256])
        scopes = _scopes(new.scopes, actor)
        now_us = self._now_us()
        if new.expires_us is not None and new.expires_us <= now_us:
            raise InvalidRequest("expire_time", "has passed")
        token = keys.mint(self._environment, self._random)
        key = Key(
            id=token.id,
            organization=new.organization,
            project=new.project,
            name=new.name,
            plan=new.plan,
            scopes=scopes,
            secret_hash=keys.secret_hash(self._pepper, token),
            former_hash=None,
            former_until_us=None,
            created_us=now_us,
            expires_us=new.expires_us,
            revoked_us=None,
            last_used_us=None,
        )
        details = {"plan": new.plan, "scopes": sorted(scopes), "project": new.project}
        record = self._record("key.created", actor, key.organization, key.id, request_id, details)
        return await self.storage.write(lambda: keys.create(key, record)), token

    async def rotate_key(
        self, key_id: str, overlap_us: int, actor: Caller, request_id: str
    ) -> tuple[Key, Token]:
        """A new secret for a key. Raises: InvalidRequest, NotFound, StorageUnavailable."""
        _check_key_id(key_id)
        if not 0 <= overlap_us <= MAX_OVERLAP_US:
            raise InvalidRequest("overlap", "0 s to a day")
        token = keys.mint(self._environment, self._random, key_id)
        secret_hash = keys.secret_hash(self._pepper, token)
        _, known = await self.storage.read(lambda: keys.find(key_id))
        organization = known.organization if known is not None else ""
        details = {"overlap_s": overlap_us // 1_000_000}
        record = self._record("key.rotated", actor, organization, key_id, request_id, details)
        now_us = self._now_us()
        key = await self.storage.write(
            lambda: keys.rotate(key_id, secret_hash, overlap_us, now_us, record)
        )
        return key, token

    async def revoke_key(self, key_id: str, actor: Caller, request_id: str) -> Key:
        """End a key. Raises: InvalidRequest, NotFound, StorageUnavailable."""
        _check_key_id(key_id)
        _, known = await self.storage.read(lambda: keys.find(key_id))
        organization = known.organization if known is not None else ""
        record = self._record("key.revoked", actor, organization, key_id, request_id, {})
        now_us = self._now_us()
        return await self.storage.write(lambda: keys.revoke(key_id, now_us, record))

    async def adjust_credits(
        self,
        organization: str,
        kind: "LedgerKind.ValueType",
        amount: int,
        description: str,
        operation_id: str,
        actor: Caller,
        request_id: str,
    ) -> Entry:
        """Enter a movement. Raises: InvalidRequest, InsufficientCredits, IdempotencyConflict, StorageUnavailable."""
        _check_name("organization", organization)
        _check_text("description", description, MAX_DESCRIPTION_CHARS)
        _check_text("idempotency_key", operation_id, MAX_OPERATION_CHARS)
        if kind not in KINDS:
            raise InvalidRequest("kind", "one of GRANT, TOPUP, REFUND and ADJUSTMENT")
        if not amount or abs(amount) > MAX_NANOS:
            raise InvalidRequest("amount_nanos", f"from 1 to {MAX_NANOS}, or as many less")
        if amount < 0 and kind != LedgerKind.LEDGER_KIND_ADJUSTMENT:
            raise InvalidRequest("amount_nanos", "only an ADJUSTMENT can be negative")
        details = {
            "kind": COUNTERS[kind],
            "amount_nanos": amount,
            "operation_id": operation_id,
        }
        record = self._record(
            "credits.adjusted", actor, organization, organization, request_id, details, "account"
        )
        change = Adjustment(organization, kind, amount, description, operation_id, record.at_us)
        return await self.storage.write(lambda: ledger.adjust(change, record))

    def _record(
        self,
        action: str,
        actor: Caller,
        organization: str,
        entity_id: str,
        request_id: str,
        details: Mapping[str, Any],
        entity_type: str = "key",
    ) -> AuditRecord:
        return AuditRecord(
            self._now_us(),
            action,
            actor.key_id,
            organization,
            entity_type,
            entity_id,
            request_id,
            json.dumps(details, sort_keys=True, separators=(",", ":")),
        )


def _scopes(words: tuple[str, ...], actor: Caller) -> frozenset[Scope]:
    """Those named, none of which its maker may lack."""
    known = {scope.value: scope for scope in Scope}
    for i, word in enumerate(words):
        if word not in known:
            raise InvalidRequest(f"scopes[{i}]", f"is none of {', '.join(known)}")
    scopes = frozenset(known[word] for word in words) or frozenset({Scope.COMPLETE, Scope.READ})
    if Scope.ADMIN not in actor.scopes and not scopes <= actor.scopes:
        raise PermissionDenied("a key can't be given scopes that its maker lacks")
    return scopes


def _check_key_id(key_id: str) -> None:
    if len(key_id) != keys.ID_CHARS or not key_id.isascii() or not key_id.isalnum():
        raise InvalidRequest("key_id", f"{keys.ID_CHARS} letters and digits")


def _check_name(field: str, value: str) -> None:
    if not NAME.match(value):
        raise InvalidRequest(
            field, "1 to 64 letters, digits and . _ @ -, beginning with a letter or digit"
        )


def _check_text(field: str, value: str, limit: int) -> None:
    if len(value) > limit or (value and not value.isprintable()):
        raise InvalidRequest(field, f"at most {limit} printable characters")
