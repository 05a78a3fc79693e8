"""A service level objective: bounds on quantiles of metrics, such as p95 of TTFT under one second."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.units import format_duration, parse_duration

_NAME = re.compile(r"(?P<metric>ttft|service_ttft|itl|tpot|e2e)_(?P<statistic>p50|p90|p95|p99|max|mean)")


@dataclass(frozen=True)
class Bound:
    """One bound. metric: a name of stats.metrics. statistic: `p50` ... `p99`, `max` or `mean`. limit: seconds."""

    metric: str
    statistic: str
    limit: float

    @property
    def name(self) -> str:
        return f"{self.metric}_{self.statistic}"

    def __str__(self) -> str:
        return f"{self.name} <= {format_duration(self.limit)}"


@dataclass(frozen=True)
class Slo:
    """All bounds that must hold at once; none holds always."""

    bounds: tuple[Bound, ...] = ()

    def as_dict(self) -> dict[str, float]:
        return {bound.name: bound.limit for bound in self.bounds}

    def __str__(self) -> str:
        return ", ".join(str(bound) for bound in self.bounds) or "none"


def parse_bound(name: str, limit: str | int | float) -> Bound:
    """`ttft_p95`, `1s` -> Bound. Raises ValueError that says what was expected."""
    match = _NAME.fullmatch(name.strip())
    if match is None:
        raise ValueError("expected a metric and a statistic such as ttft_p95, itl_p99 or e2e_p50")
    return Bound(match["metric"], match["statistic"], parse_duration(limit))


def slo_from_mapping(entries: Mapping[str, str | int | float]) -> Slo:
    """`{"ttft_p95": "1s"}` -> Slo. Raises ValueError."""
    return Slo(tuple(parse_bound(name, limit) for name, limit in entries.items()))


def parse_slo(text: str) -> Slo:
    """`ttft_p95=1s,itl_p95=60ms` -> Slo. Raises ValueError."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not pairs or any(not separator for _, separator, _ in pairs):
        raise ValueError("expected bounds such as ttft_p95=1s,itl_p95=60ms")
    return slo_from_mapping({name.strip(): limit.strip() for name, _, limit in pairs})
