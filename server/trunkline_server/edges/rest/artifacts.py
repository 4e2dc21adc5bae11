"""Where files that came with an answer are: JSON has no bytes, so what has no address is in a data URL."""

import base64

from trunkline.v1.message_pb2 import Artifact


def address(artifact: Artifact) -> str | None:
    """Where its body is; None: it has none."""
    body = artifact.WhichOneof("body")
    if body == "url":
        return artifact.url
    if body is None:
        return None
    if body == "data":
        return data_url(artifact.data, artifact.mime_type or "application/octet-stream")
    return data_url(artifact.text.encode(), artifact.mime_type or "text/plain")


def data_url(data: bytes, mime_type: str) -> str:
    """An address that is the thing itself."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"
