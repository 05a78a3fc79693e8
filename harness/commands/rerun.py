"""`harness rerun`: makes a run again from its manifest, or says what is no longer available.

What can be looked at is looked at before a service is started (the rows of a trace, the locustfile), the rest before
the first request: another revision, image, flag or question would be another run under the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.drive.bench_options import plan_from
from harness.drive.bench_plan import AskedRows, AskedUsers, BenchPlan
from harness.drive.bench_result import BenchResult
from harness.drive.bench_run import PlannedRun, bench, locustfile_of
from harness.drive.capacity_book import FILE as CAPACITY
from harness.drive.options import allowed
from harness.drive.plan_workload import read_rows
from harness.engines.client import base_url
from harness.errors import UsageError
from harness.input_files import brief
from harness.measure.run_folder import Level, Manifest, RunFolder, read_manifest
from harness.redaction import REDACTED, redacted
from harness.serve.target import Target, target_from
from harness.stats.comparable import differing_flags, question_of

# What makes it the same run; each may be allowed to differ. As far as the run before knew it.
KEYS = (
    "dataset", "locustfile", "workload", "api", "levels",
    "model", "revision", "engine", "image", "image_digest", "gpu", "gpus", "flags", "limits", "emulated",
)  # fmt: skip
_PLAIN = ("model", "revision", "engine", "image", "image_digest", "gpu", "gpus", "emulated")
_SAID = ("harness_version", "driver", "slo", "host")  # what may move figures, and belongs to no run


@dataclass(frozen=True)
class Difference:
    """key: one of KEYS, or of what is only said. was, now: as people read them."""

    key: str
    name: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.name} was {brief(self.was)} and is {brief(self.now)}"


@dataclass(frozen=True)
class RerunResult:
    """before: the folder of the run that was made again. differences: those that were allowed, and others to know."""

    again: BenchResult
    before: Path
    differences: tuple[Difference, ...]

    @property
    def exit_code(self) -> int:
        return self.again.exit_code

    @property
    def unmet(self) -> str | None:
        return self.again.unmet

    @property
    def warning(self) -> str | None:
        return self.again.warning

    def as_json(self) -> dict[str, Any]:
        found = [{"key": each.key, "name": each.name, "was": each.was, "now": each.now} for each in self.differences]
        return {**self.again.as_json(), "rerun_of": str(self.before), "differences": found}

    def as_text(self) -> str:
        lines = [f"Differs from {self.before}: {each}." for each in self.differences]
        compare = f"compare: harness compare {self.before} {self.again.folder.path}"
        return "\n".join([self.again.as_text(), *lines, compare])


def rerun(
    run: Path,
    progress: Callable[[str], None],
    *,
    allow: str | None = None,
    url: str | None = None,
    catalogue: str | None = None,
    output: Path | None = None,
    report: bool = True,
) -> RerunResult:
    """run: a run's folder, or its manifest. allow: of KEYS, with commas. url: where the service is now, of a run that
    was made by --url. Raises UsageError that names what is no longer the same; nothing was asked then.
    """
    folder = _folder(run)
    before, may_differ = read_manifest(folder), allowed(allow, KEYS)
    target = _target(before, folder, url, catalogue)
    plan = replace(_plan(before, folder), output=output, report=report)
    _refuse(_files(before, plan), may_differ, folder)
    found: list[Difference] = []

    def check(now: Manifest) -> None:
        found.extend(differences(before, now))
        _refuse(found, may_differ, folder)

    again = bench(PlannedRun(target, plan, check=check), progress)
    return RerunResult(again, folder.path, tuple(found))


def differences(before: Manifest, now: Manifest) -> list[Difference]:
    """In what the run that is about to begin is not the one before: by KEYS, then what is only said."""
    return list(_differences(before, now))


def _differences(before: Manifest, now: Manifest) -> Iterator[Difference]:
    asked, asks = question_of(before), question_of(now)
    for part in ("dataset", "workload", "api"):
        for name in sorted({*asked[part], *asks[part]}):
            yield from _unless_same(part, f"{part} {name}".strip(), asked[part].get(name), asks[part].get(name))
    yield from _unless_same("locustfile", "the locustfile", _sha(before.locustfile), _sha(now.locustfile))
    yield from _unless_same("levels", "the list of levels", _levels(before), _levels(now))
    for name in (*_PLAIN, *_SAID):
        was, is_now = getattr(before, name), getattr(now, name)
        if was is not None:  # what was not known then cannot be missed
            yield from _unless_same(name, name.replace("_", " "), was, is_now)
    for flag, was, is_now in differing_flags(before, now):
        yield from _unless_same("flags", flag, was, is_now)
    for limit in sorted({*before.limits, *now.limits}):
        yield from _unless_same("limits", limit, before.limits.get(limit), now.limits.get(limit))


def _unless_same(key: str, name: str, was: object, now: object) -> Iterator[Difference]:
    if was != now and was != redacted(now):  # the manifest has no secret, also where a model is called like one
        yield Difference(key, name, *("unset" if each is None else str(each) for each in (was, now)))


def _levels(manifest: Manifest) -> str:
    """As they were asked for, whatever became of them."""

    def asked(level: Level) -> str:
        names = ("users", "rate", "arrival", "duration", "requests", "sessions", "warmup")
        return " ".join(f"{name}={value}" for name in names if (value := getattr(level, name)) is not None)

    return "; ".join(map(asked, manifest.levels))


def _sha(file: Any) -> str | None:
    return None if file is None else file.get("sha256")


def _files(before: Manifest, plan: BenchPlan) -> list[Difference]:
    """What of the files that say what is asked has changed since; they are read again when the run begins."""
    if isinstance(plan.asked, AskedRows):
        rows = read_rows(plan, lambda text: None)
        was = (before.dataset or {}).get("sha256")
        return list(_unless_same("dataset", "sha256 of the rows", was, rows.sha256 if rows else None))
    now = _sha(locustfile_of(plan))
    return list(_unless_same("locustfile", f"sha256 of {plan.asked.file}", _sha(before.locustfile), now))


def _refuse(found: Collection[Difference], may_differ: Collection[str], folder: RunFolder) -> None:
    """Raises UsageError for differences that make it another run."""
    bad = [each for each in found if each.key in KEYS and each.key not in may_differ]
    if bad:
        keys = ",".join(dict.fromkeys(each.key for each in bad))
        raise UsageError(
            f"cannot be run again as it was: {'; '.join(map(str, bad))}",
            where=str(folder.path),
            advice=f"Bring it back, or give --allow {keys}.",
        )


def _folder(run: Path) -> RunFolder:
    folder = RunFolder.open(run.parent if run.name == "manifest.json" else run)
    if (folder.path.parent / CAPACITY).exists():
        advice = (
            f"`harness capacity --resume --output {folder.path.parent}` goes on with it; a new search is a new one."
        )
        raise UsageError("is a level list that a capacity search chose as it went", where=str(run), advice=advice)
    return folder


def _target(before: Manifest, folder: RunFolder, url: str | None, catalogue: str | None) -> Target:
    if before.target is None or before.plan is None:
        raise UsageError(
            "tells no options: it was made by `locust -f`, or by a harness that did not keep them",
            where=str(folder.manifest),
            advice=f"Its command was: {' '.join(before.command)}",
        )
    target = target_from(before.target, folder.manifest)
    if url is not None and target.url is None:
        raise UsageError("--url is for runs that were made by --url; this one starts its own", where=str(folder.path))
    if url is not None:
        base_url(url)
    target = replace(target, url=url or target.url, catalogue=catalogue or target.catalogue)
    for text in (target.url or "", *target.changes):
        if REDACTED in text:
            raise UsageError(
                f"a secret of the run is not kept: {text}", where=str(folder.manifest), advice="Give --url with it."
            )
    return target


def _plan(before: Manifest, folder: RunFolder) -> BenchPlan:
    """The plan of the manifest; a file that was named from another folder is looked for where it was, too."""
    plan = plan_from(before.plan or {}, folder.manifest)
    if isinstance(plan.asked, AskedUsers):
        name, file = plan.asked.workload, (before.locustfile or {}).get("path")
        if name.endswith(".py") and file is not None and not Path(name).is_file():
            return replace(plan, asked=replace(plan.asked, workload=file))
        return plan
    file = (before.dataset or {}).get("path")
    if not plan.asked.on_hub and file is not None and not Path(plan.asked.place).is_file():
        return replace(plan, asked=replace(plan.asked, place=str(file)))
    return plan
