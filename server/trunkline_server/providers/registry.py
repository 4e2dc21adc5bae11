"""All providers: which dialects there are, and how an attempt is opened at one of them."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import CompletionWarning
from trunkline_server.core.candidate import USUAL, Candidate, Capability
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure
from trunkline_server.core.ports import AttemptFacts, Prompt, Unencodable
from trunkline_server.providers.anthropic import AnthropicTranslator
from trunkline_server.providers.bedrock import STREAM_TYPE as BEDROCK_STREAM_TYPE
from trunkline_server.providers.bedrock import BedrockTranslator
from trunkline_server.providers.cohere import CohereTranslator
from trunkline_server.providers.gemini import GeminiTranslator
from trunkline_server.providers.ollama import STREAM_TYPE as NDJSON
from trunkline_server.providers.ollama import OllamaTranslator
from trunkline_server.providers.openai import OpenAITranslator
from trunkline_server.providers.services import ANY_MODEL, LOCAL, SERVICES, Service
from trunkline_server.providers.translator import (
    MAX_ERROR_BYTES,
    Decoder,
    Translator,
    UpstreamRequest,
)
from trunkline_server.providers.transport import (
    BadMessage,
    Endpoint,
    HttpResponse,
    HttpTransport,
    NotSent,
    TransportError,
    header_lines,
)
from trunkline_server.wire.retry_after import reset_s, retry_after_s

ANTHROPIC_VERSION: Final = "2023-06-01"
# Later generations refuse a last message of the assistant's.
# Source: https://platform.claude.com/docs/en/build-with-claude/prefill-claudes-response, BerriAI/litellm#27967.
PREFILLED_CLAUDES: Final = re.compile(r"claude-(2|3|instant|(opus|sonnet|haiku)-4(?![-.][6-9]))")
# Who draws, at whatever service, unless the configuration says more.
# Source: https://ai.google.dev/gemini-api/docs/image-generation, read 2026-11-22.
DRAWING_MODELS: Final = re.compile(r"gemini-[a-z0-9.-]*-image")
LAST_WORD_S: Final = 5.0
REFUSAL_S: Final = 2.0  # For the body of a refusal, whose status says nearly all.
KEEP_ALIVE_GAP_S: Final = 90.0  # Without any byte, of one who has sent keep-alives.
UNDECODABLE: Final = (ValueError, TypeError, OverflowError)  # What a decoder did not foresee.
USER_AGENT: Final = "trunkline/0.1"

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Dialect:
    """A translator, and where and how it is usually reached."""

    translator: Translator
    base_url: str
    key_variable: str
    key_header: str
    keep_alive: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    stream_type: str = "text/event-stream"  # The content type of a streamed answer.
    prefill_models: re.Pattern[str] | None = (
        None  # Who continues a last message of the assistant's.
    )

    def capabilities(self, model: str) -> frozenset[Capability]:
        """What a model has of which the configuration does not say it."""
        capabilities = self.translator.capabilities
        return capabilities if DRAWING_MODELS.search(model) else capabilities & USUAL

    def prefills(self, model: str) -> bool:
        """Does the model go on with a last message of the assistant's as its own?"""
        return self.prefill_models is not None and bool(self.prefill_models.search(model))

    aws_service: str = ""  # For which requests are signed where there is no key.


def _of_service(service: Service) -> Dialect:
    translator = OpenAITranslator(service.deviations, service.capabilities)
    return Dialect(
        translator,
        service.base_url,
        service.key_variable,
        service.key_header,
        service.keep_alive,
        prefill_models=ANY_MODEL if service.prefills else None,
    )


DIALECTS: Final[Mapping[str, Dialect]] = {
    **{name: _of_service(service) for name, service in SERVICES.items()},
    "anthropic": Dialect(
        AnthropicTranslator(),
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        "x-api-key",
        headers=(("anthropic-version", ANTHROPIC_VERSION),),
        prefill_models=PREFILLED_CLAUDES,
    ),
    "gemini": Dialect(
        GeminiTranslator(),
        "https://generativelanguage.googleapis.com/v1beta",
        "GEMINI_API_KEY",
        "x-goog-api-key",
    ),
    "cohere": Dialect(
        CohereTranslator(), "https://api.cohere.com/v2", "COHERE_API_KEY", "authorization"
    ),
    "ollama": Dialect(
        OllamaTranslator(), "http://127.0.0.1:11434", "", "authorization", stream_type=NDJSON
    ),
    # Its address depends on the region.
    "bedrock": Dialect(
        BedrockTranslator(),
        "",
        "AWS_BEARER_TOKEN_BEDROCK",
        "authorization",
        stream_type=BEDROCK_STREAM_TYPE,
        aws_service="bedrock",
        prefill_models=PREFILLED_CLAUDES,
    ),
    "local": _of_service(LOCAL),
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a provider listens, and what every request to it carries beside its own headers."""

    endpoint: Endpoint
    base_path: str
    headers: Sequence[tuple[str, str]]


Sign = Callable[[str, bytes], Sequence[tuple[str, str]]]


class Provider:
    """One configured provider.

    Args:
        address: where it is; or a function that starts it first, for the embedded model.
        stream_type: the content type of a streamed answer.
        sign: header lines that depend on the request: of its path and body.
    """

    def __init__(
        self,
        provider_id: str,
        translator: Translator,
        address: Address | Callable[[], Awaitable[Address]],
        *,
        stream_type: str = "text/event-stream",
        sign: Sign | None = None,
    ) -> None:
        self.id = provider_id
        self.translator = translator
        self.stream_type = stream_type
        self.sign = sign
        self._start = None if isinstance(address, Address) else address
        self._address = address if isinstance(address, Address) else None
        self._lines = _static_lines(address) if isinstance(address, Address) else b""

    @property
    def known_address(self) -> Address | None:
        """Where it is; None for one that is started when it is needed."""
        return self._address

    async def address(self, until_s: float) -> tuple[Endpoint, str, bytes]:
        """Endpoint, base path and the header lines that every request carries.

        Raises:
            TimeoutError: the embedded model did not start until then. It goes on starting.
        """
        if self._address is not None:
            return self._address.endpoint, self._address.base_path, self._lines
        assert self._start is not None
        async with asyncio.timeout_at(until_s):
            started = await self._start()
        return started.endpoint, started.base_path, _static_lines(started)


def _static_lines(address: Address) -> bytes:
    return header_lines(
        [
            ("host", address.endpoint.authority),
            ("content-type", "application/json"),
            ("user-agent", USER_AGENT),
            # Asked for nothing else, so that every read can be decoded as it comes.
            ("accept-encoding", "identity"),
            *([] if address.endpoint.keep_alive else [("connection", "close")]),
            *address.headers,
        ]
    )


class Upstreams:
    """Opens attempts at the configured providers: the `Providers` port."""

    def __init__(
        self,
        transport: HttpTransport,
        providers: Mapping[str, Provider],
        mint_id: Callable[[], str],
        keep_alive_gap_s: float = KEEP_ALIVE_GAP_S,
        refusal_s: float = REFUSAL_S,
    ) -> None:
        self._keep_alive_gap_s = keep_alive_gap_s
        self._refusal_s = refusal_s
        self._transport = transport
        self._providers = providers
        self._mint_id = mint_id

    def warnings(self, candidate: Candidate, prompt: Prompt) -> list[CompletionWarning]:
        """What would be dropped or changed for this candidate."""
        return list(_encoded(self._providers[candidate.provider], candidate, prompt).warnings)

    async def open(self, candidate: Candidate, prompt: Prompt, until_s: float) -> "UpstreamAnswer":
        """Send the request; back with the answer once the provider accepted it."""
        provider = self._providers[candidate.provider]
        translator = provider.translator
        request = _encoded(provider, candidate, prompt)
        endpoint, base_path, lines = await provider.address(until_s)
        path = base_path + request.path
        head = b"POST %b HTTP/1.1\r\n%b" % (path.encode("ascii"), lines)
        if provider.sign is not None:
            head += b"\r\n" + header_lines(provider.sign(path, request.body))
        if request.headers:
            head += b"\r\n" + header_lines(request.headers)
        if prompt.traceparent:
            head += b"\r\ntraceparent: " + prompt.traceparent.encode("ascii")
            if prompt.tracestate:
                head += b"\r\n" + header_lines([("tracestate", prompt.tracestate)])
        try:
            response = await self._transport.send(endpoint, head, request.body, until_s)
        except TransportError as error:
            raise _lost(error) from error
        facts = AttemptFacts(warnings=list(request.warnings))
        headers = response.headers
        facts.http_status = response.status
        facts.upstream_request_id = (
            headers.get("x-request-id")
            or headers.get("request-id")
            or headers.get("x-amzn-requestid")
            or ""
        )[:128]
        if response.status != 200:
            raise await self._refused(translator, response, facts, until_s)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if (
            kind not in (provider.stream_type, "application/json")
            or headers.get("content-encoding", "identity") != "identity"
        ):
            response.close()
            raise UpstreamError(
                Failure.PROTOCOL,
                f"a 200 with content-type {kind[:64]!r}",
                http_status=200,
                upstream_request_id=facts.upstream_request_id,
            )
        decoder = translator.decoder(candidate, prompt, facts, self._mint_id)
        return UpstreamAnswer(
            response,
            decoder,
            facts,
            is_stream=kind == provider.stream_type,
            keep_alive_gap_s=self._keep_alive_gap_s,
        )

    async def _refused(
        self, translator: Translator, response: HttpResponse, facts: AttemptFacts, until_s: float
    ) -> UpstreamError:
        body_by_s = asyncio.get_running_loop().time() + self._refusal_s
        try:
            # It may all be there though its end is late.
            body = await response.body(min(until_s, body_by_s), MAX_ERROR_BYTES, takes_less=True)
        except BadMessage:
            body = b""  # The status alone says enough.
        finally:
            response.close()
        error = translator.decode_error(response.status, response.headers, body)
        error.http_status = response.status
        error.upstream_request_id = facts.upstream_request_id
        if error.retry_after_s is None:
            error.retry_after_s = retry_after_s(response.headers, time.time())
        if error.retry_after_s is None and error.failure is Failure.THROTTLED:
            error.retry_after_s = reset_s(response.headers, time.time())
        return error


def _encoded(provider: Provider, candidate: Candidate, prompt: Prompt) -> UpstreamRequest:
    """One candidate's request. Raises: Unencodable."""
    try:
        return provider.translator.encode(candidate, prompt)
    except (ValueError, LookupError) as error:
        # What a dialect did not foresee in a request is a bug of ours, but the next dialect may have none.
        log.error(
            "bug",
            provider=provider.id,
            dialect=provider.translator.name,
            # The type and the place only: its text could quote content.
            exc_info=RuntimeError(type(error).__name__).with_traceback(error.__traceback__),
        )
        raise Unencodable("spec", "the request can't be written for the provider") from None


def _lost(error: TransportError) -> UpstreamError:
    if isinstance(error, NotSent):
        return UpstreamError(Failure.NOT_PROCESSED, str(error))
    if isinstance(error, BadMessage):
        return UpstreamError(Failure.PROTOCOL, str(error))
    return UpstreamError(Failure.AMBIGUOUS, str(error))


class UpstreamAnswer:
    """One accepted request's answer: the `Answer` port."""

    __slots__ = (
        "_decoder",
        "_is_broken",
        "_is_kept_alive",
        "_is_stream",
        "_keep_alive_gap_s",
        "_response",
        "facts",
        "is_complete",
    )

    def __init__(
        self,
        response: HttpResponse,
        decoder: Decoder,
        facts: AttemptFacts,
        *,
        is_stream: bool,
        keep_alive_gap_s: float = KEEP_ALIVE_GAP_S,
    ) -> None:
        self._response = response
        self._decoder = decoder
        self._is_stream = is_stream
        self._is_kept_alive = False
        self._is_broken = False
        self._keep_alive_gap_s = keep_alive_gap_s
        self.facts = facts
        self.is_complete = False

    @property
    def output_chars(self) -> int:
        """Characters of the answer so far."""
        return self._decoder.output_chars

    async def read(self, until_s: float) -> list[CompleteResponse]:
        """The next events. Reads over what is no progress."""
        decoder = self._decoder
        try:
            if not self._is_stream:
                events = decoder.whole(await self._response.body(until_s))
                self.is_complete = True
                return events
            while True:
                if decoder.has_told_end:
                    # What may follow is usage and the dialect's last word, and that comes at once.
                    until_s = min(until_s, asyncio.get_running_loop().time() + LAST_WORD_S)
                if self._is_kept_alive:
                    data = await self._read_kept_alive(until_s)
                else:
                    data = await self._response.read(until_s)
                if not data:
                    self.is_complete = True
                    return decoder.finish()
                events = decoder.feed(data)
                if decoder.is_done:
                    if not decoder.is_finished:
                        raise UpstreamError(
                            Failure.PROTOCOL, "the stream was closed before the answer's end"
                        )
                    self.is_complete = True
                    return events
                if events:
                    return events
                if decoder.progressed:
                    decoder.progressed = False
                    return events
                self._is_kept_alive = True
        except (TransportError, TimeoutError, UpstreamError) as error:
            lost = error if isinstance(error, TransportError) else None
            if self._is_stream and (decoder.is_finished if lost else decoder.has_told_end):
                return self._finish_without_last_word(lost)
            if isinstance(error, TransportError):
                raise _lost(error) from error
            if isinstance(error, UpstreamError):
                self._identify(error)
            raise
        except UNDECODABLE as error:
            raise self._undecodable(error) from error

    def _identify(self, error: UpstreamError) -> None:
        error.http_status = error.http_status or 200
        error.upstream_request_id = self.facts.upstream_request_id

    def _undecodable(self, error: Exception) -> UpstreamError:
        """It is still the provider's doing, and the next one may do better."""
        return UpstreamError(
            Failure.PROTOCOL,
            f"undecodable: {type(error).__name__}",
            http_status=200,
            upstream_request_id=self.facts.upstream_request_id,
        )

    def _finish_without_last_word(self, lost: TransportError | None) -> list[CompleteResponse]:
        """The answer is whole although the stream is not. The connection is of no use any more.

        Raises:
            UpstreamError: something was left that can't be read, or an error, or nothing, and the end may have been
                said too early.
        """
        has_told_end = self._decoder.has_told_end
        is_whole = lost is None or self._decoder.survives_loss
        try:
            events = self._decoder.finish()
        except UpstreamError as error:
            if not has_told_end:
                self._identify(error)
                raise
            events = (
                self._decoder.finish()
            )  # What was left is used up, and what came before it counts.
        except UNDECODABLE as error:
            if not has_told_end:
                raise self._undecodable(error) from error
            events = self._decoder.finish()
        if lost is not None and not is_whole:  # What was left of it was no more telling.
            raise _lost(lost) from lost
        self.is_complete = True
        self._is_broken = True
        return events

    async def _read_kept_alive(self, until_s: float) -> bytes:
        """A provider that sends keep-alives and then nothing at all is gone, long before its next token is overdue."""
        alive_until_s = asyncio.get_running_loop().time() + self._keep_alive_gap_s
        if until_s <= alive_until_s:
            return await self._response.read(until_s)
        try:
            return await self._response.read(alive_until_s)
        except TimeoutError:
            raise UpstreamError(Failure.SLOW, "its keep-alives have stopped") from None

    def close(self) -> None:
        """Keep the connection when the answer is complete, else close it at once."""
        if self.is_complete and not self._is_broken:
            self._response.finish_in_background()
        else:
            self._response.close()
