"""Pages of lists."""

from typing import Final

from trunkline_server.core.errors import InvalidRequest

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000
MAX_TOKEN_CHARS: Final = 18


def page_size_of(asked: int) -> int:
    """Entries on a page. Raises: InvalidRequest."""
    if asked < 0:
        raise InvalidRequest("page_size", "0 or more")
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


def start_of(token: str) -> int:
    """The number that a page token stands for; 0 without one. Raises: InvalidRequest."""
    if not token:
        return 0
    if not token.isascii() or not token.isdigit() or len(token) > MAX_TOKEN_CHARS:
        raise InvalidRequest("page_token", "is none of ours")
    return int(token)
