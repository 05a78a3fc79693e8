"""Two runs, or two groups of repeats, side by side; a gate for CI."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import terminal
from harness.drive import aa, baselines
from harness.errors import UsageError, cannot_write
from harness.input_files import brief, read_yaml
from harness.measure.run import read_runs
from harness.redaction import redact
from harness.report.comparison import comparison_to_junit, comparison_to_markdown, comparison_to_text, workflow_commands
from harness.stats.comparable import SERVICE, SUBJECT
from harness.stats.compare import compare as compare_runs
from harness.stats.comparison import Comparison
from harness.stats.gate import DEFAULT_LIMIT, Gate
from harness.stats.good_share import GOOD_SHARE
from harness.stats.metrics import METRICS
from harness.stats.run_figure import THROUGHPUT
from harness.stats.slo import QUANTILES

_GATE_KEYS = ("limits", "default", "inconclusive")


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
) -> CompareResult:
    """Compare two groups of run folders and write what was asked for. allow: what may differ, of SERVICE, with commas.
    Raises UsageError for a bad folder or gate.

    Under GitHub Actions the step summary and annotations are written too; annotations go to stderr, so that stdout
    keeps to one document.
    """
    limits, same = read_gate(gate), _same(SUBJECT, allow)
    before, after = (read_runs([Path(path) for path in side]) for side in (base, new))
    return _written(compare_runs(before, after, limits, aa.find(before[0]), same), junit, markdown)


def compare_with_baseline(
    name: str,
    new: Sequence[str | Path],
    folder: Path | None = None,
    gate: Path | None = None,
    junit: Path | None = None,
    markdown: Path | None = None,
    allow: str | None = None,
) -> CompareResult:
    """The same with stored repeats as BASE; here all of SERVICE must be the same but what is allowed."""
    limits, same = read_gate(gate), _same(SERVICE, allow)
    before = baselines.runs_of(name, folder or baselines.DEFAULT_FOLDER)
    after = read_runs([Path(path) for path in new])
    return _written(compare_runs(before, after, limits, same=same), junit, markdown)


def _same(names: Sequence[str], allow: str | None) -> list[str]:
    """What must be the same, without what is allowed to differ."""
    allowed = [part.strip() for part in (allow or "").split(",") if part.strip()]
    for name in allowed:
        if name not in SERVICE:
            advice = f"Known: {', '.join(SERVICE)}. Sides that ask different things cannot be compared."
            raise UsageError(f"unknown key '{brief(name)}'", where="--allow", advice=advice)
    return [name for name in names if name not in allowed]


def _written(comparison: Comparison, junit: Path | None, markdown: Path | None) -> CompareResult:
    write_outputs(comparison, junit, markdown)
    return CompareResult(comparison)


def write_outputs(comparison: Comparison, junit: Path | None, markdown: Path | None) -> None:
    """What was asked for, and what GitHub Actions reads where it runs this."""
    if junit:
        _write(junit, comparison_to_junit(comparison))
    if markdown:
        _write(markdown, comparison_to_markdown(comparison))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        _tell_github(comparison)


def read_gate(path: Path | None) -> Gate:
    """A gate's YAML: `limits: {ttft_p95: 15%, itl: 5%}`, `default: 10%`, `inconclusive: pass`; None: the default gate.
    Raises UsageError.
    """
    if path is None:
        return Gate()
    document = read_yaml(path) or {}
    if not isinstance(document, dict) or not isinstance(document.get("limits", {}), dict):
        raise UsageError("expected `limits:` with figures and shares, such as ttft_p95: 10%", where=str(path))
    for key in document:
        _require_known(str(key), _GATE_KEYS, path)
    for name in document.get("limits", {}):
        _require_known(str(name), _figure_names(), path)
    return Gate(
        limits={str(name): _share(value, path, str(name)) for name, value in document.get("limits", {}).items()},
        default=_share(document.get("default", DEFAULT_LIMIT), path, "default"),
        undecided_passes=_undecided_passes(document, path),
    )


def _undecided_passes(document: Mapping[str, Any], path: Path) -> bool:
    found = document.get("inconclusive", "fail")
    if found not in ("pass", "fail"):
        raise UsageError(f"inconclusive: expected pass or fail, found {brief(repr(found))}", where=str(path))
    return bool(found == "pass")


def _require_known(name: str, known: Sequence[str], path: Path) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
        raise UsageError(f"unknown key '{brief(name)}'", where=str(path), advice=advice)


def _figure_names() -> list[str]:
    metrics = [metric.name for metric in METRICS]
    return [*metrics, *(f"{name}_{statistic}" for name in metrics for statistic in QUANTILES), THROUGHPUT, GOOD_SHARE]


def _share(value: object, path: Path, key: str) -> float:
    """`10%` or 0.1."""
    text = str(value).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    ambiguous = not str(value).strip().endswith("%") and share >= 1  # 5 is meant as 5 %, and would allow 500 %
    if isinstance(value, bool) or ambiguous or not 0 <= share < 100:
        raise UsageError(f"{key}: expected a share such as 10% or 0.1, found {brief(repr(value))}", where=str(path))
    return share


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
