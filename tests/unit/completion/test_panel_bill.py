"""What is held for a panel, and what its members are paid, are never less than what they used."""

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.scripted import (
    QuietTelemetry,
    ScriptedProviders,
    Step,
    counted,
    cut,
    ended,
    text,
    upstream_over,
)
from trunkline.v1.completion_pb2 import Cost, Usage
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.accounts.books import Books, Tab
from trunkline_server.accounts.budgets import Budgets
from trunkline_server.accounts.idempotency import Claim, Replay
from trunkline_server.accounts.ledger import Hold
from trunkline_server.completion.attempts import Hop, Limits
from trunkline_server.completion.bill import (
    BLOCK_TOKENS,
    EXTEND_AT,
    Bill,
    Billing,
    output_tokens,
)
from trunkline_server.completion.metering import estimated_input_tokens, usage_of_hops
from trunkline_server.completion.panel import Panel
from trunkline_server.completion.panel_prompts import (
    CRITIQUE_TOKENS,
    aggregator_spec,
    critic_spec,
    critique_of,
    proposer_spec,
    room_chars,
)
from trunkline_server.completion.panel_report import panel_report
from trunkline_server.core.candidate import Candidate, PanelPlan, Plan, Price
from trunkline_server.core.deadline import Deadline
from trunkline_server.core.errors import AllProvidersFailed, StorageUnavailable
from trunkline_server.core.panels import MAX_PROPOSERS, PanelRules
from trunkline_server.core.plans import Caller
from trunkline_server.core.plans import Plan as Terms
from trunkline_server.core.ports import Prompt, Similarity
from trunkline_server.core.pricing import price
from trunkline_server.core.transactions import MakeTransaction, T
from trunkline_server.core.usage import CHARS_PER_TOKEN

CALLER = Caller("k", "acme", plan=Terms("prepaid", is_prepaid=True))
PRICED = Price(1_000_000_000, 2_000_000_000)
UNPRICED = Price()
BLOCK_CHARS = BLOCK_TOKENS * CHARS_PER_TOKEN


class NoStorage:
    """Nothing is ever written."""

    async def write(self, make: MakeTransaction[T]) -> T:
        raise AssertionError

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        raise AssertionError


class Noted:
    """Remembers what it is told of earlier turns, and how far the last one is."""

    def __init__(self) -> None:
        self.earlier: tuple[int, int, int | None] | None = None
        self.counts: tuple[int, int, int] | None = None

    def take(self, id_: str) -> int:
        return 0

    def answers(
        self,
        slot: int,
        id_: str,
        provider: str,
        model: str,
        prices: tuple[int | None, int | None, int | None],
        earlier: tuple[int, int, int | None],
    ) -> None:
        self.earlier = earlier

    def count(self, slot: int, input_tokens: int, output_tokens: int, output_chars: int) -> None:
        self.counts = (input_tokens, output_tokens, output_chars)

    def give_back(self, slot: int) -> None: ...


class Till(Books):
    """Books that remember what was held, and more when they are told so."""

    def __init__(self) -> None:
        self.noted = Noted()
        super().__init__(
            NoStorage(),
            owner="this",
            progress=self.noted,
            left_behind={},
            is_alone=True,
            now_us=lambda: 0,
        )
        self.held: list[int] = []
        self.answers: bool | StorageUnavailable = True

    async def open(self, hold: Hold, claim: Claim | None) -> Tab | Replay:
        self.held.append(hold.amount)
        return Tab(self, hold, "", 0)

    async def extend(self, hold: Hold, amount: int) -> bool:
        if isinstance(self.answers, StorageUnavailable):
            raise self.answers
        if self.answers:
            self.held.append(amount)
        return self.answers


def asked(prompt: str = "", limit: int | None = None) -> CompletionSpec:
    spec = CompletionSpec(messages=[Message(role=Role.ROLE_USER, parts=[Part(text=prompt)])])
    if limit is not None:
        spec.sampling.max_output_tokens = limit
    return spec


async def opened(till: Till, plan: Plan, spec: CompletionSpec) -> Bill:
    bill = await Billing(till, Budgets(())).open(
        caller=CALLER,
        spec=spec,
        plan=plan,
        completion_id="cmpl_1",
        request_id="",
        size_bytes=spec.ByteSize(),
        idempotency_key="",
        key_fingerprint=b"",
    )
    assert isinstance(bill, Bill)
    return bill


def seat(*prices: Price, window: int | None = None) -> Plan:
    candidates = [
        Candidate(f"p{n}", f"m{n}", "m", price=each, context_window_tokens=window)
        for n, each in enumerate(prices)
    ]
    return Plan("", "", "", tuple(candidates))


def panel(rules: PanelRules, proposers: Sequence[Plan], aggregator: Plan) -> Plan:
    everybody = tuple(c for plan in (*proposers, aggregator) for c in plan.candidates)
    members = PanelPlan(rules, tuple(proposers), aggregator, min(rules.quorum, len(proposers)))
    return replace(aggregator, candidates=everybody, panel=members, route="panel")


# Holds

NANOS = st.sampled_from([0, 1, 150_000_000, 1_000_000_000, 120_000_000_000, 10**15])
PRICES = st.one_of(
    st.builds(Price, NANOS, NANOS, st.none() | NANOS),
    st.sampled_from([UNPRICED, Price(1, None), Price(None, 1)]),
)
SEATS = st.builds(
    lambda prices, window: seat(*prices, window=window),
    st.lists(PRICES, min_size=1, max_size=3),
    st.sampled_from([None, 2_000, 128_000]),
)
PANELS = st.builds(
    lambda critiques, tokens, proposers, aggregator: panel(
        PanelRules(critiques=critiques, proposal_tokens=tokens), proposers, aggregator
    ),
    st.booleans(),
    st.sampled_from([16, 64, 1_500, 4_096, 65_536]),
    st.lists(SEATS, min_size=1, max_size=MAX_PROPOSERS),
    SEATS,
)
SPECS = st.builds(
    lambda chars, limit: asked("x" * chars, limit),
    st.integers(0, 20_000),
    st.none() | st.integers(1, 100_000),
)


def dearest(plan: Plan, spec: CompletionSpec, written_tokens: int) -> int:
    """A turn that reads all it is asked and writes all it may, at whoever asks most for it."""
    read = estimated_input_tokens(spec)
    costs = [0]
    for candidate in plan.candidates:
        for cached in (0, read):
            usage = Usage(
                input_tokens=read, cached_input_tokens=cached, output_tokens=written_tokens
            )
            cost = price(usage, candidate.price)
            costs.append(cost.amount_nanos if cost is not None else 0)
    return max(costs)


def most(plan: Plan, spec: CompletionSpec) -> int:
    """What the panel costs when everybody is asked, and writes and reads as much as they may."""
    found = plan.panel
    assert found is not None
    answer_tokens = output_tokens(spec)
    if not found.mixes:
        return dearest(found.proposers[0], spec, answer_tokens)
    rules = found.rules
    draft = proposer_spec(spec, rules.proposal_tokens, resamples=False)
    limit = draft.sampling.max_output_tokens
    total = sum(dearest(proposer, draft, limit) for proposer in found.proposers)
    texts = ["y" * (limit * CHARS_PER_TOKEN)] * len(found.proposers)
    window = found.aggregator.candidates[0].context_window_tokens
    room = room_chars(window, spec.ByteSize(), len(texts))
    critique = ""
    if rules.critiques:
        critic = critic_spec(spec, texts, "seed", room)
        total += dearest(found.aggregator, critic, critic.sampling.max_output_tokens)
        written = {"consensus": ["z" * (CRITIQUE_TOKENS * CHARS_PER_TOKEN - 20)]}
        critique = critique_of(json.dumps(written, separators=(",", ":")))
        assert critique
    return total + dearest(
        found.aggregator, aggregator_spec(spec, texts, critique, "seed", room), answer_tokens
    )


@settings(deadline=None, max_examples=300)
@given(plan=PANELS, spec=SPECS)
async def test_no_less_is_held_than_can_be_charged(plan, spec):
    till = Till()

    await opened(till, plan, spec)

    assert till.held[0] >= min(10**18, most(plan, spec))


async def test_what_is_held_is_the_sum_of_all_turns():
    rules = PanelRules(critiques=True, proposal_tokens=100)
    plan = panel(rules, [seat(PRICED), seat(Price(0, 0), UNPRICED)], seat(PRICED))
    spec = asked("x" * 298, 50)
    till = Till()

    await opened(till, plan, spec)

    prompt = spec.ByteSize() // 3 + 64
    read = prompt + 2 * 50 + 400
    critic = read + 2 * 1_024
    maker = read + 1_024 + 2 * 50
    assert till.held == [(prompt + 2 * 50 + critic + maker) * 1_000]


@settings(deadline=None, max_examples=50)
@given(plan=PANELS, wider=PANELS, spec=SPECS)
async def test_as_much_is_held_for_a_wider_panel_as_if_it_had_been_asked_at_once(plan, wider, spec):
    till, other = Till(), Till()
    bill = await opened(till, plan, spec)
    await opened(other, wider, spec)

    assert await bill.widen(wider, spec.ByteSize())

    assert sum(till.held[1:]) == other.held[0]


@pytest.mark.parametrize("answer", [False, StorageUnavailable(retry_after_s=1.0)])
async def test_a_wider_panel_that_cannot_be_held_is_not_asked(answer):
    plan = panel(PanelRules(), [seat(PRICED), seat(PRICED)], seat(PRICED))
    till = Till()
    bill = await opened(till, plan, asked("x", 50))
    till.answers = answer

    assert not await bill.widen(plan, 100)


# Turns


def hop_over(
    steps: Sequence[Step], rate: Price = PRICED, spec: CompletionSpec | None = None
) -> Hop:
    candidate = Candidate("a", "m", "m", price=rate)
    providers = ScriptedProviders(a=[steps])
    upstream = upstream_over(providers, QuietTelemetry())
    prompt = Prompt(spec or asked(), stream=True)
    plan = Plan("", "", "", (candidate,))
    return Hop(upstream, plan, prompt, Deadline(1e12), Limits(), "hop")


async def read(hop: Hop) -> Hop:
    async for _ in hop.batches():
        pass
    return hop


async def failed() -> Hop:
    hop = hop_over([cut()])
    with pytest.raises(AllProvidersFailed):
        await read(hop)
    return hop


@pytest.mark.parametrize(
    ("rates", "earlier"),
    [
        ([], (0, 0, 0)),
        ([PRICED], (5, 3, 11_000)),
        ([PRICED, Price(0, 0)], (10, 6, 11_000)),
        ([PRICED, UNPRICED], (10, 6, None)),
    ],
)
@pytest.mark.parametrize("failures", [0, 2])
async def test_what_earlier_turns_used_and_cost_is_noted(rates, earlier, failures):
    whole = [text("Hello"), counted(3), ended()]
    hops = [await failed() for _ in range(failures)]
    hops += [await read(hop_over(whole, rate)) for rate in rates]
    hops.append(await read(hop_over(whole)))
    till = Till()
    bill = await opened(till, seat(PRICED), asked())

    bill.begins(hops)

    assert till.noted.earlier == earlier


async def test_a_later_turn_is_noted_with_what_it_was_asked():
    drafts = asked("draft " * 100)
    first = await read(hop_over([text("Hello"), counted(3), ended()]))
    last = await read(hop_over([text("Hello"), ended()], spec=drafts))
    till = Till()
    bill = await opened(till, seat(PRICED), asked())

    bill.begins([first])
    bill.is_outgrown(first)
    alone = till.noted.counts
    bill.begins([first, last])
    bill.is_outgrown(last)

    assert alone == (0, 0, 5)
    assert till.noted.counts == (150, 0, 5)


async def test_the_answer_of_a_wider_panel_outgrows_its_own_hold_alone():
    plan = panel(PanelRules(), [seat(PRICED), seat(PRICED)], seat(PRICED))
    till = Till()
    bill = await opened(till, plan, asked())
    nearly = math.ceil(EXTEND_AT * BLOCK_CHARS)
    first = await read(hop_over([text("x" * nearly), ended()]))
    before = await read(hop_over([text("x" * (nearly - 1)), ended()]))
    assert bill.is_outgrown(first)
    assert await bill.extend()

    assert await bill.widen(plan, 100)

    assert not bill.is_outgrown(before)
    assert bill.is_outgrown(first)


# Members


class Slow:
    """The `Similarity` port, which takes until it is told to go on."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def cosine(self, first: str, second: str) -> float | None:
        self.asked.set()
        await self.goes_on.wait()
        return 1.0


def panel_over(
    providers: ScriptedProviders, rules: PanelRules, seats: Sequence[str], similarity: Similarity
) -> Panel:
    """Each seat names the providers of a proposer. The caller sees nothing before the end."""
    upstream = upstream_over(providers, QuietTelemetry())
    plans = [
        Plan("", "", "", tuple(Candidate(name, "m", "m", price=PRICED) for name in names))
        for names in seats
    ]

    def new_hop(spec: CompletionSpec, plan: Plan, number: int, is_member: bool = False) -> Hop:
        limits = Limits(whole=True)
        return Hop(upstream, plan, Prompt(spec, stream=True), Deadline(1e12), limits, "hop", number)

    async def is_paid_for(_: Plan) -> bool:
        return True

    return Panel(
        plan=panel(rules, plans, plans[0]),
        spec=asked(),
        deadline=Deadline(asyncio.get_running_loop().time() + 60.0),
        new_hop=new_hop,
        new_turns=None,
        wider=lambda _: None,
        is_paid_for=is_paid_for,
        similarity=similarity,
        tell=lambda _: None,
        settled_at_s=None,
        seed="seed",
    )


async def test_a_proposal_that_ends_while_others_are_compared_is_paid_for():
    # Of which only a model can tell that they say the same.
    whole: list[Step] = [text("The sky is blue today."), counted(3), ended()]
    other: list[Step] = [text("Today the sky is blue."), counted(3), ended()]
    third: list[Step] = [text("Blue."), 0.05, counted(7), ended()]
    providers = ScriptedProviders(a=[whole], b=[other], c=[third])
    similarity = Slow()
    rules = PanelRules(quorum=2, stops_early=True)
    found = panel_over(providers, rules, "abc", similarity)
    reading = asyncio.ensure_future(_read(found))
    async with asyncio.timeout(10.0):
        await similarity.asked.wait()
        while not found.members[2].has_ended:  # noqa: ASYNC110 - a member tells nobody
            await asyncio.sleep(0.005)

        similarity.goes_on.set()
        await reading

    rows = panel_report(found).members
    assert [(row.provider, row.status, row.usage.output_tokens) for row in rows] == [
        ("a", "used", 3),
        ("b", "unused", 3),
        ("c", "unused", 7),
    ]
    cost = Cost(amount_nanos=15 * 1_000 + 13 * 2_000, currency_code="USD")
    assert usage_of_hops(found.hops) == Usage(
        input_tokens=15, output_tokens=13, total_tokens=28, cost=cost
    )


async def test_of_a_proposal_that_had_to_begin_again_the_last_attempt_is_paid_for():
    providers = ScriptedProviders(
        a=[[text("Hel"), cut()]],
        b=[[cut()]],
        c=[[text("Hello"), counted(3), ended()]],
    )
    found = panel_over(providers, PanelRules(), ["ac", "b"], Slow())

    await _read(found)

    rows = panel_report(found).members
    assert [(row.provider, row.status, row.usage.output_tokens) for row in rows] == [
        ("a", "failed", 0),
        ("c", "used", 3),
        ("b", "failed", 0),
    ]


async def _read(found: Panel) -> None:
    async for _ in found.batches():
        pass
