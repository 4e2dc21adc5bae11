"""Keeps the version of everything that is published the same: pyproject.toml says it, the clients repeat it.

version.py          fails where one of them says another
version.py 1.2.3    writes it everywhere
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Where it stands: the first match in each file, and in package-lock.json, which says it twice, the first two.
PLACES = {
    "pyproject.toml": (r'^version = "(.*)"$', 1),
    "clients/typescript/package.json": (r'^  "version": "(.*)",$', 1),
    "clients/typescript/package-lock.json": (r'^ {2,6}"version": "(.*)",$', 2),
    "clients/go/trunkline/version.go": (r'^const Version = "(.*)"$', 1),
    "clients/java/pom.xml": (r"^  <version>(.*)</version>$", 1),
}
VERSION = re.compile(r"\d+\.\d+\.\d+(-(alpha|beta|rc)\.\d+)?")


def found(name: str) -> list[re.Match[str]]:
    """Where a file says its version.

    Raises:
        ValueError: it does not.
    """
    pattern, count = PLACES[name]
    matches = list(re.finditer(pattern, (ROOT / name).read_text(), re.MULTILINE))[:count]
    if len(matches) < count:
        raise ValueError(f"{name} says no version")
    return matches


def write(name: str, version: str) -> None:
    text = (ROOT / name).read_text()
    for match in reversed(found(name)):
        text = text[: match.start(1)] + version + text[match.end(1) :]
    (ROOT / name).write_text(text)


def main() -> int:
    if sys.argv[1:]:
        version = sys.argv[1]
        if not VERSION.fullmatch(version):
            print(f"{version} is no version, as 1.2.3 or 1.2.3-rc.1", file=sys.stderr)
            return 2
        for name in PLACES:
            write(name, version)
        return 0
    version = found("pyproject.toml")[0][1]
    others = [name for name in PLACES if any(match[1] != version for match in found(name))]
    for name in others:
        print(f"{name} has another version than {version}: run make version VERSION={version}")
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
