"""What is told of a panel: a row for each call of an upstream, whose usage adds up to that of the whole answer."""

from collections.abc import Iterator

from google.rpc import code_pb2

from trunkline.v1.completion_pb2 import PanelMember, PanelReport, Usage
from trunkline_server.completion.attempts import Try
from trunkline_server.completion.metering import usage_of
from trunkline_server.completion.panel import CANCELLED, FAILED, Member, Panel


def panel_report(panel: Panel) -> PanelReport:
    """The contract's report, calls that failed or were cancelled included."""
    return PanelReport(
        route=panel.plan.route,
        requested_route=panel.requested_route,
        escalated=bool(panel.escalation_reason),
        escalation_reason=panel.escalation_reason,
        members=[row for member in panel.members for row in _rows(member)],
        degraded=panel.is_degraded,
        stopped_early=panel.stopped_early,
    )


def _rows(member: Member) -> Iterator[PanelMember]:
    hop = member.hop
    billed = hop.billed
    for attempt in hop.begun:
        if attempt.message is None and attempt not in billed:
            continue  # It was never sent: its candidate could not express the request.
        row = PanelMember(
            provider=attempt.candidate.provider,
            model=attempt.candidate.id,
            role=member.role,
            layer=member.layer,
            status=_status(member, attempt, attempt in billed),
        )
        usage = usage_of(hop.prompt.spec, attempt) if attempt in billed else Usage()
        row.usage.CopyFrom(usage)
        if attempt.message is not None:
            row.duration.CopyFrom(attempt.message.duration)
            if row.status == FAILED:
                row.error.CopyFrom(attempt.message.error)
        yield row


def _status(member: Member, attempt: Try, is_billed: bool) -> str:
    if attempt.message is not None and attempt.message.HasField("error"):
        return CANCELLED if attempt.message.error.code == code_pb2.CANCELLED else FAILED
    return member.status if is_billed else CANCELLED
