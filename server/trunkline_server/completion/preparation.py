"""Between the door and the choice of a candidate: what a request means by its mode, persona, skills and conversation.

Out comes the spec as models get it. Most requests ask for nothing of this and never come here (`is_needed`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from trunkline.v1.completion_pb2 import (
    Completion,
    CompletionWarning,
    GenuiMeta,
    Route,
    RouteReason,
)
from trunkline.v1.completion_spec_pb2 import (
    CacheMode,
    CompletionSpec,
    RegisteredSource,
    Tool,
    UnsupportedPolicy,
)
from trunkline.v1.message_pb2 import Message, Role
from trunkline_server.completion.shaping import Shape
from trunkline_server.core.cache import AnswerCache, CacheSubject
from trunkline_server.core.candidate import Capability
from trunkline_server.core.conversations import Conversations, Turn
from trunkline_server.core.errors import (
    InvalidRequest,
    ModeRequiresJob,
    NotCached,
    RequestError,
    RouteNotAllowed,
    StorageUnavailable,
)
from trunkline_server.core.genui import ComponentLibraries, ComponentLibrary
from trunkline_server.core.history import whole
from trunkline_server.core.loop_budget import LoopBudget
from trunkline_server.core.modes import (
    AUTO,
    FAST,
    MAX_QUESTION_CHARS,
    MODE_ROUTE,
    PROMOTE_AT,
    Classifier,
    Mode,
    ModeChoice,
    ModeQuestion,
    Modes,
)
from trunkline_server.core.personas import system_prompt
from trunkline_server.core.plans import Caller
from trunkline_server.core.ports import Router
from trunkline_server.core.skill import Skill
from trunkline_server.core.skills import Skills
from trunkline_server.core.tools import ServerTool
from trunkline_server.core.usage import CHARS_PER_TOKEN
from trunkline_server.core.validation import check_spec
from trunkline_server.core.window import fitted

GENUI: Final = "genui"
EMBEDDED: Final = "local"  # The provider of the embedded model.
NO_KINDS: Final[frozenset[str]] = frozenset()
NO_PERSONA: Final = "none"
IMAGE: Final = "image"
ANSWER_TOKENS: Final = (
    1_024  # Of a context window, left for the answer to a conversation that would fill it.
)
ANSWER_SHARE: Final = 0.25
REJECT: Final = UnsupportedPolicy.UNSUPPORTED_POLICY_REJECT
ONLY_IF_CACHED: Final = CacheMode.CACHE_MODE_ONLY_IF_CACHED
_MEDIA: Final = frozenset({"image", "audio", "document", "video"})
# They are of one request: the next turn brings its own.
_INSTRUCTIONS: Final = frozenset({Role.ROLE_SYSTEM, Role.ROLE_DEVELOPER})


@dataclass(slots=True)
class Prepared:
    """A request as it is understood.

    Attributes:
        spec: as models get it.
        unasked: fields of it that were filled in here. Nobody is told when a candidate can't honour them.
        said: the caller's own messages of this turn.
        turn: the conversation that it belongs to, held. Whoever has a `Prepared` releases it.
        subject: what the cache is asked about; None: it is not.
    """

    spec: CompletionSpec
    unasked: frozenset[str] = frozenset()
    requested_mode: str = ""
    mode: Mode | None = None
    choice: ModeChoice | None = None
    is_promoted: bool = False
    by_skill: bool = False
    skills: tuple[Skill, ...] = ()
    chooser: ServerTool | None = None
    library: ComponentLibrary | None = None
    said: Sequence[Message] = ()
    turn: Turn | None = None
    subject: CacheSubject | None = None
    warnings: list[CompletionWarning] = field(default_factory=list)

    @property
    def conversation_id(self) -> str:
        """Empty where there is none."""
        return "" if self.turn is None else self.turn.conversation_id

    @property
    def budget(self) -> LoopBudget:
        """Of the agent loop."""
        mode = self.mode
        if mode is None:
            return LoopBudget()
        return LoopBudget(mode.max_tokens, mode.max_cost_nanos, mode.max_s)

    @property
    def genui(self) -> GenuiMeta | None:
        """What the caller is told of the component library."""
        if self.library is None:
            return None
        return GenuiMeta(library=self.library.id, tools=self.library.tools)

    def shape(self, mint_id: Callable[[], str]) -> Shape | None:
        """What is made of the answer's text; None: nothing."""
        kinds = NO_KINDS if self.mode is None else self.mode.artifacts
        if self.library is None and not kinds:
            return None
        return Shape(self.library, kinds, mint_id)

    async def remember(self, completion: Completion) -> None:
        """Add this turn to its conversation. Where that fails, the answer says so: it was given, and paid for.

        Args:
            completion: with its messages.
        """
        if self.turn is None:
            return
        messages = [m for m in self.said if m.role not in _INSTRUCTIONS]
        messages += completion.transcript
        messages += [choice.message for choice in completion.choices[:1]]
        problem = ""
        try:
            await self.turn.store(messages, completion.id)
        except StorageUnavailable:
            problem = "the database can't be reached"
        except RequestError as error:
            problem = error.message
        if problem:
            completion.warnings.add(
                code="CONVERSATION_NOT_STORED", field="spec.conversation_id", message=problem
            )

    def release(self) -> None:
        """Let the next turn of the conversation in."""
        if self.turn is not None:
            self.turn.release()

    def fill(self, completion: Completion) -> None:
        """Write into a finished answer what the request was given."""
        completion.conversation_id = self.conversation_id
        completion.warnings.extend(self.warnings)
        if (genui := self.genui) is not None:
            completion.genui.CopyFrom(genui)

    def mark(self, route: Route) -> None:
        """Write into a route how it came about."""
        mode = self.mode
        if mode is not None:
            route.mode = self.requested_mode
            route.resolved_mode = mode.id
            route.engine = mode.engine
        if self.choice is not None:
            route.confidence = self.choice.confidence
            route.promoted = self.is_promoted
        if route.reason not in _BY_EVENTS:
            if self.by_skill:
                route.reason = RouteReason.ROUTE_REASON_SKILL_PREFERENCE
            elif self.choice is not None and (self.is_promoted or self.requested_mode == AUTO):
                route.reason = RouteReason.ROUTE_REASON_CLASSIFIED


# What happened on the way says more than what was meant.
_BY_EVENTS: Final = (RouteReason.ROUTE_REASON_FAILOVER, RouteReason.ROUTE_REASON_ESCALATION)


class Preparation:
    """All that a server knows of modes, personas, skills, conversations and component libraries.

    Args:
        personas: their texts by name. The one called "" is everybody's who names none.
    """

    def __init__(
        self,
        *,
        modes: Modes,
        classifier: Classifier,
        personas: Mapping[str, str],
        skills: Skills,
        libraries: ComponentLibraries,
        conversations: Conversations,
        cache: AnswerCache,
        router: Router,
    ) -> None:
        self._modes = modes
        self._classifier = classifier
        self._personas = personas
        self._has_usual_persona = bool(personas.get(""))
        self._skills = skills
        self._libraries = libraries
        self._conversations = conversations
        self.cache = cache
        self._router = router
        # A model of that name, or with that alias, wins.
        self._engines = {
            mode.engine: mode
            for mode in modes.by_id.values()
            if mode.engine and not router.knows(mode.engine)
        }

    def is_needed(self, spec: CompletionSpec, caller: Caller) -> bool:
        """Does the request ask for anything of this? Asked of every one, so it is cheap."""
        return bool(
            spec.mode
            or spec.conversation_id
            or spec.persona
            or spec.skills
            or spec.component_library
            or spec.model in self._engines
            or self._has_usual_persona
            or self._skills.knows(caller.owner)
            or self.cache.is_eligible(spec)
            or (spec.HasField("cache") and spec.cache.mode == ONLY_IF_CACHED)
        )

    async def prepare(
        self, asked: CompletionSpec, caller: Caller, until_s: float, *, is_job: bool = False
    ) -> Prepared:
        """Understand a request that is well formed.

        Args:
            asked: as the caller sent it; left as it is.
            until_s: of the loop's clock.
            is_job: it may take as long as it takes.

        Raises:
            RequestError: mode, persona, skill, library or conversation unknown, or not the caller's.
            StorageUnavailable, DeadlineExceeded.
        """
        spec = CompletionSpec()
        spec.CopyFrom(asked)
        prepared = Prepared(spec, said=asked.messages, requested_mode=asked.mode)
        await self._choose_mode(prepared, caller, is_job)
        if asked.conversation_id:
            prepared.turn = await self._conversations.begin(
                caller.owner, asked.end_user_id, asked.conversation_id, until_s, asked.messages
            )
        try:
            await self._furnish(prepared, asked, caller)
        except BaseException:
            prepared.release()
            raise
        return prepared

    async def previewed(self, asked: CompletionSpec, caller: Caller) -> CompletionSpec:
        """The spec as far as it decides who answers: with the mode resolved, nothing else asked for."""
        spec = CompletionSpec()
        spec.CopyFrom(asked)
        prepared = Prepared(spec, requested_mode=asked.mode)
        await self._choose_mode(prepared, caller, is_job=True)
        self._apply_mode(prepared, caller)
        return spec

    # mode

    async def _choose_mode(self, prepared: Prepared, caller: Caller, is_job: bool) -> None:
        spec = prepared.spec
        engine = self._engines.get(spec.model)
        if engine is not None:
            spec.model = ""
            if spec.mode in ("", AUTO):
                _check_mode(caller, engine, "spec.model")
                spec.mode = prepared.requested_mode = engine.id
        wanted = spec.mode
        if not wanted:
            return
        if wanted != AUTO:
            mode = self._modes.by_id.get(wanted)
            if mode is None:
                raise self._unknown_mode(wanted)
            if mode.is_job and not is_job:
                raise ModeRequiresJob("spec.mode", f"{wanted} takes long: ask for it as a job")
            prepared.mode = mode
            if not self._modes.promotes or mode.is_job:
                return
        choice = await self._classifier.classify(self._question(spec, caller))
        is_better = choice.mode != wanted and choice.confidence >= PROMOTE_AT
        if wanted != AUTO and not (is_better and _has_mode(caller, choice.mode)):
            return
        prepared.choice = choice
        prepared.is_promoted = wanted != AUTO
        prepared.mode = self._modes.by_id[choice.mode]
        spec.mode = choice.mode

    def _question(self, spec: CompletionSpec, caller: Caller) -> ModeQuestion:
        message = last_user_message(spec)
        kinds = {part.WhichOneof("content") for part in message.parts}
        return ModeQuestion(
            text=_cut(text_of(message)),
            modes=self._choosable(spec, caller),
            media=frozenset(kind for kind in kinds if kind in _MEDIA),
            has_tools=bool(spec.tool_options.tools),
        )

    def _choosable(self, spec: CompletionSpec, caller: Caller) -> frozenset[str]:
        """Modes that may be chosen for a caller: those of its plan, and of which somebody can answer."""
        allowed = caller.plan.modes
        named = None if allowed is None else allowed - {AUTO}
        found = set()
        for mode in self._modes.by_id.values():
            if mode.is_job or (named and mode.id not in named):
                continue
            if IMAGE in mode.modalities and not self._router.offers(Capability.IMAGE_OUTPUT):
                continue
            found.add(mode.id)
        if not found:
            raise RouteNotAllowed("the plan has no mode to choose from", field="spec.mode")
        # The refuge of all who are not sure.
        return frozenset(found | {FAST}) if FAST in self._modes.by_id else frozenset(found)

    def _unknown_mode(self, wanted: str) -> InvalidRequest:
        known = [*self._modes.by_id, AUTO]
        nearest = get_close_matches(wanted[:64], known, 1, 0.5)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; known are {', '.join(known)}"
        return InvalidRequest("spec.mode", f"no mode is called {wanted[:64]!r}{hint}")

    def _apply_mode(self, prepared: Prepared, caller: Caller) -> None:
        """What the mode says where the caller does not."""
        spec, mode = prepared.spec, prepared.mode
        if mode is None:
            return
        unasked = set(prepared.unasked)
        override = spec.model_overrides.get(mode.id) or spec.model_overrides.get(
            prepared.requested_mode
        )
        if override:
            engine = self._engines.get(override)
            if engine is None:
                spec.model = override
            else:  # Whoever answers in that mode: its models, or all that it allows.
                _check_mode(caller, engine, "spec.model_overrides")
                spec.model, spec.mode = self._router.route_of_mode(engine), engine.id
        elif spec.model in ("", AUTO):
            spec.model = self._router.route_of_mode(mode)
        sampling, options = spec.sampling, spec.tool_options
        refuses = spec.unsupported_policy == REJECT
        if mode.temperature is not None and not sampling.HasField("temperature") and not refuses:
            sampling.temperature = mode.temperature
            unasked.add("spec.sampling.temperature")
        if mode.max_output_tokens is not None and not sampling.HasField("max_output_tokens"):
            sampling.max_output_tokens = mode.max_output_tokens
        if mode.max_hops is not None and not options.HasField("max_hops"):
            options.max_hops = mode.max_hops
        reasons = spec.reasoning.effort or spec.reasoning.HasField("budget_tokens")
        if mode.effort and not reasons and not spec.intent.optimize_for and not refuses:
            spec.reasoning.effort = mode.effort
            unasked.add("spec.reasoning.effort")
        if mode.modalities and not spec.output_modalities:
            spec.output_modalities.extend(mode.modalities)
        prepared.unasked = frozenset(unasked)

    # everything else

    async def _furnish(self, prepared: Prepared, asked: CompletionSpec, caller: Caller) -> None:
        spec, mode = prepared.spec, prepared.mode
        self._apply_mode(prepared, caller)
        named = list(asked.skills)
        if named or self._skills.knows(caller.owner):
            can_call = self._router.offers(Capability.TOOLS, spec.model)
            text = text_of(last_user_message(asked))
            found = await self._skills.choose(caller.owner, named, text, can_call=can_call)
            prepared.skills, prepared.chooser = found.active, found.chooser
            self._apply_skills(prepared, caller)
        if mode is not None and self._router.offers(Capability.TOOLS, spec.model):
            _add_tools(spec, [_registered(name) for name in mode.tools])
        if asked.component_library or (mode is not None and mode.id == GENUI):
            if spec.sampling.candidate_count > 1:
                raise InvalidRequest(
                    "spec.sampling.candidate_count", "must be 1 with a component library"
                )
            library = prepared.library = self._libraries.find(asked.component_library)
            if library.grammar and EMBEDDED not in spec.provider_options_json:
                spec.provider_options_json[EMBEDDED] = json.dumps({"grammar": library.grammar})
        spec.system_prompt = system_prompt(
            own=asked.system_prompt,
            persona=self._persona(asked),
            mode="" if mode is None else mode.system_prompt,
            skills=[skill.instructions for skill in prepared.skills],
            genui="" if prepared.library is None else prepared.library.prompt,
        )
        if prepared.turn is not None:
            self._continue(prepared, prepared.turn)
            spec.ClearField("conversation_id")  # All of it is in the messages now.
            check_spec(spec)
        self._cache_subject(prepared, asked, caller)

    def _apply_skills(self, prepared: Prepared, caller: Caller) -> None:
        spec = prepared.spec
        for skill in prepared.skills:
            _add_tools(spec, skill.tools)
        is_open = spec.model in ("", AUTO) or spec.model.startswith(MODE_ROUTE)
        if not is_open or spec.model_overrides:
            return
        routes = caller.plan.routes
        for skill in prepared.skills:
            for model in skill.models:
                if self._router.knows(model) and (routes is None or model in routes):
                    spec.model = model
                    prepared.by_skill = True
                    return

    def _persona(self, asked: CompletionSpec) -> str:
        name = asked.persona
        if name == NO_PERSONA:
            return ""
        text = self._personas.get(name)
        if text is None and name:
            nearest = get_close_matches(name[:64], [n for n in self._personas if n], 1, 0.5)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise InvalidRequest("spec.persona", f"no persona is called {name[:64]!r}{hint}")
        return text or ""

    def _continue(self, prepared: Prepared, turn: Turn) -> None:
        """Put what was said before in front, as much of it as the largest context window holds."""
        spec = prepared.spec
        messages = whole([*turn.messages, *spec.messages])
        window_tokens = self._router.largest_window(spec.model)
        if window_tokens is not None:
            answer_tokens = min(ANSWER_TOKENS, int(window_tokens * ANSWER_SHARE))
            if spec.sampling.HasField("max_output_tokens"):
                answer_tokens = min(spec.sampling.max_output_tokens, window_tokens // 2)
            told_chars = len(spec.system_prompt) + sum(
                len(tool.description) + len(tool.parameters_schema_json)
                for tool in spec.tool_options.tools
            )
            room_tokens = window_tokens - answer_tokens - told_chars // CHARS_PER_TOKEN
            messages, dropped = fitted(messages, max(0, room_tokens))
            if dropped:
                prepared.warnings.append(
                    CompletionWarning(
                        code="CONVERSATION_TRUNCATED",
                        field="spec.conversation_id",
                        message=f"the oldest {dropped} messages do not fit the context window",
                    )
                )
        del spec.messages[:]
        spec.messages.extend(messages)

    def _cache_subject(self, prepared: Prepared, asked: CompletionSpec, caller: Caller) -> None:
        mode = prepared.mode
        keeps = mode is None or mode.cache_s > 0
        if keeps and prepared.turn is None and self.cache.is_eligible(asked):
            prepared.subject = CacheSubject(
                owner=caller.owner,
                asked=asked,
                spec=prepared.spec,
                mode="" if mode is None else mode.id,
                skills={skill.slug: skill.version for skill in prepared.skills},
                keep_s=mode.cache_s if mode is not None else 0.0,
            )
        elif asked.cache.mode == ONLY_IF_CACHED:
            raise NotCached


def _has_mode(caller: Caller, mode: str) -> bool:
    modes = caller.plan.modes
    return modes is None or mode in modes


def _check_mode(caller: Caller, engine: Mode, field: str) -> None:
    """Who names a mode's engine asks for the mode. Raises: RouteNotAllowed."""
    if not _has_mode(caller, engine.id):
        raise RouteNotAllowed(
            f"the plan {caller.plan.id!r} does not have the mode of this engine", field=field
        )


def last_user_message(spec: CompletionSpec) -> Message:
    """An empty one where there is none."""
    for message in reversed(spec.messages):
        if message.role == Role.ROLE_USER:
            return message
    return Message()


def text_of(message: Message) -> str:
    """All its text."""
    return "\n".join(part.text for part in message.parts if part.text)


def _cut(text: str) -> str:
    if len(text) <= MAX_QUESTION_CHARS:
        return text
    half = MAX_QUESTION_CHARS // 2
    return f"{text[:half]}\n{text[-half:]}"


def _registered(name: str) -> Tool:
    return Tool(name=name, registered=RegisteredSource())


def _add_tools(spec: CompletionSpec, tools: Sequence[Tool]) -> None:
    """Those that the request has not got already; its own ones win."""
    known = {tool.name for tool in spec.tool_options.tools}
    spec.tool_options.tools.extend(tool for tool in tools if tool.name not in known)
