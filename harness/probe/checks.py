"""The proof, check by check: what was tried on the recommended flags, whether it ran, and whether it held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.probe.evidence import Evidence
from harness.probe.setting import Load, LoadKind, LoadResult, Outcome
from harness.probe.state import PROOF

_TITLES: Mapping[LoadKind, str] = {
    "rows": "as many short chats as are let in",
    "overload": "a few more are refused at once",
    "onto": "a long prompt on top of short chats",
    "alike": "two long chats that begin alike",
    "fill": "the token budget filled by prompts",
    "write": "the token budget filled by answers",
    "longest": "the longest chat",
}

WRITTEN = 0.9  # of a budget, with which it counts as filled
TOGETHER: tuple[LoadKind, ...] = ("rows", "onto", "fill", "write")


@dataclass(frozen=True)
class Check:
    """One of the proof. why: of one that did not run or did not hold, in the engine's words where it had some."""

    name: str
    ran: bool
    held: bool
    why: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "ran": self.ran, "held": self.held, "why": self.why}


def checks_of(evidence: Evidence) -> list[Check]:
    """Of the last start that was to prove something; empty where none came so far."""
    proofs = [each for each in evidence.outcomes if each.setting.purpose == "verify" and each.came_up and each.loads]
    if not proofs:
        return []
    flash = proofs[-1].started is not None and proofs[-1].started.kind == "flash"
    return [_check(result, flash=flash) for result in _proof_loads(proofs[-1])]


def _proof_loads(outcome: Outcome) -> list[LoadResult]:
    return [result for result in outcome.loads if result.load.kind in PROOF]


def _check(result: LoadResult, *, flash: bool) -> Check:
    load = result.load
    name = f"{_TITLES[load.kind]} ({load.name})"
    if result.verdict == "refused":
        return Check(name, False, False, f"it was refused: {result.reason}")
    if result.verdict == "held" and (missing := what_is_missing(result, flash=flash)):
        return Check(name, False, False, missing)
    if load.kind == "overload" and result.verdict == "held" and not result.refused:
        return Check(name, True, False, "nothing was refused")
    held = result.verdict == "held"
    return Check(name, True, held, None if held else result.reason or result.verdict)


def what_is_missing(result: LoadResult, *, flash: bool) -> str | None:
    """What a load did not bring about, so that nothing was tried: on a slow machine chats may end before others begin.
    flash: blocks are taken at admission, so being there is enough.
    """
    load = result.load
    ended = f"the model ended {result.ended_early:,} of {load.rows:,} answers before they were as long as asked"
    if _must_be_together(load, flash=flash) and result.beside is not None and result.beside < load.rows:
        few = f"only {result.beside:,} of {load.rows:,} chats were in flight at once"
        return f"{few}: {ended}" if result.ended_early else few
    if load.kind == "write" and result.ended_early:
        return ended
    if load.kind == "overload" and not result.refused and (result.beside or load.rows) < load.rows:
        return f"only {result.beside:,} of {load.rows:,} chats were in flight at once, so that none was one too many"
    if load.target_tokens_in_flight is None or result.carried is None or result.carried >= WRITTEN * load.size:
        return None
    return f"only {result.carried:,} of {load.size:,} tokens were in flight when the last prompts were read"


def _must_be_together(load: Load, *, flash: bool) -> bool:
    """Whether all chats of a load must be in flight at once; a few that fill the budget of an engine without blocks may
    do so before the last comes.
    """
    return load.kind in TOGETHER and (flash or load.chats is not None or load.kind != "fill")


def all_held(checks: list[Check]) -> bool:
    return bool(checks) and all(each.ran and each.held for each in checks)
