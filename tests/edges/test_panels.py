"""Panels over real sockets: who is asked, who is waited for, what becomes of the others, what the caller is told."""

import asyncio
import base64
import json
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import pytest

from tests.edges.errors import fields_of, reason_of
from tests.edges.observed import LIMIT_S, Observed, Streamed, observed, spec, stream
from tests.faults.lag import loop_lag, share_of
from tests.faults.waiting import until
from tests.support.accounts import PREPAID, PRICES, desk, new_sqlite
from tests.support.service import model, provider
from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Pause,
    Reset,
    Script,
    Step,
    Upstream,
    answer,
    delta,
    event,
    finish,
    head,
    upstream,
    usage,
    whole,
)
from trunkline.v1.completion_pb2 import Completion, PanelMember, PanelReport, Usage
from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest, StreamOptions
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    RoutingConstraints,
    SamplingOptions,
    Tool,
    ToolOptions,
    WebhookSource,
)

pytestmark = pytest.mark.once

PROPOSER: Final = "proposer"
CRITIC: Final = "critic"
AGGREGATOR: Final = "aggregator"
USED: Final = "used"
UNUSED: Final = "unused"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"

MODELS: Final = "abcz"
PANEL: Final[Mapping[str, Any]] = {"proposers": ["a", "b", "c"], "aggregator": "z"}
QUESTION: Final = "What is it?"
INPUT_TOKENS: Final = 9
LEFT_WITHIN_S: Final = 0.050
LEFT_AT_LAST_S: Final = 0.250
SPARE_S: Final = 0.005  # By which timers go off early.
# Sockets that are kept for the next request could not be told from those that were forgotten.
CLOSE: Final = "connection: close"
HEAD: Final = head(200, "text/event-stream", CLOSE)
# Nobody is reached by TLS here, and to read all authorities takes longer than most of these tests.
NO_AUTHORITIES: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
FAILING: Final = whole({"error": {"message": "no"}}, 500, CLOSE)
HANGING: Final[list[Step]] = [Hang()]
BEGUN: Final[list[Step]] = [HEAD, event(delta("Well, ")), Hang()]
ONCE: Final = RoutingConstraints(max_attempts=1)  # So that nobody is asked again.
FULL: Final = StreamOptions(include_final_messages=True)


def role_of(exchange: Exchange) -> str:
    """What a model is asked to be."""
    last = exchange.json["messages"][-1]["content"]
    text = last if isinstance(last, str) else "".join(p.get("text", "") for p in last)
    if "Now compare the drafts" in text:
        return CRITIC
    return AGGREGATOR if "Now write the one best answer" in text else PROPOSER


def says(
    *texts: str,
    tokens: int = 4,
    reason: str = "stop",
    after_s: float = 0.0,
    logprob: float | None = None,
) -> Callable[[Exchange], Sequence[Step]]:
    """A model that answers so, streamed or whole as it is asked. `tokens`: that it counts as its output."""

    def script(exchange: Exchange) -> Sequence[Step]:
        logprobs: dict[str, Any] | None = None
        if logprob is not None and exchange.json.get("logprobs"):
            token = {"token": "t", "logprob": logprob, "bytes": None, "top_logprobs": []}
            logprobs = {"content": [token] * 3, "refusal": None}
        waits: list[Step] = [Pause(after_s)] if after_s else []
        if exchange.json.get("stream"):
            chunks = [delta(text) for text in texts]
            for chunk in chunks:
                chunk["choices"][0]["logprobs"] = logprobs
            ends = [finish(reason), usage(INPUT_TOKENS, tokens), "[DONE]"]
            return [*waits, HEAD, *map(event, [*chunks, *ends]), END]
        if logprobs is not None:
            logprobs["content"] *= len(texts)
        message = {"role": "assistant", "content": "".join(texts)}
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": logprobs}
        counts = usage(INPUT_TOKENS, tokens)["usage"]
        answered = {"id": "c", "object": "chat.completion", "model": "m-1"}
        return [*waits, *whole({**answered, "choices": [choice], "usage": counts}, 200, CLOSE)]

    return script


def by_role(**scripts: Script | Sequence[Step]) -> Callable[[Exchange], Any]:
    """A model that does as it is asked to be."""
    return lambda exchange: steps_of(scripts[role_of(exchange)], exchange)


def steps_of(script: Script | Sequence[Step], exchange: Exchange) -> Any:
    """What a script comes to."""
    return script(exchange) if callable(script) else script


@dataclass
class World:
    """A service with a panel, and its models."""

    running: Observed
    models: Upstream

    def asked(self, name: str = "", role: str = "") -> list[Exchange]:
        """Requests that a model has got, as that."""
        return [
            exchange
            for exchange in self.models.exchanges
            if name in ("", exchange.json["model"]) and role in ("", role_of(exchange))
        ]

    async def stream(
        self, asked: CompletionSpec | None = None, options: StreamOptions = FULL, **more: Any
    ) -> Streamed:
        """Over gRPC."""
        return await stream(self.running.service, asked or question(), options, **more)

    async def unary(self, asked: CompletionSpec | None = None) -> Completion:
        """Over gRPC."""
        async with grpc.aio.insecure_channel(self.running.service.grpc_address) as channel:
            request = CompleteUnaryRequest(spec=asked or question())
            response = await CompletionServiceStub(channel).CompleteUnary(request, timeout=LIMIT_S)
        return response.completion

    async def complete(self, way: str, asked: CompletionSpec | None = None) -> Completion:
        """In either way. What was streamed is what is told in the end."""
        if way == "unary":
            return await self.unary(asked)
        streamed = await self.stream(asked)
        end = completed(streamed)
        assert streamed.text == text_of(end)
        return end

    async def error(self, way: str, asked: CompletionSpec | None = None) -> grpc.aio.AioRpcError:
        """How a request fails, in either way."""
        if way == "unary":
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await self.unary(asked)
            return caught.value
        error = (await self.stream(asked)).error
        assert error is not None
        return error

    async def chat(self, **body: Any) -> httpx.Response:
        """Over the shim."""
        asked = {"model": "p", "messages": [{"role": "user", "content": QUESTION}], **body}
        async with httpx.AsyncClient(timeout=LIMIT_S, verify=NO_AUTHORITIES) as http:
            return await http.post(
                f"http://{self.running.service.http_address}/v1/chat/completions", json=asked
            )

    async def is_left(self) -> None:
        """Nothing is held any more: no request, connection, socket, permit or task."""
        service = self.running.service
        await until(lambda: service.admission.in_flight == 0, "no request in flight", LIMIT_S / 4)
        await until(lambda: service.transport.open_connections == 0, "no connection", LIMIT_S / 4)
        await until(lambda: self.models.open_sockets == 0, "no socket left", LIMIT_S / 4)
        limits = [service.circuits.health(c).concurrency for c in service.catalog.candidates]
        assert [limit.in_flight for limit in limits] == [0] * len(limits)
        await until(lambda: not panel_tasks(), "no task of a panel left", LIMIT_S / 4)


def panel_tasks() -> list[str]:
    """Those that members run in."""
    tasks = [task.get_coro() for task in asyncio.all_tasks()]
    names = [str(getattr(coro, "__qualname__", "")) for coro in tasks]
    return [name for name in names if name.startswith(("Panel.", "Hop.", "Turns."))]


@asynccontextmanager
async def world(
    scripts: Mapping[str, Script | Sequence[Step]],
    panel: Mapping[str, Any] | None = None,
    *,
    routes: Sequence[Mapping[str, Any]] | None = None,
    more: Mapping[str, Mapping[str, Any]] | None = None,
    **sections: Any,
) -> AsyncIterator[World]:
    """A service with a model for each script, each at a provider of its name, and the panel `p` of a, b and c.

    Args:
        panel: what differs from that.
        routes: instead of it.
        more: of a model's entry, by its name.
    """
    panel = {**PANEL, **(panel or {})}
    found = {
        "routes": [{"id": "p", "panel": panel}] if routes is None else list(routes),
        "models": [model(name, name, **(more or {}).get(name, {})) for name in scripts],
    }

    def script(exchange: Exchange) -> Any:
        return steps_of(scripts[exchange.json["model"]], exchange)

    async with AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("SSL_CERT_FILE", os.devnull)
        models = await stack.enter_async_context(upstream(script))
        found["providers"] = [provider(name, models.url) for name in scripts]
        running = await stack.enter_async_context(observed(**{**found, **sections}))
        yield World(running, models)


def question(route: str = "p", text: str = QUESTION, **fields: Any) -> CompletionSpec:
    """For a panel."""
    return spec(route, text, **fields)


def check_promptness(left_s: Sequence[float], late_s: Sequence[float]) -> None:
    """They were left in time, but for what the loop itself was late while others used the machine.

    They are few, so the one that others held up longest must not decide.
    """
    lag_s = max(late_s, default=0.0)
    assert share_of(left_s, 75) <= LEFT_WITHIN_S + lag_s
    assert max(left_s) <= LEFT_AT_LAST_S + lag_s


def completed(found: Streamed) -> Completion:
    """The end of a stream."""
    assert found.error is None
    return found.events[-1].completed.completion


def text_of(end: Completion) -> str:
    """What the caller is told."""
    (choice,) = end.choices
    return "".join(part.text for part in choice.message.parts)


def tokens(output: int, inputs: int = INPUT_TOKENS, *, estimated: bool = False) -> Usage:
    """Of one call."""
    return Usage(
        input_tokens=inputs,
        output_tokens=output,
        total_tokens=inputs + output,
        estimated=estimated,
    )


def row(
    name: str,
    role: str,
    status: str,
    used: Usage | int | None = None,
    *,
    layer: int | None = None,
    error: tuple[grpc.StatusCode, str] | None = None,
) -> PanelMember:
    """One of a report. `used`: output tokens, where the upstream counts them."""
    layer = int(role != PROPOSER) if layer is None else layer
    counted = used if isinstance(used, Usage) else Usage() if used is None else tokens(used)
    member = PanelMember(provider=name, model=name, role=role, status=status, layer=layer)
    member.usage.CopyFrom(counted)
    if error is not None:
        code, message = error
        member.error.code, member.error.message = code.value[0], message
    return member


def report(*members: PanelMember, route: str = "p", asked: str = "", **more: Any) -> PanelReport:
    """Of a route that was asked itself."""
    return PanelReport(route=route, requested_route=asked or route, members=members, **more)


def told(end: Completion) -> PanelReport:
    """The report, without how long it took, what it cost, and an error's details. Its sum is the usage."""
    total = Usage()
    found = PanelReport()
    found.CopyFrom(end.panel)
    for member in found.members:
        total.input_tokens += member.usage.input_tokens
        total.output_tokens += member.usage.output_tokens
        total.total_tokens += member.usage.total_tokens
        total.estimated |= member.usage.estimated
        if member.usage.HasField("cost"):
            total.cost.amount_nanos += member.usage.cost.amount_nanos
            total.cost.currency_code = member.usage.cost.currency_code
            total.cost.estimated |= member.usage.cost.estimated
            member.usage.ClearField("cost")
        member.ClearField("duration")
        member.error.ClearField("details")
        if not member.error.code:
            member.ClearField("error")
    assert end.usage == total
    return found


BROKEN: Final = (grpc.StatusCode.UNAVAILABLE, "provider unavailable")
LOST: Final = (grpc.StatusCode.UNAVAILABLE, "provider connection lost")
THREE: Final[Mapping[str, Any]] = {
    "a": says("It is ", "one.", tokens=1),
    "b": says("It is ", "two.", tokens=2),
    "c": says("It is ", "three.", tokens=3),
    "z": says("It ", "is ", "six.", tokens=6),
}
WAYS: Final = ("stream", "unary")


# quorum, grace and deadline


@pytest.mark.parametrize("way", WAYS)
async def test_one_answer_is_made_of_what_all_have_proposed(way):
    async with world(THREE) as found:
        end = await found.complete(way)

        (aggregator,) = found.asked("z")
        await until(lambda: found.running.service.admission.in_flight == 0, "an end")
    assert text_of(end) == "It is six."
    assert (end.route.provider, end.route.model, end.route.route) == ("z", "z", "p")
    assert told(end) == report(
        row("a", PROPOSER, USED, 1),
        row("b", PROPOSER, USED, 2),
        row("c", PROPOSER, USED, 3),
        row("z", AGGREGATOR, USED, 6),
    )
    assert all(member.duration.nanos for member in end.panel.members)
    assert [(a.provider, a.hop) for a in end.attempts] == [("a", 0), ("b", 1), ("c", 2), ("z", 3)]
    prompt = aggregator.json["messages"][-1]["content"]
    assert prompt.startswith(QUESTION)
    drafts = ["It is one.", "It is two.", "It is three."]
    assert [prompt.count(draft) for draft in drafts] == [1, 1, 1]
    assert [e.json["messages"] for e in found.asked(role=PROPOSER)] == [
        [{"role": "user", "content": QUESTION}]
    ] * 3


@pytest.mark.parametrize(
    ("late_s", "grace_share", "grace_s", "is_in"),
    [
        pytest.param(0.25, 9.0, 10.0, True, id="within a share of the time"),
        pytest.param(0.6, 2.0, 10.0, False, id="beyond a share of the time"),
        pytest.param(0.25, 10.0, 1.0, True, id="within the bound"),
        pytest.param(0.6, 10.0, 0.2, False, id="beyond the bound"),
        pytest.param(0.25, 0.0, 10.0, False, id="no grace"),
    ],
)
async def test_a_quorum_is_enough_and_the_rest_is_waited_for_a_little(
    late_s, grace_share, grace_s, is_in
):
    scripts = {
        **THREE,
        "a": says("It is one.", tokens=1, after_s=0.1),
        "b": says("It is two.", tokens=2, after_s=0.1),
        "c": says("It is three.", tokens=3, after_s=late_s),
    }
    grace = {"quorum": 2, "grace_share": grace_share, "grace_s": grace_s}
    async with world(scripts, grace) as found:
        end = await found.unary()

        (aggregator,) = found.asked("z")
    late = row("c", PROPOSER, USED, 3) if is_in else row("c", PROPOSER, CANCELLED)
    assert told(end) == report(
        row("a", PROPOSER, USED, 1),
        row("b", PROPOSER, USED, 2),
        late,
        row("z", AGGREGATOR, USED, 6),
    )
    assert ("It is three." in aggregator.json["messages"][-1]["content"]) is is_in


async def test_a_straggler_is_left_when_the_grace_ends_and_paid_for_what_it_wrote():
    waited_s: list[float] = []
    scripts = {**THREE, "a": says("It is one.", tokens=1, after_s=0.1), "c": BEGUN}
    grace = {"quorum": 2, "grace_share": 10.0, "grace_s": 0.1}
    async with world(scripts, grace) as found, loop_lag() as late_s:
        for _ in range(6):
            end = await found.unary()
            straggler = found.asked("c")[-1]
            await asyncio.wait_for(straggler.closed.wait(), LIMIT_S)
            # The quorum was there when `a` had answered.
            quorum_at_s = found.asked("a")[-1].started_at_s + 0.1
            waited_s.append((straggler.closed_at_s or 0.0) - quorum_at_s - 0.1)

        assert told(end) == report(
            row("a", PROPOSER, USED, 1),
            row("b", PROPOSER, USED, 2),
            row("c", PROPOSER, CANCELLED, tokens(2, inputs=3, estimated=True)),
            row("z", AGGREGATOR, USED, 6),
        )
    await found.is_left()
    assert min(waited_s) >= -SPARE_S
    check_promptness(waited_s, late_s)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("hanging", [HANGING, BEGUN], ids=["silent", "begun"])
async def test_nobody_who_answers_before_the_deadline_is_a_timeout(hanging, way):
    scripts = dict.fromkeys(MODELS, hanging)
    async with world(scripts, {"deadline_s": 0.2}) as found:
        error = await found.error(way)

        assert [e.json["model"] for e in found.models.exchanges] == ["a", "b", "c"]
        await found.is_left()
    assert reason_of(error) == (grpc.StatusCode.DEADLINE_EXCEEDED, "UPSTREAM_TIMEOUT")


@pytest.mark.parametrize("way", WAYS)
async def test_who_has_begun_by_the_deadline_may_finish_where_nobody_has_answered(way):
    _, first, *rest = answer("Well, ", "two.")
    slow = [HEAD, first, Pause(0.4), *rest]
    async with world(
        {**THREE, "a": HANGING, "b": slow, "c": HANGING}, {"deadline_s": 0.3}
    ) as found:
        end = await found.complete(way)

        await found.is_left()
    assert text_of(end) == "Well, two."
    assert told(end) == report(
        row("a", PROPOSER, CANCELLED),
        row("b", PROPOSER, USED, tokens(4, inputs=9)),
        row("c", PROPOSER, CANCELLED),
        degraded=True,
    )


async def test_the_callers_own_time_bounds_the_panels():
    scripts = {**dict.fromkeys("abc", HANGING), "z": THREE["z"]}
    async with world(scripts) as found:
        streamed = await found.stream(timeout_s=0.4)

        await found.is_left()
    # Shares of it are kept for the aggregator, so somebody is there to say so.
    assert reason_of(streamed.error)[1] in ("UPSTREAM_TIMEOUT", "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("way", WAYS)
async def test_the_only_one_who_answers_before_the_deadline_is_taken_as_it_is(way):
    scripts = {**THREE, "a": HANGING, "c": BEGUN}
    async with world(scripts, {"deadline_s": 0.3}) as found:
        end = await found.complete(way)

        assert found.asked("z") == []
        await found.is_left()
    assert text_of(end) == "It is two."
    assert (end.route.provider, end.route.route) == ("b", "p")
    assert told(end) == report(
        row("a", PROPOSER, CANCELLED),
        row("b", PROPOSER, USED, 2),
        row("c", PROPOSER, CANCELLED, tokens(2, inputs=3, estimated=True)),
        degraded=True,
    )


@pytest.mark.parametrize("way", WAYS)
async def test_fewer_than_the_quorum_are_still_made_one_answer_and_that_is_told(way):
    scripts = {**THREE, "b": HANGING}
    async with world(scripts, {"deadline_s": 0.3, "quorum": 3}) as found:
        end = await found.complete(way)
    assert text_of(end) == "It is six."
    assert told(end) == report(
        row("a", PROPOSER, USED, 1),
        row("b", PROPOSER, CANCELLED),
        row("c", PROPOSER, USED, 3),
        row("z", AGGREGATOR, USED, 6),
        degraded=True,
    )


# early stop


@pytest.mark.parametrize("way", WAYS)
async def test_the_first_two_who_say_the_same_are_enough(way):
    same = "The answer is 42."
    scripts = {**THREE, "a": says(same, tokens=1), "b": says(f" {same}", tokens=2), "c": BEGUN}
    async with world(scripts, {"early_stop": True, "quorum": 3}) as found:
        end = await found.complete(way)

        assert found.asked("z") == []
        (straggler,) = found.asked("c")
        await asyncio.wait_for(straggler.closed.wait(), LIMIT_S)
    assert end.timing.total.seconds == 0
    assert text_of(end) == same
    assert end.panel.members[2].status == CANCELLED
    end.panel.members[2].usage.CopyFrom(Usage())  # It depends on how far it came.
    end.usage.CopyFrom(tokens(3, inputs=18))
    assert told(end) == report(
        row("a", PROPOSER, USED, 1),
        row("b", PROPOSER, UNUSED, 2),
        row("c", PROPOSER, CANCELLED),
        stopped_early=True,
    )


@pytest.mark.parametrize(
    ("panel", "first", "second"),
    [
        pytest.param({"early_stop": True}, "So: answer is 42.", "So: answer is 43.", id="results"),
        pytest.param({"early_stop": True}, "It is good.", "It is bad.", id="unknown likeness"),
        pytest.param({}, "The answer is 42.", "The answer is 42.", id="not wanted"),
    ],
)
async def test_an_aggregator_is_asked_where_the_first_two_do_not_agree(panel, first, second):
    scripts = {**THREE, "a": says(first, tokens=1), "b": says(second, tokens=2)}
    async with world(scripts, panel) as found:
        end = await found.unary()

        assert len(found.asked("z", AGGREGATOR)) == 1
    assert text_of(end) == "It is six."
    assert not end.panel.stopped_early


# degradation


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("steps", "error"),
    [
        pytest.param(FAILING, BROKEN, id="500"),
        pytest.param([Reset()], LOST, id="reset"),
        pytest.param([*BEGUN[:-1], Reset()], LOST, id="breaks off"),
    ],
)
async def test_a_single_proposal_is_the_answer_and_that_is_told(steps, error, way):
    scripts = {**THREE, "a": steps, "c": steps}
    async with world(scripts) as found:
        end = await found.complete(way, question(constraints=ONCE))

        assert found.asked("z") == []
    assert text_of(end) == "It is two."
    assert told(end) == report(
        row("a", PROPOSER, FAILED, error=error),
        row("b", PROPOSER, USED, 2),
        row("c", PROPOSER, FAILED, error=error),
        degraded=True,
    )


@pytest.mark.parametrize("way", WAYS)
async def test_the_best_proposal_is_the_answer_where_there_is_no_aggregator(way):
    async with world({**THREE, "z": FAILING}, {"quorum": 3}) as found:
        only = RoutingConstraints(max_attempts=1)
        end = await found.complete(way, question(constraints=only))
    assert text_of(end) == "It is one."
    assert (end.route.provider, end.route.hop) == ("a", 0)
    assert told(end) == report(
        row("a", PROPOSER, USED, 1),
        row("b", PROPOSER, UNUSED, 2),
        row("c", PROPOSER, UNUSED, 3),
        row("z", AGGREGATOR, FAILED, error=BROKEN),
        degraded=True,
    )


async def test_an_aggregator_that_breaks_off_ends_the_stream():
    scripts = {**THREE, "z": [HEAD, event(delta("It is")), Reset()]}
    async with world(scripts) as found:
        streamed = await found.stream(question(constraints=ONCE))

        await found.is_left()
    assert streamed.text == "It is"
    assert streamed.kinds[-1] == "interrupted"
    assert reason_of(streamed.error) == (grpc.StatusCode.ABORTED, "STREAM_INTERRUPTED")


@pytest.mark.parametrize("way", WAYS)
async def test_when_nobody_proposes_the_error_is_that_of_one_model(way):
    scripts = {**THREE, **dict.fromkeys("abc", FAILING)}
    routes: list[Mapping[str, Any]] = [
        {"id": "p", "panel": PANEL},
        {"id": "q", "candidates": ["a"]},
    ]
    async with world(scripts, routes=routes) as found:
        panel = await found.error(way, question("p", constraints=ONCE))
        single = await found.error(way, question("q", constraints=ONCE))

        assert found.asked("z") == []
    assert (
        reason_of(panel)
        == reason_of(single)
        == (
            grpc.StatusCode.UNAVAILABLE,
            "ALL_PROVIDERS_FAILED",
        )
    )
    assert panel.details() == single.details()
    trailers = [dict(error.trailing_metadata() or ()) for error in (panel, single)]
    pushbacks = [trailer["grpc-retry-pushback-ms"] for trailer in trailers]
    assert pushbacks == ["-1", "-1"]


async def test_what_one_says_of_the_request_counts_before_what_befell_the_others():
    rejecting = whole({"error": {"message": "no", "type": "invalid_request_error"}}, 400, CLOSE)
    scripts = {**THREE, "a": FAILING, "b": rejecting, "c": FAILING}
    async with world(scripts) as found:
        streamed = await found.stream(question(constraints=ONCE))
    assert reason_of(streamed.error) == (grpc.StatusCode.INVALID_ARGUMENT, "UPSTREAM_REJECTED")


async def test_a_refusal_among_proposals_is_left_out_and_all_of_them_are_one():
    refusal = says("I'm sorry, but I can't help with that.", tokens=5)
    async with world({**THREE, "b": refusal}, {"quorum": 3}) as found:
        end = await found.unary()

        (aggregator,) = found.asked("z")
        assert "sorry" not in aggregator.json["messages"][-1]["content"]
    assert told(end) == report(
        row("a", PROPOSER, USED, 1),
        row("b", PROPOSER, UNUSED, 5),
        row("c", PROPOSER, USED, 3),
        row("z", AGGREGATOR, USED, 6),
        degraded=True,
    )
    async with world({**dict.fromkeys("abc", refusal), "z": THREE["z"]}) as found:
        end = await found.unary()

        assert found.asked("z") == []
    assert text_of(end) == "I'm sorry, but I can't help with that."
    assert told(end) == report(
        row("a", PROPOSER, USED, 5), row("b", PROPOSER, UNUSED, 5), row("c", PROPOSER, UNUSED, 5)
    )


@pytest.mark.parametrize("way", WAYS)
async def test_a_member_fails_over_as_any_turn_does(way):
    scripts = {**THREE, "a": FAILING, "d": says("It is four.", tokens=4)}
    more = {"a": {"fallbacks": ["d"]}, "z": {"fallbacks": ["d"]}}
    async with world(scripts, {"quorum": 3}, more=more) as found:
        end = await found.complete(way)

        (aggregator,) = found.asked("z")
        assert "It is four." in aggregator.json["messages"][-1]["content"]
    assert told(end) == report(
        row("a", PROPOSER, FAILED, error=BROKEN),
        row("d", PROPOSER, USED, 4),
        row("b", PROPOSER, USED, 2),
        row("c", PROPOSER, USED, 3),
        row("z", AGGREGATOR, USED, 6),
    )


async def test_one_model_that_is_asked_several_times_may_say_different_things():
    scripts = {"a": THREE["a"], "z": THREE["z"]}
    panel = {"proposers": ["a", "a", "a"], "quorum": 3}
    async with world(scripts, panel) as found:
        sampling = SamplingOptions(temperature=0.0, seed=7)
        end = await found.unary(question(sampling=sampling))

        asked = [e.json for e in found.models.exchanges]
    assert [(e["temperature"], e.get("seed")) for e in asked] == [(0.7, None)] * 3 + [(0.0, 7)]
    assert told(end) == report(
        *[row("a", PROPOSER, USED, 1)] * 3,
        row("z", AGGREGATOR, USED, 6),
    )


# the critique


FOUND: Final = json.dumps(
    {
        "consensus": ["it is a number"],
        "contradictions": ["which one"],
        "unique_insights": [],
        "blind_spots": ["that it is six"],
    }
)


@pytest.mark.parametrize("way", WAYS)
async def test_a_critique_is_given_to_the_aggregator(way):
    critic = says("```json\n", FOUND, "\n```", tokens=5)
    scripts = {**THREE, "z": by_role(critic=critic, aggregator=THREE["z"])}
    async with world(scripts, {"critique": True, "quorum": 3}) as found:
        end = await found.complete(way)

        (asked,) = found.asked(role=CRITIC)
        (aggregator,) = found.asked(role=AGGREGATOR)
    assert text_of(end) == "It is six."
    assert FOUND in aggregator.json["messages"][-1]["content"]
    assert asked.json["max_tokens" if "max_tokens" in asked.json else "max_completion_tokens"]
    assert told(end) == report(
        row("a", PROPOSER, USED, 1),
        row("b", PROPOSER, USED, 2),
        row("c", PROPOSER, USED, 3),
        row("z", CRITIC, USED, 5),
        row("z", AGGREGATOR, USED, 6),
    )


@pytest.mark.parametrize(
    "text", ["They agree.", '{"consensus": [', "[1, 2]", '{"other": []}', '{"consensus": "all"}']
)
async def test_a_critique_that_can_not_be_read_is_skipped(text):
    critic = says(text, tokens=5)
    scripts = {**THREE, "z": by_role(critic=critic, aggregator=THREE["z"])}
    async with world(scripts, {"critique": True, "quorum": 3}) as found:
        end = await found.unary()

        (aggregator,) = found.asked(role=AGGREGATOR)
    assert "reviewer" not in aggregator.json["messages"][-1]["content"]
    assert text_of(end) == "It is six."
    assert told(end).members[3] == row("z", CRITIC, UNUSED, 5)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param(HANGING, row("z", CRITIC, CANCELLED), id="silent"),
        pytest.param(
            [HEAD, event(delta("Well, " * 10)), Hang()],
            row("z", CRITIC, CANCELLED, tokens(15, inputs=0, estimated=True)),
            id="begun",
        ),
        pytest.param(FAILING, row("z", CRITIC, FAILED, error=BROKEN), id="failing"),
    ],
)
async def test_a_critique_that_does_not_come_is_done_without(steps, expected):
    scripts = {**THREE, "z": by_role(critic=steps, aggregator=THREE["z"])}
    async with world(scripts, {"critique": True, "quorum": 3}) as found:
        streamed = await found.stream(question(constraints=ONCE), timeout_s=2.0)
        end = completed(streamed)

        (asked,) = found.asked(role=CRITIC)
        await found.is_left()
    assert streamed.text == "It is six."
    rows = told(end).members
    prompt_chars = sum(len(message["content"]) for message in asked.json["messages"])
    if expected.usage.estimated:
        expected.usage.input_tokens = -(-prompt_chars // 4)
        expected.usage.total_tokens = expected.usage.input_tokens + 15
    assert list(rows[3:]) == [expected, row("z", AGGREGATOR, USED, 6)]
    assert not end.panel.degraded


# leaving


async def _in_phase(found: World, phase: str) -> Callable[[], list[Exchange]]:
    """Waits until a request is there. Those who have to be left then, as upstreams see them."""
    hanging: Callable[[], list[Exchange]] = {
        "proposing": lambda: found.asked(role=PROPOSER),
        "critique": lambda: found.asked(role=CRITIC),
        "aggregating": lambda: found.asked(role=AGGREGATOR),
    }[phase]
    count = {"proposing": 3}.get(phase, 1)
    await until(lambda: len(hanging()) == count, f"{phase}")
    return hanging


PHASES: Final[Mapping[str, Mapping[str, Any]]] = {
    "proposing": {**dict.fromkeys("ab", BEGUN), "c": HANGING, "z": HANGING},
    "critique": {**THREE, "z": BEGUN},
    "aggregating": {**THREE, "z": by_role(critic=says(FOUND), aggregator=BEGUN)},
}


@pytest.mark.parametrize("way", ["stream", "unary", "SSE"])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_caller_who_leaves_takes_the_whole_panel_along(phase, way):
    left_s: list[float] = []
    scripts, panel = PHASES[phase], {"critique": True, "quorum": 3}
    async with world(scripts, panel) as found, loop_lag() as late_s:
        for _ in range(4):
            found.models.exchanges.clear()
            leave = await _asking(found, way)
            members = await _in_phase(found, phase)
            await asyncio.sleep(0.02)
            at_s = asyncio.get_running_loop().time()
            leave()
            for exchange in members():
                await asyncio.wait_for(exchange.closed.wait(), LIMIT_S)
                left_s.append((exchange.closed_at_s or 0.0) - at_s)
        await found.is_left()
        asked = [role_of(exchange) for exchange in found.models.exchanges]
    expected = {"proposing": 3, "critique": 4, "aggregating": 5}
    assert len(asked) == expected[phase]
    check_promptness(left_s, late_s)


async def _asking(found: World, way: str) -> Callable[[], object]:
    """A request under way. What is returned leaves it."""
    service = found.running.service
    if way == "SSE":
        host, port = service.http_address.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps(
            {"model": "p", "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
        )
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: {len(body)}\r\n\r\n"
            f"{body}".encode()
        )
        return lambda: writer.transport.abort()
    stack = AsyncExitStack()
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(service.grpc_address))
    stub = CompletionServiceStub(channel)
    call: Any
    if way == "unary":
        call = stub.CompleteUnary(CompleteUnaryRequest(spec=question()))
    else:
        call = stub.Complete(CompleteRequest(spec=question()))

    async def read() -> None:
        async with stack:
            try:
                if way == "unary":
                    await call
                else:
                    async for _ in call:
                        pass
            except asyncio.CancelledError:
                pass

    reading = asyncio.ensure_future(read())
    _READERS.add(reading)
    reading.add_done_callback(_READERS.discard)
    return lambda: call.cancel()


_READERS: Final[set[asyncio.Future[None]]] = set()


# who may, and who pays


PLANS: Final = [{"id": "narrow", "routes": ["other"]}, {"id": "wide"}, PREPAID]


@pytest.mark.parametrize(
    ("route", "plan", "is_allowed"),
    [
        ("p", "default", False),
        ("p", "wide", True),
        ("p", "narrow", False),
        ("open", "default", True),
        ("open", "narrow", False),
    ],
)
async def test_a_panel_is_for_the_plans_that_it_names(route, plan, is_allowed):
    routes = [{"id": "p", "panel": PANEL, "plans": ["wide"]}, {"id": "open", "panel": PANEL}]
    key = {"id": "k", "key_env": "KEY", "plan": plan}

    async with world(
        THREE, routes=routes, plans=PLANS, keys=[key], environment={"KEY": "secret-of-k"}
    ) as found:
        async with httpx.AsyncClient(timeout=LIMIT_S, verify=NO_AUTHORITIES) as http:
            response = await http.post(
                f"http://{found.running.service.http_address}/v1/chat/completions",
                headers={"authorization": "Bearer secret-of-k"},
                json={"model": route, "messages": [{"role": "user", "content": QUESTION}]},
            )
        bearer = (("authorization", "Bearer secret-of-k"),)
        streamed = await found.stream(question(route), metadata=bearer)
        assert bool(found.models.exchanges) is is_allowed
    if is_allowed:
        assert response.status_code == 200
        assert response.json()["waymark"]["route"] == route
        assert streamed.text == "It is six."
        return
    assert response.status_code == 403
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("permission_error", "route_not_allowed")
    assert reason_of(streamed.error) == (grpc.StatusCode.PERMISSION_DENIED, "ROUTE_NOT_ALLOWED")


@pytest.mark.parametrize("way", ["stream", "plain"])
async def test_a_panel_that_can_not_be_paid_is_refused_before_anybody_is_asked(way, tmp_path: Path):
    def script(exchange: Exchange) -> Any:
        return steps_of(THREE[exchange.json["model"]], exchange)

    async with (
        upstream(script) as models,
        desk(
            new_sqlite(tmp_path),
            models.url,
            providers=[provider(name, models.url) for name in THREE],
            models=[model(name, name, **PRICES) for name in THREE],
            routes=[{"id": "p", "panel": PANEL}],
        ) as found,
        httpx.AsyncClient(
            base_url=f"http://{found.service.http_address}", timeout=LIMIT_S, verify=NO_AUTHORITIES
        ) as http,
    ):
        ((name, bearer),) = await found.new_key(plan="prepaid")
        body = {"max_tokens": 20, "messages": [{"role": "user", "content": QUESTION}]}
        is_stream = way == "stream"

        async def ask(route: str) -> httpx.Response:
            asked = {**body, "model": route, "stream": is_stream}
            return await http.post("/v1/chat/completions", json=asked, headers={name: bearer})

        refused = await ask("p")
        # Enough for each of its models alone, and not for all of them together.
        await found.grant(400_000)
        single = await ask("z")
        short = await ask("p")
        asked = [exchange.json["model"] for exchange in models.exchanges]
        await found.grant(10_000_000)
        before = await found.balance()
        enough = await ask("p")
        after = await found.balance()
    assert [r.status_code for r in (refused, single, short, enough)] == [402, 200, 402, 200]
    assert asked == ["z"]
    for response in (refused, short):
        assert response.json()["error"] == {
            "message": "the credits do not cover what this request may cost",
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_credits",
        }
    # Four times what was asked, and two dollars for each million that was written.
    cost = 4 * INPUT_TOKENS * 1_000 + (1 + 2 + 3 + 6) * 2_000
    assert before.available_nanos - after.available_nanos == cost
    assert after.held_nanos == 0


# what callers ask of a panel beyond text


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
async def test_several_choices_are_refused_by_name(is_stream):
    async with world(THREE) as found:
        response = await found.chat(n=2, stream=is_stream)
        streamed = await found.stream(question(sampling=SamplingOptions(candidate_count=2)))

        assert found.models.exchanges == []
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "n")
    assert reason_of(streamed.error) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert fields_of(streamed.error) == ["spec.sampling.candidate_count"]


def calling(*calls: tuple[str, str, str]) -> Callable[[Exchange], Sequence[Step]]:
    """A model that calls tools: id, name and arguments of each."""

    def script(exchange: Exchange) -> Sequence[Step]:
        called = [
            {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id_, name, arguments in calls
        ]
        if not exchange.json.get("stream"):
            said = {"role": "assistant", "content": None, "tool_calls": called}
            choice = {"index": 0, "message": said, "finish_reason": "tool_calls"}
            counts = usage(INPUT_TOKENS, 6)["usage"]
            return whole(
                {"id": "c", "model": "m", "choices": [choice], "usage": counts}, 200, CLOSE
            )
        deltas = [{"index": i, **call} for i, call in enumerate(called)]
        chunk = {"index": 0, "delta": {"tool_calls": deltas}, "finish_reason": None}
        ends = [finish("tool_calls"), usage(INPUT_TOKENS, 6), "[DONE]"]
        return [HEAD, *map(event, [{"id": "c", "choices": [chunk]}, *ends]), END]

    return script


WEATHER: Final[Mapping[str, Any]] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells it.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
async def test_the_aggregator_alone_has_tools_and_its_calls_are_the_answer(is_stream):
    scripts = {**THREE, "z": calling(("c1", "weather", '{"city": "Rome"}'))}
    # Proposers who say the same are no reason to stop: none of them could have called anything.
    scripts |= {name: says("It is sunny.", tokens=1) for name in "ab"}
    choice = {"type": "function", "function": {"name": "weather"}}
    async with world(scripts, {"early_stop": True, "quorum": 3}) as found:
        response = await found.chat(
            stream=is_stream, tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False
        )

        (aggregator,) = found.asked("z")
        proposers = found.asked(role=PROPOSER)
    names = {"tools", "tool_choice", "parallel_tool_calls"}
    assert [names & set(exchange.json) for exchange in proposers] == [set()] * 3
    assert {name: aggregator.json[name] for name in names} == {
        "tools": [WEATHER],
        "tool_choice": choice,
        "parallel_tool_calls": False,
    }
    assert response.status_code == 200
    if is_stream:
        lines = [line[6:] for line in response.text.splitlines() if line[:6] == "data: "]
        chunks = [json.loads(line) for line in lines[:-1]]
        first, *more = [
            call["function"]
            for chunk in chunks
            for choice in chunk["choices"]
            for call in choice["delta"].get("tool_calls", ())
        ]
        call = {"name": first["name"], "arguments": first["arguments"]}
        call["arguments"] += "".join(piece["arguments"] for piece in more)
        (finished,) = [f for c in chunks for x in c["choices"] if (f := x["finish_reason"])]
        waymark = chunks[-1]["waymark"]
    else:
        (found_choice,) = response.json()["choices"]
        (call,) = [c["function"] for c in found_choice["message"]["tool_calls"]]
        finished, waymark = found_choice["finish_reason"], response.json()["waymark"]
    assert call == {"name": "weather", "arguments": '{"city": "Rome"}'}
    assert finished == "tool_calls"
    assert [(m["role"], m["status"]) for m in waymark["models"]] == [
        *[(PROPOSER, USED)] * 3,
        (AGGREGATOR, USED),
    ]
    assert not waymark["stopped_early"]


async def test_an_aggregator_with_tools_that_fails_is_not_replaced_by_who_has_none():
    async with world({**THREE, "z": FAILING}, {"quorum": 3}) as found:
        tool = Tool(name="mine", parameters_schema_json="{}")
        asked = question(tool_options=ToolOptions(tools=[tool]), constraints=ONCE)
        error = await found.error("stream", asked)

        await found.is_left()
    assert reason_of(error) == (grpc.StatusCode.UNAVAILABLE, "ALL_PROVIDERS_FAILED")


async def test_a_single_proposal_goes_to_the_aggregator_where_there_are_tools():
    scripts = {**THREE, "a": FAILING, "c": FAILING, "z": calling(("c1", "mine", "{}"))}
    async with world(scripts) as found:
        tool = Tool(name="mine", parameters_schema_json="{}")
        end = await found.unary(question(tool_options=ToolOptions(tools=[tool]), constraints=ONCE))
    (part,) = end.choices[0].message.parts
    assert part.tool_call.name == "mine"
    assert told(end) == report(
        row("a", PROPOSER, FAILED, error=BROKEN),
        row("b", PROPOSER, USED, 2),
        row("c", PROPOSER, FAILED, error=BROKEN),
        row("z", AGGREGATOR, USED, 6),
        degraded=True,
    )


@pytest.mark.parametrize("way", WAYS)
async def test_tools_of_the_gateways_run_between_the_turns_of_the_aggregator(way):
    turns = [calling(("c1", "lookup", '{"n": 7}')), says("It is ", "42.", tokens=8)]
    scripts = {**THREE, "z": lambda exchange: turns.pop(0)(exchange)}
    async with upstream(lambda _: whole({"result": "42"})) as tool:
        at = f"127.0.0.1:{tool.port}"
        async with world(
            scripts,
            {"quorum": 3},
            environment={"HOOK": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
            secrets={"hook": {"env": "HOOK", "hosts": [at]}},
            egress={"allowed_hosts": [at]},
        ) as found:
            lookup = Tool(
                name="lookup",
                parameters_schema_json='{"type": "object"}',
                webhook=WebhookSource(url=f"http://{at}/lookup", secret_ref="hook"),
            )
            asked = question(tool_options=ToolOptions(tools=[lookup]))
            end = await found.complete(way, asked)

            first, second = found.asked("z")
            await found.is_left()
        assert len(tool.exchanges) == 1
    assert text_of(end) == "It is 42."
    assert [call.name for call in end.server_tool_calls] == ["lookup"]
    assert [name for e in found.asked(role=PROPOSER)[:3] if (name := e.json.get("tools"))] == []
    assert [t["function"]["name"] for t in first.json["tools"]] == ["lookup"]
    told_of = {"role": "tool", "tool_call_id": "c1", "content": '{"result": "42"}'}
    assert second.json["messages"][-1] == told_of
    # What it has read before is still there.
    assert "Now write the one best answer" in second.json["messages"][0]["content"]
    assert told(end) == report(
        row("a", PROPOSER, USED, 1),
        row("b", PROPOSER, USED, 2),
        row("c", PROPOSER, USED, 3),
        row("z", AGGREGATOR, USED, 6),
        row("z", AGGREGATOR, USED, 8),
    )


async def test_a_conversation_with_calls_keeps_the_tools_described_and_forbids_proposers_to_call():
    history = [
        {"role": "user", "content": "The weather in Rome?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    async with world(THREE, {"quorum": 3}) as found:
        response = await found.chat(messages=history, tools=[WEATHER])

        (aggregator,) = found.asked("z")
        proposers = found.asked("a") + found.asked("b") + found.asked("c")
    assert response.json()["choices"][0]["message"]["content"] == "It is six."
    assert [e.json["tools"] for e in proposers] == [[WEATHER]] * 3
    assert [e.json["tool_choice"] for e in proposers] == ["none"] * 3
    assert [e.json["messages"][1:] for e in proposers] == [proposers[0].json["messages"][1:]] * 3
    assert aggregator.json["tools"] == [WEATHER]
    assert aggregator.json.get("tool_choice") in (None, "auto")
    # The drafts are a turn of their own behind the tool's.
    *before, last = aggregator.json["messages"]
    assert [message["role"] for message in before] == ["user", "assistant", "tool"]
    assert last["role"] == "user"
    assert "It is three." in last["content"]


SCHEMA: Final = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
async def test_structured_output_is_asked_of_all_but_the_critic(is_stream):
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    scripts: dict[str, Script] = {
        name: says(f'{{"n": {number}}}', tokens=number) for number, name in enumerate("abc", 1)
    }
    answer = by_role(critic=says(FOUND, tokens=5), aggregator=says('{"n": ', "6}", tokens=6))
    async with world({**scripts, "z": answer}, {"critique": True, "quorum": 3}) as found:
        response = await found.chat(stream=is_stream, response_format=form)

        forms = {role_of(e): e.json.get("response_format") for e in found.models.exchanges}
    assert [forms[CRITIC], forms[PROPOSER] == forms[AGGREGATOR]] == [None, True]
    assert forms[PROPOSER]["json_schema"]["schema"] == SCHEMA
    if is_stream:
        lines = [line[6:] for line in response.text.splitlines() if line[:6] == "data: "]
        deltas = [c["delta"] for line in lines[:-1] for c in json.loads(line)["choices"]]
        said = "".join(each.get("content", "") for each in deltas)
    else:
        said = response.json()["choices"][0]["message"]["content"]
    assert json.loads(said) == {"n": 6}


PIXEL: Final = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()


async def test_an_image_goes_to_those_who_can_see_and_the_others_are_left_out():
    parts = [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": {"url": PIXEL}},
    ]
    more = {"b": {"capabilities": ["tools"]}}
    async with world(THREE, {"quorum": 3}, more=more) as found:
        response = await found.chat(messages=[{"role": "user", "content": parts}])

        (aggregator,) = found.asked("z")
    models = response.json()["waymark"]["models"]
    assert [(m["model"], m["role"], m["status"]) for m in models] == [
        ("a", PROPOSER, USED),
        ("c", PROPOSER, USED),
        ("z", AGGREGATOR, USED),
    ]
    assert not response.json()["waymark"]["degraded"]
    asked = aggregator.json["messages"][-1]["content"]
    assert [part["type"] for part in asked] == ["text", "image_url", "text"]
    assert "It is three." in asked[2]["text"]


async def test_nobody_who_can_see_is_an_error_that_names_the_image():
    parts = [{"type": "image_url", "image_url": {"url": PIXEL}}]
    blind = {name: {"capabilities": ["tools"]} for name in MODELS}
    async with world(THREE, more=blind) as found:
        response = await found.chat(messages=[{"role": "user", "content": parts}])

        assert found.models.exchanges == []
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages[0].content[0].image_url.url"


# room


async def test_a_small_window_cuts_what_the_aggregator_reads():
    long = {name: says(f"{name}" * 6_000, tokens=1_500) for name in "abc"}
    more = {"z": {"context_window_tokens": 4_096}}
    asked = {}
    for window, sections in (("wide", {}), ("small", more)):
        async with world({**long, "z": THREE["z"]}, {"quorum": 3}, more=sections) as found:
            await found.unary()

            (aggregator,) = found.asked("z")
            asked[window] = aggregator.json["messages"][-1]["content"]
    assert [asked["wide"].count(name * 6_000) for name in "abc"] == [1, 1, 1]
    assert [asked["small"].count(f"\n{name}") for name in "abc"] == [2, 2, 2]
    assert asked["small"].count("\n[...]\n") == 3
    # Half of what is left of the window, in three parts of the same length.
    size = question().ByteSize()
    left = int(((4_096 - 400) * 4 - size) * 0.5 / 3)
    counts = [max(map(len, re.findall(f"{name}+", asked["small"]))) for name in "abc"]
    assert counts == [left // 2] * 3


# signs of life


@pytest.mark.parametrize("phase", ["proposing", "aggregating"])
async def test_a_caller_hears_of_a_panel_that_works_before_it_has_anything_to_say(phase):
    name = {"proposing": "c", "aggregating": "z"}[phase]
    slow = says("It is six.", tokens=6, after_s=0.4)
    server = {"heartbeat_s": 0.15}
    async with world({**THREE, name: slow}, {"quorum": 3}, server=server) as found:
        options = StreamOptions()
        options.heartbeat_interval.FromMilliseconds(150)
        streamed = await found.stream(options=options)
        response = await found.chat(stream=True)
    begun = streamed.kinds.index("started")
    assert streamed.kinds[:2] == ["heartbeat"] * 2
    assert set(streamed.kinds[:begun]) == {"heartbeat"}
    assert dict(streamed.head)["trunkline-panel"] == "p"
    assert response.text.startswith(": hb\n\n" * 2)
    assert response.headers["speechify-route"] == "p"
    assert response.text.endswith("data: [DONE]\n\n")
