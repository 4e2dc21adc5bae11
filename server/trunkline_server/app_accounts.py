"""The part of the composition root that accounts need: from their settings to a storage, books, access and limits."""

import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from trunkline_server.accounts import keys
from trunkline_server.accounts.access import Access
from trunkline_server.accounts.administration import Administration, NewKey
from trunkline_server.accounts.alerts import Alerts
from trunkline_server.accounts.audit_checkpoints import CheckpointSigner
from trunkline_server.accounts.audit_keys import UnusableKey, create_key, load_signer
from trunkline_server.accounts.audit_seal import AuditSeal
from trunkline_server.accounts.audit_verify import AuditReport, verify_with
from trunkline_server.accounts.books import Books
from trunkline_server.accounts.budgets import Budget, Budgets
from trunkline_server.accounts.callers import Callers, StaticKey
from trunkline_server.accounts.keys import Key
from trunkline_server.config import (
    AccountsSettings,
    ConfigError,
    KeySettings,
    PlanSettings,
    Settings,
    secret,
)
from trunkline_server.core.errors import StorageUnavailable, TrunklineError
from trunkline_server.core.limits import Limiter
from trunkline_server.core.plans import ANONYMOUS, DEFAULT, Caller, Plan, Scope
from trunkline_server.core.pressure import Criticality
from trunkline_server.core.progress import Progressed
from trunkline_server.storage import progress
from trunkline_server.storage.memory_limits import MemoryLimits
from trunkline_server.storage.postgres import PostgresStorage
from trunkline_server.storage.progress import Progress
from trunkline_server.storage.redis_limits import RedisLimits
from trunkline_server.storage.sqlite import SqliteStorage, UnusableDatabase
from trunkline_server.storage.upgrade import UpgradeError, check, sqlite_path, upgrade
from trunkline_server.tools.alert import AlertSender
from trunkline_server.tools.exchange import EgressError

NANOS: Final = 1_000_000_000
MIN_PEPPER_CHARS: Final = 32
MAX_LOOKED_AT: Final = 10_000
# No limit that anyone meets, so that every response can name one.
AMPLE_PER_SECOND: Final = 100_000


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the configuration refers to."""

    database_url: str = field(default="", repr=False)
    redis_url: str = field(default="", repr=False)
    pepper: bytes = field(default=b"", repr=False)
    alert: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class AccountParts:
    """What the sections about accounts amount to."""

    settings: AccountsSettings
    secrets: Secrets
    plans: Mapping[str, Plan]
    keys: tuple[StaticKey, ...]
    budgets: tuple[Budget, ...]
    workers: int = 1


def build_accounts(settings: Settings, environment: Mapping[str, str]) -> AccountParts:
    """Plans, static keys, budgets, and where the rest is kept.

    Raises:
        ConfigError.
    """
    plans = {name: Plan(name, AMPLE_PER_SECOND, AMPLE_PER_SECOND) for name in (ANONYMOUS, DEFAULT)}
    plans |= {plan.id: _plan(plan) for plan in settings.plans}
    static = tuple(_static_key(key, environment, plans) for key in settings.keys)
    budgets = tuple(
        Budget(
            budget.id,
            budget.organization,
            round(budget.limit_usd * NANOS),
            budget.period,
            budget.project,
            budget.key,
            budget.hard,
            None if budget.warn_at is None else round(budget.warn_at * budget.limit_usd * NANOS),
        )
        for budget in settings.budgets
    )
    return AccountParts(
        settings.accounts,
        _secrets(settings.accounts, environment),
        plans,
        static,
        budgets,
        settings.server.workers,
    )


def _secrets(accounts: AccountsSettings, environment: Mapping[str, str]) -> Secrets:
    url = accounts.database_url or secret(environment, accounts.database_url_env, "")
    if accounts.database_url_env and not url:
        raise ConfigError([f"accounts: the variable {accounts.database_url_env} is not set"])
    redis_url = accounts.redis_url or secret(environment, accounts.redis_url_env, "")
    if accounts.redis_url_env and not redis_url:
        raise ConfigError([f"accounts: the variable {accounts.redis_url_env} is not set"])
    if redis_url:
        try:
            RedisLimits(redis_url, MemoryLimits(monotonic_us), 1)
        except ValueError as error:
            raise ConfigError([f"accounts.redis_url: {error}"]) from error
    if not url:
        return Secrets(redis_url=redis_url)
    try:
        sqlite_path(url)
    except UpgradeError as error:
        raise ConfigError([f"accounts.database_url: {error}"]) from error
    pepper = secret(environment, accounts.pepper_env, accounts.pepper_file)
    if len(pepper) < MIN_PEPPER_CHARS:
        source = accounts.pepper_file or accounts.pepper_env or "pepper_file"
        problem = f"accounts: {source} needs a secret of {MIN_PEPPER_CHARS} characters or more"
        raise ConfigError([f"{problem}; `trunkline init` makes one"])
    alert = secret(environment, accounts.alert_secret_env, accounts.alert_secret_file)
    if accounts.alert_url:
        try:
            AlertSender(accounts.alert_url, alert)
        except ValueError as error:
            raise ConfigError([f"accounts: the secret of alert_url {error}"]) from error
        except EgressError as error:
            raise ConfigError([f"accounts.alert_url: {error.reason}"]) from error
    return Secrets(url, redis_url, pepper.encode(), alert)


def _plan(plan: PlanSettings) -> Plan:
    per_second = plan.requests_per_second
    return Plan(
        plan.id,
        AMPLE_PER_SECOND if per_second is None else per_second,
        plan.burst or max(1, round(per_second or AMPLE_PER_SECOND)),
        plan.tokens_per_minute,
        plan.concurrency,
        None if plan.routes is None else frozenset(plan.routes),
        None if plan.modes is None else frozenset(plan.modes),
        plan.max_deadline_s,
        Criticality[plan.criticality.upper()],
        plan.prepaid,
        plan.refuse_unknown_price,
    )


def _static_key(
    key: KeySettings, environment: Mapping[str, str], plans: Mapping[str, Plan]
) -> StaticKey:
    value = secret(environment, key.key_env, key.key_file)
    if not value:
        raise ConfigError([f"keys: {key.id!r}: the variable {key.key_env} is not set"])
    if key.plan not in plans:
        raise ConfigError([f"keys: {key.id!r} names the unknown plan {key.plan!r}"])
    return StaticKey(
        key.id,
        value,
        None if key.criticality is None else Criticality[key.criticality.upper()],
        key.organization,
        key.project,
        key.plan,
        frozenset(Scope(scope) for scope in key.scopes),
    )


def monotonic_us() -> int:
    """A clock in microseconds that is never set."""
    return time.monotonic_ns() // 1_000


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


class Accounts:
    """All of it, running between `start` and `close`. Without a database there are no books and no administration."""

    def __init__(self, parts: AccountParts, max_in_flight: int) -> None:
        self._parts = parts
        url = parts.secrets.database_url
        path = sqlite_path(url) if url else None
        self.storage: SqliteStorage | PostgresStorage | None = None
        if path is not None:
            self.storage = SqliteStorage(path)
        elif url:
            self.storage = PostgresStorage(url)
        self.limiter: Limiter = MemoryLimits(monotonic_us)
        if parts.secrets.redis_url:
            share = parts.workers * parts.settings.replicas
            self.limiter = RedisLimits(parts.secrets.redis_url, MemoryLimits(monotonic_us), share)
        self.callers = Callers(
            static=parts.keys,
            plans=parts.plans,
            storage=self.storage,
            pepper=parts.secrets.pepper,
            now_us=now_us,
        )
        self.access = Access(self.callers, self.limiter, parts.plans)
        self.budgets = Budgets(parts.budgets)
        self.books: Books | None = None
        self.administration: Administration | None = None
        self._progress: Progress | None = None
        self._left_behind: list[Path] = []
        self._alerts: Alerts | None = None
        self._seal: AuditSeal | None = None
        if self.storage is not None:
            self._open_books(self.storage, path, max_in_flight)

    def _open_books(
        self, storage: SqliteStorage | PostgresStorage, path: Path | None, max_in_flight: int
    ) -> None:
        directory = _progress_directory(self._parts.settings, path)
        owner = f"{time.time_ns():x}-{secrets.token_hex(4)}"
        self._progress = Progress(directory, owner, max_in_flight)
        self._left_behind = progress.left_behind(directory)
        left: dict[str, Mapping[str, Progressed]] = {
            file.stem: progress.read(file) for file in self._left_behind
        }
        self.books = Books(
            storage,
            owner=owner,
            progress=self._progress,
            left_behind=left,
            is_alone=isinstance(storage, SqliteStorage),
            now_us=now_us,
        )
        self.administration = Administration(
            storage,
            pepper=self._parts.secrets.pepper,
            environment=self._parts.settings.environment,
            plans=self._parts.plans,
            random=secrets.randbelow,
            now_us=now_us,
        )
        settings = self._parts.settings
        if settings.alert_url:
            sender = AlertSender(settings.alert_url, self._parts.secrets.alert)
            self._alerts = Alerts(storage, sender.send, now_us)
        if settings.audit_key_file:
            file = Path(settings.audit_checkpoint_file) if settings.audit_checkpoint_file else None
            self._seal = AuditSeal(storage, _signer(settings.audit_key_file), file, now_us)

    @property
    def has_failed(self) -> bool:
        """Can nothing be written any more, until the next start? A database that is only away comes back."""
        return isinstance(self.storage, SqliteStorage) and self.storage.has_failed

    async def start(self) -> None:
        """Open the database, settle what was left behind, and begin.

        Raises:
            ConfigError.
        """
        if self.storage is None or self.books is None or self._progress is None:
            return
        try:
            await self.storage.start()
        except UnusableDatabase as error:
            raise ConfigError([f"accounts: {error}"]) from error
        try:
            self._progress.open()
            await self.books.start()
        except OSError as error:
            raise ConfigError([f"accounts.progress_dir: {error.strerror}"]) from error
        except StorageUnavailable as error:
            raise ConfigError(["accounts: the database can't be written to"]) from error
        for file in self._left_behind:
            file.unlink(missing_ok=True)
        self.callers.start()
        for keeper in (self._alerts, self._seal):
            if keeper is not None:
                keeper.start()

    async def close(self) -> None:
        """Settle, and close the database."""
        if self._alerts is not None:
            await self._alerts.close()
        await self.access.close()
        await self.callers.close()
        is_settled = True
        if self.books is not None:
            is_settled = await self.books.close()
        if self._seal is not None:
            await self._seal.close()
        if self.storage is not None:
            await self.storage.close()
        if self._progress is not None:
            self._progress.close(keeps=not is_settled)


def upgrade_database(parts: AccountParts) -> list[str]:
    """Bring the database to the schema of this program. Returns the steps that were missing.

    Raises:
        ConfigError.
    """
    if not parts.secrets.database_url:
        raise ConfigError(["accounts: no database_url is configured; `trunkline init` makes one"])
    try:
        return upgrade(parts.secrets.database_url)
    except UpgradeError as error:
        raise ConfigError([f"accounts: {error}"]) from error


def make_audit_key(parts: AccountParts) -> str:
    """The keys that sign the audit log, where they are configured and not there yet. Returns the private one's file.

    Raises:
        ConfigError.
    """
    settings = parts.settings
    private, public = settings.audit_key_file, settings.audit_public_key_files
    if not private or not public or Path(private).exists():
        return ""
    try:
        create_key(Path(private), Path(public[-1]))
    except OSError as error:
        raise ConfigError(
            [f"accounts.audit_key_file: {private}: {type(error).__name__}"]
        ) from error
    return private


async def first_admin_key(parts: AccountParts, organization: str, *, is_another: bool) -> str:
    """Make an administrator's key, without a server: for `trunkline init`.

    Args:
        is_another: although there is one already.

    Raises:
        ConfigError.
    """
    accounts = Accounts(parts, 1)
    storage, administration = accounts.storage, accounts.administration
    assert storage is not None
    assert administration is not None
    try:
        await storage.start()
        known = [
            key
            for key in await storage.read(lambda: keys.page("", "", MAX_LOOKED_AT))
            if _is_admin(key)
        ]
        if known and not is_another:
            raise ConfigError(
                [f"accounts: {known[0].id} is an admin key already; --another makes another one"]
            )
        actor = Caller("init", organization, scopes=frozenset({Scope.ADMIN}))
        new = NewKey(organization, "", "first admin key", DEFAULT, (Scope.ADMIN.value,), None)
        _, token = await administration.create_key(new, actor, "")
        return str(token)
    except UnusableDatabase as error:
        raise ConfigError([f"accounts: {error}"]) from error
    except TrunklineError as error:
        raise ConfigError([f"accounts: {error.message}"]) from error
    finally:
        await storage.close()


def _is_admin(key: Key) -> bool:
    return Scope.ADMIN in key.scopes and key.is_alive(now_us())


def check_database(parts: AccountParts) -> None:
    """Has the database the schema of this program?

    Raises:
        ConfigError.
    """
    if not parts.secrets.database_url:
        return
    try:
        check(parts.secrets.database_url)
    except UpgradeError as error:
        raise ConfigError([f"accounts: {error}"]) from error


def _signer(file: str) -> CheckpointSigner:
    try:
        return load_signer(Path(file))
    except (UnusableKey, OSError) as error:
        raise ConfigError([f"accounts.audit_key_file: {file}: {type(error).__name__}"]) from error


async def verify_audit(parts: AccountParts) -> AuditReport:
    """Check the audit log, without a server: for `trunkline audit verify`.

    Raises:
        ConfigError.
    """
    settings = parts.settings
    url = parts.secrets.database_url
    if not url or not settings.audit_public_key_files:
        raise ConfigError(
            ["accounts: a database_url and audit_public_key_files are needed to verify"]
        )
    path = sqlite_path(url)
    storage = SqliteStorage(path, only_reads=True) if path is not None else PostgresStorage(url)
    public_keys = [Path(file) for file in settings.audit_public_key_files]
    file = Path(settings.audit_checkpoint_file) if settings.audit_checkpoint_file else None
    try:
        await storage.start()
        return await verify_with(storage, public_keys, file)
    except (UnusableDatabase, UnusableKey, OSError) as error:
        raise ConfigError([f"accounts: {error}"]) from error
    except TrunklineError as error:
        raise ConfigError([f"accounts: {error.message}"]) from error
    finally:
        await storage.close()


def _progress_directory(settings: AccountsSettings, path: Path | None) -> Path:
    """Beside a file, and of this user alone elsewhere."""
    if settings.progress_dir:
        directory = Path(settings.progress_dir)
    elif path is not None:
        directory = path.with_name(f"{path.name}.progress")
    else:
        directory = Path(tempfile.gettempdir()) / f"trunkline-{os.getuid()}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_uid != os.getuid():
            raise ConfigError([f"accounts.progress_dir: {directory} belongs to another user"])
    except OSError as error:
        raise ConfigError([f"accounts.progress_dir: {directory}: {error.strerror}"]) from error
    return directory
