"""What all starts so far have shown, folded into one value: a pure function of the outcomes, so that a resumed search
decides as the interrupted one would have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness.engines.base import EngineFacts, Kind
from harness.probe.setting import Bracket, LoadResult, Outcome, Setting

IGNORED = 0.99  # of the cache, that is left with a smaller memory fraction where the engine does not heed it
BLAMED_ON_PREFILL = 2  # which death of a long prompt on top of a full batch
SAME_SIZE = 0.002  # share by which two loads of one size may differ
EARLY = 0.6  # of the cache
ALIKE = 0.01  # share by which prompt lengths may differ to count as the same
UNSEEN = 2  # tokens of each chat that may be on their way to the client
KNOWN = 0.02  # share between what held and what died, below which a budget is known
GROWN = 16  # answer tokens, from which on a death is of what was written


@dataclass(frozen=True)
class FillPoint:
    """One load that filled a budget. length: prompt tokens of what was read in at its fullest moment; 1 where answers
    filled it. longest: prompt that the start was laid out for. size: tokens that were meant; crowd: by as many chats as
    would be let in. held: tokens that were written when it held; died: tokens that were reserved when it died.
    """

    length: int
    longest: int
    size: int
    rows: int = 1
    crowd: bool = False
    held: int | None = None
    died: int | None = None
    how: str | None = None


@dataclass(frozen=True)
class Evidence:
    """Brackets for what can be searched.

    rows: short chats at once. tokens: prompts and answers in flight. area: rows times the longest of them, which is
    what a padded batch keeps. prefill: prefill budgets that started. single: prompt and answer of one chat alone.
    fill_points: every load that filled a budget.
    """

    outcomes: tuple[Outcome, ...] = ()
    rows: Bracket = field(default_factory=Bracket)
    tokens: Bracket = field(default_factory=Bracket)
    area: Bracket = field(default_factory=Bracket)
    prefill: Bracket = field(default_factory=Bracket)
    single: Bracket = field(default_factory=Bracket)
    fill_points: tuple[FillPoint, ...] = ()

    @property
    def starts(self) -> int:
        return len(self.outcomes)

    @property
    def last(self) -> Outcome | None:
        return self.outcomes[-1] if self.outcomes else None

    @property
    def last_up(self) -> Outcome | None:
        return next((each for each in reversed(self.outcomes) if each.came_up), None)

    @property
    def started(self) -> EngineFacts | None:
        return self.last_up.started if self.last_up else None

    @property
    def kind(self) -> Kind | None:
        return self.started.kind if self.started else None

    @property
    def refused_fast(self) -> bool | None:
        """Whether requests beyond the permits were seen to be refused at once; None where none were sent."""
        sent = [result for each in self.outcomes for result in each.loads if result.load.expected_rejections]
        return any(result.refused for result in sent) if sent else None

    @property
    def queues(self) -> bool:
        """Whether an engine carried far less at once than it was sent, twice, and lived: it knows a budget, though it
        tells none. Of many chats, or of such with a short prompt, some may have ended before the last were read.
        """
        short = [
            result
            for each in self.outcomes
            for result in each.loads
            if result.load.kind == "fill"
            and each.setting.purpose != "verify"
            and result.load.chats is None
            and result.load.rows > 1
            and result.load.closing >= result.load.longest
            and result.verdict == "held"
            and result.carried is not None
            and result.carried < 0.6 * result.load.size
        ]
        return len(short) > 1

    def at_length(self, length: int, *, crowded: bool = True) -> Bracket:
        """Budgets that held and that died with a longest prompt of this length. What held with a longer one, or died
        with a shorter one, counts too: an engine that is allowed a length may be sent any shorter one.

        crowded: loads of as many chats as would be let in count too, each of which may cost something by itself.
        """
        points = [each for each in self.fill_points if crowded or not each.crowd]
        failed = [each for each in points if each.died and each.longest <= length * (1 + ALIKE)]
        worst = min(failed, key=lambda each: each.died or 0, default=None)
        held = [
            each.held
            for each in points
            if each.held
            and _is_as_bad(each, worst, length)
            and (worst is None or each.size < worst.size * (1 - SAME_SIZE))
        ]
        return Bracket.of(held, [(worst.died or 0, worst.how or "")] if worst else [])

    @property
    def dies_of_crowds(self) -> bool:
        """Whether as many chats as would be let in killed it at a size at which few of them held."""
        held = max((each.held or 0 for each in self.fill_points if not each.crowd), default=0)
        return any(
            each.died is not None and each.crowd and each.died <= held * (1 + KNOWN) for each in self.fill_points
        )

    @property
    def chats_may_cost(self) -> bool:
        """Whether many chats killed it, at a size at which few of them held or at whatever size."""
        return self.rows.smallest_failed is not None or self.dies_of_crowds

    def full_length_rows(self, length: int) -> int | None:
        """Chats of this length, all equally long, that held at once: one where two died; None where nobody tried."""
        held = [each for each in self.fill_points if each.held and each.longest >= length * (1 - ALIKE)]
        died = [
            each.rows
            for each in self.fill_points
            if each.died and each.longest <= length * (1 + ALIKE) and not each.crowd
        ]
        most = max((each.rows for each in held if each.rows < min(died, default=each.rows + 1)), default=None)
        return 1 if most is None and 2 in died else most

    def budget_points(self) -> list[tuple[int, int]]:
        """(longest prompt, budget) in the order of the starts, for each length that one of them was laid out for; with
        as many chats as would be let in where these kill first, else with few.
        """
        crowded = self.chats_may_cost
        seen = [each for each in self.fill_points if crowded or not each.crowd]
        points = []
        for length in dict.fromkeys(each.longest for each in seen if each.length > 1):
            bracket = self.at_length(length, crowded=crowded)
            low, high = bracket.largest_ok, bracket.smallest_failed
            here = any(each.died and each.longest == length for each in seen)
            if low is not None and high is not None and here:
                points.append((length, low if (bracket.gap or 0) < KNOWN else (low + high) // 2))
            elif high is not None and here:
                points.append((length, max(length, int(high * 0.95))))
            elif low is not None and (high is None or high * (1 - KNOWN) <= low):
                points.append((length, low))
        return points

    @property
    def prefills_up(self) -> list[int]:
        """Prefill budgets with which the engine came up."""
        return [prefill for each in self.outcomes if each.came_up and (prefill := effective_prefill(each)) is not None]

    @property
    def ignores_fraction(self) -> bool:
        """Whether a start with a smaller memory fraction found as large a cache as one without."""
        with_it = {
            effective_prefill(each): each.started.budget
            for each in self.outcomes
            if each.came_up and each.setting.cuda_memory_fraction is not None and each.started and each.started.budget
        }
        return any(
            budget >= IGNORED * max(self.budgets(prefill, None), default=budget * 2)
            for prefill, budget in with_it.items()
        )

    @property
    def deadly_prefill(self) -> int | None:
        """The smallest prefill budget that killed a flash engine by being read beside running chats; None where none
        did: with its cache far from full, or again after there were fewer chats.
        """
        early = [effective_prefill(each) for each in self.outcomes if any(_died_early(each, r) for r in each.loads)]
        joined = [
            effective_prefill(each)
            for each in self.outcomes
            if any(r.load.kind == "onto" and r.verdict == "died" for r in each.loads)
        ]
        return min((prefill for prefill in early + joined[1:] if prefill is not None), default=None)

    @property
    def dies_when_full(self) -> bool:
        """Whether a flash engine died of a full cache again after it had been given a smaller one: what kills it is the
        last blocks, however many there are.
        """
        held = max((r.load.size for each in self.outcomes for r in each.loads if _filled(r)), default=0)
        return any(
            result.verdict == "died"
            and result.load.kind == "fill"
            and each.setting.cuda_memory_fraction is not None
            and not _died_early(each, result)
            and result.load.size <= held
            for each in self.outcomes
            for result in each.loads
        )

    @property
    def share_that_held(self) -> float:
        """The largest share of a flash engine's cache that held while a larger one killed it; 1 where nothing died."""
        shares = [
            (result.load.size / each.started.usable, result.verdict)
            for each in self.outcomes
            for result in each.loads
            if result.load.kind == "fill" and each.started and each.started.usable
        ]
        died = min((share for share, verdict in shares if verdict == "died"), default=None)
        if died is None:
            return 1.0
        return max((share for share, verdict in shares if verdict == "held" and share < died), default=0.85 * died)

    @property
    def has_prefix_cache(self) -> bool:
        """Whether a start that was not told to leave it off had one."""
        return any(
            each.started is not None and each.started.prefix_caching and each.setting.prefix_caching is not False
            for each in self.outcomes
        )

    @property
    def last_proof(self) -> Outcome | None:
        """The last start that was to prove something and got a load."""
        return next((o for o in reversed(self.outcomes) if o.setting.purpose == "verify" and o.loads), None)

    @property
    def blocks_itself(self) -> bool:
        """Whether a chat waited for ever behind another that began like it."""
        return any(r.load.kind == "alike" and r.verdict == "stalled" for each in self.outcomes for r in each.loads)

    def caches(self) -> list[tuple[int, int]]:
        """(prefill budget, usable tokens) of all starts whose log told both, failed ones too; with the whole memory."""
        return [
            (prefill, each.started.usable)
            for each in self.outcomes
            if each.started is not None
            and each.started.usable
            and each.started.kind == "flash"
            and each.setting.cuda_memory_fraction is None
            and (prefill := effective_prefill(each)) is not None
        ]

    @property
    def padded_law(self) -> bool:
        """Whether a long prompt makes its whole batch as long: a batch died that was small by its sum of tokens."""
        return self.area.smallest_failed is not None

    @property
    def last_up_own_prefill(self) -> bool:
        """Whether the prefill budget in use is one that the engine once chose by itself."""
        up = self.last_up
        own = {
            effective_prefill(each)
            for each in self.outcomes
            if each.came_up and each.setting.max_batch_prefill_tokens is None
        }
        return up is not None and effective_prefill(up) in own

    def budgets(self, prefill: int | None, fraction: float | None) -> list[int]:
        """Budgets found by starts with this prefill budget and memory fraction."""
        return [
            each.started.budget
            for each in self.outcomes
            if each.started is not None
            and each.started.budget is not None
            and effective_prefill(each) == prefill
            and each.setting.cuda_memory_fraction == fraction
        ]


def effective_prefill(outcome: Outcome) -> int | None:
    """The prefill budget of a start: as given, else as the engine told."""
    if outcome.setting.max_batch_prefill_tokens is not None:
        return outcome.setting.max_batch_prefill_tokens
    return outcome.started.prefill_tokens if outcome.started else None


def gather(outcomes: Sequence[Outcome]) -> Evidence:
    """All brackets from the outcomes so far."""
    results = [(each, result) for each in outcomes for result in each.loads]
    points = tuple(fill_points(results))
    return Evidence(
        outcomes=tuple(outcomes),
        rows=_bracket(_rows(results)),
        tokens=_tokens(points),
        area=_bracket(_area(results)),
        prefill=_prefill(outcomes),
        single=_bracket(_single(results)),
        fill_points=points,
    )


_Point = tuple[int, str | None]  # a value, and how it failed
_Results = Iterable[tuple[Outcome, LoadResult]]


def _bracket(points: Iterable[_Point]) -> Bracket:
    points = list(points)
    return Bracket.of(
        (value for value, how in points if how is None), ((value, how) for value, how in points if how is not None)
    )


def _how(result: LoadResult) -> str:
    return f"{result.load.name}: {result.reason or result.verdict}"


def _rows(results: _Results) -> Iterable[_Point]:
    """A long prompt on top of a full batch kills a flash engine by the number of chats too: its cache is laid out
    beforehand, and what grows with a forward are its rows. The second such death is blamed on the prefill instead.
    """
    joined = 0
    for outcome, result in results:
        kind, flash = result.load.kind, outcome.started is not None and outcome.started.kind == "flash"
        if result.verdict == "held":
            yield _seen_rows(result), None
        elif result.verdict == "died" and kind in ("rows", "overload"):
            yield result.load.rows, _how(result)
        elif result.verdict == "died" and kind == "onto" and flash:
            joined += 1
            if joined != BLAMED_ON_PREFILL:
                yield result.load.rows, _how(result)


def _seen_rows(result: LoadResult) -> int:
    """Chats that were in flight together for all that the client saw; all where nobody looked."""
    return result.load.rows if result.beside is None else min(result.load.rows, result.beside)


def _tokens(points: Iterable[FillPoint]) -> Bracket:
    points = list(points)
    return Bracket.of(
        (each.held for each in points if each.held), ((each.died, each.how or "") for each in points if each.died)
    )


def fill_points(results: _Results) -> Iterable[FillPoint]:
    """What each fill says: tokens that were certainly written when it held, that were reserved at most when it died.

    An engine may take memory when a request is admitted, for all that it may still write, or as it grows. So a load
    that held proves what was written, and one that died disproves what was reserved; nothing is said of sizes between.
    """
    for outcome, result in results:
        load = result.load
        flash = outcome.started is not None and outcome.started.kind == "flash"
        if load.kind not in ("fill", "write") or load.expected_rejections or load.queued:
            continue
        if result.verdict == "held":
            written = load.size if result.carried is None or flash else min(load.size, result.carried)
            yield _point(outcome, result, held=written)
        elif result.verdict == "died" and not _died_early(outcome, result):
            yield from _death(outcome, result, flash=flash)


def _death(outcome: Outcome, result: LoadResult, *, flash: bool) -> Iterable[FillPoint]:
    load = result.load
    if load.kind == "write" and result.carried is not None:
        begun = sum(shape.input_tokens for shape in load.shapes)
        grown = (result.carried - begun) / max(1, load.rows)
        # Far grown when it died, it was growth that killed it; else what was reserved at the beginning.
        died = result.carried + UNSEEN * load.rows if grown >= GROWN else load.size
        yield _point(outcome, result, died=min(died, load.size))
        return
    if load.target_tokens_in_flight is None and not flash:
        yield _point(outcome, result, died=load.size)
        return
    batch = max(effective_prefill(outcome) or 0, load.longest)
    reserved, waiting = result.begun_tokens, 0
    for shape in load.shapes[result.begun :]:
        if waiting and waiting + shape.input_tokens > batch:
            break
        waiting += shape.input_tokens
        reserved += shape.total
    if flash:  # the client hears of the last batch late, or never
        reserved += 2 * batch
    yield _point(outcome, result, died=min(load.size, reserved) if result.begun else load.size)


def _point(outcome: Outcome, result: LoadResult, *, held: int | None = None, died: int | None = None) -> FillPoint:
    load = result.load
    length = 1 if load.kind == "write" else load.closing
    longest = outcome.setting.max_input_tokens or load.closing
    if load.kind == "write" and outcome.setting.purpose == "verify":
        longest = length
    return FillPoint(
        length, longest, load.size, load.rows, load.chats is not None, held, died, _how(result) if died else None
    )


def _is_as_bad(held: FillPoint, worst: FillPoint | None, length: int) -> bool:
    """Whether what held says anything of what killed: few chats prove nothing for many that each cost something, nor a
    long prompt for several shorter ones in one prefill.
    """
    if worst is not None and worst.crowd:
        return held.crowd and held.length >= length * (1 - ALIKE)
    if worst is not None and 1 < worst.length < worst.longest * (1 - ALIKE):
        return not held.crowd and abs(held.length - worst.length) <= ALIKE * worst.length
    return not held.crowd and held.length >= length * (1 - ALIKE)


def _filled(result: LoadResult) -> bool:
    return result.verdict == "held" and result.load.kind == "fill"


def _died_early(outcome: Outcome, result: LoadResult) -> bool:
    """Whether a flash engine died of a fill long before its cache was full: then not the cache is what was too much."""
    usable = outcome.started.usable if outcome.started and outcome.started.kind == "flash" else None
    if usable is None or result.verdict != "died" or result.load.kind != "fill":
        return False
    reading = max(effective_prefill(outcome) or 0, result.load.longest)
    return result.begun_tokens + reading < EARLY * usable


def _area(results: _Results) -> Iterable[_Point]:
    """Of what held, only the last prompt's length counts: short chats may have ended before the long one's answer."""
    for outcome, result in results:
        if result.verdict == "held" and not result.load.expected_rejections:
            yield _seen_rows(result) * result.load.closing, None
        elif result.verdict == "died" and result.load.kind == "onto" and outcome.setting.purpose != "verify":
            yield result.load.area, _how(result)


def _single(results: _Results) -> Iterable[_Point]:
    """Prompt and answer of one chat alone. A refused one is no evidence: it was longer than a limit of that start."""
    for _, result in results:
        if result.load.kind == "longest" and result.verdict in ("held", "died", "stalled"):
            yield result.load.tokens, None if result.verdict == "held" else _how(result)


def _prefill(outcomes: Iterable[Outcome]) -> Bracket:
    held, failed = [], []
    for each in outcomes:
        prefill = effective_prefill(each)
        if prefill is None:
            continue
        if each.came_up:
            held.append(prefill)
        elif each.failure is not None and each.failure.cause == "memory" and each.failure.stage == "warm-up":
            failed.append((prefill, str(each.failure)))
    return Bracket.of(held, failed)


def same_limits(one: Setting, other: Setting) -> bool:
    """Whether two starts were given the same limits, whatever for."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in (
            "max_input_tokens",
            "max_total_tokens",
            "max_batch_prefill_tokens",
            "max_batch_total_tokens",
            "max_concurrent_requests",
            "max_batch_size",
            "cuda_memory_fraction",
            "prefix_caching",
        )
    )
