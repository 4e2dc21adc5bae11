"""Behind the gateway, mock providers that others wrote: what they speak is understood, and their faults are hidden."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.callers import STREAMS, WAYS, Outcome, callers
from tests.faults.kinds import HEALTHY
from tests.faults.mock_servers import (
    CALL,
    MOCKS,
    TEXT,
    TOOL_TEXT,
    MockServer,
    Trouble,
    mock_server,
)
from tests.faults.tables import Tables
from tests.faults.upstreams import healthy
from tests.faults.wires import WIRES, said
from tests.support.service import model, provider, service
from trunkline import AsyncClient, arguments, function_tool, text, tool_calls, tool_result, user
from trunkline_server.app import Service

TITLE = "Mock providers of others"
COLUMNS = ("mock, dialect", "plain answers", "tool rounds", "faults", "requests, all right")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PATIENCE_S = 0.5
PAIRS = [(mock, dialect) for mock in MOCKS for dialect in mock.paths]
WHOLE = tuple(way for way in WAYS if way not in STREAMS)
OF = {"all": WAYS, "streams": STREAMS, "whole": WHOLE}
SHORT = {"all": ("gRPC stream", "REST unary"), "streams": ("gRPC stream",), "whole": WHOLE}


@pytest.fixture(scope="module")
def mock(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MockServer]:
    folder: Path = tmp_path_factory.mktemp(request.param.name)
    with mock_server(request.param, folder) as running:
        yield running


@pytest.mark.parametrize(
    "ways",
    [pytest.param(SHORT, id="short"), pytest.param(OF, id="long", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    ("mock", "dialect"),
    [pytest.param(mock, dialect, id=f"{mock.name}-{dialect}") for mock, dialect in PAIRS],
    indirect=["mock"],
)
async def test_a_mock_is_understood_and_its_faults_are_hidden(
    mock: MockServer, dialect: str, ways: Mapping[str, Sequence[str]], tables: Tables
):
    row = tables.table(TITLE, COLUMNS)

    async with behind(mock, dialect) as started, callers(started) as asking:
        for way in WAYS:
            mock.arrange(dialect, None)
            outcome = await asking.ask(way, "route-0", mock.prompt(None))
            assert (outcome.text, outcome.ends, outcome.errors) == (TEXT, 1, ()), (way, outcome)
            assert outcome.attempts == (("mock", ""),)
        async with AsyncClient(started.grpc_address) as client:
            for is_stream in (True, False):
                await _tool_round(mock, dialect, client, is_stream=is_stream)
        requests = 0
        for number, trouble in enumerate(mock.troubles, start=1):
            for position, way in enumerate(ways[trouble.of]):
                mock.arrange(dialect, trouble)
                prompt = f"{mock.prompt(trouble)} mark-{number}-{position}"
                outcome = await asking.ask(way, f"route-{number}", prompt)
                _check(trouble, way, f"mark-{number}-{position}", outcome)
                requests += 1

    row.add(f"{mock.name}, {dialect}", len(WAYS), 2, len(mock.troubles), requests)


async def _tool_round(
    mock: MockServer, dialect: str, client: AsyncClient, *, is_stream: bool
) -> None:
    tool = function_tool("get_weather", "The weather of a city.", SCHEMA)
    asked = user(f"What is the weather in Paris? Stream: {is_stream}")

    mock.arrange_call(dialect)
    if is_stream:
        async with client.stream([asked], model="route-0", tools=[tool]) as stream:
            called = await stream.completion()
    else:
        called = await client.complete([asked], model="route-0", tools=[tool])
    (call,) = tool_calls(called)
    mock.arrange_result(dialect)
    messages = [asked, called.choices[0].message, tool_result(call, "21 degrees")]
    answered = await client.complete(messages, model="route-0", tools=[tool])

    assert (call.name, arguments(call)) == CALL
    assert text(answered) == TOOL_TEXT


def _check(trouble: Trouble, way: str, mark: str, outcome: Outcome) -> None:
    context = (trouble.name, way, outcome)
    next_ones = said(mark, HEALTHY)
    if outcome.errors:
        assert "error" in trouble.sees, context
        assert outcome.errors == ("STREAM_INTERRUPTED",), context
        assert outcome.ends == 0, context
        assert outcome.text, context
        assert TEXT.startswith(outcome.text), context
        return
    assert outcome.ends == 1, context
    if trouble.sees == "slow":
        assert outcome.text == TEXT, context
    else:
        assert "next" in trouble.sees, context
        assert outcome.text == next_ones, context
        assert outcome.attempts[-1] == ("well", ""), context


@asynccontextmanager
async def behind(mock: MockServer, dialect: str) -> AsyncIterator[Service]:
    """A service with the mock first and a healthy provider after it; a model for each of the mock's troubles."""
    numbers = range(len(mock.troubles) + 1)
    entry = provider("mock", "", dialect) | {"base_url": mock.url + mock.paths[dialect]}
    async with healthy(WIRES[dialect], HEALTHY) as well:
        models = [model(f"mock-{n}", "mock") for n in numbers]
        for found, trouble in zip(models[1:], mock.troubles, strict=True):
            if "stall" in trouble.name:
                found |= {"first_token_timeout_s": PATIENCE_S, "idle_timeout_s": PATIENCE_S}
        async with service(
            providers=[entry, provider("well", well.url, dialect)],
            models=[*models, model("well", "well")],
            routes=[
                {"id": f"route-{n}", "candidates": [f"mock-{n}", "well"], "strategy": "ordered"}
                for n in numbers
            ],
        ) as started:
            yield started
