"""A large run, made up, and what its report takes: time and memory of `harness report` in a process of its own.

python -m tests.overhead.bench_report [REQUESTS [TOKENS]]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from harness.measure.record import STATUSES
from harness.measure.records import COMPLETED, MISSING, Records, write_parquet
from harness.measure.run_folder import Level, Manifest, RunFolder, write_manifest

REQUESTS, TOKENS, LEVELS = 100_000, 200, 4
MOST_SECONDS, MOST_BYTES = 12.0, 1.5 * 2**30


def made_up(requests: int, tokens: int) -> Records:
    """Requests of LEVELS levels of ten minutes each, whose tokens come one by one; drawn as whole columns."""
    random = np.random.default_rng(1)
    each = requests // LEVELS
    level = np.repeat(np.arange(LEVELS), each)
    count = len(level)
    due = level * 700.0 + np.tile(np.sort(random.uniform(0, 600, each)), LEVELS)
    gaps = random.lognormal(np.log(0.04), 0.3, count * tokens)
    gaps[::tokens] = random.lognormal(np.log(0.4), 0.4, count)
    at = np.cumsum(gaps.reshape(count, tokens), axis=1) + due[:, None]
    nobody, whole = np.full(count, None), np.full(count, MISSING)
    return Records(
        request_id=np.array([f"{number:08x}-0000-4000-8000-000000000000" for number in range(count)], dtype=object),
        level=level,
        scheduled_at=due,
        sent_at=due + 0.0005,
        first_byte_at=due + 0.002,
        token_at=at.ravel(),
        token_count=np.ones(count * tokens, dtype=np.int32),
        offsets=np.arange(count + 1, dtype=np.int64) * tokens,
        finished_at=at[:, -1] + 0.001,
        input_tokens=random.integers(100, 900, count),
        output_tokens=np.full(count, tokens),
        finish_reason=np.full(count, "length", dtype=object),
        status=np.full(count, COMPLETED, dtype=np.int8),
        error_kind=nobody,
        session_id=nobody,
        turn=whole,
        http_status=np.full(count, 200),
        asked_input_tokens=whole,
        asked_output_tokens=np.full(count, tokens),
        history_tokens=whole,
        glued_events=np.zeros(count, dtype=np.int64),
        queue_time=np.full(count, np.nan),
        count_told=np.full(count, "per_event", dtype=object),
        first_share=np.full(count, np.nan),
        notes=nobody,
        error_message=nobody,
    )


def make_run(folder: RunFolder, requests: int, tokens: int) -> None:
    levels = tuple(
        Level(number, users=100 * (number + 1), duration=600.0, warmup=30.0, started_at=700.0 * number,
              sending_ended_at=700.0 * number + 600, ended_at=700.0 * number + 620, ended_by="duration")
        for number in range(LEVELS)
    )  # fmt: skip
    write_parquet(made_up(requests, tokens), folder.records)
    write_manifest(
        folder,
        Manifest(
            run_id=folder.run_id, harness_version="0", command=("made", "up"), model="made up", engine="tgi 3.3.7",
            emulated=True, start="2025-01-31T12:00:00.000000Z", end="2025-01-31T13:00:00.000000Z",
            clock={"monotonic": 0.0, "utc": "2025-01-31T12:00:00.000000Z"}, workload={"name": "made up"},
            levels=levels, api="tgi", slo={"ttft_p95": 1.0, "itl_p95": 0.08},
        ),
    )  # fmt: skip


def main(requests: int = REQUESTS, tokens: int = TOKENS) -> int:
    assert STATUSES[COMPLETED] == "completed"
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "run")
        folder.path.mkdir()
        make_run(folder, requests, tokens)
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "harness", "report", str(folder.path)], check=True, stdout=sys.stderr)
        took = time.monotonic() - began
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
    events, processor = requests * tokens, used.ru_utime + used.ru_stime
    print(f"{requests} requests, {events} token events: {took:.1f} s ({processor:.1f} s CPU), {memory / 2**30:.2f} GiB")
    whole = requests >= REQUESTS and tokens >= TOKENS
    return int(whole and (took > MOST_SECONDS or memory > MOST_BYTES))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
