"""Where answers belong: whatever shapes one makes another place."""

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.unit.cache.asking import PARIS, about, asks, said
from trunkline.v1.completion_spec_pb2 import (
    CacheMode,
    CachePolicy,
    CompletionSpec,
    JsonObjectFormat,
    OptimizeFor,
    ReasoningEffort,
    ReasoningOptions,
    ResponseFormat,
    RoutingConstraints,
    RoutingIntent,
    SamplingOptions,
    Tool,
    ToolOptions,
)
from trunkline.v1.message_pb2 import Role
from trunkline_server.cache.place import Place, folded, place_of
from trunkline_server.core.cache import CacheSubject


def place(subject: CacheSubject, *, shared: bool = True, policy: str = "") -> Place:
    return place_of(subject, shared=shared, policy=policy)


HERE = place(about(asks()))
SYSTEM = said("Be brief.", Role.ROLE_SYSTEM)

SHAPING = {
    "owner": about(asks(), "globex"),
    "mode": about(asks(), mode="fast"),
    "skill": about(asks(), skills={"sql": "1"}),
    "model": about(asks(model="gpt")),
    "asked mode": about(asks(mode="think")),
    "temperature": about(asks(sampling=SamplingOptions(temperature=0.0, top_p=0.5))),
    "length": about(asks(sampling=SamplingOptions(temperature=0, max_output_tokens=9))),
    "seed": about(asks(sampling=SamplingOptions(temperature=0, seed=1))),
    "stop": about(asks(sampling=SamplingOptions(temperature=0, stop=["x"]))),
    "system prompt": about(asks(system_prompt="Be brief.")),
    "system message": about(asks(messages=[SYSTEM, said(PARIS)])),
    "persona": about(asks(persona="none")),
    "earlier turns": about(
        asks(messages=[said("Hi."), said("Hi.", Role.ROLE_ASSISTANT), said(PARIS)])
    ),
    "tools": about(asks(tool_options=ToolOptions(tools=[Tool(name="search")]))),
    "format": about(asks(response_format=ResponseFormat(json_object=JsonObjectFormat()))),
    "reasoning": about(
        asks(reasoning=ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_HIGH))
    ),
    "language": about(asks(intent=RoutingIntent(language="fr"))),
    "intent": about(asks(intent=RoutingIntent(optimize_for=OptimizeFor.OPTIMIZE_FOR_COST))),
    "constraints": about(asks(constraints=RoutingConstraints(denied_providers=["a"]))),
    "provider options": about(asks(provider_options_json={"*": '{"a": 1}'})),
    "mode options": about(asks(mode_options_json='{"depth": 2}')),
    "library": about(asks(component_library="forms")),
    "added by the server": CacheSubject("acme", asks(), asks(persona="x")),
}


def test_whatever_shapes_an_answer_makes_a_section_of_its_own():
    places = {name: place(subject) for name, subject in SHAPING.items()}

    assert len({HERE.section, *(found.section for found in places.values())}) == 1 + len(SHAPING)
    assert {found.question for found in places.values()} == {HERE.question}
    assert len({HERE.key, *(found.key for found in places.values())}) == 1 + len(SHAPING)


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata_json": '{"a": 1}'},
        {"labels": {"team": "x"}},
        {"session_id": "s"},
        {"end_user_id": "u"},
        {"cache": CachePolicy(mode=CacheMode.CACHE_MODE_ALLOW, max_age=Duration(seconds=9))},
    ],
    ids=str,
)
def test_what_shapes_nothing_makes_no_other_place(fields):
    assert place(about(asks(**fields))) == HERE


def test_users_have_sections_of_their_own_where_they_do_not_share():
    first, second = (place(about(asks(end_user_id=user)), shared=False) for user in "ab")

    assert first.section != second.section
    assert first.question == second.question


def test_a_new_policy_finds_nothing_of_the_old_one():
    assert place(about(asks()), policy="2").key != HERE.key


def test_skills_are_told_apart_by_version_and_never_run_together():
    sections = {
        place(about(asks(), skills=skills)).section
        for skills in ({"a": "1"}, {"a": "2"}, {"a": "1", "b": "1"}, {"a": "1b", "1": ""})
    }

    assert len(sections) == 4
    assert (
        place(about(asks(), skills={"b": "1", "a": "1"})).section
        == place(about(asks(), skills={"a": "1", "b": "1"})).section
    )


def test_a_language_that_is_not_named_is_found_out():
    found = place_of(about(asks()), shared=True, policy="", language_of=lambda spec: "fr")

    assert found.section != HERE.section


def test_the_last_question_is_not_part_of_the_section():
    other = place(about(asks("What is the capital of Spain?")))

    assert other.section == HERE.section
    assert other.key != HERE.key


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        (PARIS, f"  {PARIS}\n", True),
        ("Cafe\u0301?", "Caf\u00e9?", True),
        ("\uff37\uff48\uff59?", "Why?", True),
        ("a\u00a0b", "a b", True),
        ("a\r\nb", "a\nb", True),
        ("\ufb01ne", "fine", True),
        ("What is 5\u00b2?", "What is 52?", False),
        ("H\u2082O", "H2O", False),
        ("\u00bd cup", "1\u20442 cup", False),
        ("What is US?", "What is us?", False),
        ("a  b", "a b", False),
    ],
)
def test_questions_are_folded_where_that_changes_nothing(first, second, is_same):
    assert (folded(first) == folded(second)) is is_same
    assert (place(about(asks(first))).key == place(about(asks(second))).key) is is_same


def test_two_parts_are_not_one():
    one, two = CompletionSpec(messages=[said("ab")]), CompletionSpec(messages=[said("a")])
    two.messages[0].parts.add(text="b")

    assert place(about(one)).key != place(about(two)).key


def test_the_request_is_left_as_it_was():
    spec = asks("Caf\u0065\u0301", messages=[SYSTEM, said("\uff37")], metadata_json="{}")
    before = CompletionSpec.FromString(spec.SerializeToString())

    place(about(spec))

    assert spec == before
