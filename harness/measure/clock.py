"""The one clock of a run: CLOCK_MONOTONIC, and its anchor in wall time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone


@dataclass(frozen=True)
class Anchor:
    """The moment that 0 stands for in the records of a run.

    monotonic: seconds of CLOCK_MONOTONIC, which all processes of one machine share. utc: the same moment in UTC.
    """

    monotonic: float
    utc: datetime

    @classmethod
    def now(cls) -> Anchor:
        return cls(time.monotonic(), datetime.now(timezone.utc))

    def elapsed(self) -> float:
        """Seconds since the anchor."""
        return time.monotonic() - self.monotonic
