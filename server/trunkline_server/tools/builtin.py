"""Tools that come with the gateway. All of them only look, so a call can be sent again without harm."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from trunkline_server.core.tools import ToolContext, ToolOutcome, ToolRunner
from trunkline_server.tools.arithmetic import CalculationError
from trunkline_server.tools.calculator import MAX_CHARS, calculate
from trunkline_server.tools.egress import Egress, EgressError
from trunkline_server.tools.hosts import hosts_of, is_at
from trunkline_server.tools.replies import (
    MAX_REPLY_BYTES,
    failed,
    outcome_of_error,
    outcome_of_response,
)

MAX_URL_CHARS: Final = 4096
MAX_PIECE_CHARS: Final = 12_000  # Of a result, for each look at it.
MAX_PIECE_BYTES: Final = 15_000  # So that a look is not itself cut before the model sees it.
DEFAULT_PIECE_CHARS: Final = 8_000

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Builtin:
    """What a model is told of a builtin."""

    description: str
    schema_json: str


def _object(properties: Mapping[str, Any], *required: str) -> str:
    schema = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return json.dumps(schema, separators=(",", ":"))


CALCULATOR: Final = "calculator"
CURRENT_TIME: Final = "current_time"
HTTP_GET: Final = "http_get"
READ_RESULT: Final = "read_result"

BUILTINS: Final[Mapping[str, Builtin]] = {
    CALCULATOR: Builtin(
        "Computes an arithmetic expression and gives its value; fractions stay exact. Operators: + - * / // % ** and "
        "parentheses. Constants: pi, e, tau. Functions: sqrt, abs, round(x, digits), floor, ceil, min, max, sum, mean, "
        "exp, ln, log(x, base), log10, log2, sin, cos, tan, asin, acos, atan (in radians), degrees, radians, "
        "factorial, comb, gcd, lcm. Numbers have a decimal point and no separators: 1234.5.",
        _object(
            {
                "expression": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX_CHARS,
                    "description": "For example: (17.5 + 3) * 2**8 / sqrt(2)",
                }
            },
            "expression",
        ),
    ),
    CURRENT_TIME: Builtin(
        "Tells the current date, time and day of the week in a time zone.",
        _object(
            {
                "time_zone": {
                    "type": "string",
                    "maxLength": 64,
                    "description": "An IANA name such as Europe/Paris. Without one: UTC.",
                }
            }
        ),
    ),
    HTTP_GET: Builtin(
        "Fetches a text document by HTTP GET. Only some hosts are allowed; redirects are not followed.",
        _object(
            {"url": {"type": "string", "maxLength": MAX_URL_CHARS, "description": "An https URL."}},
            "url",
        ),
    ),
    READ_RESULT: Builtin(
        "Reads a part of the result of an earlier tool call of this conversation that was too long to be shown whole.",
        _object(
            {
                "tool_call_id": {"type": "string", "description": "The id of that call."},
                "offset": {
                    "type": "integer",
                    "minimum": 0,
                    "description": "Of the first character to read. Without it: 0.",
                },
                "limit": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_PIECE_CHARS,
                    "description": f"How many characters to read. Without it: {DEFAULT_PIECE_CHARS}.",
                },
            },
            "tool_call_id",
        ),
    ),
}


def hosts_of_config(config: Mapping[str, Any]) -> frozenset[str]:
    """The hosts that the configuration of an `http_get` names.

    Raises:
        ValueError: it is not `{"hosts": [...]}`.
    """
    if set(config) != {"hosts"} or not isinstance(config["hosts"], list):
        raise ValueError('must be {"hosts": [...]}')
    try:
        return hosts_of(config["hosts"])
    except ValueError as error:
        raise ValueError(f"hosts {error}") from error


def runner_of(
    name: str, egress: Egress, now: Callable[[], float], hosts: frozenset[str]
) -> ToolRunner:
    """What runs a builtin.

    Args:
        now: seconds since 1970.
        hosts: those that `http_get` may ask.
    """
    match name:
        case "calculator":
            return Calculator()
        case "current_time":
            return CurrentTime(now)
        case "http_get":
            return HttpGet(egress, hosts)
        case "read_result":
            return ReadResult()
        case _:
            raise ValueError(f"there is no builtin {name!r}")


class Calculator:
    """Computes."""

    async def run(self, arguments_json: str, context: ToolContext, until_s: float) -> ToolOutcome:
        """The value of `expression`."""
        expression = _arguments(arguments_json).get("expression")
        if not isinstance(expression, str):
            return failed("expression is needed, a string")
        try:
            return ToolOutcome(calculate(expression))
        except CalculationError as error:
            return failed(str(error))


class CurrentTime:
    """Knows what time it is."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    async def run(self, arguments_json: str, context: ToolContext, until_s: float) -> ToolOutcome:
        """Date, time and weekday in `time_zone`."""
        name = _arguments(arguments_json).get("time_zone") or "UTC"
        zone = _zone(name) if isinstance(name, str) and len(name) <= 64 else None
        if zone is None:
            return failed("time_zone is no known IANA name; Europe/Paris is one")
        at = datetime.fromtimestamp(int(self._now()), zone)
        told = {"time": at.isoformat(), "weekday": f"{at:%A}", "time_zone": name}
        return ToolOutcome(json.dumps(told))


class HttpGet:
    """Fetches text from some hosts."""

    def __init__(self, egress: Egress, hosts: frozenset[str]) -> None:
        self._egress = egress
        self._hosts = hosts

    async def run(self, arguments_json: str, context: ToolContext, until_s: float) -> ToolOutcome:
        """The document at `url`."""
        url = _arguments(arguments_json).get("url")
        if not isinstance(url, str):
            return failed("url is needed, a string")
        if not is_at(url, self._hosts):
            return failed(f"this host is not allowed; allowed are {', '.join(sorted(self._hosts))}")
        try:
            response = await self._egress.request(
                "GET",
                url,
                headers={"accept": "text/*, application/json, */*;q=0.1"},
                until_s=until_s,
                max_bytes=MAX_REPLY_BYTES,
            )
        except EgressError as error:
            return outcome_of_error(error, "the server")
        return outcome_of_response(response, "the server")


class ReadResult:
    """Reads what was kept back."""

    async def run(self, arguments_json: str, context: ToolContext, until_s: float) -> ToolOutcome:
        """`limit` characters of a result, from `offset` on."""
        arguments = _arguments(arguments_json)
        offset = arguments.get("offset", 0)
        limit = arguments.get("limit", DEFAULT_PIECE_CHARS)
        if not _is_count(offset, 0) or not _is_count(limit, 1):
            return failed("offset must be a whole number from 0, limit one from 1")
        whole = context.results.get(str(arguments.get("tool_call_id", "")))
        if whole is None:
            return failed("tool_call_id names no call whose result was shown in part")
        if offset >= len(whole):
            return failed(f"the result has {len(whole)} characters; offset is beyond its end")
        piece = whole[offset : offset + min(limit, MAX_PIECE_CHARS)]
        piece = piece.encode()[:MAX_PIECE_BYTES].decode(errors="ignore")
        return ToolOutcome(
            f"[characters {offset} to {offset + len(piece)} of {len(whole)}]\n{piece}"
        )


def _arguments(arguments_json: str) -> Arguments:
    """The arguments. The loop has checked them against the schema, but that may be one of the caller's own."""
    try:
        arguments = json.loads(arguments_json or "{}")
    except (ValueError, RecursionError):
        return {}
    return arguments if isinstance(arguments, dict) else {}


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _zone(name: str) -> tzinfo | None:
    if name.upper() in ("UTC", "Z"):
        return UTC  # Is there without any data of time zones.
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # A folder of zones is a name too.
        return None
