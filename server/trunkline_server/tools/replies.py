"""What a tool's reply, or the lack of one, amounts to for the model."""

from dataclasses import replace
from email.message import Message
from typing import Final

from trunkline_server.core.tools import ToolOutcome
from trunkline_server.tools.egress import EgressError, EgressResponse

MAX_RESULT_CHARS: Final = 1024 * 1024
MAX_REPLY_BYTES: Final = 1024 * 1024
# Every byte is a character of one of these, so that a wrong label costs letters and never the answer.
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "windows-1252"})
_BINARY: Final = ("image/", "audio/", "video/", "font/", "application/octet-stream")


def failed(text: str, *, is_unknown: bool = False) -> ToolOutcome:
    """The outcome of a call that did not work."""
    return ToolOutcome(text, is_error=True, is_unknown=is_unknown)


def outcome_of_error(error: EgressError, subject: str = "the tool") -> ToolOutcome:
    """The outcome where no whole reply came. Says no more of the reason than its word."""
    if not error.was_sent:
        return failed(f"{subject} could not be reached ({error.reason})")
    return failed(
        f"the answer of {subject} was lost ({error.reason}); the call may have had its effect",
        is_unknown=True,
    )


def outcome_of_response(response: EgressResponse, subject: str = "the tool") -> ToolOutcome:
    """A 2xx is the result as it stands; of anything else the status alone is told, never the body."""
    if 300 <= response.status < 400:
        return failed(
            f"{subject} answered with a redirect ({response.status}), which is not followed"
        )
    if not 200 <= response.status < 300:
        return failed(f"{subject} answered with status {response.status}")
    kind, charset = _content_type(response)
    if kind.startswith(_BINARY):
        return failed(f"{subject} answered with {kind[:64]}, which is no text")
    return ToolOutcome(response.body.decode(charset, errors="replace"))


def cut(outcome: ToolOutcome) -> ToolOutcome:
    """The outcome with as much of its text as is kept."""
    if len(outcome.text) <= MAX_RESULT_CHARS:
        return outcome
    note = f"\n[cut: the result has {len(outcome.text)} characters, {MAX_RESULT_CHARS} are kept]"
    return replace(outcome, text=outcome.text[:MAX_RESULT_CHARS] + note)


def _content_type(response: EgressResponse) -> tuple[str, str]:
    """The media type in lower case, and a character set that Python can decode."""
    header = Message()
    header["content-type"] = response.headers.get("content-type", "text/plain")
    charset = (header.get_content_charset() or "utf-8").lower()
    return header.get_content_type(), charset if charset in _CHARSETS else "utf-8"
