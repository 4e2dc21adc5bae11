"""Is a request well formed? Every limit: at it, and beyond it, with the field's path."""

import json
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from google.protobuf.duration_pb2 import Duration

from trunkline.v1.completion_spec_pb2 import (
    CacheMode,
    CachePolicy,
    CompletionSpec,
    JsonObjectFormat,
    JsonSchemaFormat,
    ReasoningOptions,
    Recovery,
    ResponseFormat,
    RoutingConstraints,
    RoutingIntent,
    SamplingOptions,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    ToolOptions,
)
from trunkline.v1.message_pb2 import (
    Media,
    Message,
    Part,
    ProviderState,
    Role,
    ToolCall,
    ToolResult,
)
from trunkline_server.core.errors import (
    MAX_VIOLATIONS,
    EmptyPrompt,
    InvalidRequest,
    NotSupported,
    PayloadTooLarge,
)
from trunkline_server.core.validation import MAX_REQUEST_BYTES, check_spec, schema_problem

HI = Message(role=Role.ROLE_USER, parts=[Part(text="hi")])
UNKNOWN = 99


def spec(**fields: Any) -> CompletionSpec:
    """A good request but for these fields."""
    return CompletionSpec(**{"messages": [HI], **fields})


def said(*parts: Part, role: Role.ValueType = Role.ROLE_USER) -> CompletionSpec:
    """A request with one message."""
    return CompletionSpec(messages=[Message(role=role, parts=parts)])


def sampling(**fields: Any) -> CompletionSpec:
    """A request with these options."""
    return spec(sampling=SamplingOptions(**fields))


def constraints(**fields: Any) -> CompletionSpec:
    """A request with these constraints."""
    return spec(constraints=RoutingConstraints(**fields))


def tools(*offered: Tool, **options: Any) -> CompletionSpec:
    """A request with these tools."""
    return spec(tool_options=ToolOptions(tools=offered, **options))


def called(*parts: Part, role: Role.ValueType = Role.ROLE_ASSISTANT) -> CompletionSpec:
    """A request in whose history these parts follow a question."""
    return CompletionSpec(messages=[HI, Message(role=role, parts=parts)])


def answered(*parts: Part) -> CompletionSpec:
    """A request in whose history a tool was called as c1, and these parts answer."""
    return CompletionSpec(
        messages=[
            HI,
            Message(role=Role.ROLE_ASSISTANT, parts=[call()]),
            Message(role=Role.ROLE_TOOL, parts=parts),
        ]
    )


def call(id: str = "c1", name: str = "f", arguments_json: str = "{}") -> Part:
    """A tool call."""
    return Part(tool_call=ToolCall(id=id, name=name, arguments_json=arguments_json))


def result(id: str = "c1", *parts: Part) -> Part:
    """A tool's answer."""
    return Part(tool_result=ToolResult(tool_call_id=id, parts=parts))


def schema(text: str) -> CompletionSpec:
    """A request for structured output."""
    return spec(
        response_format=ResponseFormat(json_schema=JsonSchemaFormat(name="s", schema_json=text))
    )


def image(**fields: Any) -> CompletionSpec:
    """A request with a picture."""
    return said(Part(image=Media(**fields)))


def padded(size: int) -> str:
    """A JSON object of so many bytes."""
    return json.dumps({"a": "x" * (size - 8)}, separators=(",", ":"))


def nested(levels: int) -> str:
    """Objects within objects."""
    return '{"a":' * (levels - 1) + "{}" + "}" * (levels - 1)


def seconds(value: float) -> Duration:
    """A duration."""
    return Duration(seconds=int(value), nanos=round(value % 1 * 1e9))


Make = Callable[[Any], CompletionSpec]


def text_of(field: str) -> Make:
    """Requests whose field has so many letters."""
    return lambda n: spec(**{field: "x" * n})


def option(field: str) -> Make:
    """Requests with this value."""
    return lambda value: sampling(**{field: value})


def names_in(field: str) -> Make:
    """Requests with so many names."""
    return lambda n: constraints(**{field: ["x"] * n})


def timeout(field: str) -> Make:
    """Requests with so many seconds."""
    return lambda value: constraints(**{field: seconds(value)})


# Name: how a request of that size is made, the largest that is good, one that is not, and the field that is blamed.
LIMITS: dict[str, tuple[Make, Any, Any, str]] = {
    "model": (lambda n: spec(model="m" * n), 256, 257, "spec.model"),
    **{
        field: (text_of(field), 256, 257, f"spec.{field}")
        for field in ("end_user_id", "session_id", "service_tier", "mode")
    },
    "messages": (lambda n: spec(messages=[HI] * n), 10_000, 10_001, "spec.messages"),
    "parts": (lambda n: said(*[Part(text="x")] * n), 1_000, 1_001, "spec.messages[0].parts"),
    "a name": (
        lambda n: spec(messages=[Message(role=Role.ROLE_USER, name="n" * n, parts=HI.parts)]),
        256,
        257,
        "spec.messages[0].name",
    ),
    "a role": (
        lambda role: spec(messages=[Message(role=role, parts=HI.parts)]),
        Role.ROLE_DEVELOPER,
        UNKNOWN,
        "spec.messages[0].role",
    ),
    "no role": (
        lambda role: spec(messages=[HI, Message(role=role, parts=HI.parts)]),
        Role.ROLE_SYSTEM,
        Role.ROLE_UNSPECIFIED,
        "spec.messages[1].role",
    ),
    "a call's id": (
        lambda n: called(call("c" * n)),
        65_536,
        65_537,
        "spec.messages[1].parts[0].tool_call.id",
    ),
    "an empty call id": (
        lambda n: called(call("c" * n)),
        1,
        0,
        "spec.messages[1].parts[0].tool_call.id",
    ),
    "a call's name": (
        lambda n: called(call(name="f" * n)),
        64,
        65,
        "spec.messages[1].parts[0].tool_call.name",
    ),
    "a call's arguments": (
        lambda n: called(call(arguments_json=nested(n))),
        64,
        65,
        "spec.messages[1].parts[0].tool_call.arguments_json",
    ),
    "who calls": (
        lambda role: called(call(), role=role),
        Role.ROLE_ASSISTANT,
        Role.ROLE_USER,
        "spec.messages[1].parts[0].tool_call",
    ),
    "a call's id again": (
        lambda id: called(call("c1"), call(id)),
        "c2",
        "c1",
        "spec.messages[1].parts[1].tool_call.id",
    ),
    "the call that is answered": (
        lambda id: answered(result(id)),
        "c1",
        "c2",
        "spec.messages[2].parts[0].tool_result.tool_call_id",
    ),
    "a call answered again": (
        lambda n: answered(*[result()] * n),
        1,
        2,
        "spec.messages[2].parts[1].tool_result.tool_call_id",
    ),
    "what a result holds": (
        lambda part: answered(result("c1", part)),
        Part(text="x"),
        call(),
        "spec.messages[2].parts[0].tool_result.parts[0]",
    ),
    "a picture in a result": (
        lambda media: answered(result("c1", Part(image=media))),
        Media(url="https://x.test/a.png"),
        Media(),
        "spec.messages[2].parts[0].tool_result.parts[0].image",
    ),
    "a part's content": (
        lambda part: said(Part(text="hi"), part),
        Part(provider_state=ProviderState(provider="p", data=b"x")),
        Part(),
        "spec.messages[0].parts[1]",
    ),
    "where media come from": (
        lambda media: said(Part(audio=media)),
        Media(file_id="f"),
        Media(mime_type="audio/wav"),
        "spec.messages[0].parts[0].audio",
    ),
    "a URL's length": (
        lambda n: image(url="https://" + "x" * n),
        8_000,
        8_001,
        "spec.messages[0].parts[0].image.url",
    ),
    "a URL's scheme": (
        lambda scheme: image(url=f"{scheme}://x/a"),
        "gs",
        "file",
        "spec.messages[0].parts[0].image.url",
    ),
    "the type of data": (
        lambda kind: image(data=b"x", mime_type=kind),
        "image/png",
        "",
        "spec.messages[0].parts[0].image.mime_type",
    ),
    "a media type": (
        lambda kind: image(data=b"x", mime_type=kind),
        "image/svg+xml; charset=utf-8",
        "image",
        "spec.messages[0].parts[0].image.mime_type",
    ),
    "data": (
        lambda data: image(data=data, mime_type="image/png"),
        b"x",
        b"",
        "spec.messages[0].parts[0].image.data",
    ),
    "a file's id": (
        lambda n: image(file_id="f" * n),
        256,
        257,
        "spec.messages[0].parts[0].image.file_id",
    ),
    **{
        f"{field} {word}": (
            option(field),
            good,
            bad,
            f"spec.sampling.{field}",
        )
        for field, low, high, step in (
            ("temperature", 0, 2, 0.001),
            ("top_p", 0, 1, 0.001),
            ("top_k", 0, 1_000_000, 1),
            ("max_output_tokens", 1, 10_000_000, 1),
            ("frequency_penalty", -2, 2, 0.001),
            ("presence_penalty", -2, 2, 0.001),
            ("candidate_count", 1, 8, 1),
            ("top_logprobs", 0, 20, 1),
        )
        for word, good, bad in (("low", low, low - step), ("high", high, high + step))
    },
    "temperature NaN": (
        lambda value: sampling(temperature=value),
        1.0,
        float("nan"),
        "spec.sampling.temperature",
    ),
    "stop": (lambda n: sampling(stop=["x"] * n), 16, 17, "spec.sampling.stop"),
    "a stop's length": (
        lambda n: sampling(stop=["a", "x" * n]),
        1_024,
        1_025,
        "spec.sampling.stop[1]",
    ),
    "an empty stop": (lambda text: sampling(stop=[text]), " ", "", "spec.sampling.stop[0]"),
    "logit_bias": (
        lambda n: sampling(logit_bias={str(i): 1.0 for i in range(n)}),
        1_024,
        1_025,
        "spec.sampling.logit_bias",
    ),
    "a bias": (
        lambda bias: sampling(logit_bias={"7": bias}),
        -100.0,
        100.5,
        "spec.sampling.logit_bias['7']",
    ),
    "tools": (
        lambda n: tools(*(Tool(name=f"f{i}") for i in range(n))),
        128,
        129,
        "spec.tool_options.tools",
    ),
    "a tool's name": (
        lambda name: tools(Tool(name=name)),
        "f" * 64,
        "f" * 65,
        "spec.tool_options.tools[0].name",
    ),
    "a tool's letters": (
        lambda name: tools(Tool(name=name)),
        "Get_weather-2",
        "get weather",
        "spec.tool_options.tools[0].name",
    ),
    "a tool's name again": (
        lambda name: tools(Tool(name="f"), Tool(name=name)),
        "g",
        "f",
        "spec.tool_options.tools[1].name",
    ),
    "a tool's description": (
        lambda n: tools(Tool(name="f", description="x" * n)),
        16_384,
        16_385,
        "spec.tool_options.tools[0].description",
    ),
    "a tool's schema": (
        lambda text: tools(Tool(name="f", parameters_schema_json=text)),
        '{"type":"object"}',
        '{"type":"thing"}',
        "spec.tool_options.tools[0].parameters_schema_json",
    ),
    "max_hops": (
        lambda n: tools(Tool(name="f"), max_hops=n),
        20,
        21,
        "spec.tool_options.max_hops",
    ),
    "a choice's mode": (
        lambda mode: tools(Tool(name="f"), choice=ToolChoice(mode=mode)),
        ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED,
        UNKNOWN,
        "spec.tool_options.choice.mode",
    ),
    "required without tools": (
        lambda mode: tools(choice=ToolChoice(mode=mode)),
        ToolChoiceMode.TOOL_CHOICE_MODE_AUTO,
        ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED,
        "spec.tool_options.choice.mode",
    ),
    "the tool that is chosen": (
        lambda name: tools(Tool(name="f"), choice=ToolChoice(tool_name=name)),
        "f",
        "g",
        "spec.tool_options.choice.tool_name",
    ),
    "the tools that are allowed": (
        lambda name: tools(Tool(name="f"), choice=ToolChoice(allowed_tool_names=["f", name])),
        "f",
        "g",
        "spec.tool_options.choice.allowed_tool_names[1]",
    ),
    "a schema's size": (
        lambda n: schema(padded(n)),
        256 * 1024,
        256 * 1024 + 1,
        "spec.response_format.json_schema.schema_json",
    ),
    "a schema's depth": (
        lambda n: schema('{"not":' * n + "{}" + "}" * n),
        63,
        64,
        "spec.response_format.json_schema.schema_json",
    ),
    "a schema at all": (
        schema,
        "{}",
        "",
        "spec.response_format.json_schema.schema_json",
    ),
    "a schema's name": (
        lambda name: spec(
            response_format=ResponseFormat(
                json_schema=JsonSchemaFormat(name=name, schema_json="{}")
            )
        ),
        "s" * 64,
        "",
        "spec.response_format.json_schema.name",
    ),
    "reasoning's effort": (
        lambda effort: spec(reasoning=ReasoningOptions(effort=effort)),
        7,
        UNKNOWN,
        "spec.reasoning.effort",
    ),
    "reasoning's budget": (
        lambda n: spec(reasoning=ReasoningOptions(budget_tokens=n)),
        10_000_000,
        -1,
        "spec.reasoning.budget_tokens",
    ),
    "optimize_for": (
        lambda value: spec(intent=RoutingIntent(optimize_for=value)),
        4,
        UNKNOWN,
        "spec.intent.optimize_for",
    ),
    "a language": (
        lambda n: spec(intent=RoutingIntent(language="x" * n)),
        256,
        257,
        "spec.intent.language",
    ),
    "a region": (
        lambda n: spec(intent=RoutingIntent(region="x" * n)),
        256,
        257,
        "spec.intent.region",
    ),
    "unsupported_policy": (
        lambda value: spec(unsupported_policy=value),
        2,
        UNKNOWN,
        "spec.unsupported_policy",
    ),
    **{
        field: (
            names_in(field),
            128,
            129,
            f"spec.constraints.{field}",
        )
        for field in ("allowed_providers", "denied_providers", "allowed_models")
    },
    "max_attempts": (lambda n: constraints(max_attempts=n), 5, 6, "spec.constraints.max_attempts"),
    "no attempts": (lambda n: constraints(max_attempts=n), 1, 0, "spec.constraints.max_attempts"),
    "max_cost_nanos": (
        lambda n: constraints(max_cost_nanos=n),
        0,
        -1,
        "spec.constraints.max_cost_nanos",
    ),
    **{
        f"{field} {word}": (
            timeout(field),
            good,
            bad,
            f"spec.constraints.{field}",
        )
        for field in ("first_token_timeout", "idle_timeout")
        for word, good, bad in (("low", 0.001, 0), ("high", 3600, 3600.001))
    },
    "recovery": (
        lambda value: constraints(recovery=value),
        Recovery.RECOVERY_TERMINATE,
        UNKNOWN,
        "spec.constraints.recovery",
    ),
    "metadata": (lambda n: spec(metadata_json=padded(n)), 16_384, 16_385, "spec.metadata_json"),
    "metadata's depth": (lambda n: spec(metadata_json=nested(n)), 64, 65, "spec.metadata_json"),
    "metadata in bytes": (
        lambda n: spec(metadata_json='{"a":"%s"}' % ("é" * n)),
        8_188,
        8_189,
        "spec.metadata_json",
    ),
    "what metadata is": (lambda text: spec(metadata_json=text), "{}", "[]", "spec.metadata_json"),
    "metadata without numbers": (
        lambda text: spec(metadata_json=text),
        '{"a":1e308}',
        '{"a":NaN}',
        "spec.metadata_json",
    ),
    "provider options": (
        lambda n: spec(provider_options_json={"p": padded(n)}),
        256 * 1024,
        256 * 1024 + 1,
        "spec.provider_options_json['p']",
    ),
    "numbers among provider options": (
        lambda text: spec(provider_options_json={"*": text}),
        '{"x":1e308,"y":123456789012345678901234567890}',
        '{"x":1e400}',
        "spec.provider_options_json['*']",
    ),
    "characters among provider options": (
        lambda text: spec(provider_options_json={"*": text}),
        r'{"x":"\ud83d\ude00"}',
        r'{"x":"\ud83d"}',
        "spec.provider_options_json['*']",
    ),
    "labels": (
        lambda n: spec(labels={str(i): "x" for i in range(n)}),
        16,
        17,
        "spec.labels",
    ),
    "a label's name": (lambda n: spec(labels={"n" * n: "x"}), 128, 129, "spec.labels"),
    "a label's value": (lambda n: spec(labels={"n": "x" * n}), 128, 129, "spec.labels"),
    "an unnamed label": (lambda name: spec(labels={name: "x"}), "n", "", "spec.labels"),
}


@pytest.mark.parametrize(("make", "good", "_bad", "_field"), LIMITS.values(), ids=LIMITS)
def test_a_request_at_the_limit_is_good(make, good, _bad, _field):
    check_spec(make(good))


@pytest.mark.parametrize(("make", "_good", "bad", "field"), LIMITS.values(), ids=LIMITS)
def test_a_request_beyond_the_limit_is_refused_with_the_fields_path(make, _good, bad, field):
    with pytest.raises(InvalidRequest) as caught:
        check_spec(make(bad))

    assert [violation.field for violation in caught.value.violations] == [field]
    assert caught.value.reason == "INVALID_REQUEST"


@pytest.mark.parametrize("size", [MAX_REQUEST_BYTES, MAX_REQUEST_BYTES + 1])
def test_a_whole_request_has_a_limit_too(size):
    request = said(Part(text=""))
    room = size - said(Part(text="x" * (size - 64))).ByteSize() + size - 64
    request = said(Part(text="x" * room))
    assert request.ByteSize() == size

    refused = next(refusals(request), None)

    assert isinstance(refused, PayloadTooLarge) is (size > MAX_REQUEST_BYTES)


def refusals(request: CompletionSpec) -> Iterator[InvalidRequest | NotSupported]:
    """What is wrong with it, or nothing."""
    try:
        check_spec(request)
    except (InvalidRequest, NotSupported) as error:
        yield error


@pytest.mark.parametrize(
    "request_",
    [
        CompletionSpec(),
        said(),
        said(Part(text="")),
        CompletionSpec(messages=[Message(role=Role.ROLE_USER)] * 3),
    ],
    ids=["nothing", "no parts", "an empty text", "several without content"],
)
def test_an_empty_prompt_is_refused_as_such(request_):
    with pytest.raises(EmptyPrompt) as caught:
        check_spec(request_)

    assert [violation.field for violation in caught.value.violations] == ["spec.messages"]


def test_every_field_that_is_wrong_is_named_and_not_too_many_of_them():
    several = spec(
        model="m" * 300,
        sampling=SamplingOptions(temperature=3, top_p=2),
        metadata_json="no",
    )
    many = sampling(logit_bias={str(i): 500.0 for i in range(100)})

    fields = [v.field for refused in refusals(several) for v in violations(refused)]
    count = [len(violations(refused)) for refused in refusals(many)]

    assert sorted(fields) == [
        "spec.metadata_json",
        "spec.model",
        "spec.sampling.temperature",
        "spec.sampling.top_p",
    ]
    assert count == [MAX_VIOLATIONS]


def violations(refused: InvalidRequest | NotSupported) -> Any:
    """Of a request that is malformed."""
    assert isinstance(refused, InvalidRequest)
    return refused.violations


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (spec(conversation_id="c" * 257), "spec.conversation_id"),
        (spec(component_library="c" * 257), "spec.component_library"),
        (spec(skills=["a", "B"]), "spec.skills[1]"),
        (spec(skills=["a", "b", "a"]), "spec.skills[2]"),
        (spec(skills=[f"s{n}" for n in range(17)]), "spec.skills"),
        (spec(mode_options_json="[]"), "spec.mode_options_json"),
        (spec(output_modalities=["audio"]), "spec.output_modalities[0]"),
        (spec(output_modalities=["text", "text"]), "spec.output_modalities[1]"),
        (spec(persona="p" * 257), "spec.persona"),
        (spec(model_overrides={"fast": ""}), "spec.model_overrides['fast']"),
        (spec(model_overrides={str(n): "m" for n in range(129)}), "spec.model_overrides"),
        (spec(cache=CachePolicy(mode=cast(Any, 99))), "spec.cache.mode"),
        (spec(cache=CachePolicy(max_age=Duration(seconds=-1))), "spec.cache.max_age"),
        (spec(cache=CachePolicy(max_age=Duration(seconds=2_592_001))), "spec.cache.max_age"),
    ],
    ids=range(14),
)
def test_what_can_be_nobodys_mode_skill_or_cache_is_refused_by_name(request_, field):
    with pytest.raises(InvalidRequest) as caught:
        check_spec(request_)

    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_result_may_answer_a_call_that_the_conversation_has():
    lone = result("c1", Part(text="rain"))
    request = CompletionSpec(
        conversation_id="conv_1", messages=[Message(role=Role.ROLE_TOOL, parts=[lone])]
    )

    check_spec(request)

    request.ClearField("conversation_id")
    with pytest.raises(InvalidRequest) as caught:
        check_spec(request)
    assert [violation.field for violation in caught.value.violations] == [
        "spec.messages[0].parts[0].tool_result.tool_call_id"
    ]


@pytest.mark.parametrize(
    "request_",
    [
        spec(output_modalities=["text"]),
        spec(output_modalities=["text", "image"]),
        spec(persona="none"),
        spec(cache=CachePolicy(mode=CacheMode.CACHE_MODE_ALLOW)),
        spec(response_format=ResponseFormat(json_object=JsonObjectFormat())),
        CompletionSpec(system_prompt="Be brief.", messages=[HI]),
        called(Part(text=""), call()),
        answered(result("c1", Part(text="rain"))),
    ],
    ids=[
        "text",
        "an image",
        "no persona",
        "a cache",
        "JSON",
        "a system prompt",
        "a call",
        "an answer",
    ],
)
def test_what_asks_for_nothing_special_is_good(request_):
    check_spec(request_)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", ""),
        ('{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object"}', ""),
        ('{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}', ""),
        ('{"$schema":"https://evil.test/schema","type":"object"}', ""),
        ('{"$ref":"https://evil.test/schema"}', ""),
        ("no", "is no JSON"),
        ("[]", "must be a JSON object"),
        ('{"a":Infinity}', "is no JSON"),
        ('{"type":5}', "is no JSON Schema (at /type)"),
        ('{"properties":{"a":{"minimum":"x"}}}', "is no JSON Schema (at /properties/a/minimum)"),
        ("[" * 100, "nests deeper than 64 levels"),
    ],
)
def test_a_schema_is_checked_without_asking_anyone(text, problem):
    assert schema_problem(text) == problem
