"""A server with given pages, in the place of a service that somebody asks who it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.engines.client import Client
from harness.engines.endpoint import Endpoint

Answer = tuple[int, Any]
Page = Any | Answer | Callable[[Any], Answer]


@dataclass
class Pages:
    """What is served: `GET /path` or `POST /path` -> a document or text, (status, document), or a function of the
    posted document that gives the latter. asked: the same names in the order in which they were asked for.
    """

    pages: Mapping[str, Page]
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, name: str, posted: Any) -> Answer:
        self.asked.append(name)
        page = self.pages.get(name, (404, {"detail": "Not Found"}))
        if callable(page):
            return page(posted)
        return page if isinstance(page, tuple) else (200, page)

    def client(self, timeout: float = 10.0) -> Client:
        return Client(Endpoint(self.url), timeout)


@contextmanager
def serving(pages: Mapping[str, Page], headers: Mapping[str, str] | None = None) -> Iterator[Pages]:
    """The pages on a free port of 127.0.0.1."""
    served = Pages(pages, headers or {})

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

        def do_GET(self) -> None:
            self.send(*served.answer(f"GET {self.path}", None))

        def do_POST(self) -> None:
            posted = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.send(*served.answer(f"POST {self.path}", posted))

        def send(self, status: int, document: Any) -> None:
            body = (document if isinstance(document, str) else json.dumps(document)).encode()
            self.send_response(status)
            for name, value in served.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
