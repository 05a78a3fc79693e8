"""Plays SGLang's `python -m sglang.launch_server`, 0.5.23, as a client and a reader of its log and pages see it."""

from harness.emulator.faces.sglang.start import main

__all__ = ["main"]
