"""How a row's result is printed."""

from collections.abc import Sequence

from rows import CPU_COSTS, Cost, Row

COLUMNS = {
    "row": 11,
    "us/request": 10,
    "us/chunk": 8,
    "requests/s": 10,
    "added ms p50/p99": 17,
    "first ms p50/p99": 17,
    "messages": 8,
    "other": 5,
    "slow": 4,
}


def heading() -> str:
    return line(list(COLUMNS)) + "  target"


def show(row: Row, measured: Cost, is_ours: bool) -> str:
    """The row's line, and one more for its errors. Nothing is asked of gateways that are not ours."""
    text = held(row, measured) if row.model == "hold" else loaded(measured)
    if is_ours:
        text += f"  {verdict(row, measured)}"
    if measured.errors:
        text += f"\n{'':11} {measured.errors} ERRORS, the first: {measured.first_error}"
    return text.rstrip()


def loaded(measured: Cost) -> str:
    return line(
        [
            measured.row,
            number(measured.cpu_us_per_request),
            number(measured.cpu_us_per_chunk, 1),
            number(measured.requests_per_s),
            pair(measured.added_p50_ms, measured.added_p99_ms),
            pair(measured.added_first_p50_ms, measured.added_first_p99_ms),
            number(measured.messages_per_stream, 1),
            number(measured.foreign_cores, 2),
            number(measured.slowness, 1),
        ]
    )


def held(row: Row, measured: Cost) -> str:
    above = f"{row.callers:,} open streams: {number(measured.held_mb, 1)} MB above idle"
    return f"{row.name:<11} {above}, {number(measured.idle_mb)} MB".ljust(len(line(list(COLUMNS))))


def verdict(row: Row, measured: Cost) -> str:
    """What was asked of the row, and whether it is reached: here, and for CPU at reference speed."""
    words = []
    for target in row.targets:
        value = getattr(measured, target.attribute)
        reached = "?" if value is None else "ok" if value <= target.limit else "MISS"
        words.append(f"{target.limit:g} {target.unit} {reached}")
        if value is not None and measured.slowness and target.attribute in CPU_COSTS:
            words[-1] += f" ({value / measured.slowness:,.3g} at reference speed)"
    return ", ".join(words)


def line(cells: Sequence[str]) -> str:
    first, *others = COLUMNS.values()
    return f"{cells[0]:<{first}} " + " ".join(
        f"{cell:>{width}}" for cell, width in zip(cells[1:], others, strict=True)
    )


def number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def pair(low: float | None, high: float | None) -> str:
    return "-" if low is None else f"{number(low, 2)} / {number(high, 2)}"
