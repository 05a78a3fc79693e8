"""Reads llama-server's start-up log: its phase, and the slots that it made.

Texts of b8672 to b11549 (tools/server/server.cpp, server-context.cpp, src/llama-context.cpp, llama-kv-cache.cpp). The
column between the tag and the text names a function that moves from build to build, and is not looked at. At the
default verbosity only the slots are told; with `-lv 4` the size of the cache too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.catalog.limits import Limits
from harness.engines.base import StartLog
from harness.engines.log_rules import apply, number, phase, rules


@dataclass(eq=False)
class LlamaCppLog(StartLog):
    """What the log has said so far; None where it has not.

    slots: their number. slot_tokens: of one request at most, cut to what the model was trained for. unified: the slots
    draw on one cache. cache_tokens: of the whole cache. batch: tokens that one step reads. layers_on_gpu, layers: how
    much of the model is on a GPU. build: of llama.cpp. no_gpu: why it runs on the CPU.
    """

    slots: int | None = None
    slot_tokens: int | None = None
    unified: bool | None = None
    cache_tokens: int | None = None
    batch: int | None = None
    layers_on_gpu: int | None = None
    layers: int | None = None
    build: str | None = None
    no_gpu: str | None = None

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def limits(self) -> Limits:
        pool = None
        if self.slots is not None and self.slot_tokens is not None and self.unified is not None:
            # Of slots that draw on one cache the log may tell no more than what one of them can have.
            pool = self.cache_tokens or self.slot_tokens if self.unified else self.slots * self.slot_tokens
        return Limits(
            max_total_tokens=self.slot_tokens,
            max_batch_prefill_tokens=self.batch,
            max_batch_total_tokens=pool,
            max_batch_size=self.slots,
        )

    def understand(self, line: str) -> None:
        apply(self, line, _RULES)


def _slots(log: LlamaCppLog, match: re.Match[str]) -> None:
    log.slots = int(match[1])
    if match[2] is not None:
        log.slot_tokens, log.unified = int(match[2]), match[3] == "true"
    log.enter("warming up")


def _automatic(log: LlamaCppLog, match: re.Match[str]) -> None:
    log.unified = True


def _unified(log: LlamaCppLog, match: re.Match[str]) -> None:
    log.unified = match[1] == "true"


def _cache(log: LlamaCppLog, match: re.Match[str]) -> None:
    """Cells of each stream; a model with a sliding window has a second, smaller cache."""
    log.cache_tokens = max(log.cache_tokens or 0, int(match[1]) * int(match[2]))


def _layers(log: LlamaCppLog, match: re.Match[str]) -> None:
    log.layers_on_gpu, log.layers = int(match[1]), int(match[2])


def _no_gpu(log: LlamaCppLog, match: re.Match[str]) -> None:
    log.no_gpu = log.no_gpu or match[1] or match[2]


def _build(log: LlamaCppLog, match: re.Match[str]) -> None:
    log.build = match[1]


_RULES = rules(
    (r"build_info: (b\d+)", _build),
    (r": initializing \.\.\.", phase("starting", "fetching the model, where it is not here yet")),
    (r"loading model '", phase("loading")),
    # It goes on without: ggml-cuda.cu, ggml_cuda_init, and common/arg.cpp
    (r"failed to initialize (?:CUDA|ROCm|MUSA): (.+)|compiled without support for (GPU) offload", _no_gpu),
    (r"offloaded (\d+)/(\d+) layers to GPU", _layers),
    (r"n_parallel is set to auto", _automatic),
    (r"\bkv_unified += (true|false)$", _unified),
    (r"\bn_batch += (\d+)$", number("batch")),
    (r"\( *(\d+) cells, +\d+ layers, +\d+/ *(\d+) seqs\)", _cache),
    (r"initializing(?: slots)?, n_slots = (\d+)(?:, n_ctx_slot = (\d+), kv_unified = '(true|false)')?", _slots),
    (r"new slot, n_ctx = (\d+)", number("slot_tokens")),
    (r"listening on http", phase("connected")),
)
