"""Generates the Python of the contract from protos/, with type stubs.

    proto.py            replaces clients/python/trunkline/v1
    proto.py --check    only says whether that would change a file; exit code 1 when it would

The new code is made beside the old one and takes its place when it is complete: a run that fails
changes nothing.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = Path("trunkline/v1")
GENERATED = ROOT / "clients/python" / PACKAGE
# Each with its options; mypy's say otherwise what they write, as if it were an error.
GENERATORS = {"python": "", "grpc_python": "", "mypy": "quiet:", "mypy_grpc": "quiet:"}


def generate(folder: Path) -> None:
    """Write the whole package to a folder, the one hand-written file of it included."""
    # google/rpc/status.proto comes with the package that holds its Python. The plugins lie beside
    # the interpreter, where protoc looks for them only if that folder is on the PATH.
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"--proto_path={path}" for path in (PROTOS, sysconfig.get_path("purelib"))),
            *(f"--{name}_out={options}{folder}" for name, options in GENERATORS.items()),
            *(str(path.relative_to(PROTOS)) for path in sorted((PROTOS / PACKAGE).glob("*.proto"))),
        ],
        env={
            **os.environ,
            "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
        },
        check=True,
    )
    for proto in (PROTOS / PACKAGE).glob("*.proto"):
        if not any(line.startswith("service ") for line in proto.read_text().splitlines()):
            for generated in (folder / PACKAGE).glob(f"{proto.stem}_pb2_grpc.py*"):
                generated.unlink()
    shutil.copy2(GENERATED / "__init__.py", folder / PACKAGE)


def changes(new: Path) -> list[str]:
    """Names of the files that differ, are missing or are too many."""
    old_files, new_files = contents(GENERATED), contents(new)
    return sorted(
        name
        for name in old_files.keys() | new_files.keys()
        if old_files.get(name) != new_files.get(name)
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix=".proto-", dir=GENERATED.parent) as scratch:
        generate(Path(scratch))
        new = Path(scratch) / PACKAGE
        changed = changes(new)
        if sys.argv[1:] == ["--check"]:
            for name in changed:
                print(
                    f"{GENERATED.relative_to(ROOT) / name} is not what protos/ say: run make proto",
                    file=sys.stderr,
                )
            return 1 if changed else 0
        if changed:
            GENERATED.rename(Path(scratch) / "old")
            new.rename(GENERATED)
    print(f"{len(changed)} files changed in {GENERATED.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
