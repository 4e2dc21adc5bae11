"""Schemas that ask for more work than there is time for, and those that only seem to."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from trunkline_server.core.schema_looks import MAX_LOOKS, Looks, UncheckableSchema
from trunkline_server.core.tool_calls import Arguments, arguments_of

LIMIT_S = 2.0  # For what takes minutes, or no end of time, where it is not counted first.
FANCY = "^(a|a)*(?=b)c$"  # Goes back as often as it may.
TREE = {"$ref": "#"}


def twice(levels: int) -> dict[str, Any]:
    """Each of its schemas refers to the next one twice."""
    schemas: dict[str, Any] = {
        f"s{n}": {"anyOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(levels)
    }
    return {"$defs": {**schemas, f"s{levels}": {"type": "string"}}, "$ref": "#/$defs/s0"}


def nested(levels: int, around: Callable[[Any], Any], inner: Any) -> Any:
    """Something inside of itself."""
    for _ in range(levels):
        inner = around(inner)
    return inner


@pytest.mark.parametrize(
    "schema",
    [
        twice(20),
        twice(200),
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$dynamicAnchor": "x", "anyOf": [{"$dynamicRef": "#x"}, {}]},
        nested(20, lambda s: {"allOf": [s], "unevaluatedProperties": False}, {}),
        {"allOf": [{"pattern": f"{n}"} for n in range(33)]},
        {"properties": {"a": {"$id": "http://a.test/", "type": "string"}}},
        {"$ref": "other.json#/x"},
    ],
    ids=[
        "2^20",
        "2^200",
        "itself",
        "itself in others",
        "itself by name",
        "unevaluated",
        "many expressions",
        "schemas of other ids",
        "elsewhere",
    ],
)
def test_a_schema_that_nothing_can_be_checked_against_is_found_at_once(schema):
    began_s = time.monotonic()

    with pytest.raises(UncheckableSchema):
        Arguments(json.dumps(schema))

    assert time.monotonic() - began_s < LIMIT_S


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (twice(16), {}),
        (
            {"properties": {"a": {"anyOf": [TREE, TREE]}}},
            nested(40, lambda inner: {"a": inner}, 1),
        ),
        (
            {"properties": {"a": {"items": {"anyOf": [{"const": n} for n in range(5_000)]}}}},
            {"a": [-1] * 5_000},
        ),
        ({"properties": {"a": {"items": {"pattern": FANCY}}}}, {"a": ["a" * 30] * 7_000}),
        ({"patternProperties": {FANCY: {}}}, {f"{'a' * 30}{n}": n for n in range(5_000)}),
        ({"properties": {"a": {"items": {"multipleOf": 1e-7}}}}, {"a": [1e300] * 30_000}),
        ({"required": [f"k{n}" for n in range(20_000)]}, {}),
        (nested(12, lambda s: {"allOf": [s], "unevaluatedProperties": False}, {}), {"a": 1}),
    ],
    ids=[
        "2^16",
        "once for each level",
        "each with each",
        "expressions",
        "expressions for names",
        "division",
        "many errors",
        "unevaluated",
    ],
)
def test_arguments_are_judged_in_bounded_time_whatever_the_schema(schema, value):
    text = json.dumps(value)
    arguments = Arguments(json.dumps(schema))
    began_s = time.monotonic()

    found, problem = arguments.parse(text)

    assert time.monotonic() - began_s < LIMIT_S
    assert found is None
    assert problem


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (
            {
                "properties": {
                    f"p{n}": {"anyOf": [{"type": "string"}, {"type": "null"}]} for n in range(200)
                }
            },
            {f"p{n}": None for n in range(200)},
        ),
        (
            {
                "$defs": {"row": {"properties": {f"c{n}": {"type": "string"} for n in range(10)}}},
                "properties": {"rows": {"items": {"$ref": "#/$defs/row"}}},
            },
            {"rows": [{f"c{n}": "abc" for n in range(10)}] * 1_900},
        ),
        (
            {"$defs": {"n": {"properties": {"below": {"items": {"$ref": "#/$defs/n"}}}}}}
            | {"$ref": "#/$defs/n"},
            nested(20, lambda inner: {"below": [inner, {}]}, {}),
        ),
        ({"properties": {"text": {"type": "string"}}}, {"text": "x" * 250_000}),
        ({"properties": {"day": {"pattern": r"^\d{4}-\d{2}-\d{2}$"}}}, {"day": "2026-11-20"}),
        (
            {"$id": "http://a.test/s", "$ref": "http://a.test/s#/$defs/a~1b", "$defs": {"a/b": {}}},
            {},
        ),
        ({"$defs": {"x": {"$anchor": "here"}}, "$ref": "#here"}, {}),
    ],
    ids=["wide", "long", "a tree", "text", "a date", "by its own id", "by a name"],
)
def test_what_tools_really_take_is_checked(schema, value):
    assert Arguments(json.dumps(schema)).parse(json.dumps(value)) == (value, "")


def test_a_reference_is_counted_for_what_it_leads_to():
    count = Looks({"$defs": {"a": {"enum": [1]}}, "allOf": [{"$ref": "#/$defs/a"}] * 3}).at(1, 1)

    assert 6 < count < 12
    assert Looks(twice(10)).at({}, 2) > 2**10
    assert Looks({"properties": {"a": {"anyOf": [TREE] * 2}}}).at(
        nested(60, lambda inner: {"a": inner}, 1), 0
    ) > (MAX_LOOKS)


def test_small_schemas_are_read_once_and_large_ones_are_not_kept():
    small, large = '{"type":"object"}', json.dumps({"description": "x" * 20_000})
    with_expressions = json.dumps({"allOf": [{"pattern": str(n)} for n in range(3)]})

    assert arguments_of(small) is arguments_of(small)
    assert arguments_of(large) is not arguments_of(large)
    assert arguments_of(with_expressions) is not arguments_of(with_expressions)
