"""Images in an answer: asked for, read and bounded in the dialects that have them."""

import base64
import json
from itertools import count
from typing import Any

import pytest

from trunkline.v1.completion_event_pb2 import CompleteResponse, TextDelta
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Artifact, Message, Part, Role
from trunkline_server.core.candidate import USUAL, Candidate, Capability
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure
from trunkline_server.core.ports import AttemptFacts, Prompt
from trunkline_server.providers.answer import MAX_IMAGE_BYTES, MAX_IMAGES
from trunkline_server.providers.registry import DIALECTS
from trunkline_server.wire.sse import MAX_LINE_BYTES

PIXELS = b"\x89PNG\r\n\x1a\n"
DRAWING = ("gemini", "openrouter")


def spec(*modalities: str) -> CompletionSpec:
    """A request."""
    message = Message(role=Role.ROLE_USER, parts=[Part(text="Draw a dot")])
    return CompletionSpec(messages=[message], output_modalities=modalities)


def candidate(
    dialect: str, capabilities: frozenset[Capability] = frozenset(Capability)
) -> Candidate:
    """A model that draws."""
    return Candidate(
        "studio", "painter", "gemini-2.5-flash-image", family=dialect, capabilities=capabilities
    )


def chunk(dialect: str, *images: str, mime_type: str = "image/png", text: str = "") -> bytes:
    """One chunk with images, each in base64."""
    value: dict[str, Any]
    if dialect == "gemini":
        parts: list[dict[str, Any]] = [{"text": text}] if text else []
        parts += [{"inlineData": {"mimeType": mime_type, "data": data}} for data in images]
        value = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    else:
        urls = [f"data:{mime_type};base64,{data}" for data in images]
        drawn = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        delta = {"content": text, "images": drawn}
        value = {"choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def read(
    dialect: str,
    data: bytes,
    *modalities: str,
    size: int = 65_536,
    capabilities: frozenset[Capability] = frozenset(Capability),
) -> list[CompleteResponse]:
    """All but the end of the answer."""
    ids = count()
    decoder = DIALECTS[dialect].translator.decoder(
        candidate(dialect, capabilities),
        Prompt(spec(*modalities), stream=True),
        AttemptFacts(),
        lambda: f"call_{next(ids)}",
    )
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    events = [event for piece in pieces for event in decoder.feed(piece)] + decoder.finish()
    return [event for event in events if event.WhichOneof("event") != "choice_finished"]


def artifact(number: int, **fields: Any) -> CompleteResponse:
    """As it is passed on."""
    drawn = Artifact(
        id=f"art_{number}",
        type="image",
        provider="studio",
        model="gemini-2.5-flash-image",
        **fields,
    )
    return CompleteResponse(artifact=drawn)


def png(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_request_for_images_says_so():
    prompt = Prompt(spec("image"), stream=True)

    gemini, openrouter = (
        json.loads(DIALECTS[d].translator.encode(candidate(d), prompt).body) for d in DRAWING
    )

    assert gemini["generationConfig"] == {"responseModalities": ["TEXT", "IMAGE"]}
    assert openrouter["modalities"] == ["image", "text"]


@pytest.mark.parametrize("dialect", DRAWING)
@pytest.mark.parametrize("modalities", [(), ("text",)])
def test_a_request_for_text_does_not_and_gets_none(dialect, modalities):
    prompt = Prompt(spec(*modalities), stream=True)

    body = DIALECTS[dialect].translator.encode(candidate(dialect), prompt).body
    events = read(dialect, chunk(dialect, png(PIXELS), text="a dot"), *modalities)

    assert b"odalities" not in body
    assert events == [CompleteResponse(text_delta=TextDelta(text="a dot"))]


@pytest.mark.parametrize("dialect", DRAWING)
@pytest.mark.parametrize("size", [4096, 65_536])
def test_an_image_that_nobody_asked_for_does_no_harm(dialect, size):
    data = chunk(dialect, png(b"x" * MAX_LINE_BYTES), text="a dot")

    assert read(dialect, data, size=size) == [
        CompleteResponse(text_delta=TextDelta(text="a dot")),
    ]


@pytest.mark.parametrize("dialect", DRAWING)
def test_from_who_does_not_draw_a_line_of_that_size_is_none(dialect):
    data = chunk(dialect, png(b"x" * MAX_LINE_BYTES), text="a dot")

    with pytest.raises(UpstreamError) as failed:
        read(dialect, data, size=4096, capabilities=USUAL)

    assert failed.value.failure is Failure.PROTOCOL


@pytest.mark.parametrize("dialect", DRAWING)
@pytest.mark.parametrize("size", [1, 50, 65_536])
def test_images_are_passed_on_as_bytes_with_who_drew_them(dialect, size):
    data = chunk(dialect, png(PIXELS), png(PIXELS * 2), mime_type="image/PNG", text="two dots")

    assert read(dialect, data, "image", size=size) == [
        CompleteResponse(text_delta=TextDelta(text="two dots")),
        artifact(0, mime_type="image/png", data=PIXELS, size_bytes=8),
        artifact(1, mime_type="image/png", data=PIXELS * 2, size_bytes=16),
    ]


def test_an_image_may_be_at_an_address_where_a_dialect_has_addresses():
    drawn = [{"image_url": {"url": "https://a.example/x.png"}}]
    value = {"choices": [{"delta": {"images": drawn}, "finish_reason": "stop"}]}

    events = read("openrouter", b"data: " + json.dumps(value).encode() + b"\n\n", "image")

    assert events == [artifact(0, url="https://a.example/x.png")]


def test_sound_and_thoughts_in_pictures_are_left_out():
    thought = {"thought": True, "inlineData": {"mimeType": "image/png", "data": png(PIXELS)}}
    sound = {"inlineData": {"mimeType": "audio/wav", "data": png(PIXELS)}}
    value = {"candidates": [{"content": {"parts": [thought, sound, {}]}, "finishReason": "STOP"}]}

    assert read("gemini", b"data: " + json.dumps(value).encode() + b"\n\n", "image") == []


@pytest.mark.parametrize("dialect", DRAWING)
@pytest.mark.parametrize(
    "images",
    [["!!!!"], ["AAA"], ["AA==AA=="], ["é"], [png(b"x")] * (MAX_IMAGES + 1)],
    ids=["no base64", "half of it", "two of it", "not ascii", "too many"],
)
def test_what_is_no_image_fails_the_attempt(dialect, images):
    with pytest.raises(UpstreamError) as failed:
        read(dialect, chunk(dialect, *images), "image")

    assert failed.value.failure is Failure.PROTOCOL


@pytest.mark.parametrize(
    "image",
    [
        *[None, "x", {}, {"image_url": None}, {"image_url": {"url": 1}}],
        *[{"image_url": {"url": url}} for url in ("", "ftp://x", "data:text/html;base64,AAAA")],
        *[{"image_url": {"url": url}} for url in ("data:image/png,x", "https://" + "x" * 8_000)],
    ],
    ids=range(10),
)
def test_an_image_at_no_address_fails_the_attempt(image):
    value = {"choices": [{"delta": {"images": [image]}, "finish_reason": "stop"}]}

    with pytest.raises(UpstreamError) as failed:
        read("openrouter", b"data: " + json.dumps(value).encode() + b"\n\n", "image")

    assert failed.value.failure is Failure.PROTOCOL


@pytest.mark.once
@pytest.mark.parametrize("dialect", DRAWING)
def test_images_are_as_large_as_they_may_be_together_and_no_larger(dialect):
    half = MAX_IMAGE_BYTES // 2
    first = chunk(dialect, png(b"x" * half), text="a")

    events = read(dialect, first + chunk(dialect, png(b"y" * half)), "image")

    assert [event.artifact.size_bytes for event in events] == [0, half, half]
    with pytest.raises(UpstreamError):
        read(dialect, first + chunk(dialect, png(b"y" * (half + 2))), "image")


def test_who_draws_is_known_by_name_or_configured():
    def draws(dialect: str, model: str) -> bool:
        return Capability.IMAGE_OUTPUT in DIALECTS[dialect].capabilities(model)

    assert draws("gemini", "gemini-2.5-flash-image")
    assert draws("gemini", "models/gemini-3.1-flash-image-preview")
    assert draws("openrouter", "google/gemini-2.5-flash-image")
    assert not draws("gemini", "gemini-2.5-flash")
    assert not draws("anthropic", "gemini-2.5-flash-image")
    assert [d for d in DIALECTS if draws(d, "m")] == []
    assert Capability.IMAGE_OUTPUT in DIALECTS["openai"].translator.capabilities
    assert (
        USUAL == Candidate("p", "m", "m").capabilities == frozenset(Capability) - {"image_output"}
    )
