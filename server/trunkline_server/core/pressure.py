"""How much a process takes on, as far as room, memory and files go. Sans-I/O: samples in, limits out.

Requests of a lower criticality find the house full earlier: batch work at half of the limit, standard at nine tenths.
Every quarter of a second the process looks at itself. Memory is a matter of sizes: from 80 % of what there is big
requests are refused, from 90 % all of them, and at 95 % the largest one in flight is ended. What the processor can do
is the matter of `pace`.

Source: Envoy's overload manager (actions by thresholds, 0.25 s), and "Handling Overload" in Google's SRE book
(criticality).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

SAMPLE_S: Final = 0.25
BIG_REQUEST_BYTES: Final = 256 * 1024
MEMORY_BIG: Final = 0.80
MEMORY_ALL: Final = 0.90
MEMORY_EXPEL: Final = 0.95
FILES_ALL: Final = 0.80


class Criticality(IntEnum):
    """Whose request goes first when not all can go."""

    BATCH = 0
    STANDARD = 1
    INTERACTIVE = 2


SHARES: Final = {
    Criticality.BATCH: 0.5,
    Criticality.STANDARD: 0.9,
    Criticality.INTERACTIVE: 1.0,
}


@dataclass(frozen=True, slots=True)
class Sample:
    """What one look showed. Shares are 0 to 1 of what the process may have; 0 where that is unknown.

    Attributes:
        cpu_s: what the process has spent since the look before.
    """

    cpu_s: float = 0.0
    memory_share: float = 0.0
    files_share: float = 0.0


class Pressure:
    """The limits of one process, as its last sample leaves them."""

    def __init__(self, max_in_flight: int) -> None:
        self.sample = Sample()
        self._rooms = tuple(max(1, int(max_in_flight * SHARES[c])) for c in Criticality)

    def observe(self, sample: Sample) -> None:
        """One more look."""
        self.sample = sample

    def room(self, criticality: Criticality) -> int:
        """Requests in flight from which one of this criticality finds the house full."""
        return self._rooms[criticality]

    def refuses(self, size_bytes: int) -> bool:
        """Is there no memory, or no file, for a request of this size?"""
        sample = self.sample
        if sample.memory_share >= MEMORY_ALL or sample.files_share >= FILES_ALL:
            return True
        return sample.memory_share >= MEMORY_BIG and size_bytes >= BIG_REQUEST_BYTES

    @property
    def must_expel(self) -> bool:
        """Is memory so short that a request in flight has to end?"""
        return self.sample.memory_share >= MEMORY_EXPEL
