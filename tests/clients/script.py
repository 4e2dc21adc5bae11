"""What the upstream answers: one script for each case, chosen by the model that it is asked for.

A model is called `case/caller`, so that no caller sees what another one did to a breaker or a budget.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Reset,
    Step,
    chunk,
    delta,
    event,
    finish,
    head,
    usage,
    whole,
)

CASES: Final = (
    "plain",
    "tools",
    "conversation",
    "structured",
    "choices",
    "logprobs",
    "line-ends",
    "limited",
    "throttled",
    "failing",
    "silent",
    "broken",
    "early-close",
)
"""The models that there are, without callers."""

USAGE: Final = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
LINE_ENDS: Final = "a\u2028b\u2029c\u0085d\u000be\u000cf\u001cg\r\nh é 😀"
TOOL_CALLS: Final = (
    ("call_1", "get_weather", ('{"city"', ': "Z\u00fcrich"', "}")),
    ("call_2", "get_time", ('{"zone": "Europe/Zurich"}',)),
)
LOGPROBS: Final = (
    {
        "token": "Hel",
        "logprob": -0.25,
        "bytes": [72, 101, 108],
        "top_logprobs": [
            {"token": "Hel", "logprob": -0.25, "bytes": [72, 101, 108]},
            {"token": "Hi", "logprob": -1.5, "bytes": [72, 105]},
        ],
    },
    {"token": "lo", "logprob": -0.5, "bytes": None, "top_logprobs": []},
)


def answer(exchange: Exchange) -> Sequence[Step]:
    """The case's answer, streamed or not, as asked."""
    case = exchange.json["model"].partition("/")[0]
    steps: Callable[[bool], Sequence[Step]] = ANSWERS[case]
    return steps(bool(exchange.json.get("stream")))


def body(message: Mapping[str, Any], reason: str = "stop", **more: Any) -> list[Step]:
    """A whole response with one choice."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", **message},
        "finish_reason": reason,
        **more,
    }
    return bodies([choice])


def bodies(choices: list[dict[str, Any]]) -> list[Step]:
    """A whole response."""
    return whole(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "m-1",
            "choices": choices,
            "usage": USAGE,
        }
    )


def stream(*chunks: Mapping[str, Any]) -> list[Step]:
    """A whole stream, its end included."""
    return [head(), *map(event, chunks), event(usage()), event("[DONE]"), END]


def piece(content: Mapping[str, Any], index: int = 0, **more: Any) -> dict[str, Any]:
    """A chunk with any delta."""
    choice = {"index": index, "delta": content, "finish_reason": None, **more}
    return {**delta(""), "choices": [choice]}


def _text(text: str, *pieces: str) -> Callable[[bool], Sequence[Step]]:
    def steps(streams: bool) -> Sequence[Step]:
        if streams:
            return stream(
                piece({"role": "assistant", "content": ""}), *map(delta, pieces), finish()
            )
        return body({"content": text})

    return steps


def _tools(streams: bool) -> Sequence[Step]:
    if not streams:
        calls = [
            {
                "id": key,
                "type": "function",
                "function": {"name": name, "arguments": "".join(pieces)},
            }
            for key, name, pieces in TOOL_CALLS
        ]
        return body({"content": None, "tool_calls": calls}, "tool_calls")
    chunks = []
    for index, (key, name, pieces) in enumerate(TOOL_CALLS):
        begun = {
            "index": index,
            "id": key,
            "type": "function",
            "function": {"name": name, "arguments": ""},
        }
        chunks.append(piece({"tool_calls": [begun]}))
        chunks += [
            piece({"tool_calls": [{"index": index, "function": {"arguments": fragment}}]})
            for fragment in pieces
        ]
    return stream(*chunks, finish("tool_calls"))


def _choices(streams: bool) -> Sequence[Step]:
    if streams:
        return stream(
            delta("Hel", 0), delta("By", 1), delta("lo", 0), delta("e", 1), finish(index=1),
            finish("length", 0),
        )  # fmt: skip
    return bodies(
        [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "finish_reason": reason,
            }
            for index, text, reason in ((0, "Hello", "length"), (1, "Bye", "stop"))
        ]
    )


def _logprobs(streams: bool) -> Sequence[Step]:
    if streams:
        chunks = [
            piece({"content": token["token"]}, logprobs={"content": [token], "refusal": None})
            for token in LOGPROBS
        ]
        return stream(*chunks, finish())
    return body({"content": "Hello"}, logprobs={"content": list(LOGPROBS), "refusal": None})


def _conversation(streams: bool) -> Sequence[Step]:
    return _text("It is noon and sunny.", "It is noon", " and sunny.")(streams)


ANSWERS: Final[Mapping[str, Callable[[bool], Sequence[Step]]]] = {
    "plain": _text("Hello", "Hel", "lo"),
    "tools": _tools,
    "conversation": _conversation,
    "structured": _text(
        '{"city": "Bern", "people": 146000}', '{"city": "Bern", ', '"people": 146000}'
    ),
    "choices": _choices,
    "logprobs": _logprobs,
    "line-ends": _text(LINE_ENDS, LINE_ENDS[:3], LINE_ENDS[3:]),
    "limited": lambda _: whole({"error": {"message": "temperature", "param": "temperature"}}, 400),
    "throttled": lambda _: whole({"error": {"message": "slow down"}}, 429, "retry-after: 7"),
    # One attempt each, so that what the upstream counts is what the client sent.
    "failing": lambda _: whole({"error": {"message": "secret", "code": "invalid_api_key"}}, 401),
    "silent": lambda streams: [head(), Hang()] if streams else [Hang()],
    "broken": lambda _: [head(), event(delta("Hel")), Reset()],
    "early-close": lambda _: [head(), event(delta("Hel")), Hang()],
}

__all__ = ["ANSWERS", "CASES", "LINE_ENDS", "answer", "body", "chunk", "piece", "stream"]
