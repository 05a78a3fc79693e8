"""What all starts so far have shown, folded into one value: a pure function of the outcomes, so that a resumed search
decides as the interrupted one would have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from harness.engines.base import EngineFacts, Kind
from harness.probe.setting import Bracket, LoadResult, Outcome, Setting

IGNORED = 0.99  # of the cache, that is left with a smaller memory fraction where the engine does not heed it
BLAMED_ON_PREFILL = 2  # which death of a long prompt on top of a full batch
EARLY = 0.6  # of the cache
ALIKE = 0.05  # share by which prompt lengths may differ to count as the same
UNSEEN = 2  # tokens of each chat that may be on their way to the client
CROWD = 0.6  # of the chats that a failed load had: with fewer, a success says nothing against it


@dataclass(frozen=True)
class Evidence:
    """Brackets for what can be searched.

    rows: short chats at once. tokens: prompts and answers in flight. area: rows times the longest of them, which is
    what a padded batch keeps. prefill: prefill budgets that started. single: prompt and answer of one chat alone.
    worst_input: the prompt length whose load died with the fewest tokens; carried: tokens that held with any length.
    """

    outcomes: tuple[Outcome, ...] = ()
    rows: Bracket = field(default_factory=Bracket)
    tokens: Bracket = field(default_factory=Bracket)
    area: Bracket = field(default_factory=Bracket)
    prefill: Bracket = field(default_factory=Bracket)
    single: Bracket = field(default_factory=Bracket)
    worst_input: int | None = None
    carried: int | None = None

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
        """Whether an engine carried far less at once than it was sent and lived: it knows a budget, though it tells
        none.
        """
        return any(
            result.verdict == "held" and result.carried is not None and result.carried < 0.6 * result.load.size
            for each in self.outcomes
            for result in each.loads
            if result.load.kind == "fill" and result.load.rows > 4
        )

    def grown(self, rows: int) -> int | None:
        """Answer tokens that each of about so many chats was seen to have when the last prompts of a fill were read."""
        seen = [
            (result.carried - sum(shape.input_tokens for shape in result.load.shapes)) / result.load.rows
            for each in self.outcomes
            for result in each.loads
            if result.verdict == "held"
            and result.carried is not None
            and result.load.target_tokens_in_flight is not None
            and result.load.min_tokens_before_next_wave == 1
            and result.load.rows >= CROWD * rows
        ]
        return max(1, round(median(seen[-5:]))) if seen else None

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
    tokens, worst, carried = _tokens(results)
    return Evidence(
        outcomes=tuple(outcomes),
        rows=_bracket(_rows(results)),
        tokens=tokens,
        area=_bracket(_area(results)),
        prefill=_prefill(outcomes),
        single=_bracket(_single(results)),
        worst_input=worst,
        carried=carried,
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


def _tokens(results: _Results) -> tuple[Bracket, int | None, int | None]:
    """The bracket for prompts of the worst length, that length, and what was carried with any length.

    A success with other lengths proves nothing for the worst one: memory need not grow steadily with the length. Nor
    does one with few chats for many, each of which may cost something by itself.
    """
    points = list(_fills(results))
    failed = [(value, length, rows, how) for length, rows, value, how in points if how is not None]
    if not failed:
        held = [value for _, _, value, _ in points]
        return Bracket.of(held, ()), None, max(held, default=None)
    smallest, worst, crowd, how = min(failed)
    alike = [
        value
        for length, rows, value, bad in points
        if bad is None and abs(length - worst) <= ALIKE * worst and rows >= CROWD * crowd
    ]
    below = [value for _, _, value, bad in points if bad is None and value < smallest]
    return Bracket.of(alike, [(smallest, how)]), worst, max(below, default=None)


def _fills(results: _Results) -> Iterable[tuple[int, int, int, str | None]]:
    """(prompt length, chats, tokens, how it failed). A death in the middle of a fill tells what was carried before."""
    for outcome, result in results:
        length, rows = result.load.closing, result.load.rows
        if result.verdict == "held" and not result.load.expected_rejections and not result.load.queued:
            yield length, rows, result.load.size if result.carried is None else result.carried, None
        elif result.verdict == "died" and result.load.kind == "write":
            for value, how in _death_in_writing(result):
                yield length, rows, value, how
        elif result.verdict == "died" and result.load.kind == "fill" and not _died_early(outcome, result):
            for value, how in _death_in_fill(outcome, result):
                yield length, rows, value, how


def _died_early(outcome: Outcome, result: LoadResult) -> bool:
    """Whether a flash engine died of a fill long before its cache was full: then not the cache is what was too much."""
    usable = outcome.started.usable if outcome.started and outcome.started.kind == "flash" else None
    if usable is None or result.verdict != "died" or result.load.kind != "fill":
        return False
    reading = max(effective_prefill(outcome) or 0, result.load.longest)
    return result.begun_tokens + reading < EARLY * usable


def _death_in_fill(outcome: Outcome, result: LoadResult) -> Iterable[_Point]:
    """What had its first token was carried, and one or two more prefill batches were too much: the client hears of the
    last batch late, or never.
    """
    if result.load.target_tokens_in_flight is not None:
        yield _reached(outcome, result), _how(result)
        return
    answers = sum(shape.max_new_tokens for shape in result.load.shapes[: result.begun])
    carried = result.begun_tokens - answers
    batch = max(effective_prefill(outcome) or 0, result.load.longest) + result.load.shapes[0].max_new_tokens
    reached = result.load.tokens if result.begun == 0 else min(result.load.tokens, result.begun_tokens + 2 * batch)
    if 0 < carried < reached:
        yield carried, None
    yield reached, _how(result)


def _death_in_writing(result: LoadResult) -> Iterable[_Point]:
    """Each chat grows by one token a step, so what was seen held, and what was not seen yet is little more."""
    if result.carried is None:
        yield result.load.size, _how(result)
        return
    yield result.carried, None
    yield result.carried + UNSEEN * result.load.rows, _how(result)


def _reached(outcome: Outcome, result: LoadResult) -> int:
    """Tokens that were too many: all that ran, and one prefill of what still waited."""
    load = result.load
    if result.carried is None or result.begun == 0:
        return load.size
    waiting = sum(shape.input_tokens for shape in load.shapes[result.begun :])
    return result.carried + min(waiting, max(effective_prefill(outcome) or 0, load.longest))


def _area(results: _Results) -> Iterable[_Point]:
    """Of what held, only the last prompt's length counts: short chats may have ended before the long one's answer."""
    for _, result in results:
        if result.verdict == "held" and not result.load.expected_rejections:
            yield _seen_rows(result) * result.load.closing, None
        elif result.verdict == "died" and result.load.kind == "onto":
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
        )
    )
