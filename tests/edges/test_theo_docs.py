"""docs/theo.md: its tables name a test for every line, and leave out no field and no event."""

import ast
import re
from pathlib import Path
from typing import Final

from trunkline_server.edges.rest.theo_fields import CODES
from trunkline_server.edges.rest.theo_jobs import ResearchIn, VideoIn
from trunkline_server.edges.rest.theo_request import MODES_BY_ENGINE, CompletionIn

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/theo.md").read_text()
TEST: Final = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
# Theo's page, as the tests of the events and objects have them.
ANSWER: Final = {
    "id", "object", "created", "content", "mode", "resolved_mode", "model", "tools_used", "artifacts", "follow_ups",
    "usage", "cost_cents", "prompt_tokens", "completion_tokens", "total_tokens", "metadata", "conversation_id",
    "request_id", "_cached", "usage.cached",
}  # fmt: skip
EVENTS: Final = {
    "thinking", "meta", "skills", "genui_meta", "tool", "artifact", "token", "done", "error",
}  # fmt: skip


def rows(heading: str) -> list[str]:
    """The lines of a section's table, without its head."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [line for line in section.split("\n") if line.startswith("|")][2:]


def words(lines: list[str]) -> set[str]:
    """All that is written as code in them."""
    return set(re.findall(r"`([^`]+)`", "\n".join(lines)))


def functions_of(path: Path) -> set[str]:
    """The names of a file's tests."""
    tree = ast.parse(path.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def test_every_line_names_a_test_that_there_is():
    lines = [line for line in PAGE.split("\n") if line.startswith("|") and "---" not in line]
    found = {
        path.name: functions_of(path)
        for folder in ("edges", "clients")
        for path in (ROOT / "tests" / folder).glob("test_theo*.py")
    }

    unshown = [line for line in lines if not TEST.search(line) and not line.endswith("| Test |")]
    unknown = [match for match in TEST.findall(PAGE) if match[1] not in found.get(match[0], ())]

    assert len(lines) > 80
    assert unshown == []
    assert unknown == []


def test_every_field_of_a_request_is_told():
    assert set(CompletionIn.__struct_fields__) - words(rows("What is read")) == set()


def test_every_field_of_an_answer_and_every_event_are_told():
    assert words(rows("An answer")) >= ANSWER
    assert words(rows("A stream")) >= EVENTS


def test_every_field_of_a_job_is_told():
    told = words(rows("Jobs"))

    assert set(ResearchIn.__struct_fields__) | set(VideoIn.__struct_fields__) <= told


def test_every_code_is_told():
    codes = {line.split("|")[1].strip() for line in rows("An error")}

    assert codes >= {*CODES.values(), "missing_prompt", "queue_unavailable"}


def test_every_engine_is_told():
    (row,) = [line for line in rows("In OpenAI's format") if line.startswith("| `model`")]

    assert [name for name in MODES_BY_ENGINE if name.removeprefix("theo-1") not in row] == []
