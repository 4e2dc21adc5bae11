"""Real providers, each of whose usual key variable is set. Costs a few tokens."""

import os

import pytest

from tests.support.service import service
from trunkline import AsyncClient, text
from trunkline_server.providers.default_models import DEFAULT_MODELS
from trunkline_server.providers.registry import DIALECTS

pytestmark = pytest.mark.live

WANTED = [(name, model) for name, models in DEFAULT_MODELS.items() for model in models]


@pytest.mark.parametrize(("provider", "model"), WANTED)
async def test_a_default_model_streams_an_answer_and_says_what_it_used(provider, model):
    variable = DIALECTS[provider].key_variable
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set")
    async with (
        service(environment=os.environ) as started,
        AsyncClient(started.grpc_address) as client,
        client.stream("Answer with the word hello.", model=f"{provider}/{model}") as stream,
    ):
        completion = await stream.completion()

    assert "hello" in text(completion).lower()
    assert completion.usage.output_tokens > 0
    assert not completion.usage.estimated
