"""What is made of an answer's text while it passes: a checked user interface, and artifacts."""

from collections.abc import Callable, Sequence
from typing import Final

from trunkline.v1.completion_event_pb2 import CompleteResponse, TextDelta
from trunkline.v1.completion_pb2 import CompletionWarning
from trunkline.v1.message_pb2 import Artifact
from trunkline_server.completion.attempts import Batch
from trunkline_server.core.artifacts import ArtifactScanner
from trunkline_server.core.genui import Checker, ComponentLibrary

FIRST: Final = 0  # Of several choices, only the first is looked at.


class Shape:
    """Of one answer.

    Args:
        library: its components are all that the answer may consist of; None: the text stays as it is.
        kinds: of artifacts that are made of the text.
        mint_id: makes their ids.
    """

    def __init__(
        self, library: ComponentLibrary | None, kinds: frozenset[str], mint_id: Callable[[], str]
    ) -> None:
        self._library = library
        self._kinds = kinds
        self._mint_id = mint_id
        self._checker: Checker | None = None
        self._scanner: ArtifactScanner | None = None
        self._part_index = 0
        self._has_text = False
        self.begin()

    @property
    def warnings(self) -> Sequence[CompletionWarning]:
        """What was left out, and why."""
        return () if self._checker is None else self._checker.warnings

    def begin(self) -> None:
        """An answer begins, perhaps once more."""
        self._checker = None if self._library is None else self._library.checker()
        self._scanner = ArtifactScanner(self._kinds, self._mint_id) if self._kinds else None
        self._part_index = 0
        self._has_text = False

    def end_line(self) -> Batch:
        """A further turn of the answer begins: its first line does not go on where the last turn stopped.

        It is still one answer: what was said before stands, and is what the rest is checked against.
        """
        return self._text(self._delta("\n"), is_shown=False) if self._has_text else []

    def shaped(self, batch: Batch) -> Batch:
        """The events of a batch as the caller gets them."""
        passed: Batch = []
        for event in batch:
            kind = event.WhichOneof("event")
            if kind == "text_delta" and event.text_delta.choice_index == FIRST:
                self._part_index = event.text_delta.part_index
                passed += self._text(event)
            elif kind == "choice_finished" and event.choice_finished.choice_index == FIRST:
                passed += self._end()
                passed.append(event)
            else:
                if kind == "stream_reset":
                    self.begin()
                passed.append(event)
        return passed

    def _text(self, event: CompleteResponse, *, is_shown: bool = True) -> Batch:
        text = event.text_delta.text
        self._has_text = True
        if self._checker is not None:
            text = self._checker.feed(text)
            if not text:
                return []
            event, is_shown = self._delta(text), True
        shown = [event] if is_shown else []
        if self._scanner is None:
            return shown
        return [*shown, *map(_told, self._scanner.feed(text))]

    def _end(self) -> Batch:
        ended: Batch = []
        text = "" if self._checker is None else self._checker.end()
        if text:
            ended.append(self._delta(text))
        if self._scanner is not None:
            ended += map(_told, self._scanner.feed(text))
            ended += map(_told, self._scanner.end())
        return ended

    def _delta(self, text: str) -> CompleteResponse:
        return CompleteResponse(text_delta=TextDelta(part_index=self._part_index, text=text))


def _told(artifact: Artifact) -> CompleteResponse:
    return CompleteResponse(artifact=artifact)
