"""Pool: the load processes as whoever runs the levels sees them; a subclass says how messages reach them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from harness.errors import HarnessError
from harness.load.plan import LoadPlan

REPORT = "This is a fault of the harness; please report it."


class ClientFailed(HarnessError):
    """A load process ended by itself: a fault of the harness, not of the service."""

    exit_code = 4


class Pool(ABC):
    """Processes by number. lost: those that died, by name. reason: why the present level was ended from here. streams:
    the most answers that were open at once. page: where Locust's page is, until that was told. last_report: when each
    last said something, CLOCK_MONOTONIC seconds.
    """

    start_after = 0.1  # seconds between the order and a level's first moment, for every process to hear it
    patience = 0.5  # seconds until whoever waits for the next report looks around

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.reason: str | None = None
        self.interrupted = False
        self.streams = 0
        self.page: str | None = None
        self.last_report: dict[int, float] = {}
        self._plan: LoadPlan | None = None

    @abstractmethod
    def take(self, plan: LoadPlan) -> None:
        """Have all processes ready for the levels of this plan. Raises ClientFailed."""

    @abstractmethod
    def alive(self) -> list[int]:
        """The processes that are there."""

    @abstractmethod
    def order(self, only: int | None = None, **what: Any) -> None:
        """Tell every process that is there, or one."""

    @abstractmethod
    def next(self, timeout: float) -> dict[str, Any] | None:
        """What a process said next; None when nobody spoke within `timeout` seconds. Notes who died."""

    @abstractmethod
    def dismiss(self, number: int) -> None:
        """Count on this process no longer."""

    @abstractmethod
    def last_words(self) -> str:
        """How a process ended."""

    @property
    def jitter(self) -> float:
        """The users' mean pause, as a share of an answer's time."""
        return 0.0 if self._plan is None or self._plan.think_time else self._plan.jitter

    def now(self) -> float:
        """Seconds since the run's start."""
        assert self._plan is not None
        return time.monotonic() - self._plan.clock_monotonic

    def await_all(self, word: str, *, within: float) -> set[int]:
        """Wait until every process that lives has said this. Raises ClientFailed where that takes too long."""
        said: set[int] = set()
        until = time.monotonic() + within
        while set(self.alive()) - said:
            report = self.next(timeout=self.patience)
            if report is not None and report["say"] == word:
                said.add(report["process"])
            if time.monotonic() > until:
                raise ClientFailed(f"not {word} within {within:.0f} s", where="load", advice=REPORT)
        self.require_someone()
        return said

    def require_someone(self) -> None:
        """Raises ClientFailed when no process is left."""
        if not self.alive():
            raise ClientFailed(self.last_words(), where="load", advice=REPORT)

    def stop(self, reason: str) -> None:
        """End the level for this reason; open requests are left as in flight."""
        self.reason = reason
        self.order(do="end", reason=reason)
        self.order(do="abandon")

    def interrupt(self) -> None:
        """Ctrl-C. Raises KeyboardInterrupt at the second."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self.stop("interrupted")
