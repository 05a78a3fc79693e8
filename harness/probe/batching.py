"""How large a batch is reasonable: speed over the number of concurrent chats, its knee, the largest within the SLO."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from harness.probe.card import meets
from harness.probe.setting import LoadResult, ProbeGoal

KNEE = 0.25  # marginal speed of one more chat, as a share of a lone chat's speed


@dataclass(frozen=True)
class BatchPoint:
    """So many chats of this history at once. Seconds; rate: answer tokens per second of all of them together."""

    history_tokens: int
    chats: int
    ttft_p95: float | None
    itl_p95: float | None
    rate: float | None

    def as_json(self) -> dict[str, Any]:
        return {
            "history_tokens": self.history_tokens,
            "chats": self.chats,
            "ttft_p95": self.ttft_p95,
            "itl_p95": self.itl_p95,
            "output_tokens_per_second": self.rate,
        }


def points(results: Iterable[LoadResult]) -> list[BatchPoint]:
    """One point per load of equal chats that held, by history and number; the last measurement of each counts."""
    found: dict[tuple[int, int], BatchPoint] = {}
    for result in results:
        if result.load.queued:
            continue  # how many of them ran beside each other is not known
        if result.verdict == "held" and result.load.kind in ("rows", "batch") and result.itl_p95:
            history = round(sum(shape.input_tokens for shape in result.load.shapes) / len(result.load.shapes))
            history = round(history, -1) if result.load.kind == "batch" else history
            key = (history, result.load.rows)
            found[key] = BatchPoint(*key, result.ttft_p95, result.itl_p95, result.rate)
    merged: dict[tuple[int, int], BatchPoint] = {}
    for (history, chats), point in sorted(found.items()):
        near = next((h for h, _ in merged if abs(h - history) <= 8), history)
        merged[near, chats] = BatchPoint(near, chats, point.ttft_p95, point.itl_p95, point.rate)
    return list(merged.values())


def of_history(curve: Sequence[BatchPoint], history: int) -> list[BatchPoint]:
    return sorted((point for point in curve if point.history_tokens == history), key=lambda point: point.chats)


def knee(curve: Sequence[BatchPoint]) -> int | None:
    """The number of chats beyond which one more brings less than a quarter of what a lone chat brings.

    curve: of one history, by number of chats. None while the speed still grows at its end, or with fewer than 3 points.
    """
    known = [(point.chats, point.rate) for point in curve if point.rate]
    if len(known) < 3:
        return None
    alone = known[0][1] / known[0][0]
    for (before, slow), (after, fast) in pairwise(known):
        if (fast - slow) / (after - before) < KNEE * alone:
            return before
    return None


def largest_within(curve: Sequence[BatchPoint], asked: ProbeGoal) -> int | None:
    """The most chats at once that held the SLO with all smaller numbers; None without an SLO or if not even one did."""
    best = None
    for point in curve:
        verdict = meets(point.ttft_p95, point.itl_p95, asked)
        if verdict is None:
            continue
        if not verdict:
            break
        best = point.chats
    return best
