"""`trunkline.v1.CatalogService`: models and routes."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from trunkline.v1.catalog_service_pb2 import (
    Availability,
    Capabilities,
    GetModelRequest,
    GetModelResponse,
    ListModelsRequest,
    ListModelsResponse,
    Model,
    ModelKind,
)
from trunkline_server.completion.service import Completions
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import ModelNotFound
from trunkline_server.core.panels import PanelRules
from trunkline_server.core.plans import Scope
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


class CatalogServicer:
    """Deployments that share an id are one model here; a pinned one is found as `provider/model`."""

    def __init__(
        self, models: Models, health: Health, completions: Completions, calls: Calls
    ) -> None:
        self._models = models
        self._health = health
        self._completions = completions
        self._calls = calls

    async def ListModels(self, request: ListModelsRequest, context: Context) -> ListModelsResponse:
        """In the order of the configuration, routes last."""
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
            deployments = self._models.deployments(name)
            if not deployments:
                nearest = self._models.nearest(name)
                raise ModelNotFound(f"no model is called {name[:128]!r}", nearest=nearest)
            return GetModelResponse(model=self._model(deployments))

    def _all(self) -> list[Model]:
        by_id: dict[str, list[Candidate]] = {}
        for candidate in self._models.candidates:
            by_id.setdefault(candidate.id, []).append(candidate)
        models = [self._model(deployments) for deployments in by_id.values()]
        return models + [_route(route) for route in self._models.named_routes]

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


def _route(route: NamedRoute) -> Model:
    return Model(
        id=route.id,
        kind=ModelKind.MODEL_KIND_ROUTE if route.panel is None else ModelKind.MODEL_KIND_PANEL,
        label=route.label,
        description=route.description,
        availability=Availability.AVAILABILITY_AVAILABLE,
    )
