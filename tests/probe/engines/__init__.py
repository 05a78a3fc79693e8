"""Launchers with memory laws, speeds and faults of their own, each a file that can be run."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
QUICK = {"load_seconds": 0.05, "prefill_rate": 1_000_000.0, "decode_seconds": 0.001}


@dataclass(frozen=True)
class FakeLauncher:
    """A program on disk and the catalogue that serves `toy` by it."""

    program: Path
    catalogue: Path
    starts_file: Path

    def starts(self) -> list[dict[str, str]]:
        """The limits that each start was given, in order."""
        if not self.starts_file.exists():
            return []
        return [json.loads(line) for line in self.starts_file.read_text().splitlines()]


def fake_launcher(folder: Path, *, answer_tokens: int = 128, start_timeout: str = "20s", **spec: Any) -> FakeLauncher:
    """Write the program and a catalogue beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = folder / "starts"
    whole = {**QUICK, **spec, "state": str(starts)}
    program = folder / "launcher"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(HERE)!r})\n"
        f"from fake_tgi import main\nmain({whole!r})\n"
    )
    program.chmod(0o755)
    catalogue = folder / "models.yaml"
    catalogue.write_text(
        "models:\n  toy:  # kept\n    repo: some/model-nobody-knows\n"
        f"    context_length: {spec.get('context', 8192)}\n    answer_tokens: {answer_tokens}\n"
        f"    start_timeout: {start_timeout}\n"
    )
    return FakeLauncher(program, catalogue, starts)
