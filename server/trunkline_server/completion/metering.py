"""What attempts used: as their upstreams say, else as is estimated here."""

from collections.abc import Iterable, Sequence
from typing import Final

from trunkline.v1.completion_pb2 import Usage
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.completion.attempts import Hop, Try
from trunkline_server.core.pricing import price
from trunkline_server.core.usage import CHARS_PER_TOKEN, add

ROOM_TOKENS: Final = 32_768  # For what is counted and not seen: hidden reasoning, images, instructions of the provider.
MAX_WINDOW_TOKENS: Final = 10_000_000  # Of a model whose window is not known.
MAX_WRITTEN_TOKENS: Final = 262_144  # By a model whose limit is not known.
TOKENS_PER_CHAR: Final = 4  # At most, in the scripts that models know least.


def usage_of_hops(hops: Sequence[Hop]) -> Usage:
    """What all attempts that are paid for used together."""
    return usage_of_attempts((hop, attempt) for hop in hops for attempt in hop.billed)


def usage_of_attempts(attempts: Iterable[tuple[Hop, Try]]) -> Usage:
    """What these used together."""
    total: Usage | None = None
    for hop, attempt in attempts:
        usage = usage_of(hop.prompt.spec, attempt)
        if total is None:
            total = usage
        else:
            add(total, usage)
    return total or Usage()


def usage_of(spec: CompletionSpec, attempt: Try) -> Usage:
    """The upstream's counts, or ours where it sent none, and what they cost."""
    reported = attempt.facts.usage
    if reported is not None and is_absurd(reported, spec, attempt):
        reported = None
    usage = Usage()
    if reported is not None:
        usage.CopyFrom(reported)
    if reported is None or reported.estimated or not attempt.is_whole:
        # What a provider counted before the end may be of the beginning alone.
        written_tokens = -(-attempt.output_chars // CHARS_PER_TOKEN)
        usage.input_tokens = usage.input_tokens or estimated_input_tokens(spec)
        usage.output_tokens = max(usage.output_tokens, written_tokens)
        usage.total_tokens = usage.input_tokens + usage.output_tokens
        usage.estimated = True
    cost = price(usage, attempt.candidate.price)
    if cost is not None:
        usage.cost.CopyFrom(cost)
    return usage


def is_absurd(reported: Usage, spec: CompletionSpec, attempt: Try) -> bool:
    """Can these counts not be of this request? Then the provider is mistaken, and nobody is charged for that."""
    if reported.input_tokens <= ROOM_TOKENS and reported.output_tokens <= ROOM_TOKENS:
        return False
    candidate = attempt.candidate
    window_tokens = candidate.context_window_tokens or MAX_WINDOW_TOKENS
    own_tokens = candidate.max_output_tokens or min(window_tokens, MAX_WRITTEN_TOKENS)
    # Not every provider is told the request's own limit, or counts reasoning against it.
    limit_tokens = max(spec.sampling.max_output_tokens, own_tokens)
    choices = max(1, spec.sampling.candidate_count)
    most_output = max(limit_tokens * choices, TOKENS_PER_CHAR * attempt.output_chars) + ROOM_TOKENS
    return (
        reported.output_tokens > most_output or reported.input_tokens > window_tokens + ROOM_TOKENS
    )


def estimated_input_tokens(spec: CompletionSpec) -> int:
    """Of its text alone."""
    chars = len(spec.system_prompt)
    for message in spec.messages:
        for part in message.parts:
            chars += len(part.text) + len(part.tool_call.arguments_json)
            chars += sum(len(inner.text) for inner in part.tool_result.parts)
    return -(-chars // CHARS_PER_TOKEN)
