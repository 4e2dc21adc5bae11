"""Skills of a folder: what is read of it, and what is not, wherever it leads."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from trunkline.v1.completion_spec_pb2 import BuiltinSource, RegisteredSource, Tool
from trunkline_server.core.skill import Skill
from trunkline_server.skills import folder
from trunkline_server.skills.folder import BUNDLED, UnusableSkills, load
from trunkline_server.tools.egress import Egress
from trunkline_server.tools.registry import RegisteredTool, ToolRegistry

TEXT = "---\nname: {}\ndescription: Does it.\nmetadata: {{{}}}\n---\nDo it.\n"


def make(root: Path, name: str, metadata: str = "", *files: str) -> Path:
    """A skill with these files beside it, each with its own name in it."""
    path = root / name
    path.mkdir(parents=True)
    (path / "SKILL.md").write_text(TEXT.format(name, metadata))
    for file in files:
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_text(f"This is {file}.")
    return path


def problems(root: Path) -> Sequence[str]:
    """What is wrong with a folder, its own name left out."""
    with pytest.raises(UnusableSkills) as refused:
        load(root, None)
    return [problem.replace(f"{root}/", "") for problem in refused.value.problems]


def registry() -> ToolRegistry:
    """With the tool `lookup`."""
    tools = [RegisteredTool("lookup", builtin="calculator")]
    return ToolRegistry(tools, [], {}, Egress([]), now=lambda: 0.0)


def test_a_folder_of_skills_is_read_by_name(tmp_path):
    make(tmp_path, "b", "version: '1.0', category: code, intensity: 2, models: m")
    make(tmp_path, "a")
    (tmp_path / "README.md").write_text("No skill.")
    (tmp_path / ".git").mkdir()

    first, second = load(tmp_path, None)

    assert first.skill == Skill("a", "A", "Does it.", first.skill.version, "", "Do it.")
    assert second.skill == Skill(
        slug="b",
        name="B",
        description="Does it.",
        version=second.skill.version,
        category="code",
        instructions="Do it.",
        models=("m",),
        intensity=2,
    )
    assert len(first.skill.version) == 12
    assert second.skill.version.startswith("1.0+")


def test_whatever_changes_in_a_skill_changes_its_version(tmp_path):
    path = make(tmp_path, "a", "version: '1.0'", "x.md")
    seen = {load(tmp_path, None)[0].skill.version}

    for change in (
        lambda: (path / "x.md").write_text("More."),
        lambda: (path / "x.md").rename(path / "y.md"),
        lambda: (path / "SKILL.md").write_text(TEXT.format("a", "version: '1.0'") + "Again."),
    ):
        change()
        seen.add(load(tmp_path, None)[0].skill.version)

    assert len(seen) == 4


def test_texts_beside_a_skill_are_its_resources_and_nothing_else_is(tmp_path):
    path = make(tmp_path, "a", "", "z.md", "references/deep/one.txt", ".secret", "assets/logo.png")
    (path / "assets/logo.png").write_bytes(b"\x89PNG\xff")
    os.mkfifo(path / "pipe")

    (loaded,) = load(tmp_path, None)

    assert loaded.resources == {
        "references/deep/one.txt": "This is references/deep/one.txt.",
        "z.md": "This is z.md.",
    }
    assert loaded.skill.resources == ("references/deep/one.txt", "z.md")


def test_links_inside_a_skill_are_followed_as_a_mounted_volume_needs_it(tmp_path):
    path = tmp_path / "a"
    make(path, "..data", "", "x.md")
    (path / "..data" / "SKILL.md").write_text(TEXT.format("a", ""))
    for name in ("SKILL.md", "x.md"):
        (path / name).symlink_to(f"..data/{name}")
    (path / "folder").symlink_to("..data", target_is_directory=True)

    (loaded,) = load(tmp_path, None)

    assert loaded.resources == {"x.md": "This is x.md."}


@pytest.mark.parametrize("target", ["../../secret.txt", "/etc/hostname", "../b/x.md", "../.."])
def test_a_link_that_leads_out_of_a_skill_is_refused(tmp_path, target):
    root = tmp_path / "skills"
    (tmp_path / "secret.txt").touch()
    make(root, "b", "", "x.md")
    (make(root, "a") / "link.md").symlink_to(target)

    assert problems(root) == ["a/SKILL.md: link.md: leads out of its folder"]


def test_a_link_to_itself_leads_nowhere(tmp_path):
    (make(tmp_path, "a") / "link.md").symlink_to("link.md")

    (loaded,) = load(tmp_path, None)

    assert loaded.resources == {}


def test_a_skill_or_its_file_elsewhere_is_refused(tmp_path):
    root, elsewhere = tmp_path / "skills", tmp_path / "elsewhere"
    make(elsewhere, "a")
    (root / "b").mkdir(parents=True)
    (root / "a").symlink_to(elsewhere / "a", target_is_directory=True)
    (root / "b" / "SKILL.md").symlink_to(elsewhere / "a" / "SKILL.md")

    assert problems(root) == [
        "a/SKILL.md: a: leads out of its folder",
        "b/SKILL.md: SKILL.md: leads out of its folder",
    ]


def test_all_problems_are_told_with_their_files(tmp_path):
    (tmp_path / "a").mkdir()
    make(tmp_path, "b", "version: [1]")
    (make(tmp_path, "c") / "SKILL.md").write_bytes(b"---\nname: \xff\n---\n")
    make(tmp_path, "d").rename(tmp_path / "e")
    make(tmp_path, "fine")

    assert problems(tmp_path) == [
        "a/SKILL.md: is not there",
        "b/SKILL.md: version: is no text",
        "c/SKILL.md: is not in UTF-8",
        "e/SKILL.md: name: is 'd', but its folder is called 'e'",
    ]


def test_sizes_and_counts_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "MAX_SKILLS", 5)
    (make(tmp_path, "a") / "SKILL.md").write_bytes(b"x" * (folder.MAX_FILE_BYTES + 1))
    (make(tmp_path, "b") / "x.md").write_bytes(b"x" * (folder.MAX_RESOURCE_BYTES + 1))
    make(tmp_path, "c", "", "1/2/3/4/5/x.md")
    make(tmp_path, "d", "", *(f"{n}.md" for n in range(folder.MAX_RESOURCES + 1)))
    path = make(tmp_path, "e")
    for n in range(5):
        (path / f"{n}.md").write_bytes(b"x" * folder.MAX_RESOURCE_BYTES)
    too_many = "more than 64 files, or 1048576 bytes, are beside it"

    assert problems(tmp_path) == [
        "a/SKILL.md: SKILL.md: is larger than 131072 bytes",
        "b/SKILL.md: x.md: is larger than 262144 bytes",
        "c/SKILL.md: 5: nests deeper than 4 folders",
        f"d/SKILL.md: {too_many}",
        f"e/SKILL.md: {too_many}",
    ]

    make(tmp_path, "f")

    with pytest.raises(UnusableSkills, match="has more than 5 skills"):
        load(tmp_path, None)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UnusableSkills) as refused:
        load(tmp_path / "skills", None)

    assert refused.value.problems == [f"{tmp_path}/skills: No such file or directory"]


async def test_tools_are_the_operators_or_builtins_and_others_are_refused(tmp_path):
    make(tmp_path, "a", "tools: lookup calculator")

    (loaded,) = load(tmp_path, registry())

    assert loaded.skill.tools == (
        Tool(name="lookup", registered=RegisteredSource()),
        Tool(name="calculator", builtin=BuiltinSource(name="calculator")),
    )

    make(tmp_path, "b", "tools: nothing")
    with pytest.raises(UnusableSkills) as refused:
        load(tmp_path, registry())

    problem = "metadata.tools: no tool is registered as 'nothing', and no builtin is it"
    assert refused.value.problems == [f"{tmp_path}/b/SKILL.md: {problem}"]


async def test_three_skills_ship_and_work_with_a_server_of_no_tools():
    tools = ToolRegistry([], [], {}, Egress([]), now=lambda: 0.0)

    shipped = {loaded.skill.slug: loaded for loaded in load(BUNDLED, tools)}

    assert list(shipped) == ["checked-arithmetic", "code-review", "meeting-minutes"]
    assert [t.name for t in shipped["checked-arithmetic"].skill.tools] == ["calculator"]
    review = shipped["code-review"]
    assert list(review.resources) == ["references/checklist.md"]
    assert "references/checklist.md" in review.skill.instructions
