"""The page that Prometheus reads."""

import os

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # Set for workers: their counts are added up.


def exposition() -> tuple[int, bytes, bytes]:
    """Status, content type and body."""
    registry = REGISTRY
    if os.environ.get(DIRECTORY):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return 200, CONTENT_TYPE_LATEST.encode(), generate_latest(registry)
