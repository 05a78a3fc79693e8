"""Whole run folders of known truth, as a service and its machine might leave them: what the gate is held to.

TTFT is log-normal and remembers the request before it, gaps between tokens have an effect of their request, each run
is faster or slower as a whole, and the machine may drift from run to run.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from harness.measure.client import ClientFacts, write_client
from harness.measure.record import RequestRecord
from harness.measure.records import Records, write_parquet
from harness.measure.run_folder import Level, RunFolder, utc_text, write_manifest
from tests.runs import closed_level, failed, manifest, ticking

BEGUN = datetime(2025, 1, 31, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Service:
    """users: of a closed loop. seconds: of a run. first, gap: medians of TTFT and of the gap between tokens. scatter:
    of the TTFT's logarithm. memory: correlation of a TTFT with the one before. effect: of a request on its gaps,
    likewise. spread: between runs. failing: share of requests that get 429. stuck: share that takes a minute longer.
    """

    users: int = 8
    seconds: float = 60.0
    first: float = 0.2
    gap: float = 0.02
    tokens: int = 40
    scatter: float = 0.3
    memory: float = 0.5
    effect: float = 0.05
    spread: float = 0.01
    failing: float = 0.0
    stuck: float = 0.0

    def slower(self, share: float) -> Service:
        """Every latency longer by this share."""
        return replace(self, first=self.first * (1 + share), gap=self.gap * (1 + share))

    def records(self, random: np.random.Generator, level: int = 0, begin: float = 0.0) -> list[RequestRecord]:
        """One level's requests. begin: seconds into the run."""
        first, gap = (median * np.exp(random.normal(0, self.spread)) for median in (self.first, self.gap))
        free = [begin + 0.001 * user for user in range(self.users)]
        before, made = random.normal(), list[RequestRecord]()
        while free[0] < begin + self.seconds:
            due = heapq.heappop(free)
            if random.uniform() < self.failing:
                made.append(failed(len(made), due, level=level))
                heapq.heappush(free, due + 0.1)
                continue
            before = self.memory * before + np.sqrt(1 - self.memory**2) * random.normal()
            gaps = gap * np.exp(random.normal(0, self.effect) + random.normal(0, 0.1, self.tokens - 1))
            late = 60.0 if random.uniform() < self.stuck else 0.0
            token_at = due + first * np.exp(self.scatter * before) + np.concatenate([[0.0], np.cumsum(gaps)])
            token_at[-1] += late
            made.append(
                ticking(len(made), due, level=level, tokens=self.tokens, token_at=token_at.tolist(),
                        finished_at=float(token_at[-1]), first_byte_at=float(token_at[0]))
            )  # fmt: skip
            heapq.heappush(free, float(token_at[-1]) + 0.001)
        return made


def write_run(path: Path, service: Service | Sequence[Service], seed: int, at: int, **changes: object) -> Path:
    """A finished run's folder. service: of each level, where there are several. at: its place in the order of runs."""
    services = [service] if isinstance(service, Service) else service
    random, begin = np.random.default_rng(seed), 0.0
    levels, records = list[Level](), list[RequestRecord]()
    for number, each in enumerate(services):
        records += each.records(random, number, begin)
        levels.append(
            replace(closed_level(number, each.users, begin, each.seconds), ended_at=begin + each.seconds + 70)
        )
        begin += each.seconds + 80
    begun = BEGUN + timedelta(minutes=10 * at)
    plain = manifest(
        levels,
        run_id=path.name,
        start=utc_text(begun),
        end=utc_text(begun + timedelta(seconds=begin)),
        workload={"name": "chat", "input_tokens": "100", "output_tokens": str(services[0].tokens)},
    )
    folder = RunFolder.create(path)
    write_manifest(folder, replace(plain, **changes))  # type: ignore[arg-type]
    write_parquet(Records.from_list(records), folder.records)
    write_client(folder, ClientFacts())
    return path


def write_sides(
    path: Path, order: str, base: Service, new: Service, seed: int, drift: float = 0.0
) -> tuple[list[Path], list[Path]]:
    """order: such as ABBA. drift: share by which each run is slower than the one before."""
    sides: tuple[list[Path], list[Path]] = ([], [])
    for at, letter in enumerate(order):
        which = "AB".index(letter)
        service = (base, new)[which].slower((1 + drift) ** at - 1)
        place = path / "ab"[which] / f"repeat-{len(sides[which]):02}"
        sides[which].append(write_run(place, service, 1000 * seed + at, at))
    return sides
