"""Reads the bytes of a JSON body as far as serde_json does before it complains, with its texts and positions.

A position is taken at the end of what was consumed; what was only looked at is one byte further (serde_json 1.0,
read.rs and de.rs). What a value must be is in `serde`.
"""

from __future__ import annotations

import math
import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import NoReturn

from harness.emulator import rust

_SPACE = re.compile(rb"[ \n\t\r]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(rb"[0-9]*")
_HEX = re.compile(rb"[0-9a-fA-F]{4}")
UNKNOWN = "?"  # the path's part for a key that could not be read


class JsonError(Exception):
    """One mistake in a body. data: the JSON is well formed, but not of the type (422 instead of 400)."""

    def __init__(self, text: str, *, data: bool, position: tuple[int, int] | None = None) -> None:
        self.text, self.data, self.position = text, data, position
        self.path: list[str] = []
        super().__init__(text)

    def fix(self, reader: Reader) -> JsonError:
        """Give it the reader's position unless it has one already."""
        if self.position is None:
            self.position = reader.position(reader.at)
        return self

    def under(self, segment: str) -> JsonError:
        self.path.insert(0, segment)
        return self

    def describe(self) -> str:
        """The text with path, line and column, as axum prints it."""
        where = "" if self.position is None else f" at line {self.position[0]} column {self.position[1]}"
        named = [each for each in self.path if each != UNKNOWN]
        path = "".join(f".{part}" if index and part[0] != "[" else part for index, part in enumerate(self.path))
        return f"{path}: {self.text}{where}" if named else f"{self.text}{where}"


def wrong(text: str) -> JsonError:
    """A mistake of type; its position comes later."""
    return JsonError(text, data=True)


class Reader:
    """A body and how far it has been read."""

    __slots__ = ("at", "data", "depth", "size")

    def __init__(self, data: bytes, at: int = 0, size: int | None = None) -> None:
        self.data, self.at, self.depth = data, at, 0
        self.size = len(data) if size is None else size

    def position(self, index: int) -> tuple[int, int]:
        """Line and column, both as serde_json counts them: the column is the bytes before, within the line."""
        line_start = self.data.rfind(b"\n", 0, index) + 1
        return self.data.count(b"\n", 0, index) + 1, index - line_start

    def peek(self) -> int:
        """The next byte after white space, -1 at the end."""
        self.at = _SPACE.match(self.data, self.at).end()  # type: ignore[union-attr]
        if self.at >= self.size:
            self.at = self.size
            return -1
        return self.data[self.at]

    def after_space(self) -> int:
        """Where the next value begins."""
        return _SPACE.match(self.data, self.at).end()  # type: ignore[union-attr]

    def fail(self, text: str) -> NoReturn:
        raise JsonError(text, data=False, position=self.position(self.at))

    def fail_peek(self, text: str) -> NoReturn:
        raise JsonError(text, data=False, position=self.position(min(self.size, self.at + 1)))

    def word(self, rest: bytes) -> None:
        """The rest of `null`, `true` or `false` after its first letter."""
        for expected in rest:
            if self.at >= self.size:
                self.fail("EOF while parsing a value")
            self.at += 1
            if self.data[self.at - 1] != expected:
                self.fail("expected ident")

    def string(self) -> str:
        """A string whose opening quote has been read."""
        start = self.at
        end = _PLAIN.match(self.data, start).end()  # type: ignore[union-attr]
        if end < self.size and self.data[end] == 0x22:
            self.at = end + 1
            try:
                return self.data[start:end].decode()
            except UnicodeDecodeError:
                self.fail("invalid unicode code point")
        self.at = end
        return self._long_string(start)

    def _long_string(self, start: int) -> str:
        while True:
            if self.at >= self.size:
                self.at = self.size
                self.fail("EOF while parsing a string")
            byte = self.data[self.at]
            self.at += 1
            if byte == 0x22:
                break
            if byte != 0x5C:
                self.fail("control character (\\u0000-\\u001F) found while parsing a string")
            self._escape()
            self.at = _PLAIN.match(self.data, self.at).end()  # type: ignore[union-attr]
        try:
            text: str = scanstring('"' + self.data[start : self.at].decode(), 1, True)[0]
        except UnicodeDecodeError:
            self.fail("invalid unicode code point")
        return text

    def skip_string(self) -> None:
        """Past a string whose opening quote has been read; its bytes need not be UTF-8."""
        while True:
            self.at = _PLAIN.match(self.data, self.at).end()  # type: ignore[union-attr]
            if self.at >= self.size:
                self.at = self.size
                self.fail("EOF while parsing a string")
            byte = self.data[self.at]
            self.at += 1
            if byte == 0x22:
                return
            if byte != 0x5C:
                self.fail("control character (\\u0000-\\u001F) found while parsing a string")
            self._escape(surrogates=False)

    def _escape(self, surrogates: bool = True) -> None:
        if self.at >= self.size:
            self.fail("EOF while parsing a string")
        byte = self.data[self.at]
        self.at += 1
        if byte == 0x75:
            code = self._hex()
            if not surrogates:
                return
            if 0xDC00 <= code <= 0xDFFF:
                self.fail("lone leading surrogate in hex escape")
            if 0xD800 <= code <= 0xDBFF:
                self._second_half()
        elif byte not in b'"\\/bfnrt':
            self.fail("invalid escape")

    def _hex(self) -> int:
        found = _HEX.match(self.data, self.at)
        if found is None:
            short = self.at + 4 > self.size
            self.at = self.size if short else self.at + 4
            self.fail("EOF while parsing a string" if short else "invalid escape")
        self.at += 4
        return int(found[0], 16)

    def _second_half(self) -> None:
        for expected in b"\\u":
            if self.at >= self.size:
                self.fail("EOF while parsing a string")
            self.at += 1
            if self.data[self.at - 1] != expected:
                self.fail("unexpected end of hex escape")
        if not 0xDC00 <= self._hex() <= 0xDFFF:
            self.fail("lone leading surrogate in hex escape")

    def number(self, ignore: bool = False) -> int | float:
        """A number at the current byte: an int where it fits 64 bits as serde_json keeps it, else a float."""
        start = self.at
        negative = self.data[start] == 0x2D
        self.at += negative
        if self.at >= self.size:
            self.fail("EOF while parsing a value")
        first = self.data[self.at]
        self.at += 1
        if first == 0x30:
            if self.at < self.size and 0x30 <= self.data[self.at] <= 0x39:
                self.fail_peek("invalid number")
        elif 0x31 <= first <= 0x39:
            self.at = _DIGITS.match(self.data, self.at).end()  # type: ignore[union-attr]
        else:
            self.fail("invalid number")
        whole = not self._fraction()
        whole = not self._exponent() and whole
        if ignore:
            return 0
        return self._value(start, negative, whole)

    def _fraction(self) -> bool:
        if self.at >= self.size or self.data[self.at] != 0x2E:
            return False
        end = _DIGITS.match(self.data, self.at + 1).end()  # type: ignore[union-attr]
        empty, self.at = end == self.at + 1, end
        if empty:
            self.fail_peek("EOF while parsing a value" if self.at >= self.size else "invalid number")
        return True

    def _exponent(self) -> bool:
        if self.at >= self.size or self.data[self.at] not in b"eE":
            return False
        self.at += 1
        if self.at < self.size and self.data[self.at] in b"+-":
            self.at += 1
        if self.at >= self.size:
            self.fail("EOF while parsing a value")
        self.at += 1
        if not 0x30 <= self.data[self.at - 1] <= 0x39:
            self.fail("invalid number")
        self.at = _DIGITS.match(self.data, self.at).end()  # type: ignore[union-attr]
        return True

    def _value(self, start: int, negative: bool, whole: bool) -> int | float:
        text = self.data[start : self.at]
        if whole:
            number = int(text)
            if (0 <= number < 2**64 and not negative) or -(2**63) <= number < 0:
                return number
        value = float(text)
        if math.isinf(value):
            self.fail("number out of range")
        return value


# What was found, in the words of serde's `Unexpected`.


def _float_text(value: float) -> str:
    """As Rust's ryu prints: 2.5, 1e20, 1e-7."""
    text = repr(value).replace("e+", "e").replace("e-0", "e-")
    mantissa, exponent, power = text.partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(power)}" if exponent else text


def unexpected_number(value: int | float) -> str:
    """A number in the words of serde's `Unexpected`."""
    return f"floating point `{_float_text(value)}`" if isinstance(value, float) else f"integer `{value}`"


def found(reader: Reader, byte: int) -> str:
    """The unexpected value at the reader, read as far as serde_json reads it before it complains."""
    if byte == 0x6E or byte == 0x74 or byte == 0x66:
        reader.at += 1
        reader.word({0x6E: b"ull", 0x74: b"rue", 0x66: b"alse"}[byte])
        return {0x6E: "null", 0x74: "boolean `true`", 0x66: "boolean `false`"}[byte]
    if byte == 0x2D or 0x30 <= byte <= 0x39:
        return unexpected_number(reader.number())
    if byte == 0x22:
        reader.at += 1
        return f"string {rust.string(reader.string())}"
    if byte == 0x5B or byte == 0x7B:
        return "sequence" if byte == 0x5B else "map"
    reader.fail_peek("expected value")


def invalid_type(reader: Reader, byte: int, expected: str) -> NoReturn:
    """Refuse the value at the reader."""
    raise wrong(f"invalid type: {found(reader, byte)}, expected {expected}").fix(reader)


def need(reader: Reader) -> int:
    """The next byte after white space; there must be one."""
    byte = reader.peek()
    if byte < 0:
        reader.fail_peek("EOF while parsing a value")
    return byte
