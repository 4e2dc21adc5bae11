"""Calls that repeat themselves, arguments that do not fit, results that are too long."""

import json

import pytest

from trunkline_server.core.tool_calls import (
    MAX_ARGUMENTS_CHARS,
    MAX_SHOWN_CHARS,
    Arguments,
    Repetition,
    RepetitionWatch,
    shown,
)

NONE, NOTED, STOPPED = Repetition
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 7}},
        "required": ["city"],
        "additionalProperties": False,
    }
)


def seen(*calls: str) -> list[Repetition]:
    """What becomes of calls of one tool with these arguments."""
    watch = RepetitionWatch()
    return [watch.see("f", {"x": arguments}) for arguments in calls]


def test_the_third_identical_call_is_noted_and_the_fifth_stopped():
    assert seen(*"aaaaa") == [NONE, NONE, NOTED, NOTED, STOPPED]


def test_what_comes_between_does_not_matter():
    assert seen(*"abacaadea") == [NONE, NONE, NONE, NONE, NOTED, NOTED, NONE, NONE, STOPPED]


def test_the_order_of_keys_makes_no_other_call():
    watch = RepetitionWatch()
    pairs = [{"x": 1, "y": {"b": 2, "a": 1}}, {"y": {"a": 1, "b": 2}, "x": 1}] * 2

    assert [watch.see("f", pair) for pair in pairs] == [NONE, NONE, NOTED, NOTED]


def test_another_tool_makes_another_call():
    watch = RepetitionWatch()

    assert [watch.see(name, {}) for name in "fgfg"] == [NONE] * 4


def test_two_calls_in_turn_are_stopped_at_the_eighth():
    assert seen(*"abababab") == [NONE, NONE, NONE, NONE, NOTED, NOTED, NOTED, STOPPED]


def test_a_circle_of_three_is_none_of_two():
    assert seen(*"abcabcab")[-1] is NOTED


@pytest.mark.parametrize(
    ("schema", "text", "arguments"),
    [
        (SCHEMA, '{"city":"Rome","days":3}', {"city": "Rome", "days": 3}),
        ("", "", {}),
        ("", '{"anything":[1,null]}', {"anything": [1, None]}),
        ('{"type":"object"}', "{}", {}),
        ('{"$schema":"http://127.0.0.1:9/dialect","type":"object"}', "{}", {}),
    ],
)
def test_arguments_that_fit(schema, text, arguments):
    assert Arguments(schema).parse(text) == (arguments, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"days":3}', 'at /: "city" is a required property'),
        ('{"city":5}', 'at /city: 5 is not of type "string"'),
        ('{"city":"Rome","days":8}', "at /days: 8 is greater than the maximum of 7"),
        ("[]", "the arguments are no JSON object"),
        ("5", "the arguments are no JSON object"),
        ('{"city":', "the arguments are no JSON"),
        ('{"city":NaN}', "the arguments are no JSON"),
        ("[" * 100_000, "the arguments are no JSON"),
        (
            '{"city":"%s"}' % ("x" * MAX_ARGUMENTS_CHARS),
            f"the arguments are longer than {MAX_ARGUMENTS_CHARS} characters",
        ),
    ],
    ids=["missing", "type", "range", "list", "number", "cut", "NaN", "deep", "long"],
)
def test_arguments_that_do_not_fit_are_told_with_their_place(text, problem):
    assert Arguments(SCHEMA).parse(text) == (None, problem)


def test_many_problems_are_told_in_few_words():
    schema = json.dumps({"properties": {f"p{n}": {"type": "null"} for n in range(50)}})

    arguments, problem = Arguments(schema).parse(
        json.dumps({f"p{n}": "x" * 1_000 for n in range(50)})
    )

    assert arguments is None
    assert problem.count("at /p") == 3
    assert len(problem) < 800


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a":"\\ud800"}', "the arguments are no JSON"),
        ('{"\\ud800":1}', "the arguments are no JSON"),
        ('{"a":1e999}', "the arguments are no JSON"),
        ('{"a":%s}' % ("1" * 5_000), "the arguments are no JSON"),
        ('{"a":%s}' % ("[" * 64 + "]" * 64), "the arguments nest deeper than 64 levels"),
    ],
    ids=["half a character", "in a key", "infinite", "endless digits", "deep"],
)
def test_what_others_could_not_read_is_not_handed_on(text, problem):
    assert Arguments("").parse(text) == (None, problem)


def test_a_schema_of_elsewhere_is_not_fetched():
    with pytest.raises(ValueError, match="not in it"):
        Arguments('{"$ref":"http://127.0.0.1:9/schema.json"}')


def test_a_short_result_is_shown_whole():
    text = "x" * MAX_SHOWN_CHARS

    assert shown(text, "c") == text


def test_a_long_result_is_shown_as_head_and_tail_with_the_way_to_the_rest():
    text = "".join(f"{number:06d}," for number in range(10_000))

    seen_text = shown(text, "call_1")
    without_way = shown(text, "call_1", is_kept=False)

    head, _, rest = seen_text.partition("\n[... ")
    note, _, tail = rest.partition("]\n")
    assert "read_result" in note
    assert "read_result" not in without_way
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) + len(tail) == MAX_SHOWN_CHARS
    assert f"{len(text) - MAX_SHOWN_CHARS} characters left out" in note
    assert f'{{"tool_call_id": "call_1", "offset": {len(head)}}}' in note
