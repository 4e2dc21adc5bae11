"""A model's turns, as an upstream of OpenAI's dialect says them: text, or calls of tools."""

from collections.abc import Sequence

from tests.support.upstream import (
    END,
    Exchange,
    Step,
    answer,
    event,
    finish,
    head,
    message,
    usage,
    whole,
)

Called = Sequence[tuple[str, str, str]]
"""Id, name and arguments of each call."""


def said(exchange: Exchange, text: str = "", calls: Called = ()) -> list[Step]:
    """A turn of the model's, streamed or whole."""
    called = [
        {"index": i, "id": key, "type": "function", "function": {"name": name, "arguments": given}}
        for i, (key, name, given) in enumerate(calls)
    ]
    if exchange.json.get("stream"):
        if not called:
            return answer(text)
        piece = event({"choices": [{"index": 0, "delta": {"tool_calls": called}}]})
        return [head(), piece, event(finish("tool_calls")), event(usage()), event("[DONE]"), END]
    if not called:
        return message(text)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "tool_calls": called},
        "finish_reason": "tool_calls",
    }
    return whole({"id": "c", "model": "m-1", "choices": [choice]})
