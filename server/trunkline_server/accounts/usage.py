"""What was used, summed up by whatever callers group it by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from trunkline_server.core.errors import InvalidRequest
from trunkline_server.core.transactions import Statement, Transaction, Value

MAX_GROUPS: Final = 4
MAX_LABEL_CHARS: Final = 128
MAX_SPAN_US: Final = 400 * 86_400 * 1_000_000
DAY_US: Final = 86_400 * 1_000_000
LABEL: Final = "label:"
COLUMNS: Final[Mapping[str, str]] = {
    "provider": "r.provider",
    "model": "r.model",
    "route": "r.route",
    "mode": "r.mode",
    "key": "r.key_id",
    "project": "r.project",
    "end_user": "r.end_user",
    "session": "r.session",
    "day": f"r.created_at / {DAY_US}",
}


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One group. `is_estimated`: some of its counts, or some of its prices, are not known exactly."""

    group: Mapping[str, str]
    requests: int
    input_tokens: int
    output_tokens: int
    cached_requests: int
    cost: int
    is_estimated: bool


def check_groups(names: Sequence[str]) -> None:
    """Raises: InvalidRequest."""
    if len(names) > MAX_GROUPS or len(set(names)) != len(names):
        raise InvalidRequest("group_by", f"at most {MAX_GROUPS} names, each once")
    for i, name in enumerate(names):
        label = name.removeprefix(LABEL)
        is_label = name.startswith(LABEL) and 0 < len(label) <= MAX_LABEL_CHARS
        if name not in COLUMNS and not is_label:
            known = ", ".join([*COLUMNS, "label:NAME"])
            raise InvalidRequest(f"group_by[{i}]", f"is none of {known}")


def query(
    organization: str,
    start_us: int,
    end_us: int,
    names: Sequence[str],
    offset: int,
    count: int,
) -> Transaction[list[UsageRow]]:
    """The groups of what ended, and began from `start_us` to before `end_us`; in the order of their names."""
    values: list[Value] = [organization, start_us, end_us]
    columns: list[str] = []
    joins: list[str] = []
    for name in names:
        column = COLUMNS.get(name)
        if column is None:
            values.append(name.removeprefix(LABEL))
            label = f"l{len(values)}"
            joins.append(
                f" LEFT JOIN request_labels {label} ON {label}.id = r.id AND {label}.name = ${len(values)}"
            )
            column = f"COALESCE({label}.value, '')"
        columns.append(column)
    values += [count, offset]
    keys = ", ".join(columns)
    rows = yield Statement(
        f"SELECT {keys}{', ' if keys else ''}COUNT(*), CAST(COALESCE(SUM(r.input_tokens), 0) AS BIGINT),"
        " CAST(COALESCE(SUM(r.output_tokens), 0) AS BIGINT), CAST(COALESCE(SUM(r.is_cached), 0) AS BIGINT),"
        " CAST(COALESCE(SUM(r.cost), 0) AS BIGINT),"
        " COALESCE(MAX(CASE WHEN r.cost IS NULL THEN 1 ELSE r.is_estimated END), 0)"
        f" FROM requests r{''.join(joins)}"
        " WHERE r.organization = $1 AND r.created_at >= $2 AND r.created_at < $3 AND r.state = 1"
        + (f" GROUP BY {keys} ORDER BY {keys}" if keys else "")
        + f" LIMIT ${len(values) - 1} OFFSET ${len(values)}",
        tuple(values),
    )
    width = len(names)
    found = []
    for row in rows:
        group = {name: _shown(name, value) for name, value in zip(names, row, strict=False)}
        requests, input_tokens, output_tokens, cached, cost, is_estimated = row[width:]
        found.append(
            UsageRow(group, requests, input_tokens, output_tokens, cached, cost, bool(is_estimated))
        )
    return found


def _shown(name: str, value: object) -> str:
    if name == "day" and isinstance(value, int):
        return datetime.fromtimestamp(value * 86_400, UTC).date().isoformat()
    return str(value)
