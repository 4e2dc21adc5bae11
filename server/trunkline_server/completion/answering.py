"""An answer under way: what was begun for it, what is passed on of it, and what is known of it when it ends."""

from collections.abc import AsyncGenerator, Callable

from trunkline.v1.completion_event_pb2 import ChoiceFinished, CompleteResponse
from trunkline.v1.completion_pb2 import FinishReason
from trunkline_server.completion.attempts import Batch, Hop
from trunkline_server.completion.follow_ups import FollowUps
from trunkline_server.completion.order import Order
from trunkline_server.completion.panel import Panel
from trunkline_server.completion.report import Report
from trunkline_server.completion.turns import Turns
from trunkline_server.core.candidate import Plan
from trunkline_server.core.fold import Fold
from trunkline_server.core.ports import RequestRecord


class Answering:
    """Of one order. Whoever makes one reads `batches`, says `pass_on` for each, and `leave` however that ends.

    Args:
        batches: the events of the answer, not read from yet.
        hops: its model turns so far, the last one gives the answer now; it grows.
        turns: the loop over tools, where there is one; a panel has its own.
        follow_ups: asked beside the answer, and started.
        mint_id: makes the ids of artifacts.
    """

    def __init__(
        self,
        order: Order,
        batches: AsyncGenerator[Batch, None],
        hops: list[Hop],
        turns: Turns | None,
        panel: Panel | None,
        follow_ups: FollowUps | None,
        mint_id: Callable[[], str],
    ) -> None:
        self.batches = batches
        self.hops = hops
        self.panel = panel
        self.follow_ups = follow_ups
        self.first_token_s: float | None = None  # Since the request came.
        self._order = order
        self._turns = turns
        options, prepared, bill = order.options, order.prepared, order.bill
        self.report = Report(
            order.spec, options, order.call.request_id, order.completion_id, panel, prepared
        )
        self.keeps = order.miss is not None or (bill is not None and bill.has_key)
        self.shape = None
        if prepared is not None:
            self.keeps = self.keeps or prepared.turn is not None
            self.shape = prepared.shape(mint_id)
        folds = order.unary is not None or options.include_final_messages or self.keeps
        self.fold = Fold() if folds else None
        self._buffers_calls = options.buffer_tool_arguments

    @property
    def turns(self) -> Turns | None:
        """The loop over tools of whoever gives the answer."""
        return self._turns if self.panel is None else self.panel.turns

    @property
    def plan(self) -> Plan:
        """Who was asked; by a panel, after any escalation."""
        return self._order.plan if self.panel is None else self.panel.plan

    @property
    def billed(self) -> list[Hop]:
        """All model turns that are paid for, those first that are not the answer's."""
        return self.hops if self.follow_ups is None else [*self.follow_ups.hops, *self.hops]

    def pass_on(self, batch: Batch, clock: Callable[[], float]) -> Batch:
        """What a stream's caller gets of a batch. What it is from then on charged for is noted."""
        hops, report, fold, shape = self.hops, self.report, self.fold, self.shape
        is_opening = report.served is not hops[-1].served
        rest: Batch = []
        if is_opening and report.begins_hop(hops):
            if shape is not None:
                rest = shape.end_line()
            if fold is not None:
                fold.add(rest)
                fold.clear()
        if shape is not None:
            batch = shape.shaped(batch)
        if fold is not None:
            fold.add(batch)
        if is_opening:
            order = self._order
            report.begin(order.plan, hops)
            if order.bill is not None:
                order.bill.begins(self.billed)
            if self.first_token_s is None:
                self.first_token_s = clock() - order.started_s
            if order.unary is None:
                batch = rest + report.opening(hops[-1], batch)
        if self._buffers_calls:
            batch = [event for event in batch if not event.HasField("tool_call_delta")]
        return batch

    def end_for_lack_of_credits(self) -> Batch:
        """Nothing more is read. The caller is told why by how the choices end."""
        facts = self.hops[-1].served.facts
        turns = self.turns
        ended = ChoiceFinished(
            choice_index=0, finish_reason=FinishReason.FINISH_REASON_INSUFFICIENT_CREDITS
        )
        if turns is not None:
            turns.finish = ended
        elif any(finished.choice_index == 0 for finished in facts.finishes):
            return []  # It is whole, and its caller has seen how it ended.
        else:
            facts.finishes.append(ended)
        return [CompleteResponse(choice_finished=ended)]

    def interrupted(self) -> Batch:
        """An error ended it: the last batch of a stream, if its caller has seen anything."""
        if self.follow_ups is not None:
            self.follow_ups.end()
        return [] if self.report.served is None else [self.report.interrupted(self.billed)]

    def leave(self, record: RequestRecord) -> None:
        """Nobody reads on: note what the log tells of it. Waits for nothing."""
        if self.follow_ups is not None:
            self.follow_ups.end()
        hops, report = self.billed, self.report
        record.route = self.plan.route
        record.time_to_first_token_s = self.first_token_s
        record.attempts = [attempt for hop in hops for attempt in hop.records]
        if report.served is not None:
            served = report.served
            record.provider = served.candidate.provider
            record.routed_model = served.candidate.id
            record.response_model = served.facts.response_model
        # A panel may have asked many models before anybody serves.
        if report.served is not None or any(hop.billed for hop in hops):
            usage = report.used(hops)
            record.input_tokens = usage.input_tokens
            record.output_tokens = usage.output_tokens
            record.cached_input_tokens = usage.cached_input_tokens
