"""Runs one after another, each asked for when the one before is known: a list, a cycle of seeds, sides in turn, or a
search. Whoever gives the next one may look at what became of those before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from harness.drive.bench_result import BenchResult
from harness.drive.bench_run import PlannedRun, bench


def take_turns(turns: Iterable[PlannedRun], progress: Callable[[str], None]) -> Iterator[BenchResult]:
    """Each run's result as it ends; the last one of all after Ctrl-C. Raises HarnessErrors.

    Each opens its service anew where no `up` has left it running, which belongs to what runs differ by.
    """
    for turn in turns:
        if turn.name is not None:
            progress(turn.name)
        result = bench(turn, progress)
        yield result
        if result.interrupted:
            return
