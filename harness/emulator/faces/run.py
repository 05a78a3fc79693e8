"""Runs an engine's emulation from its first line to its exit code: what all have in common.

A face says what it logs, refuses and serves (Face); here are the boot's phases, signals, faults, the clock behind the
scheduler, the port, and the file with the truth.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import uvloop

from harness.catalog.gpus import Gpu, find_gpu
from harness.catalog.shapes import ModelShape
from harness.emulator.boot import pause
from harness.emulator.faces.answers import PoolEngine
from harness.emulator.faces.flags import EmulatorOptions
from harness.emulator.faces.wire import FaceApp
from harness.emulator.faults import FaultBook
from harness.emulator.http import REASONS, Connection, Exchange
from harness.emulator.model import ServedModel, choose, load_model
from harness.simulator.cost import CostModel
from harness.simulator.laws import DoesNotStart, Pool
from harness.simulator.policies import PoolScheduler
from harness.simulator.scheduler import EngineCall

_OWN_ADMISSION = 3e-4  # seconds from a request's last byte to its place in the queue, measured
_BACKLOG = 2048


_BY_NAME = re.compile(r"[-_.](awq|gptq|fp8|w4a16|w8a8|mxfp4)\b", re.IGNORECASE)
_AS_THE_CATALOGUE = {"w8a8": "fp8", "gptq_marlin": "gptq", "awq_marlin": "awq", "compressed-tensors": "fp8"}


def quantization_of(model: ServedModel) -> str | None:
    """How the checkpoint is quantised, in the catalogue's words: by its config.json, else by its name."""
    section = (model.config or {}).get("quantization_config")
    method = section.get("quant_method") if isinstance(section, Mapping) else None
    if method is None:
        found = _BY_NAME.search(model.name)
        method = found[1].lower() if found else None
    return None if method is None else _AS_THE_CATALOGUE.get(str(method), str(method))


class StartFailed(Exception):
    """The start ends with this exit code; everything is said already."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class Stopped(Exception):
    """A signal came while starting."""


class Face(ABC):
    """One start of one engine's face."""

    interrupted = 0  # exit code of a start that a signal ends

    def __init__(self, own: EmulatorOptions, environment: Mapping[str, str]) -> None:
        self.own, self.environment = own, environment
        self.stop: asyncio.Event
        self.book = FaultBook(own.scenario.faults, self.error_frame)
        self.died: asyncio.Future[str]

    def main(self) -> int:
        """Run until the end. Returns the exit code."""
        return uvloop.run(self._main())

    async def _main(self) -> int:
        self.stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.died = loop.create_future()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, self.stop.set)
        try:
            return await self.run()
        except StartFailed as failed:
            return failed.code
        except Stopped:
            return self.interrupted

    @abstractmethod
    async def run(self) -> int:
        """Everything between the first line and the exit code. Raises StartFailed, Stopped."""

    @abstractmethod
    def error_frame(self, text: str) -> str:
        """What a stream carries that fails in the middle."""

    # What a start needs.

    def choose(self, name: str | None) -> tuple[ServedModel, Gpu]:
        """Model and GPU. Raises NoSuchModel."""
        model, gpu = choose(name, self.own.gpu)
        return load_model(model), find_gpu(gpu)

    async def wait(self, seconds: float) -> None:
        """A phase of the boot. Raises Stopped."""
        if not await pause(seconds, self.stop):
            raise Stopped

    def fail(self, code: int = 1) -> NoReturn:
        raise StartFailed(code)

    def write_truth(self, engine: str, shape: ModelShape, gpu: Gpu, outcome: Pool | DoesNotStart) -> None:
        """What a prober is graded by, and never reads."""
        if self.own.truth is None:
            return
        document = {
            "engine": engine,
            "model": shape.name,
            "gpu": gpu.name,
            "world": asdict(self.own.scenario.world),
            "starts": isinstance(outcome, Pool),
            "outcome": asdict(outcome),
        }
        if isinstance(outcome, Pool):
            document["usable_tokens"] = outcome.usable_tokens
        Path(self.own.truth).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    # Serving.

    def engine(self, scheduler: PoolScheduler, cost: CostModel, model: ServedModel, slower: float = 1.0) -> PoolEngine:
        """The scheduler behind the clock, with the faults that the scenario asks for."""
        speed = self.own.speed / slower

        def seconds(call: EngineCall) -> float:
            return cost.seconds(call.step) / speed

        def admission(tokens: int) -> float:
            return max(0.0, cost.request_seconds(tokens) / self.own.speed - _OWN_ADMISSION)

        engine = PoolEngine(scheduler, seconds, admission, model.tokenizer, self.own.scenario.answers.drawer())
        scheduler.spoken = lambda request, index: request.owner.spoken(index).id  # type: ignore[attr-defined]
        engine.before_call = lambda call: self._strike(engine, call)
        return engine

    def _strike(self, engine: PoolEngine, call: EngineCall) -> float:
        self.book.requests = engine.requests
        strike = self.book.forward(len(call.members), engine.seconds(call))
        if strike.text is not None:
            engine.fail(strike.text)
            if strike.fatal:
                engine.dead = True
                engine.break_down(strike.text)
                if not self.died.done():
                    self.died.set_result(f"signal {strike.signal}" if strike.signal else strike.text)
        return strike.delay

    def listening_socket(self, host: str, port: int) -> socket.socket:
        """A bound socket that does not listen yet. Raises OSError."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            sock.close()
            raise
        return sock

    async def serve(self, app: FaceApp, sock: socket.socket) -> asyncio.Server:
        """Accept connections from now on."""
        sock.listen(_BACKLOG)
        nodelay = self.own.scenario.nodelay
        return await asyncio.get_running_loop().create_server(
            lambda: self.connection(app, nodelay), sock=sock, backlog=_BACKLOG
        )

    def say_where(self, sock: socket.socket) -> None:
        """On stderr, when the model is loaded: readers of a log take the words for just that."""
        host, port = sock.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"harness: listening on http://{shown}:{port}", file=sys.stderr, flush=True)

    def connection(self, app: FaceApp, nodelay: bool) -> Connection:
        return Connection(app, nodelay)

    def fault(self, kind: str) -> str | None:
        """The text of a start's fault that the scenario asks for."""
        fault = self.own.scenario.fault(kind)
        return None if fault is None else str(fault["text"])

    async def until_end(self) -> str | None:
        """Wait for a signal (None) or for the model's process to die (what it left)."""
        stopping = asyncio.ensure_future(self.stop.wait())
        self.died.add_done_callback(lambda _: self.stop.set())
        await stopping
        return self.died.result() if self.died.done() else None


async def emptied(app: FaceApp, seconds: float | None) -> bool:
    """Let connections end by themselves; False when these seconds were not enough. None waits for ever."""
    for connection in list(app.connections):
        connection.drain()
    loop = asyncio.get_running_loop()
    end = None if seconds is None else loop.time() + seconds
    while app.connections:
        if end is not None and loop.time() >= end:
            return False
        await asyncio.sleep(0.02)
    return True


def break_off(app: FaceApp) -> None:
    """End every connection, answered or not."""
    for connection in list(app.connections):
        connection.abort()


def access_line(exchange: Exchange, status: int) -> str:
    """A request in the access log of uvicorn."""
    peer = exchange.connection.transport.get_extra_info("peername") or ("", 0)
    what = f'"{exchange.method} {exchange.path} HTTP/1.{exchange.head.minor}" {status} {REASONS[status]}'
    return f"{peer[0]}:{peer[1]} - {what}"
