"""A service whose three panels sit over three models, and what those say: by the question, and by who asks.

`a` is the best and the promptest, so it answers alone on `waymark-fast`, and aggregates on the others. `b` proposes
too. `c` is asked to propose and never does, so that a panel always has the same members, whatever runs beside it.

The question is `CASE CALLER`. The first answer to `refusal` and `bad-form` makes `waymark-fast` escalate, the proposals
for `different` make `waymark-moa` do so.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from tests.support.service import model, provider
from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Step,
    delta,
    event,
    finish,
    head,
    usage,
    whole,
)

ROUTES: Final = ("waymark-fast", "waymark-moa", "waymark-max")
MODELS: Final = ("a", "b", "c")
REFUSAL: Final = "I'm sorry, but I can't help with that."
CITY: Final = '{"city": "Bern", "people": 146000}'
CALL: Final = ("call_1", "get_weather", '{"city": "Bern"}')
CRITIQUE: Final = (
    '{"consensus": ["four"], "contradictions": [], "unique_insights": [], "blind_spots": []}'
)
ANSWERS: Final = {
    "single": ("Fo", "ur."),
    "proposer": ("Four", ", I think."),
    "critic": (CRITIQUE,),
    "aggregator": ("It is", " four."),
}
"""Pieces of text, by role. `single` has nobody beside it."""
USAGE: Final = {
    "single": (9, 4),
    "proposer": (10, 5),
    "critic": (70, 30),
    "aggregator": (100, 7),
}
"""Input and output tokens."""


def sections(url: str, **more: Any) -> dict[str, Any]:
    """Settings of a service with the panels that come along, over three models at one upstream."""
    scores = {"a": 0.9, "b": 0.5, "c": 0.1}
    found: dict[str, Any] = {
        "providers": [provider(f"p{name}", url) for name in MODELS],
        "models": [
            # As accurate as each other, so that none is asked twice in the place of another.
            model(
                name, f"p{name}", scores={"accuracy": 0.8, "latency": score, "cost": score}
            )
            for name, score in scores.items()
        ],
    }  # fmt: skip
    return {**found, **more}


def row(name: str, role: str, status: str, *, as_role: str = "") -> dict[str, Any]:
    """A row of `waymark.models`. Args: as_role: whose usage it has; none has been used by who was cancelled."""
    used = (0, 0) if status == "cancelled" else USAGE[as_role or role]
    return {
        "provider": f"p{name}", "model": name, "role": role, "status": status,
        "input_tokens": used[0], "output_tokens": used[1],
    }  # fmt: skip


def fast(status: str = "used") -> list[dict[str, Any]]:
    """All rows of `waymark-fast`."""
    return [row("a", "proposer", status, as_role="single")]


def moa(status: str = "used", *, is_answered: bool = True) -> list[dict[str, Any]]:
    """All rows of `waymark-moa`. Args: is_answered: else it escalated before that."""
    proposers = [
        row("a", "proposer", status),
        row("b", "proposer", status),
        row("c", "proposer", "cancelled"),
    ]
    return [*proposers, row("a", "aggregator", "used")] if is_answered else proposers


def agreed() -> list[dict[str, Any]]:
    """All rows of `waymark-moa` where the first two say the same."""
    return [*moa()[:1], *moa("unused")[1:3]]


def widest() -> list[dict[str, Any]]:
    """All rows of `waymark-max`."""
    proposers = [
        row(name, "proposer", "cancelled" if name == "c" else "used") for name in (*MODELS, *MODELS)
    ]
    return [*proposers, row("a", "critic", "used"), row("a", "aggregator", "used")]


def table(route: str, models: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The object `waymark` of an answer."""
    return {
        "route": route, "requested_route": route, "escalated": False, "escalation_reason": None, "degraded": False,
        "stopped_early": False, "models": models, **more,
    }  # fmt: skip


def total(models: Sequence[dict[str, Any]]) -> list[int]:
    """Input, output and all tokens of these rows."""
    read = sum(row["input_tokens"] for row in models)
    written = sum(row["output_tokens"] for row in models)
    return [read, written, read + written]


def question(exchange: Exchange) -> str:
    """What the caller asked."""
    content = next(m["content"] for m in exchange.json["messages"] if m["role"] == "user")
    if not isinstance(content, str):
        content = next(part["text"] for part in content if part["type"] == "text")
    return str(content).partition("\n")[0]


def role(exchange: Exchange) -> str:
    """Whose part the model has."""
    asked = json.dumps(exchange.json["messages"])
    if "Now compare the drafts" in asked:
        return "critic"
    if "Now write the one best answer" in asked:
        return "aggregator"
    return "proposer" if exchange.json.get("max_completion_tokens") else "single"


def pieces(exchange: Exchange) -> tuple[str, ...]:
    """What is said to a question that is nothing special. Proposals differ so that no model takes them for the same."""
    part = role(exchange)
    if part == "proposer" and exchange.json["model"] == "b":
        return ("It must be `four`.",)
    return ANSWERS[part]


class Table:
    """What the upstream answers. One for each upstream: it counts the calls for each question."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}

    def __call__(self, exchange: Exchange) -> Sequence[Step]:
        asked = question(exchange)
        case = asked.partition(" ")[0]
        part = role(exchange)
        number = self._asked[asked] = self._asked.get(asked, 0) + 1
        if exchange.json["model"] == "c" and case != "failing":
            return [Hang()]
        if case == "failing":
            return whole({"error": {"message": "secret"}}, 401)
        if number == 1 and case == "refusal":
            return said(exchange, part, REFUSAL)
        if number == 1 and case == "bad-form":
            return said(exchange, part, '{"city": 1}')
        if case == "different" and part == "proposer" and number <= len(MODELS):
            return said(exchange, part, f"The answer is {MODELS.index(exchange.json['model'])}")
        if exchange.json.get("tools"):
            return called(exchange, part)
        if exchange.json.get("response_format") and part != "critic":
            return said(exchange, part, CITY[:16], CITY[16:])
        return said(exchange, part, *pieces(exchange))


def said(exchange: Exchange, part: str, *pieces: str) -> list[Step]:
    """An answer of text, streamed or not, as asked."""
    return _answer(exchange, part, [{"content": piece} for piece in pieces], "stop")


def called(exchange: Exchange, part: str) -> list[Step]:
    """An answer that calls a tool."""
    key, name, arguments = CALL
    function = {"name": name, "arguments": arguments}
    call: dict[str, Any] = {"id": key, "type": "function", "function": function}
    if exchange.json.get("stream"):
        call["index"] = 0
    return _answer(exchange, part, [{"tool_calls": [call]}], "tool_calls")


def _answer(
    exchange: Exchange, part: str, pieces: Sequence[dict[str, Any]], reason: str
) -> list[Step]:
    read, written = USAGE[part]
    if exchange.json.get("stream"):
        chunks = []
        for piece in pieces:
            chunk = delta("")
            chunk["choices"][0]["delta"] = piece
            chunks.append(event(chunk))
        return [
            head(),
            *chunks,
            event(finish(reason)),
            event(usage(read, written)),
            event("[DONE]"),
            END,
        ]
    message: dict[str, Any] = {"role": "assistant", "content": None}
    text = "".join(piece.get("content", "") for piece in pieces)
    message |= {"content": text} if text else pieces[0]
    return whole(
        {
            "id": "c", "object": "chat.completion", "created": 1, "model": "m-1",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {
                "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
            },
        }
    )  # fmt: skip
