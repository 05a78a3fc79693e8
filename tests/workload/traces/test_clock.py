"""The unit of moments: who tells it, and what is refused where nobody does."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from harness.errors import UsageError
from harness.workload.traces.clock import UNITS, find_clock
from harness.workload.traces.container import Head
from harness.workload.traces.row import Record


def head(*values: Any, column: str = "timestamp") -> Head:
    return Head("csv", tuple(Record({column: value}, number, "t") for number, value in enumerate(values, 2)), "t")


def moments(*values: Any, column: str = "timestamp", **told: Any) -> list[int]:
    made = head(*values, column=column)
    clock = find_clock(made, column, **{"given": None, **told})
    return [clock.read(record) for record in made.records]


def test_what_the_user_says_comes_first() -> None:
    """Before the form's unit and the column's name."""
    assert moments("5", "6", given="us", unit="s") == [5_000, 6_000]
    assert moments("5", column="at_ms", given="s") == [5_000_000_000]


@pytest.mark.parametrize("unit", UNITS)
def test_moments_since_1970_tell_their_unit_by_their_size(unit: str) -> None:
    """From 2010 to 2040 in any of the units; 2024-02-15 here."""
    at = 1_708_011_482_123_456_789
    assert moments(at // UNITS[unit])[0] == at // UNITS[unit] * UNITS[unit]


def test_fractions_lose_no_digit() -> None:
    """Seconds since 1970 with nanoseconds have more digits than a float."""
    assert moments("1708011482.123456789") == [1_708_011_482_123_456_789]


def test_a_form_that_contradicts_the_numbers_is_refused_with_both_readings() -> None:
    """Milliseconds by the form, and numbers that look like seconds since 1970."""
    with pytest.raises(UsageError) as caught:
        moments("1708011482", "1708011483", form="Mooncake", unit="ms")
    assert "Mooncake tells milliseconds, but 1708011482 looks like seconds since 1970" in str(caught.value)
    assert "as milliseconds they span 1.00 ms" in str(caught.value)
    assert "as seconds they span 1.00 s" in str(caught.value)
    assert moments("1708011482", form="Mooncake", unit="ms", given="ms") == [1_708_011_482_000_000]


def test_dates_need_no_unit_and_take_none() -> None:
    """Texts and Parquet's own; an option that would change nothing is refused."""
    at = datetime(2024, 5, 12, 0, 0, 1, 500000, tzinfo=timezone.utc)
    assert moments("2024-05-12 00:00:01.5", at, "2024-05-12T02:00:01,5+0200") == [1_715_472_001_500_000_000] * 3
    with pytest.raises(UsageError, match="--trace-time-unit changes nothing"):
        moments("2024-05-12 00:00:01", given="s")


@pytest.mark.parametrize(
    "value", ["yesterday", "-1", "nan", "inf", "1e99", "1" * 25, "", None, True, "2023-13-01 00:00:00"]
)
def test_what_is_no_moment_is_told_with_its_place(value: Any) -> None:
    """Line and column, what was expected and what was found."""
    made = head("5", value)
    clock = find_clock(head("5"), "timestamp", given="s")
    with pytest.raises(UsageError, match=r"^t:3: column timestamp: expected a moment: a number, or a date such as "):
        clock.read(made.records[1])


def test_a_column_without_a_single_moment_is_refused() -> None:
    """Nothing to go by."""
    with pytest.raises(UsageError, match="t:2: column timestamp: expected a moment, found nothing"):
        moments("", None)
