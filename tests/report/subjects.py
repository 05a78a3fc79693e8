"""Made-up subjects of reports besides runs: a capacity search, a probe, a comparison, and several side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from harness.catalog.slo import parse_bound, parse_slo
from harness.input_files import as_type
from harness.measure.run_folder import Manifest
from harness.probe.file import ProbeFile
from harness.report.capacity import capacity_document
from harness.report.capacity.subject import SearchReport
from harness.report.comparison_page import comparison_document
from harness.report.document import Document
from harness.report.history import history_document
from harness.report.probe import probe_document
from harness.report.run import run_document
from harness.report.side_by_side import side_by_side
from harness.stats.binding import Binding
from harness.stats.capacity_report import CapacityReport, HistoryCapacity
from harness.stats.capacity_search import CapacitySearch, Goal
from harness.stats.comparison import Change, Comparison
from harness.stats.decision import BoundShare
from harness.stats.history import history, point_of
from harness.stats.money import MoneyQuestion, Price
from harness.stats.outcome import Outcome
from harness.stats.people import Flow, Habits
from harness.stats.run_figures import recorded
from harness.stats.surface import Figures
from tests.report.test_reports import RUNS, sweep
from tests.runs import manifest
from tests.stats.test_compare import run

SLO = parse_slo("ttft_p95=1s,itl_p95=60ms")


def _level(load: float, met: float, knee: float) -> tuple[Outcome, Flow, Figures]:
    """met: the share within the bound on TTFT, of 400 independent requests; it is slow beyond the knee."""
    half = 0.02
    shares = (
        BoundShare(parse_bound("ttft_p95", 1.0), met, 400, 400, (max(0.0, met - half), min(1.0, met + half))),
        BoundShare(parse_bound("itl_p95", 0.06), 0.999, 9000, 4000, (0.998, 1.0)),
    )
    outcome = Outcome(load, shares, 60.0, saturated=met < 0.5)
    flow = Flow(load, load / 5, 4.0, load * 0.8, load * 20, load * 400)
    first, gap = 0.2 * 5.0 ** (load / knee), 0.02 * (1 + load / knee)
    return outcome, flow, Figures(first, gap, load / 10, load * 20, 0.5, _BINDS)


_BINDS = Binding("prefill", "ttft_p95 is nearest to breaking, and neither cache nor places were full")


def searched_history(history: int | None, knee: float) -> HistoryCapacity:
    """Levels on both sides of a knee."""
    shares = ((0.5, 1.0), (0.9, 0.99), (0.97, 0.975), (1.03, 0.92), (1.1, 0.8), (1.5, 0.3))
    told = [_level(round(knee * part), met, knee) for part, met in shares]
    search = CapacitySearch(Goal(1.0, True), [outcome for outcome, _, _ in told])
    return HistoryCapacity(history, search, tuple(flow for _, flow, _ in told), tuple(each for _, _, each in told))


def capacity_report(
    *histories: tuple[int | None, float], price: float = 0.8, users: float | None = None
) -> CapacityReport:
    parts = tuple(searched_history(*each) for each in histories)
    habits, own = Habits(think=20.0, turns=3.0), Price(price, 1)
    return CapacityReport("qwen2.5-7b", "chats", SLO, habits, own, parts, asked=MoneyQuestion(users))


def searched(
    gpu: str = "L4",
    knee: float = 40.0,
    told: Manifest | None = None,
    price: float = 0.8,
    users: float | None = None,
) -> SearchReport:
    report = capacity_report((2000, knee), (8000, knee / 2), price=price, users=users)
    flags = {"MAX_BATCH_PREFILL_TOKENS": "4096", "MAX_CONCURRENT_REQUESTS": "128"}
    measured = told or manifest(
        [], gpu=gpu, flags=flags, image="ghcr.io/x/tgi:3.3.7", image_digest="sha256:" + "a" * 64
    )
    return SearchReport(report, report.as_dict(), measured, f"capacity-{gpu}")


def probe_file(**changes: Any) -> dict[str, Any]:
    """The document of a probe of an L4, with a batch curve that bends at 8 chats."""
    rates = {1: 30.0, 2: 58.0, 4: 110.0, 8: 190.0, 16: 210.0, 32: 215.0}
    cells = [(500, 61), (4000, 13), (30000, 1)]
    document: dict[str, Any] = {
        "schema": 1, "model": "qwen2.5-7b", "engine": "tgi 3.3.7", "image": None, "gpu": "L4", "emulated": False,
        "goal": "balanced", "goals": {}, "kind": "flash", "starts": 4, "verified_under_load": True, "load": {},
        "limits": {"max_input_tokens": 30000, "max_batch_total_tokens": 62526, "max_batch_size": None},
        "source": {"max_input_tokens": "derived", "max_batch_total_tokens": "engine log"},
        "boundary": {"max_input_tokens": {"largest_ok": 30000, "smallest_failed": 31000, "failure": "out of memory"}},
        "checks": [{"name": "longest chat", "ran": True, "held": True, "why": None}],
        "capacity": [
            {"history_tokens": history, "answer_tokens": 512, "chats_fit": chats, "ttft_p95": None, "itl_p95": None,
             "meets_slo": None} for history, chats in cells
        ],
        "batch": [
            {"history_tokens": 500, "chats": chats, "ttft_p95": 0.1, "itl_p95": 0.03 + chats / 1000,
             "output_tokens_per_second": rate} for chats, rate in rates.items()
        ],
        "recommended_flags": {"MAX_INPUT_TOKENS": "30000"}, "reasons": {"max_input_tokens": "the longest that held."},
        "advice": ["Not more than this."],
    }  # fmt: skip
    return {**document, **changes}


def probe(**changes: Any) -> Document:
    document = probe_file(**changes)
    return probe_document(as_type(ProbeFile, {**document, "document": document}, "probe.json"), "probe-of-an-L4")


def comparison() -> Document:
    return comparison_document(made_comparison())


def made_comparison() -> Comparison:
    """One figure that got slower, and one that cannot be told."""
    known = {"level": 1, "load": "8 users", "spread": 0.01, "spread_from": "repeats of both sides", "smallest": 0.03}
    slower = Change("ttft_p50", base=0.2, new=0.3, ratio=1.5, ci95=(1.4, 1.6), worse=0.5, limit=0.1, verdict="slower",
                    gated=True, passes=False, **known)  # fmt: skip
    open_one = Change("itl_p50", base=0.02, new=0.0202, ratio=1.01, ci95=(0.9, 1.13), worse=0.01, limit=0.1,
                      verdict="inconclusive", gated=True, passes=None, **known)  # fmt: skip
    sides = (("before/repeat-00", "before/repeat-01"), ("after/repeat-00", "after/repeat-01"))
    return Comparison(*sides, True, (slower, open_one), (), ("engine: tgi 3.3.6 -> tgi 3.3.7",))


def several() -> Document:
    """Two searches on unlike GPUs, a run and a probe."""
    return side_by_side(
        [
            capacity_document(searched("L4", 40.0)),
            capacity_document(searched("H100", 160.0)),
            run_document(sweep()),
            probe(),
        ]
    )


def gone() -> Document:
    """A search whose runs were removed."""
    return capacity_document(replace(searched(), manifest=None))


def begun() -> Document:
    """A search that was ended before its first level."""
    report = CapacityReport("m", "users", SLO, Habits(), None, (HistoryCapacity(None, _NOTHING, (), ()),))
    return capacity_document(SearchReport(report, report.as_dict(), None, "begun"))


def surface() -> Document:
    """A search over four histories."""
    report = capacity_report((1000, 80.0), (4000, 40.0), (16000, 12.0), (64000, 3.0))
    return capacity_document(SearchReport(report, report.as_dict(), manifest([], gpu="H100"), "surface"))


def three_gpus() -> Document:
    """One entry searched on three cards, for 50,000 people."""
    cards = {"L4": (40.0, 0.8), "L40S": (90.0, 1.9), "H100": (160.0, 3.0)}
    found = [searched(gpu, knee, price=price, users=50_000) for gpu, (knee, price) in cards.items()]
    return side_by_side([capacity_document(each) for each in found])


def trend() -> Document:
    """Twelve nights at 200 ms, twelve at 250 ms with another release."""
    plain = point_of(recorded([run(1)]), "plain")
    nights = [
        replace(
            plain,
            name=f"night {at}",
            starts=(f"2025-01-{1 + at:02}T00:00:00Z",),
            service={**plain.service, "engine": "tgi 3.3.7" if at < 12 else "tgi 3.3.8"},
            figures=(("8 users", "ttft_p50", (0.2 if at < 12 else 0.25) * (1 + 0.001 * (at % 5))),),
        )
        for at in range(24)
    ]
    return history_document(history(nights))


_NOTHING = CapacitySearch(Goal(1.0, True))
_MAKERS: dict[str, Callable[[], Document]] = {
    **{name: (lambda make=make: run_document(make())) for name, make in RUNS.items()},
    "capacity": lambda: capacity_document(searched()),
    "capacity_gone": gone,
    "capacity_begun": begun,
    "surface": surface,
    "probe": probe,
    "comparison": comparison,
    "side_by_side": several,
    "three_gpus": three_gpus,
    "history": trend,
}
DOCUMENTS = {name: cache(make) for name, make in _MAKERS.items()}
