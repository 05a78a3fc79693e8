"""The moments at which one level's requests are due."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice, takewhile

from harness.measure.arrivals import Arrival


def moments(
    arrival: Arrival, rate: float, seed: int, *, duration: float | None = None, requests: int | None = None
) -> Iterator[float]:
    """Those before `duration` seconds, and at most this many. rate: requests per second. Same seed, same moments."""
    offsets = arrival.offsets(rate, random.Random(f"arrivals {seed}"))
    if duration is not None:
        offsets = takewhile(lambda moment: moment < duration, offsets)
    return islice(offsets, requests)
