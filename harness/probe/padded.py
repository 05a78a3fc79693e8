"""No flash attention: nobody checks the engine's memory. Its budget is left open and the load is raised until it dies.

A prompt is read in one piece, so the longest one costs activation memory and the budget T falls with it. A start ends
with its first death, so each is laid out to tell one point of T over the longest prompt as sharply as possible. The
first start, with the engine's own lengths, gives the first point; each further one goes to the length that the points
so far make the goal's best; a last one proves the recommendation. What is sent in each is in `padded_loads`.
"""

from __future__ import annotations

from dataclasses import replace

from harness.probe import loads
from harness.probe.checks import what_is_missing
from harness.probe.padded_evidence import (
    budget_points,
    few_chats,
    pads_batch,
    proofs,
    queues,
    rows_carried,
)
from harness.probe.padded_lengths import next_measurement
from harness.probe.padded_limits import (
    alone_between,
    budget_between,
    default_total,
    padded_concurrency,
    padded_curve,
    padded_history,
)
from harness.probe.padded_loads import is_for_one_chat
from harness.probe.row_cost import ALIKE
from harness.probe.setting import (
    CHUNK,
    OPEN_FLAG,
    Failure,
    Outcome,
    Setting,
    effective_prefill,
    same_limits,
)
from harness.probe.state import SearchState, survived

LEAST_PREFILL = 64
CLOSE = 1.3  # times the precision: a bracket that need not be narrowed
BESIDE = 0.04  # of what few chats carried, up to which many must have been tried
LESS = 0.985  # of a budget that died in a proof, where nothing tells more
TRIES = 2  # starts at one length


def next_setting(state: SearchState, last: Outcome) -> Setting | None:
    """The next start, or None when the recommendation is proved."""
    if state.asked.quick:
        return None
    if survived(last):
        return _with_room(state, last)
    evidence, advice = state.evidence, state.advice
    if last.setting.purpose == "verify" and same_limits(last.setting, advice.setting):
        return _lower(last, advice.setting)
    history = padded_history(evidence, state.asked, state.prior, state.answer)
    left = state.asked.max_starts - evidence.starts
    if left <= proofs(evidence) or queues(evidence):
        return advice.setting
    if pads_batch(evidence):
        return _measuring(state, history)
    return advice.setting if _is_known(state, history) else exploring(state, history)


def _measuring(state: SearchState, history: int) -> Setting:
    wanted = next_measurement(state, history)
    return state.advice.setting if wanted is None else exploring(state, wanted)


def exploring(state: SearchState, history: int) -> Setting:
    """Lengths as they will be recommended, with the budget left open: the load is raised instead. The prefill budget is
    the longest prompt: a larger one would only let several prompts need more memory than one. Where an answer leaves
    room for no prompt, a short one tells what there is.
    """
    history = max(LEAST_PREFILL, history)
    context = state.context or default_total(state.evidence)
    total = history + state.answer
    total = max(history + 1, min(total, context) if context else total)
    return Setting(
        max_input_tokens=history,
        max_total_tokens=total,
        max_batch_prefill_tokens=history,
        max_batch_total_tokens=max(OPEN_FLAG, total) if _leaves_budget_open(state) else None,
        max_concurrent_requests=loads.LET_IN,
        max_batch_size=_batch_to_try(state, history) if pads_batch(state.evidence) else None,
        purpose="explore",
    )


def _batch_to_try(state: SearchState, history: int) -> int:
    """More chats than should fit, so that a load of a few more of them tells whether the engine heeds it."""
    expected = padded_curve(state.evidence, state.prior).at(history)
    return max(4, min(loads.ROWS_CAP - loads.EXCESS, int(2 * expected / history)))


def after_failed_start(state: SearchState, last: Outcome, failure: Failure) -> Setting:
    """A longest prompt that was too much for the warm-up bounds the history; the next one lies between."""
    setting = last.setting
    if not _leaves_budget_open(state) and setting.max_batch_total_tokens == OPEN_FLAG:
        return replace(setting, max_batch_total_tokens=None)
    if state.asked.max_starts - state.evidence.starts <= proofs(state.evidence):
        return state.advice.setting  # the last start is for the proof
    tried = setting.max_input_tokens or LEAST_PREFILL
    history = padded_history(state.evidence, state.asked, state.prior, state.answer)
    if pads_batch(state.evidence):
        return _measuring(state, history)
    if history >= tried:
        history = tried * 9 // 10
    return exploring(state, history)


def _leaves_budget_open(state: SearchState) -> bool:
    """Unless an engine failed with an open budget that came up without it."""
    opened = [each for each in state.evidence.outcomes if each.setting.max_batch_total_tokens == OPEN_FLAG]
    return not opened or any(each.came_up for each in opened)


def _is_known(state: SearchState, history: int) -> bool:
    """Whether the budget at this length is known closely: a narrow bracket, or all sizes tried and nothing died."""
    evidence = state.evidence
    near = [
        each
        for each in evidence.outcomes
        if each.came_up and abs((_longest(each) or 0) - history) <= ALIKE * history and each.loads
    ]
    if not near:
        return False
    if sum(each.setting.purpose != "verify" for each in near) > TRIES:
        return True
    few, close, answer = few_chats(evidence, history), CLOSE * state.asked.precision, state.answer
    if evidence.row_cost.least > 0:
        if not budget_points(evidence):
            return False
        if is_for_one_chat(state, history):
            return alone_between(evidence, state.prior, history)[0] >= (history + answer) * (1 - close)
        low, high = budget_between(evidence, state.prior, history, answer)
        return high - low <= close * high
    if few.largest_ok is None:
        return False
    if is_for_one_chat(state, history):
        carried = rows_carried(evidence, history, history + state.answer)
        if carried.smallest_failed is not None and (carried.largest_ok or 1) * 2 < carried.smallest_failed:
            return False
    if few.smallest_failed is not None and (few.gap or 0.0) > close:
        return False
    if few.smallest_failed is None and not any(each.setting.purpose == "explore" for each in near):
        return False
    chats = padded_concurrency(evidence, state.prior, few.largest_ok, history, answer, state.asked, state.fast_rows)
    if chats <= loads.FEW:
        return True
    lengths = {_longest(each) for each in near}
    tried = max((each.size for each in evidence.fill_points if each.crowd and each.longest in lengths), default=0)
    return tried >= (1 - BESIDE) * few.largest_ok or is_for_one_chat(state, history)


def _longest(outcome: Outcome) -> int | None:
    if outcome.setting.max_input_tokens is not None:
        return outcome.setting.max_input_tokens
    return effective_prefill(outcome)


def _with_room(state: SearchState, last: Outcome) -> Setting | None:
    """Proved limits with a larger token budget, where a batch's size protects the engine and its own count of tokens
    kept chats apart that the batch has room for: TGI's causal models count each of several prompts that are read
    together with the answers of all (server/text_generation_server/models/causal_lm.py, from_pb). None where not.
    """
    setting, rows = last.setting, last.setting.max_batch_size
    if rows is None or state.asked.max_starts - state.evidence.starts < TRIES:
        return None
    total = setting.max_total_tokens or 2
    roomy = replace(setting, max_batch_total_tokens=rows * (total + rows * min(CHUNK, total)))
    if any(same_limits(each.setting, roomy) for each in state.evidence.outcomes):
        return None
    apart = any(what_is_missing(each, flash=False) and not each.ended_early for each in last.loads)
    return roomy if apart else None


def _lower(last: Outcome, advice: Setting) -> Setting:
    """Less of what a proof died of."""
    died = next((each.load for each in last.loads if each.verdict in ("died", "failed")), None)
    batch = advice.max_batch_size
    rows = max(1, (batch or advice.max_concurrent_requests or 2) * 3 // 4)
    budget = max(advice.max_total_tokens or 2, int((advice.max_batch_total_tokens or 2) * LESS))
    by_rows = died is not None and (
        died.kind in ("rows", "overload", "onto") or budget == advice.max_batch_total_tokens
    )
    return replace(
        advice,
        max_batch_total_tokens=advice.max_batch_total_tokens if by_rows else budget,
        max_concurrent_requests=rows if by_rows and batch is None else advice.max_concurrent_requests,
        max_batch_size=rows if by_rows and batch is not None else batch,
    )
