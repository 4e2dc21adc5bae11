"""The asyncio client: the same calls as the blocking one, awaited."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio
from google.protobuf.message import Message

from trunkline.accounts import (
    Adjustment,
    adjust_credits_request,
    create_key_request,
    rotate_key_request,
    usage_request,
)
from trunkline.channels import Metadata, call_metadata, call_timeout_s, endpoint
from trunkline.errors import translated
from trunkline.pages import Page, request_for
from trunkline.specs import Prompt, SpecOptions, spec_from
from trunkline.streams import AsyncCompletionStream, raise_if_closed, readable
from trunkline.v1.account_service_pb2 import (
    GetBalanceRequest,
    GetBalanceResponse,
    ListLedgerEntriesRequest,
    UsageRow,
)
from trunkline.v1.account_service_pb2_grpc import AccountServiceStub
from trunkline.v1.admin_service_pb2 import (
    AuditEvent,
    CreateKeyResponse,
    Key,
    ListAuditEventsRequest,
    ListKeysRequest,
    RevokeKeyRequest,
    RotateKeyResponse,
)
from trunkline.v1.admin_service_pb2_grpc import AdminServiceStub
from trunkline.v1.cache_service_pb2 import (
    ClearCacheRequest,
    GetCacheStatsRequest,
    GetCacheStatsResponse,
    ReportHitRequest,
)
from trunkline.v1.cache_service_pb2_grpc import CacheServiceStub
from trunkline.v1.catalog_service_pb2 import (
    GetModelRequest,
    InstallSkillRequest,
    ListModelsRequest,
    ListSkillsRequest,
    Model,
    Skill,
    UninstallSkillRequest,
)
from trunkline.v1.catalog_service_pb2_grpc import CatalogServiceStub
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    CompleteUnaryRequest,
    PreviewRouteRequest,
    PreviewRouteResponse,
    StreamOptions,
)
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.conversation_service_pb2 import (
    Conversation,
    CreateConversationRequest,
    DeleteConversationRequest,
    GetConversationRequest,
    ListConversationsRequest,
    ListMessagesRequest,
    StoredMessage,
)
from trunkline.v1.conversation_service_pb2_grpc import ConversationServiceStub
from trunkline.v1.job_service_pb2 import (
    CancelJobRequest,
    CreateJobRequest,
    GetJobRequest,
    Job,
    ListJobsRequest,
    WatchJobRequest,
    WatchJobResponse,
)
from trunkline.v1.job_service_pb2_grpc import JobServiceStub
from trunkline.v1.ledger_pb2 import LedgerEntry

_Response = TypeVar("_Response")
_Page = TypeVar("_Page", bound=Page)


class AsyncClient:
    """A connection to one gateway, of one event loop, and closed by `close` or an `async with`
    block.

    Made while that loop runs. Arguments and errors are those of `Client`.
    """

    def __init__(
        self,
        target: str,
        *,
        api_key: str | None = None,
        tls: bool = False,
        root_certificates: bytes | None = None,
        channel_credentials: grpc.ChannelCredentials | None = None,
        allow_insecure_key: bool = False,
        default_timeout_s: float = 600.0,
        metadata: Metadata | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        gateway = endpoint(
            target,
            api_key=api_key,
            tls=tls,
            root_certificates=root_certificates,
            channel_credentials=channel_credentials,
            allow_insecure_key=allow_insecure_key,
            metadata=metadata or {},
            options=options or {},
        )
        self._metadata = gateway.metadata
        self._default_timeout_s = default_timeout_s
        self._channel = (
            grpc.aio.insecure_channel(gateway.target, gateway.options)
            if gateway.credentials is None
            else grpc.aio.secure_channel(gateway.target, gateway.credentials, gateway.options)
        )
        self._completions = CompletionServiceStub(self._channel)
        self._catalog = CatalogServiceStub(self._channel)
        self._conversations = ConversationServiceStub(self._channel)
        self._cache = CacheServiceStub(self._channel)
        self._jobs = JobServiceStub(self._channel)
        self._accounts = AccountServiceStub(self._channel)
        self._admin = AdminServiceStub(self._channel)

    async def complete(
        self,
        prompt: Prompt | None = None,
        *,
        spec: CompletionSpec | None = None,
        timeout_s: float | None = None,
        idempotency_key: str = "",
        request_id: str | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
        metadata: Metadata | None = None,
        **options: Unpack[SpecOptions],
    ) -> Completion:
        """One whole answer.

        Args:
            prompt: the user's words, or messages, oldest first. Or nothing, with a `spec`.
            spec: a whole spec, instead of a prompt and options.
            timeout_s: for the whole call.
            idempotency_key: at most 255 characters; the same request with the same key is answered
                once.
            request_id: of the caller's choice, 8 to 64 of A-Z, a-z, 0-9, _ and -. None: the gateway
                mints one.
            traceparent: W3C trace context, also carried to the provider.
            tracestate: W3C trace state.
            metadata: further headers of this call.
            options: see `SpecOptions`.
        """
        request = CompleteUnaryRequest(
            spec=spec_from(prompt, spec, options), idempotency_key=idempotency_key
        )
        headers = call_metadata(
            self._metadata,
            metadata,
            request_id=request_id,
            traceparent=traceparent,
            tracestate=tracestate,
        )
        response = await _answer(
            self._completions.CompleteUnary(
                request, timeout=self._timeout_s(timeout_s), metadata=headers
            )
        )
        return response.completion

    def stream(
        self,
        prompt: Prompt | None = None,
        *,
        spec: CompletionSpec | None = None,
        stream_options: StreamOptions | None = None,
        timeout_s: float | None = None,
        idempotency_key: str = "",
        request_id: str | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
        metadata: Metadata | None = None,
        **options: Unpack[SpecOptions],
    ) -> AsyncCompletionStream:
        """One answer as it is made; use it as a context manager. Errors are raised by the stream,
        not here.

        Args are those of `complete`, and `stream_options`, of which a heartbeat turns retries off.
        """
        request = CompleteRequest(
            spec=spec_from(prompt, spec, options),
            idempotency_key=idempotency_key,
            stream_options=stream_options,
        )
        headers = call_metadata(
            self._metadata,
            metadata,
            request_id=request_id,
            traceparent=traceparent,
            tracestate=tracestate,
        )
        return AsyncCompletionStream(
            self._completions.Complete(
                request, timeout=self._timeout_s(timeout_s), metadata=headers
            )
        )

    async def preview_route(
        self,
        prompt: Prompt | None = None,
        *,
        spec: CompletionSpec | None = None,
        request_id: str = "",
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
        **options: Unpack[SpecOptions],
    ) -> PreviewRouteResponse:
        """Who would answer, best first, then who would not and why. No provider is asked.

        Args:
            request_id: instead of a prompt: the decision of an earlier request, as it was made.
        """
        request = PreviewRouteRequest(request_id=request_id)
        if not request_id or prompt is not None or spec is not None:
            request.spec.CopyFrom(spec_from(prompt, spec, options))
        return await _answer(
            self._completions.PreviewRoute(
                request,
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )

    async def list_models(
        self,
        *,
        page_size: int = 0,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[Model]:
        """Every model, route and mode of the catalog; pages are fetched as they are needed.

        Args:
            page_size: 0: the gateway's default.
            timeout_s: for each page.
            metadata: further headers of these calls.
        """
        request = ListModelsRequest(page_size=page_size)
        call = self._catalog.ListModels
        async with aclosing(self._pages(call, request, timeout_s, metadata)) as pages:
            async for page in pages:
                for model in page.models:
                    yield model

    async def get_model(
        self,
        model_id: str,
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> Model:
        """One entry of the catalog.

        Raises:
            ModelNotFound: it names the nearest known id.
        """
        response = await _answer(
            self._catalog.GetModel(
                GetModelRequest(model_id=model_id),
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )
        return response.model

    async def create_conversation(
        self,
        *,
        title: str = "",
        metadata_json: str = "",
        idempotency_key: str = "",
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> Conversation:
        """A conversation in which nothing was said yet; its id is a completion's `conversation_id`.

        Args:
            title: at most 256 characters.
            metadata_json: a JSON object of at most 16 KiB.
            idempotency_key: at most 255 characters; with the same key one is made, for a day.
        """
        response = await _answer(
            self._conversations.CreateConversation(
                CreateConversationRequest(
                    title=title, metadata_json=metadata_json, idempotency_key=idempotency_key
                ),
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )
        return response.conversation

    async def get_conversation(
        self,
        conversation_id: str,
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> Conversation:
        """What is known of a conversation, without what was said in it.

        Raises:
            ConversationNotFound: it is not there, or not the key's organisation's.
        """
        response = await _answer(
            self._conversations.GetConversation(
                GetConversationRequest(conversation_id=conversation_id),
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )
        return response.conversation

    async def list_conversations(
        self,
        *,
        page_size: int = 0,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[Conversation]:
        """Those of the key's organisation, the newest first; pages are fetched as they are needed.

        Args:
            page_size: 0: the gateway's default.
            timeout_s: for each page.
            metadata: further headers of these calls.
        """
        request = ListConversationsRequest(page_size=page_size)
        call = self._conversations.ListConversations
        async with aclosing(self._pages(call, request, timeout_s, metadata)) as pages:
            async for page in pages:
                for conversation in page.conversations:
                    yield conversation

    async def list_messages(
        self,
        conversation_id: str,
        *,
        page_size: int = 0,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[StoredMessage]:
        """What was said, the oldest first; pages are fetched as they are needed.

        Args:
            conversation_id: of the key's organisation.
            page_size: 0: the gateway's default.
            timeout_s: for each page.
            metadata: further headers of these calls.

        Raises:
            ConversationNotFound.
        """
        request = ListMessagesRequest(conversation_id=conversation_id, page_size=page_size)
        call = self._conversations.ListMessages
        async with aclosing(self._pages(call, request, timeout_s, metadata)) as pages:
            async for page in pages:
                for message in page.messages:
                    yield message

    async def delete_conversation(
        self,
        conversation_id: str,
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """Delete a conversation and all that was said in it.

        Raises:
            ConversationNotFound.
        """
        await _answer(
            self._conversations.DeleteConversation(
                DeleteConversationRequest(conversation_id=conversation_id),
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )

    async def get_cache_stats(
        self,
        organization: str = "",
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> GetCacheStatsResponse:
        """What the cache holds of an organisation, and how often that was of use.

        Args:
            organization: empty for the key's own; another one's needs an admin key.
        """
        return await _answer(
            self._cache.GetCacheStats(
                GetCacheStatsRequest(organization=organization),
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )

    async def clear_cache(
        self,
        organization: str = "",
        *,
        older_than: timedelta | None = None,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """Forget the answers that an organisation was given.

        Args:
            organization: empty for the key's own; another one's needs an admin key.
            older_than: only what was asked for longer ago than this.
        """
        request = ClearCacheRequest(organization=organization)
        if older_than is not None:
            request.older_than.FromTimedelta(older_than)
        await _answer(
            self._cache.ClearCache(
                request,
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )

    async def report_hit(
        self,
        entry_id: str,
        *,
        wrong: bool,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """Say what an answer from the cache was worth. One that was wrong is not given again.

        Args:
            entry_id: of `Completion.cache`.
        """
        await _answer(
            self._cache.ReportHit(
                ReportHitRequest(entry_id=entry_id, wrong=wrong),
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )

    async def list_skills(
        self,
        *,
        page_size: int = 0,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[Skill]:
        """Every skill, and whether the caller's organisation has installed it.

        Args:
            page_size: 0: the gateway's default.
            timeout_s: for each page.
        """
        request = ListSkillsRequest(page_size=page_size)
        call = self._catalog.ListSkills
        async with aclosing(self._pages(call, request, timeout_s, metadata)) as pages:
            async for page in pages:
                for skill in page.skills:
                    yield skill

    async def install_skill(
        self,
        slug: str,
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> Skill:
        """Adds a skill to all completions of the caller's organisation; again is the same as once.

        Raises:
            NotFound.
        """
        response = await _answer(
            self._catalog.InstallSkill(
                InstallSkillRequest(slug=slug),
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )
        return response.skill

    async def uninstall_skill(
        self,
        slug: str,
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> Skill:
        """Takes it away again.

        Raises:
            NotFound: it is not installed.
        """
        response = await _answer(
            self._catalog.UninstallSkill(
                UninstallSkillRequest(slug=slug),
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )
        return response.skill

    async def create_job(
        self,
        kind: str,
        spec: CompletionSpec,
        *,
        idempotency_key: str = "",
        callback_url: str = "",
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> Job:
        """Asks for work that outlives this call; it is kept when this returns.

        Args:
            kind: completion, research or video.
            idempotency_key: the same key and request make the same job; empty: each call makes one.
            callback_url: is told when the job has ended.
        """
        request = CreateJobRequest(
            kind=kind, spec=spec, idempotency_key=idempotency_key, callback_url=callback_url
        )
        response = await _answer(
            self._jobs.CreateJob(
                request,
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )
        return response.job

    async def get_job(
        self, job_id: str, *, timeout_s: float | None = None, metadata: Metadata | None = None
    ) -> Job:
        """As it is now, with its result once it has ended.

        Raises:
            NotFound.
        """
        response = await _answer(
            self._jobs.GetJob(
                GetJobRequest(job_id=job_id),
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )
        return response.job

    async def list_jobs(
        self,
        *,
        page_size: int = 0,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[Job]:
        """The caller's jobs without their results, newest first; pages are fetched as they are needed.

        Args:
            page_size: 0: the gateway's default.
            timeout_s: for each page.
        """
        request = ListJobsRequest(page_size=page_size)
        call = self._jobs.ListJobs
        async with aclosing(self._pages(call, request, timeout_s, metadata)) as pages:
            async for page in pages:
                for job in page.jobs:
                    yield job

    async def cancel_job(
        self, job_id: str, *, timeout_s: float | None = None, metadata: Metadata | None = None
    ) -> Job:
        """Ends a job; one that has ended stays as it is.

        Raises:
            NotFound.
        """
        response = await _answer(
            self._jobs.CancelJob(
                CancelJobRequest(job_id=job_id),
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )
        return response.job

    async def watch_job(
        self,
        job_id: str,
        after_sequence: int = 0,
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[WatchJobResponse]:
        """What has happened after that event, then what happens, until the job has ended.

        Broken off, it is called again with the number of the last event.

        Raises:
            NotFound.
        """
        call = self._jobs.WatchJob(
            WatchJobRequest(job_id=job_id, after_sequence=after_sequence),
            timeout=self._timeout_s(timeout_s),
            metadata=call_metadata(self._metadata, metadata),
        )
        try:
            with translated():
                async for event in call:
                    yield readable(event)
        finally:
            call.cancel()

    async def get_balance(
        self,
        organization: str = "",
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> GetBalanceResponse:
        """What may be spent, and what running requests hold, in nanos.

        Args:
            organization: empty: the key's own. Another one's is for admin keys.
        """
        return await _answer(
            self._accounts.GetBalance(
                GetBalanceRequest(organization=organization),
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )

    async def list_ledger_entries(
        self,
        organization: str = "",
        *,
        page_size: int = 0,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[LedgerEntry]:
        """Every movement of credits, newest first; pages are fetched as they are needed.

        Args:
            organization: as of `get_balance`.
            page_size: 0: the gateway's default.
            timeout_s: for each page.
            metadata: further headers of these calls.
        """
        request = ListLedgerEntriesRequest(organization=organization, page_size=page_size)
        call = self._accounts.ListLedgerEntries
        async with aclosing(self._pages(call, request, timeout_s, metadata)) as pages:
            async for page in pages:
                for entry in page.entries:
                    yield entry

    async def query_usage(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        group_by: Sequence[str] = (),
        organization: str = "",
        page_size: int = 0,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[UsageRow]:
        """What was used from `start` until before `end`; pages are fetched as they are needed.

        Args:
            start: with a time zone. None: the first of the month in which it ends.
            end: with a time zone. None: now.
            group_by: a row for each combination of "provider", "model", "route", "mode", "key",
                "project", "end_user", "session", "day" and "label:NAME". Nothing: one row for all.
            organization: as of `get_balance`.
            page_size: 0: the gateway's default.
            timeout_s: for each page.
            metadata: further headers of these calls.
        """
        request = usage_request(
            start, end, group_by=group_by, organization=organization, page_size=page_size
        )
        call = self._accounts.QueryUsage
        async with aclosing(self._pages(call, request, timeout_s, metadata)) as pages:
            async for page in pages:
                for row in page.rows:
                    yield row

    async def create_key(
        self,
        organization: str = "",
        *,
        name: str = "",
        plan: str = "",
        scopes: Sequence[str] = (),
        project: str = "",
        expire_time: datetime | None = None,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> CreateKeyResponse:
        """A new key. Its secret is in this response and nowhere else.

        Args:
            name: for people.
            plan: one of the gateway's configuration. Empty: its default.
            scopes: of "complete", "read" and "admin". Nothing: the first two.
            project: within the organisation, for budgets.
            expire_time: with a time zone. None: never.
        """
        request = create_key_request(
            organization,
            name=name,
            plan=plan,
            scopes=scopes,
            project=project,
            expire_time=expire_time,
        )
        return await _answer(
            self._admin.CreateKey(
                request,
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )

    async def list_keys(
        self,
        organization: str = "",
        *,
        page_size: int = 0,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[Key]:
        """Every key, without secrets; pages are fetched as they are needed.

        Args:
            organization: empty: all.
            page_size: 0: the gateway's default.
            timeout_s: for each page.
            metadata: further headers of these calls.
        """
        request = ListKeysRequest(organization=organization, page_size=page_size)
        call = self._admin.ListKeys
        async with aclosing(self._pages(call, request, timeout_s, metadata)) as pages:
            async for page in pages:
                for key in page.keys:
                    yield key

    async def rotate_key(
        self,
        key_id: str,
        *,
        overlap: timedelta | None = None,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> RotateKeyResponse:
        """A new secret for a key. It is in this response and nowhere else.

        Args:
            key_id: the public part of the key.
            overlap: how long the former secret still works, at most a day. None: it no longer does.
        """
        request = rotate_key_request(key_id, overlap)
        return await _answer(
            self._admin.RotateKey(
                request,
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )

    async def revoke_key(
        self,
        key_id: str,
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> Key:
        """Ends a key for good; it is refused everywhere within a second.

        Args:
            key_id: the public part of the key.
        """
        response = await _answer(
            self._admin.RevokeKey(
                RevokeKeyRequest(key_id=key_id),
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )
        return response.key

    async def adjust_credits(
        self,
        organization: str,
        kind: Adjustment,
        amount_nanos: int,
        *,
        description: str = "",
        idempotency_key: str = "",
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> LedgerEntry:
        """Puts credits on an account, or takes them off; gives the entry in its ledger.

        Args:
            kind: "grant", "topup", "refund" or "adjustment".
            amount_nanos: see `nanos_from_usd`. Negative, as an adjustment may be: taken off.
            description: for people; it is kept in the ledger.
            idempotency_key: at most 255 characters; the same call with the same key is done once.
                Give one where a call is repeated when its outcome is not known.
        """
        request = adjust_credits_request(
            organization,
            kind,
            amount_nanos,
            description=description,
            idempotency_key=idempotency_key,
        )
        response = await _answer(
            self._admin.AdjustCredits(
                request,
                timeout=self._timeout_s(timeout_s),
                metadata=call_metadata(self._metadata, metadata),
            )
        )
        return response.entry

    async def list_audit_events(
        self,
        organization: str = "",
        *,
        page_size: int = 0,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[AuditEvent]:
        """What was done, and by whom, newest first; pages are fetched as they are needed.

        Args:
            organization: empty: all.
            page_size: 0: the gateway's default.
            timeout_s: for each page.
            metadata: further headers of these calls.
        """
        request = ListAuditEventsRequest(organization=organization, page_size=page_size)
        call = self._admin.ListAuditEvents
        async with aclosing(self._pages(call, request, timeout_s, metadata)) as pages:
            async for page in pages:
                for event in page.events:
                    yield event

    async def close(self) -> None:
        """Closes the connection and cancels the calls that still run."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _timeout_s(self, timeout_s: float | None) -> float:
        return call_timeout_s(self._default_timeout_s if timeout_s is None else timeout_s)

    async def _pages(
        self,
        call: Callable[..., grpc.aio.UnaryUnaryCall[Any, _Page]],
        request: Message,
        timeout_s: float | None,
        metadata: Metadata | None,
    ) -> AsyncGenerator[_Page, None]:
        headers = call_metadata(self._metadata, metadata)
        while True:
            page = await _answer(
                call(request, timeout=self._timeout_s(timeout_s), metadata=headers)
            )
            yield page
            if not page.next_page_token:
                return
            request = request_for(request, page.next_page_token)


async def _answer(call: grpc.aio.UnaryUnaryCall[Any, _Response]) -> _Response:
    with translated():
        try:
            response = await call
        except asyncio.CancelledError:
            raise_if_closed()
            raise
    return readable(response)
