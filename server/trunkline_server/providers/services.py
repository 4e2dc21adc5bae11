"""Services that speak the OpenAI dialect: rows of data, with their deviations as flags.

A provider of the configuration names a row with `dialect`. The base address and the key's usual variable are defaults
that its entry may override.

Sources: the services' own API references and the SDK types (`mistralai`, `groq`), read 2026-11-01;
https://api-docs.deepseek.com/guides/thinking_mode, https://console.groq.com/docs/reasoning and
https://openrouter.ai/docs/use-cases/reasoning-tokens, read 2026-11-21.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from trunkline_server.core.candidate import Capability
from trunkline_server.providers.openai import Deviations, Efforts

OPENAI_REASONING: Final = re.compile(r"(^|/)(o\d|gpt-5(?!-chat)|gpt-[6-9])", re.IGNORECASE)
# Models of any service that think before they answer, and so may stay silent for long.
REASONING: Final = re.compile(
    r"(^|/)(o\d|gpt-5(?!-chat)|gpt-[6-9])|reason|think|-r1|qwq|opus|sonnet|-pro\b|magistral|grok-4",
    re.IGNORECASE,
)
ALL: Final = frozenset(Capability) - {Capability.VIDEO_INPUT}
NO_MEDIA: Final = ALL - {
    Capability.VISION,
    Capability.AUDIO_INPUT,
    Capability.DOCUMENTS,
    Capability.IMAGE_OUTPUT,
}

# Which efforts there are changed with the generations of models.
# Source: `reasoning_effort` in https://platform.openai.com/docs/api-reference/chat/create
OPENAI_EFFORTS: Final = (
    Efforts(
        re.compile(r"(^|/)o\d", re.IGNORECASE),
        {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"},
    ),
    Efforts(
        re.compile(r"(^|/)gpt-5(?![.\d]|-chat)", re.IGNORECASE),
        {"none": "minimal", "xhigh": "high", "max": "high"},
    ),
    Efforts(
        re.compile(r"(^|/)gpt-5\.1(?!-codex-max)", re.IGNORECASE),
        {"minimal": "low", "xhigh": "high", "max": "high"},
    ),
    Efforts(
        re.compile(r"(^|/)gpt-5\.\d(?!-chat)", re.IGNORECASE), {"minimal": "low", "max": "xhigh"}
    ),
    Efforts(OPENAI_REASONING),
)
ANY_MODEL: Final = re.compile("")
THREE_EFFORTS: Final = (Efforts(ANY_MODEL, {"minimal": "low", "xhigh": "high", "max": "high"}),)


@dataclass(frozen=True, slots=True)
class Service:
    """One row.

    Attributes:
        key_variable: the environment variable that usually holds its key; empty where none is needed.
        key_header: the header that carries the key; `authorization` puts `Bearer ` before it.
        keep_alive: False where the server closes after each answer although it says otherwise.
        prefills: continues a last message of the assistant's as its own.
    """

    base_url: str = ""
    key_variable: str = ""
    key_header: str = "authorization"
    keep_alive: bool = True
    prefills: bool = False
    capabilities: frozenset[Capability] = ALL
    deviations: Deviations = field(default_factory=Deviations)


SERVICES: Final[Mapping[str, Service]] = {
    "openai": Service(
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        deviations=Deviations(
            reasoning_models=OPENAI_REASONING, efforts=OPENAI_EFFORTS, allowed_tools=True
        ),
    ),
    "azure": Service(
        # base_url is the resource's own: https://NAME.openai.azure.com
        key_variable="AZURE_OPENAI_API_KEY",
        key_header="api-key",
        deviations=Deviations(
            reasoning_models=OPENAI_REASONING,
            efforts=OPENAI_EFFORTS,
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
            refusals=False,
            efforts=(
                Efforts(
                    re.compile(r"gpt-oss", re.IGNORECASE),
                    {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"},
                ),
                Efforts(
                    re.compile(r"qwen", re.IGNORECASE),
                    dict.fromkeys(("minimal", "low", "medium", "high", "xhigh", "max"), "default"),
                ),
            ),
            unsupported=frozenset(
                {"logit_bias", "logprobs", "top_logprobs", "candidate_count", "verbosity"}
            ),
            service_tiers={
                "auto": "auto",
                "default": "on_demand",
                "on_demand": "on_demand",
                "flex": "flex",
                "priority": "performance",
                "performance": "performance",
            },
            # gpt-oss shows its reasoning unasked and refuses to be told the format.
            show_reasoning=(
                (re.compile(r"gpt-oss", re.IGNORECASE), {}),
                (re.compile(r"qwen|deepseek|-r1", re.IGNORECASE), {"reasoning_format": "parsed"}),
            ),
        ),
    ),
    "mistral": Service(
        base_url="https://api.mistral.ai/v1",
        key_variable="MISTRAL_API_KEY",
        capabilities=ALL - {Capability.LOGPROBS, Capability.AUDIO_INPUT},
        # Parameters that it does not know are refused with a 422.
        deviations=Deviations(
            max_tokens="max_tokens",
            developer_role=False,
            asks_for_usage=False,
            seed="random_seed",
            required_word="any",
            call_id_chars=9,
            tool_names=True,
            names=False,
            refusals=False,
            prefix=True,
            document_urls=True,
            efforts=(),
            unsupported=frozenset(
                {
                    "logit_bias",
                    "logprobs",
                    "top_logprobs",
                    "verbosity",
                    "end_user_id",
                    "service_tier",
                }
            ),
        ),
    ),
    "together": Service(
        base_url="https://api.together.xyz/v1",
        key_variable="TOGETHER_API_KEY",
        deviations=Deviations(
            max_tokens="max_tokens",
            developer_role=False,
            refusals=False,
            top_k=True,
            efforts=THREE_EFFORTS,
            unsupported=frozenset({"verbosity", "service_tier"}),
        ),
    ),
    "openrouter": Service(
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        capabilities=ALL - {Capability.MULTIPLE_CHOICES},
        deviations=Deviations(
            max_tokens="max_tokens",
            developer_role=False,
            top_k=True,
            file_urls=True,
            efforts=(Efforts(ANY_MODEL, {"max": "xhigh"}),),
            unsupported=frozenset({"candidate_count"}),
            reasoning_object=True,
            keeps="reasoning_details",
            extra={"usage": {"include": True}},
        ),
    ),
    "xai": Service(
        base_url="https://api.x.ai/v1",
        key_variable="XAI_API_KEY",
        deviations=Deviations(
            developer_role=False,
            refusals=False,
            # Those that reason refuse these; those that are told apart by name take no effort.
            reasoning_models=re.compile(r"grok-(3-mini|[4-9](?!.*non-reasoning)|code)"),
            refused=frozenset({"frequency_penalty", "presence_penalty", "stop"}),
            efforts=(
                Efforts(
                    re.compile(r"grok-3-mini"),
                    {
                        "none": "low",
                        "minimal": "low",
                        "medium": "high",
                        "xhigh": "high",
                        "max": "high",
                    },
                ),
                Efforts(
                    re.compile(r"grok-(4\.[3-9]|[5-9])(?!.*reasoning)"),
                    {"minimal": "low", "xhigh": "high", "max": "high"},
                ),
            ),
            unsupported=frozenset({"logit_bias", "verbosity"}),
        ),
    ),
    "deepseek": Service(
        base_url="https://api.deepseek.com/v1",
        key_variable="DEEPSEEK_API_KEY",
        capabilities=NO_MEDIA
        - {Capability.MULTIPLE_CHOICES, Capability.SEED, Capability.STRUCTURED_OUTPUT},
        deviations=Deviations(
            max_tokens="max_tokens",
            developer_role=False,
            refusals=False,
            joins_text=True,
            schemas=False,
            thinking_switch=True,
            efforts=(Efforts(ANY_MODEL, {"minimal": "low", "medium": "high", "xhigh": "high"}),),
            keeps="reasoning_content",
            unsupported=frozenset(
                {
                    "seed",
                    "logit_bias",
                    "candidate_count",
                    "parallel_calls",
                    "verbosity",
                    "service_tier",
                }
            ),
        ),
    ),
    "vllm": Service(
        base_url="http://127.0.0.1:8000/v1",
        deviations=Deviations(
            max_tokens="max_tokens",
            developer_role=False,
            refusals=False,
            top_k=True,
            efforts=THREE_EFFORTS,
            unsupported=frozenset({"verbosity", "service_tier"}),
        ),
    ),
    "llamacpp": Service(
        base_url="http://127.0.0.1:8081/v1",
        keep_alive=False,
        prefills=True,
        capabilities=ALL - {Capability.DOCUMENTS, Capability.MULTIPLE_CHOICES},
        deviations=Deviations(
            max_tokens="max_tokens",
            developer_role=False,
            names=False,
            refusals=False,
            top_k=True,
            efforts=(),
            unsupported=frozenset({"candidate_count", "verbosity", "service_tier"}),
        ),
    ),
}

# The embedded model: llama.cpp's server, started by this process.
LOCAL: Final = Service(
    keep_alive=False,
    prefills=True,
    capabilities=frozenset({Capability.STRUCTURED_OUTPUT, Capability.SEED}),
    deviations=Deviations(
        max_tokens="max_tokens",
        developer_role=False,
        names=False,
        refusals=False,
        top_k=True,
        efforts=(),
        unsupported=frozenset(
            {
                "candidate_count",
                "logit_bias",
                "logprobs",
                "top_logprobs",
                "verbosity",
                "service_tier",
            }
        ),
    ),
)
