"""One distribution: the client by itself, the service beside it with an extra."""

import email.message
import email.parser
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the base install brings: the dependencies in pyproject.toml, and theirs.
BASE_PACKAGES = ("google", "grpc", "typing_extensions.py")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("trunkline-*.whl")
    return wheel


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode())


def test_wheel_carries_both_packages_typed_and_the_licence(wheel):
    names = zipfile.ZipFile(wheel).namelist()

    assert {"trunkline/py.typed", "trunkline_server/py.typed"} <= set(names)
    assert {"trunkline/v1/message_pb2.py", "trunkline/v1/message_pb2.pyi"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"trunkline", "trunkline_server"}
    assert [name for name in names if name.endswith("/licenses/LICENSE")] != []


def test_wheel_carries_what_scoring_reads(wheel):
    names = zipfile.ZipFile(wheel).namelist()

    assert "trunkline_server/routing/starter_scores.json" in names
    assert "trunkline_server/routing/mode_weights.json" in names
    assert "trunkline_server/genui/libraries/basic.toml" in names
    assert "trunkline_server/skills/bundled/code-review/SKILL.md" in names
    assert "trunkline_server/skills/bundled/code-review/references/checklist.md" in names
    assert "trunkline_server/scoring/questions.json" in names
    assert "trunkline_server/scoring/panel_questions.jsonl" in names


def test_wheel_carries_the_vocabulary_of_the_embedding_model(wheel):
    assert "trunkline_server/embedding/vocabulary.txt" in zipfile.ZipFile(wheel).namelist()


def test_wheel_has_the_published_extras_and_no_others(metadata):
    extras = ["bedrock", "dev", "embeddings", "jobs", "local", "mcp", "server"]

    assert metadata.get_all("Provides-Extra") == extras
    assert metadata["Requires-Python"] == ">=3.11"


def test_command_without_the_server_extra_names_it(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    for package in BASE_PACKAGES:
        (tmp_path / package).symlink_to(Path(sysconfig.get_path("purelib")) / package)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
        "from trunkline.__main__ import main; sys.exit(main())"
    )

    done = subprocess.run([sys.executable, "-IS", "-c", program], capture_output=True, text=True)

    assert done.returncode == 2
    assert "trunkline[server]" in done.stderr
