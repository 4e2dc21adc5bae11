"""Makes the calls of the conformance cases with this client: a line of JSON in, a line of JSON out.

    python runner.py --flavour blocking|asyncio

It tells what came of a call and judges nothing: the cases, and what they expect, are in tests/conformance.
"""

import argparse
import asyncio
import base64
import gc
import json
import os
import resource
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import Message as ProtobufMessage

from trunkline import (
    AsyncClient,
    Client,
    TrunklineError,
    fold,
    function_tool,
    json_schema,
    only_tool,
    text,
    tool_calls,
    tool_result,
    turns,
    user,
)
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_service_pb2 import CompleteRequest, StreamOptions
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message

Json = dict[str, Any]

MOST_TURNS: Final = 8
WARM_UP_STREAMS: Final = 100
CLEARED_WITHIN_S: Final = 2.0
PROMPT: Final = "Hi"
RAW_REQUEST: Final = CompleteRequest(spec=CompletionSpec(messages=[user(PROMPT)]))
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
HEADERS: Final[tuple[str, ...]] = (
    "timeout_s",
    "request_id",
    "traceparent",
    "tracestate",
    "metadata",
)
# What each method is given beside the headers, by position and by name.
ARGUMENTS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "list_models": ((), ("page_size",)),
    "get_model": (("model_id",), ()),
    "create_job": (("kind", "spec"), ("idempotency_key", "callback_url")),
    "get_job": (("job_id",), ()),
    "list_jobs": ((), ("page_size",)),
    "cancel_job": (("job_id",), ()),
    "watch_job": (("job_id",), ("after_sequence",)),
    "create_conversation": ((), ("title", "metadata_json", "idempotency_key")),
    "get_conversation": (("conversation_id",), ()),
    "list_conversations": ((), ("page_size",)),
    "list_messages": (("conversation_id",), ("page_size",)),
    "delete_conversation": (("conversation_id",), ()),
}


def client_options(given: Json) -> Json:
    options = dict(given)
    if path := options.pop("root_certificates", None):
        options["root_certificates"] = Path(path).read_bytes()
    return options


def spec_options(given: Json) -> Json:
    """A case's options as those of `complete`."""
    options = dict(given)
    if tools := options.get("tools"):
        options["tools"] = [function_tool(**tool) for tool in tools]
    if isinstance(options.get("tool_choice"), dict):
        options["tool_choice"] = only_tool(options["tool_choice"]["tool_name"])
    if schema := options.pop("json_schema", None):
        options["response_format"] = json_schema(**schema)
    return options


def ask(call: Json) -> Json:
    """The arguments of `complete`, `stream` and `preview_route`."""
    given: Json = {name: call[name] for name in (*HEADERS, "idempotency_key") if name in call}
    if "spec" in call:
        return {**given, "spec": decoded(call["spec"], CompletionSpec())}
    if "prompt_chars" in call:
        given["prompt"] = "x" * call["prompt_chars"]
    elif "prompt" in call:
        given["prompt"] = call["prompt"]
    return {**given, **spec_options(call.get("options", {}))}


def ask_stream(call: Json) -> Json:
    given = ask(call)
    if "heartbeat_interval_s" in call:
        options = StreamOptions()
        options.heartbeat_interval.FromTimedelta(timedelta(seconds=call["heartbeat_interval_s"]))
        given["stream_options"] = options
    return given


def other(call: Json) -> tuple[list[Any], Json]:
    """The arguments of all other methods."""
    positional, named = ARGUMENTS[call["method"]]
    given = {**call, "spec": decoded(call.get("spec", ""), CompletionSpec())}
    return (
        [given[name] for name in positional],
        {name: call[name] for name in (*named, *HEADERS) if name in call},
    )


def decoded(encoded: str, message: Any) -> Any:
    message.ParseFromString(base64.b64decode(encoded))
    return message


def encoded(message: ProtobufMessage) -> str:
    return base64.b64encode(message.SerializeToString()).decode()


def told(completion: Completion) -> Json:
    return {
        "completion": encoded(completion),
        "text": text(completion),
        "tool_calls": [
            {"id": call.id, "name": call.name, "arguments_json": call.arguments_json}
            for call in tool_calls(completion)
        ],
    }


def error_told(error: BaseException) -> Json:
    if isinstance(error, asyncio.CancelledError):
        # What a task sees that was cancelled itself.
        return {"family": "Cancelled", "reason": "CANCELLED", "code": "CANCELLED"}
    if not isinstance(error, TrunklineError):
        return {"family": "ArgumentError", "message": str(error)}
    kinds = type(error).__mro__
    return {
        # The class right below the root of the tree.
        "family": kinds[kinds.index(TrunklineError) - 1].__name__,
        "reason": error.reason,
        "code": error.code.name,
        "message": error.message,
        "request_id": error.request_id,
        "retry_after_s": error.retry_after_s,
        "provider": error.provider,
        "retryable": error.retryable,
        "field_violations": [
            {"field": wrong.field, "description": wrong.description, "reason": wrong.reason}
            for wrong in error.field_violations
        ],
        "metadata": dict(error.metadata),
    }


def event_name(event: CompleteResponse) -> str:
    return event.WhichOneof("event") or ""


def live(tasks: int) -> tuple[int, int]:
    """Bytes that are resident, and threads and tasks."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * PAGE_BYTES, threading.active_count() + tasks


def measured(messages: int, began: tuple[float, float]) -> Json:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "messages": messages,
        "elapsed_s": time.perf_counter() - began[0],
        "cpu_s": used.ru_utime + used.ru_stime - began[1],
    }


def begun() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime


def raw_metadata(options: Json) -> tuple[tuple[str, str], ...]:
    return tuple(options["metadata"].items())


@contextmanager
def after(call: Json, act: Callable[[], object]) -> Iterator[None]:
    """Acts from beside the block once it is time to cancel, if it ever is."""
    timer = threading.Timer(call.get("cancel_after_s", 0), act)
    if "cancel_after_s" in call:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def next_turns(answer: Completion, results: Json) -> list[Message]:
    """The answer, and what the tools that it calls have said."""
    return [
        *turns(answer),
        *(
            tool_result(
                call, results[call.name]["text"], is_error=results[call.name].get("is_error", False)
            )
            for call in tool_calls(answer)
        ),
    ]


class Blocking:
    """The calls with `Client`."""

    def __init__(self, options: Json) -> None:
        self._options = options
        self._client = Client(**options)
        self._stub: CompletionServiceStub | None = None

    def close(self) -> None:
        self._client.close()

    def do(self, call: Json, seen: Json) -> None:
        """Makes one call; what it sees before an error stays in `seen`."""
        method = getattr(self, call["method"], self._other)
        method(call, seen)

    def complete(self, call: Json, seen: Json) -> None:
        # A blocking call has no other way to be ended from beside it.
        with after(call, self._client.close):
            seen.update(told(self._client.complete(**ask(call))))

    def stream(self, call: Json, seen: Json) -> None:
        names: list[str] = seen.setdefault("events", [])
        with self._client.stream(**ask_stream(call)) as stream, after(call, stream.close):
            try:
                for event in stream:
                    names.append(event_name(event))
                    time.sleep(call.get("read_delay_ms", 0) / 1000)
                    if len(names) == call.get("leave_after"):
                        return
            finally:
                seen.update(told(stream.snapshot()))
            if call.get("then") != "snapshot":
                seen.update(told(stream.completion()))

    def text_deltas(self, call: Json, seen: Json) -> None:
        texts: list[str] = seen.setdefault("texts", [])
        with self._client.stream(**ask_stream(call)) as stream:
            texts.extend(stream.text_deltas())

    def converse(self, call: Json, seen: Json) -> None:
        given = ask(call)
        messages = [user(given.pop("prompt"))]
        for _ in range(MOST_TURNS):
            answer = self._client.complete(messages, **given)
            if not tool_calls(answer):
                break
            messages += next_turns(answer, call["results"])
        seen.update(told(answer))

    def preview_route(self, call: Json, seen: Json) -> None:
        seen["items"] = [encoded(self._client.preview_route(**ask(call)))]

    def fold(self, call: Json, seen: Json) -> None:
        seen.update(told(fold(decoded(event, CompleteResponse()) for event in call["events"])))

    def abandon(self, call: Json, seen: Json) -> None:
        before = live(0)
        for number in range(call["count"]):
            if number == WARM_UP_STREAMS:
                before = live(0)
            with self._client.stream(**ask_stream(call)) as stream:
                for count, _ in enumerate(stream, 1):
                    if count == call["leave_after"]:
                        break
        after_all = live(0)
        seen.update(live_bytes=[before[0], after_all[0]], threads=[before[1], after_all[1]])

    def bench(self, call: Json, seen: Json) -> None:
        seconds = call["seconds"]
        read = self._read_by_client if call["api"] == "client" else self._read_by_stub
        began, messages = begun(), 0
        while time.perf_counter() - began[0] < seconds:
            messages += read()
        seen.update(measured(messages, began))

    def _read_by_client(self) -> int:
        messages = 0
        with self._client.stream(PROMPT) as stream:
            for _ in stream:
                messages += 1
        return messages

    def _read_by_stub(self) -> int:
        if self._stub is None:
            self._stub = CompletionServiceStub(grpc.insecure_channel(self._options["target"]))
        messages = 0
        for _ in self._stub.Complete(RAW_REQUEST, metadata=raw_metadata(self._options)):
            messages += 1
        return messages

    def _other(self, call: Json, seen: Json) -> None:
        positional, named = other(call)
        given = getattr(self._client, call["method"])(*positional, **named)
        items: list[str] = seen.setdefault("items", [])
        for item in [given] if isinstance(given, ProtobufMessage) else given or ():
            items.append(encoded(item))  # noqa: PERF401 - what came before an error counts


class Awaited:
    """The calls with `AsyncClient`."""

    def __init__(self, options: Json) -> None:
        self._options = options
        self._client = AsyncClient(**options)
        self._channel = grpc.aio.insecure_channel(options["target"])

    async def close(self) -> None:
        await self._client.close()
        await self._channel.close()

    async def do(self, call: Json, seen: Json) -> None:
        """As `Blocking.do`."""
        method = getattr(self, call["method"], self._other)
        task = asyncio.create_task(method(call, seen))
        if "cancel_after_s" in call:
            asyncio.get_running_loop().call_later(call["cancel_after_s"], task.cancel)
        await task

    async def complete(self, call: Json, seen: Json) -> None:
        seen.update(told(await self._client.complete(**ask(call))))

    async def stream(self, call: Json, seen: Json) -> None:
        names: list[str] = seen.setdefault("events", [])
        async with self._client.stream(**ask_stream(call)) as stream:
            try:
                async for event in stream:
                    names.append(event_name(event))
                    await asyncio.sleep(call.get("read_delay_ms", 0) / 1000)
                    if len(names) == call.get("leave_after"):
                        return
            finally:
                seen.update(told(stream.snapshot()))
            if call.get("then") != "snapshot":
                seen.update(told(await stream.completion()))

    async def text_deltas(self, call: Json, seen: Json) -> None:
        texts: list[str] = seen.setdefault("texts", [])
        async with self._client.stream(**ask_stream(call)) as stream:
            async for piece in stream.text_deltas():
                texts.append(piece)  # noqa: PERF401 - what came before an error counts

    async def converse(self, call: Json, seen: Json) -> None:
        given = ask(call)
        messages = [user(given.pop("prompt"))]
        for _ in range(MOST_TURNS):
            answer = await self._client.complete(messages, **given)
            if not tool_calls(answer):
                break
            messages += next_turns(answer, call["results"])
        seen.update(told(answer))

    async def preview_route(self, call: Json, seen: Json) -> None:
        seen["items"] = [encoded(await self._client.preview_route(**ask(call)))]

    async def fold(self, call: Json, seen: Json) -> None:
        seen.update(told(fold(decoded(event, CompleteResponse()) for event in call["events"])))

    async def abandon(self, call: Json, seen: Json) -> None:
        tasks = asyncio.all_tasks()
        before = live(len(tasks))
        for number in range(call["count"]):
            if number == WARM_UP_STREAMS:
                before = live(len(asyncio.all_tasks()))
            async with self._client.stream(**ask_stream(call)) as stream:
                count = 0
                async for _ in stream:
                    count += 1
                    if count == call["leave_after"]:
                        break
        # Calls that were cancelled are cleared away by tasks of the library's.
        if others := asyncio.all_tasks() - tasks:
            await asyncio.wait(others, timeout=CLEARED_WITHIN_S)
        after_all = live(len(asyncio.all_tasks()))
        seen.update(live_bytes=[before[0], after_all[0]], threads=[before[1], after_all[1]])

    async def bench(self, call: Json, seen: Json) -> None:
        seconds = call["seconds"]
        read = self._read_by_client if call["api"] == "client" else self._read_by_stub
        began, messages = begun(), 0
        while time.perf_counter() - began[0] < seconds:
            messages += await read()
        seen.update(measured(messages, began))

    async def _read_by_client(self) -> int:
        messages = 0
        async with self._client.stream(PROMPT) as stream:
            async for _ in stream:
                messages += 1
        return messages

    async def _read_by_stub(self) -> int:
        stub = CompletionServiceStub(self._channel)
        messages = 0
        async for _ in stub.Complete(RAW_REQUEST, metadata=raw_metadata(self._options)):
            messages += 1
        return messages

    async def _other(self, call: Json, seen: Json) -> None:
        positional, named = other(call)
        given = getattr(self._client, call["method"])(*positional, **named)
        items: list[str] = seen.setdefault("items", [])
        if isinstance(given, AsyncIterator):
            async for item in given:
                items.append(encoded(item))  # noqa: PERF401 - what came before an error counts
        elif (item := await given) is not None:
            items.append(encoded(item))


def run_blocking(options: Json, call: Json, seen: Json) -> None:
    client = Blocking(options)
    try:
        client.do(call, seen)
    finally:
        client.close()


def run_awaited(options: Json, call: Json, seen: Json) -> None:
    async def run() -> None:
        client = Awaited(options)
        try:
            await client.do(call, seen)
        finally:
            await client.close()

    asyncio.run(run())


def answer(order: Json, run: Callable[[Json, Json, Json], None]) -> Json:
    """What came of one case."""
    seen: Json = {"name": order["name"], "error": None}
    began_s = time.monotonic()
    try:
        # Folding needs no gateway, and so its cases name none.
        options = client_options({"target": "127.0.0.1:1", "metadata": {}, **order["client"]})
        run(options, order["call"], seen)
    except (TrunklineError, ValueError, TypeError, asyncio.CancelledError) as error:
        seen["error"] = error_told(error)
    except Exception as error:  # noqa: BLE001 - the case failed, not the runner
        seen["crash"] = repr(error)
    seen["elapsed_s"] = time.monotonic() - began_s
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flavour", choices=("blocking", "asyncio"), default="blocking")
    run = {"blocking": run_blocking, "asyncio": run_awaited}[parser.parse_args().flavour]
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), run)), flush=True)


if __name__ == "__main__":
    main()
