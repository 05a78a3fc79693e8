"""The search for engines that tell the size of a pool of KV blocks in which running requests grow.

Nothing has to be searched under load: one start tells the pool, block arithmetic tells what fits, and a second start
proves it. What has to be avoided differs from TGI: when the pool is full, such an engine does not refuse or wait, it
puts running chats back (preempts, retracts) or ends their answers. So a setting is one under which that cannot happen:
as many chats at once as the pool holds at their full length. Where the pool is split, the engine cuts it by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from harness.engines.base import EngineFacts, OnFullCache
from harness.probe import loads
from harness.probe.ask import BAD, EMULATED_FILL, MEASURING, MIDDLE_HISTORY, Search, within
from harness.probe.card import Card, blocks_of
from harness.probe.evidence import Evidence, gather
from harness.probe.recommendation import CONTEXT, MARGIN, Flag, Recommendation
from harness.probe.setting import Failure, Load, LoadResult, Outcome, Prior, ProbeGoal, Setting, Shape, same_limits

LEAST_PREFILL = 256  # tokens of one step, below which a start that lacks memory is not tried again
LEAST_CONTEXT = 512
LEARN_ROWS = 32  # slots
FILLED = 0.95  # of what the flags admit, from which on the pool counts as filled
LEARN_WITHIN = 0.95  # of the longest context that the engine named, for a start that is only to tell its pool
STEP_DOWN = 0.1  # of the chats, or of a chat's length, after a proof that did not hold
GROWN = 64  # answer tokens of a chat whose prompt nearly fills its share, written to the end
FILL_WITHIN = 300.0  # seconds that filling the pool may take, by how long one chat takes alone
WRITTEN_WITHIN = 60.0  # seconds that whole answers of full length may take in a proof
WORDS = {
    "preempts": "puts running chats back and reads them in again (preemption)",
    "retracts": "puts running chats back and reads them in again (retraction)",
    "ends answers": "ends answers that are being written",
    "waits": "lets chats wait",
    "dies": "dies",
}


class PoolSearch(Search):
    """Two starts where nothing goes wrong: one to learn the pool, one to prove what follows from it."""

    def __init__(self, asked: ProbeGoal, prior: Prior, names: frozenset[str], on_full: OnFullCache) -> None:
        """names: limits that the engine has an option for. on_full: what it does when the pool is full."""
        super().__init__(asked, prior)
        self.names, self.on_full = names, on_full

    @property
    def recommendation(self) -> Recommendation | None:
        started = self.evidence.started
        return None if started is None or not started.budget else self._recommend(self.evidence, started)

    @property
    def longest_chat(self) -> int | None:
        started = self.evidence.started
        return None if started is None else self._longest_total(self.evidence, started)[0]

    @property
    def fatal(self) -> Failure | None:
        """A failure that no limit can help, or that came twice."""
        last = self.evidence.last
        if last is None or last.came_up or last.failure is None:
            return None
        return last.failure if self._retry(last, last.failure) is None else None

    def ask(self) -> Setting | None:
        evidence = self.evidence
        last = evidence.last
        if last is None:
            return self._first()
        if evidence.starts >= self.asked.max_starts:
            return None
        if not last.came_up:
            return None if last.failure is None else self._retry(last, last.failure)
        if self.asked.quick or self.proved is not None:
            return None
        advice = self.recommendation
        if advice is None:
            return None
        return None if same_limits(last.setting, advice.setting) else advice.setting

    def completed(self, started: EngineFacts, setting: Setting) -> EngineFacts:
        return started

    # starts

    def _first(self) -> Setting:
        """Its own limits; where the pool is cut into shares, many of them, so that memory and not their number bounds
        the pool: an engine that chooses its size by itself then takes what is there.
        """
        shares = self.on_full == "ends answers" and "max_batch_size" in self.names
        return Setting(max_batch_size=LEARN_ROWS if shares else None, purpose="learn")

    def _retry(self, last: Outcome, failure: Failure) -> Setting | None:
        """The setting that may come up after this failure; None where there is none."""
        setting = last.setting
        before = self._outcomes[-2] if len(self._outcomes) > 1 else None
        again = before is not None and not before.came_up and same_limits(before.setting, setting)
        if failure.cause in ("hang", "other"):
            return None if again else setting
        if failure.cause in ("argument", "missing"):
            return None
        if failure.fraction is not None and "cuda_memory_fraction" in self.names:
            lower = math.floor(failure.fraction * 98) / 100
            return replace(setting, cuda_memory_fraction=lower) if lower != setting.cuda_memory_fraction else None
        if failure.limit is not None and "max_total_tokens" in self.names:
            total = self._within(failure.limit, setting)
            return self._shorter(setting, total) if total >= 2 else None
        return self._less_memory(setting, failure)

    def _within(self, limit: int, setting: Setting) -> int:
        """Tokens of one chat that start although the engine just named fewer than were asked for.

        To learn the pool, clearly fewer will do. To prove a limit, twice what has gone since the largest pool is left.
        """
        if setting.purpose == "learn":
            return int(limit * LEARN_WITHIN)
        largest = max((each.started.budget or 0 for each in self._outcomes if each.came_up and each.started), default=0)
        gone = max(math.ceil(limit * MARGIN), 2 * max(0, largest - limit))
        return min(limit - gone, (setting.max_total_tokens or limit) - 1)

    def _less_memory(self, setting: Setting, failure: Failure) -> Setting | None:
        """Lower what takes memory beside the pool, where weights are not the reason."""
        if failure.stage == "load":
            return None
        prefill = setting.max_batch_prefill_tokens or 2048
        if "max_batch_prefill_tokens" in self.names and prefill > LEAST_PREFILL:
            return replace(setting, max_batch_prefill_tokens=prefill // 2)
        total = setting.max_total_tokens or self.prior.context or 0
        if "max_total_tokens" in self.names and total // 2 >= LEAST_CONTEXT:
            return self._shorter(setting, total // 2)
        return None

    def _shorter(self, setting: Setting, total: int) -> Setting:
        prompt = max(1, total - min(self.asked.answer_tokens, total - 1))
        return self._sayable(replace(setting, max_total_tokens=total, max_input_tokens=prompt))

    def _sayable(self, setting: Setting) -> Setting:
        """Without the limits that the engine has no option for."""
        unknown = {name: None for name in setting.known() if name not in self.names}
        return replace(setting, **unknown)  # type: ignore[arg-type]

    # what to recommend

    def _pool(self, evidence: Evidence, started: EngineFacts) -> int:
        """Tokens of the smallest pool that a start with these facts found, less a margin: memory moves."""
        same = [
            each.started.budget
            for each in evidence.outcomes
            if each.came_up and each.started and each.started.budget and each.started.rows == started.rows
        ]
        least = min(same, default=started.budget or 0)
        blocks = math.floor(least * (1 - MARGIN)) // started.block_size
        return blocks * started.block_size

    def _longest_total(self, evidence: Evidence, started: EngineFacts) -> tuple[int, str]:
        """Most tokens that one chat can have in all, and what bounds it."""
        context = self.prior.context or started.context
        # Of starts that were not told how long: some engines keep a few tokens of the context for themselves.
        own = [
            each.started.max_total_tokens
            for each in evidence.outcomes
            if each.came_up and each.started and each.started.max_total_tokens and not each.started.split
            if each.setting.max_total_tokens is None
        ]
        told = min(own, default=None)
        most = min((each for each in (context, told) if each is not None), default=None)
        pool = self._pool(evidence, started)
        return (most, CONTEXT) if most is not None and most <= pool else (pool, "KV memory")

    def _recommend(self, evidence: Evidence, started: EngineFacts) -> Recommendation:
        total, bound_by = self._longest_total(evidence, started)
        answer = min(self.asked.answer_tokens, max(1, total - 1))
        if self.asked.goal in ("chats", "latency"):
            total = min(total, MIDDLE_HISTORY + answer)
        pool = self._pool(evidence, started)
        chats = max(1, pool // started.block_size // blocks_of(total, started.block_size))
        total, chats = self._after_failed_proofs(total, chats)
        answer = min(answer, max(1, total - 1))
        if "max_batch_size" in self.names and self.fast_rows is not None:
            chats = min(chats, self.fast_rows)
        history = max(1, total - answer)
        setting = self._sayable(
            Setting(
                max_input_tokens=history,
                max_total_tokens=total,
                max_batch_prefill_tokens=started.prefill_tokens,
                max_batch_total_tokens=None,
                max_batch_size=chats,
                cuda_memory_fraction=self._fraction(evidence),
                purpose="verify",
            )
        )
        flags = self._flags(setting, total, chats, pool, bound_by)
        return Recommendation(setting, flags, history, answer, pool, bound_by)

    def _after_failed_proofs(self, total: int, chats: int) -> tuple[int, int]:
        """What did not hold once is not asked again: a tenth fewer chats, and shorter ones where one alone did not."""
        for each in self._outcomes:
            failed = each.came_up and any(result.verdict in BAD for result in each.loads)
            if not failed or each.setting.purpose != "verify":
                continue
            tried, length = each.setting.max_batch_size or 1, each.setting.max_total_tokens or total
            if tried > 1:
                chats = min(chats, tried - math.ceil(tried * STEP_DOWN))
            else:
                total = min(total, int(length * (1 - STEP_DOWN)))
        return total, max(1, chats)

    def _fraction(self, evidence: Evidence) -> float | None:
        up = evidence.last_up
        return up.setting.cuda_memory_fraction if up else None

    def _flags(self, setting: Setting, total: int, chats: int, pool: int, bound_by: str) -> tuple[Flag, ...]:
        reasons = {
            "max_total_tokens": (f"bounded by {bound_by}", "longer requests are refused (400)"),
            "max_input_tokens": (f"leaves {self.asked.answer_tokens:,} tokens for the answer", ""),
            "max_batch_prefill_tokens": ("what the pool was measured with: more would take memory from it", ""),
            "max_batch_size": (
                f"so many chats of {total:,} tokens fit into a pool of {pool:,}; with one more the engine"
                f" {WORDS[self.on_full]}",
                f"chat number {chats + 1:,} waits, also while all of them are short",
            ),
            "cuda_memory_fraction": ("as much as was free when it started", "a smaller pool"),
        }
        return tuple(
            Flag(name, value, *reasons[name], brief=reasons[name][0]) for name, value in setting.known().items()
        )

    # loads

    def next_load(self, setting: Setting, started: EngineFacts, results: Sequence[LoadResult]) -> Load | None:
        """Nothing while learning; in a proof the worst that the flags admit, then what speed is measured with."""
        if setting.purpose != "verify" or self.asked.quick or any(each.verdict in BAD for each in results):
            return None
        plan = self._proof(setting, started, results)
        if len(results) >= len(plan):
            plan += self._measurements(setting, started, results)
        return plan[len(results)] if len(results) < len(plan) else None

    def _proof(self, setting: Setting, started: EngineFacts, results: Sequence[LoadResult]) -> list[Load]:
        """Chats of full length in every slot: prompts that fill it with answers to the end, the longest alone, two that
        begin alike, and answers that grow from nothing where that does not take too long.
        """
        total = min(setting.max_total_tokens or started.max_total_tokens or 2, started.budget or 2)
        # With fewer slots than asked for, or none asked for, the engine's own number holds.
        chats = min(setting.max_batch_size or started.rows or 1, started.rows or 1_000_000)
        new = min(GROWN, max(1, total // 2))
        prompt = max(1, min(total - new, setting.max_input_tokens or total))
        short = min(loads.SHORT + 7, max(1, total - loads.BRIEF))
        many = tuple(Shape(max(1, short - index % 7), min(loads.BRIEF, total - short)) for index in range(chats))
        alone = next((each.seconds for each in results if each.load.kind == "longest"), 0.0)
        seconds = EMULATED_FILL if started.emulated else FILL_WITHIN
        filling = chats if alone * chats <= seconds else max(1, int(seconds / alone))
        plan = [
            Load("rows", (many,), chats=chats),
            Load("longest", ((Shape(prompt, total - prompt),),)),
            Load("fill", ((Shape(prompt, total - prompt),) * filling,), budget=filling * total, history=prompt),
        ]
        pace = next((each.itl_p95 for each in results if each.load.kind == "rows"), None)
        grown = total - short
        if pace is not None and grown * pace <= WRITTEN_WITHIN:
            plan.append(Load("write", ((Shape(short, grown),) * chats,), budget=chats * total))
        return plan

    def _measurements(self, setting: Setting, started: EngineFacts, results: Sequence[LoadResult]) -> list[Load]:
        card = Card(started, setting, self.asked.answer_tokens, self.prior.version)
        most, longest = setting.max_batch_size or started.rows or 1, card.longest_history()
        middle = max(loads.SHORT, min(MIDDLE_HISTORY, longest // 4))
        itl = results[0].itl_p95 if results else None
        fit = partial(_at_once, card, most)
        chosen = [each for each in dict.fromkeys((middle, 500)) if each <= longest]
        plan = [loads.batch(count, middle) for count in loads.row_steps(fit(middle), fine=4)]
        cells = [loads.cell(each, fit(each), card.answer_tokens, itl) for each in chosen]
        return [*within(plan, results, MEASURING / 3), *within(cells, results, MEASURING)]

    # words

    def advice(self, found: Recommendation) -> list[str]:
        """What the reader should know beside the flags."""
        started = gather(self._outcomes).started
        if started is None or not started.budget:
            return []
        lines = [
            f"The engine told a pool of {started.budget:,} tokens of KV cache, in which running chats grow. When it is"
            f" full the engine {WORDS[self.on_full]}; with these flags it cannot become full."
        ]
        card = Card(started, found.setting, self.asked.answer_tokens, self.prior.version)
        short = next((each for each in card.cells() if each.chats_fit > (found.setting.max_batch_size or 0)), None)
        if short is not None and not started.split and "max_batch_size" in self.names:
            lines.append(
                f"If no chat has more than {short.history_tokens:,} tokens of history, {short.chats_fit:,} of them fit"
                f" at once: `--goal chats` finds such limits. From {short.chats_fit + 1:,} on the engine"
                f" {WORDS[self.on_full]}."
            )
        proof = self.proved
        fills = [each.load.tokens for each in proof.loads if each.load.kind == "fill"] if proof else []
        filled = max(fills, default=0)
        whole = (found.setting.max_batch_size or 1) * (found.setting.max_total_tokens or 1)
        if proof is not None and filled < FILLED * whole:
            lines.append(
                f"The pool was filled to {filled / whole:.0%} only: more would have taken too long. What is said of a"
                " full one follows from its size."
            )
        if self.proved is None:
            why = (
                "--quick sends no load" if self.asked.quick else "the search ended before a setting survived every load"
            )
            lines.append(f"Not proved: {why}.")
        return lines


def _at_once(card: Card, most: int, history: int) -> int:
    return max(1, min(most, card.chats_fit(history)))
