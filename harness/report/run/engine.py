"""What the engine said of itself, per level."""

from __future__ import annotations

from harness.report.document import NOTHING, Section, Table
from harness.report.words import load
from harness.stats.level_stats import LevelStats
from harness.stats.server import NOTHING_TOLD
from harness.stats.summary import Summary
from harness.units import format_count, format_percent

_COLUMNS = (
    "Load", "Running at most", "Waiting at most", "KV cache used at most", "Preempted chats",
    "Prompt tokens from cache",
)  # fmt: skip


def section(summary: Summary) -> Section | None:
    """None where it told nothing."""
    levels = [each for each in summary.levels if each.server != NOTHING_TOLD]
    if not levels:
        return None
    table = Table(_COLUMNS, tuple(_row(each) for each in levels), frozenset(range(1, 6)))
    return Section("The engine meanwhile", (table,), detail=True)


def _row(level: LevelStats) -> tuple[str, ...]:
    told = level.server
    counts = (told.running, told.waiting)
    shares = (told.kv_used, told.cache_share)
    kv_used, cache = (NOTHING if share is None else format_percent(share) for share in shares)
    running, waiting = (NOTHING if count is None else format_count(count) for count in counts)
    back = NOTHING if told.preempted is None else format_count(told.preempted)
    return (load(level), running, waiting, kv_used, back, cache)
