"""Requests that fail whatever the load: a floor under the share of misses, which the load has no part in.

Misses are then floor + (1 - floor) * slow (W. S. Abbott, "A Method of Computing the Effectiveness of an Insecticide",
Journal of Economic Entomology 18 (1925) 265-267: what dies without a dose is taken off before a dose is judged), and
only the odds of `slow` rise by a line in the logarithm of the load (knee.py). A failure tells of itself, so that the
slow ones are counted among the others; by how many requests happened to fail in one level tells nothing of its load.

A kind of failure belongs to the floor where loads well below the highest show as large a share of it as those near it:
refusals and timeouts of an overload do not. Of the levels before the limit the lower ones are held against the upper
ones by the exact test of two Poisson rates (J. Przyborowski and H. Wilenski, "Homogeneity of Results in Testing Samples
from Poisson Series", Biometrika 31 (1940) 313-323).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.special import bdtr

from harness.stats.decision import BoundShare
from harness.stats.outcome import Outcome

BEYOND = 0.3  # share of misses: such a level is beyond the limit
LOWER = 0.8  # of the highest load before the limit: below, a failure by overload is rare
CHANCE = 0.02  # of so few failures at lower loads, were they as frequent there


@dataclass(frozen=True)
class Floor:
    """share: of the requests due, 0 to 1, that fail at any load. kinds: of error."""

    share: float
    kinds: frozenset[str]

    def allowed(self, miss: float) -> float:
        """Share of the others that may be slow, where `miss` of all may miss; 0 or less where none may."""
        return (miss - self.share) / (1 - self.share)

    def slow(self, miss: float) -> float:
        """The same of a level that was levelled."""
        return max(0.0, self.allowed(miss))

    def levelled(self, outcome: Outcome) -> Outcome:
        """As if exactly this share of its requests had failed, with the failures that the load may have a part in."""
        if not self.kinds:
            return outcome
        failed = sum(share for kind, share in outcome.failures.items() if kind in self.kinds)
        others = {kind: share for kind, share in outcome.failures.items() if kind not in self.kinds}
        return replace(outcome, shares=tuple(self._levelled(each, failed) for each in outcome.shares), failures=others)

    def _levelled(self, found: BoundShare, failed: float) -> BoundShare:
        if math.isnan(found.share):
            return found
        met = min(found.share / (1 - failed), 1.0) if failed < 1 else 0.0
        return replace(found, share=met * (1 - self.share))


NO_FLOOR = Floor(0.0, frozenset())


def floor_of(levels: Sequence[Outcome], allowed: float) -> Floor:
    """Of all kinds of failure together that do not depend on the load. allowed: the share that may miss: a floor that
    leaves nothing of it is none, as then no load holds.
    """
    before = [each for each in levels if each.due and not each.saturated and _misses(each) <= BEYOND + each.failed]
    due = sum(each.due for each in before)
    if not due:
        return NO_FLOOR
    most = LOWER * max(each.load for each in before)
    kinds = {kind for each in before for kind in each.failures}
    part = sum(each.due for each in before if each.load < most) / due
    seen = {}
    for kind in sorted(kinds):
        counts = [(each.failures.get(kind, 0.0) * each.due, each.load < most) for each in before]
        failed = round(sum(count for count, _ in counts))
        low = round(sum(count for count, lower in counts if lower))
        if bdtr(low, failed, part) >= CHANCE:
            seen[kind] = failed / due
    floor = Floor(sum(seen.values()), frozenset(seen))
    return floor if floor.share < allowed else NO_FLOOR


def _misses(outcome: Outcome) -> float:
    nearest = outcome.attainment
    return 1.0 if nearest is None else 1 - nearest.share
