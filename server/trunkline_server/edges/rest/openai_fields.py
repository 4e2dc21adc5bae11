"""The contract's fields as callers of OpenAI's API know them.

The service names a field by its path in the contract; what this edge finds itself has its own path already. The two
never mix: only the contract's begin with `spec.`.
"""

import re
from typing import Final

# The first prefix that fits counts.
_NAMES: Final = (
    ("spec.sampling.max_output_tokens", "max_completion_tokens"),
    ("spec.sampling.candidate_count", "n"),
    ("spec.sampling.top_k", "trunkline.top_k"),
    ("spec.sampling.", ""),
    ("spec.tool_options.choice.mode", "tool_choice"),
    ("spec.tool_options.choice.tool_name", "tool_choice.function.name"),
    ("spec.tool_options.choice.allowed_tool_names", "tool_choice.allowed_tools.tools"),
    ("spec.tool_options.parallel_calls", "parallel_tool_calls"),
    ("spec.tool_options.", ""),
    ("spec.response_format.json_schema.schema_json", "response_format.json_schema.schema"),
    ("spec.reasoning.effort", "reasoning_effort"),
    ("spec.reasoning.budget_tokens", "trunkline.reasoning_budget_tokens"),
    ("spec.reasoning.include", "trunkline.include_reasoning"),
    ("spec.end_user_id", "user"),
    ("spec.metadata_json", "metadata"),
    ("spec.output_modalities", "modalities"),
    ("spec.constraints.recovery", "trunkline.recovery"),
    ("spec.constraints.first_token_timeout", "trunkline.constraints.first_token_timeout_s"),
    ("spec.constraints.idle_timeout", "trunkline.constraints.idle_timeout_s"),
    ("spec.constraints.", "trunkline.constraints."),
    ("spec.intent.", "trunkline.intent."),
    ("spec.labels", "trunkline.labels"),
    ("spec.model", "model"),  # Before its own prefix.
    ("spec.mode", "trunkline.mode"),
    ("spec.persona", "trunkline.persona"),
    ("spec.skills", "trunkline.skills"),
    ("spec.conversation_id", "trunkline.conversation_id"),
    ("spec.component_library", "trunkline.component_library"),
    ("spec.cache.max_age", "trunkline.cache_max_age_s"),
    ("spec.cache", "trunkline.cache"),
    ("spec.session_id", "trunkline.session_id"),
    ("spec.unsupported_policy", "trunkline.unsupported"),
    ("spec.system_prompt", "messages"),
    ("spec.", ""),
)
# Which of a message's calls a part holds is not known here, so those have no index.
_MESSAGES: Final = tuple(
    (re.compile(r"(messages\[\d+\])\.parts" + pattern), name)
    for pattern, name in (
        (r"\[\d+\]\.tool_result\.tool_call_id", r"\1.tool_call_id"),
        (r"\[\d+\]\.tool_result\.parts(\[\d+\])", r"\1.content\2"),
        (r"\[\d+\]\.tool_call\.arguments_json", r"\1.tool_calls.function.arguments"),
        (r"\[\d+\]\.tool_call\.name", r"\1.tool_calls.function.name"),
        (r"\[\d+\]\.tool_call", r"\1.tool_calls"),
        (r"(\[\d+\])?", r"\1.content\2"),
    )
)
_MEDIA: Final = tuple(
    (re.compile(r"(\.content\[\d+\])\." + pattern), name)
    for pattern, name in (
        (r"image(\.\w+)?", r"\1.image_url.url"),
        (r"audio(\.\w+)?", r"\1.input_audio.data"),
        (r"document\.file_id", r"\1.file.file_id"),
        (r"document(\.\w+)?", r"\1.file.file_data"),
    )
)
_TOOL: Final = re.compile(r"(tools\[\d+\])\.(.*)")
_FIELD: Final = re.compile(r"spec\.[a-z_.\[\]0-9]+")


def param_of(field: str | None) -> str | None:
    """What goes into `param`."""
    if not field:
        return None
    if not field.startswith("spec."):
        return field
    field = next(name + field[len(prefix) :] for prefix, name in _NAMES if field.startswith(prefix))
    for table in (_MESSAGES, _MEDIA):
        for pattern, name in table:
            field, found = pattern.subn(name, field, count=1)
            if found:
                break
    if match := _TOOL.match(field):
        field = f"{match[1]}.function.{match[2].replace('parameters_schema_json', 'parameters')}"
    return field


def in_their_words(message: str) -> str:
    """A message in which fields of the contract are named."""
    return _FIELD.sub(lambda match: param_of(match[0]) or match[0], message)
