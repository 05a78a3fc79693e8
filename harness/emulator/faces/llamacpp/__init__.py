"""Plays llama.cpp's `llama-server`, build 11549, as a client and a reader of its log and pages see it."""

from harness.emulator.faces.llamacpp.start import main

__all__ = ["main"]
