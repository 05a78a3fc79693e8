"""How long each phase of a start took last time, so that the next one can say what to expect."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from harness.catalog.models import Model
from harness.measure.run_folder import write_atomically
from harness.stack.service import ServiceFacts
from harness.stack.state import state_folder


def key_of(facts: ServiceFacts, model: Model) -> str:
    """Equal for starts that should take equally long."""
    parts = (facts.runtime, facts.image or facts.command, model.repo, model.gpu, model.gpus, model.quantize)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def last(key: str) -> dict[str, float]:
    """Seconds by phase; empty when it was never started here."""
    found = _read().get(key)
    if not isinstance(found, dict):
        return {}
    return {str(phase): float(seconds) for phase, seconds in found.items() if isinstance(seconds, (int, float))}


def note(key: str, phases: Mapping[str, float]) -> None:
    known = _read()
    known[key] = {phase: round(seconds, 1) for phase, seconds in phases.items()}
    path = state_folder() / "timings.json"
    write_atomically(path, (json.dumps(known, indent=1) + "\n").encode())


def _read() -> dict[str, object]:
    try:
        document = json.loads((state_folder() / "timings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
