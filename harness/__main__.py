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
    _end_in_order_when_told_to()
    try:
        from harness.cli import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while the command line itself was loading
        sys.stderr.write("harness: interrupted\n")
        code = 130
    sys.exit(code)


def _end_in_order_when_told_to() -> None:
    """Ctrl-C, SIGTERM and the end of the terminal all stop what was started and keep what was recorded.

    SIGINT too where a shell started us in the background, with it ignored; SIGHUP stays ignored under nohup.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _as_interrupt)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _as_interrupt)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _become_emulator(arguments: list[str]) -> NoReturn:
    import os

    os.execv(sys.executable, [sys.executable, "-m", "harness.emulator", *arguments])


if __name__ == "__main__":
    main()
