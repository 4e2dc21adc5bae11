"""What becomes of the adapters' own faults."""

import json
from collections.abc import Callable, Mapping

import pytest
from structlog.testing import capture_logs

from tests.providers.specs import ask
from trunkline_server.core.candidate import Candidate, Capability
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.ports import AttemptFacts, Prompt, Unencodable
from trunkline_server.providers.registry import Address, Provider, Upstreams
from trunkline_server.providers.translator import Decoder, UpstreamRequest
from trunkline_server.providers.transport import Endpoint, HttpTransport

SECRET = "what the caller wrote"
CANDIDATE = Candidate("a", "m", "m")
PROMPT = Prompt(ask(), stream=True)


class Faulty:
    """A dialect that did not foresee something."""

    name = "faulty"
    capabilities: frozenset[Capability] = frozenset()

    def __init__(self, error: Exception) -> None:
        self.error = error

    def encode(self, candidate: Candidate, prompt: Prompt) -> UpstreamRequest:
        raise self.error

    def decoder(
        self, candidate: Candidate, prompt: Prompt, facts: AttemptFacts, mint_id: Callable[[], str]
    ) -> Decoder:
        raise NotImplementedError

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        raise NotImplementedError


def upstreams(error: Exception) -> Upstreams:
    """The adapter over such a dialect alone. Nothing listens there."""
    provider = Provider("a", Faulty(error), Address(Endpoint("127.0.0.1", 9), "", []))
    return Upstreams(HttpTransport(), {"a": provider}, lambda: "id")


FAULTS = [ValueError(SECRET), IndexError(SECRET), KeyError(SECRET), UnicodeError(SECRET)]


@pytest.mark.parametrize("error", FAULTS, ids=repr)
async def test_a_request_that_a_dialect_stumbles_over_is_left_to_the_next_one(error):
    with capture_logs() as lines, pytest.raises(Unencodable):
        await upstreams(error).open(CANDIDATE, PROMPT, until_s=0.0)

    [line] = lines
    assert (line["event"], line["provider"], line["dialect"]) == ("bug", "a", "faulty")
    assert str(line["exc_info"]) == type(error).__name__
    assert SECRET not in json.dumps(line, default=repr)


@pytest.mark.parametrize("error", FAULTS, ids=repr)
def test_so_is_one_whose_warnings_are_asked_for(error):
    with capture_logs() as lines, pytest.raises(Unencodable):
        upstreams(error).warnings(CANDIDATE, PROMPT)

    assert [line["event"] for line in lines] == ["bug"]


async def test_what_a_dialect_can_not_say_is_no_bug():
    with capture_logs() as lines, pytest.raises(Unencodable) as caught:
        await upstreams(Unencodable("spec.x", "no")).open(CANDIDATE, PROMPT, until_s=0.0)

    assert (caught.value.field, lines) == ("spec.x", [])
