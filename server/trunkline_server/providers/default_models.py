"""The models that a provider brings when the configuration names none of its own.

A short list for each dialect: what a person with nothing but a key would want first. Ranks are by the providers' own
tiers, not measured.

Source: the model lists in the types of the SDKs openai 3.54.0, anthropic 2.12.0 and google-genai 3.4.0, and the model
pages of Groq, Mistral, xAI and DeepSeek; read 2026-11-21. For Cohere the package genai-prices 0.2.3 and
https://docs.cohere.com/docs/rate-limits, which keeps newer models for those who ask its sales; read 2026-11-22.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Scores = Mapping[Literal["accuracy", "latency", "cost"], float]


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """One model. `scores` as in `[[models]]`."""

    id: str
    scores: Scores = field(default_factory=dict)


_BEST: Final[Scores] = {"accuracy": 0.8, "latency": 0.3}
_FAST: Final[Scores] = {"accuracy": 0.6, "latency": 0.7}

DEFAULT_MODELS: Final[Mapping[str, tuple[DefaultModel, ...]]] = {
    "openai": (DefaultModel("gpt-6.2-sol", _BEST), DefaultModel("gpt-5.4-mini", _FAST)),
    "anthropic": (
        DefaultModel("claude-sonnet-5-5", _BEST),
        DefaultModel("claude-haiku-5-5", _FAST),
    ),
    "gemini": (DefaultModel("gemini-2.5-pro", _BEST), DefaultModel("gemini-3.8-flash", _FAST)),
    "cohere": (
        DefaultModel("command-a-03-2025", _BEST),
        DefaultModel("command-r7b-12-2024", _FAST),
    ),
    "groq": (DefaultModel("openai/gpt-oss-120b", _FAST),),
    "mistral": (
        DefaultModel("mistral-large-latest", _BEST),
        DefaultModel("mistral-small-latest", _FAST),
    ),
    "xai": (DefaultModel("grok-4", _BEST),),
    "deepseek": (DefaultModel("deepseek-chat", _FAST),),
    "openrouter": (DefaultModel("openrouter/auto", _FAST),),
}
