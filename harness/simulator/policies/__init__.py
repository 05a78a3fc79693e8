"""Scheduling policies of vLLM, SGLang and llama.cpp, whose KV cache is a pool in which requests grow.

Each is a state machine with the same verbs as the scheduler of TGI (simulator/scheduler.py): enqueue, next_call,
complete. None reserves an answer's whole length, so each has its own way out when the pool is full: vLLM preempts,
SGLang retracts, llama.cpp ends answers.
"""

from harness.simulator.policies.base import PoolCall, PoolRequest, PoolScheduler
from harness.simulator.policies.llamacpp import LlamaScheduler, LlamaSettings
from harness.simulator.policies.sglang import SglangScheduler, SglangSettings
from harness.simulator.policies.vllm import VllmScheduler, VllmSettings

__all__ = [
    "LlamaScheduler",
    "LlamaSettings",
    "PoolCall",
    "PoolRequest",
    "PoolScheduler",
    "SglangScheduler",
    "SglangSettings",
    "VllmScheduler",
    "VllmSettings",
]
