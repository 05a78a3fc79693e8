"""SearchState: what each kind of engine decides from, evidence, goal, prior knowledge and speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.probe.evidence import Evidence
from harness.probe.padded_evidence import ignored_batch_size
from harness.probe.recommend import recommend
from harness.probe.recommendation import Recommendation, answer_room, context_length
from harness.probe.setting import LoadResult, Outcome, Prior, ProbeGoal

# Verdicts that speak against a setting. A refused load was not carried, which proves nothing against the memory.
BAD = ("died", "stalled", "failed", "preempted")


@dataclass(frozen=True)
class Pace:
    """How fast an engine was seen to be. Seconds: between tokens, and for the slowest fill of its cache. read_rate:
    prompt tokens per second, of a long one alone.
    """

    itl: float | None
    fill: float
    read_rate: float | None = None


@dataclass(frozen=True)
class SearchState:
    """fast_rows: most chats at once that held the SLO, for the goal `latency`; else None."""

    evidence: Evidence
    asked: ProbeGoal
    prior: Prior
    fast_rows: int | None = None

    @property
    def answer(self) -> int:
        """Tokens that a chat keeps for its answer."""
        return answer_room(self.asked.answer_tokens, self.prior.version)

    @property
    def context(self) -> int | None:
        return context_length(self.evidence, self.prior)

    @property
    def advice(self) -> Recommendation:
        return recommend(self.evidence, self.asked, self.prior, self.fast_rows)

    def pace(self, results: Sequence[LoadResult]) -> Pace:
        """In this start, or else before."""
        seen = [*results, *(result for each in self.evidence.outcomes for result in each.loads)]
        return Pace(
            next((result.itl_p95 for result in seen if result.itl_p95), None),
            max((result.seconds for result in results if result.load.kind == "fill"), default=0.0),
            next((r.load.longest / r.ttft_p95 for r in seen if r.load.kind == "longest" and r.ttft_p95), None),
        )


def survived(outcome: Outcome) -> bool:
    """A recommendation that started, and nothing that was asked of it speaks against it."""
    return (
        outcome.setting.purpose == "verify"
        and outcome.came_up
        and outcome.failure is None
        and bool(outcome.loads)
        and not any(result.verdict in BAD for result in outcome.loads)
        and not ignored_batch_size(outcome)
    )


# Loads that are checks of a proof; the others measure speed.
PROOF = ("rows", "overload", "onto", "fill", "write", "longest", "alike")
