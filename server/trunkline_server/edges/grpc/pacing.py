"""What happens to batches on their way to a socket: merging, heartbeats, and the window of coalescing."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from trunkline.v1.completion_event_pb2 import CompleteResponse, Heartbeat, TextDelta
from trunkline.v1.completion_service_pb2 import StreamOptions
from trunkline_server.core.errors import InvalidRequest

MIN_HEARTBEAT_S: Final = 0.1
MAX_HEARTBEAT_S: Final = 300.0
MAX_WINDOW_S: Final = 5.0
MAX_QUEUED_BATCHES: Final = 16
MAX_GATHERED: Final = 256  # Deltas that a window holds at most, however long it is.

Batch = list[CompleteResponse]


def coalesce(batch: Batch) -> Batch:
    """Neighbouring text deltas of the same part as one message: order and content are kept."""
    if len(batch) < 2:
        return batch
    merged: Batch = []
    pieces: list[str] = []
    first: TextDelta | None = None
    for response in batch:
        if response.WhichOneof("event") == "text_delta":
            delta = response.text_delta
            if not delta.logprobs:
                if (
                    first is not None
                    and delta.part_index == first.part_index
                    and delta.choice_index == first.choice_index
                ):
                    pieces.append(delta.text)
                    continue
                _flush(merged, first, pieces)
                first, pieces = delta, [delta.text]
                continue
        _flush(merged, first, pieces)
        first, pieces = None, []
        merged.append(response)
    _flush(merged, first, pieces)
    return merged


def _flush(merged: Batch, first: TextDelta | None, pieces: list[str]) -> None:
    if first is not None:
        merged.append(
            CompleteResponse(
                text_delta=TextDelta(
                    choice_index=first.choice_index,
                    part_index=first.part_index,
                    text="".join(pieces),
                )
            )
        )


def check(options: StreamOptions) -> None:
    """Raises: InvalidRequest."""
    if options.HasField("heartbeat_interval"):
        seconds = _seconds(options.heartbeat_interval)
        if not MIN_HEARTBEAT_S <= seconds <= MAX_HEARTBEAT_S:
            raise InvalidRequest(
                "stream_options.heartbeat_interval", f"{MIN_HEARTBEAT_S} s to {MAX_HEARTBEAT_S} s"
            )
    if (
        options.HasField("coalesce_window")
        and not 0 <= _seconds(options.coalesce_window) <= MAX_WINDOW_S
    ):
        raise InvalidRequest("stream_options.coalesce_window", f"0 s to {MAX_WINDOW_S} s")


def needs_pacing(options: StreamOptions) -> bool:
    """Does anything have to happen between batches?"""
    return options.HasField("heartbeat_interval") or _seconds(options.coalesce_window) > 0


async def paced(
    batches: AsyncGenerator[Batch, None], options: StreamOptions
) -> AsyncGenerator[Batch, None]:
    """Heartbeats while there is no content, and batches merged for as long as the window says.

    The batches are read by a task of its own, which ends with this generator.
    """
    heartbeat_s = _seconds(options.heartbeat_interval) or None
    window_s = _seconds(options.coalesce_window)
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Batch | BaseException | None] = asyncio.Queue(MAX_QUEUED_BATCHES)
    reader = asyncio.create_task(_read(batches, queue))
    try:
        while True:
            try:
                async with asyncio.timeout(heartbeat_s):
                    item = await queue.get()
            except TimeoutError:
                yield [CompleteResponse(heartbeat=Heartbeat())]
                continue
            if isinstance(item, list) and window_s and _is_text(item):
                until_s = loop.time() + window_s
                gathered = list(item)
                while isinstance(item, list) and _is_text(item) and len(gathered) < MAX_GATHERED:
                    try:
                        async with asyncio.timeout_at(until_s):
                            item = await queue.get()
                    except TimeoutError:
                        item = []
                        break
                    if isinstance(item, list):
                        gathered += item
                        item = item if _is_text(item) else []
                yield gathered
                if isinstance(item, list):
                    continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            heartbeat_s = heartbeat_s if not _has_content(item) else None
            yield item
    finally:
        reader.cancel()
        await asyncio.wait([reader])


async def _read(
    batches: AsyncGenerator[Batch, None], queue: asyncio.Queue[Batch | BaseException | None]
) -> None:
    held: list[Batch] = []
    try:
        async with aclosing(batches):
            async for batch in batches:
                try:
                    await queue.put(batch)
                except asyncio.CancelledError as error:
                    # The use case has not heard of it: if it was the one who cancelled, it has a last word, and comes
                    # to its end whether or not anybody reads on.
                    held = [batch, await batches.athrow(error)]
                    if _is_cancelled():
                        raise
    except Exception as error:  # noqa: BLE001 - handed to the other task, which raises it
        for batch in held:
            await queue.put(batch)
        await queue.put(error)
    else:
        await queue.put(None)


def _is_cancelled() -> bool:
    """Beyond the use case's own cancellation, which it has taken back."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _is_text(batch: Batch) -> bool:
    return all(response.WhichOneof("event") == "text_delta" for response in batch)


def _has_content(batch: Batch) -> bool:
    return any(response.WhichOneof("event") == "route_selected" for response in batch)


def _seconds(duration: object) -> float:
    return duration.seconds + duration.nanos / 1e9  # type: ignore[attr-defined, no-any-return]
