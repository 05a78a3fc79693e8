"""A metric of one level as figures: mean, quantiles, and their confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.measure.records import Floats
from harness.stats.absence import Cause
from harness.stats.interval import quantile_interval
from harness.stats.metrics import Metric, Values
from harness.stats.quantile import quantiles_of_sorted

LEVELS = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
WITH_INTERVAL = ("p50", "p95", "p99")


@dataclass(frozen=True)
class Figure:
    """Seconds; NaN where there are no samples. n: samples. left_out: completed requests without a defined value.

    quantiles: `p50` ... `p99`. ci95: 95 % interval of those in WITH_INTERVAL. requests: that gave a sample. absent: why
    there is no sample at all, where that is known.
    """

    metric: Metric
    n: int
    requests: int
    left_out: int
    mean: float
    max: float
    quantiles: Mapping[str, float]
    ci95: Mapping[str, tuple[float, float]]
    absent: Cause | None = None

    def value(self, statistic: str) -> float:
        """`mean`, `max` or a quantile."""
        return self.quantiles[statistic] if statistic in self.quantiles else float(getattr(self, statistic))

    def as_dict(self) -> dict[str, Any]:
        return {
            "unit": self.metric.unit,
            "n": self.n,
            "mean": or_none(self.mean),
            **{name: or_none(value) for name, value in self.quantiles.items()},
            "max": or_none(self.max),
            "ci95": {name: [or_none(end) for end in ends] for name, ends in self.ci95.items()},
            "left_out": self.left_out,
            **({} if self.absent is None else {"absent": self.absent.text}),
        }


def figure(metric: Metric, values: Values, ordered: Floats, absent: Cause | None = None) -> Figure:
    """ordered: the samples, ascending. absent: why there would be none."""
    some = len(ordered) > 0
    found = quantiles_of_sorted(ordered, list(LEVELS.values()))
    return Figure(
        metric=metric,
        n=len(ordered),
        requests=len(values.starts) if metric.pooled else len(ordered),
        left_out=values.left_out,
        mean=float(ordered.mean()) if some else math.nan,
        max=float(ordered[-1]) if some else math.nan,
        quantiles={name: float(value) for name, value in zip(LEVELS, found, strict=True)},
        ci95={name: quantile_interval(values, ordered, LEVELS[name]) for name in WITH_INTERVAL},
        absent=None if some else absent,
    )


def or_none(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return None if value is None or not math.isfinite(value) else value
