"""Every case through the official `openai` SDK for Python, whichever version runs this.

drive.py URL KEY CALLER     prints one JSON object: results by case
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from openai import APIError, APIStatusError, OpenAI
from pydantic import BaseModel

HELLO: Final[Any] = [{"role": "user", "content": "Say hello. \u2028 é"}]
TOOLS: Final[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Find the {what}.",
            "parameters": {
                "type": "object",
                "properties": {argument: {"type": "string"}},
                "required": [argument],
            },
        },
    }
    for name, what, argument in (("get_weather", "weather", "city"), ("get_time", "time", "zone"))
]
SILENCE_S: Final = 0.2


class City(BaseModel):
    city: str
    people: int


def usage_of(usage: Any) -> Any:
    return usage and [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens]


def calls_of(calls: Any) -> list[Any]:
    return [
        [call.id, call.type, call.function.name, call.function.arguments] for call in calls or ()
    ]


def whole(answer: Any) -> dict[str, Any]:
    """A response."""
    return {
        "object": answer.object,
        "id": answer.id[:9],
        "choices": [
            {
                "index": choice.index,
                "role": choice.message.role,
                "text": choice.message.content,
                "refusal": choice.message.refusal,
                "calls": calls_of(choice.message.tool_calls),
                "finish": choice.finish_reason,
            }
            for choice in answer.choices
        ],
        "usage": usage_of(answer.usage),
    }


def streamed(stream: Iterable[Any]) -> dict[str, Any]:
    """A stream, put together again."""
    choices: dict[int, dict[str, Any]] = {}
    usages = []
    heads = set()
    for chunk in stream:
        heads.add((chunk.object, chunk.id[:9], chunk.id, chunk.created, chunk.model))
        if chunk.usage:
            usages.append(usage_of(chunk.usage))
        for choice in chunk.choices:
            built = choices.setdefault(
                choice.index, {"roles": [], "text": "", "calls": [], "finish": []}
            )
            if choice.delta.role:
                built["roles"].append(choice.delta.role)
            built["text"] += choice.delta.content or ""
            for call in choice.delta.tool_calls or ():
                if call.index == len(built["calls"]):
                    built["calls"].append([call.id, call.type, call.function.name, ""])
                built["calls"][call.index][3] += call.function.arguments or ""
            if choice.finish_reason:
                built["finish"].append(choice.finish_reason)
    found = [{"index": index, **choices[index]} for index in sorted(choices)]
    return {"heads": [list(head[:2]) for head in heads], "choices": found, "usages": usages}


def failed(error: APIError) -> dict[str, Any]:
    """An error as the SDK raises it."""
    name = type(error).__name__
    told: dict[str, Any] = {
        "class": "APIError" if name == "APIStatusError" else name,
        "code": error.code,
        "param": error.param,
        "type": error.type,
    }
    if isinstance(error, APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        told |= {
            "status": error.status_code,
            "message": body.get("message"),
            "has_id": bool(error.request_id),
        }
    return told


class Cases:
    """One method for each case."""

    def __init__(self, url: str, key: str, caller: str) -> None:
        self.client = OpenAI(base_url=f"{url}/v1", api_key=key)
        self.caller = caller

    def _create(self, case: str, **options: Any) -> Any:
        options = {"model": f"{case}/{self.caller}", "messages": HELLO, **options}
        return self.client.chat.completions.create(**options)

    def _refused(self, case: str, **options: Any) -> Any:
        try:
            self._create(case, **options)
        except APIError as error:
            return failed(error)
        return "no error"

    def plain(self) -> Any:
        return whole(self._create("plain"))

    def stream(self) -> Any:
        return streamed(self._create("plain", stream=True))

    def include_usage(self) -> Any:
        return streamed(self._create("plain", stream=True, stream_options={"include_usage": True}))

    def tools(self) -> Any:
        return whole(self._create("tools", tools=TOOLS, tool_choice="required"))

    def tools_streamed(self) -> Any:
        return streamed(self._create("tools", tools=TOOLS, parallel_tool_calls=True, stream=True))

    def accumulated(self) -> Any:
        """The SDK's own way to put a stream together."""
        with self.client.chat.completions.stream(
            model=f"tools/{self.caller}", messages=HELLO, tools=TOOLS
        ) as stream:
            return whole(stream.get_final_completion())

    def conversation(self) -> Any:
        asked = self._create("tools", tools=TOOLS).choices[0].message
        messages = [*HELLO, asked]
        messages += [
            {"role": "tool", "tool_call_id": call.id, "content": f"{call.function.name}: fine"}
            for call in asked.tool_calls
        ]
        return whole(self._create("conversation", messages=messages, tools=TOOLS))

    def structured(self) -> Any:
        answer = self.client.chat.completions.parse(
            model=f"structured/{self.caller}", messages=HELLO, response_format=City
        )
        parsed = answer.choices[0].message.parsed
        return parsed and [parsed.city, parsed.people]

    def choices(self) -> Any:
        return whole(self._create("choices", n=2))

    def choices_streamed(self) -> Any:
        return streamed(self._create("choices", n=2, stream=True))

    def logprobs(self) -> Any:
        answer = self._create("logprobs", logprobs=True, top_logprobs=2)
        return [token.model_dump() for token in answer.choices[0].logprobs.content]

    def logprobs_streamed(self) -> Any:
        tokens = []
        for chunk in self._create("logprobs", logprobs=True, top_logprobs=2, stream=True):
            for choice in chunk.choices:
                if choice.logprobs:
                    tokens += [token.model_dump() for token in choice.logprobs.content]
        return tokens

    def line_ends(self) -> Any:
        return self._create("line-ends").choices[0].message.content

    def line_ends_streamed(self) -> Any:
        return streamed(self._create("line-ends", stream=True))["choices"][0]["text"]

    def bad_parameter(self) -> Any:
        return self._refused("plain", temperature=9)

    def wrong_key(self) -> Any:
        client, self.client = self.client, self.client.with_options(api_key="wrong")
        try:
            return self._refused("plain")
        finally:
            self.client = client

    def unknown_model(self) -> Any:
        return self._refused("plain", model=f"plian/{self.caller}")

    def too_large(self) -> Any:
        content = "x" * (33 * 1024 * 1024)
        return self._refused("plain", messages=[{"role": "user", "content": content}])

    def refused_upstream(self) -> Any:
        return self._refused("limited")

    def throttled(self) -> Any:
        client, self.client = self.client, self.client.with_options(max_retries=0)
        try:
            self._create("throttled")
        except APIStatusError as error:
            headers = error.response.headers
            return {**failed(error), "retry-after": headers.get("retry-after")}
        finally:
            self.client = client
        return "no error"

    def failing(self) -> Any:
        return self._refused("failing")

    def failing_streamed(self) -> Any:
        return self._refused("failing", stream=True)

    def silent(self) -> Any:
        limits = {"constraints": {"first_token_timeout_s": SILENCE_S, "max_attempts": 1}}
        return self._refused("silent", extra_body={"trunkline": limits})

    def broken(self) -> Any:
        text = ""
        try:
            for chunk in self._create("broken", stream=True):
                text += chunk.choices[0].delta.content or ""
        except APIError as error:
            return {"text": text, **failed(error)}
        return "no error"

    def early_close(self) -> Any:
        with self._create("early-close", stream=True) as stream:
            for chunk in stream:
                if chunk.choices[0].delta.content:
                    return chunk.choices[0].delta.content
        return "no text"

    def models(self) -> Any:
        return sorted(
            model.id for model in self.client.models.list() if model.id.endswith(f"/{self.caller}")
        )

    def model(self) -> Any:
        found = self.client.models.retrieve(f"plain/{self.caller}")
        return [found.id, found.object, found.owned_by]

    def request_id(self) -> Any:
        asked = {"x-request-id": f"asked-{self.caller}"}
        # Public in spite of its name, as the SDK's README says.
        ids = [
            answer._request_id  # noqa: SLF001
            for answer in (self._create("plain", extra_headers=asked), self._create("plain"))
        ]
        return [ids[0], ids[1][:4]]


def results(url: str, key: str, caller: str) -> Mapping[str, Any]:
    """The results of all cases; an error that no case expects is a result too."""
    cases = Cases(url, key, caller)
    found = {}
    for name in vars(Cases):
        if not name.startswith("_"):
            case: Callable[[], Any] = getattr(cases, name)
            try:
                found[name] = case()
            except Exception as error:  # noqa: BLE001 - the test that compares shows it
                found[name] = f"{type(error).__name__}: {error}"
    cases.client.close()
    return found


if __name__ == "__main__":
    print(json.dumps(results(*sys.argv[1:])))
