"""Where the share of misses passes what an SLO allows: a monotone fit over all levels, and how sure it is.

The odds of a miss rise with the load; near the knee their logarithm is close to a straight line in that of the load
(D. J. Finney, Probit Analysis, 3rd ed. 1971, chapter 3, for the dose at which a given share responds; here the dose is
the load, the share what the bound allows to miss). Fitted are the knee c, the slope b > 0, and the spread s by which
the knee of one level differs from that of the next, as no service is the same twice (random effects as in R.
DerSimonian and N. Laird, "Meta-analysis in Clinical Trials", Controlled Clinical Trials 7 (1986) 177-188):

    logit miss(x) = logit allowed + b (ln x - ln c + s z),  z normal

Of n independent samples (dependence.py) the misses are binomial given z. Where there are many, their logit is normal
with variance 1 / (n p) + 1 / (n q) + (b s)^2 (D. R. Cox, The Analysis of Binary Data, 1970, section 3.2); where there
are few, the binomial is averaged over z by Gauss-Hermite quadrature. A level far from the knee only says that it lies
on this side of it, at least so far (a censored observation), as the line need not hold there. The interval of c is the
set that a likelihood ratio does not reject, at the least favourable slope and spread (A. W. F. Edwards, Likelihood,
1972, section 6.4), with Student's t in place of the normal distribution as the spread is estimated from few levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_ndtr, logit, stdtrit, xlogy

from harness.measure.records import Floats
from harness.stats.dependence import Batches, pooled_effect

FAR = 8.0  # times what is allowed, or that part of it: beyond, a level only tells its side
# Share of misses up to which a level beyond the knee is to lie on the line: a queue that outgrew its capacity misses
# more than any line says. At 1, searches of a queue claim more than the truth in 5 %; at 0.4, intervals are a fifth
# wider.
ON_THE_LINE = 0.7
APART = 0.15  # of the logarithm of the load: from here on a level says nothing of another
SATURATED_SHARE, SATURATED_SIZE = 0.5, 30.0  # what a queue that grew to the end stands for, at least
_SLOPES = np.geomspace(2.0, 300.0, 20)
# Near the knee a queue's odds of a miss rise by a power of its load of about rho ln 20 / (1 - rho), of decode steps by
# more. Slopes below are less likely beforehand, by so much of their logarithm; steeper ones are as likely.
_USUAL_SLOPE, _SLOPES_SPREAD = 16.0, 0.65
_UNLIKELY = (np.minimum(np.log(_SLOPES / _USUAL_SLOPE), 0.0) / _SLOPES_SPREAD) ** 2 / 2
# Of the logarithm of the load. Below one per cent no service is the same twice.
_SPREADS = np.array([0.007, 0.015, 0.03, 0.06, 0.12])
_GRID = 48
USUAL_SPREAD = 0.03  # mean of the exponential prior of the spread: levels on one side alone do not tell it
FEW = 8.0  # misses, or requests that met the bound: below, their logit is not normal
# A share over all levels is the mean over their spread, not that of the level in the middle, which misses less: by so
# much the logit at the knee is further out (S. L. Zeger, K.-Y. Liang and P. S. Albert, "Models for Longitudinal Data: A
# Generalized Estimating Equation Approach", Biometrics 44 (1988) 1049-1060, with c^2 = (16 sqrt(3) / 15 pi)^2).
_MEAN = np.sqrt(1 + 0.346 * (_SLOPES[:, None] * _SPREADS[None, :]) ** 2)[None]
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_WEIGHTS = (_WEIGHTS / _WEIGHTS.sum()).astype(np.float32)
NEGLIGIBLE = 0.1  # of a level's length: a shorter memory biases the level's mean by less than chance does
FAR_BEYOND = 0.3  # share of misses
_SMOOTH = 0.1  # of the logarithm of the load: how far neighbours reach
# Degrees of freedom that the levels' own word on their independent samples counts for beside what the levels scatter by
# about the line, and the factors between which that may correct it.
OWN_FREEDOM, SPREAD_FREEDOM, _FACTORS = 12.0, 1.0, (0.3, 4.0)


@dataclass(frozen=True)
class Dose:
    """One level as the fit sees it. miss: share of misses, 0 to 1. samples: behind it; size: the independent ones that
    they amount to by the level's own word, batches: how its parts differ, where known. saturated: the queue grew to the
    end, so that the share would have gone on rising. seconds: that it was measured for; 0: not known.
    """

    load: float
    miss: float
    samples: int
    size: float
    saturated: bool = False
    batches: Batches | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Knee:
    """The load at which the misses pass what is allowed. low, high: its interval; low is 0 and high infinite where no
    level shows such an end. spread: by how much levels were found to differ, of the logarithm of the load.
    """

    best: float
    low: float
    high: float
    slope: float
    spread: float


def fit_knee(doses: Sequence[Dose], allowed: float, confidence: float) -> Knee:
    """doses: at least one. allowed: share of misses, above 0 and below 1. confidence: of the interval, such as 0.95."""
    return KneeFit(doses, allowed).knee(confidence)


@dataclass(frozen=True)
class _Profile:
    """Log likelihood at each load of a grid, at the slope and spread that fit it best."""

    loads: Floats
    likelihood: Floats
    slopes: Floats
    spreads: Floats


class KneeFit:
    """The fit as it is, to be asked for intervals of several confidences. Arguments as of fit_knee."""

    def __init__(self, doses: Sequence[Dose], allowed: float) -> None:
        self.allowed = allowed
        self.loads = np.log([dose.load for dose in doses])
        saturated = np.array([dose.saturated for dose in doses])
        miss, size = np.array([dose.miss for dose in doses]), smoothed_sizes(doses)
        self.miss = np.where(saturated, np.maximum(miss, SATURATED_SHARE), miss)
        self.size = np.where(saturated, np.maximum(size, SATURATED_SIZE), size)
        self.samples = np.array([max(dose.samples, 1) for dose in doses], dtype=np.float64)
        sure = 2 * np.sqrt((self.miss + 1 / self.size) * (1 - self.miss + 1 / self.size) / self.size)
        holds, breaks = self.miss + sure < allowed, self.miss - sure > allowed
        # What lies well below a level that is sure to hold, or above one that is sure to break, adds but its side:
        # a share of misses that is the same at every load, such as of errors, must not bend the line.
        highest = self.loads[holds].max(initial=-np.inf)
        lowest = self.loads[breaks].min(initial=np.inf)
        far = (miss > min(FAR * allowed, (1 + allowed) / 2)) | ((miss > allowed) & (self.loads > lowest + APART))
        self.beyond = saturated | far
        self.miss = np.where(self.beyond, np.minimum(self.miss, ON_THE_LINE), self.miss)
        little = (miss < allowed / FAR) | (~breaks & (self.loads < highest - APART))
        self.below = little & ~self.beyond
        self.span = float(np.exp(self.loads.min())) / 4, float(np.exp(self.loads.max())) * 4
        self._seconds = np.array([dose.seconds for dose in doses])
        self._found: dict[tuple[float, float], Knee] = {}
        grid = np.geomspace(*self.span, _GRID)
        self._rescale(self._profile(grid))
        self._rough = self._profile(grid)

    def knee(self, confidence: float, below: float | None = None) -> Knee:
        """As _knee, which is kept: a search asks for the same several times between two levels."""
        asked = (confidence, below or confidence)
        if asked not in self._found:
            self._found[asked] = self._knee(*asked)
        return self._found[asked]

    def _knee(self, confidence: float, below: float) -> Knee:
        """confidence: of the interval, such as 0.95; below: of its lower end, which is to be surer."""
        least, most = self.span
        rough, top = self._rough, self._rough.likelihood.max()
        lower = self._rejected(below)
        rejected = max(self._rejected(confidence), lower)
        inside = rough.loads[rough.likelihood >= top - rejected]
        step = rough.loads[1] / rough.loads[0]
        fine = self._profile(np.geomspace(inside[0] / step, inside[-1] * step, _GRID))
        top = fine.likelihood.max()
        kept = [fine.loads[fine.likelihood >= top - each] for each in (lower, self._rejected(confidence))]
        best = fine.loads[fine.likelihood >= top - 1e-6]
        place = int(fine.likelihood.argmax())
        return Knee(
            best=math.sqrt(float(best[0]) * float(best[-1])),
            low=0.0 if inside[0] <= least * (1 + 1e-9) else float(kept[0][0]),
            high=math.inf if inside[-1] >= most * (1 - 1e-9) else float(kept[1][-1]),
            slope=float(fine.slopes[place]),
            spread=float(fine.spreads[place]),
        )

    def _rejected(self, confidence: float) -> float:
        """By how much of the log likelihood a knee is less likely than the best, to lie outside.

        How the levels scatter is known as well as there are levels, and as their own word tells, which does not tell by
        how much the service itself differs from level to level; and no better than independent misses were seen: where
        a queue outgrew the limit three times in all, levels that agree may do so by luck.
        """
        freedom = max(self.near - 2, 0) + OWN_FREEDOM
        if self.near > 2:
            near = ~(self.beyond | self.below)
            miss, size = self.miss[near], self.size[near]
            seen = size * np.minimum(miss, 1 - miss)
            place = int(self._rough.likelihood.argmax())
            strays = (self._rough.slopes[place] * max(self._rough.spreads[place], USUAL_SPREAD)) ** 2
            sampling = 1 / np.maximum(seen, 0.1)
            share = float(np.mean(sampling / (sampling + strays)))
            freedom = self.near - 2 + SPREAD_FREEDOM + (OWN_FREEDOM - SPREAD_FREEDOM) * share
            freedom = min(freedom, 2 + 2 * float(seen.sum()))
        return float(stdtrit(freedom, (1 + confidence) / 2)) ** 2 / 2

    @property
    def near(self) -> int:
        """Levels that say how far from the knee they are."""
        return int(np.count_nonzero(~(self.beyond | self.below)))

    @property
    def memory(self) -> float:
        """Seconds that amount to one independent sample in levels that tell of the knee."""
        told = self._telling
        return float(np.median(self._seconds[told] / self.size[told]))

    @property
    def length(self) -> float:
        """Seconds that such a level lasts, in the middle of them."""
        return float(np.median(self._seconds[self._telling]))

    @property
    def _telling(self) -> NDArray[np.bool_]:
        """The levels near the knee; where there are none the longer ones of those that are not beyond it, else all."""
        near, before = ~(self.beyond | self.below), ~self.beyond
        if near.any() or not before.any():
            return near if near.any() else np.ones(len(self.loads), dtype=np.bool_)
        return before & (self._seconds >= self._seconds[before].max() / 2)

    def seconds_for(self, misses: float) -> float:
        """How long a level near the knee is to last to show so many independent misses; 0 where none is near."""
        return misses / self.allowed * self.memory if self.near else 0.0

    def empty_start(self) -> float:
        """By how much of its logarithm the knee may lie lower, as levels begin with an empty queue and end before they
        forget it.

        The mean over a level differs from that in the long run by about the time that the queue remembers over the
        level's length (W. Whitt, "Planning Queueing Simulations", Management Science 35 (1989) 1341-1366); the load
        has to differ by that over the slope to make up for it. 0 where levels are long beside it.
        """
        part = self.memory / self.length if self.length else 0.0
        if part <= NEGLIGIBLE:
            return 0.0
        slope = float(self._rough.slopes[int(self._rough.likelihood.argmax())])
        # Few short levels tell the slope badly; it is not taken to be steeper than a queue's.
        return -math.log1p(-min(part, 0.5)) / min(max(slope, _USUAL_SLOPE / 2), _USUAL_SLOPE)

    def _rescale(self, profile: _Profile) -> None:
        """Correct the levels' sizes by how far they really lie from the line: a level is too short to tell how long its
        queue remembers, and several together tell it (the heterogeneity factor of P. McCullagh and J. A. Nelder,
        Generalized Linear Models, 2nd ed. 1989, section 4.5, shrunk towards the levels' own word).
        """
        near = ~(self.beyond | self.below)
        if self.near < 3:
            return
        place = int(profile.likelihood.argmax())
        slope, spread = profile.slopes[place], profile.spreads[place]
        line = logit(self.allowed) * math.sqrt(1 + 0.346 * (slope * spread) ** 2)
        expected = expit(line + slope * (self.loads - math.log(profile.loads[place])))[near]
        scatter = expected * (1 - expected)
        variance = scatter / self.size[near] + (slope * spread * scatter) ** 2
        # The square of a distance has variance 2, and 1 / (n p q) more where misses are few: most levels have none.
        tells = 1 / (1 + 1 / (2 * self.size[near] * scatter))
        freedom = float(tells.sum()) * (1 - 2 / self.near)
        distance = float(np.sum(tells * (self.miss[near] - expected) ** 2 / variance))
        factor = float(np.clip((freedom + OWN_FREEDOM) / (distance + OWN_FREEDOM), *_FACTORS))
        self.size[near] = np.minimum(self.size[near] * factor, self.samples[near])

    def _profile(self, loads: Floats) -> _Profile:
        """loads: ascending, of shape (n,)."""
        found = sum(self._likelihood(level, np.log(loads)) for level in range(len(self.loads)))
        prior = -_UNLIKELY[:, None] - _SPREADS / USUAL_SPREAD
        flat: Floats = (found + prior).reshape(len(loads), -1)
        best = flat.argmax(axis=1)
        slopes, spreads = np.unravel_index(best, (len(_SLOPES), len(_SPREADS)))
        return _Profile(loads, flat[np.arange(len(loads)), best], _SLOPES[slopes], _SPREADS[spreads])

    def _likelihood(self, level: int, knee: Floats) -> Floats:
        """Of one level; shape (knees, slopes, spreads)."""
        miss, size = float(self.miss[level]), float(self.size[level])
        away = _SLOPES[None, :, None] * (self.loads[level] - knee)[:, None, None]
        line = logit(self.allowed) * _MEAN + away
        if min(miss, 1 - miss) * size < FEW:
            return self._of_few(level, line)
        variance = 1 / (miss * size) + 1 / ((1 - miss) * size)
        deviation = np.sqrt(variance + (_SLOPES[:, None] * _SPREADS[None, :]) ** 2)[None]
        away = (line - logit(miss)) / deviation
        if self.beyond[level]:
            return log_ndtr(away)
        return log_ndtr(-away) if self.below[level] else -(away**2) / 2 - np.log(deviation)

    def _of_few(self, level: int, line: Floats) -> Floats:
        """The same by the binomial distribution, averaged over the spread. Single precision halves the time."""
        miss, size = float(self.miss[level]), float(self.size[level])
        off = _SLOPES[:, None, None] * _SPREADS[None, :, None] * _NODES[None, None, :]
        odds = np.clip((line[..., None] + off[None]).astype(np.float32), -16.0, 16.0)
        if self.beyond[level]:
            odds = np.minimum(odds, np.float32(logit(miss)))
        elif self.below[level]:
            odds = np.maximum(odds, np.float32(logit(miss)))
        # miss ln p + (1 - miss) ln(1 - p), p being 1 / (1 + exp(-odds))
        fit = np.float32(-size) * (np.log1p(np.exp(-odds)) + np.float32(1 - miss) * odds)
        fit -= np.float32(size * _certain(miss))
        found: Floats = np.log(np.exp(np.maximum(fit, -80.0)) @ _WEIGHTS).astype(np.float64)
        return found


def _certain(miss: float) -> float:
    return float(xlogy(miss, miss) + xlogy(1 - miss, 1 - miss))


def smoothed_sizes(doses: Sequence[Dose]) -> Floats:
    """Independent samples of each level, by what levels of about the same load say together (pooled_effect); one that
    is far beyond the knee says nothing of those beside it, where queues remember for less long.

    A level's own size is no weight: where a queue happened to grow there are many misses and few independent samples,
    and where it did not the reverse, so that a mean weighted by them would lean to the lucky ones. Therefore the
    samples behind one independent one are averaged over neighbours in load.
    """
    loads = np.log([dose.load for dose in doses])
    samples = np.array([max(dose.samples, 1) for dose in doses], dtype=np.float64)
    effect = np.log(samples / np.clip([dose.size for dose in doses], 0.5, samples))
    weights = np.exp(-(((loads[:, None] - loads[None, :]) / _SMOOTH) ** 2) / 2)
    own = np.exp((weights @ effect) / weights.sum(axis=1))
    batches = [None if dose.saturated or dose.miss > FAR_BEYOND else dose.batches for dose in doses]
    found = [pooled_effect(batches, weights[row], own[row]) for row in range(len(doses))]
    return samples / np.clip(found, 1.0, 2 * samples)
