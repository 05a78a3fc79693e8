"""Searches against made-up services whose knee is known: `python -m tests.stats.searches [--seeds 100] [KIND ...]`.

Prints the figures of docs/capacity.md; test_capacity_search.py holds a few seeds of each kind to them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from harness.catalog.slo import parse_slo
from harness.stats.capacity_search import Answer, Ask, CapacitySearch, Goal
from harness.stats.outcome import Outcome, outcome_of
from tests.stats.made_up import KvBound, MadeUp, ManyServers, PrefillQueue, Slots, Soft

TWELVE_MINUTES = 720.0
Odd = Callable[[MadeUp, float], MadeUp]
STRICT = parse_slo("ttft_p95=200ms,itl_p95=60ms")


def measured(service: MadeUp, ask: Ask, random: np.random.Generator, spoilt: bool) -> Outcome:
    level, records = service.level(ask.load, ask.seconds, random, spoilt=spoilt)
    return outcome_of(level, records, service.slo, seconds=ask.seconds, approach=ask.approach, brief=ask.brief)


def searched(
    service: MadeUp, seed: int, *, level: float = 60.0, budget: float = TWELVE_MINUTES, odd: Odd | None = None
) -> CapacitySearch:
    """level, budget: seconds. odd: what the service is like at a level, by its load."""
    random = np.random.default_rng(seed)
    search = CapacitySearch(Goal(1.0, service.whole, budget, level))
    while (ask := search.ask()) is not None:
        spoilt = bool(search.told) and search.told[-1].load > service.knee * 1.02
        search.tell(measured(odd(service, ask.load) if odd else service, ask, random, spoilt))
    return search


def width(answer: Answer) -> float:
    return ((answer.breaks or np.inf) - answer.holds) / (answer.best or 1.0)


def holds_the_truth(answer: Answer, knee: float) -> bool:
    return answer.holds <= knee and (answer.breaks is None or knee < answer.breaks)


SERVICES: dict[str, tuple[MadeUp, float]] = {
    "queue": (PrefillQueue(capacity=40, slo=parse_slo("ttft_p95=500ms")), 0.25),
    "slots": (Slots(), 0.4),
    "decode": (KvBound(), 0.1),
    "kv": (KvBound(fits=30, slo=STRICT), 0.1),
    "noise": (KvBound(noise=0.02), 0.15),
    "hysteresis": (KvBound(hysteresis=0.05), 0.2),
}

# Of other shapes, limits and sizes: nothing of the search was chosen by these.
HELD_OUT: dict[str, MadeUp] = {
    "queue of 4/s": PrefillQueue(capacity=4, slo=parse_slo("ttft_p95=3s")),
    "queue of 16/s": PrefillQueue(capacity=16, slo=parse_slo("ttft_p95=1500ms")),
    "queue of 420/s": PrefillQueue(capacity=420, slo=parse_slo("ttft_p95=150ms")),
    "queue, p99": PrefillQueue(capacity=25, slo=parse_slo("ttft_p99=1s")),
    "queue, 1 % fail": PrefillQueue(capacity=40, always=0.01, slo=parse_slo("ttft_p95=500ms")),
    "queue, 3 % fail": PrefillQueue(capacity=40, always=0.03, slo=parse_slo("ttft_p95=500ms")),
    "queue, 4 % fail": PrefillQueue(capacity=40, always=0.04, slo=parse_slo("ttft_p95=500ms")),
    "queue, noise": PrefillQueue(capacity=60, noise=0.02, slo=parse_slo("ttft_p95=400ms")),
    "3 servers": ManyServers(),
    "4 slots": Slots(slots=4, takes=1.0, thinks=3.0),
    "64 slots": Slots(slots=64, takes=1.5, thinks=3.0),
    "soft": Soft(),
    "soft, p90": Soft(half=60.0, spread=0.8, slo=parse_slo("ttft_p90=1500ms")),
    "kv of 5": KvBound(fits=5, slo=STRICT),
    "kv of 300": KvBound(fits=300, each=0.00005, slo=STRICT),
    "decode, noise": KvBound(noise=0.03, each=0.0003, slo=parse_slo("ttft_p95=1s,itl_p90=50ms")),
    "decode, overload": KvBound(hysteresis=0.1, each=0.002, slo=parse_slo("ttft_p95=1s,itl_p95=80ms")),
}


def bound(service: MadeUp, levels: int = 60) -> float:
    """The narrowest 95 % interval that the shares of the whole budget allow, as a share of the knee.

    As if all of it were one level at the knee and the slope there were known: what the share of such a level strays by,
    seen in `levels` of them, over the slope (the delta method). Where levels differ by their own speed it is as many
    levels of a minute. What is less than one whole load cannot be told in whole loads.
    """
    random = np.random.default_rng(1)
    parts = 12.0 if service.noise else 1.0
    asked = Ask(service.knee, TWELVE_MINUTES / parts, "below", False)
    found = [measured(service, asked, random, False) for _ in range(levels)]
    strays = float(np.std([each.attainment.share for each in found if each.attainment is not None]))
    step = 1.0 if service.whole else 0.02 * service.knee
    ends = (service.knee - step, service.knee + step)
    slope = (service.miss(ends[1]) - service.miss(ends[0])) / np.log(ends[1] / ends[0])
    narrowest = 2 * 1.96 * strays / np.sqrt(parts) / slope
    return max(float(narrowest), 1 / service.knee if service.whole else 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--level", type=float, default=60.0, help="seconds")
    parser.add_argument("--budget", type=float, default=TWELVE_MINUTES, help="seconds")
    known = {**{name: service for name, (service, _) in SERVICES.items()}, **HELD_OUT}
    names = ", ".join(known).replace("%", "%%")
    parser.add_argument("kinds", nargs="*", default=list(SERVICES), metavar="KIND", help=names)
    asked = parser.parse_args()
    print("kind              knee  holds the truth  claims above  width p50    p90  at most 10 %  bound")
    for kind in asked.kinds:
        service = known[kind]
        seeds = range(asked.first, asked.first + asked.seeds)
        answers = [searched(service, seed, level=asked.level, budget=asked.budget).answer() for seed in seeds]
        widths = np.array([width(each) for each in answers])
        held = sum(holds_the_truth(each, service.knee) for each in answers)
        above = sum(each.holds > service.knee for each in answers)
        middle, wide = (f"{share:.1%}" for share in np.quantile(widths, [0.5, 0.9]))
        narrow = int(np.sum(widths <= 0.1 + 1e-3))
        found = f"{held:>8} of {asked.seeds} {above:>13} {middle:>10} {wide:>6} {narrow:>13} {bound(service):>6.1%}"
        print(f"{kind:<16} {service.knee:>5.4g} {found}", flush=True)


if __name__ == "__main__":
    main()
