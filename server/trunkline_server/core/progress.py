"""What is known of a request whose process is gone."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far it had come.

    Attributes:
        provider: who answered; empty where nobody had begun.
        input_price, output_price, cached_input_price: nanos per million tokens; None: unknown.
        input_tokens, output_tokens: as the upstream told; 0 where it had not.
        output_chars: of content.
        earlier_input_tokens, earlier_output_tokens, earlier_nanos: what model turns before this one used and cost; the
            last None where a price is unknown.
    """

    provider: str = ""
    model: str = ""
    input_price: int | None = None
    output_price: int | None = None
    cached_input_price: int | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    output_chars: int = 0
    earlier_input_tokens: int = 0
    earlier_output_tokens: int = 0
    earlier_nanos: int | None = 0
