"""`make bench`: every benchmark of this folder, one after another, and what each has to say.

    python -m tests.overhead [emulator ...]

A benchmark is a file bench_<name>.py that prints its table and ends with 0. Nothing else should run meanwhile.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(asked: list[str]) -> int:
    known = {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}
    if unknown := [name for name in asked if name not in known]:
        print(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"This machine is busy (load {load:.1f}): the figures below are worse than it can do.")
    failed = 0
    for name in asked or known:
        print(f"\n{name}: {_purpose(known[name])}", flush=True)
        failed += subprocess.run([sys.executable, str(known[name])], cwd=HERE.parent.parent).returncode != 0
    return min(failed, 1)


def _purpose(path: Path) -> str:
    """The first line of the file's docstring."""
    return path.read_text(encoding="utf-8").lstrip().removeprefix('"""').splitlines()[0].rstrip('."')


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
