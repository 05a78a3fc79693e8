"""Finds a file of a data set on the Hugging Face Hub, pins its commit, and fetches it into the Hub's own cache.

Without a network, or with HF_HUB_OFFLINE, what the cache holds is taken, and said so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.catalog.hub import Unreachable, cached_folder, download, file_names
from harness.errors import UsageError

_NAME = re.compile(r"(?P<repo>[^@:\s]+)(?:@(?P<revision>[^:\s]+))?(?::(?P<file>\S.*))?")
_READABLE = (".jsonl", ".json", ".csv", ".parquet")
_PACKED = (".gz", ".zst")
_SHOWN = 8


@dataclass(frozen=True)
class HubFile:
    """A file of a data set. revision: the commit. path: where it lies on this machine. cached: nobody was asked."""

    repo: str
    file: str
    revision: str
    path: Path
    cached: bool = False

    @property
    def name(self) -> str:
        return f"{self.repo}:{self.file}"

    def as_dict(self) -> dict[str, str]:
        """For the manifest."""
        return {"repo": self.repo, "file": self.file, "revision": self.revision}


def fetch_dataset(text: str, say: Callable[[str], None], *, endpoint: str | None = None) -> HubFile:
    """The file that `ORGANISATION/NAME[@REVISION][:FILE]` names; without a file, the only one that can be read.

    Raises UsageError: no such data set, revision or file, or several files to choose from. MissingError: gated without
    an accepted licence or token, or neither the Hub nor the cache has it.
    """
    match = _NAME.fullmatch(text.strip())
    if match is None:
        raise UsageError("no data set's name", where=f"--dataset {text}", advice="Write ORGANISATION/NAME:FILE.")
    repo, revision, wanted = match["repo"], match["revision"], match["file"]
    try:
        commit, names = file_names(repo, revision, endpoint=endpoint)
        file = _choose(repo, wanted, names)
        say(f"fetching {repo}:{file} at {commit[:12]}")
        path, commit = download(repo, file, revision, endpoint=endpoint)
        return HubFile(repo, file, commit, path)
    except Unreachable as unreachable:
        return _from_cache(repo, revision, wanted, say, unreachable)


def _from_cache(
    repo: str, revision: str | None, wanted: str | None, say: Callable[[str], None], unreachable: Unreachable
) -> HubFile:
    folder = cached_folder(repo, revision)
    if folder is None:
        raise unreachable
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    try:
        file = _choose(repo, wanted, names)
    except UsageError as error:
        raise unreachable from error  # not in the cache, which says nothing of the Hub
    say(f"{repo}:{file} from the cache, at {folder.name[:12]}: {unreachable.found}")
    return HubFile(repo, file, folder.name, folder / file, cached=True)


def _choose(repo: str, wanted: str | None, names: Iterable[str]) -> str:
    names = list(names)
    if wanted is not None:
        if wanted in names:
            return wanted
        raise UsageError(f"has no file {wanted!r}", where=repo, advice=f"It has {_listed(_readable(names) or names)}.")
    readable = _readable(names)
    if len(readable) == 1:
        return readable[0]
    if not readable:
        found = f"has no file that can be read ({', '.join(_READABLE)})"
        raise UsageError(found, where=repo, advice=f"It has {_listed(names)}." if names else None)
    advice = f"Name one: --dataset {repo}:{readable[0]}"
    raise UsageError(f"has {len(readable)} files: {_listed(readable)}", where=repo, advice=advice)


def _readable(names: Iterable[str]) -> list[str]:
    return [name for name in names if _suffix(name) in _READABLE]


def _suffix(name: str) -> str:
    path = Path(name)
    return (path.with_suffix("") if path.suffix in _PACKED else path).suffix


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
