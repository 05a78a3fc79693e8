"""What the Hub or a directory says of a model, by a small Hub that runs here."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from harness.catalog.hub import describe, resolve_revision
from harness.catalog.shapes import weight_bytes
from harness.errors import HarnessError, MissingError, UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 128,
    "vocab_size": 1000,
    "tie_word_embeddings": False,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}
TOKEN = "hf_mySecretToken"


def safetensors(sizes: dict[str, int]) -> bytes:
    """A file with tensors of so many bytes, each a row of bfloat16."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, size in sizes.items():
        header[name] = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [at, at + size]}  # type: ignore[dict-item]
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


ONE = safetensors({"a": 100, "b": 28})
TWO = safetensors({"c": 72})
INDEX = json.dumps(
    {"metadata": {}, "weight_map": {"a": "m-1.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}}
)


class Hub(BaseHTTPRequestHandler):
    """The routes of the Hub that are needed. repos: files by repository; a number instead is answered as status."""

    repos: ClassVar[dict[str, dict[str, bytes] | int | str]] = {}
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        api = parts[0] == "api"
        repo = "/".join(parts[2:4] if api else parts[:2])
        files = self.repos.get(repo, 404)
        if not isinstance(files, dict):
            self._refuse(files)
        elif api:
            self._model(repo, files, parts[4:])
        else:
            self._file(files, parts[4])

    def _refuse(self, status: int | str) -> None:
        if status == "gated":
            self._send(403, b"", {"x-error-code": "GatedRepo"})
        elif status == 404:
            self._send(401, b"", {"x-error-code": "RepoNotFound"})
        else:
            self._send(int(status), f"you sent {self.headers.get('authorization')}".encode(), {})

    def _model(self, repo: str, files: dict[str, bytes], rest: list[str]) -> None:
        if rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
            self._send(404, b"", {"x-error-code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
        self._send(200, json.dumps({"id": repo, "sha": COMMIT, "gated": False, "siblings": siblings}).encode(), {})

    def _file(self, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            self._send(404, b"", {"x-error-code": "EntryNotFound"})
            return
        content = files[name]
        unit = self.headers.get("range", "")
        start, _, stop = unit.removeprefix("bytes=").partition("-") if unit else ("0", "", "")
        part = content[int(start) : int(stop) + 1 if stop else None]
        headers = {"etag": f'"{name}"', "x-repo-commit": COMMIT, "accept-ranges": "bytes"}
        self._send(206 if unit else 200, part, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Hub; its answers are kept in a cache of the test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "cache"), raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    config = json.dumps(CONFIG).encode()
    Hub.repos = {
        "org/one": {"config.json": config, "model.safetensors": ONE},
        "org/two": {
            "config.json": config,
            "model.safetensors.index.json": INDEX.encode(),
            "m-1.safetensors": ONE,
            "m-2.safetensors": TWO,
            "consolidated.safetensors": ONE,
        },
        "org/awq": {
            "config.json": json.dumps(CONFIG | {"quantization_config": {"quant_method": "awq"}}).encode(),
            "model.safetensors": ONE,
        },
        "org/bin": {"config.json": config, "pytorch_model-1.bin": bytes(70), "pytorch_model-2.bin": bytes(7)},
        "org/bare": {"config.json": config},
        "org/odd": {"README.md": b"x"},
        "org/gated": "gated",
        "org/broken": 500,
        "org/refused": 403,
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
