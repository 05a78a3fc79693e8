"""May two runs be compared at all? Each may stand, and both asked the same of the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.measure.run import Run
from harness.stats.summary import Summary


def unfit(summaries: Sequence[Summary]) -> list[str]:
    found = []
    for summary in summaries:
        if not summary.complete:
            found.append(f"{summary.manifest.run_id} is incomplete")
        elif not summary.valid:
            rules = ", ".join(dict.fromkeys(reason.rule for reason in summary.total.reasons))
            found.append(f"{summary.manifest.run_id} is invalid ({rules})")
    return list(dict.fromkeys(found))


def not_the_same_question(runs: Sequence[Run]) -> list[str]:
    """Why the runs do not ask the same of the server."""
    first, found = _question(runs[0]), []
    for run in runs[1:]:
        for what, value in _question(run).items():
            if value != first[what]:
                found.append(
                    f"{what} differs: {first[what]} in {runs[0].folder.run_id}, {value} in {run.folder.run_id}"
                )
    return found


def _question(run: Run) -> dict[str, Any]:
    manifest = run.manifest
    workload = {key: value for key, value in manifest.workload.items() if key not in ("path", "file", "seed")}
    levels = [
        (level.users, level.rate, level.arrival, level.duration, level.requests, level.warmup)
        for level in manifest.levels
    ]
    return {
        "workload": workload,
        "dataset": (manifest.dataset or {}).get("sha256"),
        "api": (manifest.api, "streamed" if manifest.stream else "not streamed"),
        "levels": levels,
        "emulated": manifest.emulated,
    }


def differences(base: Run, new: Run) -> list[str]:
    names = ("model", "revision", "engine", "image", "image_digest", "gpu", "gpus", "driver", "harness_version")
    pairs = [(name, getattr(base.manifest, name), getattr(new.manifest, name)) for name in names]
    flags = sorted({*base.manifest.flags, *new.manifest.flags})
    pairs += [(flag, base.manifest.flags.get(flag), new.manifest.flags.get(flag)) for flag in flags]
    return [f"{name}: {before} -> {after}" for name, before, after in pairs if before != after]
