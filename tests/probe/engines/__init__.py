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

    def starts(self) -> list[Any]:
        """What each start was given, in order: TGI's limits by name, or the arguments of another engine."""
        if not self.starts_file.exists():
            return []
        return [json.loads(line) for line in self.starts_file.read_text().splitlines()]


def fake_launcher(folder: Path, *, answer_tokens: int = 128, start_timeout: str = "20s", **spec: Any) -> FakeLauncher:
    """TGI's: write the program and a catalogue beside it."""
    entry = f"    answer_tokens: {answer_tokens}\n    start_timeout: {start_timeout}\n"
    return _written(folder, "fake_tgi", {**QUICK, **spec}, entry)


def fake_pool(folder: Path, *, style: str, answer_tokens: int = 128, **spec: Any) -> FakeLauncher:
    """vLLM's, SGLang's or llama.cpp's (`style`), likewise."""
    entry = f"    engine: {{name: {style}}}\n    answer_tokens: {answer_tokens}\n    start_timeout: 20s\n"
    if style == "llamacpp":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "toy.gguf").write_bytes(b"GGUF")
        entry += "    file: toy.gguf\n"
    repo = str(folder) if style == "llamacpp" else "some/model-nobody-knows"
    return _written(folder, "fake_pool", {"style": style, **spec}, entry, repo)


def _written(
    folder: Path, module: str, spec: dict[str, Any], entry: str, repo: str = "some/model-nobody-knows"
) -> FakeLauncher:
    folder.mkdir(parents=True, exist_ok=True)
    starts = folder / "starts"
    program = folder / "launcher"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(HERE)!r})\n"
        f"from {module} import main\nmain({ {**spec, 'state': str(starts)}!r})\n"
    )
    program.chmod(0o755)
    catalogue = folder / "models.yaml"
    catalogue.write_text(
        f"models:\n  toy:  # kept\n    repo: {repo}\n    context_length: {spec.get('context', 8192)}\n{entry}"
    )
    return FakeLauncher(program, catalogue, starts)
