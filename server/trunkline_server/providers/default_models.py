"""The models that a provider brings when the configuration names none of its own.

A short list for each dialect: what a person with nothing but a key would want first. The order is that of the
providers' own tiers; who is asked first follows from scores.

Source: the model lists in the types of the SDKs openai 3.54.0, anthropic 2.12.0 and google-genai 3.4.0, and the model
pages of Groq, Mistral and xAI; read 2026-11-21. For DeepSeek and Cohere the package genai-prices 0.2.3, for Cohere also
https://docs.cohere.com/docs/rate-limits, which keeps newer models for those who ask its sales; read 2026-11-22.
"""

from collections.abc import Mapping
from typing import Final

DEFAULT_MODELS: Final[Mapping[str, tuple[str, ...]]] = {
    "openai": ("gpt-6.2-sol", "gpt-5.4-mini"),
    "anthropic": ("claude-sonnet-5-5", "claude-haiku-5-5"),
    "gemini": ("gemini-2.5-pro", "gemini-3.8-flash"),
    "cohere": ("command-a-03-2025", "command-r7b-12-2024"),
    "groq": ("openai/gpt-oss-120b",),
    "mistral": ("mistral-large-latest", "mistral-small-latest"),
    "xai": ("grok-4",),
    "deepseek": ("deepseek-v4-flash",),
    "openrouter": ("openrouter/auto",),
}
