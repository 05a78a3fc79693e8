"""Which events of an OpenAI-style stream hold tokens, and how many, from the counts that the server sends.

A server may tell how many tokens there are so far in some events or in all of them, or for the whole answer at its end,
or never. Each count cuts the stream into parts; within a part, events with text hold at least one token each, and those
without hold one only where the count says so. Engines differ: TGI sends an end-of-sequence token, or a piece of a
character, as a chunk with empty text; others send such chunks for the role or the finish reason alone.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from harness.engines.stream import EventKind, Stream

# From what is most likely a token to what is least.
_TOKENS = (
    {EventKind.CONTENT},
    {EventKind.CONTENT, EventKind.EMPTY_END},
    {EventKind.CONTENT, EventKind.EMPTY},
    {EventKind.CONTENT, EventKind.EMPTY_END, EventKind.EMPTY},
)
_TOKENS_OF_TGI = (*_TOKENS, {EventKind.CONTENT, EventKind.EMPTY, EventKind.OPENING}, {*EventKind})
_STALE_MOST = 0.5  # of the events with text may bring no token of their own; beyond, the counts do not run along


class _Part(NamedTuple):
    """Events start <= index < stop, and the tokens that they hold together."""

    start: int
    stop: int
    tokens: int


def count_events(stream: Stream) -> None:
    """Leaves the events that hold tokens, with what is known of how many, and how that is known."""
    texts = stream.kinds.count(EventKind.CONTENT)
    told_at = stream.marks[-1][0] if stream.marks else 0
    if not stream.marks or (texts and (not stream.output_tokens or EventKind.CONTENT in stream.kinds[told_at:])):
        # Never told, or none for an answer with text, or not for all of it.
        stream.output_tokens = None
        stream.count_told = "per_event" if texts and stream.owned >= texts else None
        _keep(stream, [index for index, kind in enumerate(stream.kinds) if kind is EventKind.CONTENT])
        return
    if texts == len(stream.kinds) == stream.output_tokens and not stream.owned and len(stream.marks) == 1:
        stream.count_told = "per_event"  # one token each: the usual case
        return
    kept: list[int] = []
    parts = _parts(stream)
    if texts and not stream.thoughts and stream.unseen < (stream.output_tokens or 0):
        stream.counts[stream.kinds.index(EventKind.CONTENT)] += stream.unseen
    known = all([_count_part(stream, part, kept) for part in parts])
    stream.count_told = "per_event" if known else "per_answer"
    if not known and stream.text:
        stream.first_share = stream.first_text / stream.text
    _keep(stream, kept)


def _parts(stream: Stream) -> list[_Part]:
    """The stream cut behind each count that tells of events with text; what comes without any belongs to the next such.

    A server may send one step's tokens as two events and tell the same count with both: the second one brings none.
    """
    told = _running(stream)
    if told is not stream.marks and not stream.owned:
        stream.counts = [1] * len(stream.counts)
    parts: list[_Part] = []
    start = before = 0
    for number, (stop, tokens) in enumerate(told):
        last = number == len(told) - 1
        if EventKind.CONTENT in stream.kinds[start:stop]:
            if tokens > before:
                parts.append(_Part(start, stop, tokens - before))
            start, before = stop, tokens
        if last and (start < len(stream.kinds) or tokens > before):
            parts.append(_Part(start, len(stream.kinds), tokens - before))
    return parts


def _running(stream: Stream) -> Sequence[tuple[int, int]]:
    """What was told on the way, where it runs along with the text; else what was told last.

    It does not where the first text came with a count of none, where most text came without a further one (the counts
    may be those of each chunk, or a placeholder), or where the count went down.
    """
    marks, before, start, stale, texts = stream.marks, 0, 0, 0, 0
    for stop, tokens in marks:
        own = stream.kinds[start:stop].count(EventKind.CONTENT)
        if tokens < before or (own and not texts and tokens < own):
            return [(marks[-1][0], stream.output_tokens or 0)]
        stale += own > 0 and tokens == before
        texts, start, before = texts + own, stop, tokens
    return marks if stale <= _STALE_MOST * texts else [(marks[-1][0], stream.output_tokens or 0)]


def _count_part(stream: Stream, part: _Part, kept: list[int]) -> bool:
    """Adds the events of a part that hold tokens to `kept`; whether it is known how many each holds."""
    if part.stop == part.start + 1 and stream.kinds[part.start] is EventKind.CONTENT:  # a count in every event
        stream.counts[part.start] = part.tokens
        kept.append(part.start)
        return True
    indices = range(part.start, part.stop)
    texts = [index for index in indices if stream.kinds[index] is EventKind.CONTENT]
    for kinds in _admissible(stream):
        chosen = [index for index in indices if stream.kinds[index] in kinds]
        if sum(stream.counts[index] for index in chosen) == part.tokens and (chosen or not part.tokens):
            kept += chosen
            return True
    if len(texts) == 1:
        stream.counts[texts[0]] = part.tokens
        kept += texts
        return True
    if not texts:  # behind the last text: the end-of-sequence token, or what the server counts besides
        if kept:
            stream.counts[kept[-1]] += part.tokens
        return True
    kept += texts
    return False


def _admissible(stream: Stream) -> Sequence[set[EventKind]]:
    if stream.roles:
        return _TOKENS_OF_TGI
    return _TOKENS if stream.finish_reason != "length" else (_TOKENS[0], _TOKENS[2])


def _keep(stream: Stream, indices: Sequence[int]) -> None:
    if len(indices) == len(stream.kinds):
        return
    stream.ends = array("q", [stream.ends[index] for index in indices])
    stream.counts = [stream.counts[index] for index in indices]
    stream.kinds = [stream.kinds[index] for index in indices]
