"""From a caller's words to the contract's CompletionSpec."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from trunkline.messages import user
from trunkline.v1.completion_spec_pb2 import (
    CachePolicy,
    CompletionSpec,
    ReasoningEffort,
    ReasoningOptions,
    ResponseFormat,
    RoutingConstraints,
    RoutingIntent,
    SamplingOptions,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    ToolOptions,
    UnsupportedPolicy,
)
from trunkline.v1.message_pb2 import Message

Prompt = str | Sequence[Message]
"""One user turn as text, or a whole conversation, oldest message first."""


class SpecOptions(TypedDict, total=False):
    """Options of one completion. What is left out, or None, is the server's to decide."""

    model: str
    """"provider/model", a catalog id or alias, or a route. Empty: the router decides."""
    system_prompt: str
    temperature: float | None
    """0 to 2."""
    top_p: float | None
    top_k: int | None
    max_output_tokens: int | None
    stop: Sequence[str]
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    candidate_count: int | None
    logprobs: bool | None
    top_logprobs: int | None
    verbosity: str
    tools: Sequence[Tool]
    tool_choice: Literal["auto", "none", "required"] | ToolChoice | None
    parallel_tool_calls: bool | None
    max_hops: int | None
    """Model turns that may run server-side tools, 1 to 20."""
    response_format: ResponseFormat | None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
    reasoning_budget_tokens: int | None
    include_reasoning: bool
    mode: str
    intent: RoutingIntent | None
    constraints: RoutingConstraints | None
    cache: CachePolicy | None
    unsupported_policy: "UnsupportedPolicy.ValueType"
    persona: str
    skills: Sequence[str]
    conversation_id: str
    session_id: str
    end_user_id: str
    service_tier: str
    metadata_json: str
    """Any JSON object, echoed byte for byte and kept in the audit log. Not the call's headers."""
    labels: Mapping[str, str]
    provider_options_json: Mapping[str, str]
    """Provider id, or "*", to a JSON object of parameters that the contract does not model."""


_SAMPLING = frozenset(SamplingOptions.DESCRIPTOR.fields_by_name)
_TOOLS = {
    "tools": "tools",
    "tool_choice": "choice",
    "parallel_tool_calls": "parallel_calls",
    "max_hops": "max_hops",
}
_REASONING = {
    "reasoning_effort": "effort",
    "reasoning_budget_tokens": "budget_tokens",
    "include_reasoning": "include",
}


def spec_from(
    prompt: Prompt | None, spec: CompletionSpec | None, options: SpecOptions
) -> CompletionSpec:
    """The spec that a call's arguments stand for: a whole one, or one made of a prompt and options.

    Raises:
        ValueError: a spec came beside a prompt or options, or neither came, or an option has no
            such value.
        TypeError: an option is unknown, or of the wrong type.
    """
    if spec is None:
        if prompt is None:
            raise ValueError("give a prompt, messages or a spec")
        return spec_from_options(prompt, options)
    if prompt is not None or options:
        raise ValueError("a spec is complete: give no prompt, messages or options beside it")
    return spec


def spec_from_options(prompt: Prompt, options: SpecOptions) -> CompletionSpec:
    """A prompt and options as one spec; see `spec_from` for errors."""
    unknown = options.keys() - SpecOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    sampling = {name: given.pop(name) for name in _SAMPLING & given.keys()}
    tools = {_TOOLS[name]: given.pop(name) for name in _TOOLS.keys() & given.keys()}
    reasoning = {_REASONING[name]: given.pop(name) for name in _REASONING.keys() & given.keys()}
    if isinstance(tools.get("choice"), str):
        tools["choice"] = _tool_choice(tools["choice"])
    if "effort" in reasoning:
        reasoning["effort"] = _effort(reasoning["effort"])
    return CompletionSpec(
        messages=[user(prompt)] if isinstance(prompt, str) else prompt,
        sampling=SamplingOptions(**sampling) if sampling else None,
        tool_options=ToolOptions(**tools) if tools else None,
        reasoning=ReasoningOptions(**reasoning) if reasoning else None,
        # The rest has the same name here and there.
        **given,
    )


def _tool_choice(mode: str) -> ToolChoice:
    return ToolChoice(mode=ToolChoiceMode.Value(f"TOOL_CHOICE_MODE_{mode.upper()}"))


def _effort(effort: str) -> "ReasoningEffort.ValueType":
    return ReasoningEffort.Value(f"REASONING_EFFORT_{effort.upper()}")
