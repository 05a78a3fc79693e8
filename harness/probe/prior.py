"""What is expected before the first start: from the catalogue, the model's shape and the GPU's data sheet."""

from __future__ import annotations

from harness.catalog.gpus import find_gpu
from harness.catalog.models import Model
from harness.catalog.shapes import ModelShape, find_shape, kv_bytes_per_token
from harness.errors import UsageError
from harness.probe.setting import Prior
from harness.simulator import memory


def expect(model: Model, version: tuple[int, int, int]) -> Prior:
    """As much as the entry and the built-in sheets tell; a model or GPU that is not known leaves fields at None.

    The expectation only chooses where the search begins; no result rests on it.
    """
    shape = model.shape or find_shape(model.repo)
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
    assert model.gpu is not None
    plan = memory.ServingPlan(
        shape=shape,
        gpu=find_gpu(model.gpu),
        shards=max(1, model.gpus),
        version=model.engine.version,
        dtype=model.dtype,
        quantize=model.quantize,
        kv_cache_dtype=model.kv_cache_dtype,
    )
    try:
        outcome = memory.budget(plan)
    except UsageError:  # shards that do not divide the heads: the engine itself will say so
        return None
    return outcome.tokens if isinstance(outcome, memory.Budget) else None
