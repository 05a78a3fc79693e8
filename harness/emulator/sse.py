"""Server-sent events: one `data:` line per event, one chunk, one write, and a comment after 15 s of silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from harness.emulator.http import Exchange

KEEP_ALIVE = 15.0  # seconds; axum's KeepAlive::default()
EVENT_STREAM = [("content-type", "text/event-stream"), ("cache-control", "no-cache")]


class Shaper(Protocol):
    """A fault at the level of bytes: how an event leaves."""

    def send(self, exchange: Exchange, data: bytes) -> None: ...
    def end(self, exchange: Exchange) -> None: ...


class EventStream:
    """The body of one streamed answer."""

    __slots__ = ("_send", "_timer", "closed", "exchange", "quiet_since", "shaper")

    def __init__(self, exchange: Exchange, headers: list[tuple[str, str]], shaper: Shaper | None = None) -> None:
        self.exchange, self.shaper = exchange, shaper
        self.closed = False
        exchange.start_stream([*EVENT_STREAM, *headers])
        self._send: Callable[[bytes], None] = exchange.send
        if shaper is not None:
            self._send = lambda data: shaper.send(exchange, data)
        self.quiet_since = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._keep_alive)

    def event(self, data: bytes) -> None:
        """Send one event with this JSON."""
        if not self.closed:
            self.quiet_since = time.monotonic()
            self._send(b"data: %b\n\n" % data)

    def close(self) -> None:
        """The regular end of the stream."""
        if self.closed:
            return
        self.closed = True
        self._timer.cancel()
        if self.shaper is not None:
            self.shaper.end(self.exchange)
        else:
            self.exchange.end_stream()

    def drop(self) -> None:
        """The client is gone: nothing more to send."""
        self.closed = True
        self._timer.cancel()

    def _keep_alive(self) -> None:
        quiet = time.monotonic() - self.quiet_since
        if quiet >= KEEP_ALIVE - 1e-3:
            self.exchange.send(b":\n\n")
            quiet, self.quiet_since = 0.0, time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(KEEP_ALIVE - quiet, self._keep_alive)
