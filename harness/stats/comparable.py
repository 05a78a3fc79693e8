"""May two runs be compared at all? Each may stand, and both asked the same of the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.measure.run import Run
from harness.measure.run_folder import Level
from harness.stats.summary import Summary
from harness.units import format_duration


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
        for what, parts in _question(run).items():
            if parts != first[what]:
                names = f"{runs[0].folder.run_id} and {run.folder.run_id}"
                found.append(f"{what} differs between {names}: {_unequal(first[what], parts)}")
    return found


def _unequal(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The parts that differ; what merely follows from others is left out where there are others."""
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    telling = [name for name in names if name != "hash" and not name.startswith("mean_")] or names
    pairs = [(name, before.get(name, "none"), after.get(name, "none")) for name in telling]
    return ", ".join(f"{name.replace('_', ' ')} {one} against {other}".strip() for name, one, other in pairs)


def _question(run: Run) -> dict[str, dict[str, str]]:
    """What was asked, in parts that people can read."""
    manifest = run.manifest
    workload = {key: value for key, value in manifest.workload.items() if key not in ("path", "file", "seed")}
    return {
        "workload": {key: str(value) for key, value in workload.items()},
        "dataset": {"sha256": str((manifest.dataset or {}).get("sha256"))},
        "api": {"": f"{manifest.api} {'streamed' if manifest.stream else 'not streamed'}"},
        "load": {"": ("; ".join(map(_load, manifest.levels)) or "none") + _thinking(manifest.think_time)},
        "emulated": {"": str(manifest.emulated).lower()},
    }


def _thinking(seconds: float) -> str:
    return f"; users think for {format_duration(seconds)}" if seconds else ""


def _load(level: Level) -> str:
    kind = f"{level.rate:g} req/s {level.arrival}" if level.rate is not None else level.arrival
    parts = [f"{level.users} users" if level.users is not None else kind or "unknown"]
    parts += [f"for {format_duration(level.duration)}"] if level.duration is not None else []
    parts += [f"of {level.requests} requests"] if level.requests is not None else []
    parts += [f"of {level.sessions} conversations"] if level.sessions is not None else []
    parts += [f"after {format_duration(level.warmup)} of warm-up"] if level.warmup is not None else []
    parts += ["out of step"] if level.jitter is not None or level.spread is not None else []
    return " ".join(parts)


def differences(base: Run, new: Run) -> list[str]:
    names = ("model", "revision", "engine", "image", "image_digest", "gpu", "gpus", "driver", "harness_version")
    pairs = [(name, getattr(base.manifest, name), getattr(new.manifest, name)) for name in names]
    flags = sorted({*base.manifest.flags, *new.manifest.flags})
    pairs += [(flag, base.manifest.flags.get(flag), new.manifest.flags.get(flag)) for flag in flags]
    return [f"{name}: {before} -> {after}" for name, before, after in pairs if before != after]
