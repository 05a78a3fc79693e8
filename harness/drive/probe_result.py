"""The options of `harness probe`, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.probe.setting import HISTORY_SHARE, Goal


@dataclass(frozen=True)
class ProbeOptions:
    """What the command line says. answer_tokens: None takes the entry's. output: None makes a folder under reports/."""

    answer_tokens: int | None = None
    goal: Goal = "balanced"
    max_starts: int = 8
    history_share: float = HISTORY_SHARE
    quick: bool = False
    resume: bool = False
    write: bool = False
    output: Path | None = None


@dataclass(frozen=True)
class ProbeReport:
    """probe.json as a value, where it lies, and the same for people."""

    document: Mapping[str, Any]
    path: Path
    text: str = ""

    def as_json(self) -> dict[str, Any]:
        return {**self.document, "path": str(self.path)}

    def as_text(self) -> str:
        return self.text


def probe_folder(options: ProbeOptions, default: Path) -> Path:
    """The folder for the results, made where it is not there. Raises UsageError where it holds something already."""
    folder = options.output or default
    if folder.exists() and not folder.is_dir():
        raise UsageError("is a file, not a folder", where=str(folder), advice="Name a folder with --output.")
    if not options.resume and folder.is_dir() and any(folder.iterdir()):
        raise UsageError("folder is not empty", where=str(folder), advice="Name a new one, or go on with --resume.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
