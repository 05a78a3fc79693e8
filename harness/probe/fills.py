"""What a load that filled a budget proves: which sizes held, and which killed the engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.probe.loads import SHORT
from harness.probe.setting import Load, LoadResult, Outcome, effective_prefill
from harness.probe.stairs import JOINS, PAIR

EARLY = 0.6  # of the cache
UNSEEN = 2  # tokens of each chat that may be on their way to the client
OVERTAKEN = 0.02  # of a step, up to which a death there is blamed on it and what came before its turn
GROWN = 16  # answer tokens, from which on a death is of what was written

Results = Iterable[tuple[Outcome, LoadResult]]


@dataclass(frozen=True)
class FillPoint:
    """One load that filled a budget. length: prompt tokens of what was read in at its fullest moment; 1 where answers
    filled it. longest: prompt that the start was laid out for. size: tokens that were meant. rows: chats that were
    beside each other, or were to be where it died; crowd: as many as would be let in. held: tokens that were written
    when it held; died: tokens that were reserved when it died.
    read: prompt tokens of the last ones together, padded to the longest of them, as many as are one prefill; 0 where
    they are nothing but the one.
    """

    length: int
    longest: int
    size: int
    rows: int = 1
    crowd: bool = False
    held: int | None = None
    died: int | None = None
    how: str | None = None
    read: int = 0


def fill_points(results: Results) -> Iterable[FillPoint]:
    """What each fill says: tokens that were certainly written when it held, that were reserved at most when it died.

    An engine may take memory when a request is admitted, for all that it may still write, or as it grows. So a load
    that held proves what was written, and one that died disproves what was reserved; nothing is said of sizes between.
    """
    for outcome, result in results:
        load = result.load
        flash = outcome.started is not None and outcome.started.kind == "flash"
        if load.kind not in ("fill", "write") or load.expected_rejections or load.queued:
            continue
        if load.stairs and result.verdict in ("held", "died"):
            yield from _steps(outcome, result)
        elif result.verdict == "held":
            yield _point(outcome, result, held=min(load.size, result.carried or load.size))
        elif result.verdict == "died" and not died_early(outcome, result):
            yield from _death(outcome, result, flash=flash)


@dataclass(frozen=True)
class PaddedStep:
    """A prompt that was read on top of others. rows: chats with it. length: of the longest. read: its own. Tokens."""

    rows: int
    length: int
    read: int
    held: bool

    @property
    def size(self) -> int:
        """Tokens where each is as long as the longest, but the one that is read is not padded yet: those that were
        written where it held, that may have been reserved where it died.
        """
        grown = 1 if self.held else JOINS
        return (self.rows - 1) * (self.length + grown) + self.read + (0 if self.held else JOINS)


def padded_steps(result: LoadResult) -> Iterable[PaddedStep]:
    """Of pairs of prompts that were read one after the other on top of short chats, as far as it came."""
    load = result.load
    if load.kind != "onto" or result.verdict not in ("held", "died"):
        return
    for index, (end, _, rows) in enumerate(load.stairs):
        joined, read = (shape.input_tokens for shape in load.shapes[end - PAIR : end])
        if index < len(result.reads):
            if result.reads[index] >= joined + read + (rows - PAIR) * SHORT:  # else some had ended
                yield PaddedStep(rows, joined, read, held=True)
        elif result.verdict == "died":
            yield PaddedStep(rows, joined, read, held=False)
            return


def how_it_ended(result: LoadResult) -> str:
    return f"{result.load.name}: {result.reason or result.verdict}"


def died_early(outcome: Outcome, result: LoadResult) -> bool:
    """Whether a flash engine died of a fill long before its cache was full, and of the first prompt that it read beside
    running chats: then not the cache is what was too much.
    """
    usable = outcome.started.usable if outcome.started and outcome.started.kind == "flash" else None
    if usable is None or result.verdict != "died" or result.load.kind != "fill":
        return False
    if any(each.load.kind in ("fill", "onto") and each.verdict == "held" for each in outcome.loads):
        return False
    reading = max(effective_prefill(outcome) or 0, result.load.longest)
    return result.begun_tokens + reading < EARLY * usable


def _steps(outcome: Outcome, result: LoadResult) -> Iterable[FillPoint]:
    """Of a load that climbs: what was written at each step that it survived, and what was reserved at the next one. One
    that weighs less than the step before is not blamed for a hang: that may have come of what was written last there.
    Where requests of later steps were read before, more was in flight at a death than the step has: nobody knows how
    much where that may be a good part of it.
    """
    load = result.load
    longest = outcome.setting.max_input_tokens or load.history or load.longest
    hung = outcome.failure is not None and outcome.failure.cause == "hang"
    for index, (end, size, rows) in enumerate(load.stairs):
        if hung and index == len(result.reads) > 0 and size < load.stairs[index - 1][1]:
            end, size, rows = load.stairs[index - 1]
        length = load.shapes[end - 1].input_tokens
        if index < len(result.reads):
            yield FillPoint(length, longest, size, rows, held=min(size, result.reads[index]))
        elif result.verdict == "died":
            if result.overtaken <= OVERTAKEN * size:
                died = size + result.overtaken
                yield FillPoint(length, longest, size, rows, died=died, how=how_it_ended(result))
            return


def _death(outcome: Outcome, result: LoadResult, *, flash: bool) -> Iterable[FillPoint]:
    load = result.load
    if load.kind == "write" and result.carried is not None:
        begun = sum(shape.input_tokens for shape in load.shapes)
        grown = (result.carried - begun) / max(1, load.rows)
        # Far grown when it died, it was growth that killed it; else what was reserved at the beginning.
        died = result.carried + UNSEEN * load.rows if grown >= GROWN else load.size
        yield _point(outcome, result, died=min(died, load.size))
        return
    if result.completed < load.leading:  # they may have been read after others, on top of them: nobody knows the order
        before = sum(shape.total for shape in load.shapes if load.leads(shape.max_new_tokens))
        yield _point(outcome, result, died=load.size + before)
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
    rows = load.rows if died else min(load.rows, result.beside or load.rows)
    return FillPoint(
        length,
        longest,
        load.size,
        rows,
        load.chats is not None,
        held,
        died,
        how_it_ended(result) if died else None,
        _read_last(load, longest),
    )


def _read_last(load: Load, prefill: int) -> int:
    """Tokens of the last prompts of a load as they are read, padded to the longest of them."""
    if load.chats is None or load.kind == "write":
        return 0
    read = widest = 0
    for count, shape in enumerate(reversed(load.shapes), 1):
        widest = max(widest, shape.input_tokens)
        if count * widest > prefill:
            break
        read = count * widest
    return read
