"""The latest routing decisions, so that one can be explained after the fact, as it was made."""

from collections import OrderedDict
from typing import Final

from trunkline_server.core.candidate import Plan

MAX_DECISIONS: Final = 4_096


class Decisions:
    """Plans by caller and request id, in memory, the latest only. One caller's are not shown to another."""

    def __init__(self) -> None:
        # The oldest goes at once: a plain dict passes over all that were dropped before it.
        self._plans: OrderedDict[tuple[str, str], Plan] = OrderedDict()

    def keep(self, key_id: str, request_id: str, plan: Plan) -> None:
        """Remember it for a while. A second one of the same id takes the place of the first."""
        plans = self._plans
        plans[key_id, request_id] = plan
        if len(plans) > MAX_DECISIONS:
            plans.popitem(last=False)

    def find(self, key_id: str, request_id: str) -> Plan | None:
        """The plan of that request; None where it was forgotten, or never was."""
        return self._plans.get((key_id, request_id))
