"""What the cases in `cases/*.yaml` may say, and how they are read.

A case is one call of a client against a gateway that plays a script, and what must have come of it on both sides. It
says nothing of a language: a runner in each of them makes the call and tells what it saw, see `languages.py`.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from msgspec import Struct

from trunkline.v1.catalog_service_pb2 import (
    GetModelRequest,
    GetModelResponse,
    ListModelsRequest,
    ListModelsResponse,
    Model,
)
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    CompleteUnaryRequest,
    CompleteUnaryResponse,
    PreviewRouteRequest,
    PreviewRouteResponse,
)
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.conversation_service_pb2 import (
    Conversation,
    CreateConversationRequest,
    CreateConversationResponse,
    DeleteConversationRequest,
    DeleteConversationResponse,
    GetConversationRequest,
    GetConversationResponse,
    ListConversationsRequest,
    ListConversationsResponse,
    ListMessagesRequest,
    ListMessagesResponse,
    StoredMessage,
)
from trunkline.v1.job_service_pb2 import (
    CancelJobRequest,
    CancelJobResponse,
    CreateJobRequest,
    CreateJobResponse,
    GetJobRequest,
    GetJobResponse,
    Job,
    ListJobsRequest,
    ListJobsResponse,
    WatchJobRequest,
    WatchJobResponse,
)

CASES: Final = Path(__file__).parent / "cases"

Types = tuple[type[Message], type[Message]]
RPCS: Final[Mapping[str, Types]] = {
    "Complete": (CompleteRequest, CompleteResponse),
    "CompleteUnary": (CompleteUnaryRequest, CompleteUnaryResponse),
    "PreviewRoute": (PreviewRouteRequest, PreviewRouteResponse),
    "ListModels": (ListModelsRequest, ListModelsResponse),
    "GetModel": (GetModelRequest, GetModelResponse),
    "CreateJob": (CreateJobRequest, CreateJobResponse),
    "GetJob": (GetJobRequest, GetJobResponse),
    "ListJobs": (ListJobsRequest, ListJobsResponse),
    "CancelJob": (CancelJobRequest, CancelJobResponse),
    "WatchJob": (WatchJobRequest, WatchJobResponse),
    "CreateConversation": (CreateConversationRequest, CreateConversationResponse),
    "GetConversation": (GetConversationRequest, GetConversationResponse),
    "ListConversations": (ListConversationsRequest, ListConversationsResponse),
    "ListMessages": (ListMessagesRequest, ListMessagesResponse),
    "DeleteConversation": (DeleteConversationRequest, DeleteConversationResponse),
}
"""The methods that clients have, with their requests and responses. No two services share a name."""

ITEMS: Final[Mapping[str, type[Message]]] = {
    "preview_route": PreviewRouteResponse,
    "list_models": Model,
    "get_model": Model,
    "create_job": Job,
    "get_job": Job,
    "list_jobs": Job,
    "cancel_job": Job,
    "watch_job": WatchJobResponse,
    "create_conversation": Conversation,
    "get_conversation": Conversation,
    "list_conversations": Conversation,
    "list_messages": StoredMessage,
    "delete_conversation": DeleteConversationResponse,
}
"""What a client's method gives, one or many of it."""


class Fail(Struct, forbid_unknown_fields=True):
    """A non-OK status. With a `reason` or other details it is the gateway's, without it a proxy's or the library's."""

    code: str
    message: str = "no"
    reason: str = ""
    domain: str = "trunkline"
    request_id: str = ""
    retry_after_s: float | None = None
    violations: list[dict[str, str]] = []
    metadata: dict[str, str] = {}
    pushback_ms: str = ""
    padding_chars: int = 0
    """Of a further entry of the metadata."""
    details_hex: str | None = None
    """Instead of details: these bytes."""


class Repeat(Struct, forbid_unknown_fields=True):
    """So many text deltas of so many characters each."""

    count: int
    chars: int


class Step(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One thing that the gateway does; exactly one field is given."""

    event: dict[str, Any] | None = None
    """Of a stream, in JSON; the gateway numbers it."""
    text: str | None = None
    """A text delta of the first choice's first part."""
    done: dict[str, Any] | None = None
    """The last event, with this Completion."""
    message: dict[str, Any] | None = None
    """A response as it is, in JSON."""
    raw_hex: str | None = None
    """Bytes of a response, which may hold what the contract does not know."""
    repeat: Repeat | None = None
    headers: dict[str, str] | None = None
    pause_s: float | None = None
    hold: bool | None = None
    """Says nothing more until the caller has gone."""
    drop: bool | None = None
    """Ends the connection with a reset. The client must be `via` the relay."""
    fail: Fail | None = None

    def __post_init__(self) -> None:
        given = [name for name in self.__struct_fields__ if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a step says one thing, and this one says {given}")


class Bounds(Struct, forbid_unknown_fields=True):
    """Closed bounds of a number."""

    at_least: float = float("-inf")
    at_most: float = float("inf")

    def hold(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most


class Sent(Struct, forbid_unknown_fields=True):
    """What the gateway must have got of one call."""

    request: dict[str, Any] | None = None
    """In JSON, equal."""
    request_chars: int | None = None
    """Of the text of the first message."""
    headers: dict[str, str] = {}
    absent_headers: list[str] = []
    time_remaining_s: Bounds | None = None


class ExpectedError(Struct, forbid_unknown_fields=True):
    """Each field that is given must be equal."""

    family: str | list[str]
    reason: str | None = None
    code: str | None = None
    message: str | None = None
    request_id: str | None = None
    retry_after_s: float | None = None
    has_retry_after: bool | None = None
    provider: str | None = None
    retryable: bool | None = None
    field_violations: list[dict[str, str]] | None = None
    metadata: dict[str, str] | None = None


class Expect(Struct, forbid_unknown_fields=True):
    """What must have come of a call. What is not given is not looked at, but for the error: without one, none came."""

    events: list[str] | None = None
    event_counts: dict[str, int] | None = None
    texts: list[str] | None = None
    text: str | None = None
    text_chars: int | None = None
    completion: dict[str, Any] | None = None
    tool_calls: list[dict[str, str]] | None = None
    items: list[dict[str, Any]] | None = None
    error: ExpectedError | None = None
    elapsed_s: Bounds | None = None
    calls: int | None = None
    """That reached the gateway; where it is not given, as many as are `sent`."""
    sent: list[Sent] = []
    """Of the calls in their order; of `calls` that are more, the further ones are not looked at."""
    gaps_s: Bounds | None = None
    """Between the end of one call and the begin of the next."""
    told: Bounds | None = None
    """Messages that the last call had taken when it ended."""
    live_bytes_growth: Bounds | None = None
    threads_growth: Bounds | None = None


class Case(Struct, forbid_unknown_fields=True):
    """One call."""

    name: str
    call: dict[str, Any]
    expect: Expect
    why: str = ""
    client: dict[str, Any] = {}
    via: Literal["direct", "tls", "relay", "elsewhere"] = "direct"
    """`elsewhere`: the client's own `target`, where no gateway is."""
    server: list[list[Step]] = []
    """A script for each call, the last one for all further ones."""
    limit_s: float = 20.0


def read_cases(folder: Path = CASES) -> list[Case]:
    """All cases, in the order of their files.

    Raises:
        msgspec.ValidationError: a case says what no case can.
        ValueError: two have the same name.
    """
    cases = [
        case
        for file in sorted(folder.glob("*.yaml"))
        for case in msgspec.yaml.decode(file.read_bytes(), type=list[Case])
    ]
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"more than one case is called {sorted(twice)}")
    return cases


def encoded(value: dict[str, Any], kind: type[Message]) -> bytes:
    """The JSON of a message as its bytes on the wire."""
    return ParseDict(value, kind()).SerializeToString()


def order(case: Case, client: Mapping[str, Any]) -> dict[str, Any]:
    """The line that a runner gets: what is a message in the case is base64 here."""
    call = dict(case.call)
    if "spec" in call:
        call["spec"] = as_base64(encoded(call["spec"], CompletionSpec))
    if "events" in call:
        call["events"] = [as_base64(encoded(event, CompleteResponse)) for event in call["events"]]
    return {"name": case.name, "client": client, "call": call}


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
