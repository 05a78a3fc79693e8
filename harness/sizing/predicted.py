"""Compares the limits predicted before a start with those the start told: a wrong shape shows at the first start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.catalog.gpus import find_gpu
from harness.catalog.models import Model
from harness.errors import HarnessError
from harness.simulator.fit import Fits
from harness.sizing.check import Fit, check
from harness.sizing.known import known_shape
from harness.units import format_count

BUDGET = "max_batch_total_tokens"
SUSPICIOUS = 0.15
"""A budget that is off by more than this points at the entry (shape, dtype, GPU), not at the sum's own error."""


@dataclass(frozen=True)
class LimitComparison:
    """One limit, in tokens. off_by: how far the found one is off, as a share of the predicted; -0.1: a tenth less."""

    name: str
    predicted: int
    found: int

    @property
    def off_by(self) -> float:
        return self.found / self.predicted - 1

    def as_json(self) -> dict[str, Any]:
        return {"predicted": self.predicted, "found": self.found, "off_by": round(self.off_by, 4)}

    def text(self) -> str:
        """`predicted 80,000, 2.5 % less`."""
        if abs(self.off_by) < 0.0005:
            return f"predicted {format_count(self.predicted)}"
        return (
            f"predicted {format_count(self.predicted)}, {abs(self.off_by):.1%} {'more' if self.off_by > 0 else 'less'}"
        )


def predict(model: Model, gpu: str | None = None) -> dict[str, int]:
    """The budget that a start of this entry would tell, by name of the limit. Empty where it is not known.

    gpu: the card that it gets, where the entry names none. Nobody is asked.
    """
    fit = _fit(model, gpu)
    return {BUDGET: fit.outcome.tokens} if fit is not None and isinstance(fit.outcome, Fits) else {}


def may_die(model: Model, gpu: str | None = None) -> tuple[str, ...]:
    """Why it may end under load although it starts, by the same sum."""
    fit = _fit(model, gpu)
    return () if fit is None else fit.may_die


def _fit(model: Model, gpu: str | None) -> Fit | None:
    name = gpu or model.gpu
    try:
        if name is None or known_shape(model) is None:
            return None
        return check(model, find_gpu(name))
    except HarnessError:  # a card or a configuration that is not known
        return None


def compare(predicted: Mapping[str, int], found: Mapping[str, Any]) -> list[LimitComparison]:
    """The limits that both have."""
    pairs = ((name, value, found.get(name)) for name, value in predicted.items() if value > 0)
    return [LimitComparison(name, value, told) for name, value, told in pairs if isinstance(told, int) and told > 0]


def suspicion(compared: list[LimitComparison], where: str) -> str | None:
    """What a difference points at; None where the sum's own error explains it."""
    far = [each for each in compared if abs(each.off_by) > SUSPICIOUS]
    if not far:
        return None
    return (
        f"{where}: the KV cache has {format_count(far[0].found)} tokens, {far[0].text()}: shape, dtype or GPU in its"
        " entry may be wrong"
    )
