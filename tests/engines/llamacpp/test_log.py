"""The start-up log of llama-server in the forms of its builds; sizes and names are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.catalog.limits import Limits
from harness.engines.llamacpp.log import LlamaCppLog

LOGS = Path(__file__).parent / "logs"
# At the default verbosity; b9538 is from before the slots' line told their sizes.
B11549 = (LOGS / "b11549.log").read_text()
B9538 = (LOGS / "b9538.log").read_text()
# With -lv 4, of a model with a sliding window, one cache for all slots.
DETAILED = (LOGS / "detailed.log").read_text()


def read(text: str) -> LlamaCppLog:
    log = LlamaCppLog()
    log.feed_all(text.splitlines())
    return log


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (B11549, Limits(max_total_tokens=5120, max_batch_total_tokens=30720, max_batch_size=6)),
        (B9538, Limits(max_total_tokens=7168, max_batch_total_tokens=7168, max_batch_size=4)),
        (
            DETAILED,
            Limits(
                max_total_tokens=16384,
                max_batch_prefill_tokens=1024,
                max_batch_total_tokens=24576,
                max_batch_size=4,
            ),
        ),
    ],
)
def test_limits(text: str, limits: Limits) -> None:
    """Slots, their share, and what all have together, as far as each form tells it."""
    assert read(text).limits == limits


def test_slots_that_are_split_have_as_many_caches() -> None:
    """The cells are those of one stream."""
    line = "llama_kv_cache: size = 4.00 MiB (  1536 cells,   2 layers,  3/3 seqs), K (f16): 2.00 MiB, V (f16): 2.00 MiB"
    assert read(line).cache_tokens == 4608


@pytest.mark.parametrize(
    ("text", "phases"),
    [
        (B11549, ["starting", "loading", "warming up", "connected"]),
        (B9538, ["loading", "warming up", "connected"]),
    ],
)
def test_phases_in_order(text: str, phases: list[str]) -> None:
    """Each is entered once; before the model is loaded it may be fetched, which no line tells."""
    log, seen = LlamaCppLog(), []
    for line in text.splitlines():
        if log.feed(line) and (not seen or seen[-1] != log.phase):
            seen.append(log.phase)
    assert seen == phases
    assert "fetching" in read(B11549.partition("\n")[0]).detail


def test_column_of_the_function_does_not_matter() -> None:
    """It is another in a build of one's own."""
    assert read(B11549.replace("llama_server", "        init")).limits == read(B11549).limits


def test_build_and_layers() -> None:
    """Of a release; a model may be on the GPU in part."""
    assert read(B11549).build == "b11549"
    assert (read(DETAILED).layers_on_gpu, read(DETAILED).layers) == (25, 29)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected", "no CUDA-capable"),
        ("warning: llama.cpp was compiled without support for GPU offload. Setting the split mode", "GPU"),
    ],
)
def test_serving_without_the_gpu_is_noticed(line: str, why: str) -> None:
    """llama.cpp goes on without a word of failure."""
    noted = read(line).no_gpu
    assert noted is not None
    assert noted.startswith(why)
    assert read(B11549).no_gpu is None
