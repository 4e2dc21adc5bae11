"""The part of the composition root that the cache of answers needs: where answers are kept, and who compares them."""

import hashlib
import random
from collections.abc import Callable

import msgspec

from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.app_accounts import now_us
from trunkline_server.app_state import State
from trunkline_server.cache.answers import Answers, CacheRules
from trunkline_server.cache.database import DatabaseShelf
from trunkline_server.config import Settings
from trunkline_server.core.cache import CacheMeter, Shelf
from trunkline_server.embedding.minilm import MiniLM
from trunkline_server.embedding.unknown import Unknown
from trunkline_server.storage.redis_answers import RedisAnswers


def new_cache(
    settings: Settings,
    state: State,
    redis_url: str,
    embedder: MiniLM | Unknown,
    meter: CacheMeter,
    language_of: Callable[[CompletionSpec], str] | None = None,
) -> Answers:
    """The cache. Without a database that lasts, and without Redis, it goes with the process and opens nothing."""
    cache = settings.cache
    shelf: Shelf | None = None
    if cache.exact and redis_url:
        shelf = RedisAnswers(redis_url)
    elif cache.exact and state.is_lasting:
        shelf = DatabaseShelf(state.storage, cache.max_entries)
    semantic = None
    if cache.exact and cache.semantic != "off" and isinstance(embedder, MiniLM):
        # It needs numpy, which comes with the model.
        from trunkline_server.cache.semantic import Semantic

        semantic = Semantic(
            embedder=embedder,
            similarity=embedder,
            storage=state.storage if state.is_lasting else None,
            mode=cache.semantic,
            least=cache.similarity,
            max_false=cache.max_false_hits,
            random=random.random,
            now_us=now_us,
            meter=meter,
        )
    rules = CacheRules(
        exact=cache.exact,
        shared=cache.shared,
        max_entries=cache.max_entries,
        max_entry_bytes=cache.max_entry_bytes,
        keep_s=cache.keep_s,
        policy=_policy(settings),
    )
    return Answers(
        rules, shelf=shelf, semantic=semantic, now_us=now_us, meter=meter, language_of=language_of
    )


def _policy(settings: Settings) -> str:
    """Another word wherever the configuration may have another answer."""
    shaping = (
        settings.providers,
        settings.models,
        settings.routes,
        settings.routing,
        settings.modes,
        settings.local,
        settings.tools,
    )
    return hashlib.sha256(msgspec.json.encode(shaping)).hexdigest()[:16]
