"""What a baseline keeps of a run says the same as the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.measure.run import read_runs
from harness.stats.good_share import loss, usual
from harness.stats.kept_figures import EVERY, KeptRun, kept_figures, kept_run
from harness.stats.run_figures import RecordedRun, recorded
from tests.stats.gate_runs import Service, write_run

SERVICE = Service(seconds=20.0, tokens=8, failing=0.02, stuck=0.01)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[RecordedRun], list[KeptRun]]:
    """Three runs of two levels, in which requests fail and hang; from their records, and as they are kept."""
    root, services = tmp_path_factory.mktemp("runs"), (SERVICE, replace(SERVICE, users=4, failing=0.6))
    runs = recorded(read_runs([write_run(root / f"repeat-{at}", services, at, at) for at in range(3)]))
    documents = [json.loads(json.dumps(each, allow_nan=False)) for each in kept_figures(runs)]
    return runs, [kept_run(run.path, run.manifest, each, Path("x")) for run, each in zip(runs, documents, strict=True)]


def test_every_figure_is_the_same(sides: tuple[list[RecordedRun], list[KeptRun]]) -> None:
    """Value, scatter, whether there are requests enough and why there are none, to the last digit; also a median that
    lies among requests that were never answered.
    """
    infinite = 0
    for run, kept in zip(*sides, strict=True):
        assert (kept.moments, set(kept.levels)) == (run.moments, {0, 1})
        for number, part in run.levels.items():
            level = kept.levels[number]
            assert (level.load, level.due, level.tokens_per_event()) == (part.load, part.due, part.tokens_per_event())
            for figure in EVERY:
                found = part.measured(figure)
                assert level.measured(figure) == found
                assert level.why_absent(figure) == part.why_absent(figure)
                infinite += found is not None and found.value == float("inf")
                if found is not None and figure.endswith(("_p50", "_p95")):
                    assert level.carries(figure) == part.carries(figure)
    assert infinite


def test_so_is_the_share_of_good_answers(sides: tuple[list[RecordedRun], list[KeptRun]]) -> None:
    """As BASE: by its own p99, with what failed and what hung in it."""
    runs, kept = sides
    for number in (0, 1):
        parts, levels = [run.levels[number] for run in runs], [run.levels[number] for run in kept]
        found = loss(levels, parts)
        assert found == loss(parts, parts)
        assert found is not None
        assert found.base < 1
        assert usual(levels) == usual(parts)
