"""Specs that between them use all that a request can hold."""

import json
from typing import Any, Final

from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    JsonObjectFormat,
    JsonSchemaFormat,
    ReasoningEffort,
    ReasoningOptions,
    ResponseFormat,
    SamplingOptions,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    ToolOptions,
)
from trunkline.v1.message_pb2 import Media, Message, Part, Reasoning, Role, ToolCall, ToolResult

PNG: Final = b"\x89PNG\r\n\x1a\n"
PDF: Final = b"%PDF-1.7"
SCHEMA: Final = json.dumps(
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    }
)


def message(role: Role.ValueType, *parts: Part | str, name: str = "") -> Message:
    """Strings are text."""
    made = [Part(text=part) if isinstance(part, str) else part for part in parts]
    return Message(role=role, parts=made, name=name)


def user(*parts: Part | str, name: str = "") -> Message:
    """A turn of the user."""
    return message(Role.ROLE_USER, *parts, name=name)


def assistant(*parts: Part | str, name: str = "") -> Message:
    """A turn of the model."""
    return message(Role.ROLE_ASSISTANT, *parts, name=name)


def call(call_id: str = "call_1", arguments: str = '{"city": "Oslo"}') -> Part:
    """A call of `get_weather`."""
    called = ToolCall(id=call_id, name="get_weather", arguments_json=arguments)
    return Part(tool_call=called)


def result(call_id: str = "call_1", text: str = "4 degrees", *, is_error: bool = False) -> Part:
    """The result of that call."""
    return Part(
        tool_result=ToolResult(
            tool_call_id=call_id,
            tool_name="get_weather",
            parts=[Part(text=text)],
            is_error=is_error,
        )
    )


def ask(*messages: Message, **options: Any) -> CompletionSpec:
    """Says Hi where nothing else is said."""
    return CompletionSpec(messages=messages or (user("Hi"),), **options)


WEATHER: Final = Tool(
    name="get_weather", description="The weather of a city.", parameters_schema_json=SCHEMA
)
NOW: Final = Tool(name="now")


def tools(*offered: Tool, **options: Any) -> ToolOptions:
    """Both tools where none is named."""
    return ToolOptions(tools=offered or (WEATHER, NOW), **options)


def thinks(effort: ReasoningEffort.ValueType) -> CompletionSpec:
    """With an effort."""
    return ask(reasoning=ReasoningOptions(effort=effort, include=True))


SPECS: Final[dict[str, CompletionSpec]] = {
    "text": ask(),
    "system": ask(
        message(Role.ROLE_SYSTEM, "Be brief."),
        message(Role.ROLE_DEVELOPER, "Be kind."),
        user("Hi", name="ada"),
        system_prompt="Be right.",
    ),
    "conversation": ask(user("Hi"), assistant("Hello"), user("How ", "are you?")),
    "refusal in the history": ask(
        user("Hi"), assistant(Part(refusal="I can't.")), user("Why not?")
    ),
    "image as data": ask(
        user("What is it?", Part(image=Media(data=PNG, mime_type="image/png", detail="low")))
    ),
    "image by address": ask(
        user(Part(image=Media(url="https://example.com/a.png")), "What is it?")
    ),
    "document": ask(
        user(
            Part(document=Media(data=PDF, mime_type="application/pdf", filename="a.pdf")),
            "Read it.",
        )
    ),
    "audio": ask(user(Part(audio=Media(data=b"RIFF", mime_type="audio/wav")))),
    "tools": ask(tool_options=tools()),
    "tools with a choice": ask(
        tool_options=tools(
            choice=ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED), parallel_calls=False
        )
    ),
    "tools with one named": ask(tool_options=tools(choice=ToolChoice(tool_name="now"))),
    "tools with some allowed": ask(
        tool_options=tools(
            choice=ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_AUTO, allowed_tool_names=["now"])
        )
    ),
    "strict tool": ask(
        tool_options=tools(Tool(name="t", parameters_schema_json=SCHEMA, strict=True))
    ),
    "calls and results": ask(
        user("Oslo and Rome?"),
        assistant(
            Part(reasoning=Reasoning(text="Two places.")),
            "Let me look.",
            call("call_1"),
            call("call_2", '{"city": "Rome"}'),
        ),
        message(Role.ROLE_TOOL, result("call_1"), result("call_2", "down", is_error=True)),
        user("So?"),
        tool_options=tools(),
    ),
    "json": ask(response_format=ResponseFormat(json_object=JsonObjectFormat())),
    "schema": ask(
        response_format=ResponseFormat(
            json_schema=JsonSchemaFormat(
                name="trip", description="A trip.", schema_json=SCHEMA, strict=True
            )
        )
    ),
    **{
        f"effort {name}": thinks(value)
        for name, value in ReasoningEffort.items()
        if value != ReasoningEffort.REASONING_EFFORT_UNSPECIFIED
    },
    "budget": ask(reasoning=ReasoningOptions(budget_tokens=2048)),
    "sampling": ask(
        sampling=SamplingOptions(
            temperature=0.5,
            top_p=0.9,
            top_k=40,
            max_output_tokens=4096,
            stop=["END"],
            seed=7,
            frequency_penalty=0.5,
            presence_penalty=-0.5,
            logprobs=True,
            top_logprobs=2,
            logit_bias={"42": -100.0},
            verbosity="low",
        )
    ),
    "two choices": ask(sampling=SamplingOptions(candidate_count=2)),
    "account": ask(end_user_id="u-1", service_tier="priority"),
}
