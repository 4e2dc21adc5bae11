"""What operators see: one line for each request, metrics, pages; and never what was said."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.edges.observed import LIMIT_S, Observed, observed, spec, stream
from tests.faults.gateway import gateway
from tests.support.service import model, provider
from tests.support.upstream import (
    END,
    Reset,
    Step,
    delta,
    event,
    head,
    hello,
    upstream,
    whole,
)

FAILING = whole({"error": {"message": "no", "type": "server_error"}}, 500)
KEYS = {
    "attempts",
    "cached_input_tokens",
    "duration_s",
    "event",
    "input_tokens",
    "key_id",
    "level",
    "method",
    "output_tokens",
    "provider",
    "reason",
    "request_id",
    "requested_model",
    "response_model",
    "route",
    "routed_model",
    "time_to_first_token_s",
    "trace_id",
}


def attempted(provider: str, failure: str, status: int) -> Mapping[str, Any]:
    """An attempt as the log tells it."""
    return {
        "provider": provider,
        "model": f"m-{provider}",
        "failure": failure,
        "http_status": status,
    }


def route(*names: str) -> dict[str, Any]:
    """The route `all` over models of these providers."""
    return {
        "models": [model(f"m-{name}", name) for name in names],
        "routes": [
            {"id": "all", "candidates": [f"m-{name}" for name in names], "strategy": "ordered"}
        ],
    }


async def page(running: Observed, path: str) -> httpx.Response:
    """An operators' page."""
    async with httpx.AsyncClient(timeout=LIMIT_S) as http:
        return await http.get(f"http://{running.service.http_address}{path}")


def series(name: str, *labels: str) -> tuple[str, frozenset[str]]:
    """A name and the values of its labels, none of which mean two things here."""
    return f"trunkline_{name}", frozenset(labels)


async def counted(running: Observed) -> dict[tuple[str, frozenset[str]], float]:
    """Our part of /metrics."""
    text = (await page(running, "/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("trunkline_")
    }


async def test_a_request_is_one_line_with_ids_counts_durations_and_reasons():
    async with (
        upstream(FAILING) as a,
        upstream(hello) as b,
        observed(
            providers=[provider("a", a.url), provider("b", b.url)], **route("a", "b")
        ) as running,
    ):
        found = await stream(running.service, spec())
        line = dict(await running.request())

    completion = found.events[-1].completed.completion
    assert set(line) == KEYS
    assert 0 < line.pop("time_to_first_token_s") <= line.pop("duration_s") < LIMIT_S
    assert line == {
        "event": "request",
        "level": "info",
        "request_id": completion.request_id,
        "trace_id": "",
        "method": "Complete",
        "key_id": "anonymous",
        "requested_model": "all",
        "route": "all",
        "provider": "b",
        "routed_model": "m-b",
        "response_model": "m-1",
        "reason": "OK",
        "input_tokens": 9,
        "output_tokens": 4,
        "cached_input_tokens": 0,
        "attempts": [attempted("a", "SERVER", 500), attempted("b", "", 200)],
    }


async def test_an_attempt_that_failed_is_a_line_of_its_own_without_the_providers_words():
    async with (
        upstream(FAILING) as a,
        upstream(hello) as b,
        observed(
            providers=[provider("a", a.url), provider("b", b.url)], **route("a", "b")
        ) as running,
    ):
        found = await stream(running.service, spec())
        (line,) = running.logged("attempt_failed")

    assert line == {
        "event": "attempt_failed",
        "level": "warning",
        "attempt_of": f"{found.events[-1].completed.completion.id}.0",
        "provider": "a",
        "model": "m-a",
        "failure": "SERVER",
        "http_status": 500,
        "code": "server_error",
        "retry_after_s": None,
        "upstream_request_id": "",
    }


CUT: list[Step] = [head(), event(delta("Hel")), Reset()]


@pytest.mark.parametrize(
    ("steps", "asked", "reason"),
    [
        (hello, {}, "OK"),
        (hello, {"model": "nobody"}, "MODEL_NOT_FOUND"),
        (hello, {"text": ""}, "EMPTY_PROMPT"),
        (FAILING, {}, "ALL_PROVIDERS_FAILED"),
        (CUT, {}, "STREAM_INTERRUPTED"),
        (whole({"error": {"code": "x"}}, 400), {}, "UPSTREAM_REJECTED"),
        (whole({"error": {"code": "x"}}, 429), {}, "RATE_LIMITED"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_every_request_is_one_line_however_it_ends(steps, asked, reason):
    async with (
        upstream(steps) as a,
        observed(providers=[provider("a", a.url)], **route("a")) as running,
    ):
        await stream(running.service, spec(**asked))
        line = await running.request()

    assert line["reason"] == reason


async def test_metrics_count_requests_attempts_tokens_and_durations():
    async with (
        upstream(FAILING) as bad,
        upstream(hello) as good,
        observed(
            providers=[provider("counted-a", bad.url), provider("counted-b", good.url)],
            **route("counted-a", "counted-b"),
        ) as running,
    ):
        for _ in range(3):
            await stream(running.service, spec())
        found = await counted(running)

    kept = {
        (name, labels): value
        for (name, labels), value in found.items()
        if any("counted" in label for label in labels)
        and not name.endswith(("_bucket", "_created", "_sum"))
    }
    a, b = ("counted-a", "m-counted-a"), ("counted-b", "m-counted-b")
    assert kept == {
        series("requests_total", "Complete", "all", *b, "OK"): 3.0,
        series("request_duration_seconds_count", "Complete", *b): 3.0,
        series("time_to_first_token_seconds_count", "Complete", *b): 3.0,
        series("tokens_total", *b, "input"): 27.0,
        series("tokens_total", *b, "output"): 12.0,
        series("attempts_total", *a, "SERVER"): 3.0,
        series("attempts_total", *b, ""): 3.0,
    }
    assert found[series("requests_in_flight")] == 0.0


async def test_what_callers_write_makes_no_new_series():
    async with (
        upstream(hello) as a,
        observed(providers=[provider("a", a.url)], **route("a")) as running,
    ):
        await stream(running.service, spec("unknown-0"))
        before = set(await counted(running))
        for number in range(1, 20):
            await stream(running.service, spec(f"unknown-{number}", service_tier=str(number)))
        after = set(await counted(running))

    assert after == before


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [("/livez", 200, b'{"live":true}'), ("/readyz", 200, b'{"ready":true}')],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_running_service_is_live_and_ready(method, path, status, body):
    async with observed() as running, httpx.AsyncClient(timeout=LIMIT_S) as http:
        found = await http.request(method, f"http://{running.service.http_address}{path}")

    assert found.status_code == status
    assert found.content == (body if method == "GET" else b"")


PROMPT, KEY, UPSTREAM_KEY, WORDS, ANSWER = (
    f"canary-{name}" for name in ("prompt", "key", "upstream-key", "words", "answer")
)
REFUSED = whole({"error": {"message": f"{WORDS} {PROMPT}", "code": "invalid_request"}}, 400)
LIMITED = whole({"error": {"message": WORDS}}, 429, "retry-after: 1", f"x-debug: {WORDS}")
HTML: list[Step] = [head(200, "text/html"), b"6\r\n<html>\r\n", END]
BROKEN: list[Step] = [
    head(),
    event(delta(ANSWER)),
    event(f'{{"error": {{"message": "{WORDS}"}}'),
    END,
]
ODD: list[Step] = [head(), event({"choices": [{"index": WORDS, "delta": {"content": 5}}]}), END]


async def test_nothing_that_was_said_and_no_key_shows_in_logs_errors_or_metrics(tmp_path):
    steps = [hello, FAILING, REFUSED, LIMITED, HTML, BROKEN, ODD, CUT]
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "upstream-key").write_text(UPSTREAM_KEY)

    def script(exchange: Any) -> Any:
        assert exchange.header("authorization") == f"Bearer {UPSTREAM_KEY}"
        chosen = steps[int(exchange.json["model"])]
        return chosen(exchange) if callable(chosen) else chosen

    async with upstream(script) as scripted:
        secret = {"api_key_file": str(tmp_path / "upstream-key")}
        names = [str(number) for number in range(len(steps))]
        async with gateway(
            tmp_path,
            server={"log_level": "debug"},
            keys=[{"id": "k", "key_file": str(tmp_path / "key")}],
            providers=[provider(f"p{name}", scripted.url, **secret) for name in names],
            models=[model(name, f"p{name}") for name in names],
        ) as running:
            shown = await ask_everything(running.http_address, names)
            metrics = await ask(running.http_address, "GET", "/metrics")
            running.terminate()
            assert await running.exit_code(LIMIT_S) == 0
            log = (await running.log).decode()

    lines = [json.loads(line) for line in log.splitlines()]
    assert sum(line["event"] == "request" for line in lines) == 4 * len(names)
    assert {"bug"}.isdisjoint(line["event"] for line in lines)
    for canary in (PROMPT, KEY, UPSTREAM_KEY, WORDS):
        assert canary not in log
        assert canary not in shown
        assert canary not in metrics
    assert ANSWER not in log


async def ask_everything(address: str, models: list[str]) -> str:
    """Every model, streamed and not, with a good key and with a bad one; all that callers are shown."""
    shown = ""
    for name in models:
        for streams in (True, False):
            body = {
                "model": name,
                "stream": streams,
                "messages": [{"role": "user", "content": PROMPT}],
            }
            for key in (KEY, f"{KEY}x"):
                headers = {"authorization": f"Bearer {key}"}
                shown += await ask(
                    address, "POST", "/v1/chat/completions", json=body, headers=headers
                )
    return shown


async def ask(address: str, method: str, path: str, **more: Any) -> str:
    """The head and the body of a response."""
    async with httpx.AsyncClient(timeout=LIMIT_S) as http:
        response = await http.request(method, f"http://{address}{path}", **more)
    return f"{response.headers} {response.text}"
