"""Callers of a service that may die under them, and what each of them saw."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

import grpc
import grpc.aio

from tests.accounts.crash.lives import CLIENT_KEY, Life
from tests.accounts.crash.meter import FAIL, HANG, STREAM, TOKEN
from tests.support.accounts import ROOT_KEY
from trunkline.v1.account_service_pb2 import GetBalanceRequest
from trunkline.v1.account_service_pb2_grpc import AccountServiceStub
from trunkline.v1.admin_service_pb2 import AdjustCreditsRequest
from trunkline.v1.admin_service_pb2_grpc import AdminServiceStub
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.ledger_pb2 import LedgerKind
from trunkline.v1.message_pb2 import Message, Part, Role

CLIENTS: Final = 16
MAX_TOKENS: Final = 40
LIMIT_S: Final = 30.0
UNARY: Final = "unary"
LEFT: Final = "left"  # Cancelled by the caller at some moment.
HELD: Final = "held"  # Its caller has all that comes, and waits for more.
UPSTREAM_KINDS: Final = {LEFT: STREAM, HELD: HANG}
# Kinds of requests, and whether they have an idempotency key.
MIX: Final = (
    (UNARY, False),
    (UNARY, True),
    (STREAM, False),
    (STREAM, False),
    (STREAM, True),
    (HANG, False),
    (LEFT, False),
    (FAIL, False),
)
HEADERS: Final = (("authorization", f"Bearer {CLIENT_KEY}"),)
ROOT_HEADERS: Final = (("authorization", f"Bearer {ROOT_KEY}"),)


@dataclass(frozen=True)
class Ask:
    """A request. The same one may be asked again if it has a key."""

    mark: str
    kind: str
    tokens: int
    key: str = ""
    leaves_after_s: float = 0.0

    @property
    def prompt(self) -> str:
        return f"{self.mark} {UPSTREAM_KINDS.get(self.kind, self.kind)} {self.tokens}"

    @property
    def spec(self) -> CompletionSpec:
        message = Message(role=Role.ROLE_USER, parts=[Part(text=self.prompt)])
        return CompletionSpec(model="m", messages=[message], end_user_id=self.mark)


@dataclass
class Seen:
    """What its caller saw.

    Attributes:
        tokens: of content.
        completion: the whole answer, where it was told that it is whole.
        code, reason: of the error otherwise.
    """

    ask: Ask
    tokens: int = 0
    completion: Completion | None = None
    is_replayed: bool = False
    code: grpc.StatusCode | None = None
    reason: str = ""


@dataclass
class Callers:
    """Of one life.

    Attributes:
        seen: of each request, also of those that were never answered; in the order they were asked.
    """

    channel: grpc.aio.Channel
    seen: list[Seen] = field(default_factory=list)

    @property
    def _stub(self) -> Any:
        return CompletionServiceStub(self.channel)

    async def grant(self, nanos: int, key: str = "") -> None:
        """Raises: grpc.aio.AioRpcError."""
        request = AdjustCreditsRequest(
            organization="acme",
            kind=LedgerKind.LEDGER_KIND_GRANT,
            amount_nanos=nanos,
            idempotency_key=key,
        )
        stub: Any = AdminServiceStub(self.channel)
        await stub.AdjustCredits(request, metadata=ROOT_HEADERS, timeout=LIMIT_S)

    async def held(self) -> int:
        """Nanos that running requests hold."""
        stub: Any = AccountServiceStub(self.channel)
        request = GetBalanceRequest(organization="acme")
        found = await stub.GetBalance(request, metadata=ROOT_HEADERS, timeout=LIMIT_S)
        return int(found.held_nanos)

    async def ask(self, ask: Ask) -> Seen:
        """Until it is answered, refused or cut."""
        seen = Seen(ask)
        self.seen.append(seen)
        try:
            if ask.kind == UNARY:
                await self._unary(seen)
            else:
                await self._stream(seen)
        except grpc.aio.AioRpcError as error:
            seen.code = error.code()
            seen.reason = error.details() or ""
        return seen

    async def _unary(self, seen: Seen) -> None:
        asked = CompleteUnaryRequest(spec=seen.ask.spec, idempotency_key=seen.ask.key)
        call = self._stub.CompleteUnary(asked, metadata=HEADERS, timeout=LIMIT_S)
        completion = (await call).completion
        text = completion.choices[0].message.parts[0].text
        seen.tokens = _tokens(text)
        seen.is_replayed = "idempotent-replayed" in dict(await call.initial_metadata())
        seen.completion = completion

    async def _stream(self, seen: Seen) -> None:
        ask = seen.ask
        asked = CompleteRequest(spec=ask.spec, idempotency_key=ask.key)
        call = self._stub.Complete(asked, metadata=HEADERS, timeout=LIMIT_S)
        leaving = None
        if ask.kind == LEFT:
            leaving = asyncio.get_running_loop().call_later(ask.leaves_after_s, call.cancel)
        try:
            async for response in call:
                seen.tokens += _tokens(response.text_delta.text)
                if ask.kind == HANG and seen.tokens == ask.tokens:
                    return
                if response.HasField("completed"):
                    seen.completion = response.completed.completion
            seen.is_replayed = "idempotent-replayed" in dict(await call.initial_metadata())
        except asyncio.CancelledError:
            if ask.kind != LEFT or (task := asyncio.current_task()) is None or task.cancelling():
                raise
            seen.code = grpc.StatusCode.CANCELLED
        finally:
            call.cancel()
            if leaving is not None:
                leaving.cancel()

    async def keep_asking(self, asks: Iterator[Ask]) -> None:
        """One after the other, until one is not answered because the service is gone."""
        for ask in asks:
            seen = await self.ask(ask)
            if seen.code is grpc.StatusCode.UNAVAILABLE:
                return

    async def ask_again(self, seen: list[Seen]) -> list[Seen]:
        """The same requests under the same keys."""
        return await asyncio.gather(*(self.ask(each.ask) for each in seen))


def _tokens(text: str) -> int:
    assert text == TOKEN * (len(text) // len(TOKEN))
    return len(text) // len(TOKEN)


def mix(random: Random, name: str) -> Iterator[Ask]:
    """Requests without end. `name` is like no other one's."""
    number = 0
    while True:
        kind, has_key = random.choice(MIX)
        number += 1
        ask = Ask(f"{name}-{number}", kind, random.randint(1, MAX_TOKENS))
        if has_key:
            ask = replace(ask, key=f"key-{ask.mark}")
        if kind == LEFT:
            ask = replace(ask, leaves_after_s=random.uniform(0.0, 0.2))
        yield ask


@asynccontextmanager
async def calling(life: Life) -> AsyncIterator[Callers]:
    """Callers that retry nothing of themselves."""
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(life.grpc_address, options) as channel:
        yield Callers(channel)
