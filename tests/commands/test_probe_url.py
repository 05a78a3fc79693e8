"""What is claimed of a service that somebody else runs: only what it was seen to take and to refuse."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from harness.commands.probe import ProbeOptions, probe
from harness.serve.target import Target

INFO = {
    "model_id": "some/model",
    "version": "3.3.7",
    "max_concurrent_requests": 4,
    "max_input_tokens": 300,
    "max_total_tokens": 400,
    "max_batch_total_tokens": 4000,
    "model_dtype": "float16",
    "docker_label": "sha-1",
    "sha": None,
}


class _Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mode = "honest"

    def log_message(self, *words: object) -> None: ...

    def do_GET(self) -> None:
        self._send(200, json.dumps(INFO).encode() if self.path in ("/info", "/") else b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/tokenize":
            return self._send(200, json.dumps([{"id": 1, "text": "x", "start": 0, "stop": 1}] * _count(body)).encode())
        if not self.path.startswith("/generate"):
            return self._send(404, b"{}")
        if self.mode == "429":
            return self._send(429, b'{"error":"Model is overloaded","error_type":"overloaded"}')
        if self.mode == "503":
            return self._send(503, b"<html>no healthy upstream</html>")
        if self.mode == "gzip":
            return self._send(200, gzip.compress(b'data:{"token":{"id":1,"text":" a"}}\n\n'), "text/event-stream")
        if self.mode == "broken JSON":
            return self._send(200, b'data:{"token":{"id":\n\n', "text/event-stream")
        new = body["parameters"]["max_new_tokens"]
        if _count(body) > INFO["max_input_tokens"] or _count(body) + new > INFO["max_total_tokens"]:  # type: ignore[operator]
            limit = INFO["max_total_tokens"] if _count(body) <= INFO["max_input_tokens"] else INFO["max_input_tokens"]  # type: ignore[operator]
            text = f"Input validation error: `inputs` must have less than {limit} tokens. Given: {_count(body)}"
            return self._send(422, json.dumps({"error": text, "error_type": "validation"}).encode())
        told = _count(body) + (self.mode == "counts one more")
        self._send(200, b"".join(_event(at, new, told) for at in range(1, new + 1)), "text/event-stream")

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _count(body: dict[str, Any]) -> int:
    return 1 + len(body["inputs"].split())


def _event(at: int, new: int, prompt: int) -> bytes:
    event: dict[str, Any] = {"index": at, "token": {"id": 5, "text": " the", "logprob": -1.0, "special": False}}
    event |= {"generated_text": None, "details": None}
    if at == new:
        event["generated_text"] = " the" * new
        event["details"] = {"finish_reason": "length", "generated_tokens": new, "seed": None, "input_length": prompt}
    return b"data:" + json.dumps(event).encode() + b"\n\n"


@contextmanager
def serving(mode: str) -> Iterator[str]:
    page = type("Page", (_Page,), {"mode": mode})
    server = ThreadingHTTPServer(("127.0.0.1", 0), page)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_border_that_was_seen_from_both_sides_is_measured(tmp_path: Path) -> None:
    """One length was taken, the next refused with the limit's own number."""
    with serving("honest") as url:
        found = probe(Target(url=url), ProbeOptions(output=tmp_path)).as_json()
    assert found["source"]["max_input_tokens"] == found["source"]["max_total_tokens"] == "measured"
    assert found["boundary"]["max_input_tokens"]["largest_ok"] == 300
    assert found["boundary"]["max_input_tokens"]["smallest_failed"] == 301
    assert found["source"]["max_concurrent_requests"] == "derived", "nothing was refused"
    assert not found["verified_under_load"]
    assert not any("as long as was meant" in line for line in found["advice"])


def test_prompts_of_another_length_than_was_meant_are_said(tmp_path: Path) -> None:
    """The service's own count of what it answered is the last word."""
    with serving("counts one more") as url:
        found = probe(Target(url=url), ProbeOptions(output=tmp_path)).as_json()
    assert any("were not as long as was meant" in line and "by 1 tokens at most" in line for line in found["advice"])


@pytest.mark.parametrize("mode", ["429", "503", "gzip", "broken JSON"])
def test_who_answers_everything_alike_has_told_no_limit(mode: str, tmp_path: Path) -> None:
    """Neither a limit that was seen nor one beyond it."""
    with serving(mode) as url:
        found = probe(Target(url=url), ProbeOptions(output=tmp_path)).as_json()
    assert found["boundary"] == {}
    assert set(found["source"].values()) == {"derived"}
    assert not found["verified_under_load"]
    assert any("max_input_tokens is by the service's own word only" in line for line in found["advice"])
    assert any("max_concurrent_requests" in line and "overload" in line for line in found["advice"]), "what came of it"
    assert not any("were not sent" in line for line in found["advice"])
