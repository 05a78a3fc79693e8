"""Finds a workload by name: a file of locustfiles/.

Files of the working directory's locustfiles/ win over those that ship with harness. Answers of the latter stay at or
below 1,024 tokens: beyond, TGI runs a request in pieces and queues it anew between them
(router/src/validation.rs:152-169), which is a workload of its own. What a file says, the load process tells that runs
it (load/locustfile.py).
"""

from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import Path

from harness.errors import UsageError

FOLDER = "locustfiles"


def known() -> list[str]:
    """All names, the working directory's first."""
    return list(dict.fromkeys(path.stem for folder in _folders() for path in sorted(folder.glob("[!_]*.py"))))


def find(name: str, where: str | None = None) -> Path:
    """The file of the workload of this name; a name that ends in .py is a path. where: who asks. Raises UsageError with
    the nearest names.
    """
    if name.endswith(".py"):
        if Path(name).is_file():
            return Path(name)
        raise UsageError("no such file", where=name)
    for folder in _folders():
        if (folder / f"{name}.py").is_file():
            return folder / f"{name}.py"
    near = difflib.get_close_matches(name, known(), n=1)
    advice = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known())}; or write {FOLDER}/{name}.py."
    raise UsageError(f"unknown workload {name!r}", where=where, advice=advice)


def _folders() -> list[Path]:
    """Here, in the wheel, and in an editable checkout, which has no copy in the package."""
    packaged = Path(str(files("harness").joinpath(f"data/{FOLDER}")))
    checkout = Path(__file__).resolve().parents[2] / FOLDER
    return [Path(FOLDER), packaged if packaged.is_dir() else checkout]
