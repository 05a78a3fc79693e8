"""Two runs, or two groups of repeats: the ratio of each figure, and whether it is more than noise.

A ratio above 1 means that NEW's figure is larger. Its interval comes from resampling requests (and runs, where there
are repeats). A change is called one only if it is more than the resampling spread, at a level corrected for the number
of figures looked at (Bonferroni), and more than the noise floor: what two measurements of the same thing were seen to
differ by, between repeats, or between the halves of each run where there are none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from harness.measure.run import Run
from harness.stats.absence import NOT_TOLD, main_cause
from harness.stats.comparable import differences, not_the_same_question, unfit
from harness.stats.metrics import BY_NAME
from harness.stats.ratio import THROUGHPUT, Part, levels_of, quantile_ratio, throughput_ratio
from harness.stats.resample import interval
from harness.stats.slo import QUANTILES
from harness.stats.summary import summarise
from harness.stats.tokens import counted, tokens_per_event

Verdict = Literal["same", "faster", "slower", "inconclusive"]

DEFAULT_LIMIT = 0.10
DEFAULT_FIGURES = ("ttft_p50", "ttft_p95", "itl_p50", "itl_p95", "tpot_p50", "e2e_p50", "e2e_p95", THROUGHPUT)
NEED_A_STREAM = ("ttft", "service_ttft", "itl", "itl_per_token", "tpot")
LEAST_CHANGE = 0.001  # share: below, clocks and rounding decide
SAME_TOKENS = 1.05  # ratio of tokens per event up to which gaps between events are compared as they are


@dataclass(frozen=True)
class Gate:
    """What NEW may not exceed. limits: figure -> share by which it may be worse. default: of the figures not named.

    inconclusive_fails: a figure that may be worse by more than its limit, but may as well not, fails the gate.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    default: float = DEFAULT_LIMIT
    inconclusive_fails: bool = False

    def limit(self, figure: str) -> float:
        return self.limits.get(figure, self.limits.get(figure.rpartition("_")[0], self.default))


@dataclass(frozen=True)
class Change:
    """One figure of one level. base, new: seconds, or tokens per second. ratio: new / base.

    ci95: of the ratio. noise_floor: share by which two measurements of the same thing differ. smallest: share of the
    smallest change that this data could have shown. limit: share by which it may be worse. passes: the gate.
    """

    figure: str
    level: int
    load: str
    base: float
    new: float
    ratio: float
    ci95: tuple[float, float]
    noise_floor: float
    smallest: float
    limit: float
    verdict: Verdict
    passes: bool

    @property
    def worse(self) -> float:
        """How much worse NEW is, as a share of BASE; negative where it is better."""
        return (1 / self.ratio if self.figure == THROUGHPUT else self.ratio) - 1

    def as_dict(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "load": self.load,
            "base": self.base,
            "new": self.new,
            "ratio": self.ratio,
            "ci95": list(self.ci95),
            "noise_floor": self.noise_floor,
            "smallest_detectable_change": self.smallest,
            "limit": self.limit,
            "verdict": self.verdict,
            "passes": self.passes,
        }


@dataclass(frozen=True)
class Comparison:
    """problems: why the two cannot be compared, or a figure is missing; any of them fails the gate.

    differences: what else is not the same, for the reader: model, engine, settings. left_out: figures that neither side
    can have, and why, which say nothing for or against NEW.
    """

    base: tuple[str, ...]
    new: tuple[str, ...]
    emulated: bool
    changes: tuple[Change, ...]
    problems: tuple[str, ...]
    differences: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        found = {change.verdict for change in self.changes}
        if self.problems or not found:
            return "inconclusive"
        order: tuple[Verdict, ...] = ("slower", "inconclusive", "faster", "same")
        return next(verdict for verdict in order if verdict in found)

    @property
    def passes(self) -> bool:
        return not self.problems and all(change.passes for change in self.changes)

    def as_dict(self) -> dict[str, Any]:
        worst: dict[str, Change] = {}
        for change in sorted(self.changes, key=_severity):
            worst.setdefault(change.figure, change)
        names = dict.fromkeys(change.figure for change in self.changes)
        levels = dict.fromkeys((change.level, change.load) for change in self.changes)
        return {
            "verdict": self.verdict,
            "passes": self.passes,
            "emulated": self.emulated,
            "base": list(self.base),
            "new": list(self.new),
            "problems": list(self.problems),
            "differences": list(self.differences),
            "left_out": list(self.left_out),
            "metrics": {name: worst[name].as_dict() for name in names},
            "levels": [
                {
                    "level": level,
                    "load": load,
                    "metrics": {each.figure: each.as_dict() for each in self.changes if each.level == level},
                }
                for level, load in levels
            ],
        }


def compare(base: Sequence[Run], new: Sequence[Run], gate: Gate | None = None) -> Comparison:
    """Each group holds one run, or several repeats of one setting. The same input gives the same output."""
    gate = gate or Gate()
    runs = [*base, *new]
    asked = not_the_same_question(runs)
    problems = [*unfit([summarise(run.records, run.manifest, run.facts) for run in runs]), *asked]
    changes, missing, left_out = ([], [], []) if asked else _changes(base, new, gate)
    return Comparison(
        base=tuple(str(run.folder.path) for run in base),
        new=tuple(str(run.folder.path) for run in new),
        emulated=any(run.manifest.emulated for run in runs),
        changes=tuple(changes),
        problems=(*problems, *missing),
        differences=tuple(differences(base[0], new[0])),
        left_out=tuple(left_out),
    )


def _changes(base: Sequence[Run], new: Sequence[Run], gate: Gate) -> tuple[list[Change], list[str], list[str]]:
    """Every figure of every level, what is missing, and what neither side can have."""
    sides = [[levels_of(run) for run in side] for side in (base, new)]
    wanted = sorted({number for side in sides for levels in side for number in levels})
    figures = _figures(gate, [*base, *new])
    changes: list[Change] = []
    missing, left_out = [] if wanted else ["no level was measured"], list[str]()
    for number in wanted:
        if not all(number in levels for side in sides for levels in side):
            missing.append(f"level {number} was not measured in every run")
            continue
        parts = [[levels[number] for levels in side] for side in sides]
        chosen = [_per_token(figure, gate, parts) for figure in figures]
        for figure in chosen:
            nobody = None if _named(figure, gate) else _why_nobody(figure, parts)
            if nobody is not None:
                left_out.append(f"{figure} at {parts[0][0].load}: {nobody}")
                continue
            found = _change(figure, number, parts[0], parts[1], gate, len(figures) * len(wanted))
            if isinstance(found, str):
                missing.append(found)
            else:
                changes.append(found)
    return changes, missing, left_out


def _named(figure: str, gate: Gate) -> bool:
    """Whether the gate names the figure, or its metric: then it must be there."""
    return figure in gate.limits or figure.rpartition("_")[0] in gate.limits


def _per_token(figure: str, gate: Gate, parts: list[list[Part]]) -> str:
    """The gaps of events that hold another number of tokens are another thing: then those per token are compared."""
    if not figure.startswith("itl_p") or _named(figure, gate):
        return figure
    held = [tokens_per_event(part.completed) for side in parts for part in side]
    alike = max(held) <= SAME_TOKENS * min(held) or any(math.isnan(each) for each in held)
    return figure if alike else figure.replace("itl_", "itl_per_token_")


def _why_nobody(figure: str, parts: list[list[Part]]) -> str | None:
    """Why no run of either side has this figure; None where one has it, or where nobody knows why."""
    every = [part for side in parts for part in side]
    if figure == THROUGHPUT:
        untold = all(len(part.completed) and not counted(part.completed).any() for part in every)
        return NOT_TOLD.text if untold else None
    metric = figure.rpartition("_")[0]
    if any(len(BY_NAME[metric].of(part.completed).samples) for part in every):
        return None
    causes = [main_cause(part.completed, metric) for part in every]
    texts = [cause[0].text for cause in causes if cause is not None]
    return texts[0] if len(texts) == len(every) else None


def _figures(gate: Gate, runs: Sequence[Run]) -> list[str]:
    """What is compared: the default ones and those that the gate names.

    Without a stream only what needs none; in an open loop not the throughput, which is what was offered.
    """
    named = [name for name in gate.limits if name == THROUGHPUT or name.rpartition("_")[2] in QUANTILES]
    chosen = dict.fromkeys([*DEFAULT_FIGURES, *named])
    streamed = any(run.manifest.stream for run in runs)
    if all(level.users is None for run in runs for level in run.manifest.levels) and THROUGHPUT not in named:
        del chosen[THROUGHPUT]
    return [name for name in chosen if streamed or name in named or name.rpartition("_")[0] not in NEED_A_STREAM]


def _change(figure: str, level: int, base: list[Part], new: list[Part], gate: Gate, compared: int) -> Change | str:
    measured = throughput_ratio(base, new) if figure == THROUGHPUT else quantile_ratio(figure, base, new)
    if isinstance(measured, str):
        return f"{measured} at {base[0].load}"
    limit, ratio = gate.limit(figure), measured.new / measured.base
    worse = -math.log(ratio) if figure == THROUGHPUT else math.log(ratio)
    spread = float(np.std(np.log(measured.draws)))
    smallest = max(math.expm1(NormalDist().inv_cdf(1 - 0.025 / compared) * spread), measured.noise_floor, LEAST_CHANGE)
    ci95 = interval(measured.draws)
    verdict = "same" if _identical(base, new) else _verdict(worse, ci95, math.log1p(smallest), limit)
    unsure = verdict == "inconclusive" and gate.inconclusive_fails
    return Change(
        figure=figure,
        level=level,
        load=base[0].load,
        base=measured.base,
        new=measured.new,
        ratio=ratio,
        ci95=ci95,
        noise_floor=measured.noise_floor,
        smallest=smallest,
        limit=limit,
        verdict=verdict,
        passes=not unsure and not (verdict == "slower" and math.expm1(worse) > limit),
    )


def _identical(base: list[Part], new: list[Part]) -> bool:
    """The very same records on both sides: whatever the spread, they do not differ."""
    pairs = zip(base, new, strict=False)
    return len(base) == len(new) and all(
        np.array_equal(one.records.token_at, other.records.token_at)
        and np.array_equal(one.records.scheduled_at, other.records.scheduled_at)
        for one, other in pairs
    )


def _verdict(worse: float, ci95: tuple[float, float], smallest: float, limit: float) -> Verdict:
    """worse, smallest: as logarithms of a ratio. The same means: no change, and one beyond the limit is excluded."""
    excludes_one = ci95[0] > 1 or ci95[1] < 1
    if excludes_one and abs(worse) > smallest:
        return "slower" if worse > 0 else "faster"
    margin = math.log1p(limit)
    within = -margin <= math.log(ci95[0]) and math.log(ci95[1]) <= margin
    return "same" if within else "inconclusive"


def _severity(change: Change) -> tuple[bool, int, float]:
    order = ("slower", "inconclusive", "faster", "same")
    return change.passes, order.index(change.verdict), -change.worse
