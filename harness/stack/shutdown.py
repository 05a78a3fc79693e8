"""Ends a service in order, even when another signal comes."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from harness import interrupts
from harness.engines import ENGINES
from harness.stack.service import Service

SERVED = 100.0  # seconds; what a service needs that has served


def whole_grace(grace: float, engine: str, told: int | None) -> float:
    """Seconds to wait for a service that is to end. SERVED becomes ten more than its engine gives open requests, or
    than `told`, what its entry gives them, where that is longer; any other grace stays, and that of a sidecar.
    """
    drains = [each.default_drain for each in ENGINES if each.name == engine]
    return max(*drains, told or 0) + 10.0 if drains and grace == SERVED else grace


def stop_in_order(service: Service, grace: float = SERVED) -> None:
    """Stop it. What tells the harness to end meanwhile is raised as KeyboardInterrupt once the service is gone.

    A second telling cuts the grace off, counted from the one that may be why the service is stopped at all.
    """
    told_before = isinstance(sys.exc_info()[1], KeyboardInterrupt)
    # held_back: a signal that came before and still waits is raised at the end, like those that come meanwhile.
    with interrupts.held_back(), _told_to_end(patience=0 if told_before else 1) as told:
        try:
            service.stop(grace)
        except KeyboardInterrupt:
            service.stop(0)
    if told and not told_before:
        raise KeyboardInterrupt


@contextmanager
def _told_to_end(patience: int) -> Iterator[list[int]]:
    """The signals that came. The first one after this many raises KeyboardInterrupt, no other does."""
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
