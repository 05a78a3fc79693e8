"""What the Hub or a directory says of a model, by a small Hub that runs here."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.catalog.hub import describe, resolve_revision, token_is_accepted
from harness.catalog.shapes import weight_bytes
from harness.catalog.text_files import TextFiles
from harness.errors import HarnessError, MissingError, UsageError
from tests.hub import COMMIT, CONFIG, ONE, TOKEN, TWO, Hub, running_hub, running_mirror


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
    """By its config.json, or by the file beside it that NVIDIA's tool writes."""
    assert describe("org/awq", endpoint=hub).quantize == "awq"
    found = describe("org/nvfp4", endpoint=hub)
    assert (found.quantize, found.shape.stored) == ("nvfp4", "nvfp4")


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
        (
            "org/limited",
            None,
            MissingError,
            "org/limited: the Hub limits how often it is asked (429). Try again in 17",
        ),
        ("org/adapter", None, UsageError, "org/adapter: holds an adapter (LoRA), not a model. Add its base model"),
        ("org/gguf", None, UsageError, "org/gguf: holds GGUF files (2, such as m-Q4_K_M.gguf), which only llama.cpp"),
        ("org/spoilt", None, UsageError, "config.json: not valid JSON"),
        ("org/list", None, UsageError, "config.json: expected a JSON object"),
        ("org/refused", None, MissingError, "org/refused: the Hub refused the request (403). HF_TOKEN is not valid"),
        ("org/odd", None, UsageError, "org/odd: has no config.json, and harness does not know its shape"),
        ("a/b/c", None, UsageError, "a/b/c: is not a Hub id. Write it as ORGANISATION/NAME."),
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


@pytest.mark.parametrize("ending", ["", "/", "//", "/ "])
def test_an_address_may_end_with_a_slash(ending: str, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As people write HF_ENDPOINT."""
    monkeypatch.setenv("HF_ENDPOINT", hub + ending)
    assert describe("org/one").weight_bytes == 128
    assert token_is_accepted(TOKEN)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_mirror_that_redirects_is_followed(status: int, hub: str) -> None:
    """For questions, files and parts of files alike."""
    with running_mirror(hub, status) as mirror:
        found = describe("org/two", endpoint=mirror)
        assert (found.weight_bytes, found.revision) == (200, COMMIT)
        assert resolve_revision("org/one", endpoint=mirror) == COMMIT


def test_a_mirror_that_redirects_to_itself_is_named(hub: str) -> None:
    """It ends, and says where."""
    with running_mirror(None, 307) as mirror, pytest.raises(MissingError, match="redirects in a circle"):
        describe("org/one", endpoint=mirror)


def test_a_renamed_model_is_found_under_its_new_name(hub: str) -> None:
    """The Hub redirects from the old one; the entry gets the new one."""
    Hub.renamed["old/name"] = "org/one"
    found = describe("old/name", endpoint=hub)
    assert (found.repo, found.weight_bytes) == ("org/one", 128)
    assert "old/name is called org/one now." in found.notes


@pytest.mark.parametrize("ending", ["\n", "\r\n", " "])
def test_a_token_with_a_line_end_is_the_token(ending: str, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `HF_TOKEN=$(cat file)` in a Windows shell, or a secret of a cluster, gives it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN + ending)
    assert describe("org/one", endpoint=hub).weight_bytes == 128
    assert token_is_accepted(TOKEN + ending, endpoint=hub)


@pytest.mark.parametrize("repo", ["org/index", "org/lacking"])
def test_an_index_without_its_files_leaves_arithmetic(repo: str, hub: str) -> None:
    """An upload that is not finished."""
    assert describe(repo, endpoint=hub).size_source == "config.json"


def test_what_is_odd_about_a_model_is_said(hub: str) -> None:
    """Weights that run code when they are read, and code of its own."""
    assert any("pickle files only" in note for note in describe("org/bin", endpoint=hub).notes)
    assert any("trust_remote_code" in note for note in describe("org/code", endpoint=hub).notes)
    assert describe("org/one", endpoint=hub).notes == ()


def test_tokenizer_template_and_sampling_are_read(hub: str) -> None:
    """They decide how a model is asked and what it answers."""
    found = describe("org/chatty", endpoint=hub)
    assert found.text_files == TextFiles("tokenizer.json", True, 1024, {"temperature": 0.6, "top_p": 0.95})
    assert "Its tokenizer says 1,024 tokens at most, its config.json 2,048." in found.notes
    assert any("sets temperature 0.6, top_p 0.95: vLLM and SGLang use that" in note for note in found.notes)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "It holds no tokenizer"),
        ({"tokenizer.json": b"{}", "tokenizer_config.json": b"{}"}, "It has no chat template"),
        ({"tokenizer.json": b"{}", "tokenizer_config.json": b"{oops"}, None),
        ({"tokenizer.json": b"{}", "tokenizer_config.json": b"{}", "chat_template.jinja": b"x"}, None),
        ({"tekken.json": b"{}", "tokenizer_config.json": b"{}"}, None),
        ({"tokenizer.json": b"{}", "tokenizer_config.json": b'{"model_max_length": 1e30, "chat_template": "x"}'}, None),
        ({"tokenizer.json": b"{}", "generation_config.json": b'{"temperature": "hot", "top_k": true}'}, None),
    ],
)
def test_what_lacks_beside_the_weights_is_said(files: dict[str, bytes], words: str | None, hub: str) -> None:
    """And no more than the files say."""
    Hub.repos["org/it"] = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": ONE, **files}
    notes = describe("org/it", endpoint=hub).notes
    assert [note for note in notes if words and note.startswith(words)] == list(notes)
    assert bool(notes) is (words is not None)


def test_a_page_to_log_in_is_no_hub(hub: str) -> None:
    """HTML where JSON is expected: exit 3, and what it may be."""
    Hub.infos["org/one"] = b"<html>Please log in</html>"
    with pytest.raises(MissingError, match=r"org/one: the Hub answered what is not valid JSON\. Check HF_ENDPOINT"):
        describe("org/one", endpoint=hub)


def test_a_slow_hub_is_not_waited_for(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds; here less."""
    monkeypatch.setattr("harness.catalog.hub.TIMEOUT", 0.05)
    Hub.delay = 0.3
    with pytest.raises(MissingError, match=r"org/one: the Hub did not answer within 0\.05 s"):
        describe("org/one", endpoint=hub)


def test_what_was_looked_up_once_is_known_without_a_network(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the cache: the same shape and commit; sizes by arithmetic, since the weights are not there."""
    before = describe("org/one", endpoint=hub)
    for name, value in (("HF_HUB_OFFLINE", "1"), ("HF_HUB_OFFLINE", "0")):
        monkeypatch.setenv(name, value)
        found = describe("org/one", endpoint="http://127.0.0.1:9")
        assert (found.shape, found.revision) == (before.shape, COMMIT)
        assert found.size_source == "config.json"
        assert [note[:33] for note in found.notes] == ["This is what the cache has of it: "[:33]]
    with pytest.raises(MissingError):
        describe("org/two", endpoint="http://127.0.0.1:9")


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
