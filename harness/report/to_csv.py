"""The report as CSV."""

from __future__ import annotations

import csv
import io

from harness.report.document import Document


def to_csv(document: Document) -> str:
    """For spreadsheets: the document's sheet. Durations in seconds; empty where a figure has no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(document.sheet.columns)
    writer.writerows([_cell(value) for value in row] for row in document.sheet.rows)
    return text.getvalue()


def _cell(value: object) -> object:
    """A spreadsheet takes what begins so for a formula."""
    acts = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if acts else value
