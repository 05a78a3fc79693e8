"""HTTP as the other engines have in common: routes, JSON, keys, stream frames, and a header on every answer.

Every answer carries `x-harness-emulator: 1`, by which nobody takes it for a GPU's.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from harness.emulator.http import Connection, Exchange
from harness.emulator.sse import Shaper

EMULATED = ("x-harness-emulator", "1")
JSON = ("content-type", "application/json")

Handler = Callable[[Exchange, Any], "Coroutine[Any, Any, None] | None"]


def compact(value: Any) -> bytes:
    """JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


class Problem(Exception):
    """An answer that is refused, or an engine that fails. kind: the error's type; param: what of the body is meant."""

    def __init__(self, status: int, text: str, kind: str = "", param: str | None = None, **more: Any) -> None:
        super().__init__(text)
        self.status, self.text, self.kind, self.param, self.more = status, text, kind, param, more


@dataclass(frozen=True)
class Web:
    """How one face answers.

    headers: of every answer. error: the JSON of a Problem. no_route, no_method: what else is asked for. locked: whether
    a path needs a key; unauthorized: the answer to whoever has none.
    """

    headers: tuple[tuple[str, str], ...]
    error: Callable[[Problem], Any]
    no_route: Problem
    no_method: Problem
    unauthorized: tuple[int, Any]
    locked: Callable[[str], bool]
    stream_headers: tuple[tuple[str, str], ...] = (("content-type", "text/event-stream; charset=utf-8"),)
    close_errors: bool = False


class FaceApp:
    """The application behind all connections of one face. keys: that open what is locked; empty for no lock."""

    payload_limit = 64 * 1024 * 1024

    def __init__(
        self,
        web: Web,
        routes: Mapping[tuple[str, str], Handler],
        keys: tuple[str, ...] = (),
        shaper: Callable[[], Shaper | None] = lambda: None,
        access: Callable[[Exchange, int], None] = lambda exchange, status: None,
    ) -> None:
        self.web, self.keys, self.shaper, self.access = web, keys, shaper, access
        self.connections: set[Connection] = set()
        self.ready = True
        self.not_ready = Problem(503, "")
        self.set_routes(routes)
        self._tasks: set[asyncio.Task[None]] = set()

    def set_routes(self, routes: Mapping[tuple[str, str], Handler]) -> None:
        """What is answered, by method and path."""
        self.routes = routes
        self._paths = {path for _, path in routes}

    # What http.Connection asks.

    def opened(self, connection: Connection) -> None:
        self.connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)

    def cross_origin(self, exchange: Exchange) -> list[tuple[str, str]]:
        return [*self.web.headers, EMULATED]

    def early(self, exchange: Exchange) -> bool:
        if not self.ready:
            self.problem(exchange, self.not_ready)
            return True
        if self.keys and self.web.locked(exchange.path) and exchange.method != "OPTIONS" and not self._knows(exchange):
            status, body = self.web.unauthorized
            self.json(exchange, body, status)
            return True
        method = "GET" if exchange.method == "HEAD" else exchange.method
        if (method, exchange.path) not in self.routes:
            self.problem(exchange, self.web.no_method if exchange.path in self._paths else self.web.no_route)
            return True
        return False

    def _knows(self, exchange: Exchange) -> bool:
        headers = exchange.headers
        shown = (headers.get("authorization", "").removeprefix("Bearer "), headers.get("x-api-key", ""))
        return any(key in self.keys for key in shown)

    def unreadable(self, exchange: Exchange, *, too_large: bool) -> None:
        self.problem(exchange, Problem(413 if too_large else 400, "the body cannot be read", "invalid_request_error"))

    def handle(self, exchange: Exchange) -> None:
        handler = self.routes["GET" if exchange.method == "HEAD" else exchange.method, exchange.path]
        body: Any = None
        try:
            if exchange.method == "POST":
                body = read_json(exchange.body)
            work = handler(exchange, body)
        except Problem as problem:
            self.problem(exchange, problem)
            return
        if work is not None:
            task = asyncio.ensure_future(self._answered(exchange, work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            exchange.on_gone = lambda: _cancel(task)

    async def _answered(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Problem as problem:
            self.problem(exchange, problem)

    # What the routes ask.

    def json(self, exchange: Exchange, body: Any, status: int = 200) -> None:
        self.respond(exchange, status, compact(body), [JSON])

    def respond(self, exchange: Exchange, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        if self.web.close_errors and status >= 400:
            exchange.keep_alive = False
        exchange.respond(status, headers, body)
        self.access(exchange, status)

    def problem(self, exchange: Exchange, problem: Problem) -> None:
        self.json(exchange, self.web.error(problem), problem.status)

    def stream(self, exchange: Exchange) -> Frames:
        """Begin a streamed answer."""
        self.access(exchange, 200)
        return Frames(exchange, self.web.stream_headers, self.shaper())


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def read_json(data: bytes) -> Any:
    """A body. Raises Problem."""
    try:
        body = json.loads(data)
    except ValueError as error:
        raise Problem(400, f"JSON decode error: {error}", "invalid_request_error") from None
    if not isinstance(body, dict):
        raise Problem(400, "expected a JSON object", "invalid_request_error")
    return body


class Frames:
    """The body of one streamed answer: one `data:` line a frame, one chunk, one write."""

    __slots__ = ("_send", "closed", "exchange", "shaper")

    def __init__(self, exchange: Exchange, headers: tuple[tuple[str, str], ...], shaper: Shaper | None) -> None:
        self.exchange, self.shaper = exchange, shaper
        self.closed = False
        exchange.start_stream(headers)
        self._send: Callable[[bytes], None] = exchange.send
        if shaper is not None:
            self._send = lambda data: shaper.send(exchange, data)

    def send(self, frame: str) -> None:
        if not self.closed:
            self._send(b"data: %b\n\n" % frame.encode("utf-8", "replace"))

    def end(self) -> None:
        """The regular end of the body."""
        if self.closed:
            return
        self.closed = True
        if self.shaper is not None:
            self.shaper.end(self.exchange)
        else:
            self.exchange.end_stream()

    def drop(self) -> None:
        """The client is gone: nothing more to send."""
        self.closed = True


def now() -> int:
    """Seconds since 1970, as answers carry them."""
    return int(time.time())
