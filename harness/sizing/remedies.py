"""What would make a model fit: other settings on this card, more cards, other cards; each is tried."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from harness.catalog.gpus import Gpu, gpus
from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.engines import engine_of, stored_as
from harness.simulator.fit import DoesNotFit, Fits
from harness.sizing.tried import Trial

_MOST = 3
_SHORTEST = 2048
"""A context below this is not a remedy."""

Alternative = tuple[str, Model, Gpu]


def remedies_for(model: Model, gpu: Gpu, tried: Trial, outcome: Fits | DoesNotFit | None = None) -> tuple[str, ...]:
    """The nearest settings that fit, one of each kind, from the one that changes least."""
    found: list[str] = []
    for kind in _alternatives(model, gpu, tried, outcome.longest if isinstance(outcome, DoesNotFit) else None):
        fitting = (text for text, changed, card in kind if tried.fits(changed, card))
        found += [text for text in (next(fitting, None),) if text is not None]
    return tuple(found[:_MOST])


def _alternatives(model: Model, gpu: Gpu, tried: Trial, longest: int | None) -> Iterator[Iterator[Alternative]]:
    """Kinds of changes, each from small to large. longest: request that fits, where the engine fails at that."""
    if longest is not None and longest > _SHORTEST:
        most = longest // 1024 * 1024
        shorter = dataclasses.replace(model.limits, max_total_tokens=most)
        yield iter([(f"limits: {{max_total_tokens: {most}}}", dataclasses.replace(model, limits=shorter), gpu)])
    yield iter(_other_settings(model, gpu))
    if stored_as(model, tried.shape) is None:
        yield _lighter(model, gpu)
    counts = (1, 2, 4, 8) if model.gpus not in (1, 2, 4, 8) else tuple(n for n in (2, 4, 8) if n > model.gpus)
    yield ((f"gpus: {count}", dataclasses.replace(model, gpus=count), gpu) for count in counts)
    larger = [card for card in gpus().values() if card.visible_bytes > gpu.visible_bytes and _is_offered(card, gpu)]
    more = f", gpus: {model.gpus}" if model.gpus > 1 else ""
    larger.sort(key=lambda card: (card.visible_bytes, card.price_per_hour or 0))
    yield ((f"gpu: {card.name}{more}", model, card) for card in larger)
    yield (
        (f"gpu: {card.name}, gpus: {count}", dataclasses.replace(model, gpus=count), card)
        for card in larger
        for count in counts
    )


def _is_offered(card: Gpu, instead_of: Gpu) -> bool:
    """A card that can be rented, of the same maker."""
    return card.price_per_hour is not None and (card.compute_capability == (0, 0)) == (
        instead_of.compute_capability == (0, 0)
    )


def _other_settings(model: Model, gpu: Gpu) -> Iterator[Alternative]:
    if model.dtype == "bfloat16":
        yield "dtype: float16", dataclasses.replace(model, dtype="float16"), gpu
    if model.kv_cache_dtype is not None:
        yield "without kv_cache_dtype", dataclasses.replace(model, kv_cache_dtype=None), gpu
    if model.limits != Limits():
        yield "without its limits", dataclasses.replace(model, limits=Limits()), gpu


def _lighter(model: Model, gpu: Gpu) -> Iterator[Alternative]:
    """Quantised on loading; then also with a bounded context, for engines that ask for room for the whole one."""
    law = engine_of(model).memory_law(model)
    methods = law.lighter if law is not None else ()
    for method in methods:
        yield f"quantize: {method}", dataclasses.replace(model, quantize=method, dtype=None), gpu
    for method in methods:
        for tokens in (32768, 8192):
            limits = dataclasses.replace(model.limits, max_total_tokens=tokens)
            changed = dataclasses.replace(model, quantize=method, dtype=None, limits=limits)
            yield f"quantize: {method}, limits: {{max_total_tokens: {tokens}}}", changed, gpu
