"""What every refusal means: one golden table over all dialects."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.providers.readings import ANSWERS, RECORDINGS
from trunkline_server.core.failure import Failure
from trunkline_server.providers.registry import DIALECTS


def openai(code: str | None, kind: str = "invalid_request_error", **more: Any) -> dict[str, Any]:
    return {"error": {"message": "words", "type": kind, "param": None, "code": code, **more}}


def anthropic(kind: str, message: str = "words", **details: str) -> dict[str, Any]:
    error: dict[str, Any] = {"type": kind, "message": message}
    return {"type": "error", "error": {**error, "details": details} if details else error}


def gemini(number: int, status: str, *details: dict[str, Any]) -> dict[str, Any]:
    error = {"code": number, "message": "words", "status": status, "details": list(details)}
    return {"error": error}


DAILY = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
}
BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
LATER = {"retry-after": "7"}


def aws(name: str) -> dict[str, str]:
    """Where Bedrock names an exception, with the address that may follow."""
    return {"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"}


def said(message: str) -> dict[str, Any]:
    """A refusal by Bedrock, which has no codes."""
    return {"message": message}


RELAYED = "The model returned the following errors: "
TWO_KINDS = "Conversation blocks and tool {} blocks cannot be provided in the same turn."
TOO_LONG = (
    "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000, decrease input "
    "length or `max_tokens` and try again"
)
TOO_LARGE = (
    "Malformed input request: #/texts/0: expected maxLength: 2048, actual: 19882, please reformat "
    "your input and try again."
)
TOO_OLD = "Model {} is enabled only for api versions 2024-12-01-preview and later"
NO_CHAT = "The chatCompletion operation does not work with the specified model, ada-002."

HTML = b"<html><h1>Bad gateway</h1></html>"

NO_TOOLS = {"id": "x", "message": "model 'command-light' does not support tools"}
GO_AWAY = {"error": "you (ada) have reached your session usage limit"}

# A body is a recording's name, a value or bytes as they stand.
TABLE: list[tuple[str, int, dict[str, str], str | bytes | dict[str, Any], Failure]] = [
    # OpenAI
    ("openai", 429, LATER, "rate_limited", Failure.THROTTLED),
    ("openai", 429, {}, "insufficient_quota", Failure.EXHAUSTED),
    ("openai", 429, {}, openai("credit_balance_exhausted"), Failure.EXHAUSTED),
    ("openai", 429, {}, openai("billing_hard_limit_reached"), Failure.EXHAUSTED),
    ("openai", 429, {}, openai("billing_not_active", "billing_not_active"), Failure.EXHAUSTED),
    ("openai", 429, {}, HTML, Failure.THROTTLED),
    ("openai", 402, {}, b"", Failure.EXHAUSTED),
    ("openai", 400, {}, "context_length", Failure.CONTEXT_LENGTH),
    ("openai", 400, {}, "invalid_request", Failure.CALLER),
    ("openai", 400, {}, "unsupported_value", Failure.CAPABILITY),
    ("openai", 400, {}, openai("unsupported_parameter"), Failure.CAPABILITY),
    ("openai", 400, {}, openai("content_policy_violation"), Failure.POLICY),
    ("openai", 400, {}, openai("invalid_prompt"), Failure.POLICY),
    ("openai", 400, {}, openai(None), Failure.CALLER),
    ("openai", 413, {}, openai(None), Failure.CONTEXT_LENGTH),
    ("openai", 422, {}, openai(None), Failure.CALLER),
    ("openai", 401, {}, "invalid_key", Failure.CREDENTIAL),
    ("openai", 403, {}, openai("unsupported_country_region_territory"), Failure.CREDENTIAL),
    ("openai", 404, {}, "model_not_found", Failure.MODEL_MISSING),
    ("openai", 408, {}, b"", Failure.SERVER),
    ("openai", 409, {}, b"", Failure.SERVER),
    ("openai", 424, {}, b"", Failure.SERVER),
    ("openai", 500, {}, "server_error", Failure.SERVER),
    ("openai", 502, {}, HTML, Failure.SERVER),
    ("openai", 503, {}, b'{"error": "overloaded"}', Failure.SERVER),
    ("openai", 522, {}, HTML, Failure.SERVER),
    ("openai", 529, {}, b"", Failure.SERVER),
    ("openai", 302, {}, HTML, Failure.PROTOCOL),
    # A prompt that is quoted in a message proves nothing.
    ("openai", 400, {}, openai(None, message="no: 'Incorrect API key provided'"), Failure.CALLER),
    ("openai", 400, {}, openai(None, message="429 insufficient_quota"), Failure.CALLER),
    # Azure
    ("azure", 400, {}, "content_filter", Failure.POLICY),
    ("azure", 429, {"retry-after-ms": "9000"}, "rate_limited", Failure.THROTTLED),
    ("azure", 401, {}, "invalid_key", Failure.CREDENTIAL),
    ("azure", 404, {}, "no_deployment", Failure.MODEL_MISSING),
    ("azure", 400, {}, openai("unknown_parameter", param="reasoning_effort"), Failure.CAPABILITY),
    ("azure", 400, {}, openai("unknown_parameter", param="store"), Failure.CAPABILITY),
    ("azure", 400, {}, openai("invalid_value", param="reasoning_effort"), Failure.CAPABILITY),
    ("azure", 400, {}, openai("invalid_value", param="messages"), Failure.CALLER),
    ("azure", 400, {}, openai("OperationNotSupported", message=NO_CHAT), Failure.MODEL_MISSING),
    ("azure", 400, {}, openai("BadRequest", message=TOO_OLD.format("o1")), Failure.MODEL_MISSING),
    ("azure", 400, {}, openai(None, message="no: " + TOO_OLD.format("o1")), Failure.CALLER),
    (
        "azure",
        400,
        {},
        openai(None, message="Unrecognized request argument supplied: reasoning_effort"),
        Failure.CAPABILITY,
    ),
    # Mistral
    ("mistral", 400, {}, "invalid_model", Failure.MODEL_MISSING),
    ("mistral", 400, {}, "call_id", Failure.CALLER),
    ("mistral", 400, {}, "too_long", Failure.CONTEXT_LENGTH),
    ("mistral", 401, {}, "invalid_key", Failure.CREDENTIAL),
    ("mistral", 422, {}, "validation", Failure.CALLER),
    ("mistral", 429, {}, "rate_limited", Failure.THROTTLED),
    # Groq
    ("groq", 400, {}, "tool_use_failed", Failure.MODEL_FAULT),
    ("groq", 400, {}, "failed_generation", Failure.MODEL_FAULT),
    ("groq", 400, {}, "decommissioned", Failure.MODEL_MISSING),
    ("groq", 413, {}, openai("rate_limit_exceeded", "tokens"), Failure.THROTTLED),
    ("groq", 429, LATER, "rate_limited", Failure.THROTTLED),
    ("groq", 498, {}, "capacity", Failure.SERVER),
    # OpenRouter
    ("openrouter", 402, {}, "no_credits", Failure.EXHAUSTED),
    ("openrouter", 403, {}, "moderation", Failure.POLICY),
    ("openrouter", 502, {}, "provider_down", Failure.SERVER),
    ("openrouter", 200, {}, "error_in_200", Failure.SERVER),
    ("openrouter", 200, {}, {"error": {"code": 429, "message": "x"}}, Failure.THROTTLED),
    ("openrouter", 200, {}, {"error": {"code": "401", "message": "x"}}, Failure.CREDENTIAL),
    # vLLM, llama.cpp
    ("vllm", 400, {}, "too_long", Failure.CONTEXT_LENGTH),
    ("vllm", 400, {}, "too_long_flat", Failure.CONTEXT_LENGTH),
    ("vllm", 404, {}, "model_not_found", Failure.MODEL_MISSING),
    ("llamacpp", 400, {}, "too_long", Failure.CONTEXT_LENGTH),
    ("llamacpp", 503, {}, "loading", Failure.SERVER),
    # DeepSeek, xAI
    ("deepseek", 402, {}, "no_balance", Failure.EXHAUSTED),
    ("deepseek", 400, {}, "no_reasoning", Failure.CALLER),
    ("xai", 400, {}, "invalid_key", Failure.CREDENTIAL),
    ("xai", 429, {}, "no_credits", Failure.THROTTLED),
    # Anthropic
    ("anthropic", 429, LATER, "rate_limited", Failure.THROTTLED),
    ("anthropic", 429, {}, "spend_limit", Failure.EXHAUSTED),
    ("anthropic", 529, {}, "overloaded", Failure.SERVER),
    ("anthropic", 400, {}, "too_long", Failure.CONTEXT_LENGTH),
    ("anthropic", 400, {}, anthropic("invalid_request_error"), Failure.CALLER),
    ("anthropic", 401, {}, anthropic("authentication_error"), Failure.CREDENTIAL),
    ("anthropic", 402, {}, anthropic("billing_error"), Failure.EXHAUSTED),
    ("anthropic", 403, {}, anthropic("permission_error"), Failure.CREDENTIAL),
    ("anthropic", 404, {}, anthropic("not_found_error"), Failure.MODEL_MISSING),
    ("anthropic", 413, {}, anthropic("request_too_large"), Failure.CONTEXT_LENGTH),
    ("anthropic", 500, {}, anthropic("api_error"), Failure.SERVER),
    ("anthropic", 504, {}, anthropic("timeout_error"), Failure.SERVER),
    ("anthropic", 502, {}, HTML, Failure.SERVER),
    # Gemini
    ("gemini", 429, {}, "rate_limited", Failure.THROTTLED),
    ("gemini", 429, {}, "quota_per_day", Failure.EXHAUSTED),
    ("gemini", 429, {}, gemini(429, "RESOURCE_EXHAUSTED", DAILY), Failure.EXHAUSTED),
    ("gemini", 503, {}, "unavailable", Failure.SERVER),
    ("gemini", 400, {}, "invalid_key", Failure.CREDENTIAL),
    ("gemini", 400, {}, gemini(400, "INVALID_ARGUMENT", BAD_KEY), Failure.CREDENTIAL),
    ("gemini", 400, {}, "invalid_argument", Failure.CALLER),
    ("gemini", 400, {}, "context_length", Failure.CONTEXT_LENGTH),
    ("gemini", 403, {}, gemini(403, "PERMISSION_DENIED"), Failure.CREDENTIAL),
    ("gemini", 404, {}, "model_not_found", Failure.MODEL_MISSING),
    ("gemini", 500, {}, gemini(500, "INTERNAL"), Failure.SERVER),
    ("gemini", 504, {}, gemini(504, "DEADLINE_EXCEEDED"), Failure.SERVER),
    # Bedrock
    ("bedrock", 429, aws("ThrottlingException"), "throttled", Failure.THROTTLED),
    ("bedrock", 429, aws("ModelNotReadyException"), "not_ready", Failure.SERVER),
    ("bedrock", 400, aws("ServiceQuotaExceededException"), {}, Failure.EXHAUSTED),
    ("bedrock", 400, aws("ValidationException"), "validation", Failure.CALLER),
    ("bedrock", 400, aws("ValidationException"), "too_long", Failure.CONTEXT_LENGTH),
    ("bedrock", 400, aws("ValidationException"), "unsupported", Failure.CAPABILITY),
    ("bedrock", 400, aws("ValidationException"), "invalid_model", Failure.MODEL_MISSING),
    ("bedrock", 400, {}, said(TOO_LONG), Failure.CONTEXT_LENGTH),
    ("bedrock", 400, {}, said(RELAYED + TOO_LONG), Failure.CONTEXT_LENGTH),
    ("bedrock", 400, {}, said("too many total text bytes: 12 > 11"), Failure.CONTEXT_LENGTH),
    (
        "bedrock",
        400,
        {},
        said("Too many input tokens. Max input tokens: 8192"),
        Failure.CONTEXT_LENGTH,
    ),
    ("bedrock", 400, {}, said(RELAYED + TOO_LARGE), Failure.CONTEXT_LENGTH),
    ("bedrock", 400, {}, said("Malformed input request: #: extraneous key"), Failure.CALLER),
    (
        "bedrock",
        400,
        {},
        said("The maximum tokens you requested exceeds the model limit of 4096. Try again."),
        Failure.CAPABILITY,
    ),
    (
        "bedrock",
        400,
        {},
        said(RELAYED + "`temperature` is deprecated for this model"),
        Failure.CAPABILITY,
    ),
    (
        "bedrock",
        400,
        {},
        said("messages.2.content: " + TWO_KINDS.format("result")),
        Failure.CAPABILITY,
    ),
    (
        "bedrock",
        400,
        {},
        said("messages.11.content: " + TWO_KINDS.format("use")),
        Failure.CAPABILITY,
    ),
    ("bedrock", 400, {}, said(TWO_KINDS.format("use")), Failure.CAPABILITY),
    # A prompt that is quoted in a message proves nothing.
    ("bedrock", 400, {}, said("no: " + TOO_LONG), Failure.CALLER),
    ("bedrock", 400, {}, {"message": "no: 'Input is too long for req..."}, Failure.CALLER),
    ("bedrock", 403, aws("AccessDeniedException"), "access_denied", Failure.CREDENTIAL),
    ("bedrock", 403, aws("UnrecognizedClientException"), "invalid_token", Failure.CREDENTIAL),
    ("bedrock", 403, aws("InvalidSignatureException"), "bad_signature", Failure.CREDENTIAL),
    ("bedrock", 400, aws("ExpiredTokenException"), {}, Failure.CREDENTIAL),
    ("bedrock", 404, aws("ResourceNotFoundException"), "not_found", Failure.MODEL_MISSING),
    ("bedrock", 408, aws("ModelTimeoutException"), "model_timeout", Failure.SERVER),
    ("bedrock", 424, aws("ModelErrorException"), "model_error", Failure.SERVER),
    ("bedrock", 500, aws("InternalServerException"), "internal", Failure.SERVER),
    ("bedrock", 503, aws("ServiceUnavailableException"), "unavailable", Failure.SERVER),
    ("bedrock", 400, {}, {"__type": "com.amazon.bedrock#ThrottlingException"}, Failure.THROTTLED),
    ("bedrock", 429, {}, b"", Failure.THROTTLED),
    ("bedrock", 413, {}, {"message": None}, Failure.CONTEXT_LENGTH),
    ("bedrock", 502, {}, HTML, Failure.SERVER),
    # Cohere. Without codes, so a 400 leaves open what the next one can do.
    ("cohere", 400, {}, "invalid_request", Failure.CAPABILITY),
    ("cohere", 400, {}, "too_long", Failure.CAPABILITY),
    ("cohere", 400, {}, NO_TOOLS, Failure.CAPABILITY),
    ("cohere", 401, {}, "invalid_key", Failure.CREDENTIAL),
    ("cohere", 402, {}, "no_balance", Failure.EXHAUSTED),
    ("cohere", 403, {}, b"{}", Failure.CREDENTIAL),
    ("cohere", 404, {}, "model_not_found", Failure.MODEL_MISSING),
    ("cohere", 422, {}, {"message": "words"}, Failure.CALLER),
    ("cohere", 429, LATER, "rate_limited", Failure.THROTTLED),
    ("cohere", 498, {}, "denied_word", Failure.POLICY),
    ("cohere", 499, {}, b"{}", Failure.SERVER),
    ("cohere", 500, {}, "server_error", Failure.SERVER),
    ("cohere", 501, {}, b"{}", Failure.CAPABILITY),
    ("cohere", 502, {}, HTML, Failure.SERVER),
    ("cohere", 504, {}, b"{}", Failure.SERVER),
    # Ollama. Same.
    ("ollama", 400, {}, "no_tools", Failure.CAPABILITY),
    ("ollama", 400, {}, "no_thinking", Failure.CAPABILITY),
    ("ollama", 401, {}, {"error": "unauthorized", "signin_url": "x"}, Failure.CREDENTIAL),
    ("ollama", 404, {}, "not_pulled", Failure.MODEL_MISSING),
    ("ollama", 429, LATER, GO_AWAY, Failure.THROTTLED),
    ("ollama", 500, {}, "no_memory", Failure.SERVER),
    ("ollama", 502, {}, HTML, Failure.SERVER),
    ("ollama", 503, {}, "busy", Failure.SERVER),
]


def body_of(dialect: str, body: str | bytes | dict[str, Any]) -> bytes:
    if isinstance(body, str):
        return (RECORDINGS / dialect / f"{body}.json").read_bytes()
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.mark.parametrize(("dialect", "status", "headers", "body", "failure"), TABLE)
def test_a_refusal_means(dialect, status, headers, body, failure):
    data = body_of(dialect, body)

    error = DIALECTS[dialect].translator.decode_error(status, headers, data)

    assert error.failure is failure


def test_every_recorded_refusal_is_in_the_table():
    told = {(dialect, body) for dialect, _, _, body, _ in TABLE if isinstance(body, str)}

    recorded = {
        (path.parent.name, path.stem)
        for path in Path(RECORDINGS).glob("*/*.json")
        if path.stem not in ANSWERS and not path.stem.startswith("blocked_")
    }

    assert recorded - told == set()
