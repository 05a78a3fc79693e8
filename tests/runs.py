"""Made-up runs whose figures are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.measure.arrivals import POISSON
from harness.measure.record import RequestRecord
from harness.measure.run_folder import Level, Manifest


def ticking(
    number: int,
    due: float,
    *,
    level: int = 0,
    first: float = 0.2,
    gap: float = 0.02,
    tokens: int = 11,
    lag: float = 0.0,
    **changes: Any,
) -> RequestRecord:
    """A completed request whose first token comes `first` seconds after it was due and every other `gap` later."""
    token_at = [due + first + gap * each for each in range(tokens)]
    record = RequestRecord(
        request_id=f"{level}-{number}",
        level=level,
        scheduled_at=due,
        status="completed",
        sent_at=due + lag,
        first_byte_at=due + first,
        token_at=token_at,
        token_count=[1] * tokens,
        finished_at=token_at[-1] if token_at else due + first,
        input_tokens=100,
        output_tokens=tokens,
        finish_reason="length",
        http_status=200,
        asked_input_tokens=100,
        asked_output_tokens=tokens,
        count_told="per_event",
    )
    return replace(record, **changes)


def failed(number: int, due: float, kind: str = "overloaded", level: int = 0) -> RequestRecord:
    return RequestRecord(
        f"{level}-{number}", level, due, "failed", sent_at=due, finished_at=due + 0.01, http_status=429, error_kind=kind
    )


def dropped(number: int, due: float, level: int = 0) -> RequestRecord:
    return RequestRecord(f"{level}-{number}", level, due, "dropped", error_kind="dropped")


def manifest(levels: Sequence[Level], **changes: Any) -> Manifest:
    """Of an emulated run that was carried out to its end."""
    plain = Manifest(
        run_id="20250131T120000Z-demo-L4-chat",
        harness_version="0.0",
        command=("harness", "bench", "demo", "--users", "1,4"),
        model="demo",
        engine="tgi 3.3.7",
        emulated=True,
        start="2025-01-31T12:00:00.000000Z",
        clock={"monotonic": 1.0, "utc": "2025-01-31T12:00:00.000000Z"},
        workload={"name": "chat", "input_tokens": "100", "output_tokens": "11"},
        levels=tuple(levels),
        api="tgi",
        runtime="embedded",
        gpu="L4",
        seeds={"workload": 1, "arrivals": 1},
        end="2025-01-31T12:02:00.000000Z",
    )
    return replace(plain, **changes)


def closed_level(level: int, users: int, start: float, duration: float, **changes: Any) -> Level:
    plain = Level(
        level, users=users, duration=duration, started_at=start, sending_ended_at=start + duration,
        ended_at=start + duration + 1, ended_by="duration",
    )  # fmt: skip
    return replace(plain, **changes)


def open_level(level: int, rate: float | None, start: float, duration: float, **changes: Any) -> Level:
    return replace(
        closed_level(level, 1, start, duration), **{"users": None, "rate": rate, "arrival": POISSON, **changes}
    )


def closed_loop(
    level: Level, first: float = 0.2, gap: float = 0.02, tokens: int = 11, spread: float = 0.0
) -> list[RequestRecord]:
    """All requests of a closed loop: each user asks again when answered. spread: of latencies, log-normal, seeded."""
    random = np.random.default_rng(level.level + 1)
    assert level.users is not None
    assert level.started_at is not None
    assert level.sending_ended_at is not None
    records: list[RequestRecord] = []
    for user in range(level.users):
        due = level.started_at + 0.001 * user
        while due < level.sending_ended_at:
            slower = float(np.exp(random.normal(0, spread))) if spread else 1.0
            record = ticking(
                len(records), due, level=level.level, first=first * slower, gap=gap * slower, tokens=tokens
            )
            if spread:
                jitter = np.exp(random.normal(0, spread, tokens)) * gap * slower
                record.token_at = (due + first * slower + np.cumsum(jitter)).tolist()
                record.finished_at = record.token_at[-1]
            records.append(record)
            assert record.finished_at is not None
            due = record.finished_at + 0.0005
    return records
