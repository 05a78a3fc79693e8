"""The loads that a started engine is sent: the worst that a setting allows, as sets of requests in tokens.

A setting is proved by any load that its flags admit, not only by the longest chats: many short ones, prompts shorter
than the maximum (memory need not grow steadily with the length), a prefill on top of a full batch, the budget filled
exactly. Sending is not done here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from harness.engines.base import EngineFacts
from harness.probe.setting import CHUNK, Load, Setting, Shape

SHORT = 24  # prompt tokens of a short chat
BRIEF = 24  # answer tokens of a chat that only has to be alive beside others
ALIVE = 64  # answer tokens of a chat that must still run when a long prompt joins (TGI lets it wait 20 steps)
BRISK = 40  # the same where it need not wait
JOINED = 0.6  # of the cache, that a long prompt on top of many short chats may take together with them
JOINING = 12  # answer tokens that others have left when a prompt is sent that joins them
SPARE = 4  # answer tokens that each chat of a packed load has left when the last is read
FEW = 4  # chats, up to which all are sent before the first is read
TOP_SPARE = 2  # of the last ones themselves
LEAST_SPARE = 1  # the same where there are many chats, whose spare tokens together are a good part of the budget
ROWS_CAP = 1024  # most chats at once that are tried
EXCESS = 4
SENDING = 0.002  # seconds in which one more request is surely sent
ARRIVING = 0.003  # the same where all must have come before the first is read
MOST_LEADS = 8
LET_IN = ROWS_CAP + MOST_LEADS + 1  # requests at once while a boundary is sought: most chats, and what goes before
LEADING = 0.025  # of the chats that are let in, whose places leading requests may take
MOST_BRIEF = 64
BEHIND = 16  # answer tokens more of the last chat of a load that is sent again
SETTLES = 30  # times, at most, that prompts and answers of a load are fitted to each other
LASTING = 768  # answer tokens of a chat that holds its place until it is left
PARTS = (4 / 3, 2, 3, 4, 6, 8)  # prompts in one prefill, beside one alone; the first is one shorter by a quarter
BLOCKS = (128, 64, 32, 16)  # tokens of a block
WHOLE_ANSWER = 3.0  # seconds


def slots(tokens: int, block: int) -> int:
    """Whole blocks of one chat, in tokens."""
    return max(1, -(-tokens // block)) * block


def short_answer(room: int, count: int, block: int, most: int) -> int:
    """Answer tokens, at most so many, with which `count` short chats, each in whole blocks, fit into so many tokens."""
    return max(2, min(most, room // count // block * block - SHORT - 7))


def at_once(count: int, itl: float | None, most: int) -> int:
    """Answer tokens, at most so many, with which the first of `count` chats still runs when the last has come."""
    return max(8, min(most, MOST_BRIEF, BRIEF + (math.ceil(count * SENDING / itl) if itl else 0)))


def rows(count: int, new: int = BRIEF) -> Load:
    """So many short chats at once; their lengths differ a little, so that they fill no prefill budget exactly."""
    return Load("rows", (tuple(Shape(SHORT + index % 7, new) for index in range(count)),), chats=count)


def batch(count: int, history: int) -> Load:
    """So many equal chats at once, to see how fast they go."""
    shapes = tuple(Shape(history - index % 5, BRIEF) for index in range(count))
    return Load("batch", (shapes,), chats=count, history=history)


def cell(history: int, count: int, answer: int, itl: float | None) -> Load:
    """A cell of the capacity card, whole answers where that takes no longer than a few seconds."""
    whole = itl is not None and answer * itl <= WHOLE_ANSWER
    shapes = (Shape(history, min(answer, CHUNK)),) * count
    return Load("cell", (shapes,), history=history, leave_after_tokens=None if whole else BRIEF)


def row_steps(limit: int, fine: int = 1) -> Iterator[int]:
    """1, 2, 4, 8, 16, 24, 32, 48, ... up to the limit, which is always the last. fine: from which number on the steps
    are of a half and a third; below they double.
    """
    count = 1
    while count < limit:
        yield count
        power = count & (count - 1) == 0
        count = count * 2 if count < fine or count == 1 else (count * 3 // 2 if power else count * 4 // 3)
    yield limit


def longest(input_tokens: int, new_tokens: int) -> Load:
    """The longest chat alone; nobody waits for the end of its answer."""
    return Load("longest", ((Shape(input_tokens, min(new_tokens, CHUNK)),),), leave_after_tokens=4)


def overload(concurrency: int, new: int = BRIEF, *, fitting: int | None = None) -> Load:
    """A few requests more than the engine takes at once: they must be refused at once, the others served.

    fitting: chats that run beside each other, where the others wait in the queue; both hold a permit.
    """
    queued = 0 if fitting is None else max(0, concurrency - fitting)
    shapes = tuple(Shape(SHORT + index % 7, new) for index in range(concurrency + EXCESS))
    return Load("overload", (shapes,), expected_rejections=EXCESS, leave_after_tokens=2, queued=queued)


def alive(itl: float | None) -> int:
    """Answer tokens of a chat that is still running half a second from now."""
    return max(BRIEF, min(ALIVE, math.ceil(0.5 / itl))) if itl else ALIVE


def onto(count: int, long_tokens: int, new: int = ALIVE) -> Load:
    """A long prompt that joins `count` short chats in full swing."""
    short = tuple(Shape(SHORT, new) for _ in range(count))
    return Load("onto", (short, (Shape(long_tokens, SPARE),)), chats=count)


def fill(budget: int, input_tokens: int, new_tokens: int, *, most: int, slack: int = 0, block: int = 1) -> Load:
    """Chats of this length that together take exactly `budget` tokens, at most `most` of them; the odd one comes first.

    slack: tokens by which a chat's reservation is smaller than prompt plus answer (1 on block-allocated engines).
    block: tokens of a block; each chat takes whole ones.
    """
    each = -(-(input_tokens + new_tokens - slack) // block) * block
    count = min(most, budget // each)
    shapes = [Shape(input_tokens, new_tokens)] * count
    rest = (budget - count * each) // block * block
    if rest >= new_tokens + 8 and count < most:
        shapes.insert(0, Shape(rest - new_tokens + slack, new_tokens))
    return Load("fill", (tuple(shapes),), budget=budget, history=input_tokens)


def stacked(
    size: int,
    length: int,
    prefill: int,
    longest: int,
    total: int,
    *,
    rows: int | None = None,
    equal: bool = False,
    leads: int = 1,
) -> Load:
    """Chats that take `size` tokens, and one whole prefill of prompts of `length` on top of them, with next to nothing
    left to write when that is read: what is reserved and what is written are then nearly the same, so that the load
    bounds a budget whichever of the two an engine takes memory for.

    They are read in the order in which they were sent, and each has just so many answer tokens that it still runs when
    the last ones are read. longest: prompt that is taken; total: of one chat. rows: chats, each of which may cost
    something by itself, else as few as will do; many arrive while `leads` prompts are read that end with their first
    token, so that all of them wait then. equal: all but the last are the same, because an engine that heeds a budget
    may count each row as long as the longest.
    """
    tops = max(1, prefill // max(1, length))
    if rows is not None:
        tops = min(tops, max(1, rows - 1))
    spare = SPARE if rows is None else LEAST_SPARE
    top = (Shape(length, SPARE if rows is None else TOP_SPARE + (tops > 1)),) * tops
    lead = () if rows is None or rows <= FEW else (Shape(longest, 1),) * leads
    load = partial(Load, "fill", budget=size, history=length, chats=rows, leave_after_tokens=2, leading=len(lead))
    room = size - sum(shape.total for shape in top)
    most = max(1, min(total, longest + spare))
    count = max(1, -(-room // most)) if rows is None else rows - tops
    count = min(count, room // (SHORT + spare + 4))
    if count < 1:
        return load((top,), target_tokens_in_flight=sum(shape.total for shape in top), leading=0)  # nobody to wait for
    sizes = (room // count,) * count if equal else aligned(room, count, most)
    shapes = read_in_turn(sizes, prefill, longest, total, spare, together=bool(lead))
    if equal:
        shapes = [min(shapes, key=lambda shape: shape.input_tokens)] * count
    target = sum(shape.total for shape in (*shapes, *top))
    return load(((*lead, *shapes, *top),), target_tokens_in_flight=target)


def evenly(
    size: int, rows: int, prefill: int, longest: int, total: int, *, equal: bool = False, leads: int = 1
) -> Load:
    """So many chats of nearly one length that take `size` tokens, and have next to nothing left to write when the last
    are read; these are as many as fill one prefill. equal: all of just one length, see `stacked`.
    """
    most = min(total, longest + LEAST_SPARE)
    room = rows * max(SHORT, min(size // rows, most))
    lead = (Shape(longest, 1),) * leads if rows > FEW else ()
    sizes = even(room, rows) if equal else aligned(room, rows, most, left=LEAST_SPARE + 1)
    before = 0 if equal or not lead else _before_last(sizes, prefill)
    shapes = read_in_turn(sizes, prefill, longest, total, LEAST_SPARE, together=bool(lead), gate=before)
    if equal:
        shapes = [min(shapes, key=lambda shape: shape.input_tokens)] * rows
    else:  # those that are read last have written nothing then
        shapes = [_as_read(shape, longest) if shape.max_new_tokens == 2 + LEAST_SPARE else shape for shape in shapes]
    # Nothing is read with it, neither what is before nor what comes after.
    gate = (Shape(prefill // 2 + 1, 1),) if before > 0 else ()
    whole = (*lead, *shapes[:before], *gate, *shapes[before:])
    load = Load("fill", (whole,), chats=rows, budget=size, history=whole[-1].input_tokens, leave_after_tokens=2)
    tokens = sum(shape.total for shape in shapes)
    return replace(load, leading=len(lead) + len(gate), target_tokens_in_flight=tokens)


def _before_last(sizes: Sequence[int], prefill: int) -> int:
    """How many chats are read before the last ones, which fill one prefill."""
    widest = 0
    for index, size in enumerate(reversed(sizes)):
        widest = max(widest, size - 2)
        if (index + 1) * widest > prefill:
            return len(sizes) - index
    return 0


def _as_read(shape: Shape, longest: int) -> Shape:
    """With as much written when it is read as others have then, one token after their last."""
    more = int(shape.input_tokens < longest)
    return Shape(shape.input_tokens + more, shape.max_new_tokens - more)


def aligned(room: int, count: int, most: int, left: int = LEAST_SPARE) -> tuple[int, ...]:
    """So many sizes that are `room` together, none above `most`, nearly all just above a whole number of blocks when
    `left` tokens are still to be written: an engine that keeps memory by blocks wastes most on such.
    """
    each, above = room // count, left + 1
    block = next((block for block in BLOCKS if block + above <= each and each + 2 * block <= most), None)
    if block is None:
        return even(room, count)
    whole = (each - above) // block * block + above
    more, rest = divmod(room - count * whole, block)
    sizes = [whole + block * (index < more) for index in range(count)]
    return (*sizes[:-1], sizes[-1] + rest)


def even(room: int, count: int) -> tuple[int, ...]:
    """So many sizes, as equal as may be, that are `room` together."""
    each, more = divmod(room, count)
    return (each + 1,) * more + (each,) * (count - more)


def read_in_turn(
    sizes: Sequence[int],
    prefill: int,
    longest: int,
    total: int,
    spare: int,
    *,
    together: bool,
    after: int = 0,
    gate: int = 0,
) -> list[Shape]:
    """Chats of these sizes, each with so many answer tokens that it has `spare` left when all and what comes on top are
    read: two come in the round in which it is read, and one in each later one. together: all have come before the first
    is taken. after: rounds in which others are read after them. gate: chats after which a round is for another request.
    """
    prompts = list(sizes)
    shapes: list[Shape] = []
    for _ in range(SETTLES):  # how many are read in a round depends on what the answers leave of the sizes
        turns = _turns(prompts, prefill, together=together, gate=gate)
        answers = [
            min(turns[-1] + after - own + 2 + spare, total - 1, size - 1)
            for own, size in zip(turns, sizes, strict=True)
        ]
        shapes = [Shape(min(size - new, longest, total - new), new) for size, new in zip(sizes, answers, strict=True)]
        before, prompts = prompts, [shape.input_tokens for shape in shapes]
        if prompts == before:
            break
    return shapes


def _turns(prompts: Sequence[int], prefill: int, *, together: bool, gate: int) -> list[int]:
    """In which round each of these is read: a batch is as long as its longest, in so many tokens."""
    turns: list[int] = []
    turn = read = widest = 0
    for index, prompt in enumerate(prompts):
        widest = max(widest, prompt)
        if index and index == gate:
            turn, read, widest = turn + 2, 0, prompt
        elif turns and ((len(turns) == 1 and not together) or (read + 1) * widest > prefill):
            turn, read, widest = turn + 1, 0, prompt
        read += 1
        turns.append(turn)
    return turns


def stretched(load: Load, more: int, most: int) -> Load:
    """The same tokens in all, with so many more of them in answers: for chats that ended before the last were read. The
    last one by itself has the same prompt, and as far as `most` of one chat allow more answer too, by a token from each
    of the others: of these one may come just behind it.
    """
    (shapes,) = load.waves
    if load.stairs:
        return replace(load, waves=((*_longer(load, shapes[: load.stays], more), *shapes[load.stays :]),))
    tops = next((at for at, shape in enumerate(reversed(shapes)) if shape != shapes[-1]), len(shapes) - load.leading)
    if tops > 1:  # they may be read one after the other too
        return replace(load, waves=(tuple(_longer(load, shapes, more)),))
    before, last = list(_longer(load, shapes[:-1], more)), shapes[-1]
    givers = [at for at, shape in enumerate(before) if not load.leads(shape.max_new_tokens) and shape.input_tokens > 8]
    givers = givers[: max(0, min(more, BEHIND, most - last.total))]
    for at in givers:
        before[at] = Shape(before[at].input_tokens - 1, before[at].max_new_tokens)
    return replace(load, waves=((*before, Shape(last.input_tokens, last.max_new_tokens + len(givers))),))


def lasting(load: Load, more: int, most: int) -> Load:
    """The same prompts with so many more answer tokens for all but the longest, as far as `most` of one chat allow. Of
    a load that climbs only those that stay get more: its steps must be over before the next, or both would be there.
    """

    def longer(shape: Shape) -> Shape:
        added = 0 if shape.input_tokens > most else max(0, min(more, most - shape.total))
        return Shape(shape.input_tokens, shape.max_new_tokens + added)

    waves = [tuple(longer(shape) for shape in wave) for wave in load.waves]
    if load.stairs:
        return replace(load, waves=(waves[0], *load.waves[1:])) if load.stays else load
    return replace(load, waves=tuple(waves))


def _longer(load: Load, shapes: Sequence[Shape], more: int) -> Iterator[Shape]:
    for shape in shapes:
        moved = 0 if load.leads(shape.max_new_tokens) else max(0, min(more, shape.input_tokens - 8))
        yield Shape(shape.input_tokens - moved, shape.max_new_tokens + moved)


def alike(prompt: int, total: int) -> Load:
    """Two long chats that begin alike: the second looks up a cached beginning whose blocks it also waits for."""
    first, second = Shape(prompt, SPARE), Shape(prompt, min(CHUNK, total - prompt))
    return Load("alike", ((first,), (second,)), leave_after_tokens=2, shared_tokens=max(1, prompt // 2))


def written(size: int, rows: int, total: int) -> Load:
    """So many chats with short prompts and answers that take `size` tokens in all: what an engine keeps of an answer
    may be more than of a prompt.
    """
    each = max(SHORT + 8, min(total, size // rows))
    answer = min(CHUNK, each - SHORT)
    shapes = (Shape(each - answer, answer),) * min(rows, max(1, size // each))
    return Load("write", (shapes,), budget=size)


def grown(rows: int, prompt: int, total: int) -> Load:
    """So many chats but one of full length, nearly at the end of their answers, and a prompt of the longest kind on top
    of them: where a batch is as long as its longest chat, this is when it is largest.

    They are read one after another, so that the first is ahead of the last by a token for each.
    """
    answer = min(CHUNK, total - prompt)
    begun = max(1, answer - rows - JOINING)
    full, last = Shape(prompt, answer), Shape(prompt, min(SPARE, answer))
    waves = ((full,) * (rows - 1), (last,))
    tokens = (rows - 1) * full.total + last.total
    return Load("write", waves, budget=tokens, history=prompt, min_tokens_before_next_wave=begun)


def varied(load: Load, steps: int = 5, by: int = 3) -> Load:
    """The same tokens in all, but neighbouring prompts differ: equal ones that fill the prefill budget exactly get a
    false hit of TGI's prefix cache and then look free (backends/v3/src/queue.rs:344).
    """
    return replace(load, waves=tuple(_varied(wave, steps, by) for wave in load.waves))


def _varied(wave: tuple[Shape, ...], steps: int, by: int) -> tuple[Shape, ...]:
    shapes = list(wave)
    for index in range(0, len(shapes) - 1, 2):
        first, second = shapes[index], shapes[index + 1]
        change = by * (1 + index // 2 % steps)
        if first.input_tokens == second.input_tokens and first.input_tokens > 4 * change:
            shapes[index] = Shape(first.input_tokens - change, first.max_new_tokens + change)
    return tuple(shapes)


def answer_length(budget: int, prefill: int) -> int:
    """Answer tokens with which the first of a set is still running when the last has been read in.

    Between two prefill rounds the engine decodes at least once, so each round costs a running chat two tokens.
    """
    return max(BRIEF, min(CHUNK, 2 * math.ceil(budget / max(1, prefill)) + 16))


def leads(rows: int, longest: int, read_rate: float | None, most: int = MOST_LEADS) -> int:
    """Longest prompts, at most so many, that are read while so many requests arrive. read_rate: tokens per second."""
    wanted = math.ceil(rows * ARRIVING * read_rate / max(1, longest)) if read_rate else 1
    return max(1, min(most, wanted))


def proof(
    setting: Setting,
    started: EngineFacts,
    capacity: int | None,
    itl: float | None = None,
    most: int | None = None,
    read_rate: float | None = None,
) -> list[Load]:
    """All loads that a setting must survive, cheap ones first. The overload is the last: its clients leave while others
    wait, and an engine may keep those among its requests for a while, which would then be too many for another check.

    capacity: tokens that can be in flight at once; None where the concurrency limit alone bounds it. itl: seconds
    between tokens of one chat, read_rate: prompt tokens per second, as far as known. most: tokens to fill the cache
    with, where that is not all of it.
    """
    history, total = setting.max_input_tokens or 1, setting.max_total_tokens or 2
    concurrency = setting.most_at_once
    slack = 1 - started.speculate if started.kind == "flash" else -started.speculate
    room = capacity if capacity is not None else concurrency * total
    brief = at_once(concurrency, itl, short_answer(room, concurrency, started.block_size, total - SHORT - 7))
    # Long enough for the first to be there still when the last has come; those that do not fit wait, which counts too.
    lasting = max(1, min(LASTING, total - SHORT - 7))
    fitting = min(concurrency, max(1, room // slots(SHORT + 7 + lasting, started.block_size) - 1))
    loads = [rows(concurrency, brief)]
    prefill = setting.max_batch_prefill_tokens or started.prefill_tokens or history
    loads.append(_join(concurrency, history, total, room, slack, prefill, started.block_size))
    if started.kind == "flash" and started.prefix_caching and history > 2 * SHORT:
        loads.append(alike(min(history, total - SPARE), total))
    loads += list(_fills(setting, started, room if most is None else min(room, max(most, total)), slack, read_rate))
    if started.kind == "flash":  # with a full cache, which the fills have tried without so many chats
        loads.append(_join(concurrency, history, total, room, slack, prefill, started.block_size, full=True))
    alone = min(history, total - 1)
    loads += [longest(alone, total - alone), overload(setting.max_concurrent_requests or 1, lasting, fitting=fitting)]
    return [varied(load) if started.kind == "flash" else load for load in loads if load.shapes]


def _fills(setting: Setting, started: EngineFacts, room: int, slack: int, read_rate: float | None) -> Iterator[Load]:
    """The budget filled by the longest prompts, then by shorter ones."""
    history, total = setting.max_input_tokens or 1, setting.max_total_tokens or 2
    concurrency = setting.most_at_once
    prefill = setting.max_batch_prefill_tokens or started.prefill_tokens or 4096
    if started.kind != "flash":
        yield from _stacked_fills(min(room, concurrency * total), history, total, prefill, concurrency, read_rate)
        return
    new = min(
        answer_length(min(room, concurrency * total), prefill if started.chunking else min(prefill, history)),
        total // 2,
    )
    for share in (1.0, 0.5):
        length = max(1, int(min(history, total - new) * share))
        yield fill(room, length, new, most=concurrency, slack=slack, block=started.block_size)


def _stacked_fills(
    room: int, history: int, total: int, prefill: int, concurrency: int, read_rate: float | None
) -> Iterator[Load]:
    """By few long chats, then by as many as are let in, under a prefill of prompts of several lengths."""
    longest = min(history, total - SPARE)
    few = stacked(room, longest, prefill, longest, total, equal=True)
    if len(few.shapes) <= concurrency:
        yield few
    # The leading requests are let in beside them.
    first = leads(concurrency, longest, read_rate, most=1 + int(concurrency * LEADING)) if concurrency > FEW + 1 else 0
    rows = concurrency - first
    for length in lengths(longest, prefill):
        yield stacked(room, length, prefill, longest, total, rows=rows, equal=True, leads=first)
    # Chats as short as these leave no room for answers that make up for a late arrival.
    if concurrency >= 4 * MOST_LEADS:
        first = leads(concurrency, longest, read_rate)
    yield evenly(room, concurrency - first, prefill, longest, total, equal=True, leads=first)
    yield written(room, concurrency, total)
    if 1 < concurrency <= room // total:  # the number of chats bounds what is in flight
        yield grown(concurrency, longest, total)


def lengths(longest: int, prefill: int, parts: Sequence[float] = PARTS) -> list[int]:
    """Prompt lengths to top a full cache with: the longest, and such as so many fill one prefill exactly."""
    chosen = [longest, *(int(prefill / count) for count in parts)]
    return list(dict.fromkeys(each for each in chosen if 8 <= each <= longest))


def join(concurrency: int, setting: Setting, started: EngineFacts) -> Load:
    """A long prompt on top of so many short chats of a flash engine."""
    room = started.usable or 1
    history, total = setting.max_input_tokens or room, setting.max_total_tokens or room
    prefill = started.prefill_tokens or room
    slack = 1 - started.speculate
    return varied(_join(concurrency, min(history, room), min(total, room), room, slack, prefill, started.block_size))


def _join(
    concurrency: int,
    history: int,
    total: int,
    room: int,
    slack: int,
    prefill: int,
    block: int = 1,
    *,
    full: bool = False,
) -> Load:
    """A long prompt on top of a full batch: two whole prefills on as many short chats as the concurrency limit allows
    where the engine counts blocks; else the longest prompt on as many as leave it room. full: on as many as fill half
    of the cache, so that it takes the other half.
    """
    if slack > 0 and concurrency > 1:
        # Far below a full cache: whether that kills is for the fills to say.
        each, most = slots(SHORT + BRISK - slack, block), room if full else int(room * JOINED)
        all_fit = (concurrency - 1) * each + SHORT < (most // 2 if full else most)
        count = concurrency - 1 if all_fit else max(1, most // 2 // each)
        left = min(history, total - SPARE, most - count * each - (SPARE + block if full else 0), 2 * prefill)
        return onto(count, left, BRISK) if left > SHORT else Load("onto", ())
    long = Shape(min(history, total - SPARE), SPARE)
    count = min(concurrency - 1, (room - long.total + slack) // (SHORT + ALIVE - slack))
    return onto(max(1, count), long.input_tokens) if concurrency > 1 and long.input_tokens > 0 else Load("onto", ())
