"""Engines that log what they really wrote: the project's null engine, or a truth server in C that lies elsewhere."""

from __future__ import annotations

import csv
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.load.null_engine import read_log


@dataclass(frozen=True)
class Wrote:
    """What happened to one request. CLOCK_MONOTONIC seconds. done: the whole answer was written."""

    received_at: float
    token_at: NDArray[np.float64]
    ended_at: float
    done: bool


@dataclass(frozen=True)
class Shape:
    """What is served. Seconds; stall: (share, length); glue: tokens in one write; align: all streams step together."""

    ttft: float = 0.1
    itl: float = 0.02
    tokens: int = 200
    stall: tuple[float, float] | None = None
    glue: int = 1
    align: bool = False


class Judge:
    """A running engine. `stop` ends it and gives the truth by request id."""

    def __init__(self, shape: Shape, folder: Path, server: Path | None, prefix: Sequence[str]) -> None:
        """server: the program of the truth server; None takes the null engine. prefix: a command to run it under."""
        self._server, self._folder = server, folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        words = _null_words(shape, folder) if server is None else [str(server), *_server_words(shape, folder)]
        self.process = subprocess.Popen(
            [*prefix, *words, "--port", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.url = f"http://127.0.0.1:{port}"
        _await_port(port)

    def freeze(self, seconds: float) -> None:
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)

    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def stop(self) -> dict[str, Wrote]:
        self.process.terminate()
        self.process.wait(timeout=60)
        return _from_server(self._folder) if self._server is not None else _from_null(self._folder)


def _null_words(shape: Shape, folder: Path) -> list[str]:
    words = [sys.executable, "-m", "harness.load.null_engine", "--log", str(folder / "truth.jsonl")]
    words += ["--ttft-ms", f"{shape.ttft * 1000}", "--itl-ms", f"{shape.itl * 1000}", "--glue", str(shape.glue)]
    if shape.stall is not None:
        words += ["--stall-share", str(shape.stall[0]), "--stall-ms", f"{shape.stall[1] * 1000}"]
    return words + (["--align"] if shape.align else [])


def _server_words(shape: Shape, folder: Path) -> list[str]:
    words = ["--quiet", "--dump", str(folder / "requests.csv"), "--dump-itl", str(folder / "gaps.csv")]
    words += ["--ttft-ms", f"{shape.ttft * 1000}", "--itl-ms", f"{shape.itl * 1000}"]
    if shape.stall is not None:
        words += ["--stall-p", str(shape.stall[0]), "--stall-ms", f"{shape.stall[1] * 1000}"]
    if shape.glue > 1:
        words += ["--coalesce", str(shape.glue)]
    return words + (["--align"] if shape.align else [])


def _await_port(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the judge did not start")


def _from_null(folder: Path) -> dict[str, Wrote]:
    return {
        name: Wrote(each.received_at, np.array(each.written_at), each.ended_at or 0.0, each.ended_at is not None)
        for name, each in read_log(folder / "truth.jsonl").items()
    }


def _from_server(folder: Path) -> dict[str, Wrote]:
    with (folder / "requests.csv").open() as file:
        rows: Mapping[str, Mapping[str, str]] = {row["request_id"]: row for row in csv.DictReader(file)}
    found = {}
    with (folder / "gaps.csv").open() as file:
        for line in file:
            name, *gaps = line.strip().split(",")
            if name not in rows:
                continue
            row = rows[name]
            moments = np.cumsum(np.array(gaps, dtype=np.int64)) * 1e-9
            found[name] = Wrote(int(row["t_recv_ns"]) * 1e-9, moments, int(row["t_end_ns"]) * 1e-9, row["done"] == "1")
    return found
