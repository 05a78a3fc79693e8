"""Parses moments and decides their unit. A unit that nothing tells is asked for, never guessed.

What decides, in this order: `--trace-time-unit`; dates, which need none; the form of the file, where its publisher says
so; the column's name (`arrival_ms`); numbers that are moments since 1970, which only one unit puts into our decades.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from harness.errors import UsageError
from harness.units import format_duration, format_number
from harness.workload.traces.container import Head
from harness.workload.traces.row import Record

NANO = 1_000_000_000
OPTION = "--trace-time-unit"
UNITS = {"s": NANO, "ms": 1_000_000, "us": 1_000, "ns": 1}
NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

_NUMBER = re.compile(r"\d{1,20}(?:\.\d*)?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_DATE = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?)([.,]\d+)?\s*(Z|UTC|[+-]\d\d:?\d\d)?", re.ASCII)
_SUFFIXES = {
    "_s": "s", "_sec": "s", "_secs": "s", "_seconds": "s", "_ms": "ms", "_millis": "ms", "_milliseconds": "ms",
    "_us": "us", "_micros": "us", "_microseconds": "us", "_ns": "ns", "_nano": "ns", "_nanos": "ns",
    "_nanoseconds": "ns",
}  # fmt: skip
# Moments since 1970 from 2010 to 2040, and, for any reading, no more than anybody has recorded.
_MOST_PER_SECOND = 100_000  # requests; more than any one trace has
_EPOCH_SECONDS, _MOST_SECONDS = (1_262_304_000, 2_208_988_800), 4_000_000_000


@dataclass(frozen=True)
class Clock:
    """How a column tells moments. unit: of UNITS, or None for dates. source: what says so."""

    column: str
    unit: str | None
    source: str

    def read(self, record: Record) -> int:
        """Nanoseconds since whatever the trace counts from, exactly. Raises UsageError."""
        value = record.fields.get(self.column)
        return (
            _date(record, self.column, value) if self.unit is None else _number(record, self.column, value, self.unit)
        )

    def __str__(self) -> str:
        return "dates" if self.unit is None else f"{NAMES[self.unit]} ({self.source})"


def find_clock(head: Head, column: str, *, given: str | None, form: str = "", unit: str | None = None) -> Clock:
    """The clock of this column. given: the user's word; form, unit: the publisher's.

    Raises UsageError where nothing tells the unit, or two things contradict each other, with the possible readings.
    """
    told = [(record, record.fields[column]) for record in head.records if record.fields.get(column) not in (None, "")]
    if not told:
        raise head.records[0].wrong(column, "a moment", None)
    if isinstance(told[0][1], (date, datetime)) or _DATE.match(str(told[0][1]).strip()):
        if given is not None:
            found = f"moments are dates, such as {str(told[0][1])[:40]!r}: {OPTION} changes nothing"
            raise UsageError(found, where=head.name, advice="Leave it out.")
        return Clock(column, None, "")
    values = [_decimal(record, column, value) for record, value in told]
    if given is not None:
        return Clock(column, given, OPTION)
    since_1970 = _epoch_unit(values)
    if unit is not None and (since_1970 in (None, unit) or _possible(values, unit)):
        if since_1970 not in (None, unit):
            found = f"{form} tells {NAMES[unit]}, but {values[0]:f} looks like {NAMES[since_1970]} since 1970"
            raise _unknown(head, column, found, values, (unit, since_1970))
        return Clock(column, unit, f"by the form, {form}")
    named = next((unit for suffix, unit in _SUFFIXES.items() if column.lower().endswith(suffix)), None)
    if named is not None:
        return Clock(column, named, f"by the name of the column, {column}")
    if since_1970 is not None:
        return Clock(column, since_1970, "since 1970, by their size")
    raise _unknown(head, column, "nothing tells the unit of its moments", values, tuple(UNITS))


def _unknown(head: Head, column: str, found: str, values: Sequence[Decimal], units: tuple[str, ...]) -> UsageError:
    """The refusal, with the readings that are possible: how long the first rows last, and how often one comes."""
    span = max(values) - min(values)
    readings = []
    for unit in units:
        seconds = float(span * UNITS[unit] / NANO)
        rate = (len(values) - 1) / seconds if seconds else 0.0
        if _possible(values, unit) and rate <= _MOST_PER_SECOND:
            each = f", {format_number(rate)} requests/s" if rate else ""
            readings.append(f"as {NAMES[unit]} they span {format_duration(seconds)}{each}")
    shown = ", ".join(f"{value:f}"[:30] for value in values[:3])
    found = (
        f"{found} ({shown}, ...); of its first {len(values)} rows: {'; '.join(readings) or 'no reading is possible'}"
    )
    return UsageError(found, where=f"{head.name}: column {column}", advice=f"Give {OPTION} s, ms, us or ns.")


def _epoch_unit(values: Sequence[Decimal]) -> str | None:
    """The unit in which all of these are moments since 1970, of our decades."""
    low, high = _EPOCH_SECONDS
    return next(
        (
            unit
            for unit, nanoseconds in UNITS.items()
            if all(low <= value * nanoseconds / NANO < high for value in values)
        ),
        None,
    )


def _possible(values: Sequence[Decimal], unit: str) -> bool:
    return max(values) * UNITS[unit] / NANO < _MOST_SECONDS


def _number(record: Record, column: str, value: Any, unit: str) -> int:
    if type(value) is int and 0 <= value < 10**20:
        return value * UNITS[unit]
    return round(_decimal(record, column, value) * UNITS[unit])


def _decimal(record: Record, column: str, value: Any) -> Decimal:
    text = "" if isinstance(value, bool) else str(value).strip()
    if not _NUMBER.fullmatch(text) or (number := Decimal(text)) >= Decimal(10) ** 20:
        raise record.wrong(column, "a moment: a number, or a date such as 2023-11-16 18:15:46.68", value)
    return number


def _date(record: Record, column: str, value: Any) -> int:
    text = value.isoformat() if isinstance(value, datetime) else str(value).strip()
    match = _DATE.fullmatch(text)
    if match is None:
        raise record.wrong(column, "a date such as 2023-11-16 18:15:46.68", value)
    moment, fraction, zone = match.groups()
    try:
        seconds = _since_1970(moment, zone)
    except (ValueError, OverflowError) as error:
        raise record.wrong(column, "a date such as 2023-11-16 18:15:46.68", value) from error
    return seconds * NANO + (int(fraction[1:10].ljust(9, "0")) if fraction else 0)


@lru_cache(maxsize=1024)  # many requests come in one second
def _since_1970(moment: str, zone: str | None) -> int:
    """Whole seconds. A moment without a time zone is taken for UTC. Raises ValueError, OverflowError."""
    offset = "+00:00" if zone in (None, "Z", "UTC") else zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"
    return int(datetime.fromisoformat(moment + offset).timestamp())
