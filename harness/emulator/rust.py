"""Prints values as Rust does: JSON without spaces, durations, and the Debug form of structs for the log."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

_encode: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def dumps(value: Any) -> bytes:
    """As serde_json writes it."""
    return _encode(value).encode("utf-8", "replace")


def text(value: Any) -> str:
    """The same as text."""
    return _encode(value)


def seconds(value: float) -> str:
    """A number of seconds as f64 prints: no exponent."""
    return format(value, ".9f").rstrip("0").rstrip(".") or "0"


def duration(value: float) -> str:
    """A Duration in Debug form: 15.4ms, 776µs, 1.5s."""
    nanoseconds = round(value * 1e9)
    for unit, size in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if nanoseconds >= size:
            digits = f"{nanoseconds / size:.9f}".rstrip("0").rstrip(".")
            return f"{digits}{unit}"
    return f"{nanoseconds}ns"


def _single(value: float) -> str:
    """An f32 in Debug form: the shortest digits that read back as the same f32, always with a point or an exponent."""
    for digits in range(1, 10):
        shown = f"{value:.{digits}g}"
        if _f32(float(shown)) == value:
            break
    mantissa, exponent, power = repr(float(shown)).partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(power)}" if exponent else mantissa


def _f32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def string(value: str) -> str:
    """A string in Debug form."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
    return '"' + "".join(escapes.get(c, c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in value) + '"'


def debug(value: Any) -> str:
    """A value in Debug form on one line; None and True are `None` and `true`."""
    if value is None:
        return "None"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _single(value)
    if isinstance(value, str):
        return string(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(debug, value)) + "]"
    if isinstance(value, dict):
        return "Object {" + ", ".join(f"{string(k)}: {debug_json(v)}" for k, v in value.items()) + "}"
    return str(value)


def debug_json(value: Any) -> str:
    """A serde_json Value in Debug form."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return f"Bool({debug(value)})"
    if isinstance(value, (int, float)):
        return f"Number({value!r})"
    if isinstance(value, str):
        return f"String({string(value)})"
    if isinstance(value, list):
        return "Array [" + ", ".join(map(debug_json, value)) + "]"
    return debug(value)


def option(value: Any) -> str:
    """An Option in Debug form."""
    return "None" if value is None else f"Some({debug(value)})"
