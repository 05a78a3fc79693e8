"""`python -m harness.emulator [--engine NAME] [flags]`: a stand-in for TGI's launcher, or another engine's server."""

import os
import sys
from collections.abc import Sequence

from harness.emulator import faces, launcher

TGI = "tgi"


def main(arguments: Sequence[str]) -> int:
    """All but `--engine NAME` is the engine's own. Returns the exit code."""
    name, rest = TGI, list(arguments)
    at = next((place for place, word in enumerate(rest) if word.partition("=")[0] == "--engine"), None)
    if at is not None:
        word = rest.pop(at)
        name = word.partition("=")[2] if "=" in word else rest.pop(at) if at < len(rest) else ""
    if name == TGI:
        return launcher.main(rest)
    if name not in faces.FACES:
        known = ", ".join((TGI, *faces.FACES))
        sys.stderr.write(f"error: the emulator has no face of an engine {name!r}; it knows {known}\n")
        return 2
    return faces.main(name, rest, os.environ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
