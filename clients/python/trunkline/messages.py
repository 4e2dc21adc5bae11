"""Building the contract's messages without dicts, and reading those that come back."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from trunkline.v1.completion_pb2 import Choice, Completion
from trunkline.v1.completion_spec_pb2 import (
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
    Tool,
    ToolChoice,
)
from trunkline.v1.message_pb2 import (
    ROLE_ASSISTANT,
    ROLE_DEVELOPER,
    ROLE_SYSTEM,
    ROLE_TOOL,
    ROLE_USER,
    Media,
    Message,
    Part,
    ToolCall,
    ToolResult,
)


def system(*content: str | Part) -> Message:
    """A system message."""
    return Message(role=ROLE_SYSTEM, parts=_parts(content))


def developer(*content: str | Part) -> Message:
    """A developer message: instructions that rank below the system's."""
    return Message(role=ROLE_DEVELOPER, parts=_parts(content))


def user(*content: str | Part, name: str = "") -> Message:
    """A user's turn; strings become text parts, in order."""
    return Message(role=ROLE_USER, parts=_parts(content), name=name)


def assistant(*content: str | Part | ToolCall) -> Message:
    """A model's turn, replayed. For an answer of the gateway use `turns`, which keeps all of it."""
    return Message(role=ROLE_ASSISTANT, parts=_parts(content))


def tool_result(call: ToolCall | str, *content: str | Part, is_error: bool = False) -> Message:
    """The answer to one tool call, named by the call itself or its id; a message for each call."""
    call_id, name = (call, "") if isinstance(call, str) else (call.id, call.name)
    result = ToolResult(
        tool_call_id=call_id, tool_name=name, parts=_parts(content), is_error=is_error
    )
    return Message(role=ROLE_TOOL, parts=[Part(tool_result=result)])


def image(
    *, url: str | None = None, data: bytes | None = None, mime_type: str = "", detail: str = ""
) -> Part:
    """An image by address, or by bytes with their `mime_type`; `detail` is auto, low or high."""
    return Part(image=_media(url, data, mime_type, detail=detail))


def document(
    *, url: str | None = None, data: bytes | None = None, mime_type: str = "", filename: str = ""
) -> Part:
    """A document by address, or by bytes with their `mime_type`."""
    return Part(document=_media(url, data, mime_type, filename=filename))


def function_tool(
    name: str, description: str, schema: Mapping[str, Any], *, strict: bool | None = None
) -> Tool:
    """A tool that the caller runs.

    Args:
        name: [a-zA-Z0-9_-]{1,64}.
        description: what the model is told about it.
        schema: JSON Schema of the arguments, an object's; the order of its keys is kept.
        strict: arguments must match the schema exactly, where a provider can promise that.
    """
    return Tool(
        name=name,
        description=description,
        parameters_schema_json=_json(schema),
        strict=strict,
    )


def only_tool(name: str) -> ToolChoice:
    """The model must call this tool."""
    return ToolChoice(tool_name=name)


def json_object() -> ResponseFormat:
    """The answer is a JSON object, of any shape."""
    return ResponseFormat(json_object=JsonObjectFormat())


def json_schema(
    name: str, schema: Mapping[str, Any], *, description: str = "", strict: bool | None = True
) -> ResponseFormat:
    """The answer is JSON that matches the schema."""
    return ResponseFormat(
        json_schema=JsonSchemaFormat(
            name=name, description=description, schema_json=_json(schema), strict=strict
        )
    )


def text(completion: Completion, choice_index: int = 0) -> str:
    """The text of one choice, all its text parts together; "" where it has none."""
    return "".join(
        part.text
        for part in _answer(completion, choice_index)
        if part.WhichOneof("content") == "text"
    )


def tool_calls(completion: Completion, choice_index: int = 0) -> list[ToolCall]:
    """The calls that the caller is asked to run, in order; may be empty."""
    return [
        part.tool_call
        for part in _answer(completion, choice_index)
        if part.WhichOneof("content") == "tool_call"
    ]


def arguments(call: ToolCall) -> Any:
    """The arguments of a call, decoded.

    Raises:
        ValueError: what the model wrote is no JSON, as when its output was cut off at a length.
    """
    return json.loads(call.arguments_json or "{}")


def turns(completion: Completion, choice_index: int = 0) -> list[Message]:
    """What to append to the messages to go on: the turns of server-side tools, then the answer as
    it is.

    The answer's parts keep opaque state that some providers must get back byte for byte.
    """
    answers = [choice.message for choice in completion.choices if choice.index == choice_index]
    return [*completion.transcript, *answers]


def _parts(content: Iterable[str | Part | ToolCall]) -> list[Part]:
    return [_part(piece) for piece in content]


def _part(piece: str | Part | ToolCall) -> Part:
    match piece:
        case str():
            return Part(text=piece)
        case ToolCall():
            return Part(tool_call=piece)
        case _:
            return piece


def _media(
    url: str | None, data: bytes | None, mime_type: str, *, detail: str = "", filename: str = ""
) -> Media:
    if (url is None) == (data is None):
        raise ValueError("give either url or data")
    if data is not None and not mime_type:
        raise ValueError("data needs its mime_type")
    media = Media(mime_type=mime_type, detail=detail, filename=filename)
    # Only the arm that was given is named: naming the other would select it.
    if url is not None:
        media.url = url
    if data is not None:
        media.data = data
    return media


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _answer(completion: Completion, choice_index: int) -> Iterable[Part]:
    choice: Choice
    for choice in completion.choices:
        if choice.index == choice_index:
            return choice.message.parts
    return ()
