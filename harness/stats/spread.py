"""How much runs of the same thing differ: the spread between repeats, figure by figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.stats.compare import PRIMARY, SHOWN
from harness.stats.effect import Spread, Spreads
from harness.stats.good_share import GOOD_SHARE
from harness.stats.run_figures import RunFigures

FIGURES = tuple(name for name in dict.fromkeys((*PRIMARY, *SHOWN)) if name != GOOD_SHARE)


def spreads_of(runs: Sequence[RunFigures]) -> Spreads:
    """The spread between these runs, for the levels and figures that all of them have.

    Empty for fewer than two runs.
    """
    levels = [run.levels for run in runs]
    found: dict[tuple[str, str], Spread] = {}
    if len(runs) < 2:
        return found
    for number in sorted(set.intersection(*(set(each) for each in levels))):
        for figure in FIGURES:
            values = [each[number].measured(figure) for each in levels]
            logs = [math.log(each.value) for each in values if each is not None and math.isfinite(each.value)]
            if len(logs) == len(runs):
                found[levels[0][number].load, figure] = Spread(float(np.std(logs, ddof=1)), len(logs) - 1)
    return found
