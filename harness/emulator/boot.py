"""How long the phases of a start take, with a wait that a signal can interrupt."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from harness.units import parse_duration

_SHARES = (0.15, 0.6, 0.25)


@dataclass(frozen=True)
class BootTimes:
    """Seconds of download, loading and warm-up."""

    download: float = 0.02
    load: float = 0.05
    warm_up: float = 0.05

    @classmethod
    def parse(cls, text: str | None) -> BootTimes:
        """`30s` for all three together, or `5s,20s,5s` for each. Raises ValueError."""
        if text is None:
            return cls()
        parts = [parse_duration(part.strip()) for part in text.split(",")]
        if len(parts) == 3:
            return cls(*parts)
        if len(parts) != 1:
            raise ValueError("expected one duration, or three: download, loading, warm-up")
        return cls(*(share * parts[0] for share in _SHARES))


async def pause(seconds: float, stop: asyncio.Event) -> bool:
    """Wait; False when `stop` was set meanwhile."""
    if stop.is_set():
        return False
    try:
        await asyncio.wait_for(stop.wait(), max(0.0, seconds))
    except asyncio.TimeoutError:
        return True
    return False
