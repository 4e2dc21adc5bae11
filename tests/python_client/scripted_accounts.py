"""The scripted gateway with its services for accounts: each call, whatever its method, plays the next script."""

from typing import Any

import grpc
from google.protobuf.message import Message

from tests.python_client.scripted import Gateway
from trunkline.v1.account_service_pb2_grpc import (
    AccountServiceServicer,
    add_AccountServiceServicer_to_server,
)
from trunkline.v1.admin_service_pb2_grpc import (
    AdminServiceServicer,
    add_AdminServiceServicer_to_server,
)


class AccountGateway(Gateway):
    """As `Gateway`."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        super().__init__(credentials)
        add_AccountServiceServicer_to_server(_Accounts(self), self._server)
        add_AdminServiceServicer_to_server(_Admin(self), self._server)

    @property
    def requests(self) -> list[Any]:
        """What was asked, in order."""
        return [call.request for call in self.calls]


class _Played:
    """Every method is answered by the script."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def _answer(self, method: str, request: Message, context: grpc.ServicerContext) -> Any:
        return self._gateway.answer(method, request, context)


class _Accounts(_Played, AccountServiceServicer):
    def GetBalance(self, request, context):
        return self._answer("GetBalance", request, context)

    def ListLedgerEntries(self, request, context):
        return self._answer("ListLedgerEntries", request, context)

    def QueryUsage(self, request, context):
        return self._answer("QueryUsage", request, context)


class _Admin(_Played, AdminServiceServicer):
    def CreateKey(self, request, context):
        return self._answer("CreateKey", request, context)

    def ListKeys(self, request, context):
        return self._answer("ListKeys", request, context)

    def RotateKey(self, request, context):
        return self._answer("RotateKey", request, context)

    def RevokeKey(self, request, context):
        return self._answer("RevokeKey", request, context)

    def AdjustCredits(self, request, context):
        return self._answer("AdjustCredits", request, context)

    def ListProviderHealth(self, request, context):
        return self._answer("ListProviderHealth", request, context)

    def SetProviderState(self, request, context):
        return self._answer("SetProviderState", request, context)

    def ReloadConfig(self, request, context):
        return self._answer("ReloadConfig", request, context)

    def ListAuditEvents(self, request, context):
        return self._answer("ListAuditEvents", request, context)
