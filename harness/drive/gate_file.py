"""A gate's file: `default: 10%`, `limits: {ttft_p95: 15%, itl: 5%}`, `inconclusive: pass`, and `accepted:`, regressions
that are known and let pass until a day.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.input_files import brief, read_yaml
from harness.stats.gate import DEFAULT_LIMIT, Accepted, Gate
from harness.stats.good_share import GOOD_SHARE
from harness.stats.metrics import METRICS
from harness.stats.run_figure import THROUGHPUT
from harness.stats.slo import QUANTILES
from harness.units import format_percent

_KEYS = ("limits", "default", "inconclusive", "accepted")
_ENTRY_KEYS = ("figure", "load", "limit", "reason", "until")
_ENTRY = "{figure: ttft_p50, limit: 25%, reason: TEXT, until: YYYY-MM-DD}"


def read_gate(path: Path | None) -> Gate:
    """The gate of a file; None: the default one. Raises UsageError."""
    if path is None:
        return Gate()
    document = read_yaml(path) or {}
    if not isinstance(document, dict) or not isinstance(document.get("limits", {}), dict):
        raise UsageError("expected `limits:` with figures and shares, such as ttft_p95: 10%", where=str(path))
    for key in document:
        _require_known(str(key), _KEYS, path)
    for name in document.get("limits", {}):
        _require_known(str(name), _figure_names(), path)
    plain = Gate(
        limits={str(name): _share(value, path, str(name)) for name, value in document.get("limits", {}).items()},
        default=_share(document.get("default", DEFAULT_LIMIT), path, "default"),
        undecided_passes=_undecided_passes(document, path),
    )
    found = document.get("accepted") or []
    if not isinstance(found, list):
        raise UsageError(f"accepted: expected a list, found {brief(repr(found))}", where=str(path))
    accepted = tuple(_accepted(each, path, plain) for each in found)
    return dataclasses.replace(plain, accepted=accepted, today=today())


def today() -> date:
    """By which accepted regressions end."""
    return datetime.now(timezone.utc).date()


def _accepted(found: object, path: Path, gate: Gate) -> Accepted:
    """One entry of `accepted:`. Nothing is accepted without a reason, or for ever."""
    if not isinstance(found, dict):
        raise UsageError(f"accepted: expected {_ENTRY}, found {brief(repr(found))}", where=str(path))
    for key in found:
        _require_known(str(key), _ENTRY_KEYS, path)
    figure, reason, until = str(found.get("figure", "")), str(found.get("reason") or "").strip(), found.get("until")
    for key in ("figure", "limit", "reason", "until"):
        if not found.get(key) or not (key != "reason" or reason):
            raise UsageError(
                f"accepted: {figure or 'an entry'} has no {key}", where=str(path), advice=f"Give {_ENTRY}."
            )
    _require_known(figure, _figure_names(), path)
    if type(until) is not date:
        raise UsageError(f"accepted: until: expected YYYY-MM-DD, found {brief(repr(until))}", where=str(path))
    limit = _share(found["limit"], path, f"accepted: {figure}")
    if limit <= gate.limit(figure):
        least = format_percent(gate.limit(figure))
        raise UsageError(f"accepted: {figure}: the gate's own limit is {least}", where=str(path), advice="Accept more.")
    return Accepted(figure, limit, reason, until, str(found["load"]) if found.get("load") else None)


def _undecided_passes(document: Mapping[str, Any], path: Path) -> bool:
    found = document.get("inconclusive", "fail")
    if found not in ("pass", "fail"):
        raise UsageError(f"inconclusive: expected pass or fail, found {brief(repr(found))}", where=str(path))
    return bool(found == "pass")


def _require_known(name: str, known: Sequence[str], path: Path) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
        raise UsageError(f"unknown key '{brief(name)}'", where=str(path), advice=advice)


def _figure_names() -> list[str]:
    metrics = [metric.name for metric in METRICS]
    return [*metrics, *(f"{name}_{statistic}" for name in metrics for statistic in QUANTILES), THROUGHPUT, GOOD_SHARE]


def _share(value: object, path: Path, key: str) -> float:
    """`10%` or 0.1."""
    text = str(value).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    ambiguous = not str(value).strip().endswith("%") and share >= 1  # 5 is meant as 5 %, and would allow 500 %
    if isinstance(value, bool) or ambiguous or not 0 <= share < 100:
        raise UsageError(f"{key}: expected a share such as 10% or 0.1, found {brief(repr(value))}", where=str(path))
    return share
