"""Requests that say by themselves what kind of work they are: no guess is needed.

A rule speaks only where it is nearly always right, and says nothing otherwise. Modes that cost money need words that
ask for their product at the beginning, and none that takes them back: a docker image is no picture, and whoever asks
how to draw wants words. Roast and genui are never guessed, so their rules are all there is of them.

Every pattern takes linear time, because what may be repeated in it is bounded.
"""

import re
from dataclasses import dataclass
from typing import Final

from trunkline_server.core.modes import FAST, ModeQuestion

OPENING_CHARS: Final = 320  # Where people say what they want, before what they want it done to.
CLOSING_CHARS: Final = 160
MIN_CODE_LINES: Final = 2


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a rule says, and how sure that is: code and image as measured on prompts of others, the rest estimated."""

    mode: str
    confidence: float


ROAST: Final = Ruling("roast", 0.97)
GENUI: Final = Ruling("genui", 0.95)
RESEARCH: Final = Ruling("research", 0.9)
VIDEO: Final = Ruling("video", 0.9)
IMAGE: Final = Ruling("image", 0.95)
CODE: Final = Ruling("code", 0.97)
THINK: Final = Ruling("think", 0.9)
MEDIA: Final = Ruling(FAST, 0.9)

# "Please could you", "I'd like you to", "hey, now".
ASKING: Final = (
    r"\A\W{0,8}(?:(?:hi|hey|hello|please|pls|now|ok|okay|so|then|and|next)\b[\s,.!]{1,4}){0,3}"
    r"(?:(?:can|could|would|will) (?:you|u) |i(?:'d| would)? (?:like|want|need) (?:you )?to |help me (?:to )?|let's )?"
    r"(?:please )?"
)
MAKE: Final = r"(?:create|make|generate|design|produce|render|build|do|give|show|get) (?:me |us )?"
SOME: Final = r"(?:an?|the|one|two|three|four|some|several|my|our|\d{1,2}|another|this)"
FEW_WORDS: Final = r"(?:[\w'\u2019-]{1,24},? ){0,6}?"


def _asks(*patterns: str) -> re.Pattern[str]:
    return re.compile(f"{ASKING}(?:{'|'.join(patterns)})", re.IGNORECASE)


def _words(*words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)


PICTURE: Final = (
    r"(?:image|picture|photo|photograph|illustration|drawing|painting|logo|icon|poster|wallpaper|portrait|sketch|cartoon"
    r"|sticker|watercolou?r|avatar|album cover|book cover|mural|pixel art|concept art|clip ?art)s?\b"
)
ASKS_PICTURE: Final = _asks(
    rf"(?:draw|paint|sketch|illustrate) (?:me |us )?{SOME} ",
    rf"{MAKE}(?:{SOME} )?{FEW_WORDS}{PICTURE}",
    rf"i (?:want|need|would like) (?:an?|some) {FEW_WORDS}{PICTURE} (?:of|with|showing|that shows)\b",
    r"/imagine\b",
)
NO_PICTURE: Final = _words(
    *(
        "html",
        "css",
        "python",
        "java",
        "javascript",
        "typescript",
        "react",
        "svg",
        "canvas",
        "docker",
        "dockerfile",
    ),
    *(
        "kubernetes",
        "iso",
        "disk",
        "function",
        "class",
        "code",
        "script",
        "sql",
        "regex",
        "latex",
        "tikz",
        "mermaid",
    ),
    *(
        "matplotlib",
        "plot",
        "graph",
        "chart",
        "diagram",
        "flowchart",
        "uml",
        "ascii",
        "table",
        "classifier",
        "api",
    ),
    *(
        "caption",
        "captions",
        "alt",
        "description",
        "descriptions",
        "describe",
        "prompt",
        "prompts",
        "upload",
        "button",
    ),
    *(
        "resize",
        "slider",
        "gallery",
        "idea",
        "ideas",
        "names?",
        "slogan",
        "slogans",
        "story",
        "poem",
        "essay",
        "list",
    ),
    *(
        "article",
        "post",
        "steps",
        "how",
        "why",
        "conclusions?",
        "comparison",
        "parallels?",
        "distinction",
        "line",
    ),
    *(
        "attention",
        "inspiration",
        "inference",
        "lesson",
        "situation",
        "economy",
        "market",
        "state",
        "trend",
        "up",
    ),
    *(
        "brief",
        "checklist",
        "strategy",
        "tips",
        "guide",
        "contract",
        "budget",
        "email",
        "letter",
        "plan",
        "analysis",
    ),
)
EDITS_PICTURE: Final = _asks(
    r"(?:remove|blur|replace|change|swap|erase) (?:the |its |my |this )?(?:[\w-]{1,20} )?background\b",
    r"(?:turn|convert|transform|make) "
    r"(?:this|it|me|him|her|us|(?:this|the|my) (?:photo|picture|image|dog|cat)) "
    r"(?:look )?(?:in)?(?:to|like)? ?(?:an? )?(?:[\w-]{1,20} )?(?:cartoon|painting|anime|sketch|watercolou?r|drawing)",
    r"(?:colou?rize|colou?rise|retouch|upscale|restore) (?:this|the|my|that|it)\b",
)
ASKS_CLIP: Final = _asks(
    rf"{MAKE}(?:{SOME} )?{FEW_WORDS}(?:video|video clip|clip|animation|time-?lapse|animated gif|short film)s?\b",
    rf"(?:animate|film) (?:{SOME}|this|it) ",
)
NO_CLIP: Final = _words(
    *(
        "script",
        "scripts",
        "outline",
        "title",
        "titles",
        "idea",
        "ideas",
        "description",
        "descriptions",
        "transcript",
    ),
    *(
        "essay",
        "storyboard",
        "css",
        "html",
        "javascript",
        "react",
        "python",
        "code",
        "function",
        "player",
        "app",
        "api",
    ),
    *(
        "thumbnail",
        "caption",
        "captions",
        "list",
        "plan",
        "summary",
        "game",
        "how",
        "prompt",
        "prompts",
        "strategy",
    ),
    *(
        "call",
        "conference",
        "brief",
        "concept",
        "channel",
        "course",
        "series",
        "blog",
        "campaign",
        "calendar",
        "paper",
    ),
)
ASKS_REPORT: Final = _asks(
    r"(?:do |run |start |conduct |perform |carry out )?(?:an? |some )?deep[ -]research\b",
    r"(?:conduct|do|perform|carry out|run) (?:an? |some )?(?:[\w-]{1,20} ){0,3}research (?:on|into|about|regarding)\b",
    r"(?:write|prepare|create|produce|compile|make|give me|generate) (?:me )?(?:an? )?(?:[\w-]{1,20},? ){0,4}"
    r"(?:research report|literature review|report with (?:sources|citations|references))\b",
    r"research (?:the |this )?(?:[^\n.?!]{3,120})(?:with|including|and (?:cite|list|give|include)) "
    r"(?:[\w-]{1,20} ){0,2}(?:sources|citations|references)\b",
)
NO_REPORT: Final = _words("outline", "template", "how", "title", "proposal", "email", "tips")
ASKS_ROAST: Final = re.compile(
    r"\broast (?:me|us|him|her|them|this|these|it|my|our|his|their)\b", re.IGNORECASE
)
NO_ROAST: Final = _words(
    *(
        "chicken",
        "turkey",
        "beef",
        "pork",
        "lamb",
        "duck",
        "goose",
        "ham",
        "fish",
        "meat",
        "potato(?:es)?",
        "nuts",
    ),
    *(
        "vegetables",
        "veggies",
        "coffee",
        "beans",
        "garlic",
        "peppers",
        "chestnuts",
        "pumpkin",
        "seeds",
        "oven",
        "recipe",
    ),
    *(
        "marshmallows?",
        "carrots",
        "degrees",
        "beets",
        "cauliflower",
        "squash",
        "almonds",
        "peanuts",
        "tomatoes",
    ),
)
INTERFACE: Final = (
    r"(?:ui|user interface|interface|dashboard|form(?! (?:letter|of)\b)|wizard|settings page|landing page|widget"
    r"|kanban board|control panel|component layout|onboarding screen|checkout page|login (?:page|screen)|data grid"
    r"|pricing (?:page|table|cards))\b"
)
ASKS_INTERFACE: Final = _asks(
    r"(?:build|create|make|design|generate|render|show|give|mock up|lay out) (?:me |us )?"
    rf"(?:{SOME} )?{FEW_WORDS}{INTERFACE}"
)
NO_INTERFACE: Final = _words(
    *(
        "react",
        "vue",
        "svelte",
        "angular",
        "html",
        "css",
        "javascript",
        "typescript",
        "jsx",
        "tsx",
        "tailwind",
        "flutter",
    ),
    *(
        "swift",
        "swiftui",
        "kotlin",
        "python",
        "django",
        "flask",
        "streamlit",
        "gradio",
        "tkinter",
        "qt",
        "java",
        "c#",
    ),
    *(
        "rust",
        "go",
        "php",
        "laravel",
        "rails",
        "wpf",
        "excel",
        "grafana",
        "tableau",
        "power ?bi",
        "looker",
        "bash",
    ),
    *(
        "command",
        "line",
        "cli",
        "terminal",
        "api",
        "how",
        "tips",
        "ideas",
        "checklist",
        "code",
        "function",
        "script",
    ),
    *("user flow", "image", "picture", "photo", "logo", "poster", "illustration"),
)

LANGUAGES: Final = (
    r"(?:python|javascript|typescript|java|c\+\+|c#|golang|rust|ruby|php|perl|kotlin|scala|haskell|lua|bash|shell"
    r"|powershell|sql|sqlite|postgres(?:ql)?|mysql|html|css|react|vba|matlab|verilog|assembly|awk|sed|jsx|graphql)"
)
PROGRAM: Final = (
    r"(?:function|method|class|script|program|regex|regular expression|query|unit tests?|test cases?|decorator|parser"
    r"|compiler|crawler|scraper|algorithm|api|endpoint|makefile|dockerfile|macro|shader|cron ?job|cli|bot|snippet|code)"
)
ASKS_PROGRAM: Final = _asks(
    rf"(?:write|implement|code|develop|program|create|build|generate|complete|give me|show me|add) (?:me )?{FEW_WORDS}"
    rf"{PROGRAM}s?\b[^\n]{{0,120}}(?:\b{LANGUAGES}(?!\w)|\b(?:returns?|inputs?|arguments?|parameters?|arrays?|strings?)\b)",
    rf"(?:write|implement|create|code) (?:me )?{FEW_WORDS}{LANGUAGES}(?!\w) {FEW_WORDS}{PROGRAM}s?\b",
    rf"(?:fix|debug|refactor|optimi[sz]e|review|port|rewrite) (?:me )?{FEW_WORDS}"
    rf"(?:{PROGRAM}|bug|bugs|loop|module|stack ?trace|memory leak|off-by-one|{LANGUAGES})s?(?!\w)",
    rf"(?:convert|translate|port) (?:this|the|my) {FEW_WORDS}(?:code|script|function|program|{LANGUAGES})(?!\w)",
)
NO_PROGRAM: Final = _words(
    "dress code", "postal code", "zip code", "discount codes?", "promo code", "class of", "morse"
)
FENCE: Final = re.compile(
    r"```(?:python|py|js|javascript|ts|typescript|tsx|jsx|java|c|cpp|c\+\+|csharp|cs|go|rust|rb|ruby|php|sql|bash|sh|shell"
    r"|html|css|json|yaml|toml|xml|diff|kotlin|swift|scala|r|lua|perl|powershell|dockerfile|makefile)\b",
    re.IGNORECASE,
)
TRACE: Final = re.compile(
    r"Traceback \(most recent call last\)|^\s{1,8}at [\w.$<>]{1,120}\(|^\s{2,8}File \"[^\"\n]{1,200}\", line \d"
    r"|\b(?:SyntaxError|TypeError|ValueError|KeyError|IndexError|AttributeError|ImportError|ModuleNotFoundError"
    r"|ReferenceError|NullPointerException|IndentationError|RuntimeError|NameError|ZeroDivisionError): "
    r"|\berror\[E\d{4}\]|\bsegmentation fault\b|^panic: |^npm ERR!|\bundefined reference to\b",
    re.MULTILINE | re.IGNORECASE,
)
CODE_LINE: Final = re.compile(
    r"^[ \t]{0,24}(?:def \w{1,60} ?\(|class \w{1,60} ?[(:{]|from [\w.]{1,60} import |import [\w.]{1,60};?$"
    r"|import [\w{},* ]{1,80} from |# ?include ?[<\"]|using [\w.]{1,60};|package [\w.]{1,60};?$"
    r"|(?:public|private|protected|static|async|export|func|fn|pub|impl|struct|const|let|var|int|void|auto|function) "
    r"[^.?!\n]{0,160}[=({;]|(?:if|for|while|switch|foreach|elif|catch) ?\([^\n]{0,160}\) ?[{;]?"
    r"|for \w{1,30} in [^\n]{1,80}:$|return [^\n]{0,160};$|(?:SELECT|select) [^\n]{1,200} (?:FROM|from) \w"
    r"|INSERT INTO |CREATE TABLE |UPDATE \w{1,60} SET |[\w.\[\]]{1,60} ?[-+*/]?= ?[^\n=]{1,160};$"
    r"|\} ?(?:else|catch|finally)?[ {;)]{0,4}$|console\.log\(|System\.out\.|printf ?\(|print\("
    r"|</?(?:div|span|p|html|body|head|script|table|ul|li|a|svg)\b[^>\n]{0,200}>|@\w{1,40}(?:\([^\n]{0,80}\))?$)",
    re.MULTILINE,
)
WHOLE_CODE: Final = re.compile(
    r"\A\s{0,8}(?:def \w{1,60} ?\([^\n]{0,200}\) ?(?:->[^\n]{1,60})?:|class \w{1,60} ?[({:]|from [\w.]{1,60} import \w"
    r"|import [\w.]{1,60}(?: as \w{1,20})?;?$|# ?include ?[<\"]"
    r"|(?:public|private|static|export|async) [^.?!\n]{1,120}[({=]|(?:const|let|var) \w{1,40} ?="
    r"|SELECT [^\n]{1,200} FROM |<(?:!DOCTYPE|html|div|svg)\b|#!/(?:usr/)?bin/|function \w{0,40} ?\()",
    re.MULTILINE,
)
CODE_MARKS: Final = frozenset("(){};=<`#")
STEPS: Final = re.compile(
    r"\b(?:think|reason|work)(?: (?:it|this|that|about it))?(?: (?:through|out))?,? step[- ]by[- ]step\b"
    r"|\bthink (?:very )?(?:carefully|hard|deeply) (?:about|before|and)\b|\Aprove (?:that|or disprove)\b"
    r"|\bshow your (?:work|reasoning)\b",
    re.IGNORECASE,
)


def ruling(question: ModeQuestion, text: str) -> Ruling | None:
    """What the request says by itself, or None.

    Args:
        text: the part of `question.text` that is read.
    """
    found = _ruling(question, text)
    return found if found is not None and found.mode in question.modes else None


def _ruling(question: ModeQuestion, text: str) -> Ruling | None:
    opening = text[:OPENING_CHARS]
    if ASKS_ROAST.search(opening) and not NO_ROAST.search(opening):
        return ROAST
    if _is_code(text):
        return CODE
    if not question.has_tools:
        product = _product(question, opening)
        if product is not None:
            return product
    if ASKS_PROGRAM.search(opening) and not NO_PROGRAM.search(opening):
        return CODE
    if STEPS.search(opening) or STEPS.search(text[-CLOSING_CHARS:]):
        return THINK
    if question.media and not text.strip():
        return MEDIA
    return None


def _product(question: ModeQuestion, opening: str) -> Ruling | None:
    """Something else than text is asked for. With tools at hand it is for them to make it."""
    if ASKS_REPORT.search(opening) and not NO_REPORT.search(opening):
        return RESEARCH
    if ASKS_CLIP.search(opening) and not NO_CLIP.search(opening):
        return VIDEO
    if "image" in question.media:
        return IMAGE if EDITS_PICTURE.search(opening) else None
    if ASKS_PICTURE.search(opening) and not NO_PICTURE.search(opening):
        return IMAGE
    if ASKS_INTERFACE.search(opening) and not NO_INTERFACE.search(opening):
        return GENUI
    return None


def _is_code(text: str) -> bool:
    if CODE_MARKS.isdisjoint(text):
        return bool(TRACE.search(text))
    if FENCE.search(text) or TRACE.search(text) or WHOLE_CODE.search(text):
        return True
    lines = CODE_LINE.finditer(text)
    return sum(1 for _, _ in zip(range(MIN_CODE_LINES), lines, strict=False)) == MIN_CODE_LINES
