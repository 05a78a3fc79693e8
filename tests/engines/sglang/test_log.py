"""SGLang's start-up log in the forms of two releases; logs/ holds their lines with values of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.engines.sglang.log import SglangLog

LOGS = Path(__file__).parent / "logs"
RELEASES = ("0.5.23", "0.4.6")


def read(release: str) -> SglangLog:
    log = SglangLog()
    log.feed_all((LOGS / f"{release}.log").read_text(encoding="utf-8").splitlines())
    return log


@pytest.mark.parametrize(
    ("release", "pool", "step", "longest"), [("0.5.23", 60007, 2048, 32767), ("0.4.6", 12001, None, 12000)]
)
def test_log_tells_the_limits(release: str, pool: int, step: int | None, longest: int) -> None:
    """One line has them all: a request is one token less than the context or the pool, and -1 is no chunking."""
    log = read(release)
    assert (log.pool, log.step, log.rows, log.context) == (pool, step, 2048, 32768)
    assert (log.limits.max_total_tokens, log.limits.max_batch_total_tokens) == (longest, pool)
    assert log.limits.max_batch_prefill_tokens == step


@pytest.mark.parametrize("release", RELEASES)
def test_phases_come_in_order(release: str) -> None:
    """Every phase is entered once, from the download to SGLang's own last word."""
    log, seen = SglangLog(), []
    for line in (LOGS / f"{release}.log").read_text(encoding="utf-8").splitlines():
        if log.feed(line) and (not seen or seen[-1] != log.phase):
            seen.append(log.phase)
    assert seen == ["downloading", "loading", "warming up", "connected"]


def test_progress_is_told() -> None:
    """What a phase is at: files of the checkpoint, the KV cache, graphs."""
    log, told = SglangLog(), []
    for line in (LOGS / "0.5.23.log").read_text(encoding="utf-8").splitlines():
        if log.feed(line):
            told.append(f"{log.phase}: {log.detail}")
    assert "loading: file 1 of 2" in told
    assert "warming up: KV cache of 60,007 tokens" in told
    assert "warming up: capturing CUDA graphs" in told
