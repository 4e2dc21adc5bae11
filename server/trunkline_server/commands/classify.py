"""`trunkline classify`: what kind of work a prompt is, found out without a server."""

import argparse
import asyncio
import json
import os
import sys
from typing import Any, Final

from trunkline_server.app_orchestration import build_modes, new_classifier, new_embedder
from trunkline_server.commands.calling import CommandError
from trunkline_server.commands.words import visible
from trunkline_server.config import Settings, load
from trunkline_server.core.modes import MAX_QUESTION_CHARS, ModeChoice, ModeQuestion

MEDIA: Final = ("image", "audio", "document", "video")
MODEL_S: Final = (
    10.0  # For the model to be read: a server asks the next time, we are here only once.
)


def add_classify(commands: Any) -> None:
    """The parser."""
    parser = commands.add_parser(
        "classify", help="what kind of work a prompt is: the mode that `auto` stands for"
    )
    parser.add_argument("prompt", nargs="?", help="default: what comes in by standard input")
    parser.add_argument("--config", metavar="FILE", help="of which modes and [classifier] count")
    parser.add_argument(
        "--media", nargs="+", choices=MEDIA, default=[], help="what comes with the prompt"
    )
    parser.add_argument("--tools", action="store_true", help="as a request that has tools")
    parser.add_argument("--json", action="store_true", help="a line of JSON")
    parser.set_defaults(run=_classify)


def _classify(arguments: argparse.Namespace) -> int:
    settings, _ = load(arguments.config, os.environ, {})
    text = arguments.prompt if arguments.prompt is not None else _piped()
    choice = asyncio.run(_choice(settings, text, arguments.media, has_tools=arguments.tools))
    if arguments.json:
        others = [{"mode": mode, "confidence": round(p, 3)} for mode, p in choice.alternatives]
        print(
            json.dumps(
                {
                    "mode": choice.mode,
                    "confidence": round(choice.confidence, 3),
                    "tier": choice.tier,
                    "alternatives": others,
                }
            )
        )
        return 0
    print(f"{choice.mode}  {choice.confidence:.2f}  by {choice.tier}")
    if choice.alternatives:
        print("also: " + ", ".join(f"{mode} {p:.2f}" for mode, p in choice.alternatives))
    return 0


def _piped() -> str:
    """No more of it than is looked at."""
    if sys.stdin is None or sys.stdin.isatty():
        raise CommandError("classify needs a prompt")
    return sys.stdin.read(MAX_QUESTION_CHARS)


async def _choice(
    settings: Settings, text: str, media: list[str], *, has_tools: bool
) -> ModeChoice:
    modes = build_modes(settings, ())
    embedder = new_embedder(_tell)
    classifier = new_classifier(settings, modes, embedder)
    question = ModeQuestion(text, frozenset(modes.by_id), frozenset(media), has_tools)
    try:
        choice = await classifier.classify(question)
        if settings.classifier.embedding and choice.tier != "rules":
            await embedder.glimpse(text, MODEL_S)
            choice = await classifier.classify(question)
        return choice
    finally:
        await embedder.close()


def _tell(reason: str) -> None:
    print(f"trunkline: the model can't be used: {visible(reason)}", file=sys.stderr)
