"""`harness compare`: two runs, or two groups of repeats, side by side; a gate for CI."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import terminal
from harness.drive import aa, baselines
from harness.drive.baseline_store import store_at
from harness.drive.gate_file import read_gate
from harness.drive.options import allowed
from harness.errors import cannot_write
from harness.measure.run import read_runs
from harness.redaction import redact
from harness.report.comparison import comparison_to_junit, comparison_to_markdown, comparison_to_text, workflow_commands
from harness.report.comparison_page import comparison_document
from harness.report.formats import find_format
from harness.stats.comparable import SERVICE, SUBJECT
from harness.stats.compare import compare as compare_runs
from harness.stats.comparison import Comparison
from harness.stats.run_figures import recorded


@dataclass(frozen=True)
class CompareResult:
    """What the command prints, and how it ends: 1 where the gate does not hold or nothing can be said."""

    comparison: Comparison

    @property
    def exit_code(self) -> int:
        return 0 if self.comparison.passes else 1

    def as_json(self) -> dict[str, Any]:
        return self.comparison.as_dict()

    def as_text(self) -> str:
        return comparison_to_text(self.comparison)


def compare(
    base: Sequence[str | Path],
    new: Sequence[str | Path],
    gate: Path | None = None,
    junit: Path | None = None,
    markdown: Path | None = None,
    allow: str | None = None,
    html: Path | None = None,
) -> CompareResult:
    """Compare two groups of run folders and write what was asked for. allow: what may differ, of SERVICE, with commas.
    Raises UsageError for a bad folder or gate.

    Under GitHub Actions the step summary and annotations are written too; annotations go to stderr, so that stdout
    keeps to one document.
    """
    limits, same = read_gate(gate), _same(SUBJECT, allow)
    before, after = (read_runs([Path(path) for path in side]) for side in (base, new))
    return _written(
        compare_runs(recorded(before), recorded(after), limits, aa.find(before[0]), same), junit, markdown, html
    )


def compare_with_baseline(
    name: str,
    new: Sequence[str | Path],
    store: str | None = None,
    gate: Path | None = None,
    junit: Path | None = None,
    markdown: Path | None = None,
    allow: str | None = None,
    html: Path | None = None,
) -> CompareResult:
    """The same with stored repeats as BASE; here all of SERVICE must be the same but what is allowed."""
    limits, same = read_gate(gate), _same(SERVICE, allow)
    before = baselines.runs_of(name, store_at(store))
    after = recorded(read_runs([Path(path) for path in new]))
    return _written(compare_runs(before, after, limits, same=same), junit, markdown, html)


def _same(names: Sequence[str], allow: str | None) -> list[str]:
    """What must be the same, without what is allowed to differ."""
    may_differ = allowed(allow, SERVICE, "Sides that ask different things cannot be compared.")
    return [name for name in names if name not in may_differ]


def _written(comparison: Comparison, junit: Path | None, markdown: Path | None, html: Path | None) -> CompareResult:
    write_outputs(comparison, junit, markdown, html)
    return CompareResult(comparison)


def write_outputs(comparison: Comparison, junit: Path | None, markdown: Path | None, html: Path | None = None) -> None:
    """What was asked for, and what GitHub Actions reads where it runs this."""
    if junit:
        _write(junit, comparison_to_junit(comparison))
    if markdown:
        _write(markdown, comparison_to_markdown(comparison))
    if html:
        _write(html, find_format("html").render(comparison_document(comparison)))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        _tell_github(comparison)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(redact(text), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise cannot_write(error, path) from error


def _tell_github(comparison: Comparison) -> None:
    for line in workflow_commands(comparison):
        terminal.say(line)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(redact(comparison_to_markdown(comparison)))
