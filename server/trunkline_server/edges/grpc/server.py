"""The gRPC server: the contract, health and reflection on one port."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final, cast

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from trunkline_server.core.errors import DeadlineExceeded, NotSupported, TrunklineError
from trunkline_server.edges.grpc.call import Calls, Context, parse
from trunkline_server.edges.grpc.methods import SERVICES, Method
from trunkline_server.edges.grpc.pacing import coalesce
from trunkline_server.edges.grpc.stall import WRITE_STALL_S, StallWatch

HEALTH: Final = "grpc.health.v1.Health"
REFLECTIONS: Final = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
# Above our own limit of 32 MiB, so that we refuse larger requests ourselves, with details.
MAX_MESSAGE_BYTES: Final = 48 * 1024 * 1024
OPTIONS: Final[Mapping[str, int]] = {
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_send_message_length": -1,
    "grpc.max_metadata_size": 16 * 1024,
    "grpc.absolute_max_metadata_size": 32 * 1024,
    "grpc.max_concurrent_streams": 2_048,
    # Clients may ping every 20 s, with or without calls.
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.min_recv_ping_interval_without_data_ms": 10_000,
    "grpc.http2.min_ping_interval_without_data_ms": 10_000,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.max_connection_age_ms": 30 * 60_000,
    "grpc.max_connection_age_grace_ms": 10 * 60_000,
}


def new_server(
    methods: Mapping[str, Method], calls: Calls, *, shares_port: bool
) -> tuple[grpc.aio.Server, HealthServicer]:
    """A server without a port, and the servicer of its health. Keep the reference: dropping it stops the server."""
    options = [*OPTIONS.items(), ("grpc.so_reuseport", int(shares_port))]
    server = grpc.aio.server(options=options)
    by_service: dict[str, dict[str, Any]] = {}
    for method in methods.values():
        _, service, name = method.path.split("/")
        by_service.setdefault(service, {})[name] = _handler(method, calls)
    names = [service.full_name for service in SERVICES]
    health = HealthServicer()
    handlers = [
        grpc.method_handlers_generic_handler(service, found)
        for service, found in by_service.items()
    ]
    handlers.append(_health_handler(health))
    handlers += _reflection_handlers([*names, HEALTH, *REFLECTIONS])
    handlers.append(cast(Any, _Unknown(calls)))  # Last: it takes whatever the others don't know.
    server.add_generic_rpc_handlers(tuple(handlers))
    return server, health


async def set_health(health: HealthServicer, is_serving: bool) -> None:
    """Of the whole server and of each service."""
    status = (
        health_pb2.HealthCheckResponse.SERVING
        if is_serving
        else health_pb2.HealthCheckResponse.NOT_SERVING
    )
    for name in ("", *(service.full_name for service in SERVICES)):
        await health.set(name, status)


def _handler(method: Method, calls: Calls) -> "grpc.RpcMethodHandler[Any, Any]":
    # Requests arrive as bytes and are parsed inside the handler, where a failure can be answered with details.
    serializer = _serialize
    if method.streams:

        async def stream(data: bytes, context: Any) -> None:
            request = await _parsed(method, calls, data, context)
            watch = StallWatch(asyncio.current_task())
            try:
                async with aclosing(method.serve(request, context)) as batches:
                    async for batch in batches:
                        try:
                            await _send(method, batch, context, watch)
                        except asyncio.CancelledError as error:
                            # Held up by its reader, so whoever makes the batches has not heard of it, and may have
                            # a status for him.
                            await batches.athrow(_cause(error, watch))
            finally:
                watch.close()

        return grpc.unary_stream_rpc_method_handler(stream, None, serializer)

    async def unary(data: bytes, context: Any) -> Any:
        return await method.serve(await _parsed(method, calls, data, context), context)

    return grpc.unary_unary_rpc_method_handler(unary, None, serializer)


async def _send(method: Method, batch: list[Any], context: Any, watch: StallWatch) -> None:
    watch.is_writing = True
    numbers = method.numbers
    for response in coalesce(batch) if numbers else batch:
        watch.sent += 1
        if numbers:
            response.sequence = watch.sent
        await context.write(response)
    watch.is_writing = False


def _cause(error: asyncio.CancelledError, watch: StallWatch) -> BaseException:
    """What a cancellation in the middle of sending means."""
    watch.is_writing = False
    task = asyncio.current_task()
    if not watch.has_stalled or task is None:
        return error
    task.uncancel()
    return DeadlineExceeded(f"nothing was read for {WRITE_STALL_S:.0f} s")


def _serialize(message: Any) -> bytes:
    return message.SerializeToString()  # type: ignore[no-any-return]


async def _parsed(method: Method, calls: Calls, data: bytes, context: Context) -> Any:
    try:
        return parse(method.request_type, data)
    except TrunklineError as error:
        await calls.refuse(method.path, context, error)


class _Unknown(grpc.GenericRpcHandler):
    """Methods and services that are in no contract."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        async def refuse(_: Any, context: Any) -> None:
            await self._calls.refuse("unknown", context, NotSupported("no such method"))

        # A stream on both sides fits whatever the caller believes the method to be.
        return grpc.stream_stream_rpc_method_handler(refuse, None, None)


def _health_handler(health: HealthServicer) -> grpc.GenericRpcHandler:
    request, response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    return grpc.method_handlers_generic_handler(
        HEALTH,
        {
            "Check": grpc.unary_unary_rpc_method_handler(
                health.Check, request.FromString, response.SerializeToString
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                health.Watch, request.FromString, response.SerializeToString
            ),
        },
    )


def _reflection_handlers(names: list[str]) -> list[grpc.GenericRpcHandler]:
    pool = descriptor_pool.Default()
    _describe_reflection_v1(pool)
    servicer = ReflectionServicer(service_names=names, pool=pool)
    request, response = (
        reflection_pb2.ServerReflectionRequest,
        reflection_pb2.ServerReflectionResponse,
    )
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo, request.FromString, response.SerializeToString
    )
    return [
        grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method})
        for name in REFLECTIONS
    ]


def _describe_reflection_v1(pool: descriptor_pool.DescriptorPool) -> None:
    """The library knows v1alpha only. v1 has the same messages under another package, so its descriptor is derived."""
    name = "grpc/reflection/v1/reflection.proto"
    try:
        pool.FindFileByName(name)
    except KeyError:
        file = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)
        file.name = name
        file.package = "grpc.reflection.v1"
        for message in file.message_type:
            for field in message.field:
                if field.type_name:
                    field.type_name = field.type_name.replace("v1alpha", "v1")
        for service in file.service:
            for method in service.method:
                method.input_type = method.input_type.replace("v1alpha", "v1")
                method.output_type = method.output_type.replace("v1alpha", "v1")
        file.ClearField("options")
        pool.Add(file)
