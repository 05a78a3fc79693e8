"""Stands between a load and a server, passes on what both say, and keeps it: the truth about a conversation."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Said:
    """One request as the server received it, and the body that it answered."""

    request_id: str
    session_id: str | None
    asked: dict[str, Any]
    answer: bytes = b""
    status: int = 0


@contextmanager
def recording(url: str) -> Iterator[tuple[str, list[Said]]]:
    """The proxy's own URL, and what passes through it."""
    heard: list[Said] = []
    upstream = urlsplit(url)

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            self._pass_on(None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            said = Said(self.headers.get("x-request-id", ""), self.headers.get("x-session-id"), json.loads(body))
            heard.append(said)
            self._pass_on(said, body)

        def _pass_on(self, said: Said | None, body: bytes | None = None) -> None:
            with closing(http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=30)) as connection:
                self._relay(connection, said, body)

        def _relay(self, connection: http.client.HTTPConnection, said: Said | None, body: bytes | None) -> None:
            kept = {name: self.headers[name] for name in ("content-type", "accept") if name in self.headers}
            connection.request(self.command, self.path, body, kept)
            answer = connection.getresponse()
            self.send_response(answer.status)
            self.send_header("content-type", answer.headers["content-type"] or "text/plain")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            while piece := answer.read1(65536):
                if said is not None:
                    said.answer += piece
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if said is not None:
                said.status = answer.status
            self.wfile.write(b"0\r\n\r\n")

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that goes away in the middle of an answer is what some tests are about."""

    server = Server(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        server.server_close()


def text_of(said: Said) -> str:
    """What the model answered, read in the plainest way."""
    events = [json.loads(line[5:]) for line in said.answer.decode().splitlines() if line.startswith("data:{")]
    events += [json.loads(line[6:]) for line in said.answer.decode().splitlines() if line.startswith("data: {")]
    if events and "token" in events[0]:
        return str(events[-1]["generated_text"])
    return "".join(each["choices"][0]["delta"].get("content") or "" for each in events if each["choices"])
