"""What a candidate may cost: limits by figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.stats.good_share import GOOD_SHARE
from harness.stats.good_share import LIMIT as GOOD_SHARE_LIMIT

DEFAULT_LIMIT = 0.10


@dataclass(frozen=True)
class Gate:
    """What NEW may not exceed. limits: figure -> share by which it may be worse. default: of the figures not named.

    undecided_passes: what this data cannot tell passes.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    default: float = DEFAULT_LIMIT
    undecided_passes: bool = False

    def limit(self, figure: str) -> float:
        named = self.limits.get(figure, self.limits.get(figure.rpartition("_")[0]))
        if named is not None:
            return named
        return min(self.default, GOOD_SHARE_LIMIT) if figure == GOOD_SHARE else self.default

    def names(self, figure: str) -> bool:
        return figure in self.limits or figure.rpartition("_")[0] in self.limits
