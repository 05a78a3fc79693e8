"""Search: which setting to start next, which load to send it, and when enough is known. Ask and tell; starts nothing.

    while (setting := search.ask()) is not None:
        started = start(setting)                                # or a failure
        while (load := search.next_load(setting, started, results)) is not None:
            results.append(send(load))
        search.tell(Outcome(...))
    search.recommendation, search.evidence

What is common to all kinds of engines stands here: the first start, failed starts, the proof. `flash` and `padded`
have rules of their own in the modules of that name; `unchecked`, of which nothing is known, is taken for padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.engines.base import EngineFacts
from harness.probe import deadly_load, flash, loads, padded, padded_loads
from harness.probe.batching import largest_within, of_history, points
from harness.probe.card import Card
from harness.probe.evidence import Evidence, gather
from harness.probe.flash_evidence import dies_when_full
from harness.probe.recommend import recommend
from harness.probe.recommendation import DEFAULT_PREFILL, Recommendation, context_length, first_prefill
from harness.probe.setting import (
    OPEN_FLAG,
    Failure,
    Load,
    LoadResult,
    Outcome,
    Prior,
    ProbeGoal,
    Setting,
    effective_prefill,
    same_limits,
)
from harness.probe.state import BAD, SearchState, survived

__all__ = ["BAD", "MEASURING", "MIDDLE_HISTORY", "Search", "within"]

LEAST_PREFILL = 64  # below it there is nothing left to lower
MIDDLE_HISTORY = 2000  # tokens, of the chats whose speed is measured over their number
MEASURING = 40.0  # seconds for measurements that prove nothing
LONG_FILL = 30.0  # seconds
EMULATED_FILL = 45.0  # seconds that filling the cache of an emulated GPU may take
SHORTER = (0.97, 0.94, 0.88, 0.75)  # of a chat that waited for ever, tried alone
LONG_CHAT = 512  # tokens


class Search:
    """The whole search as a function of the outcomes told so far; telling them again resumes it."""

    def __init__(self, asked: ProbeGoal, prior: Prior) -> None:
        self.asked, self.prior = asked, prior
        self._outcomes: list[Outcome] = []
        self.evidence: Evidence = gather(())

    @property
    def state(self) -> SearchState:
        return SearchState(self.evidence, self.asked, self.prior, self.fast_rows)

    @property
    def fast_rows(self) -> int | None:
        """For the goal `latency`: most chats at once that held the SLO at every history measured; 1 if not even one."""
        if self.asked.goal != "latency" or (self.asked.itl is None and self.asked.ttft is None):
            return None
        known = points(result for each in self._outcomes for result in each.loads)
        curves = [of_history(known, history) for history in {point.history_tokens for point in known}]
        return min((largest_within(curve, self.asked) or 1 for curve in curves if curve), default=None)

    @property
    def recommendation(self) -> Recommendation | None:
        """What to set, as good as the evidence allows; None before any start came up."""
        evidence = self.evidence
        return recommend(evidence, self.asked, self.prior, self.fast_rows) if evidence.started else None

    @property
    def longest_chat(self) -> int | None:
        """Tokens that one chat can have in all, as far as is known."""
        started = self.evidence.started
        usable = started.usable if started is not None and started.kind == "flash" else None
        known = [each for each in (context_length(self.evidence, self.prior), usable) if each is not None]
        return min(known, default=None)

    @property
    def found(self) -> Recommendation | None:
        """What to report: the setting that was proved, else the recommendation so far."""
        advice = self.recommendation
        if advice is None or self.proved is None:
            return advice
        setting = self.proved.setting
        flags = [replace(flag, value=getattr(setting, flag.name, None) or flag.value) for flag in advice.flags]
        history = (setting.max_total_tokens or 0) - advice.answer if setting.max_total_tokens else advice.history
        return replace(advice, setting=setting, flags=tuple(flags), history=max(1, history))

    @property
    def proved(self) -> Outcome | None:
        """The last start that was a recommendation and survived everything."""
        last = self.evidence.last
        return last if last is not None and survived(last) else None

    @property
    def fatal(self) -> Failure | None:
        """A failure that no limit can help, or that came twice."""
        last = self.evidence.last
        if last is None or last.failure is None or last.came_up:
            return None
        failure = last.failure
        if failure.cause == "argument" and failure.stage == "limits":
            return None if self._can_name_limits(last) else failure
        if failure.cause in ("argument", "missing") or (failure.stage == "load" and failure.cause == "memory"):
            return failure
        if failure.cause in ("hang", "other"):
            return failure if self._failed_before(last) else None
        lowest = effective_prefill(last)
        return failure if lowest is not None and lowest <= LEAST_PREFILL else None

    def _failed_before(self, last: Outcome) -> bool:
        """Whether the start just before it, with the same limits, failed too and not for want of memory."""
        before = self._outcomes[-2] if len(self._outcomes) > 1 else None
        return (
            before is not None
            and not before.came_up
            and before.failure is not None
            and before.failure.cause in ("hang", "other")
            and same_limits(before.setting, last.setting)
        )

    def _can_name_limits(self, last: Outcome) -> bool:
        """Whether limits that contradict defaults of the engine have not all been given by name yet."""
        return last.setting.max_input_tokens is None or last.setting.max_total_tokens is None

    def joins_at_once(self, setting: Setting) -> bool:
        """Whether a waiting prompt should join a full batch at once in this start. While a boundary is sought it
        should; and in the proof of an engine that does not check its memory too, so that what chats have reserved can
        be written when the last prompts are read: a batch that has waited first has no other memory. It is among the
        flags that are then recommended.
        """
        return setting.purpose != "verify" or self.evidence.kind != "flash"

    def completed(self, started: EngineFacts, setting: Setting) -> EngineFacts:
        """What a start left unsaid, from an earlier one with the same prefill budget: an engine that was not given a
        budget may not mention its own.
        """
        guessed = started.kind == "flash" and started.blocks is None and started.budget == started.max_total_tokens
        if (started.budget is not None and not guessed) or started.kind == "padded":
            return started
        for each in reversed(self._outcomes):
            known = each.started
            same = effective_prefill(each) == setting.max_batch_prefill_tokens
            if each.came_up and known is not None and known.kind == "flash" and known.budget is not None and same:
                return replace(
                    started,
                    kind="flash",
                    chunking=known.chunking,
                    budget=known.budget,
                    block_size=known.block_size,
                    prefix_caching=known.prefix_caching,
                )
        return started

    def tell(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self.evidence = gather(self._outcomes, self.evidence)

    def ask(self) -> Setting | None:
        """The next setting to start, or None when the search is over (see `proved` and `fatal`)."""
        evidence = self.evidence
        last = evidence.last
        if last is None:
            return self._first()
        if evidence.starts >= self.asked.max_starts or self.fatal is not None:
            return None
        if not last.came_up:
            return self._after_failed_start(evidence, last)
        if evidence.kind == "flash" and evidence.started is not None and evidence.started.usable is not None:
            return flash.next_setting(self.state, last)
        return padded.next_setting(self.state, last)

    def _first(self) -> Setting:
        """The engine's own limits; with a prefill budget of ours all of them, because its own default for the longest
        prompt may be above that (1,024 of 2,048 in 1.x, up to 4,095 in 2.x, where it must not be).
        """
        prefill = first_prefill(self.asked.goal)
        context = self.prior.context
        total = None
        if self.prior.version < (2, 0, 0) or (prefill is not None and self.prior.version < (3, 0, 0)):
            total = min(prefill or DEFAULT_PREFILL, context or DEFAULT_PREFILL)
        return self._opening(prefill, total)

    def _opening(self, prefill: int | None, total: int | None) -> Setting:
        return Setting(
            max_input_tokens=total - 1 if total else None,
            max_total_tokens=total,
            max_batch_prefill_tokens=prefill,
            max_batch_total_tokens=OPEN_FLAG,
            max_concurrent_requests=loads.LET_IN,
            purpose="learn",
        )

    def _after_failed_start(self, evidence: Evidence, last: Outcome) -> Setting:
        failure = last.failure
        assert failure is not None
        if failure.cause in ("hang", "other"):
            return last.setting  # once more: it may have been chance
        if failure.cause == "argument":  # limits of ours against defaults of the engine: name them all
            prefill = last.setting.max_batch_prefill_tokens or DEFAULT_PREFILL
            return self._opening(last.setting.max_batch_prefill_tokens, min(prefill, self.prior.context or prefill))
        if last.setting.purpose != "learn" and evidence.started is not None:
            after = flash.after_failed_start if evidence.kind == "flash" else padded.after_failed_start
            return after(self.state, last, failure)
        prefill = effective_prefill(last) or DEFAULT_PREFILL
        if failure.cause == "budget":
            return self._with_prefill(last.setting, max(LEAST_PREFILL, (failure.limit or prefill) // 2))
        if last.setting.max_batch_total_tokens == OPEN_FLAG and not _names_prefill(last):
            return replace(last.setting, max_batch_total_tokens=None)  # it may lay out the budget that it was given
        failed = sum(not each.came_up for each in self._outcomes)
        part = 1 / 8 if failed > 1 else 1 / 2 if _chunked(last) else 3 / 4  # without chunking it bounds the history
        return self._with_prefill(last.setting, max(LEAST_PREFILL, int(prefill * part)))

    def _with_prefill(self, setting: Setting, prefill: int) -> Setting:
        """The setting with a smaller prefill budget, which lengths that were given must not exceed, nor an engine's own
        that do not follow from it.
        """
        if setting.max_input_tokens is None and self.prior.version < (3, 0, 0):
            total = min(prefill, self.prior.context or prefill)
            return replace(
                setting, max_input_tokens=total - 1, max_total_tokens=total, max_batch_prefill_tokens=prefill
            )
        if setting.max_input_tokens is None or setting.max_input_tokens < prefill:
            return replace(setting, max_batch_prefill_tokens=prefill)
        answer = (setting.max_total_tokens or setting.max_input_tokens + 1) - setting.max_input_tokens
        return replace(
            setting,
            max_input_tokens=prefill - 1,
            max_total_tokens=prefill - 1 + answer,
            max_batch_prefill_tokens=prefill,
        )

    # loads

    def next_load(self, setting: Setting, started: EngineFacts, results: Sequence[LoadResult]) -> Load | None:
        """The next load for a start that is up, given what came of the earlier ones; None when it may be stopped."""
        if self.asked.quick or (results and results[-1].verdict == "died"):
            return None
        if any(each.verdict == "stalled" for each in results):
            return self._shorter_chat(setting, results)
        seen = Outcome(setting, started, True, None, tuple(results))
        state = replace(self.state, evidence=gather([*self._outcomes, seen], self.evidence))
        is_flash = started.kind == "flash" and started.usable is not None
        if setting.purpose == "verify":
            if is_flash and not results and not flash.is_worth_proving(state, setting):
                return None
            return self._next_proof(setting, started, results)
        if is_flash and setting.purpose == "explore":
            return deadly_load.next_load(self.state, started, setting, results)
        if is_flash:
            return None if any(each.loads for each in self._outcomes) else flash.next_load(state, started, results)
        return padded_loads.next_load(self.state, state, results)

    def _shorter_chat(self, setting: Setting, results: Sequence[LoadResult]) -> Load | None:
        """After a load that waits for ever: the longest single chat that does not. Two chats that begin alike wait for
        another reason than their length.
        """
        if any(each.verdict == "stalled" and each.load.kind == "alike" for each in results):
            return None
        if not any(each.load.longest > LONG_CHAT for each in results if each.verdict == "stalled"):
            return None  # not a chat's length can be the reason
        alone = [each for each in results if each.load.kind == "longest"]
        if alone and alone[-1].verdict != "stalled":
            return None
        most = max(shape.total for each in results if each.verdict == "stalled" for shape in each.load.shapes)
        if len(alone) >= len(SHORTER):
            return None
        total = int(most * SHORTER[len(alone)])
        prompt = min(total - loads.SPARE, setting.max_input_tokens or total)
        return loads.longest(prompt, total - prompt)

    def _next_proof(self, setting: Setting, started: EngineFacts, results: Sequence[LoadResult]) -> Load | None:
        if any(result.verdict in BAD for result in results):
            return None
        capacity = started.usable if started.kind == "flash" else setting.max_batch_total_tokens
        if started.kind == "flash" and capacity is not None and dies_when_full(self.evidence):
            capacity = min(capacity, (setting.max_concurrent_requests or 1) * (setting.max_total_tokens or 1))
        pace = self.state.pace(())  # of earlier starts: a plan that changes on its way would skip a check
        itl = self.state.pace(results).itl
        plan = loads.proof(setting, started, capacity, itl, _readable(started, results), pace.read_rate)
        fills = [result for result in results if result.load.kind == "fill"]
        if started.kind == "flash" and fills and fills[0].seconds > LONG_FILL:
            # One fill of a large cache takes long enough.
            plan = [load for load in plan if load.kind != "fill" or load.name == fills[0].load.name]
        if len(results) >= len(plan):
            plan += self._measurements(setting, started, results[: len(plan)])
        return plan[len(results)] if len(results) < len(plan) else None

    def _measurements(self, setting: Setting, started: EngineFacts, proof: Sequence[LoadResult]) -> list[Load]:
        """Speed over the number of chats, and a few cells of the card, within a minute or so.

        The last ones are left before their answers end, so nothing that must be exact comes after them.
        """
        card = Card(started, setting, self.asked.answer_tokens, self.prior.version)
        concurrency = setting.max_concurrent_requests or 1
        longest = card.longest_history()
        middle = max(loads.SHORT, min(MIDDLE_HISTORY, longest // 4))
        most = max(1, min(concurrency, card.chats_fit(middle)))
        itl = proof[0].itl_p95 if proof else None
        chosen = [each for each in dict.fromkeys((middle, 500)) if each <= longest]
        plan = [loads.batch(count, middle) for count in loads.row_steps(most, fine=4)]
        cells = [
            loads.cell(each, max(1, min(concurrency, card.chats_fit(each))), card.answer_tokens, itl) for each in chosen
        ]
        return [*within(plan, proof, MEASURING / 3), *within(cells, proof, MEASURING)]


def _readable(started: EngineFacts, results: Sequence[LoadResult]) -> int | None:
    """Tokens that an emulated GPU reads within a minute, from the long prompt on top of a full batch; None for a real
    GPU, whose cache is filled however long that takes.
    """
    joined = [result for result in results if result.load.kind == "onto" and result.verdict == "held"]
    if not started.emulated or not joined:
        return None
    alone = next((result.seconds for result in results if result.load.kind == "rows"), 0.0)
    reading = max(joined[0].seconds - alone, 0.15 * joined[0].seconds)  # the short chats below it take their time too
    return int(joined[0].load.longest / reading * EMULATED_FILL)


def within(plan: Sequence[Load], seen: Sequence[LoadResult], seconds: float) -> list[Load]:
    """As many of the loads, from the first on, as take so long at the speed that was seen."""
    fills = [result for result in seen if result.verdict == "held" and result.load.kind == "fill"]
    per_token = max((result.seconds / result.load.tokens for result in fills), default=0.0)
    itl = max((result.itl_p95 or 0.0 for result in seen[:1]), default=0.0)
    chosen, spent = [], 0.0
    for load in plan:
        answer = load.leave_after_tokens or max(shape.max_new_tokens for shape in load.shapes)
        spent += load.tokens * per_token + itl * answer
        if spent > seconds:
            break
        chosen.append(load)
    return chosen


def _chunked(outcome: Outcome) -> bool:
    return outcome.started is not None and outcome.started.chunking


def _names_prefill(outcome: Outcome) -> bool:
    """Whether a failed start blames the prefill, or is of a flash model, which no budget can hurt."""
    return _chunked(outcome) or (outcome.failure is not None and "prefill" in outcome.failure.text)
