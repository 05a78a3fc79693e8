"""The protocol of a sampler: read once a second beside a load, it returns named numbers.

Names follow Prometheus: the unit is in the name (`gpu_power_watts`), a share from 0 to 1 ends in `_ratio`, and what
only grows in `_total`. The statistics and the reports go by these endings, so that a new figure needs no further line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from harness.engines.base import EngineInfo
from harness.engines.endpoint import Endpoint
from harness.measure.server import SHARED, UNMEASURED
from harness.text import one_line

_LONGEST = 300  # characters of a label


class SampledValue(NamedTuple):
    """One row of server.parquet without its moment. labels: sorted by name."""

    metric: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


def own(name: str, value: float, **labels: str) -> SampledValue:
    """A figure under a name of ours, to be told from a page's own."""
    # A driver's or a process's own words: half a character among them would keep the whole file from being written.
    shown = sorted((label, one_line(text)[:_LONGEST]) for label, text in labels.items())
    return SampledValue(f"{SHARED}{name}", float(value), tuple(shown))


def unmeasured(name: str, why: str) -> SampledValue:
    """Says in the file that a sampler has nothing to tell, and why."""
    return own(f"{name}{UNMEASURED}", 1.0, why=why)


class NotMeasured(Exception):
    """There is nothing to read here, now or later; the text says why."""


@dataclass(frozen=True)
class SampledService:
    """The service beside whose load is sampled. info: who answers there; None where nobody looked."""

    endpoint: Endpoint
    info: EngineInfo | None = None

    @property
    def emulated(self) -> bool:
        return self.info is not None and self.info.emulated


class Sampler(Protocol):
    """One source of readings. Its making opens nothing; `read` and `close` are called by one thread."""

    name: str  # what its figures' names begin with

    def read(self) -> Sequence[SampledValue]:
        """What it is like now; nothing where it did not answer this time. Raises NotMeasured."""
        ...

    def close(self) -> None: ...
