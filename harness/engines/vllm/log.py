"""Reads vLLM's start-up log: its phase, and what it chose.

Texts of 0.10 to 0.32 (vllm/v1/engine/core.py, v1/worker, v1/core/kv_cache_utils.py, config/model.py,
config/scheduler.py, entrypoints). Every line begins with the process it is of: `(EngineCore pid=9) INFO 11-30 ...`.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Any

from harness.catalog.limits import Limits
from harness.engines.base import StartLog
from harness.engines.log_rules import Act, apply, number, phase, rules


@dataclass(eq=False)
class VllmLog(StartLog):
    """What the log has said so far.

    kv_tokens: the KV cache as it is told, its reserved block counted in. max_model_len, max_num_batched_tokens: in
    force. given: arguments that differ from vLLM's defaults, under its own names. device: of the KV cache, such as GPU.
    """

    version: str | None = None
    kv_tokens: int | None = None
    max_model_len: int | None = None
    max_num_batched_tokens: int | None = None
    device: str | None = None
    given: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def limits(self) -> Limits:
        return Limits(
            max_total_tokens=self.max_model_len,
            max_batch_prefill_tokens=self.max_num_batched_tokens,
            max_batch_total_tokens=self.kv_tokens,
        )

    def understand(self, line: str) -> None:
        apply(self, line, _RULES)


def _kv(log: VllmLog, match: re.Match[str]) -> None:
    log.device, log.kv_tokens = match[1], int(match[2].replace(",", ""))
    log.enter("warming up", f"KV cache of {match[2]} tokens")


def _given(log: VllmLog, match: re.Match[str]) -> None:
    """A Python dictionary; one with values that are not literals is left alone."""
    try:
        found = ast.literal_eval(match[1])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return
    log.given = found if isinstance(found, dict) else {}


def _version(log: VllmLog, match: re.Match[str]) -> None:
    log.version = match[1]


_loading: Act = phase("loading")
_RULES = rules(
    (r"([A-Z][A-Za-z+ ]*) KV cache size: ([\d,]+) tokens", _kv),
    (r"Using max model len (\d+)", number("max_model_len")),
    (r"Auto-fit max_model_len: (?:reduced from \d+ to|full model context length) (\d+)", number("max_model_len")),
    (r"Chunked prefill is enabled with max_num_batched_tokens=(\d+)", number("max_num_batched_tokens")),
    (r"non-default args: (\{.*\})\s*$", _given),
    (r"vLLM (?:API )?server version (\S+?),?(?:\s|$)", _version),
    (r"Initializing a V1 LLM engine \(v(\S+?)\)", _version),
    # No line says what is fetched, nor whether anything is: files of the cache are only looked through.
    (r"Starting to load model|Loading model from scratch", phase("downloading", "weights that are not in the cache")),
    (r"Time spent downloading weights for", _loading),
    (r"Loading \S+ checkpoint shards:\s+\S+ Completed \| (\d+)/(\d+)", phase("loading", r"file \1 of \2")),
    (r"Checkpoint size: ([\d.]+ [KMGT]iB)", phase("loading", r"\1")),
    (r"Loading weights took", _loading),
    (r"Model loading took ([\d.]+) GiB", phase("warming up", r"\1 GiB of weights are loaded")),
    (r"torch\.compile took|Dynamo bytecode transform", phase("warming up", "compiling")),
    (r"Available KV cache memory: ([\d.]+) GiB", phase("warming up", r"\1 GiB for the KV cache")),
    (r"Capturing CUDA graphs[^:]*:\s+(\d+%)", phase("warming up", r"capturing CUDA graphs, \1")),
    (r"Graph capturing finished", phase("warming up", "CUDA graphs are captured")),
    (r"Application startup complete", phase("connected")),
)
