"""SearchReport: a capacity search as its report sees it, and the words that all sections share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.measure.run_folder import Manifest
from harness.report.capacity_text import sentence
from harness.stats.capacity_report import CapacityReport
from harness.units import format_count


@dataclass(frozen=True)
class SearchReport:
    """document: of capacity.json. manifest: of the last run that levels were measured in; None where it is gone. name:
    of the folder.
    """

    report: CapacityReport
    document: Mapping[str, Any]
    manifest: Manifest | None
    name: str

    @property
    def emulated(self) -> bool:
        return self.manifest is not None and self.manifest.emulated


def answer(searched: SearchReport) -> str:
    """The interval in a sentence, of the first history and of the last where there are several."""
    report = searched.report
    chosen = report.histories if len(report.histories) == 1 else (report.histories[0], report.histories[-1])
    parts = []
    for each in chosen:
        told = sentence(each, report.unit)
        parts.append(told if each.history is None else f"With {format_count(each.history)} tokens of history: {told}")
    return " ".join(parts)
