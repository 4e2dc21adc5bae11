"""One scripted gateway for each test, and both clients behind one face: a test runs with either."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.python_client.scripted import Gateway
from trunkline import AsyncClient, Client, TrunklineError
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import Completion


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as running:
        yield running


class Blocking:
    """`Client`, each call in a thread of its own."""

    def __init__(self, target: str, **options: Any) -> None:
        self.client = Client(target, **options)

    async def complete(self, *args: Any, **options: Any) -> Completion:
        return await asyncio.to_thread(self.client.complete, *args, **options)

    async def preview_route(self, *args: Any, **options: Any) -> Any:
        return await asyncio.to_thread(self.client.preview_route, *args, **options)

    async def list_models(self, **options: Any) -> list[Any]:
        return await asyncio.to_thread(lambda: list(self.client.list_models(**options)))

    async def get_model(self, *args: Any, **options: Any) -> Any:
        return await asyncio.to_thread(self.client.get_model, *args, **options)

    async def events(
        self, *args: Any, **options: Any
    ) -> tuple[list[CompleteResponse], TrunklineError | None, Completion]:
        def read() -> tuple[list[CompleteResponse], TrunklineError | None, Completion]:
            seen: list[CompleteResponse] = []
            with self.client.stream(*args, **options) as stream:
                try:
                    for event in stream:
                        seen.append(event)  # noqa: PERF402 - what came before an error counts
                except TrunklineError as error:
                    return seen, error, stream.snapshot()
                return seen, None, stream.completion()

        return await asyncio.to_thread(read)

    async def text_deltas(self, *args: Any, **options: Any) -> list[str]:
        def read() -> list[str]:
            with self.client.stream(*args, **options) as stream:
                return list(stream.text_deltas())

        return await asyncio.to_thread(read)

    async def first_event_only(self, *args: Any, **options: Any) -> CompleteResponse:
        def read() -> CompleteResponse:
            with self.client.stream(*args, **options) as stream:
                return next(stream)

        return await asyncio.to_thread(read)

    async def dropped(self, *args: Any, **options: Any) -> None:
        def read() -> None:
            for _ in self.client.stream(*args, **options):
                break

        await asyncio.to_thread(read)

    async def close(self) -> None:
        self.client.close()


class Awaited:
    """`AsyncClient` as it is."""

    def __init__(self, target: str, **options: Any) -> None:
        self.client = AsyncClient(target, **options)
        self.complete = self.client.complete
        self.preview_route = self.client.preview_route
        self.get_model = self.client.get_model
        self.close = self.client.close

    async def list_models(self, **options: Any) -> list[Any]:
        return [model async for model in self.client.list_models(**options)]

    async def events(
        self, *args: Any, **options: Any
    ) -> tuple[list[CompleteResponse], TrunklineError | None, Completion]:
        seen: list[CompleteResponse] = []
        async with self.client.stream(*args, **options) as stream:
            try:
                async for event in stream:
                    seen.append(event)  # noqa: PERF401 - what came before an error counts
            except TrunklineError as error:
                return seen, error, stream.snapshot()
            return seen, None, await stream.completion()

    async def text_deltas(self, *args: Any, **options: Any) -> list[str]:
        async with self.client.stream(*args, **options) as stream:
            return [piece async for piece in stream.text_deltas()]

    async def first_event_only(self, *args: Any, **options: Any) -> CompleteResponse:
        async with self.client.stream(*args, **options) as stream:
            return await anext(stream)

    async def dropped(self, *args: Any, **options: Any) -> None:
        async for _ in self.client.stream(*args, **options):
            break


Connect = Callable[..., Blocking | Awaited]


@pytest.fixture(params=[Blocking, Awaited], ids=["Client", "AsyncClient"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Makes clients, with the constructor's own arguments, and closes them."""
    made: list[Blocking | Awaited] = []

    def make(target: str, **options: Any) -> Blocking | Awaited:
        made.append(request.param(target, **options))
        return made[-1]

    yield make
    for client in made:
        closed: Awaitable[None] = client.close()
        await closed


@pytest.fixture
async def client(connect: Connect, gateway: Gateway) -> Blocking | Awaited:
    return connect(gateway.target)
