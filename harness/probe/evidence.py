"""What all starts so far have shown, folded into one value: a pure function of the outcomes, so that a resumed search
decides as the interrupted one would have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from harness.engines.base import EngineFacts, EngineKind
from harness.probe.fills import FillPoint, Results, fill_points, how_it_ended, padded_steps
from harness.probe.row_cost import RowCost, row_cost
from harness.probe.setting import Bracket, LoadResult, Outcome, effective_prefill

BLAMED_ON_PREFILL = 2  # deaths of a long prompt on top of a full batch


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

    @cached_property
    def row_cost(self) -> RowCost:
        """What each chat of an engine without a memory check costs by itself."""
        return row_cost(self.fill_points)

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
    def prefills_up(self) -> list[int]:
        """Prefill budgets with which the engine came up."""
        return [found for each in self.outcomes if each.came_up and (found := effective_prefill(each)) is not None]

    @property
    def started(self) -> EngineFacts | None:
        return self.last_up.started if self.last_up else None

    @property
    def kind(self) -> EngineKind | None:
        return self.started.kind if self.started else None

    @property
    def refused_fast(self) -> bool | None:
        """Whether requests beyond the concurrency limit were seen to be refused at once; None where none were sent."""
        sent = [result for each in self.outcomes for result in each.loads if result.load.expected_rejections]
        return any(result.refused for result in sent) if sent else None

    @property
    def last_proof(self) -> Outcome | None:
        """The last start that was to prove something and got a load."""
        return next((o for o in reversed(self.outcomes) if o.setting.purpose == "verify" and o.loads), None)


def gather(outcomes: Sequence[Outcome], before: Evidence | None = None) -> Evidence:
    """All brackets from the outcomes so far. before: the evidence of the first of them, where that is at hand."""
    results = [(each, result) for each in outcomes for result in each.loads]
    known, seen = (0, ()) if before is None else (before.starts, before.fill_points)
    later = ((each, result) for each in outcomes[known:] for result in each.loads)
    points = (*seen, *fill_points(later))
    return Evidence(
        outcomes=tuple(outcomes),
        rows=_bracket(_rows(results)),
        tokens=_tokens(points, results),
        area=_bracket(_area(results)),
        prefill=_prefill(outcomes),
        single=_bracket(_single(results)),
        fill_points=points,
    )


_Point = tuple[int, str | None]  # a value, and how it failed


def _bracket(points: Iterable[_Point]) -> Bracket:
    points = list(points)
    return Bracket.of(
        (value for value, how in points if how is None), ((value, how) for value, how in points if how is not None)
    )


def _rows(results: Results) -> Iterable[_Point]:
    """A long prompt on top of a full batch kills a flash engine by the number of chats too: its cache is laid out
    beforehand, and what grows with a forward are its rows. A second such death, of fewer chats, is blamed on the
    prefill, and then so is the first.
    """
    joined: list[LoadResult] = []
    for outcome, result in results:
        kind, flash = result.load.kind, outcome.started is not None and outcome.started.kind == "flash"
        if result.verdict == "held":
            yield _seen_rows(result), None
        elif result.verdict == "died" and kind in ("rows", "overload"):
            yield result.load.rows, how_it_ended(result)
        elif result.verdict == "died" and kind == "onto" and flash:
            joined.append(result)
    for result in joined if len(joined) < BLAMED_ON_PREFILL else joined[BLAMED_ON_PREFILL:]:
        yield result.load.rows, how_it_ended(result)


def _seen_rows(result: LoadResult) -> int:
    """Chats that were in flight together for all that the client saw; all where nobody looked."""
    return result.load.rows if result.beside is None else min(result.load.rows, result.beside)


def _tokens(points: Iterable[FillPoint], results: Results) -> Bracket:
    """On a flash engine whatever load tells: a token that came is of a forward that was survived."""
    points = list(points)
    held = [each.held for each in points if each.held]
    held += [
        min(result.carried, result.load.tokens)
        for outcome, result in results
        if result.carried and outcome.started is not None and outcome.started.kind == "flash"
    ]
    return Bracket.of(held, ((each.died, each.how or "") for each in points if each.died))


def _area(results: Results) -> Iterable[_Point]:
    """Of what held, only the last prompt's length counts: short chats may have ended before the long one's answer."""
    for outcome, result in results:
        if result.load.kind == "onto" and result.load.stairs:
            for step in padded_steps(result):
                yield step.size, None if step.held else how_it_ended(result)
        elif result.verdict == "held" and not result.load.expected_rejections:
            yield _seen_rows(result) * result.load.closing, None
        elif result.verdict == "died" and result.load.kind == "onto" and outcome.setting.purpose != "verify":
            yield result.load.area, how_it_ended(result)


def _single(results: Results) -> Iterable[_Point]:
    """Prompt and answer of one chat alone. A refused one is no evidence: it was longer than a limit of that start."""
    for _, result in results:
        if result.load.kind == "longest" and result.verdict in ("held", "died", "stalled"):
            yield result.load.tokens, None if result.verdict == "held" else how_it_ended(result)


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
