"""How often the readings of a run speak where nothing is the matter, and whether each finds what it is for.

Sweeps against made-up services (made_up.py), through the same summary as real ones, with the gauges that an engine
would have told. Healthy ones stay below the knee; of each cause there is a sweep that has it.

python -m tests.stats.reading_cells [SWEEPS]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.measure.records import COMPLETED, Records, concatenate
from harness.measure.run_folder import Level
from harness.measure.server import ServerSamples
from harness.stats.metrics import first_token
from harness.stats.readings import Reading, readings
from harness.stats.summary import summarise
from tests.runs import closed_level, manifest, open_level
from tests.stats.made_up import KvBound, MadeUp, PrefillQueue, Slots, records_of

SECONDS, BETWEEN = 60.0, 100.0  # of a level, and from one's begin to the next one's
MOST_WRONG = 0.01  # share of healthy sweeps of which anything may be said
READING = 0.15  # seconds for which a prompt is read: longer without a first token is a wait


@dataclass(frozen=True)
class Roomy(MadeUp):
    """A service in which no request waits for a place. long: share of prompts that are `times` as long as the others,
    each of which waits for its own alone. stalled: share of the gaps between tokens that last until another one's
    prompt is read, `reading` seconds.
    """

    long: float = 0.0
    times: float = 30.0
    stalled: float = 0.0
    reading: float = 0.5
    tokens: int = 41
    open_loop = True
    whole = False

    def _records(self, load: float, seconds: float, random: np.random.Generator, slower: float) -> Records:
        due = np.sort(random.uniform(0, seconds, random.poisson(load * seconds)))
        first = 0.05 * np.exp(random.normal(0, 0.2, len(due)))
        first *= np.where(random.random(len(due)) < self.long, self.times, 1)
        gaps = 0.03 * np.exp(random.normal(0, 0.1, (len(due), self.tokens - 1)))
        gaps += np.where(random.random(gaps.shape) < self.stalled, self.reading, 0.0)
        return records_of(due, first, gaps)


def sweep(
    service: MadeUp,
    loads: Sequence[float],
    random: np.random.Generator,
    spoil: Callable[[Records, np.random.Generator], Records] = lambda records, random: records,
    put_back: float = 0.0,
) -> tuple[Reading, ...]:
    """What is read from a run of these loads. spoil: does something to the records of a level. put_back: of a second,
    by the engine's counter.
    """
    levels, parts = list[Level](), list[Records]()
    for number, load in enumerate(loads):
        begin = BETWEEN * number
        records = spoil(service.level(load, SECONDS, random)[1], random)
        moments = {name: getattr(records, name) + begin for name in _MOMENTS}
        parts.append(replace(records, level=np.full(len(records), number), **moments))
        make = (
            open_level(number, load, begin, SECONDS)
            if service.open_loop
            else closed_level(number, int(load), begin, SECONDS)
        )
        levels.append(make)
    whole = concatenate(parts)
    ids = np.array([f"{number:08d}" for number in range(len(whole))], dtype=object)
    whole = replace(whole, request_id=ids)
    return readings(summarise(whole, manifest(levels), None, _told(whole, put_back, isinstance(service, Roomy))).levels)


_MOMENTS = ("scheduled_at", "sent_at", "first_byte_at", "finished_at", "token_at")


def _told(records: Records, put_back: float, room: bool) -> ServerSamples:
    """An engine's gauges once a second: those that wait are not yet taken, for longer than a prompt is read."""
    moments = np.arange(0.0, float(np.nanmax(records.finished_at)) + 1)
    done = records.having(COMPLETED)
    due, taken, end = records.scheduled_at[done], first_token(records)[done] - READING, records.finished_at[done]
    waiting = [float(np.count_nonzero((due <= at) & (at < taken))) for at in moments]
    running = [float(np.count_nonzero((due <= at) & (at < end))) for at in moments]
    waiting = [0.0] * len(moments) if room else waiting
    series = {"waiting": waiting, "running": running, "preempted": list(put_back * moments)}
    return ServerSamples({name: (moments, np.array(values)) for name, values in series.items()})


def refusing(records: Records, random: np.random.Generator) -> Records:
    """One in twenty is turned away."""
    lost = random.random(len(records)) < 0.05
    kinds = np.where(lost, "overloaded", records.error_kind)
    events = np.where(lost, 0, records.event_counts)
    kept = np.repeat(~lost, records.event_counts)
    return replace(
        records, status=np.where(lost, 1, records.status).astype(np.int8), error_kind=kinds,
        token_at=records.token_at[kept], token_count=records.token_count[kept],
        offsets=np.concatenate([[0], np.cumsum(events)]),
    )  # fmt: skip


HEALTHY: dict[str, MadeUp] = {
    "prefill queue": PrefillQueue(),
    "prefill queue, few requests": PrefillQueue(capacity=4.0),
    "slots": Slots(),
    "kv cache": KvBound(),
    "a little noise": KvBound(noise=0.05, spread=0.3),
}
SHARES = (0.3, 0.5, 0.8)  # of the knee


def healthy(name: str, random: np.random.Generator) -> tuple[Reading, ...]:
    """What is read of a sweep below the knee, which should be nothing."""
    service = HEALTHY[name]
    loads = [service.knee * share for share in SHARES]
    return sweep(service, loads if service.open_loop else [max(1, round(load)) for load in loads], random)


def ill(rule: str, random: np.random.Generator) -> tuple[Reading, ...]:
    """Of a sweep that has what the rule is for."""
    slots, kv = Slots(), KvBound(fits=30)
    beyond = [round(slots.knee * share) for share in (0.3, 1.5, 3.0)]
    cases: dict[str, Callable[[], tuple[Reading, ...]]] = {
        "long_prefills": lambda: sweep(Roomy(long=0.04, tokens=21), (4.0, 10.0), random),
        "stalls": lambda: sweep(Roomy(stalled=0.03), (2.0, 4.0), random),
        "put_back": lambda: sweep(kv, (10, 25), random, put_back=0.5),
        "queueing": lambda: sweep(slots, beyond, random),
        "full": lambda: sweep(slots, beyond, random),
        "refused": lambda: sweep(Slots(), (8, 16), random, refusing),
    }
    return cases[rule]()


def main(sweeps: int = 200) -> int:
    """Prints, of each service, how many healthy sweeps had which reading; 1 where more than MOST_WRONG had any."""
    worst = 0.0
    for name in HEALTHY:
        counts, spoken = Counter[str](), 0
        for seed in range(sweeps):
            found = {each.rule for each in healthy(name, np.random.default_rng(seed))}
            counts.update(found)
            spoken += bool(found)
        worst = max(worst, spoken / sweeps)
        print(f"{name}: {spoken} of {sweeps} {dict(counts)}")
    for rule in ("long_prefills", "stalls", "put_back", "queueing", "full", "refused"):
        hits = sum(rule in {each.rule for each in ill(rule, np.random.default_rng(seed))} for seed in range(20))
        print(f"{rule}: found in {hits} of 20 sweeps that have it")
    return int(worst > MOST_WRONG)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
