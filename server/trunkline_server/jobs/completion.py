"""The kind `completion`: any request, done later."""

from trunkline_server.jobs.runner import Work

STEP = "answer"


async def complete(work: Work) -> bytes:
    """Its `Completion`, serialised."""
    return (await work.complete(STEP, work.spec)).SerializeToString()
