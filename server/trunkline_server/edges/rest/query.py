"""Queries: read by name, strictly."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl

from trunkline_server.edges.rest.body import invalid

MAX_PARAMETERS: Final = 8


def parameters(query: str, names: Sequence[str]) -> dict[str, str]:
    """Of a query without its question mark, by name; one that is empty counts as absent.

    Raises:
        Refused: naming the parameter that is none of these, or comes twice.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise invalid(f"at most {MAX_PARAMETERS} parameters") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in names:
            known = f"must be one of {', '.join(names)}" if names else "is no parameter of this"
            raise invalid(known, name[:64])
        if found.setdefault(name, value) != value:
            raise invalid("comes twice", name)
    return {name: value for name, value in found.items() if value}
