"""What is configured of a server that speaks the Model Context Protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class McpServer:
    """Where it is: a URL, or a command that is started here.

    Attributes:
        headers: with secrets in them.
        env: variables for the command, with secrets in them, beside the few that every program needs.
    """

    id: str
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class McpTool:
    """What a server says of one of its tools."""

    description: str
    schema_json: str


class McpDown(Exception):
    """There is no connection to the server. Its text is a word for the reason."""


class SessionLost(Exception):
    """The server no longer knows the session, so it did nothing with the call."""
