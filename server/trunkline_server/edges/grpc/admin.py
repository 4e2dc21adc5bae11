"""`trunkline.v1.AdminService`, as far as it is about accounts."""

import json

from google.protobuf.duration_pb2 import Duration

from trunkline.v1.admin_service_pb2 import (
    AdjustCreditsRequest,
    AdjustCreditsResponse,
    AuditEvent,
    CreateKeyRequest,
    CreateKeyResponse,
    ListAuditEventsRequest,
    ListAuditEventsResponse,
    ListKeysRequest,
    ListKeysResponse,
    RevokeKeyRequest,
    RevokeKeyResponse,
    RotateKeyRequest,
    RotateKeyResponse,
)
from trunkline.v1.admin_service_pb2 import Key as KeyMessage
from trunkline_server.accounts import audit, keys
from trunkline_server.accounts.administration import Administration, NewKey
from trunkline_server.accounts.audit import AuditEntry
from trunkline_server.accounts.keys import Key
from trunkline_server.completion.service import Completions
from trunkline_server.core.errors import InvalidRequest
from trunkline_server.core.plans import Scope
from trunkline_server.edges.grpc.account import (
    CURRENCY,
    MICROS,
    check_filter,
    entry_message,
    micros_of,
    timestamp,
)
from trunkline_server.edges.grpc.call import Calls, Context, answer_unary
from trunkline_server.edges.grpc.pages import MAX_TOKEN_CHARS, page_size_of

MAX_DURATION_S = 10**9


class AdminServicer:
    """Every call needs an admin key."""

    def __init__(
        self, administration: Administration, completions: Completions, calls: Calls
    ) -> None:
        self._administration = administration
        self._completions = completions
        self._calls = calls

    async def CreateKey(self, request: CreateKeyRequest, context: Context) -> CreateKeyResponse:
        """The secret is shown this once."""
        call = self._calls.read("CreateKey", context)
        async with answer_unary(context, call):
            actor = await self._completions.enter(call, Scope.ADMIN)
            expires_us = None
            if request.HasField("expire_time"):
                expires_us = micros_of("expire_time", request.expire_time)
            new = NewKey(
                request.organization,
                request.project,
                request.name,
                request.plan or "default",
                tuple(request.scopes),
                expires_us,
            )
            key, token = await self._administration.create_key(new, actor, call.request_id)
            return CreateKeyResponse(key=_key_message(key), secret=str(token))

    async def ListKeys(self, request: ListKeysRequest, context: Context) -> ListKeysResponse:
        """By id; of all organisations where none is named."""
        call = self._calls.read("ListKeys", context)
        async with answer_unary(context, call):
            await self._completions.enter(call, Scope.ADMIN)
            check_filter("organization", request.organization)
            size = page_size_of(request.page_size)
            after = request.page_token
            if (
                len(after) > MAX_TOKEN_CHARS
                or not after.isascii()
                or (after and not after.isalnum())
            ):
                raise InvalidRequest("page_token", "is none of ours")
            found = await self._administration.storage.read(
                lambda: keys.page(request.organization, after, size + 1)
            )
            token = found[size - 1].id if len(found) > size else ""
            return ListKeysResponse(
                keys=[_key_message(key) for key in found[:size]], next_page_token=token
            )

    async def RotateKey(self, request: RotateKeyRequest, context: Context) -> RotateKeyResponse:
        """A new secret; the old one counts for as long as the overlap."""
        call = self._calls.read("RotateKey", context)
        async with answer_unary(context, call):
            actor = await self._completions.enter(call, Scope.ADMIN)
            overlap_us = _micros("overlap", request.overlap)
            key, token = await self._administration.rotate_key(
                request.key_id, overlap_us, actor, call.request_id
            )
            return RotateKeyResponse(key=_key_message(key), secret=str(token))

    async def RevokeKey(self, request: RevokeKeyRequest, context: Context) -> RevokeKeyResponse:
        """For good."""
        call = self._calls.read("RevokeKey", context)
        async with answer_unary(context, call):
            actor = await self._completions.enter(call, Scope.ADMIN)
            key = await self._administration.revoke_key(request.key_id, actor, call.request_id)
            return RevokeKeyResponse(key=_key_message(key))

    async def AdjustCredits(
        self, request: AdjustCreditsRequest, context: Context
    ) -> AdjustCreditsResponse:
        """Once for each idempotency key."""
        call = self._calls.read("AdjustCredits", context)
        async with answer_unary(context, call):
            actor = await self._completions.enter(call, Scope.ADMIN)
            key = request.idempotency_key
            if key and call.idempotency_key and key != call.idempotency_key:
                raise InvalidRequest("idempotency_key", "differs from the idempotency-key header")
            entry = await self._administration.adjust_credits(
                request.organization,
                request.kind,
                request.amount_nanos,
                request.description,
                key or call.idempotency_key,
                actor,
                call.request_id,
            )
            return AdjustCreditsResponse(entry=entry_message(entry))

    async def ListAuditEvents(
        self, request: ListAuditEventsRequest, context: Context
    ) -> ListAuditEventsResponse:
        """Newest first; of all organisations where none is named."""
        call = self._calls.read("ListAuditEvents", context)
        async with answer_unary(context, call):
            await self._completions.enter(call, Scope.ADMIN)
            check_filter("organization", request.organization)
            page = await self._administration.storage.read(
                lambda: audit.page(
                    request.organization or None,
                    page_size=request.page_size,
                    page_token=request.page_token,
                )
            )
            return ListAuditEventsResponse(
                events=[_audit_message(entry) for entry in page.entries],
                next_page_token=page.next_page_token,
            )


def _key_message(key: Key) -> KeyMessage:
    message = KeyMessage(
        id=key.id,
        organization=key.organization,
        project=key.project,
        name=key.name,
        plan=key.plan,
        scopes=sorted(key.scopes),
        create_time=timestamp(key.created_us),
    )
    for field, at_us in (
        ("expire_time", key.expires_us),
        ("revoke_time", key.revoked_us),
        ("last_use_time", key.last_used_us),
    ):
        if at_us is not None:
            getattr(message, field).CopyFrom(timestamp(at_us))
    return message


def _audit_message(entry: AuditEntry) -> AuditEvent:
    message = AuditEvent(
        sequence=entry.sequence,
        event_time=timestamp(entry.at_us),
        action=entry.action,
        actor=entry.actor,
        organization=entry.organization,
        entity_type=entry.entity_type,
        entity_id=entry.entity_id,
        request_id=entry.request_id,
        metadata_json=entry.details,
        previous_hash=bytes(entry.previous_hash).hex(),
        hash=bytes(entry.hash).hex(),
    )
    if entry.entity_type == "completion":
        details = json.loads(entry.details)
        message.status_reason = details["reason"]
        message.route.provider = details["provider"]
        message.route.model = details["model"]
        message.route.route = details["route"]
        message.usage.input_tokens = details["input_tokens"]
        message.usage.output_tokens = details["output_tokens"]
        if details["cost_nanos"] is not None:
            message.usage.cost.amount_nanos = details["cost_nanos"]
            message.usage.cost.currency_code = CURRENCY
        message.metadata_json = entry.private or ""
    return message


def _micros(field: str, duration: Duration) -> int:
    if abs(duration.seconds) > MAX_DURATION_S:
        raise InvalidRequest(field, "0 s to a day")
    return duration.seconds * MICROS + duration.nanos // 1_000
