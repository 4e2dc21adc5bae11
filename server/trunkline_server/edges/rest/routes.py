"""The paths of a dialect, each with the function that serves it. What is not in the table is not served, so whoever
lists the table has seen everything."""

from collections.abc import Awaitable, Callable, Mapping

from trunkline_server.edges.rest.http import Refused, Request
from trunkline_server.edges.status import Refusal

Handler = Callable[[Request], Awaitable[None]]


class Routes:
    """Finds handlers.

    Args:
        handlers: by method and path. A path that ends in a slash stands for all that begin with it.
    """

    def __init__(self, handlers: Mapping[tuple[str, str], Handler]) -> None:
        self._handlers = handlers
        self._paths = frozenset(path for _, path in handlers)
        self._prefixes = tuple(path for path in sorted(self._paths) if path.endswith("/"))

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Method and path of each."""
        return tuple(self._handlers)

    def find(self, method: str, path: str) -> Handler | None:
        """The handler of a path, which refuses where it is not served by this method; None: not one of these."""
        found = self._handlers.get((method, path))
        if found is not None:
            return found
        if path not in self._paths:
            if not path.startswith(self._prefixes):
                return None
            path = next(prefix for prefix in self._prefixes if path.startswith(prefix))
        return self._handlers.get((method, path), wrong_method)


async def wrong_method(request: Request) -> None:
    """Refuses a path that is not served, or not with this method."""
    raise Refused(Refusal("NOT_FOUND", f"no such path: {request.method} {request.path[:128]}"))
