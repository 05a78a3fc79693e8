"""Progress to stderr, results to stdout; works without a terminal, one line per change."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

Progress = Callable[[str], None]


def say(text: str) -> None:
    """One line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_result(text: str) -> None:
    """A result for people on stdout."""
    print(text.rstrip("\n"), flush=True)


def print_json(document: Any) -> None:
    """A result for programs: one JSON document on stdout."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def table(rows: list[list[str]], header: list[str] | None = None) -> str:
    """Left-aligned columns, two spaces apart."""
    lines = ([header] if header else []) + rows
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
