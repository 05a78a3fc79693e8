"""Which share of the GPU's memory a flash engine may take, so that its KV cache has the wanted size.

The cache is a straight line over the fraction: it falls by memory * wiggle room / KV bytes for each unit
(utils/import_utils.py:13 of the server). Two starts tell that line; before, it is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from harness.probe.evidence import Evidence
from harness.probe.flash_evidence import measured_caches
from harness.probe.setting import Prior

CLOSE = 0.004  # of the tokens wanted, that a cache may be smaller and still be taken for them
LEAST = 0.2
STEP = 10_000  # fractions are told to so many parts
KV_SHARE = 0.4  # of the GPU, that is taken for KV memory where sizes are unknown
WIGGLE_ROOM = 0.9
WEIGHT = 0.5  # tokens, of a guess that is wrong by its whole


def caches_by_fraction(evidence: Evidence, prefill: int) -> dict[float, int]:
    """Usable tokens by fraction (1 where none was given) of the starts with this prefill budget; the least of each."""
    found: dict[float, int] = {}
    for each in measured_caches(evidence):
        if each.prefill == prefill:
            found[each.fraction] = min(each.usable, found.get(each.fraction, each.usable))
    return found


def caches_at(evidence: Evidence, prefill: int, prior: Prior, guess: float) -> dict[float, int]:
    """The same with what starts with other prefill budgets would have had. guess: see prefill_cost."""
    cost = prefill_cost(evidence, prior, guess)
    found: dict[float, int] = {}
    for each in measured_caches(evidence):
        reckoned = int(each.usable + cost * (each.prefill - prefill))
        found[each.fraction] = min(reckoned, found.get(each.fraction, reckoned))
    return {**found, **caches_by_fraction(evidence, prefill)}


def prefill_cost(evidence: Evidence, prior: Prior, guess: float) -> float:
    """Tokens of cache that each token of the prefill budget takes, where a cache is a straight line over that and over
    the memory fraction. guess: as far as neither the starts nor the model tell it.
    """
    if prior.prefill_share is not None:
        return prior.prefill_share
    points = measured_caches(evidence)
    if not points:
        return guess
    steepness = max(each.usable for each in points) / KV_SHARE
    rows = [(1.0, each.fraction - 1, -float(each.prefill)) for each in points]
    # Two starts that differ in both leave it open which of the two took how much.
    rows += [(0.0, 0.0, WEIGHT), (0.0, WEIGHT / steepness, 0.0)]
    values = [*(float(each.usable) for each in points), WEIGHT * guess, WEIGHT]
    return max(0.0, float(np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0][2]))


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
