"""The composition root: settings in, a running service out. The only module that sees adapters and edges together."""

import asyncio
import gc
import os
import random
import secrets
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import msgspec
import structlog
from structlog.typing import FilteringBoundLogger

from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.app_accounts import AccountParts, Accounts, build_accounts, now_us
from trunkline_server.app_cache import new_cache
from trunkline_server.app_ending import HARD_STOP_S, Ending, gone_after_s, grace_s
from trunkline_server.app_jobs import JobParts, build_jobs, new_jobs, with_research_tools
from trunkline_server.app_orchestration import (
    build_libraries,
    build_modes,
    build_personas,
    build_skills,
    new_classifier,
    new_embedder,
)
from trunkline_server.app_providers import build_providers
from trunkline_server.app_routes import build_routes
from trunkline_server.app_state import State, state_url
from trunkline_server.completion.admission import Admission
from trunkline_server.completion.attempts import Upstream
from trunkline_server.completion.bill import Billing
from trunkline_server.completion.circuits import Circuits
from trunkline_server.completion.order import Call
from trunkline_server.completion.preparation import Preparation
from trunkline_server.completion.pump import Pump
from trunkline_server.completion.service import Completions
from trunkline_server.config import (
    ConfigError,
    ServerSettings,
    Settings,
    secret,
    split_address,
)
from trunkline_server.conversations.turns import StoredConversations
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import Overloaded, StorageUnavailable
from trunkline_server.core.ids import ENTROPY_BYTES, ulid
from trunkline_server.core.modes import Modes
from trunkline_server.core.pressure import Pressure
from trunkline_server.edges.grpc.account import AccountServicer
from trunkline_server.edges.grpc.admin import AdminServicer
from trunkline_server.edges.grpc.cache import CacheServicer
from trunkline_server.edges.grpc.call import Calls
from trunkline_server.edges.grpc.catalog import CatalogServicer
from trunkline_server.edges.grpc.completion import CompletionServicer
from trunkline_server.edges.grpc.conversations import ConversationServicer
from trunkline_server.edges.grpc.jobs import JobServicer
from trunkline_server.edges.grpc.local import LocalChannel
from trunkline_server.edges.grpc.methods import Method, methods
from trunkline_server.edges.grpc.server import MAX_MESSAGE_BYTES, new_server, set_health
from trunkline_server.edges.rest.app import Page, RestApp, json_page
from trunkline_server.edges.rest.http import Limits, Refused
from trunkline_server.edges.rest.openai import OpenAIShim
from trunkline_server.edges.rest.server import HttpServer
from trunkline_server.edges.rest.speko import SpekoShim
from trunkline_server.edges.rest.theo import TheoShim
from trunkline_server.edges.status import Refusal, jittered_s
from trunkline_server.genui.library import Libraries
from trunkline_server.local_model.process import (
    LocalModel,
    LocalModelUnavailable,
)
from trunkline_server.providers.aws import Signer
from trunkline_server.providers.registry import (
    Provider,
    Upstreams,
)
from trunkline_server.providers.transport import HttpTransport
from trunkline_server.routing.catalog import Catalog, Route
from trunkline_server.routing.experience import Experience
from trunkline_server.routing.language import LanguageDetector
from trunkline_server.routing.router import Router
from trunkline_server.routing.scores import Scores
from trunkline_server.routing.scoring_run import (
    ScoringRun,
    UnusableRun,
    load,
    starter,
)
from trunkline_server.skills.folder import Loaded
from trunkline_server.skills.library import SkillLibrary
from trunkline_server.telemetry.cache import CacheTelemetry
from trunkline_server.telemetry.logs import configure, flush, last_words
from trunkline_server.telemetry.metrics import exposition
from trunkline_server.telemetry.process import ProcessWatch, cgroup_limit_bytes
from trunkline_server.telemetry.requests import IN_FLIGHT, TURNED_AWAY, RequestTelemetry
from trunkline_server.tools.egress import Egress
from trunkline_server.tools.registry import (
    RegisteredMcpServer,
    RegisteredTool,
    ToolRegistry,
    UnusableTools,
)

TERMINAL_S: Final = 2.0  # Before the end of the drain: what still runs is told so, and settled.
FLUSH_S: Final = 0.5
REPORT_S: Final = 1.0
NOTICE_S: Final = 0.1  # Calls on open gRPC connections are refused before those are told to close.
LATECOMERS_S: Final = 0.1  # For calls that were on their way when the last one ended.


@dataclass(frozen=True, slots=True)
class Parts:
    """What a configuration amounts to, before anything listens."""

    tools: ToolRegistry
    accounts: AccountParts
    jobs: JobParts
    providers: dict[str, Provider]
    candidates: list[Candidate]
    signers: dict[str, Signer]
    local: LocalModel | None
    routes: list[Route]
    modes: Modes
    personas: dict[str, str]
    libraries: Libraries
    skills: list[Loaded]
    scoring_run: ScoringRun | None
    state_url: str
    missing: list[str]


def build(settings: Settings, environment: Mapping[str, str]) -> Parts:
    """Providers, models, routes and keys. What is configured but can't be used is named in `missing`.

    Raises:
        ConfigError.
    """
    tools = _tools(settings, environment)
    accounts = build_accounts(settings, environment)
    jobs = build_jobs(settings, environment)
    found = build_providers(settings, environment)
    modes = with_research_tools(build_modes(settings, found.candidates), settings)
    routes, unserved = build_routes(settings, modes, found.candidates)
    return Parts(
        tools=tools,
        accounts=accounts,
        jobs=jobs,
        providers=found.providers,
        candidates=found.candidates,
        signers=found.signers,
        local=found.local,
        routes=routes,
        modes=modes,
        personas=build_personas(settings),
        libraries=build_libraries(settings),
        skills=build_skills(settings, tools),
        scoring_run=_scoring_run(settings),
        state_url=state_url(settings, environment),
        missing=[*found.missing, *unserved],
    )


def _scoring_run(settings: Settings) -> ScoringRun | None:
    """What ranks the candidates before anything is known of them: a run of one's own, or the one that comes along.

    Raises:
        ConfigError.
    """
    scoring = settings.scoring
    try:
        return load(Path(scoring.file)) if scoring.file else starter() if scoring.starter else None
    except UnusableRun as error:
        raise ConfigError([f"scoring.file: {error}"]) from error


def _tools(settings: Settings, environment: Mapping[str, str]) -> ToolRegistry:
    """What the gateway can run, with its secrets.

    Raises:
        ConfigError.
    """
    values = {}
    for name, source in settings.secrets.items():
        values[name] = secret(environment, source.env, source.file)
        if not values[name]:
            raise ConfigError([f"secrets: {name!r}: {source.env or source.file} holds none"])
    try:
        tls = ssl.create_default_context(cafile=settings.egress.ca_file or None)
        return ToolRegistry(
            [RegisteredTool(**msgspec.structs.asdict(tool)) for tool in settings.tools],
            [RegisteredMcpServer(**msgspec.structs.asdict(s)) for s in settings.mcp_servers],
            values,
            Egress(settings.egress.allowed_hosts, tls=tls),
            now=time.time,
            secret_hosts={n: s.hosts for n, s in settings.secrets.items() if s.hosts},
            private_egress=lambda hosts: Egress(hosts, tls=tls),
            report=_tell_of_failed_delivery,
        )
    except UnusableTools as error:
        raise ConfigError(error.problems) from error
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError([f"egress: {error}"]) from error


def _tell_of_failed_delivery(tool: str, reason: str) -> None:
    structlog.get_logger().warning("tool_delivery_failed", tool=tool, reason=reason)


_WELCOME: Final[AbstractContextManager[None]] = nullcontext()


class Service:
    """A running service. `grpc_address` and `http_address` say where, ports that were 0 included."""

    def __init__(self, settings: Settings, parts: Parts, log: FilteringBoundLogger) -> None:
        self.settings = settings
        self.parts = parts
        self.log = log
        self.transport = HttpTransport()
        limits = settings.limits
        pressure = Pressure(limits.max_in_flight)
        self.admission = Admission(pressure, limits.max_waiting)
        # A control group's limit is that of all workers together.
        memory_bytes = limits.memory_bytes or cgroup_limit_bytes() // settings.server.workers
        self._watch = ProcessWatch(self.admission.observe, self.admission.feel, memory_bytes)
        self.circuits = Circuits(random.random)
        self.telemetry = RequestTelemetry(log)
        self.pump = Pump(self.telemetry)
        self.accounts = Accounts(parts.accounts, limits.max_in_flight)
        is_shared = parts.state_url == parts.accounts.secrets.database_url
        self.state = State(
            parts.state_url,
            self.accounts.storage if is_shared else None,
            settings.server.workers,
        )
        self.conversations = StoredConversations(
            self.state.storage,
            mint_id=mint_id,
            now_us=now_us,
            max_messages=settings.conversations.max_messages,
            keep_days=settings.conversations.keep_days,
            is_alone=self.state.is_alone,
            is_lasting=self.state.is_lasting,
        )
        self.catalog = Catalog(parts.candidates, parts.routes)
        self._similarity = new_embedder(self._tell_of_similarity)
        self.skills = SkillLibrary(
            parts.skills, self.state.storage, self._similarity, is_lasting=self.state.is_lasting
        )
        self._cache_meter = CacheTelemetry()
        self.cache = new_cache(
            settings,
            self.state,
            parts.accounts.secrets.redis_url,
            self._similarity,
            self._cache_meter,
            None if settings.cache.semantic == "off" else self._detect_language(),
        )
        self.is_ready = False
        self.grpc_address = ""
        self.http_address = ""
        self._methods = self._build()
        self._calls = Calls(mint_id, mint_span_id, self._greet)
        self._grpc, self._health = new_server(
            self._methods, self._calls, shares_port=settings.server.workers > 1
        )
        self.rest: RestApp | None = None
        self._http: HttpServer | None = None
        self._hurry = asyncio.Event()
        self._reporter: asyncio.TimerHandle | None = None
        self._accounts_watch: asyncio.Task[None] | None = None

    @property
    def channel(self) -> LocalChannel:
        """The contract, without sockets."""
        return LocalChannel(self._methods)

    async def _greet(self, call: Call) -> None:
        await self.accounts.access.greet(call.authorization, call.peer, call.headers)

    def _build(self) -> dict[str, Method]:
        calls = Calls(mint_id, mint_span_id, self._greet)
        scores = Scores(self.parts.scoring_run, self.parts.candidates)
        # Where there is nobody to choose from, there is nothing to learn.
        learns = self.settings.routing.learn and len(self.parts.candidates) > 1
        experience = Experience(scores.measured, learns=learns)
        router = Router(
            self.catalog,
            scores,
            experience,
            asyncio.get_running_loop().time,
            self._language_of(scores),
        )
        completions = Completions(
            admission=self.admission,
            access=self.accounts.access,
            billing=self._billing(),
            router=router,
            preparation=Preparation(
                modes=self.parts.modes,
                classifier=new_classifier(self.settings, self.parts.modes, self._similarity),
                personas=self.parts.personas,
                skills=self.skills,
                libraries=self.parts.libraries,
                conversations=self.conversations,
                cache=self.cache,
                router=router,
            ),
            upstream=Upstream(
                Upstreams(self.transport, self.parts.providers, mint_call_id),
                self.circuits,
                self.telemetry,
                self.pump,
                experience,
                random.random,
            ),
            tools=self.parts.tools,
            similarity=self._similarity,
            settle_s=self.settings.server.heartbeat_s,
            mint_id=mint_id,
        )
        self.jobs = new_jobs(
            self.parts.jobs,
            self.state,
            completions,
            name=mint_id(),
            keeps_keys=self.accounts.books is not None,
        )
        servicers: dict[str, object] = {
            "trunkline.v1.CompletionService": CompletionServicer(completions, calls),
            "trunkline.v1.JobService": JobServicer(self.jobs, completions, calls),
            "trunkline.v1.CatalogService": CatalogServicer(
                self.catalog, self.parts.modes, self.circuits, self.skills, completions, calls
            ),
            "trunkline.v1.CacheService": CacheServicer(self.cache, completions, calls),
            "trunkline.v1.ConversationService": ConversationServicer(
                self.conversations, completions, calls
            ),
        }
        accounts = self.accounts
        if accounts.storage is not None and accounts.administration is not None:
            servicers["trunkline.v1.AccountService"] = AccountServicer(
                accounts.storage, completions, calls, now_us
            )
            servicers["trunkline.v1.AdminService"] = AdminServicer(
                accounts.administration, completions, calls
            )
        return methods(servicers, calls)

    def _billing(self) -> Billing | None:
        books = self.accounts.books
        return None if books is None else Billing(books, self.accounts.budgets)

    def _tell_of_similarity(self, reason: str) -> None:
        self.log.warning("similarity_unknown", reason=reason)

    def _language_of(self, scores: Scores) -> Callable[[CompletionSpec], str] | None:
        """Its model is only loaded where the language of a request makes a difference."""
        return self._detect_language() if scores.knows_languages else None

    def _detect_language(self) -> Callable[[CompletionSpec], str]:
        detector = LanguageDetector(self.settings.routing.default_language)
        if not detector.load():
            self.log.warning("language_model_missing")
        return detector.language_of

    async def start(self) -> None:
        """Listen on both ports.

        Raises:
            ConfigError: an address is taken or can't be listened on.
        """
        server = self.settings.server
        self._watch.start()
        await self.accounts.start()
        await self.state.start()
        self.conversations.start()
        self.cache.start()
        await self._start_skills()
        await asyncio.gather(*(signer.start() for signer in self.parts.signers.values()))
        if server.workers > 1:
            self._report()  # Values of several processes are read from files, so a function would not be asked.
        else:
            IN_FLIGHT.set_function(lambda: self.admission.in_flight)
        port = _add_port(self._grpc, server)
        self.grpc_address = server.grpc if port is None else f"{_host(server.grpc)}:{port}"
        await self._grpc.start()
        await set_health(self._health, True)
        openai = OpenAIShim(self.channel, heartbeat_s=server.heartbeat_s)
        speko = SpekoShim(self.channel, heartbeat_s=server.heartbeat_s)
        theo = TheoShim(self.channel, heartbeat_s=server.heartbeat_s)
        self.rest = RestApp(
            [openai, speko, theo],
            self._pages(),
            arrival=self._arrival,
            limits=Limits(self.channel),
        )
        self._http, self.http_address = await _start_http(self.rest, server)
        if self.parts.local is not None and self.settings.local.preload:
            try:
                await self.parts.local.start()
            except LocalModelUnavailable as error:
                raise ConfigError([f"local.preload: {error}"]) from error
        self.parts.tools.begin_learning(
            lambda line: self.log.warning("mcp_server_unknown", problem=line)
        )
        if self.accounts.storage is not None:
            self._accounts_watch = asyncio.create_task(self._watch_accounts())
        self.jobs.start()
        self.is_ready = True

    async def _start_skills(self) -> None:
        try:
            await self.skills.start()
        except StorageUnavailable as error:
            raise ConfigError(["state: the database can't be read"]) from error

    async def _watch_accounts(self) -> None:
        """A disk that has failed will not mend itself: who balances the load is told to go elsewhere."""
        while not self.accounts.has_failed:  # noqa: ASYNC110 - it is set far from any event
            await asyncio.sleep(REPORT_S)
        self.log.error("accounts_failed")
        await set_health(self._health, False)

    def _report(self) -> None:
        IN_FLIGHT.set(self.admission.in_flight)
        self._reporter = asyncio.get_running_loop().call_later(REPORT_S, self._report)

    def _arrival(self, metadata: Sequence[tuple[str, str]]) -> AbstractContextManager[None]:
        """Around a request over HTTP that is still to be parsed: refused at once when there is no use in doing so."""
        if not self.admission.is_strained(asyncio.get_running_loop().time()):
            return _WELCOME
        caller = self.accounts.callers.at_hand(dict(metadata).get("authorization", ""))
        if caller is None:
            return _WELCOME  # Unknown, or wrong: that is found out where it is for all.
        try:
            return self.admission.expect(caller.criticality)
        except Overloaded as error:
            TURNED_AWAY.labels(caller.criticality.name.lower()).inc()
            wait_s = jittered_s(error.retry_after_s or 0.0)
            refusal = Refusal(error.reason, error.message, retry_after_s=wait_s)
            raise Refused(refusal) from None

    def _pages(self) -> dict[str, Page]:
        def ready() -> tuple[int, bytes, bytes]:
            return (
                json_page(200, b'{"ready":true}')
                if self.is_ready and not self.accounts.has_failed
                else json_page(503, b'{"ready":false}')
            )

        def metrics() -> tuple[int, bytes, bytes]:
            self.telemetry.flush()
            self._cache_meter.flush()
            return exposition()

        return {
            "/livez": lambda: json_page(200, b'{"live":true}'),
            "/readyz": ready,
            "/metrics": metrics,
        }

    def hurry(self) -> None:
        """End the drain now."""
        self._hurry.set()

    async def drain(self) -> None:
        """Go down without losing a stream that ends in time: docs/reliability.md has the order."""
        server = self.settings.server
        clock = asyncio.get_running_loop().time
        self.is_ready = False
        await set_health(self._health, False)
        wait_s = grace_s(server)
        await self._wait(asyncio.sleep(wait_s), wait_s)
        until_s = clock() + server.drain_s
        # Whoever comes now is told to go elsewhere. Once the gRPC server stops, its library cancels such calls without
        # a word, so it stops a moment later.
        self.admission.close()
        stopping_jobs = asyncio.create_task(self.jobs.stop())
        if self._http is not None:
            self._http.stop_listening()
        await self._wait(self.admission.wait_until_idle(), NOTICE_S)
        await self._wait(asyncio.sleep(LATECOMERS_S), LATECOMERS_S)
        stopping = asyncio.create_task(self._grpc.stop(server.drain_s + FLUSH_S))
        await self._wait(self.admission.wait_until_idle(), max(0.0, server.drain_s - TERMINAL_S))
        expelled = self.admission.expel()
        if expelled:
            self.log.warning("drain_expelled", requests=expelled)
            await self._wait(self.admission.wait_until_idle(), TERMINAL_S, hurries=False)
        # Health watches and reflection streams would hold the server for the whole grace.
        await asyncio.wait([stopping], timeout=FLUSH_S)
        await self._grpc.stop(0)
        await stopping
        await stopping_jobs
        if self._http is not None:
            # Answers that are whole may still be on their way to slow readers.
            left_s = 0.0 if self._hurry.is_set() else until_s - clock()
            await self._http.finish(max(FLUSH_S, left_s))

    async def close(self) -> None:
        """Release what is left."""
        self._watch.stop()
        self.telemetry.flush()
        self._cache_meter.flush()
        if self._reporter is not None:
            self._reporter.cancel()
        if self._accounts_watch is not None:
            self._accounts_watch.cancel()
            await asyncio.wait([self._accounts_watch])
        await self.jobs.stop()
        await self._grpc.stop(0)
        await asyncio.gather(*(signer.stop() for signer in self.parts.signers.values()))
        if self._http is not None:
            await self._http.finish(0)
        if self.parts.local is not None:
            await self.parts.local.stop()
        await self.pump.close()
        await self.skills.close()
        await self.conversations.close()
        await self.cache.close()
        await self.state.close()
        await self.accounts.close()
        await self.parts.tools.close()
        await self._similarity.close()
        await self.transport.__aexit__()

    async def _wait(self, what: Awaitable[object], limit_s: float, *, hurries: bool = True) -> None:
        task = asyncio.ensure_future(what)
        hurry = asyncio.ensure_future(self._hurry.wait())
        waited = [task, hurry] if hurries else [task]
        await asyncio.wait(waited, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (task, hurry):
            waiting.cancel()
        await asyncio.wait([task, hurry])


async def _start_http(app: RestApp, server: ServerSettings) -> tuple[HttpServer, str]:
    """Listen; returns the server and HOST:PORT."""
    host, port = split_address(server.http)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol spelled out, so that every event loop knows it for TCP and turns Nagle's algorithm off.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if server.workers > 1:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            [f"server.http: can't listen on {server.http}: {error.strerror}"]
        ) from error
    http = HttpServer(app, _tls(server))
    http.start(listener)
    return http, f"{_host(server.http)}:{listener.getsockname()[1]}"


def _tls(server: ServerSettings) -> ssl.SSLContext | None:
    if not server.tls_cert_file:
        return None
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a password OpenSSL would ask the terminal for one.
        tls.load_cert_chain(server.tls_cert_file, server.tls_key_file, password="")
    except (
        OSError
    ) as error:  # An SSLError too: no certificate, no key, not its key, or an encrypted one.
        raise ConfigError(
            [
                f"server: {server.tls_cert_file} and {server.tls_key_file} are no certificate and its key"
            ]
        ) from error
    return tls


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def _add_port(server: grpc.aio.Server, settings: ServerSettings) -> int | None:
    try:
        if _tls(settings) is not None:  # So the files are good, which gRPC itself does not say.
            pair = (_read_file(settings.tls_key_file), _read_file(settings.tls_cert_file))
            credentials = grpc.ssl_server_credentials([pair])
            port = server.add_secure_port(settings.grpc, credentials)
        else:
            port = server.add_insecure_port(settings.grpc)
    except (RuntimeError, OSError) as error:
        raise ConfigError([f"server.grpc: can't listen on {settings.grpc}"]) from error
    return None if settings.grpc.startswith("unix:") else port


def mint_id() -> str:
    """A new ULID."""
    return ulid(time.time_ns() // 1_000_000, os.urandom(ENTROPY_BYTES))


def mint_span_id() -> str:
    """A new span id."""
    return secrets.token_hex(8)


def mint_call_id() -> str:
    """An id for a tool call whose upstream gave none."""
    return f"call_{secrets.token_hex(12)}"


@asynccontextmanager
async def running(
    settings: Settings, parts: Parts, log: FilteringBoundLogger
) -> AsyncIterator[Service]:
    """A service that listens, until the block is left."""
    service = Service(settings, parts, log)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(service.close)
        await service.start()
        yield service


async def serve(
    settings: Settings,
    parts: Parts,
    announce: Callable[[Service], None],
    *,
    watches_parent: bool = False,
) -> None:
    """Run until SIGTERM or SIGINT, then drain. A second signal ends the drain at once, a third the process.

    To be called by a process that has nothing else to do: it is ended when it is not gone in time, the threads that
    were left behind included.

    A worker `watches_parent`: its standard input ends when the parent does, however that happened.
    """
    log = configure(settings.server.log_level)
    loop = asyncio.get_running_loop()
    # Every generator here is closed by whoever began it, so the loop need not know of those that run.
    sys.set_asyncgen_hooks(firstiter=None)
    async with running(settings, parts, log) as service:
        ending = Ending(gone_after_s(settings.server), service.hurry, _last_words(log))

        def parent_ended() -> None:
            loop.remove_reader(0)
            if not ending.is_hurried:  # It may have passed on two signals before.
                ending.signal()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.signal)
        if watches_parent:
            loop.add_reader(0, parent_ended)
        _freeze()
        announce(service)
        log.info("started", grpc=service.grpc_address, http=service.http_address)
        await ending.asked.wait()
        log.info("draining", in_flight=service.admission.in_flight)
        await service.drain()
    log.info("stopped")
    flush()


def _last_words(log: FilteringBoundLogger) -> Callable[[str], None]:
    def say(why: str) -> None:
        log.error("hard_stop", why=why)
        last_words()

    return say


def _freeze() -> None:
    """What has been loaded stays until the end, so the collector of cycles need not look at it again.

    It would now and then, for 50 to 80 ms in which nobody is served.
    """
    gc.collect()
    gc.freeze()


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError([f"{path} can't be read: {error.strerror}"]) from error


async def serve_shim(
    server: ServerSettings,
    target: str,
    announce: Callable[[str], None],
    *,
    tls: bool = False,
    ca_file: str | None = None,
) -> None:
    """The REST edge alone, against a remote service. Signals do what they do to `serve`."""
    log = configure(server.log_level)
    loop = asyncio.get_running_loop()
    hurried = asyncio.Event()
    ending = Ending(server.drain_s + HARD_STOP_S, hurried.set, _last_words(log))
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        # The service has retried whatever there is to retry, and clients of this edge do it too.
        ("grpc.enable_retries", 0),
    ]
    if tls:
        roots = _read_file(ca_file) if ca_file else None
        credentials = grpc.ssl_channel_credentials(roots)
        new_channel = grpc.aio.secure_channel(target, credentials, options=options)
    else:
        new_channel = grpc.aio.insecure_channel(target, options=options)
    async with new_channel as channel:

        def ready() -> tuple[int, bytes, bytes]:
            state = channel.get_state(try_to_connect=True)
            is_up = state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.IDLE)
            return (
                json_page(200, b'{"ready":true}') if is_up else json_page(503, b'{"ready":false}')
            )

        pages: dict[str, Page] = {
            "/livez": lambda: json_page(200, b'{"live":true}'),
            "/readyz": ready,
            "/metrics": exposition,
        }
        openai = OpenAIShim(channel, heartbeat_s=server.heartbeat_s)
        speko = SpekoShim(channel, heartbeat_s=server.heartbeat_s)
        theo = TheoShim(channel, heartbeat_s=server.heartbeat_s)
        http, address = await _start_http(
            RestApp([openai, speko, theo], pages, limits=Limits(channel)), server
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.signal)
        try:
            _freeze()
            announce(address)
            await ending.asked.wait()
            log.info("draining")
        finally:
            await _finish(http, server.drain_s, hurried)
            flush()


async def _finish(http: HttpServer, limit_s: float, hurried: asyncio.Event) -> None:
    finishing = asyncio.create_task(http.finish(limit_s))
    hurrying = asyncio.create_task(hurried.wait())
    await asyncio.wait([finishing, hurrying], return_when=asyncio.FIRST_COMPLETED)
    for task in (finishing, hurrying):
        task.cancel()
    await asyncio.wait([finishing, hurrying])
    await http.finish(0)
