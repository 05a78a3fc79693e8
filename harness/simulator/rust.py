"""Arithmetic as in TGI's Rust code, where a result depends on it."""

from __future__ import annotations

import ctypes


def f32(value: float) -> float:
    """The nearest single-precision value."""
    return ctypes.c_float(value).value


def wrapping_sub(left: int, right: int) -> int:
    """Difference of two u32 in a release build: it wraps below zero."""
    return (left - right) % 2**32


def saturating_sub(left: int, right: int) -> int:
    """Difference of two unsigned numbers, 0 instead of less."""
    return max(0, left - right)
