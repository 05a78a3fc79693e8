"""Validity rules about how answers arrived and how their tokens were counted; part of validity.RULES and WARNINGS."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.measure.record import CUT_AFTER_END, INVISIBLE
from harness.measure.records import COMPLETED, MISSING, Ints, Records
from harness.stats.absence import MISCOUNTED, in_one_piece, whole
from harness.stats.evidence import Evidence, Reason
from harness.stats.tokens import Mask, counted
from harness.units import format_count, format_percent

UNCOUNTED_MOST = 0.05
WHOLE_MOST, WHOLE_LEAST = 0.10, 8  # of the answers; tokens of an answer that no engine sends at once


def not_streamed(evidence: Evidence) -> Iterator[Reason]:
    """Answers that came whole though streams were asked for: what was asked for was not measured."""
    done = _done(evidence)
    if not evidence.manifest.stream or not mostly(whole(done), WHOLE_MOST):
        return
    count = format_count(int(np.count_nonzero(whole(done))))
    kinds = {part.partition(":")[2] for note in done.notes if note for part in note.split(",") if ":" in part}
    told = f" (content-type {' and '.join(sorted(kinds))})" if kinds else ""
    found = f"the server did not stream {count} of {format_count(len(done))} answers{told}"
    advice = "Measure with --no-stream, or see what between client and engine drops `stream`."
    yield Reason("not_streamed", found, format_percent(WHOLE_MOST), advice, "server")


def one_piece(evidence: Evidence) -> Iterator[Reason]:
    """Streams that something held back: the first token came with the last, and nobody knows when it was there."""
    done = _done(evidence)
    long = done.select(_length(done) >= WHOLE_LEAST)
    together = in_one_piece(long)
    if mostly(together, WHOLE_MOST):
        count = f"{format_count(int(np.count_nonzero(together)))} of {format_count(len(long))}"
        found = f"{count} answers came in one piece: they have no ITL and no TPOT, and their TTFT is a buffer's"
        advice = "Turn off what holds the stream back, such as a proxy's buffering, or measure with --no-stream."
        yield Reason("one_piece", found, format_percent(WHOLE_MOST), advice, "server")


def uncounted(evidence: Evidence) -> Iterator[Reason]:
    """Where the server's count differs from what arrived, TPOT is undefined."""
    done = _done(evidence)
    differs = MISCOUNTED.among(done)
    if mostly(differs, UNCOUNTED_MOST):
        found = f"{format_percent(float(differs.mean()))} of the answers hold other than the server's count of tokens"
        yield Reason("uncounted", found, format_percent(UNCOUNTED_MOST), "TPOT covers only the rest.", "server")


def not_told(evidence: Evidence) -> Iterator[Reason]:
    """Where no count is told, nothing that is per token can be said."""
    done = _done(evidence)
    if mostly(~counted(done), UNCOUNTED_MOST):
        share = format_percent(float((~counted(done)).mean()))
        found = f"the server tells no counts for {share} of the answers: tokens per second and TPOT are not told"
        advice = "Events are not tokens, so they are not counted as such. Have the server tell `usage` in its answers."
        yield Reason("not_told", found, format_percent(UNCOUNTED_MOST), advice, "server")


def invisible(evidence: Evidence) -> Iterator[Reason]:
    """Answers of which nobody sees anything are complete, and have no first token."""
    done = _done(evidence)
    count = int(np.count_nonzero(done.noted(INVISIBLE)))
    if count:
        found = f"{format_count(count)} of {format_count(len(done))} answers completed without any visible token"
        advice = "Special tokens or hidden reasoning alone: such answers have no TTFT, and are left out of it."
        yield Reason("invisible", found, "text in every answer", advice, "server")


def cut_after_end(evidence: Evidence) -> Iterator[Reason]:
    """An answer is whole with its own last message, whatever becomes of its connection."""
    count = int(np.count_nonzero(evidence.inside.noted(CUT_AFTER_END)))
    if count:
        found = f"behind {format_count(count)} whole answers the connection was cut, or never ended"
        advice = "They count as completed. The server, or a proxy, does not end its streams in order."
        yield Reason("cut_after_end", found, "streams that end in order", advice, "server")


def _done(evidence: Evidence) -> Records:
    return evidence.inside.select(evidence.inside.having(COMPLETED))


def _length(records: Records) -> Ints:
    """Tokens of each answer, as told, else as asked."""
    return np.where(records.output_tokens != MISSING, records.output_tokens, records.asked_output_tokens)


def mostly(mask: Mask, share: float = 0.5) -> bool:
    """Whether it is more than this share; never of none."""
    return bool(len(mask)) and float(mask.mean()) > share
