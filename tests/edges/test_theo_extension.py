"""What Theo's callers have, for OpenAI's: keys of `trunkline` in a request and in its answer."""

import json
from typing import Any

import httpx
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.edges.observed import LIMIT_S
from tests.support.service import service_over
from tests.support.upstream import hello, upstream
from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    RouteSelected,
    StreamCompleted,
    TextDelta,
)
from trunkline.v1.completion_pb2 import CacheReport, Completion, Route
from trunkline.v1.completion_spec_pb2 import CacheMode, CachePolicy, CompletionSpec
from trunkline.v1.message_pb2 import Artifact, Message, Part, Role
from trunkline_server.edges.rest.http import Refused
from trunkline_server.edges.rest.openai import Chunks, whole
from trunkline_server.edges.rest.openai_fields import param_of
from trunkline_server.edges.rest.openai_request import read_chat_request, write_spec

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hi"}]


def read(**extension: Any) -> CompletionSpec:
    """A request with these keys."""
    spec = CompletionSpec()
    body = json.dumps({"messages": HELLO, "trunkline": extension}).encode()
    write_spec(read_chat_request(body), spec)
    return spec


def test_every_key_reaches_the_contract():
    spec = read(
        mode="code",
        persona="theo",
        skills=["code-review", "tone"],
        conversation_id="new",
        component_library="shop",
        cache="refresh",
        cache_max_age_s=1.5,
    )

    assert spec == CompletionSpec(
        messages=[Message(role=Role.ROLE_USER, parts=[Part(text="hi")])],
        mode="code",
        persona="theo",
        skills=["code-review", "tone"],
        conversation_id="new",
        component_library="shop",
        cache=CachePolicy(
            mode=CacheMode.CACHE_MODE_REFRESH, max_age=Duration(seconds=1, nanos=500_000_000)
        ),
    )


def test_without_them_nothing_is_said():
    assert read() == CompletionSpec(
        messages=[Message(role=Role.ROLE_USER, parts=[Part(text="hi")])]
    )


@pytest.mark.parametrize(
    ("word", "mode"),
    [
        ("allow", CacheMode.CACHE_MODE_ALLOW),
        ("bypass", CacheMode.CACHE_MODE_BYPASS),
        ("refresh", CacheMode.CACHE_MODE_REFRESH),
        ("only_if_cached", CacheMode.CACHE_MODE_ONLY_IF_CACHED),
    ],
)
def test_the_cache_is_told_in_a_word(word, mode):
    assert read(cache=word).cache == CachePolicy(mode=mode)


@pytest.mark.parametrize(
    ("extension", "field"),
    [
        ({"cache": "never"}, "trunkline.cache"),
        ({"cache_max_age_s": "1"}, "trunkline.cache_max_age_s"),
        ({"skills": "tone"}, "trunkline.skills"),
        ({"personas": "theo"}, "trunkline.personas"),
    ],
)
def test_what_can_not_be_read_is_named(extension, field):
    with pytest.raises(Refused) as refused:
        read(**extension)

    assert refused.value.refusal.field == field


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("spec.persona", "trunkline.persona"),
        ("spec.skills[1]", "trunkline.skills[1]"),
        ("spec.conversation_id", "trunkline.conversation_id"),
        ("spec.component_library", "trunkline.component_library"),
        ("spec.cache.mode", "trunkline.cache.mode"),
        ("spec.cache.max_age", "trunkline.cache_max_age_s"),
        ("spec.mode", "trunkline.mode"),
    ],
)
def test_the_service_names_fields_as_callers_know_them(field, param):
    assert param_of(field) == param


def test_an_answer_says_what_it_was_and_where_it_goes_on():
    completion = Completion(
        route=Route(provider="p", model="m", resolved_mode="code"),
        conversation_id="conv_1",
        cache=CacheReport(
            hit=True, kind="semantic", similarity=0.5, age=Duration(seconds=2, nanos=500_000_000)
        ),
        artifacts=[
            Artifact(id="a1", type="code", title="A", text="x", language="py"),
            Artifact(id="a2", type="image", title="B", data=b"GIF", mime_type="image/gif"),
        ],
    )

    extension = whole(completion)["trunkline"]

    assert extension == {
        "provider": "p",
        "model": "m",
        "failover_count": 0,
        "attempts": [],
        "mode": "code",
        "conversation_id": "conv_1",
        "cache": {"kind": "semantic", "age_s": 2.5, "similarity": 0.5},
        "artifacts": FILES,
    }


FILES = [
    {"id": "a1", "type": "code", "title": "A", "mime_type": None, "text": "x", "language": "py"},
    {
        "id": "a2",
        "type": "image",
        "title": "B",
        "mime_type": "image/gif",
        "url": "data:image/gif;base64,R0lG",
    },
]


@pytest.mark.parametrize("includes_usage", [False, True])
def test_a_stream_has_files_on_its_last_chunk(includes_usage):
    chunks = Chunks(includes_usage)
    files = [
        Artifact(id="a1", type="code", title="A", text="x", language="py"),
        Artifact(id="a2", type="image", title="B", data=b"GIF", mime_type="image/gif"),
    ]
    completed = StreamCompleted(completion=Completion(route=Route(provider="p", model="m")))

    data = chunks.encode(
        [
            CompleteResponse(route_selected=RouteSelected(route=Route(provider="p", model="m"))),
            CompleteResponse(text_delta=TextDelta(text="Here.")),
            *(CompleteResponse(artifact=file) for file in files),
            CompleteResponse(choice_finished=ChoiceFinished()),
            CompleteResponse(completed=completed),
        ]
    )

    told = [json.loads(block.removeprefix("data: ")) for block in data.decode().split("\n\n")[:-1]]
    assert told[-1]["trunkline"]["artifacts"] == FILES
    assert ["artifacts" in chunk.get("trunkline", {}) for chunk in told[:-1]] == [False] * (
        len(told) - 1
    )


async def test_a_conversation_goes_on_in_openais_format():
    async with (
        upstream(hello) as scripted,
        service_over(scripted.url) as running,
        httpx.AsyncClient(
            base_url=f"http://{running.http_address}", timeout=LIMIT_S, verify=False
        ) as http,
    ):
        extension: dict[str, Any] = {"conversation_id": "new", "persona": "none"}
        asked = {"model": "m-a", "messages": HELLO}
        first = (await http.post(CHAT, json={**asked, "trunkline": extension})).json()
        extension["conversation_id"] = first["trunkline"]["conversation_id"]
        second = (await http.post(CHAT, json={**asked, "trunkline": extension})).json()
        other = await http.post(CHAT, json={**asked, "trunkline": {"skills": ["nope"]}})

    assert second["trunkline"]["conversation_id"] == extension["conversation_id"]
    assert scripted.exchanges[1].json["messages"] == [
        *HELLO,
        {"role": "assistant", "content": "Hello"},
        *HELLO,
    ]
    assert (other.status_code, other.json()["error"]["param"]) == (400, "trunkline.skills[0]")
