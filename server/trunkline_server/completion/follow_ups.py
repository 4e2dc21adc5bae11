"""Questions that a caller might ask next, found while the answer is being written.

They come of the question alone, so they never wait for the answer, and the answer never waits for them: what is not
there when it ends is given up. The model that is asked is one of the mode `fast`, and never the embedded one, which
would be as slow as the answer and take its place on the processor.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from trunkline.v1.completion_pb2 import FollowUp
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message, Role
from trunkline_server.completion.attempts import Hop
from trunkline_server.completion.panel import NewHop
from trunkline_server.core.candidate import Plan
from trunkline_server.core.errors import TrunklineError
from trunkline_server.core.fold import Fold
from trunkline_server.core.follow_ups import follow_up_prompt, follow_ups_of
from trunkline_server.core.modes import FAST

FOLLOW_UPS_S: Final = 0.5  # Of a stream, whose text the caller has by then.
MAX_TOKENS: Final = 200
HOP_NUMBER: Final = 1_000  # Beyond those of any answer.


class FollowUps:
    """Of one answer. `start` it, take what `found` gives at the end, and `end` it whatever happens.

    Args:
        new_hop: makes the model turn.
        is_paid_for: may it be asked?
    """

    def __init__(
        self,
        spec: CompletionSpec,
        plan: Plan,
        new_hop: NewHop,
        is_paid_for: Callable[[Plan, CompletionSpec], Awaitable[bool]],
    ) -> None:
        self._spec = spec
        # Nobody misses them, so nobody is asked twice.
        self._plan = replace(plan, candidates=plan.candidates[:1], hedges=False)
        self._new_hop = new_hop
        self._is_paid_for = is_paid_for
        self.hops: list[Hop] = []  # What was asked, and is paid for.
        self._task: asyncio.Task[str] | None = None

    def start(self) -> None:
        """Ask, beside the answer."""
        self._task = asyncio.get_running_loop().create_task(self._ask())

    async def found(self, wait_s: float) -> Sequence[FollowUp]:
        """What there is after at most so long."""
        task = self._task
        if task is None:
            return ()
        if not task.done() and wait_s:
            await asyncio.wait([task], timeout=wait_s)
        if not task.done():
            self.end()
            return ()
        self._task = None
        return follow_ups_of(task.result())

    def end(self) -> None:
        """Nobody wants them any more. Never raises, and waits for nothing."""
        task, self._task = self._task, None
        if task is None:
            return
        for hop in self.hops:
            hop.abandon()  # Before it is cancelled: after that nobody knows what is to be paid for.
        task.cancel()
        task.add_done_callback(_forget)

    async def _ask(self) -> str:
        """The model's text; empty where nobody gave one."""
        try:
            if not await self._is_paid_for(self._plan, self._spec):
                return ""
            hop = self._new_hop(self._spec, self._plan, HOP_NUMBER, is_member=True)
            self.hops.append(hop)
            fold = Fold()
            async with aclosing(hop.batches()) as batches:
                async for batch in batches:
                    fold.add(batch)
        except TrunklineError:
            return ""  # An answer without them is still the answer; the attempt is in the log of its provider.
        return "".join(part.text for part in fold.message(0).parts)


def follow_up_spec(question: str) -> CompletionSpec:
    """Asks a model of the mode `fast`."""
    spec = CompletionSpec(mode=FAST, messages=[Message(role=Role.ROLE_USER)])
    spec.messages[0].parts.add(text=follow_up_prompt(question))
    spec.sampling.max_output_tokens = MAX_TOKENS
    return spec


def _forget(task: asyncio.Task[str]) -> None:
    if not task.cancelled():
        task.exception()
