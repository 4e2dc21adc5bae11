"""Files in an answer's text: blocks of code, and answers that are documents. The text stays the answer's text as it is.

Lines are read as Markdown has them: a block begins with three or more backticks or tildes, and ends with as many of the
same, or with the answer. A whole answer is a document when it is long and has headings.

Source: https://spec.commonmark.org/0.31.2/#fenced-code-blocks, #atx-headings. A fence may be indented by more than the
three spaces there, because models write code into list items.
"""

import re
from collections.abc import Callable
from typing import Final

from trunkline.v1.message_pb2 import Artifact

CODE: Final = "code"
DOCUMENT: Final = "document"
IMAGE: Final = "image"

MAX_ARTIFACTS: Final = 32
MAX_ARTIFACT_CHARS: Final = 256 * 1024  # A longer one is not made: half a file is of no use.
MAX_TOTAL_CHARS: Final = 1024 * 1024
MIN_DOCUMENT_CHARS: Final = 1_500
MIN_DOCUMENT_HEADINGS: Final = 2
MAX_TITLE_CHARS: Final = 80
MAX_LANGUAGE_CHARS: Final = 32
MAX_MARKUP_CHARS: Final = 512  # A longer line is neither a fence nor a heading.

_FENCE = re.compile(r"([ \t]{0,16})(`{3,}(?=[^`]*\Z)|~{3,})[ \t]*(.*)\Z")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(\S.*)")
_LANGUAGE = re.compile(r"[A-Za-z0-9_+#.-]+")
_NAMED = re.compile(r"""(?:title|file|filename|name)\s*=\s*(?:"([^"]+)"|'([^']+)'|([^\s}"']+))""")
_FILE_NAME = re.compile(r"(?:[\w@.-]+/){0,16}[\w@-][\w@.-]*\.[A-Za-z0-9]{1,10}\Z")
_COMMENT = re.compile(r"(?:#|//|--|;|%|/\*|<!--)+\s*(?:file(?:name)?:\s*)?(\S+)\s*(?:\*/|-->)?\Z")
_MIME_TYPES: Final = {
    "css": "text/css",
    "csv": "text/csv",
    "html": "text/html",
    "javascript": "text/javascript",
    "js": "text/javascript",
    "json": "application/json",
    "markdown": "text/markdown",
    "md": "text/markdown",
    "svg": "image/svg+xml",
    "xml": "application/xml",
}


class ArtifactScanner:
    """Of one answer. However its text is cut into pieces, the same artifacts come of it, in order.

    Args:
        kinds: those that are made: CODE, DOCUMENT.
        mint: gives the part of an id that differs.
    """

    def __init__(self, kinds: frozenset[str], mint: Callable[[], str]) -> None:
        self._makes_code = CODE in kinds
        self._mint = mint
        self._line = _Text()  # The last line, as far as it has come.
        self._block: _Block | None = None
        self._document = _Text() if DOCUMENT in kinds else None
        self._headings: list[str] = []
        self._made = 0
        self._made_chars = 0

    def feed(self, text: str) -> list[Artifact]:
        """More of the answer; returns what it has brought to an end."""
        if self._document is not None:
            self._document.add(text)
        *lines, rest = text.split("\n")
        made: list[Artifact] = []
        for line in lines:
            self._line.add(line)
            made += self._read(self._line)
            self._line = _Text()
        self._line.add(rest)
        return made

    def end(self) -> list[Artifact]:
        """The answer is over; returns what ends with it. Nothing may be fed after."""
        made = self._read(self._line)
        if self._block is not None:
            made += self._code(self._block)
            self._block = None
        document = self._document
        if (
            document is not None
            and document.chars >= MIN_DOCUMENT_CHARS
            and len(self._headings) >= MIN_DOCUMENT_HEADINGS
        ):
            title = self._headings[0]
            made += self._make(
                document, Artifact(type=DOCUMENT, title=title, mime_type="text/markdown")
            )
        return made

    def _read(self, line: "_Text") -> list[Artifact]:
        """One whole line."""
        text = line.value().removesuffix("\r")
        is_short = len(text) <= MAX_MARKUP_CHARS
        fence = _FENCE.match(text) if is_short else None
        block = self._block
        if block is not None:
            if fence is not None and block.ends_with(fence[2], fence[3]):
                self._block = None
                return self._code(block)
            block.add(text, line.is_whole)
        elif fence is not None:
            self._block = _Block(len(fence[1]), fence[2], fence[3].strip())
        elif is_short and len(self._headings) < MIN_DOCUMENT_HEADINGS:
            heading = _HEADING.match(text)
            if heading is not None and (title := heading[1].rstrip().rstrip("#")):
                self._headings.append(_cut(title))
        return []

    def _code(self, block: "_Block") -> list[Artifact]:
        if not self._makes_code:
            return []
        language = block.language
        mime_type = _MIME_TYPES.get(language.lower(), "text/plain")
        return self._make(
            block.text,
            Artifact(type=CODE, title=block.title, language=language, mime_type=mime_type),
        )

    def _make(self, text: "_Text", artifact: Artifact) -> list[Artifact]:
        """One artifact, or none where the text is empty, or more than is held."""
        value = text.value()
        chars = self._made_chars + len(value)
        if (
            not text.is_whole
            or not value.strip()
            or self._made == MAX_ARTIFACTS
            or chars > MAX_TOTAL_CHARS
        ):
            return []
        self._made += 1
        self._made_chars = chars
        artifact.id = f"art_{self._mint()}"
        artifact.text = value
        artifact.size_bytes = len(value.encode())
        return [artifact]


class _Text:
    """Pieces of text, as long as they are no more than an artifact may have."""

    __slots__ = ("_pieces", "chars", "is_whole")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.chars = 0
        self.is_whole = True

    def add(self, piece: str) -> None:
        self.chars += len(piece)
        if self.chars > MAX_ARTIFACT_CHARS:
            self.is_whole = False
            self._pieces.clear()
        elif piece:
            self._pieces.append(piece)

    def value(self) -> str:
        """Empty where it became too long."""
        return "".join(self._pieces)


class _Block:
    """A block of code that has begun.

    Args:
        indent: of its fence, in characters; its lines lose as much.
        info: what stands after the fence.
    """

    def __init__(self, indent: int, fence: str, info: str) -> None:
        self._indent = indent
        self._fence = fence
        language = _LANGUAGE.match(info)
        self.language = language[0][:MAX_LANGUAGE_CHARS] if language else ""
        self._rest = info[len(language[0]) if language else 0 :].lstrip(" \t:")
        self._first_line = ""
        self.text = _Text()

    def ends_with(self, fence: str, info: str) -> bool:
        return not info and fence.startswith(self._fence[0]) and len(fence) >= len(self._fence)

    def add(self, line: str, is_whole: bool) -> None:
        indent = len(line) - len(line.lstrip(" \t"))
        line = line[min(indent, self._indent) :]
        if not self._first_line:
            self._first_line = line.strip()[:MAX_MARKUP_CHARS]
        self.text.add(line + "\n")
        self.text.is_whole &= is_whole

    @property
    def title(self) -> str:
        """A file's name where one is given, else the first line that has anything."""
        named = _NAMED.search(self._rest)
        if named is not None:
            return _cut(named[1] or named[2] or named[3])
        word = self._rest.split(maxsplit=1)[0] if self._rest else ""
        if _FILE_NAME.match(word):
            return _cut(word)
        comment = _COMMENT.match(self._first_line)
        if comment is not None and _FILE_NAME.match(comment[1]):
            return _cut(comment[1])
        return _cut(self._first_line)


def _cut(title: str) -> str:
    title = title.strip()
    return title if len(title) <= MAX_TITLE_CHARS else title[: MAX_TITLE_CHARS - 1] + "…"
