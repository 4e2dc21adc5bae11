"""Upstreams that act a part drawn by lot for each request, and remember what they told of it.

They are honest: an answer is no longer than it was asked to be, four characters are a token, and what is reported was
read and written. Each answer has a name of its own in it, by which it is known again where another model reads it.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Pause,
    Reset,
    Step,
    delta,
    event,
    finish,
    head,
    whole,
)

CHARS: Final = 4  # Of a token.
NO_LIMIT_CHARS: Final = 1_600
LONG_CHARS: Final = 40_000
MAX_PIECES: Final = 8
MARK: Final = re.compile(r"run-(\d+)-")
NAME: Final = re.compile(r"<(\d+)>")
CRITIC: Final = "critic"
MAKER: Final = "aggregator"
ALONE: Final = "alone"  # Its prompt is the caller's: a proposer, or the only one of its panel.

# Parts, and how often they are played by those who read drafts, and by others.
PARTS: Final = {
    "whole": (60, 30),
    "without usage": (6, 6),
    "usage early": (4, 4),
    "agreeing": (1, 8),
    "differing": (1, 5),
    "refusing": (2, 5),
    "empty": (2, 3),
    "empty, counted": (1, 2),
    "cut by its limit": (3, 4),
    "slow": (6, 12),
    "error 500": (3, 5),
    "error 429": (1, 3),
    "error 400": (1, 1),
    "reset before the head": (1, 2),
    "hangs before the head": (2, 4),
    "hangs after the head": (2, 4),
    "hangs in mid-stream": (4, 6),
    "hangs after its usage": (1, 3),
    "cut in mid-stream": (2, 3),
    "cut after its usage": (1, 2),
    "long": (2, 1),
}
AGREED: Final = 10  # Of so many runs, in one all agree, nearly.
AGREEMENT: Final = 0.7
SILENT: Final = frozenset(
    {"error 500", "error 429", "error 400", "reset before the head", "hangs before the head"}
)
# Ends that are no ends: what the answer used is known from its beginning alone.
HALVED: Final = frozenset({"hangs in mid-stream", "hangs after its usage", "cut in mid-stream"})
BROKEN: Final = HALVED | {"hangs after the head", "cut after its usage"}
EARLY: Final = frozenset({"usage early", "hangs after its usage"})  # Counted before it is written.


@dataclass
class Act:
    """What an upstream did, or would have if it had been let.

    Attributes:
        names: of the answers that it was shown.
        prompt_tokens: by the number of characters.
        reported: tokens in, out, and in from a cache; None where it reports nothing.
        output_tokens: by the number of characters, and at most.
        is_unseen: a kept connection was lost without a byte, so it counts as never asked, and was asked once more.
    """

    number: int
    provider: str
    model: str
    role: str
    part: str
    names: frozenset[int]
    drafts: int
    prompt_tokens: int
    reported: tuple[int, int, int] | None
    output_tokens: int
    is_unseen: bool = False

    @property
    def has_begun(self) -> bool:
        """Did it accept the request?"""
        return self.part not in SILENT

    @property
    def most(self) -> tuple[int, int]:
        """Tokens in and out that may be charged for it at most."""
        told = self.reported or (0, 0, 0)
        return max(told[0], self.prompt_tokens), max(told[1], self.output_tokens)


class Stage:
    """All upstreams of a world. `acts`: by the number of the run that they were for."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.acts: dict[int, list[Act]] = defaultdict(list)
        self.parts: Counter[str] = Counter()

    def script(self, exchange: Exchange) -> Sequence[Step]:
        """For `tests.support.upstream`."""
        random, body = self._random, exchange.json
        texts = [_text(message["content"]) for message in body["messages"]]
        prompt = "".join(texts)
        found = MARK.search(prompt)
        assert found is not None
        role = ALONE
        if "[draft A " in prompt:
            role = CRITIC if "Now compare the drafts." in prompt else MAKER
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        part = _drawn(random, reads=role != ALONE, is_open=limit is None)
        if role == ALONE and int(found[1]) % AGREED == 0 and random.random() < AGREEMENT:
            part = "agreeing"
        number = sum(map(len, self.acts.values())) + 1
        content, reason = _content(random, part, role, number, limit)
        act = Act(
            number,
            exchange.path.split("/")[1],
            body["model"],
            role,
            part,
            frozenset(int(name) for name in NAME.findall(prompt)),
            len(re.findall(r"\[draft [A-H] ", prompt)),
            -(-len(prompt) // CHARS),
            None,
            -(-len(content) // CHARS),
            part == "reset before the head" and exchange.is_kept,
        )
        if part not in SILENT and part not in ("without usage", "hangs after the head"):
            act.reported = _counted(random, act, limit)
        if part in ("hangs in mid-stream", "cut in mid-stream"):
            act.reported = None
        self.acts[int(found[1])].append(act)
        self.parts[part] += 1
        steps = _steps if body.get("stream") else _message_steps
        return steps(random, act, content, reason, logprobs=bool(body.get("logprobs")))


def _drawn(random: Random, *, reads: bool, is_open: bool) -> str:
    weights = [weight[0 if reads else 1] for weight in PARTS.values()]
    part = random.choices(list(PARTS), weights)[0]
    return "whole" if part == "long" and not is_open else part


def _content(
    random: Random, part: str, role: str, number: int, limit: int | None
) -> tuple[str, str]:
    name = f"<{number}>"
    if part.startswith("empty"):
        return "", "stop"
    if part == "agreeing":
        text = "The answer is 42."
    elif part == "differing":
        text = f"{name} The answer is {number}."
    elif part == "refusing":
        text = f"I'm sorry, but I can't help with that {name}."
    elif role == CRITIC and part in ("whole", "slow"):
        text = json.dumps({"consensus": [f"all {name}"], "blind_spots": ["none"]})
    elif part == "long":
        text = name + " word" * random.randint(2_000, LONG_CHARS // 5)
    else:
        text = name + " word" * random.randint(0, NO_LIMIT_CHARS // 5)
    reason = "length" if part == "cut by its limit" else "stop"
    if limit is not None and len(text) > limit * CHARS:
        text, reason = text[: limit * CHARS], "length"
    return text, reason


def _counted(random: Random, act: Act, limit: int | None) -> tuple[int, int, int]:
    """No more than the prompt can have been, and no more than the limit."""
    read = random.randint(max(1, act.prompt_tokens // 2), act.prompt_tokens)
    if act.part == "empty":
        written = 0
    else:
        most = act.output_tokens + 50 if limit is None else limit
        written = max(1, min(most, act.output_tokens + random.randint(0, 20)))
    return read, written, random.choice((0, 0, read // 2))


def _steps(
    random: Random, act: Act, content: str, reason: str, *, logprobs: bool
) -> Sequence[Step]:
    part = act.part
    if (failed := _failing(random, part)) is not None:
        return failed
    steps: list[Step] = [head()]
    if part == "hangs after the head":
        return [*steps, Hang()]
    pieces = _pieces(random, content)
    if part in HALVED:
        pieces = pieces[: max(1, len(pieces) // 2)]
    for n, piece in enumerate(pieces):
        if part == "slow" or (n and random.random() < 0.1):
            steps.append(Pause(random.choice((0.005, 0.02, 0.06))))
        steps.append(event(_with_logprobs(random, delta(piece)) if logprobs else delta(piece)))
        if part in EARLY and not n:
            steps.append(event(_usage(act)))
    if part.startswith("hangs"):
        return [*steps, Hang()]
    if part == "cut in mid-stream":
        return [*steps, Reset()]
    steps.append(event(finish(reason)))
    if act.reported is not None:
        steps.append(event(_usage(act)))
    if part == "cut after its usage":
        return [*steps, Pause(0.002), Reset()]
    return [*steps, event("[DONE]"), END]


def _message_steps(
    random: Random, act: Act, content: str, reason: str, *, logprobs: bool
) -> Sequence[Step]:
    part = act.part
    if (failed := _failing(random, part)) is not None:
        return failed
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": reason,
    }
    if logprobs:
        choice["logprobs"] = _with_logprobs(random, delta(content))["choices"][0]["logprobs"]
    answer = {"id": "c", "object": "chat.completion", "model": "m-1", "choices": [choice]}
    if act.reported is not None:
        answer |= {"usage": _usage(act)["usage"]}
    steps = whole(answer)
    if part in BROKEN:
        (data,) = steps
        assert isinstance(data, bytes)
        end = Hang() if part.startswith("hangs") else Reset()
        return [data[: len(data) // 2], end]
    return [Pause(0.03), *steps] if part == "slow" else steps


def _failing(random: Random, part: str) -> Sequence[Step] | None:
    if part == "hangs before the head":
        return [Hang()]
    if part == "reset before the head":
        return [Pause(0.001), Reset()]
    if part == "error 429":
        error = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
        return whole(error, 429, f"retry-after: {random.choice((0, 1))}")
    if part.startswith("error"):
        return whole({"error": {"message": "no"}}, int(part.removeprefix("error ")))
    return None


def _pieces(random: Random, content: str) -> list[str]:
    count = random.randint(1, MAX_PIECES)
    size = max(1, -(-len(content) // count))
    return [content[at : at + size] for at in range(0, len(content), size)]


def _usage(act: Act) -> dict[str, Any]:
    assert act.reported is not None
    read, written, cached = act.reported
    counts: dict[str, Any] = {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }
    if cached:
        counts["prompt_tokens_details"] = {"cached_tokens": cached}
    base = delta("")
    return {**base, "choices": [], "usage": counts}


def _with_logprobs(random: Random, chunk: dict[str, Any]) -> dict[str, Any]:
    mean = random.choice((-0.1, -3.0))
    tokens: list[dict[str, Any]] = [
        {"token": "t", "logprob": mean, "bytes": None, "top_logprobs": []} for _ in range(6)
    ]
    chunk["choices"][0]["logprobs"] = {"content": tokens}
    return chunk


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


Script = Callable[[Exchange], Sequence[Step]]
