"""What attempts used: as their upstreams say, else as is estimated here."""

from collections.abc import Sequence

from trunkline.v1.completion_pb2 import Usage
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.completion.attempts import Hop, Try
from trunkline_server.core.pricing import price
from trunkline_server.core.usage import CHARS_PER_TOKEN, add


def usage_of_hops(hops: Sequence[Hop]) -> Usage:
    """What all attempts that are paid for used together."""
    total: Usage | None = None
    for hop in hops:
        spec = hop.prompt.spec
        for attempt in hop.billed:
            usage = usage_of(spec, attempt)
            if total is None:
                total = usage
            else:
                add(total, usage)
    return total or Usage()


def usage_of(spec: CompletionSpec, attempt: Try) -> Usage:
    """The upstream's counts, or ours where it sent none, and what they cost."""
    reported = attempt.facts.usage
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


def estimated_input_tokens(spec: CompletionSpec) -> int:
    """Of its text alone."""
    chars = len(spec.system_prompt)
    for message in spec.messages:
        for part in message.parts:
            chars += len(part.text) + len(part.tool_call.arguments_json)
            chars += sum(len(inner.text) for inner in part.tool_result.parts)
    return -(-chars // CHARS_PER_TOKEN)
