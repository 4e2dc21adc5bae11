"""One skill: instructions that a request can have added to it, with the tools and models that go with them."""

from dataclasses import dataclass

from trunkline.v1.completion_pb2 import SkillActivation
from trunkline.v1.completion_spec_pb2 import Tool


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill, as a folder in the Agent Skills format holds it.

    Attributes:
        version: of the file, and a digest: another one where anything in its folder has changed.
        instructions: for the model.
        tools: registered tools that it brings along, by name.
        models: who should answer with it, best first; empty: anybody.
        intensity: how strongly it marks the answer, where it says so.
        resources: names of texts beside the instructions, which a model may read.
    """

    slug: str
    name: str
    description: str
    version: str
    category: str
    instructions: str
    tools: tuple[Tool, ...] = ()
    models: tuple[str, ...] = ()
    intensity: int | None = None
    resources: tuple[str, ...] = ()


def activation(skill: Skill) -> SkillActivation:
    """As callers are told of it."""
    told = SkillActivation(id=skill.slug, slug=skill.slug, name=skill.name)
    if skill.intensity is not None:
        told.intensity = skill.intensity
    return told
