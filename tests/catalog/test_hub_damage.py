"""What a Hub answers, or something else in its place: what it says, or one line that says what is wrong."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness.catalog.hub import describe, file_names, resolve_revision
from harness.errors import HarnessError, MissingError
from tests.hub import COMMIT, ONE, Hub, repositories, running_hub
from tests.mutations import damaged_json

SEED = int(os.environ.get("HARNESS_FUZZ_SEED", "1"))
MANY = int(os.environ.get("HARNESS_FUZZ", "1"))
INFO: dict[str, Any] = {
    "id": "org/one", "sha": COMMIT, "gated": False, "private": False, "cardData": {"license": "mit"}, "tags": ["x"],
    "siblings": [{"rfilename": "config.json", "size": 100}, {"rfilename": "model.safetensors", "size": 300}],
    "createdAt": "2024-01-01T00:00:00.000Z", "safetensors": {"parameters": {"BF16": 3}, "total": 3},
}  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Hub, without a cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with running_hub() as address:
        yield address


def damage(random_: random.Random) -> None:
    """One of its answers: what it says of the repository, a header of weights, a file beside them."""
    Hub.repos, Hub.infos = repositories(), {}
    files = Hub.repos["org/chatty"]
    assert isinstance(files, dict)
    kind = random_.choice(("info", "info", "weights", "config.json", "tokenizer_config.json"))
    if kind == "info":
        Hub.infos = {"org/one": damaged_json(json.dumps(INFO).encode(), random_)}
        return
    if kind == "weights":
        (length,) = struct.unpack_from("<Q", ONE)
        header = damaged_json(ONE[8 : 8 + length], random_)
        told = random_.choice((len(header), len(header), len(header), 2**63 - 1, 0, len(header) + 5))
        files = {**files, "model.safetensors": struct.pack("<Q", told) + header + bytes(200)}
    else:
        files = {**files, kind: damaged_json(files[kind], random_)}
    Hub.repos["org/one"] = files


def test_no_answer_of_the_hub_is_a_traceback(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model, its commit, and the files of a data set."""
    random_ = random.Random(f"{SEED} hub")
    for number in range(4 * MANY):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / f"cache-{number}"))
        damage(random_)
        with suppress(HarnessError):
            describe("org/one", endpoint=hub)
        with suppress(HarnessError):
            resolve_revision("org/one", endpoint=hub)
        with suppress(HarnessError):
            file_names("org/one", None, endpoint=hub)


@pytest.mark.parametrize(
    "answer",
    [[], 3, {"siblings": 5}, {"id": 1.5}, {**INFO, "siblings": ["x"]}, {**INFO, "sha": [1]},
     {**INFO, "siblings": [{"rfilename": 5, "size": 1}]}, {**INFO, "siblings": [{"rfilename": "a", "size": "x"}]}],
)  # fmt: skip
def test_an_answer_that_describes_nothing_is_said(answer: object, hub: str) -> None:
    """With where to look."""
    Hub.infos = {"org/one": json.dumps(answer).encode()}
    with pytest.raises(MissingError, match=r"describes no repository.*HF_ENDPOINT"):
        describe("org/one", endpoint=hub)


def test_an_answer_nested_too_deep_is_said(hub: str) -> None:
    """Whose parser gives up otherwise than on what is no JSON."""
    Hub.infos = {"org/one": b"[" * 100_000}
    with pytest.raises(MissingError):
        describe("org/one", endpoint=hub)
