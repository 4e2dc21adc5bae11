"""Theo's `/api/v1/skills` and `/api/v1/models`, over `trunkline.v1.CatalogService`."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from trunkline.v1.catalog_service_pb2 import (
    InstallSkillRequest,
    ListModelsRequest,
    ListSkillsRequest,
    Model,
    ModelKind,
    Skill,
    UninstallSkillRequest,
)
from trunkline.v1.catalog_service_pb2_grpc import CatalogServiceStub
from trunkline_server.edges.rest.body import invalid, read_body
from trunkline_server.edges.rest.http import Request
from trunkline_server.edges.rest.query import parameters
from trunkline_server.edges.rest.routes import Handler
from trunkline_server.edges.rest.theo_pages import all_of, called, id_in, respond
from trunkline_server.edges.rest.theo_request import MODES_BY_ENGINE

SKILLS: Final = "/api/v1/skills"
MODELS: Final = "/api/v1/models"
INSTALLED: Final = "installed"
FILTERS: Final = (INSTALLED, "marketplace")


class SkillIn(Struct, forbid_unknown_fields=True):
    """The body that names a skill. Its id is its slug."""

    skillId: str


_decode_skill = msgspec.json.Decoder(SkillIn).decode


class TheoSkills:
    """A part of `TheoShim`."""

    def __init__(self, channel: Any) -> None:
        self._catalog = CatalogServiceStub(channel)
        self.handlers: Mapping[tuple[str, str], Handler] = {
            ("GET", SKILLS): self._list,
            ("POST", SKILLS): self._install_named,
            ("DELETE", SKILLS): self._uninstall_named,
            ("POST", f"{SKILLS}/"): self._install_at,
            ("DELETE", f"{SKILLS}/"): self._uninstall_at,
            ("GET", MODELS): self._models,
        }

    async def _list(self, request: Request) -> None:
        wanted = parameters(request.query, ("filter",)).get("filter", "marketplace")
        if wanted not in FILTERS:
            raise invalid(f"must be one of {', '.join(FILTERS)}", "filter")
        skills, _, headers = await all_of(
            request, self._catalog.ListSkills, ListSkillsRequest(), "skills"
        )
        told = [skill_object(s) for s in skills if s.installed or wanted != INSTALLED]
        respond(request, {"skills": told}, headers)

    async def _install_named(self, request: Request) -> None:
        await self._install(request, read_body(_decode_skill, request.body).skillId)

    async def _install_at(self, request: Request) -> None:
        await self._install(request, id_in(request.path, f"{SKILLS}/"))

    async def _uninstall_named(self, request: Request) -> None:
        await self._uninstall(request, read_body(_decode_skill, request.body).skillId)

    async def _uninstall_at(self, request: Request) -> None:
        await self._uninstall(request, id_in(request.path, f"{SKILLS}/"))

    async def _install(self, request: Request, slug: str) -> None:
        asked = InstallSkillRequest(slug=slug)
        done, headers = await called(request, self._catalog.InstallSkill, asked)
        respond(request, {"installed": True, "skill": skill_object(done.skill)}, headers, 201)

    async def _uninstall(self, request: Request, slug: str) -> None:
        asked = UninstallSkillRequest(slug=slug)
        done, headers = await called(request, self._catalog.UninstallSkill, asked)
        respond(request, {"installed": False, "skill": skill_object(done.skill)}, headers)

    async def _models(self, request: Request) -> None:
        parameters(request.query, ())
        models, _, headers = await all_of(
            request, self._catalog.ListModels, ListModelsRequest(), "models"
        )
        respond(request, models_object(models), headers)


def skill_object(skill: Skill) -> dict[str, Any]:
    """A skill. All that a server has may be installed by everybody; who else has is nobody's business."""
    return {
        "id": skill.slug,
        "slug": skill.slug,
        "name": skill.name,
        "description": skill.description,
        "category": skill.category,
        "version": skill.version,
        "installed": skill.installed,
        "installCount": int(skill.installed),
        "isPublic": True,
    }


def models_object(models: Iterable[Model]) -> dict[str, Any]:
    """The engines, and in `data` the same as OpenAI's clients want it."""
    engines = [engine for model in models for engine in _engines(model)]
    return {
        "models": engines,
        "object": "list",
        "data": [
            {
                "id": engine["model_id"],
                "object": "model",
                "created": 0,
                "owned_by": "trunkline",
            }
            for engine in engines
        ],
    }


def _engines(model: Model) -> Iterable[dict[str, Any]]:
    """A mode is one; so is a model to which the operator gave the name of one."""
    if model.kind == ModelKind.MODEL_KIND_MODE:
        yield _engine(model, model.id, model.modes[0] if model.modes else model.id)
        return
    for name in (model.id, *model.aliases):
        if mode := MODES_BY_ENGINE.get(name):
            yield _engine(model, name, mode)


def _engine(model: Model, name: str, mode: str) -> dict[str, Any]:
    is_mode = model.kind == ModelKind.MODEL_KIND_MODE
    return {
        "mode": mode,
        "model_id": name,
        "label": model.label or name,
        "engine": (model.engine or name) if is_mode else f"{model.provider}/{model.id}",
        "description": model.description,
    }
