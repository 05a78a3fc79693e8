"""SAMPLERS: what is read beside a load once a second, and written to server.parquet.

One thread reads them in this order (load/sampling.py): those that never keep it waiting come first.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.load.samplers.base import SampledService, Sampler
from harness.load.samplers.engine import EngineSampler
from harness.load.samplers.gpu import GpuSampler
from harness.load.samplers.host import HostSampler

SAMPLERS: tuple[Callable[[SampledService], Sampler], ...] = (
    HostSampler,
    GpuSampler,
    EngineSampler,
)
