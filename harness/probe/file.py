"""Reads probe.json, for reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.input_files import as_type, read_json_object, require_finite
from harness.probe.batching import BatchPoint
from harness.probe.card import Cell

NAME = "probe.json"


@dataclass(frozen=True)
class MeasuredBatch:
    """As BatchPoint, with the words of the file."""

    history_tokens: int
    chats: int
    ttft_p95: float | None = None
    itl_p95: float | None = None
    output_tokens_per_second: float | None = None

    @property
    def point(self) -> BatchPoint:
        return BatchPoint(self.history_tokens, self.chats, self.ttft_p95, self.itl_p95, self.output_tokens_per_second)


@dataclass(frozen=True)
class CheckFound:
    """One check of the proof."""

    name: str
    ran: bool
    held: bool
    why: str | None = None


@dataclass(frozen=True)
class ProbeFile:
    """What docs/probe.md says of the fields; document: all of it."""

    model: str
    engine: str
    emulated: bool
    starts: int
    limits: dict[str, int | float | None]
    verified_under_load: bool
    recommended_flags: dict[str, Any]
    document: dict[str, Any]
    image: str | None = None
    gpu: str | None = None
    goal: str | None = None
    source: dict[str, Any] = field(default_factory=dict)
    boundary: dict[str, dict[str, int | float | str | None] | None] = field(default_factory=dict)
    reasons: dict[str, Any] = field(default_factory=dict)
    checks: list[CheckFound] = field(default_factory=list)
    capacity: list[Cell] = field(default_factory=list)
    batch: list[MeasuredBatch] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def read_probe(folder: Path) -> ProbeFile:
    """Raises UsageError."""
    document = read_json_object(folder / NAME)
    require_finite(document, folder / NAME)
    return as_type(ProbeFile, {**document, "document": document}, folder / NAME)
