"""Which load to measure next, from how those before fared: ask and tell; starts nothing.

    search = CapacitySearch(Goal(start=1, whole=True))
    while (ask := search.ask()) is not None:
        search.tell(measure(ask))
    search.answer()

First the load is doubled until the SLO breaks (halved until it does not), by short levels. From then on the monotone
fit over all levels (knee.py) says where the knee may lie, and longer levels are measured beside it: twice below it and
twice above it in turn, so that each side is come to once from the other and once from its own. A server whose cache is
full after an overload may serve less than before it; where the two ways disagree, the answer holds for both.
It ends when the interval is as narrow as wanted, or the budget is spent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.stats.failure_floor import NO_FLOOR, Floor, floor_of
from harness.stats.knee import NEGLIGIBLE, Dose, Knee, KneeFit
from harness.stats.outcome import Approach, Outcome
from harness.units import format_duration, format_percent

CONFIDENCE = 0.95  # what is promised
# What the fit is asked for, of the whole interval and of its lower end: the least favourable slope makes it wider than
# it says. Measured on made-up services (tests/stats/searches.py): then 95 % and more are covered.
FIT_CONFIDENCE, HOLDS_CONFIDENCE = 0.94, 0.97
ENOUGH_CONFIDENCE = 0.985  # at which it is to be narrow before a search ends within its budget
# Of a level's length, while the knee is only bracketed: the second where the first is longer than LEAST_SECONDS.
BRIEF, SHORT = 0.35, 1 / 6
LEAST_SECONDS = 10.0  # of a level: a shorter one is all warm-up
MOST_LEVELS = 80
MOST_OUTAGES = 1  # that a search lets pass
NOTABLE_FLOOR = 0.1  # of what the SLO allows to miss
MISSES_IN_LEVEL = 0.5  # independent ones, that a level beside the knee is to show
MOST_OF_BUDGET = 1 / 6  # that one level may take to show them
# Independent samples that a level beside the knee is to show, if that takes no longer than LONG_LEVEL: in shorter ones
# most of the time is spent before a queue is what it will be.
INDEPENDENT, LONG_LEVEL = 20.0, 60.0
GUESS_STEP = 1.4  # away from a first load that is near the limit
LOWEST = 64  # the lowest load that is tried is this part of the first
_AWAY = 0.2  # of the interval's width: how far from its middle levels are measured
_LEAST_AWAY, _MOST_AWAY = 0.012, 0.06
_NEAR = 0.15  # of the logarithm of the load: levels that count as beside the knee
_EACH_WAY = 3  # such levels come to from below, and from above, before a search ends early
# Two intervals of this confidence that do not meet are apart beyond chance: one time in fifty they are not.
_APART = 0.9
_AS_LIKELY_AS_NOT = 0.5
_FEW_MISSES = 2.5
_LONG_ENOUGH = 4  # long levels, from which on brief ones between them are no longer needed


@dataclass(frozen=True)
class Goal:
    """What is looked for. start: the first load. whole: loads are whole numbers. budget, level: seconds, of all levels
    and of one. precision: width of the interval, as a share of the load. most: the highest load that may be tried.
    guessed: the limit is thought to lie near the first load, so that the first step away from it is a small one.
    """

    start: float
    whole: bool
    budget: float = 1200.0
    level: float = 60.0
    precision: float = 0.1
    most: float = 1e5
    guessed: bool = False


@dataclass(frozen=True)
class Ask:
    """Measure this load for so many seconds, warm-up included. approach, brief: as in Outcome."""

    load: float
    seconds: float
    approach: Approach
    brief: bool


@dataclass(frozen=True)
class Answer:
    """holds: the highest load that is sure to hold; 0: none is. breaks: the lowest that is sure to break; None: none
    was found. best: estimate of the highest that holds; None where it can only be bounded. limited_by: the bound that
    breaks first, or what failed where that alone breaks it. narrow: within the precision that was asked for. notes:
    what to know of it, in sentences.
    """

    holds: float
    breaks: float | None
    best: float | None
    limited_by: str | None = None
    narrow: bool = False
    notes: tuple[str, ...] = ()
    confidence: float = CONFIDENCE

    def as_dict(self) -> dict[str, Any]:
        return {"holds": self.holds, "breaks": self.breaks, "best": self.best, "confidence": self.confidence}


class CapacitySearch:
    """Ask and tell; `told` are the outcomes so far, in order."""

    def __init__(self, goal: Goal, told: Iterable[Outcome] = ()) -> None:
        self.goal = goal
        self.told: list[Outcome] = list(told)
        # By the number of levels told, as a fit takes some milliseconds.
        self._level: tuple[int, tuple[Floor, Sequence[Outcome]]] = (-1, (NO_FLOOR, ()))
        self._fitted: tuple[int, dict[str, KneeFit]] = (-1, {})
        self._ways: tuple[int, list[tuple[KneeFit | None, set[bool]]]] = (-1, [])

    def tell(self, outcome: Outcome) -> None:
        self.told.append(outcome)

    @property
    def left_out(self) -> frozenset[int]:
        """Places in `told` of levels whose outage is no sign of the load: it is measured again at once, and where the
        service goes away again, at that load or another, the load may be why.
        """
        away = frozenset(place for place, each in enumerate(self.told) if each.outage)
        return away if len(away) <= MOST_OUTAGES else frozenset()

    @property
    def counted(self) -> list[Outcome]:
        """Those of `told` that the answer rests on."""
        without = self.left_out
        return [each for place, each in enumerate(self.told) if place not in without]

    @property
    def spent(self) -> float:
        """Seconds."""
        return sum(each.seconds for each in self.told)

    def ask(self) -> Ask | None:
        """The next level; None when the answer is narrow enough, or cannot be had within the budget."""
        load, brief = self._next()
        left = self.goal.budget - self.spent
        seconds = min(left, self._brief if brief else self._long)
        if left - seconds < self.goal.level / 2 and not brief:
            seconds = left  # a rest is better spent here than on a level that is half warm-up
        least = min(LEAST_SECONDS, BRIEF * self.goal.level)
        if load is None or seconds < least * 0.999 or len(self.told) >= MOST_LEVELS:
            return None
        last = self._levels[-1] if self._levels else None
        above = last is not None and last.tells and not last.seems_to_hold
        return Ask(load, seconds, "above" if above else "below", brief)

    @property
    def _brief(self) -> float:
        """Seconds of a level that is only to show on which side of the knee it is."""
        level = self.goal.level
        return max(SHORT * level, min(LEAST_SECONDS, BRIEF * level))

    @property
    def _long(self) -> float:
        """Seconds of a level beside the knee: longer where few independent misses come in one, as of a queue that
        remembers for long, or of a bound that few may miss. A level begins with an empty queue, and shows too few.
        """
        level = self.goal.level
        if not any(not each.brief for each in self.told) or not (knees := self._knees()):
            return level
        name = min(knees.items(), key=lambda each: each[1].best)[0]
        fit = self._fitted[1][name]
        needed = max(fit.seconds_for(MISSES_IN_LEVEL), min(INDEPENDENT * fit.memory, LONG_LEVEL))
        return max(level, min(needed, self.goal.budget * MOST_OF_BUDGET))

    def answer(self) -> Answer:
        """What is known so far."""
        return self._answer(sure=False)

    def _answer(self, sure: bool) -> Answer:
        if not self.told:
            return Answer(0.0, None, None, notes=("No level was measured.",))
        knees = self._knees(sure)
        if not knees:
            return Answer(0.0, None, None, notes=("No level gave a figure that the SLO could be held against.",))
        name, first = min(knees.items(), key=lambda each: each[1].best)
        low, high = (min(getattr(each, end) for each in knees.values()) for end in ("low", "high"))
        low, high = self._with_what_was_decided(low, high)
        notes = self._outages()
        for way in self._either_way(name):
            low, high = min(low, way.low), max(high, way.high)
        apart = self._apart(name)
        if apart is not None:
            below, above = apart
            low, high = min(low, below.low, above.low), max(high, below.high, above.high)
            notes.append(
                f"Coming from a higher load the limit is about {above.best:.3g}, from a lower one {below.best:.3g}: "
                "the service does not recover from an overload at once."
            )
        fit = self._fitted[1][name]
        if empty_start := fit.empty_start():
            low *= math.exp(-empty_start)
            notes.append(_too_short(fit))
        floor, _ = self._floor_and_levels
        part = floor.share / self._least_allowed
        if part > NOTABLE_FLOOR:
            always = f"{format_percent(floor.share)} of the requests fail at any load"
            notes.append(f"{always}: they take up {format_percent(part)} of what the SLO allows to miss.")
        return self._rounded_answer(name, first, low, high, notes)

    def _outages(self) -> list[str]:
        """What became of levels in which the service was away."""
        away = [each for each in self.told if each.outage]
        if not away:
            return []
        spans = ", ".join(f"{format_duration(each.outage)} at {each.load:.3g}" for each in away)
        what = "that level is left out, and its load was measured again"
        if not self.left_out:
            what = "as that was more than once, the load may be why, and these levels count"
        return [f"The service was away and answered nobody for {spans}: {what}."]

    def _with_what_was_decided(self, low: float, high: float) -> tuple[float, float]:
        """Wider where levels speak against the fitted interval: no load breaks at which more levels are decided to hold
        than to break, and none holds at which more break. Such as where some requests miss at any load, and the curve
        is no line.
        """
        votes: Counter[float] = Counter()
        for each in self._trusted():
            votes[each.load] += {"holds": 1, "breaks": -1, "undecided": 0}[each.decision]
        held = max((load for load, vote in votes.items() if vote > 0), default=0.0)
        broke = min((load for load, vote in votes.items() if vote < 0), default=math.inf)
        if self.goal.whole:
            broke -= 1  # the highest load that may hold beside one that breaks
        return min(low, max(broke, 0.0)), max(high, held)

    def _rounded_answer(self, name: str, first: Knee, low: float, high: float, notes: list[str]) -> Answer:
        whole, tried = self.goal.whole, max(each.load for each in self._levels)
        holds = float(math.floor(low)) if whole else low
        if all(each.seems_to_hold for each in self._levels if each.tells):
            notes.insert(0, f"Every level up to {tried:g} held: the limit lies above what was tried.")
            return Answer(min(holds, tried), None, None, None, False, tuple(notes))
        if not any(each.seems_to_hold for each in self._levels):
            least = min(each.load for each in self._levels)
            notes.insert(0, f"Not even {least:g} held.")
            by = self._limited_by(name, least)
            return Answer(0.0, None if math.isinf(high) else least, None, by, False, tuple(notes))
        breaks = None if math.isinf(high) else float(math.floor(high) + 1) if whole else high
        best = first.best
        if whole:
            best = max(float(math.floor(best)), holds)
            best = min(best, breaks - 1) if breaks is not None else best
        narrow = breaks is not None and breaks - holds <= max(self.goal.precision * best, 1.0 if whole else 0.0)
        if not narrow:
            notes.append("The budget was spent before the interval was as narrow as asked for.")
        if sum(each.drifts for each in self.told) > len(self.told) / 3:
            notes.append("Many levels drifted: the service got slower or faster while it was measured.")
        return Answer(holds, breaks, best, self._limited_by(name, first.best), narrow, tuple(notes))

    def _limited_by(self, name: str, best: float) -> str:
        """This bound, unless failures alone broke it at the level nearest to the limit."""
        broken = [each for each in self._levels if each.tells and not each.seems_to_hold]
        near = min(broken, key=lambda each: (abs(each.load - best), each.brief), default=None)
        kind = None if near is None else near.main_failure
        if kind is None:
            return name
        return "refused requests (queue limit)" if kind == "overloaded" else f"failed requests ({kind})"

    def _next(self) -> tuple[float | None, bool]:
        """The next load, None when nothing is left to do; and whether a brief level is enough."""
        goal = self.goal
        if len(self.told) - 1 in self.left_out:
            return self.told[-1].load, self.told[-1].brief  # the service was away
        told = [each for each in self._levels if each.tells or not each.brief]
        if self.told and self.told[-1].brief and not self.told[-1].tells:
            return self.told[-1].load, False  # once more, at length
        if not told:
            return self._rounded(goal.start), True
        broke = [each.load for each in told if not each.seems_to_hold and not _by_chance(each)]
        held = [each.load for each in told if each.seems_to_hold]
        if not broke:
            most = max(each.load for each in told)
            if most >= goal.most:
                return None, True
            return min(max(self._rounded(self._step * most), most + 1 if goal.whole else most), goal.most), True
        if not held:
            least = min(broke)
            if (goal.whole and least <= 1) or least <= goal.start / LOWEST:
                at_length = any(each.load == least and not each.brief for each in told)
                return (None if at_length else least), False  # at length, before it is given up
            return self._rounded(least / self._step), True
        below = max(held)
        above = min((load for load in broke if load > below), default=below)
        middle = self._rounded(math.sqrt(above * below))
        if above > 1.5 * below and not any(each.load == middle and not each.brief for each in told):
            return middle, not any(each.load == middle for each in told)
        answer = self._answer(sure=True)
        if answer.narrow and self._both_ways(answer.best or goal.start):
            return None, False
        return self._between_decided(below, above) or self._beside_the_knee(), False

    @property
    def _step(self) -> float:
        """Factor to the next load while all levels are on one side."""
        return GUESS_STEP if self.goal.guessed and len({each.load for each in self.told}) < 2 else 2.0

    def _between_decided(self, below: float, above: float) -> float | None:
        """In the middle of a gap whose ends are decided: the knee is sharp and lies in it. None where it is not so."""
        sure = {each.load for each in self.told if each.decision == ("holds" if each.load <= below else "breaks")}
        limit = min(self._knees().items(), key=lambda each: each[1].best)[0]
        if self._apart(limit) is not None or not {below, above} <= sure or above / below <= 1 + self.goal.precision / 3:
            return None
        middle = self._rounded(math.sqrt(above * below))
        return middle if below < middle < above else None

    def _both_ways(self, best: float) -> bool:
        """Beside the knee a level holds that was come to from above, and one breaks that was come to from below; and
        there are enough of each way: how much levels differ is not known of a few.
        """
        near = [each for each in self._levels if abs(math.log(each.load / best)) < _NEAR]
        ways = [sum(each.approach == way for each in near) for way in ("below", "above")]
        crossed = {(each.approach, each.seems_to_hold) for each in near}
        return min(ways) >= _EACH_WAY and {("above", True), ("below", False)} <= crossed

    def _beside_the_knee(self) -> float:
        """Twice below it, twice above it, and so on: what is first thought of it lies high, as brief levels show few
        misses, and a level beyond it tells little.
        """
        name, knee = min(self._knees().items(), key=lambda each: each[1].best)
        high = knee.high if math.isfinite(knee.high) else 2 * knee.best
        width = math.log(high / max(knee.low, knee.best / 2))
        away = min(max(_AWAY * width, _LEAST_AWAY), _MOST_AWAY)
        upwards = sum(not each.brief for each in self.told) % 4 >= 2
        apart = self._apart(name)
        best = knee.best if apart is None else (max if upwards else min)(each.best for each in apart)
        load = best * math.exp(away if upwards else -away)
        if not self.goal.whole:
            return min(load, self.goal.most)
        # The estimate lies between the highest that holds and the next: those two at least.
        load = max(round(load), math.floor(best) + 1) if upwards else min(round(load), math.floor(best))
        return min(max(1.0, float(load)), self.goal.most)

    def _knees(self, sure: bool = False) -> dict[str, Knee]:
        """Of each bound that was judged, by its name. sure: with the confidence at which a search may end early."""
        if self._fitted[0] != len(self.told):
            self._fitted = (len(self.told), self._fits(self._trusted()))
        asked = (ENOUGH_CONFIDENCE, ENOUGH_CONFIDENCE) if sure else (FIT_CONFIDENCE, HOLDS_CONFIDENCE)
        return {name: fit.knee(*asked) for name, fit in self._fitted[1].items()}

    @property
    def _least_allowed(self) -> float:
        """Share of the requests that the strictest bound allows to miss."""
        return 1 - max((share.needed for each in self.told for share in each.shares), default=0.0)

    @property
    def _floor_and_levels(self) -> tuple[Floor, Sequence[Outcome]]:
        if self._level[0] != len(self.told):
            counted = self.counted
            floor = floor_of(counted, self._least_allowed)
            self._level = (len(self.told), (floor, [floor.levelled(each) for each in counted]))
        return self._level[1]

    @property
    def _levels(self) -> Sequence[Outcome]:
        """Those told, as if in each of them as many requests had failed as do at any load (failure_floor.py)."""
        return self._floor_and_levels[1]

    def _fits(self, levels: Sequence[Outcome]) -> dict[str, KneeFit]:
        floor, _ = self._floor_and_levels
        allowed = {share.bound.name: floor.allowed(1 - share.needed) for each in levels for share in each.shares}
        doses = {name: found for name in allowed if (found := _doses(levels, name, floor))}
        # A bound that no level misses cannot be what limits, where another one is missed.
        missed = [name for name in doses if any(each.miss > allowed[name] for each in doses[name])]
        return {name: KneeFit(doses[name], allowed[name]) for name in missed or doses}

    def _trusted(self) -> Sequence[Outcome]:
        """Levels that the knee is read off. Brief ones begin with a queue that is still empty, and those that drift are
        of no one state: both count only as long as there is nothing better.
        """
        steady = [each for each in self._levels if not each.drifts]
        levels = steady if 2 * len(steady) >= len(self._levels) else self._levels
        long = [each.load for each in levels if not each.brief]
        if len(long) < _LONG_ENOUGH:
            return levels
        return [each for each in levels if not each.brief or not min(long) <= each.load <= max(long)]

    def _way(self, name: str) -> list[tuple[KneeFit | None, set[bool]]]:
        """The fit to the levels come to from below, and to those from above (brief ones belong to both), with the sides
        of the limit that the longer ones were on.
        """
        if self._ways[0] != len(self.told):
            trusted = self._trusted()
            found = []
            for way in ("below", "above"):
                levels = [each for each in trusted if each.brief or each.approach == way]
                sides = {each.seems_to_hold for each in levels if not each.brief}
                found.append((self._fits(levels).get(name) if sides else None, sides))
            self._ways = (len(self.told), found)
        return self._ways[1]

    def _either_way(self, name: str) -> list[Knee]:
        """Where levels come to from below and from above put the knee, each about as likely as not, where they do not
        meet: the answer is to hold for both, also where they are not yet apart beyond chance.
        """
        ways = [fit.knee(_AS_LIKELY_AS_NOT) for fit, sides in self._way(name) if fit is not None and len(sides) == 2]
        if len(ways) < 2 or max(each.low for each in ways) <= min(each.high for each in ways):
            return []
        return [each for each in ways if each.low > 0 and math.isfinite(each.high)]

    def _apart(self, name: str) -> tuple[Knee, Knee] | None:
        """The knees of levels come to from below and from above, where they are not the same."""
        (below, _), (above, _) = self._way(name)
        if below is None or above is None:
            return None
        first, last = below.knee(_APART), above.knee(_APART)
        if max(first.low, last.low) <= min(first.high, last.high):
            return None
        return below.knee(FIT_CONFIDENCE, HOLDS_CONFIDENCE), above.knee(FIT_CONFIDENCE, HOLDS_CONFIDENCE)

    def _rounded(self, load: float) -> float:
        return max(1.0, float(round(load))) if self.goal.whole else load


def _too_short(fit: KneeFit) -> str:
    """Why the lower end is lower than the levels say, and what would help."""
    enough = f"{math.ceil(fit.memory / NEGLIGIBLE / 10) * 10}s"
    return (
        f"Beside the limit a level lasted {format_duration(fit.length)} and the service remembers for about "
        f"{format_duration(fit.memory)}: as a level begins with an empty queue, the estimate may be high, and what "
        f"surely holds is lowered for it. --level {enough} and a longer --budget would tell more."
    )


def _by_chance(outcome: Outcome) -> bool:
    """A brief level has few requests: one or two that miss, of more that do not, may be those that miss at any load."""
    nearest = outcome.attainment
    if not outcome.brief or outcome.saturated or nearest is None:
        return False
    return nearest.share >= 0.5 and (1 - nearest.share) * nearest.samples < _FEW_MISSES


def _doses(levels: Sequence[Outcome], name: str, floor: Floor) -> list[Dose]:
    found = []
    for each in levels:
        for share in each.shares:
            if share.bound.name == name and (each.saturated or not math.isnan(share.share)):
                miss = 1.0 if math.isnan(share.share) else floor.slow(1 - share.share)
                dose = (each.offered, miss, share.samples, share.size, each.saturated, share.batches, each.seconds)
                found.append(Dose(*dose))
    return found
