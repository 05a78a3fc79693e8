"""vLLM's start-up log in the forms of several releases; logs/ holds their lines with values of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.engines.vllm.log import VllmLog

LOGS = Path(__file__).parent / "logs"
RELEASES = ("0.32.0", "0.21.0", "0.10.1")


def read(release: str) -> VllmLog:
    log = VllmLog()
    log.feed_all((LOGS / f"{release}.log").read_text(encoding="utf-8").splitlines())
    return log


@pytest.mark.parametrize(
    ("release", "told", "pool", "longest", "step"),
    [
        ("0.32.0", "0.32.0", 98288, 6000, 2048),
        ("0.21.0", "0.21.0", 155648, 8192, 8192),
        ("0.10.1", "0.10.1.1", 98304, 4096, 2048),
    ],
)
def test_log_tells_the_limits(release: str, told: str, pool: int, longest: int, step: int) -> None:
    """The size of the KV cache, the longest request and the step's budget, whether on one line or on two."""
    log = read(release)
    assert (log.version, log.kv_tokens, log.max_model_len, log.max_num_batched_tokens) == (told, pool, longest, step)
    assert log.limits.max_batch_total_tokens == pool
    assert log.device == "GPU"


@pytest.mark.parametrize("release", RELEASES)
def test_phases_come_in_order(release: str) -> None:
    """Every phase is entered once, from the download to the last word, which is uvicorn's."""
    log, seen = VllmLog(), []
    for line in (LOGS / f"{release}.log").read_text(encoding="utf-8").splitlines():
        if log.feed(line) and (not seen or seen[-1] != log.phase):
            seen.append(log.phase)
    assert seen == ["downloading", "loading", "warming up", "connected"]


def test_progress_is_told() -> None:
    """What a phase is at: files of the checkpoint, what is left for the KV cache, graphs."""
    log, told = VllmLog(), []
    for line in (LOGS / "0.32.0.log").read_text(encoding="utf-8").splitlines():
        if log.feed(line):
            told.append(f"{log.phase}: {log.detail}")
    assert "loading: file 1 of 2" in told
    assert "warming up: 12.75 GiB for the KV cache" in told
    assert "warming up: capturing CUDA graphs, 40%" in told


def test_arguments_are_read_where_they_are_literals() -> None:
    """The dictionary of arguments is Python's; one that holds more than literals is left alone."""
    assert read("0.21.0").given["max_num_seqs"] == 96
    assert read("0.10.1").given == {}


@pytest.mark.parametrize(
    ("line", "longest"),
    [
        ("INFO [x] Auto-fit max_model_len: reduced from 131072 to 60288 to fit in available KV cache memory", 60288),
        ("INFO [x] Auto-fit max_model_len: full model context length 32768 fits in available KV cache memory", 32768),
    ],
)
def test_length_that_the_engine_fitted(line: str, longest: int) -> None:
    """With `--max-model-len auto` the last word about the length is what fits."""
    log = VllmLog()
    log.feed("INFO [x] Using max model len 131072")
    log.feed(line)
    assert log.max_model_len == longest
