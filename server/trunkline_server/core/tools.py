"""What the use case needs of the tools that the gateway runs itself. Adapters in `tools/` fill these ports."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from trunkline.v1.completion_spec_pb2 import Tool
from trunkline_server.core.skill import Skill


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What the model is told of a call. A failure is told too: the model may try something else.

    Attributes:
        is_unknown: the call may have had its effect, nobody knows. It is not sent again unless the tool is idempotent.
        skill: the call has activated it, and `text` is all of its instructions.
    """

    text: str
    is_error: bool = False
    is_unknown: bool = False
    skill: Skill | None = None


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a runner may know of the request.

    Attributes:
        call_id: unique for each call of each request, and the same when a call is sent again: tools may use it to
            recognise a repetition.
        results: whole results of earlier calls of this request, by tool call id, where the model saw a part only.
    """

    call_id: str
    request_id: str
    session_id: str = ""
    results: Mapping[str, str] = field(default_factory=dict)


class ToolRunner(Protocol):
    """Runs the calls of one tool."""

    async def run(self, arguments_json: str, context: ToolContext, until_s: float) -> ToolOutcome:
        """Run one call. Whatever goes wrong on the way is an outcome, also that `until_s` (of the loop's clock) came.

        Cancelled, it closes the tool's connection at once and lets the cancellation pass.

        Args:
            arguments_json: a JSON object that fits the tool's schema.
        """
        ...


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool that the gateway runs.

    Attributes:
        tool: as a model is told of it: name, description and schema.
        timeout_s: for one call.
        is_exclusive: no other tool runs beside it.
        schema_json: what its operator lets it take, whatever schema a request has brought along; empty: anything.
    """

    tool: Tool
    runner: ToolRunner
    timeout_s: float
    is_idempotent: bool = False
    is_exclusive: bool = False
    schema_json: str = ""


class Tools(Protocol):
    """Knows all tools that the gateway can run."""

    def resolve(self, tool: Tool, where: str) -> ServerTool:
        """What runs a tool of a request whose `source` is set and is not `inline`.

        Args:
            where: its path in the request, for the error.

        Raises:
            InvalidRequest, NotSupported: naming the field under `where`.
        """
        ...
