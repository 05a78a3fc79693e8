"""What to ask of a started engine: the worst that a setting admits, as sets of requests in tokens.

A setting is proved by any load that its flags admit, not only by the longest chats: many short ones, prompts shorter
than the maximum (memory need not grow steadily with the length), a prefill on top of a full batch, the budget filled
exactly. Sending is not done here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from harness.engines.base import EngineFacts
from harness.probe.setting import CHUNK, Load, Setting, Shape

SHORT = 24  # prompt tokens of a short chat
BRIEF = 24  # answer tokens of a chat that only has to be alive beside others
ALIVE = 64  # answer tokens of a chat that must still run when a long prompt joins (TGI lets it wait 20 steps)
BRISK = 40  # the same where it need not wait
JOINED = 0.6  # of the cache, that a long prompt on top of many short chats may take together with them
SPARE = 4  # answer tokens that the last chat of a packed load has left
ROWS_CAP = 1024  # most chats at once that are tried
EXCESS = 4
SENDING = 0.002  # seconds in which one more request is surely sent
MOST_BRIEF, MOST_LAG = 64, 256
LASTING = 768  # answer tokens of a chat that holds its place until it is left
PARTS = (2, 3, 5, 8)  # prompts in one prefill, beside one alone
WAIT = 20  # steps that TGI lets a few prompts wait beside a running batch (MAX_WAITING_TOKENS)
WHOLE_ANSWER = 3.0  # seconds


def at_once(count: int, itl: float | None, most: int) -> int:
    """Answer tokens, at most so many, with which the first of `count` chats still runs when the last has come."""
    return max(8, min(most, MOST_BRIEF, BRIEF + math.ceil(count * SENDING / itl))) if itl else BRIEF


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


def overload(permits: int, new: int = BRIEF, *, fitting: int | None = None) -> Load:
    """A few requests more than the engine has permits: they must be refused at once, the others served.

    fitting: chats that run beside each other, where the others wait in the queue; both hold a permit.
    """
    queued = 0 if fitting is None else max(0, permits - fitting)
    shapes = tuple(Shape(SHORT + index % 7, new) for index in range(permits + EXCESS))
    return Load("overload", (shapes,), expected_rejections=EXCESS, leave_after_tokens=2, queued=queued)


def alive(itl: float | None) -> int:
    """Answer tokens of a chat that is still running half a second from now."""
    return max(BRIEF, min(ALIVE, math.ceil(0.5 / itl))) if itl else ALIVE


def onto(count: int, long_tokens: int, new: int = ALIVE) -> Load:
    """A long prompt that joins `count` short chats in full swing."""
    short = tuple(Shape(SHORT, new) for _ in range(count))
    return Load("onto", (short, (Shape(long_tokens, SPARE),)), chats=count)


def fill(budget: int, input_tokens: int, new_tokens: int, *, most: int, slack: int = 0) -> Load:
    """Chats of this length that together take exactly `budget` tokens, at most `most` of them; the odd one comes first.

    slack: tokens by which a chat's reservation is smaller than prompt plus answer (1 on block-allocated engines).
    """
    each = input_tokens + new_tokens - slack
    count = min(most, budget // each)
    shapes = [Shape(input_tokens, new_tokens)] * count
    rest = budget - count * each
    if rest >= new_tokens + 8 and count < most:
        shapes.insert(0, Shape(rest - new_tokens + slack, new_tokens))
    return Load("fill", (tuple(shapes),), budget=budget, history=input_tokens)


def crowded(
    size: int,
    rows: int,
    length: int,
    prefill: int,
    longest: int,
    total: int,
    *,
    lag: int = ALIVE,
    grown: int | None = None,
    waiting: bool = False,
) -> Load:
    """So many chats that take `size` tokens in all, and the last of them, one whole prefill of prompts of `length`, is
    read in when all others are there: most chats, a full cache and a prefill at once, the worst that an engine without
    a memory check can meet.

    prefill: prompt tokens that it reads at once. longest: prompt. total: of one chat. lag: answer tokens that a chat
    has to spare until the last prompts are read. grown: answer tokens that a chat was seen to have by then. waiting:
    the engine lets a few prompts wait beside a running batch; then they follow as a wave of their own, else they stand
    in the queue behind the others.
    """
    tops = max(1, min(prefill // max(1, length), rows - 1))
    top = (Shape(length, SPARE),) * tops
    crowd = partial(Load, "fill", budget=size, history=length, same_prefill=tops if tops > 1 else 0)
    room = size - tops * (length + 1)
    others = min(rows - tops, max(0, room) // 16)
    if others < 1:
        return crowd((top,), target_tokens_in_flight=tops * (length + 1))
    if waiting or room // others + SPARE > longest:
        before, grown_to = _growing(room, others, prefill, longest, total, lag, counted=waiting)
        most = sum(shape.total for shape in before) + tops * (length + 1)
        return crowd((before, top), min_tokens_before_next_wave=grown_to, target_tokens_in_flight=min(size, most))
    before = _queueing(room, others, tops, prefill, longest, total, lag, grown)
    # Left when the last ones are read: what comes after is no prefill on a full cache, and only takes time.
    return crowd(((*before, *top),), leave_after_tokens=2, target_tokens_in_flight=size)


def stacked(
    size: int, length: int, prefill: int, longest: int, total: int, *, spare: int = SPARE, rows: int | None = None
) -> Load:
    """Chats that take `size` tokens, and one whole prefill of prompts of `length` on top of them, with next to nothing
    left to write when that is read: what is reserved and what is written are then nearly the same, so that the load
    bounds a budget whichever of the two an engine takes memory for.

    They are read in the order in which they were sent, and each has just so many answer tokens that it still runs when
    the last ones are read. longest: prompt that is taken; total: of one chat. rows: chats, else as few as will do.
    spare: answer tokens that each has left then.
    """
    tops = max(1, prefill // max(1, length))
    if rows is not None:
        tops = min(tops, max(1, rows - 1))
    top = (Shape(length, SPARE),) * tops
    load = partial(Load, "fill", budget=size, history=length, chats=rows, leave_after_tokens=2)
    room = size - sum(shape.total for shape in top)
    most = max(1, min(total, longest + spare))
    count = max(1, -(-room // most)) if rows is None else rows - tops
    count = min(count, room // (SHORT + spare + 4))
    if count < 1:
        return load((top,), target_tokens_in_flight=sum(shape.total for shape in top))
    each = room // count
    at_once = max(1, prefill // each)
    rounds = -(-count // at_once)
    shapes = []
    for index in range(count):
        answer = min(rounds - index // at_once + 1 + spare, total - 1, each - 1)
        prompt = min(each - answer, longest)
        shapes.append(Shape(prompt, answer))
    whole = (*shapes, *top)
    return load((whole,), target_tokens_in_flight=sum(shape.total for shape in whole))


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


def _growing(
    room: int, count: int, prefill: int, longest: int, total: int, lag: int, *, counted: bool
) -> tuple[tuple[Shape, ...], int]:
    """Equal chats that have `room` tokens once each has so many of its answer. counted: their whole answers count."""
    each = room // count
    rounds = math.ceil(count / max(1, prefill // min(each, longest)))
    answer = SPARE + rounds + lag
    prompt = max(1, each - (answer if counted else SPARE + rounds // 2 + 2))
    if prompt > longest:
        answer, prompt = answer + prompt - longest, longest
    answer = max(1, min(answer, total - prompt))
    return (Shape(prompt, answer),) * count, max(1, answer - rounds - lag)


def _queueing(
    room: int, count: int, tops: int, prefill: int, longest: int, total: int, lag: int, grown: int | None
) -> tuple[Shape, ...]:
    """Equal chats that have `room` tokens when the queue behind them is reached. The first is read alone, and long
    enough for the others to arrive meanwhile; so is one before the tops where these would else be read with the last
    others.
    """
    apart = min(longest, prefill // 2 + 1)
    lead, plain = min(longest, max(apart, room // count)), count - 1
    if plain == 0 or (room - lead) // plain < 16:  # no room for it
        lead = room // count
    each = (room - lead) // plain if plain else lead
    between: tuple[int, ...] = ()
    if tops > 1 and plain > 2 and 0 < plain % max(1, prefill // each) < tops and (room - lead - apart) // plain >= 16:
        plain, between = plain - 1, (apart,)
        each = (room - lead - apart) // plain
    rounds = math.ceil(plain / max(1, prefill // each)) + len(between)
    answer = rounds // 2 + 2 if grown is None else grown
    prompts = (max(1, lead - answer), *(max(1, each - answer),) * plain, *between)
    return tuple(Shape(each, max(1, min(SPARE + rounds + lag, total - each))) for each in prompts)


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


def lag(itl: float | None, count: int = 1) -> int:
    """Answer tokens that may come until so many requests have surely been sent; a p95 of the gaps is far above most."""
    return max(SPARE, min(MOST_LAG, math.ceil(3 * (0.1 + count * SENDING) / itl))) if itl else ALIVE


def proof(
    setting: Setting, started: EngineFacts, capacity: int | None, itl: float | None = None, most: int | None = None
) -> list[Load]:
    """All loads that a setting must survive, cheap ones first. The overload is the last: its clients leave while others
    wait, and an engine may keep those among its requests for a while, which would then be too many for another check.

    capacity: tokens that can be in flight at once; None where the permits alone bound it. itl: seconds between tokens
    of one chat, as far as known. most: tokens to fill the cache with, where that is not all of it.
    """
    history, total = setting.max_input_tokens or 1, setting.max_total_tokens or 2
    permits = setting.max_concurrent_requests or 1
    slack = 1 - started.speculate if started.kind == "flash" else -started.speculate
    room = capacity if capacity is not None else permits * total
    brief = at_once(permits, itl, total - SHORT - 7)
    # Long enough for the first to be there still when the last has come; those that do not fit wait, which counts too.
    lasting = max(1, min(LASTING, total - SHORT - 7))
    fitting = max(1, room // (SHORT + 7 + lasting) - 1)
    loads = [rows(permits, brief)]
    prefill = setting.max_batch_prefill_tokens or started.prefill_tokens or history
    loads.append(_join(permits, history, total, room, slack, prefill))
    if started.kind == "flash" and started.prefix_caching and history > 2 * SHORT:
        loads.append(alike(min(history, total - SPARE), total))
    loads += list(_fills(setting, started, room if most is None else min(room, max(most, total)), slack))
    alone = min(history, total - 1)
    loads += [longest(alone, total - alone), overload(permits, lasting, fitting=fitting)]
    return [varied(load) if started.kind == "flash" else load for load in loads if load.shapes]


def _fills(setting: Setting, started: EngineFacts, room: int, slack: int) -> Iterator[Load]:
    """The budget filled by the longest prompts, then by shorter ones."""
    history, total = setting.max_input_tokens or 1, setting.max_total_tokens or 2
    permits = setting.max_concurrent_requests or 1
    prefill = setting.max_batch_prefill_tokens or started.prefill_tokens or 4096
    if started.kind != "flash":
        yield from _crowded_fills(min(room, permits * total), history, total, prefill, permits)
        return
    new = min(
        answer_length(min(room, permits * total), prefill if started.chunking else min(prefill, history)), total // 2
    )
    for share in (1.0, 0.5):
        length = max(1, int(min(history, total - new) * share))
        yield fill(room, length, new, most=permits, slack=slack)


def _crowded_fills(room: int, history: int, total: int, prefill: int, permits: int) -> Iterator[Load]:
    for length in lengths(min(history, total - SPARE), room, permits, prefill):
        yield crowded(room, permits, length, prefill, history, total, lag=2 * WAIT + 8, waiting=True)
    yield written(room, permits, total)


def lengths(longest: int, room: int, most: int, prefill: int) -> list[int]:
    """Prompt lengths to top a full cache with: the longest, two of which several fill one prefill exactly, and the one
    that all chats have where all permits are used.
    """
    spread = room // max(1, most) - SPARE - 2
    chosen = [longest, *(prefill // parts for parts in PARTS), spread]
    return list(dict.fromkeys(each for each in chosen if 8 <= each <= longest))


def join(permits: int, setting: Setting, started: EngineFacts) -> Load:
    """A long prompt on top of so many short chats of a flash engine."""
    room = started.usable or 1
    history, total = setting.max_input_tokens or room, setting.max_total_tokens or room
    prefill = started.prefill_tokens or room
    return varied(_join(permits, min(history, room), min(total, room), room, 1 - started.speculate, prefill))


def _join(permits: int, history: int, total: int, room: int, slack: int, prefill: int) -> Load:
    """A long prompt on top of a full batch: two whole prefills on as many short chats as the permits allow where the
    engine counts blocks; else the longest prompt on as many as leave it room.
    """
    if slack > 0 and permits > 1:
        # Far below a full cache: whether that kills is for the fills to say.
        busy = (permits - 1) * (SHORT + BRISK - slack)
        left = min(history, total - SPARE, int(room * JOINED) - busy, 2 * prefill)
        return onto(permits - 1, left, BRISK) if left > SHORT else Load("onto", ())
    long = Shape(min(history, total - SPARE), SPARE)
    count = min(permits - 1, (room - long.total + slack) // (SHORT + ALIVE - slack))
    return onto(max(1, count), long.input_tokens) if permits > 1 and long.input_tokens > 0 else Load("onto", ())
