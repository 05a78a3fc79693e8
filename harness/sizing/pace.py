"""Whether an SLO's bound on the gap between tokens can be met on a card at all: by the cost model, for a single chat"""

from __future__ import annotations

from harness.catalog.gpus import Gpu
from harness.catalog.models import Model
from harness.catalog.shapes import ModelShape
from harness.engines import engine_of, stored_as
from harness.simulator.cost import CostModel, StepShape, engine_host
from harness.simulator.fit import A_CHAT

_GRAPHS = (1, 2, 4, 8, 16, 32)


def seconds_per_token(model: Model, shape: ModelShape, gpu: Gpu) -> float:
    """One decode step of a single chat with A_CHAT tokens behind it; under load a step takes longer."""
    host = engine_host(engine_of(model).name, _GRAPHS)
    cost = CostModel(
        shape,
        gpu,
        host,
        shards=model.gpus,
        quantize=stored_as(model, shape),
        dtype=model.dtype,
        kv_cache_dtype=model.kv_cache_dtype,
    )
    return cost.split(StepShape((), 1, A_CHAT)).total


def what_cannot_hold(model: Model, shape: ModelShape, gpu: Gpu) -> str | None:
    """Why a bound of the entry's SLO cannot hold even for one chat alone; None where nothing says so."""
    fastest = seconds_per_token(model, shape, gpu)
    bounds = {name: bound for name, bound in model.slo.as_dict().items() if name.startswith(("itl_", "tpot_"))}
    broken = [f"{name}={bound * 1000:.0f}ms" for name, bound in bounds.items() if bound < fastest]
    if not broken:
        return None
    card = gpu.name if model.gpus == 1 else f"{model.gpus} x {gpu.name}"
    return f"{', '.join(broken)} cannot hold: one chat alone gets a token every {fastest * 1000:.0f} ms on {card}"
