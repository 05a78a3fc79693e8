"""Emulators as processes, and a bare HTTP client that shows every byte."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
LIMITS = ("--max-input-tokens", "1024", "--max-total-tokens", "2048", "--max-batch-prefill-tokens", "4096")


class Emulator:
    """A running emulator. lines: what it said on stdout so far. face: of another engine than TGI."""

    def __init__(
        self, *arguments: str, face: str | None = None, env: dict[str, str] | None = None, wait: bool = True
    ) -> None:
        kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        environment = {**kept, "NO_COLOR": "1", "LOG_COLORIZE": "1", **(env or {})}
        port = () if "--port" in arguments else ("--port", "0")
        engine = () if face is None else ("--engine", face)
        command = [sys.executable, "-m", "harness.emulator", *engine, *port, *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self.port = 0
        self._bound = threading.Event()
        self._threads = [
            threading.Thread(target=self._read_stdout, daemon=True),
            threading.Thread(target=self._read_stderr, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        if wait and not self._bound.wait(30):
            self.stop()
            raise RuntimeError("".join(self.errors) + "\n".join(self.lines[-20:]))

    @property
    def listens(self) -> bool:
        """Whether it has said so yet, or has ended."""
        return self._bound.is_set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def stderr(self) -> str:
        return "".join(self.errors)

    def texts(self) -> list[str]:
        """The log without times and levels."""
        return [re.sub(r"^\S+Z +[A-Z]+ ", "", line) for line in self.lines]

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found = LISTENING.search(line)
            if found:
                self.port = int(found[1])
                self._bound.set()
            else:
                self.errors.append(line)
        self._bound.set()

    def ended(self, timeout: float = 30) -> int:
        """The exit code, when all output has been read."""
        code = self.process.wait(timeout)
        for thread in self._threads:
            thread.join(timeout)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.ended(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.ended(5)

    def open(self) -> Wire:
        return Wire(self.port)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """One request on a connection of its own. body: bytes as they are, anything else as JSON."""
        with self.open() as wire:
            wire.send(method, path, body, **headers)
            return wire.reply(head=method == "HEAD")

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        return self.ask("POST", path, body, **headers)

    def metrics(self) -> dict[str, float]:
        """All samples of /metrics."""
        text = self.ask("GET", "/metrics").body.decode()
        pairs = (line.rsplit(" ", 1) for line in text.split("\n") if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


@dataclass
class Reply:
    """An answer as it came. chunks: of the transfer coding, without the last empty one."""

    status: int
    headers: dict[str, str]
    body: bytes
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = True

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[str]:
        return [part for part in self.body.decode().split("\n\n") if part]

    def tokens(self) -> list[Any]:
        """The JSON of all events but `[DONE]`."""
        texts = [event.removeprefix("data: ") for event in self.events]
        return [json.loads(text) for text in texts if text != "[DONE]"]


class Wire:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.buffer = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "host: test"]
        if body is not None:
            given = {key.replace("_", "-"): value for key, value in headers.items()}
            lines += [f"{k}: {v}" for k, v in {"content-type": "application/json", **given}.items() if v]
            lines.append(f"content-length: {len(data)}")
        else:
            lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
        self.raw(("\r\n".join(lines) + "\r\n\r\n").encode() + data)

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            if not self._more():
                raise EOFError(self.buffer)
        before, _, self.buffer = self.buffer.partition(mark)
        return before

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not self._more():
                raise EOFError(self.buffer)
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def head(self) -> tuple[int, dict[str, str]]:
        lines = self.until(b"\r\n\r\n").decode().split("\r\n")
        return int(lines[0].split(" ")[1]), dict(line.split(": ", 1) for line in lines[1:])

    def chunk(self) -> bytes:
        data = self.exactly(int(self.until(b"\r\n"), 16))
        self.exactly(2)
        return data

    def reply(self, *, head: bool = False) -> Reply:
        status, headers = self.head()
        if head:
            return Reply(status, headers, b"")
        if headers.get("transfer-encoding") != "chunked":
            return Reply(status, headers, self.exactly(int(headers.get("content-length", "0"))))
        chunks: list[bytes] = []
        try:
            while data := self.chunk():
                chunks.append(data)
        except EOFError:
            return Reply(status, headers, b"".join(chunks), chunks, complete=False)
        return Reply(status, headers, b"".join(chunks), chunks)

    def closed(self) -> bool:
        """Whether the other side ends the connection now."""
        return not self.buffer and self.socket.recv(1) == b""


@pytest.fixture(scope="session")
def server() -> Iterator[Emulator]:
    """One emulator for all tests that leave it as it was; a hundred times as fast as an L4."""
    running = Emulator(*LIMITS, "--model-id", "Qwen/Qwen2.5-0.5B", "--gpu", "L4", "--speed", "100")
    yield running
    running.stop()


@pytest.fixture
def launch() -> Iterator[Callable[..., Emulator]]:
    """Start emulators that end with the test."""
    started: list[Emulator] = []

    def start(*arguments: str, **options: Any) -> Emulator:
        started.append(Emulator(*arguments, **options))
        return started[-1]

    yield start
    for each in started:
        each.stop(signal.SIGKILL)


@pytest.fixture
def scenario(tmp_path: Path) -> Callable[..., str]:
    """Write a scenario file and give its path."""

    def write(**sections: Any) -> str:
        path = tmp_path / "scenario.json"
        path.write_text(json.dumps(sections))
        return str(path)

    return write
