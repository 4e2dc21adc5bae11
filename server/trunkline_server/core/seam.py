"""Joins a continuation to the text before it, so that nothing at the seam is doubled or lost.

A model that continues its own turn goes on where the text ends. It was shown the text without the white space at its
end (some providers refuse such a turn, and tokens rarely end in white space), so it may write that again: as much of it
as comes again is dropped, as it comes.

A model that was told to continue may first repeat the end of what it was shown, or all of it, with or without the white
space before that. A repetition is the longest beginning of the continuation that is also an end of the text's last
`MAX_REPEATED_CHARS`, or all of a text of any length; shorter than `MIN_REPEATED_CHARS`, white space that is the same
included, only all of a text is not taken for chance, as "ha" after "ha" would be.

Nothing is passed on while the continuation may still turn out to repeat more, and what is held back then is a part of
the text itself: two numbers tell which, however long it is. What proves to be no repetition is passed on whole, however
late, for what is doubled can be skipped and what is lost can't be read. Beside the text all that is ever kept is white
space, `MAX_SPACE_CHARS` at most: more of it is no beginning of a repetition, and passes.
"""

from typing import Final

MIN_REPEATED_CHARS: Final = 12
MAX_REPEATED_CHARS: Final = 4_000  # Looked back for, unless all of the text is repeated.
MAX_SPACE_CHARS: Final = 100  # Held back before a repetition, besides what the text ends with.


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
        self._space_again = 0  # Characters of it that came again.
        self._held_space = ""
        self._repetition = None if is_prefilled or not visible else _Repetition(visible)
        self.is_closed = not self._space and self._repetition is None

    def feed(self, text: str) -> str:
        """What of the next text is new; may be empty while it can't be known yet."""
        if self.is_closed:
            return text
        if self._repetition is not None:
            text = self._unrepeated(text, self._repetition)
            if self._repetition is not None:
                return ""
        text = self._without_space(text)
        self.is_closed = bool(text) or self._space_again == len(self._space)
        return text

    def finish(self) -> str:
        """The continuation has ended: what was held back and is new."""
        if self.is_closed:
            return ""
        text = "" if self._repetition is None else self._settle(self._repetition, "")
        self.is_closed = True
        return self._without_space(text)

    def _without_space(self, text: str) -> str:
        """What follows in it after the white space that the text before ends with already."""
        space, at = self._space, self._space_again
        if space.startswith(text, at):
            self._space_again += len(text)
            return ""
        again = _common(text, space[at : at + len(text)])
        self._space_again += again
        return text[again:]

    def _unrepeated(self, text: str, repetition: "_Repetition") -> str:
        """Nothing while more may be repeated; then all that was held back, without the repetition."""
        if not repetition.has_begun:
            if not self._held_space:
                text = self._without_space(text)
            body = text.lstrip()
            self._held_space += text[: len(text) - len(body)]
            if len(self._held_space) > MAX_SPACE_CHARS:
                self._repetition = None
                return self._held_space + body
            if not body:
                return ""
            text = body
        if repetition.goes_on(text):
            return ""
        return self._settle(repetition, text)

    def _settle(self, repetition: "_Repetition", text: str) -> str:
        """All that was held back and this text, without what of it is a repetition after all."""
        self._repetition = None
        text = repetition.so_far + text
        repeated = repetition.length(text, self._space[: self._space_again] + self._held_space)
        if not repeated:
            return self._held_space + text
        self._space_again = 0  # It may come once more, behind the repetition.
        return text[repeated:]


class _Repetition:
    """The beginning of a continuation for as long as it stands in the text, which is all that it is kept in.

    Args:
        text: what was shown: without white space at its end, and not empty.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._begin = len(text) - len(text.lstrip())
        self._at = self._begin
        self._length = 0

    @property
    def has_begun(self) -> bool:
        """Has anything but white space come?"""
        return self._length > 0

    @property
    def so_far(self) -> str:
        """The continuation up to now, without the white space before it."""
        return self._text[self._at : self._at + self._length]

    def goes_on(self, more: str) -> bool:
        """Takes more of the continuation, if it stands in the text with that as well, and something follows there."""
        at, text = self._at, self._text
        if not text.startswith(more, at + self._length):
            # Where it stood first with less it does not stand with more, nor does it anywhere before.
            at = text.find(self.so_far + more, max(at + 1, len(text) - MAX_REPEATED_CHARS))
        if at < 0 or at + self._length + len(more) == len(text):
            return False
        self._at = at
        self._length += len(more)
        return True

    def length(self, body: str, space: str) -> int:
        """Characters at the beginning of the body that the text ends with; 0 when that is chance.

        Args:
            body: the continuation without the white space at its beginning.
            space: that white space.
        """
        text, whole = self._text, len(self._text) - self._begin
        if len(body) >= whole and text.endswith(body[:whole]):
            return whole
        for length in range(min(len(body), MAX_REPEATED_CHARS), 0, -1):
            missing = max(0, MIN_REPEATED_CHARS - length)
            again = space[max(0, len(space) - missing) :] + body[:length]
            if len(again) >= MIN_REPEATED_CHARS and text.endswith(again):
                return length
        return 0


def _common(first: str, second: str) -> int:
    """Characters with which both begin."""
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length
