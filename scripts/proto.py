"""Generates the code of the contract from protos/, for each client that keeps its generated code.

    proto.py            replaces it
    proto.py --check    only says whether that would change a file; exit code 1 when it would

Java makes its own whenever it is built. A language whose tools are missing is named and left out, but not on CI.

The new code is made beside the old one and takes its place when it is complete: a run that fails changes nothing.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = Path("trunkline/v1")
TYPESCRIPT = ROOT / "clients/typescript"
GO = ROOT / "clients/go"
GO_PLUGINS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
)
GO_MODULE = "github.com/trunkline/trunkline/clients/go"


@dataclass(frozen=True)
class Target:
    """A folder of generated code, with who writes it into an empty one."""

    folder: Path
    generate: Callable[[Path], None]
    tools: Sequence[str] = ()

    @property
    def missing_tools(self) -> list[str]:
        return [tool for tool in self.tools if shutil.which(tool) is None]

    def changes(self, new: Path) -> list[str]:
        """Names of the files that differ, are missing or are too many."""
        old_files, new_files = contents(self.folder), contents(new)
        return sorted(
            str(self.folder.relative_to(ROOT) / name)
            for name in old_files.keys() | new_files.keys()
            if old_files.get(name) != new_files.get(name)
        )


def protoc(*arguments: str, more: Sequence[str] = ()) -> None:
    """Runs it on the whole contract, and on `more`."""
    # google/rpc/status.proto comes with the package that holds its Python. Some plugins lie beside
    # the interpreter, where protoc looks for them only if that folder is on the PATH.
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"--proto_path={path}" for path in (PROTOS, sysconfig.get_path("purelib"))),
            *arguments,
            *(str(path.relative_to(PROTOS)) for path in sorted((PROTOS / PACKAGE).glob("*.proto"))),
            *more,
        ],
        env={
            **os.environ,
            "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
        },
        check=True,
    )


def generate_python(folder: Path) -> None:
    """The package, with type stubs, and the one hand-written file of it."""
    # mypy's plugins say otherwise what they write, as if it were an error.
    generators = {"python": "", "grpc_python": "", "mypy": "quiet:", "mypy_grpc": "quiet:"}
    with tempfile.TemporaryDirectory(dir=folder) as whole:
        protoc(*(f"--{name}_out={options}{whole}" for name, options in generators.items()))
        made = Path(whole) / PACKAGE
        for proto in (PROTOS / PACKAGE).glob("*.proto"):
            if not any(line.startswith("service ") for line in proto.read_text().splitlines()):
                for generated in made.glob(f"{proto.stem}_pb2_grpc.py*"):
                    generated.unlink()
        shutil.copytree(made, folder, dirs_exist_ok=True)
    shutil.copy2(PYTHON.folder / "__init__.py", folder)


def generate_go(folder: Path) -> None:
    """The package, with the plugins that its module names."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        subprocess.run(["go", "build", "-o", f"{scratch}/", *GO_PLUGINS], cwd=GO, check=True)
        plugins = {plugin.rpartition("-gen-")[2]: Path(plugin).name for plugin in GO_PLUGINS}
        protoc(
            *(f"--plugin={name}={scratch}/{name}" for name in plugins.values()),
            *(f"--{name}_out={scratch}" for name in plugins),
            *(f"--{name}_opt=module={GO_MODULE}" for name in plugins),
        )
        shutil.copytree(Path(scratch) / PACKAGE, folder, dirs_exist_ok=True)


def generate_typescript(folder: Path) -> None:
    """The contract and what it imports, with the options that lie beside the client."""
    options = (TYPESCRIPT / "proto-options.txt").read_text().strip()
    protoc(
        f"--plugin={TYPESCRIPT}/node_modules/.bin/protoc-gen-ts_proto",
        f"--ts_proto_out={folder}",
        f"--ts_proto_opt={options}",
        more=["google/rpc/error_details.proto"],
    )


PYTHON = Target(ROOT / "clients/python" / PACKAGE, generate_python)
TARGETS = (
    PYTHON,
    Target(GO / PACKAGE, generate_go, ("go",)),
    Target(TYPESCRIPT / "src/v1", generate_typescript, ("node", "npm")),
)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def update(target: Target, *, is_check: bool) -> list[str]:
    """Generates one of them; the files that changed, or would."""
    with tempfile.TemporaryDirectory(prefix=".proto-", dir=target.folder.parent) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        target.generate(new)
        changed = target.changes(new)
        if changed and not is_check:
            target.folder.rename(Path(scratch) / "old")
            new.rename(target.folder)
    return changed


def main() -> int:
    is_check = sys.argv[1:] == ["--check"]
    changed: list[str] = []
    for target in TARGETS:
        if target.missing_tools:
            missing = f"{', '.join(target.missing_tools)} not found: {target.folder.relative_to(ROOT)} is left as it is"
            print(missing, file=sys.stderr)
            if os.environ.get("CI"):
                return 1
            continue
        changed += update(target, is_check=is_check)
    if is_check:
        for name in changed:
            print(f"{name} is not what protos/ say: run make proto", file=sys.stderr)
        return 1 if changed else 0
    print(f"{len(changed)} generated files changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
