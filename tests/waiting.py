"""One way to wait for something in a test: it fails when it waited in vain."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 20.0, every: float = 0.01) -> None:
    """Return as soon as the condition holds. AssertionError when it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {seconds:.0f} s"
        time.sleep(every)
