"""How much of the GPU's memory a flash engine may take, so that its KV cache ends where it is wanted.

The cache is a straight line over the fraction: it falls by memory * wiggle room / KV bytes for each unit
(utils/import_utils.py:13 of the server). Two starts tell that line; before, it is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

from harness.probe.evidence import Evidence
from harness.probe.setting import Prior, effective_prefill

CLOSE = 0.004  # of the tokens wanted, that a cache may be smaller and still be taken for them
LEAST = 0.2
STEP = 10_000  # fractions are told to so many parts
KV_SHARE = 0.4  # of the GPU, that is taken for KV memory where sizes are unknown
WIGGLE_ROOM = 0.9


def caches_by_fraction(evidence: Evidence, prefill: int) -> dict[float, int]:
    """Usable tokens by fraction (1 where none was given) of the starts with this prefill budget; the least of each."""
    found: dict[float, int] = {}
    for each in evidence.outcomes:
        usable = each.started.usable if each.started is not None and each.started.kind == "flash" else None
        if usable and effective_prefill(each) == prefill:
            fraction = each.setting.cuda_memory_fraction or 1.0
            found[fraction] = min(usable, found.get(fraction, usable))
    return found


def settled_fraction(caches: Mapping[float, int], wanted: int) -> float | None:
    """A fraction that was tried and whose cache is just what is wanted; None where there is none."""
    near = [fraction for fraction, tokens in caches.items() if wanted * (1 - CLOSE) <= tokens <= wanted]
    return max(near, default=None)


def fraction_for(caches: Mapping[float, int], wanted: float, prior: Prior) -> float:
    """The fraction whose cache has so many tokens. caches: of at least one fraction."""
    line = sorted(caches.items())
    rising = [(one, other) for one, other in pairwise(line) if one[1] < other[1]]
    if rising:  # the two between which it lies, else the nearest two
        (low, fewer), (high, more) = min(rising, key=lambda pair: _distance(pair[0][1], pair[1][1], wanted))
        slope = (more - fewer) / (high - low)
    else:
        high, more = line[-1]
        known = prior.kv_bytes and prior.memory_bytes
        slope = WIGGLE_ROOM * prior.memory_bytes / prior.kv_bytes if known else more / KV_SHARE  # type: ignore[operator]
    return min(1.0, max(LEAST, math.floor((high - (more - wanted) / slope) * STEP) / STEP))


def _distance(fewer: int, more: int, wanted: float) -> float:
    return max(0.0, fewer - wanted, wanted - more)
