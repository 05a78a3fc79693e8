"""A data set's file from the Hub: pinned to a commit, kept in the Hub's cache, and taken from there offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.catalog.hub_dataset import fetch_dataset
from harness.errors import HarnessError, MissingError, UsageError
from tests.hub import COMMIT, TOKEN, TRACE, running_hub

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path) -> Iterator[str]:
    with running_hub() as address:
        yield address


def quiet(_: str) -> None:
    """Says nothing."""


def keep(cache: Path, repo: str, commit: str, **files: bytes) -> None:
    """A data set as the Hub's own cache keeps it, as of its main branch."""
    folder = cache / f"datasets--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    for name, content in files.items():
        path = folder / "snapshots" / commit / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_the_only_file_that_can_be_read_is_taken_at_its_commit(hub: str) -> None:
    """Whatever branch was meant; the manifest gets the commit."""
    for name in ("org/data", "org/data:data/trace.jsonl.gz", "org/data@main", f"org/data@{COMMIT}:data/trace.jsonl.gz"):
        said: list[str] = []
        file = fetch_dataset(name, said.append, endpoint=hub)
        assert file.path.read_bytes() == TRACE
        assert file.as_dict() == {"repo": "org/data", "file": "data/trace.jsonl.gz", "revision": COMMIT}
        assert file.name == "org/data:data/trace.jsonl.gz"
        assert not file.cached
        assert said == [f"fetching org/data:data/trace.jsonl.gz at {COMMIT[:12]}"]


def test_what_was_fetched_is_there_without_a_network(hub: str, cache: Path) -> None:
    """And is said to come from the cache, with its commit."""
    fetched = fetch_dataset("org/data", quiet, endpoint=hub)
    said: list[str] = []
    again = fetch_dataset("org/data", said.append, endpoint=NOBODY)
    assert (again.path.read_bytes(), again.revision, again.cached) == (TRACE, fetched.revision, True)
    assert said == [f"org/data:data/trace.jsonl.gz from the cache, at {COMMIT[:12]}: the Hub cannot be reached"]


def test_offline_asks_nobody(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_OFFLINE: the cache's main branch, or the commit that is named."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    keep(cache, "org/kept", "a" * 40, old__jsonl=b"1")
    keep(cache, "org/kept", "b" * 40, new__jsonl=b"2", README__md=b"x")
    assert fetch_dataset("org/kept", quiet).path.read_bytes() == b"2"
    assert fetch_dataset(f"org/kept@{'a' * 40}", quiet).path.read_bytes() == b"1"
    with pytest.raises(MissingError, match="org/kept: HF_HUB_OFFLINE is set, and the Hub is needed"):
        fetch_dataset("org/kept:other.jsonl", quiet)
    with pytest.raises(MissingError, match="HF_HUB_OFFLINE is set"):
        fetch_dataset("org/none", quiet)
    (cache / "datasets--org--kept" / "refs" / "main").unlink()
    with pytest.raises(MissingError, match="HF_HUB_OFFLINE is set"):
        fetch_dataset("org/kept", quiet)  # two commits, and nothing says which


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (
            "org/none",
            UsageError,
            "org/none: is not on the Hub, or is private. Check the id; for a private data set set HF",
        ),
        ("org/data@v9", UsageError, "org/data: has no such revision"),
        ("org/data:nothing.csv", UsageError, "org/data: has no file 'nothing.csv'. It has data/trace.jsonl.gz."),
        ("org/odd", UsageError, "org/odd: has no file that can be read (.jsonl, .json, .csv, .parquet). It has README"),
        ("org/many", UsageError, "org/many: has 2 files: one.jsonl, two.csv. Name one: --dataset org/many:one.jsonl"),
        ("org/gated", MissingError, "org/gated: is gated, and this machine has no token"),
        ("org/broken", MissingError, "org/broken: the Hub answered 500"),
        ("a/b/c", UsageError, "a/b/c: is not a Hub id. Write it as ORGANISATION/NAME."),
        ("a b", UsageError, "--dataset a b: no data set's name. Write ORGANISATION/NAME:FILE."),
        ("", UsageError, "--dataset : no data set's name"),
    ],
)
def test_what_is_wrong_is_told_and_never_the_token(name: str, kind: type[HarnessError], message: str, hub: str) -> None:
    """Exit 2 for a wrong name, 3 for what this machine lacks."""
    with pytest.raises(kind) as caught:
        fetch_dataset(name, quiet, endpoint=hub)
    assert str(caught.value).startswith(message)
    assert TOKEN not in str(caught.value)


def test_without_network_and_cache_the_hub_is_what_lacks(cache: Path) -> None:
    """Exit 3, with what to check."""
    with pytest.raises(
        MissingError, match=r"the Hub cannot be reached\. Check the network and HF_ENDPOINT, or name a file"
    ):
        fetch_dataset("org/data", quiet, endpoint=NOBODY)
