"""Plays a workload with made-up answers, to show what would be asked. Sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from harness.load.stream_user import StreamUser
from harness.workload.mix import SLOTS
from harness.workload.request import Reply, Request, Script
from harness.workload.seeds import uniform
from harness.workload.workload import Workload

MOST_REQUESTS = 10_000  # of one conversation: a script may go on for ever when no answer says what it waits for

Rehearsed = list[tuple[int, int, int, float]]
"""Of one conversation each request: tokens of the prompt, of its answer, of the history in it; seconds before it."""


def rehearse(
    workload: Workload, users: Sequence[type[StreamUser]], environment: Any, count: int, seed: int
) -> list[Rehearsed]:
    """The first conversations, or requests; of several classes by their weights. environment: Locust's."""
    return [_play(_start(workload, users, environment, number, seed)) for number in range(count)]


def _start(workload: Workload, users: Sequence[type[StreamUser]], environment: Any, number: int, seed: int) -> Script:
    weights = list(accumulate(user.weight for user in users))
    drawn = uniform(seed, "user class", 0, number) * weights[-1]
    slot = next(place for place, weight in enumerate(weights) if drawn <= weight)
    player = None
    if users[slot].scripts:
        one = users[slot](environment)
        one.on_start()
        player = one.script
    return workload.start(number * SLOTS + slot if len(users) > 1 else number, player)


def _play(script: Script) -> Rehearsed:
    asked: list[Request] = []
    try:
        request = next(script)
        while len(asked) < MOST_REQUESTS:
            asked.append(request)
            if not request.wants_answer:
                break
            request = script.send(_answer(request))
    except StopIteration:
        pass
    script.close()
    return [(each.input_tokens, each.max_new_tokens, each.history_tokens or 0, each.delay or 0.0) for each in asked]


def _answer(request: Request) -> Reply:
    return Reply("so " * request.max_new_tokens, None, request.input_tokens, request.max_new_tokens, "length")
