"""The scenario file: a world that differs from the data sheets, faults on demand, and how long answers are.

    world:   {used_by_others: 2147483648, compute_factor: 0.8, jitter: 0.05}     # harness/simulator/world.py
    answers: {eos_after: {mean: 200, spread: 0.6}}                               # or a number of tokens
    faults:  [{kind: crash, after_requests: 100}]                                # harness/emulator/faults.py
    scheduler: {faithful_put_back: false, faithful_pin_deadlock: false}          # leave out two faults of TGI
    network: {nodelay: false}                                                    # as TGI: see server.py, `Router.start`

YAML or JSON. A mistake in it is refused before anything starts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.emulator.faults import Fault, fault_from_mapping
from harness.errors import UsageError
from harness.simulator.world import World, world_from_mapping

_SECTIONS = ("world", "answers", "faults", "scheduler", "network")


@dataclass(frozen=True)
class Answers:
    """When answers end by themselves. mean: tokens, 0 for never; spread: sigma of the log-normal around it."""

    mean: float = 0.0
    spread: float = 0.0

    def drawer(self) -> Callable[[int], int]:
        """The length of an answer from its place in the endless text, so that the same answer has the same length."""
        if not self.mean:
            return lambda start: 0
        centre = math.log(self.mean) - self.spread**2 / 2
        return lambda start: max(1, round(math.exp(random.Random(start).gauss(centre, self.spread))))


@dataclass(frozen=True)
class Scenario:
    """Everything of the file, checked."""

    world: World = field(default_factory=World)
    answers: Answers = Answers()
    faults: tuple[Fault, ...] = ()
    scheduler: Mapping[str, bool] = field(default_factory=dict)
    nodelay: bool = True

    def fault(self, kind: str) -> Fault | None:
        """The first fault of this kind."""
        return next((each for each in self.faults if each.kind == kind), None)


def read_scenario(path: str | None) -> Scenario:
    """The scenario of this file; the plain one without a file. Raises UsageError."""
    if path is None:
        return Scenario()
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UsageError(error.strerror or "cannot be read", where=path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"no YAML: {' '.join(str(error).split())}", where=path) from error
    if not isinstance(document, dict):
        raise UsageError("expected sections", where=path, advice=f"Known: {', '.join(_SECTIONS)}.")
    for key in document:
        if key not in _SECTIONS:
            raise UsageError(f"unknown section {key!r}", where=path, advice=f"Known: {', '.join(_SECTIONS)}.")
    if not isinstance(document.get("world") or {}, dict):
        raise UsageError(f"expected keys and numbers, found {document['world']!r}", where=f"{path}: world")
    if not isinstance(document.get("faults") or [], list):
        found = f"expected a list of faults, found {document['faults']!r}"
        raise UsageError(found, where=f"{path}: faults", advice="Write faults: [{kind: overload, every: 10}].")
    return Scenario(
        world=world_from_mapping(document.get("world") or {}, f"{path}: world"),
        answers=_answers(document.get("answers") or {}, path),
        faults=tuple(fault_from_mapping(each, path) for each in document.get("faults") or []),
        scheduler=_switches(document, "scheduler", ("faithful_put_back", "faithful_pin_deadlock"), path),
        nodelay=_switches(document, "network", ("nodelay",), path).get("nodelay", True),
    )


def _answers(section: Any, path: str) -> Answers:
    value = section.get("eos_after", 0) if isinstance(section, dict) else None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return Answers(float(value))
    if isinstance(value, dict) and all(isinstance(v, (int, float)) for v in value.values()) and "mean" in value:
        return Answers(float(value["mean"]), float(value.get("spread", 0.0)))
    raise UsageError("expected eos_after: a number of tokens, or {mean, spread}", where=f"{path}: answers")


def _switches(document: Mapping[str, Any], name: str, known: tuple[str, ...], path: str) -> dict[str, bool]:
    section = document.get(name) or {}
    if not isinstance(section, dict) or not all(k in known and isinstance(v, bool) for k, v in section.items()):
        raise UsageError(f"expected {' and '.join(known)}, each true or false", where=f"{path}: {name}")
    return section
