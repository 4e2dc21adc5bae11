"""One suite over every dialect that has recordings."""

from random import Random

import pytest

from tests.providers import event_stream
from tests.providers.readings import (
    BODIES,
    RECORDINGS,
    STREAMS,
    Reading,
    Recording,
    extension_of,
    read,
    read_whole,
    split,
)
from trunkline_server.core.failure import Failure
from trunkline_server.providers.registry import DIALECTS

BOM = b"\xef\xbb\xbf"
COMPLETE = [recording for recording in STREAMS if recording.is_complete]
COMPLETE_TEXT = [found for found in COMPLETE if found.extension != "eventstream"]
# What servers and proxies write to keep a connection alive, and fields that nobody needs.
KEEP_ALIVES = {
    "sse": [
        b": keep-alive\n\n",
        b":\n\n",
        b": OPENROUTER PROCESSING\n\n",
        b"\n",
        b"event: ping\n\n",
        b"retry: 3000\n\n",
        b"id: 7\n\n",
    ],
    "ndjson": [b"\n", b" \n", b"\r\n"],
}
EVENT_ENDS = {"sse": b"\n\n", "ndjson": b"\n"}
COMMENTS = {"sse": [b": in between\n"], "ndjson": []}
LINE_ENDS = {"sse": [b"\n", b"\r\n", b"\r"], "ndjson": [b"\n", b"\r\n"]}
ENDINGS = [
    pytest.param(recording, end, id=f"{recording}-{end!r}")
    for recording in COMPLETE_TEXT
    for end in LINE_ENDS[recording.extension]
]
streams = pytest.mark.parametrize("recording", STREAMS, ids=str)


def reading_of(recording: Recording, data: bytes, size: int = 4096) -> Reading:
    return read(recording.dialect, split(data, size), recording.choices)


def with_line_ends(data: bytes, end: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\n", end)


def kept_alive(recording: Recording, seed: int) -> bytes:
    """The recording with keep-alives between its events, and comments between their lines."""
    random = Random(seed)
    noise = [*KEEP_ALIVES[recording.extension]]
    event_end = EVENT_ENDS[recording.extension]
    comments = COMMENTS[recording.extension]
    if recording.dialect == "anthropic":
        noise.append(b'event: ping\ndata: {"type": "ping"}\n\n')
    *blocks, tail = with_line_ends(recording.data, b"\n").split(event_end)
    written = []
    for block in blocks:
        written += random.choices(noise, k=random.randrange(3))
        written += comments if random.random() < 0.3 else []
        written += [block, event_end]
    return b"".join([*written, tail])


def test_every_folder_belongs_to_a_dialect_and_says_where_its_recordings_come_from():
    folders = [folder for folder in RECORDINGS.iterdir() if folder.is_dir()]

    assert {folder.name for folder in folders} <= set(DIALECTS)
    assert [folder.name for folder in folders if not (folder / "README.md").is_file()] == []
    hellos = [folder / f"hello.{extension_of(folder.name)}" for folder in folders]
    assert [hello for hello in hellos if not hello.is_file()] == []


def test_every_dialect_that_reaches_out_has_recordings():
    assert set(DIALECTS) - {folder.name for folder in RECORDINGS.iterdir()} == {"local"}


SOURCES = sorted(event_stream.FOLDER.glob("*.jsonl"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_binary_stream_is_what_its_readable_form_says(source):
    made = event_stream.stream(event_stream.lines_of(source))

    assert source.with_suffix(".eventstream").read_bytes() == made


def test_every_binary_stream_has_a_readable_form():
    streams = event_stream.FOLDER.glob("*.eventstream")

    assert {path.stem for path in streams} == {path.stem for path in SOURCES}


@streams
def test_a_stream_is_complete_or_fails_as_its_name_says(recording):
    reading = reading_of(recording, recording.data)

    assert (reading.error is None) == recording.is_complete
    finished = [choice.finish_reason for choice in reading.choices if choice.finish_reason]
    assert len(finished) == (recording.choices if recording.is_complete else 0)


@streams
@pytest.mark.parametrize("size", [1, 7], ids="{}-byte reads".format)
def test_a_stream_gives_the_same_events_however_its_bytes_are_split(recording, size):
    whole = reading_of(recording, recording.data)

    reading = reading_of(recording, recording.data, size)

    # A failure drops what was read together with it, so there the smaller reads may show more.
    assert reading.events[: len(whole.events)] == whole.events
    if recording.is_complete:
        assert reading == whole
    else:
        assert reading.error is not None
        assert whole.error is not None
        assert reading.error.failure is whole.error.failure


@streams
def test_a_stream_that_is_cut_anywhere_is_complete_or_fails_and_never_shows_what_it_lacks(
    recording,
):
    data = recording.data
    whole = reading_of(recording, data, 1)
    choices = whole.choices
    checked = -1

    for end in range(len(data)):
        cut = reading_of(recording, data[:end])

        if len(cut.events) > checked:
            checked = len(cut.events)
            assert_shows_no_more(cut, whole, recording.choices)
        if cut.error is None:
            assert cut.choices == choices, end
        else:
            assert cut.error.failure in CUTS or not recording.is_complete, end


def assert_shows_no_more(cut: Reading, whole: Reading, choices: int) -> None:
    for index in range(choices):
        for kind in ("text_delta", "reasoning_delta", "refusal_delta"):
            assert whole.said(kind, index).startswith(cut.said(kind, index))


# A stream that just stops, and one that says that it is done although it is not.
CUTS = {Failure.AMBIGUOUS, Failure.PROTOCOL}


@pytest.mark.parametrize("recording", COMPLETE_TEXT, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_keep_alives_anywhere_change_nothing(recording, seed):
    whole = reading_of(recording, recording.data)

    assert reading_of(recording, kept_alive(recording, seed), 7) == whole


@pytest.mark.parametrize(("recording", "end"), ENDINGS)
@pytest.mark.parametrize("size", [1, 4096], ids="{}-byte reads".format)
def test_any_line_end_will_do_and_so_will_a_byte_order_mark(recording, end, size):
    whole = reading_of(recording, recording.data)
    start = BOM if recording.extension == "sse" else b""

    assert reading_of(recording, start + with_line_ends(recording.data, end), size) == whole


@pytest.mark.parametrize("recording", BODIES, ids=str)
def test_a_body_holds_whole_answers(recording):
    reading = read_whole(recording.dialect, recording.data, recording.choices)

    assert reading.error is None
    assert len(reading.choices) == recording.choices
    assert all(choice.finish_reason for choice in reading.choices)


@pytest.mark.parametrize("recording", BODIES, ids=str)
def test_a_body_that_is_cut_anywhere_fails(recording):
    data = recording.data.rstrip()

    for end in range(len(data)):
        cut = read_whole(recording.dialect, data[:end], recording.choices)

        assert cut.error is not None
        assert cut.error.failure is Failure.PROTOCOL


@streams
def test_usage_adds_up(recording):
    usage = reading_of(recording, recording.data).facts.usage
    if usage is None:
        assert not recording.is_complete
        return

    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.cached_input_tokens + usage.cache_write_input_tokens <= usage.input_tokens
    assert usage.reasoning_tokens <= usage.output_tokens
