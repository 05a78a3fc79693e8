"""`python -m harness` and the `harness` command: run the command line, turn every expected failure into one line."""

from __future__ import annotations

import sys
from typing import NoReturn

from harness import interrupts


def main() -> NoReturn:
    if sys.argv[1:2] == ["emulate"] and not {"--help", "-h"} & set(sys.argv[2:3]):
        # A stand-in for TGI's launcher: its own arguments, texts, streams and exit codes.
        _become_emulator(sys.argv[2:])
    interrupts.install()
    try:
        from harness.cli import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while the command line itself was loading
        sys.stderr.write("harness: interrupted\n")
        code = 130
    _leave(code)


def _leave(code: int) -> NoReturn:
    """All is written by now. To take the interpreter down would call the destructors of libraries, whose threads may be
    ending at that moment: rarely, and on busy machines, that aborts the process (`terminate called without an active
    exception`), and the command's exit code would be lost.
    """
    import atexit
    import contextlib
    import os

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or full and said already
            stream.flush()
    os._exit(code)


def _become_emulator(arguments: list[str]) -> NoReturn:
    import os

    os.execv(sys.executable, [sys.executable, "-m", "harness.emulator", *arguments])


if __name__ == "__main__":
    main()
