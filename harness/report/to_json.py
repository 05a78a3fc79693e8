"""The report as JSON: summary.json itself."""

from __future__ import annotations

import json

from harness.stats.summary import Summary


def to_json(summary: Summary) -> str:
    """For programs. Durations in seconds; null where a figure has no value."""
    return json.dumps(summary.as_dict(), indent=2, allow_nan=False) + "\n"
