"""`trunkline.v1.CatalogService`: models, routes and skills."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from trunkline.v1.catalog_service_pb2 import (
    Availability,
    Capabilities,
    GetModelRequest,
    GetModelResponse,
    InstallSkillRequest,
    InstallSkillResponse,
    ListModelsRequest,
    ListModelsResponse,
    ListSkillsRequest,
    ListSkillsResponse,
    Model,
    ModelKind,
    UninstallSkillRequest,
    UninstallSkillResponse,
)
from trunkline.v1.catalog_service_pb2 import Skill as SkillMessage
from trunkline_server.completion.service import Completions
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import ModelNotFound
from trunkline_server.core.modes import Mode, Modes
from trunkline_server.core.panels import PanelRules
from trunkline_server.core.plans import Scope
from trunkline_server.core.skill import Skill
from trunkline_server.edges.grpc.call import Calls, Context, answer_unary
from trunkline_server.edges.grpc.pages import page_size_of, start_of


class NamedRoute(Protocol):
    """A route as the catalog lists it."""

    @property
    def id(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def panel(self) -> PanelRules | None: ...


class Models(Protocol):
    """What is listed."""

    candidates: tuple[Candidate, ...]

    @property
    def named_routes(self) -> Iterable[NamedRoute]: ...
    def deployments(self, name: str) -> tuple[Candidate, ...]: ...
    def nearest(self, name: str) -> str: ...


class Health(Protocol):
    """Whether a candidate may be asked now."""

    def allows(self, candidate: Candidate, now_s: float) -> bool: ...


class Skills(Protocol):
    """All skills, and who has installed which."""

    @property
    def skills(self) -> Sequence[Skill]: ...
    def installed(self, owner: str) -> Sequence[Skill]: ...
    async def install(self, owner: str, slug: str) -> Skill: ...
    async def uninstall(self, owner: str, slug: str) -> Skill: ...


class CatalogServicer:
    """Deployments that share an id are one model here; a pinned one is found as `provider/model`."""

    def __init__(
        self,
        models: Models,
        modes: Modes,
        health: Health,
        skills: Skills,
        completions: Completions,
        calls: Calls,
    ) -> None:
        self._models = models
        self._engines = [
            mode
            for mode in modes.by_id.values()
            if mode.engine and not models.deployments(mode.engine)
        ]
        self._health = health
        self._skills = skills
        self._completions = completions
        self._calls = calls

    async def ListModels(self, request: ListModelsRequest, context: Context) -> ListModelsResponse:
        """In the order of the configuration, then routes, and what modes are asked for by."""
        call = self._calls.read("ListModels", context)
        async with answer_unary(context, call):
            await self._completions.enter(call, Scope.COMPLETE)
            size = page_size_of(request.page_size)
            start = start_of(request.page_token)
            models = self._all()
            page = models[start : start + size]
            token = str(start + size) if start + size < len(models) else ""
            return ListModelsResponse(models=page, next_page_token=token)

    async def GetModel(self, request: GetModelRequest, context: Context) -> GetModelResponse:
        """By id, alias, `provider/model` or route."""
        call = self._calls.read("GetModel", context)
        async with answer_unary(context, call):
            await self._completions.enter(call, Scope.COMPLETE)
            name = request.model_id
            for route in self._models.named_routes:
                if route.id == name:
                    return GetModelResponse(model=_route(route))
            for mode in self._engines:
                if mode.engine == name:
                    return GetModelResponse(model=_engine(mode))
            deployments = self._models.deployments(name)
            if not deployments:
                nearest = self._models.nearest(name)
                raise ModelNotFound(f"no model is called {name[:128]!r}", nearest=nearest)
            return GetModelResponse(model=self._model(deployments))

    async def ListSkills(self, request: ListSkillsRequest, context: Context) -> ListSkillsResponse:
        """In the order of their slugs, those that ship first."""
        call = self._calls.read("ListSkills", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            size = page_size_of(request.page_size)
            start = start_of(request.page_token)
            skills = self._skills.skills
            installed = {skill.slug for skill in self._skills.installed(caller.owner)}
            page = [_skill(s, s.slug in installed) for s in skills[start : start + size]]
            token = str(start + size) if start + size < len(skills) else ""
            return ListSkillsResponse(skills=page, next_page_token=token)

    async def InstallSkill(
        self, request: InstallSkillRequest, context: Context
    ) -> InstallSkillResponse:
        """For the caller's organisation; again is the same as once."""
        call = self._calls.read("InstallSkill", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            skill = await self._skills.install(caller.owner, request.slug)
            return InstallSkillResponse(skill=_skill(skill, True))

    async def UninstallSkill(
        self, request: UninstallSkillRequest, context: Context
    ) -> UninstallSkillResponse:
        """One that is not installed is not found."""
        call = self._calls.read("UninstallSkill", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            skill = await self._skills.uninstall(caller.owner, request.slug)
            return UninstallSkillResponse(skill=_skill(skill, False))

    def _all(self) -> list[Model]:
        by_id: dict[str, list[Candidate]] = {}
        for candidate in self._models.candidates:
            by_id.setdefault(candidate.id, []).append(candidate)
        models = [self._model(deployments) for deployments in by_id.values()]
        models += [_route(route) for route in self._models.named_routes]
        return models + [_engine(mode) for mode in self._engines]

    def _model(self, deployments: Sequence[Candidate]) -> Model:
        first = deployments[0]
        now_s = asyncio.get_running_loop().time()
        allowed = [self._health.allows(candidate, now_s) for candidate in deployments]
        if all(allowed):
            availability = Availability.AVAILABILITY_AVAILABLE
        elif any(allowed):
            availability = Availability.AVAILABILITY_DEGRADED
        else:
            availability = Availability.AVAILABILITY_UNAVAILABLE
        names = {capability.value for capability in first.capabilities}
        known = [field.name for field in Capabilities.DESCRIPTOR.fields]
        model = Model(
            id=first.id,
            provider=first.provider,
            kind=ModelKind.MODEL_KIND_MODEL,
            label=first.label,
            description=first.description,
            modes=first.modes,
            aliases=first.aliases,
            capabilities=Capabilities(**{name: name in names for name in known}),
            regions=first.regions,
            availability=availability,
        )
        for field, value in (
            ("context_window_tokens", first.context_window_tokens),
            ("max_output_tokens", first.max_output_tokens),
            ("input_price_nanos_per_million", first.price.input_nanos),
            ("output_price_nanos_per_million", first.price.output_nanos),
            ("cached_input_price_nanos_per_million", first.price.cached_input_nanos),
        ):
            if value is not None:
                setattr(model, field, value)
        return model


def _engine(mode: Mode) -> Model:
    return Model(
        id=mode.engine,
        kind=ModelKind.MODEL_KIND_MODE,
        label=mode.label,
        description=mode.description,
        engine=mode.engine,
        modes=[mode.id],
        availability=Availability.AVAILABILITY_AVAILABLE,
    )


def _route(route: NamedRoute) -> Model:
    return Model(
        id=route.id,
        kind=ModelKind.MODEL_KIND_ROUTE if route.panel is None else ModelKind.MODEL_KIND_PANEL,
        label=route.label,
        description=route.description,
        availability=Availability.AVAILABILITY_AVAILABLE,
    )


def _skill(skill: Skill, is_installed: bool) -> SkillMessage:
    return SkillMessage(
        id=skill.slug,
        slug=skill.slug,
        name=skill.name,
        description=skill.description,
        category=skill.category,
        version=skill.version,
        installed=is_installed,
    )
