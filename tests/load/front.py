"""What may stand between a client and a service: a base path, a redirect, a key, TLS, a proxy, compression."""

from __future__ import annotations

import gzip
import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

KEY = "sk-front-1234567890"


@dataclass(frozen=True)
class Front:
    """base: of every path that is answered. redirect: a status by which everything is sent to `to`. key: is wanted.
    squeezed: answers are gzip where the client takes that. proxy: takes requests for any host, by their whole URL.
    says: words of answers that it puts others for, in answers of one piece.
    """

    base: str = ""
    redirect: int = 0
    to: str = ""
    key: bool = False
    squeezed: bool = False
    proxy: bool = False
    says: tuple[bytes, bytes] = (b"", b"")
    certificate: Path | None = None


@dataclass
class Standing:
    """port: of a front that answers. seen: what was asked of it, `METHOD path`. keys: authorisations that came."""

    port: int
    seen: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


@contextmanager
def standing(front: Front, behind: str) -> Iterator[Standing]:
    """A front before the service at this URL."""
    server = _Server(front, behind)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.known
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, front: Front, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.front, self.behind, self.known = front, behind, Standing(self.server_port)
        if front.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(front.certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *_: object) -> None:
        """A client that left is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._asked(None)

    def do_POST(self) -> None:
        self._asked(self.rfile.read(int(self.headers["content-length"])))

    def _asked(self, body: bytes | None) -> None:
        front, known = self.server.front, self.server.known
        known.seen.append(f"{self.command} {self.path}")
        known.keys.add(self.headers.get("authorization", ""))
        path = urlsplit(self.path).path if front.proxy else self.path
        if front.proxy and not self.path.startswith("http://"):
            self._short(400)
        elif front.redirect:
            self._short(front.redirect, f"{front.to}{path.removeprefix(front.base)}")
        elif not path.startswith(f"{front.base}/"):
            self._short(404)
        elif front.key and self.headers.get("authorization") != f"Bearer {KEY}":
            self._short(401)
        else:
            self._relay(path.removeprefix(front.base), body)

    def _short(self, status: int, location: str | None = None) -> None:
        self.send_response(status)
        if location is not None:
            self.send_header("location", location)
        self.send_header("content-length", "0")
        self.end_headers()

    def _relay(self, path: str, body: bytes | None) -> None:
        front = self.server.front
        where = urlsplit(self.server.behind)
        with closing(http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)) as service:
            kept = {each: self.headers[each] for each in ("content-type", "x-request-id") if each in self.headers}
            service.request(self.command, path, body, kept)
            answer = service.getresponse()
            squeezed = front.squeezed and "gzip" in self.headers.get("accept-encoding", "")
            self.send_response(answer.status)
            self.send_header("content-type", answer.headers["content-type"] or "text/plain")
            self.send_header("transfer-encoding", "chunked")
            if squeezed:
                self.send_header("content-encoding", "gzip")
            self.end_headers()
            while piece := answer.read() if squeezed else answer.read1(65536):
                piece = piece.replace(*front.says) if front.says[0] else piece
                piece = gzip.compress(piece) if squeezed else piece
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass
