"""The report as CSV: one row per level and metric."""

from __future__ import annotations

import csv
import io

from harness.stats.figure import LEVELS, WITH_INTERVAL, Figure
from harness.stats.section import Section
from harness.stats.summary import Summary

COLUMNS = (
    "run_id", "emulated", "level", "users", "offered_rate", "verdict", "metric", "unit", "n", "left_out", "mean",
    *LEVELS, "max", *(f"{name}_ci95_{end}" for name in WITH_INTERVAL for end in ("low", "high")),
)  # fmt: skip


def to_csv(summary: Summary) -> str:
    """For spreadsheets. Durations in seconds; empty where a figure has no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for section in summary.levels:
        writer.writerows(_row(summary, section, name, figure) for name, figure in section.figures.items())
    return text.getvalue()


def _cell(text: str) -> str:
    """A spreadsheet takes what begins so for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _row(summary: Summary, section: Section, name: str, figure: Figure) -> list[object]:
    numbers = figure.as_dict()
    return [
        _cell(summary.manifest.run_id),
        str(summary.manifest.emulated).lower(),
        section.level,
        section.users,
        section.offered_rate,
        "valid" if section.valid else "invalid",
        name,
        *(numbers[key] for key in ("unit", "n", "left_out", "mean", *LEVELS, "max")),
        *(end for statistic in WITH_INTERVAL for end in numbers["ci95"][statistic]),
    ]
