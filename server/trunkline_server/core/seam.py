"""Joins a continuation to the text before it, so that nothing at the seam is doubled or lost.

A model that continues its own turn goes on where the text ends. It was shown the text without the white space at its
end (some providers refuse such a turn, and tokens rarely end in white space), so it may write that again: as much of it
as comes again is dropped.

A model that was told to continue may first repeat the end of what it was shown, or all of it. A repetition is the
longest beginning of the continuation that is also an end of the text; shorter than `MIN_REPEATED_CHARS` it is taken
for chance, as in "ha" after "ha". Nothing is passed on while the continuation may still turn out to repeat more.
"""

from typing import Final

MIN_REPEATED_CHARS: Final = 12
MAX_REPEATED_CHARS: Final = 4_000  # Looked back for; what is held back is bounded by it too.


def shown(text: str) -> str:
    """What the next candidate is shown of the text so far: all but the white space at its end."""
    return text.rstrip()


class Seam:
    """One seam. Feed it the continuation's text in order; it hands on what is new.

    Args:
        text: what the caller has.
        is_prefilled: the model continues its own turn; otherwise it was told to continue.
    """

    def __init__(self, text: str, *, is_prefilled: bool) -> None:
        visible = shown(text)
        self._space = text[len(visible) :]
        self._tail = "" if is_prefilled else visible[-MAX_REPEATED_CHARS:]
        self._is_all = len(visible) <= MAX_REPEATED_CHARS
        self._held = ""
        self.is_closed = not self._space and not self._tail

    def feed(self, text: str) -> str:
        """What of the next text is new; may be empty while it can't be known yet."""
        if self.is_closed:
            return text
        self._held += text
        if self._tail:
            if self._may_repeat_more(self._held.lstrip()):
                return ""
            self._drop_repetition()
        if len(self._held) < len(self._space) and self._space.startswith(self._held):
            return ""
        return self._close()

    def finish(self) -> str:
        """The continuation has ended: what was held back and is new."""
        if self.is_closed:
            return ""
        if self._tail:
            self._drop_repetition()
        return self._close()

    def _may_repeat_more(self, body: str) -> bool:
        """Does it stand in the end of the text, so that it may go on as that does?"""
        tail = self._tail
        if not body:
            return len(self._held) < MAX_REPEATED_CHARS
        return -1 < tail.find(body) < len(tail) - len(body)

    def _drop_repetition(self) -> None:
        body, tail = self._held.lstrip(), self._tail
        self._tail = ""
        for length in range(min(len(tail), len(body)), 0, -1):
            is_whole = self._is_all and length == len(tail)
            if length < MIN_REPEATED_CHARS and not is_whole:
                return
            if tail.endswith(body[:length]):
                self._held = body[length:]
                return

    def _close(self) -> str:
        """What was held back, without the white space that the text before ends with already."""
        held, space = self._held, self._space
        self._held, self.is_closed = "", True
        shared = 0
        while shared < min(len(space), len(held)) and space[shared] == held[shared]:
            shared += 1
        return held[shared:]
