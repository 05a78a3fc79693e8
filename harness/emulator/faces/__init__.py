"""The other engines that the emulator can play: vLLM, SGLang, llama.cpp.

One package per face: `start` has its arguments, log lines and failures, `serving` its routes, frames and metrics. The
laws of memory and admission behind them are simulator/laws and simulator/policies.

    vllm  sglang  llamacpp                     the faces
    run  flags                                 from the first line to the exit code, command lines
    openai  asking  answers  wire              from a body to the frames of its answer
    counting  page                             what is counted, and the page of it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

FACES = ("vllm", "sglang", "llamacpp")


def main(face: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one face with the engine's own arguments. Returns the exit code."""
    code: int = import_module(f"harness.emulator.faces.{face}").main(list(arguments), environment)
    return code
