"""The embedded model, cut off anywhere in its answer and continued by itself: what a reader gets, seam included.

Uncut answers are taken twice first. Where the model does not even repeat itself, a comparison would say nothing.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
import httpx
import pytest

from tests.faults.proxy import Fault, Proxy, proxy
from tests.faults.tables import Tables
from tests.support.service import model, provider, service
from tests.support.upstream import Reset
from trunkline.v1.completion_service_pb2 import CompleteRequest, StreamOptions
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub

if TYPE_CHECKING:
    from trunkline.v1.completion_service_pb2_grpc import CompletionServiceAsyncStub
from trunkline.v1.completion_spec_pb2 import CacheMode, CompletionSpec, Recovery
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.local_model.process import LocalModel, default_model_path, has_engine

COLUMNS: Final = ("prompts", "asked", "repeatable", "cut", "continued", "same text", "other words")
TITLE: Final = "The embedded model cut off and continued"
MAX_TOKENS: Final = 24
SLOT_TOKENS: Final = 1024
LIMIT_S: Final = 120.0
ROUTE: Final = "all"
SEED: Final = 20261121
MIN_REPEATABLE: Final = 0.9

THINGS: Final = (
    *("the sea", "a bicycle", "the moon", "bread", "a violin", "the colour blue", "snow", "a bee"),
    *("a lighthouse", "tea", "the desert", "a clock", "a river", "paper", "a whale", "gold"),
    *("the sun", "a garden", "a train", "salt", "a mountain", "a letter", "rain", "a cat", "iron"),
)
QUESTIONS: Final = (
    "Describe {} in two sentences.",
    "Write three short facts about {}.",
    "Tell a child what {} is.",
    "Write a short poem about {}.",
    "Why do people like {}? Answer briefly.",
    "List five words that go with {}.",
    "Write the first paragraph of a story about {}.",
    "What would you ask an expert on {}?",
    "Compare {} with a house.",
    "Give two reasons to think about {} today.",
    "Explain where {} comes from.",
    "Write a slogan for {}.",
    "Write a dialogue of four lines about {}.",
    "Name one danger of {} and one use.",
    "Summarise the history of {} in one paragraph.",
    "Write instructions in three steps that involve {}.",
    "What does {} sound like?",
    "Write a limerick about {}.",
    "Translate 'I see {}' into French and explain each word.",
    "What is the opposite of {}?",
)
PROMPTS: Final = tuple(question.format(thing) for thing in THINGS for question in QUESTIONS)


@dataclass(frozen=True)
class Read:
    """An answer: before the seam and after it, where there was one."""

    said: str
    rest: str = ""
    is_cut: bool = False

    @property
    def text(self) -> str:
        """As the reader has it."""
        return self.said + self.rest


@dataclass
class Model:
    """The embedded model, asked through the gateway: as it is, or through a proxy that cuts it off."""

    stub: "CompletionServiceAsyncStub"
    proxy: Proxy
    url: str
    key: str
    cut_at: int | None = None

    async def measure(self, prompt: str) -> tuple[Read, int]:
        """An uncut answer, and how many bytes it took on the wire."""
        before = len(self.proxy.connections)
        read = await self.ask(prompt)
        (passage,) = self.proxy.connections[before:]
        async with asyncio.timeout(LIMIT_S):
            await passage.gone.wait()
        return read, passage.down_bytes

    async def ask(self, prompt: str) -> Read:
        """One answer."""
        spec = CompletionSpec(
            model=ROUTE, messages=[Message(role=Role.ROLE_USER, parts=[Part(text=prompt)])]
        )
        spec.sampling.temperature = 0.0
        spec.sampling.seed = 1
        spec.sampling.max_output_tokens = MAX_TOKENS
        spec.cache.mode = CacheMode.CACHE_MODE_BYPASS  # It is the model that is asked, each time.
        spec.constraints.recovery = Recovery.RECOVERY_CONTINUE
        request = CompleteRequest(spec=spec, stream_options=StreamOptions(include_attempts=True))
        pieces: list[list[str]] = [[]]
        async for event in self.stub.Complete(request, timeout=LIMIT_S):
            if event.HasField("attempt_failed") and pieces[0]:
                pieces.append([])
            pieces[-1].append(event.text_delta.text)
        said, rest = "".join(pieces[0]), "".join("".join(piece) for piece in pieces[1:])
        return Read(said, rest, is_cut=len(pieces) > 1)

    async def go_on(self, prompt: str, said: str) -> str:
        """What the model itself writes after a beginning, without any gateway."""
        used_tokens = len(said) // 4
        body = {
            "messages": [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": said.rstrip()},
            ],
            "temperature": 0,
            "seed": 1,
            "max_tokens": max(1, MAX_TOKENS - used_tokens),
        }
        async with httpx.AsyncClient(timeout=LIMIT_S) as http:
            response = await http.post(
                f"{self.url}/v1/chat/completions",
                json=body,
                headers={"authorization": f"Bearer {self.key}"},
            )
        content: str = response.json()["choices"][0]["message"]["content"] or ""
        return content.removeprefix(said.rstrip())  # A whole answer holds its beginning too.


@asynccontextmanager
async def embedded() -> AsyncIterator[Model]:
    """The model under a gateway, twice: through the proxy, and as it is."""
    path = default_model_path()
    if path is None or not has_engine():
        pytest.skip("the embedded model is not installed")
    local = LocalModel(path, threads=2, slots=1, slot_tokens=SLOT_TOKENS)
    async with AsyncExitStack() as stack:
        running = await local.start()
        stack.push_async_callback(local.stop)
        cutting = await stack.enter_async_context(
            proxy(
                running.port,
                lambda _: None if found.cut_at is None else Fault(found.cut_at, Reset()),
            )
        )
        url = f"http://127.0.0.1:{running.port}"
        headers = {"authorization": f"Bearer {running.api_key}"}
        started = await stack.enter_async_context(
            service(
                providers=[
                    provider("cut", cutting.url, "llamacpp", headers=headers),
                    provider("whole", url, "llamacpp", headers=headers),
                ],
                models=[model("cut", "cut"), model("whole", "whole")],
                routes=[{"id": ROUTE, "candidates": ["cut", "whole"], "strategy": "ordered"}],
            )
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(started.grpc_address))
        found = Model(CompletionServiceStub(channel), cutting, url, running.api_key)
        yield found


def after_seam(said: str, written: str) -> str:
    """What a reader who has `said` has to be shown of what the model wrote after `said.rstrip()`."""
    space = said[len(said.rstrip()) :]
    shared = 0
    while shared < min(len(space), len(written)) and space[shared] == written[shared]:
        shared += 1
    return written[shared:]


def is_same(text: str, other: str) -> bool:
    """Is it the same as far as it goes? What is left of a limit in tokens is estimated, so one may end earlier."""
    return bool(text) and bool(other) and (text.startswith(other) or other.startswith(text))


@pytest.mark.parametrize(
    "count", [pytest.param(4, id="short"), pytest.param(500, id="long", marks=pytest.mark.slow)]
)
async def test_an_answer_that_is_cut_off_reads_on_as_the_model_would_have_gone_on(
    count: int, tables: Tables
) -> None:
    chance = random.Random(SEED)
    same = other = repeatable = uncut = 0
    wrong: list[str] = []
    async with embedded() as asked:
        for prompt in chance.sample(PROMPTS, count):
            asked.cut_at = None
            # Both through the proxy: with one cut to two whole answers no breaker opens.
            first, _ = await asked.measure(prompt)
            second, size_bytes = await asked.measure(prompt)
            if first != second:
                continue
            repeatable += 1
            asked.cut_at = chance.randint(size_bytes // 4, size_bytes - 1)
            read = await asked.ask(prompt)
            if not read.is_cut:
                uncut += 1  # Nothing had been shown yet, or nothing was missing but the end.
                assert read.text == first.text
                continue
            if is_same(read.text, first.text):
                same += 1
                continue
            other += 1
            if not first.text.startswith(read.said):
                wrong.append(f"not the model's words before the seam: {prompt!r}")
            elif not is_same(
                read.rest, own := after_seam(read.said, await asked.go_on(prompt, read.said))
            ):
                wrong.append(f"{prompt!r}: ...{read.said[-20:]!r} | {read.rest!r} not {own!r}")
    table = tables.table(TITLE, COLUMNS)
    table.add(
        "long" if count > 100 else "short",
        count,
        repeatable,
        repeatable - uncut,
        same + other,
        same,
        other,
    )

    assert repeatable >= MIN_REPEATABLE * count
    assert same + other > 0
    assert wrong == []
