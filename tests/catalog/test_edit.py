"""Writing into models.yaml: the limits or the entry, and not one character besides."""

from __future__ import annotations

import difflib
import stat
from pathlib import Path

import pytest

from harness.catalog.models import add_entry, load_catalogue, set_keys, write_limits
from harness.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
FOUND = {"max_input_tokens": 100, "max_total_tokens": 200, "max_batch_prefill_tokens": 150}
WHY = {"max_input_tokens": "measured", "max_total_tokens": "engine log"}


def write(path: Path, entry: str, name: str = "m", before: str = "models:\n", after: str = "") -> str:
    """What `write_limits` makes of an entry, which is given with its indentation."""
    path.write_text(before + entry + after, encoding="utf-8", newline="")
    write_limits(path, name, FOUND, WHY)
    changed = path.read_bytes().decode()
    assert changed.startswith(before)
    assert changed.endswith(after)
    return changed[len(before) : len(changed) - len(after)]


NEXT = "\n  # the next one\n  other:\n    repo: c/d\n# the end\n"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        # No limits yet: a block behind the last key, before the comment of the next entry.
        (
            "  m:\n    repo: a/b   # here\n",
            "  m:\n    repo: a/b   # here\n    limits:\n      max_input_tokens: 100  # probe: measured\n"
            "      max_total_tokens: 200  # probe: engine log\n      max_batch_prefill_tokens: 150\n",
        ),
        # Some there, under the older name, with comments of people and of an earlier probe.
        (
            "  m:\n    limits:\n        max_input_length: 1   # ours\n        # why\n"
            "        max_total_tokens: 2 # probe: old\n        max_concurrent_requests: 9\n    repo: a/b\n",
            "  m:\n    limits:\n        max_input_length: 100   # ours\n        # why\n"
            "        max_total_tokens: 200  # probe: engine log\n        max_concurrent_requests: 9\n"
            "        max_batch_prefill_tokens: 150\n    repo: a/b\n",
        ),
        # In one line: it becomes a block, and the comment behind it stays in its line.
        (
            "  m:\n    limits: {max_input_length: 1, max_batch_size: 3}  # ours\n    repo: a/b\n",
            "  m:\n    limits:  # ours\n      max_input_length: 100  # probe: measured\n      max_batch_size: 3\n"
            "      max_total_tokens: 200  # probe: engine log\n      max_batch_prefill_tokens: 150\n    repo: a/b\n",
        ),
        (
            "  m:\n    limits: {max_input_tokens: 1,\n             max_batch_size: 3}\n    repo: a/b\n",
            "  m:\n    limits: {max_input_tokens: 100, max_batch_size: 3, max_total_tokens: 200, "
            "max_batch_prefill_tokens: 150}\n    repo: a/b\n",
        ),
        (
            "  m:\n    limits:  # to be found\n    repo: a/b\n",
            "  m:\n    limits:  # to be found\n      max_input_tokens: 100  # probe: measured\n"
            "      max_total_tokens: 200  # probe: engine log\n      max_batch_prefill_tokens: 150\n    repo: a/b\n",
        ),
        # The whole entry in one line.
        (
            "  m: {repo: a/b, gpu: L4}  # ours\n",
            "  m: {repo: a/b, gpu: L4, limits: {max_input_tokens: 100, max_total_tokens: 200, "
            "max_batch_prefill_tokens: 150}}  # ours\n",
        ),
        (
            "  m: {limits: {max_batch_size: 3}, repo: a/b, }\n",
            "  m: {limits: {max_batch_size: 3, max_input_tokens: 100, max_total_tokens: 200, "
            "max_batch_prefill_tokens: 150}, repo: a/b, }\n",
        ),
        # A merged key is somebody else's, and an own one would hide it.
        (
            "  m:\n    <<: *some\n    repo: a/b\n",
            "  m:\n    <<: *some\n    repo: a/b\n    limits:\n      max_concurrent_requests: 7\n"
            "      max_input_tokens: 100  # probe: measured\n"
            "      max_total_tokens: 200  # probe: engine log\n      max_batch_prefill_tokens: 150\n",
        ),
    ],
)
def test_limits_are_written_where_the_entry_has_or_lacks_them(entry: str, expected: str, tmp_path: Path) -> None:
    """Comments, order, blanks and everything behind the entry stay."""
    before = "x-some: &some {limits: {max_concurrent_requests: 7}}\nmodels:\n"
    assert write(tmp_path / "m.yaml", entry, before=before, after=NEXT) == expected


def test_writing_twice_changes_only_the_numbers(tmp_path: Path) -> None:
    """A second probe replaces what the first one wrote, its reasons included."""
    once = write(tmp_path / "m.yaml", "  m:\n    repo: a/b\n")
    write_limits(tmp_path / "m.yaml", "m", {"max_input_tokens": 101}, {"max_input_tokens": "again"})
    assert (tmp_path / "m.yaml").read_text() == "models:\n" + once.replace(
        "100  # probe: measured", "101  # probe: again"
    )


def test_line_ends_mode_and_links_are_kept(tmp_path: Path) -> None:
    """A CRLF file stays one, its permissions stay, and a link still points to the file that was changed."""
    real = tmp_path / "real.yaml"
    real.write_bytes(b"models:\r\n  m:\r\n    repo: a/b\r\n")
    real.chmod(0o640)
    (tmp_path / "m.yaml").symlink_to(real)
    write_limits(tmp_path / "m.yaml", "m", {"max_batch_size": 4})
    assert real.read_bytes() == b"models:\r\n  m:\r\n    repo: a/b\r\n    limits:\r\n      max_batch_size: 4\r\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert (tmp_path / "m.yaml").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", list(load_catalogue(ROOT / "models.yaml").models))
def test_every_entry_of_the_shipped_catalogue_can_be_written(name: str, tmp_path: Path) -> None:
    """Only lines of the entry's own limits change."""
    path = tmp_path / "models.yaml"
    text = (ROOT / "models.yaml").read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    found = {"max_input_tokens": 5000, "max_total_tokens": 6000, "max_batch_prefill_tokens": 1500}
    write_limits(path, name, found, WHY)
    changed = [
        line
        for line in difflib.ndiff(text.splitlines(), path.read_text(encoding="utf-8").splitlines())
        if line[:1] in "+-"
    ]
    assert all("limits:" in line or "max_" in line for line in changed)
    limits = load_catalogue(path).models[name].limits
    assert (limits.max_input_tokens, limits.max_total_tokens, limits.max_batch_prefill_tokens) == tuple(found.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models:\n  m:\n    repo: a/b\n    context_length: 150\n", "expected at most context_length"),
        ("models:\n  m: &x\n    repo: a/b\n  n: *x\n", "shared with another entry through an anchor"),
        (
            "models:\n  n:\n    repo: a/b\n    limits: &x\n      max_batch_size: 1\n"
            "  m:\n    repo: a/b\n    limits: *x\n",
            "shared",
        ),
        ("models:\n  n:\n    repo: a/b\n", "unknown model 'm'"),
    ],
)
def test_what_cannot_be_written_is_refused_and_the_file_stays(text: str, message: str, tmp_path: Path) -> None:
    """Better no change than a spoilt file."""
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        write_limits(path, "m", FOUND)
    assert path.read_text() == text


KEYS = {"repo": "a/b", "revision": "1234567", "gpu": "L4", "weight_bytes": 12, "trust_remote_code": True}
ADDED = (
    '  new:\n    repo: a/b\n    revision: "1234567"\n    gpu: L4\n    weight_bytes: 12\n    trust_remote_code: true\n'
)


def test_an_entry_is_added_behind_the_last_one(tmp_path: Path) -> None:
    """Other sections stay behind it; text that YAML would take for a number is quoted."""
    path = tmp_path / "m.yaml"
    path.write_text("models:\n  m:\n    repo: a/b  # x\n\n# the defaults\ndefaults:\n  gpus: 1\n")
    model = add_entry(path, "new", KEYS)
    assert (model.name, model.revision, model.weight_bytes) == ("new", "1234567", 12)
    assert path.read_text() == f"models:\n  m:\n    repo: a/b  # x\n\n{ADDED}\n# the defaults\ndefaults:\n  gpus: 1\n"


def test_an_entry_makes_the_file_where_there_is_none(tmp_path: Path) -> None:
    """The first entry of a new catalogue."""
    add_entry(tmp_path / "m.yaml", "new", KEYS)
    assert (tmp_path / "m.yaml").read_text() == f"models:\n{ADDED}"


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("models:\n  m: {repo: a/b}\n", "m", "there is an entry 'm' already"),
        ("models: {m: {repo: a/b}}\n", "n", "not written as a block"),
        ("models:\n  m: {repo: a/b}\n", "Bad Name", "expected lower-case letters"),
    ],
)
def test_an_entry_that_cannot_be_added_leaves_the_file(text: str, name: str, message: str, tmp_path: Path) -> None:
    """A name that is taken or unfit, or a file in one line."""
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        add_entry(path, name, KEYS)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("  m:\n    repo: a/b  # mine\n    gpu: L4\n", "  m:\n    repo: a/b  # mine\n    revision: c0\n    gpu: L4\n"),
        ("  m:\n    gpu: L4\n    repo: a/b", "  m:\n    gpu: L4\n    repo: a/b\n    revision: c0"),
        ("  m: {repo: a/b, gpu: L4}\n", "  m: {repo: a/b, revision: c0, gpu: L4}\n"),
        ("  m: {repo: a/b, revision: old}  # x\n", "  m: {repo: a/b, revision: c0}  # x\n"),
        ("  m:\r\n    repo: a/b\r\n", "  m:\r\n    repo: a/b\r\n    revision: c0\r\n"),
    ],
)
def test_a_key_that_is_new_stands_below_the_repo(entry: str, expected: str, tmp_path: Path) -> None:
    """Comments, order, line ends and flow style stay."""
    path = tmp_path / "models.yaml"
    path.write_text("models:\n" + entry, encoding="utf-8", newline="")
    set_keys(path, "m", {"revision": "c0"})
    assert path.read_bytes().decode() == "models:\n" + expected
    assert load_catalogue(path).models["m"].revision == "c0"


def test_a_repo_by_an_anchor_gets_no_key(tmp_path: Path) -> None:
    """It would stand in an entry that does not say it."""
    text = "x-base: &base {repo: a/b}\nmodels:\n  m:\n    <<: *base\n    gpu: L4\n"
    path = tmp_path / "models.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"models/m: says it by an anchor.*Write by hand: \{revision: c0\}"):
        set_keys(path, "m", {"revision": "c0"})
    assert path.read_text(encoding="utf-8") == text
