"""Where baselines are kept: a folder, or a branch of the repository (git_store.py)."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path
from typing import Protocol

from harness.drive.git_store import GitStore
from harness.interrupts import held_back

DEFAULT_FOLDER = Path("reports") / "baselines"
FILE = "baseline.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Store(Protocol):
    """Baselines by name, each a folder with FILE and its runs."""

    def names(self) -> list[str]:
        """Of all, in order."""
        ...

    def folder(self, name: str) -> Path | None:
        """Where it can be read; None where there is none."""
        ...

    def put(self, name: str, fresh: Path, before: Path | None) -> str | None:
        """Keep the folder `fresh` under the name; what the user has to do yet, if anything. before: what `folder` gave,
        which it takes the place of. Raises UsageError where another writer was first.
        """
        ...

    def __str__(self) -> str: ...


class FolderStore:
    """A folder with one per baseline."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        for old in self.path.glob(".*.old") if self.path.is_dir() else ():
            self._bring_back(old.name[1:].removesuffix(".old"))
        found = self.path.iterdir() if self.path.is_dir() else []
        return sorted(each.name for each in found if NAME.fullmatch(each.name) and (each / FILE).exists())

    def folder(self, name: str) -> Path | None:
        self._bring_back(name)
        return self.path / name if (self.path / name).exists() else None

    def _bring_back(self, name: str) -> None:
        """Where a writer was killed between its two renames, the one before stands beside the place."""
        old, place = self.path / f".{name}.old", self.path / name
        if old.is_dir() and not place.exists():
            with contextlib.suppress(OSError):  # a store that cannot be written, or another reader was first
                old.rename(place)

    def put(self, name: str, fresh: Path, before: Path | None) -> str | None:
        """Whatever happens in between, the old or the new one stays."""
        beside, place, old = self.path / f".{name}.new", self.path / name, self.path / f".{name}.old"
        for each in (beside, old):
            shutil.rmtree(each, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)
        shutil.copytree(fresh, beside)
        with held_back():
            if before is not None:
                place.rename(old)
            beside.rename(place)
        shutil.rmtree(old, ignore_errors=True)
        return None

    def __str__(self) -> str:
        return str(self.path)


def store_at(place: str | None) -> Store:
    """`git:BRANCH`, or a folder; None: the default one. Raises UsageError and MissingError."""
    if place is not None and place.startswith("git:"):
        return GitStore(place.removeprefix("git:"), FILE)
    return FolderStore(Path(place) if place else DEFAULT_FOLDER)
