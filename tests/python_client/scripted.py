"""A gateway that plays a script: a real gRPC server on loopback that says what a test wants."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from trunkline.v1.catalog_service_pb2 import GetModelRequest, ListModelsRequest
from trunkline.v1.catalog_service_pb2_grpc import (
    CatalogServiceServicer,
    add_CatalogServiceServicer_to_server,
)
from trunkline.v1.completion_service_pb2_grpc import (
    CompletionServiceServicer,
    add_CompletionServiceServicer_to_server,
)

WAIT_S = 20.0


@dataclass(frozen=True)
class Failure:
    """A non-OK status, with the details of google.rpc.Status that are given."""

    code: grpc.StatusCode
    message: str = "no"
    details: Sequence[Message] = ()
    trailing: Sequence[tuple[str, str | bytes]] = ()

    def abort(self, context: grpc.ServicerContext) -> None:
        trailing = list(self.trailing)
        if self.details:
            status = status_pb2.Status(code=self.code.value[0], message=self.message)
            for detail in self.details:
                status.details.add().Pack(detail)
            trailing.append(("grpc-status-details-bin", status.SerializeToString()))
        context.set_trailing_metadata(tuple(trailing))
        context.abort(self.code, self.message)


@dataclass(frozen=True)
class Hold:
    """Says nothing more until the caller has gone."""


Step = Message | Failure | Hold | Callable[[Any], Message]
"""A callable makes a message of the request."""


@dataclass(frozen=True)
class Call:
    """One call as the server saw it."""

    method: str
    request: Any
    metadata: Mapping[str, str | bytes]
    time_remaining_s: float | None
    ended: threading.Event = field(default_factory=threading.Event)


class Gateway:
    """Plays one script for each call, in order; the last one again and again."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.calls: list[Call] = []
        self.is_called = threading.Event()
        self._scripts: list[Sequence[Step]] = []
        self._server = grpc.server(
            ThreadPoolExecutor(16),
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
        )
        add_CompletionServiceServicer_to_server(_Completions(self), self._server)
        add_CatalogServiceServicer_to_server(_Catalog(self), self._server)
        port = (
            self._server.add_insecure_port("127.0.0.1:0")
            if credentials is None
            else self._server.add_secure_port("127.0.0.1:0", credentials)
        )
        self.port = port
        self.target = f"127.0.0.1:{port}"

    def plays(self, *scripts: Sequence[Step]) -> None:
        self._scripts = list(scripts)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait(WAIT_S)

    def play(
        self, method: str, request: Message, context: grpc.ServicerContext
    ) -> Iterator[Message]:
        call = Call(
            method,
            request,
            dict(context.invocation_metadata()),
            context.time_remaining(),
        )
        self.calls.append(call)
        self.is_called.set()
        is_active = context.add_callback(call.ended.set)
        script = self._scripts[min(len(self.calls), len(self._scripts)) - 1]
        for step in script:
            match step:
                case Failure():
                    step.abort(context)
                case Hold():
                    if is_active:
                        call.ended.wait(WAIT_S)
                case Message():
                    yield step
                case _:
                    yield step(request)

    def answer(self, method: str, request: Message, context: grpc.ServicerContext) -> Any:
        """The one message of a unary call; none where the caller has gone."""
        return next(self.play(method, request, context), None)


class _Completions(CompletionServiceServicer):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def Complete(self, request, context):
        yield from self._gateway.play("Complete", request, context)

    def CompleteUnary(self, request, context):
        return self._gateway.answer("CompleteUnary", request, context)

    def PreviewRoute(self, request, context):
        return self._gateway.answer("PreviewRoute", request, context)


class _Catalog(CatalogServiceServicer):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def ListModels(self, request: ListModelsRequest, context):
        return self._gateway.answer("ListModels", request, context)

    def GetModel(self, request: GetModelRequest, context):
        return self._gateway.answer("GetModel", request, context)

    def ListSkills(self, request, context):
        raise NotImplementedError

    def InstallSkill(self, request, context):
        raise NotImplementedError

    def UninstallSkill(self, request, context):
        raise NotImplementedError


def error_info(reason: str, domain: str = "trunkline", **metadata: str) -> Message:
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)


def request_info(request_id: str) -> Message:
    return error_details_pb2.RequestInfo(request_id=request_id)
