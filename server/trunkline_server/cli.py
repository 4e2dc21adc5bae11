"""The `trunkline` command: arguments, exit codes, signals.

Exit codes: 0 done, 1 the call failed, 2 the command or the configuration is wrong.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

# The spawned model process would otherwise make gRPC print a warning about forks.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import trunkline
from trunkline import Client, TrunklineError
from trunkline.v1.catalog_service_pb2 import ModelKind
from trunkline.v1.completion_spec_pb2 import CompletionSpec, OptimizeFor, RoutingIntent
from trunkline_server.app import Parts, Service, build, serve, serve_shim
from trunkline_server.app_accounts import (
    AccountParts,
    build_accounts,
    check_database,
    first_admin_key,
    make_audit_key,
    upgrade_database,
    verify_audit,
)
from trunkline_server.app_state import check_state, state_url, upgrade_state
from trunkline_server.commands.accounts import add_account_commands
from trunkline_server.commands.cache import add_cache
from trunkline_server.commands.calling import (
    COMPLETION_TIMEOUT_S,
    DEFAULT_TARGET,
    KEY_VARIABLE,
    CommandError,
    new_client,
    target_arguments,
)
from trunkline_server.commands.classify import add_classify
from trunkline_server.commands.conversations import add_conversations
from trunkline_server.commands.genui import add_genui
from trunkline_server.commands.jobs import add_jobs
from trunkline_server.commands.panel import add_panel, show
from trunkline_server.commands.skills import add_skills
from trunkline_server.config import ConfigError, Settings, has_accounts, load
from trunkline_server.doctor import diagnose
from trunkline_server.initialise import require_accounts, write_configuration, write_pepper
from trunkline_server.scoring.command import DEFAULT_OUTPUT, ScoreOptions, score
from trunkline_server.scoring.panel_command import EvalOptions, evaluate
from trunkline_server.scoring.run import IN_FLIGHT, MAX_OUTPUT_TOKENS
from trunkline_server.workers import supervise


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.run is None:
        parser.print_help()
        return 2
    try:
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except ConfigError as error:
        for problem in error.problems:
            print(f"trunkline: {problem}", file=sys.stderr)
        return 2
    except CommandError as error:
        print(f"trunkline: {error}", file=sys.stderr)
        return 2
    except TrunklineError as error:
        print(f"trunkline: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trunkline", description="A self-hosted gateway for LLM completions."
    )
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND")
    target = target_arguments()
    _serving(commands)
    _calling(commands, target)
    add_cache(commands, [target])
    add_conversations(commands, [target])
    add_jobs(commands, [target])
    add_skills(commands, [target])
    audit = add_account_commands(commands, target)
    verify = audit.add_parser(
        "verify", help="check the log in the database against its hashes and signed checkpoints"
    )
    verify.add_argument("--config", metavar="FILE")
    verify.set_defaults(run=_audit_verify)
    add_classify(commands)
    add_genui(commands)
    _scoring(commands)
    add_panel(commands, [target], _panel_eval, MAX_OUTPUT_TOKENS, IN_FLIGHT)
    config = commands.add_parser("config", help="check a configuration").add_subparsers(
        metavar="check", required=True
    )
    check = config.add_parser("check", help="read the configuration and say what is wrong with it")
    check.add_argument("--config", metavar="FILE")
    check.set_defaults(run=_config_check)
    doctor = commands.add_parser(
        "doctor", help="what is configured, reachable and missing, and how to fix it"
    )
    doctor.add_argument("--config", metavar="FILE")
    doctor.add_argument("--offline", action="store_true", help="try no provider")
    doctor.set_defaults(run=_doctor)
    return parser


def _serving(commands: Any) -> None:
    server = commands.add_parser("serve", help="run the service")
    server.add_argument(
        "--config", metavar="FILE", help="default: trunkline.toml where there is one"
    )
    server.add_argument("--grpc", metavar="HOST:PORT")
    server.add_argument("--http", metavar="HOST:PORT")
    server.add_argument("--workers", type=int, metavar="N", help="processes that share both ports")
    server.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    server.set_defaults(run=_serve)
    init = commands.add_parser(
        "init", help="set up accounts, and print the first admin key: once, and alone on stdout"
    )
    init.add_argument("--config", metavar="FILE")
    init.add_argument("--organization", default="operators", help="that the key belongs to")
    init.add_argument("--another", action="store_true", help="although there is an admin key")
    init.set_defaults(run=_init)
    database = commands.add_parser(
        "db", help="the databases of accounts and of state"
    ).add_subparsers(metavar="upgrade", required=True)
    upgrade = database.add_parser("upgrade", help="bring it to the schema of this version")
    upgrade.add_argument("--config", metavar="FILE")
    upgrade.set_defaults(run=_db_upgrade)
    shim = commands.add_parser("shim", help="run the REST edge alone, against a remote service")
    shim.add_argument(
        "--target", required=True, metavar="HOST:PORT", help="the service's gRPC address"
    )
    shim.add_argument("--config", metavar="FILE", help="of which [server] counts here")
    shim.add_argument("--http", metavar="HOST:PORT", help="default: 127.0.0.1:8080")
    shim.add_argument("--tls", action="store_true", help="the service speaks TLS")
    shim.add_argument("--ca-file", metavar="FILE", help="who signed its certificate")
    shim.set_defaults(run=_shim)


def _calling(commands: Any, target: argparse.ArgumentParser) -> None:
    chat = commands.add_parser("chat", parents=[target], help="ask and read the answer as it comes")
    chat.add_argument("prompt", nargs="?", help="without one: a conversation, a line at a time")
    chat.add_argument("--model", default="")
    chat.add_argument("--system", default="")
    chat.add_argument("--temperature", type=float)
    chat.add_argument("--max-tokens", type=int)
    chat.set_defaults(run=_chat)
    route = commands.add_parser("route", parents=[target], help="who would answer, and why")
    route.add_argument("prompt", nargs="?", help="not needed, but its length and language count")
    route.add_argument("--model", default="")
    route.add_argument("--optimize-for", choices=["balanced", "accuracy", "latency", "cost"])
    route.add_argument("--language", default="", help="such as de; default: that of the prompt")
    route.add_argument("--region", default="", help="such as eu")
    route.add_argument(
        "--request-id", default="", metavar="ID", help="how it was decided for an earlier request"
    )
    route.set_defaults(run=_route)
    models = commands.add_parser("models", parents=[target], help="what can be asked for")
    models.set_defaults(run=_models)


def _scoring(commands: Any) -> None:
    scoring = commands.add_parser(
        "score", help="ask models what has one right answer, and store who knew it"
    )
    where = scoring.add_mutually_exclusive_group()
    where.add_argument("--config", metavar="FILE", help="whose models are asked")
    where.add_argument(
        "--target", metavar="HOST:PORT", default="", help="a running service, and its models"
    )
    scoring.add_argument("--tls", action="store_true", help="the service speaks TLS")
    scoring.add_argument("--models", nargs="+", default=[], metavar="NAME", help="default: all")
    scoring.add_argument(
        "--languages", nargs="+", default=[], metavar="de", help="default: all of the questions"
    )
    scoring.add_argument(
        "--region", default="", metavar="NAME", help="where this is, if scores are to differ by it"
    )
    scoring.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="ask everything N times"
    )
    scoring.add_argument(
        "--output", metavar="FILE", default=DEFAULT_OUTPUT, help=f"default: {DEFAULT_OUTPUT}"
    )
    scoring.add_argument("--yes", action="store_true", help="begin without a question")
    scoring.set_defaults(run=_score)


# serving


def _settings(arguments: argparse.Namespace) -> tuple[Settings, str]:
    flags = {
        "server.grpc": getattr(arguments, "grpc", None),
        "server.http": getattr(arguments, "http", None),
        "server.workers": getattr(arguments, "workers", None),
    }
    return load(arguments.config, os.environ, flags)


def _serve(arguments: argparse.Namespace) -> int:
    started_s = time.monotonic()
    settings, source = _settings(arguments)
    parts = build(settings, os.environ)
    if not arguments.worker:
        check_database(parts.accounts)
        if state := _own_state(parts.state_url, parts.accounts):
            check_state(state)
    if not parts.candidates:
        raise ConfigError(
            [
                "no model is enabled: set a provider's key, or install the extra `local`",
                *parts.missing,
            ]
        )
    if settings.server.workers > 1 and not arguments.worker:
        return supervise(
            settings,
            arguments.config,
            lambda s: _announce(s.server.grpc, s.server.http, parts, source, started_s),
        )

    def announce(service: Service) -> None:
        if not arguments.worker:
            _announce(service.grpc_address, service.http_address, parts, source, started_s)

    _run(lambda: serve(settings, parts, announce, watches_parent=arguments.worker))
    return 0


def _init(arguments: argparse.Namespace) -> int:
    settings, source = load(arguments.config, os.environ, {})
    if not has_accounts(settings):
        named = write_configuration(source)
        if not source:
            print(f"made {named}", file=sys.stderr)
            settings, source = load(named, os.environ, {})
    require_accounts(settings, source or "the environment")
    if made := write_pepper(settings):
        print(f"made {made}: keep it secret, and keep it: without it no key works", file=sys.stderr)
    parts = build_accounts(settings, os.environ)
    if made := make_audit_key(parts):
        print(
            f"made {made}: it signs the audit log; keep it off the database's disk", file=sys.stderr
        )
    for revision in upgrade_database(parts):
        print(f"database: applied {revision}", file=sys.stderr)
    if state := _own_state(state_url(settings, os.environ), parts):
        for revision in upgrade_state(state):
            print(f"database of state: applied {revision}", file=sys.stderr)
    key = asyncio.run(first_admin_key(parts, arguments.organization, is_another=arguments.another))
    print("the first admin key, which is not shown again:", file=sys.stderr)
    print(key, flush=True)
    print(f"use it: export {KEY_VARIABLE}=..., then trunkline serve, and", file=sys.stderr)
    print("  trunkline keys create --organization acme --name checkout", file=sys.stderr)
    return 0


def _audit_verify(arguments: argparse.Namespace) -> int:
    settings, _ = load(arguments.config, os.environ, {})
    report = asyncio.run(verify_audit(build_accounts(settings, os.environ)))
    for line in report.lines():
        print(line)
    return 0 if report.is_intact else 1


def _db_upgrade(arguments: argparse.Namespace) -> int:
    settings, _ = load(arguments.config, os.environ, {})
    accounts = build_accounts(settings, os.environ)
    state = _own_state(state_url(settings, os.environ), accounts)
    lines = []
    if accounts.secrets.database_url or not state:
        lines += [f"applied {revision}" for revision in upgrade_database(accounts)]
    if state:
        lines += [f"state: applied {revision}" for revision in upgrade_state(state)]
    print("\n".join(lines) or "up to date")
    return 0


def _own_state(url: str, accounts: AccountParts) -> str:
    """Where state is kept, if that is another database than that of accounts."""
    return "" if url == accounts.secrets.database_url else url


def _announce(
    grpc_address: str, http_address: str, parts: Parts, source: str, started_s: float
) -> None:
    enabled = sorted({candidate.provider for candidate in parts.candidates})
    print(
        f"trunkline: gRPC on {grpc_address}, HTTP on {http_address}, configuration: {source or 'defaults'}"
    )
    print(
        f"enabled: {', '.join(enabled)} ({len(parts.candidates)} models, {len(parts.routes)} routes)"
    )
    for missing in parts.missing:
        print(f"missing: {missing}")
    if not parts.state_url:
        # Several workers would each have a place of their own, which nobody could find anything in.
        is_kept = parts.accounts.workers == 1
        word = "kept until it stops" if is_kept else "not served"
        what = "conversations, installed skills, jobs"
        print(f"{word}, because no database is configured ([state] database_url): {what}")
    print(f"ready after {time.monotonic() - started_s:.1f} s. Try:")
    question = "What is the capital of France? Answer in one sentence."
    target = "" if grpc_address == DEFAULT_TARGET else f" --target {grpc_address}"
    body = (
        '{"model":"auto","temperature":0,"messages":[{"role":"user","content":"' + question + '"}]}'
    )
    program = _program()
    print(f"  {program} chat{target} --temperature 0 {question!r}")
    print(
        f"  curl -s http://{http_address}/v1/chat/completions -H 'content-type: application/json' -d '{body}'"
    )
    print(f"  {program} models{target}", flush=True)


def _program() -> str:
    """How this command was called, so that what is printed can be pasted back."""
    name = sys.argv[0]
    return name if name.endswith("/trunkline") else "trunkline"


def _shim(arguments: argparse.Namespace) -> int:
    settings, _ = _settings(arguments)

    def announce(address: str) -> None:
        print(f"trunkline: HTTP on {address}, service at {arguments.target}", flush=True)

    tls = arguments.tls or arguments.ca_file is not None
    _run(
        lambda: serve_shim(
            settings.server, arguments.target, announce, tls=tls, ca_file=arguments.ca_file
        )
    )
    return 0


def _run(main: Callable[[], Any]) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


# calling


def _client(arguments: argparse.Namespace) -> Client:
    return new_client(arguments, COMPLETION_TIMEOUT_S)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {"model": arguments.model}
    if arguments.system:
        options["system_prompt"] = arguments.system
    if arguments.temperature is not None:
        options["temperature"] = arguments.temperature
    if arguments.max_tokens is not None:
        options["max_output_tokens"] = arguments.max_tokens
    return options


def _chat(arguments: argparse.Namespace) -> int:
    options = _options(arguments)
    with _client(arguments) as client:
        if arguments.prompt is not None:
            _answer(client, [trunkline.user(arguments.prompt)], options)
            return 0
        history: list[Any] = []
        while True:
            try:
                line = input("> ").strip()
            except EOFError:
                print()
                return 0
            if line:
                history.append(trunkline.user(line))
                history += _answer(client, history, options)


def _answer(client: Client, messages: list[Any], options: dict[str, Any]) -> list[Any]:
    with client.stream(messages, **options) as stream:
        for piece in stream.text_deltas():
            print(piece, end="", flush=True)
        completion = stream.completion()
    route, usage = completion.route, completion.usage
    print(
        f"\n[{route.provider}/{route.model}, {usage.input_tokens} + {usage.output_tokens} tokens]",
        file=sys.stderr,
    )
    return list(trunkline.turns(completion))


def _route(arguments: argparse.Namespace) -> int:
    intent = RoutingIntent(language=arguments.language, region=arguments.region)
    if arguments.optimize_for:
        intent.optimize_for = OptimizeFor.Value(f"OPTIMIZE_FOR_{arguments.optimize_for.upper()}")
    spec = CompletionSpec(model=arguments.model, intent=intent)
    if arguments.prompt is not None:
        spec.messages.append(trunkline.user(arguments.prompt))
    with _client(arguments) as client:
        if arguments.request_id:
            preview = client.preview_route(request_id=arguments.request_id)
        else:
            preview = client.preview_route(spec=spec)
    if preview.scores_run_id:
        place = f"{preview.language or 'any language'}, {preview.region}"
        print(f"scores of {preview.scores_run_id} ({place})")
    if preview.explored:
        print("the first is not thought to be the best, but asked to learn about it")
    for position, candidate in enumerate(preview.candidates, start=1):
        name = f"{candidate.provider}/{candidate.model}"
        if not candidate.eligible:
            print(f" -. {name:44} {candidate.exclusion_reason}")
        elif candidate.HasField("score"):
            terms = f"accuracy {candidate.accuracy:.3f}  latency {candidate.latency:.3f}  cost {candidate.cost:.3f}"
            print(f"{position:2}. {name:44} {candidate.score:.3f}  {terms}")
        else:
            print(f"{position:2}. {name}")
    return 0


KINDS = {ModelKind.MODEL_KIND_PANEL: "panel", ModelKind.MODEL_KIND_MODE: "mode"}


def _models(arguments: argparse.Namespace) -> int:
    with _client(arguments) as client:
        for model in client.list_models():
            aliases = f"  ({', '.join(model.aliases)})" if model.aliases else ""
            kind = KINDS.get(model.kind, "route")
            print(f"{model.id:40} {model.provider or kind:14}{aliases}")
    return 0


def _score(arguments: argparse.Namespace) -> int:
    options = ScoreOptions(
        config=arguments.config,
        target=arguments.target,
        tls=arguments.tls,
        models=arguments.models,
        languages=arguments.languages,
        region=arguments.region,
        repeat=arguments.repeat,
        output=arguments.output,
        yes=arguments.yes,
    )
    return score(options, os.environ, os.environ.get(KEY_VARIABLE) or None)


def _panel_eval(arguments: argparse.Namespace) -> int:
    options = EvalOptions(
        target=arguments.target,
        tls=arguments.tls,
        models=[name for names in arguments.models for name in names],
        panels=[name for names in arguments.panels for name in names],
        questions=arguments.questions,
        limit=arguments.limit,
        repeat=arguments.repeat,
        concurrency=arguments.concurrency,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        json=arguments.json,
        plot=arguments.plot,
        yes=arguments.yes,
    )
    return evaluate(options, os.environ.get(KEY_VARIABLE) or None, show)


# configuration


def _config_check(arguments: argparse.Namespace) -> int:
    settings, source = load(arguments.config, os.environ, {})
    parts = build(settings, os.environ)
    for missing in parts.missing:
        print(f"missing: {missing}")
    counts = f"{len(parts.providers)} providers, {len(parts.candidates)} models, {len(parts.routes)} routes"
    print(f"{source or 'no file'}: {counts}")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    settings, source = load(arguments.config, os.environ, {})
    return diagnose(settings, source, os.environ, tries=not arguments.offline)
