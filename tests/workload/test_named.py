"""Workloads by name: files of locustfiles/."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.workload.named import find, known


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """locustfiles/ of a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "locustfiles").mkdir()
    return tmp_path / "locustfiles"


def test_unknown_name_is_answered_with_the_nearest(here: Path) -> None:
    """Names of the working directory are among those offered."""
    with pytest.raises(UsageError, match="Did you mean summarise"):
        find("sumarize")
    (here / "haiku.py").touch()
    with pytest.raises(UsageError, match="Did you mean haiku"):
        find("haikus")
    assert known()[0] == "haiku"
    assert {"chat", "code", "summarise"} < set(known())


def test_working_directory_wins(here: Path) -> None:
    """A file of one's own stands for the shipped one of the same name; a path names itself."""
    (here / "chat.py").touch()
    assert find("chat") == Path("locustfiles/chat.py")
    assert find(str(here / "chat.py")) == here / "chat.py"
    with pytest.raises(UsageError, match="no such file"):
        find("locustfiles/cat.py")
