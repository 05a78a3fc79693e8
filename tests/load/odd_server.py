"""Servers of the OpenAI kind, each with a habit that makes events and tokens two things, or ends answers oddly.

Every one logs what it wrote and when, so that right values are known without asking the client.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FIRST, GAP = 0.06, 0.02  # seconds until the first token, and between two
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Piece:
    """What is written at once after a pause. tokens: that a reader sees by it."""

    data: bytes
    pause: float = 0.0
    tokens: int = 0


@dataclass
class Truth:
    """One answer: moments (CLOCK_MONOTONIC seconds) and tokens of each piece that shows any."""

    at: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    @property
    def tpot(self) -> float:
        return (self.at[-1] - self.at[0]) / sum(self.tokens[1:])


@dataclass(frozen=True)
class Habit:
    """pieces: of an answer of so many tokens. ends: `whole`, `cut`, `reset` or `open`. kind: content type."""

    pieces: Callable[[int], list[Piece]]
    ends: str = "whole"
    kind: str = "text/event-stream"
    only_uuids: bool = False


def event(delta: dict[str, Any] | None, reason: str | None = None, **more: Any) -> bytes:
    """One chunk; without a delta one that has no choice."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
    return (
        f"data: {json.dumps({'id': 'x', 'object': 'chat.completion.chunk', 'choices': choices, **more})}\n\n".encode()
    )


def count(tokens: int, **more: Any) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": 21, "completion_tokens": tokens, "total_tokens": 21 + tokens, **more}}


def words(tokens: int) -> dict[str, Any]:
    return {"content": " w" * tokens}


ROLE = event({"role": "assistant", "content": ""})
DONE = b"data: [DONE]\n\n"


def stream(sizes: Sequence[int], *, along: Callable[[int], dict[str, Any]] | None = None, told: bool = True,
           finish: float = 0.0, role: bytes = ROLE) -> list[Piece]:  # fmt: skip
    """Events of so many tokens each. along: what each says of the tokens so far. finish: pause before the end."""
    pieces, so_far = [Piece(role, FIRST)], 0
    for number, size in enumerate(sizes):
        so_far += size
        more = along(so_far) if along else {}
        pieces.append(Piece(event(words(size), **more), GAP * size if number else 0.0, size))
    pieces.append(Piece(event({}, "length"), finish))
    if told:
        pieces.append(Piece(event(None, **count(so_far))))
    return [*pieces, Piece(DONE)]


def split(tokens: int, first: int, size: int) -> list[int]:
    """The sizes of events: the first, then equal ones, and what is left."""
    rest = tokens - first
    return [first, *[size] * (rest // size), *([rest % size] if rest % size else [])]


def together(pieces: list[Piece]) -> list[Piece]:
    """All at once, when the last would have come."""
    data, tokens = b"".join(each.data for each in pieces), sum(each.tokens for each in pieces)
    return [Piece(data, sum(each.pause for each in pieces), tokens)]


def document(tokens: int) -> list[Piece]:
    message = {"role": "assistant", "content": " w" * tokens}
    whole = {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "length"}], **count(tokens)}
    return [Piece(json.dumps(whole).encode(), FIRST + GAP * tokens, tokens)]


def progress(tokens: int) -> list[Piece]:
    """As llama.cpp does it: progress with a role, the role, then a count in the timings of every second frame."""
    reading = [
        Piece(event({"role": "assistant", "content": None}, prompt_progress={"processed": each, "total": 20}), 0.02)
        for each in (10, 20)
    ]

    def timings(so_far: int) -> dict[str, Any]:
        return {"timings": {"prompt_n": 20, "cache_n": 1, "predicted_n": so_far, "predicted_ms": 1.5 * so_far}}

    role = event({"role": "assistant", "content": None})
    return [*reading, *stream(split(tokens, 1, 2), along=timings, told=False, role=role)]


HABITS = {
    "plain": Habit(lambda n: stream([1] * n)),
    "spec": Habit(lambda n: stream(split(n, 4, 4))),
    "spec, the first token alone": Habit(lambda n: stream(split(n, 1, 4))),
    "counts along": Habit(lambda n: stream(split(n, 3, 3), along=count)),
    "counts along, uneven": Habit(lambda n: stream([5, 1, 2, *split(n - 8, 4, 3)], along=count)),
    "llama.cpp": Habit(progress),
    "late finish": Habit(lambda n: stream([1] * n, finish=0.3)),
    "nousage": Habit(lambda n: stream([1] * n, told=False)),
    "nousage, several tokens": Habit(lambda n: stream(split(n, 4, 4), told=False)),
    "counts of nothing": Habit(lambda n: stream([1] * n, along=lambda so_far: count(0), told=False)),
    "burst": Habit(lambda n: together(stream([1] * n))),
    "one event": Habit(lambda n: together(stream([n]))),
    "whole": Habit(document, kind="application/json"),
    "whole, as a stream": Habit(document),
    "donecut": Habit(lambda n: stream([1] * n), ends="cut"),
    "donereset": Habit(lambda n: stream([1] * n), ends="reset"),
    "doneopen": Habit(lambda n: stream([1] * n), ends="open"),
    "cut": Habit(lambda n: stream([1] * n)[:-3], ends="cut"),
    "unseen": Habit(lambda n: [Piece(ROLE, FIRST), Piece(event({}, "length", **count(n)), GAP * n), Piece(DONE)]),
    "uuid": Habit(lambda n: stream([1] * n), only_uuids=True),
}  # fmt: skip


class OddServer(ThreadingHTTPServer):
    """truths: by request id."""

    daemon_threads = True

    def __init__(self, habit: Habit) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.habit = habit
        self.truths: dict[str, Truth] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that left is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: OddServer

    def do_GET(self) -> None:
        known = self.path == "/v1/models"
        self._document(200 if known else 404, {"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        habit, name = self.server.habit, self.headers.get("x-request-id", "")
        if self.path != "/v1/chat/completions":
            self._document(404, {})
        elif habit.only_uuids and not UUID.fullmatch(name):
            self._document(400, None)
        else:
            truth = self.server.truths[name] = Truth()
            self._answer(habit, habit.pieces(body["max_tokens"]), truth, stream=body.get("stream", False))

    def _answer(self, habit: Habit, pieces: list[Piece], truth: Truth, *, stream: bool) -> None:
        if not stream and habit.pieces is not document:
            pieces = document(sum(each.tokens for each in pieces))
        self.send_response(200)
        self.send_header("content-type", habit.kind if stream else "application/json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            if piece.pause:
                time.sleep(piece.pause)
            if piece.tokens:
                truth.at.append(time.monotonic())
                truth.tokens.append(piece.tokens)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece.data), piece.data))
        self._end(habit.ends)

    def _end(self, how: str) -> None:
        if how == "whole":
            self.wfile.write(b"0\r\n\r\n")
            return
        self.close_connection = True
        if how == "open":
            self.connection.settimeout(30)
            self.connection.recv(1)  # until the client has enough of it
        elif how == "reset":
            time.sleep(0.05)  # what was written is to be read: a reset throws away what was not
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _document(self, status: int, content: Any) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(name: str) -> Iterator[OddServer]:
    """A server with this habit."""
    with OddServer(HABITS[name]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
