"""Parses the options about money and size (--for-users, --api-price, ...)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UsageError
from harness.stats.money import ApiPrice, MoneyQuestion
from harness.stats.people import PROFILES


def money_question(
    for_users: float | None = None,
    peak: float = 1.0,
    spare: int = 1,
    api_price: str | None = None,
    price: float | None = None,
    turns: float | None = None,
    sessions_per_hour: float | None = None,
    profile: str | None = None,
) -> MoneyQuestion:
    """api_price: `0.15,0.60`, USD per million prompt and generated tokens. profile: as `day_of` takes it. Raises
    UsageError.
    """
    numbers = (
        (for_users, "--for-users"),
        (peak, "--peak"),
        (price, "--price"),
        (turns, "--turns"),
        (sessions_per_hour, "--sessions-per-hour"),
    )
    for value, option in numbers:
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"expected a number above zero, found {value:g}", where=option)
    api = None if api_price is None else _api(api_price)
    day = None if profile is None else day_of(profile)
    return MoneyQuestion(for_users, peak, spare, api, price, turns, sessions_per_hour, day)


def _api(text: str) -> ApiPrice:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 2 or not all(math.isfinite(each) and each >= 0 for each in values) or not any(values):
        found = f"expected USD per million prompt and generated tokens such as 0.15,0.60, found {text!r}"
        raise UsageError(found, where="--api-price")
    return ApiPrice(*values)


def day_of(profile: str) -> Sequence[float]:
    """A profile of PROFILES by name, or the 24 numbers of a file."""
    if profile in PROFILES:
        return PROFILES[profile]
    path = Path(profile)
    if not path.is_file():
        known = f"Known: {', '.join(PROFILES)}."
        raise UsageError(f"no such profile or file: {profile!r}", where="--profile", advice=known)
    try:
        hours = [float(word) for word in path.read_text(encoding="utf-8").replace(",", " ").split()]
    except (ValueError, UnicodeDecodeError):
        hours = []
    if len(hours) != 24 or min(hours) < 0 or max(hours) <= 0 or not all(map(math.isfinite, hours)):
        raise UsageError("expected 24 numbers, the load of each hour from midnight", where=profile)
    return hours
