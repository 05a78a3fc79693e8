"""llama-server as a program on disk, and as a process that tests start, ask and end."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHAT = "/v1/chat/completions"
_LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
PATIENCE = 60.0
"""Seconds after which a wait has failed."""
_PROGRAM = """#!/bin/sh
# One thread each: on few cores several of llama.cpp's threads mostly wait for one another.
export LLAMA_ARG_THREADS="${{LLAMA_ARG_THREADS:-1}}"
exec {python} -I {server} "$@"
"""


def missing() -> str | None:
    """Why llama.cpp's server cannot run here; None where it can."""
    absent = [name for name in ("gguf", "xllamacpp") if importlib.util.find_spec(name) is None]
    return f"no Python package {' and '.join(absent)} here (the extra [dev] has them for Linux)" if absent else None


def write_program(path: Path) -> Path:
    """An executable file that takes llama-server's command line."""
    server = Path(__file__).with_name("server.py")
    path.write_text(_PROGRAM.format(python=shlex.quote(sys.executable), server=shlex.quote(str(server))))
    path.chmod(0o755)
    return path


@dataclass
class Answer:
    """status, headers with small letters, and the body."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def frames(self) -> list[str]:
        """What stands behind `data: ` in each event of a stream."""
        return [part.removeprefix("data: ") for part in self.text.split("\n\n") if part]

    def events(self) -> list[Any]:
        """The JSON of all events but `[DONE]`."""
        return [json.loads(frame) for frame in self.frames if frame != "[DONE]"]

    def words(self) -> list[str]:
        """The text of a streamed chat, cut at blanks."""
        deltas = (choice["delta"] for event in self.events() for choice in event.get("choices", []))
        return "".join(delta.get("content") or "" for delta in deltas).split()


class LlamaServer:
    """A process of llama-server on a port of its own choice. What it logs goes to a file."""

    def __init__(self, program: Path, log: Path, *arguments: str, wait: bool = True, **environment: str) -> None:
        port = () if "--port" in arguments else ("--port", "0")
        self._log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [str(program), *port, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **environment},
            )
        if wait and not self.started():
            self.stop(signal.SIGKILL)
            raise RuntimeError(self.log)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def port(self) -> int:
        found = _LISTENING.search(self.log)
        assert found, self.log
        return int(found[1])

    def started(self) -> bool:
        """Waits until the model is loaded or the process has ended."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            if _LISTENING.search(self.log) and self._handles_signals():
                return True
            time.sleep(0.01)
        return False

    def _handles_signals(self) -> bool:
        """Whether a signal would end it in order by now: it listens a moment before."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("SigCgt:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1 == 1

    def ask(self, method: str, path: str, body: object = None, *, port: int = 0, **headers: str) -> Answer:
        """One request on a connection of its own, read to its end."""
        with self._open(method, path, body, port or self.port, headers) as response:
            return Answer(response.status, _headers(response), response.read().decode())

    def chat(self, words: int, **fields: Any) -> Answer:
        """A chat with a prompt of so many words, each one token, at temperature 0."""
        return self.ask("POST", CHAT, conversation(words, **fields))

    @contextmanager
    def streaming(self, words: int, **fields: Any) -> Iterator[http.client.HTTPResponse]:
        """A chat whose stream is not read yet; leaving closes the connection."""
        with self._open("POST", CHAT, conversation(words, stream=True, **fields), self.port, {}) as response:
            yield response

    def metrics(self) -> dict[str, float]:
        """All samples of /metrics without the prefix `llamacpp:`."""
        lines = self.ask("GET", "/metrics").text.splitlines()
        samples = (line.removeprefix("llamacpp:").split() for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it by a signal, for good if it does not end in time; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(10)

    @contextmanager
    def _open(
        self, method: str, path: str, body: object, port: int, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json", **given})
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()


def conversation(words: int, **fields: Any) -> dict[str, Any]:
    """The body of a chat with one message of so many words."""
    message = {"role": "user", "content": " ".join(["time"] * words)}
    return {"messages": [message], "temperature": 0, **fields}


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}
