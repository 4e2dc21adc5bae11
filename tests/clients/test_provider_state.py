"""State that a provider wants back survives an OpenAI client that knows nothing of it, byte for byte.

The client takes the answer as its SDK gives it, appends the tools' results and asks again.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.clients.gateway import EDGES, LIMIT_S, ROOT, shim
from tests.support.service import model, provider, service
from tests.support.upstream import END, Exchange, Step, Upstream, chunk, head, upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

RECORDINGS: Final = ROOT / "tests/recordings"
QUESTION: Final = {"role": "user", "content": "What is the weather?"}
TOOLS: Final[Any] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("get_weather", "get_time")
]
SIGNATURE: Final = (
    "CiQBcsjafHR5nJr2vX1m0e9bQyN2kzG8s4pT6wYhUoLdRfA3cEsKaQFyyNp8q1ZbV7oD0kP5xWm3uGtH"
)
THINKING: Final = (
    "EtIBCkYICxgCKkAfq8Jx1dCkPpO4m0bTzWvY7sQeR2hN9uLgXaVb3yK5tMwZ6oE8rDiHjS0cFlUnG1xq+synthetic"
    "/not+a+real+signature=="
)


@dataclass(frozen=True)
class Turn:
    """A recorded answer, and the model's turn as it must come back."""

    dialect: str
    recording: str
    returned: Sequence[Any]

    def __str__(self) -> str:
        return f"{self.dialect}/{self.recording}"


def call_of(name: str, **arguments: Any) -> dict[str, Any]:
    """A call as Gemini has it."""
    return {"name": name, "args": arguments}


TURNS: Final = (
    Turn(
        "anthropic",
        "thinking_tool.sse",
        [
            {
                "type": "thinking",
                "thinking": "The user wants the weather “now” in Zürich.",
                "signature": THINKING,
            },
            {"type": "text", "text": "Let me check."},
            {
                "type": "tool_use",
                "id": "toolu_01Synthetic0000000000C1",
                "name": "get_weather",
                "input": {"city": "Zürich"},
            },
        ],
    ),
    Turn(
        "anthropic",
        "tool_call.json",
        [
            {"type": "thinking", "thinking": "The user wants the weather.", "signature": THINKING},
            {"type": "text", "text": "I'll look that up."},
            {
                "type": "tool_use",
                "id": "toolu_01Synthetic0000000000E1",
                "name": "get_weather",
                "input": {"city": "Paris", "days": 2},
            },
        ],
    ),
    Turn(
        "gemini",
        "thinking_tool.sse",
        [
            {
                "functionCall": {
                    **call_of("get_weather", city="Oslo", units=None),
                    "id": "m3n4o5p6",
                },
                "thoughtSignature": SIGNATURE,
            }
        ],
    ),
    Turn(
        "gemini",
        "parallel_tools.sse",
        [
            {"text": "I'll look both up."},
            {
                "functionCall": {**call_of("get_weather", city="Paris"), "id": "a1b2c3d4"},
                "thoughtSignature": SIGNATURE,
            },
            {"functionCall": {**call_of("get_weather", city="Rome"), "id": "e5f6g7h8"}},
            {"functionCall": {**call_of("get_time"), "id": "i9j0k1l2"}},
        ],
    ),
    Turn(
        "gemini",
        "tool_call.json",
        [
            {
                "functionCall": {**call_of("get_weather", city="Zürich", days=2), "id": "q7v2k9xd"},
                "thoughtSignature": SIGNATURE,
            }
        ],
    ),
)
MODELS: Final = {"anthropic": "claude-opus-4-8", "gemini": "gemini-3.8-flash"}


@dataclass
class Gateway:
    """A service with a provider of each dialect, all at one upstream, and its edges by name."""

    upstream: Upstream
    urls: dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with upstream(()) as scripted:
        providers = [provider(name, scripted.url, name) for name in MODELS]
        models = [model(name, dialect) for dialect, name in MODELS.items()]
        async with (
            service(providers=providers, models=models) as started,
            shim(started.grpc_address) as shim_url,
        ):
            yield Gateway(scripted, {"local": f"http://{started.http_address}", "shim": shim_url})


def recorded(dialect: str, name: str) -> list[Step]:
    """A response of this body."""
    body = (RECORDINGS / dialect / name).read_bytes()
    kind = "text/event-stream" if name.endswith(".sse") else "application/json"
    return [head(200, kind), chunk(body), END]


async def asked(client: AsyncOpenAI, streams: bool, **options: Any) -> Any:
    """The message of the answer, as the SDK gives it."""
    if not streams:
        return (await client.chat.completions.create(**options)).choices[0].message
    async with client.chat.completions.stream(**options) as stream:
        return (await stream.get_final_completion()).choices[0].message


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("turn", TURNS, ids=str)
async def test_state_comes_back_byte_for_byte(gateway, edge, turn):
    streams = turn.recording.endswith(".sse")
    kind = "sse" if streams else "json"
    exchanges: list[Exchange] = []

    def script(exchange: Exchange) -> list[Step]:
        exchanges.append(exchange)
        name = turn.recording if len(exchanges) == 1 else f"hello.{kind}"
        return recorded(turn.dialect, name)

    gateway.upstream.script = script
    options: dict[str, Any] = {
        "model": MODELS[turn.dialect],
        "tools": TOOLS,
        "reasoning_effort": "low",
    }
    async with AsyncOpenAI(
        base_url=f"{gateway.urls[edge]}/v1", api_key="none", timeout=LIMIT_S
    ) as client:
        message = await asked(client, streams, messages=[QUESTION], **options)
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": "fine"}
            for call in message.tool_calls
        ]
        turns = [QUESTION, message.model_dump(exclude_none=True), *results]
        last = await asked(client, streams, messages=turns, **options)

    assert last.content
    _, second = exchanges
    key = "messages" if turn.dialect == "anthropic" else "contents"
    entries = second.json[key]
    returned = entries[1]
    assert returned == {
        "role": "assistant" if turn.dialect == "anthropic" else "model",
        "content" if turn.dialect == "anthropic" else "parts": list(turn.returned),
    }
    state = THINKING if turn.dialect == "anthropic" else SIGNATURE
    assert second.body.count(f'"{state}"'.encode()) == 1
    # What the client saw as an id does not go on: the provider gets its own back, in calls and results alike.
    assert b"~" not in second.body


@pytest.mark.parametrize("edge", EDGES)
async def test_an_id_that_only_looks_like_ours_is_left_alone(gateway, edge):
    exchanges: list[Exchange] = []

    def script(exchange: Exchange) -> list[Step]:
        exchanges.append(exchange)
        return recorded("anthropic", "hello.json")

    gateway.upstream.script = script
    ids = ["call~1", "~", "a~b~c", "x~eJwDAAAAAAE", "y~" + "A" * 60_000]
    calls = [
        {"id": name, "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
        for name in ids
    ]
    turns: list[Any] = [QUESTION, {"role": "assistant", "tool_calls": calls}]
    turns += [{"role": "tool", "tool_call_id": name, "content": "noon"} for name in ids]
    async with AsyncOpenAI(
        base_url=f"{gateway.urls[edge]}/v1", api_key="none", timeout=LIMIT_S
    ) as client:
        await client.chat.completions.create(model=MODELS["anthropic"], messages=turns, tools=TOOLS)

    (exchange,) = exchanges
    blocks = [block for turn in exchange.json["messages"] for block in turn["content"]]
    uses = [
        block["id"] for block in blocks if isinstance(block, dict) and block["type"] == "tool_use"
    ]
    answers = [
        block["tool_use_id"]
        for block in blocks
        if isinstance(block, dict) and block["type"] == "tool_result"
    ]
    assert uses == answers
    assert len(set(uses)) == len(ids)
