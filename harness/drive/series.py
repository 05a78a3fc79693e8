"""A series of runs, each requested when the result of the one before is known: a list, a cycle of seeds, two sides in
turn, or a search. Whoever gives the next one may look at the results so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from harness.drive.bench_result import BenchResult
from harness.drive.bench_run import PlannedRun, bench


def run_series(turns: Iterable[PlannedRun], progress: Callable[[str], None]) -> Iterator[BenchResult]:
    """Each run's result as it ends; the last one of all after Ctrl-C. Raises HarnessErrors.

    Each run starts its own service where no `up` has left one running: starts are part of what runs differ by.
    """
    for turn in turns:
        if turn.name is not None:
            progress(turn.name)
        result = bench(turn, progress)
        yield result
        if result.interrupted:
            return
