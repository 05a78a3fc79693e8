"""Where baselines are kept: a folder, or a branch of the repository (git_store.py)."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from harness.drive.git_store import GitStore
from harness.errors import UsageError
from harness.interrupts import held_back

DEFAULT_FOLDER = Path("reports") / "baselines"
FILE = "baseline.json"
OLD = ".old"  # behind the name of one whose place is being taken
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
    """A folder with one per baseline. Who writes holds a lock on the folder, and writes only over what it had read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: dict[str, bytes | None] = {}

    def names(self) -> list[str]:
        found = self.path.iterdir() if self.path.is_dir() else []
        names = (each.name.removeprefix(".").removesuffix(OLD) for each in found)
        return sorted({name for name in names if NAME.fullmatch(name) and self._text(name) is not None})

    def folder(self, name: str) -> Path | None:
        place = self.path / name
        self._seen[name] = self._text(name)
        return place if place.exists() else None

    def put(self, name: str, fresh: Path, before: Path | None) -> str | None:
        """Whatever happens in between, the old or the new one stays, and of two writers the second is refused."""
        beside, place, old = self.path / f".{name}.new", self.path / name, self._old(name)
        self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path):
            self._take_up(name)
            now = _read(place / FILE)
            if now != (None if before is None else self._seen.get(name)) or place.exists() != (before is not None):
                raise UsageError(f"{name} was changed by another meanwhile", where=str(self), advice="Run it again.")
            for each in (beside, old):
                shutil.rmtree(each, ignore_errors=True)
            shutil.copytree(fresh, beside)
            with held_back():
                if before is not None:
                    place.rename(old)
                beside.rename(place)
            shutil.rmtree(old, ignore_errors=True)
        return None

    def _text(self, name: str) -> bytes | None:
        """What its file says; None where there is none. While another puts one in its place there is none for a
        moment, and one that was ended then has left the old one aside.
        """
        if not (self.path / name).exists() and self._old(name).exists():
            with suppress(OSError), _locked(self.path):  # a store that cannot be written has none
                self._take_up(name)
        return _read(self.path / name / FILE)

    def _take_up(self, name: str) -> None:
        if not (self.path / name).exists() and self._old(name).exists():
            self._old(name).rename(self.path / name)

    def _old(self, name: str) -> Path:
        return self.path / f".{name}{OLD}"

    def __str__(self) -> str:
        return str(self.path)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder itself is locked: nothing is left in it, and the kernel lets go when the process ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks: only the rename keeps a second one out
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def store_at(place: str | None) -> Store:
    """`git:BRANCH`, or a folder; None: the default one. Raises UsageError and MissingError."""
    if place is not None and place.startswith("git:"):
        return GitStore(place.removeprefix("git:"), FILE)
    return FolderStore(Path(place) if place else DEFAULT_FOLDER)
