"""Where an answer belongs.

A *section* is everything that shapes an answer but the last question: whose it is, the model or route, parameters,
system prompt, earlier turns, tools, skills, mode, language, and the version of these rules. All of it is hashed, so
nothing is ever found from another section. What a request has beside that (its metadata, labels, session) shapes
nothing. It is left out by name, so that a field that is added to the contract makes a section of its own at first.
"""

import hashlib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message
from trunkline_server.core.cache import CacheSubject

RULES: Final = "1"  # Another one whenever what is hashed, or what may be kept, changes.

_SHAPES_NOTHING: Final = ("cache", "metadata_json", "labels", "session_id")
# Signs whose compatible form says something else: x\u00b2 is not x2, and \u00bd is not 1/2.
_OTHER_SENSE: Final = ("<super>", "<sub>", "<fraction>", "<font>", "<circle>", "<square>")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answer to one question belongs.

    Attributes:
        section: SHA-256; see above.
        question: the text of the last message, folded.
        key: SHA-256 of both.
    """

    owner: str
    section: bytes
    question: str
    key: bytes


def place_of(
    subject: CacheSubject,
    *,
    shared: bool,
    policy: str,
    language_of: Callable[[CompletionSpec], str] | None = None,
) -> Place:
    """The place of a request that has messages, of text alone.

    Args:
        shared: by all users of the owner.
        policy: names everything of the server that shapes answers: its configuration, the embedding model.
        language_of: of the question, where the request does not say.
    """
    spec = CompletionSpec()
    spec.CopyFrom(subject.spec)
    asked = CompletionSpec()
    asked.CopyFrom(subject.asked)
    del asked.messages[:]
    for each in (spec, asked):
        for name in _SHAPES_NOTHING:
            each.ClearField(name)
        if shared:
            each.ClearField("end_user_id")
    question = folded_text(spec.messages.pop())
    for message in spec.messages:
        for part in message.parts:
            part.text = folded(part.text)
    language = subject.spec.intent.language
    if not language and language_of is not None:
        language = language_of(subject.spec)
    skills = sorted(subject.skills.items())
    digest = hashlib.sha256()
    for word in (
        *(RULES, policy, subject.owner, subject.mode, language, str(len(skills))),
        *(named for skill in skills for named in skill),
    ):
        _add(digest, word.encode("utf-8", "surrogatepass"))
    _add(digest, asked.SerializeToString(deterministic=True))
    _add(digest, spec.SerializeToString(deterministic=True))
    section = digest.digest()
    key = hashlib.sha256(section + question.encode("utf-8", "surrogatepass")).digest()
    return Place(subject.owner, section, question, key)


def folded_text(message: Message) -> str:
    """All its text. Where one part ends and another begins is kept."""
    return "\0".join(folded(part.text) for part in message.parts)


def folded(text: str) -> str:
    """The same for what only looks different: NFKC, but where that would say something else."""
    text = text.strip()
    if text.isascii():
        return text.replace("\r\n", "\n")
    form = "NFC" if any(map(_has_other_sense, set(text))) else "NFKC"
    return unicodedata.normalize(form, text).replace("\r\n", "\n")  # type: ignore[arg-type]


def _has_other_sense(char: str) -> bool:
    return unicodedata.decomposition(char).startswith(_OTHER_SENSE)


def _add(digest: "hashlib._Hash", part: bytes) -> None:
    """With its length, so that no two parts ever look like two others."""
    digest.update(len(part).to_bytes(8, "big"))
    digest.update(part)
