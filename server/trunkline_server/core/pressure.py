"""How much a process takes on, from how it feels. Sans-I/O: samples in, limits out.

Every quarter of a second the process looks at itself: how late its event loop runs, how much memory and how many files
it holds. A loop that goes on running late lowers the number of requests in flight; one that goes on being unpunctual
lowers it gently, if it is that number what holds requests back; a punctual one lets it grow again. One late look alone
is a hiccup of the machine, not load. Between looks the lag is felt at each tick of the loop: once it is too late, and
was not punctual before that, hardly anything is taken on until it has nearly caught up, because what has come in
meanwhile waits in the loop already.
Requests of a lower criticality find the house full earlier: batch work at half of the limit, standard at nine tenths.
Memory is a matter of sizes: from 80 % of what there is big requests are refused, from 90 % all of them, and at 95 % the
largest one in flight is ended.

Source: Envoy's overload manager (actions by thresholds, 0.25 s), and "Handling Overload" in Google's SRE book
(criticality).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

SAMPLE_S: Final = 0.25
LAG_WARN_S: Final = 0.05
LAG_RELIEF_S: Final = 0.1
LAG_SHED_S: Final = 0.2
LOWEST_STEP_DOWN: Final = 0.5
HIGHEST_STEP_DOWN: Final = 0.8
EASE_DOWN: Final = 0.95
STEP_UP: Final = 1.1
MIN_IN_FLIGHT: Final = 32
MIN_OVERWHELMING: Final = (
    64  # So many are let in however late the loop runs: fewer can hardly be why.
)
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
        lag_s: the latest that the event loop ran since the look before.
    """

    lag_s: float = 0.0
    memory_share: float = 0.0
    files_share: float = 0.0


class Pressure:
    """The limits of one process, as its last samples leave them."""

    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self._floor = min(MIN_IN_FLIGHT, max_in_flight)
        self.in_flight_limit = max_in_flight
        self.sample = Sample()
        self.is_overwhelmed = False
        self._felt_lag_s = 0.0
        self._rooms = self._shared()

    def observe(self, sample: Sample, in_flight: int) -> None:
        """One more look, with the number of requests in flight at that moment."""
        lasting_s = min(sample.lag_s, self.sample.lag_s)
        self.sample = sample
        if lasting_s >= LAG_SHED_S:
            # From what really is in flight: a limit that is far away would take many steps to be felt.
            step = max(LOWEST_STEP_DOWN, min(HIGHEST_STEP_DOWN, LAG_SHED_S / sample.lag_s))
            self.in_flight_limit = max(
                self._floor, int(min(self.in_flight_limit, in_flight) * step)
            )
        elif lasting_s >= LAG_WARN_S and in_flight >= self.room(Criticality.STANDARD):
            self.in_flight_limit = max(self._floor, int(self.in_flight_limit * EASE_DOWN))
        elif sample.lag_s < LAG_WARN_S and self.in_flight_limit < self._max_in_flight:
            raised = int(self.in_flight_limit * STEP_UP) + 1
            self.in_flight_limit = min(self._max_in_flight, raised)
        self._rooms = self._shared()

    def feel(self, lag_s: float) -> None:
        """The loop has ticked, so much too late."""
        if self.is_overwhelmed:
            self.is_overwhelmed = lag_s >= LAG_RELIEF_S
        else:
            self.is_overwhelmed = lag_s >= LAG_SHED_S and self._felt_lag_s >= LAG_WARN_S
        self._felt_lag_s = lag_s

    def overwhelms(self, in_flight: int) -> bool:
        """Is the loop so late that one more, beside so many, would only wait in it?"""
        return self.is_overwhelmed and in_flight >= MIN_OVERWHELMING

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

    def _shared(self) -> tuple[int, ...]:
        return tuple(max(1, int(self.in_flight_limit * SHARES[c])) for c in Criticality)
