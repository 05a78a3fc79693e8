"""No flash attention: nobody checks the engine's memory. Its budget is left open and the load is raised until it dies.

A prompt is read in one piece, so the longest one costs activation memory and the budget T falls with it. A start ends
with its first death, so each is laid out to tell one point of T over the longest prompt as sharply as possible: sizes
in small steps around where it is expected. The first start, with the engine's own lengths, gives the first point; each
further one goes to the length that the points so far make the goal's best; a last one proves the recommendation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.probe import loads
from harness.probe.padded_evidence import ALIKE, at_length, chats_may_cost, full_length_rows, pads_batch, queues
from harness.probe.padded_limits import default_total, padded_curve, padded_history, padded_permits
from harness.probe.recommendation import OWN_DEFAULT
from harness.probe.setting import (
    OPEN_BUDGET,
    Failure,
    Load,
    LoadResult,
    Outcome,
    Setting,
    Shape,
    effective_prefill,
    same_limits,
)
from harness.probe.state import Pace, SearchState, survived

LEAST_PREFILL = 64
CLOSE = 1.3  # times the precision: a bracket that need not be narrowed
FINE, COARSE, FAR = 0.006, 0.02, 0.1  # steps of a size, around where the engine should die and far from it
BELOW = 0.98  # of a size that held with the longest prompts, from which on shorter ones are tried
AROUND = 0.06  # of the expected budget: where steps are fine
RISES = ((2.0, 1.03), (8.0, 1.06), (1e9, 1.15))  # seconds of a fill, and the first start's step from size to size
QUICK_FILL = 1.5  # seconds for which it pays to try every length at every size
JOINED_CAP = 48  # short chats under a long prompt, when it is asked whether padding multiplies
LESS = 0.985  # of a budget that died in a proof, where nothing tells more


def next_setting(state: SearchState, last: Outcome) -> Setting | None:
    """The next start, or None when the recommendation is proved."""
    if state.wish.quick or survived(last):
        return None
    evidence, advice = state.evidence, state.advice
    if last.setting.purpose == "verify" and same_limits(last.setting, advice.setting):
        return _lower(last, advice.setting)
    history = padded_history(evidence, state.wish, state.prior, state.answer)
    left = state.wish.max_starts - evidence.starts
    if left > 1 and not queues(evidence) and not _is_known(state, history):
        return exploring(state, history)
    return advice.setting


def exploring(state: SearchState, history: int) -> Setting:
    """Lengths as they will be recommended, with the budget left open: the load is raised instead. The prefill budget is
    the longest prompt: a larger one would only let several prompts need more memory than one.
    """
    context = state.context or default_total(state.evidence)
    total = history + state.answer
    total = max(history + 1, min(total, context) if context else total)
    return Setting(
        max_input_tokens=history,
        max_total_tokens=total,
        max_batch_prefill_tokens=history,
        max_batch_total_tokens=max(OPEN_BUDGET, total) if _leaves_budget_open(state) else None,
        max_concurrent_requests=loads.ROWS_CAP,
        purpose="explore",
    )


def after_failed_start(state: SearchState, last: Outcome, failure: Failure) -> Setting:
    """A longest prompt that was too much for the warm-up bounds the history; the next one lies between."""
    setting = last.setting
    if not _leaves_budget_open(state) and setting.max_batch_total_tokens == OPEN_BUDGET:
        return replace(setting, max_batch_total_tokens=None)
    if state.wish.max_starts - state.evidence.starts <= 1:
        return state.advice.setting  # the last start is for the proof
    tried = setting.max_input_tokens or LEAST_PREFILL
    history = padded_history(state.evidence, state.wish, state.prior, state.answer)
    if history >= tried:
        history = max(LEAST_PREFILL, tried * 9 // 10)
    return exploring(state, history)


def _leaves_budget_open(state: SearchState) -> bool:
    """Unless an engine failed with an open budget that came up without it."""
    opened = [each for each in state.evidence.outcomes if each.setting.max_batch_total_tokens == OPEN_BUDGET]
    return not opened or any(each.came_up for each in opened)


def _is_known(state: SearchState, history: int) -> bool:
    """Whether the budget at this length is known closely: a narrow bracket, or all sizes tried and nothing died."""
    evidence = state.evidence
    near = [
        each
        for each in evidence.outcomes
        if each.came_up and abs((_longest(each) or 0) - history) <= 0.01 * history and each.loads
    ]
    if not near:
        return False
    if pads_batch(evidence):
        # What killed the first start was a long prompt on top of short ones, not one more chat of full length.
        counted = any(each.died_under_load and each.setting.purpose == "explore" for each in near)
        return counted and full_length_rows(evidence, history) is not None
    bracket = at_length(evidence, min(history, _longest(near[-1]) or history))
    if bracket.largest_ok is None:
        return evidence.rows.smallest_failed is not None and len(near) > 2
    if bracket.smallest_failed is None or (bracket.gap or 1.0) <= CLOSE * state.wish.precision:
        return True
    return len(near) > 2


def _longest(outcome: Outcome) -> int | None:
    if outcome.setting.max_input_tokens is not None:
        return outcome.setting.max_input_tokens
    return effective_prefill(outcome)


def _lower(last: Outcome, advice: Setting) -> Setting:
    """Less of what a proof died of."""
    died = next((each.load for each in last.loads if each.verdict in ("died", "failed")), None)
    batch = advice.max_batch_size
    rows = max(1, (batch or advice.max_concurrent_requests or 2) * 3 // 4)
    budget = max(advice.max_total_tokens or 2, int((advice.max_batch_total_tokens or 2) * LESS))
    by_rows = died is not None and died.kind in ("rows", "overload", "onto")
    return replace(
        advice,
        max_batch_total_tokens=advice.max_batch_total_tokens if by_rows else budget,
        max_concurrent_requests=rows if by_rows and batch is None else advice.max_concurrent_requests,
        max_batch_size=rows if by_rows and batch is not None else batch,
    )


# loads


def next_load(before: SearchState, state: SearchState, results: Sequence[LoadResult]) -> Load | None:
    """The first load of a list that this start has not answered yet. before: what was known when it began; state: with
    what it has shown so far.
    """
    outcome = state.evidence.outcomes[-1]
    plan = _Plan(before, state, outcome, state.pace(results))
    done = {result.load.name for result in results}
    first = before.evidence.last_up is None
    wanted = plan.first_start() if first else plan.further_start()
    return next((each for each in wanted if each.shapes and each.name not in done), None)


class _Plan:
    """Loads of one start that explores."""

    def __init__(self, before: SearchState, state: SearchState, outcome: Outcome, pace: Pace) -> None:
        self.before, self.state, self.pace = before, state, pace
        facts, setting = outcome.started, outcome.setting
        told = facts.max_total_tokens if facts else None
        self.total = setting.max_total_tokens or told or 2
        self.prefill = effective_prefill(outcome) or self.total
        told_input = (facts.max_input_tokens if facts else None) or self.total - 1
        self.longest = max(1, min(setting.max_input_tokens or told_input, self.prefill, self.total - loads.SPARE))

    def first_start(self) -> Iterator[Load]:
        """What is cheap to know, then larger and larger budgets until it dies."""
        evidence = self.state.evidence
        yield loads.longest(self.longest, min(loads.BRIEF, self.total - self.longest))
        limit = min(loads.ROWS_CAP, self._rows_to_try())
        if evidence.rows.smallest_failed is None:
            room = max(8, self.total - loads.SHORT - 7)
            for count in loads.row_steps(limit, fine=16):
                yield loads.rows(count, loads.at_once(count, self.pace.itl, room))
        yield self._stack(2 * (self.longest + loads.SPARE))
        if not pads_batch(evidence):
            yield from self._padding_asked()
        if queues(evidence):
            return
        size, step = 2.0 * (self.longest + loads.SPARE), next(rise for most, rise in RISES if self.pace.fill < most)
        filled = max((each.held or 0 for each in evidence.fill_points if not each.crowd), default=0)
        crowded = max((each.size for each in evidence.fill_points if each.crowd), default=0)
        while (size := size * step) < OPEN_BUDGET:
            if size < filled:
                continue
            yield self._stack(int(size))
            if size < (1 + FAR) * crowded or pads_batch(evidence):
                continue
            if (rows := self._chats(int(size))) > loads.FEW:
                yield self._stack(int(size), rows=rows)

    def _padding_asked(self) -> Iterator[Load]:
        """A long prompt on more and more short chats, whose sum stays below what was carried: if it dies, it makes its
        whole batch as long as itself.
        """
        evidence = self.state.evidence
        carried = max((each.held or 0 for each in evidence.fill_points), default=0)
        most = min(JOINED_CAP, (evidence.rows.largest_ok or JOINED_CAP) - 1)
        for count in loads.row_steps(max(1, most), fine=2):
            if count * (loads.SHORT + loads.ALIVE) + self.longest + loads.BRIEF <= carried:
                yield loads.onto(count, self.longest, loads.alive(self.pace.itl))

    def further_start(self) -> Iterator[Load]:
        """Budgets around the one that is expected at this length, each filled under prompts of several lengths; by as
        many chats as would be let in first of all where many were seen to kill.
        """
        yield loads.longest(self.longest, min(loads.BRIEF, self.total - self.longest))
        if queues(self.state.evidence):
            return
        if pads_batch(self.state.evidence):
            yield from self._equal_chats()
            return
        for index, (size, close) in enumerate(self._sizes()):
            yield from self._filled(size)
            if close and self.pace.fill < QUICK_FILL:
                for length in self._parts(index):
                    yield from self._filled(size, length)

    def _has_tried_parts(self) -> bool:
        return any(
            each.held and 1 < each.length < each.longest * (1 - ALIKE)
            for each in self.before.evidence.fill_points
            if each.longest >= self.longest * (1 - ALIKE)
        )

    def _parts(self, index: int) -> list[int]:
        """Lengths of several prompts in one prefill: all at the first size, half of them at each further one, and the
        one that killed at every one.
        """
        chosen = loads.PARTS if index == 0 else loads.PARTS[index % 2 :: 2]
        known = {self.prefill // parts for parts in chosen}
        died = [each for each in self.before.evidence.fill_points if each.died and each.longest == self.longest]
        worst = min(died, key=lambda each: each.died or 0, default=None)
        return sorted(known | ({worst.length} if worst is not None and 1 < worst.length < self.longest else set()))

    def _filled(self, size: int, length: int | None = None) -> Iterator[Load]:
        """This size by few chats and, under the longest prompts or where these were seen to kill first, by as many as
        would be let in, each of which may cost something by itself. What few survive says nothing then.
        """
        if length is not None and length < 8:
            return
        rows, costs = self._chats(size), chats_may_cost(self.before.evidence)
        if rows <= loads.FEW or not costs:
            yield self._stack(size, length)
        if rows > loads.FEW and (costs or length is None):
            yield self._stack(size, length, rows=rows)

    def _equal_chats(self) -> Iterator[Load]:
        """One more chat of full length each time, all read and then all written to the end: where a long prompt makes
        its whole batch as long, their number is all that counts.
        """
        first = max(2, full_length_rows(self.before.evidence, self.longest) or 2)
        for rows in range(first, loads.ROWS_CAP):
            yield self._stack(rows * (self.longest + loads.SPARE))
            whole = (Shape(self.longest, self.total - self.longest),) * rows
            yield Load("write", (whole,), budget=rows * self.total)

    def _sizes(self) -> Iterator[tuple[int, bool]]:
        """From what is surely carried, or fits one chat, to what died; in fine steps where it should die, and whether
        a size is among these.
        """
        known = at_length(self.before.evidence, self.longest)
        expected = padded_curve(self.before.evidence, self.before.prior).at(self.longest) or 3.0 * self.longest
        top = known.smallest_failed or float(OPEN_BUDGET)
        if known.gap is not None and known.gap <= 2 * AROUND:
            expected = (known.largest_ok or 0) + (top - (known.largest_ok or 0)) / 2
        # What held with the longest prompts says nothing of several shorter ones, which begin below it.
        below = 1.0 if self._has_tried_parts() else BELOW
        size = max(self.longest + loads.SPARE + 1.0, below * (known.largest_ok or 0.0))
        size = min(size, 0.97 * top)
        while size < top * 0.998:
            off = abs(size - expected) / expected
            close = off < AROUND or size > (1 - 2 * AROUND) * top
            yield int(size), close
            size *= 1 + (FINE if close else COARSE if off < 4 * AROUND else FAR)

    def _stack(self, size: int, length: int | None = None, *, rows: int | None = None) -> Load:
        length = min(length or self.longest, size - 2 * loads.SPARE)
        first = 1 if rows is None else loads.leads(rows, self.longest, self.pace.read_rate)
        return loads.stacked(size, max(1, length), self.prefill, self.longest, self.total, rows=rows, leads=first)

    def _rows_to_try(self) -> int:
        """Short chats worth trying: what the expected budget holds, the engine's own default at least."""
        known = self.state.prior.budget or 0
        return max(OWN_DEFAULT, min(256, known // (self.state.answer + loads.SHORT)))

    def _chats(self, size: int) -> int:
        state = self.state
        return max(2, padded_permits(state.evidence, size, self.total, state.answer, state.wish, state.fast_rows))
