"""How a cache follows the memory fraction."""

from __future__ import annotations

import pytest

from harness.engines.base import EngineFacts
from harness.probe.evidence import gather
from harness.probe.memory_fraction import caches_at
from harness.probe.setting import Outcome, Prior, Setting


@pytest.mark.parametrize("fraction", [0.2001, 0.4, 0.7531, None])
def test_a_fraction_is_one_point_of_the_line_however_often_it_ran(fraction: float | None) -> None:
    """With the prefill budget that is asked for and with another; two points a rounding apart make no slope."""
    runs = [
        Outcome(
            Setting(cuda_memory_fraction=fraction, max_batch_prefill_tokens=prefill),
            EngineFacts("flash", budget=10_016, block_size=16),
            True,
        )
        for prefill in (1024, 4096)
    ]
    assert list(caches_at(gather(runs), 1024, Prior(prefill_share=0.25), 0.1)) == [fraction or 1.0]
