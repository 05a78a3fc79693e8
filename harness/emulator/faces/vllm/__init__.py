"""Plays `vllm serve`, 0.32.0, as a client and a reader of its log and pages see it."""

from harness.emulator.faces.vllm.start import main

__all__ = ["main"]
