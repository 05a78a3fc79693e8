"""Ask and tell: which setting to start next, which load to send it, and when enough is known. Starts nothing.

    while (setting := search.ask()) is not None:
        started = start(setting)                                # or a failure
        while (load := search.next_load(setting, started, results)) is not None:
            results.append(send(load))
        search.tell(Outcome(...))
    search.recommendation, search.evidence

Three cases. `flash`: the engine measures its own memory, so one start tells the token budget, and a second one proves
the recommended limits under load. `padded` and `unchecked`: nothing protects the engine; its budget is left open and
the load itself is raised until it dies, coarse in the first start, then between what held and what died.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.engines.base import EngineFacts
from harness.probe import loads
from harness.probe.batching import largest_within, of_history, points
from harness.probe.card import Card
from harness.probe.evidence import ALIKE, Evidence, effective_prefill, gather, same_limits
from harness.probe.recommend import (
    CONTEXT,
    MIDDLE_PREFILL,
    UNSURE,
    WORTH_A_CHANGE,
    WORTH_ANOTHER_START,
    Recommendation,
    answer_room,
    context_length,
    default_total,
    first_prefill,
    padded_permits,
    recommend,
)
from harness.probe.setting import Failure, Load, LoadResult, Outcome, Prior, ProbeGoal, Setting

OPEN_BUDGET = 1_000_000  # tokens: no limit in practice; flash models ignore it, padded ones reserve nothing for it
DEFAULT_PREFILL = 4096  # TGI's own where nothing else is known
LEAST_PREFILL = 64  # below it there is nothing left to lower
MIDDLE_HISTORY = 2000  # tokens, of the chats whose speed is measured over their number
MEASURING = 40.0  # seconds for measurements that prove nothing
LARGE_CACHE = 200_000  # tokens that are not filled just to learn, because the proof fills them anyway
LONG_FILL = 30.0  # seconds
EMULATED_FILL = 45.0  # seconds that filling the cache of an emulated GPU may take
RAMP = (0.5, 0.7, 0.85, 1.0)  # shares of a cache that are filled one after another, to see at which an engine dies
QUICK_RAMP = 5.0  # seconds for the whole cache, within which that is done
QUICK_FILL = 1.5  # seconds for which it pays to try every length at every size
SHORTER = (0.97, 0.94, 0.88, 0.75)  # of a chat that waited for ever, tried alone
LONG_CHAT = 512  # tokens
NEAR = 5  # times the asked precision: from there on other prompt lengths are tried too
FINE, COARSE = 0.5, 2.0  # of the asked precision: steps towards a padded boundary, near it and from afar
ALREADY = 0.002  # share by which two budgets must differ to be worth two loads
MANY_EXPLORED, ROUGH = 3, 2.0  # after so many starts for a boundary, so many times the precision will do
SETTLED = 0.7  # of the asked precision: where the search for it stops; the rest is margin
RISE, SMALL_RISE = 1.4, 1.06  # from one budget that held to the next that is tried
JOINED_CAP = 48  # short chats under a long prompt, when it is asked whether padding multiplies

# Verdicts that speak against a setting. A refused load was not carried, which proves nothing against the memory.
BAD = ("died", "stalled", "failed", "preempted")


class Search:
    """The whole search as a function of the outcomes told so far; telling them again resumes it."""

    def __init__(self, wish: ProbeGoal, knowledge: Prior) -> None:
        self.wish, self.knowledge = wish, knowledge
        self._outcomes: list[Outcome] = []

    @property
    def evidence(self) -> Evidence:
        return gather(self._outcomes)

    @property
    def fast_rows(self) -> int | None:
        """For the goal `latency`: most chats at once that held the SLO at every history measured; 1 if not even one."""
        if self.wish.goal != "latency" or (self.wish.itl is None and self.wish.ttft is None):
            return None
        known = points(result for each in self._outcomes for result in each.loads)
        curves = [of_history(known, history) for history in {point.history_tokens for point in known}]
        return min((largest_within(curve, self.wish) or 1 for curve in curves if curve), default=None)

    @property
    def recommendation(self) -> Recommendation | None:
        """What to set, as good as the evidence allows; None before any start came up."""
        evidence = self.evidence
        return recommend(evidence, self.wish, self.knowledge, self.fast_rows) if evidence.started else None

    @property
    def longest_chat(self) -> int | None:
        """Tokens that one chat can have in all, as far as is known."""
        started = self.evidence.started
        usable = started.usable if started is not None and started.kind == "flash" else None
        known = [each for each in (context_length(self.evidence, self.knowledge), usable) if each is not None]
        return min(known, default=None)

    @property
    def found(self) -> Recommendation | None:
        """What to report: the setting that was proved, else the recommendation so far."""
        advice = self.recommendation
        if advice is None or self.proved is None:
            return advice
        setting = self.proved.setting
        flags = [replace(flag, value=getattr(setting, flag.name) or flag.value) for flag in advice.flags]
        return replace(advice, setting=setting, flags=tuple(flags))

    @property
    def proved(self) -> Outcome | None:
        """The last start, if it was a recommendation that survived everything."""
        last = self.evidence.last
        return last if last is not None and _survived(last) else None

    @property
    def fatal(self) -> Failure | None:
        """A failure that no limit can mend, or that came twice."""
        last = self.evidence.last
        if last is None or last.failure is None or last.came_up:
            return None
        failure = last.failure
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

    def ask(self) -> Setting | None:
        """The next setting to start, or None when the search is over (see `proved` and `fatal`)."""
        evidence = self.evidence
        last = evidence.last
        if last is None:
            return self._first()
        if evidence.starts >= self.wish.max_starts or self.fatal is not None:
            return None
        if not last.came_up:
            return self._after_failed_start(evidence, last)
        if evidence.kind == "flash" and evidence.started is not None and evidence.started.usable is not None:
            return self._next_flash(evidence, last)
        return self._next_padded(evidence, last)

    def _first(self) -> Setting:
        prefill = first_prefill(self.wish.goal)
        total = None
        if self.knowledge.version < (2, 0, 0) or (prefill is not None and self.knowledge.version < (3, 0, 0)):
            # Their own defaults are short ones (1,024 of 2,048), or above a prefill budget that is given.
            total = min(prefill or DEFAULT_PREFILL, self.knowledge.context or DEFAULT_PREFILL)
        return Setting(
            max_input_tokens=total - 1 if total else None,
            max_total_tokens=total,
            max_batch_prefill_tokens=prefill,
            max_batch_total_tokens=OPEN_BUDGET,
            max_concurrent_requests=loads.ROWS_CAP,
            purpose="learn",
        )

    def _after_failed_start(self, evidence: Evidence, last: Outcome) -> Setting:
        failure = last.failure
        assert failure is not None
        if failure.cause in ("hang", "other"):
            return last.setting  # once more: it may have been chance
        if last.setting.purpose == "verify" and evidence.started is not None:
            return self._after_failed_proof(evidence, last, failure)
        prefill = effective_prefill(last) or 4096
        if failure.cause == "budget":
            return replace(last.setting, max_batch_prefill_tokens=max(LEAST_PREFILL, (failure.limit or prefill) // 2))
        if last.setting.max_batch_total_tokens == OPEN_BUDGET and not _names_prefill(last):
            return replace(last.setting, max_batch_total_tokens=None)  # it may lay out the budget that it was given
        failed = sum(not each.came_up for each in self._outcomes)
        part = 1 / 8 if failed > 1 else 1 / 2 if _in_pieces(last) else 3 / 4  # without pieces it bounds the history
        return self._with_prefill(last.setting, max(LEAST_PREFILL, int(prefill * part)))

    def _with_prefill(self, setting: Setting, prefill: int) -> Setting:
        """The setting with a smaller prefill budget, which lengths that were given must not exceed."""
        if setting.max_input_tokens is None or setting.max_input_tokens < prefill:
            return replace(setting, max_batch_prefill_tokens=prefill)
        answer = (setting.max_total_tokens or setting.max_input_tokens + 1) - setting.max_input_tokens
        return replace(
            setting,
            max_input_tokens=prefill - 1,
            max_total_tokens=prefill - 1 + answer,
            max_batch_prefill_tokens=prefill,
        )

    def _after_failed_proof(self, evidence: Evidence, last: Outcome, failure: Failure) -> Setting:
        """A recommendation that did not even start: less of what it was refused for."""
        setting = last.setting
        total = setting.max_total_tokens or 2
        if failure.cause == "budget":
            room = min(failure.limit or total, total)
            known = any(
                each.came_up and each.setting.cuda_memory_fraction == setting.cuda_memory_fraction
                for each in self._outcomes
            )
            lower = max(2, int(room * (0.985 if known else UNSURE)))
            answer = total - (setting.max_input_tokens or 1)
            return replace(
                setting,
                max_total_tokens=lower,
                max_input_tokens=max(1, lower - answer),
                max_batch_prefill_tokens=min(setting.max_batch_prefill_tokens or lower, lower),
            )
        prefill = setting.max_batch_prefill_tokens or 4096
        return replace(setting, max_batch_prefill_tokens=max(LEAST_PREFILL, prefill // 2))

    # flash

    def _next_flash(self, evidence: Evidence, last: Outcome) -> Setting | None:
        advice = recommend(evidence, self.wish, self.knowledge, self.fast_rows)
        if self.wish.quick:
            return None
        if _survived(last) and not _differs(last.setting, advice.setting):
            return None
        if _survived(last) and self._settled_flash(last, advice):
            return None
        if last.setting.purpose == "learn" and (other := self._other_prefill(evidence, last, advice)) is not None:
            return other
        if last.setting.purpose == "verify" and not _survived(last):
            return self._lower(last, advice)
        return self._with_pieces(evidence, advice)

    def _with_pieces(self, evidence: Evidence, advice: Recommendation) -> Setting:
        """Where the model's context bounds the history, smaller prefill pieces cost nothing of it and give more chats
        and shorter pauses, within the start that proves the rest.
        """
        prefill, share = advice.setting.max_batch_prefill_tokens or 0, self.knowledge.prefill_share
        started = evidence.started
        pieces = _pieces(prefill)
        if (
            self.wish.goal != "balanced"
            or share is None
            or started is None
            or not started.chunking
            or not evidence.last_up_own_prefill
            or advice.bound_by != CONTEXT
            or pieces >= prefill
            or (prefill - pieces) * share < WORTH_A_CHANGE * (started.usable or 1)
        ):
            return advice.setting
        return replace(advice.setting, max_batch_prefill_tokens=pieces)

    def _settled_flash(self, last: Outcome, advice: Recommendation) -> bool:
        """Proved limits stand unless the same start has shown that more than the precision is left unused."""
        verified, better = last.setting, advice.setting
        gain = (better.max_total_tokens or 0) / max(1, verified.max_total_tokens or 1) - 1
        return gain <= self.wish.precision

    def _other_prefill(self, evidence: Evidence, last: Outcome, advice: Recommendation) -> Setting | None:
        """Another prefill budget to learn from, where the goal is worth the start."""
        prefill, started = effective_prefill(last), last.started
        usable = started.usable if started else None
        if started is None or usable is None or prefill is None or evidence.starts > 4:
            return None
        if started.chunking:
            return self._smaller_pieces(last, prefill, usable)
        if self.wish.goal == "history":
            return self._larger_prompt(evidence, last, prefill, usable)
        return None

    def _smaller_pieces(self, last: Outcome, prefill: int, usable: int) -> Setting | None:
        share = self.knowledge.prefill_share
        if self.wish.goal != "balanced" or share is None or prefill <= MIDDLE_PREFILL:
            return None
        if last.setting.max_batch_prefill_tokens is not None:
            return None
        gain = (prefill - MIDDLE_PREFILL) * share / max(1, usable)
        if gain < WORTH_ANOTHER_START:
            return None
        return replace(last.setting, max_batch_prefill_tokens=MIDDLE_PREFILL, purpose="learn")

    def _larger_prompt(self, evidence: Evidence, last: Outcome, prefill: int, usable: int) -> Setting | None:
        """Without chunking the longest prompt is the prefill budget P, and KV memory T(P) falls as P grows: go to
        T(P) - answer = P.
        """
        answer = answer_room(self.wish.answer_tokens, self.knowledge.version)
        context = context_length(evidence, self.knowledge)
        most = min(usable - answer, (context - answer) if context else usable)
        known = sorted(
            {
                (effective_prefill(each), each.started.usable)
                for each in evidence.outcomes
                if each.came_up and each.started and each.started.usable and effective_prefill(each)
            }
        )
        slope = -(self.knowledge.prefill_share or 0.5)
        if len(known) >= 2:
            (p1, t1), (p2, t2) = known[-2], known[-1]
            slope = min(0.0, (t2 - t1) / (p2 - p1)) if p2 != p1 else slope  # type: ignore[operator]
        crossing = int((usable - answer - slope * prefill) / (1 - slope))
        wanted = min(crossing, most if slope == 0 else crossing)
        if context is not None:
            wanted = min(wanted, context - answer)
        failed = evidence.prefill.smallest_failed
        if failed is not None and wanted >= failed:
            wanted = (prefill + failed) // 2
        if abs(wanted - prefill) <= self.wish.precision * prefill or wanted < 1:
            return None
        return replace(last.setting, max_batch_prefill_tokens=wanted)

    def _lower(self, last: Outcome, advice: Recommendation) -> Setting:
        """The next lower recommendation after one that died or stalled; lower in every way if nothing tells which."""
        better, failed = advice.setting, last.setting
        if _differs(failed, better):
            return better
        return replace(
            better,
            max_concurrent_requests=max(1, (failed.max_concurrent_requests or 2) * 3 // 4),
            max_batch_prefill_tokens=max(LEAST_PREFILL, (failed.max_batch_prefill_tokens or 512) // 2)
            if last.started and last.started.chunking
            else failed.max_batch_prefill_tokens,
            cuda_memory_fraction=round((failed.cuda_memory_fraction or 1.0) * 0.95, 3),
        )

    # padded

    def _next_padded(self, evidence: Evidence, last: Outcome) -> Setting | None:
        if self.wish.quick:
            return None
        if _survived(last):
            return None
        if not self._settled_padded(evidence) and evidence.starts < self.wish.max_starts - 1:
            return self._explore(evidence)
        advice = recommend(evidence, self.wish, self.knowledge, self.fast_rows)
        if last.setting.purpose == "verify" and same_limits(last.setting, advice.setting):
            return replace(
                advice.setting,
                max_batch_total_tokens=max(
                    advice.setting.max_total_tokens or 2, int((advice.setting.max_batch_total_tokens or 2) * 0.97)
                ),
                max_concurrent_requests=max(1, (advice.setting.max_concurrent_requests or 2) * 3 // 4),
            )
        return advice.setting

    def _explore(self, evidence: Evidence) -> Setting:
        """Limits as they will be recommended, with the budget left open: the load is raised instead."""
        history, total, prefill = self._padded_lengths(evidence)
        return Setting(
            max_input_tokens=history,
            max_total_tokens=total,
            max_batch_prefill_tokens=prefill,
            max_batch_total_tokens=max(OPEN_BUDGET, total) if self._leaves_budget_open() else None,
            max_concurrent_requests=loads.ROWS_CAP,
            purpose="explore",
        )

    def _leaves_budget_open(self) -> bool:
        """Unless an engine failed with an open budget that came up without it."""
        opened = [each for each in self._outcomes if each.setting.max_batch_total_tokens == OPEN_BUDGET]
        return not opened or any(each.came_up for each in opened)

    def _padded_lengths(self, evidence: Evidence) -> tuple[int, int, int]:
        """Longest prompt, longest total and prefill budget of a model that reads a prompt in one piece."""
        up = evidence.last_up
        assert up is not None
        prefill = effective_prefill(up) or (up.started.max_total_tokens if up.started else None) or DEFAULT_PREFILL
        if self.wish.goal == "history":
            failed = evidence.prefill.smallest_failed or prefill + DEFAULT_PREFILL + 1
            prefill = max(prefill, min(DEFAULT_PREFILL, failed - 1))
        answer = answer_room(self.wish.answer_tokens, self.knowledge.version)
        context = context_length(evidence, self.knowledge) or default_total(evidence)
        total = min(prefill + answer, context) if context else prefill + answer
        if evidence.single.smallest_failed is not None:
            total = min(total, evidence.single.smallest_failed * 9 // 10)
        history = max(1, min(prefill, total - answer if total > answer else total // 2))
        # A prefill budget above the longest prompt would only let several prompts need more memory than one.
        return history, max(total, history + 1), history

    def _settled_padded(self, evidence: Evidence) -> bool:
        """Whether the boundary that bounds this engine is known closely enough, or nothing died at all."""
        bracket = evidence.tokens
        last = evidence.last_up
        raised = bracket.smallest_failed is None or (last is not None and last.setting.purpose == "explore")
        if raised and last is not None and not last.died_under_load:
            return True  # everything was tried and nothing died any more
        by_answers = evidence.worst_input is not None and evidence.worst_input <= loads.SHORT
        tried = sum(each.setting.purpose == "explore" and each.came_up for each in self._outcomes)
        share = SETTLED if tried < MANY_EXPLORED else ROUGH
        return bracket.gap is not None and (by_answers or bracket.gap <= share * self.wish.precision)

    # loads

    def next_load(self, setting: Setting, started: EngineFacts, results: Sequence[LoadResult]) -> Load | None:
        """The next load for a start that is up, given what came of the earlier ones; None when it may be stopped."""
        if self.wish.quick or (results and results[-1].verdict == "died"):
            return None
        if any(each.verdict == "stalled" for each in results):
            return self._shorter_chat(setting, results)
        if setting.purpose == "verify":
            return self._next_proof(setting, started, results)
        if started.kind == "flash" and started.usable is not None:
            return self._next_learning_flash(started, results)
        return self._next_learning_padded(setting, started, results)

    def _shorter_chat(self, setting: Setting, results: Sequence[LoadResult]) -> Load | None:
        """After a load that waits for ever: the longest single chat that does not."""
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
        plan = loads.proof(setting, started, capacity, self._pace(results).itl, _readable(started, results))
        fills = [result for result in results if result.load.kind == "fill"]
        if started.kind == "flash" and fills and fills[0].seconds > LONG_FILL:
            # One fill of a large cache takes long enough.
            plan = [load for load in plan if load.kind != "fill" or load.name == fills[0].load.name]
        if len(results) >= len(plan):
            plan += self._measurements(setting, started, results[: len(plan)])
        return plan[len(results)] if len(results) < len(plan) else None

    def _measurements(self, setting: Setting, started: EngineFacts, proof: Sequence[LoadResult]) -> list[Load]:
        """Speed over the number of chats, the longest chat, and a few cells of the card, within a minute or so.

        The last ones are left before their answers end, so nothing that must be exact comes after them.
        """
        card = Card(started, setting, self.wish.answer_tokens, self.knowledge.version)
        permits = setting.max_concurrent_requests or 1
        longest = card.longest_history()
        middle = max(loads.SHORT, min(MIDDLE_HISTORY, longest // 4))
        most = max(1, min(permits, card.chats_fit(middle)))
        itl = proof[0].itl_p95 if proof else None
        chosen = [each for each in dict.fromkeys((middle, 500)) if each <= longest]
        plan = [loads.batch(count, middle) for count in loads.row_steps(most, fine=4)]
        cells = [
            loads.cell(each, max(1, min(permits, card.chats_fit(each))), card.answer_tokens, itl) for each in chosen
        ]
        last = loads.longest(
            setting.max_input_tokens or 1, (setting.max_total_tokens or 2) - (setting.max_input_tokens or 1)
        )
        return [*within(plan, proof, MEASURING / 3), last, *within(cells, proof, MEASURING)]

    def _next_learning_flash(self, started: EngineFacts, results: Sequence[LoadResult]) -> Load | None:
        """How many short chats survive at once, a long prompt on top of them, then the whole budget in flight."""
        if any(each.came_up and each.loads for each in self._outcomes):
            return None
        usable = started.usable or 1
        answer = answer_room(self.wish.answer_tokens, self.knowledge.version)
        most = min(loads.ROWS_CAP, max(1, usable // (answer + loads.SHORT)))
        itl = self._pace(results).itl
        plan = [loads.rows(count, loads.at_once(count, itl, answer)) for count in loads.row_steps(most, fine=16)]
        if self.wish.goal == "latency":
            middle = max(loads.SHORT, min(MIDDLE_HISTORY, usable // 8))
            plan += [loads.batch(count, middle) for count in loads.row_steps(usable // (middle + answer), fine=4)]
        limits = Setting(started.max_input_tokens or usable, started.max_total_tokens or usable)
        joined = loads.join(most, limits, started)
        plan += [joined] if joined.shapes else []
        if len(results) >= len(plan) and usable <= LARGE_CACHE:
            shares = RAMP if _quick_to_fill(results[: len(plan)], usable) else RAMP[-1:]
            plan += [self._part_filled(started, usable, share) for share in shares]
        return plan[len(results)] if len(results) < len(plan) else None

    def _part_filled(self, started: EngineFacts, usable: int, share: float) -> Load:
        """This share of the cache in flight, in middle-sized chats."""
        history = max(16, min((started.max_input_tokens or usable) * 3 // 4, usable // 12))
        new = loads.answer_length(usable, started.prefill_tokens or 4096)
        slack = 1 - started.speculate
        return loads.varied(loads.fill(int(usable * share), history, new, most=loads.ROWS_CAP, slack=slack))

    def _next_learning_padded(
        self, setting: Setting, started: EngineFacts, results: Sequence[LoadResult]
    ) -> Load | None:
        """The first load of a list that the evidence does not answer yet."""
        evidence = gather([*self._outcomes, Outcome(setting, started, True, None, tuple(results))])
        pace = self._pace(results)
        done = {result.load.name for result in results}
        # First the sizes that were laid out when the start began; if all of them held, finer ones above them.
        for bracketed in (self.evidence, evidence):
            plan = self._padded_plan(evidence, bracketed, pace)
            load = next((each for each in plan if each.name not in done and not _repeats(each, results)), None)
            if load is not None:
                return load
        return None

    def _pace(self, results: Sequence[LoadResult]) -> _Pace:
        """How fast the engine was seen to be, in this start or else before."""
        seen = [*results, *(result for each in self._outcomes for result in each.loads)]
        return _Pace(
            next((result.itl_p95 for result in seen if result.itl_p95), None),
            max((result.seconds for result in results if result.load.kind == "fill"), default=0.0),
        )

    def _padded_plan(self, evidence: Evidence, bracketed: Evidence, pace: _Pace) -> list[Load]:
        """All loads that are still worth sending. bracketed: the evidence between whose bounds sizes are chosen."""
        history, total, prefill = self._padded_lengths(evidence)
        total = min(total, (evidence.started.max_total_tokens if evidence.started else None) or total)
        reach = (
            min(history, total - loads.ALIVE)
            if evidence.last_up and evidence.last_up.setting.max_input_tokens
            else min(history, (default_total(evidence) or total) - loads.ALIVE)
        )
        reach = max(1, reach)
        plan: list[Load] = []
        if not any(each.loads for each in self._outcomes):
            plan += [
                loads.longest(reach, loads.BRIEF),
                self._crowd(evidence, 2 * (reach + loads.SPARE), reach, reach, total, pace, rows=2),
            ]
        if evidence.rows.smallest_failed is None:
            limit = min(loads.ROWS_CAP, self._rows_to_try(evidence))
            plan += [
                loads.rows(n, loads.at_once(n, pace.itl, max(8, total - loads.SHORT - 7)))
                for n in loads.row_steps(limit, fine=16)
                if n > (evidence.rows.largest_ok or 0)
            ]
        if not evidence.padded_law:
            most = min(JOINED_CAP, (evidence.rows.largest_ok or JOINED_CAP) - 1)
            plan += [
                loads.onto(n, reach, loads.alive(pace.itl))
                for n in loads.row_steps(max(1, most), fine=2)
                if (n + 1) * reach > (evidence.area.largest_ok or 0)
                # Only a batch that is small by its sum of tokens tells anything about padding.
                and n * (loads.SHORT + loads.ALIVE) + reach + loads.BRIEF <= (evidence.carried or 0)
            ]
        if evidence.tokens.smallest_failed is None:
            return plan if evidence.queues else plan + self._higher(evidence, reach, total, prefill, pace)
        return plan + self._finer_tokens(bracketed, reach, total, prefill, pace)

    def _rows_to_try(self, evidence: Evidence) -> int:
        """Short chats worth trying: what the expected budget holds, at most 256 on an engine of unknown size."""
        answer = answer_room(self.wish.answer_tokens, self.knowledge.version)
        known = evidence.carried or self.knowledge.budget or 0
        return max(32, min(256, known // (answer + loads.SHORT) if known else 64))

    def _crowd(
        self, evidence: Evidence, size: int, length: int, prefill: int, total: int, pace: _Pace, rows: int | None = None
    ) -> Load:
        """As many chats as would be allowed with this budget, filling it."""
        longest = min(prefill, total - loads.SPARE)
        count = self._chats(evidence, size, total) if rows is None else rows
        lag, grown = loads.lag(pace.itl, count), evidence.grown(count)
        return loads.crowded(size, count, length, prefill, longest, total, lag=lag, grown=grown)

    def _chats(self, evidence: Evidence, size: int, total: int) -> int:
        answer = answer_room(self.wish.answer_tokens, self.knowledge.version)
        return max(2, padded_permits(evidence, size, total, answer, self.wish, self.fast_rows))

    def _higher(self, evidence: Evidence, reach: int, total: int, prefill: int, pace: _Pace) -> list[Load]:
        """Larger and larger budgets, until the engine dies of one; in small steps where it is about known."""
        filled = [
            result.load.size
            for each in self._outcomes
            for result in each.loads
            if result.verdict == "held" and result.load.kind == "fill"
        ]
        size, step, end = 2.0 * reach, RISE, float(OPEN_BUDGET)
        if evidence.padded_law:
            size, step = max(size, 0.75 * (evidence.area.largest_ok or 0)), SMALL_RISE
            end = self._chats(evidence, int(size), total) * total  # more than so many chats cannot have
        wanted: list[Load] = []
        while (size := size * step) < end:
            if size > max(filled, default=0):
                lengths = loads.lengths(reach, int(size), self._chats(evidence, int(size), total), prefill)
                tried = lengths if pace.fill < QUICK_FILL else lengths[:1]
                wanted += [self._crowd(evidence, int(size), each, prefill, total, pace) for each in tried]
        return wanted

    def _finer_tokens(self, evidence: Evidence, reach: int, total: int, prefill: int, pace: _Pace) -> list[Load]:
        """Budgets between what held and what died, each filled exactly; near the boundary under prompts of several
        lengths, because memory need not grow steadily with the length; from afar too where that takes no time.
        """
        high = evidence.tokens.smallest_failed or 2
        low = evidence.tokens.largest_ok or (evidence.carried or high) * 9 // 10
        near = (high - low) / high < NEAR * self.wish.precision
        worst = min(reach, evidence.worst_input or reach)
        if worst <= loads.SHORT:  # the answers are what killed it, and that is exact enough
            return []
        if worst >= reach * (1 - ALIKE):
            worst = reach
        chats = self._chats(evidence, high, total)
        others = [each for each in loads.lengths(reach, low, chats, prefill) if abs(each - worst) > 0.1 * worst]
        beside = others if near or pace.fill < QUICK_FILL else []
        wanted = [(low, each) for each in (others if near else others[-1:])]
        wanted += [(size, each) for size in _between(low, high, self.wish.precision) for each in [worst, *beside]]
        crowds = [self._crowd(evidence, size, length, prefill, total, pace) for size, length in wanted]
        return [loads.written(low, self._chats(evidence, low, total), total), *crowds] if near else crowds


@dataclass(frozen=True)
class _Pace:
    """How fast an engine was seen to be. Seconds: between tokens, and for the slowest fill of its cache."""

    itl: float | None
    fill: float


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


def _repeats(load: Load, results: Sequence[LoadResult]) -> bool:
    """Whether the budget was filled under the same prompts in this start, and hardly more than that is asked now."""
    return load.kind in ("fill", "write") and any(
        each.load.kind == load.kind
        and each.load.closing == load.closing
        and abs(each.load.size - load.size) < ALREADY * load.size
        for each in results
    )


def within(plan: Sequence[Load], seen: Sequence[LoadResult], seconds: float) -> list[Load]:
    """As many of the loads, from the first on, as take so long at the speed that was seen."""
    fills = [result for result in seen if result.verdict == "held" and result.load.kind == "fill"]
    per_token = max((result.seconds / result.load.tokens for result in fills), default=0.0)
    itl = max((result.itl_p95 or 0.0 for result in seen[:1]), default=0.0)
    chosen, spent = [], 0.0
    for load in plan:
        spent += load.tokens * per_token + itl * (
            load.leave_after_tokens or max(shape.max_new_tokens for shape in load.shapes)
        )
        if spent > seconds:
            break
        chosen.append(load)
    return chosen


def _quick_to_fill(results: Sequence[LoadResult], usable: int) -> bool:
    """Whether the whole cache takes no longer than a few seconds, at the slowest speed per token that was seen."""
    paces = [result.seconds / result.load.tokens for result in results[-1:]]
    return bool(paces) and usable * max(paces) < QUICK_RAMP


def _pieces(prefill: int) -> int:
    """A prefill budget that keeps the GPU busy; a GPU that reads very much at once by its own choice is a fast one."""
    if prefill > 8 * MIDDLE_PREFILL:
        return 2 * MIDDLE_PREFILL
    return MIDDLE_PREFILL if prefill > 2 * MIDDLE_PREFILL else prefill


def _between(low: int, high: int, precision: float) -> list[int]:
    """Sizes above `low` and below `high` in equal steps: of twice the precision from afar, of half of it when near.

    A death ends the start, and a start costs more than many loads: so two starts are enough for any distance.
    """
    near = high - low <= NEAR * precision * high
    step = max(1.0, (FINE if near else COARSE) * precision * high)
    count = int((high - low) / step)
    return [low + (high - low) * number // (count + 1) for number in range(1, count + 1)]


def _in_pieces(outcome: Outcome) -> bool:
    return outcome.started is not None and outcome.started.chunking


def _names_prefill(outcome: Outcome) -> bool:
    """Whether a failed start blames the prefill, or is of a flash model, which no budget can hurt."""
    return _in_pieces(outcome) or (outcome.failure is not None and "prefill" in outcome.failure.text)


def _survived(outcome: Outcome) -> bool:
    """A recommendation that started and held every load."""
    return (
        outcome.setting.purpose == "verify"
        and outcome.came_up
        and outcome.failure is None
        and bool(outcome.loads)
        and not any(result.verdict in BAD for result in outcome.loads)
    )


def _differs(one: Setting, other: Setting) -> bool:
    return not same_limits(one, other)
