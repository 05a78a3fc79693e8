"""JSON objects one after another: one to a line, the items of a list, or a document of its own.

A list is read as it goes; a data set of hundreds of megabytes is not loaded for its first hundred conversations.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

from harness.errors import UsageError
from harness.workload.traces.row import Record
from harness.workload.traces.text_lines import LONGEST, text_lines, too_long

_CHUNK = 1 << 16
_BLANK = " \t\r\n"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


# A fraction stays the text that it is, so that no digit of a moment is lost.
_DECODER = json.JSONDecoder(parse_float=str, parse_constant=_refuse)


def first_line_is_whole(beginning: bytes) -> bool:
    """Whether the first line is a JSON value by itself; one that is longer than what is given is taken for one."""
    line, end, _ = beginning.partition(b"\n")
    try:
        _DECODER.decode(line.decode("utf-8", "replace"))
    except json.JSONDecodeError:
        return not end and len(line) >= _CHUNK // 2
    except (ValueError, RecursionError):
        return True
    return True


def json_lines(file: BinaryIO, name: str) -> Iterator[Record]:
    """Raises UsageError for a line that is not a JSON object."""
    for number, line in enumerate(text_lines(file, name), start=1):
        if line.isspace():
            continue
        record = Record({}, number, name)
        try:
            value = _DECODER.decode(line)
        except RecursionError as error:
            raise record.wrong(None, "a JSON object", "brackets nested too deep") from error
        except ValueError as error:
            raise record.wrong(None, "a JSON object", line.strip()) from error
        yield _object(value, record)


def json_items(file: BinaryIO, name: str) -> Iterator[Record]:
    """Objects of a list, or one after another. Raises UsageError."""
    text = _Text(file, name)
    in_list = text.next_character() == "["
    if in_list:
        text.at += 1
    while character := text.next_character():
        if in_list and character == "]":
            text.at += 1
            if text.next_character():
                raise UsageError("something follows the list", where=f"{name}:{text.line}")
            return
        if in_list and character == ",":
            text.at += 1
            continue
        record = Record({}, text.line, name)
        yield _object(text.value(), record)
    if in_list:
        raise UsageError("ends in the middle of its list", where=f"{name}:{text.line}", advice="Fetch the file again.")


def _object(value: Any, record: Record) -> Record:
    if not isinstance(value, dict):
        raise record.wrong(None, "a JSON object", value)
    return record._replace(fields=value)


class _Text:
    """The part of a file that is being looked at. at: where; line: the number of the line that this is in."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._ended = "", False
        self.at, self.line = 0, 1

    def next_character(self) -> str:
        """The next one that is not blank, without passing it; empty at the end."""
        while True:
            while self.at < len(self._text) and self._text[self.at] in _BLANK:
                self.line += self._text[self.at] == "\n"
                self.at += 1
            if self.at < len(self._text):
                return self._text[self.at]
            if not self._more(_CHUNK):
                return ""

    def value(self) -> Any:
        """The JSON value here; passes it."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self.at)
            except json.JSONDecodeError as error:
                if self._ended:
                    raise self._broken(error) from error
                # Perhaps it only goes on in what was not read yet; twice as much each time, so that no length hurts.
                self._more(max(_CHUNK, len(self._text) - self.at))
                continue
            except RecursionError as error:
                raise UsageError("brackets nested too deep", where=f"{self._name}:{self.line}") from error
            except ValueError as error:
                raise UsageError(f"not valid JSON: {error}", where=f"{self._name}:{self.line}") from error
            self.line += self._text.count("\n", self.at, end)
            self.at = end
            return value

    def _more(self, size: int) -> bool:
        """Whether there was more to read."""
        if self._ended:
            return False
        raw = self._file.read(size)
        self._ended = not raw
        try:
            read = self._decoder.decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            raise UsageError("not UTF-8", where=f"{self._name}:{self.line}") from error
        self._text, self.at = self._text[self.at :] + read, 0
        if len(self._text) > LONGEST:
            raise too_long(self._name, self.line)
        return bool(raw)

    def _broken(self, error: json.JSONDecodeError) -> UsageError:
        line = self.line + self._text.count("\n", self.at, error.pos)
        if error.pos >= len(self._text.rstrip()) or error.msg.startswith("Unterminated"):
            found = "ends in the middle of a JSON object"
        else:
            found = f"not valid JSON: {error.msg}"
        return UsageError(found, where=f"{self._name}:{line}")
