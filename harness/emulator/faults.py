"""Faults on demand: a scenario lists them, each with its kind and when it happens.

kinds, with the keys they take besides `kind`:
    download_error    text                        the download fails, exit 1
    load_error        text, signal                the shard dies while loading, exit 1
    oom_at_warm_up    text                        not enough memory in warm-up, exit 1
    oom               after_requests, at_running  a forward runs out of memory: its requests fail, the server ends
    crash             after_requests, at_running, signal   the shard is killed
    error             after_requests, at_running, every, text   one forward fails, the server lives on
    hang              after_requests, at_running, seconds  a forward never ends, or lasts so much longer
    slow_shard        factor, after_requests      every forward takes that many times as long
    overload          every, after_requests, requests   requests are refused with 429 although there is room
    slow_health       seconds                     /health answers that much later
    stream_cut        after_events, every         the connection ends in the middle of an event
    stream_error      after_events, every, text   an error event in a 200 stream, then its end
    stream_garbage    after_events, every         bytes that are not an event
    stream_split      size, seconds               events leave in pieces of this many bytes
    stream_glue       events                      this many events leave together

after_requests: how many finished or running requests came before; at_running: how many run together; every: only each
n-th one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.emulator.http import Exchange
from harness.emulator.problems import GENERATION, Refused
from harness.emulator.sse import Shaper
from harness.errors import UsageError

_KEYS: dict[str, dict[str, Any]] = {
    "download_error": {"text": "HfHubHTTPError: 503 Server Error: Service Unavailable"},
    "load_error": {"text": "RuntimeError: the shard was told to fail", "signal": 0},
    "oom_at_warm_up": {"text": ""},
    "oom": {"after_requests": 0, "at_running": 0},
    "crash": {"after_requests": 0, "at_running": 0, "signal": 9},
    "error": {"after_requests": 0, "at_running": 0, "every": 1, "text": "the forward was told to fail"},
    "hang": {"after_requests": 0, "at_running": 0, "seconds": 0.0},
    "slow_shard": {"factor": 2.0, "after_requests": 0},
    "overload": {"every": 1, "after_requests": 0, "requests": 0},
    "slow_health": {"seconds": 1.0},
    "stream_cut": {"after_events": 2, "every": 1},
    "stream_error": {"after_events": 2, "every": 1, "text": "the stream was told to fail"},
    "stream_garbage": {"after_events": 2, "every": 1},
    "stream_split": {"size": 1, "seconds": 0.0},
    "stream_glue": {"events": 2},
}
_STREAM = ("stream_cut", "stream_error", "stream_garbage", "stream_split", "stream_glue")
GARBAGE = b"\x00\xff\xfenot an event\r\n{]"


@dataclass(frozen=True)
class Fault:
    """One fault with all its keys, defaults filled in."""

    kind: str
    keys: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.keys[key]


_AT_LEAST_ONE = ("every", "size", "events")


def _fits(key: str, value: Any, like: Any) -> bool:
    """A text where the default is one, else a number that is not negative."""
    if isinstance(like, str):
        return isinstance(value, str)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and value >= (1 if key in _AT_LEAST_ONE else 0)


def fault_from_mapping(entry: Any, where: str) -> Fault:
    """A fault of the scenario file. Raises UsageError."""
    if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str) or entry["kind"] not in _KEYS:
        raise UsageError(f"unknown fault {entry!r}", where=f"{where}: faults", advice=f"Known: {', '.join(_KEYS)}.")
    kind = entry["kind"]
    keys = dict(_KEYS[kind])
    for key, value in entry.items():
        if key == "kind":
            continue
        if key not in keys or not _fits(key, value, keys[key]):
            known = ", ".join(keys) or "none"
            raise UsageError(f"wrong key or value {key}: {value!r}", where=f"{where}: {kind}", advice=f"Keys: {known}.")
        keys[key] = value
    return Fault(kind, keys)


@dataclass
class FaultEffect:
    """What a forward is to suffer. fatal: the shard ends. delay: seconds more. text: of the failure, if it fails."""

    delay: float = 0.0
    text: str | None = None
    fatal: bool = False
    signal: int = 0


class FaultBook:
    """Which faults strike when. requests: how many were queued so far. error_frame: of an engine that is not TGI."""

    def __init__(self, faults: tuple[Fault, ...], error_frame: Callable[[str], str] | None = None) -> None:
        self._faults, self._error_frame = faults, error_frame
        self.requests = 0
        self._asked = 0
        self._forwards = 0
        self._streams = 0
        self._refused = 0
        self._hung = False

    def of(self, kind: str) -> Fault | None:
        return next((each for each in self._faults if each.kind == kind), None)

    def _due(self, fault: Fault, running: int) -> bool:
        return self.requests > fault["after_requests"] and running >= fault["at_running"]

    def forward(self, running: int, seconds: float) -> FaultEffect:
        """Asked before each forward. seconds: how long it would take."""
        self._forwards += 1
        strike = FaultEffect()
        for fault in self._faults:
            if fault.kind == "slow_shard" and self.requests > fault["after_requests"]:
                strike.delay += seconds * (fault["factor"] - 1)
            elif fault.kind in ("oom", "crash", "error", "hang") and self._due(fault, running):
                self._one(fault, strike)
        return strike

    def _one(self, fault: Fault, strike: FaultEffect) -> None:
        if fault.kind == "oom":
            strike.text, strike.fatal = OUT_OF_MEMORY, True
        elif fault.kind == "crash":
            strike.text, strike.fatal, strike.signal = "transport error", True, fault["signal"]
        elif fault.kind == "error" and self._forwards % fault["every"] == 0:
            strike.text = fault["text"]
        elif fault.kind == "hang" and not self._hung:
            self._hung = True
            strike.delay += fault["seconds"] or 1e9

    def refuses(self) -> bool:
        """Asked for each request: a 429 although there is room."""
        self._asked += 1
        fault = self.of("overload")
        if fault is None or self._asked <= fault["after_requests"] or self._asked % fault["every"]:
            return False
        if fault["requests"] and self._refused >= fault["requests"]:
            return False
        self._refused += 1
        return True

    def shaper(self) -> Shaper | None:
        """Asked for each streamed answer: how its bytes leave."""
        self._streams += 1
        for fault in self._faults:
            if fault.kind in _STREAM and self._streams % fault.keys.get("every", 1) == 0:
                if fault.kind == "stream_error":
                    return _Error(fault, self._error_frame)
                return _SHAPERS[fault.kind](fault)
        return None


OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 21.98 GiB of which 0 bytes is free."
)


class _Counting:
    """Counts events; what happens at the one after `after_events` is the subclass's."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.sent = fault, 0

    def send(self, exchange: Exchange, data: bytes) -> None:
        if self.sent == self.fault["after_events"]:
            self.strike(exchange, data)
        elif self.sent < self.fault["after_events"]:
            exchange.send(data)
        self.sent += 1

    def strike(self, exchange: Exchange, data: bytes) -> None:
        raise NotImplementedError

    def end(self, exchange: Exchange) -> None:
        exchange.end_stream()


class _Cut(_Counting):
    def strike(self, exchange: Exchange, data: bytes) -> None:
        exchange.send(data[: len(data) // 2])
        gone, exchange.on_gone = exchange.on_gone, None
        exchange.cut()
        if gone is not None:
            gone()

    def end(self, exchange: Exchange) -> None:
        if self.sent <= self.fault["after_events"]:
            exchange.end_stream()


class _Error(_Counting):
    def __init__(self, fault: Fault, frame: Callable[[str], str] | None) -> None:
        super().__init__(fault)
        self.frame = frame

    def strike(self, exchange: Exchange, data: bytes) -> None:
        if self.frame is not None:
            exchange.send(b"data: %b\n\n" % self.frame(self.fault["text"]).encode())
            return
        problem = Refused(GENERATION, f"Server error: {self.fault['text']}")
        native = exchange.path in ("/", "/generate_stream", "/invocations")
        exchange.send(b"data: %b\n\n" % (problem.native() if native else problem.openai()))


class _Garbage(_Counting):
    def send(self, exchange: Exchange, data: bytes) -> None:
        if self.sent == self.fault["after_events"]:
            exchange.send(GARBAGE)
        exchange.send(data)
        self.sent += 1


class _Split:
    """Pieces of `size` bytes, each its own chunk and write, `seconds` apart."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.waiting: list[bytes] = []
        self.ended = False
        self.timer: asyncio.TimerHandle | None = None

    def send(self, exchange: Exchange, data: bytes) -> None:
        size = max(1, int(self.fault["size"]))
        self.waiting += [data[at : at + size] for at in range(0, len(data), size)]
        if self.timer is None:
            self._next(exchange)

    def end(self, exchange: Exchange) -> None:
        self.ended = True
        if self.timer is None:
            exchange.end_stream()

    def _next(self, exchange: Exchange) -> None:
        self.timer = None
        if self.waiting:
            exchange.send(self.waiting.pop(0))
            # Even without a pause each piece leaves in a turn of its own, as a write of its own.
            self.timer = asyncio.get_running_loop().call_later(self.fault["seconds"], self._next, exchange)
        elif self.ended:
            exchange.end_stream()


class _Glue:
    """`events` events in one chunk."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.waiting: list[bytes] = []

    def send(self, exchange: Exchange, data: bytes) -> None:
        self.waiting.append(data)
        if len(self.waiting) >= self.fault["events"]:
            self._flush(exchange)

    def end(self, exchange: Exchange) -> None:
        self._flush(exchange)
        exchange.end_stream()

    def _flush(self, exchange: Exchange) -> None:
        if self.waiting:
            exchange.send(b"".join(self.waiting))
            self.waiting.clear()


_SHAPERS: dict[str, Callable[[Fault], Shaper]] = {
    "stream_cut": _Cut,
    "stream_garbage": _Garbage,
    "stream_split": _Split,
    "stream_glue": _Glue,
}
