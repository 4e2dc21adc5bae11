"""Lets a model ask this program what time it is, as often as it wants to, and prints its answer. Where no model of the
gateway has tools, as with the embedded one alone, it says so and asks without.

    python tool_conversation.py "What time is it in Oslo and in Tokyo?" --target 127.0.0.1:50051

The key, where the gateway wants one, is read from TRUNKLINE_API_KEY.
"""

import argparse
import asyncio
import os
import sys
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from trunkline import (
    AsyncClient,
    CapabilityUnsupported,
    TrunklineError,
    arguments,
    function_tool,
    system,
    text,
    tool_calls,
    tool_result,
    turns,
    user,
)
from trunkline.v1.message_pb2 import Message, ToolCall

MOST_TURNS = 8
LOCAL_TIME = function_tool(
    "local_time",
    "The time of day at a place.",
    {
        "type": "object",
        "properties": {"zone": {"type": "string", "description": "IANA zone, as Europe/Oslo"}},
        "required": ["zone"],
    },
)


def run(call: ToolCall) -> Message:
    """The result of one call. What is wrong with it is told to the model, which can do better."""
    try:
        zone = ZoneInfo(arguments(call)["zone"])
    except (ValueError, TypeError, KeyError, ZoneInfoNotFoundError) as error:
        return tool_result(call, f"no such zone: {error}", is_error=True)
    return tool_result(call, datetime.now(zone).strftime("%H:%M"))


async def converse(client: AsyncClient, question: str, model: str) -> str:
    """The model's last word on the question."""
    messages = [system("Use the tool for every time of day."), user(question)]
    for _ in range(MOST_TURNS):
        answer = await client.complete(messages, model=model, tools=[LOCAL_TIME])
        calls = tool_calls(answer)
        if not calls:
            return text(answer)
        messages += [*turns(answer), *(run(call) for call in calls)]
    return "(the model asked for tools to the end)"


async def answer(client: AsyncClient, question: str, model: str) -> str:
    """What the model says, with the tool if it can."""
    try:
        return await converse(client, question, model)
    except CapabilityUnsupported as error:
        print(f"Asked without the tool: {error.message}", file=sys.stderr)
        return text(await client.complete(question, model=model, max_output_tokens=100))


async def main() -> int:
    """Exit code 1 where the gateway answered with an error."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("question", nargs="?", default="What time is it in Oslo and in Tokyo?")
    parser.add_argument("--target", default="127.0.0.1:50051")
    parser.add_argument("--model", default="", help="empty: the gateway decides")
    parser.add_argument("--tls", action="store_true")
    given = parser.parse_args()

    api_key = os.environ.get("TRUNKLINE_API_KEY")
    try:
        async with AsyncClient(given.target, api_key=api_key, tls=given.tls) as client:
            print(await answer(client, given.question, given.model))
    except TrunklineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
