"""Streams one answer to the terminal, then says who gave it and what it took.

    python stream_answer.py "Why is the sky blue?" --target 127.0.0.1:50051

The key, where the gateway wants one, is read from TRUNKLINE_API_KEY.
"""

import argparse
import os
import sys

from trunkline import Client, TrunklineError

QUESTION = "What is the capital of France? Answer in one sentence."


def main() -> int:
    """Exit code 1 where the gateway answered with an error."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("prompt", nargs="?", default=QUESTION)
    parser.add_argument("--target", default="127.0.0.1:50051")
    parser.add_argument("--model", default="", help="empty: the gateway decides")
    parser.add_argument("--tls", action="store_true")
    given = parser.parse_args()

    api_key = os.environ.get("TRUNKLINE_API_KEY")
    try:
        with (
            Client(given.target, api_key=api_key, tls=given.tls) as client,
            client.stream(given.prompt, model=given.model, temperature=0) as stream,
        ):
            for piece in stream.text_deltas():
                print(piece, end="", flush=True)
            answer = stream.completion()
    except TrunklineError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    route, usage = answer.route, answer.usage
    print(f"\n\n{route.provider}/{route.model}, {usage.output_tokens} output tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
