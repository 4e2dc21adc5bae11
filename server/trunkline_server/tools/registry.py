"""All tools that the gateway can run: those of its operator, those that requests bring along, and those it comes with.

A request may name secrets and an operator's tools, but it can't widen what the operator allowed: where `http_get` may
go, what an MCP server is, and whether a registered tool may be called twice, is read from the configuration alone.
"""

import asyncio
import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from trunkline.v1.completion_spec_pb2 import BuiltinSource, McpSource, Tool
from trunkline_server.core.errors import InvalidRequest, NotSupported
from trunkline_server.core.schema_looks import UncheckableSchema
from trunkline_server.core.tool_calls import arguments_of
from trunkline_server.core.tools import ServerTool, ToolContext, ToolOutcome, ToolRunner
from trunkline_server.core.validation import schema_problem
from trunkline_server.tools.builtin import BUILTINS, HTTP_GET, hosts_of_config, runner_of
from trunkline_server.tools.destinations import InvalidUrl, destination_of
from trunkline_server.tools.egress import Egress, EgressError
from trunkline_server.tools.hosts import hosts_of
from trunkline_server.tools.mcp import Lesson, McpLink, McpRunner, has_sdk
from trunkline_server.tools.mcp_server import McpServer
from trunkline_server.tools.problem import Problem, url_problem
from trunkline_server.tools.replies import cut
from trunkline_server.tools.secret_store import SecretStore
from trunkline_server.tools.webhook import DEFAULT_TIMEOUT_S, Deliveries
from trunkline_server.tools.webhook_source import Webhooks, check_headers

TIMEOUT_S: Final = 15.0  # For a call of what is no webhook.
MAX_CONFIG_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class RegisteredTool:
    """A tool as an operator configured it: a webhook (`url`), a builtin, or one of an MCP server.

    Attributes:
        parameters: JSON Schema; empty where the builtin or the server has one of its own.
        secret, auth_headers: names of secrets; `auth_headers` goes from header to secret.
        timeout_s: for one call; None for the usual one.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    url: str = ""
    secret: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    auth_headers: Mapping[str, str] = field(default_factory=dict)
    response_mode: Literal["sync", "async"] = "sync"
    async_ack: str = ""
    builtin: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    mcp_server: str = ""
    mcp_tool: str = ""
    timeout_s: float | None = None
    idempotent: bool = False
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class RegisteredMcpServer:
    """An MCP server as an operator configured it: by address, or a command that is started here.

    Attributes:
        auth_headers, env: from header, or variable, to the name of a secret.
        allow_private: its address need not be a public one, nor https.
    """

    id: str
    url: str = ""
    auth_headers: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    allow_private: bool = False


class UnusableTools(ValueError):
    """What is configured can't be used. `problems` says each reason in a line."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class _Bounded:
    """Keeps a result at a size that can be held."""

    def __init__(self, runner: ToolRunner) -> None:
        self._runner = runner

    async def run(self, arguments_json: str, context: ToolContext, until_s: float) -> ToolOutcome:
        return cut(await self._runner.run(arguments_json, context, until_s))


class ToolRegistry:
    """Knows what runs a tool: the `Tools` port.

    Args:
        secrets: by name. A tool refers to them, and nothing else ever shows them.
        secret_hosts: the only hosts to which webhooks may take a secret, by its name. Webhooks of requests may use no
            secret without them.
        private_egress: makes a client for the hosts that it is given ("HOST:PORT"), wherever they are.
        now: seconds since 1970.
        report: told of each call in the background that failed: the tool's name and the reason, without content.

    Raises:
        UnusableTools.
    """

    def __init__(
        self,
        tools: Iterable[RegisteredTool],
        mcp_servers: Iterable[RegisteredMcpServer],
        secrets: Mapping[str, str],
        egress: Egress,
        *,
        now: Callable[[], float],
        secret_hosts: Mapping[str, Sequence[str]] | None = None,
        private_egress: Callable[[Sequence[str]], Egress] = Egress,
        report: Callable[[str, str], None] = lambda name, reason: None,
    ) -> None:
        self._egress = egress
        self._now = now
        self._deliveries = Deliveries(report)
        self._hosts: frozenset[str] = frozenset()
        self._links: dict[str, McpLink] = {}
        self._registered: dict[str, ServerTool] = {}
        # Tools whose description and schema the MCP server has, with the server's id and its own name for them.
        self._told_by_server: dict[str, tuple[str, str]] = {}
        self._lessons: dict[str, Lesson] = {}
        problems: list[str] = []
        bound: dict[str, frozenset[str]] = {}
        for name, hosts in (secret_hosts or {}).items():
            try:
                bound[name] = hosts_of(hosts)
            except ValueError as error:
                problems.append(f"secrets: {name!r}: hosts {error}")
        self._secrets = SecretStore(secrets, bound)
        self._webhooks = Webhooks(egress, self._secrets, self._deliveries, now)
        for server in mcp_servers:
            try:
                self._links[server.id] = self._link(server, private_egress)
            except Problem as problem:
                problems.append(f"mcp_servers: {server.id!r}: {problem}")
        for entry in tools:
            try:
                self._registered[entry.name] = self._register(entry)
            except Problem as problem:
                problems.append(f"tools: {entry.name!r}: {problem}")
        if problems:
            raise UnusableTools(problems)

    def resolve(self, tool: Tool, where: str) -> ServerTool:
        """What runs a tool of a request whose `source` is set and is not `inline`.

        Args:
            where: its path in the request, for the error.

        Raises:
            InvalidRequest, NotSupported: naming the field under `where`.
        """
        try:
            match tool.WhichOneof("source"):
                case "webhook":
                    return self._of_webhook(tool)
                case "builtin":
                    return self._of_builtin(tool, tool.builtin)
                case "mcp":
                    return self._of_mcp(tool, tool.mcp)
                case "registered":
                    return self._of_registered(tool)
                case source:
                    path = f"{where}.{source or 'source'}"
                    raise NotSupported(f"{path} is not served: the gateway runs none", field=path)
        except Problem as problem:
            raise InvalidRequest(f"{where}.{problem.path}", problem.description) from problem

    def begin_learning(self, tell: Callable[[str], None]) -> None:
        """Ask MCP servers what their tools are, where registered tools leave that to them, until they have said it.

        Goes on in the background until `close`: nobody waits for a server that is slow or dead. Until one has said it,
        models are told of its tools by name alone.

        Args:
            tell: gets a line for each server that did not say it when it was first asked.
        """
        for server_id in {server_id for server_id, _ in self._told_by_server.values()}:
            self._lessons[server_id] = Lesson(self._links[server_id], tell)

    async def close(self) -> None:
        """Let what runs in the background end, and end all sessions. Takes seconds at most."""
        await asyncio.gather(*(lesson.close() for lesson in self._lessons.values()))
        await asyncio.gather(self._deliveries.close(), *(x.close() for x in self._links.values()))

    def _of_webhook(self, tool: Tool) -> ServerTool:
        runner, timeout_s = self._webhooks.of_source(tool.name, tool.webhook)
        return ServerTool(tool, _Bounded(runner), timeout_s, is_idempotent=tool.idempotent)

    def _of_builtin(self, tool: Tool, source: BuiltinSource) -> ServerTool:
        if source.name not in BUILTINS:
            raise Problem("builtin.name", _unknown("builtin", source.name, BUILTINS))
        hosts: frozenset[str] = frozenset()
        config = _config(source.config_json)
        if source.name == HTTP_GET:
            if not self._hosts:
                raise Problem("builtin.name", "is not available: the operator allows it no host")
            hosts = self._narrowed(config)
        elif config:
            raise Problem("builtin.config_json", "must be empty: this builtin has no options")
        return self._builtin(tool, source.name, hosts, TIMEOUT_S)

    def _narrowed(self, config: Mapping[str, Any]) -> frozenset[str]:
        """Those of the operator's hosts that a request's configuration names; all of them when it names none."""
        if not config:
            return self._hosts
        try:
            wanted = hosts_of_config(config)
        except ValueError as error:
            raise Problem("builtin.config_json", str(error)) from error
        if not wanted <= self._hosts:
            raise Problem(
                "builtin.config_json", "names a host that the operator does not allow to http_get"
            )
        return wanted

    def _of_mcp(self, tool: Tool, source: McpSource) -> ServerTool:
        if source.server not in self._links:
            raise Problem("mcp.server", _unknown("MCP server", source.server, self._links))
        if not source.tool:
            raise Problem("mcp.tool", "is needed")
        told = self._told(tool, source.server, source.tool)
        runner = _Bounded(McpRunner(self._links[source.server], source.tool))
        return ServerTool(told, runner, TIMEOUT_S, is_idempotent=tool.idempotent)

    def _of_registered(self, tool: Tool) -> ServerTool:
        entry = self._registered.get(tool.name)
        if entry is None:
            raise Problem("name", _unknown("registered tool", tool.name, self._registered))
        own_schema_json = entry.tool.parameters_schema_json
        told = _described(tool, entry.tool.description, own_schema_json)
        if tool.name in self._told_by_server:
            told = self._told(told, *self._told_by_server[tool.name])
        return replace(entry, tool=told, schema_json=own_schema_json)

    def _told(self, tool: Tool, server: str, name: str) -> Tool:
        """With what the server says of the tool, once it has said it."""
        known = self._links[server].tools.get(name)
        if known is None and server in self._lessons:
            self._lessons[server].hurry()
        return _described(tool, known.description, known.schema_json) if known else tool

    def _register(self, entry: RegisteredTool) -> ServerTool:
        tool = _described(
            Tool(name=entry.name),
            entry.description,
            json.dumps(entry.parameters) if entry.parameters else "",
        )
        if problem := _problem_of_schema(tool.parameters_schema_json):
            raise Problem("parameters", problem)
        kinds = [kind for kind in ("url", "builtin", "mcp_server") if getattr(entry, kind)]
        if len(kinds) != 1:
            raise Problem("", "needs one of url, builtin and mcp_server")
        match kinds[0]:
            case "url":
                found = self._register_webhook(entry, tool)
            case "builtin":
                found = self._register_builtin(entry, tool)
            case _:
                found = self._register_mcp(entry, tool)
        return replace(found, is_exclusive=entry.exclusive)

    def _register_webhook(self, entry: RegisteredTool, tool: Tool) -> ServerTool:
        timeout_s = entry.timeout_s or DEFAULT_TIMEOUT_S
        runner = self._webhooks.of_operator(
            entry.name,
            entry.url,
            entry.secret,
            entry.headers,
            entry.auth_headers,
            entry.response_mode,
            entry.async_ack,
            timeout_s,
        )
        return ServerTool(tool, _Bounded(runner), timeout_s, is_idempotent=entry.idempotent)

    def _register_builtin(self, entry: RegisteredTool, tool: Tool) -> ServerTool:
        if entry.builtin not in BUILTINS:
            raise Problem("builtin", _unknown("builtin", entry.builtin, BUILTINS))
        hosts: frozenset[str] = frozenset()
        if entry.builtin == HTTP_GET:
            try:
                hosts = hosts_of_config(entry.config)
            except ValueError as error:
                raise Problem("config", str(error)) from error
            self._hosts |= hosts
        elif entry.config:
            raise Problem("config", "must be empty: this builtin has no options")
        return self._builtin(tool, entry.builtin, hosts, entry.timeout_s or TIMEOUT_S)

    def _register_mcp(self, entry: RegisteredTool, tool: Tool) -> ServerTool:
        if entry.mcp_server not in self._links:
            raise Problem("mcp_server", _unknown("MCP server", entry.mcp_server, self._links))
        name = entry.mcp_tool or entry.name
        if not tool.description or not tool.parameters_schema_json:
            self._told_by_server[entry.name] = (entry.mcp_server, name)
        runner = _Bounded(McpRunner(self._links[entry.mcp_server], name))
        timeout_s = entry.timeout_s or TIMEOUT_S
        return ServerTool(tool, runner, timeout_s, is_idempotent=entry.idempotent)

    def _builtin(
        self, tool: Tool, name: str, hosts: frozenset[str], timeout_s: float
    ) -> ServerTool:
        builtin = BUILTINS[name]
        told = _described(tool, builtin.description, builtin.schema_json)
        runner = _Bounded(runner_of(name, self._egress, self._now, hosts))
        return ServerTool(told, runner, timeout_s, is_idempotent=True)

    def _link(
        self,
        server: RegisteredMcpServer,
        private_egress: Callable[[Sequence[str]], Egress],
    ) -> McpLink:
        if bool(server.url) == bool(server.command):
            raise Problem("", "needs either url or command")
        if not has_sdk():
            raise Problem("", "needs the package mcp, which is not installed")
        egress = self._egress
        if server.url:
            if server.allow_private:
                egress = private_egress([_authority(server.url)])
            try:
                egress.check(server.url)
            except EgressError as error:
                raise url_problem("url", error.reason) from error
        headers = self._secrets.values(server.auth_headers, "auth_headers")
        check_headers(headers, "auth_headers")
        env = self._secrets.values(server.env, "env")
        found = McpServer(server.id, server.url, headers, tuple(server.command), env)
        return McpLink(found, egress)


def _described(tool: Tool, description: str, schema_json: str) -> Tool:
    """The tool, with these where it has none of its own."""
    described = Tool()
    described.CopyFrom(tool)
    described.description = tool.description or description
    described.parameters_schema_json = tool.parameters_schema_json or schema_json
    return described


def _problem_of_schema(schema_json: str) -> str:
    """Why nothing can be checked against it; empty when something can."""
    if not schema_json:
        return ""
    if problem := schema_problem(schema_json):
        return problem
    try:
        arguments_of(schema_json)
    except UncheckableSchema as error:
        return str(error)
    except ValueError:
        return "refers to what is not in it"
    return ""


def _config(text: str) -> Mapping[str, Any]:
    if len(text) > MAX_CONFIG_BYTES:
        raise Problem("builtin.config_json", f"at most {MAX_CONFIG_BYTES} bytes")
    try:
        config = json.loads(text or "{}")
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise Problem("builtin.config_json", "must be a JSON object")
    return config


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name[:64], list(known), 1, 0.6)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"names no {kind} of this server{hint}"


def _authority(url: str) -> str:
    """HOST:PORT of a URL, as the egress client's list has it."""
    try:
        to = destination_of(url)
    except InvalidUrl as error:
        raise Problem("url", "must be http(s)://HOST[:PORT][/PATH]") from error
    host = f"[{to.host}]" if ":" in to.host else to.host
    return f"{host}:{to.port}"
