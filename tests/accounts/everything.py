"""All that the service can be asked, found by looking at it: the methods of the contract, and the fields of their
requests. So a test of everything is still one after something was added."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from tests.edges.errors import info_of
from tests.edges.observed import spec
from trunkline.v1.account_service_pb2 import (
    GetBalanceRequest,
    ListLedgerEntriesRequest,
    QueryUsageRequest,
)
from trunkline.v1.admin_service_pb2 import (
    AdjustCreditsRequest,
    CreateKeyRequest,
    ListAuditEventsRequest,
    ListKeysRequest,
    RevokeKeyRequest,
    RotateKeyRequest,
)
from trunkline.v1.cache_service_pb2 import (
    ClearCacheRequest,
    GetCacheStatsRequest,
    ReportHitRequest,
)
from trunkline.v1.catalog_service_pb2 import (
    GetModelRequest,
    InstallSkillRequest,
    ListModelsRequest,
    ListSkillsRequest,
    UninstallSkillRequest,
)
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    CompleteUnaryRequest,
    PreviewRouteRequest,
)
from trunkline.v1.conversation_service_pb2 import (
    CreateConversationRequest,
    DeleteConversationRequest,
    GetConversationRequest,
    ListConversationsRequest,
    ListMessagesRequest,
)
from trunkline.v1.job_service_pb2 import (
    CancelJobRequest,
    CreateJobRequest,
    GetJobRequest,
    ListJobsRequest,
    WatchJobRequest,
)
from trunkline.v1.ledger_pb2 import LedgerKind
from trunkline_server.edges.grpc.methods import SERVICES

Metadata = tuple[tuple[str, str], ...]
REQUEST_ID: Final = "req-of-the-test"
CALL_S: Final = 20.0
# Says how much is left, so it differs from one call to the next.
CHANGING: Final = ("ratelimit", "x-ratelimit-")
MAX_DEPTH: Final = 6  # Of messages in messages.


@dataclass(frozen=True)
class Answer:
    """What a caller gets. `body`: the responses, or the status with all its details. `metadata`: both ways, sorted."""

    code: grpc.StatusCode
    reason: str
    body: tuple[bytes, ...]
    metadata: tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Rpc:
    """One method of the contract."""

    path: str
    request_type: Any
    response_type: Any
    streams: bool

    @property
    def name(self) -> str:
        """Without its package."""
        return self.path.removeprefix("/trunkline.v1.")

    async def call(self, channel: Any, metadata: Metadata, request: Message) -> Answer:
        """Ask, under a request id that is always the same."""
        make = channel.unary_stream if self.streams else channel.unary_unary
        method = make(
            self.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self.response_type.FromString,
        )
        sent = (*metadata, ("x-request-id", REQUEST_ID))
        call = method(request, metadata=sent, timeout=CALL_S)
        body: list[bytes] = []
        try:
            if self.streams:
                body += [response.SerializeToString() async for response in call]
            else:
                body.append((await call).SerializeToString())
            told = tuple(await call.initial_metadata())
        except grpc.aio.AioRpcError as error:
            ended = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
            details = (error.details() or "").encode()
            return Answer(error.code(), info_of(error).reason, (details,), _kept(ended))
        return Answer(grpc.StatusCode.OK, "OK", tuple(body), _kept(told))


def _kept(metadata: Sequence[tuple[str, str | bytes]]) -> tuple[tuple[str, str | bytes], ...]:
    kept = [(key, value) for key, value in metadata if not key.startswith(CHANGING)]
    return tuple(sorted(kept, key=repr))


METHODS: Final = [
    Rpc(
        f"/{service.full_name}/{method.name}",
        message_factory.GetMessageClass(method.input_type),
        message_factory.GetMessageClass(method.output_type),
        method.server_streaming,
    )
    for service in SERVICES
    for method in service.methods
]


def served(key_id: str) -> Mapping[str, Message]:
    """A request that is answered, for each method that is served. Those that end a key, or make it another, are about
    this one."""
    return {
        "CompletionService/Complete": CompleteRequest(spec=spec("m")),
        "CompletionService/CompleteUnary": CompleteUnaryRequest(spec=spec("m")),
        "CompletionService/PreviewRoute": PreviewRouteRequest(spec=spec("m")),
        "CatalogService/ListModels": ListModelsRequest(),
        "CatalogService/GetModel": GetModelRequest(model_id="m"),
        "AccountService/GetBalance": GetBalanceRequest(),
        "AccountService/ListLedgerEntries": ListLedgerEntriesRequest(),
        "AccountService/QueryUsage": QueryUsageRequest(),
        "AdminService/CreateKey": CreateKeyRequest(organization="acme"),
        "AdminService/ListKeys": ListKeysRequest(),
        "AdminService/RotateKey": RotateKeyRequest(key_id=key_id),
        "AdminService/RevokeKey": RevokeKeyRequest(key_id=key_id),
        "AdminService/AdjustCredits": AdjustCreditsRequest(
            organization="acme", kind=LedgerKind.LEDGER_KIND_GRANT, amount_nanos=1
        ),
        "AdminService/ListAuditEvents": ListAuditEventsRequest(),
        "CacheService/GetCacheStats": GetCacheStatsRequest(),
        "CacheService/ClearCache": ClearCacheRequest(),
        "CacheService/ReportHit": ReportHitRequest(entry_id="none"),
        "CatalogService/ListSkills": ListSkillsRequest(),
        "CatalogService/InstallSkill": InstallSkillRequest(slug="none"),
        "CatalogService/UninstallSkill": UninstallSkillRequest(slug="none"),
        "JobService/CreateJob": CreateJobRequest(kind="none", spec=spec("m")),
        "JobService/GetJob": GetJobRequest(job_id="none"),
        "JobService/ListJobs": ListJobsRequest(),
        "JobService/CancelJob": CancelJobRequest(job_id="none"),
        "JobService/WatchJob": WatchJobRequest(job_id="none"),
        "ConversationService/CreateConversation": CreateConversationRequest(),
        "ConversationService/GetConversation": GetConversationRequest(conversation_id="none"),
        "ConversationService/ListConversations": ListConversationsRequest(),
        "ConversationService/ListMessages": ListMessagesRequest(conversation_id="none"),
        "ConversationService/DeleteConversation": DeleteConversationRequest(conversation_id="none"),
    }


# Fields of requests


def text_fields(message_type: Any) -> Iterator[tuple[str, ...]]:
    """Paths of all fields that hold text, of a message and of those in it; in lists and maps too."""
    yield from _text_fields(message_type.DESCRIPTOR, ())


def _text_fields(descriptor: Descriptor, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for field in descriptor.fields:
        here = (*path, field.name)
        inner = field.message_type
        if field.type == FieldDescriptor.TYPE_STRING:
            yield here
        elif inner is None or inner.full_name.startswith("google.protobuf."):
            continue
        elif inner.GetOptions().map_entry:
            if inner.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING:
                yield (*here, "key")
                yield (*here, "value")
        elif len(here) < MAX_DEPTH and path.count(field.name) < 1:
            yield from _text_fields(inner, here)


def with_text(
    message_type: Any, path: Sequence[str], text: str, base: Message | None = None
) -> Any:
    """A message that has this text in this field, and is otherwise as `base`."""
    message = message_type()
    if base is not None:
        message.CopyFrom(base)
    _put(message, path, text)
    return message


def _put(message: Any, path: Sequence[str], text: str) -> None:
    name, *rest = path
    field = message.DESCRIPTOR.fields_by_name[name]
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    if is_map:
        entry = {text: "v"} if rest == ["key"] else {"k": text}
        ParseDict({field.json_name: entry}, message)
    elif rest:
        held = getattr(message, name)
        if field.is_repeated:
            _put(held[0] if len(held) else held.add(), rest, text)
        else:
            held.SetInParent()
            _put(held, rest, text)
    elif field.is_repeated:
        getattr(message, name).append(text)
    else:
        setattr(message, name, text)
