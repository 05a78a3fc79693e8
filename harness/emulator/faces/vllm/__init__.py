"""vLLM's face: `vllm serve` of 0.32.0, as a client, a reader of its log and a reader of its pages see it."""

from harness.emulator.faces.vllm.start import main

__all__ = ["main"]
