"""The vendors' own SDKs read each recording to the same text, calls, ends and usage as ours do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import anthropic
import botocore.exceptions
import botocore.session
import cohere
import httpx
import jiter
import ollama
import openai
import pytest
from botocore.config import Config
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types

from tests.providers.readings import (
    BODIES,
    MODELS,
    STREAMS,
    Reading,
    Recording,
    read,
    read_whole,
)
from tests.support.upstream import END, Step, chunk, head, upstream
from trunkline.v1.completion_pb2 import Choice, FinishReason, Usage
from trunkline_server.providers import anthropic as anthropic_dialect
from trunkline_server.providers import bedrock as bedrock_dialect
from trunkline_server.providers import cohere as cohere_dialect
from trunkline_server.providers import gemini as gemini_dialect
from trunkline_server.providers import ollama as ollama_dialect
from trunkline_server.providers import openai_answer
from trunkline_server.providers.answer import arguments_fault

Call = tuple[str, Any]


@dataclass
class Answer:
    """What is compared of one choice. `finish` is the vendor's word; empty when there was none."""

    text: str = ""
    calls: list[Call] = field(default_factory=list)
    finish: str = ""


@dataclass
class Result:
    """What an SDK made of a response. Usage is input, output, cached and reasoning tokens."""

    choices: dict[int, Answer] = field(default_factory=dict)
    usage: tuple[int, int, int, int] | None = None

    def choice(self, index: int) -> Answer:
        return self.choices.setdefault(index, Answer())


def arguments(text: str) -> Any:
    # Anthropic's SDK reads what is there of arguments that were cut off.
    return jiter.from_json(text.encode() or b"{}", partial_mode=True)


def ours(reading: Reading) -> Result:
    result = Result(usage=counts(reading.facts.usage) if reading.facts.usage else None)
    for choice in reading.choices:
        result.choices[choice.index] = answer_of(choice)
    return result


def answer_of(choice: Choice) -> Answer:
    answer = Answer(finish=choice.native_finish_reason)
    for part in choice.message.parts:
        answer.text += part.text + part.refusal
        if part.HasField("tool_call"):
            answer.calls.append((part.tool_call.name, arguments(part.tool_call.arguments_json)))
    return answer


def counts(usage: Usage) -> tuple[int, int, int, int]:
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.reasoning_tokens,
    )


# Without TLS, whose set-up would take longer than the test.
PLAIN: dict[str, Any] = {"verify": False, "trust_env": False}

# OpenAI and its services


class OpenAIResult(Result):
    """Chunks put together as their documentation tells clients to do it."""

    def add(self, chunk: openai.types.chat.ChatCompletionChunk) -> None:
        for choice in chunk.choices or ():  # Mistral's errors have none.
            answer = self.choice(choice.index)
            answer.finish = choice.finish_reason or answer.finish
            delta = choice.delta
            if delta is not None:  # Azure's last chunk has none, whatever the type says.
                answer.text += text_of(delta.content) + (delta.refusal or "")
                for call in delta.tool_calls or ():
                    self._call(choice.index, call)
        if chunk.usage is not None:
            self.usage = openai_usage(chunk.usage)

    def _call(self, choice: int, call: Any) -> None:
        calls = self.choice(choice).calls
        if call.function.name:  # Ollama numbers all calls 0, so only a name tells that one begins.
            calls.append((call.function.name, ""))
        name, written = calls[-1]
        calls[-1] = (name, written + (call.function.arguments or ""))

    def finish(self) -> None:
        for answer in self.choices.values():
            answer.calls = [(name, arguments(written)) for name, written in answer.calls]


def text_of(content: Any) -> str:
    # Mistral's lists pass through the SDK as they came.
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def openai_usage(usage: openai.types.CompletionUsage) -> tuple[int, int, int, int]:
    extra = usage.model_extra or {}
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    cached = (prompt.cached_tokens if prompt else 0) or 0
    cached = cached or extra.get("prompt_cache_hit_tokens", 0) or extra.get("cached_tokens", 0)
    reasoning = (completion.reasoning_tokens if completion else 0) or 0
    # xAI counts reasoning beside the completion.
    output = usage.total_tokens - usage.prompt_tokens
    return usage.prompt_tokens, output, cached, reasoning


def openai_client(url: str) -> openai.AsyncOpenAI:
    plain = openai.DefaultAsyncHttpxClient(**PLAIN)
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0, http_client=plain)


async def openai_stream(url: str) -> Result:
    result = OpenAIResult()
    async with openai_client(url) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        async for chunk in stream:
            result.add(chunk)
    result.finish()
    return result


async def openai_whole(url: str) -> Result:
    async with openai_client(url) as client:
        completion = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi"}]
        )
    assert completion.usage is not None
    result = Result(usage=openai_usage(completion.usage))
    for choice in completion.choices:
        message = choice.message
        result.choices[choice.index] = Answer(
            text=(message.content or "") + (message.refusal or ""),
            calls=[
                (call.function.name, arguments(call.function.arguments))
                for call in message.tool_calls or ()
                if call.type == "function"
            ],
            finish=choice.finish_reason,
        )
    return result


# Anthropic


def anthropic_result(message: anthropic.types.Message) -> Result:
    usage = message.usage
    cached = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    details = usage.output_tokens_details
    answer = Answer(finish=message.stop_reason or "")
    for block in message.content:
        if block.type == "text":
            answer.text += block.text
        elif block.type == "tool_use":
            answer.calls.append((block.name, block.input))
    if message.stop_details is not None:
        answer.text += message.stop_details.explanation or ""
    thinking = details.thinking_tokens if details else 0
    return Result(
        {0: answer},
        (usage.input_tokens + cached + written, usage.output_tokens, cached, thinking or 0),
    )


def anthropic_client(url: str) -> anthropic.AsyncAnthropic:
    plain = anthropic.DefaultAsyncHttpxClient(**PLAIN)
    return anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0, http_client=plain)


async def anthropic_stream(url: str) -> Result:
    async with (
        anthropic_client(url) as client,
        client.messages.stream(
            model=MODELS["anthropic"],
            max_tokens=1024,
            messages=[{"role": "user", "content": "Hi"}],
        ) as stream,
    ):
        return anthropic_result(await stream.get_final_message())


async def anthropic_whole(url: str) -> Result:
    async with anthropic_client(url) as client:
        return anthropic_result(
            await client.messages.create(
                model=MODELS["anthropic"],
                max_tokens=1024,
                messages=[{"role": "user", "content": "Hi"}],
            )
        )


# Gemini


class GeminiResult(Result):
    """Chunks put together: each holds whole parts, and usage up to there."""

    def add(self, chunk: genai_types.GenerateContentResponse) -> None:
        for candidate in chunk.candidates or ():
            answer = self.choice(candidate.index or 0)
            for part in (candidate.content and candidate.content.parts) or ():
                if part.function_call:
                    name = part.function_call.name or ""
                    answer.calls.append((name, part.function_call.args or {}))
                elif not part.thought:
                    answer.text += part.text or ""
            if candidate.finish_reason:
                answer.finish = candidate.finish_reason.value
        if usage := chunk.usage_metadata:
            thoughts = usage.thoughts_token_count or 0
            self.usage = (
                (usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0),
                (usage.candidates_token_count or 0) + thoughts,
                usage.cached_content_token_count or 0,
                thoughts,
            )


def gemini_client(url: str) -> genai.Client:
    options = genai_types.HttpOptions(base_url=url, httpx_async_client=httpx.AsyncClient(**PLAIN))
    return genai.Client(api_key="k", http_options=options)


async def gemini_stream(url: str) -> Result:
    result = GeminiResult()
    async with gemini_client(url).aio as client:
        chunks: AsyncIterator[
            genai_types.GenerateContentResponse
        ] = await client.models.generate_content_stream(model=MODELS["gemini"], contents="Hi")
        async for chunk in chunks:
            result.add(chunk)
    return result


async def gemini_whole(url: str) -> Result:
    result = GeminiResult()
    async with gemini_client(url).aio as client:
        result.add(await client.models.generate_content(model=MODELS["gemini"], contents="Hi"))
    return result


# Cohere


def cohere_usage(usage: cohere.Usage) -> tuple[int, int, int, int]:
    tokens = usage.tokens
    assert tokens is not None
    # Of reasoning there is no count.
    counts = (tokens.input_tokens, tokens.output_tokens, usage.cached_tokens, 0)
    written, read, cached, reasoning = (int(count or 0) for count in counts)
    return written, read, cached, reasoning


class CohereResult(Result):
    """Events put together as their documentation tells clients to do it."""

    def add(self, event: Any) -> None:  # By its types, everything in it may be missing.
        answer = self.choice(0)
        match event.type:
            case "content-delta":
                answer.text += event.delta.message.content.text or ""
            case "tool-call-start":
                function = event.delta.message.tool_calls.function
                answer.calls.append((function.name, function.arguments))
            case "tool-call-delta":
                name, written = answer.calls[-1]
                more = event.delta.message.tool_calls.function.arguments
                answer.calls[-1] = (name, written + more)
            case "message-end":
                answer.finish = event.delta.finish_reason
                if event.delta.usage is not None:
                    self.usage = cohere_usage(event.delta.usage)

    def finish(self) -> None:
        for answer in self.choices.values():
            answer.calls = [(name, arguments(written)) for name, written in answer.calls]


def cohere_client(url: str) -> cohere.AsyncClientV2:
    plain = httpx.AsyncClient(**PLAIN)
    return cohere.AsyncClientV2(api_key="k", base_url=url, max_retries=0, httpx_client=plain)


async def cohere_stream(url: str) -> Result:
    result = CohereResult()
    async with cohere_client(url) as client:
        async for event in client.chat_stream(
            model="m", messages=[cohere.UserChatMessageV2(content="Hi")]
        ):
            result.add(event)
    result.finish()
    return result


async def cohere_whole(url: str) -> Result:
    async with cohere_client(url) as client:
        response = await client.chat(model="m", messages=[cohere.UserChatMessageV2(content="Hi")])
    assert response.usage is not None
    answer = Answer(finish=response.finish_reason)
    for block in response.message.content or ():
        answer.text += block.text if block.type == "text" else ""
    for call in response.message.tool_calls or ():
        assert call.function is not None
        answer.calls.append((call.function.name or "", arguments(call.function.arguments or "")))
    return Result({0: answer}, cohere_usage(response.usage))


# Ollama


class OllamaResult(Result):
    """Lines put together: calls come whole, and counts in the last one."""

    def add(self, line: ollama.ChatResponse) -> None:
        answer = self.choice(0)
        answer.text += line.message.content or ""
        for call in line.message.tool_calls or ():
            answer.calls.append((call.function.name, call.function.arguments))
        if line.done:
            answer.finish = line.done_reason or ""
            if line.prompt_eval_count is not None:
                self.usage = (line.prompt_eval_count, line.eval_count or 0, 0, 0)


async def ollama_stream(url: str) -> Result:
    result = OllamaResult()
    async with ollama.AsyncClient(url, **PLAIN) as client:
        async for line in await client.chat(
            model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
        ):
            result.add(line)
    return result


async def ollama_whole(url: str) -> Result:
    result = OllamaResult()
    async with ollama.AsyncClient(url, **PLAIN) as client:
        result.add(await client.chat(model="m", messages=[{"role": "user", "content": "Hi"}]))
    return result


# Bedrock


@contextmanager
def bedrock_client(url: str) -> Iterator[Any]:
    client = botocore.session.Session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="k",
        aws_secret_access_key="s",
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
    )
    with closing(client):
        yield client


BEDROCK_ASKS: dict[str, Any] = {
    "modelId": MODELS["bedrock"],
    "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
}


def bedrock_usage(usage: dict[str, int]) -> tuple[int, int, int, int]:
    cached, written = usage.get("cacheReadInputTokens", 0), usage.get("cacheWriteInputTokens", 0)
    # Of reasoning there is no count.
    return usage["inputTokens"] + cached + written, usage["outputTokens"], cached, 0


class BedrockResult(Result):
    """Events put together as their documentation tells clients to do it."""

    def __init__(self) -> None:
        super().__init__()
        self.called: dict[
            int, int
        ] = {}  # Places of calls in the answer, by the number of the block.

    def add(self, event: dict[str, Any]) -> None:
        answer = self.choice(0)
        match event:
            case {"contentBlockStart": {"start": {"toolUse": use}, "contentBlockIndex": index}}:
                if "type" not in use:  # One that the provider runs itself.
                    self.called[index] = len(answer.calls)
                    answer.calls.append((use["name"], ""))
            case {"contentBlockDelta": {"delta": {"text": text}}}:
                answer.text += text
            case {"contentBlockDelta": {"delta": {"toolUse": use}, "contentBlockIndex": index}}:
                if index in self.called:
                    name, written = answer.calls[self.called[index]]
                    answer.calls[self.called[index]] = (name, written + use["input"])
            case {"messageStop": {"stopReason": reason}}:
                answer.finish = reason
            case {"metadata": {"usage": usage}}:
                self.usage = bedrock_usage(usage)

    def finish(self) -> None:
        for answer in self.choices.values():
            answer.calls = [(name, arguments(written)) for name, written in answer.calls]


async def bedrock_stream(url: str) -> Result:
    result = BedrockResult()

    def ask() -> None:
        with (
            bedrock_client(url) as client,
            closing(client.converse_stream(**BEDROCK_ASKS)["stream"]) as events,
        ):
            for event in events:
                result.add(event)

    await asyncio.to_thread(ask)
    result.finish()
    return result


async def bedrock_whole(url: str) -> Result:
    def ask() -> Any:
        with bedrock_client(url) as client:
            return client.converse(**BEDROCK_ASKS)

    response = await asyncio.to_thread(ask)
    answer = Answer(finish=response["stopReason"])
    for block in response["output"]["message"]["content"]:
        answer.text += block.get("text", "")
        if "toolUse" in block:
            answer.calls.append((block["toolUse"]["name"], block["toolUse"]["input"]))
    return Result({0: answer}, bedrock_usage(response["usage"]))


# The comparison

Reader = Callable[[str], Awaitable[Result]]
STREAM_READERS: dict[str, Reader] = {
    "anthropic": anthropic_stream,
    "bedrock": bedrock_stream,
    "cohere": cohere_stream,
    "gemini": gemini_stream,
    "ollama": ollama_stream,
}
WHOLE_READERS: dict[str, Reader] = {
    "anthropic": anthropic_whole,
    "bedrock": bedrock_whole,
    "cohere": cohere_whole,
    "gemini": gemini_whole,
    "ollama": ollama_whole,
}
FINISH_REASONS = {
    "anthropic": anthropic_dialect.FINISH_REASONS,
    "bedrock": bedrock_dialect.FINISH_REASONS,
    "cohere": cohere_dialect.FINISH_REASONS,
    "gemini": gemini_dialect.FINISH_REASONS,
    "ollama": ollama_dialect.FINISH_REASONS,
}
# What an SDK raises for a stream that it can't read; nothing else is a reading.
SDK_ERRORS = (
    anthropic.AnthropicError,
    botocore.exceptions.BotoCoreError,
    botocore.exceptions.ClientError,
    openai.OpenAIError,
    genai_errors.APIError,
    genai_errors.UnknownApiResponseError,
    ollama.ResponseError,
    httpx.HTTPError,
    ValueError,  # Half an event is no JSON.
    AssertionError,  # Anthropic's, for a stream without a message.
)
ENDED_WELL = {
    "hello",
    "tool_call",
    "parallel_tools",
    "refusal",
    "logprobs",
    "reasoning",
    "cached_usage",
}
# Ends that the SDKs hand on as if they were any other.
FAILED = {
    "",
    *cohere_dialect.FAILED_FINISHES,
    *ollama_dialect.FAILED_FINISHES,
    *openai_answer.FAILED_FINISHES,
}


def steps(recording: Recording, content_type: str) -> list[Step]:
    return [head(200, content_type, "connection: close"), chunk(recording.data), END]


async def sdk_reading(read: Reader, recording: Recording, content_type: str) -> Result | Exception:
    async with upstream(steps(recording, content_type)) as served:
        try:
            return await read(served.url)
        except SDK_ERRORS as error:
            return error


def assert_same(recording: Recording, reading: Reading, theirs: Result) -> None:
    mine = ours(reading)
    assert mine.choices == theirs.choices
    # Groq may write usage where its own SDK alone looks for it.
    if theirs.usage is not None:
        assert mine.usage == theirs.usage
    words = FINISH_REASONS.get(recording.dialect, openai_answer.FINISH_REASONS)
    for choice in reading.choices:
        assert choice.finish_reason == expected_end(choice, words[choice.native_finish_reason])


def expected_end(choice: Choice, said: FinishReason.ValueType) -> FinishReason.ValueType:
    """The vendor's word, corrected where the calls say otherwise."""
    calls = [part.tool_call for part in choice.message.parts if part.HasField("tool_call")]
    if not calls or said not in (
        FinishReason.FINISH_REASON_STOP,
        FinishReason.FINISH_REASON_TOOL_CALLS,
    ):
        return said
    faults = [arguments_fault(call.arguments_json) for call in calls]
    return next(filter(None, faults), FinishReason.FINISH_REASON_TOOL_CALLS)


@pytest.mark.parametrize("recording", STREAMS, ids=str)
async def test_the_vendors_sdk_reads_a_stream_as_we_do(recording):
    reader = STREAM_READERS.get(recording.dialect, openai_stream)

    theirs = await sdk_reading(reader, recording, recording.content_type)
    reading = read(recording.dialect, [recording.data], recording.choices)

    if isinstance(theirs, Exception):
        assert reading.error is not None
    elif reading.error is not None:
        # The SDKs let a stream end without a word. Then at least no end was read in it.
        assert not theirs.choices or {c.finish for c in theirs.choices.values()} & FAILED
    else:
        assert_same(recording, reading, theirs)


@pytest.mark.parametrize("recording", BODIES, ids=str)
async def test_the_vendors_sdk_reads_a_body_as_we_do(recording):
    reader = WHOLE_READERS.get(recording.dialect, openai_whole)

    theirs = await sdk_reading(reader, recording, "application/json")
    reading = read_whole(recording.dialect, recording.data, recording.choices)

    assert isinstance(theirs, Result), theirs
    assert_same(recording, reading, theirs)


@pytest.mark.parametrize(
    "recording",
    # It raises for all other ends.
    [found for found in STREAMS if found.dialect == "openai" and found.name in ENDED_WELL],
    ids=str,
)
async def test_openais_own_accumulator_agrees(recording):
    async with (
        upstream(steps(recording, "text/event-stream")) as served,
        openai_client(served.url) as client,
        client.chat.completions.stream(
            model="m", messages=[{"role": "user", "content": "Hi"}]
        ) as stream,
    ):
        completion = await stream.get_final_completion()

    mine = ours(read(recording.dialect, [recording.data], recording.choices))
    for choice in completion.choices:
        message = choice.message
        calls = [
            (call.function.name, arguments(call.function.arguments))
            for call in message.tool_calls or ()
        ]
        text = (message.content or "") + (message.refusal or "")
        assert mine.choices[choice.index] == Answer(text, calls, choice.finish_reason)
