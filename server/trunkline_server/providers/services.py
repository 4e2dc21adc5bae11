"""Services that speak the OpenAI dialect: rows of data, with their deviations as flags.

A provider of the configuration names a row with `dialect`. The base address and the key's usual variable are defaults
that its entry may override.

Sources: the services' own API references and the SDK types (`mistralai`, `groq`), read 2026-11-01.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from trunkline_server.core.candidate import Capability
from trunkline_server.providers.openai import Deviations

OPENAI_REASONING: Final = re.compile(r"(^|/)(o\d|gpt-5(?!-chat)|gpt-[6-9])", re.IGNORECASE)
# Models of any service that think before they answer, and so may stay silent for long.
REASONING: Final = re.compile(
    r"(^|/)(o\d|gpt-5(?!-chat)|gpt-[6-9])|reason|think|-r1|qwq|opus|sonnet|-pro\b|magistral|grok-4",
    re.IGNORECASE,
)
ALL: Final = frozenset(Capability) - {Capability.VIDEO_INPUT}
NO_MEDIA: Final = ALL - {Capability.VISION, Capability.AUDIO_INPUT, Capability.DOCUMENTS}


@dataclass(frozen=True, slots=True)
class Service:
    """One row.

    Attributes:
        key_variable: the environment variable that usually holds its key; empty where none is needed.
        key_header: the header that carries the key; `authorization` puts `Bearer ` before it.
        keep_alive: False where the server closes after each answer although it says otherwise.
    """

    base_url: str = ""
    key_variable: str = ""
    key_header: str = "authorization"
    keep_alive: bool = True
    capabilities: frozenset[Capability] = ALL
    deviations: Deviations = field(default_factory=Deviations)


SERVICES: Final[Mapping[str, Service]] = {
    "openai": Service(
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        deviations=Deviations(
            reasoning_models=OPENAI_REASONING, effort_needs_reasoning_model=True, allowed_tools=True
        ),
    ),
    "azure": Service(
        # base_url is the resource's own: https://NAME.openai.azure.com
        key_variable="AZURE_OPENAI_API_KEY",
        key_header="api-key",
        deviations=Deviations(
            reasoning_models=OPENAI_REASONING,
            effort_needs_reasoning_model=True,
            path="/openai/deployments/{model}/chat/completions?api-version=2024-10-21",
        ),
    ),
    "groq": Service(
        base_url="https://api.groq.com/openai/v1",
        key_variable="GROQ_API_KEY",
        capabilities=ALL
        - {
            Capability.LOGPROBS,
            Capability.MULTIPLE_CHOICES,
            Capability.AUDIO_INPUT,
            Capability.DOCUMENTS,
        },
        deviations=Deviations(
            developer_role=False,
            efforts={"minimal": "low", "xhigh": "high", "max": "high"},
            unsupported=frozenset(
                {"logit_bias", "logprobs", "top_logprobs", "candidate_count", "verbosity"}
            ),
            show_reasoning={"reasoning_format": "parsed"},
        ),
    ),
    "mistral": Service(
        base_url="https://api.mistral.ai/v1",
        key_variable="MISTRAL_API_KEY",
        capabilities=ALL - {Capability.LOGPROBS, Capability.AUDIO_INPUT},
        deviations=Deviations(
            max_tokens="max_tokens",
            developer_role=False,
            asks_for_usage=False,
            seed="random_seed",
            required_word="any",
            call_id_chars=9,
            tool_names=True,
            has_effort=False,
            unsupported=frozenset({"logit_bias", "logprobs", "top_logprobs", "verbosity"}),
        ),
    ),
    "together": Service(
        base_url="https://api.together.xyz/v1",
        key_variable="TOGETHER_API_KEY",
        deviations=Deviations(
            max_tokens="max_tokens",
            developer_role=False,
            top_k=True,
            unsupported=frozenset({"verbosity"}),
        ),
    ),
    "openrouter": Service(
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        deviations=Deviations(
            max_tokens="max_tokens",
            developer_role=False,
            top_k=True,
            extra={"usage": {"include": True}},
        ),
    ),
    "xai": Service(
        base_url="https://api.x.ai/v1",
        key_variable="XAI_API_KEY",
        deviations=Deviations(
            developer_role=False,
            efforts={"minimal": "low", "xhigh": "high", "max": "high"},
            unsupported=frozenset({"logit_bias", "verbosity"}),
        ),
    ),
    "deepseek": Service(
        base_url="https://api.deepseek.com/v1",
        key_variable="DEEPSEEK_API_KEY",
        capabilities=NO_MEDIA - {Capability.MULTIPLE_CHOICES, Capability.SEED},
        deviations=Deviations(
            max_tokens="max_tokens",
            developer_role=False,
            has_effort=False,
            returns_reasoning=True,
            unsupported=frozenset(
                {"seed", "logit_bias", "candidate_count", "parallel_calls", "verbosity"}
            ),
        ),
    ),
    "vllm": Service(
        base_url="http://127.0.0.1:8000/v1",
        deviations=Deviations(max_tokens="max_tokens", developer_role=False, top_k=True),
    ),
    "llamacpp": Service(
        base_url="http://127.0.0.1:8081/v1",
        keep_alive=False,
        capabilities=ALL - {Capability.DOCUMENTS, Capability.MULTIPLE_CHOICES},
        deviations=Deviations(
            max_tokens="max_tokens",
            developer_role=False,
            top_k=True,
            has_effort=False,
            unsupported=frozenset({"candidate_count", "verbosity"}),
        ),
    ),
    "ollama": Service(
        base_url="http://127.0.0.1:11434/v1",
        capabilities=ALL
        - {
            Capability.DOCUMENTS,
            Capability.AUDIO_INPUT,
            Capability.MULTIPLE_CHOICES,
            Capability.LOGPROBS,
        },
        deviations=Deviations(
            max_tokens="max_tokens",
            developer_role=False,
            efforts={"minimal": "low", "xhigh": "high", "max": "high"},
            unsupported=frozenset(
                {
                    "candidate_count",
                    "logit_bias",
                    "logprobs",
                    "top_logprobs",
                    "parallel_calls",
                    "verbosity",
                }
            ),
        ),
    ),
}

# The embedded model: llama.cpp's server, started by this process.
LOCAL: Final = Service(
    keep_alive=False,
    capabilities=frozenset({Capability.STRUCTURED_OUTPUT, Capability.SEED}),
    deviations=Deviations(
        max_tokens="max_tokens",
        developer_role=False,
        top_k=True,
        has_effort=False,
        unsupported=frozenset(
            {"candidate_count", "logit_bias", "logprobs", "top_logprobs", "verbosity"}
        ),
    ),
)
