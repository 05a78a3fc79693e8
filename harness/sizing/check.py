"""Whether an entry's model fits a GPU, why not, and what would fit: by its engine's memory law and all its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.catalog.gpus import Gpu
from harness.catalog.models import Model
from harness.catalog.shapes import ModelShape
from harness.engines import engine_of, support_of
from harness.engines.support import Support
from harness.errors import UsageError
from harness.simulator import fit as law_of_memory
from harness.simulator.fit import A_CHAT, LAWS, DoesNotFit, Fits, describe, weights_bytes
from harness.sizing.known import known_shape, shape_of
from harness.sizing.pace import what_cannot_hold
from harness.sizing.remedies import remedies_for
from harness.sizing.tried import Trial
from harness.units import format_bytes, format_count


@dataclass(frozen=True)
class Fit:
    """Whether one model fits one kind of GPU. fits: None where the engine's memory cannot be computed.

    outcome: the sum, None where it is not the memory that decides. remedies: what would fit instead, each tried by the
    same arithmetic. estimate: what the figures rest on, where that is less than measured starts. support: whether the
    engine's release serves the architecture at all. slo: why a bound of the entry's SLO cannot hold on this card.
    """

    name: str
    gpu: Gpu
    gpus: int
    reason: str
    fits: bool | None
    outcome: Fits | DoesNotFit | None
    remedies: tuple[str, ...] = ()
    estimate: str = ""
    support: Support | None = None
    slo: str | None = None

    @property
    def good(self) -> bool:
        """It fits, and nothing says that the engine cannot serve it."""
        return self.fits is True and (self.support is None or self.support.kind != "no")

    @property
    def may_die(self) -> tuple[str, ...]:
        """Why it may end under load although it starts."""
        return self.outcome.may_die if isinstance(self.outcome, Fits) and self.fits else ()

    @property
    def verdict(self) -> Verdict:
        """In a word, what is to be expected of the memory."""
        if self.fits is None:
            return "cannot say"
        if not self.fits:
            return "does not fit"
        return "starts" if self.may_die else "fits"

    @property
    def tokens(self) -> int | None:
        """Of the KV cache; None where it does not start."""
        return self.outcome.tokens if isinstance(self.outcome, Fits) else None

    def as_json(self) -> dict[str, Any]:
        found = self.outcome if isinstance(self.outcome, Fits) else None
        return {
            "name": self.name,
            "gpu": self.gpu.name,
            "gpus": self.gpus,
            "fits": self.fits,
            "verdict": self.verdict,
            "may_die": list(self.may_die),
            "reason": self.reason,
            "max_batch_total_tokens": found.tokens if found else None,
            "max_total_tokens": found.max_total_tokens if found else None,
            "max_batch_prefill_tokens": found.max_batch_prefill_tokens if found else None,
            "gpu_memory_bytes": self.gpu.visible_bytes,
            "memory_bytes": {part.name: part.bytes for part in self.outcome.parts} if self.outcome else {},
            "missing_bytes": self.outcome.missing_bytes if isinstance(self.outcome, DoesNotFit) else 0,
            "remedies": list(self.remedies),
            "estimate": self.estimate or None,
            "slo": self.slo,
            "support": self.support.as_json() if self.support else None,
        }


Verdict = Literal["fits", "starts", "does not fit", "cannot say"]
"""starts: and may end under load, for the reasons in may_die."""

_WORDS: Mapping[Verdict, str] = {
    "fits": "fits",
    "starts": "STARTS",
    "does not fit": "DOES NOT FIT",
    "cannot say": "CANNOT SAY",
}


def check_text(verdicts: Sequence[Fit]) -> str:
    """One line per model; for one that does not fit, or one alone, the sum with its parts."""
    lines = []
    for each in verdicts:
        lines.append(f"{_WORDS[each.verdict]:<12}  {each.name}: {each.reason}")
        if each.support is not None and (len(verdicts) == 1 or each.support.kind == "no"):
            lines.append(f"    {'CANNOT BE SERVED: ' if each.support.kind == 'no' else ''}{each.support.reason}")
        if each.slo is not None:
            lines.append(f"    {each.slo}")
        lines += [f"    may die under load: {reason}" for reason in each.may_die]
        if each.outcome is not None and (len(verdicts) == 1 or not each.fits):
            lines += [f"    {line}" for line in describe(each.outcome).splitlines()]
        if each.outcome is not None and each.estimate:
            lines.append(f"    {each.estimate}; `harness probe` measures it")
        lines += [f"    would fit: {remedy}" for remedy in each.remedies]
        if isinstance(each.outcome, DoesNotFit) and not each.remedies:
            lines.append("    nothing of the GPU sheets would fit it, up to 8 cards: take a smaller checkpoint")
    if any(each.fits for each in verdicts) and not all(each.good for each in verdicts):
        lines.append(_in_all(verdicts))
    return "\n".join(lines)


def _in_all(verdicts: Sequence[Fit]) -> str:
    """The last line, so that it says what the exit code says."""
    lacking = [each.name for each in verdicts if each.fits is False]
    unserved = [each.name for each in verdicts if each.support is not None and each.support.kind == "no"]
    unsaid = [each.name for each in verdicts if each.fits is None]
    groups = (("does not fit", lacking), ("cannot be served by its engine", unserved), ("cannot be said", unsaid))
    return "; ".join(f"{words}: {', '.join(names)}" for words, names in groups if names)


def check(model: Model, gpu: Gpu, *, used_bytes: int = 0) -> Fit:
    """One model on one kind of GPU, by its engine's memory law. used_bytes: of each of these GPUs, by others."""
    engine = engine_of(model)

    def said(reason: str, fits: bool | None, **rest: Any) -> Fit:
        outcome = rest.pop("outcome", None)
        slow = None if shape is None else what_cannot_hold(model, shape, gpu)
        support = support_of(model, shape)
        return Fit(model.name, gpu, model.gpus, reason, fits, outcome, support=support, slo=slow, **rest)

    shape: ModelShape | None = None

    try:
        law = engine.memory_law(model)
    except UsageError as error:  # limits that its engine does not have
        return said(error.found, False)
    if law is None:
        unknown = f"the memory that {engine.title} takes in this form is not known here; `harness probe` finds out"
        return said(unknown, None)
    try:
        shape = shape_of(model)
    except UsageError as error:  # of an architecture that is not known
        if model.is_local or known_shape(model) is not None:
            raise
        return said(f"{error.found}; `harness probe` finds out what it takes", None)
    tried = Trial(shape, gpu, used_bytes)
    estimate = LAWS[law.name].estimate
    refusal = tried.refusal(model, gpu)
    if refusal is not None:
        return said(refusal, False, remedies=remedies_for(model, gpu, tried), estimate=estimate)
    candidate = tried.candidate(model, gpu)
    assert candidate is not None
    try:
        outcome = law_of_memory.start(candidate)
    except UsageError as error:  # shards that do not divide the heads
        return said(error.found, False, remedies=remedies_for(model, gpu, tried), estimate=estimate)
    contradiction = outcome.contradiction if isinstance(outcome, Fits) else None
    fits = isinstance(outcome, Fits) and contradiction is None
    remedies = () if fits else remedies_for(model, gpu, tried, outcome)
    reason = contradiction or _reason(model, gpu, outcome)
    return said(reason, fits, outcome=outcome, remedies=remedies, estimate=estimate)


def _reason(model: Model, gpu: Gpu, outcome: Fits | DoesNotFit) -> str:
    cards, weights = cards_text(gpu, model.gpus), format_bytes(weights_bytes(outcome))
    each = " each" if model.gpus > 1 else ""
    if isinstance(outcome, DoesNotFit):
        return (
            f"on {cards} ({format_bytes(outcome.total_bytes)}{each}) {outcome.doing} lacks "
            f"{format_bytes(outcome.missing_bytes)}; the weights take {weights}{each}"
        )
    return (
        f"on {cards} beside {weights} of weights{each}: a KV cache of {format_count(outcome.tokens)} "
        f"tokens, {_chats(model, outcome)}{f'; {outcome.caution}' if outcome.caution else ''}"
    )


def _chats(model: Model, outcome: Fits) -> str:
    """How long a chat may be, and how many there is room for: no longer than one may be, no more than are let in."""
    longest = outcome.max_total_tokens
    length = min(A_CHAT, longest)
    room = outcome.usable_tokens // length if length else 0
    if outcome.chats is not None and length == A_CHAT:
        room = outcome.chats
    limits = model.limits
    caps = [cap for cap in (limits.max_batch_size, limits.max_concurrent_requests) if cap is not None]
    capped = min([room, *caps])
    many = f"{format_count(capped)} of {format_count(length)}"
    if capped < room:
        many += f" (its limits let no more in; there is room for {format_count(room)})"
    return f"one chat of up to {format_count(longest)} or {many}"


def cards_text(gpu: Gpu, count: int) -> str:
    return gpu.name if count == 1 else f"{count} x {gpu.name}"
