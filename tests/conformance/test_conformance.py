"""One behaviour in every language: each client makes the same calls, against a gateway that plays the same scripts."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from google.protobuf.json_format import MessageToDict

from tests.conformance.cases import Case, Expect, as_base64, order, read_cases
from tests.conformance.checking import problems
from tests.conformance.conftest import CELL, known_failing
from tests.conformance.events import answers
from tests.conformance.languages import COLUMNS, LANGUAGES, Column, Command, Language, Runner
from tests.conformance.server import Gateway
from trunkline.folding import fold
from trunkline_server.edges.status import DOMAIN, STATUSES

CASES: Final = read_cases()
KNOWN: Final = known_failing()
# A call that ended for the client has ended for the gateway, too, when its reset has arrived.
SETTLE_S: Final = 5.0
FOLDED: Final = 200
SEED: Final = 8


def cells() -> list[Any]:
    """Every case with every client. One that is known to fail must fail."""
    return [
        pytest.param(
            case,
            column,
            id=f"{column.name}-{case.name}",
            marks=[pytest.mark.xfail(strict=True, reason=KNOWN[column.name][case.name])]
            if case.name in KNOWN.get(column.name, {})
            else [],
        )
        for column in COLUMNS
        for case in CASES
    ]


def client_of(case: Case, gateway: Gateway, roots: Path, key: str) -> dict[str, Any]:
    """The options of the client that makes the call."""
    ports = {"direct": gateway.port, "tls": gateway.tls_port, "relay": gateway.relay_port}
    options = {"target": f"127.0.0.1:{ports.get(case.via)}", **case.client}
    options["target"] = options["target"].replace("{tls}", str(gateway.tls_port))
    if case.via == "tls":
        options["root_certificates"] = str(roots)
    options["metadata"] = {"x-case": key, **case.client.get("metadata", {})}
    return options


@pytest.mark.parametrize(("case", "column"), cells())
def test_every_client_behaves_as_the_case_says(
    case: Case,
    column: Column,
    gateway: Gateway,
    certificate: tuple[Path, trustme.CA],
    runner_of: Callable[[Column], Runner],
    request: pytest.FixtureRequest,
):
    request.node.stash[CELL] = case.name, column.name
    runner = runner_of(column)
    key = f"{column.name}-{case.name}"
    played = gateway.play(case, key)

    observed = runner.ask(order(case, client_of(case, gateway, certificate[0], key)), case.limit_s)

    are_over = played.wait_until_over(SETTLE_S)
    gateway.forget(key)
    found = problems(case, observed, played.calls)
    if not are_over:
        found.append("calls are still open at the gateway")
    assert not found, "\n".join([case.why, *found])


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_every_client_folds_alike(column, runner_of):
    """Answers made at random, of every kind of event and in no order that a gateway would send them in."""
    runner = runner_of(column)
    rng = random.Random(SEED)

    for number in range(FOLDED):
        events = answers(rng)
        call = {
            "method": "fold",
            "events": [as_base64(event.SerializeToString()) for event in events],
        }
        observed = runner.ask({"name": f"fold {number}", "client": {}, "call": call}, 20)

        case = Case("fold", call, Expect(completion=MessageToDict(fold(events))))
        assert problems(case, observed, ()) == [], events


def test_no_case_is_on_the_list_that_is_not_there():
    names = {case.name for case in CASES}
    columns = {column.name for column in COLUMNS}

    assert KNOWN.keys() <= columns
    assert {name for cases in KNOWN.values() for name in cases} <= names
    assert len(CASES) >= 60


def test_every_reason_of_the_gateway_has_a_case():
    fails = [step.fail for case in CASES for script in case.server for step in script if step.fail]
    told = {
        fail.reason: fail.code
        for fail in fails
        if fail.reason in STATUSES and fail.domain == DOMAIN
    }

    assert told == {reason: status.grpc_code.name for reason, status in STATUSES.items()}


@pytest.mark.parametrize(
    ("language", "command"),
    [
        pytest.param(language, command, id=" ".join((language.name, *command)))
        for language in LANGUAGES
        for command in language.checks
    ],
)
def test_every_client_passes_its_own_checks(language: Language, command: Command, build):
    build(language)

    language.run(command)
