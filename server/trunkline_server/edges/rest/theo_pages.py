"""What Theo's smaller endpoints share: a call of the service, parameters of a query, and lists in pages."""

import re
from typing import Any, Final

from trunkline_server.edges.rest.body import encode, invalid
from trunkline_server.edges.rest.http import Headers, Refused, Request, response_headers
from trunkline_server.edges.rest.query import parameters
from trunkline_server.edges.status import Refusal

CALL_TIMEOUT_S: Final = 30.0
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1_000
MAX_CURSOR_CHARS: Final = 1_024
MAX_ID_CHARS: Final = 128
# Of lists that are given whole: a service that never comes to an end is not followed.
WHOLE_PAGE: Final = 1_000
MAX_WHOLE_PAGES: Final = 10

_LIMIT: Final = re.compile(r"[0-9]{1,9}")


async def called(request: Request, method: Any, message: Any) -> tuple[Any, Headers]:
    """What the service answers, and the headers that go with it.

    Raises:
        grpc.aio.AioRpcError.
    """
    call = method(message, timeout=CALL_TIMEOUT_S, metadata=request.metadata)
    answer = await call
    return answer, response_headers(await call.initial_metadata())


async def all_of(
    request: Request, method: Any, message: Any, field: str
) -> tuple[list[Any], str, Headers]:
    """A list in all its pages.

    Args:
        message: asks for the first page; changed for the ones after it.
        field: of the answers, that holds the list.

    Returns:
        The list, the token of the page after it where it is too long, else empty, and headers.
    """
    found: list[Any] = []
    message.page_size = WHOLE_PAGE
    headers: Headers = []
    for _ in range(MAX_WHOLE_PAGES):
        page, headers = await called(request, method, message)
        found += getattr(page, field)
        message.page_token = page.next_page_token
        if not message.page_token:
            break
    return found, message.page_token, headers


def page_of(query: str) -> tuple[int, str]:
    """Size and token of the page that is asked for.

    Raises:
        Refused: naming the parameter.
    """
    found = parameters(query, ("limit", "cursor"))
    cursor = found.get("cursor", "")
    if len(cursor) > MAX_CURSOR_CHARS:
        raise invalid(f"at most {MAX_CURSOR_CHARS} characters", "cursor")
    limit = found.get("limit", str(DEFAULT_LIMIT))
    if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= MAX_LIMIT:
        raise invalid(f"must be a whole number, 1 to {MAX_LIMIT}", "limit")
    return int(limit), cursor


def page_object(name: str, items: list[Any], token: str) -> dict[str, Any]:
    """One page of a list."""
    return {name: items, "has_more": bool(token), "next_cursor": token or None}


def id_in(path: str, prefix: str) -> str:
    """What follows the prefix in a path.

    Raises:
        Refused: it can be nobody's id.
    """
    found = path.removeprefix(prefix)
    if not found or "/" in found or len(found) > MAX_ID_CHARS:
        raise Refused(Refusal("NOT_FOUND", f"no such path: {path[:128]}"))
    return found


def respond(request: Request, value: Any, headers: Headers, status: int = 200) -> None:
    """The whole response."""
    request.respond(status, encode(value), headers)
