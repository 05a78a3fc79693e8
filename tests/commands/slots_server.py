"""A server of known capacity, written for the tests alone: so many places, and an answer that takes a fixed time.

It speaks enough of OpenAI's completions to be recognised and loaded. A request that finds all places taken waits its
turn; its first token comes when it has a place, the others evenly until its time is over. With one chat more than
places each waits for a place to become free, so the highest load without waiting is the number of places.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "slots"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, places: int, seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.places, self.seconds = threading.Semaphore(places), seconds


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._json({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        tokens = int(asked.get("max_tokens") or asked.get("max_completion_tokens") or 1)
        usage = {"prompt_tokens": 20, "completion_tokens": tokens, "total_tokens": 20 + tokens}
        if not asked.get("stream"):
            words = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": " w" * tokens}}
            self._json({"id": "x", "object": "chat.completion", "choices": [words], "usage": usage})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        with self.server.places:
            began = time.monotonic()
            for number in range(tokens):
                self._event([{"index": 0, "delta": {"content": " w"}, "finish_reason": None}])
                time.sleep(max(0.0, began + self.server.seconds * (number + 1) / tokens - time.monotonic()))
        self._event([{"index": 0, "delta": {}, "finish_reason": "length"}])
        self._event([], usage=usage)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> None:
        chunk = {"id": "x", "object": "chat.completion.chunk", "model": MODEL, "choices": choices, **more}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    def _json(self, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def slots_server(places: int, seconds: float) -> Iterator[str]:
    """Its URL. seconds: of each answer."""
    server = _Server(places, seconds)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
