"""Durations, sizes and counts: the only place that reads them from people and formats them for people.

Inside, a duration is seconds as a float, a size is bytes, a count is tokens or requests.
"""

from __future__ import annotations

import math
import re

GIB = 2**30
MIB = 2**20
MOST_SECONDS = 10 * 366 * 86400.0  # of a duration: clocks and timers overflow somewhere beyond

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<unit>us|ms|s|m|min|h)?")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, None: 1.0}


def parse_duration(text: str | int | float) -> float:
    """Seconds from `500ms`, `1s`, `20m`, `1h`, `1m30s` or a number of seconds. Raises ValueError."""
    if isinstance(text, bool):
        raise ValueError("expected a duration such as 500ms, 1s or 20m")
    if isinstance(text, (int, float)):
        if not 0 <= text <= MOST_SECONDS:
            raise ValueError("a duration cannot be negative or longer than ten years")
        return float(text)
    compact = text.strip().lower()
    seconds, at = 0.0, 0
    while at < len(compact):
        match = _DURATION.match(compact, at)
        if match is None or (match["unit"] is None and match.span() != (0, len(compact))):
            raise ValueError("expected a duration such as 500ms, 1s or 20m")
        seconds += float(match["number"]) * _SECONDS[match["unit"]]
        at = match.end()
    if at == 0:
        raise ValueError("expected a duration such as 500ms, 1s or 20m")
    if seconds > MOST_SECONDS:
        raise ValueError("a duration cannot be longer than ten years")
    return seconds


def format_duration(seconds: float | None) -> str:
    """Three significant digits with the unit that suits: `850 us`, `12.3 ms`, `1.50 s`, `3 min 20 s`."""
    if seconds is None or math.isnan(seconds):
        return "–"
    sign, value = ("-" if seconds < 0 else ""), abs(seconds)
    if value == 0:
        return "0 s"
    if value < 0.9995e-3:
        return f"{sign}{_digits(value * 1e6)} us"
    if value < 0.9995:
        return f"{sign}{_digits(value * 1e3)} ms"
    if value < 120:
        return f"{sign}{_digits(value)} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 120:
        return f"{sign}{minutes} min {rest} s" if rest else f"{sign}{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours} h {minutes} min" if minutes else f"{sign}{hours} h"


def format_bytes(count: float) -> str:
    """`512 B`, `1.5 MiB`, `14.9 GiB`; binary units."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    for unit in units[:-1]:
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{_digits(value)} {unit}"
        value /= 1024
    return f"{_digits(value)} {units[-1]}"


def format_count(count: float) -> str:
    """Thousands separated: `12,345`."""
    return f"{count:,.0f}"


def format_number(value: float | None) -> str:
    """Three significant digits, no exponent: `0.123`, `12.3`, `1,234`."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 999.5 else _digits(value)


def format_percent(fraction: float | None) -> str:
    """`99.5 %`."""
    return "–" if fraction is None or math.isnan(fraction) else f"{_digits(fraction * 100)} %"


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value) * 1.0005)))
    text = f"{value:.{min(decimals, 6)}f}"
    return text if float(text) else "0"
