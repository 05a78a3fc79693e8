"""The share of good answers: of the requests due, those that were answered, and not absurdly late.

Quantiles speak of what came; this one figure speaks of what did not. An answer counts as stuck when it took several
times as long as all but a hundredth of BASE's: one and a half per cent of requests that hang for a minute move no
median and no p95, and are what users write tickets about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.stats.interval import share_interval
from harness.stats.metrics import BY_NAME
from harness.stats.quantile import quantile
from harness.stats.run_figure import Part

GOOD_SHARE = "good_share"
LIMIT = 0.01  # of all requests, by which the share may fall
STUCK = 3.0  # times BASE's p99 of end-to-end


@dataclass(frozen=True)
class Loss:
    """The share of good answers on both sides, and how much of it NEW lost: lowest and highest of its 95 % interval."""

    base: float
    new: float
    lowest: float
    highest: float
    requests: int

    @property
    def lost(self) -> float:
        return self.base - self.new


def loss(base: Sequence[Part], new: Sequence[Part]) -> Loss | None:
    """None where no request was due on one side.

    The interval is that of R. G. Newcombe, "Interval Estimation for the Difference between Independent Proportions",
    Statistics in Medicine 17 (1998) 873-890 (method 10), from Clopper's and Pearson's intervals of each side, over as
    many independent requests as the runs' own scatter leaves.
    """
    answered = [BY_NAME["e2e"].of(part.completed).samples for part in base]
    usual = np.concatenate(answered) if answered else np.empty(0)
    stuck = STUCK * quantile(usual, 0.99) if len(usual) else math.inf
    shares = [_side(side, stuck) for side in (base, new)]
    if any(requests == 0 for _, requests, _ in shares):
        return None
    (was, _, before), (now, requests, after) = shares
    low, high = (share_interval(share, size, 0.025) for share, size in ((was, before), (now, after)))
    lost = was - now
    return Loss(
        was,
        now,
        lost - math.hypot(was - low[0], high[1] - now),
        lost + math.hypot(low[1] - was, now - high[0]),
        requests,
    )


def _side(parts: Sequence[Part], stuck: float) -> tuple[float, int, float]:
    """The share, the requests due, and how many independent ones they amount to."""
    due = np.array([len(part.due) for part in parts], dtype=float)
    bad = np.array([part.missed + int(np.sum(BY_NAME["e2e"].of(part.completed).samples > stuck)) for part in parts])
    requests = int(due.sum())
    if requests == 0:
        return math.nan, 0, 0.0
    share = 1 - float(bad.sum()) / requests
    expected = due * (1 - share)
    if len(parts) < 2 or not 0 < share < 1:
        return share, requests, float(requests)
    # Pearson's dispersion between runs: above 1 where bad answers come in some runs and not in others.
    dispersion = float(np.sum((bad - expected) ** 2 / (expected * share))) / (len(parts) - 1)
    return share, requests, requests / max(1.0, dispersion)
