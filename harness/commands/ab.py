"""`harness ab`: starts two variants of an entry in turn on the same GPU, asks both the same, and says which is slower.

The sides take turns in the order A, B, B, A, ..., so that a machine that drifts speaks for neither, and each pair asks
what one seed draws.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness.commands.compare import write_outputs
from harness.drive.bench_plan import BenchPlan
from harness.drive.bench_run import PlannedRun
from harness.drive.gate_file import read_gate
from harness.drive.options import seconds
from harness.drive.series import run_series
from harness.errors import Interrupted, UsageError
from harness.measure.run import read_run
from harness.measure.run_folder import RunFolder, run_name
from harness.report.comparison import comparison_to_text, gate_sentence
from harness.serve.serving import resolve_model
from harness.serve.target import Target
from harness.stats.compare import compare
from harness.stats.comparison import Comparison
from harness.stats.effect import sure_at_each
from harness.stats.gate import Gate
from harness.stats.run_figures import RecordedRun, RunFigures
from harness.units import format_percent

DEFAULT_REPEATS = 5
LEAST = 3  # repeats of each side, before anything is called decided
CONFIRM = 1  # further pairs before NEW is called slower: one bad moment of the machine must not do it


@dataclass(frozen=True)
class AbResult:
    """a, b: the sides in words. folder: with the repeats of both."""

    a: str
    b: str
    folder: Path
    comparison: Comparison

    @property
    def exit_code(self) -> int:
        return 0 if self.comparison.passes else 1

    @property
    def sentence(self) -> str:
        """The answer in one."""
        word = _WORDS[self.comparison.verdict]
        emulated = " (emulated)" if self.comparison.emulated else ""
        runs = len(self.comparison.base)
        return f"B ({self.b}) {word} A ({self.a}), {runs} runs each{emulated}. {gate_sentence(self.comparison)}"

    def as_json(self) -> dict[str, Any]:
        return {
            **self.comparison.as_dict(), "a": self.a, "b": self.b, "sentence": self.sentence, "path": str(self.folder)
        }  # fmt: skip

    def as_text(self) -> str:
        return f"{comparison_to_text(self.comparison)}\n\n{self.sentence}\nruns: {self.folder}/a and {self.folder}/b"


_WORDS = {
    "same": "is the same as",
    "faster": "is faster than",
    "slower": "is slower than",
    "inconclusive": "cannot be told from",
}


def ab(
    target: Target,
    a: Sequence[str],
    b: Sequence[str],
    plan: BenchPlan,
    progress: Callable[[str], None],
    *,
    other: str | None = None,
    repeats: int | None = None,
    until_decided: str | None = None,
    gate: Path | None = None,
    junit: Path | None = None,
    markdown: Path | None = None,
) -> AbResult:
    """Run both sides in turn and compare. a, b: KEY=VALUE over the entry. other: the entry of side B, else A's.

    repeats: of each side. until_decided: go on for so long at most, and no longer than it takes. Raises HarnessErrors;
    what was run until then stays on disk.
    """
    sides = _sides(target, a, b, other)
    # What is wrong with either is said before anything runs.
    engines = {resolve_model(each).engine.name for each in sides}
    if len(engines) > 1 and plan.api is None:
        plan = dataclasses.replace(plan, api="openai-chat")  # what all of them speak
    limits = read_gate(gate)
    allowed = None if until_decided is None else seconds(until_decided, "--until-decided", zero=True)
    folder = RunFolder.create(plan.output or _default_folder(sides[0])).path
    runs: tuple[list[RecordedRun], list[RecordedRun]] = ([], [])
    deadline = None if allowed is None else time.monotonic() + allowed
    most = repeats if repeats is not None else DEFAULT_REPEATS if deadline is None else 1000
    verdicts: list[Comparison] = []
    planned = LEAST  # pairs
    order, pair_began = list(turns(most)), time.monotonic()
    try:
        for place, done in enumerate(run_series(_turns(sides, order, plan, folder), progress)):
            if done.interrupted:
                raise _cut_off(folder, runs)
            runs[order[place]].append(RecordedRun(read_run(done.folder)))
            if place % 2 == 0 or deadline is None:
                continue
            now = time.monotonic()
            lasted, pair_began = now - pair_began, now  # starts and stops of the engines too
            if len(runs[0]) >= LEAST:
                if not verdicts:
                    planned = min(most, LEAST + max(0, int((deadline - now) / lasted)))
                verdicts.append(look(runs, limits, len(verdicts) + 1, planned))
                progress(f"after {len(runs[0])} of each: {gate_sentence(verdicts[-1])}")
                if is_decided(verdicts) or now + lasted > deadline:
                    break
    except (KeyboardInterrupt, Interrupted):  # also while an engine starts or stops
        raise _cut_off(folder, runs) from None
    comparison = verdicts[-1] if verdicts else compare(runs[0], runs[1], limits, same=())
    write_outputs(comparison, junit, markdown)
    return AbResult(_said(sides[0]), _said(sides[1]), folder, comparison)


def _turns(sides: Sequence[Target], order: Sequence[int], plan: BenchPlan, folder: Path) -> Iterator[PlannedRun]:
    for place, which in enumerate(order):
        number = order[:place].count(which)
        path = folder / "ab"[which] / f"repeat-{number:02}"
        own = dataclasses.replace(plan, output=path, seed=plan.seed + number, report=False)
        yield PlannedRun(sides[which], own, f"{'AB'[which]}, repeat {number + 1}")


def _cut_off(folder: Path, runs: tuple[Sequence[RunFigures], Sequence[RunFigures]]) -> Interrupted:
    """Before a run of each side has ended there is nothing to compare."""
    takes = f"`harness compare {folder}/a {folder}/b` takes what was run."
    return Interrupted(where=str(folder), advice=takes if all(runs) else "No run of each side ended.")


def turns(repeats: int) -> Iterator[int]:
    """A, B, B, A, A, B, ...: this many of each, 0 for A."""
    for pair in range(repeats):
        yield from (0, 1) if pair % 2 == 0 else (1, 0)


def look(
    runs: tuple[Sequence[RunFigures], Sequence[RunFigures]], limits: Gate, looks: int, most: int = LEAST
) -> Comparison:
    """One of several, which is as careful as all of them together need. looks: this many with this one. most: pairs
    that there may be in the end.
    """
    sure = sure_at_each(max(most, len(runs[0])))
    found = compare(runs[0], runs[1], limits, same=(), sure=sure)
    times = "once" if looks == 1 else f"{looks} times"
    note = f"compared {times}: each interval is of {format_percent(1 - sure)}, so that all looks together have 95 %"
    return dataclasses.replace(found, notes=(*found.notes, note))


def is_decided(verdicts: Sequence[Comparison]) -> bool:
    """Nothing is open any more; a side that is slower must have been so once more."""
    last = verdicts[-1]
    if last.problems or last.undecided or not last.gated:
        return False
    needed = CONFIRM + 1 if last.verdict == "slower" else 1
    return len(verdicts) >= needed and all(each.verdict == last.verdict for each in verdicts[-needed:])


def _sides(target: Target, a: Sequence[str], b: Sequence[str], other: str | None) -> tuple[Target, Target]:
    if target.model is None:
        raise UsageError("no model named", advice="Name one of `harness models list`.")
    if not a and not b and other is None:
        advice = "Give --b KEY=VALUE, such as --b engine=vllm, or a second entry."
        raise UsageError("both sides are the same", advice=advice)
    names = (target.model, other or target.model)
    return tuple(  # type: ignore[return-value]
        dataclasses.replace(target, model=name, changes=tuple(changes), called=f"ab-{letter}")
        for name, changes, letter in zip(names, (a, b), "ab", strict=True)
    )


def _said(side: Target) -> str:
    return " ".join([side.model or "", *side.changes])


def _default_folder(side: Target) -> Path:
    name = (side.model or "").rpartition("/")[2]
    return Path("reports") / f"{run_name(datetime.now(timezone.utc), name, None, 'ab')}"
