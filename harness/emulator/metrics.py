"""The page /metrics: the router's names, types, buckets and HELP texts, each there only after its first sample.

The form is that of metrics-exporter-prometheus 0.15.3: counters without `_total`, buckets as the shortest decimals of
the router's own floating-point products, summaries over a sliding minute from a sketch with 0.01 % relative error.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from decimal import Decimal

HELP = {
    "tgi_request_success": "Number of successful requests",
    "tgi_request_duration": "Request duration",
    "tgi_request_validation_duration": "Request validation duration",
    "tgi_request_queue_duration": "Request queue duration",
    "tgi_request_inference_duration": "Request inference duration",
    "tgi_request_mean_time_per_token_duration": "Mean time per token per request",
    "tgi_request_generated_tokens": "Generated tokens per request",
    "tgi_batch_inference_count": "Inference calls per method (prefill or decode)",
    "tgi_request_count": "Total number of requests",
    "tgi_batch_inference_success": "Number of successful inference calls per method (prefill or decode)",
    "tgi_batch_current_size": "Current batch size",
    "tgi_queue_size": "Current queue size",
    "tgi_batch_current_max_tokens": "Maximum tokens for the current batch",
    "tgi_request_max_new_tokens": "Maximum new tokens per request",
    "tgi_batch_inference_duration": "Batch inference duration",
    "tgi_batch_forward_duration": "Batch forward duration per method (prefill or decode)",
    "tgi_request_skipped_tokens": "Speculated tokens per request",
    "tgi_batch_filter_duration": (
        "Time spent filtering batches and sending generated tokens per method (prefill or decode)"
    ),
    "tgi_batch_decode_duration": "Time spent decoding a batch per method (prefill or decode)",
    "tgi_request_input_length": "Input token length per request",
    "tgi_batch_next_size": "Batch size of the next batch",
}

QUANTILES = (0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
_WINDOW, _SLICES = 20.0, 3  # seconds of one slice of a summary's sliding window, and how many are kept


def _duration_buckets() -> list[float]:
    buckets, value = [], 0.0001
    for _ in range(35):
        value *= 1.5
        buckets.append(value)
    return buckets


def _hundred_steps(limit: int) -> list[float]:
    return [(limit / 100.0) * (step + 1) for step in range(100)]


def number(value: float) -> str:
    """As Rust prints a float: no exponent, whole values without a point."""
    if isinstance(value, int) or value.is_integer():
        return str(int(value))
    text = repr(value)
    return format(Decimal(text), "f") if "e" in text else text


class Histogram:
    """Counts per bucket; rendered cumulated."""

    __slots__ = ("bounds", "counts", "labels", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0
        self.labels = [number(bound) for bound in bounds]

    def record(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: str) -> list[str]:
        inner = f"{labels}," if labels else ""
        outer = f"{{{labels}}}" if labels else ""
        total, lines = 0, []
        for bound, count in zip([*self.labels, "+Inf"], self.counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{inner}le="{bound}"}} {total}')
        return [*lines, f"{name}_sum{outer} {number(self.sum)}", f"{name}_count{outer} {total}"]


_GAMMA = 1 + 2 * 0.0001 / (1 - 0.0001)
_LOG_GAMMA = math.log1p(2 * 0.0001 / (1 - 0.0001))


class Summary:
    """Quantiles of the last minute from a DDSketch (Masson, Rim, Lee 2019); sum and count since the start."""

    __slots__ = ("count", "slices", "sum")

    def __init__(self) -> None:
        self.count, self.sum = 0, 0.0
        self.slices: list[tuple[float, dict[float, int]]] = []

    def record(self, value: float, now: float, times: int = 1) -> None:
        if not self.slices or now - self.slices[-1][0] >= _WINDOW:
            self.slices = [*self.slices[-(_SLICES - 1) :], (now, {})]
        counts = self.slices[-1][1]
        counts[value] = counts.get(value, 0) + times
        self.count += times
        self.sum += value * times

    def quantile(self, q: float, now: float) -> float:
        merged: dict[float, int] = {}
        for begun, counts in self.slices:
            if now - begun < _WINDOW * _SLICES:
                for value, count in counts.items():
                    merged[value] = merged.get(value, 0) + count
        total = sum(merged.values())
        if not total:
            return 0.0
        rank, seen = int(q * (total - 1)), 0
        for value in sorted(merged):
            seen += merged[value]
            if seen > rank:
                return _sketched(value)
        return 0.0

    def lines(self, name: str, now: float) -> list[str]:
        lines = [f'{name}{{quantile="{number(q)}"}} {number(self.quantile(q, now))}' for q in QUANTILES]
        return [*lines, f"{name}_sum {number(self.sum)}", f"{name}_count {self.count}"]


def _sketched(value: float) -> float:
    """The middle of the sketch's bucket that holds the value."""
    if value < 1e-9:
        return 0.0
    key = math.ceil(math.log(value) / _LOG_GAMMA)
    return math.exp(key * _LOG_GAMMA) * (2.0 / (1.0 + _GAMMA))


class Metrics:
    """All samples of one server. labels are given ready, as `method="decode"`."""

    def __init__(self, max_input_tokens: int, max_total_tokens: int, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._counters: dict[str, dict[str, int]] = {}
        self._gauges: dict[str, float] = {}
        self._histograms: dict[str, dict[str, Histogram]] = {}
        self._summaries: dict[str, Summary] = {}
        self._durations = _duration_buckets()
        self._buckets = {
            "tgi_request_input_length": _hundred_steps(max_input_tokens),
            "tgi_request_generated_tokens": _hundred_steps(max_total_tokens),
            "tgi_request_max_new_tokens": _hundred_steps(max_total_tokens),
            "tgi_batch_next_size": [float(size) for size in range(1, 1025)],
        }

    def count(self, name: str, labels: str = "", by: int = 1) -> None:
        values = self._counters.setdefault(name, {})
        values[labels] = values.get(labels, 0) + by

    def gauge(self, name: str, value: float) -> None:
        self._gauges[name] = value

    def record(self, name: str, value: float, labels: str = "") -> None:
        by_labels = self._histograms.get(name)
        if by_labels is None:
            by_labels = self._histograms[name] = {}
        histogram = by_labels.get(labels)
        if histogram is None:
            histogram = by_labels[labels] = Histogram(self._buckets.get(name, self._durations))
        histogram.record(value)

    def summarise(self, name: str, value: float, times: int = 1) -> None:
        if name not in self._summaries:
            self._summaries[name] = Summary()
        self._summaries[name].record(value, self._clock(), times)

    def render(self) -> str:
        """The whole page; empty on a fresh server."""
        now = self._clock()
        parts: list[str] = []
        for name, counts in self._counters.items():
            samples = [f"{name}{{{labels}}} {n}" if labels else f"{name} {n}" for labels, n in counts.items()]
            parts += _block(name, "counter", samples)
        for name, value in self._gauges.items():
            parts += _block(name, "gauge", [f"{name} {number(value)}"])
        for name, histograms in self._histograms.items():
            lines = [line for labels, each in histograms.items() for line in each.lines(name, labels)]
            parts += _block(name, "histogram", lines)
        for name, summary in self._summaries.items():
            parts += _block(name, "summary", summary.lines(name, now))
        return "".join(part + "\n" for part in parts)


def _block(name: str, kind: str, samples: list[str]) -> list[str]:
    help_line = [f"# HELP {name} {HELP[name]}"] if name in HELP else []
    return [*help_line, f"# TYPE {name} {kind}", *samples, ""]
