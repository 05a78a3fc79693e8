"""What is expected before the first start, from the catalogue, the model's shape and the GPU's data sheet."""

from __future__ import annotations

from dataclasses import replace

from harness.catalog.gpus import find_gpu
from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.shapes import ModelShape, find_shape, kv_bytes_per_token
from harness.engines import engine_of, stored_as
from harness.errors import UsageError
from harness.probe.setting import Prior
from harness.simulator import fit, memory


def expect(model: Model, version: tuple[int, int, int], own: ModelShape | None = None) -> Prior:
    """As much as the entry and the built-in sheets tell; a model or GPU that is not known leaves fields at None.

    own: the shape by the model's own files. A directory without one is not known: what it is called says nothing.

    The expectation only chooses where the search begins; no result rests on it.
    """
    shape = own or model.shape or (None if model.is_local else find_shape(model.repo))
    context = model.context_length or (shape.context if shape else None)
    if shape is None or model.gpu is None:
        return Prior(context=context, version=version)
    gpu = find_gpu(model.gpu)
    kv_bytes = kv_bytes_per_token(shape, model.kv_cache_dtype, max(1, model.gpus), model.dtype)
    return Prior(
        context=context,
        budget=_budget(model, shape),
        kv_bytes=float(kv_bytes),
        memory_bytes=gpu.memory_bytes,
        prefill_share=memory.activation_bytes_per_token(shape, model.dtype, max(1, model.gpus)) / kv_bytes,
        version=version,
    )


def _budget(model: Model, shape: ModelShape) -> int | None:
    """By the engine's memory law, without the entry's limits: they are what is looked for."""
    assert model.gpu is not None
    law = engine_of(model).memory_law(replace(model, limits=Limits(), env={}))
    if law is None:
        return None
    candidate = fit.Candidate(
        law=law.name,
        shape=shape,
        gpu=find_gpu(model.gpu),
        shards=max(1, model.gpus),
        dtype=model.dtype,
        quantize=stored_as(model),
        kv_cache_dtype=model.kv_cache_dtype,
        options=law.options,
    )
    try:
        outcome = fit.start(candidate)
    except UsageError:  # shards that do not divide the heads: the engine itself will say so
        return None
    return outcome.tokens if isinstance(outcome, fit.Fits) else None
