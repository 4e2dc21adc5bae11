"""What may be answered from the cache, and which answers may be kept.

An answer is only given again where the caller could not tell: where the same question has the same answer tomorrow, and
where a model that was asked again would hardly say anything else. Whatever is in doubt is asked anew.
"""

from typing import Final

from trunkline.v1.completion_pb2 import Completion, FinishReason
from trunkline.v1.completion_spec_pb2 import CacheMode, CompletionSpec
from trunkline.v1.message_pb2 import Message, Role
from trunkline_server.cache.time_words import SOON_OLD

MAX_SPEC_BYTES: Final = 256 * 1024  # A longer request is hardly ever the same as another.

BYPASS: Final = CacheMode.CACHE_MODE_BYPASS
ONLY_IF_CACHED: Final = CacheMode.CACHE_MODE_ONLY_IF_CACHED
UNSPECIFIED: Final = CacheMode.CACHE_MODE_UNSPECIFIED
_USER: Final = Role.ROLE_USER
_TEXT: Final = "text"


def may_ask(spec: CompletionSpec) -> bool:
    """Could a request, as its caller sent it, be answered from the cache? What its words say is not looked at.

    Without a policy only a temperature of 0 is a reason; any policy but BYPASS is one by itself, and covers tools.
    """
    mode = spec.cache.mode if spec.HasField("cache") else UNSPECIFIED
    if mode == UNSPECIFIED:
        if not spec.HasField("sampling"):
            return False
        sampling = spec.sampling
        if not sampling.HasField("temperature") or sampling.temperature != 0:
            return False
        if spec.HasField("tool_options") and spec.tool_options.tools:
            return False
    elif mode == BYPASS:
        return False
    elif mode == ONLY_IF_CACHED:
        return True  # Or it would be asked for, which is what its caller does not want.
    return _is_plain(spec)


def _is_plain(spec: CompletionSpec) -> bool:
    if spec.conversation_id:
        return False
    if spec.HasField("sampling"):
        sampling = spec.sampling
        if sampling.candidate_count > 1 or sampling.logprobs or sampling.top_logprobs:
            return False
    return all(modality == _TEXT for modality in spec.output_modalities)


def is_answerable(asked: CompletionSpec, spec: CompletionSpec) -> bool:
    """The same of everything that costs a look at the words: of text alone, not long, and not about the present.

    Args:
        asked: as the caller sent it.
        spec: as a model would get it.
    """
    if not _is_plain(asked) or not _is_plain(spec) or spec.ByteSize() > MAX_SPEC_BYTES:
        return False
    if spec.tool_options.tools and not asked.cache.mode:  # Those of a mode or of a skill.
        return False
    if (
        not spec.messages
        or spec.messages[-1].role != _USER
        or not all(map(_is_text, spec.messages))
    ):
        return False
    said = [m for m in spec.messages if m.role == _USER]
    return not any(is_soon_old(part.text) for message in said for part in message.parts)


def is_soon_old(text: str) -> bool:
    """Does it ask for something that is another one tomorrow?"""
    return SOON_OLD.search(text) is not None


def _is_text(message: Message) -> bool:
    return all(
        part.WhichOneof("content") == _TEXT and not part.HasField("provider_state")
        for part in message.parts
    )


def may_keep(completion: Completion) -> bool:
    """Is it a whole answer, of text alone, in which nothing was done that would have to be done again?"""
    if len(completion.choices) != 1 or completion.server_tool_calls or completion.transcript:
        return False
    choice = completion.choices[0]
    if choice.finish_reason != FinishReason.FINISH_REASON_STOP or completion.panel.degraded:
        return False
    kinds = {part.WhichOneof("content") for part in choice.message.parts}
    return kinds <= {_TEXT, "reasoning"} and bool(text_of(completion).strip())


def text_of(completion: Completion) -> str:
    """All text of the first choice."""
    parts = completion.choices[0].message.parts if completion.choices else ()
    return "".join(part.text for part in parts)


# They belong to the request that was answered, and are no other caller's business.
_OF_ONE_REQUEST: Final = (
    "id",
    "request_id",
    "attempts",
    "cache",
    "conversation_id",
    "metadata_json",
    "timing",
)


def shared_part(completion: Completion) -> Completion:
    """What of an answer may be given to somebody else."""
    kept = Completion()
    kept.CopyFrom(completion)
    for name in _OF_ONE_REQUEST:
        kept.ClearField(name)
    return kept
