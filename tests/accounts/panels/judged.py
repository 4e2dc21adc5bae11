"""What must be true of every run: what was told, what was charged and what upstreams did come to the same."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.accounts.panels.actors import HALVED, MAKER, Act
from tests.accounts.panels.asks import LEFT, PLENTY, Seen
from tests.accounts.panels.world import Rate
from trunkline.v1.completion_pb2 import PanelMember, PanelReport, Usage
from trunkline_server.accounts.ledger import State
from trunkline_server.completion.bill import BLOCK_TOKENS, EXTEND_AT
from trunkline_server.core.usage import CHARS_PER_TOKEN, add

OK: Final = "OK"
ROWS: Final = (
    "SELECT organization, id, state, is_prepaid, reason, is_estimated, cost, charged, reserved, input_tokens,"
    " output_tokens, cached_input_tokens FROM requests ORDER BY created_at, id"
)
CUT_SHORT: Final = "cancelled, and paid for what had begun"
OVERRUNS: Final = "overruns of what was held"
RESTARTED_OVERRUNS: Final = "overruns, of restarted answers"
LONG_OVERRUNS: Final = "overruns, of long answers without a limit"
OPEN_TOKENS: Final = int(EXTEND_AT * BLOCK_TOKENS)  # An answer of more has been held more for.
UNPAID: Final = frozenset({"failed", "cancelled"})
PAID_ROLES: Final = frozenset({"used", "unused"})


@dataclass(frozen=True)
class Row:
    """A request, as the ledger has it."""

    organization: str
    id: str
    state: int
    is_prepaid: int
    reason: str
    is_estimated: int
    cost: int | None
    charged: int
    reserved: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.input_tokens, self.output_tokens, self.cached_input_tokens


@dataclass
class Run:
    """One request, and all that is known of it."""

    seen: Seen
    rows: list[Row]
    acts: list[Act]
    account: tuple[int, int]  # What is available, and what is held.
    rates: dict[tuple[str, str], Rate]

    def __str__(self) -> str:
        return f"\n{self.seen}\n{self.rows}\n" + "\n".join(map(str, self.acts))


def judge(run: Run, sums: Counter[str]) -> None:
    """Raises: AssertionError. Counts what there was."""
    seen, ask = run.seen, run.seen.ask
    assert len(run.rows) <= 1, run
    sums["runs"] += 1
    sums[ask.way] += 1
    if ask.granted != PLENTY:
        sums["with little credit"] += 1
    if not run.rows:
        assert not run.acts, run
        assert not seen.is_whole, run
        assert seen.reason, run
        assert run.account == (ask.granted, 0), run
        sums["refused before the first call" if seen.reason != LEFT else "left before it"] += 1
        sums[f"refused: {seen.reason}"] += seen.reason != LEFT
        return
    (row,) = run.rows
    _account(run, row, sums)
    if seen.completion is not None:
        assert row.id == seen.completion.id, run
        _whole(run, row, seen.completion.usage, seen.completion.panel, sums)
    elif seen.told is not None:
        _shim(run, row, sums)
    else:
        _unfinished(run, row, sums)
    if seen.again is not None:
        _again(run, sums)


def _account(run: Run, row: Row, sums: Counter[str]) -> None:
    """What was charged is what it cost, out of what was held; and nothing is held any more."""
    assert row.state in (State.SETTLED, State.VOID), run
    ask = run.seen.ask
    assert run.account == (ask.granted - row.charged, 0), run
    cost = row.cost or 0
    if row.cost is None and row.input_tokens:
        sums["of unknown price"] += 1
    is_long = ask.max_tokens is None and any(act.most[1] > OPEN_TOKENS for act in run.acts)
    is_over = cost > row.reserved
    sums["long, so that more was held"] += is_long
    # An answer that begins anew before its caller's eyes is paid for twice, and was held for once.
    sums[RESTARTED_OVERRUNS] += is_over and ask.restarts
    sums[LONG_OVERRUNS] += is_over and is_long
    sums[OVERRUNS] += is_over and not (ask.restarts or is_long)
    assert not sums[OVERRUNS], run
    if not row.is_prepaid:
        assert row.charged == 0, run
    elif is_over:
        assert row.charged <= cost, run
    else:
        assert row.charged == cost, run
    sums["nanos"] += row.charged


def _whole(run: Run, row: Row, usage: Usage, panel: PanelReport, sums: Counter[str]) -> None:
    assert row.reason == OK, run
    total = _sum(member.usage for member in panel.members if _is_paid(member))
    assert total == usage, run
    _same(run, row, usage)
    _members(run, panel.members, sums)
    ran_out = any(act.role == MAKER for act in run.acts)
    sums["whole"] += 1
    sums["aggregated"] += ran_out
    sums["escalated"] += panel.escalated
    sums[f"escalated: {panel.escalation_reason}"] += panel.escalated
    sums["escalated more than once"] += max((m.layer for m in panel.members), default=0) > 3
    sums["degraded"] += panel.degraded
    sums["stopped early"] += panel.stopped_early
    for member in panel.members:
        sums[f"{member.role}, {member.status}"] += 1
        sums["rows that are estimated"] += member.usage.estimated
        sums[CUT_SHORT] += member.status == "cancelled" and _is_paid(member)
        sums["rows"] += 1


def _same(run: Run, row: Row, usage: Usage) -> None:
    """The ledger's debit is what the usage says."""
    counts = usage.input_tokens, usage.output_tokens, usage.cached_input_tokens
    assert row.counts == counts, run
    assert row.cost == (usage.cost.amount_nanos if usage.HasField("cost") else None), run
    assert bool(row.is_estimated) == usage.estimated, run


def _is_paid(member: PanelMember) -> bool:
    usage = member.usage
    return bool(usage.input_tokens or usage.output_tokens or usage.HasField("cost"))


def _sum(usages: Iterable[Usage]) -> Usage:
    total: Usage | None = None
    for usage in usages:
        if total is None:
            total = Usage()
            total.CopyFrom(usage)
        else:
            add(total, usage)
    return total or Usage()


def _members(run: Run, members: Sequence[PanelMember], sums: Counter[str]) -> None:
    """Every call of an upstream has its row, and every row that is paid for is what its upstream told or did."""
    acts: dict[tuple[str, str], list[Act]] = defaultdict(list)
    for act in run.acts:
        if not act.is_unseen:
            acts[act.provider, act.model].append(act)
    rows: dict[tuple[str, str], list[PanelMember]] = defaultdict(list)
    for member in members:
        rows[member.provider, member.model].append(member)
    assert acts.keys() <= rows.keys(), run
    for name, found in rows.items():
        begun = [act for act in acts[name] if act.has_begun]
        assert len(acts[name]) <= len(found), (name, run)
        paid = [member for member in found if _is_paid(member)]
        for member in found:
            assert _is_paid(member) or member.status in UNPAID, (member, run)
            if _is_paid(member):
                _priced(run, member, run.rates[name])
        for member in [m for m in paid if not m.usage.estimated]:
            equal = [
                act
                for act in begun
                if act.reported == _counts(member.usage) and act.part not in HALVED
            ]
            assert equal, (member, run)
            begun.remove(equal[0])
            sums["rows equal to what was reported"] += 1
        _matched(run, [member for member in paid if member.usage.estimated], begun)
    drafted = set[int]().union(*(act.names for act in run.acts))
    for act in run.acts:
        if act.number in drafted and act.reported is not None:
            # What another model was shown is whole, and paid for.
            told = [m for m in rows[act.provider, act.model] if _counts(m.usage) == act.reported]
            assert any(m.status in PAID_ROLES for m in told), (act, run)
            sums["drafts that were read"] += 1


def _matched(run: Run, rows: Sequence[PanelMember], acts: Sequence[Act]) -> None:
    """Each estimated row has an act of its own that it may be of: it read as much, and wrote no less."""
    # Those that only few may be of go first, and then the longest: each has its match then, if there is one.
    left = sorted(acts, key=lambda act: act.most[1], reverse=True)
    estimates = {act.prompt_tokens for act in acts}
    for row in sorted(
        rows, key=lambda row: (row.usage.input_tokens in estimates, -row.usage.output_tokens)
    ):
        usage = row.usage
        fits = [
            act
            for act in left
            if usage.input_tokens in (act.prompt_tokens, (act.reported or (0,))[0])
            and usage.output_tokens <= act.most[1]
        ]
        assert fits, (row, run)
        left.remove(fits[0])


def _counts(usage: Usage) -> tuple[int, int, int]:
    return usage.input_tokens, usage.output_tokens, usage.cached_input_tokens


def _priced(run: Run, member: PanelMember, rate: Rate) -> None:
    usage = member.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens, run
    cost = rate.cost(*_counts(usage))
    assert (usage.cost.amount_nanos if usage.HasField("cost") else None) == cost, (member, run)


def _shim(run: Run, row: Row, sums: Counter[str]) -> None:
    told = run.seen.told
    assert told is not None
    assert row.reason == OK, run
    members = PanelReport(
        members=[
            PanelMember(
                provider=each["provider"],
                model=each["model"],
                role=each["role"],
                status=each["status"],
                usage=Usage(
                    input_tokens=each["input_tokens"],
                    output_tokens=each["output_tokens"],
                    estimated=each.get("estimated", False),
                ),
            )
            for each in told["waymark"]["models"]
        ]
    ).members
    total = _sum(member.usage for member in members)
    usage = told["usage"]
    counts = total.input_tokens, total.output_tokens
    assert counts == (usage["prompt_tokens"], usage["completion_tokens"]), run
    assert counts == row.counts[:2], run
    assert total.estimated == bool(row.is_estimated), run
    _shown(run, members, sums)
    sums["whole"] += 1
    sums["escalated"] += told["waymark"]["escalated"]
    sums["degraded"] += told["waymark"]["degraded"]
    sums["stopped early"] += told["waymark"]["stopped_early"]


def _shown(run: Run, members: Sequence[PanelMember], sums: Counter[str]) -> None:
    """As `_members`, where neither prices nor cached tokens are told."""
    for act in run.acts:
        rows = [m for m in members if (m.provider, m.model) == (act.provider, act.model)]
        calls = [
            a
            for a in run.acts
            if (a.provider, a.model) == (act.provider, act.model) and not a.is_unseen
        ]
        assert len(calls) <= len(rows), run
    left = [act for act in run.acts if act.has_begun]
    for member in members:
        usage = member.usage
        if usage.estimated or not (usage.input_tokens or usage.output_tokens):
            assert usage.estimated or member.status in UNPAID, run
            continue
        told = usage.input_tokens, usage.output_tokens
        name = member.provider, member.model
        mine = [act for act in left if (act.provider, act.model) == name]
        equal = [act for act in mine if (act.reported or ())[:2] == told and act.part not in HALVED]
        assert equal, (member, run)
        left.remove(equal[0])
        sums["rows equal to what was reported"] += 1


def _unfinished(run: Run, row: Row, sums: Counter[str]) -> None:
    """Left, failed or broken off: what had begun is charged, and nothing else."""
    seen = run.seen
    assert seen.reason, run
    if row.reason == OK:
        # It was whole, and its caller gone or out of time before it was told so.
        assert seen.reason in (LEFT, "DEADLINE_EXCEEDED"), run
    begun = [act for act in run.acts if act.has_begun]
    assert row.input_tokens <= sum(act.most[0] for act in begun), run
    assert row.output_tokens <= sum(act.most[1] for act in begun), run
    drafted = set[int]().union(*(act.names for act in run.acts))
    read = [act for act in begun if act.number in drafted]
    is_kept = row.reason == OK or seen.reason in (LEFT, "DEADLINE_EXCEEDED", "STREAM_INTERRUPTED")
    if read and is_kept:
        # What another model was shown had not only begun, but was whole.
        told = [act.reported or (act.prompt_tokens, act.output_tokens) for act in read]
        assert row.input_tokens >= sum(counts[0] for counts in told), run
        assert row.output_tokens >= sum(counts[1] for counts in told), run
        sums["unfinished, after drafts were read"] += 1
    assert row.output_tokens >= seen.chars // CHARS_PER_TOKEN - 1 or seen.reason != LEFT, run
    if row.input_tokens == row.output_tokens == 0:
        assert not row.cost, run
    if seen.interrupted is not None:
        _same(run, row, seen.interrupted)
        sums["broken off, and told what it used"] += 1
    sums["left by its caller" if seen.reason == LEFT else "failed"] += 1
    sums["left or failed, and charged for what had begun"] += bool(row.input_tokens)
    if seen.reason != LEFT:
        sums[f"failed: {seen.reason}"] += 1


def _again(run: Run, sums: Counter[str]) -> None:
    """The same answer under the same key, and nobody asked or charged."""
    seen, again = run.seen, run.seen.again
    assert again is not None
    assert again.is_replayed, run
    if seen.completion is not None:
        assert again.completion is not None, run
        assert again.completion.id == seen.completion.id, run
        assert again.completion.usage == seen.completion.usage, run
        assert again.completion.panel == seen.completion.panel, run
    else:
        assert seen.told is not None
        assert again.told is not None, run
        assert again.told["waymark"] == seen.told["waymark"], run
        assert again.told["usage"] == seen.told["usage"], run
    sums["replayed under its key"] += 1
