"""What the laws of memory say of the faces' usual arguments."""

from __future__ import annotations

from harness.catalog.gpus import find_gpu
from harness.catalog.shapes import shapes
from harness.simulator.laws import Machine, Pool, SglangPlan, VllmPlan, sglang_pool, vllm_pool

_MACHINE = Machine(shapes()["Qwen2.5-0.5B"], find_gpu("L4"))
VLLM = VllmPlan(_MACHINE, 2048)


def vllm_told() -> Pool:
    pool = vllm_pool(VLLM)
    assert isinstance(pool, Pool)
    return pool


def sglang_told() -> Pool:
    pool = sglang_pool(SglangPlan(_MACHINE, 2048))
    assert isinstance(pool, Pool)
    return pool
