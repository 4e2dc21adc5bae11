"""Panels through the official `openai` SDK for Python, whichever version runs this.

drive_waymark.py URL KEY CALLER     prints one JSON object: results by case and route
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from openai import APIStatusError, OpenAI
from pydantic import BaseModel

ROUTES: Final = ("waymark-fast", "waymark-moa", "waymark-max")
TOOLS: Final[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Finds the weather.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
VERSION: Final = "2026-01-31"
LIMITS: Final = tuple(
    f"{prefix}RateLimit-{name}" for prefix in ("", "X-") for name in ("Limit", "Remaining", "Reset")
)


class City(BaseModel):
    city: str
    people: int


def usage_of(usage: Any) -> Any:
    return usage and [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens]


def told(headers: Mapping[str, str]) -> dict[str, Any]:
    """What the head of a response says."""
    return {
        "route": headers.get("Speechify-Route"),
        "version": headers.get("Speechify-Version"),
        "limits": [name for name in LIMITS if (headers.get(name) or "").isdigit()],
    }


def whole(response: Any) -> dict[str, Any]:
    """A response, with its headers."""
    answer = response.parse()
    choice = answer.choices[0]
    return {
        **told(response.headers),
        "model": answer.model,
        "text": choice.message.content,
        "calls": [
            [call.id, call.function.name, call.function.arguments]
            for call in choice.message.tool_calls or ()
        ],
        "finish": choice.finish_reason,
        "usage": usage_of(answer.usage),
        "waymark": answer.model_extra["waymark"],
    }


def streamed(response: Any) -> dict[str, Any]:
    """A stream put together again, with its headers. `early`: chunks with `waymark` that are not the last."""
    chunks = list(response.parse())
    *before, last = chunks
    text = ""
    calls: list[list[str]] = []
    finishes: list[str] = []
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        text += choice.delta.content or ""
        for call in choice.delta.tool_calls or ():
            if call.index == len(calls):
                calls.append([call.id, call.function.name, ""])
            calls[call.index][2] += call.function.arguments or ""
        if choice.finish_reason:
            finishes.append(choice.finish_reason)
    return {
        **told(response.headers),
        "models": sorted({chunk.model for chunk in chunks}),
        "text": text,
        "calls": calls,
        "finishes": finishes,
        "usages": [usage_of(chunk.usage) for chunk in chunks if chunk.usage],
        "early": sum("waymark" in chunk.model_extra for chunk in before),
        "waymark": last.model_extra["waymark"],
    }


def accumulated(events: Iterable[Any]) -> str:
    """The text as the SDK's own way to put a stream together finds it."""
    return "".join(event.delta for event in events if event.type == "content.delta")


class Cases:
    """One method for each case, asked of a route."""

    def __init__(self, url: str, key: str, caller: str) -> None:
        self.client = OpenAI(base_url=f"{url}/v1", api_key=key)
        self.caller = caller

    def _asked(self, case: str, route: str, name: str, **options: Any) -> dict[str, Any]:
        content = f"{case} {name}/{route}/{self.caller}"
        return {"model": route, "messages": [{"role": "user", "content": content}], **options}

    def _create(self, case: str, route: str, name: str, **options: Any) -> Any:
        asked = self._asked(case, route, name, **options)
        return self.client.chat.completions.with_raw_response.create(**asked)

    def plain(self, route: str) -> Any:
        return whole(self._create("plain", route, "plain"))

    def stream(self, route: str) -> Any:
        return streamed(self._create("plain", route, "stream", stream=True))

    def include_usage(self, route: str) -> Any:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        return streamed(self._create("plain", route, "include_usage", **options))

    def tools(self, route: str) -> Any:
        return whole(self._create("plain", route, "tools", tools=TOOLS))

    def tools_streamed(self, route: str) -> Any:
        return streamed(self._create("plain", route, "tools_streamed", tools=TOOLS, stream=True))

    def structured(self, route: str) -> Any:
        asked = self._asked("plain", route, "structured", response_format=City)
        answer = self.client.chat.completions.parse(**asked)
        parsed = answer.choices[0].message.parsed
        return [parsed and [parsed.city, parsed.people], (answer.model_extra or {})["waymark"]]

    def accumulated(self, route: str) -> Any:
        asked = self._asked("plain", route, "accumulated")
        with self.client.chat.completions.stream(**asked) as stream:
            text = accumulated(stream)
            return [text, stream.get_final_completion().choices[0].message.content]

    def escalated(self, route: str) -> Any:
        return whole(self._create(self._poor(route), route, "escalated"))

    def escalated_streamed(self, route: str) -> Any:
        return streamed(self._create(self._poor(route), route, "escalated_streamed", stream=True))

    def _poor(self, route: str) -> str:
        return "refusal" if route == "waymark-fast" else "different"

    def version(self, route: str) -> Any:
        headers = {"Speechify-Version": VERSION}
        answers = [
            self._create(
                "plain", route, f"version-{streams}", stream=streams, extra_headers=headers
            )
            for streams in (False, True)
        ]
        list(answers[1].parse())
        return [answer.headers.get("Speechify-Version") for answer in answers]

    def bad_version(self, route: str) -> Any:
        headers = {"Speechify-Version": "latest"}
        return self._refused(
            lambda: self._create("plain", route, "bad_version", extra_headers=headers)
        )

    def bad_version_streamed(self, route: str) -> Any:
        options = {"extra_headers": {"Speechify-Version": "2026-02-30"}, "stream": True}
        return self._refused(
            lambda: self._create("plain", route, "bad_version_streamed", **options)
        )

    def unknown(self, route: str) -> Any:
        """The upstream is to see it."""
        asked = {"extra_body": {"service_hint": {"lane": [1, None]}}}
        return self._create("plain", route, "unknown", **asked).parse().choices[0].finish_reason

    def _refused(self, call: Callable[[], Any]) -> Any:
        try:
            call()
        except APIStatusError as error:
            body = error.body if isinstance(error.body, dict) else {}
            return {
                "class": type(error).__name__,
                "status": error.status_code,
                "code": error.code,
                "param": error.param,
                "type": error.type,
                "message": body.get("message"),
                **told(error.response.headers),
            }
        return "no error"


def results(url: str, key: str, caller: str) -> Mapping[str, Any]:
    """The results of all cases; an error that no case expects is a result too."""
    cases = Cases(url, key, caller)
    found = {}
    for name in vars(Cases):
        if not name.startswith("_"):
            for route in ROUTES:
                case: Callable[[str], Any] = getattr(cases, name)
                try:
                    found[f"{name}/{route}"] = case(route)
                except Exception as error:  # noqa: BLE001 - the test that compares shows it
                    found[f"{name}/{route}"] = f"{type(error).__name__}: {error}"
    cases.client.close()
    return found


if __name__ == "__main__":
    print(json.dumps(results(*sys.argv[1:])))
