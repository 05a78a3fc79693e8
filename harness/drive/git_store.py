"""Baselines in a branch of the repository, one folder each, written without touching the working tree or the index.

Objects are made by git's own plumbing, and the branch moves in one step from the commit that was read
(`update-ref NEW OLD`): of two writers one is refused by git, and makes its commit anew on what the other left.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import MissingError, UsageError
from harness.stack.state import subfolder

TRIES = 20  # of a writer whose branch others move meanwhile
_NONE = "0" * 40


class GitStore:
    """branch: without refs/heads/. file: what makes a folder a baseline."""

    def __init__(self, branch: str, file: str) -> None:
        self.branch, self.file = branch, file
        if _git(["check-ref-format", "--branch", branch], check=False).returncode or branch.startswith("-"):
            raise UsageError(f"not a name of a branch: {branch!r}", where="--store")
        if _git(["rev-parse", "--git-dir"], check=False).returncode:
            raise UsageError("not in a git repository", where=f"--store git:{branch}", advice="Change into one.")

    def names(self) -> list[str]:
        return [name for name in self._entries(self._tip()) if self._tree(name, self.file)]

    def folder(self, name: str) -> Path | None:
        """A copy in the state folder, by the id of what it holds: it never changes, and is made once."""
        tree = self._tree(name)
        if tree is None:
            return None
        place = subfolder("baselines") / tree / name
        if not place.exists():
            beside = place.with_name(f".{name}.{os.getpid()}")
            for path in _text(_git(["ls-tree", "-r", "-z", "--name-only", tree])).split("\0"):
                if path and ".." not in Path(path).parts:
                    (beside / path).parent.mkdir(parents=True, exist_ok=True)
                    (beside / path).write_bytes(_git(["cat-file", "blob", f"{tree}:{path}"]).stdout)
            try:
                beside.rename(place)
            except OSError:
                if not place.exists():
                    raise
                shutil.rmtree(beside)  # another process made the same one meanwhile
        return place

    def put(self, name: str, fresh: Path, before: Path | None) -> str | None:
        self._require_not_checked_out()
        tree = self._write(fresh)
        was = None if before is None else before.parent.name
        for _ in range(TRIES):
            local = self._local()
            tip = local or self._remote()
            entries = self._entries(tip)
            if entries.get(name, ("", "", None))[2] != was:
                raise UsageError(f"{name} was changed by another meanwhile", where=str(self), advice="Run it again.")
            root = self._make_tree(
                [*(entry for key, entry in entries.items() if key != name), ("040000", "tree", tree, name)]
            )
            parent = [] if tip is None else ["-p", tip]
            commit = _text(_git(["commit-tree", root, *parent, "-m", f"Baseline {name}"], identity=True))
            moved = _git(["update-ref", f"refs/heads/{self.branch}", commit, local or _NONE], check=False)
            if moved.returncode == 0:
                return f"kept on branch {self.branch}; to share it: git push origin {self.branch}"
        raise UsageError("others write to the branch without a pause", where=str(self), advice="Run it again.")

    def __str__(self) -> str:
        return f"git:{self.branch}"

    def _local(self) -> str | None:
        return _commit(f"refs/heads/{self.branch}")

    def _tip(self) -> str | None:
        """Of the branch; where there is none yet, that of the remote's, as a clone leaves it."""
        return self._local() or self._remote()

    def _remote(self) -> str | None:
        return _commit(f"refs/remotes/origin/{self.branch}")

    def _entries(self, tip: str | None) -> dict[str, tuple[str, str, str, str]]:
        """The entries at the top of the branch: name -> mode, kind, id, name."""
        if tip is None:
            return {}
        found = {}
        for line in _text(_git(["ls-tree", "-z", tip])).split("\0"):
            if line:
                about, _, name = line.partition("\t")
                mode, kind, identity = about.split(" ")
                found[name] = (mode, kind, identity, name)
        return found

    def _tree(self, *path: str) -> str | None:
        tip = self._tip()
        found = _git(["rev-parse", "--verify", "--quiet", f"{tip}:{'/'.join(path)}"], check=False)
        return None if tip is None or found.returncode else _text(found)

    def _write(self, folder: Path) -> str:
        """Its files as objects; the id of the tree."""
        entries = []
        for each in sorted(folder.iterdir()):
            if each.is_dir():
                entries.append(("040000", "tree", self._write(each), each.name))
            else:
                blob = _text(_git(["hash-object", "-w", "--no-filters", "--", str(each.resolve())]))
                entries.append(("100644", "blob", blob, each.name))
        return self._make_tree(entries)

    @staticmethod
    def _make_tree(entries: Sequence[tuple[str, str, str, str]]) -> str:
        lines = "".join(f"{mode} {kind} {identity}\t{name}\0" for mode, kind, identity, name in entries)
        return _text(_git(["mktree", "-z"], given=lines.encode()))

    def _require_not_checked_out(self) -> None:
        """Git would take the new commit for changes that were undone in that working tree."""
        lines = _text(_git(["worktree", "list", "--porcelain"])).splitlines()
        if f"branch refs/heads/{self.branch}" in lines:
            advice = "Name a branch that holds baselines and nothing else."
            raise UsageError(f"branch {self.branch} is checked out", where=str(self), advice=advice)


def _commit(reference: str) -> str | None:
    found = _git(["rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}"], check=False)
    return None if found.returncode else _text(found)


def _git(
    arguments: Sequence[str], *, check: bool = True, given: bytes = b"", identity: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Raises UsageError with git's own line, and MissingError where there is no git."""
    environment: Mapping[str, str] = {**os.environ, **(_identity() if identity else {}), "LC_ALL": "C"}
    try:
        done = subprocess.run(["git", *arguments], input=given, capture_output=True, env=environment, check=False)
    except FileNotFoundError:
        raise MissingError("git is not installed", advice="Install it, or name a folder with --store.") from None
    if check and done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UsageError(f"git {arguments[0]}: {said[-1] if said else f'exit code {done.returncode}'}")
    return done


def _identity() -> Mapping[str, str]:
    """Runners of CI have none; who has one keeps it."""
    if _git(["var", "GIT_COMMITTER_IDENT"], check=False).returncode == 0:
        return {}
    return {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "harness"), ("EMAIL", "harness@localhost"))
    }


def _text(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stdout.decode(errors="replace").strip("\n")
