"""What the Hub or a directory says of a model, by a small Hub that runs here."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.catalog.hub import describe, resolve_revision
from harness.catalog.shapes import weight_bytes
from harness.errors import HarnessError, MissingError, UsageError
from tests.hub import COMMIT, CONFIG, ONE, TOKEN, TWO, running_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Hub; its answers are kept in a cache of the test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running_hub() as address:
        yield address


@pytest.mark.parametrize(
    ("repo", "size", "source"),
    [
        ("org/one", 128, "safetensors headers"),
        ("org/two", 200, "safetensors headers"),
        ("org/bin", 77, "file sizes"),
    ],
)
def test_sizes_are_those_of_the_files_that_are_loaded(repo: str, size: int, source: str, hub: str) -> None:
    """Offsets of all shards in the index; a second copy of the weights does not count."""
    model = describe(repo, endpoint=hub)
    assert (model.weight_bytes, model.size_source) == (size, source)
    assert (model.revision, model.quantize, model.dtype) == (COMMIT, None, "bfloat16")
    assert (model.shape.layers, model.shape.kv_heads, model.shape.context) == (3, 2, 2048)


def test_without_any_weights_config_json_is_reckoned_with(hub: str) -> None:
    """The last resort, and named as such."""
    model = describe("org/bare", endpoint=hub)
    assert model.size_source == "config.json"
    assert model.weight_bytes == weight_bytes(model.shape, None, "bfloat16")


def test_a_quantised_checkpoint_says_how(hub: str) -> None:
    """By its config.json."""
    assert describe("org/awq", endpoint=hub).quantize == "awq"


def test_a_revision_is_resolved_to_its_commit(hub: str) -> None:
    """None and a branch alike."""
    assert resolve_revision("org/one", endpoint=hub) == COMMIT
    assert resolve_revision("org/one", "main", endpoint=hub) == COMMIT


@pytest.mark.parametrize(
    ("repo", "revision", "kind", "message"),
    [
        ("org/none", None, UsageError, "org/none: is not on the Hub, or is private. Check the id"),
        ("org/one", "v9", UsageError, "org/one: has no such revision"),
        ("org/gated", None, MissingError, "org/gated: is gated, and this machine has no token"),
        ("org/broken", None, MissingError, "org/broken: the Hub answered 500"),
        ("org/refused", None, MissingError, "org/refused: the Hub refused the request (403). HF_TOKEN is not valid"),
        ("org/odd", None, UsageError, "org/odd: has no config.json, and harness does not know its shape"),
        ("a/b/c", None, UsageError, "a/b/c: is no Hub id. Write it as ORGANISATION/NAME."),
    ],
)
def test_errors_say_what_to_do_and_never_the_token(
    repo: str, revision: str | None, kind: type[HarnessError], message: str, hub: str
) -> None:
    """Exit 2 for a wrong id, 3 for what this machine lacks."""
    with pytest.raises(kind) as caught:
        describe(repo, revision, endpoint=hub)
    assert str(caught.value).startswith(message)
    assert TOKEN not in str(caught.value)


def test_no_hub_is_what_this_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there: exit 3, with what to check."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingError, match=r"the Hub cannot be reached\. Check the network and HF_ENDPOINT"):
        describe("org/one", endpoint="http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingError, match="HF_HUB_OFFLINE is set, and the Hub is needed"):
        describe("org/one", endpoint="http://127.0.0.1:9")


def fill(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        (folder / name.replace("__", ".").replace("_", "-")).write_bytes(content)
    return folder


def test_a_directory_is_read_without_the_hub(tmp_path: Path) -> None:
    """The headers of its own files; a copy in Mistral's layout does not count."""
    config = json.dumps(CONFIG).encode()
    folder = fill(
        tmp_path, config__json=config, model_1__safetensors=ONE, model_2__safetensors=TWO, consolidated__safetensors=ONE
    )
    model = describe(str(folder))
    assert (model.weight_bytes, model.size_source, model.revision) == (200, "safetensors headers", None)


@pytest.mark.parametrize("content", [b"", b"\x05\0\0\0\0\0\0\0{oop", struct.pack("<Q", 2) + b"[]", b"\xff" * 20])
def test_a_spoilt_weight_file_is_named(content: bytes, tmp_path: Path) -> None:
    """Half a download."""
    fill(tmp_path, config__json=json.dumps(CONFIG).encode(), model__safetensors=content)
    with pytest.raises(UsageError, match=r"model.safetensors: no safetensors file. Download it again."):
        describe(str(tmp_path))


def test_a_directory_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    """Exit 2, and what it should hold."""
    with pytest.raises(UsageError, match="no such directory"):
        describe(str(tmp_path / "none"))
