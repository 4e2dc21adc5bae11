"""`trunkline.v1.CompletionService`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from trunkline.v1.completion_pb2 import Route
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    CompleteUnaryRequest,
    CompleteUnaryResponse,
    PreviewRouteRequest,
    PreviewRouteResponse,
)
from trunkline_server.completion.order import Call
from trunkline_server.completion.service import Completions
from trunkline_server.core.errors import InvalidRequest, TrunklineError
from trunkline_server.core.plans import Scope
from trunkline_server.edges.grpc.call import (
    Calls,
    Context,
    abort_on_error,
    answer_unary,
    head,
)
from trunkline_server.edges.grpc.pacing import Batch, check, needs_pacing, paced
from trunkline_server.edges.status import status_message

STREAM: Final = "Complete"
UNARY: Final = "CompleteUnary"
PREVIEW: Final = "PreviewRoute"


class CompletionServicer:
    """Admit, delegate, send. What the calls mean is decided in `completion`."""

    def __init__(self, completions: Completions, calls: Calls) -> None:
        self._completions = completions
        self._calls = calls

    async def Complete(
        self, request: CompleteRequest, context: Context
    ) -> AsyncGenerator[Batch, None]:
        """Whole batches: the gRPC server merges and numbers them, the local channel hands them over as they are."""
        call = self._calls.read(STREAM, context)
        async with abort_on_error(context, call):
            try:
                check(request.stream_options)
            except InvalidRequest:
                await self._completions.enter(call, Scope.COMPLETE)
                raise
            events = self._completions.stream(request, call)
            if needs_pacing(request.stream_options):
                events = paced(events, request.stream_options)
            has_head = False
            interrupted: Batch = []
            async with aclosing(events):
                try:
                    async for batch in events:
                        if not has_head:
                            has_head = True
                            await context.send_initial_metadata(_head(call, batch))
                        if batch and batch[-1].HasField("interrupted"):
                            # Its status follows as an exception; the message carries a copy of it.
                            interrupted = batch
                        elif batch:
                            try:
                                yield batch
                            except (asyncio.CancelledError, TrunklineError) as error:
                                # Of sending it: the use case hears of that too, and has the last word.
                                last = await events.athrow(error)
                                if last and last[-1].HasField("interrupted"):
                                    interrupted = last
                except Exception as error:
                    if interrupted:
                        status = status_message(error, call.request_id)
                        interrupted[-1].interrupted.error.CopyFrom(status)
                        yield interrupted
                    raise

    async def CompleteUnary(
        self, request: CompleteUnaryRequest, context: Context
    ) -> CompleteUnaryResponse:
        """The folded answer."""
        call = self._calls.read(UNARY, context)
        async with abort_on_error(context, call):
            response = await self._completions.unary(request.spec, request.idempotency_key, call)
            await context.send_initial_metadata(_route_metadata(call, response.completion.route))
            return response

    async def PreviewRoute(
        self, request: PreviewRouteRequest, context: Context
    ) -> PreviewRouteResponse:
        """The routing decision alone."""
        call = self._calls.read(PREVIEW, context)
        async with answer_unary(context, call):
            return await self._completions.preview(request, call)


def _head(call: Call, batch: Batch) -> list[tuple[str, str]]:
    for response in batch:
        if response.HasField("route_selected"):
            return _route_metadata(call, response.route_selected.route)
    return head(call)


def _route_metadata(call: Call, route: Route) -> list[tuple[str, str]]:
    metadata = [
        *head(call),
        ("trunkline-provider", route.provider),
        ("trunkline-model", route.model.encode("ascii", "replace").decode()),
        ("trunkline-failover-count", str(route.total_failover_count)),
    ]
    if route.route:
        metadata.append(("trunkline-route", route.route))
    return metadata
