"""An engine that computes nothing: it answers like TGI's /generate_stream on a known schedule and logs what it wrote.

    python -m harness.load.null_engine --ttft-ms 100 --itl-ms 20 --log truth.jsonl

What a load process reports beside that log is its own error. The log is written when the process is told to end
(SIGTERM): one JSON object a request. Moments are CLOCK_MONOTONIC seconds: `received_at` the kernel's stamp of the
request's last segment, `written_at` one for each token, noted before its bytes are handed to the kernel. One thread,
one poll; it keeps its schedule up to about 30,000 tokens per second, and where it does not the log says so.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import select
import signal
import socket
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

from harness.load.stamps import Clock

SO_TIMESTAMPNS = 35
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FAULTS = ("429", "500", "sse", "drop", "short", "hang")
_NAP = 0.0002  # seconds; polls are only exact to a millisecond


@dataclass(frozen=True)
class Schedule:
    """When tokens are written. Seconds. tokens: where the request does not say.

    jitter: each gap differs by up to this. stall_share, stall: how often a gap is longer, and by how much. glue: tokens
    in one write. cut: writes that one event is spread over. fault, fault_share: what goes wrong and how often: `429`,
    `500` at once; `sse` an error event, `drop` the connection's end, `short` an early last token, `hang` silence, each
    in the middle of the answer. align: all answers step together, once every itl, as continuous batching does.
    """

    ttft: float = 0.1
    itl: float = 0.02
    tokens: int = 200
    jitter: float = 0.0
    stall_share: float = 0.0
    stall: float = 0.3
    glue: int = 1
    cut: int = 1
    fault: str | None = None
    fault_share: float = 0.0
    align: bool = False
    seed: int = 1


@dataclass
class Truth:
    """What really happened to one request. outcome: `done`, or the fault that was played."""

    request_id: str
    received_at: float
    written_at: array[float] = field(default_factory=lambda: array("d"))
    ended_at: float | None = None
    outcome: str = "done"


def read_log(path: Path) -> dict[str, Truth]:
    """The log of a null engine that has ended, by request id."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["request_id"]: Truth(**{**row, "written_at": array("d", row["written_at"])}) for row in rows}


@dataclass
class _Stream:
    """An answer under way. left: tokens to come; fails_at: the token at which the fault comes, if any."""

    client: _Client
    truth: Truth
    tokens: int
    due: float
    fails_at: int | None
    pieces: list[bytes] = field(default_factory=list)

    @property
    def written(self) -> int:
        return len(self.truth.written_at)


class _Client:
    """A connection: bytes of a request that is not whole yet."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket, self.waiting = connected, b""
        self.stream: _Stream | None = None


class NullEngine:
    """Serves on `listening` until `stop` is set; `truths` is the log."""

    def __init__(self, listening: socket.socket, schedule: Schedule) -> None:
        self._listening, self._schedule = listening, schedule
        self._rng, self._clock, self._order = random.Random(schedule.seed), Clock(), count()
        self._poll = select.epoll()
        self._poll.register(listening.fileno(), select.EPOLLIN)
        self._clients: dict[int, _Client] = {}
        self._due: list[tuple[float, int, _Stream]] = []
        self.truths: list[Truth] = []
        self.stop = False

    def serve(self) -> None:
        while not self.stop:
            wait = self._due[0][0] - time.monotonic() if self._due else 0.1
            if 0 < wait < 0.002:
                time.sleep(min(wait, _NAP))
                wait = 0.0
            for fd, _ in self._poll.poll(min(0.1, max(0.0, wait - 0.001)) if wait > 0 else 0):
                if fd == self._listening.fileno():
                    self._accept()
                else:
                    self._read(self._clients[fd])
            self._write_due()

    def _accept(self) -> None:
        self._clock.anchor()
        while True:
            try:
                connected, _ = self._listening.accept()
            except BlockingIOError:
                return
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._clients[connected.fileno()] = _Client(connected)
            self._poll.register(connected.fileno(), select.EPOLLIN)

    def _read(self, client: _Client) -> None:
        try:
            data, ancillary, _, _ = client.socket.recvmsg(1 << 18, 32)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            self._close(client)
            return
        client.waiting += data
        head, found, body = client.waiting.partition(b"\r\n\r\n")
        fields = _fields(head)
        if found and len(body) >= int(fields.get("content-length", 0)):
            client.waiting = b""
            stamp = ancillary[0][2] if ancillary else self._clock.stamp()
            self._answer(client, head.split(b" ", 2)[1].decode(), fields, body, float(self._clock.seconds([stamp])[0]))

    def _answer(self, client: _Client, path: str, fields: dict[str, str], body: bytes, received_at: float) -> None:
        if path != "/generate_stream":
            client.socket.send(_page(path))
            return
        truth = Truth(fields.get("x-request-id", ""), received_at)
        self.truths.append(truth)
        schedule, rng = self._schedule, self._rng
        fault = schedule.fault if rng.random() < schedule.fault_share else None
        if fault in ("429", "500"):
            truth.outcome, truth.ended_at = fault, time.monotonic()
            client.socket.send(_refusal(int(fault)))
            return
        asked = json.loads(body)["parameters"].get("max_new_tokens", schedule.tokens)
        if fault is not None:
            truth.outcome = fault
        fails_at = None if fault is None else max(1, asked // 2)
        client.stream = _Stream(client, truth, asked, received_at + schedule.ttft, fails_at)
        self._send(client, HEAD)
        self._plan(client.stream)

    def _plan(self, stream: _Stream) -> None:
        if self._schedule.align:
            stream.due = math.ceil(stream.due / self._schedule.itl - 1e-6) * self._schedule.itl
        heapq.heappush(self._due, (stream.due, next(self._order), stream))

    def _write_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            _, _, stream = heapq.heappop(self._due)
            if stream.client.stream is stream and self._write(stream):
                self._plan(stream)

    def _write(self, stream: _Stream) -> bool:
        """The next write of an answer; whether another one follows."""
        if stream.pieces:
            return self._write_piece(stream)
        if stream.fails_at is not None and stream.written >= stream.fails_at:
            return self._fail(stream)
        number = min(self._schedule.glue, stream.tokens - stream.written)
        events = b"".join(_event(stream.written + 1 + each, stream.tokens) for each in range(number))
        stream.due += self._gap() * number
        if self._schedule.cut > 1:
            stream.pieces = list(_cut(events, self._schedule.cut))
            return self._write_piece(stream)
        stream.truth.written_at.extend([time.monotonic()] * number)
        return self._send(stream.client, events) and not self._ended(stream)

    def _write_piece(self, stream: _Stream) -> bool:
        """A part of an event, the next one a tenth of a gap later; the token is there with the last."""
        piece = stream.pieces.pop(0)
        if stream.pieces:
            self._send(stream.client, piece)
            later = time.monotonic() + self._schedule.itl / 10
            heapq.heappush(self._due, (later, next(self._order), stream))
            return False
        stream.truth.written_at.append(time.monotonic())
        return self._send(stream.client, piece) and not self._ended(stream)

    def _ended(self, stream: _Stream) -> bool:
        if stream.written < stream.tokens:
            return False
        stream.truth.ended_at = time.monotonic()
        stream.client.stream = None
        self._send(stream.client, b"0\r\n\r\n")
        return True

    def _fail(self, stream: _Stream) -> bool:
        stream.truth.ended_at = time.monotonic()
        client, fault = stream.client, stream.truth.outcome
        client.stream = None
        if fault == "sse":
            error = {"error": "Request failed during generation: out of memory", "error_type": "generation"}
            self._send(client, _chunk(b"data:" + json.dumps(error).encode() + b"\n\n") + b"0\r\n\r\n")
        elif fault == "short":
            stream.truth.written_at.append(time.monotonic())
            self._send(client, _event(stream.written, stream.written, "eos_token") + b"0\r\n\r\n")
        elif fault == "drop":
            self._close(client)
        return False

    def _gap(self) -> float:
        schedule, rng = self._schedule, self._rng
        gap = schedule.itl + schedule.jitter * (2 * rng.random() - 1)
        return gap + (schedule.stall if schedule.stall_share and rng.random() < schedule.stall_share else 0.0)

    def _send(self, client: _Client, data: bytes) -> bool:
        """A client that does not read loses its connection: a queue here would falsify the log."""
        try:
            if client.socket.send(data) == len(data):
                return True
        except OSError:
            pass
        self._close(client)
        return False

    def _close(self, client: _Client) -> None:
        client.stream = None
        if self._clients.pop(client.socket.fileno(), None) is not None:
            client.socket.close()


def _fields(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


@lru_cache(maxsize=65536)
def _event(number: int, tokens: int, reason: str = "length") -> bytes:
    """The chunk of a token, of the last one with the answer's details."""
    token = {"id": 100 + number, "text": " word", "logprob": -0.25, "special": False}
    event: dict[str, Any] = {"index": number, "token": token, "generated_text": None, "details": None}
    if number == tokens:
        event["generated_text"] = " word" * tokens
        event["details"] = {"finish_reason": reason, "generated_tokens": tokens, "seed": None}
    return _chunk(b"data:" + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def _cut(data: bytes, parts: int) -> Iterator[bytes]:
    size = -(-len(data) // parts)
    return (data[at : at + size] for at in range(0, len(data), size))


_INFO = {
    "model_id": "null-engine",
    "max_concurrent_requests": 65536,
    "max_input_tokens": 131071,
    "max_total_tokens": 131072,
    "version": "0",
    "docker_label": None,
}


def _page(path: str) -> bytes:
    if path == "/info":
        return _whole(200, json.dumps(_INFO).encode())
    return _whole(200 if path == "/health" else 404, b"")


def _refusal(status: int) -> bytes:
    texts = {429: ("Model is overloaded", "overloaded"), 500: ("Request failed during generation", "generation")}
    error, kind = texts[status]
    return _whole(status, json.dumps({"error": error, "error_type": kind}).encode())


def _whole(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d Said\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        status,
        len(body),
        body,
    )


def write_log(truths: Sequence[Truth], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for each in truths:
            file.write(json.dumps({**vars(each), "written_at": each.written_at.tolist()}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m harness.load.null_engine", description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path)
    for name in ("ttft", "itl", "jitter", "stall"):
        parser.add_argument(f"--{name}-ms", type=float, default=1000 * getattr(Schedule, name))
    for name in ("tokens", "glue", "cut", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Schedule, name))
    parser.add_argument("--align", action="store_true")
    parser.add_argument("--stall-share", type=float, default=0.0)
    parser.add_argument("--fault", choices=FAULTS)
    parser.add_argument("--fault-share", type=float, default=0.0)
    options = vars(parser.parse_args())
    log, port = options.pop("log"), options.pop("port")
    seconds = {name.removesuffix("_ms"): value / 1000 for name, value in options.items() if name.endswith("_ms")}
    rest = {name: value for name, value in options.items() if not name.endswith("_ms")}
    listening = socket.create_server(("127.0.0.1", port), backlog=4096)
    listening.setblocking(False)
    engine = NullEngine(listening, Schedule(**seconds, **rest))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(engine, "stop", True))
    print(f"null engine: listening on http://127.0.0.1:{listening.getsockname()[1]}", file=sys.stderr, flush=True)
    engine.serve()
    if log is not None:
        write_log(engine.truths, log)


if __name__ == "__main__":
    main()
