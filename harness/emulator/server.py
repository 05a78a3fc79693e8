"""Plays TGI's router: everything behind one port, from the end of warm-up to the last answer."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from harness.emulator.app import App, Info, Web
from harness.emulator.engine import Engine
from harness.emulator.faults import FaultBook
from harness.emulator.hardware import memory_watch, timings
from harness.emulator.http import Connection
from harness.emulator.infer import Infer
from harness.emulator.log import Log
from harness.emulator.metrics import Metrics
from harness.emulator.model import ServedModel
from harness.emulator.options import Options
from harness.emulator.routes import ROUTES
from harness.emulator.scenario import Scenario
from harness.emulator.tokens import Speech
from harness.emulator.validation import Limits, Validation
from harness.simulator.memory import Budget, ResolvedPlan, ServingPlan
from harness.simulator.scheduler import EngineCall, EngineSettings

_BACKLOG = 1024
_DEATH = (0.4, 0.1)  # seconds until the launcher notices that the shard is gone: by its own failure, by a signal
_NO_SOCKET = "error trying to connect: No such file or directory (os error 2)"


class PortTaken(Exception):
    """The port cannot be bound."""

    def __init__(self, address: str, error: OSError) -> None:
        self.address = address
        self.number = error.errno or 0
        self.reason = os.strerror(self.number)
        super().__init__(f"{address}: {self.reason}")


@dataclass(frozen=True)
class RouterSettings:
    """What a router is made of."""

    options: Options
    model: ServedModel
    plan: ServingPlan
    resolved: ResolvedPlan
    budget: Budget
    compute_type: str


def compute_type(environment: Mapping[str, str], shards: int, card: str) -> str:
    """The header x-compute-type: the variable, or shards and card as nvidia-smi names it (main.rs:1736-1751)."""
    given = environment.get("COMPUTE_TYPE")
    if given is not None:
        return given
    name = card.replace(" ", "-").lower()
    if name in ("nvidia-h100-80gb-hbm3", "nvidia-h100-nvl", "nvidia-h100"):
        name = "nvidia-h100-80fb-hbm3"  # sic
    elif name.startswith("nvidia-a100"):
        name = "nvidia-a100-sxm4-80gb"
    return f"{shards}-{name}"


def engine_settings(settings: RouterSettings, scenario: Scenario) -> EngineSettings:
    """The scheduler's settings."""
    options, resolved, budget = settings.options, settings.resolved, settings.budget
    return EngineSettings(
        max_batch_prefill_tokens=resolved.max_batch_prefill_tokens,
        max_batch_total_tokens=budget.tokens,
        block_size=resolved.block_size,
        chunking=resolved.chunking,
        prefix_cache=resolved.prefix_cache,
        padded=resolved.padded,
        speculate=settings.plan.speculate,
        waiting_served_ratio=options.waiting_served_ratio,
        max_waiting_tokens=options.max_waiting_tokens,
        max_batch_size=options.max_batch_size,
        **scenario.scheduler,
    )


class Router:
    """One serving router. died: done when the shard is gone, with what it left: its stderr, or `signal N`."""

    def __init__(self, settings: RouterSettings, log: Log, scenario: Scenario) -> None:
        self._book = FaultBook(scenario.faults)
        self._loop = asyncio.get_running_loop()
        self.died: asyncio.Future[str] = self._loop.create_future()
        self.url = ""
        self._nodelay = scenario.nodelay
        self._server: asyncio.Server | None = None
        self._settings = settings
        options, budget = settings.options, settings.budget
        metrics = Metrics(budget.max_input_tokens, budget.max_total_tokens)
        self._seconds, admission = timings(settings.resolved, scenario.world, budget, options.speed)
        self._fits = memory_watch(settings.plan, scenario.world, budget)
        self.engine = Engine(engine_settings(settings, scenario), self._seconds, admission, metrics, log)
        self.engine.before_call = self._before_call
        self.app = self._app(metrics, log, scenario)

    def _app(self, metrics: Metrics, log: Log, scenario: Scenario) -> App:
        settings, options, budget = self._settings, self._settings.options, self._settings.budget
        tokenizer = settings.model.tokenizer
        limits = Limits(
            budget.max_input_tokens,
            budget.max_total_tokens,
            options.max_best_of,
            options.max_stop_sequences,
            options.max_top_n_tokens,
            options.max_client_batch_size,
            not options.disable_grammar_support,
        )
        validation = Validation(limits, tokenizer)
        infer = Infer(
            validation,
            self.engine,
            Speech(tokenizer),
            metrics,
            log,
            options.max_concurrent_requests,
            options.enable_prefill_logprobs,
            scenario.answers.drawer(),
            self._refuses,
        )
        app = App(ROUTES, infer, self._info(), self._web(), settings.model.template, self._book.shaper)
        slow = self._book.of("slow_health")
        if slow is not None:
            app.slow_health = lambda: asyncio.sleep(slow["seconds"])
        return app

    def _refuses(self) -> bool:
        self._book.requests += 1
        return self._book.refuses()

    def _info(self) -> Info:
        options, budget = self._settings.options, self._settings.budget
        return Info(
            model_id=self._settings.model.name,
            model_sha=None,
            model_pipeline_tag=None,
            max_concurrent_requests=options.max_concurrent_requests,
            max_best_of=options.max_best_of,
            max_stop_sequences=options.max_stop_sequences,
            max_input_tokens=budget.max_input_tokens,
            max_total_tokens=budget.max_total_tokens,
            validation_workers=options.validation_workers,
            max_client_batch_size=options.max_client_batch_size,
        )

    def _web(self) -> Web:
        options = self._settings.options
        origins = None if options.cors_allow_origin is None else tuple(options.cors_allow_origin)
        return Web(self._settings.compute_type, options.api_key, options.payload_limit, origins)

    def _before_call(self, call: EngineCall) -> float:
        """Faults and memory of the call that is about to run. Returns seconds to add."""
        strike = self._book.forward(len(call.members), self._seconds(call))
        if strike.text is None and not self._fits(call):
            strike.text, strike.fatal = out_of_memory(self._settings.budget), True
        if strike.text is not None:
            self.engine.fail(strike.text)
            if strike.fatal:
                self._die(strike.text, strike.signal)
        return strike.delay

    def _die(self, text: str, number: int) -> None:
        """A killed shard is gone at once; one that ran out of memory notices within half a second (server.py:310)."""
        self.engine.dead = bool(number)
        self.engine.break_down(_NO_SOCKET)
        left = f"signal {number}" if number else f"torch.OutOfMemoryError: {text}"
        self._loop.call_later(_DEATH[bool(number)], self._gone, left)

    def _gone(self, left: str) -> None:
        self.engine.dead = True
        if not self.died.done():
            self.died.set_result(left)

    async def start(self, address: str, port: int) -> None:
        """Bind and serve. Raises PortTaken.

        TGI's router leaves Nagle's algorithm on: where a client keeps its connection and delays its acknowledgements,
        the first token of every stream but the first is some 40 ms late. By default that is left out here, as it is no
        property of the engine; `network: {nodelay: false}` brings it back.
        """
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            raise PortTaken(f"{address}:{port}", error) from error
        self._server = await self._loop.create_server(
            lambda: Connection(self.app, self._nodelay), sock=sock, backlog=_BACKLOG
        )
        shown = f"[{address}]" if ":" in address else address
        self.url = f"http://{shown}:{sock.getsockname()[1]}"

    async def drain(self, seconds: float) -> bool:
        """Accept nobody, let what runs finish. False when `seconds` were not enough."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.app.connections):
            connection.drain()
        end = self._loop.time() + seconds
        while self.app.connections:
            if self._loop.time() >= end:
                return False
            await asyncio.sleep(0.02)
        self.engine.stop()
        return True

    def kill(self) -> None:
        """Break off every answer."""
        self.engine.stop()
        for connection in list(self.app.connections):
            connection.abort()


def can_bind(address: str, port: int) -> bool:
    """Whether nobody listens there. The port is not kept, as TGI does not keep it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def out_of_memory(budget: Budget) -> str:
    """PyTorch's text for a forward that does not fit."""
    total = budget.total_bytes / 2**30
    return (
        f"CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of {total:.2f} GiB of which"
        f" {budget.headroom_bytes / 2**20:.2f} MiB is free."
    )
