"""The HTTP server's connection: uvicorn's, which also cancels a request when its client goes away.

uvicorn tells an application of a lost client only when it asks, which would take a second task for every request.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from trunkline_server.edges.rest.app import TASK_KEY


class Connection(HttpToolsProtocol):
    """One client."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or the response was the last on this connection."""
        super().connection_lost(exc)
        # None until the first request; its type does not say so.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            return
        scope: dict[str, Any] = cycle.scope  # type: ignore[assignment]
        task = scope.get(TASK_KEY)
        if task is not None:
            scope["trunkline.gone"] = True
            task.cancel()
