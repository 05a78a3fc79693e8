"""Progress on a terminal: a line that is rewritten keeps all of its parts, however narrow the terminal."""

from __future__ import annotations

import io
import os

import pytest

from harness import terminal

LINE = "8 users · 12 s of 60 s, 48 s left · 96 done (8/s), 8 open · ttft p50 81 ms p95 120 ms p99 150 ms · 530 tokens/s"


@pytest.mark.parametrize("width", [200, 79, 40])
def test_a_line_is_folded_at_its_parts(width: int) -> None:
    """Nothing is lost, and no line is too long."""
    lines = terminal.fold(LINE, width)
    assert " · ".join(lines) == LINE
    assert all(len(line) <= width for line in lines)
    assert len(lines) == 1 or width < len(LINE)


def test_what_is_rewritten_takes_the_place_of_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal of 40 columns the lines before are gone, and a line that stays follows alone."""
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((41, 24)))
    monkeypatch.setattr(terminal, "_shown", 0)
    terminal.rewrite(LINE)
    height = len(terminal.fold(LINE, 40))
    assert shown.getvalue().count("\n") == height - 1
    shown.truncate(shown.seek(0))
    terminal.rewrite("done")
    assert shown.getvalue() == f"\r\x1b[{height - 1}A\x1b[Jdone"
    shown.truncate(shown.seek(0))
    terminal.say("all")
    terminal.say("of it")
    assert shown.getvalue() == "\r\x1b[Jall\nof it\n"


def test_a_result_begins_below_what_was_rewritten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It neither runs on in the last line of progress nor is taken away by the next one."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(terminal, "_shown", 0)
    terminal.rewrite("8 users")
    terminal.print_result("Verdict: valid")
    terminal.say("warning")
    printed = capsys.readouterr()
    assert printed.out == "Verdict: valid\n"
    assert printed.err == "8 users\nwarning\n"
