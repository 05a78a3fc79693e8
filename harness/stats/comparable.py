"""Whether two runs may be compared at all: both valid, and both asked the same of what is to be the same service."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from harness.measure.run_folder import Level, Manifest
from harness.stats.run_figures import RunFigures
from harness.units import format_duration

Fit = TypeVar("Fit", bound=RunFigures)

# What may befall one run among many by chance, on the client's side or for a while: such a repeat is left out and said.
CHANCE = frozenset(("client_cpu", "client_loop_lag", "late_events", "schedule_lag", "sent_rate", "warmup", "drift"))
# What was measured, on what, and by which harness.
SERVICE = ("model", "revision", "engine", "image_digest", "gpu", "gpus", "driver", "processes", "harness_version")
SUBJECT = ("model", "revision", "gpu", "gpus")  # what nobody changes by the way: its figures are another thing's
ONE_SIDE = (*SUBJECT, "engine", "image_digest")  # what repeats of one setting have in common
LEFT_OUT_MOST = 0.2  # share of a side's runs that may be left out: more than that is not chance


def fit_runs(runs: Sequence[Fit], side: str) -> tuple[list[Fit], list[str], list[str]]:
    """The runs of a side that are judged, why others make the whole side unfit, and which ones were left out."""
    bad = [run for run in runs if run.flaws]
    most = int(LEFT_OUT_MOST * len(runs))
    if len(bad) <= most and all(rules <= CHANCE for run in bad for _, rules in run.flaws):
        notes = [f"left out of {side}: {run.path}, whose {'; '.join(text for text, _ in run.flaws)}" for run in bad]
        return [run for run in runs if not run.flaws], [], notes
    problems = [f"{run.path}: {text}" for run in bad for text, _ in run.flaws]
    return list(runs), list(dict.fromkeys(problems)), []


def not_the_same_question(runs: Sequence[RunFigures]) -> list[str]:
    """Why the runs do not ask the same of the server."""
    first, found = question_of(runs[0].manifest), []
    for run in runs[1:]:
        for what, parts in question_of(run.manifest).items():
            if parts != first[what]:
                names = f"{runs[0].path.resolve().name} and {run.path.resolve().name}"
                found.append(f"{what} differs between {names}: {_unequal(first[what], parts)}")
    return found


def _unequal(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The parts that differ; what merely follows from others is left out where there are others."""
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    telling = [name for name in names if name != "hash" and not name.startswith("mean_")] or names
    pairs = [(name, before.get(name, "none"), after.get(name, "none")) for name in telling]
    return ", ".join(f"{name.replace('_', ' ')} {one} against {other}".strip() for name, one, other in pairs)


def service_of(manifest: Manifest) -> dict[str, Any]:
    """Each of SERVICE, by its name."""
    return {name: getattr(manifest, name) for name in SERVICE}


def not_the_same_service(base: Sequence[RunFigures], new: Sequence[RunFigures], same: Collection[str]) -> list[str]:
    """Why a side's runs are not repeats of one thing, and what of `same` differs between the sides."""
    found = [
        f"{side}'s runs are not of one service: {name} is {_told(one)} in {runs[0].path.resolve().name} and "
        f"{_told(other)} in {run.path.resolve().name}"
        for side, runs in (("BASE", base), ("NEW", new))
        for run in runs[1:]
        for name, one, other in _differing(runs[0], run, ONE_SIDE)
    ]
    return found + [
        f"{name} differs: {_told(one)} against {_told(other)}; --allow {name} compares them all the same"
        for name, one, other in _differing(base[0], new[0], same)
    ]


def _differing(one: RunFigures, other: RunFigures, names: Collection[str]) -> list[tuple[str, Any, Any]]:
    before, after = service_of(one.manifest), service_of(other.manifest)
    return [(name, before[name], after[name]) for name in SERVICE if name in names and before[name] != after[name]]


def _told(value: object) -> str:
    return "unknown" if value is None else str(value)


def question_of(manifest: Manifest) -> dict[str, dict[str, str]]:
    """What was asked, in parts that people can read."""
    workload = {key: value for key, value in manifest.workload.items() if key not in ("path", "file", "seed")}
    return {
        "workload": {key: str(value) for key, value in workload.items()},
        "dataset": {"sha256": str((manifest.dataset or {}).get("sha256"))},
        "api": {"": f"{manifest.api} {'streamed' if manifest.stream else 'not streamed'}"},
        "load": {"": ("; ".join(map(_load, manifest.levels)) or "none") + _thinking(manifest.think_time)},
        "emulated": {"": str(manifest.emulated).lower()},
    }


def in_words(value: Any) -> str:
    """Of a part of the question what it says."""
    if not isinstance(value, Mapping):
        return str(value)
    return " ".join(f"{name} {part}".strip() for name, part in value.items())


def _thinking(seconds: float) -> str:
    return f"; users think for {format_duration(seconds)}" if seconds else ""


def _load(level: Level) -> str:
    kind = f"{level.rate:g} req/s {level.arrival}" if level.rate is not None else str(level.arrival)
    parts = [f"{level.users} users" if level.users is not None else kind or "unknown"]
    parts += [f"for {format_duration(level.duration)}"] if level.duration is not None else []
    parts += [f"of {level.requests} requests"] if level.requests is not None else []
    parts += [f"of {level.sessions} conversations"] if level.sessions is not None else []
    parts += [f"after {format_duration(level.warmup)} of warm-up"] if level.warmup is not None else []
    parts += ["out of step"] if level.jitter is not None or level.spread is not None else []
    return " ".join(parts)


# Of the engine's variables those that say where it is, not how it works.
PLACES = frozenset(("PORT", "HOSTNAME", "MASTER_PORT", "MASTER_ADDR", "UDS_PATH", "SHARD_UDS_PATH"))
# The same among the arguments of a command line; `--port 8081 --served-model-name a b` has two of them.
PLACE_OPTIONS = frozenset(("--host", "--port", "--served-model-name", "--alias"))


def differences(base: Manifest, new: Manifest) -> list[str]:
    """What else is not the same: model, engine, machine, settings."""
    names = ("model", "revision", "engine", "image", "image_digest", "gpu", "gpus", "driver", "harness_version")
    pairs = [(name, getattr(base, name), getattr(new, name)) for name in names]
    pairs += differing_flags(base, new)
    return [f"{name}: {before} -> {after}" for name, before, after in pairs if before != after]


def _settings(flags: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in flags.items() if name not in PLACES}
    if "args" in kept:
        words, place = list[str](), False
        for word in kept["args"].split():
            place = word.partition("=")[0] in PLACE_OPTIONS if word.startswith("-") else place
            words += [] if place else [word]
        kept["args"] = " ".join(words)
    return kept


def differing_flags(base: Manifest, new: Manifest) -> list[tuple[str, str | None, str | None]]:
    """The engine's variables and arguments that differ, but for PLACES; None where one side has none of that name."""
    before, after = _settings(base.flags), _settings(new.flags)
    pairs = [(name, before.get(name), after.get(name)) for name in sorted({*before, *after})]
    return [pair for pair in pairs if pair[1] != pair[2]]
