"""The agent loop: model turns, and between them the tools that the gateway runs.

A turn is a `Hop`. When its model calls tools of the gateway's own, they run, their results are appended to the
conversation, and the model is asked again, whoever answered last first. A call of the caller's own tools ends the
answer: what the gateway's tools brought in the same turn is kept for the next request.

The caller sees all text, its own tools' calls, and that a tool of the gateway runs; never a call of such a tool.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    SkillsActivated,
)
from trunkline.v1.completion_pb2 import (
    CompletionWarning,
    FinishReason,
    ServerToolCall,
    ServerToolState,
)
from trunkline.v1.completion_spec_pb2 import (
    BuiltinSource,
    CompletionSpec,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from trunkline.v1.message_pb2 import Message, Role, ToolCall, ToolResult
from trunkline_server.completion.attempts import Batch, Hop
from trunkline_server.completion.metering import estimated_input_tokens, usage_of_hops
from trunkline_server.core.attempts import set_duration
from trunkline_server.core.candidate import Plan
from trunkline_server.core.deadline import Deadline
from trunkline_server.core.errors import InvalidRequest, NotSupported
from trunkline_server.core.fold import Fold
from trunkline_server.core.loop_budget import LoopBudget, Spent, exhausted
from trunkline_server.core.schema_looks import UncheckableSchema
from trunkline_server.core.skill import Skill, activation
from trunkline_server.core.tool_calls import (
    MAX_REPAIRS,
    Arguments,
    Repetition,
    RepetitionWatch,
    arguments_of,
    is_long,
    object_of,
    shown,
)
from trunkline_server.core.tools import ServerTool, ToolContext, ToolOutcome, Tools
from trunkline_server.core.validation import schema_problem

DEFAULT_MAX_HOPS: Final = 8
TOOLS_AT_ONCE: Final = 4
MAX_CALLS: Final = 32  # Of one turn. Those beyond it are answered with an error.
MAX_RESULTS_CHARS: Final = 8 * 1024 * 1024  # Kept whole for `read_result`, all together.
SYNTHESIS_S: Final = (
    10.0  # Of the deadline, for the last answer; a quarter of the whole where that is less.
)
SYNTHESIS_SHARE: Final = 0.25
READ_RESULT: Final = "read_result"
UNNAMED: Final = "unknown_tool"

STARTED: Final = ServerToolState.SERVER_TOOL_STATE_STARTED
SUCCEEDED: Final = ServerToolState.SERVER_TOOL_STATE_SUCCEEDED
FAILED: Final = ServerToolState.SERVER_TOOL_STATE_FAILED
TOOL_CALLS: Final = FinishReason.FINISH_REASON_TOOL_CALLS
HOP_LIMIT: Final = FinishReason.FINISH_REASON_HOP_LIMIT
INSUFFICIENT_CREDITS: Final = FinishReason.FINISH_REASON_INSUFFICIENT_CREDITS
MALFORMED: Final = FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL
_UNLIMITED: Final = (FinishReason.FINISH_REASON_STOP, TOOL_CALLS, MALFORMED)
# A call that is no JSON is told to the model as any that does not fit.
_CALLING: Final = (TOOL_CALLS, MALFORMED)
NO_TOOLS: Final = ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_NONE)
UNSPECIFIED: Final = ToolChoiceMode.TOOL_CHOICE_MODE_UNSPECIFIED
AUTO: Final = ToolChoiceMode.TOOL_CHOICE_MODE_AUTO
REQUIRED: Final = ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED

_NO_BUDGET: Final = LoopBudget()
NOTE: Final = "\n[This very call was made before. Calling it again will not help.]"
STOP: Final = "This call repeats earlier ones and was not made. Answer with what you have."
NO_TIME: Final = "There is no time left for this call. Answer with what you have."
TOO_MANY: Final = f"More than {MAX_CALLS} calls in one turn; this one was not made."


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The gateway's tools of one request, by name, and the spec as models get it: all tools plainly described."""

    tools: Mapping[str, ServerTool]
    arguments: Mapping[str, Sequence[Arguments]]  # All of them apply.
    spec: CompletionSpec
    can_read: bool  # `read_result` is the builtin, or can be: the request has no tool of its own by that name.


def toolbox(spec: CompletionSpec, tools: Tools, own: ServerTool | None = None) -> Toolbox | None:
    """None where the gateway runs nothing.

    Args:
        own: a tool of the gateway's own that the request does not name.

    Raises:
        InvalidRequest, NotSupported: a tool can't be run, or not with these options.
    """
    if own is None and not spec.HasField("tool_options"):
        return None
    found: dict[str, ServerTool] = {}
    for number, tool in enumerate(spec.tool_options.tools):
        if tool.WhichOneof("source") not in (None, "inline"):
            found[tool.name] = tools.resolve(tool, f"spec.tool_options.tools[{number}]")
    if own is not None and _may_join(own, spec):
        spec.tool_options.tools.append(own.tool)
        found[own.tool.name] = own
    if not found:
        return None
    if spec.sampling.candidate_count > 1:
        raise InvalidRequest("spec.sampling.candidate_count", "must be 1 with server-side tools")
    described = CompletionSpec()
    described.CopyFrom(spec)
    arguments = {}
    for number, tool in enumerate(described.tool_options.tools):
        if tool.name in found:
            server_tool = found[tool.name]
            tool.CopyFrom(_description(tool, server_tool.tool))
            where = f"spec.tool_options.tools[{number}].parameters_schema_json"
            # A request may say more of a registered tool, but not lift what its operator demands.
            schemas = dict.fromkeys((tool.parameters_schema_json, server_tool.schema_json))
            arguments[tool.name] = [_arguments(schema, where) for schema in schemas]
    readers = [t.WhichOneof("source") for t in spec.tool_options.tools if t.name == READ_RESULT]
    can_read = not readers or readers[0] in ("builtin", "registered")
    return Toolbox(found, arguments, described, can_read)


def _may_join(own: ServerTool, spec: CompletionSpec) -> bool:
    """Does a tool that nobody asked for leave everything as the request wants it?"""
    options, choice = spec.tool_options, spec.tool_options.choice
    # Whoever asks for certain calls, or for several answers, would not get them.
    is_free = choice.WhichOneof("choice") != "tool_name" and choice.mode in (UNSPECIFIED, AUTO)
    is_narrowed = choice.allowed_tool_names or spec.sampling.candidate_count > 1
    is_taken = any(tool.name == own.tool.name for tool in options.tools)
    return is_free and not is_narrowed and not is_taken


def _arguments(schema_json: str, where: str) -> Arguments:
    """What a tool takes, by a schema that may be its operator's or its server's. Raises: InvalidRequest."""
    if schema_json and (problem := schema_problem(schema_json)):
        raise InvalidRequest(where, problem)
    try:
        return arguments_of(schema_json)
    except UncheckableSchema as error:
        raise InvalidRequest(where, str(error)) from error
    except ValueError as error:
        raise InvalidRequest(where, "refers to what is not in it") from error


def _description(asked: Tool, known: Tool) -> Tool:
    """As a model is told of it: what the request says wins over what the operator registered."""
    tool = Tool(name=asked.name)
    tool.description = asked.description or known.description
    tool.parameters_schema_json = asked.parameters_schema_json or known.parameters_schema_json
    if asked.HasField("strict"):
        tool.strict = asked.strict
    return tool


@dataclass(slots=True)
class _Run:
    """One call of a tool of ours, under way."""

    call: ToolCall
    tool: ServerTool | None
    report: ServerToolCall
    outcome: ToolOutcome | None = None
    note: str = ""
    began_s: float = 0.0
    is_last: bool = False  # Nothing is called after it.


class Turns:
    """All turns of one answer. Iterate `batches`; `hops` has what was asked so far, the last one answers.

    Args:
        new_hop: makes the hop of a number, for a spec and a plan.
        is_paid_for: may a further hop be asked with this spec, after the last one?
        budget: of all turns together.
        skills: those that are active from the beginning.
    """

    def __init__(
        self,
        *,
        box: Toolbox,
        tools: Tools,
        plan: Plan,
        deadline: Deadline,
        new_hop: Callable[[CompletionSpec, Plan, int], Hop],
        context: ToolContext,
        is_paid_for: Callable[[Hop, CompletionSpec], Awaitable[bool]] | None,
        budget: LoopBudget = _NO_BUDGET,
        skills: Sequence[Skill] = (),
    ) -> None:
        self.hops: list[Hop] = []
        self.calls: list[ServerToolCall] = []
        self.transcript: list[Message] = []
        self.warnings: list[CompletionWarning] = []
        self.finish: ChoiceFinished | None = None
        self.open_calls: list[str] = []  # Those of the caller's tools that the answer ends with.
        self.has_effects = False  # A tool was called that may not be called twice.
        self.skills = list(skills)  # In the order in which they became active.
        self._box = box
        self._tools = tools
        self._server: dict[str, ServerTool] = dict(box.tools)
        options = box.spec.tool_options
        self._theirs = frozenset(t.name for t in options.tools if t.name not in box.tools)
        self._arguments: dict[str, Sequence[Arguments]] = dict(box.arguments)
        self._plan = plan
        self._deadline = deadline
        self._new_hop = new_hop
        self._is_paid_for = is_paid_for
        self._context = context
        self._results: dict[str, str] = {}
        self._results_chars = 0
        self._seen_ids: set[str] = set()
        self._watch = RepetitionWatch()
        self._repairs = 0
        self._first_part = 0
        self._loop = asyncio.get_running_loop()
        self._extra: list[Tool] = []  # Tools that came in on the way.
        # Kept back at once and not from what is left each time, of which there is always some, and less and less.
        self._began_s = self._loop.time()
        remaining_s = deadline.remaining_s(self._began_s)
        self._tools_until_s = deadline.at_s - min(SYNTHESIS_S, SYNTHESIS_SHARE * remaining_s)
        self._budget = budget
        if budget.tools_s is not None:
            self._tools_until_s = min(self._tools_until_s, self._began_s + budget.tools_s)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """The events of all turns. The first batch of a hop may be empty: its `hops[-1]` serves by then.

        Raises:
            RequestError, ServiceError, StreamInterrupted: as a hop does.
        """
        options = self._box.spec.tool_options
        max_hops = options.max_hops if options.HasField("max_hops") else DEFAULT_MAX_HOPS
        is_last = False  # No tool may be called in this turn: it has to be the answer.
        finished = ChoiceFinished()
        while True:
            number = len(self.hops)
            spec = self._spec(is_last=is_last)
            if number and self._is_paid_for and not await self._is_paid_for(self.hops[-1], spec):
                finished.finish_reason = INSUFFICIENT_CREDITS
                break
            hop = self._new_hop(spec, self._plan_of_hop(), number)
            self.hops.append(hop)
            window = _Window(self._theirs, self._first_part)
            fold = Fold()
            async with aclosing(hop.batches()) as batches:
                async for batch in batches:
                    fold.add(batch)
                    yield window.pass_on(batch)
            self._first_part = window.next_part
            message, finished = _end(hop, fold)
            calls = [p.tool_call for p in message.parts if p.WhichOneof("content") == "tool_call"]
            ours = [call for call in calls if call.name not in self._theirs]
            theirs = [call.id for call in calls if call.name in self._theirs]
            if is_last or not ours or finished.finish_reason not in _CALLING:
                break
            runs = self._judged(ours)
            async with aclosing(self._run(runs)) as events:
                async for event in events:
                    yield [event]
            self._remember(message, runs, is_mixed=bool(theirs))
            if theirs:
                break
            is_last = number + 1 >= max_hops or self._is_exhausted() or self._is_stuck(runs)
        if is_last and not theirs and finished.finish_reason in _UNLIMITED:
            finished.finish_reason = HOP_LIMIT
        self.finish = finished
        self.open_calls = theirs
        yield [CompleteResponse(choice_finished=finished)]

    # turns

    def _spec(self, *, is_last: bool) -> CompletionSpec:
        spec = self._box.spec
        if not self.hops:
            return spec
        following = CompletionSpec()
        following.CopyFrom(spec)
        following.messages.extend(self.transcript)
        options = following.tool_options
        options.tools.extend(self._extra)
        choice = options.choice
        if is_last:
            # The tools stay: some providers refuse a history with calls of tools that they are not told of.
            options.choice.CopyFrom(NO_TOOLS)
        elif choice.WhichOneof("choice") == "tool_name" or choice.mode == REQUIRED:
            choice.mode = AUTO  # It was asked for one call, and that was made.
        return following

    def _plan_of_hop(self) -> Plan:
        """Whoever answered last is asked first: it knows its own state of mind."""
        if not self.hops:
            return self._plan
        last = self.hops[-1].served.candidate
        others = tuple(c for c in self._plan.candidates if c is not last)
        return replace(self._plan, candidates=(last, *others))

    def _is_exhausted(self) -> bool:
        """Does the budget not last for another turn with tools? The caller is told."""
        if self._budget == _NO_BUDGET:
            return False
        last = self.hops[-1]
        used, last_used = usage_of_hops(self.hops), usage_of_hops([last])
        # What the last turn read and wrote, and what came of its calls.
        added = CompletionSpec(messages=self.transcript[-1:])
        sampling = self._box.spec.sampling
        part = exhausted(
            self._budget,
            Spent(used.total_tokens, used.cost.amount_nanos, s=self._loop.time() - self._began_s),
            last_used.total_tokens + estimated_input_tokens(added),
            sampling.max_output_tokens if sampling.HasField("max_output_tokens") else None,
            last.served.candidate.price,
        )
        if part:
            self._warn("BUDGET_REACHED", part)
        return bool(part)

    def _is_stuck(self, runs: list[_Run]) -> bool:
        is_late = self._loop.time() >= self._tools_until_s
        return is_late or self._repairs > MAX_REPAIRS or any(run.is_last for run in runs)

    # calls

    def _judged(self, calls: list[ToolCall]) -> list[_Run]:
        """All calls of a turn; those that can't be run have their outcome already."""
        runs = []
        for number, call in enumerate(calls):
            self._make_unique(call)
            tool = self._server.get(call.name)
            report = ServerToolCall(
                id=call.id, name=call.name, state=STARTED, hop=self.hops[-1].number
            )
            run = _Run(call, tool, report)
            runs.append(run)
            if tool is None:
                self._repairs += 1
                run.outcome = ToolOutcome("There is no tool of this name.", is_error=True)
                continue
            report.description = tool.tool.description
            arguments, problem = self._parsed(call)
            if number >= MAX_CALLS:
                run.outcome = ToolOutcome(TOO_MANY, is_error=True)
            elif arguments is None:
                self._repairs += 1
                run.outcome = ToolOutcome(f"This call was not made: {problem}", is_error=True)
            else:
                self._watch_for_loops(run, arguments)
        return runs

    def _make_unique(self, call: ToolCall) -> None:
        """Some servers number the calls of every turn anew; results are kept and repeated by the id."""
        if call.id in self._seen_ids:
            call.id = f"{call.id}-{len(self.hops) - 1}"
        self._seen_ids.add(call.id)

    def _parsed(self, call: ToolCall) -> tuple[dict[str, Any] | None, str]:
        """The arguments, where they fit all schemas; else what is wrong with them."""
        found: tuple[dict[str, Any] | None, str] = (None, "")
        for arguments in self._arguments[call.name]:
            found = arguments.parse(call.arguments_json)
            if found[0] is None:
                break
        return found

    def _watch_for_loops(self, run: _Run, arguments: object) -> None:
        repetition = self._watch.see(run.call.name, arguments)
        if repetition is Repetition.STOPPED:
            run.outcome = ToolOutcome(STOP, is_error=True)
            run.is_last = True
            self._warn("TOOL_LOOP", run.call.name)
        elif repetition is Repetition.NOTED:
            run.note = NOTE

    async def _run(self, runs: list[_Run]) -> AsyncGenerator[CompleteResponse, None]:
        """Runs what is to be run, and tells when each starts and ends. Left early, everything is cancelled."""
        self.calls += [run.report for run in runs]
        waiting = [run for run in runs if run.outcome is None]
        for run in runs:
            yield _told(run.report)
            if run.outcome is not None:
                yield self._ended(run)
        tasks: dict[asyncio.Task[None], _Run] = {}
        try:
            while waiting or tasks:
                while waiting and self._may_start(waiting[0], tasks):
                    run = waiting.pop(0)
                    tasks[self._loop.create_task(self._call(run))] = run
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    run = tasks.pop(task)
                    task.result()
                    yield self._ended(run)
                    if self._activate(run):
                        told = [activation(self.skills[-1])]
                        yield CompleteResponse(skills_activated=SkillsActivated(skills=told))
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    def _may_start(self, run: _Run, running: Mapping[asyncio.Task[None], _Run]) -> bool:
        if not running:
            return True
        is_exclusive = any(_is_exclusive(other) for other in (run, *running.values()))
        return not is_exclusive and len(running) < TOOLS_AT_ONCE

    async def _call(self, run: _Run) -> None:
        tool = run.tool
        assert tool is not None
        run.began_s = self._loop.time()
        until_s = min(run.began_s + tool.timeout_s, self._tools_until_s)
        if until_s <= run.began_s:
            run.outcome = ToolOutcome(NO_TIME, is_error=True)
            run.is_last = True
            return
        self.has_effects |= not tool.is_idempotent
        context = replace(
            self._context,
            call_id=f"{self._context.call_id}-{run.report.hop}-{run.call.id}",
            results=self._results,
        )
        run.outcome = await tool.runner.run(run.call.arguments_json or "{}", context, until_s)
        if run.outcome.is_unknown and tool.is_idempotent and self._loop.time() < until_s:
            run.outcome = await tool.runner.run(run.call.arguments_json or "{}", context, until_s)

    def _ended(self, run: _Run) -> CompleteResponse:
        outcome = run.outcome
        assert outcome is not None
        report = run.report
        report.state = FAILED if outcome.is_error else SUCCEEDED
        if outcome.is_error:
            report.error_message = outcome.text[:256]
        if run.began_s:
            set_duration(report.duration, self._loop.time() - run.began_s)
        return _told(report)

    def _activate(self, run: _Run) -> bool:
        """Has the call activated a skill that was not active before? Its tools join from the next turn on."""
        skill = None if run.outcome is None else run.outcome.skill
        if skill is None or any(known.slug == skill.slug for known in self.skills):
            return False
        self.skills.append(skill)
        for tool in skill.tools:
            if tool.name in self._server or tool.name in self._theirs:
                continue  # What the request has brought along wins.
            try:
                found = self._tools.resolve(tool, skill.slug)
                described = _description(tool, found.tool)
                arguments = [_arguments(described.parameters_schema_json, skill.slug)]
            except (InvalidRequest, NotSupported):
                # Not its caller's fault, and the instructions may do without.
                self._warn("SKILL_TOOL_UNAVAILABLE", tool.name)
                continue
            self._server[tool.name] = found
            self._arguments[tool.name] = arguments
            self._extra.append(described)
        return True

    def _remember(self, message: Message, runs: list[_Run], *, is_mixed: bool) -> None:
        """Append the turn to the conversation: what the model said and called of ours, and what came of it.

        What it said in a mixed turn stands in the answer, beside the calls of the caller's tools.
        """
        ours = {run.call.id for run in runs}
        said = Message(role=Role.ROLE_ASSISTANT)
        for part in message.parts:
            kind = part.WhichOneof("content")
            if kind == "tool_call" and part.tool_call.id not in ours:
                continue
            if is_mixed and kind not in ("tool_call", "reasoning"):
                continue
            copy = said.parts.add()
            copy.CopyFrom(part)
            if kind != "tool_call":
                continue
            # No provider would take them back.
            if part.tool_call.name not in self._server:
                copy.tool_call.name = UNNAMED
            if object_of(part.tool_call.arguments_json)[0] is None:
                copy.tool_call.arguments_json = "{}"
        answers = Message(role=Role.ROLE_TOOL)
        for run in runs:
            outcome = run.outcome
            assert outcome is not None
            text = outcome.text
            if outcome.skill is None:  # Instructions with a gap in them are worse than none.
                is_kept = is_long(text) and self._keep(run.call.id, text)
                text = shown(text, run.call.id, is_kept=is_kept)
            result = ToolResult(
                tool_call_id=run.call.id,
                tool_name=run.call.name if run.tool is not None else UNNAMED,
                is_error=outcome.is_error,
            )
            result.parts.add().text = text + run.note
            answers.parts.add().tool_result.CopyFrom(result)
        self.transcript += [said, answers]

    def _keep(self, call_id: str, text: str) -> bool:
        """The whole of a result, for `read_result`, which is offered from now on. False where nothing will read it."""
        if not self._box.can_read:
            return False
        if self._results_chars + len(text) > MAX_RESULTS_CHARS:
            self._warn("TOOL_RESULT_DROPPED", call_id)
            return False
        self._results[call_id] = text
        self._results_chars += len(text)
        if READ_RESULT not in self._server:
            asked = Tool(name=READ_RESULT, builtin=BuiltinSource(name=READ_RESULT))
            reader = self._tools.resolve(asked, READ_RESULT)
            self._server[READ_RESULT] = reader
            self._arguments[READ_RESULT] = [arguments_of(reader.tool.parameters_schema_json)]
            self._extra.append(_description(asked, reader.tool))
        return True

    def _warn(self, code: str, name: str) -> None:
        texts = {
            "BUDGET_REACHED": "this budget does not last for another turn with tools",
            "SKILL_TOOL_UNAVAILABLE": "a skill's tool can't be run",
            "TOOL_LOOP": "the model repeated its calls; they were stopped",
            "TOOL_RESULT_DROPPED": "a result was too large to be kept whole",
        }
        self.warnings.append(
            CompletionWarning(
                code=code, field="spec.tool_options", message=f"{name}: {texts[code]}"
            )
        )


def _is_exclusive(run: _Run) -> bool:
    return run.tool is not None and run.tool.is_exclusive


def _told(report: ServerToolCall) -> CompleteResponse:
    event = CompleteResponse()
    event.server_tool_call.CopyFrom(report)
    return event


def _end(hop: Hop, fold: Fold) -> tuple[Message, ChoiceFinished]:
    """The message of a turn that has ended, and how it did."""
    finishes = hop.served.facts.finishes
    finished = ChoiceFinished()
    if finishes:
        finished.CopyFrom(finishes[0])
    return fold.message(0), finished


class _Window:
    """What the caller sees of one turn: everything but calls of tools that are not its own, and the turn's end."""

    def __init__(self, shown_tools: frozenset[str], first_part: int) -> None:
        self._shown_tools = shown_tools
        self._first_part = first_part
        self._hidden_parts: set[int] = set()
        self._call_numbers: dict[int, int] = {}
        self.next_part = first_part

    def pass_on(self, batch: Batch) -> Batch:
        """What of a batch is shown. Events are changed in place: nobody else reads them any more."""
        return [event for event in batch if self._passes(event)]

    def _passes(self, event: CompleteResponse) -> bool:
        kind = event.WhichOneof("event")
        if kind == "choice_finished":
            return False
        if kind == "stream_reset":
            self._hidden_parts.clear()
            self._call_numbers.clear()
            return True
        if kind == "tool_call_delta":
            delta = event.tool_call_delta
            if delta.name and delta.name not in self._shown_tools:
                self._hidden_parts.add(delta.part_index)
            if delta.part_index in self._hidden_parts:
                return False
            numbers = self._call_numbers
            delta.tool_call_index = numbers.setdefault(delta.part_index, len(numbers))
        elif kind == "part_completed":
            if event.part_completed.part_index in self._hidden_parts:
                return False
        elif kind not in ("text_delta", "reasoning_delta", "refusal_delta"):
            return True
        value = getattr(event, kind)
        value.part_index += self._first_part
        self.next_part = max(self.next_part, value.part_index + 1)
        return True
