"""The kind `research`: a report on a subject. Plan what to find out, find it out, see what is missing, and write.

Each round plans questions by one completion and answers each by another one, with the tools that the mode `research`
has. What tools returned addresses of are the sources; they are numbered, and the report refers to their numbers.
Everything a model says here is only text for the next prompt, so a model that plans badly makes a thin report and no
error.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from trunkline.v1.completion_pb2 import Completion, Usage
from trunkline.v1.completion_spec_pb2 import CompletionSpec, ToolChoiceMode
from trunkline.v1.job_service_pb2 import ResearchResult
from trunkline.v1.message_pb2 import Citation, Message, Part, Role
from trunkline_server.core.errors import InvalidRequest
from trunkline_server.jobs.runner import Work

MODE: Final = "research"
MAX_DEPTH: Final = 3
USUAL_DEPTH: Final = 1
MAX_SOURCES: Final = 50
USUAL_SOURCES: Final = 20
QUESTIONS: Final = 3  # Of one round.
MAX_QUESTION_CHARS: Final = 300
MAX_PLAN_CHARS: Final = 4_000
MAX_SUBJECT_CHARS: Final = 8_000
MAX_FINDING_CHARS: Final = 2_000  # Three of them and the report fit a model of 4,096 tokens.
MAX_URL_CHARS: Final = 1_000
MAX_TITLE_CHARS: Final = 200
MAX_RESULT_CHARS: Final = 256 * 1024  # Of a tool; what comes later in it is no source.
MAX_JSON_DEPTH: Final = 8
PLAN_TOKENS: Final = 256
FINDING_TOKENS: Final = 512
REPORT_TOKENS: Final = 1_536
SUBJECT: Final = "Subject of the research:"
PLAN: Final = (
    f"List at most {QUESTIONS} short questions whose answers a report on this subject needs."
    " One question in each line, and nothing else."
)
PLAN_MORE: Final = (
    f"This was found so far:\n\n{{findings}}\n\nList at most {QUESTIONS} short questions that are still open."
    " One question in each line, and nothing else. Where nothing is missing, write only: none"
)
FIND: Final = (
    "Answer this part of it, in a few sentences. Use the tools that you have, and name the address of what you rest"
    " a claim on. Say so where you don't know.\n\nQuestion: {question}"
)
REPORT: Final = (
    "Write the report in Markdown, with a heading and sections. Rest it on these findings alone.{cite}\n\n"
    "{findings}{sources}"
)
CITE: Final = " Refer to sources by their numbers, as in [1]."
NO_SOURCES: Final = (
    "*No sources: nothing was looked up, so all of this is what the model knew by itself.*"
)

_LINE: Final = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):]|Q\d{0,2}[.:])?\s*(.+?)\s*$")
_URL: Final = re.compile(r"https?://[^\s<>\"'`\\)\]}]+")


@dataclass(frozen=True, slots=True)
class Options:
    """What `mode_options_json` says. `depth`: rounds."""

    depth: int = USUAL_DEPTH
    max_sources: int = USUAL_SOURCES


def options_of(spec: CompletionSpec) -> Options:
    """Raises: InvalidRequest."""
    try:
        found = json.loads(spec.mode_options_json or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest("spec.mode_options_json", "is no JSON object")
    depth = _number(found, "depth", USUAL_DEPTH, MAX_DEPTH)
    return Options(depth, _number(found, "max_sources", USUAL_SOURCES, MAX_SOURCES))


def _number(options: dict[str, Any], name: str, usual: int, most: int) -> int:
    value = options.get(name, usual)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidRequest("spec.mode_options_json", f"{name} is 1 to {most}")
    return value


def check(spec: CompletionSpec) -> None:
    """Can this be researched? Raises: InvalidRequest."""
    if spec.mode not in ("", MODE):
        raise InvalidRequest("spec.mode", f"research has the mode {MODE!r}")
    if spec.conversation_id:
        raise InvalidRequest("spec.conversation_id", "research is part of no conversation")
    if not _subject(spec):
        raise InvalidRequest("spec.messages", "the last message must have text")
    options_of(spec)


async def research(work: Work) -> bytes:
    """A `ResearchResult`, serialised."""
    options = options_of(work.spec)
    notes = Notes(options.max_sources)
    for number in range(1, options.depth + 1):
        plan = await work.complete(f"plan-{number}", _plan(work.spec, notes))
        notes.count(plan)
        questions = questions_of(_text(plan))
        if not questions:
            if notes.findings:
                break
            questions = [_subject(work.spec)[:MAX_QUESTION_CHARS]]
        for index, question in enumerate(questions, start=1):
            before = (number - 1) * (QUESTIONS + 1)
            await work.advance(95 * (before + index) // (options.depth * (QUESTIONS + 1)))
            found = await work.complete(f"find-{number}-{index}", _find(work.spec, question))
            notes.add(question, found)
    await work.advance(95)
    report = await work.complete("report", _report(work.spec, notes))
    notes.count(report)
    result = ResearchResult(
        report=_finished(_text(report), notes.sources), sources=notes.sources, usage=notes.usage
    )
    return result.SerializeToString()


@dataclass
class Notes:
    """What was found so far. `findings`: questions with their answers, in order."""

    max_sources: int
    findings: list[tuple[str, str]] = field(default_factory=list)
    sources: list[Citation] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def add(self, question: str, found: Completion) -> None:
        """An answer, with what it rests on."""
        self.count(found)
        self.findings.append((question, _text(found)[:MAX_FINDING_CHARS]))
        known = {source.url for source in self.sources}
        for source in sources_of(found):
            if source.url not in known and len(self.sources) < self.max_sources:
                known.add(source.url)
                source.source_id = str(len(self.sources) + 1)
                self.sources.append(source)

    def count(self, completion: Completion) -> None:
        """Its usage is part of that of the whole."""
        one, total = completion.usage, self.usage
        for field_ in one.DESCRIPTOR.fields:
            if field_.name.endswith("_tokens"):
                setattr(total, field_.name, getattr(total, field_.name) + getattr(one, field_.name))
        total.estimated = total.estimated or one.estimated
        if one.HasField("cost"):
            total.cost.amount_nanos += one.cost.amount_nanos
            total.cost.currency_code = one.cost.currency_code
            total.cost.estimated = total.cost.estimated or one.cost.estimated

    @property
    def told(self) -> str:
        """The findings, for a prompt."""
        return "\n\n".join(f"### {question}\n\n{answer}" for question, answer in self.findings)


def questions_of(text: str) -> list[str]:
    """The lines of a plan, without what marks them as items of a list; at most so many as one round has."""
    found: list[str] = []
    for line in text[:MAX_PLAN_CHARS].splitlines():
        match = _LINE.match(line)
        question = match[1][:MAX_QUESTION_CHARS] if match else ""
        if len(question) < 3 or question.strip(" .*").lower() == "none" or question in found:
            continue
        found.append(question)
    return found[:QUESTIONS]


def sources_of(completion: Completion) -> list[Citation]:
    """What its tools returned, in order; then what its provider cites. An address may be there twice."""
    found: list[Citation] = []
    asked: dict[str, str] = {}  # Addresses that were fetched, by tool call.
    for message in completion.transcript:
        for part in message.parts:
            if part.HasField("tool_call"):
                asked[part.tool_call.id] = _asked_url(part.tool_call.arguments_json)
            elif part.HasField("tool_result") and not part.tool_result.is_error:
                url = asked.get(part.tool_result.tool_call_id, "")
                # A page that was fetched is one source, whatever it links to.
                found += [Citation(url=url)] if url else _listed(part.tool_result.parts)
    for choice in completion.choices:
        for part in choice.message.parts:
            found += [Citation(url=c.url, title=c.title) for c in part.citations if c.url]
    return found


def _asked_url(arguments_json: str) -> str:
    try:
        url = json.loads(arguments_json).get("url", "")
    except (ValueError, AttributeError, RecursionError):
        return ""
    match = _URL.fullmatch(url[:MAX_URL_CHARS]) if isinstance(url, str) else None
    return match[0] if match else ""


def _listed(parts: Sequence[Part]) -> list[Citation]:
    text = "\n".join(part.text for part in parts)[:MAX_RESULT_CHARS]
    try:
        entries = list(_entries(json.loads(text), MAX_JSON_DEPTH))
    except (ValueError, RecursionError):
        entries = []
    if entries:
        return entries
    urls = (url.rstrip(".,;:!?") for url in _URL.findall(text))
    return [Citation(url=url) for url in urls if len(url) <= MAX_URL_CHARS][:MAX_SOURCES]


def _entries(value: Any, depth: int) -> Iterator[Citation]:
    """Everything in a JSON value that has an address."""
    if depth == 0:
        return
    if isinstance(value, list):
        for each in value:
            yield from _entries(each, depth - 1)
    elif isinstance(value, dict):
        url = value.get("url") or value.get("link")
        if isinstance(url, str) and len(url) <= MAX_URL_CHARS and _URL.fullmatch(url):
            title = value.get("title")
            yield Citation(url=url, title=title[:MAX_TITLE_CHARS] if isinstance(title, str) else "")
        for each in value.values():
            if isinstance(each, list | dict):
                yield from _entries(each, depth - 1)


def _plan(spec: CompletionSpec, notes: Notes) -> CompletionSpec:
    told = PLAN_MORE.format(findings=notes.told) if notes.findings else PLAN
    return _asking(spec, told, PLAN_TOKENS, calls=False)


def _find(spec: CompletionSpec, question: str) -> CompletionSpec:
    return _asking(spec, FIND.format(question=question), FINDING_TOKENS, calls=True)


def _report(spec: CompletionSpec, notes: Notes) -> CompletionSpec:
    listed = "\n".join(f"[{s.source_id}] {s.title} {s.url}" for s in notes.sources)
    told = REPORT.format(
        cite=CITE if listed else "",
        findings=notes.told,
        sources=f"\n\nSources:\n{listed}" if listed else "",
    )
    tokens = REPORT_TOKENS
    if spec.sampling.HasField("max_output_tokens"):
        tokens = spec.sampling.max_output_tokens
    return _asking(spec, told, tokens, calls=False)


def _asking(spec: CompletionSpec, told: str, tokens: int, *, calls: bool) -> CompletionSpec:
    """The caller's request, about something else. `calls`: with the tools."""
    asked = CompletionSpec()
    asked.CopyFrom(spec)
    for name in ("messages", "response_format", "mode_options_json", "cache"):
        asked.ClearField(name)
    asked.mode = MODE
    text = f"{SUBJECT}\n{_subject(spec)}\n\n{told}"
    asked.messages.add(role=Role.ROLE_USER, parts=[Part(text=text)])
    asked.sampling.max_output_tokens = tokens
    asked.sampling.ClearField("candidate_count")
    asked.sampling.ClearField("stop")
    if not calls:
        asked.ClearField("tool_options")
        asked.tool_options.choice.mode = ToolChoiceMode.TOOL_CHOICE_MODE_NONE
    return asked


def _subject(spec: CompletionSpec) -> str:
    """What the last user message says."""
    for message in reversed(spec.messages):
        if message.role == Role.ROLE_USER:
            return _joined(message)[:MAX_SUBJECT_CHARS]
    return ""


def _joined(message: Message) -> str:
    return "\n".join(part.text for part in message.parts if part.HasField("text")).strip()


def _text(completion: Completion) -> str:
    return "\n".join(_joined(choice.message) for choice in completion.choices[:1])


def _finished(report: str, sources: Sequence[Citation]) -> str:
    """With its sources at the end, or with a word that there are none."""
    if not sources:
        return f"{report}\n\n{NO_SOURCES}\n"
    lines = [f"{s.source_id}. {f'{s.title}: ' if s.title else ''}<{s.url}>" for s in sources]
    return f"{report}\n\n## Sources\n\n" + "\n".join(lines) + "\n"
