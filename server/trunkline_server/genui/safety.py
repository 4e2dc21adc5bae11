"""What a component may be given where it makes more of text than text: addresses, images, Markdown.

What is safe is listed; what is not is not guessed at. An address has a scheme that runs nothing, or none; Markdown has
no HTML but bare tags that only set type, and its links have such addresses.
"""

import re
from typing import Final

MAX_URL_CHARS: Final = 8_000

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ufeff]")
_CONTROL_BUT_SPACE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_ABSOLUTE: Final = re.compile(
    r"(?:https?://[^\s/?#\\]+(?:[/?#].*)?|(?:mailto|tel):.+)\Z", re.IGNORECASE
)
# What stands before the first slash has no colon, nor what could turn out to be one.
_RELATIVE: Final = re.compile(r"[A-Za-z0-9._~-]*(?:[/?#].*)?\Z", re.ASCII)
_WITHOUT_SCHEME: Final = re.compile(r"[^:&\\/?#]*(?:[/?#]|\Z)")
_IMAGE: Final = re.compile(r"data:image/(?:png|jpeg|gif|webp|avif);base64,[A-Za-z0-9+/]+=*\Z")

_TAG: Final = re.compile(r"<(?=[A-Za-z/!?])([^<>]{0,2000}>?)")
_BARE_TAG: Final = re.compile(r"/?([A-Za-z][A-Za-z0-9.]*)[ ]?/?>\Z", re.ASCII)
_SETS_TYPE: Final = re.compile(
    r"(b|br|code|dd|del|dl|dt|em|hr|i|ins|kbd|li|mark|ol|p|pre|q|s|small|strong|sub|sup|table|tbody|td|th|thead|tr|u|ul)\Z",
    re.IGNORECASE,
)
# In a quotation, a line that an address stands on begins with the marks of that.
_LINK: Final = re.compile(r"\](?:\([\s>]*|:[ \t]*(?:(?:\r\n?|\n)[ \t>]*)?)(<?\s*[^\s)]*)")
_SCRIPT: Final = re.compile(r"(?:javascript|vbscript|data(?!:image/(?!svg))):", re.IGNORECASE)
_NOT_IN_SCHEME: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028-\u202e\ufeff]+")
_SCHEME_CHARS: Final = 64
_HANDLER: Final = re.compile(
    r"on(?:[A-Z]\w*|(?:abort|after|animation|aux|before|blur|cancel|can|change|click|close|context|copy|cue|cut|dbl"
    r"|drag|drop|duration|emptied|end|error|focus|form|fullscreen|got|hash|input|invalid|key|language|load|lost"
    r"|message|mouse|page|paste|pause|play|pointer|popstate|progress|rate|rejection|reset|resize"
    r"|scroll|search|security|seek|select|show|slot|stalled|start|storage|submit|suspend|time|toggle|touch"
    r"|transition|unhandled|unload|volume|waiting|webkit|wheel)\w*)\Z"
)
_UNSAFE_KEYS: Final = frozenset(
    [
        "__proto__",
        "constructor",
        "dangerouslysetinnerhtml",
        "innerhtml",
        "outerhtml",
        "prototype",
        "srcdoc",
    ]
)


def is_safe_url(text: str) -> bool:
    """May whoever clicks on it be sent there?"""
    text = text.strip()
    if not text or len(text) > MAX_URL_CHARS or _CONTROL.search(text):
        return False
    return bool(_ABSOLUTE.match(text) or _RELATIVE.match(text))


def is_safe_image(text: str) -> bool:
    """May it be shown as an image?"""
    return bool(_IMAGE.match(text)) or (
        is_safe_url(text) and not text.lower().startswith(("mailto:", "tel:"))
    )


def is_safe_markdown(text: str) -> bool:
    """Does it stay text when it is shown as Markdown, even where HTML in it is HTML?"""
    if _CONTROL_BUT_SPACE.search(text):
        return False
    for tag in _TAG.finditer(text):
        inside = tag[1]
        bare = _BARE_TAG.match(inside)
        if bare is not None and _SETS_TYPE.match(bare[1]):
            continue
        if not (inside.endswith(">") and inside.lower().startswith(("http://", "https://"))):
            return False
        if not is_safe_url(inside[:-1]) or re.search(r"\s", inside):
            return False
    addresses = (link[1].strip("<> \t\r\n") for link in _LINK.finditer(text))
    return all(_WITHOUT_SCHEME.match(address) or is_safe_url(address) for address in addresses)


def is_safe_anywhere(text: str) -> bool:
    """Is it neither a script's address nor HTML that could run one? For text of which nobody knows what is made."""
    start = _NOT_IN_SCHEME.sub("", text[: 4 * _SCHEME_CHARS])[:_SCHEME_CHARS]
    return not _SCRIPT.match(start) and is_safe_markdown(text)


def is_safe_key(key: str) -> bool:
    """Is it no name under which a browser, or a language, keeps what it runs?"""
    return not _HANDLER.match(key) and key.lower() not in _UNSAFE_KEYS
