"""Theo's endpoints in OpenAI's format, through the official `openai` SDK for Python, whichever version runs this.

drive_theo.py URL KEY     prints one JSON object: results by case
"""

import json
import sys
from collections.abc import Callable
from typing import Any, Final

from openai import APIStatusError, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

HELLO: Final[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Say hello. \u2028 é"},
]
# Of `theo_metadata`, what is the same however the tests run.
STEADY: Final = ("mode", "resolved_mode", "tools_used", "artifacts", "engine", "cost_cents")


def metadata(told: Any) -> dict[str, Any]:
    return {name: told["theo_metadata"][name] for name in STEADY}


def usage(counts: Any) -> list[int]:
    return [counts.prompt_tokens, counts.completion_tokens, counts.total_tokens]


def whole(answer: ChatCompletion) -> dict[str, Any]:
    """A response."""
    (choice,) = answer.choices
    return {
        "object": answer.object,
        "id": answer.id[:9],
        "model": answer.model,
        "text": choice.message.content,
        "finish": choice.finish_reason,
        "usage": usage(answer.usage),
        "metadata": metadata(answer.model_extra),
    }


def streamed(chunks: Any) -> dict[str, Any]:
    """A stream."""
    found: list[ChatCompletionChunk] = list(chunks)
    choices = [choice for chunk in found for choice in chunk.choices]
    return {
        "heads": sorted({(chunk.object, chunk.id[:9], chunk.model) for chunk in found}),
        "text": "".join(choice.delta.content or "" for choice in choices),
        "finishes": [choice.finish_reason for choice in choices if choice.finish_reason],
        "usages": [usage(chunk.usage) for chunk in found if chunk.usage],
        "metadata": metadata(found[-1].model_extra),
    }


def conversation(client: OpenAI) -> list[Any]:
    """Two turns. The model says how many messages it was shown."""
    turn: Any = [{"role": "user", "content": "How many?"}]
    first = client.chat.completions.create(
        model="theo-1-auto", messages=turn, extra_body={"conversation_id": "new"}
    )
    name = (first.model_extra or {})["theo_metadata"]["conversation_id"]
    second = client.chat.completions.create(
        model="theo-1-auto", messages=turn, extra_body={"conversation_id": name}
    )
    return [
        name[:5],
        first.choices[0].message.content,
        second.choices[0].message.content,
        (second.model_extra or {})["theo_metadata"]["conversation_id"] == name,
    ]


def refusal(ask: Callable[[], Any]) -> dict[str, Any]:
    """An error."""
    try:
        ask()
    except APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "type": error.type,
            "message": error.body["message"] if isinstance(error.body, dict) else None,
        }
    raise AssertionError("no error")


def results(url: str, key: str) -> dict[str, Any]:
    """Of all cases."""
    client = OpenAI(base_url=f"{url}/api/v1", api_key=key, max_retries=0)
    create: Any = client.chat.completions.create
    asked: Any = {"model": "theo-1-reason", "messages": HELLO}
    native = {"prompt": "Say hello.", "mode": "code", "format": "openai", "persona": "none"}
    with client:
        return {
            "whole": whole(create(**asked, n=7, max_tokens=5, user="u1")),
            "stream": streamed(create(**asked, stream=True)),
            "include_usage": streamed(
                create(**asked, stream=True, stream_options={"include_usage": True})
            ),
            "prompt": whole(client.post("/completions", cast_to=ChatCompletion, body=native)),
            "conversation": conversation(client),
            "models": [model.id for model in client.models.list()],
            "wrong_key": refusal(
                lambda: client.with_options(api_key="x").chat.completions.create(**asked)
            ),
            "empty": refusal(lambda: create(model="theo-1-auto", messages=HELLO[:1])),
            "research": refusal(lambda: create(model="theo-1-research", messages=HELLO)),
            "lost": refusal(
                lambda: create(**asked, extra_body={"conversation_id": "conv_none"}),
            ),
        }


if __name__ == "__main__":
    print(json.dumps(results(*sys.argv[1:])))
