"""Outcomes on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.engines.base import EngineFacts
from harness.errors import UsageError
from harness.probe import loads
from harness.probe.journal import NAME, StartJournal
from harness.probe.setting import Failure, LoadResult, Outcome, Setting

OUTCOMES = [
    Outcome(
        Setting(max_batch_prefill_tokens=4096), None, False, Failure("warm-up", "memory", "too much", 4, 7), (), 1.5
    ),
    Outcome(
        Setting(100, 200, 50, None, 8, purpose="verify"),
        EngineFacts("flash", True, 3000, 16, 187, 50, version="3.3.7", emulated=True),
        True,
        None,
        (
            LoadResult(loads.onto(3, 100), "held", 4, 400, 390, ttft_p95=0.1, seconds=2.0),
            LoadResult(loads.rows(5), "died"),
        ),
        9.25,
    ),
]


def test_outcomes_come_back_as_they_were(tmp_path: Path) -> None:
    """Every field of every start survives the file."""
    journal = StartJournal(tmp_path, {"model": "toy"})
    for outcome in OUTCOMES:
        journal.add(outcome)
    assert StartJournal(tmp_path, {"model": "toy"}).read() == OUTCOMES


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    """What was complete before is still there."""
    journal = StartJournal(tmp_path, {"model": "toy"})
    for outcome in OUTCOMES:
        journal.add(outcome)
    path = tmp_path / NAME
    path.write_text(path.read_text()[:-20])
    assert journal.read() == OUTCOMES[:1]
    journal.add(OUTCOMES[1])
    assert journal.read() == OUTCOMES  # what is added later is not glued to it
    path.write_text(path.read_text()[:10])  # not even the first line is whole
    journal.add(OUTCOMES[0])
    assert journal.read() == OUTCOMES[:1]


def test_another_search_is_refused(tmp_path: Path) -> None:
    """It names what differs."""
    StartJournal(tmp_path, {"model": "toy", "goal": "chats"}).add(OUTCOMES[0])
    with pytest.raises(UsageError, match="goal"):
        StartJournal(tmp_path, {"model": "toy", "goal": "history"}).read()


@pytest.mark.parametrize("line", ['{"setting": {}}', '{"setting": 1, "started": 2}'])
def test_a_start_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    """It names the file."""
    journal = StartJournal(tmp_path, {"model": "toy"})
    journal.add(OUTCOMES[0])
    path = tmp_path / NAME
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UsageError, match=NAME):
        journal.read()


@pytest.mark.parametrize("line", ["[" * 9999, '{"x": ' + "9" * 9999])
def test_a_line_that_is_no_document_is_left_out(tmp_path: Path, line: str) -> None:
    """However it came to be."""
    journal = StartJournal(tmp_path, {"model": "toy"})
    journal.add(OUTCOMES[0])
    path = tmp_path / NAME
    path.write_text(path.read_text() + line + "\n")
    assert journal.read() == OUTCOMES[:1]
