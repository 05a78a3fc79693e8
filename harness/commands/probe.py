"""`harness probe`: ask the search, start the service, load it, tell the search, until the limits are proved."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness import terminal
from harness.catalog.models import Model, catalogue_path, write_limits
from harness.catalog.shapes import ModelShape
from harness.drive.kinds import write_page
from harness.drive.probe_result import ProbeOptions, ProbeReport, probe_folder
from harness.drive.probe_start import CarryOver, run_start
from harness.drive.probe_url import probe_url
from harness.engines import engine_of
from harness.errors import ServiceError, UsageError
from harness.measure.run_folder import run_name, write_atomically
from harness.probe.ask import Search
from harness.probe.batching import points
from harness.probe.card import Card, Cell, measured, sentence
from harness.probe.checks import all_held, checks_of
from harness.probe.findings import advice_of, boundaries, corrected, limits_of, measured_cells, sources_of
from harness.probe.goals import GoalFigures, goals_of
from harness.probe.goals import sentence as sentence_of_goals
from harness.probe.journal import NAME as JOURNAL
from harness.probe.journal import StartJournal
from harness.probe.mixing import mix, speed_of
from harness.probe.pool import PoolSearch
from harness.probe.prior import expect
from harness.probe.recommendation import Recommendation
from harness.probe.setting import Failure, Outcome, ProbeGoal, Setting
from harness.redaction import secrets_of
from harness.serve.before_start import require_served
from harness.serve.serving import choose_runtime, remove_abandoned, resolve_model
from harness.serve.target import Target
from harness.sizing.known import known_shape
from harness.sizing.predicted import BUDGET, LimitComparison, compare, predict, suspicion
from harness.terminal import Progress
from harness.units import format_count, format_duration

DEFAULT_ANSWER = 512
NO_LIMITS = ("prefix_caching", "waiting_served_ratio")  # flags that an entry has no limit for
FILLED = 0.95  # of the cache, from which on it counts as full


def probe(target: Target, options: ProbeOptions, progress: Progress = lambda text: None) -> ProbeReport:
    """Find the limits and prove them.

    Raises UsageError, MissingError, and ServiceError when the service cannot be made to run; what was found until then
    is in the folder, and `resume` goes on from there.
    """
    if target.url is not None:
        return probe_url(target, options, progress)
    return _Probe(target, options, progress).run()


class _Probe:
    def __init__(self, target: Target, options: ProbeOptions, progress: Progress) -> None:
        self.options, self.progress = options, progress
        model = resolve_model(target)
        self.runtime = choose_runtime(target, model, progress)
        self.target = replace(target, runtime=self.runtime)
        self.model = model
        require_served(model, self.target, progress)
        if options.write:
            catalogue_path(target.catalogue)  # a file that cannot be written is said before the work, not after it
        self.engine = engine_of(model)
        version = self.engine.version(model.engine.version)
        bounds = {bound.name: bound.limit for bound in model.slo.bounds}
        self.asked = ProbeGoal(
            goal=options.goal,
            answer_tokens=options.answer_tokens or model.answer_tokens or DEFAULT_ANSWER,
            max_starts=options.max_starts,
            history_share=options.history_share,
            quick=options.quick,
            itl=bounds.get("itl_p95"),
            ttft=bounds.get("ttft_p95"),
        )
        prior = expect(model, version, _own_shape(model))
        names = frozenset(self.engine.limit_names(version))
        on_full = self.engine.on_full_cache
        pooled = on_full in ("preempts", "retracts", "ends answers")
        self.search = PoolSearch(self.asked, prior, names, on_full) if pooled else Search(self.asked, prior)
        self.folder = _folder(options, model)
        self.seen = CarryOver()

    def run(self) -> ProbeReport:
        journal = StartJournal(self.folder, self._subject())
        for outcome in journal.read():
            self.search.tell(outcome)
        self._tell_resumed()
        self._require_room()
        remove_abandoned(self.progress)
        while (setting := self.search.ask()) is not None:
            self._announce(setting)
            outcome = run_start(self.search, setting, self.model, self.target, self.seen, self.progress, journal.add)
            self.search.tell(outcome)
            self._tell_end(outcome)
            self._require_room()
        return self._report()

    def _require_room(self) -> None:
        """An answer that takes all that one chat can have leaves nothing to search for."""
        most, answer = self.search.longest_chat, self.asked.answer_tokens
        if most is not None and answer >= most:
            raise UsageError(
                f"an answer of {answer:,} tokens leaves no room for a prompt: one chat has at most {most:,} in all",
                where=self.model.name,
                advice="Lower --answer-tokens (or the entry's answer_tokens).",
            )

    def _subject(self) -> dict[str, Any]:
        """What a resumed search must have in common with the interrupted one."""
        return {
            "model": self.model.name,
            "repo": self.model.repo,
            "engine": self.model.engine.version,
            "runtime": self.runtime,
            "gpu": self.model.gpu,
            "goal": self.asked.goal,
            "history_share": self.asked.history_share,
            "answer_tokens": self.asked.answer_tokens,
            "quick": self.asked.quick,
        }

    def _tell_resumed(self) -> None:
        known = self.search.evidence.starts
        if known:
            self.progress(f"{self.model.name}: {known} finished starts taken from {self.folder / JOURNAL}")

    def _announce(self, setting: Setting) -> None:
        why = {"learn": "to learn", "explore": "to find the boundary", "verify": "to prove"}[setting.purpose]
        self.progress(f"{self.model.name}: start {self.search.evidence.starts + 1}, {why}: {setting}")

    def _tell_end(self, outcome: Outcome) -> None:
        how = "done" if outcome.failure is None else f"failed: {outcome.failure}"
        self.progress(
            f"{self.model.name}: start {self.search.evidence.starts} {how}, {format_duration(outcome.seconds)}"
        )

    def _report(self) -> ProbeReport:
        found = self.search.found
        fatal = self.search.fatal
        if found is None or fatal is not None:
            raise _dead(fatal or _last_failure(self.search), self.model.name, self.folder)
        document, cells = self._document(found)
        path = self.folder / "probe.json"
        write_atomically(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
        version = self.search.prior.version
        names = {name: name.upper() for name in NO_LIMITS}
        text = as_text(document, found, cells, self.asked, {**names, **self.engine.limit_names(version)})
        write_atomically(self.folder / "probe.md", (text + "\n").encode())
        write_page(self.folder)
        if self.options.write:
            self._write(document, found)
        return ProbeReport(document, path, text)

    def _document(self, found: Recommendation) -> tuple[dict[str, Any], list[Cell]]:
        evidence = self.search.evidence
        started = evidence.started
        assert started is not None
        card = Card(started, found.setting, self.asked.answer_tokens, self.search.prior.version)
        cells = measured(card.cells(), measured_cells(evidence, card), self.asked)
        cells, contradictions = corrected(cells, evidence)
        checks = checks_of(evidence) if self.search.proved is not None or evidence.last_proof else []
        proved = self.search.proved is not None and all_held(checks)
        limits = limits_of(found, card, evidence, self.asked)
        version = self.engine.version(started.version or self.model.engine.version)
        speed = speed_of(evidence)
        mixed = (
            mix(found.setting, started, found.answer, speed, card.longest_history())
            if speed and started.kind != "pool"
            else None
        )
        goals: dict[str, GoalFigures] = {}
        if started.kind != "pool":
            goals = goals_of(self.search.state, found, limits["max_batch_total_tokens"], proved=proved)
        compared = self._predicted(limits, frozenset(self.engine.limit_names(version)))
        doubt = suspicion(compared, self.model.name)
        document: dict[str, Any] = {
            "schema": 1,
            "model": self.model.name,
            "engine": f"{self.engine.name} {started.version or self.model.engine.version}",
            "image": started.image,
            "gpu": self.model.gpu,
            "emulated": started.emulated,
            "goal": self.asked.goal,
            "goals": {name: each.as_json() for name, each in goals.items()},
            "kind": started.kind,
            "starts": evidence.starts,
            "limits": limits,
            "predicted": {each.name: each.as_json() for each in compared},
            "source": sources_of(limits, found, evidence),
            "boundary": {limit: bracket.as_json() for limit, bracket in boundaries(evidence, found).items()},
            "verified_under_load": proved,
            "checks": [each.as_json() for each in checks],
            "load": self._load_facts(),
            "capacity": [cell.as_json() for cell in cells],
            "batch": [point.as_json() for point in points(r for each in evidence.outcomes for r in each.loads)],
            "recommended_flags": {
                **self.engine.memory_flags(self.model),
                **self.engine.flags(found.setting, version),
                **self._beside_limits(found),
            },
            "reasons": {flag.name: " ".join(filter(None, (flag.reason + ".", flag.cost))) for flag in found.flags},
            "mix": mixed.as_json() if mixed else None,
            "advice": [
                *([sentence_of_goals(goals, self.asked.goal)] if goals else []),
                *advice_of(self.search, found, mixed),
                *contradictions,
                *([f"{doubt}."] if doubt else []),
                *self._prompt_advice(),
                *self._write_advice(found),
            ],
        }
        return document, cells

    def _predicted(self, limits: Mapping[str, Any], names: frozenset[str]) -> list[LimitComparison]:
        """The budget by the memory law with the limits that were found, beside the one that the engine told."""
        kept = {name: value for name, value in limits.items() if name in names - {BUDGET} and isinstance(value, int)}
        told = replace(self.model, limits=replace(self.model.limits, **kept))
        return compare(predict(told, self.target.gpu), limits)

    def _prompt_advice(self) -> list[str]:
        """What is assumed where the engine's tokenizer could not be asked, or does not add up."""
        loaded = any(each.loads for each in self.search.evidence.outcomes)
        if self.asked.quick or not loaded or self.seen.begun == 0:
            return []
        said = self.seen.lengths.sentence(self.seen.ruler)
        return [said] if said else []

    def _load_facts(self) -> dict[str, Any]:
        proved = self.search.proved
        if proved is None:
            return {}
        return {
            "survived": [result.load.name for result in proved.loads if result.verdict == "held"],
            "cut_short": [result.load.name for result in proved.loads if result.verdict == "cut short"],
            "requests": sum(len(result.load.shapes) for result in proved.loads),
            "seconds": round(sum(result.seconds for result in proved.loads), 1),
            "excess_refused_at_once": self.search.evidence.refused_fast,
            "cache_filled": _share_filled(proved),
        }

    def _not_written(self) -> str | None:
        """Why `--write` leaves the entry as it is; None where it does not."""
        started = self.search.evidence.started
        if self.asked.quick and started is not None and started.kind != "pool" and not started.chunking:
            # One start without load is at the engine's own lengths, which are not what the goal asks for.
            return "nothing was written, because --quick has not searched for the history"
        return None

    def _write_advice(self, found: Recommendation) -> list[str]:
        """What `--write` cannot put into the entry."""
        if self.options.write and (why := self._not_written()):
            return [f"{why[0].upper()}{why[1:]}."]
        said = ", ".join(f"{name}={value}" for name, value in self._beside_limits(found).items())
        return (
            [f"These limits need {said} as well, which is not a limit: put it under env: in the entry."] if said else []
        )

    def _beside_limits(self, found: Recommendation) -> dict[str, str]:
        """What the proof was given beside limits, by the engine's own names."""
        off = found.setting.prefix_caching is False
        return {
            **(self.engine.without_prefix_cache(self.search.prior.version) if off else {}),
            **(self.engine.exploring(proving=True) if self.search.joins_at_once(found.setting) else {}),
        }

    def _write(self, document: Mapping[str, Any], found: Recommendation) -> None:
        if why := self._not_written():
            self.progress(f"{self.model.name}: {why}")
            return
        values = {flag.name: flag.value for flag in found.flags if flag.name not in NO_LIMITS}
        reasons = {flag.name: flag.brief or flag.reason for flag in found.flags}
        path = catalogue_path(self.target.catalogue)
        write_limits(path, self.model.name, values, reasons)
        self.progress(f"{self.model.name}: limits written to {path}")
        for line in self._write_advice(found):
            self.progress(f"{self.model.name}: {line}")


def _own_shape(model: Model) -> ModelShape | None:
    """As the files of a directory have it; None of one that is not known, which can be probed all the same."""
    try:
        return known_shape(model)
    except UsageError:
        return None


def _share_filled(proved: Outcome) -> float | None:
    """The largest part of a measured cache that the proof had in flight."""
    started = proved.started
    if started is None or started.kind != "flash" or not started.usable:
        return None
    size = started.block_size
    filled = [
        sum(-(-shape.reserved(started.speculate) // size) * size for shape in result.load.shapes)
        for result in proved.loads
        if result.load.kind == "fill"
    ]
    return round(min(1.0, max(filled) / started.usable), 3) if filled else None


def _folder(options: ProbeOptions, model: Model) -> Path:
    """As asked; with `resume` alone the latest probe of this model that has no result yet."""
    fresh = Path("reports") / run_name(datetime.now(timezone.utc), model.name, model.gpu, "probe")
    folder = probe_folder(options, (_unfinished(model) if options.resume else None) or fresh)
    if secrets_of(model.env):
        folder.chmod(0o700)
    return folder


def _unfinished(model: Model) -> Path | None:
    safe = re.sub(r"[^A-Za-z0-9._]+", "-", model.name)
    folders = sorted(Path("reports").glob(f"*-{safe}-*probe"), reverse=True)
    return next((each for each in folders if (each / JOURNAL).is_file() and not (each / "probe.json").is_file()), None)


def _last_failure(search: Search) -> Failure:
    last = search.evidence.last
    if last is not None and last.failure is not None:
        return last.failure
    return Failure("launch", "other", f"no start came up in {search.evidence.starts}")


def _dead(failure: Failure, name: str, folder: Path) -> ServiceError:
    text = failure.text
    if failure.stage == "load" and failure.cause == "memory":
        text = (
            f"{text.partition('. ')[0]} while the weights were loaded, so no limit can help. Quantize them, spread them"
            " over more GPUs (gpus: 2), or free memory that others use (nvidia-smi shows it)"
        )
    error = ServiceError(text, where=name, advice=f"The starts so far are in {folder}.")
    error.exit_code = failure.exit_code
    return error


def as_text(
    document: Mapping[str, Any],
    found: Recommendation,
    cells: Sequence[Cell],
    asked: ProbeGoal,
    names: Mapping[str, str],
) -> str:
    """The result for people: what fits, what to set and why, how sure."""
    proof = "proved under load" if document["verified_under_load"] else "not proved under load"
    filled = document["load"].get("cache_filled")
    if document["emulated"] and filled is not None and filled < FILLED:
        proof += f", with {filled:.0%} of the cache filled (an emulated GPU is given no more time than that)"
    emulated = " (emulated)" if document["emulated"] else ""
    fits = sentence(cells, found.setting.max_concurrent_requests)
    lines = [
        f"{document['model']} on {document['gpu'] or 'this GPU'}{emulated}, {document['engine']}: {fits}.",
        f"{_starts(document['starts'])}; {proof}. Answers of {asked.answer_tokens:,} tokens are kept free.",
        "",
        "Set",
    ]
    spelled: Mapping[str, str] = document["recommended_flags"]  # a limit may be another number to the engine
    for flag in found.flags:
        name = names.get(flag.name, flag.name)
        lines.append(f"  {name}={spelled.get(name, flag.value)}")
        lines.append(f"      {flag.reason}{f'; cost: {flag.cost}' if flag.cost else ''}")
    lines += ["", "What fits", *_grid(document, cells, found.setting)]
    lines += ["", *(f"- {line}" for line in document["advice"])]
    return "\n".join(lines)


def _starts(count: int) -> str:
    return "1 start" if count == 1 else f"{count} starts"


def _grid(document: Mapping[str, Any], cells: Sequence[Cell], setting: Setting) -> list[str]:
    rows = []
    for cell in cells:
        speed = ["–", "–", ""]
        if cell.ttft_p95 is not None:
            verdict = {True: "yes", False: "no", None: ""}[cell.meets_slo]
            speed = [format_duration(cell.ttft_p95), format_duration(cell.itl_p95), verdict]
        concurrency = setting.max_concurrent_requests or cell.chats_fit
        queue = f"{cell.chats_fit + 1:,} to {concurrency:,}" if concurrency > cell.chats_fit else "none"
        rows.append(
            [
                format_count(cell.history_tokens),
                format_count(min(cell.chats_fit, concurrency)),
                queue,
                f"{concurrency + 1:,}",
                *speed,
            ]
        )
    header = ["history", "fit at once", "queue", "refused from", "TTFT p95", "ITL p95", "meets SLO"]
    return ["  " + line for line in terminal.table(rows, header).splitlines()]
