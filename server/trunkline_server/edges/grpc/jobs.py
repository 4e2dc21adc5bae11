"""`trunkline.v1.JobService`: work that outlives a call."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from trunkline.v1.job_service_pb2 import (
    CancelJobRequest,
    CancelJobResponse,
    CreateJobRequest,
    CreateJobResponse,
    GetJobRequest,
    GetJobResponse,
    ListJobsRequest,
    ListJobsResponse,
    WatchJobRequest,
    WatchJobResponse,
)
from trunkline_server.completion.order import Call
from trunkline_server.completion.service import Completions
from trunkline_server.core.errors import InvalidRequest
from trunkline_server.core.plans import Scope
from trunkline_server.edges.grpc.call import Calls, Context, abort_on_error, answer_unary, head
from trunkline_server.edges.grpc.pages import page_size_of
from trunkline_server.jobs.service import JOB_ID, Jobs


class JobServicer:
    """Everyone sees their own organisation's jobs; of others they are told that they do not exist."""

    def __init__(self, jobs: Jobs, completions: Completions, calls: Calls) -> None:
        self._jobs = jobs
        self._completions = completions
        self._calls = calls

    async def CreateJob(self, request: CreateJobRequest, context: Context) -> CreateJobResponse:
        """It is kept when this is answered, and runs whoever stays."""
        call = self._calls.read("CreateJob", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            return CreateJobResponse(job=await self._jobs.create(_keyed(request, call), caller))

    async def GetJob(self, request: GetJobRequest, context: Context) -> GetJobResponse:
        """As it is now, with its result."""
        call = self._calls.read("GetJob", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            return GetJobResponse(job=await self._jobs.get(request.job_id, caller))

    async def ListJobs(self, request: ListJobsRequest, context: Context) -> ListJobsResponse:
        """Newest first, without results."""
        call = self._calls.read("ListJobs", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            size = page_size_of(request.page_size)
            if request.page_token and not JOB_ID.match(request.page_token):
                raise InvalidRequest("page_token", "is none of ours")
            found = await self._jobs.page(caller, request.page_token, size + 1)
            token = found[size - 1].id if len(found) > size else ""
            return ListJobsResponse(jobs=found[:size], next_page_token=token)

    async def CancelJob(self, request: CancelJobRequest, context: Context) -> CancelJobResponse:
        """One that has ended stays as it is."""
        call = self._calls.read("CancelJob", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            return CancelJobResponse(job=await self._jobs.cancel(request.job_id, caller))

    async def WatchJob(
        self, request: WatchJobRequest, context: Context
    ) -> AsyncGenerator[list[WatchJobResponse], None]:
        """What has happened after `after_sequence`, and then what happens, until the job has ended."""
        call = self._calls.read("WatchJob", context)
        async with abort_on_error(context, call):
            caller = await self._completions.enter(call, Scope.COMPLETE)
            has_head = False
            events = self._jobs.watch(request.job_id, request.after_sequence, caller)
            async with aclosing(events):
                async for batch in events:
                    if not has_head:
                        has_head = True
                        await context.send_initial_metadata(head(call))
                    yield batch


def _keyed(request: CreateJobRequest, call: Call) -> CreateJobRequest:
    """With the key of the header, where that has it."""
    key, header = request.idempotency_key, call.idempotency_key
    if not header or key == header:
        return request
    if key:
        raise InvalidRequest("idempotency_key", "differs from the idempotency-key header")
    keyed = CreateJobRequest()
    keyed.CopyFrom(request)
    keyed.idempotency_key = header
    return keyed
