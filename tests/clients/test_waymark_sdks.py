"""The three panels through the official OpenAI SDKs, over both edges, all with the same results.

As in `test_sdks`, each SDK runs all cases of its `drive_waymark` once for each edge. The models behind the panels are
those of `tests.support.waymark`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.clients import drive_waymark
from tests.clients.gateway import EDGES, HERE, KEY, LIMIT_S, ROOT, missing, need, run, shim
from tests.support.service import service
from tests.support.upstream import Upstream, upstream
from tests.support.waymark import (
    ANSWERS,
    CALL,
    ROUTES,
    Table,
    agreed,
    fast,
    moa,
    role,
    sections,
    table,
    total,
    widest,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

SDKS: Final = ("python", "openai-1x", "node")
ROWS: Final = {"waymark-fast": fast(), "waymark-moa": moa(), "waymark-max": widest()}
SINGLE: Final = "".join(ANSWERS["single"])
MIXED: Final = "".join(ANSWERS["aggregator"])
VERSION: Final = drive_waymark.VERSION


@dataclass
class Panels:
    """A running service, its upstream, and both edges by name."""

    upstream: Upstream
    urls: Mapping[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def panels() -> AsyncIterator[Panels]:
    async with (
        upstream(Table()) as scripted,
        service(
            environment={"KEY": KEY},
            keys=[{"id": "tests", "key_env": "KEY"}],
            **sections(scripted.url),
        ) as started,
        shim(started.grpc_address) as shim_url,
    ):
        yield Panels(scripted, {"local": f"http://{started.http_address}", "shim": shim_url})


@pytest.fixture(scope="module", params=SDKS)
def sdk(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module", params=EDGES)
def caller(request: pytest.FixtureRequest, sdk: str) -> str:
    """One SDK over one edge."""
    return f"{sdk}-{request.param}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def results(panels: Panels, sdk: str, caller: str) -> Mapping[str, Any]:
    """Of all cases."""
    url = panels.urls[caller.rpartition("-")[2]]
    if sdk == "python":
        async with asyncio.timeout(LIMIT_S):
            found = await asyncio.to_thread(drive_waymark.results, url, KEY, caller)
        return json.loads(json.dumps(found))  # type: ignore[no-any-return]
    code, out, err = await run(*_program(sdk), url, KEY, caller)
    assert code == 0, err.decode()
    return json.loads(out)  # type: ignore[no-any-return]


def _program(sdk: str) -> list[str]:
    if sdk == "node":
        if not (HERE / "node/node_modules/openai").is_dir():
            missing("the Node SDK is not installed: make setup-clients")
        return [
            need("node", "install Node.js, then make setup-clients"),
            str(HERE / "node/drive_waymark.mjs"),
        ]
    python = need(ROOT / ".venv-openai-1x/bin/python", "make setup-clients")
    return [python, "-W", "error", str(HERE / "drive_waymark.py")]


def head(route: str | None, version: str | None = None) -> dict[str, Any]:
    """What a response says before its body."""
    return {"route": route, "version": version, "limits": list(drive_waymark.LIMITS)}


def whole(told: Mapping[str, Any], text: str | None, **more: Any) -> dict[str, Any]:
    """A response. Args: told: its object `waymark`."""
    return {
        **head(told["route"]), "model": told["route"], "text": text, "calls": [], "finish": "stop",
        "usage": total(told["models"]), "waymark": told, **more,
    }  # fmt: skip


def streamed(told: Mapping[str, Any], text: str, **more: Any) -> dict[str, Any]:
    """A stream."""
    return {
        **head(told["route"]), "models": [told["route"]], "text": text, "calls": [], "finishes": ["stop"], "usages": [],
        "early": 0, "waymark": told, **more,
    }  # fmt: skip


def refused() -> dict[str, Any]:
    """A version that is none."""
    return {
        "class": "BadRequestError", "status": 400, "code": "invalid_api_version", "param": "speechify-version",
        "type": "invalid_request_error", "message": "must be one ISO date, as 2026-01-31", **head(None),
    }  # fmt: skip


def expected(route: str) -> Mapping[str, Any]:
    """The results of all cases of one route."""
    told = table(route, ROWS[route])
    text = SINGLE if route == "waymark-fast" else MIXED
    # In a form all proposals are the same one.
    formed = table(route, agreed(), stopped_early=True) if route == "waymark-moa" else told
    escalated = {
        "waymark-fast": ("waymark-moa", [*fast("unused"), *moa()], "refusal"),
        "waymark-moa": (
            "waymark-max",
            [*moa("unused", is_answered=False), *widest()],
            "disagreement",
        ),
    }
    wider = told
    if route in escalated:
        name, models, reason = escalated[route]
        wider = table(name, models, requested_route=route, escalated=True, escalation_reason=reason)
    called = {"calls": [list(CALL)]}
    return {
        "plain": whole(told, text),
        "stream": streamed(told, text),
        "include_usage": streamed(told, text, usages=[total(told["models"])]),
        "tools": whole(told, None, finish="tool_calls", **called),
        "tools_streamed": streamed(told, "", finishes=["tool_calls"], **called),
        "structured": [["Bern", 146000], formed],
        "accumulated": [text, text],
        "escalated": whole(wider, MIXED),
        "escalated_streamed": streamed(wider, MIXED),
        "version": [VERSION, VERSION],
        "bad_version": refused(),
        "bad_version_streamed": refused(),
        "unknown": "stop",
    }  # fmt: skip


CASES: Final = tuple(expected(ROUTES[0]))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("case", CASES)
async def test_every_sdk_reads_every_panel_alike(results, case, route):
    assert results[f"{case}/{route}"] == expected(route)[case]


async def test_no_case_is_left_out(results):
    assert set(results) == {f"{case}/{route}" for case in CASES for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES)
async def test_what_the_sdk_adds_reaches_every_member(panels, results, caller, route):
    assert results[f"unknown/{route}"] == "stop"

    sent = [
        (e.json["model"], role(e), e.json.get("service_hint"))
        for e in panels.upstream.exchanges
        if f" unknown/{route}/{caller}" in e.body.decode()
    ]

    roles = ["single"] if route == "waymark-fast" else [row["role"] for row in ROWS[route]]
    asked = zip((row["model"] for row in ROWS[route]), roles, strict=True)
    assert sorted(sent) == sorted((name, part, {"lane": [1, None]}) for name, part in asked)


@pytest.mark.parametrize("route", ROUTES)
async def test_a_version_that_is_none_reaches_nobody(panels, results, caller, route):
    assert results[f"bad_version/{route}"] == refused()

    asked = [
        e for e in panels.upstream.exchanges if f" bad_version/{route}/{caller}" in e.body.decode()
    ]
    assert asked == []
