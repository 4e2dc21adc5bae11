"""File and environment to one frozen `Settings`, read once and checked at start.

Order: `trunkline.toml` (or --config), then environment variables `TRUNKLINE_<SECTION>_<KEY>`, then flags. Unknown keys
are refused with the nearest known one. Secrets come by reference only.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from trunkline_server.core.candidate import Capability
from trunkline_server.core.panels import (
    DEFAULT_PANEL_IDS,
    DEFAULT_SIZE,
    MAX_ESCALATIONS,
    MAX_PROPOSERS,
    Trigger,
)
from trunkline_server.core.validation import TOOL_NAME

DEFAULT_FILE: Final = "trunkline.toml"
PREFIX: Final = "TRUNKLINE_"
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_SECRET_CHARS: Final = 4096
ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}\Z")
URL_TEXT: Final = re.compile(r"[A-Za-z0-9._~:/\[\]@!$&'()*+,;=%-]+\Z")
REGION: Final = re.compile(r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}\Z")
PROVIDER_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")

EMBEDDED_NAMES: Final = frozenset({"local", "smollm2-135m", "local/smollm2-135m"})

Seconds = Annotated[float, Meta(gt=0, le=3600)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
AccountName = Annotated[str, Meta(pattern="^([A-Za-z0-9][A-Za-z0-9._@-]{0,63})?$")]
CriticalityName = Literal["batch", "standard", "interactive"]
Usd = Annotated[float, Meta(ge=0, le=1_000_000)]


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`"""

    grpc: str = "127.0.0.1:50051"
    http: str = "127.0.0.1:8080"
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    tls_cert_file: str = ""
    tls_key_file: str = ""
    drain_s: Annotated[float, Meta(ge=0, le=600)] = 60.0
    lb_grace_s: Annotated[float, Meta(ge=0, le=60)] | None = None
    heartbeat_s: Annotated[float, Meta(ge=0.1, le=300)] = 15.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class LimitsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[limits]`"""

    max_in_flight: Annotated[int, Meta(ge=1, le=100_000)] = 2_000
    max_waiting: Annotated[int, Meta(ge=0, le=10_000)] = 128
    memory_bytes: Annotated[int, Meta(ge=64 * 1024 * 1024)] | None = None


class LocalSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[local]`: the embedded model."""

    enabled: bool = True
    model_path: str = ""
    preload: bool = False
    threads: Annotated[int, Meta(ge=1, le=256)] | None = None
    slots: Annotated[int, Meta(ge=1, le=64)] = 4
    slot_tokens: Annotated[int, Meta(ge=256, le=1_000_000)] = 4096


class KeySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[keys]]`: a caller's key."""

    id: Name
    key_env: str = ""
    key_file: str = ""
    organization: AccountName = ""
    project: AccountName = ""
    plan: str = "default"
    scopes: tuple[Literal["complete", "read", "admin"], ...] = ("complete", "read")
    criticality: CriticalityName | None = None


class AccountsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[accounts]`: where keys, credits and usage are kept. Without a database there are none."""

    database_url: str = ""
    database_url_env: str = ""
    redis_url: str = ""
    redis_url_env: str = ""
    pepper_env: str = ""
    pepper_file: str = ""
    environment: Annotated[str, Meta(pattern="^[a-z0-9]{1,16}$")] = "live"
    progress_dir: str = ""
    replicas: Annotated[int, Meta(ge=1, le=1_000)] = 1
    audit_key_file: str = ""
    audit_public_key_files: list[str] = []
    audit_checkpoint_file: str = ""
    alert_url: str = ""
    alert_secret_env: str = ""
    alert_secret_file: str = ""


class PlanSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[plans]]`: what keys of a plan may do."""

    id: Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    requests_per_second: Annotated[float, Meta(ge=0.02, le=1_000_000)] | None = None
    burst: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    tokens_per_minute: Annotated[int, Meta(ge=1, le=10**12)] | None = None
    concurrency: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    routes: list[Name] | None = None
    modes: list[Name] | None = None
    max_deadline_s: Annotated[float, Meta(ge=1, le=600)] = 600.0
    criticality: CriticalityName = "standard"
    prepaid: bool = False
    refuse_unknown_price: bool = True


class BudgetSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[budgets]]`: what may be spent in a day or a month. `warn_at`: a share of it, 0 to 1."""

    id: Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    organization: Name
    limit_usd: Annotated[float, Meta(ge=0, le=100_000_000)]
    period: Literal["day", "month"] = "month"
    project: str = ""
    key: str = ""
    hard: bool = True
    warn_at: Annotated[float, Meta(gt=0, le=1)] | None = 0.8


class ProviderSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[providers]]`"""

    id: Name
    dialect: str = ""
    base_url: str = ""
    api_key_env: str = ""
    api_key_file: str = ""
    token_file: str = ""
    ca_file: str = ""
    api_version: str = ""
    region: str = ""
    headers: dict[str, str] = {}
    enabled: bool = True
    first_token_timeout_s: Seconds | None = None
    idle_timeout_s: Seconds | None = None
    max_concurrency: Annotated[int, Meta(ge=1, le=100_000)] = 1_024
    drain_on_disconnect: bool = False


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[models]]`: a deployment. Prices in US dollars per million tokens."""

    id: Name
    provider: Name
    model: str = ""
    aliases: list[Name] = []
    modes: list[Name] = []
    capabilities: list[Capability] | None = None
    scores: dict[Literal["accuracy", "latency", "cost"], Annotated[float, Meta(ge=0, le=1)]] = {}
    fallbacks: list[Name] = []
    label: str = ""
    description: str = ""
    regions: list[Name] = []
    context_window_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    input_price: Usd | None = None
    output_price: Usd | None = None
    cached_input_price: Usd | None = None
    first_token_timeout_s: Seconds | None = None
    idle_timeout_s: Seconds | None = None
    max_concurrency: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    prefill: bool | None = None
    enabled: bool = True


class PanelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`panel` of `[[routes]]`. Without `proposers` the best `size` of all models propose."""

    proposers: Annotated[list[Name], Meta(max_length=MAX_PROPOSERS)] = []
    size: Annotated[int, Meta(ge=1, le=MAX_PROPOSERS)] | None = None
    quorum: Annotated[int, Meta(ge=1, le=MAX_PROPOSERS)] | None = None
    grace_share: Annotated[float, Meta(ge=0, le=10)] = 0.25
    grace_s: Annotated[float, Meta(ge=0, le=60)] = 1.5
    deadline_s: Annotated[float, Meta(ge=0.1, le=300)] = 20.0
    aggregator: str = ""
    critique: bool = False
    early_stop: bool = False
    proposal_tokens: Annotated[int, Meta(ge=16, le=65_536)] = 4_096
    optimize_for: Literal["balanced", "accuracy", "latency", "cost"] = "balanced"


class RouteSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[routes]]`"""

    id: Name
    candidates: Annotated[list[Name], Meta(max_length=64)] = []
    strategy: Literal["ranked", "ordered", "weighted"] = "ranked"
    weights: list[Annotated[float, Meta(ge=0, le=1_000_000)]] = []
    fallbacks: list[Name] = []
    recovery: Literal["terminate", "continue"] = "terminate"
    hedge: bool = False
    label: str = ""
    description: str = ""
    plans: list[Name] | None = None
    panel: PanelSettings | None = None
    escalate_to: str = ""
    escalate_on: list[Trigger] | None = None
    max_escalations: Annotated[int, Meta(ge=0, le=MAX_ESCALATIONS)] = 1


class SecretSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[secrets.NAME]`: a secret that tools refer to by its name. `hosts`: the only ones that it may go to."""

    env: str = ""
    file: str = ""
    hosts: list[Name] = []


class McpServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[mcp_servers]]`: by address, or a command that is started here."""

    id: Name
    url: str = ""
    auth_headers: dict[str, Name] = {}
    command: list[Name] = []
    env: dict[str, Name] = {}
    allow_private: bool = False


class ToolSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[tools]]`: a tool that the gateway runs: a webhook (`url`), a builtin, or one of an MCP server.

    Secrets are named, never given: `secret` signs, `auth_headers` go from header to secret.
    """

    name: Name
    description: str = ""
    parameters: dict[str, Any] = {}
    url: str = ""
    secret: str = ""
    headers: dict[str, str] = {}
    auth_headers: dict[str, Name] = {}
    response_mode: Literal["sync", "async"] = "sync"
    async_ack: str = ""
    builtin: str = ""
    config: dict[str, Any] = {}
    mcp_server: str = ""
    mcp_tool: str = ""
    timeout_s: Annotated[float, Meta(gt=0, le=60)] | None = None
    idempotent: bool = False
    exclusive: bool = False


class ModeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[modes]]`: a kind of work, or changes to one that ships. What is left out stays as it ships."""

    id: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")]
    models: list[Name] | None = None
    route: str | None = None
    engine: str | None = None
    label: str | None = None
    description: str | None = None
    system_prompt: Annotated[str, Meta(max_length=65_536)] | None = None
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    max_hops: Annotated[int, Meta(ge=1, le=20)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=10**9)] | None = None
    max_cost_usd: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    max_s: Annotated[float, Meta(gt=0, le=3600)] | None = None
    tools: list[Name] | None = None
    cache_s: Annotated[float, Meta(ge=0, le=30 * 86_400)] | None = None
    artifacts: list[Literal["code", "document", "image"]] | None = None
    follow_ups: bool | None = None
    enabled: bool = True


class ClassifierSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[classifier]`: how the mode `auto` is resolved. `promote`: an explicit mode may be overridden, too."""

    embedding: bool = True
    promote: bool = False


class PersonaSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[personas.NAME]`: who answers, in words or in a file of them."""

    system_prompt: Annotated[str, Meta(max_length=65_536)] = ""
    file: str = ""


class SkillsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[skills]`: a folder of skills beside, or instead of, those that ship."""

    directory: str = ""
    bundled: bool = True


class GenuiSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[genui]`: a folder of component libraries beside the one that ships, and which of them is meant by default."""

    directory: str = ""
    default: str = ""


class StateSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[state]`: where conversations, installed skills, cached answers and jobs are kept.

    In the database of `[accounts]` where there is one, else in one that goes with the process, unless one is named.
    """

    database_url: str = ""
    database_url_env: str = ""


class ConversationsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[conversations]`"""

    keep_days: Annotated[float, Meta(gt=0, le=36_500)] | None = None
    max_messages: Annotated[int, Meta(ge=2, le=10_000)] = 10_000


class CacheSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[cache]`: answers that are given again."""

    exact: bool = True
    semantic: Literal["off", "shadow", "on"] = "off"
    shared: bool = True  # Between the users of an organisation.
    max_entries: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    max_entry_bytes: Annotated[int, Meta(ge=1_024, le=16 * 1024 * 1024)] = 256 * 1024
    keep_s: Annotated[float, Meta(gt=0, le=30 * 86_400)] = 3_600.0
    similarity: Annotated[float, Meta(ge=0.5, le=1)] = 0.95
    max_false_hits: Annotated[float, Meta(gt=0, lt=1)] = 0.02


class JobsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[jobs]`: work that outlives a call. Without a database of its own it has one beside that of `[state]`."""

    database_url: str = ""
    database_url_env: str = ""
    max_running: Annotated[int, Meta(ge=1, le=1_000)] = 8
    max_queued: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    max_s: Annotated[float, Meta(ge=1, le=86_400)] = 1_800.0
    keep_days: Annotated[float, Meta(gt=0, le=3_650)] = 7.0
    callback_secret: str = ""
    video_url: str = ""
    video_api_key_env: str = ""
    video_model: str = ""


class RoutingSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[routing]`: who is asked first."""

    learn: bool = True
    default_panels: bool = True
    default_language: Annotated[str, Meta(pattern="^([a-z]{2,3})?$")] = ""


class ScoringSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[scoring]`: what is known of models before any of them was asked."""

    file: str = ""
    starter: bool = True


class EgressSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[egress]`: where addresses that users can influence may lead."""

    allowed_hosts: list[
        Name
    ] = []  # HOST or HOST:PORT inside: exempt from the check of addresses, and from https.
    ca_file: str = ""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """All of it. `source` names the file it came from, for messages."""

    server: ServerSettings = ServerSettings()
    limits: LimitsSettings = LimitsSettings()
    local: LocalSettings = LocalSettings()
    accounts: AccountsSettings = AccountsSettings()
    keys: list[KeySettings] = []
    plans: list[PlanSettings] = []
    budgets: list[BudgetSettings] = []
    providers: list[ProviderSettings] | None = None
    models: list[ModelSettings] | None = None
    routes: list[RouteSettings] = []
    routing: RoutingSettings = RoutingSettings()
    scoring: ScoringSettings = ScoringSettings()
    tools: list[ToolSettings] = []
    mcp_servers: list[McpServerSettings] = []
    secrets: dict[Name, SecretSettings] = {}
    egress: EgressSettings = EgressSettings()
    state: StateSettings = StateSettings()
    modes: list[ModeSettings] = []
    classifier: ClassifierSettings = ClassifierSettings()
    personas: dict[Name, PersonaSettings] = {}
    skills: SkillsSettings = SkillsSettings()
    genui: GenuiSettings = GenuiSettings()
    conversations: ConversationsSettings = ConversationsSettings()
    cache: CacheSettings = CacheSettings()
    jobs: JobsSettings = JobsSettings()


class ConfigError(Exception):
    """The configuration can't be used. `problems` says each reason in a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def load(
    path: str | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> tuple[Settings, str]:
    """Settings, and the file they came from (empty when there was none).

    Args:
        path: from --config; without it `TRUNKLINE_CONFIG`, then `trunkline.toml` when there is one.
        flags: by dotted key such as `server.grpc`; None for a flag that was not given.

    Raises:
        ConfigError.
    """
    named = path or environment.get(f"{PREFIX}CONFIG")
    source = named or (DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else "")
    tree = _read(source) if source else {}
    problems = list(_unknown_keys(tree, Settings, ""))
    problems += _merge_environment(tree, environment)
    if problems:
        raise ConfigError(problems)
    for dotted, value in flags.items():
        if value is not None:
            section, key = dotted.split(".")
            _set(tree, section, key, value)
    try:
        settings = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(
            [str(error).replace("`$.", "`").replace(" - at `", ": ").rstrip("`")]
        ) from error
    problems = list(_inconsistencies(settings))
    if problems:
        raise ConfigError(problems)
    return settings, source


def secret(environment: Mapping[str, str], variable: str, file: str) -> str:
    """The secret that a reference stands for; empty when the variable is not set.

    Raises:
        ConfigError: the file can't be read, or what is there is no secret.
    """
    if file:
        try:
            value = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                [f"the secret file {file} can't be read: {type(error).__name__}"]
            ) from error
        origin = file
    else:
        value, origin = environment.get(variable, "").strip(), variable
    if len(value) > MAX_SECRET_CHARS or not value.isascii() or (value and not value.isprintable()):
        raise ConfigError(
            [f"the secret in {origin} is too long or holds characters that no header can carry"]
        )
    return value


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[HOST]:PORT`.

    Raises:
        ConfigError.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not re.match(r"[0-9]{1,5}\Z", port) or int(port) > 65535:
        raise ConfigError([f"{address!r} is no HOST:PORT"])
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(address: str) -> bool:
    """Can only this machine reach it?"""
    if address.startswith("unix:"):
        return True
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(source: str) -> dict[str, Any]:
    try:
        data = Path(source).read_bytes()
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError([f"{source} is larger than {MAX_FILE_BYTES} bytes"])
        return tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise ConfigError([f"{source} can't be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{source} is no TOML: {error}"]) from error


def _unknown_keys(tree: Mapping[str, Any], struct: type[Struct], where: str) -> Iterator[str]:
    known = struct.__struct_fields__
    hints = get_type_hints(struct)
    for key, value in tree.items():
        if key not in known:
            nearest = difflib.get_close_matches(key, known, 1, 0.4)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            yield f"unknown key {where}{key!r}{hint}"
            continue
        inner = next((t for t in (hints[key], *_arguments(hints[key])) if _is_struct(t)), None)
        if inner is None:
            continue
        if isinstance(value, dict) and get_origin(hints[key]) is dict:  # Its keys are names.
            for name, item in value.items():
                if isinstance(item, dict):
                    yield from _unknown_keys(item, inner, f"{where}{key}.{name}.")
        elif isinstance(value, dict):
            yield from _unknown_keys(value, inner, f"{where}{key}.")
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, dict):
                    yield from _unknown_keys(item, inner, f"{where}{key}[{i}].")


def _arguments(hint: Any) -> list[Any]:
    return [t for a in get_args(hint) for t in (a, *get_args(a))]


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Struct)


_SECTIONS: Final = {
    "SERVER": ServerSettings,
    "LIMITS": LimitsSettings,
    "LOCAL": LocalSettings,
    "ROUTING": RoutingSettings,
    "SCORING": ScoringSettings,
    "ACCOUNTS": AccountsSettings,
}


def _merge_environment(tree: dict[str, Any], environment: Mapping[str, str]) -> Iterator[str]:
    """Variables of the plain sections. Values are written as in TOML; a bare word is a string."""
    for variable, text in sorted(environment.items()):
        section, _, key = variable.removeprefix(PREFIX).partition("_")
        if not variable.startswith(PREFIX) or section not in _SECTIONS:
            continue
        fields = _SECTIONS[section].__struct_fields__
        if key.lower() not in fields:
            nearest = difflib.get_close_matches(key.lower(), fields, 1, 0.4)
            hint = f"; did you mean {PREFIX}{section}_{nearest[0].upper()}?" if nearest else ""
            yield f"unknown variable {variable}{hint}"
            continue
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        _set(tree, section.lower(), key.lower(), value)


def _set(tree: dict[str, Any], section: str, key: str, value: Any) -> None:
    table = tree.setdefault(section, {})
    if isinstance(table, dict):  # Otherwise the check of types says what is wrong with it.
        table[key] = value


def _inconsistencies(settings: Settings) -> Iterator[str]:
    yield from _server_problems(settings)
    providers = [p.id for p in settings.providers or ()]
    yield from _twice("providers", providers)
    for provider in settings.providers or ():
        yield from _provider_problems(provider)
    names: dict[str, str] = {}
    keys = set()
    for model in settings.models or ():
        if not ID.match(model.id):
            yield f"models: {model.id!r} is no id: letters, digits and . _ : @ / - only"
        if model.provider == "local":
            yield f"models: {model.id!r}: the embedded model is configured by [local], and always there as 'local'"
        elif model.provider not in providers:
            nearest = difflib.get_close_matches(model.provider, providers, 1, 0.4)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            yield f"models: {model.id!r} names the unknown provider {model.provider!r}{hint}"
        if (model.provider, model.id) in keys:
            yield f"models: {model.provider}/{model.id} is there twice"
        keys.add((model.provider, model.id))
        for name in (model.id, *model.aliases):
            if names.setdefault(name, model.id) != model.id:
                yield f"models: {name!r} stands for both {names[name]!r} and {model.id!r}"
    known = set(names) | {f"{p}/{m}" for p, m in keys}
    yield from _twice("routes", [r.id for r in settings.routes])
    for route in settings.routes:
        if route.id in names or route.id == "auto" or not ID.match(route.id):
            yield f"routes: {route.id!r} is a model's name already, reserved, or no id"
        if route.strategy == "weighted" and len(route.weights) != len(route.candidates):
            yield f"routes: {route.id!r} needs one weight for each of its candidates"
        elif route.strategy == "weighted" and not any(route.weights):
            yield f"routes: {route.id!r} needs a weight above 0"
        elif route.strategy != "weighted" and route.weights:
            yield f"routes: {route.id!r} has weights, which only the strategy 'weighted' uses"
        yield from _panel_problems(route, settings)
        if settings.models is not None:
            named = [*route.candidates, *route.fallbacks]
            if route.panel is not None:
                named += [*route.panel.proposers, *filter(None, [route.panel.aggregator])]
            yield from _references(f"routes: {route.id!r}", named, known)
    for model in settings.models or ():
        yield from _references(f"models: {model.id!r}", model.fallbacks, known)
    yield from _tool_problems(settings)
    yield from _job_problems(settings)
    yield from _orchestration_problems(settings)


def _orchestration_problems(settings: Settings) -> Iterator[str]:
    """Modes, personas, and where things are kept."""
    yield from _twice("modes", [mode.id for mode in settings.modes])
    tools = {tool.name for tool in settings.tools}
    routes = {route.id for route in settings.routes} | DEFAULT_PANEL_IDS
    for mode in settings.modes:
        where = f"modes: {mode.id!r}"
        if mode.id == "auto":
            yield f"{where} is reserved: it stands for the mode that fits"
        if mode.models and mode.route:
            yield f"{where} has both models and a route"
        if mode.route and mode.route not in routes:
            yield f"{where} names the unknown route {mode.route!r}"
        for name in mode.tools or ():
            if name not in tools:
                yield f"{where} names the unknown tool {name!r}"
    for name, persona in settings.personas.items():
        if bool(persona.system_prompt) == bool(persona.file):
            yield f"personas: {name!r} needs either a system_prompt or a file"
        if name == "none":
            yield "personas: 'none' is reserved: it stands for a model without any"
        if persona.file and not os.path.isfile(persona.file):
            yield f"personas: {persona.file} does not exist"
    for section, folder in (
        ("skills", settings.skills.directory),
        ("genui", settings.genui.directory),
    ):
        if folder and not os.path.isdir(folder):
            yield f"{section}.directory: {folder} is no folder"
    for section, place in (("state", settings.state), ("jobs", settings.jobs)):
        if place.database_url and place.database_url_env:
            yield f"{section} has both database_url and database_url_env"
        if place.database_url and urlsplit(place.database_url).password:
            yield (
                f"{section}.database_url holds a password: put it into a variable, and name that by database_url_env"
            )
        if place.database_url.startswith("sqlite:") and settings.server.workers > 1:
            yield f"server.workers: with {section} in SQLite only 1; more need PostgreSQL"


def _job_problems(settings: Settings) -> Iterator[str]:
    jobs = settings.jobs
    yield from _secret_problems("jobs.callback_secret", [jobs.callback_secret], settings)
    parts = urlsplit(jobs.video_url)
    if jobs.video_url and (parts.scheme not in ("http", "https") or not parts.hostname):
        yield "jobs.video_url must be http(s)://HOST[:PORT][/PATH]"
    if jobs.video_api_key_env and not jobs.video_url:
        yield "jobs: video_api_key_env goes together with video_url"


def _panel_problems(route: RouteSettings, settings: Settings) -> Iterator[str]:
    panel = route.panel
    where = f"routes: {route.id!r}"
    if panel is None:
        if not route.candidates:
            yield f"{where} needs candidates, or a panel"
        if route.escalate_to or route.escalate_on is not None:
            yield f"{where}: only a panel escalates"
        return
    if route.candidates:
        yield f"{where}: a panel names its proposers, not candidates"
    if panel.proposers and panel.size is not None and panel.size != len(panel.proposers):
        yield f"{where}: size is not the number of proposers"
    size = len(panel.proposers) or panel.size or DEFAULT_SIZE
    if panel.quorum is not None and panel.quorum > size:
        yield f"{where}: a quorum of {panel.quorum} of {size} proposers is never reached"
    panels = {r.id for r in settings.routes if r.panel is not None} | DEFAULT_PANEL_IDS
    if route.escalate_to == route.id:
        yield f"{where} can't escalate to itself"
    elif route.escalate_to and route.escalate_to not in panels:
        yield f"{where}: escalate_to: {route.escalate_to!r} is no panel"


def _tool_problems(settings: Settings) -> Iterator[str]:
    for name, secret_of in settings.secrets.items():
        if bool(secret_of.env) == bool(secret_of.file):
            yield f"secrets: {name!r} needs either env or file"
    servers = [server.id for server in settings.mcp_servers]
    yield from _twice("mcp_servers", servers)
    for server in settings.mcp_servers:
        if bool(server.url) == bool(server.command):
            yield f"mcp_servers: {server.id!r} needs either url or command"
        used = [*server.auth_headers.values(), *server.env.values()]
        yield from _secret_problems(f"mcp_servers: {server.id!r}", used, settings)
    yield from _twice("tools", [tool.name for tool in settings.tools])
    for tool in settings.tools:
        where = f"tools: {tool.name!r}"
        if not TOOL_NAME.match(tool.name):
            yield f"{where} is no name: letters, digits, _ and - only, at most 64"
        if [bool(tool.url), bool(tool.builtin), bool(tool.mcp_server)].count(True) != 1:
            yield f"{where} needs one of url, builtin and mcp_server"
        if tool.mcp_server and tool.mcp_server not in servers:
            yield f"{where} names the unknown MCP server {tool.mcp_server!r}"
        used = [tool.secret, *tool.auth_headers.values()]
        yield from _secret_problems(where, used, settings)
    if settings.egress.ca_file and not os.path.isfile(settings.egress.ca_file):
        yield f"egress: {settings.egress.ca_file} does not exist"


def _secret_problems(where: str, used: list[str], settings: Settings) -> Iterator[str]:
    for name in used:
        if name and name not in settings.secrets:
            nearest = difflib.get_close_matches(name, settings.secrets, 1, 0.4)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            yield f"{where} names the unknown secret {name!r}{hint}"


def _references(where: str, used: list[str], known: set[str]) -> Iterator[str]:
    for name in used:
        if name not in known and name not in EMBEDDED_NAMES:
            nearest = difflib.get_close_matches(name, known, 1, 0.4)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            yield f"{where} names the unknown model {name!r}{hint}"


def _twice(what: str, ids: list[str]) -> Iterator[str]:
    for duplicate in sorted({i for i in ids if ids.count(i) > 1}):
        yield f"{what}: {duplicate!r} is there twice"


def _server_problems(settings: Settings) -> Iterator[str]:
    server = settings.server
    for field in ("grpc", "http"):
        address = getattr(server, field)
        if field == "grpc" and address.startswith("unix:"):
            if server.workers > 1:
                yield "server.workers: a Unix socket can't be shared, so only 1 with server.grpc at unix:"
            continue
        try:
            split_address(address)
        except ConfigError as error:
            yield f"server.{field}: {error.problems[0]}"
            continue
        if not settings.keys and not has_accounts(settings) and not is_loopback(address):
            yield (
                f"server.{field}: {address} is open to other machines, and without [[keys]] everyone may use it; "
                "add a key or listen on 127.0.0.1"
            )
    if bool(server.tls_cert_file) != bool(server.tls_key_file):
        yield "server: tls_cert_file and tls_key_file go together"
    for file in (server.tls_cert_file, server.tls_key_file, settings.local.model_path):
        if file and not os.path.isfile(file):
            yield f"{file} does not exist"
    yield from _account_problems(settings)
    yield from _twice("keys", [key.id for key in settings.keys])
    for key in settings.keys:
        if bool(key.key_env) == bool(key.key_file):
            yield f"keys: {key.id!r} needs either key_env or key_file"


def has_accounts(settings: Settings) -> bool:
    """Is there a database of keys and credits?"""
    return bool(settings.accounts.database_url or settings.accounts.database_url_env)


def _account_problems(settings: Settings) -> Iterator[str]:
    accounts = settings.accounts
    for name in ("database_url", "redis_url"):
        url = getattr(accounts, name)
        if url and getattr(accounts, f"{name}_env"):
            yield f"accounts has both {name} and {name}_env"
        if url and urlsplit(url).password:
            yield f"accounts.{name} holds a password: put it into a variable, and name that by {name}_env"
    if accounts.pepper_env and accounts.pepper_file:
        yield "accounts has both pepper_env and pepper_file"
    if bool(accounts.alert_url) != bool(accounts.alert_secret_env or accounts.alert_secret_file):
        yield "accounts: alert_url goes together with alert_secret_env or alert_secret_file"
    if has_accounts(settings) and not (accounts.pepper_env or accounts.pepper_file):
        yield "accounts needs a pepper_file or a pepper_env; `trunkline init` makes one"
    if accounts.database_url.startswith("sqlite:") and settings.server.workers > 1:
        yield "server.workers: with accounts in SQLite only 1; more need PostgreSQL (accounts.database_url_env)"
    yield from _twice("plans", [plan.id for plan in settings.plans])
    yield from _twice("budgets", [budget.id for budget in settings.budgets])
    if settings.budgets and not has_accounts(settings):
        yield "budgets need [accounts] with a database"
    for plan in settings.plans:
        if plan.prepaid and not has_accounts(settings):
            yield f"plans: {plan.id!r} is prepaid, which needs [accounts] with a database"


def _provider_problems(provider: ProviderSettings) -> Iterator[str]:
    if not PROVIDER_ID.match(provider.id) or provider.id == "local":
        yield f"providers: {provider.id!r} is reserved or no id: lower-case letters, digits, _ and - only"
    references = ("api_key_env", "api_key_file", "token_file")
    given = [name for name in references if getattr(provider, name)]
    if len(given) > 1:
        yield f"providers: {provider.id!r} has both {' and '.join(given)}"
    if provider.region and not REGION.match(provider.region):
        yield f"providers: {provider.id!r}: {provider.region!r} is no region, such as us-east-1"
    if provider.ca_file and not os.path.isfile(provider.ca_file):
        yield f"providers: {provider.ca_file} does not exist"
    if provider.base_url:
        parts = urlsplit(provider.base_url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
            or parts.username
            or not URL_TEXT.match(provider.base_url)
        ):
            yield f"providers: {provider.id!r}: base_url must be http(s)://HOST[:PORT][/PATH]"
    for name, value in provider.headers.items():
        if (
            not re.match(r"[A-Za-z0-9-]{1,64}\Z", name)
            or not value.isascii()
            or not value.isprintable()
        ):
            yield f"providers: {provider.id!r}: {name[:64]!r} is no header"
