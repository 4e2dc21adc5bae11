"""Errors as callers receive them."""

import grpc
from google.rpc import error_details_pb2, status_pb2


def status_of(error: grpc.aio.AioRpcError | None) -> status_pb2.Status:
    """google.rpc.Status, from the trailers."""
    assert error is not None
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            return status_pb2.Status.FromString(value)
    raise AssertionError(f"without details: {error}")


def reason_of(error: grpc.aio.AioRpcError | None) -> tuple[grpc.StatusCode, str]:
    """Code and reason."""
    info = info_of(error)
    assert error is not None
    return error.code(), info.reason


def info_of(error: grpc.aio.AioRpcError | None) -> error_details_pb2.ErrorInfo:
    """ErrorInfo, which every error has."""
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status_of(error).details)
    assert info.domain == "trunkline"
    return info


def request_id_of(error: grpc.aio.AioRpcError | None) -> str:
    """RequestInfo, which every error has."""
    request = error_details_pb2.RequestInfo()
    assert any(detail.Unpack(request) for detail in status_of(error).details)
    return request.request_id


def fields_of(error: grpc.aio.AioRpcError | None) -> list[str]:
    """The fields that are blamed."""
    bad = error_details_pb2.BadRequest()
    found = [
        v.field for d in status_of(error).details if d.Unpack(bad) for v in bad.field_violations
    ]
    return found or [field for field in [info_of(error).metadata.get("field")] if field]
