"""A component that an answer may use."""

from dataclasses import dataclass

from trunkline_server.genui.slots import Slot


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of a component's parameters. `type`: what it takes, as the library writes it."""

    name: str
    type: str
    slot: Slot
    is_required: bool


@dataclass(frozen=True, slots=True)
class Component:
    """Its parameters are given by their place."""

    name: str
    parameters: tuple[Parameter, ...]
    description: str = ""

    @property
    def signature(self) -> str:
        """Such as `Link(text: string, url: url, note?: string)`."""
        parameters = ", ".join(
            f"{p.name}{'' if p.is_required else '?'}: {p.type}" for p in self.parameters
        )
        return f"{self.name}({parameters})"
