"""The ports of the attempt loop over scripts: events, and ends that are no ends."""

import asyncio
from collections.abc import Sequence

from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    TextDelta,
    UsageUpdate,
)
from trunkline.v1.completion_pb2 import CompletionWarning, FinishReason, Usage
from trunkline_server.completion.attempts import Upstream
from trunkline_server.completion.circuits import Circuits
from trunkline_server.completion.pump import Pump
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure
from trunkline_server.core.ports import AttemptFacts, Prompt, Providers, RequestRecord, Telemetry
from trunkline_server.routing.experience import Experience

# An event, an error that is raised in its place, or seconds of silence.
Step = CompleteResponse | UpstreamError | float


def text(piece: str) -> CompleteResponse:
    """Some text."""
    return CompleteResponse(text_delta=TextDelta(text=piece))


def ended() -> CompleteResponse:
    """The end of the only choice."""
    return CompleteResponse(choice_finished=_STOP)


def counted(output_tokens: int = 1) -> CompleteResponse:
    """What the provider counts."""
    usage = Usage(input_tokens=5, output_tokens=output_tokens, total_tokens=5 + output_tokens)
    return CompleteResponse(usage_update=UsageUpdate(usage=usage))


def cut() -> UpstreamError:
    """The connection is lost."""
    return UpstreamError(Failure.AMBIGUOUS, "lost")


_STOP = ChoiceFinished(finish_reason=FinishReason.FINISH_REASON_STOP)


class ScriptedAnswer:
    """An answer that follows its script, one event for each read."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.facts = AttemptFacts(http_status=200)
        self.output_chars = 0
        self.is_complete = False
        self.is_closed = False
        self._steps = list(steps)

    async def read(self, until_s: float) -> list[CompleteResponse]:
        """The next event."""
        while self._steps and isinstance(self._steps[0], float):
            async with asyncio.timeout_at(until_s):
                await asyncio.sleep(self._steps[0])
            self._steps.pop(0)
        step = self._steps.pop(0)
        if isinstance(step, UpstreamError):
            raise step
        assert isinstance(step, CompleteResponse)
        event = CompleteResponse()
        event.CopyFrom(step)
        self.output_chars += len(event.text_delta.text)
        if event.HasField("usage_update"):
            self.facts.usage = event.usage_update.usage
        if event.HasField("choice_finished"):
            self.facts.finishes.append(event.choice_finished)
        self.is_complete = not self._steps
        return [event]

    def close(self) -> None:
        """Never waits."""
        self.is_closed = True


class ScriptedProviders:
    """The `Providers` port. Each provider has scripts, one for each attempt, the last one again and again.

    A script that begins with an error fails before anything is accepted.
    """

    def __init__(self, **scripts: Sequence[Sequence[Step]]) -> None:
        self.scripts = {name: list(found) for name, found in scripts.items()}
        self.opened: list[str] = []
        self.prompts: list[Prompt] = []
        self.answers: list[ScriptedAnswer] = []

    async def open(self, candidate: Candidate, prompt: Prompt, until_s: float) -> ScriptedAnswer:
        """The next script of this provider."""
        self.opened.append(candidate.provider)
        self.prompts.append(prompt)
        left = self.scripts[candidate.provider]
        steps = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(steps[0], UpstreamError):
            raise steps[0]
        self.answers.append(ScriptedAnswer(steps))
        return self.answers[-1]

    def warnings(self, candidate: Candidate, prompt: Prompt) -> list[CompletionWarning]:
        """None."""
        return []


class QuietTelemetry:
    """The `Telemetry` port, which only remembers."""

    def __init__(self) -> None:
        self.hedges: list[tuple[str, str]] = []
        self.drains: list[tuple[str, Usage | None]] = []

    def record(self, request: RequestRecord, now_s: float) -> None:
        """Not of interest here."""

    def attempt_failed(self, request_id: str, candidate: Candidate, error: UpstreamError) -> None:
        """Not of interest here."""

    def hedged(self, route: str, candidate: Candidate) -> None:
        """Route and provider."""
        self.hedges.append((route, candidate.provider))

    def drained(self, request_id: str, candidate: Candidate, usage: Usage | None) -> None:
        """Provider and usage."""
        self.drains.append((candidate.provider, usage))


def upstream_over(
    providers: Providers, telemetry: Telemetry, circuits: Circuits | None = None
) -> Upstream:
    """What the attempt loop works with, without chance."""
    return Upstream(
        providers,
        circuits or Circuits(lambda: 0.0),
        telemetry,
        Pump(telemetry),
        Experience({}),
        lambda: 0.0,
    )
