"""Rental prices of GPUs, where nobody gives one; figures, dates and sources are in prices.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml


@dataclass(frozen=True)
class Price:
    """Of one GPU for an hour, on demand, in USD. date: year and month, or `undated`. source: where it was read."""

    usd_per_hour: float
    provider: str
    date: str
    source: str

    @property
    def text(self) -> str:
        """`Modal, 2026-05 (techbytes.app of 2026-05-07)`."""
        return f"{self.provider}, {self.date} ({self.source})"


@cache
def prices() -> dict[str, Price]:
    """By the names of the GPU sheets; cards without a known price are not in it."""
    document = yaml.safe_load(files("harness.catalog").joinpath("prices.yaml").read_text(encoding="utf-8"))
    return {
        name: Price(float(line["usd_per_hour"]), line["provider"], str(line["date"]), line["source"])
        for name, line in document["prices"].items()
    }
