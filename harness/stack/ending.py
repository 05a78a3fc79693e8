"""The end of a service that must not be cut in half."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from harness.stack.service import Service


def stop_in_order(service: Service, grace: float = 100.0) -> None:
    """Stop it. What tells the harness to end meanwhile is raised as KeyboardInterrupt once the service is gone.

    A second telling cuts the grace off, counted from the one that may be why the service is stopped at all.
    """
    told_before = isinstance(sys.exc_info()[1], KeyboardInterrupt)
    with _told_to_end(patience=0 if told_before else 1) as told:
        try:
            service.stop(grace)
        except KeyboardInterrupt:
            service.stop(0)
    if told and not told_before:
        raise KeyboardInterrupt


@contextmanager
def _told_to_end(patience: int) -> Iterator[list[int]]:
    """The signals that came. The first one after so many raises KeyboardInterrupt, no other does."""
    told: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)
        if len(told) == patience + 1:
            raise KeyboardInterrupt

    ends = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if callable(signal.getsignal(number))]
    before = {number: signal.signal(number, note) for number in ends}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
