"""The gate held to whole run folders of known truth; `python -m tests.stats.gate_cells` makes the table of many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.commands.compare import compare
from harness.errors import HarnessError
from tests.stats.gate_cells import CELLS, Cell, holds, judged
from tests.stats.gate_runs import Service, write_run

SHORT = Service(seconds=20.0, tokens=8)
NAMES = ("A/A, spread 1%", "+20 %, spread 3%", "+5 %, spread 1%", "A/A one after the other, drift 1 %")
EASY = [cell for cell in CELLS if cell.name in NAMES]


@pytest.mark.parametrize("cell", EASY, ids=[cell.name for cell in EASY])
def test_what_the_gate_is_held_to(cell: Cell) -> None:
    """One comparison of cells that hold in nearly all of them; where the sides ran apart, drift is named."""
    found = judged(cell, 1)
    assert holds(cell, found)
    assert not cell.drift or any("drift" in note for note in found.notes)


def side(path: Path, service: Service | tuple[Service, ...], first: int, runs: int = 3, **changes: object) -> Path:
    for number in range(runs):
        write_run(path / f"repeat-{number:02}", service, 100 + 10 * first + number, 2 * number + first, **changes)
    return path


def _half_failing(path: Path) -> Path:
    """One run of the three answers nobody."""
    side(path, SHORT, 1, 2)
    write_run(path / "repeat-02", replace(SHORT, failing=1.0), 9, 5)
    return path


CANDIDATES: dict[str, Callable[[Path], Path]] = {
    "survivors are faster": lambda path: side(path, replace(SHORT.slower(-0.3), failing=0.66), 1),
    "one and a half per cent are stuck": lambda path: side(path, replace(SHORT, stuck=0.015), 1),
    "one of three runs fails": _half_failing,
    "nobody is answered": lambda path: side(path, replace(SHORT, failing=1.0), 1),
    "killed": lambda path: side(path, SHORT, 1, end=None),
    "interrupted": lambda path: side(path, SHORT, 1, interrupted=True),
    "one request": lambda path: side(path, replace(SHORT, users=1, seconds=0.2), 1),
    "another model": lambda path: side(path, SHORT, 1, model="other"),
    "another card": lambda path: side(path, SHORT, 1, gpu="H100"),
    "another load": lambda path: side(path, replace(SHORT, users=4), 1),
}


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_never_a_pass(tmp_path: Path, candidate: str) -> None:
    """Whatever is wrong with NEW."""
    assert compare([side(tmp_path / "base", SHORT, 0)], [CANDIDATES[candidate](tmp_path / "new")]).exit_code == 1


def test_a_sweep_whose_upper_level_fails_does_not_pass(tmp_path: Path) -> None:
    """Two thirds of the upper level get 429, the rest are faster, and the lower level is as it was."""
    upper = replace(SHORT, users=12)
    base = side(tmp_path / "base", (SHORT, upper), 0)
    assert compare([base], [side(tmp_path / "same", (SHORT, upper), 1)]).comparison.problems == ()
    found = compare([base], [side(tmp_path / "new", (SHORT, replace(upper.slower(-0.3), failing=0.66)), 1)])
    assert found.exit_code == 1
    assert "12 users" in found.as_text().splitlines()[-1]


def test_an_empty_folder_is_a_wrong_usage(tmp_path: Path) -> None:
    """Not a pass, and no traceback."""
    base = side(tmp_path / "base", SHORT, 0)
    (tmp_path / "new").mkdir()
    with pytest.raises(HarnessError) as raised:
        compare([base], [tmp_path / "new"])
    assert raised.value.exit_code == 2
