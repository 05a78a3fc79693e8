"""`python -m harness` and the `harness` command: run the command line, turn every expected failure into one line."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    if sys.argv[1:2] == ["emulate"] and not {"--help", "-h"} & set(sys.argv[2:3]):
        # A stand-in for TGI's launcher: its own arguments, texts, streams and exit codes.
        _become_emulator(sys.argv[2:])
    from harness.cli import run

    signal.signal(signal.SIGTERM, _as_interrupt)
    sys.exit(run(sys.argv[1:]))


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _become_emulator(arguments: list[str]) -> NoReturn:
    import os

    os.execv(sys.executable, [sys.executable, "-m", "harness.emulator", *arguments])


if __name__ == "__main__":
    main()
