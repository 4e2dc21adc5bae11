"""Signs the audit log of a running service: every minute in which something was written, or every 1,000 entries."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from trunkline_server.accounts.audit_checkpoints import ChainBroken, CheckpointSigner, is_due
from trunkline_server.accounts.audit_file import CheckpointFile, keep_checkpoint
from trunkline_server.core.errors import StorageUnavailable
from trunkline_server.core.transactions import Statement, Storage, Transaction

LOOK_S: Final = 5.0
CLOSE_S: Final = 2.0

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def head() -> Transaction[int]:
    """How many entries there are."""
    rows = yield Statement("SELECT sequence FROM audit_head WHERE id = 1")
    return int(rows[0][0]) if rows else 0


class AuditSeal:
    """One for a process; those of several processes do not disturb each other.

    Args:
        file: where checkpoints are kept outside of the database too; None for nowhere.
        now_us: microseconds since 1970.
    """

    def __init__(
        self,
        storage: Storage,
        signer: CheckpointSigner,
        file: Path | None,
        now_us: Callable[[], int],
    ) -> None:
        self._storage = storage
        self._signer = signer
        self._file = CheckpointFile(file) if file is not None else None
        self._now_us = now_us
        self._signed = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look whether there is something new."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop, and sign what is new."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._sign()
        except (TimeoutError, StorageUnavailable, OSError, ChainBroken) as error:
            log.warning("audit_not_signed", error=type(error).__name__)

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        signed_s = clock()
        is_first = True
        while True:
            try:
                written = await self._storage.read(head) - self._signed
                if is_due(written, clock() - signed_s) or (is_first and written):
                    await self._sign()
                    signed_s = clock()
                is_first = False
            except ChainBroken as error:
                log.error("audit_chain_broken", problem=str(error))
            except Exception as error:  # noqa: BLE001 - the database, the disk or a bug: the next look may succeed
                log.warning("audit_not_signed", error=type(error).__name__)
            await asyncio.sleep(LOOK_S)

    async def _sign(self) -> None:
        made = await keep_checkpoint(self._storage, self._signer, self._now_us(), self._file)
        if made is not None:
            self._signed = made.sequence
