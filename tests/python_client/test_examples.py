"""The programs that the README points to, run as a reader would run them."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import grpc

from tests.python_client.events import answer, call_part, completed, routed, text_delta
from tests.python_client.scripted import WAIT_S, Failure, error_info
from trunkline.v1.completion_pb2 import Completion, Usage
from trunkline.v1.completion_service_pb2 import CompleteUnaryResponse

EXAMPLES = Path(__file__).parents[2] / "clients" / "python" / "examples"


async def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        timeout=WAIT_S,
        check=False,
    )


async def test_stream_answer_prints_the_answer_and_who_gave_it(gateway):
    final = Completion(usage=Usage(output_tokens=2))
    gateway.plays([routed(), text_delta("Pa"), text_delta("ris."), completed(final)])

    ran = await run("stream_answer.py", "Where?", "--target", gateway.target)

    assert (ran.stdout, ran.returncode) == ("Paris.\n\np/m, 2 output tokens\n", 0)


async def test_stream_answer_says_what_went_wrong(gateway):
    failed = Failure(grpc.StatusCode.NOT_FOUND, "no such model", [error_info("MODEL_NOT_FOUND")])
    gateway.plays([failed])

    ran = await run("stream_answer.py", "--target", gateway.target, "--model", "nope")

    assert (ran.stderr, ran.returncode) == ("\nMODEL_NOT_FOUND: no such model\n", 1)


async def test_tool_conversation_answers_every_call_and_goes_on(gateway):
    asked = answer(
        call_part("a", "local_time", '{"zone":"Etc/UTC"}'),
        call_part("b", "local_time", '{"zone":"Nowhere"}'),
        call_part("c", "local_time", '{"zone":'),
    )
    gateway.plays(
        [CompleteUnaryResponse(completion=asked)],
        [CompleteUnaryResponse(completion=answer("It is late."))],
    )

    ran = await run("tool_conversation.py", "--target", gateway.target)

    assert (ran.stdout, ran.returncode) == ("It is late.\n", 0)
    results = [
        message.parts[0].tool_result for message in gateway.calls[1].request.spec.messages[3:]
    ]
    assert [(result.tool_call_id, result.is_error) for result in results] == [
        ("a", False),
        ("b", True),
        ("c", True),
    ]
