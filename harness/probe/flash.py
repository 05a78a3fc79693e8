"""Flash attention: the engine measures its own KV memory, so one start tells the token budget T, and a second one
proves the limits that follow.

A prefill budget P costs memory, so T falls as P grows. With chunked prefill the history does not depend on P; without,
a prompt must fit into P, and the longest history is where P and T(P) meet (goal `history`), or where T has fallen by
the share that a history may cost (goal `balanced`). Every start tells one more point of T(P), failed ones too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.engines.base import EngineFacts
from harness.probe import deadly_load, loads
from harness.probe.flash_evidence import last_up_own_prefill
from harness.probe.recommendation import CONTEXT, OWN_DEFAULT, Recommendation
from harness.probe.setting import Failure, Load, LoadResult, Outcome, Setting, effective_prefill, same_limits
from harness.probe.state import SearchState, survived

LEAST_PREFILL = 64
MIDDLE_PREFILL = 2048
WORTH_A_CHANGE = 0.05  # of the budget, before `balanced` departs from it in a start that is made anyway
WORTH_ANOTHER_START = 0.25  # of the budget, before `balanced` departs from the engine's own prefill budget
MIDDLE_HISTORY = 2000  # tokens, of the chats whose speed is measured over their number
LARGE_CACHE = 200_000  # tokens that are not filled just to learn where that takes long: the proof fills them anyway
# Shares of a cache that are filled one after another, to see at which an engine dies.
RAMP = (0.03, 0.06, 0.085, 0.12, 0.18, 0.25, 0.35, 0.5, 0.6, 0.7, 0.85, 0.93, 0.97, 0.985, 0.993, 1.0)
LOW = 4  # of these that are filled in any case, to see how fast that goes
QUICK_RAMP = 5.0  # seconds for the whole cache, within which all are
FEW = 3  # chats that fill a low share
LESS = (0.97, 0.9, 0.75, 0.5)  # of a total that was refused, where the engine does not say what there is


def next_setting(state: SearchState, last: Outcome) -> Setting | None:
    """The next start, or None when nothing is left to learn or to prove."""
    if state.asked.quick:
        return None
    advice = state.advice
    if survived(last) and (same_limits(last.setting, advice.setting) or _is_settled(state, last, advice)):
        return None
    if last.setting.purpose == "learn" and (other := _smaller_pieces(state, last)) is not None:
        return other
    if deadly_load.is_sought(state):
        return deadly_load.exploring(state)
    if last.setting.purpose == "verify" and last.loads and not survived(last):
        return _lower(last, advice)
    return _with_pieces(state, advice)


def is_worth_proving(state: SearchState, setting: Setting) -> bool:
    """Whether a start is at the limits that its own log makes the best, or close enough. state: with that start."""
    started = state.evidence.started
    if started is None or started.chunking:
        return True
    better = state.advice.setting
    wanted, given = better.max_batch_prefill_tokens or 1, setting.max_batch_prefill_tokens or 1
    return state.evidence.starts >= state.asked.max_starts or abs(wanted - given) <= state.asked.precision * given


def after_failed_start(state: SearchState, last: Outcome, failure: Failure) -> Setting:
    """A recommendation that did not even start: the next one takes what its log told into account, or less of what it
    was refused for.
    """
    setting, better = last.setting, state.advice.setting
    total = setting.max_total_tokens or 2
    if failure.cause == "budget":
        if (better.max_total_tokens or total) < total or _is_another_cache(state, setting, better):
            return better
        refused = sum(each.failure is not None and each.failure.cause == "budget" for each in state.evidence.outcomes)
        lower = max(2, int(min(failure.limit or total, total) * LESS[min(refused, len(LESS)) - 1]))
        answer = total - (setting.max_input_tokens or 1)
        prompt = max(1, lower - answer)
        prefill = min(setting.max_batch_prefill_tokens or lower, lower)
        if not _chunked(state):
            prefill = min(prefill, prompt)
        return replace(setting, max_total_tokens=lower, max_input_tokens=prompt, max_batch_prefill_tokens=prefill)
    prefill = setting.max_batch_prefill_tokens or 4096
    if failure.stage == "warm-up" and _chunked(state) and any(prefill <= each for each in _came_up(state)):
        return _relearning(setting, total)
    if (better.max_batch_prefill_tokens or prefill) < prefill:
        return better
    lower = max(LEAST_PREFILL, prefill // 2)
    if _chunked(state):
        return replace(setting, max_batch_prefill_tokens=lower)
    return replace(
        setting,
        max_batch_prefill_tokens=lower,
        max_input_tokens=min(setting.max_input_tokens or lower, lower),
        max_total_tokens=min(total, lower + state.answer),
    )


def _came_up(state: SearchState) -> list[int]:
    """Prefill budgets of the starts that came up with the whole memory."""
    up = (each for each in state.evidence.outcomes if each.came_up and each.setting.cuda_memory_fraction is None)
    return [prefill for each in up if (prefill := effective_prefill(each)) is not None]


def _relearning(setting: Setting, total: int) -> Setting:
    """After a warm-up that lacked memory for one whole chat, though its prefill started before: memory was lost, and
    half of that chat tells how much is left.
    """
    half = max(2, total // 2)
    return replace(setting, max_total_tokens=half, max_input_tokens=half - 1, purpose="learn")


def _is_another_cache(state: SearchState, setting: Setting, better: Setting) -> bool:
    """Whether what the failed start told of its cache makes another one the right one, that was not tried."""
    tried = any(same_limits(each.setting, better) for each in state.evidence.outcomes)
    return better.cuda_memory_fraction != setting.cuda_memory_fraction and not tried


def _chunked(state: SearchState) -> bool:
    return state.evidence.started is not None and state.evidence.started.chunking


def _with_pieces(state: SearchState, advice: Recommendation) -> Setting:
    """Where the model's context bounds the history, smaller prefill pieces cost nothing of it and give more chats
    and shorter pauses, within the start that proves the rest.
    """
    prefill, share = advice.setting.max_batch_prefill_tokens or 0, state.prior.prefill_share
    started = state.evidence.started
    pieces = _pieces(prefill)
    if (
        state.asked.goal != "balanced"
        or share is None
        or started is None
        or not started.chunking
        or not last_up_own_prefill(state.evidence)
        or advice.bound_by != CONTEXT
        or pieces >= prefill
        or (prefill - pieces) * share < WORTH_A_CHANGE * (started.usable or 1)
    ):
        return advice.setting
    return replace(advice.setting, max_batch_prefill_tokens=pieces)


def _pieces(prefill: int) -> int:
    """A prefill budget that keeps the GPU busy; a GPU that reads very much at once by its own choice is a fast one."""
    if prefill > 8 * MIDDLE_PREFILL:
        return 2 * MIDDLE_PREFILL
    return MIDDLE_PREFILL if prefill > 2 * MIDDLE_PREFILL else prefill


def _is_settled(state: SearchState, last: Outcome, advice: Recommendation) -> bool:
    """Proved limits stand unless the same start has shown that more than the precision is left unused."""
    verified, better = last.setting, advice.setting
    if better.cuda_memory_fraction != verified.cuda_memory_fraction:  # its cache is above what held, or well below
        return state.evidence.starts >= state.asked.max_starts
    gain = (better.max_total_tokens or 0) / max(1, verified.max_total_tokens or 1) - 1
    return gain <= state.asked.precision


def _smaller_pieces(state: SearchState, last: Outcome) -> Setting | None:
    """Another prefill budget to learn from, where the goal is worth the start."""
    prefill, started, share = effective_prefill(last), last.started, state.prior.prefill_share
    if started is None or started.usable is None or prefill is None or not started.chunking:
        return None
    if state.asked.goal != "balanced" or share is None or prefill <= MIDDLE_PREFILL:
        return None
    if last.setting.max_batch_prefill_tokens is not None:
        return None
    gain = (prefill - MIDDLE_PREFILL) * share / max(1, started.usable)
    if gain < WORTH_ANOTHER_START:
        return None
    return replace(last.setting, max_batch_prefill_tokens=MIDDLE_PREFILL, purpose="learn")


def _lower(last: Outcome, advice: Recommendation) -> Setting:
    """The next lower recommendation after one that died or stalled; lower in every way if nothing tells which."""
    better, failed = advice.setting, last.setting
    if not same_limits(failed, better):
        return better
    chunked = last.started is not None and last.started.chunking
    return replace(
        better,
        max_concurrent_requests=max(1, (failed.max_concurrent_requests or 2) * 3 // 4),
        max_batch_prefill_tokens=max(LEAST_PREFILL, (failed.max_batch_prefill_tokens or 512) // 2)
        if chunked
        else failed.max_batch_prefill_tokens,
        cuda_memory_fraction=round((failed.cuda_memory_fraction or 1.0) * 0.95, 3),
    )


# loads


def next_load(state: SearchState, started: EngineFacts, results: Sequence[LoadResult]) -> Load | None:
    """As many short chats as fill the cache, the cache in steps, then more short chats, and a long prompt on top of
    them: each has either more chats or more tokens than what was survived, so that a death tells of which it was.
    """
    usable = started.usable or 1
    block = started.block_size
    fitting = max(1, usable // loads.slots(state.answer + loads.SHORT, block))
    brief = max(1, usable // loads.slots(loads.SHORT + loads.BRIEF + 8, block))
    most = min(loads.ROWS_CAP, max(fitting, min(OWN_DEFAULT, brief)))
    itl = state.pace(results).itl

    def rows(counts: Iterable[int]) -> list[Load]:
        answers = ((count, loads.short_answer(usable, count, block, state.answer)) for count in counts)
        return [loads.rows(count, loads.at_once(count, itl, answer)) for count, answer in answers]

    few = min(most, _part_filled(started, usable, 1.0).rows)
    plan = rows(loads.row_steps(few, fine=16))
    plan += [_part_filled(started, usable, share) for share in _shares(results[len(plan) :], usable)]
    plan += rows(count for count in loads.row_steps(most, fine=16) if count > few)
    if state.asked.goal == "latency":
        middle = max(loads.SHORT, min(MIDDLE_HISTORY, usable // 8))
        plan += [loads.batch(count, middle) for count in loads.row_steps(usable // (middle + state.answer), fine=4)]
    limits = Setting(started.max_input_tokens or usable, started.max_total_tokens or usable)
    # After the fills: a death of it could be of the chats, of the prompt, or of all their tokens together.
    joined = loads.join(most, limits, started)
    plan += [joined] if joined.shapes else []
    return plan[len(results)] if len(results) < len(plan) else None


def _shares(fills: Sequence[LoadResult], usable: int) -> Sequence[float]:
    """Of the cache, to be filled one after another: all steps where that takes no longer than a few seconds."""
    paces = [result.seconds / result.load.tokens for result in fills[LOW - 1 : LOW]]
    if paces and usable * paces[0] < QUICK_RAMP:
        return RAMP
    return (*RAMP[:LOW], RAMP[-1]) if usable <= LARGE_CACHE else RAMP[:LOW]


def _part_filled(started: EngineFacts, usable: int, share: float) -> Load:
    """This share of the cache in flight, in middle-sized chats."""
    most = min((started.max_input_tokens or usable) * 3 // 4, (started.max_total_tokens or usable) * 3 // 4)
    history = max(16, min(most, usable // 12, int(usable * share / FEW)))
    new = loads.answer_length(usable, started.prefill_tokens or 4096)
    new = max(1, min(new, (started.max_total_tokens or usable) - history))
    slack = 1 - started.speculate
    load = loads.fill(int(usable * share), history, new, most=loads.ROWS_CAP, slack=slack, block=started.block_size)
    return loads.varied(load)
