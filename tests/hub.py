"""A small Hub that runs in the test process: the routes that harness asks, and repositories of a few bytes."""

from __future__ import annotations

import gzip
import json
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

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
TRACE = gzip.compress(b'{"timestamp": 0, "input_length": 20, "output_length": 3}\n' * 4)


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
    renamed: ClassVar[dict[str, str]] = {}
    infos: ClassVar[dict[str, bytes]] = {}
    delay: ClassVar[float] = 0.0
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.requestline.split()[1].startswith("//"):  # `path` has lost a slash too many, which the Hub minds
            self._send(404, b"", {})
            return
        parts = self.path.partition("?")[0].strip("/").removeprefix("datasets/").split("/")
        if parts == ["api", "whoami-v2"]:
            self._send(200 if self.headers.get("authorization") == f"Bearer {TOKEN}" else 401, b"{}", {})
            return
        api = parts[0] == "api"
        repo = "/".join(parts[2:4] if api else parts[:2])
        time.sleep(self.delay)
        if repo in self.renamed:
            self._send(307, b"", {"location": self.path.replace(repo, self.renamed[repo])})
            return
        if api and repo in self.infos:
            self._send(200, self.infos[repo], {})
            return
        files = self.repos.get(repo, 404)
        if not isinstance(files, dict):
            self._refuse(files)
        elif api:
            self._model(repo, files, parts[4:])
        else:
            self._file(files, "/".join(parts[4:]))

    def _refuse(self, status: int | str) -> None:
        if status == "gated":
            self._send(403, b"", {"x-error-code": "GatedRepo"})
        elif status == 404:
            self._send(401, b"", {"x-error-code": "RepoNotFound"})
        else:
            headers = {"retry-after": "17"} if status == 429 else {}
            self._send(int(status), f"you sent {self.headers.get('authorization')}".encode(), headers)

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


def repositories() -> dict[str, dict[str, bytes] | int | str]:
    """What the Hub holds: weights in one file, in two, packed, as PyTorch's, none; gated, broken, refused."""
    config = json.dumps(CONFIG).encode()
    return {
        "org/one": {"config.json": config, "tokenizer.json": b"{}", "model.safetensors": ONE},
        "org/chatty": {
            "config.json": config,
            "model.safetensors": ONE,
            "tokenizer.json": b"{}",
            "tokenizer_config.json": b'{"chat_template": "{{ messages }}", "model_max_length": 1024}',
            "generation_config.json": b'{"temperature": 0.6, "top_p": 0.95, "do_sample": true, "eos_token_id": [1, 2]}',
        },
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
        "org/nvfp4": {
            "config.json": config,
            "hf_quant_config.json": b'{"producer": {}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}',
            "model.safetensors": ONE,
        },
        "org/bin": {"config.json": config, "pytorch_model-1.bin": bytes(70), "pytorch_model-2.bin": bytes(7)},
        "org/bare": {"config.json": config},
        "org/odd": {"README.md": b"x"},
        "org/data": {"README.md": b"x", "data/trace.jsonl.gz": TRACE},
        "org/many": {"one.jsonl": TRACE, "two.csv": b"", "weights.bin": b""},
        "org/limited": 429,
        "org/adapter": {"adapter_config.json": b"{}", "adapter_model.safetensors": ONE},
        "org/gguf": {"README.md": b"x", "m-Q4_K_M.gguf": b"GGUF", "m-Q8_0.gguf": b"GGUF"},
        "org/spoilt": {"config.json": b"{oops", "model.safetensors": ONE},
        "org/list": {"config.json": b"[]", "model.safetensors": ONE},
        "org/index": {"config.json": config, "model.safetensors.index.json": b"{}"},
        "org/lacking": {"config.json": config, "model.safetensors.index.json": INDEX.encode()},
        "org/code": {"config.json": json.dumps(CONFIG | {"auto_map": {"AutoConfig": "c.C"}}).encode()},
        "org/gated": "gated",
        "org/broken": 500,
        "org/refused": 403,
    }


@contextmanager
def running_hub() -> Iterator[str]:
    """The address of a Hub that serves `repositories`."""
    Hub.repos, Hub.renamed, Hub.infos, Hub.delay = repositories(), {}, {}, 0.0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Mirror(BaseHTTPRequestHandler):
    """Sends everything elsewhere."""

    target: ClassVar[str] = ""
    status: ClassVar[int] = 308
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("location", f"{self.target}{self.path}")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running_mirror(target: str | None, status: int) -> Iterator[str]:
    """The address of a mirror that redirects to another Hub; to itself without one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    address = f"http://127.0.0.1:{server.server_port}"
    Mirror.target, Mirror.status = target or address, status
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
