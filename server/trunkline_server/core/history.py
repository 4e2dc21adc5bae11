"""What was said before, as providers take it: every call of a tool has an id of its own and one result.

A conversation that is kept may have neither. Some providers number the calls of each answer anew, and a caller may go
on talking without having answered a call.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from trunkline.v1.message_pb2 import Message, Role, ToolResult

UNANSWERED: Final = "There is no result: the caller went on without it."


def whole(messages: Sequence[Message]) -> list[Message]:
    """The same conversation; messages that have to change are copies.

    Of several calls with one id the last one keeps it, because that is the one that a result to come would name.
    """
    counts = Counter(_call_ids(messages))
    if not counts:
        return list(messages)
    left = dict(counts)
    names: dict[str, str] = {}  # Of calls so far, by the ids that they came with.
    open_calls: dict[str, str] = {}  # Those without a result: the tools' names, by id.
    found: list[Message] = []
    for message in messages:
        if message.role != Role.ROLE_TOOL and open_calls:
            found.append(_unanswered(open_calls))
            open_calls = {}
        changed = message
        for index, part in enumerate(message.parts):
            kind = part.WhichOneof("content")
            if kind == "tool_call":
                id_ = part.tool_call.id
                left[id_] -= 1
                names[id_] = id_ if not left[id_] else f"{id_}-{counts[id_] - left[id_]}"
                open_calls[names[id_]] = part.tool_call.name
                if names[id_] != id_:
                    changed = _copied(changed, message)
                    changed.parts[index].tool_call.id = names[id_]
            elif kind == "tool_result":
                id_ = part.tool_result.tool_call_id
                name = names.get(id_, id_)
                open_calls.pop(name, None)
                if name != id_:
                    changed = _copied(changed, message)
                    changed.parts[index].tool_result.tool_call_id = name
        found.append(changed)
    if (
        open_calls and messages[-1].role == Role.ROLE_TOOL
    ):  # Some were answered, so that the rest is over, too.
        found.append(_unanswered(open_calls))
    return found


def _call_ids(messages: Iterable[Message]) -> Iterable[str]:
    for message in messages:
        for part in message.parts:
            if part.WhichOneof("content") == "tool_call":
                yield part.tool_call.id


def _copied(changed: Message, message: Message) -> Message:
    if changed is message:
        changed = Message()
        changed.CopyFrom(message)
    return changed


def _unanswered(calls: dict[str, str]) -> Message:
    message = Message(role=Role.ROLE_TOOL)
    for id_, name in calls.items():
        result = ToolResult(tool_call_id=id_, tool_name=name, is_error=True)
        result.parts.add(text=UNANSWERED)
        message.parts.add(tool_result=result)
    return message
