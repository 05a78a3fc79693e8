"""Where the GGUF file is taken from, and entries that name none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.catalog.models import EngineChoice, Model
from harness.engines.base import Place
from harness.engines.llamacpp.source import options_for
from harness.errors import UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HERE, INSIDE = Place("127.0.0.1", 8123), Place("0.0.0.0", 8080, container=True)
HUB = Model("chat", "org/Chat-GGUF", file="sub/chat-Q4_K_M.gguf", engine=EngineChoice("llamacpp"))


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No address or cache of the user's own."""
    for name in ("HF_ENDPOINT", "MODEL_ENDPOINT", "LLAMA_CACHE"):
        monkeypatch.delenv(name, raising=False)


def test_file_of_a_repo() -> None:
    """Without a commit llama.cpp takes the newest itself."""
    assert options_for(HUB, INSIDE, None, {}) == {"--hf-repo": "org/Chat-GGUF", "--hf-file": "sub/chat-Q4_K_M.gguf"}


@pytest.mark.parametrize("model", [HUB, replace(HUB, revision=COMMIT)])
def test_file_of_a_commit_has_an_address_and_a_place_of_its_own(model: Model) -> None:
    """Two commits or repos with files of one name never share one in the cache."""
    assert options_for(model, INSIDE, COMMIT, {}) == {
        "--model-url": f"https://huggingface.co/org/Chat-GGUF/resolve/{COMMIT}/sub/chat-Q4_K_M.gguf",
        "--model": f"/root/.cache/huggingface/hub/gguf/org--Chat-GGUF/{COMMIT}/sub/chat-Q4_K_M.gguf",
    }


def test_place_of_a_pinned_file_on_this_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Under llama.cpp's own cache, which the user or the entry may have moved."""
    monkeypatch.setenv("HOME", str(tmp_path))
    ending = f"gguf/org--Chat-GGUF/{COMMIT}/sub/chat-Q4_K_M.gguf"
    assert options_for(HUB, HERE, COMMIT, {})["--model"] == f"{tmp_path}/.cache/llama.cpp/{ending}"
    monkeypatch.setenv("LLAMA_CACHE", "/fast")
    assert options_for(HUB, HERE, COMMIT, {})["--model"] == f"/fast/{ending}"
    assert options_for(HUB, HERE, COMMIT, {"LLAMA_CACHE": "/own"})["--model"] == f"/own/{ending}"


def test_another_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that llama.cpp would ask: the entry's, and of this host's processes the user's."""
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror:1/")
    assert str(options_for(HUB, HERE, COMMIT, {})["--model-url"]).startswith("http://mirror:1/org/")
    assert str(options_for(HUB, INSIDE, COMMIT, {})["--model-url"]).startswith("https://huggingface.co/org/")
    entry = {"HF_ENDPOINT": "http://entry:2"}
    assert str(options_for(HUB, HERE, COMMIT, entry)["--model-url"]).startswith("http://entry:2/org/")


def test_repo_that_is_known_to_hold_gguf_may_stand_alone() -> None:
    """llama.cpp chooses the file; a revision could not be kept then."""
    alone = replace(HUB, file=None)
    assert options_for(alone, INSIDE, COMMIT, {}) == {"--hf-repo": "org/Chat-GGUF"}
    with pytest.raises(UsageError, match=r"file: NAME\.gguf"):
        options_for(replace(alone, revision=COMMIT), INSIDE, None, {})


@pytest.mark.parametrize("path", ["/models/chat/chat.gguf", None])
def test_file_of_this_host(path: str | None) -> None:
    """As the engine sees it: in a container, or where it is."""
    model = replace(HUB, repo="/srv/chat.gguf", file=None)
    assert options_for(model, replace(INSIDE, model_path=path), None, {}) == {"--model": path or "/srv/chat.gguf"}


def test_folder_of_this_host_with_a_file() -> None:
    """`file` is looked for in it."""
    model = replace(HUB, repo="/srv/chat", file="q4/chat.gguf")
    place = replace(INSIDE, model_path="/models/chat")
    assert options_for(model, place, None, {}) == {"--model": "/models/chat/q4/chat.gguf"}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"repo": "Qwen/Qwen2.5-7B-Instruct", "file": None}, "not known to hold GGUF"),
        ({"repo": "Qwen/Qwen2.5-7B-Instruct", "file": "model.safetensors"}, "model.safetensors is none"),
        ({"repo": "/srv/chat", "file": None}, "is a folder"),
        ({"repo": "/srv/chat.gguf", "file": "chat.gguf"}, "both repo and file"),
    ],
)
def test_entry_without_a_gguf_file(keys: dict[str, str | None], said: str) -> None:
    """One line that says so, with the entry's name and what to write."""
    with pytest.raises(UsageError, match=said) as refused:
        options_for(replace(HUB, **keys), HERE, None, {})  # type: ignore[arg-type]
    assert refused.value.where == "chat"
    assert refused.value.advice
