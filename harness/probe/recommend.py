"""Recommends limits for a goal, from what the starts have shown."""

from __future__ import annotations

from harness.probe.evidence import Evidence
from harness.probe.flash_limits import flash_limits
from harness.probe.padded_limits import padded_limits
from harness.probe.recommendation import Recommendation, answer_room
from harness.probe.setting import Prior, ProbeGoal


def recommend(evidence: Evidence, asked: ProbeGoal, prior: Prior, fast_rows: int | None = None) -> Recommendation:
    """What to set next, as good as the evidence allows. fast_rows: most chats at once that held the SLO."""
    started = evidence.started
    assert started is not None
    answer = answer_room(asked.answer_tokens, prior.version)
    if started.kind == "flash" and started.usable is not None:
        return flash_limits(evidence, started, asked, prior, answer, fast_rows)
    return padded_limits(evidence, started, asked, prior, answer, fast_rows)
