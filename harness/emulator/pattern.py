"""Makes a text that a regular expression matches: the first of alternatives, and what is repeated once, or as often as
it must be.

Anchors, look-arounds and references to groups add nothing, so a text whose pattern depends on them may not match.
"""

from __future__ import annotations

import re
import string
from itertools import chain

_LITERAL = re.compile(r"[^.\[\\(]", re.DOTALL)
_ONE = re.compile(
    r"\.|\[\^?\]?(?:\\.|[^\]\\])*\]"  # any character, or one of a set
    r"|\\(?:x..|u.{4}|U.{8}|N\{[^}]*\}|0[0-7]{0,2}|[0-7]{3}|.)",
    re.DOTALL,
)
_NOTHING = re.compile(r"\\(?:[bBAZ]|[1-9]\d?(?!\d))|[$^]")  # matches no character of its own
_OR = re.compile(r"\|")
_REPEAT = re.compile(r"(?:[*+?]|\{(?!\})(\d*)(,?)(\d*)\})[?+]?")
_GROUP = re.compile(r"\(\?(?:P<\w+>|[aiLmsux]*(?:-[imsx]+)?:|>)|\((?!\?)")
_LOOK = re.compile(r"\(\?<?[=!]")
_NO_GROUP = re.compile(r"\(\?(?:#[^)]*|P=\w+|[aiLmsux]+)\)")
_LIKELY = "a1 " + string.printable
_LONGEST = 1 << 16  # characters; no answer is longer


def sample(pattern: str) -> str:
    """Raises re.error where the pattern is not valid, and ValueError where it has a part that is not read here."""
    re.compile(pattern)
    reader = _Reader(pattern)
    text = reader.alternatives()
    if reader.at < len(pattern):
        raise ValueError(f"not read: {pattern[reader.at :]}")
    return text


class _Reader:
    """at: where in the pattern it is."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self.at = pattern, 0

    def alternatives(self) -> str:
        """The first of `a|b|c`, up to the end of the group or pattern."""
        first = self._sequence()
        while self._take(_OR):
            self._sequence()
        return first

    def _sequence(self) -> str:
        text = ""
        while self.at < len(self._pattern) and self._pattern[self.at] not in "|)":
            text += self._repeated(self._item())
        return text

    def _item(self) -> str:
        if self._take(_NO_GROUP) or self._take(_NOTHING):
            return ""
        if self._take(_LOOK):
            self._group()
            return ""
        if self._take(_GROUP):
            return self._group()
        if found := self._take(_LITERAL):
            return found[0]
        if found := self._take(_ONE):
            return _character(found[0])
        raise ValueError(f"not read: {self._pattern[self.at :]}")

    def _group(self) -> str:
        text = self.alternatives()
        self.at += 1  # the bracket
        return text

    def _repeated(self, item: str) -> str:
        found = self._take(_REPEAT)
        if found is None:
            return item
        low, comma, high = found.groups()
        if comma is None:
            return item
        least = int(low or 0)
        if comma and not least:
            return "" if high == "0" else item
        return item * min(least, _LONGEST // max(1, len(item)))

    def _take(self, part: re.Pattern[str]) -> re.Match[str] | None:
        found = part.match(self._pattern, self.at)
        if found is not None:
            self.at = found.end()
        return found


def _character(one: str) -> str:
    """One that a set, an escape or `.` matches: of those that a set names, else a plain one."""
    named = one[1:] if one[0] == "[" and one[1] != "^" else ""
    matches = re.compile(one).fullmatch
    return next(filter(matches, chain(named, _LIKELY, map(chr, range(0xD800)))), "")
