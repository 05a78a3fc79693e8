"""Made-up services whose knee is known from theory, and the records of levels against them.

Written for the statistics alone: they share nothing with `harness.simulator`. Each gives the records of one level, for
a load and a generator of random numbers; `knee` is the load from which on the SLO no longer holds, by a formula.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from harness.catalog.slo import Slo, parse_slo
from harness.measure.records import COMPLETED, FAILED, MISSING, Records
from harness.measure.run_folder import Level
from harness.stats.slo import QUANTILES
from tests.runs import closed_level, open_level


def records_of(due: np.ndarray, first: np.ndarray, gaps: np.ndarray, failed: np.ndarray | None = None) -> Records:
    """Requests in order of the moment due. first: seconds until the first token; gaps: (requests, gaps of each)."""
    count, events = len(due), gaps.shape[1] + 1
    token_at = (due + first)[:, None] + np.concatenate([np.zeros((count, 1)), np.cumsum(gaps, axis=1)], axis=1)
    lost = np.zeros(count, dtype=bool) if failed is None else failed
    kept = np.repeat(np.where(lost, 0, events), 1)
    plain: dict[str, Any] = {
        "request_id": np.array([f"{number:08d}" for number in range(count)], dtype=object),
        "level": np.zeros(count, dtype=np.int64),
        "scheduled_at": due,
        "sent_at": due,
        "first_byte_at": due + first,
        "token_at": token_at[~lost].ravel(),
        "token_count": np.ones(int(kept.sum()), dtype=np.int32),
        "offsets": np.concatenate([[0], np.cumsum(kept)]).astype(np.int64),
        "finished_at": np.where(lost, due + 0.01, token_at[:, -1]),
        "status": np.where(lost, FAILED, COMPLETED).astype(np.int8),
        "error_kind": np.where(lost, "overloaded", None).astype(object),
        "count_told": np.full(count, "per_event", dtype=object),
        "glued_events": np.zeros(count, dtype=np.int64),
    }
    for name, value in (("input_tokens", 100), ("output_tokens", events)):
        plain[name] = plain[f"asked_{name}"] = np.full(count, value, dtype=np.int64)
    empty = Records.from_list([])
    for column in fields(Records):  # what these services do not tell is null
        like = getattr(empty, column.name)
        null = {"O": None, "f": np.nan}.get(like.dtype.kind, MISSING)
        plain.setdefault(column.name, np.full(count, null, dtype=like.dtype))
    return Records(**plain)


def away(records: Records, start: float, end: float, *, spared: bool = False) -> Records:
    """As if the service had been down from start to end: who asks is refused, and what was in flight breaks, if it is
    not spared.
    """
    due, counts = records.scheduled_at, np.diff(records.offsets)
    lost = (due < end) & (np.where(due < start, records.finished_at, end) > start)
    lost &= (due >= start) | (not spared)
    kept = np.repeat(~lost, counts)
    return replace(
        records,
        token_at=records.token_at[kept],
        token_count=records.token_count[kept],
        offsets=np.concatenate([[0], np.cumsum(counts * ~lost)]),
        finished_at=np.where(lost, np.maximum(due, start) + 0.002, records.finished_at),
        status=np.where(lost, FAILED, records.status).astype(np.int8),
        error_kind=np.where(lost, np.where(due < start, "stream_broken", "refused"), records.error_kind),
    )


@dataclass(frozen=True)
class MadeUp:
    """What all have in common.

    noise: standard deviation of a level's own speed (log). drift: how much slower the service is at the end of a level
    than at its begin, 0.2 for 20 %. step: the same, all at once at half time. hysteresis: how much slower it is after a
    level that was beyond its knee. down: share of a level, from a third of it on, in which the service is away.
    """

    noise: float = 0.0
    drift: float = 0.0
    step: float = 0.0
    hysteresis: float = 0.0
    down: float = 0.0
    slo: Slo = field(default_factory=lambda: parse_slo("ttft_p95=1s"))
    open_loop = False
    whole = True

    @property
    def knee(self) -> float:
        raise NotImplementedError

    def miss(self, load: float) -> float:
        """Share that misses the bound that limits, in the long run, at a load near the knee."""
        raise NotImplementedError

    def level(
        self, load: float, seconds: float, random: np.random.Generator, *, spoilt: bool = False
    ) -> tuple[Level, Records]:
        """One level, warm-up included."""
        slower = math.exp(random.normal(0, self.noise)) if self.noise else 1.0
        slower *= 1 + self.hysteresis if spoilt else 1.0
        records = self._records(load, seconds, random, slower)
        if self.down:
            records = away(records, seconds / 3, seconds * (1 / 3 + self.down))
        if self.open_loop:
            return open_level(0, load, 0.0, seconds), records
        return closed_level(0, int(load), 0.0, seconds), records

    def _slowness(self, at: np.ndarray | float, seconds: float) -> Any:
        """How much slower the service is at a moment of a level."""
        return 1 + self.drift * np.minimum(np.asarray(at) / seconds, 1.0) + self.step * (np.asarray(at) > seconds / 2)

    def _records(self, load: float, seconds: float, random: np.random.Generator, slower: float) -> Records:
        raise NotImplementedError


@dataclass(frozen=True)
class PrefillQueue(MadeUp):
    """M/M/1: one prompt is read after another. Sojourns are exponential with rate capacity - load, so p95 of TTFT is
    ln 20 / (capacity - load) (L. Kleinrock, Queueing Systems I, 1975, section 3.2).
    """

    capacity: float = 10.0
    always: float = 0.0  # share of the requests that fail at any load
    open_loop = True
    whole = False

    @property
    def knee(self) -> float:
        bound = self.slo.bounds[0]
        allowed = (1 - QUANTILES[bound.statistic] - self.always) / (1 - self.always)
        return self.capacity + math.log(allowed) / bound.limit

    def miss(self, load: float) -> float:
        return self.always + (1 - self.always) * math.exp(-(self.capacity - load) * self.slo.bounds[0].limit)

    def _records(self, load: float, seconds: float, random: np.random.Generator, slower: float) -> Records:
        count = random.poisson(load * seconds)
        due = np.sort(random.uniform(0, seconds, count))
        takes = random.exponential(slower / self.capacity, count) * self._slowness(due, seconds)
        total = np.cumsum(takes)
        first = total + np.maximum.accumulate(due - (total - takes)) - due if count else due
        gaps = 0.03 * np.exp(random.normal(0, 0.1, (count, 4))) * slower * self._slowness(due, seconds)[:, None]
        lost = random.uniform(size=count) < self.always if self.always else None
        return records_of(due, first, gaps, lost)


@dataclass(frozen=True)
class ManyServers(MadeUp):
    """M/G/c: prompts of log-normal length, of which `servers` are read at once. No formula gives its quantiles: `limit`
    is where a line through simulated days of four loads beside it says that it lies.
    """

    servers: int = 3
    takes: float = 0.1
    varies: float = 1.0  # standard deviation of the work over its mean
    limit: float = 24.34
    slo: Slo = field(default_factory=lambda: parse_slo("ttft_p95=600ms"))
    open_loop = True
    whole = False

    @property
    def knee(self) -> float:
        return self.limit

    def miss(self, load: float) -> float:
        first = self._first(np.sort(np.random.default_rng(1).uniform(0, 4000, int(4000 * load))), 1.0, 1)
        return float(np.mean(first > self.slo.bounds[0].limit))

    def _first(self, due: np.ndarray, slower: Any, seed: int) -> np.ndarray:
        wide = math.log(1 + self.varies**2)
        work = self.takes * np.exp(np.random.default_rng(seed).normal(-wide / 2, math.sqrt(wide), len(due))) * slower
        free, first = [0.0] * self.servers, np.empty(len(due))
        for number, (at, takes) in enumerate(zip(due.tolist(), work.tolist(), strict=True)):
            end = max(at, heapq.heappop(free)) + takes
            heapq.heappush(free, end)
            first[number] = end - at
        return first

    def _records(self, load: float, seconds: float, random: np.random.Generator, slower: float) -> Records:
        due = np.sort(random.uniform(0, seconds, random.poisson(load * seconds)))
        first = self._first(due, slower * self._slowness(due, seconds), int(random.integers(1 << 31)))
        return records_of(due, first, np.full((len(due), 4), 0.03))


@dataclass(frozen=True)
class Soft(MadeUp):
    """Chats whose first token takes the longer the more there are, each by chance: log-normal around base (1 + load /
    half). No queue, and the share that is late rises slowly.
    """

    base: float = 0.1
    half: float = 20.0
    spread: float = 0.6
    takes: float = 2.0

    @property
    def knee(self) -> float:
        bound = self.slo.bounds[0]
        middle = bound.limit * math.exp(-float(ndtri(QUANTILES[bound.statistic])) * self.spread)
        return float(math.floor(self.half * (middle / self.base - 1)))

    def miss(self, load: float) -> float:
        middle = self.base * (1 + load / self.half)
        return float(ndtr(-math.log(self.slo.bounds[0].limit / middle) / self.spread))

    def _records(self, load: float, seconds: float, random: np.random.Generator, slower: float) -> Records:
        users, each = int(load), int(seconds / self.takes) + 1
        due = np.sort((random.uniform(0, self.takes, users)[:, None] + self.takes * np.arange(each)[None, :]).ravel())
        due = due[due < seconds]
        middle = self.base * (1 + load / self.half) * slower * self._slowness(due, seconds)
        first = middle * np.exp(random.normal(0, self.spread, len(due)))
        return records_of(due, first, np.full((len(due), 4), 0.03))


@dataclass(frozen=True)
class Slots(MadeUp):
    """Users who think, and a limit of concurrent requests: the machine-repair model M/M/c//N, whose wait is known from
    what an arriving user finds: the state of the same system with one user less (Kleinrock, section 3.8; the arrival
    theorem of K. C. Sevcik and I. Mitrani, Journal of the ACM 28 (1981) 358-371).
    """

    slots: int = 16
    takes: float = 2.0
    thinks: float = 4.0
    first: float = 0.1

    @property
    def knee(self) -> float:
        users = self.slots
        while self.miss(users) <= 0.05:
            users += 1
        return float(users - 1)

    def miss(self, load: float) -> float:
        """Share of the requests that wait for longer than the bound leaves."""
        users = int(load)
        waits = self.slo.bounds[0].limit - self.first
        weights = [1.0]
        for busy in range(1, users):  # states of a system with users - 1
            weights.append(weights[-1] * (users - busy) / self.thinks * self.takes / min(busy, self.slots))
        total, pace, missed = sum(weights), self.slots / self.takes * waits, 0.0
        for found in range(self.slots, users):
            ahead = found - self.slots + 1  # departures to wait for: more than `waits` if fewer come in it
            missed += (
                weights[found]
                / total
                * sum(math.exp(-pace) * pace**each / math.factorial(each) for each in range(ahead))
            )
        return missed

    def _records(self, load: float, seconds: float, random: np.random.Generator, slower: float) -> Records:
        asks = [(float(each), 0) for each in random.exponential(self.thinks, int(load))]
        heapq.heapify(asks)
        free = [0.0] * self.slots
        due, first, whole = [], [], []
        draws = iter(random.exponential(1.0, (int(load) * (int(seconds / 2) + 20), 2)))
        while asks:
            at, _ = heapq.heappop(asks)
            if at >= seconds:
                continue
            begun = max(at, heapq.heappop(free))
            service, think = next(draws)
            takes = service * self.takes * slower * self._slowness(at, seconds)
            heapq.heappush(free, begun + takes)
            due.append(at)
            first.append(begun - at + self.first * slower)
            whole.append(takes)
            heapq.heappush(asks, (begun + takes + think * self.thinks, 0))
        spread = np.exp(random.normal(0, 0.1, (len(due), 4)))
        gaps = np.maximum(np.array(whole) - self.first, 0.02)[:, None] / 4 * spread
        return records_of(np.array(due), np.array(first), gaps)


@dataclass(frozen=True)
class KvBound(MadeUp):
    """Chats that are always answered, each step longer by `each` for every chat in the batch; what does not fit into
    the KV cache waits for a place. ITL is log-normal around that step, so its p95 is known.
    """

    slo: Slo = field(default_factory=lambda: parse_slo("ttft_p95=1s,itl_p95=60ms"))
    base: float = 0.020
    each: float = 0.0008
    fits: int = 1000
    spread: float = 0.1
    tokens: int = 60

    @property
    def knee(self) -> float:
        bound = next(bound for bound in self.slo.bounds if bound.metric == "itl")
        middle = bound.limit * math.exp(-float(ndtri(QUANTILES[bound.statistic])) * self.spread)
        by_steps = (middle - self.base) / self.each
        return min(math.floor(by_steps), self.fits)

    def miss(self, load: float) -> float:
        """Of the gaps; beyond what fits into the cache some chat always waits for a place, longer than the bound."""
        if load > self.fits:
            return 1.0
        limit = next(bound.limit for bound in self.slo.bounds if bound.metric == "itl")
        step = self.base + self.each * load
        return 0.5 * math.erfc(math.log(limit / step) / self.spread / math.sqrt(2))

    def _records(self, load: float, seconds: float, random: np.random.Generator, slower: float) -> Records:
        users, batch = int(load), min(int(load), self.fits)
        step = (self.base + self.each * batch) * slower
        asks = [(0.001 * user + random.uniform(0, step * self.tokens), user) for user in range(users)]
        heapq.heapify(asks)
        free = [0.0] * batch
        due, first, gaps = [], [], []
        while asks:
            at, user = heapq.heappop(asks)
            if at >= seconds:
                continue
            begun = max(at, heapq.heappop(free))
            pace = step * float(self._slowness(begun, seconds))
            own = pace * np.exp(random.normal(0, self.spread, self.tokens))
            waits = 0.15 * slower + begun - at
            due.append(at)
            first.append(waits)
            gaps.append(own)
            end = at + waits + float(own.sum())
            heapq.heappush(free, end)
            heapq.heappush(asks, (end + 0.001, user))
        return records_of(np.array(due), np.array(first), np.array(gaps))
