"""Compares two groups of repeats: the ratio of each figure, its interval, and whether that passes a gate.

A ratio above 1 means that NEW's figure is larger. effect.py says how it and its interval come from the runs, and
good_share.py how answers that never came are counted. The interval decides: what it cannot exclude is never passed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from harness.stats.comparable import SUBJECT, differences, fit_runs, not_the_same_question, not_the_same_service
from harness.stats.comparison import MOST_REPEATS, UNKNOWN, Change, Comparison, Needs, Verdict
from harness.stats.effect import SURE, Effect, Spreads, effect, holm, repeats_needed
from harness.stats.gate import Gate
from harness.stats.good_share import GOOD_SHARE, loss
from harness.stats.metrics import BY_NAME
from harness.stats.run_figure import THROUGHPUT, LevelFigures, Measured
from harness.stats.run_figures import RunFigures
from harness.stats.slo import QUANTILES
from harness.units import format_number, format_percent

# What a gate looks at by default; one tail besides, where every run has enough requests for it. The others are shown.
PRIMARY = (GOOD_SHARE, "ttft_p50", "itl_p50", THROUGHPUT, "e2e_p50")
TAILS = ("ttft_p95", "e2e_p95")
SHOWN = ("ttft_p95", "itl_p95", "tpot_p50", "e2e_p95")
OF_A_METRIC = ("p50", "p95")  # quantiles that a gate means when it names a metric
NEED_A_STREAM = ("ttft", "service_ttft", "itl", "itl_per_token", "tpot")
LEAST_CHANGE = 0.001  # share: below, clocks and rounding decide
SAME_TOKENS = 1.05  # ratio of tokens per event up to which gaps between events are compared as they are
AGREE = 0.25  # share by which repeats of one side may differ before they are not repeats of one thing
FIRST_REPEATS = 5  # a side, where nothing is known of the spread between runs


def compare(
    base: Sequence[RunFigures],
    new: Sequence[RunFigures],
    gate: Gate | None = None,
    spreads: Spreads | None = None,
    same: Collection[str] = SUBJECT,
    sure: float = SURE,
) -> Comparison:
    """Each group holds one run, or several repeats of one setting. The same input gives the same output.

    spreads: between runs of the same service, workload and machine, for a side of a single run. same: what of the
    service must not differ between the sides, of SERVICE. sure: chance that a
    difference is shown where there is none, and that an interval does not hold the truth (effect.sure_at_each).
    """
    gate = gate or Gate()
    runs = [*base, *new]
    problems = [*the_same_run(runs), *not_the_same_question(runs), *not_the_same_service(base, new, same)]
    changes: list[Change] = []
    notes, left_out = list[str](), list[str]()
    if not problems:
        kept, unfit, notes = fit_runs(base, "BASE")
        also, more, others = fit_runs(new, "NEW")
        notes, problems = [*notes, *others], [*unfit, *more]
        changes, missing, left_out, told = _Changes(kept, also, gate, spreads or {}, sure).all()
        notes, problems = [*notes, *told], [*problems, *missing]
    open_ones = [change for change in changes if change.gated and change.passes is None]
    return Comparison(
        base=tuple(str(run.path) for run in base),
        new=tuple(str(run.path) for run in new),
        emulated=any(run.manifest.emulated for run in runs),
        changes=tuple(changes),
        problems=tuple(dict.fromkeys(problems)),
        differences=tuple(differences(base[0].manifest, new[0].manifest)),
        left_out=tuple(left_out),
        notes=tuple(dict.fromkeys(notes)),
        needs=_needs(open_ones, runs) if open_ones else None,
        undecided_passes=gate.undecided_passes,
    )


def the_same_run(runs: Sequence[RunFigures]) -> list[str]:
    """A run on both sides, or twice on one, is a slip of whoever wired the gate, and would pass anything."""
    return [
        f"{run.path} and {other.path} hold the same run"
        for place, run in enumerate(runs)
        for other in runs[place + 1 :]
        if run.moments is not None and run.moments == other.moments
    ]


def _needs(undecided: Sequence[Change], runs: Sequence[RunFigures]) -> Needs:
    repeats = max(change.needs for change in undecided)
    lengths = [_seconds(run) for run in runs]
    return Needs(repeats, repeats * 2 * sum(lengths) / len(lengths))


def _seconds(run: RunFigures) -> float:
    begun, ended = _moment(run.manifest.start), _moment(run.manifest.end)
    return max(0.0, ended - begun) if begun is not None and ended is not None else 0.0


def _moment(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None
    except ValueError:
        return None


class _Changes:
    """Every figure of every level."""

    def __init__(
        self, base: Sequence[RunFigures], new: Sequence[RunFigures], gate: Gate, spreads: Spreads, sure: float
    ) -> None:
        self.runs, self.gate, self.spreads, self.sure = (base, new), gate, spreads, sure
        self.sides = [[run.levels for run in side] for side in (base, new)]
        moments = [_moment(run.manifest.start) for run in (*base, *new)]
        known = [moment for moment in moments if moment is not None]
        # Runs that began at one moment, or nobody knows when, have no order.
        self.order = known if len(set(known)) == len(moments) else None
        self.missing: list[str] = []
        self.left_out: list[str] = []
        self.notes: list[str] = []

    def all(self) -> tuple[list[Change], list[str], list[str], list[str]]:
        """The changes, what is missing, what neither side can have, and what to know."""
        wanted = sorted({number for side in self.sides for levels in side for number in levels})
        found: dict[tuple[int, str], tuple[Change, Effect | None]] = {}
        if not wanted:
            self.missing.append("no level was measured")
        for number in wanted:
            if not all(number in levels for side in self.sides for levels in side):
                self.missing.append(f"level {number} was not measured in every run")
                continue
            parts = [[levels[number] for levels in side] for side in self.sides]
            for figure, gated in self._figures(parts).items():
                if (one := self._one(figure, gated, number, parts)) is not None:
                    found[number, figure] = one
        changes = [
            replace(
                each,
                accepted=self.gate.accepts(each.figure, each.load),
                expired=self.gate.accepted_once(each.figure, each.load),
            )
            for each in self._judged(found)
        ]
        self.notes += _on_acceptances(self.gate, changes)
        return changes, self.missing, self.left_out, self.notes

    def _figures(self, parts: list[list[LevelFigures]]) -> dict[str, bool]:
        """What is compared, and whether it counts: the primary ones, one tail, and what the gate names do."""
        streamed = any(run.manifest.stream for side in self.runs for run in side)
        every = [part for side in parts for part in side]
        tails = [name for name in TAILS if _is_told(name, streamed) and all(part.carries(name) for part in every)]
        chosen = {name: True for name in (*PRIMARY, *tails[:1]) if _is_told(name, streamed)}
        for name in self.gate.limits:
            whole = name.rpartition("_")[2] not in QUANTILES and name in BY_NAME
            chosen |= {f"{name}_{each}": True for each in OF_A_METRIC} if whole else {name: True}
        chosen |= {name: False for name in SHOWN if name not in chosen and _is_told(name, streamed)}
        return {self._per_token(name, parts): gated for name, gated in chosen.items()}

    def _per_token(self, figure: str, parts: list[list[LevelFigures]]) -> str:
        """Gaps of events that hold another number of tokens are another thing: then those per token are compared."""
        if not figure.startswith("itl_p") or self.gate.names(figure):
            return figure
        held = [part.tokens_per_event() for side in parts for part in side]
        alike = max(held) <= SAME_TOKENS * min(held) or any(math.isnan(each) for each in held)
        return figure if alike else figure.replace("itl_", "itl_per_token_")

    def _one(
        self, figure: str, gated: bool, level: int, parts: list[list[LevelFigures]]
    ) -> tuple[Change, Effect | None] | None:
        """The figure, not yet judged among the others; None where it is missing, which is noted."""
        load = parts[0][0].load
        nobody = None if self.gate.names(figure) else _why_nobody(figure, parts)
        if nobody is not None:
            self.left_out.append(f"{figure} at {load}: {nobody}")
            return None
        accepted = self.gate.accepts(figure, load)
        limit = self.gate.limit(figure) if accepted is None else accepted.limit
        if figure == GOOD_SHARE:
            share = self._share(level, parts, limit)
            return None if share is None else (share, None)
        values = [[part.measured(figure) for part in side] for side in parts]
        known = [[each for each in side if each is not None] for side in values]
        if any(len(side) < len(all_of) for side, all_of in zip(known, values, strict=True)):
            if gated:
                self.missing.append(f"{figure} is missing at {load}")
            return None
        before, after = known
        if any(math.isinf(each.value) for each in before):
            self.missing.append(f"{figure} cannot be compared at {load}: too few of BASE's requests were answered")
            return None
        if gated and len(before) > 1:
            self._agreement("BASE", figure, load, before)
        if any(math.isinf(each.value) for each in after):
            return _never(figure, level, load, _mean(before), limit, gated), None
        if gated and len(after) > 1:
            self._agreement("NEW", figure, load, after)
        spread = self.spreads.get((load, figure))
        found = effect(
            [math.log(each.value) for each in before],
            [math.log(each.value) for each in after],
            ([each.within for each in before], [each.within for each in after]),
            self.order,
            spread,
        )
        source = "repeats" if min(len(before), len(after)) > 1 else UNKNOWN if found is None else "A/A"
        if found is not None and source == "A/A" and spread is None:
            source = "repeats of one side"
        change = _unjudged(figure, level, load, _mean(before), _mean(after), limit, gated, source)
        if found is None:
            return self._within_one_run(change, before[0], after[0]), None
        if gated and found.trend is not None:
            moved = f"{'+' if found.trend > 0 else '−'}{format_percent(abs(math.expm1(found.trend)))}"
            self.notes.append(f"drift: {figure} at {load} moved by {moved} from run to run; that is taken out")
        if gated and found.apart:
            self.notes.append(
                "the sides ran one after the other: a drift of the machine or the service would look like a change. "
                "Interleave them"
            )
        return replace(change, trend=None if found.trend is None else math.expm1(found.trend)), found

    def _agreement(self, side: str, figure: str, load: str, values: Sequence[Measured]) -> None:
        """Repeats that differ by far more than their own requests scatter are not repeats of one thing."""
        logs = [math.log(each.value) for each in values]
        reach = max(logs) - min(logs)
        most = max(math.log1p(AGREE), math.log1p(2 * self.gate.limit(figure)), 6 * max(each.within for each in values))
        if reach > most:
            low, high = (format_number(math.exp(end)) for end in (min(logs), max(logs)))
            self.missing.append(
                f"{side}'s repeats do not agree: {figure} at {load} is {low} in one and {high} in another"
            )

    def _within_one_run(self, change: Change, before: Measured, after: Measured) -> Change:
        """What the requests of two runs tell, which is nothing of how much runs differ."""
        reach = 1.96 * math.hypot(before.within, after.within)
        ratio = math.log(change.ratio)
        return replace(change, ci95=(math.exp(ratio - reach), math.exp(ratio + reach)), needs=FIRST_REPEATS - 1)

    def _share(self, level: int, parts: list[list[LevelFigures]], limit: float) -> Change | None:
        found, load = loss(parts[0], parts[1], self.sure), parts[0][0].load
        if found is None:
            self.missing.append(f"no request was due at {load} in the window")
            return None
        passes = True if found.highest < limit else False if found.lowest > limit else None
        verdict: Verdict = (
            "slower" if found.lowest > 0 else "faster" if found.highest < 0 else
            "same" if max(-found.lowest, found.highest) < limit else "inconclusive"
        )  # fmt: skip
        runs = len(parts[1])
        # So many requests that one more side without a miss would decide.
        requests = math.log(self.sure / 2) / math.log1p(-limit) if limit > max(found.lost, 0) else math.inf
        more = math.ceil(runs * requests / max(found.requests, 1)) - runs if math.isfinite(requests) else MOST_REPEATS
        was = max(found.base, 1e-9)
        return Change(
            figure=GOOD_SHARE,
            level=level,
            load=load,
            base=found.base,
            new=found.new,
            ratio=found.new / was,
            ci95=((found.base - found.highest) / was, (found.base - found.lowest) / was),
            worse=found.lost,
            spread=None,
            spread_from="requests",
            smallest=None,
            limit=limit,
            verdict=verdict,
            gated=True,
            passes=passes,
            needs=0 if passes is not None else max(1, min(more, MOST_REPEATS)),
        )

    def _judged(self, found: Mapping[tuple[int, str], tuple[Change, Effect | None]]) -> list[Change]:
        """With the verdicts, which take into account how many figures were looked at."""
        ps = {key: each.p for key, (change, each) in found.items() if each is not None and change.gated}
        corrected = holm(ps)
        runs = min(len(side) for side in self.runs)
        return [
            change
            if each is None
            else _verdict(change, each, corrected.get(key, each.p), max(len(ps), 1), runs, self.sure)
            for key, (change, each) in found.items()
        ]


def _on_acceptances(gate: Gate, changes: Sequence[Change]) -> list[str]:
    """Of accepted regressions those that ended, and those that the file could do without."""
    found = []
    for each in gate.accepted:
        about = [change for change in changes if change.gated and each in (change.accepted, change.expired)]
        if not gate.in_force(each):
            found.append(f"no longer accepted, it expired: {each}")
        elif not about:
            found.append(f"accepted, but nothing here is gated by it: {each}")
        elif all(change.most_worse < gate.limit(change.figure) for change in about):
            found.append(f"accepted, but no longer needed: {each}")
    return found


def _is_told(figure: str, streamed: bool) -> bool:
    return streamed or figure.rpartition("_")[0] not in NEED_A_STREAM


def _mean(values: Sequence[Measured]) -> float:
    """Geometric, as the ratio is one of logarithms."""
    return math.exp(float(np.mean([math.log(each.value) for each in values])))


def _unjudged(
    figure: str, level: int, load: str, base: float, new: float, limit: float, gated: bool, source: str
) -> Change:
    ratio = new / base
    worse = (1 / ratio if figure == THROUGHPUT else ratio) - 1
    return Change(
        figure=figure,
        level=level,
        load=load,
        base=base,
        new=new,
        ratio=ratio,
        ci95=(math.nan, math.nan),
        worse=worse,
        spread=None,
        spread_from=source,
        smallest=None,
        limit=limit,
        verdict="inconclusive",
        gated=gated,
        passes=None,
    )


def _never(figure: str, level: int, load: str, base: float, limit: float, gated: bool) -> Change:
    """So many of NEW's requests were never answered that the quantile lies among them."""
    never = _unjudged(figure, level, load, base, math.inf, limit, gated, "requests")
    return replace(never, ci95=(math.inf, math.inf), verdict="slower", passes=False)


def _verdict(change: Change, found: Effect, p: float, compared: int, runs: int, sure: float) -> Change:
    """Fills in what the effect says. p: corrected. The same means: no change is shown, and one beyond the limit is
    excluded in both directions.
    """
    low, high = found.interval(1 - sure)
    down = change.figure == THROUGHPUT
    worse, least, worst = (-found.difference, -high, -low) if down else (found.difference, low, high)
    margin = math.log1p(change.limit)
    shown = p < sure and abs(worse) > LEAST_CHANGE
    verdict: Verdict = "inconclusive"
    if shown:
        verdict = "slower" if worse > 0 else "faster"
    elif -margin <= least and worst <= margin:
        verdict = "same"
    passes = True if worst < margin else False if least > margin and shown else None
    needs = 0
    if passes is None:
        needs = repeats_needed(max(abs(margin - worse), 1e-3), found.spread, runs + 1, sure) - runs
    return replace(
        change,
        ratio=math.exp(found.difference),
        ci95=(math.exp(low), math.exp(high)),
        worse=math.expm1(worse),
        spread=math.expm1(found.spread),
        smallest=math.expm1(found.smallest(compared, sure)),
        verdict=verdict,
        passes=passes,
        needs=min(needs, MOST_REPEATS),
    )


def _why_nobody(figure: str, parts: list[list[LevelFigures]]) -> str | None:
    """Why no run of either side has this figure; None where one has it, or where nobody knows why."""
    if figure == GOOD_SHARE:
        return None
    causes = [part.why_absent(figure) for side in parts for part in side]
    return causes[0] if all(cause is not None for cause in causes) else None
