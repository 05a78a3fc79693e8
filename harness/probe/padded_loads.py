"""The loads that an engine without a memory check is sent in one start, until it dies.

Few chats climb in small steps to what is left beside a prompt; as many as would be let in follow them, because each may
cost something by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, groupby, pairwise

from harness.probe import loads
from harness.probe.padded_evidence import (
    deadly_parts,
    few_chats,
    is_bracketed,
    many_chats,
    pads_batch,
    queues,
    rows_carried,
)
from harness.probe.padded_limits import few_curve, longest_within, own_length, padded_concurrency, padded_curve, shared
from harness.probe.padded_rows import FINE, NEAR, padded_budgets
from harness.probe.recommendation import OWN_DEFAULT
from harness.probe.row_cost import ALIKE, TOLD_BY
from harness.probe.setting import OPEN_BUDGET, Load, LoadResult, Outcome, effective_prefill
from harness.probe.stairs import LEAST, PAIR, climb, on_short_chats
from harness.probe.state import Pace, SearchState

STEPS = 6  # of one load that climbs
SMALL, MIDDLE, COARSE = 0.002, 0.005, 0.015  # one step, around where the engine should die, near it, and far from it
AROUND = 0.05  # of the expected budget: where steps are fine
MANY_PROMPTS = 30  # times the longest prompt: beyond it a step may be twice as large
RISES = ((2.0, 0.005), (8.0, 0.01), (1e9, 0.025))  # seconds of a fill, and one step where nothing is expected yet
CROWDS = ((0.2, 0.01), (2.0, 0.02), (1e9, 0.04))  # the same from one load of many chats to the next
CROWD_FINE = 0.005  # the same around what is expected
NEARLY = 0.99  # of the expected budget, from which on more chats are tried in the size of one
CROWDED = 0.5  # of the expected budget, from which on many chats are tried
ENOUGH = 16  # chats, that tell what one costs
LEAST_CHAT = 36  # tokens of each of many chats under a long prompt
FARTHEST = 1.6  # times as many chats in the next such load: beyond it, twice as many prompts
ASKED = 8  # prompts of one such load, from half of the longest on
FEWEST = 4  # chats of a load that climbs, whatever they may be padded to
UNEVEN, SURELY_FREE = 200, 8  # tokens that each chat beyond so many may cost by itself, which is no padding
ON_TOP = 12  # prompts of one load on top of short chats
EXPECTED, GUESSED = 0.85, 0.5  # of the expected budget of a padded batch: where its steps begin
FINEST, SHARP_STEP, ROUGH = 0.0008, 0.003, 0.03  # one step of chats times length: where it should die, near it, far
EXACT, WIDE = 0.02, 0.4  # off the expected: up to which steps are finest, and up to which they are rough
FINE_STEPS = 40


def next_load(before: SearchState, state: SearchState, results: Sequence[LoadResult]) -> Load | None:
    """The first load of a list that this start has not answered yet. before: what was known when it began; state: with
    what it has shown so far.
    """
    outcome = state.evidence.outcomes[-1]
    plan = _Plan(before, state, outcome, state.pace(results), results)
    done = {result.load.name for result in results}
    first = before.evidence.last_up is None
    wanted = plan.first_start() if first else plan.further_start()
    return next((each for each in wanted if each.shapes and each.name not in done), None)


def is_for_one_chat(state: SearchState, length: int) -> bool:
    """Whether a history is bounded by one chat alone, so that the others get what this one leaves."""
    _, most = own_length(state.evidence, state.prior, state.answer)
    return state.asked.goal == "history" and length < most * (1 - ALIKE)


class _Plan:
    """Loads of one start that explores."""

    def __init__(
        self, before: SearchState, state: SearchState, outcome: Outcome, pace: Pace, results: Sequence[LoadResult]
    ) -> None:
        self.before, self.state, self.pace = before, state, pace
        sent = [each.load for each in results if each.load.kind == "fill"]
        self.climbed = max((load.budget or 0 for load in sent if load.stairs), default=0)
        self.crowded = max((load.budget or 0 for load in sent if load.chats is not None), default=0)
        facts, setting = outcome.started, outcome.setting
        self.setting = setting
        told = facts.max_total_tokens if facts else None
        self.total = setting.max_total_tokens or told or 2
        self.prefill = effective_prefill(outcome) or self.total
        told_input = (facts.max_input_tokens if facts else None) or self.total - 1
        self.longest = max(1, min(setting.max_input_tokens or told_input, self.prefill, self.total - loads.SPARE))

    # the first start

    def first_start(self) -> Iterator[Load]:
        """What is cheap to know, then larger and larger sizes until it dies."""
        evidence = self.state.evidence
        yield loads.longest(self.longest, min(loads.BRIEF, self.total - self.longest))
        if queues(evidence):
            return
        size = max(self.longest + loads.TOP_SPARE + LEAST, self.climbed)
        while size < OPEN_BUDGET:
            yield from self._padding_asked()
            yield from self._short_chats(size)
            if self._is_last_length():
                yield from self._crowd(size)
            step = next(rise for most, rise in RISES if self.pace.fill < most)
            sizes = self._rising(size, step * (2 if size > MANY_PROMPTS * self.longest else 1))
            yield from self._climbs(sizes)
            size = sizes[-1]

    def _short_chats(self, carried: int) -> Iterator[Load]:
        """More and more of them, as long as their sum has been carried before: what kills then is their number. Of more
        than are tried in any case, what each may cost by itself was carried too.
        """
        if self.state.evidence.rows.smallest_failed is not None:
            return
        room, always = max(8, self.total - loads.SHORT - 7), self._rows_to_try()
        known = self.before.evidence.rows.largest_ok or 0  # ran beside each other in earlier starts
        for count in loads.row_steps(min(loads.ROWS_CAP, max(always, self._chats(carried))), fine=16):
            load = loads.rows(count, loads.at_once(count, self.pace.itl, room))
            cost = 0 if count <= always else _may_cost(count)
            if count > known and load.tokens + cost <= carried:
                yield load

    def _padding_asked(self) -> Iterator[Load]:
        """Longer and longer prompts join more and more short chats, whose sum stays below what was carried: if it dies,
        a prompt makes its whole batch as long as itself. It is asked before uneven chats are sent whose sum was not
        carried yet.
        """
        evidence = self.state.evidence
        if pads_batch(evidence) or self._surely_not_padded() == loads.ROWS_CAP:
            return
        carried = max((each.held or 0 for each in evidence.fill_points if each.length >= self.longest), default=0)
        carried = max(carried, self.longest)
        most = max(2, min(loads.ROWS_CAP, evidence.rows.largest_ok or 2))  # so many were not too many by their number
        counts = [2, *(each for power in range(3, 20) if (each := round(2 ** (power / 2))) <= most)]
        for rows, more in pairwise([*counts, 2 * counts[-1]]):
            prompts = ASKED if more / rows < FARTHEST else 2 * ASKED
            steps = [0.5 * (more / rows) ** (step / prompts) for step in range(1, prompts + 1)]
            lengths = [int(self.longest * step) for step in steps]
            load = on_short_chats(rows, lengths, self.total, loads.alive(self.pace.itl), loads.SHORT)
            if not load.shapes or max(size for _, size, _ in load.stairs) + _may_cost(rows) > carried:
                return
            yield load

    def _surely_not_padded(self) -> int:
        """Chats that may be as uneven as they like, because as many tokens as they would be if each were as long as the
        longest have been carried; all where that is more than the engine has.
        """
        evidence = self.state.evidence
        killed = min((each.died for each in evidence.fill_points if each.died), default=OPEN_BUDGET)
        area = evidence.area.largest_ok or 0
        return loads.ROWS_CAP if area > killed else area // self.longest

    # the others

    def further_start(self) -> Iterator[Load]:
        """Sizes around the one that is expected at this length, under prompts of several lengths; and the same in many
        chats where nothing but that is left to learn.
        """
        yield loads.longest(self.longest, min(loads.BRIEF, self.total - self.longest))
        if queues(self.state.evidence):
            return
        if pads_batch(self.state.evidence):
            yield from self._padded_batches()
            return
        crowded = self._is_last_length()
        alone = crowded and is_for_one_chat(self.before, self.longest)
        many = self._crowd_sizes() if crowded and not alone else iter(())
        next_crowd, costs = next(many, None), self.before.evidence.row_cost.least > 0
        for sizes in chain(self._sizes(crowded=crowded), [[]]):
            yield from self._short_chats(self.climbed)
            yield from self._padding_asked()
            if alone and self.climbed >= max(self.total, NEARLY * self._expected):
                yield from self._more_chats(self.total)
            climbs = list(self._climbs(sizes)) if sizes else []
            while next_crowd is not None and (
                self._lighter(next_crowd, climbs) if costs else next_crowd <= (sizes[0] if sizes else self.climbed)
            ):
                yield from self._crowd(next_crowd)
                next_crowd = next(many, None)
            yield from climbs

    def _lighter(self, many: int, few: Iterable[Load]) -> bool:
        """Whether so many tokens of many chats surely weigh less than these loads of few: where a chat costs something,
        it is many that should die, which tells the budget.
        """
        cost = self.before.evidence.row_cost
        climbed = (size + cost.likely * rows for load in few for _, size, rows in load.stairs)
        return many + cost.least * self._chats(many) <= max(climbed, default=0)

    def _is_last_length(self) -> bool:
        """Whether the history will hardly move any more, so that it pays to see how many chats its budget carries."""
        evidence, asked = self.before.evidence, self.before.asked
        if asked.goal in ("chats", "latency"):
            return True
        if evidence.last_up is None:
            context = self.state.context
            return context is not None and context - self.state.answer <= self.longest * (1 + ALIKE)
        costs = evidence.row_cost.least > 0 or evidence.rows.smallest_failed is not None
        points = few_curve(evidence, self.before.prior).points
        told = sum(is_bracketed(evidence, length) for length, _ in points)
        if costs and told < TOLD_BY and not is_bracketed(evidence, self.longest):
            return False  # what few of them carry tells more of that cost
        _, most = own_length(evidence, self.before.prior, self.before.answer)
        return self.longest >= most * (1 - ALIKE) or len(points) > 1 or self.before.prior.prefill_share is not None

    def _more_chats(self, size: int) -> Iterator[Load]:
        """So many tokens by more and more chats, up to those that they would let in."""
        died = rows_carried(self.before.evidence, self.longest, size).smallest_failed
        for rows in loads.row_steps(self._chats(size) if died is None else died - 1, fine=4):
            if loads.FEW < rows <= (size - self.longest - loads.TOP_SPARE) // LEAST_CHAT:
                yield self._stack(size, rows=rows)
            elif rows > loads.FEW:
                first = loads.leads(rows, self.longest, self.pace.read_rate)
                yield loads.evenly(size, rows, self.prefill, self.longest, self.total, leads=first)

    def _padded_batches(self) -> Iterator[Load]:
        """Whether more chats run beside each other than a batch is to have, then one pair of prompts after the other on
        top of short chats, their number times its length in steps that are fine where it should die.
        """
        batch, alive = self.setting.max_batch_size or loads.ROWS_CAP, loads.alive(self.pace.itl)
        if self.setting.max_batch_size is not None:
            yield replace(loads.rows(batch + loads.EXCESS), queued=loads.EXCESS, leave_after_tokens=2)
        least, expected = self._expected_batch()
        sizes = self._padded_sizes(expected, int(expected / max(least, -(-expected // self.longest))))
        steps = ((max(least, -(-size // self.longest)), size) for size in sizes)
        for rows, group in groupby(steps, key=lambda step: step[0]):
            if rows > batch:
                return
            lengths = sorted({max(1, size // rows) for _, size in group})
            for first in range(0, len(lengths), ON_TOP):
                part = lengths[first : first + ON_TOP]
                yield on_short_chats(rows, part, self.total, alive)

    def _expected_batch(self) -> tuple[int, float]:
        """At least so many chats, and that number times their length, that should be left beside a prompt of that
        length: as many as make another length than is known, and one of which two are not read together.
        """
        curve = padded_curve(self.before.evidence, self.before.prior)
        known = [each.length for each in padded_budgets(self.before.evidence) if each.gap <= FINE]

        def length_of(rows: int) -> int:
            return longest_within(lambda length: curve.at(length) / rows, self.longest, 0.0, 0, 0.0)

        least = max(PAIR, min(loads.ROWS_CAP, math.ceil(curve.at(self.longest) / self.longest)))
        for rows in range(least, loads.ROWS_CAP + 1):
            length = length_of(rows)
            new = not any(abs(length - each) <= NEAR * each for each in known)
            if new or length_of(rows + 1) <= self.prefill / PAIR:
                break
        return rows, max(rows * length, 1.0 * self.longest)

    def _padded_sizes(self, expected: float, length: int) -> Iterator[int]:
        """Chats times length, rising from what surely holds; in fine steps from what should be left where the budget
        falls fastest to a little above the expected. length: of the chats that are expected to be left.
        """
        guessed = not any(each.is_sharp for each in padded_budgets(self.before.evidence))
        steepest = min(expected, padded_curve(self.before.evidence, self.before.prior).steepest.at(length))
        low, high = (1 - EXACT) * steepest, (1 + EXACT) * expected
        sharp = [each for each in padded_budgets(self.before.evidence) if each.is_sharp]
        longer = max((each.low for each in sharp if each.length > length), default=low)
        low = min(low, longer)  # beside a longer prompt so much was left
        fine = FINEST if guessed else min(SHARP_STEP, max(FINEST, (high - low) / expected / FINE_STEPS))
        size = max(1.01 * self.longest, GUESSED * expected if guessed else min(EXPECTED * expected, low))
        while size < OPEN_BUDGET:
            yield int(size)
            off = abs(size - expected) / expected
            step = fine if low < size < high else SHARP_STEP if off < WIDE else ROUGH
            size += max(1.0, size * step)

    # sizes

    @cached_property
    def _expected(self) -> float:
        """Tokens in few chats that should be left beside a prompt of this start's length."""
        known = few_chats(self.before.evidence, self.longest)
        expected = padded_curve(self.before.evidence, self.before.prior).at(self.longest)
        if known.gap is not None and known.gap <= 2 * AROUND:
            return ((known.largest_ok or 0) + (known.smallest_failed or 0)) / 2
        return max(expected, self.longest + loads.SPARE) or 3.0 * self.longest

    def _sizes(self, *, crowded: bool) -> Iterator[list[int]]:
        """From what fits beside one prompt to what died; in fine steps where it should die, and in short loads there
        where many chats follow each.
        """
        expected, known = self._expected, few_chats(self.before.evidence, self.longest)
        top = known.smallest_failed or OPEN_BUDGET
        size = max(self.longest + loads.TOP_SPARE + LEAST, self.climbed)
        while size < top:
            off = abs(size - expected) / expected
            step = SMALL if off < AROUND else MIDDLE if off < 4 * AROUND else COARSE
            count = STEPS // 2 if crowded and step == SMALL else STEPS
            sizes = [each for each in self._rising(size, step)[:count] if each < top]
            if not sizes:
                return
            yield sizes
            size = sizes[-1]

    def _rising(self, size: int, step: float) -> list[int]:
        """The next sizes, in steps of this share and of a few tokens at least."""
        return [size + index * max(8, int(step * size)) for index in range(1, STEPS + 1)]

    def _crowd_sizes(self) -> Iterator[int]:
        """For many chats: in even steps where what a chat costs is not known, else fine around what follows from it."""
        evidence, expected = self.before.evidence, self._expected
        known, cost = many_chats(evidence, self.longest), evidence.row_cost
        top = min(known.smallest_failed or OPEN_BUDGET, 2 * expected)
        weight = padded_curve(evidence, self.before.prior).at(self.longest) if cost.least > 0 else expected
        most = shared(weight, cost.likely, self.state.answer)
        even = next(step for limit, step in CROWDS if self.pace.fill < limit)
        size = max(CROWDED * most, 0.99 * (known.largest_ok or 0), self.crowded)
        while size < top * 0.998:
            yield int(size)
            close = abs(size - most) < AROUND * most or (
                known.smallest_failed is not None and (known.gap or 1.0) < 2 * AROUND
            )
            fine = CROWD_FINE if cost.least > 0 else 2 * CROWD_FINE
            size *= 1 + (min(even, fine) if close else even)

    # loads

    def _climbs(self, sizes: list[int]) -> Iterator[Load]:
        rows = self.state.evidence.rows
        most = loads.ROWS_CAP if rows.smallest_failed is None else rows.largest_ok or 1
        # More than these would be uneven, and who knows yet whether each is padded to the longest.
        even = max(FEWEST, -(-sizes[-1] // self.longest) + 1)
        # Beside one chat of the longest history there will not be many of shorter prompts.
        most = min(most, even if is_for_one_chat(self.state, self.longest) else max(even, self._surely_not_padded()))
        always = 2 if deadly_parts(self.before.evidence) > 1 else 1
        lengths = self._lengths()
        yield climb(
            sizes,
            lengths,
            prefill=self.prefill,
            longest=self.longest,
            total=self.total,
            always=min(always, len(lengths)),
            most=most,
        )

    def _lengths(self) -> list[int]:
        """The longest prompt, and such as several fill one prefill; that of which it died before comes second."""
        killed = deadly_parts(self.before.evidence)
        counts = sorted({*loads.PARTS, killed} - {1}, key=lambda count: (count != killed, count))
        return loads.lengths(self.longest, self.prefill, counts)

    def _crowd(self, size: int) -> Iterator[Load]:
        """As many chats as this size would let in."""
        rows = min(self._chats(size), self._surely_not_padded())
        beside = (size - self.longest - loads.TOP_SPARE) // LEAST_CHAT
        costs = self.before.evidence.row_cost.least > 0
        if rows >= ENOUGH and beside >= (rows if costs else ENOUGH):
            yield self._stack(size, rows=min(rows, beside))
        elif rows > loads.FEW:
            first = loads.leads(rows, self.longest, self.pace.read_rate)
            yield loads.evenly(size, rows, self.prefill, self.longest, self.total, leads=first)

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
        return max(
            2,
            padded_concurrency(
                state.evidence, state.prior, size, self.total, state.answer, state.asked, state.fast_rows
            ),
        )


def _may_cost(rows: int) -> int:
    """Tokens that so many chats may take by themselves, of which a load that asks for something else must not die."""
    return UNEVEN * max(0, rows - SURELY_FREE)
