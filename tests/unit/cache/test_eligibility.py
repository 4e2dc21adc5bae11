"""What may be answered from the cache, and what may be kept."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.unit.cache.asking import answers, asks, said
from trunkline.v1.completion_pb2 import (
    Choice,
    Completion,
    FinishReason,
    PanelReport,
    ServerToolCall,
)
from trunkline.v1.completion_spec_pb2 import (
    CacheMode,
    CachePolicy,
    CompletionSpec,
    SamplingOptions,
    Tool,
    ToolOptions,
)
from trunkline.v1.message_pb2 import Media, Message, Part, Role, ToolCall
from trunkline_server.cache.eligibility import is_answerable, is_soon_old, may_ask, may_keep

TOOLS = ToolOptions(tools=[Tool(name="search")])


def policy(name: str) -> CachePolicy:
    return CachePolicy(mode=CacheMode.Value(f"CACHE_MODE_{name}"))


def sampling(**options: Any) -> SamplingOptions:
    return SamplingOptions(**options)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"sampling": None}, False),
        ({"sampling": sampling(max_output_tokens=9)}, False),
        ({"sampling": sampling(temperature=0.1)}, False),
        ({"sampling": None, "cache": CachePolicy(max_age=Duration(seconds=9))}, False),
        ({"sampling": sampling(temperature=1), "cache": policy("ALLOW")}, True),
        ({"sampling": None, "cache": policy("REFRESH")}, True),
        ({"cache": policy("BYPASS")}, False),
        ({"tool_options": TOOLS}, False),
        ({"tool_options": TOOLS, "cache": policy("ALLOW")}, True),
        ({"conversation_id": "conv_1"}, False),
        ({"conversation_id": "conv_1", "cache": policy("ALLOW")}, False),
        ({"conversation_id": "conv_1", "cache": policy("ONLY_IF_CACHED")}, True),
        ({"sampling": sampling(temperature=0, candidate_count=2)}, False),
        ({"sampling": sampling(temperature=0, candidate_count=1)}, True),
        ({"sampling": sampling(temperature=0, logprobs=True)}, False),
        ({"sampling": sampling(temperature=0, top_logprobs=3)}, False),
        ({"output_modalities": ["text"]}, True),
        ({"output_modalities": ["text", "image"]}, False),
    ],
)
def test_a_request_as_it_was_sent(fields, expected):
    assert may_ask(asks(**fields)) is expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param([said("Why is the sky blue?")], True, id="text"),
        pytest.param(
            [
                said("Be brief.", Role.ROLE_SYSTEM),
                said("a"),
                said("b", Role.ROLE_ASSISTANT),
                said("c"),
            ],
            True,
            id="earlier turns",
        ),
        pytest.param([], False, id="nothing"),
        pytest.param([said("So", Role.ROLE_ASSISTANT)], False, id="prefilled"),
        pytest.param(
            [Message(role=Role.ROLE_USER, parts=[Part(image=Media(url="https://a/b"))])],
            False,
            id="picture",
        ),
        pytest.param(
            [
                Message(role=Role.ROLE_ASSISTANT, parts=[Part(tool_call=ToolCall(id="1"))]),
                said("c"),
            ],
            False,
            id="tool call",
        ),
        pytest.param([said("What is the weather in Paris?")], False, id="time"),
        pytest.param(
            [said("What is new today?"), said("Much.", Role.ROLE_ASSISTANT), said("And why?")],
            False,
            id="time in an earlier turn",
        ),
        pytest.param(
            [said("Today is Monday.", Role.ROLE_SYSTEM), said("Why is the sky blue?")],
            True,
            id="time in the system prompt, which is hashed",
        ),
        pytest.param([said("x" * 300_000)], False, id="long"),
    ],
)
def test_a_request_by_what_it_says(messages, expected):
    spec = CompletionSpec(messages=messages)

    assert is_answerable(spec, spec) is expected


def test_tools_that_were_added_need_the_same_consent():
    asked = asks()
    with_tools = asks(tool_options=TOOLS)
    allowed = asks(cache=policy("ALLOW"))

    assert not is_answerable(asked, with_tools)
    assert is_answerable(allowed, with_tools)


@pytest.mark.parametrize(
    "text",
    [
        "Who is the current president?",
        "What happened TODAY?",
        "Who won this year's cup?",
        "What is the gold price?",
        "Wie ist das Wetter in Bonn?",
        "Was läuft heute?",
        "Quelle est la météo ?",
        "Qu'est-ce qui se passe aujourd\u2019hui ?",
        "¿Qué hora es?",
        "Quem é o presidente atual?",
        "Che tempo fa oggi?",
        "Wat is het laatste nieuws?",
        "Co się dzieje dzisiaj?",
        "Bugün ne oldu?",
        "Какие сегодня новости?",
        "ما هي أخبار اليوم؟",
        "आज क्या हुआ?",
        "今天的新闻是什么",
        "現在の首相は誰ですか",
        "오늘 날씨 어때?",
        "วันนี้อากาศเป็นอย่างไร",
        "Hôm nay là ngày gì?",
    ],
)
def test_words_of_time_in_many_languages(text):
    assert is_soon_old(text)


@pytest.mark.parametrize(
    "text",
    [
        "How do I know which knot holds?",
        "What does a newspaper editor do?",
        "Erkläre den Satz des Pythagoras.",
        "Comment fonctionne un moteur ?",
        "¿Cuál es la capital de Francia?",
        "日本の首都はどこですか",
    ],
)
def test_words_that_last(text):
    assert not is_soon_old(text)


@pytest.mark.parametrize("reason", FinishReason.values())
def test_only_answers_that_stopped_by_themselves_are_kept(reason):
    answer = answers()
    answer.choices[0].finish_reason = reason

    assert may_keep(answer) is (reason == FinishReason.FINISH_REASON_STOP)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Completion(), id="none"),
        pytest.param(answers("  \n"), id="empty"),
        pytest.param(answers(server_tool_calls=[ServerToolCall(id="1")]), id="tools ran"),
        pytest.param(answers(transcript=[said("x")]), id="turns were added"),
        pytest.param(answers(panel=PanelReport(degraded=True)), id="half a panel"),
        pytest.param(Completion(choices=[*answers().choices, *answers().choices]), id="two"),
        pytest.param(
            Completion(
                choices=[
                    Choice(
                        finish_reason=FinishReason.FINISH_REASON_STOP,
                        message=Message(parts=[Part(text="x"), Part(image=Media(data=b"x"))]),
                    )
                ]
            ),
            id="picture",
        ),
    ],
)
def test_what_is_not_kept(answer):
    assert not may_keep(answer)
