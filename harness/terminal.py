"""Prints progress to stderr and results to stdout; without a terminal, one line per change."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from typing import Any, TextIO

from harness.redaction import redact, redacted
from harness.text import visible

Progress = Callable[[str], None]


_BETWEEN = " · "  # the parts of a line that may be folded
_shown = 0  # lines on stderr that may be rewritten


def say(text: str) -> None:
    """One line of progress on stderr. Where that cannot be written, what is under way goes on without."""
    global _shown
    try:
        _write(sys.stderr, _cleared() + plain(text) + "\n")
        _shown = 0
    except OSError:
        _discard(sys.stderr)


def rewrite(text: str) -> None:
    """A line of progress that the next one replaces, folded where the terminal is narrow; without a terminal a line
    like any other.
    """
    global _shown
    if sys.stderr is None or not sys.stderr.isatty():
        say(text)
        return
    try:
        lines = fold(plain(text), shutil.get_terminal_size().columns - 1)
        _write(sys.stderr, _cleared() + "\n".join(lines))
        _shown = len(lines)
    except OSError:
        _discard(sys.stderr)


def _cleared() -> str:
    """What takes away the lines that may be rewritten."""
    if _shown == 0:
        return ""
    return "\r" + (f"\x1b[{_shown - 1}A" if _shown > 1 else "") + "\x1b[J"


def _leave() -> None:
    """What was rewritten stays, and what follows begins below it."""
    global _shown
    if _shown:
        try:
            _write(sys.stderr, "\n")
        except OSError:
            _discard(sys.stderr)
        _shown = 0


def fold(text: str, width: int) -> list[str]:
    """The text in lines of at most this many characters, parted where its parts are; a part that is longer is cut."""
    lines: list[str] = []
    for part in text.split(_BETWEEN):
        if lines and len(lines[-1]) + len(_BETWEEN) + len(part) <= width:
            lines[-1] += _BETWEEN + part
        else:
            lines.append(part[: max(1, width)])
    return lines


def print_result(text: str) -> None:
    """A result for people on stdout. Raises OSError where stdout cannot take it."""
    _print(plain(text.rstrip("\n")))


def print_json(document: Any) -> None:
    """A result for programs: one JSON document on stdout. Raises OSError where stdout cannot take it."""
    document = redacted(document)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # JSON has escapes of its own for what stdout cannot show
        text = json.dumps(document, indent=2, allow_nan=False)
    _print(text)


def print_line(text: str) -> bool:
    """One of many lines on stdout, at once; False when nobody reads them any more."""
    _leave()
    try:
        _write(sys.stdout, plain(text, colours=True) + "\n")
    except BrokenPipeError:
        discard_results()
        return False
    return True


def discard_results() -> None:
    """Nobody reads stdout any more: what waits in it is dropped, and what follows too."""
    _discard(sys.stdout)


def _print(text: str) -> None:
    """A reader that left, such as `head`, changes nothing about how a command went."""
    _leave()
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


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def plain(text: str, colours: bool = False) -> str:
    """Text without secrets, and with what a terminal would act on written as `\\x1b`. colours: those of an engine's log
    are left.
    """
    text = redact(text)
    if not colours:
        return visible(text)
    codes = [*_COLOUR.findall(text), ""]
    return "".join(visible(part) + code for part, code in zip(_COLOUR.split(text), codes, strict=True))


def show_what_can_be_shown() -> None:
    """Characters that a stream's encoding lacks are written as escapes, such as `\\u2013` where it is ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def table(rows: list[list[str]], header: list[str] | None = None) -> str:
    """Left-aligned columns, two spaces apart."""
    lines = ([header] if header else []) + rows
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
