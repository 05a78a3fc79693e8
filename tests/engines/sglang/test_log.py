"""SGLang's start-up log in the forms of several releases; logs/ holds their lines with values of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.engines.sglang.log import SglangLog

LOGS = Path(__file__).parent / "logs"
RELEASES = ("0.5.23", "0.5.3", "0.4.6")


def read(release: str) -> SglangLog:
    log = SglangLog()
    log.feed_all((LOGS / f"{release}.log").read_text(encoding="utf-8").splitlines())
    return log


@pytest.mark.parametrize(
    ("release", "pool", "step", "rows", "context", "longest"),
    [
        ("0.5.23", 92345, 4096, 2048, 6002, 6000),
        ("0.5.3", 150000, None, 64, 8192, 8190),  # prompts in one piece
        ("0.4.6", 5000, 2048, 2048, 8192, 4998),  # a pool that is smaller than the context
    ],
)
def test_one_line_tells_all_limits(
    release: str, pool: int, step: int | None, rows: int, context: int, longest: int
) -> None:
    """Pool, chunk, running requests and context, and what follows for one request."""
    log = read(release)
    assert (log.pool, log.step, log.rows, log.context, log.longest) == (pool, step, rows, context, longest)
    assert log.limits.max_batch_total_tokens == pool


@pytest.mark.parametrize("release", RELEASES)
def test_phases_come_in_order(release: str) -> None:
    """Every phase is entered once, with and without the rank's name, to the last word."""
    log, seen = SglangLog(), []
    for line in (LOGS / f"{release}.log").read_text(encoding="utf-8").splitlines():
        if log.feed(line) and (not seen or seen[-1] != log.phase):
            seen.append(log.phase)
    assert seen == ["downloading", "loading", "warming up", "connected"]


def test_progress_is_told() -> None:
    """What a phase is at."""
    log, told = SglangLog(), []
    for release in ("0.5.23", "0.5.3"):
        log = SglangLog()
        for line in (LOGS / f"{release}.log").read_text(encoding="utf-8").splitlines():
            if log.feed(line):
                told.append(f"{log.phase}: {log.detail}")
    assert told.count("loading: file 1 of 2") == 2
    assert "warming up: KV cache of 92,345 tokens" in told
    assert told.count("warming up: capturing CUDA graphs") == 2
