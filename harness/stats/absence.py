"""Why a request has no value of a metric: one that cannot be known is neither good nor bad."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from harness.measure.record import INVISIBLE, NOT_STREAMED
from harness.measure.records import COMPLETED, MISSING, Records, remembered
from harness.measure.run_folder import Manifest
from harness.stats.tokens import Mask, arrived_tokens, counted, told_per_event

# An answer came in one piece where its events are no further apart on average, in seconds, and all of them together no
# longer than this share of the wait for the first: no model is as fast, but a buffer that is emptied is.
RUSH_GAP, RUSH_SHARE = 2e-4, 0.01


@dataclass(frozen=True)
class Cause:
    """word: in a table. text: as a sentence's end. advice: what to do to have the figure. of: which requests it is,
    where it is a matter of single ones.
    """

    word: str
    text: str
    advice: str
    of: Callable[[Records], Mask] | None = None

    def among(self, records: Records) -> Mask:
        return self.of(records) if self.of else np.zeros(len(records), dtype=bool)


@remembered
def whole(records: Records) -> Mask:
    """Answers that came as one document: they have no first token and no gaps."""
    return records.noted(NOT_STREAMED)


def as_asked(records: Records, manifest: Manifest) -> Records:
    """The records of a run with `--no-stream` as what they are: answers that came as one document."""
    if manifest.stream:
        return records
    notes = np.empty(len(records), dtype=object)
    notes[:] = [NOT_STREAMED if noted is None else f"{noted},{NOT_STREAMED}" for noted in records.notes]
    return replace(records, notes=notes)


@remembered
def in_one_piece(records: Records) -> Mask:
    """Streamed answers of several tokens that arrived together, in one event or in several."""
    events = records.event_counts
    some = events > 0
    first, last, waited = (np.zeros(len(records)) for _ in range(3))
    first[some] = records.token_at[records.offsets[:-1][some]]
    last[some] = records.token_at[records.offsets[1:][some] - 1]
    waited[some] = first[some] - records.sent_at[some]
    span = last - first
    rush = (span < RUSH_GAP * np.maximum(events - 1, 1)) & (span < RUSH_SHARE * np.maximum(waited, 0.0))
    return ~whole(records) & several_tokens(records) & (events > 0) & ((span == 0) | rush)


@remembered
def several_tokens(records: Records) -> Mask:
    """Answers of more than one token, so far as is known; where no count was told, those of which more were asked."""
    told = np.where(records.output_tokens == MISSING, arrived_tokens(records), records.output_tokens)
    asked = ~counted(records) & (records.asked_output_tokens > 1)
    return (told > 1) | asked


def _uncounted(records: Records) -> Mask:
    return ~counted(records) & several_tokens(records)


def _miscounted(records: Records) -> Mask:
    total = records.output_tokens
    return told_per_event(records) & (total != MISSING) & (total != arrived_tokens(records))


ONE_DOCUMENT = Cause(
    "not streamed",
    "the answers were not streamed",
    "Have them streamed, or bound e2e.",
    whole,
)
UNSEEN = Cause(
    "invisible",
    "no token of the answers is visible",
    "Special tokens and hidden reasoning show nothing: ask for text, or bound e2e.",
    lambda records: records.noted(INVISIBLE) & (records.event_counts == 0),
)
ONE_PIECE = Cause(
    "in one piece",
    "the answers came in one piece",
    "Something holds the stream back: turn off the buffering of the server or of the proxy before it.",
    in_one_piece,
)
NOT_TOLD = Cause(
    "not told",
    "the server tells no counts",
    "Have it tell `usage` in its streams, or bound itl, ttft or e2e.",
    _uncounted,
)
MISCOUNTED = Cause(
    "miscounted",
    "the server's count differs from the tokens that came",
    "See what lies between: something adds or drops events.",
    _miscounted,
)
NO_GAP = Cause("one token", "no answer has more than one token", "Ask for longer answers, or bound ttft or e2e.")
TOGETHER = Cause(
    "together",
    "most events arrive together with an earlier one",
    "Something gathers events: turn that off, or bound a higher quantile or tpot.",
)
# Of which metric what may be lacking, in the order in which it is asked.
CAUSES: dict[str, tuple[Cause, ...]] = {
    "ttft": (ONE_DOCUMENT, UNSEEN),
    "service_ttft": (ONE_DOCUMENT, UNSEEN),
    "itl": (ONE_DOCUMENT, UNSEEN, ONE_PIECE),
    "itl_per_token": (ONE_DOCUMENT, UNSEEN, ONE_PIECE, NOT_TOLD, MISCOUNTED),
    "tpot": (ONE_DOCUMENT, UNSEEN, ONE_PIECE, NOT_TOLD, MISCOUNTED),
}


def lacking(records: Records, metric: str) -> list[tuple[Cause, Mask]]:
    """The completed requests that lack a figure for a reason, by the first that applies."""
    left, found = records.having(COMPLETED), []
    for cause in CAUSES.get(metric, ()):
        mask = left & cause.among(records)
        left = left & ~mask
        found.append((cause, mask))
    return found


def lacks(records: Records, metric: str) -> Mask:
    """Completed requests whose figure of this metric cannot be had."""
    masks = [mask for _, mask in lacking(records, metric)]
    return np.logical_or.reduce(masks) if masks else np.zeros(len(records), dtype=bool)


def main_cause(records: Records, metric: str) -> tuple[Cause, float] | None:
    """What most requests lack a figure for, with the share of the completed ones that lack it; None where none does."""
    counts = [(int(np.count_nonzero(mask)), cause) for cause, mask in lacking(records, metric)]
    total = sum(count for count, _ in counts)
    if not total:
        return None
    completed = int(np.count_nonzero(records.having(COMPLETED)))
    return max(counts, key=lambda each: each[0])[1], total / completed
