"""A request that was not answered from the cache: the `Miss` port."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from trunkline.v1.completion_pb2 import Completion
from trunkline_server.cache.flights import Flight
from trunkline_server.cache.place import Place
from trunkline_server.core.cache import Kept

if TYPE_CHECKING:  # Without the semantic tier there need be no numpy.
    from trunkline_server.cache.sections import Vector

MODEL: Final = "all-MiniLM-L6-v2 int8"  # Part of every section: its vectors are not compared with another one's.


class Near(NamedTuple):
    """A question that means the same as far as can be told. `is_served`: its answer may be given."""

    key: bytes
    similarity: float
    is_served: bool


class Nearest(NamedTuple):
    """What a lookup found: the vector of the question, and the question that is nearest to it."""

    vector: "Vector | None"
    near: Near | None


NOWHERE: Final = Nearest(None, None)


class Found(NamedTuple):
    """An answer. `near`: the similar question that it is the answer to; None: the question itself."""

    kept: Kept
    near: Near | None


class OpenQuestion:
    """Asked for all who wait for it, until `store` or `close`.

    Attributes:
        asked_us: when, in microseconds since 1970.
        max_age_s: of an answer that its caller takes; None: any.
        flight: those who wait; None: it is asked for its caller alone.
        nearest: what the semantic tier knows of it.
        rival: the answer to the nearest question, with which this one's is compared.
    """

    __slots__ = (
        *("_keep", "asked_us", "flight", "is_over", "keep_s", "max_age_s", "nearest", "place"),
        "rival",
    )

    def __init__(
        self,
        place: Place,
        asked_us: int,
        max_age_s: float | None,
        keep_s: float,
        keep: "Callable[[OpenQuestion, Completion], Found | None]",
    ) -> None:
        self.place = place
        self.asked_us = asked_us
        self.max_age_s = max_age_s
        self.keep_s = keep_s
        self._keep = keep
        self.flight: Flight[Found] | None = None
        self.nearest = NOWHERE
        self.rival: Kept | None = None
        self.is_over = False

    async def store(self, completion: Completion) -> None:
        """See `Miss`."""
        if self.is_over:
            return
        found = self._keep(self, completion)
        if found is None:
            self.is_over = True
            if self.flight is not None:
                self.flight.disband()
        else:
            self.land(found)

    def land(self, found: Found) -> None:
        """Here is the answer for all who wait."""
        self.is_over = True
        if self.flight is not None:
            self.flight.land(found)

    def close(self) -> None:
        """See `Miss`."""
        if self.is_over:
            return
        self.is_over = True
        if self.flight is not None:
            self.flight.leave()
