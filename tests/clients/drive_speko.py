"""Every case through both clients of Speko's official SDK for Python, the one that waits and the one that awaits.

drive_speko.py KEY WEBHOOK EDGE=URL[,EDGE=URL ...] [CASE ...]

prints one JSON object: by client and edge, as in `sync-local`, results by case. WEBHOOK is the URL of a tool.

Each case is pinned to a provider of its own, CASE-CLIENT-EDGE, so that no case sees what another one did to a breaker.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from spekoai import (  # type: ignore[import-not-found]  # In an environment of its own: .venv-speko.
    AsyncSpeko,
    ChatMessage,
    ChatTool,
    Speko,
    SpekoApiError,
    SpekoRateLimitError,
)

HELLO: Final = [{"role": "user", "content": "Say hello."}]
PARAMETERS: Final = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
MAX_PAGES: Final = 10
TOOLS: Final = [{"name": "get_weather", "description": "Finds it.", "parameters": PARAMETERS}]


class Waiting:
    """`Speko`."""

    def __init__(self, url: str, key: str) -> None:
        self._client = Speko(api_key=key, base_url=url)

    def complete(self, **asked: Any) -> Any:
        return self._client.complete(**asked)

    def events(self, **asked: Any) -> list[Any]:
        return list(self._client.complete_stream(**asked))

    def first_text(self, **asked: Any) -> str:
        """The first text of a stream that is left then."""
        stream = self._client.complete_stream(**asked)
        try:
            text: str = next(event.text for event in stream if event.type == "delta")
            return text
        finally:
            stream.close()

    def balance(self) -> Any:
        return self._client.credits.get_balance()

    def ledger(self, **asked: Any) -> Any:
        return self._client.credits.get_ledger(**asked)

    def usage(self, **asked: Any) -> Any:
        return self._client.usage.get(**asked)


class Awaiting:
    """`AsyncSpeko`."""

    def __init__(self, url: str, key: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncSpeko(api_key=key, base_url=url)

    def complete(self, **asked: Any) -> Any:
        return self._loop.run_until_complete(self._client.complete(**asked))

    def events(self, **asked: Any) -> list[Any]:
        async def gather() -> list[Any]:
            return [event async for event in self._client.complete_stream(**asked)]

        return self._loop.run_until_complete(gather())

    def first_text(self, **asked: Any) -> str:
        """The first text of a stream that is left then."""

        async def take() -> str:
            stream = self._client.complete_stream(**asked)
            try:
                async for event in stream:
                    if event.type == "delta":
                        text: str = event.text
                        return text
            finally:
                await stream.aclose()
            return ""

        return self._loop.run_until_complete(take())

    def balance(self) -> Any:
        return self._loop.run_until_complete(self._client.credits.get_balance())

    def ledger(self, **asked: Any) -> Any:
        return self._loop.run_until_complete(self._client.credits.get_ledger(**asked))

    def usage(self, **asked: Any) -> Any:
        return self._loop.run_until_complete(self._client.usage.get(**asked))


CLIENTS: Final[Mapping[str, Callable[[str, str], Waiting | Awaiting]]] = {
    "sync": Waiting,
    "async": Awaiting,
}


class Cases:
    """One method for each case."""

    def __init__(self, way: str, url: str, key: str, webhook: str, caller: str) -> None:
        self._way = way
        self._webhook = webhook
        self._url = url
        self._client = CLIENTS[way](url, key)
        self._caller = caller

    def _asked(self, case: str, *others: str, **more: Any) -> dict[str, Any]:
        """A question for the case's own provider."""
        llm = [f"{name}-{self._caller}" for name in (case, *others)]
        return {
            "messages": HELLO,
            "intent": {"language": "en"},
            "constraints": {"allowed_providers": {"llm": llm}},
            **more,
        }

    def _refused(self, case: str, **more: Any) -> Any:
        return refusal(lambda: self._client.complete(**self._asked(case, **more)))

    def complete(self) -> Any:
        return whole(self._client.complete(**self._asked("plain")))

    def complete_stream(self) -> Any:
        return joined(self._client.events(**self._asked("plain")))

    def line_ends(self) -> Any:
        events = self._client.events(**self._asked("line-ends"))
        return ["".join(event.text for event in events if event.type == "delta"), events[-1].text]

    def failover(self) -> Any:
        return whole(self._client.complete(**self._asked("failing", "second")))

    def pinned_model(self) -> Any:
        asked = self._asked("plain")
        (provider,) = asked["constraints"]["allowed_providers"]["llm"]
        asked["constraints"] = {"allowed_providers": {"llm": [f"{provider}:{provider}"]}}
        return whole(self._client.complete(**asked))

    def tools(self) -> Any:
        asked = self._asked("tools", tools=TOOLS, tool_choice="required", max_tool_hops=4)
        return whole(self._client.complete(**asked))

    def tools_streamed(self) -> Any:
        tools = [ChatTool.model_validate(tool) for tool in TOOLS]
        return [whole(event) for event in self._client.events(**self._asked("tools", tools=tools))]

    def conversation(self) -> Any:
        """A result that is an error, and one that is none."""
        answer = self._client.complete(**self._asked("tools", tools=TOOLS))
        messages = [
            *(ChatMessage.model_validate(message) for message in HELLO),
            ChatMessage(role="assistant", content=answer.text, tool_calls=answer.tool_calls),
        ]
        for number, call in enumerate(answer.tool_calls):
            is_error = None if number else True
            content = "no such city" if is_error else "rain"
            messages.append(
                ChatMessage(role="tool", content=content, tool_call_id=call.id, is_error=is_error)
            )
        asked = self._asked("conversation", tools=TOOLS, messages=messages)
        return self._client.complete(**asked).text

    def options(self) -> Any:
        asked = self._asked(
            "options",
            intent={"language": "de-CH", "region": "global", "optimize_for": "balanced"},
            system_prompt="Be brief.",
            temperature=0.5,
            max_tokens=100,
            reasoning_effort="low",
            tools=TOOLS,
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
            parallel_tool_calls=False,
            max_tool_hops=8,
            session_id=" sess_1 ",
        )
        return self._client.complete(**asked).text

    def wrong_key(self) -> Any:
        client, self._client = self._client, CLIENTS[self._way](self._url, "wrong")
        try:
            return self._refused("plain")
        finally:
            self._client = client

    def bad_request(self) -> Any:
        return self._refused("plain", temperature=9)

    def throttled(self) -> Any:
        return self._refused("throttled")

    def failing(self) -> Any:
        return self._refused("failing")

    def nobody(self) -> Any:
        told = self._refused("nobody")
        return [told["class"], told["status"], told["code"]]

    def integration(self) -> Any:
        source = {"kind": "integration", "installation_id": "i", "app_key": "a", "action_key": "b"}
        return self._refused("plain", tools=[{**TOOLS[0], "source": source}])

    def broken(self) -> Any:
        return self._refused("broken")

    def broken_streamed(self) -> Any:
        return [whole(event) for event in self._client.events(**self._asked("broken-streamed"))]

    def early_close(self) -> Any:
        return self._client.first_text(**self._asked("early-close"))

    def server_tools(self) -> Any:
        """All kinds of tools that the gateway runs."""
        source = {
            "kind": "webhook",
            "url": self._webhook,
            "secret_ref": "hook",
            "headers": {"x-shop": "7"},
            "auth_headers": [{"name": "x-key", "secret_ref": "other"}],
            "timeout_ms": 9500,
        }
        parameters = {"type": "object"}
        shared = {"description": "", "parameters": parameters}
        tools = [
            {**TOOLS[0], "execution_mode": "webhook", "source": source},
            {"name": "look_up", "execution_mode": "webhook", **shared},
            {
                **shared,
                "name": "calculate",
                "execution_mode": "builtin",
                "source": {"kind": "builtin", "name": "calculator"},
                "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}},
                "pre_tool_speech": "never",
            },
        ]
        events = joined(self._client.events(**self._asked("server-tools", tools=tools)))
        # They run at once, so their events come in any order.
        ran = [event for event in events if event["type"] == "server_tool_call"]
        others = [event for event in events if event["type"] != "server_tool_call"]
        return [sorted([event["name"], event["status"]] for event in ran), others]

    def hops(self) -> Any:
        """A model that goes on calling, and two turns for it."""
        parameters = {"type": "object", "properties": {"expression": {"type": "string"}}}
        source = {"kind": "builtin", "name": "calculator"}
        tool = {"name": "calculate", "description": "", "parameters": parameters, "source": source}
        tools = [{**tool, "execution_mode": "builtin"}]
        events = self._client.events(**self._asked("hops", tools=tools, max_tool_hops=2))
        statuses = [event.status for event in events if event.type == "server_tool_call"]
        return [statuses, whole(events[-1])]

    def failed_tool(self) -> Any:
        """A webhook that is not there."""
        source = {"kind": "webhook", "url": f"{self._webhook}/gone", "secret_ref": "hook"}
        tools = [{**TOOLS[0], "execution_mode": "webhook", "source": source}]
        events = self._client.events(**self._asked("failed-tool", tools=tools))
        statuses = [e.status for e in events if e.type == "server_tool_call"]
        return [statuses, events[-1].text]

    def mixed(self) -> Any:
        """A turn that calls a tool of the caller's and one of the gateway's; then the caller's result."""
        registered = {"description": "", "parameters": {"type": "object"}}
        tools = [*TOOLS, {"name": "look_up", "execution_mode": "webhook", **registered}]
        asked = self._asked("mixed", tools=tools)
        answer = self._client.complete(**asked)
        calls = [[call.name, call.args] for call in answer.tool_calls]
        messages = [
            *HELLO,
            {"role": "assistant", "content": answer.text, "tool_calls": answer.tool_calls},
            *(
                {"role": "tool", "content": "rain", "tool_call_id": call.id}
                for call in answer.tool_calls
            ),
        ]
        return [calls, self._client.complete(**{**asked, "messages": messages}).text]

    def unknown_secret(self) -> Any:
        source = {"kind": "webhook", "url": self._webhook, "secret_ref": "nope"}
        return self._refused("plain", tools=[{**TOOLS[0], "source": source}])

    def balance(self) -> Any:
        return whole(self._client.balance())

    def ledger(self) -> Any:
        """All pages, of one entry each."""
        pages = [self._client.ledger(limit=1)]
        while pages[-1].next_cursor is not None and len(pages) < MAX_PAGES:
            pages.append(self._client.ledger(limit=1, cursor=pages[-1].next_cursor))
        return [[whole(entry) for entry in page.entries] for page in pages]

    def whole_ledger(self) -> Any:
        page = self._client.ledger()
        return [[entry.id for entry in page.entries], page.next_cursor]

    def usage(self) -> Any:
        """Of this month, of the last 24 hours, and of a time before all."""
        now = datetime.now(UTC)
        yesterday = now - timedelta(hours=24)
        return [
            whole(self._client.usage()),
            whole(self._client.usage(from_date=yesterday.isoformat(), to_date=now.isoformat())),
            whole(self._client.usage(from_date="2020-01-01", to_date="2020-01-31")),
        ]

    def wrong_questions(self) -> Any:
        return [
            refusal(lambda: self._client.ledger(limit=0)),
            refusal(lambda: self._client.ledger(cursor="none of yours")),
            refusal(lambda: self._client.usage(from_date="yesterday")),
            refusal(lambda: self._client.usage(from_date="2020-01-02", to_date="2020-01-01")),
        ]


def whole(value: Any) -> Any:
    """What the SDK read, without what it made up."""
    return value.model_dump(exclude_unset=True) | (
        {"type": value.type} if hasattr(value, "type") else {}
    )


def refusal(call: Callable[[], Any]) -> Any:
    """The error that a call ends with."""
    try:
        call()
    except SpekoApiError as error:
        return failed(error)
    return "no error"


def failed(error: Any) -> dict[str, Any]:
    """An error as the SDK raises it."""
    told = {
        "class": type(error).__name__,
        "status": error.status,
        "code": error.code,
        "message": error.message,
    }
    if isinstance(error, SpekoRateLimitError):
        told["retry_after"] = error.retry_after
    return told


def joined(events: Sequence[Any]) -> list[Any]:
    """A stream in which neighbouring texts are one: an edge may send them so."""
    found: list[Any] = []
    for event in events:
        told = whole(event)
        if found and told["type"] == found[-1]["type"] == "delta":
            found[-1]["text"] += told["text"]
        else:
            found.append(told)
    return found


def results(
    way: str, url: str, key: str, webhook: str, caller: str, names: Sequence[str]
) -> Mapping[str, Any]:
    """The results of these cases; an error that no case expects is a result too."""
    cases = Cases(way, url, key, webhook, caller)
    found = {}
    for name in names:
        case: Callable[[], Any] = getattr(cases, name)
        try:
            found[name] = case()
        except Exception as error:  # noqa: BLE001 - the test that compares shows it
            found[name] = f"{type(error).__name__}: {error}"
    return found


def main() -> None:
    key, webhook, edges, *names = sys.argv[1:]
    found = {}
    for pair in edges.split(","):
        edge, _, url = pair.partition("=")
        for way in CLIENTS:
            found[f"{way}-{edge}"] = results(way, url, key, webhook, f"{way}-{edge}", names)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
