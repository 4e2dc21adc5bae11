"""What is wrong with the description of a tool."""

from typing import Final

URL_PROBLEMS: Final = {
    "URL_INVALID": "must be an https URL on a usual port, without user or fragment",
    "ADDRESS_DENIED": "leads to an address that is not public",
}


class Problem(Exception):
    """A field that is wrong, by its path under the tool. Says nothing of what is in it."""

    def __init__(self, path: str, description: str) -> None:
        super().__init__(f"{path} {description}".strip())
        self.path = path
        self.description = description


def url_problem(path: str, reason: str) -> Problem:
    """Where the egress client would not go."""
    return Problem(path, URL_PROBLEMS.get(reason, "can't be used"))
