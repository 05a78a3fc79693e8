"""Baselines in a branch: the same as in a folder, without a trace in the working tree, and with writers at once."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from harness.commands import baseline
from harness.commands.compare import compare_with_baseline
from harness.drive import git_store
from harness.drive.git_store import GitStore
from harness.errors import UsageError
from tests.commands.test_compare import BASE, NEW, repeats

STORE = "git:perf/baselines"


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With one commit, a staged change and one that is not; nobody's name is set."""
    for name in [each for each in os.environ if each.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    git("init", "-q", "-b", "main")
    Path("a.txt").write_text("one")
    git("add", "a.txt")
    git("-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "first")
    Path("b.txt").write_text("staged")
    git("add", "b.txt")
    Path("a.txt").write_text("changed")
    return tmp_path


def test_save_list_show_promote_and_check_work_on_a_branch(repository: Path) -> None:
    """HEAD, index and working tree are as before; each step is a commit on the one before; nothing is pushed."""
    before = git("status", "--porcelain"), git("rev-parse", "HEAD"), git("ls-files", "-s")
    kept = baseline.save("chat", [repeats(repository / "base", BASE)], STORE)
    assert kept.as_text().endswith("git push origin perf/baselines")
    assert [each.name for each in baseline.listed(STORE).found] == ["chat"]
    assert baseline.show("chat", STORE).baseline.key["model"] == "demo"
    assert compare_with_baseline("chat", [repeats(repository / "new", NEW)], STORE).exit_code == 0
    slow = repeats(repository / "slow", NEW, gap=0.04)
    assert compare_with_baseline("chat", [slow], STORE).exit_code == 1
    baseline.promote("chat", [slow], "a safer kernel", STORE)
    assert compare_with_baseline("chat", [repeats(repository / "same", (6, 7, 8), gap=0.04)], STORE).exit_code == 0
    assert (git("status", "--porcelain"), git("rev-parse", "HEAD"), git("ls-files", "-s")) == before
    assert git("log", "--format=%s", "perf/baselines").splitlines() == ["Baseline chat", "Baseline chat"]
    assert git("ls-tree", "--name-only", "perf/baselines:chat").splitlines()[0] == "baseline.json"


def test_writers_at_once_lose_nothing(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four names from four threads, each having read the same commit before any of them writes."""
    runs, names = repeats(repository / "base", BASE), ["a", "b", "c", "d"]
    together, write = threading.Barrier(len(names), timeout=60), GitStore._write
    monkeypatch.setattr(GitStore, "_write", lambda self, folder: _wait(together, write(self, folder), folder))
    failures: list[Exception] = []

    def save(name: str) -> None:
        try:
            baseline.save(name, [runs], STORE)
        except UsageError as error:
            failures.append(error)

    threads = [threading.Thread(target=save, args=(name,)) for name in names]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failures
    assert [each.name for each in baseline.listed(STORE).found] == names
    assert len(git("log", "--format=%s", "perf/baselines").splitlines()) == 4


def _wait(together: threading.Barrier, tree: str, folder: Path) -> str:
    if (folder / "baseline.json").exists():
        together.wait()
    return tree


def test_of_two_that_promote_the_same_one_is_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other wrote in between is not replaced unseen."""
    base, new = repeats(repository / "base", BASE), repeats(repository / "new", NEW)
    baseline.save("chat", [base], STORE)
    write = GitStore._write
    once = [True]

    def meanwhile(self: GitStore, folder: Path) -> str:
        if once and (folder / "baseline.json").exists():
            once.clear()
            baseline.promote("chat", [new], "first", STORE)
        return write(self, folder)

    monkeypatch.setattr(GitStore, "_write", meanwhile)
    with pytest.raises(UsageError, match="changed by another meanwhile"):
        baseline.promote("chat", [new], "second", STORE)
    assert baseline.show("chat", STORE).baseline.saved[-1].reason == "first"


def test_the_remote_s_branch_is_where_a_clone_begins(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh clone reads what the remote has, and goes on from there."""
    baseline.save("chat", [repeats(repository / "base", BASE)], STORE)
    git("clone", "-q", str(repository / "repository"), str(repository / "clone"))
    monkeypatch.chdir(repository / "clone")
    assert [each.name for each in baseline.listed(STORE).found] == ["chat"]
    baseline.save("other", [repeats(repository / "new", NEW)], STORE)
    assert [each.name for each in baseline.listed(STORE).found] == ["chat", "other"]
    assert len(git("log", "--format=%s", "perf/baselines").splitlines()) == 2


def test_what_cannot_be_a_store_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch that is checked out, no name of a branch, no repository, an empty branch."""
    runs = repeats(repository / "base", BASE)
    with pytest.raises(UsageError, match="main is checked out"):
        baseline.save("chat", [runs], "git:main")
    with pytest.raises(UsageError, match="not a name of a branch"):
        baseline.save("chat", [runs], "git:a..b")
    with pytest.raises(UsageError, match="Known: none"):
        baseline.show("chat", STORE)
    (repository / "plain").mkdir()
    monkeypatch.chdir(repository / "plain")
    with pytest.raises(UsageError, match="not in a git repository"):
        baseline.listed(STORE)


def test_two_readers_at_once_share_one_copy(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has finished the copy while this one writes its own."""
    baseline.save("chat", [repeats(repository / "base", BASE)], STORE)
    store, plain = GitStore("perf/baselines", "baseline.json"), git_store._git
    others: list[Path | None] = []

    def meanwhile(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        if arguments[0] == "cat-file" and not others:
            others.append(None)
            with monkeypatch.context() as process:
                process.setattr(os, "getpid", lambda: 1)
                others[0] = store.folder("chat")
        return plain(arguments, **options)

    monkeypatch.setattr(git_store, "_git", meanwhile)
    found = store.folder("chat")
    assert found is not None
    assert others == [found]
    assert [each.name for each in found.parent.iterdir()] == ["chat"]
