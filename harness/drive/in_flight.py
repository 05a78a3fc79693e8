"""What an engine had in flight at once, counted from outside so that it is never more than the truth.

Tokens that are stamped alike were read in one turn of the client: which of them an engine sent first is not known. What
was read in an earlier turn had been sent before. So a chat counts beside another where it got a token in a later turn
than the other's first, and with the tokens that came in earlier ones: a count that is too late by a turn would take
chats for running that had just ended, or for longer than they were.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from harness.load.burst import BurstAnswer


def carried(begun: Sequence[BurstAnswer], *, to_end: bool = False) -> int | None:
    """Most tokens that were certainly in flight while a prompt was read: that prompt, and prompts and answers so far of
    all that ran beside it. to_end: or at any other moment.

    What was asked for in all may be more: some may have ended before, or had to wait. None where nothing began.
    """
    reads = [_beside_a_prompt(begun, moment) for moment in {each.token_at[0] for each in begun}]
    ends = [_just_before(begun, moment) for moment in {each.token_at[-1] for each in begun}] if to_end else []
    return max([*reads, *ends], default=None)


def at_steps(answers: Sequence[BurstAnswer], ends: Sequence[int]) -> tuple[int, ...]:
    """Tokens that were certainly in flight when the last prompt of each step of a load that climbs was read, as far as
    it came. answers: in the order of the requests; within a step an engine may read them in another. ends: requests up
    to and with those of each step.
    """
    begun = [each for each in answers if each.begun]
    found = []
    for start, end in pairwise([0, *ends]):
        if not all(each.begun for each in answers[:end]):
            break
        found.append(_beside_a_prompt(begun, max(each.token_at[0] for each in answers[start:end])))
    return tuple(found)


def _beside_a_prompt(begun: Sequence[BurstAnswer], moment: float) -> int:
    """When the prompts were read whose first tokens came in this turn."""
    running = [each for each in begun if each.token_at[0] < moment < each.token_at[-1]]
    lasting = sum(each.request.input_tokens for each in begun if each.token_at[0] == moment < each.token_at[-1])
    # One that ended in the turn in which it began may have done so before the others were read.
    ended = (each.request.input_tokens for each in begun if each.token_at[0] == moment == each.token_at[-1])
    return _tokens(running, moment) + max(lasting, max(ended, default=0))


def _just_before(begun: Sequence[BurstAnswer], moment: float) -> int:
    """When the tokens of this turn had not come yet: all that get one had lived through what came before."""
    return _tokens([each for each in begun if each.token_at[0] < moment <= each.token_at[-1]], moment)


def _tokens(running: Sequence[BurstAnswer], moment: float) -> int:
    return sum(each.request.input_tokens + bisect_left(each.token_at, moment) for each in running)


def running_at_death(begun: Sequence[BurstAnswer]) -> int:
    """Tokens of all that had begun and not ended of itself when the burst ended, as the engine last lived with them:
    each one's newest token was still to be written.
    """
    return sum(each.request.input_tokens + len(each.token_at) - 1 for each in begun if not each.ok)


def beside(begun: Sequence[BurstAnswer]) -> int | None:
    """Most requests in flight at once for certain when one of the last wave began: each had a token and was to have
    another. What ran before that wave came may have ended. Beside one whose tokens were all read in one turn are those
    that ran before that turn and after it, also where it was to have one only. None without any.
    """
    order = [each for each in begun if len(each.token_at) > 1]
    if not order:
        return None
    last = max(each.wave for each in begun)
    moments = {each.token_at[0] for each in begun if each.wave == last}
    whole = [each for each in begun if len(each.token_at) > 1 or each.request.max_new_tokens == 1]
    at_once = {each.token_at[0] for each in whole if each.wave == last and each.token_at[0] == each.token_at[-1]}
    return max(
        *(sum(each.token_at[0] <= moment < each.token_at[-1] for each in order) for moment in moments),
        *(1 + sum(each.token_at[0] < moment < each.token_at[-1] for each in order) for moment in at_once),
        0,
    )
