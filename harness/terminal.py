"""Progress to stderr, results to stdout; works without a terminal, one line per change."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any, TextIO

Progress = Callable[[str], None]


_CLEAR_LINE = "\r\x1b[K"
_shown = False  # a line on stderr that may be rewritten


def say(text: str) -> None:
    """One line of progress on stderr. Where that cannot be written, what is under way goes on without."""
    global _shown
    try:
        _write(sys.stderr, (_CLEAR_LINE if _shown else "") + text + "\n")
        _shown = False
    except OSError:
        _discard(sys.stderr)


def rewrite(text: str) -> None:
    """A line of progress that the next one replaces; without a terminal a line like any other."""
    global _shown
    if sys.stderr is None or not sys.stderr.isatty():
        say(text)
        return
    try:
        _write(sys.stderr, _CLEAR_LINE + text[: shutil.get_terminal_size().columns - 1])
        _shown = True
    except OSError:
        _discard(sys.stderr)


def print_result(text: str) -> None:
    """A result for people on stdout. Raises OSError where stdout cannot take it."""
    _print(text.rstrip("\n"))


def print_json(document: Any) -> None:
    """A result for programs: one JSON document on stdout. Raises OSError where stdout cannot take it."""
    _print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_line(text: str) -> bool:
    """One of many lines on stdout, at once; False when nobody reads them any more."""
    try:
        _write(sys.stdout, text + "\n")
    except BrokenPipeError:
        discard_results()
        return False
    return True


def discard_results() -> None:
    """Nobody reads stdout any more: what waits in it is dropped, and what follows too."""
    _discard(sys.stdout)


def _print(text: str) -> None:
    """A reader that left, such as `head`, changes nothing about how a command went."""
    try:
        _write(sys.stdout, text + "\n")
    except BrokenPipeError:
        discard_results()
    except OSError as error:
        discard_results()
        raise OSError(error.errno, error.strerror, "stdout") from error


def _write(stream: TextIO | None, text: str) -> None:
    if stream is not None:  # closed by whoever started us
        stream.write(text)
        stream.flush()


def _discard(stream: TextIO) -> None:
    """What still waits in the stream would fail once more when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def table(rows: list[list[str]], header: list[str] | None = None) -> str:
    """Left-aligned columns, two spaces apart."""
    lines = ([header] if header else []) + rows
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
