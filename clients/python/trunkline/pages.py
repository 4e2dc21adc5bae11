"""What every listing of the contract has in common: pages, and a token for the next one."""

from typing import Any, Protocol, TypeVar, cast

from google.protobuf.message import Message


class Page(Protocol):
    """One page; the last has no token."""

    @property
    def next_page_token(self) -> str: ...


_Request = TypeVar("_Request", bound=Message)


def request_for(request: _Request, page_token: str) -> _Request:
    """The same request, for the page of this token."""
    following = type(request)()
    following.CopyFrom(request)
    cast(Any, following).page_token = page_token
    return following
