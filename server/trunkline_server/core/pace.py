"""How fast a process takes on work when its processor is short. Sans-I/O: the caller brings the clock.

A loop that runs late is **strained**: from then on requests come in at a rate, and the others are kept waiting or sent
away before any work goes into them. The rate is what the process can do: the requests that a second of CPU serves, as
counted lately, times a pace. The pace follows the lag: where others use the machine as well a second of CPU takes
longer, so it is lowered while the loop stays late, and raised while it is not. Whoever has come in then is served as
fast as ever, and hardly any CPU goes into anybody else.

It is a matter of rate rather than of how many are in flight: requests that wait for their providers cost nothing, and
those that come in one turn of the loop are all read in that turn, so too many at once make it late, however few. But
while the loop is late, and all of a sudden twice as many are in flight as usual, the processor was taken away, and what
comes in would only join those that wait for it.

The strain is over when nobody had to be kept out for a while, and the loop was in time.
"""

from typing import Final

from trunkline_server.core.pressure import Criticality

STRAIN_LAG_S: Final = 0.1  # So late, the loop is strained; for dear requests it is
STRAIN_WORKS: Final = 16.0  # of them,
MAX_STRAIN_LAG_S: Final = 0.15  # and never more than this.
LATE_S: Final = (
    0.03  # So late, it takes on too much; but for dear requests it is LATE_WORKS of them.
)
LATE_WORKS: Final = 3.0
FAR_TOO_LATE: Final = 4.0  # Times as late, it takes on far too much.
HICCUP_S: Final = 0.25  # After so long. One late tick alone is a burst, or a hiccup of the machine.
STRAIN_S: Final = 2.0
LASTING_S: Final = 0.5

SLOWER: Final = 0.95
MUCH_SLOWER: Final = 0.8
FASTER: Final = 1.02
MUCH_FASTER: Final = 1.15
MIN_PACE: Final = 0.25
MAX_PACE: Final = 1.0
MIN_RATE_PER_S: Final = 10.0

USUAL_WORK_S: Final = 0.0015  # Of CPU, for a request,
USUAL_REQUESTS: Final = 4.0  # as if so many had been served.
MEMORY: Final = 0.9  # What one look counts at the next.

YIELD_S: Final = 0.5  # So long after others were kept out, batch work is.
# So few are no overload, however late the loop runs: those that so much CPU serves, in flight and waiting for a turn.
FEW_IN_FLIGHT_S: Final = 0.035
FEW_WAITING_S: Final = 0.015
MIN_FEW_IN_FLIGHT: Final = 8
MIN_FEW_WAITING: Final = 4
CROWD: Final = 2.0  # Times as many in flight as usual,
MIN_CROWD: Final = 16  # and at least so many, are too many.
USUAL_MEMORY: Final = 0.95

# A round of the loop that has taken so long takes nobody on. Turns gather while it lasts: it would last for as long as
# there is somebody whom it found ready, and all who came in would wait for its end.
ROUND_S: Final = 0.015

BURST_S: Final = 0.01  # Of turns may gather that nobody took, but always one.
DEBT_S: Final = 0.25  # Of turns may be taken ahead by those who matter most.


class Pace:
    """Who may come in now, as far as the processor is concerned."""

    def __init__(self) -> None:
        self._strained_from_s = self._strained_until_s = float("-inf")
        self._late_from_s = float("inf")
        self._lag_s = 0.0
        self._pace = 1.0
        self._spent_s = 0.0
        self._served = 0.0
        self._work_s = USUAL_WORK_S
        self._rate_per_s = 1 / USUAL_WORK_S
        self._late_s = LATE_S
        self._brake = 1.0  # Until the next tick. The pace itself changes slowly.
        self._usual_in_flight = 0.0
        self._turns = 0.0
        self._at_s = 0.0
        self._kept_out_s = float("-inf")  # When somebody was whom batch work gives way to.

    @property
    def rate_per_s(self) -> float:
        """Requests that come in while it is strained."""
        return self._rate_per_s

    def is_strained(self, now_s: float) -> bool:
        """Is the rate held to?"""
        return now_s < self._strained_until_s

    @property
    def few_in_flight(self) -> int:
        """So many need no turn."""
        return max(MIN_FEW_IN_FLIGHT, int(FEW_IN_FLIGHT_S / self._work_s))

    @property
    def few_waiting(self) -> int:
        """So many wait for a turn with a good chance to get it in time."""
        return max(MIN_FEW_WAITING, int(FEW_WAITING_S / self._work_s))

    def is_lasting(self, now_s: float) -> bool:
        """Has the rate been held to for so long that no burst is the reason?"""
        return self.is_strained(now_s) and now_s >= self._strained_from_s + LASTING_S

    def feel(self, lag_s: float, now_s: float) -> None:
        """The loop has ticked, so much too late."""
        self._lag_s = max(self._lag_s, lag_s)
        self._brake = min(1.0, self._late_s / lag_s) if lag_s > 0 else 1.0
        if lag_s < min(MAX_STRAIN_LAG_S, max(STRAIN_LAG_S, STRAIN_WORKS * self._work_s)):
            self._late_from_s = float("inf")
            return
        self._late_from_s = min(self._late_from_s, now_s)
        if self.is_strained(now_s) or now_s >= self._late_from_s + HICCUP_S:
            if not self.is_strained(now_s):
                self._strained_from_s = now_s
                self._pace = 1.0
                self._turns = 0.0
                self._at_s = now_s
            self._strained_until_s = now_s + STRAIN_S

    def observe(self, cpu_s: float, served: int, in_flight: int, now_s: float) -> None:
        """A look at the process: since the last one it spent so much and served so many; others are on their way."""
        self._spent_s = self._spent_s * MEMORY + cpu_s
        self._served = self._served * MEMORY + served
        spent_s = self._spent_s + USUAL_REQUESTS * USUAL_WORK_S
        work_s = self._work_s = spent_s / (self._served + in_flight + USUAL_REQUESTS)
        self._late_s = max(LATE_S, LATE_WORKS * work_s)
        if self._lag_s < self._late_s:
            step = (1 - USUAL_MEMORY) * (in_flight - self._usual_in_flight)
            self._usual_in_flight += step
        if self.is_strained(now_s):
            self._pace *= _step(self._lag_s / self._late_s)
            self._pace = min(MAX_PACE, max(MIN_PACE, self._pace))
        self._rate_per_s = max(MIN_RATE_PER_S, self._pace / work_s)
        self._lag_s = 0.0

    def has_turn(
        self, criticality: Criticality, now_s: float, in_flight: int, round_s: float = 0.0
    ) -> bool:
        """May one of this criticality come in now, beside so many? Batch work gives way to all other.

        Args:
            round_s: for how long the loop has been serving those that it found ready together.
        """
        if not self.is_strained(now_s) or in_flight < self.few_in_flight:
            return True
        self._gather(now_s)
        crowd = max(MIN_CROWD, CROWD * self._usual_in_flight)
        is_crowded = self._brake < 1 and in_flight >= crowd
        is_batch = criticality is Criticality.BATCH
        ahead = self._rate_per_s * DEBT_S if criticality is Criticality.INTERACTIVE else 0.0
        has_turn = self._turns >= 1 - ahead and not is_crowded and round_s < ROUND_S
        if is_batch and now_s < self._kept_out_s + YIELD_S:
            has_turn = False
        if not has_turn:
            self.keep_out(criticality, now_s)
        return has_turn

    def keep_out(self, criticality: Criticality, now_s: float) -> None:
        """One has no turn, or comes after others who have none: it is strained for longer."""
        self._strained_until_s = max(self._strained_until_s, now_s + STRAIN_S)
        if criticality is not Criticality.BATCH:
            self._kept_out_s = now_s

    def take_turn(self) -> None:
        """One has come in, with a turn or without."""
        self._turns = max(self._turns - 1, -self._rate_per_s * DEBT_S)

    def next_turn_s(self) -> float:
        """Seconds until there is one more, from when somebody last asked for one."""
        return max(0.0, (1 - self._turns) / self._rate_per_s)

    def _gather(self, now_s: float) -> None:
        most = max(2.0, self._rate_per_s * BURST_S)
        gathered = self._brake * self._rate_per_s * max(0.0, now_s - self._at_s)
        self._turns = min(most, self._turns + gathered)
        self._at_s = now_s


def _step(lateness: float) -> float:
    """What the pace is multiplied by: `lateness` is 1 where the loop is as late as it should ever be."""
    if lateness >= FAR_TOO_LATE:
        return MUCH_SLOWER
    if lateness >= 1:
        return SLOWER
    return FASTER if lateness >= 0.5 else MUCH_FASTER
