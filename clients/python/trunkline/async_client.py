"""The asyncio client: the same calls as the blocking one, awaited."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio

from trunkline.channels import Metadata, call_metadata, endpoint
from trunkline.errors import translated
from trunkline.specs import Prompt, SpecOptions, spec_from
from trunkline.streams import AsyncCompletionStream, raise_if_closed
from trunkline.v1.catalog_service_pb2 import GetModelRequest, ListModelsRequest, Model
from trunkline.v1.catalog_service_pb2_grpc import CatalogServiceStub
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    CompleteUnaryRequest,
    PreviewRouteRequest,
    PreviewRouteResponse,
    StreamOptions,
)
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec

_Response = TypeVar("_Response")


class AsyncClient:
    """A connection to one gateway, of one event loop, and closed by `close` or an `async with`
    block.

    Made while that loop runs. Arguments and errors are those of `Client`.
    """

    def __init__(
        self,
        target: str,
        *,
        api_key: str | None = None,
        tls: bool = False,
        root_certificates: bytes | None = None,
        channel_credentials: grpc.ChannelCredentials | None = None,
        allow_insecure_key: bool = False,
        default_timeout_s: float = 600.0,
        metadata: Metadata | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        gateway = endpoint(
            target,
            api_key=api_key,
            tls=tls,
            root_certificates=root_certificates,
            channel_credentials=channel_credentials,
            allow_insecure_key=allow_insecure_key,
            metadata=metadata or {},
            options=options or {},
        )
        self._metadata = gateway.metadata
        self._default_timeout_s = default_timeout_s
        self._channel = (
            grpc.aio.insecure_channel(gateway.target, gateway.options)
            if gateway.credentials is None
            else grpc.aio.secure_channel(gateway.target, gateway.credentials, gateway.options)
        )
        self._completions = CompletionServiceStub(self._channel)
        self._catalog = CatalogServiceStub(self._channel)

    async def complete(
        self,
        prompt: Prompt | None = None,
        *,
        spec: CompletionSpec | None = None,
        timeout_s: float | None = None,
        idempotency_key: str = "",
        request_id: str | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
        metadata: Metadata | None = None,
        **options: Unpack[SpecOptions],
    ) -> Completion:
        """One whole answer.

        Args:
            prompt: the user's words, or messages, oldest first. Or nothing, with a `spec`.
            spec: a whole spec, instead of a prompt and options.
            timeout_s: for the whole call.
            idempotency_key: at most 255 characters; the same request with the same key is answered
                once.
            request_id: of the caller's choice, 8 to 64 of A-Z, a-z, 0-9, _ and -. None: the gateway
                mints one.
            traceparent: W3C trace context, also carried to the provider.
            tracestate: W3C trace state.
            metadata: further headers of this call.
            options: see `SpecOptions`.
        """
        request = CompleteUnaryRequest(
            spec=spec_from(prompt, spec, options), idempotency_key=idempotency_key
        )
        headers = call_metadata(
            self._metadata,
            metadata,
            request_id=request_id,
            traceparent=traceparent,
            tracestate=tracestate,
        )
        response = await _answer(
            self._completions.CompleteUnary(
                request, timeout=self._timeout_s(timeout_s), metadata=headers
            )
        )
        return response.completion

    def stream(
        self,
        prompt: Prompt | None = None,
        *,
        spec: CompletionSpec | None = None,
        stream_options: StreamOptions | None = None,
        timeout_s: float | None = None,
        idempotency_key: str = "",
        request_id: str | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
        metadata: Metadata | None = None,
        **options: Unpack[SpecOptions],
    ) -> AsyncCompletionStream:
        """One answer as it is made; use it as a context manager. Errors are raised by the stream,
        not here.

        Args are those of `complete`, and `stream_options`, of which a heartbeat turns retries off.
        """
        request = CompleteRequest(
            spec=spec_from(prompt, spec, options),
            idempotency_key=idempotency_key,
            stream_options=stream_options,
        )
        headers = call_metadata(
            self._metadata,
            metadata,
            request_id=request_id,
            traceparent=traceparent,
            tracestate=tracestate,
        )
        return AsyncCompletionStream(
            self._completions.Complete(
                request, timeout=self._timeout_s(timeout_s), metadata=headers
            )
        )

    async def preview_route(
        self,
        prompt: Prompt | None = None,
        *,
        spec: CompletionSpec | None = None,
        request_id: str = "",
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
        **options: Unpack[SpecOptions],
    ) -> PreviewRouteResponse:
        """Who would answer, best first, then who would not and why. No provider is asked.

        Args:
            request_id: instead of a prompt: the decision of an earlier request, as it was made.
        """
        request = PreviewRouteRequest(request_id=request_id)
        if not request_id or prompt is not None or spec is not None:
            request.spec.CopyFrom(spec_from(prompt, spec, options))
        return await _answer(
            self._completions.PreviewRoute(
                request,
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )

    async def list_models(
        self,
        *,
        page_size: int = 0,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[Model]:
        """Every model, route and mode of the catalog; pages are fetched as they are needed.

        Args:
            page_size: 0: the gateway's default.
            timeout_s: for each page.
            metadata: further headers of these calls.
        """
        headers = call_metadata(self._metadata, metadata)
        request = ListModelsRequest(page_size=page_size)
        while True:
            page = await _answer(
                self._catalog.ListModels(
                    request, timeout=self._timeout_s(timeout_s), metadata=headers
                )
            )
            for model in page.models:
                yield model
            if not page.next_page_token:
                return
            request = ListModelsRequest(page_size=page_size, page_token=page.next_page_token)

    async def get_model(
        self,
        model_id: str,
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> Model:
        """One entry of the catalog.

        Raises:
            ModelNotFound: it names the nearest known id.
        """
        response = await _answer(
            self._catalog.GetModel(
                GetModelRequest(model_id=model_id),
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )
        return response.model

    async def close(self) -> None:
        """Closes the connection and cancels the calls that still run."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _timeout_s(self, timeout_s: float | None) -> float:
        return self._default_timeout_s if timeout_s is None else timeout_s


async def _answer(call: grpc.aio.UnaryUnaryCall[Any, _Response]) -> _Response:
    with translated():
        try:
            return await call
        except asyncio.CancelledError:
            raise_if_closed()
            raise
