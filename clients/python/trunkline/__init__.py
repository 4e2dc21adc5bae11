"""Trunkline's contract and Python client.

    from trunkline import Client, text

    with Client("127.0.0.1:50051") as client:
        print(text(client.complete("Why is the sky blue?")))

Names are loaded when they are first used: whoever imports the contract in `trunkline.v1` alone, as
the server does, loads no client and no gRPC.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trunkline.accounts import (
        nanos_from_usd,
        usd_from_nanos,
    )
    from trunkline.async_client import (
        AsyncClient,
    )
    from trunkline.client import (
        Client,
    )
    from trunkline.errors import (
        Aborted,
        AllProvidersFailed,
        BudgetExhausted,
        Cancelled,
        CapabilityUnsupported,
        ConcurrencyExhausted,
        Conflict,
        ContentBlocked,
        ContextLengthExceeded,
        ConversationNotFound,
        DeadlineExceeded,
        Draining,
        EmptyPrompt,
        FailedPrecondition,
        FieldViolation,
        IdempotencyConflict,
        InsufficientCredits,
        InternalError,
        InvalidApiKey,
        InvalidRequest,
        JobNotFound,
        ModelNotFound,
        ModeRateLimited,
        ModeRequiresJob,
        NoEligibleProvider,
        NotFound,
        Overloaded,
        PayloadTooLarge,
        PermissionDenied,
        RateLimited,
        RequestAlreadyStarted,
        RequestInProgress,
        ResourceExhausted,
        RouteNotAllowed,
        StreamInterrupted,
        TokenRateLimited,
        TrunklineError,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        UpstreamProtocolError,
        UpstreamRejected,
        UpstreamTimeout,
    )
    from trunkline.folding import (
        CompletionFolder,
        fold,
    )
    from trunkline.messages import (
        arguments,
        assistant,
        developer,
        document,
        function_tool,
        image,
        json_object,
        json_schema,
        only_tool,
        system,
        text,
        tool_calls,
        tool_result,
        turns,
        user,
    )
    from trunkline.specs import (
        SpecOptions,
    )
    from trunkline.streams import (
        AsyncCompletionStream,
        CompletionStream,
    )

__all__ = [
    "Aborted",
    "AllProvidersFailed",
    "AsyncClient",
    "AsyncCompletionStream",
    "BudgetExhausted",
    "Cancelled",
    "CapabilityUnsupported",
    "Client",
    "CompletionFolder",
    "CompletionStream",
    "ConcurrencyExhausted",
    "Conflict",
    "ContentBlocked",
    "ContextLengthExceeded",
    "ConversationNotFound",
    "DeadlineExceeded",
    "Draining",
    "EmptyPrompt",
    "FailedPrecondition",
    "FieldViolation",
    "IdempotencyConflict",
    "InsufficientCredits",
    "InternalError",
    "InvalidApiKey",
    "InvalidRequest",
    "JobNotFound",
    "ModeRateLimited",
    "ModeRequiresJob",
    "ModelNotFound",
    "NoEligibleProvider",
    "NotFound",
    "Overloaded",
    "PayloadTooLarge",
    "PermissionDenied",
    "RateLimited",
    "RequestAlreadyStarted",
    "RequestInProgress",
    "ResourceExhausted",
    "RouteNotAllowed",
    "SpecOptions",
    "StreamInterrupted",
    "TokenRateLimited",
    "TrunklineError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UpstreamProtocolError",
    "UpstreamRejected",
    "UpstreamTimeout",
    "arguments",
    "assistant",
    "developer",
    "document",
    "fold",
    "function_tool",
    "image",
    "json_object",
    "json_schema",
    "nanos_from_usd",
    "only_tool",
    "system",
    "text",
    "tool_calls",
    "tool_result",
    "turns",
    "usd_from_nanos",
    "user",
]

# In the order in which names are looked for, the lightest first.
_MODULES = (
    "messages",
    "specs",
    "folding",
    "errors",
    "streams",
    "accounts",
    "client",
    "async_client",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = getattr(import_module(f"trunkline.{module}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module 'trunkline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
