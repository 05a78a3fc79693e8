"""Runs one after another, each asked for when the one before is known: a list, a cycle of seeds, sides in turn, or a
search. Whoever gives the next one may look at what became of those before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from harness.drive.bench_plan import BenchPlan
from harness.drive.bench_result import BenchResult
from harness.drive.bench_run import AskedLevels, bench
from harness.serve.target import Target


@dataclass(frozen=True)
class Turn:
    """One run of a series. name: what it is, for the terminal. levels: in place of the plan's."""

    target: Target
    plan: BenchPlan
    name: str | None = None
    levels: AskedLevels | None = None


def take_turns(turns: Iterable[Turn], progress: Callable[[str], None]) -> Iterator[BenchResult]:
    """Each run's result as it ends; the last one of all after Ctrl-C. Raises HarnessErrors.

    Each opens its service anew where no `up` has left it running, which belongs to what runs differ by.
    """
    for turn in turns:
        if turn.name is not None:
            progress(turn.name)
        result = bench(turn.target, turn.plan, progress, turn.levels)
        yield result
        if result.interrupted:
            return
