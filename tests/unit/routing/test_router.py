"""Who may answer a request: filters, order, and what is said when nobody may."""

from typing import Any

import pytest

from tests.unit.routing.test_scoring_run import run
from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    JsonObjectFormat,
    JsonSchemaFormat,
    OptimizeFor,
    ResponseFormat,
    RoutingConstraints,
    RoutingIntent,
    SamplingOptions,
    Tool,
    ToolOptions,
)
from trunkline.v1.message_pb2 import Media, Message, Part, Role, ToolCall, ToolResult
from trunkline_server.core.candidate import Candidate, Capability, Exclusion, Price
from trunkline_server.core.errors import CapabilityUnsupported, NoEligibleProvider
from trunkline_server.routing.catalog import Catalog, Route, Strategy
from trunkline_server.routing.experience import Experience
from trunkline_server.routing.router import MAX_CANDIDATES, Router, required
from trunkline_server.routing.scores import Scores
from trunkline_server.routing.scoring_run import Cell, sealed

ALL = frozenset(Capability)
PICTURE = Part(image=Media(url="https://x.test/a.png"))


def candidate(provider: str, name: str = "m", **more: Any) -> Candidate:
    """A deployment."""
    return Candidate(provider, name, name, **more)


def spec(*parts: Part, **fields: Any) -> CompletionSpec:
    """A request."""
    message = Message(role=Role.ROLE_USER, parts=parts or [Part(text="hi")])
    return CompletionSpec(**{"model": "m", "messages": [message], **fields})


def router(*candidates: Candidate, routes: tuple[Route, ...] = ()) -> Router:
    """Over these."""
    scores = Scores(None, candidates)
    return Router(Catalog(candidates, routes), scores, Experience(scores.measured), lambda: 0.0)


A, B = candidate("a"), candidate("b")


@pytest.mark.parametrize(
    ("request_", "needs"),
    [
        (spec(), []),
        (spec(PICTURE), [(Capability.VISION, "spec.messages[0].parts[0].image")]),
        (
            spec(Part(text="hi"), Part(audio=Media(file_id="f"))),
            [(Capability.AUDIO_INPUT, "spec.messages[0].parts[1].audio")],
        ),
        (
            spec(Part(video=Media(file_id="f"))),
            [(Capability.VIDEO_INPUT, "spec.messages[0].parts[0].video")],
        ),
        (spec(output_modalities=["text"]), []),
        (
            spec(output_modalities=["text", "image"]),
            [(Capability.IMAGE_OUTPUT, "spec.output_modalities")],
        ),
        (
            spec(Part(document=Media(file_id="f"))),
            [(Capability.DOCUMENTS, "spec.messages[0].parts[0].document")],
        ),
        (
            spec(Part(tool_call=ToolCall(id="c"))),
            [(Capability.TOOLS, "spec.messages[0].parts[0].tool_call")],
        ),
        (
            spec(Part(tool_result=ToolResult(parts=[Part(text="x"), PICTURE]))),
            [
                (Capability.TOOLS, "spec.messages[0].parts[0].tool_result"),
                (Capability.VISION, "spec.messages[0].parts[0].tool_result"),
            ],
        ),
        (
            spec(tool_options=ToolOptions(tools=[Tool(name="f")])),
            [(Capability.TOOLS, "spec.tool_options.tools")],
        ),
        (
            spec(response_format=ResponseFormat(json_schema=JsonSchemaFormat())),
            [(Capability.STRUCTURED_OUTPUT, "spec.response_format.json_schema")],
        ),
        (spec(response_format=ResponseFormat(json_object=JsonObjectFormat())), []),
        (
            spec(sampling=SamplingOptions(candidate_count=2, logprobs=True)),
            [
                (Capability.MULTIPLE_CHOICES, "spec.sampling.candidate_count"),
                (Capability.LOGPROBS, "spec.sampling.logprobs"),
            ],
        ),
        (spec(sampling=SamplingOptions(candidate_count=1, seed=1, top_k=5)), []),
    ],
    ids=range(14),
)
def test_a_request_needs_what_it_could_not_be_answered_without(request_, needs):
    assert required(request_) == needs


def test_who_can_do_it_is_asked_and_the_other_is_named_with_the_field():
    blind = candidate("a", capabilities=ALL - {Capability.VISION})

    plan = router(blind, B).plan(spec(PICTURE), "req_1")

    assert plan.candidates == (B,)
    field = "spec.messages[0].parts[0].image"
    assert plan.excluded == (Exclusion(blind, "has no vision", field),)


def test_log_probabilities_are_left_to_the_policy():
    without = candidate("a", capabilities=ALL - {Capability.LOGPROBS})

    plan = router(without).plan(spec(sampling=SamplingOptions(logprobs=True)), "req_1")

    assert plan.candidates == (without,)


@pytest.mark.parametrize(
    ("constraints", "kept", "reason"),
    [
        ({"allowed_providers": ["b"]}, B, "not an allowed provider"),
        ({"denied_providers": ["a"]}, B, "a denied provider"),
        ({"allowed_models": ["b/m"]}, B, "not an allowed model"),
    ],
    ids=["allowed", "denied", "models"],
)
def test_a_constraint_removes_whom_it_names(constraints, kept, reason):
    plan = router(A, B).plan(spec(constraints=RoutingConstraints(**constraints)), "req_1")

    assert plan.candidates == (kept,)
    assert plan.excluded == (Exclusion(A, reason),)


@pytest.mark.parametrize("name", ["m", "a/m", "alias"])
def test_an_allowed_model_is_known_by_each_of_its_names(name):
    named = candidate("a", aliases=("alias",))

    found = router(named).plan(
        spec(constraints=RoutingConstraints(allowed_models=["x", name])), "req_1"
    )

    assert found.candidates == (named,)


def test_what_could_cost_more_than_the_maximum_is_left_out():
    dear = candidate("a", price=Price(10**9, 10**9))
    cheap = candidate("b", price=Price(1, 1))
    unknown = candidate("c")
    request = spec(
        constraints=RoutingConstraints(max_cost_nanos=50_000),
        sampling=SamplingOptions(max_output_tokens=100),
    )

    plan = router(dear, cheap, unknown).plan(request, "req_1")

    worst_nanos = (request.ByteSize() // 3 + 100) * 1_000
    assert plan.candidates == (cheap,)
    assert plan.excluded == (
        Exclusion(dear, f"too dear: it could cost {worst_nanos} nanos"),
        Exclusion(unknown, "without a known price, and a maximum cost was given"),
    )


def test_filters_hold_for_fallbacks_too():
    first = candidate("a", fallbacks=("n",))
    second = candidate("b", "n")

    plan = router(first, second).plan(
        spec(constraints=RoutingConstraints(denied_providers=["b"])), "req_1"
    )

    assert plan.candidates == (first,)
    assert plan.excluded == (Exclusion(second, "a denied provider"),)


@pytest.mark.parametrize(
    ("mode", "asked"),
    [("", ["a", "c"]), ("auto", ["a", "c"]), ("fast", ["b", "c"]), ("deep", ["c"])],
)
def test_a_mode_asks_its_candidates_and_those_of_no_mode(mode, asked):
    several = router(
        candidate("a", modes=("auto",)), candidate("b", modes=("fast",)), candidate("c")
    )

    plan = several.plan(spec(model="", mode=mode), "req_1")

    assert [c.provider for c in plan.candidates] == asked
    assert plan.resolved_mode == ("" if mode == "auto" else mode)


def test_a_pinned_model_answers_in_any_mode():
    only = candidate("a", modes=("fast",))

    plan = router(only).plan(spec(mode="deep"), "req_1")

    assert plan.candidates == (only,)
    assert plan.pinned


def test_deployments_are_ranked_and_the_embedded_model_stays_last():
    poor = candidate("a", scores={"accuracy": 0.1})
    good = candidate("b", scores={"accuracy": 0.9})
    embedded = candidate("local", embedded=True, scores={"accuracy": 1.0})

    plan = router(embedded, poor, good).plan(spec(model="auto"), "req_1")

    assert plan.candidates == (good, poor, embedded)
    assert plan.decision is not None
    assert set(plan.decision.scores()) == {"a/m", "b/m"}


def test_the_intent_decides_the_order():
    poor = candidate("a", scores={"accuracy": 0.1, "latency": 1.0})
    good = candidate("b", scores={"accuracy": 0.9, "latency": 0.0})
    intent = RoutingIntent(optimize_for=OptimizeFor.OPTIMIZE_FOR_LATENCY)

    plan = router(good, poor).plan(spec(intent=intent), "req_1")

    assert plan.candidates == (poor, good)


def test_a_weighted_route_draws_by_the_id_of_the_request():
    canary = Route("canary", ("m", "n"), Strategy.WEIGHTED, weights=(1.0, 1.0))
    both = router(A, candidate("b", "n"), routes=(canary,))

    def plan(request_id: str) -> list[str]:
        found = both.plan(spec(model="canary"), request_id)
        return [c.provider for c in found.candidates]

    orders = {tuple(plan(f"req_{number}")) for number in range(40)}
    assert orders == {("a", "b"), ("b", "a")}
    assert plan("req_7") == plan("req_7")


def test_a_plan_is_no_longer_than_anyone_would_wait_for():
    many = [candidate(f"p{number}") for number in range(MAX_CANDIDATES + 1)]

    plan = router(*many).plan(spec(), "req_1")

    assert plan.candidates == tuple(many[:MAX_CANDIDATES])


def test_when_nobody_can_do_it_the_field_is_blamed():
    blind = candidate("a", capabilities=ALL - {Capability.VISION})

    with pytest.raises(CapabilityUnsupported) as caught:
        router(blind).plan(spec(PICTURE), "req_1")

    assert caught.value.message == "spec.messages[0].parts[0].image: a/m has no vision"


def test_when_constraints_leave_nobody_they_are_blamed():
    blind = candidate("b", capabilities=ALL - {Capability.VISION})
    request = spec(PICTURE, constraints=RoutingConstraints(denied_providers=["a"]))

    with pytest.raises(NoEligibleProvider) as caught:
        router(A, blind).plan(request, "req_1")

    assert (
        caught.value.message == "no candidate is left: a/m: a denied provider; b/m: has no vision"
    )


def test_without_any_provider_that_is_said():
    with pytest.raises(NoEligibleProvider) as caught:
        router().plan(spec(model="auto"), "req_1")

    assert caught.value.message == "no provider is enabled"


def learned(*candidates: Candidate, clock: list[float], **more: Any) -> tuple[Router, Experience]:
    """Over these, at the time that the list holds."""
    scores = Scores(None, candidates)
    experience = Experience(scores.measured)
    found = Router(Catalog(candidates, ()), scores, experience, lambda: clock[0], **more)
    return found, experience


def tell(
    experience: Experience, asked: Candidate, latency_s: float, failed: bool = False, times: int = 9
) -> None:
    """It was asked so often, a second apart."""
    for second in range(times):
        experience.ended(asked, float(second), whole=False, latency_s=latency_s, failed=failed)


def first(asked: Router, request: CompletionSpec, number: int = 1, *, whole: bool = False) -> str:
    """Who comes first."""
    return asked.plan(request, f"req_{number}", whole=whole).candidates[0].provider


def test_who_has_become_slow_is_asked_later_by_callers_of_streams():
    clock = [10.0]
    both, experience = learned(A, B, clock=clock)
    assert first(both, spec()) == "a"

    tell(experience, A, latency_s=6.0)

    assert first(both, spec()) == "b"
    assert first(both, spec(), whole=True) == "a"


def test_a_few_are_sent_to_who_is_not_the_best_and_the_plan_says_so():
    both, experience = learned(A, B, clock=[10.0])
    tell(experience, A, latency_s=1.0)
    tell(experience, B, latency_s=1.3)

    plans = [both.plan(spec(), f"req_{number}") for number in range(2_000)]

    explored = [plan for plan in plans if plan.candidates[0] is B]
    assert 10 <= len(explored) <= 80
    for plan in plans:
        assert plan.decision is not None
        assert plan.decision.is_explored == (plan.candidates[0] is B)
    again = [both.plan(spec(), f"req_{number}").candidates for number in range(2_000)]
    assert again == [plan.candidates for plan in plans]


def test_fallbacks_are_never_explored():
    main = candidate("a", fallbacks=("n",))
    both, _ = learned(main, candidate("b", "n"), candidate("c", "n"), clock=[0.0])

    plans = [both.plan(spec(), f"req_{number}") for number in range(1_000)]

    assert {tuple(c.provider for c in plan.candidates) for plan in plans} == {("a", "b", "c")}


def test_who_fails_mostly_comes_after_all_others_fallbacks_too():
    main = candidate("a", fallbacks=("n",))
    fallback = candidate("b", "n")
    clock = [10.0]
    both, experience = learned(main, fallback, clock=clock)
    both.plan(spec(), "req_1")

    tell(experience, main, latency_s=0.1, failed=True)
    plan = both.plan(spec(), "req_1")

    assert plan.candidates == (fallback, main)
    reason = "100% of its recent attempts failed: asked only when all others have"
    assert plan.demoted == {"a/m": reason}
    clock[0] = 200.0
    assert both.plan(spec(), "req_1").candidates == (main, fallback)


def test_when_all_fail_mostly_nobody_is_passed_over_for_it():
    both, experience = learned(A, B, clock=[10.0])
    tell(experience, A, latency_s=0.1, failed=True)
    tell(experience, B, latency_s=0.1, failed=True)

    plan = both.plan(spec(), "req_1")

    assert sorted(c.key for c in plan.candidates) == ["a/m", "b/m"]
    assert plan.demoted == {}


def test_the_dearer_is_asked_by_who_does_not_mind():
    dear = candidate("a", price=Price(10**9, 10**9), scores={"accuracy": 0.9})
    cheap = candidate("b", price=Price(10**6, 10**6), scores={"accuracy": 0.5})
    both, _ = learned(dear, cheap, clock=[0.0])

    def asked(optimize_for: "OptimizeFor.ValueType") -> str:
        return first(both, spec(intent=RoutingIntent(optimize_for=optimize_for)))

    assert asked(OptimizeFor.OPTIMIZE_FOR_ACCURACY) == "a"
    assert asked(OptimizeFor.OPTIMIZE_FOR_COST) == "b"


def test_what_counts_of_a_price_depends_on_how_much_is_read_and_written():
    reader = candidate("a", price=Price(10, 1_000))
    writer = candidate("b", price=Price(100, 100))
    both, experience = learned(reader, writer, clock=[0.0])
    intent = RoutingIntent(optimize_for=OptimizeFor.OPTIMIZE_FOR_COST)

    assert first(both, spec(intent=intent)) == "b"
    assert first(both, spec(Part(text="word " * 20_000), intent=intent)) == "a"
    for provider in (reader, writer):
        for second in range(200):
            experience.ended(
                provider, second, whole=False, latency_s=1.0, failed=False, output_tokens=1
            )
    assert first(both, spec(Part(text="word " * 600), intent=intent)) == "a"


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ("", ["a", "b", "c"]),
        ("global", ["a", "b", "c"]),
        ("eu", ["a", "c"]),
        ("EU-west-1", ["a", "c"]),
        ("eu-central-1", ["c"]),
        ("us-east-1", ["b", "c"]),
    ],
)
def test_who_is_elsewhere_is_not_asked(asked, kept):
    several = router(
        candidate("a", regions=("eu-west-1",)), candidate("b", regions=("US",)), candidate("c")
    )

    plan = several.plan(spec(intent=RoutingIntent(region=asked)), "req_1")

    assert [c.provider for c in plan.candidates] == kept
    assert all("not in the region" in e.reason for e in plan.excluded)


def test_who_could_not_hold_the_messages_is_not_asked_unless_by_name():
    small = candidate("a", context_window_tokens=1_000)
    large = candidate("b", context_window_tokens=100_000)
    long = Part(text="word " * 2_000)

    plan = router(small, large).plan(spec(long, model="auto"), "req_1")
    named = router(small, large).plan(spec(long, model="a/m"), "req_1")

    assert plan.candidates == (large,)
    reason = "its context window holds 1000 tokens, fewer than the messages have"
    assert plan.excluded == (Exclusion(small, reason),)
    assert named.candidates == (small,)
    short = router(small, large).plan(spec(Part(text="word " * 700), model="auto"), "req_1")
    assert len(short.candidates) == 2


def test_a_short_request_says_nothing_of_a_long_one():
    only = router(candidate("a", context_window_tokens=1_000))
    only.plan(spec(model="auto"), "req_1")

    with pytest.raises(NoEligibleProvider, match="its context window holds 1000 tokens"):
        only.plan(spec(Part(text="word " * 2_000), model="auto"), "req_1")


def test_a_picture_is_not_counted_as_text():
    small = candidate("a", context_window_tokens=1_000)
    picture = Part(image=Media(data=b"x" * 100_000))

    assert router(small, B).plan(spec(picture, model="auto"), "req_1").excluded == ()


def test_the_language_is_asked_for_only_where_it_makes_a_difference():
    asked: list[str] = []

    def language_of(_: CompletionSpec) -> str:
        asked.append("!")
        return "de"

    german = sealed(run(Cell("a/m", 0.2, "de"), Cell("a/m", 0.9), Cell("b/m", 0.6)))
    scores = Scores(german, (A, B))
    knows = Router(Catalog((A, B), ()), scores, Experience({}), lambda: 0.0, language_of)

    detected = knows.plan(spec(), "req_1")
    named = knows.plan(spec(intent=RoutingIntent(language="fr-CH")), "req_1")

    assert (detected.candidates[0], named.candidates[0]) == (B, A)
    assert detected.decision is not None
    assert named.decision is not None
    assert (detected.decision.language, named.decision.language) == ("de", "")
    assert detected.decision.scores_run_id == german.id
    assert asked == ["!"]
    plain, _ = learned(A, B, clock=[0.0], language_of=language_of)
    plain.plan(spec(), "req_1")
    assert asked == ["!"]
