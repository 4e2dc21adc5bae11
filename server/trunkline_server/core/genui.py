"""User interfaces written by models: what the use case needs of a component library and of its checker."""

from collections.abc import Sequence
from typing import Protocol

from trunkline.v1.completion_pb2 import CompletionWarning


class Checker(Protocol):
    """Checks one answer while it comes. What it passes on is valid, line by line."""

    def feed(self, text: str) -> str:
        """More of the answer; returns what may be passed on now."""
        ...

    def end(self) -> str:
        """The answer is over; returns the rest that may be passed on."""
        ...

    @property
    def warnings(self) -> Sequence[CompletionWarning]:
        """What was dropped, and why."""
        ...


class ComponentLibrary(Protocol):
    """Components that an answer may use."""

    @property
    def id(self) -> str: ...

    @property
    def prompt(self) -> str:
        """Tells a model of the language and of the components."""
        ...

    @property
    def grammar(self) -> str:
        """Holds the embedded model to the language, in its engine's own form; empty: nothing does."""
        ...

    @property
    def tools(self) -> Sequence[str]:
        """Names of tools that its components may call."""
        ...

    def checker(self) -> Checker:
        """For one answer."""
        ...


class ComponentLibraries(Protocol):
    """All libraries of a server."""

    def find(self, library_id: str) -> ComponentLibrary:
        """By id; the default one for an empty id.

        Raises:
            InvalidRequest: naming `spec.component_library`.
        """
        ...
