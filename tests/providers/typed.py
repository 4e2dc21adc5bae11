"""Does a value fit a type? For the TypedDicts of SDKs: unlike pydantic, this takes an unknown key for what it is."""

import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import typing_extensions

_UNIONS = (typing.Union, types.UnionType)
_LISTS = (list, Iterable, Sequence, typing.Iterable, typing.Sequence)
_MAPS = (dict, Mapping, typing.Mapping)


def misfits(value: Any, kind: Any, path: str = "") -> list[str]:
    """What does not fit, each with its path; of a union, what does not fit its nearest member."""
    return list(_misfits(value, kind, path))


def _misfits(value: Any, kind: Any, path: str) -> Iterator[str]:
    origin = typing_extensions.get_origin(kind)
    arguments = typing_extensions.get_args(kind)
    if kind in (Any, object):
        return
    if origin in (typing.Annotated, typing_extensions.Required, typing_extensions.NotRequired):
        yield from _misfits(value, arguments[0], path)
    elif origin in _UNIONS:
        tries = [list(_misfits(value, member, path)) for member in arguments]
        # The deepest complaint comes from the member that was meant.
        yield from min(tries, key=lambda found: (bool(found), -_depth(found), len(found)))
    elif origin in (typing.Literal, typing_extensions.Literal):
        if value not in arguments:
            yield f"{path}: {value!r} is none of {arguments}"
    elif typing_extensions.is_typeddict(kind):
        yield from _fields(value, kind, path)
    elif origin in _LISTS or _is_sequence(origin):
        if not isinstance(value, list):
            yield f"{path}: {value!r} is no list"
            return
        for index, item in enumerate(value):
            yield from _misfits(item, arguments[0] if arguments else Any, f"{path}[{index}]")
    elif origin in _MAPS:
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is no object"
            return
        for key, item in value.items():
            yield from _misfits(item, arguments[1], f"{path}.{key}")
    elif kind is type(None) or kind is None:
        if value is not None:
            yield f"{path}: {value!r} is not null"
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{path}: {value!r} is no number"
    elif kind is int and isinstance(value, bool):
        yield f"{path}: {value!r} is no number"
    elif not isinstance(kind, type) or not isinstance(value, kind):
        yield f"{path}: {value!r} is no {kind}"


def _fields(value: Any, kind: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: {value!r} is no object"
        return
    fields = _hints(kind)
    for key, item in value.items():
        if key not in fields:
            yield f"{path}.{key}: {kind.__name__} has no such field"
        else:
            yield from _misfits(item, fields[key], f"{path}.{key}")
    for key, hint in fields.items():
        # Not from __required_keys__, which misses what is written as a string.
        is_required = typing_extensions.get_origin(hint) is typing_extensions.Required
        if is_required and key not in value:
            yield f"{path}.{key}: {kind.__name__} requires it"


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing_extensions.get_type_hints(kind, include_extras=True)


def _is_sequence(origin: Any) -> bool:
    # The SDKs have a protocol of their own for sequences that are no strings.
    return getattr(origin, "__name__", "") == "SequenceNotStr"


def _depth(found: Sequence[str]) -> int:
    return max((text.partition(": ")[0].count(".") for text in found), default=0)
