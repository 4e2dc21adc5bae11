"""JSON lines on standard error."""

import sys
from typing import Any

import msgspec
import structlog


def configure(level: str) -> structlog.typing.FilteringBoundLogger:
    """The process's logger. `level`: debug, info, warning or error."""
    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_encode),
        ],
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
    )
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def _encode(event: Any, **_: Any) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)
