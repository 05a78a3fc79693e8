"""Memory laws of vLLM, SGLang and llama.cpp: how large the KV cache becomes, or why the engine does not start.

One module per engine; each reads its own settings and gives a Pool or a DoesNotStart. TGI's law is simulator/memory.py.
"""

from harness.simulator.laws.llamacpp import LlamaPlan, llama_pool
from harness.simulator.laws.pool import DoesNotStart, Machine, Pool
from harness.simulator.laws.sglang import SglangPlan, sglang_pool
from harness.simulator.laws.vllm import VllmPlan, vllm_pool

__all__ = [
    "DoesNotStart",
    "LlamaPlan",
    "Machine",
    "Pool",
    "SglangPlan",
    "VllmPlan",
    "llama_pool",
    "sglang_pool",
    "vllm_pool",
]
