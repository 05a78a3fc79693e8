"""The report as JSON: of a run summary.json, of a probe probe.json, and so on."""

from __future__ import annotations

import json

from harness.report.document import Document


def to_json(document: Document) -> str:
    """For programs. Durations in seconds; null where a figure has no value."""
    return json.dumps(document.data, indent=2, allow_nan=False) + "\n"
