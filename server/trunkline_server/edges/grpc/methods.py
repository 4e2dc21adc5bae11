"""The methods of the contract, each with the function that serves it.

Both doors use this table: the gRPC server and the local channel. A method that nobody serves yet is in it too, and
answers UNIMPLEMENTED with the details that every error of ours has.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from trunkline.v1 import (
    account_service_pb2,
    admin_service_pb2,
    cache_service_pb2,
    catalog_service_pb2,
    completion_service_pb2,
    conversation_service_pb2,
    job_service_pb2,
)
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline_server.core.errors import NotSupported
from trunkline_server.edges.grpc.call import Calls, Context

FILES = (
    account_service_pb2,
    admin_service_pb2,
    cache_service_pb2,
    catalog_service_pb2,
    completion_service_pb2,
    conversation_service_pb2,
    job_service_pb2,
)
SERVICES: Sequence[ServiceDescriptor] = [
    service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()
]


@dataclass(frozen=True, slots=True)
class Method:
    """One method. `serve` takes (request, context); a streaming one yields batches of responses.

    Attributes:
        numbers: its responses are numbered as they leave; those of other methods bring their numbers along.
    """

    path: str
    request_type: Any
    streams: bool
    serve: Callable[[Any, Context], Any]
    numbers: bool = True


def methods(servicers: Mapping[str, object], calls: Calls) -> dict[str, Method]:
    """All methods by path.

    Args:
        servicers: by the full name of their service; a method that a servicer's own class does not define is unserved.
    """
    table = {}
    for service in SERVICES:
        servicer = servicers.get(service.full_name)
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            request_type = message_factory.GetMessageClass(method.input_type)
            serves = servicer is not None and method.name in type(servicer).__dict__
            serve = getattr(servicer, method.name) if serves else _unserved(path, method, calls)
            numbers = method.output_type.full_name == CompleteResponse.DESCRIPTOR.full_name
            table[path] = Method(path, request_type, method.server_streaming, serve, numbers)
    return table


def _unserved(path: str, method: MethodDescriptor, calls: Calls) -> Callable[[Any, Context], Any]:
    async def unary(request: Any, context: Context) -> None:
        await calls.refuse(method.name, context, NotSupported(f"{path} is not served yet"))

    async def stream(request: Any, context: Context) -> Any:
        await unary(request, context)
        yield []

    return stream if method.server_streaming else unary
