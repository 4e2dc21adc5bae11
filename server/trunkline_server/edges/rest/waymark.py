"""What Speechify's chat completions have beyond OpenAI's: the object `waymark`, the route, and dated versions.

Source: https://docs.speechify.ai, chat completions and API versioning. Their path is OpenAI's, and a route that is a
panel is what makes a request theirs.
"""

import re
from collections.abc import Iterable
from datetime import date
from typing import Any, Final

from trunkline.v1.completion_pb2 import PanelReport
from trunkline_server.edges.rest.http import Refused, Request
from trunkline_server.edges.status import Refusal

VERSION: Final = b"speechify-version"
ROUTE: Final = b"speechify-route"
_DATE: Final = re.compile(rb"\d{4}-\d{2}-\d{2}\Z")


def read_version(request: Request) -> None:
    """Checks the version that a client names, which every response to it repeats. There is one of each shape so far.

    Raises:
        Refused: INVALID_API_VERSION.
    """
    if VERSION not in dict(request.headers):
        return
    versions = [value.strip() for name, value in request.headers if name == VERSION]
    if len(versions) > 1 or not _is_date(versions[0]):
        raise Refused(
            Refusal("INVALID_API_VERSION", "must be one ISO date, as 2026-01-31", field="speechify-version")
        )  # fmt: skip
    request.echoed.append((VERSION, versions[0]))


def waymark(panel: PanelReport) -> dict[str, Any]:
    """The answer's object `waymark`: a row for each call of an upstream, whose tokens add up to the answer's usage."""
    return {
        "route": panel.route,
        "requested_route": panel.requested_route,
        "escalated": panel.escalated,
        "escalation_reason": panel.escalation_reason or None,
        "degraded": panel.degraded,
        "stopped_early": panel.stopped_early,
        "models": list(_models(panel)),
    }


def _models(panel: PanelReport) -> Iterable[dict[str, Any]]:
    for member in panel.members:
        row = {
            "provider": member.provider,
            "model": member.model,
            "role": member.role,
            "status": member.status,
            "input_tokens": member.usage.input_tokens,
            "output_tokens": member.usage.output_tokens,
        }
        if member.usage.estimated:
            row["estimated"] = True
        yield row


def _is_date(text: bytes) -> bool:
    if not _DATE.match(text):
        return False
    try:
        date.fromisoformat(text.decode())
    except ValueError:
        return False
    return True
