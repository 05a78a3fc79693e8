"""The share of good answers: of the requests due, those that were answered, and not absurdly late.

Quantiles speak of what came; this one figure speaks of what did not. An answer counts as stuck when it took several
times as long as all but a hundredth of BASE's: one and a half per cent of requests that hang for a minute move no
median and no p95, and are what users write tickets about. Where more than a hundredth hang in BASE already, the p95
tells what is usual, so that three times as many in NEW are seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.measure.records import Floats
from harness.stats.interval import share_interval
from harness.stats.quantile import quantile
from harness.stats.run_figure import LevelFigures

GOOD_SHARE = "good_share"
LIMIT = 0.01  # of all requests, by which the share may fall
STUCK = 3.0  # times what is usual in BASE
MOST_TAIL = 2.0  # p99 over p95 of end-to-end that is usual: as of a log-normal whose logarithm deviates by 1
STEP = 1.1  # of durations that are tallied: what is kept for later knows a bound to a tenth


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


def loss(base: Sequence[LevelFigures], new: Sequence[LevelFigures], sure: float = 0.05) -> Loss | None:
    """None where no request was due on one side. sure: chance that the interval does not hold the truth.

    The interval is that of R. G. Newcombe, "Interval Estimation for the Difference between Independent Proportions",
    Statistics in Medicine 17 (1998) 873-890 (method 10), from Clopper's and Pearson's intervals of each side, over as
    many independent requests as the runs' own scatter leaves.
    """
    stuck = STUCK * usual(base)
    shares = [_side(side, stuck) for side in (base, new)]
    if any(requests == 0 for _, requests, _ in shares):
        return None
    (was, _, before), (now, requests, after) = shares
    low, high = (share_interval(share, size, sure / 2) for share, size in ((was, before), (now, after)))
    lost = was - now
    return Loss(
        was,
        now,
        lost - math.hypot(was - low[0], high[1] - now),
        lost + math.hypot(low[1] - was, now - high[0]),
        requests,
    )


def usual(side: Sequence[LevelFigures]) -> float:
    """The p99 of end-to-end over all runs of a side, in seconds, but no more than MOST_TAIL times the
    p95, as more than a hundredth may be stuck already. Infinite where nothing was answered.
    """
    kept = [part.usual for part in side if part.usual is not None]
    if kept:
        return kept[0]
    answers = np.concatenate([part.answers for part in side]) if side else np.empty(0)
    return min(quantile(answers, 0.99), MOST_TAIL * quantile(answers, 0.95)) if len(answers) else math.inf


@dataclass(frozen=True)
class Tally:
    """The requests due at one load by how long their answers took, small enough to be kept: for a bound that is known
    later. usual: of these runs, seconds; infinite without an answer. steps: [k, answers that took over STEP^(k - 1) and
    at most STEP^k seconds].
    """

    load: str
    due: int
    usual: float
    steps: tuple[tuple[int, int], ...]

    def share(self, bound: float) -> float:
        """Of those due, how many were answered within the bound, which is moved up to the next step."""
        last = _step(np.array([bound]))[0] if math.isfinite(bound) else math.inf
        return sum(count for step, count in self.steps if step <= last) / self.due


def tally(side: Sequence[LevelFigures]) -> Tally | None:
    """Over all runs of a side; None where nothing was due. From parts that hold their answers."""
    due = sum(part.due for part in side)
    steps = _step(np.concatenate([part.answers for part in side])) if side else np.empty(0)
    found, counts = np.unique(steps, return_counts=True)
    pairs = tuple((int(step), int(count)) for step, count in zip(found, counts, strict=True))
    return Tally(side[0].load, due, usual(side), pairs) if due else None


def _step(seconds: Floats) -> Floats:
    return np.ceil(np.log(np.maximum(seconds, 1e-6)) / math.log(STEP) - 1e-9)


def _side(parts: Sequence[LevelFigures], stuck: float) -> tuple[float, int, float]:
    """The share, the requests due, and how many independent ones they amount to."""
    due = np.array([part.due for part in parts], dtype=float)
    bad = np.array([part.bad(stuck) for part in parts])
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
