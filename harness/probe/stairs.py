"""A load that climbs: a few chats that stay, and on top of them one whole prefill after the other, each time at a sum
of tokens that is a little larger. What an engine without a memory check dies of is found in small steps that way,
without reading all of the chats again for each of them.

Before each prefill a chat of just the size that is wanted is read, which ends after it: the number of chats stays the
same. All that stay have next to nothing left to write at the last step, so that there what is reserved and what is
written are nearly the same; on the way up they differ by a token or two for each chat and step.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.probe import loads
from harness.probe.setting import Load, Shape

LEAST = 28  # tokens of the chat that makes up a size
TURN = 3  # answer tokens of a short chat while one prompt is sent and read
PAIR = 2  # prompts of a step: one that joins the short chats, and one that is read on top
JOINS = 3  # answer tokens of each: two when it has joined, one with the other on top of it
LASTS = 4  # its answer tokens: two in the round in which it is read, one with the prefill on top of it, one to spare


def climb(
    sizes: Sequence[int],
    lengths: Sequence[int],
    *,
    prefill: int,
    longest: int,
    total: int,
    always: int = 1,
    most: int = loads.ROWS_CAP,
) -> Load:
    """sizes: tokens in flight at each step, rising. lengths: of the prompts that are read on top, as many of each as
    fill one prefill: the first ones at every step (`always` of them), the others at the last. The very first fills a
    prefill alone, so that the chat before it is not read with it. total: of one chat. most: chats beside each other.

    No requests where not even the smallest size holds such a prompt, or where it takes too many chats.
    """
    first = _top(lengths[0], prefill)
    on_top = sum(shape.total for shape in first)
    room = sizes[0] - on_top - LEAST
    if room < -LEAST + LASTS + 4:
        return Load("fill", ())
    after = (1 + always) * len(sizes) + len(lengths) - always
    base = _base(max(0, room), after, prefill, longest, total)
    if len(base) + 1 + len(first) > most:
        return Load("fill", ())
    kept = sum(shape.total for shape in base)
    shapes, stairs = list(base), []
    for size in sizes:
        tops = [_top(length, prefill) for length in (lengths if size == sizes[-1] else lengths[:always])]
        tops = [top for top in tops if len(base) + 1 + len(top) <= most]
        answer = LASTS + len(tops) - 1
        whole = min(max(size - kept - on_top, answer + 4), longest + answer, total)
        shapes.append(Shape(whole - answer, answer))
        for top in tops:
            shapes += top
            stairs.append((len(shapes), kept + whole + sum(shape.total for shape in top), len(base) + 1 + len(top)))
    return Load(
        "fill",
        (tuple(shapes),),
        budget=sizes[-1],
        history=lengths[0],
        leave_after_tokens=loads.TOP_SPARE,
        target_tokens_in_flight=max(size for _, size, _ in stairs),
        stairs=tuple(stairs),
        stays=len(base),
    )


def on_short_chats(rows: int, lengths: Sequence[int], total: int, alive: int, read: int | None = None) -> Load:
    """Pairs of prompts, one pair after the other, on top of short chats that stay: whichever is read first joins them,
    and the other is read on top of them all. Where a batch is as long as its longest, each step weighs what so many
    chats of that length do. One prompt would not do: TGI reads it in a batch of its own, and pads the others when it
    joins them (server/text_generation_server/models/causal_lm.py, concatenate).

    rows: chats with the pair. lengths: rising. total: of one chat. alive: answer tokens that a short chat has beside
    those which the prompts take. read: length of the second where it is not that of the first; it then ends with its
    first token.
    """
    new = min(alive + TURN * PAIR * len(lengths), total - loads.SHORT)
    if rows < PAIR or new < 1:
        return Load("onto", ())
    short = (Shape(loads.SHORT, new),) * (rows - PAIR)
    last = None if read is None else Shape(read, 1)
    pairs = [(Shape(length, JOINS), last or Shape(length, JOINS)) for length in lengths]
    kept = len(short) * (loads.SHORT + new)
    stairs = [
        (len(short) + PAIR * number, kept + sum(shape.total for shape in pair), rows)
        for number, pair in enumerate(pairs, 1)
    ]
    return Load(
        "onto",
        (*([short] if short else []), *pairs),
        chats=rows - 1,
        history=lengths[-1],
        leave_after_tokens=1,
        min_tokens_before_next_wave=JOINS + 1,  # more than a pair has: it is to be over, or three would be in one batch
        stairs=tuple(stairs),
        stays=len(short),
    )


def _top(length: int, prefill: int) -> list[Shape]:
    """They end in the round in which they are read, or would be beside the next."""
    return [Shape(length, loads.TOP_SPARE)] * max(1, prefill // length)


def _base(room: int, after: int, prefill: int, longest: int, total: int) -> list[Shape]:
    """The chats that stay, so long that they run until so many more rounds are over."""
    most = max(1, min(total, longest + loads.TOP_SPARE))
    count = -(-room // most)
    count = min(count, room // (after + 2 * count + loads.SHORT))
    if count < 1:
        return []
    sizes = loads.even(room, count)
    return loads.read_in_turn(sizes, prefill, longest, total, loads.LEAST_SPARE, together=False, after=after)
