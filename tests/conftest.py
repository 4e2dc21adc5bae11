"""For all tests."""

import random
import signal

import pytest

# A shell has what it runs in the background ignore interrupts, and so would all programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is told to wait is told how long it really takes, not up to a fifth more."""
    monkeypatch.setattr(random, "random", lambda: 0.0)
