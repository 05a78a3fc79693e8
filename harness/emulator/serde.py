"""JSON as the router's serde_json reads it: strict types, and for every mistake the same text, path and column.

A body is read straight into the shape that is asked for, one pass, no intermediate tree, because the column that an
error names depends on how far the reader had come. The order of the steps below is that of serde_json 1.0's
`Deserializer` (position taken at the end of what was consumed; `peek` errors one byte further) and of the code that
serde_derive makes for structs and enums. serde_path_to_error puts the path in front.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.emulator.json_reader import (
    UNKNOWN,
    JsonError,
    Reader,
    found,
    invalid_type,
    need,
    unexpected_number,
    wrong,
)

_SINGLE = struct.Struct("<f")
_MAX_DEPTH = 127


class Shape:
    """What a value must be. `read` gives it or raises JsonError."""

    def read(self, reader: Reader) -> Any:
        raise NotImplementedError


class Text(Shape):
    def read(self, reader: Reader) -> str:
        byte = need(reader)
        if byte != 0x22:
            invalid_type(reader, byte, "a string")
        reader.at += 1
        return reader.string()


class Flag(Shape):
    def read(self, reader: Reader) -> bool:
        byte = need(reader)
        if byte == 0x74:
            reader.at += 1
            reader.word(b"rue")
            return True
        if byte == 0x66:
            reader.at += 1
            reader.word(b"alse")
            return False
        invalid_type(reader, byte, "a boolean")


@dataclass(frozen=True)
class Whole(Shape):
    """An integer of Rust's type `name`."""

    name: str
    lowest: int
    highest: int

    def read(self, reader: Reader) -> int:
        byte = need(reader)
        if not (byte == 0x2D or 0x30 <= byte <= 0x39):
            invalid_type(reader, byte, self.name)
        value = reader.number()
        if isinstance(value, float):
            raise wrong(f"invalid type: {unexpected_number(value)}, expected {self.name}").fix(reader)
        if not self.lowest <= value <= self.highest:
            raise wrong(f"invalid value: {unexpected_number(value)}, expected {self.name}").fix(reader)
        return value


class Real(Shape):
    def read(self, reader: Reader) -> float:
        byte = need(reader)
        if not (byte == 0x2D or 0x30 <= byte <= 0x39):
            invalid_type(reader, byte, "f32")
        try:
            single: float = _SINGLE.unpack(_SINGLE.pack(reader.number()))[0]
        except OverflowError:
            return math.inf
        return single


class Unit(Shape):
    """`null`, as a variant of an untagged enum."""

    def read(self, reader: Reader) -> None:
        byte = need(reader)
        if byte != 0x6E:
            invalid_type(reader, byte, "unit")
        reader.at += 1
        reader.word(b"ull")


@dataclass(frozen=True)
class Maybe(Shape):
    """Rust's Option: null or the inner shape."""

    inner: Shape

    def read(self, reader: Reader) -> Any:
        if reader.peek() == 0x6E:
            reader.at += 1
            reader.word(b"ull")
            return None
        return self.inner.read(reader)


def _list(reader: Reader, element: Callable[[], None]) -> None:
    """Call `element` at each element of the list whose bracket has been read; stops before the closing one."""
    index = 0
    while True:
        byte = reader.peek()
        if byte == 0x5D:
            return
        if byte < 0:
            reader.fail_peek("EOF while parsing a list")
        if index:
            if byte != 0x2C:
                reader.fail_peek("expected `,` or `]`")
            reader.at += 1
            byte = reader.peek()
            if byte == 0x5D:
                reader.fail_peek("trailing comma")
            if byte < 0:
                reader.fail_peek("EOF while parsing a value")
        try:
            element()
        except JsonError as error:
            raise error.under(f"[{index}]") from None
        index += 1


def _end_list(reader: Reader) -> None:
    byte = reader.peek()
    if byte == 0x5D:
        reader.at += 1
        return
    if byte == 0x2C:
        reader.at += 1
        reader.fail_peek("trailing comma" if reader.peek() == 0x5D else "trailing characters")
    reader.fail_peek("EOF while parsing a list" if byte < 0 else "trailing characters")


def _next_key(reader: Reader, first: bool) -> str | None:
    """The next key of an object, or None at its end."""
    try:
        return _key(reader, first)
    except JsonError as error:
        raise error.under(UNKNOWN) from None


def _key(reader: Reader, first: bool) -> str | None:
    byte = reader.peek()
    if byte == 0x7D:
        return None
    if byte < 0:
        reader.fail_peek("EOF while parsing an object")
    if not first:
        if byte != 0x2C:
            reader.fail_peek("expected `,` or `}`")
        reader.at += 1
        byte = reader.peek()
    if byte != 0x22:
        reader.fail_peek(
            "trailing comma" if byte == 0x7D else "EOF while parsing a value" if byte < 0 else "key must be a string"
        )
    reader.at += 1
    return reader.string()


def _colon(reader: Reader) -> None:
    byte = reader.peek()
    if byte != 0x3A:
        reader.fail_peek("EOF while parsing an object" if byte < 0 else "expected `:`")
    reader.at += 1


def _end_map(reader: Reader) -> None:
    byte = reader.peek()
    if byte == 0x7D:
        reader.at += 1
    elif byte == 0x2C:
        reader.fail_peek("trailing comma")
    else:
        reader.fail_peek("EOF while parsing an object" if byte < 0 else "trailing characters")


def _map(reader: Reader, entry: Callable[[str], None]) -> None:
    """Call `entry` with each key of the object whose brace has been read, colon not yet; stops before its end."""
    first = True
    while True:
        key = _next_key(reader, first)
        if key is None:
            return
        entry(key)
        first = False


def _value_of(reader: Reader, key: str, shape: Shape) -> Any:
    try:
        _colon(reader)
        return shape.read(reader)
    except JsonError as error:
        raise error.under(key) from None


def _closing(reader: Reader, body: Callable[[], Any], end: Callable[[Reader], None]) -> Any:
    """Read a list or an object and its end. The end is looked for even after a mistake: the column depends on it."""
    reader.at += 1
    try:
        value = body()
    except JsonError as error:
        if error.position is None:
            _quietly(end, reader)
        raise error.fix(reader) from None
    end(reader)
    return value


def _quietly(end: Callable[[Reader], None], reader: Reader) -> None:
    try:
        end(reader)
    except JsonError:
        return


class Anything(Shape):
    """serde_json's Value, and what untagged enums keep until they know their variant."""

    def read(self, reader: Reader) -> Any:
        byte = need(reader)
        if byte == 0x22:
            reader.at += 1
            return reader.string()
        if byte == 0x5B or byte == 0x7B:
            reader.depth += 1
            if reader.depth > _MAX_DEPTH:
                reader.fail_peek("recursion limit exceeded")
            value = self._list(reader) if byte == 0x5B else self._map(reader)
            reader.depth -= 1
            return value
        if byte == 0x2D or 0x30 <= byte <= 0x39:
            return reader.number()
        word = found(reader, byte)
        return None if word == "null" else word == "boolean `true`"

    def _list(self, reader: Reader) -> list[Any]:
        values: list[Any] = []
        return _closing(reader, lambda: _list(reader, lambda: values.append(self.read(reader))) or values, _end_list)  # type: ignore[func-returns-value]

    def _map(self, reader: Reader) -> dict[str, Any]:
        values: dict[str, Any] = {}

        def entry(key: str) -> None:
            values[key] = _value_of(reader, key, self)

        return _closing(reader, lambda: _map(reader, entry) or values, _end_map)  # type: ignore[func-returns-value]


ANYTHING = Anything()


class Ignored(Shape):
    """The value of a field that the struct does not have: skipped, without a look at ranges, depth or encoding."""

    def read(self, reader: Reader) -> None:
        open_brackets: list[int] = []
        while True:
            byte = need(reader)
            if byte == 0x5B or byte == 0x7B:
                reader.at += 1
                open_brackets.append(byte)
                accept_comma = False
            else:
                self._scalar(reader, byte)
                accept_comma = True
            if not self._close(reader, open_brackets, accept_comma):
                return
            if open_brackets[-1] == 0x7B:
                self._key(reader)

    def _scalar(self, reader: Reader, byte: int) -> None:
        if byte == 0x22:
            reader.at += 1
            reader.skip_string()
        elif byte == 0x2D or 0x30 <= byte <= 0x39:
            reader.number(ignore=True)
        else:
            found(reader, byte)

    def _close(self, reader: Reader, open_brackets: list[int], accept_comma: bool) -> bool:
        """Past closing brackets and one comma; False at the end of the value."""
        while open_brackets:
            byte, frame = reader.peek(), open_brackets[-1]
            listed = frame == 0x5B
            if byte < 0:
                reader.fail_peek(f"EOF while parsing {'a list' if listed else 'an object'}")
            if byte == 0x2C and accept_comma:
                reader.at += 1
                return True
            if byte != (0x5D if listed else 0x7D):
                if accept_comma:
                    reader.fail_peek(f"expected `,` or `{']' if listed else '}'}`")
                return True
            reader.at += 1
            open_brackets.pop()
            accept_comma = True
        return False

    def _key(self, reader: Reader) -> None:
        byte = reader.peek()
        if byte != 0x22:
            reader.fail_peek("EOF while parsing an object" if byte < 0 else "key must be a string")
        reader.at += 1
        reader.skip_string()
        _colon(reader)


_IGNORED = Ignored()


@dataclass(frozen=True)
class Many(Shape):
    """Rust's Vec."""

    inner: Shape

    def read(self, reader: Reader) -> list[Any]:
        byte = need(reader)
        if byte != 0x5B:
            invalid_type(reader, byte, "a sequence")
        values: list[Any] = []
        append, inner = values.append, self.inner.read
        return _closing(reader, lambda: _list(reader, lambda: append(inner(reader))) or values, _end_list)  # type: ignore[func-returns-value]


_REQUIRED: Any = object()


@dataclass(frozen=True)
class Field:
    """One field of a struct. default: a function, or nothing when the field must be there."""

    name: str
    shape: Shape
    default: Callable[[], Any] = _REQUIRED
    alias: str | None = None

    @property
    def has_default(self) -> bool:
        return self.default is not _REQUIRED

    def missing(self) -> Any:
        if self.default is not _REQUIRED:
            return self.default()
        if isinstance(self.shape, Maybe):
            return None
        raise wrong(f"missing field `{self.name}`")


class Struct(Shape):
    """A Rust struct: an object, or its fields in order as a list. `build` gets the values in that order."""

    def __init__(self, name: str, fields: Sequence[Field], build: Callable[..., Any]) -> None:
        self.name, self.fields, self.build = name, tuple(fields), build
        self._index = {key: i for i, f in enumerate(fields) for key in (f.name, f.alias) if key}

    def read(self, reader: Reader) -> Any:
        byte = need(reader)
        if byte == 0x7B:
            return _closing(reader, lambda: self._from_map(reader), _end_map)
        if byte == 0x5B:
            return _closing(reader, lambda: self._from_list(reader), _end_list)
        invalid_type(reader, byte, f"struct {self.name}")

    def _from_map(self, reader: Reader) -> Any:
        values: list[Any] = [_REQUIRED] * len(self.fields)
        first = True
        while True:
            key = _next_key(reader, first)
            if key is None:
                break
            first = False
            index = self._index.get(key)
            if index is None:
                _value_of(reader, key, _IGNORED)
                continue
            if values[index] is not _REQUIRED:
                raise wrong(f"duplicate field `{self.fields[index].name}`")
            values[index] = _value_of(reader, key, self.fields[index].shape)
        return self.build(*(f.missing() if v is _REQUIRED else v for f, v in zip(self.fields, values, strict=True)))

    def _from_list(self, reader: Reader) -> Any:
        values: list[Any] = []
        for index, each in enumerate(self.fields):
            byte = reader.peek()
            if byte < 0:
                reader.fail_peek("EOF while parsing a list")
            if byte == 0x5D:
                values.append(self._absent(each, index))
                continue
            if index:
                if byte != 0x2C:
                    reader.fail_peek("expected `,` or `]`")
                reader.at += 1
                if reader.peek() == 0x5D:
                    reader.fail_peek("trailing comma")
            try:
                values.append(each.shape.read(reader))
            except JsonError as error:
                raise error.under(f"[{index}]") from None
        return self.build(*values)

    def _absent(self, each: Field, index: int) -> Any:
        if each.default is _REQUIRED:
            count = len(self.fields)
            plural = "element" if count == 1 else "elements"
            raise wrong(f"invalid length {index}, expected struct {self.name} with {count} {plural}")
        return each.default()


@dataclass(frozen=True)
class Untagged(Shape):
    """The first variant that fits. The value is read whole before, so mistakes inside have no text of their own."""

    name: str
    variants: tuple[Shape, ...]

    def read(self, reader: Reader) -> Any:
        start = reader.after_space()
        ANYTHING.read(reader)
        return self.choose(reader.data, start, reader.at)

    def choose(self, data: bytes, start: int, end: int) -> Any:
        for variant in self.variants:
            try:
                return variant.read(Reader(data, start, end))
            except JsonError:
                continue
        raise wrong(f"data did not match any variant of untagged enum {self.name}")


@dataclass(frozen=True)
class Converted(Shape):
    """Read as the inner shape, then converted; a ValueError becomes the error's text."""

    inner: Shape
    convert: Callable[[Any], Any]

    def read(self, reader: Reader) -> Any:
        value = self.inner.read(reader)
        try:
            return self.convert(value)
        except ValueError as error:
            raise wrong(str(error)) from None


@dataclass(frozen=True)
class InternallyTagged(Shape):
    """An object whose `type` names the variant; used inside untagged enums only, so its texts are never seen."""

    variants: dict[str, Shape]

    def read(self, reader: Reader) -> Any:
        need(reader)
        start = reader.at
        whole = ANYTHING.read(reader)
        if not isinstance(whole, dict) or whole.get("type") not in self.variants:
            raise wrong("unknown variant")
        return self.variants[whole["type"]].read(Reader(reader.data, start, reader.at))


@dataclass(frozen=True)
class AdjacentlyTagged(Shape):
    """`{"type": variant, "value": content}` in either order. build gets the variant's name and the content."""

    name: str
    variants: dict[str, Shape]
    build: Callable[[str, Any], Any]
    tag: str = "type"
    content: str = "value"

    def read(self, reader: Reader) -> Any:
        byte = need(reader)
        if byte == 0x7B:
            return _closing(reader, lambda: self._from_map(reader), _end_map)
        if byte == 0x5B:
            return _closing(reader, lambda: self._from_list(reader), _end_list)
        invalid_type(reader, byte, f"adjacently tagged enum {self.name}")

    def _variant(self, reader: Reader) -> str:
        """The variant's name. Raises for an unknown one, with the list of all."""
        byte = need(reader)
        if byte != 0x22:
            reader.fail_peek("expected value")
        reader.at += 1
        name = reader.string()
        if name not in self.variants:
            names = ", ".join(f"`{each}`" for each in self.variants)
            raise wrong(f"unknown variant `{name}`, expected one of {names}").fix(reader)
        return name

    def _from_map(self, reader: Reader) -> Any:
        variant: str | None = None
        kept: tuple[int, int] | None = None
        value: Any = _REQUIRED
        first = True
        while True:
            key = _next_key(reader, first)
            if key is None:
                break
            first = False
            if key == self.tag:
                if variant is not None:
                    raise wrong(f"duplicate field `{self.tag}`")
                variant = self._tag_value(reader, key)
                if kept is not None:
                    value = self.variants[variant].read(Reader(reader.data, *kept))
            elif key == self.content:
                if kept is not None or value is not _REQUIRED:
                    raise wrong(f"duplicate field `{self.content}`")
                if variant is not None:
                    value = _value_of(reader, key, self.variants[variant])
                else:
                    kept = self._keep(reader, key)
            else:
                _value_of(reader, key, _IGNORED)
        if variant is None or value is _REQUIRED:
            raise wrong(f"missing field `{self.tag if variant is None else self.content}`")
        return self.build(variant, value)

    def _tag_value(self, reader: Reader, key: str) -> str:
        try:
            _colon(reader)
            return self._variant(reader)
        except JsonError as error:
            raise error.under(key) from None

    def _keep(self, reader: Reader, key: str) -> tuple[int, int]:
        try:
            _colon(reader)
            need(reader)
            start = reader.at
            ANYTHING.read(reader)
        except JsonError as error:
            raise error.under(key) from None
        return start, reader.at

    def _from_list(self, reader: Reader) -> Any:
        for index in range(2):
            if need(reader) == 0x5D:
                raise wrong(f"invalid length {index}, expected adjacently tagged enum {self.name}")
            if index == 0:
                variant = self._variant(reader)
            else:
                reader.at += 1
                value = self.variants[variant].read(reader)
        return self.build(variant, value)


@dataclass(frozen=True)
class Flattened(Shape):
    """A struct with a flattened untagged enum: own fields are read at once, the rest is kept for the enum.

    body: the enum, whose variants read an object made of the kept entries.
    """

    name: str
    fields: tuple[Field, ...]
    body: Untagged
    build: Callable[..., Any]

    def read(self, reader: Reader) -> Any:
        byte = need(reader)
        if byte != 0x7B:
            invalid_type(reader, byte, f"struct {self.name}")
        return _closing(reader, lambda: self._from_map(reader), _end_map)

    def _from_map(self, reader: Reader) -> Any:
        values: dict[str, Any] = {}
        kept: list[bytes] = []
        known = {each.name: each.shape for each in self.fields}

        def entry(key: str) -> None:
            if key in known:
                if key in values:
                    raise wrong(f"duplicate field `{key}`")
                values[key] = _value_of(reader, key, known[key])
                return
            start = reader.at
            _value_of(reader, key, ANYTHING)
            kept.append(b'"' + key.encode() + b'"' + reader.data[start : reader.at] if key.isidentifier() else b"")

        _map(reader, entry)
        own = [values[f.name] if f.name in values else f.missing() for f in self.fields]
        rest = b"{" + b",".join(filter(None, kept)) + b"}"
        return self.build(*own, self.body.choose(rest, 0, len(rest)))


@dataclass(frozen=True)
class Flat(Shape):
    """A struct with one field of its own and a flattened map of all others. Gives everything as one dict."""

    name: str
    own: Field

    def read(self, reader: Reader) -> dict[str, Any]:
        byte = need(reader)
        if byte != 0x7B:
            invalid_type(reader, byte, f"struct {self.name}")
        values: dict[str, Any] = {}

        def entry(key: str) -> None:
            if key == self.own.name and key in values:
                raise wrong(f"duplicate field `{key}`")
            values[key] = _value_of(reader, key, self.own.shape if key == self.own.name else ANYTHING)

        def body() -> dict[str, Any]:
            _map(reader, entry)
            if self.own.name not in values:
                self.own.missing()
            return values

        return _closing(reader, body, _end_map)


def read_body(shape: Shape, body: bytes) -> Any:
    """The value of a request body. What follows the value is not looked at, as in axum's Json. Raises JsonError."""
    return shape.read(Reader(body))


TEXT, FLAG, REAL = Text(), Flag(), Real()
U32 = Whole("u32", 0, 2**32 - 1)
I32 = Whole("i32", -(2**31), 2**31 - 1)
U64 = Whole("u64", 0, 2**64 - 1)
USIZE = Whole("usize", 0, 2**64 - 1)
