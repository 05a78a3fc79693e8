"""Plays text-generation-launcher: TGI's checks, log lines, failures and exit codes.

One process plays launcher, shard and router. The order of checks and lines is that of launcher/src/main.rs, then of
backends/v3/src/main.rs and lib.rs, then of router/src/server.rs.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import uvloop

from harness.catalog.gpus import Gpu, find_gpu
from harness.emulator import rust
from harness.emulator.boot import BootTimes, pause
from harness.emulator.hardware import load_problem, number, serving_plan, write_truth
from harness.emulator.log import Bare, Log, Span, Style
from harness.emulator.model import NoSuchModel, ServedModel, choose, load_model
from harness.emulator.options import Finished, Options, UsageProblem, describe, parse
from harness.emulator.scenario import Scenario, read_scenario
from harness.emulator.server import PortTaken, Router, RouterSettings, can_bind, compute_type
from harness.errors import HarnessError
from harness.simulator.launcher import (
    LauncherConfig,
    NoDeviceVariable,
    ShardError,
    Unreadable,
    count_devices,
    default_prefill,
    read_config,
    resolve_attention,
    resolve_cuda_graphs,
    resolve_shards,
)
from harness.simulator.memory import Budget, NotEnoughMemory, ResolvedPlan, ServingPlan, budget, resolve
from harness.units import MIB

V3 = "text_generation_router_v3"
SERVER = "text_generation_router::server"
PANIC = 101


class LaunchError(Exception):
    """The launcher ends with 1 and this on stderr, in Debug form."""


class _Stopped(Exception):
    """A signal came while starting: the exit code is 0."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the emulator with these arguments (default: the process's). Returns the exit code."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
        scenario = read_scenario(options.scenario)
        boot = BootTimes.parse(options.boot_seconds)
        if options.gpu is not None:
            find_gpu(options.gpu)
        if not options.speed > 0:
            raise ValueError("--speed: expected a number above 0")
    except UsageProblem as problem:
        sys.stderr.write(str(problem))
        return 2
    except Finished as finished:
        sys.stdout.write(str(finished))
        return 0
    except (HarnessError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n\nFor more information, try '--help'.\n")
        return 2
    log = Log(Style.of(os.environ, options.json_output))
    return _run(Launcher(options, os.environ, scenario, boot, log))


def _run(launcher: Launcher) -> int:
    try:
        uvloop.run(launcher.run())
    except LaunchError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except NoDeviceVariable:
        variables = "CUDA_VISIBLE_DEVICES/NVIDIA_VISIBLE_DEVICES/ZE_AFFINITY_MASK"
        sys.stderr.write(
            f"\nthread 'main' panicked at launcher/src/main.rs:1383:18:\n--num-shard and {variables} are not set\n"
            "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n"
        )
        return PANIC
    except _Stopped:
        return 0
    return 0


@dataclass(frozen=True)
class _Plan:
    """What the launcher decided before it starts anything."""

    model: ServedModel
    serving: ServingPlan
    resolved: ResolvedPlan
    problem: str | None

    @property
    def shards(self) -> int:
        return self.serving.shards


class RouterFailed(Exception):
    """The router ends; the text is its last line on stdout."""


class Launcher:
    """One run."""

    def __init__(
        self, options: Options, environment: Mapping[str, str], scenario: Scenario, boot: BootTimes, log: Log
    ) -> None:
        self.options, self.environment, self.scenario, self.boot = options, environment, scenario, boot
        self.log = log
        self.stop: asyncio.Event
        self._gpu: Gpu = find_gpu("L4")

    async def run(self) -> None:
        """Everything. Raises LaunchError, NoDeviceVariable or _Stopped; returns for exit code 0."""
        self.stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(each, self.stop.set)
        given = self.options.model_id if "model_id" in self.options.given else None
        name, gpu = choose(given, self.options.gpu)
        self.options, self._gpu = replace(self.options, model_id=name), find_gpu(gpu)
        if self.options.env:
            self.log.launcher("INFO", _runtime_environment(self.options))
        self.log.launcher("INFO", describe(self.options))
        plan = self._plan()
        await self._download(plan)
        await self._load_shards(plan)
        await self._serve(plan)

    def _lines(self, lines: Sequence[tuple[str, str]]) -> None:
        for level, text in lines:
            self.log.launcher(level, text)

    # Decisions.

    def _plan(self) -> _Plan:
        options, environment = self.options, self.environment
        name = options.model_id
        unknown, model = "", None
        try:
            model = load_model(name, options.tokenizer_config_path)
        except NoSuchModel as problem:
            unknown = str(problem)
        config = self._read_config(model)
        capability = self._gpu.compute_capability
        choice = resolve_attention(
            config,
            None if capability == (0, 0) else capability,
            attention=environment.get("ATTENTION"),
            prefix_caching=environment.get("PREFIX_CACHING"),
            lora_adapters=options.lora_adapters is not None,
        )
        self._lines(choice.lines)
        self.log.launcher("INFO", f"Using attention {choice.attention} - Prefix caching {choice.prefix_caching}")
        shards = self._shards(options)
        max_input = self._max_input(options)
        prefill = self._prefill(options, config, shards)
        self._check_limits(options, max_input)
        self._check_quantization(options, config)
        self._check_rest(options)
        if model is None:
            self._refuse_model(name, unknown)
        return self._plan_of(model, shards, prefill)

    def _plan_of(self, model: ServedModel, shards: int, prefill: int) -> _Plan:
        options, environment = self.options, self.environment
        serving = serving_plan(options, environment, model.shape, model.config, self._gpu, shards, prefill)
        problem = load_problem(serving, options, options.gpus)
        if problem is not None:
            # What cannot be loaded is resolved without what makes it impossible; nothing after loading is reached.
            sound = serving_plan(options, {}, model.shape, model.config, self._gpu, 1, prefill)
            return _Plan(model, serving, resolve(sound), problem)
        return _Plan(model, serving, resolve(serving), None)

    def _check_quantization(self, options: Options, config: LauncherConfig | None) -> None:
        quantize = options.quantize or (config.quantize if config else None)
        if options.quantize == "bitsandbytes":
            text = "use `eetq` instead, which provides better latencies overall and is drop-in in most cases."
            self.log.launcher("WARN", f"Bitsandbytes is deprecated, {text}")
        self._lines(resolve_cuda_graphs(options.cuda_graphs, quantize)[1])

    def _read_config(self, model: ServedModel | None) -> LauncherConfig | None:
        if model is None or model.config is None:
            return None
        try:
            return read_config(model.config)
        except Unreadable:
            return None

    def _shards(self, options: Options) -> int:
        if options.sharded is True and options.num_shard is None:
            text = "Parsing num_shard from CUDA_VISIBLE_DEVICES/NVIDIA_VISIBLE_DEVICES/ZE_AFFINITY_MASK"
            self.log.launcher("INFO", text)
        try:
            shards = resolve_shards(
                options.sharded, options.num_shard, count_devices(self.environment, options.gpus or 1)
            )
        except ShardError as error:
            raise LaunchError(f"{error.kind}({rust.string(str(error))})") from None
        if shards > 1:
            if options.quantize == "exl2":
                raise _argument("Sharding is currently not supported with `exl2` quantization")
            self.log.launcher("INFO", f"Sharding model on {shards} processes")
        return shards

    def _max_input(self, options: Options) -> int | None:
        tokens, length = options.max_input_tokens, options.max_input_length
        if tokens is not None and length is not None:
            raise _argument(
                f"Both `max_input_tokens` ({tokens}) and `max_input_length` ({length}) are set. Please define only"
                " `max_input_tokens` as `max_input_length is deprecated for naming consistency."
            )
        return tokens if tokens is not None else length

    def _prefill(self, options: Options, config: LauncherConfig | None, shards: int) -> int:
        if options.max_batch_prefill_tokens is not None:
            return options.max_batch_prefill_tokens
        default = default_prefill(
            config,
            self._gpu.smi_name,
            self._gpu.memory_bytes // MIB,
            shards,
            memory_fraction=options.cuda_memory_fraction,
            wiggle_room=number(self.environment.get("TGI_WIGGLE_ROOM")),
        )
        self._lines(default.lines)
        return default.tokens

    def _check_limits(self, options: Options, max_input: int | None) -> None:
        total = options.max_total_tokens
        if max_input is not None and total is not None and max_input >= total:
            raise _argument(f"`max_input_tokens`({max_input}) must be < `max_total_tokens`({total})")

    def _check_rest(self, options: Options) -> None:
        if options.validation_workers == 0:
            raise _argument("`validation_workers` must be > 0")
        if options.trust_remote_code:
            text = f"Trusting that model `{options.model_id}` do not contain malicious code."
            self.log.launcher("WARN", f"`trust_remote_code` is set. {text}")
        total, most = options.max_total_tokens, options.max_batch_total_tokens
        if most is not None and total is not None and total > most:
            raise _argument(f"`max_total_tokens` must be <= `max_batch_total_tokens`. Given: {total} and {most}")
        if options.ngrok and options.ngrok_authtoken is None:
            raise _argument("`ngrok-authtoken` must be set when using ngrok tunneling")
        if options.ngrok and options.ngrok_edge is None:
            raise _argument("`ngrok-edge` must be set when using ngrok tunneling")

    # Phases.

    def _refuse_model(self, name: str, why: str) -> NoReturn:
        self.log.launcher("INFO", f"Starting check and download process for {name}", "download")
        self.log.launcher("ERROR", f"Download encountered an error: \n{why}", "download")
        raise LaunchError("DownloadError")

    async def _download(self, plan: _Plan) -> None:
        log, name = self.log, plan.model.name
        log.launcher("INFO", f"Starting check and download process for {name}", "download")
        fault = self.scenario.fault("download_error")
        if fault is not None:
            await pause(self.boot.download, self.stop)
            log.launcher("ERROR", f"Download encountered an error: \n{fault['text']}", "download")
            raise LaunchError("DownloadError")
        if not await pause(self.boot.download, self.stop):
            for text in ("Terminating download", "Waiting for download to gracefully shutdown", "download terminated"):
                log.launcher("INFO", text, "download")
            raise _Stopped
        log.launcher("INFO", "Files are already present on the host. Skipping download.")
        log.launcher("INFO", f"Successfully downloaded weights for {name}", "download")

    async def _load_shards(self, plan: _Plan) -> None:
        log, begun = self.log, time.monotonic()
        for rank in range(plan.shards):
            log.launcher("INFO", "Starting shard", "shard-manager", rank)
        resolved = plan.resolved
        for _ in range(plan.shards):
            log.launcher("INFO", "Detected system cuda")
            log.launcher("INFO", f"Using prefix caching = {resolved.prefix_cache}")
            log.launcher("INFO", f"Using Attention = {resolved.attention}")
            if not resolved.padded:
                log.launcher("INFO", f"Using prefill chunking = {resolved.chunking}")
        await self._loading(plan, begun)
        for rank in range(plan.shards):
            log.launcher("INFO", f"Server started at unix://{self.options.shard_uds_path}-{rank}")
        took = rust.duration(time.monotonic() - begun)
        for rank in range(plan.shards):
            log.launcher("INFO", f"Shard ready in {took}", "shard-manager", rank)

    async def _loading(self, plan: _Plan, begun: float) -> None:
        problem = self._load_problem(plan)
        ends, told = begun + self.boot.load, begun
        while (left := ends - time.monotonic()) > 0:
            if not await pause(min(left, 10.0), self.stop):
                self._stop_shards(plan)
                raise _Stopped
            if time.monotonic() - told >= 10.0:
                told = time.monotonic()
                for rank in range(plan.shards):
                    self.log.launcher("INFO", "Waiting for shard to be ready...", "shard-manager", rank)
        if problem is not None:
            self._shard_died(problem, 0)
            self.log.launcher("ERROR", "Shard 0 failed to start")
            self.log.launcher("INFO", "Shutting down shards")
            raise LaunchError("ShardCannotStart")

    def _shard_died(self, problem: str, rank: int) -> None:
        """problem: the shard's stderr, or `signal N`."""
        killed = problem.startswith("signal ")
        text = "Shard complete standard error output:\n" + ("" if killed else f"\n{problem}")
        self.log.launcher("ERROR", text, "shard-manager", rank)
        if killed:
            signaled = f"Shard process was signaled to shutdown with {problem}"
            self.log.launcher("ERROR", signaled, "shard-manager", rank)

    def _stop_shards(self, plan: _Plan) -> None:
        self.log.launcher("INFO", "Shutting down shards")
        texts = ("Terminating shard", "Waiting for shard to gracefully shutdown", "shard terminated")
        for rank in range(plan.shards):
            for text in texts:
                self.log.launcher("INFO", text, "shard-manager", rank)

    def _load_problem(self, plan: _Plan) -> str | None:
        """What the shard dies of while loading, if it does."""
        fault = self.scenario.fault("load_error")
        if fault is not None:
            return f"signal {fault['signal']}" if fault["signal"] else str(fault["text"])
        if plan.problem is not None:
            return plan.problem
        outcome = budget(plan.serving, self.scenario.world)
        if self.options.truth is not None:
            write_truth(self.options.truth, plan.serving, self.scenario.world, outcome)
        if isinstance(outcome, NotEnoughMemory) and outcome.stage == "load":
            return f"torch.OutOfMemoryError: {outcome.text}"
        return None

    # The router.

    async def _serve(self, plan: _Plan) -> None:
        self.log.launcher("INFO", "Starting Webserver")
        try:
            settings = await self._warm_up(plan)
            router = Router(settings, self.log, self.scenario)
            await router.start(self._address(), self.options.port)
        except RouterFailed as failed:
            self._webserver_crashed(plan, failed)
        except PortTaken as taken:
            self._port_taken(plan, taken)
        print(f"harness: listening on {router.url}", file=sys.stderr, flush=True)
        await self._until_end(plan, router)

    def _webserver_crashed(self, plan: _Plan, failed: RouterFailed) -> NoReturn:
        self.log.raw(str(failed))
        self.log.launcher("ERROR", "Webserver Crashed")
        self._stop_shards(plan)
        raise LaunchError("WebserverFailed")

    def _port_taken(self, plan: _Plan, taken: PortTaken) -> NoReturn:
        where = f"Failed to bind to {taken.address}: {taken.reason} (os error {taken.number})"
        self.log.router("ERROR", SERVER, "router/src/server.rs:2324", where)
        kind = {98: "AddrInUse", 13: "PermissionDenied", 99: "AddrNotAvailable"}.get(taken.number, "Other")
        os_error = f'Os {{ code: {taken.number}, kind: {kind}, message: "{taken.reason}" }}'
        self._webserver_crashed(plan, RouterFailed(f"Error: WebServer(Axum({os_error}))"))

    def _address(self) -> str:
        """Where to listen: 127.0.0.1 unless told; a HOSTNAME that is not an address is what a container has."""
        hostname = self.options.hostname
        if "hostname" not in self.options.given or hostname == "localhost":
            return "127.0.0.1"
        if _is_address(hostname):
            return hostname
        by_flag = self.environment.get("HOSTNAME") != hostname
        return "0.0.0.0" if by_flag or os.path.exists("/.dockerenv") else "127.0.0.1"

    async def _warm_up(self, plan: _Plan) -> RouterSettings:
        log = self.log
        if self.options.max_batch_size == 0:
            raise RouterFailed('Error: ArgumentValidation("`max_batch_size` must be > 0")')
        log.router("INFO", V3, "backends/v3/src/lib.rs:125", "Warming up model")
        await pause(self.boot.warm_up, self.stop)
        if self.stop.is_set():
            self._stop_shards(plan)
            raise _Stopped
        memory = budget(plan.serving, self.scenario.world)
        fault = self.scenario.fault("oom_at_warm_up")
        if fault is not None:
            tokens = plan.resolved.max_batch_prefill_tokens
            decrease = "You need to decrease `--max-batch-prefill-tokens`"
            self._warm_up_failed(
                plan, fault["text"] or f"Not enough memory to handle {tokens} prefill tokens. {decrease}"
            )
        if isinstance(memory, NotEnoughMemory):
            self._warm_up_failed(plan, memory.text)
        if memory.measured:
            self._shard_lines(plan, memory)
        self._check_backend(plan, memory)
        kind = compute_type(self.environment, plan.shards, self._gpu.smi_name)
        return RouterSettings(self.options, plan.model, plan.serving, plan.resolved, memory, kind)

    def _shard_lines(self, plan: _Plan, memory: Budget) -> None:
        log, graphs = self.log, sorted(plan.resolved.cuda_graphs, reverse=True)
        for _ in range(plan.shards):
            log.launcher("INFO", f"KV-cache blocks: {memory.blocks}, size: {memory.block_size}")
        # CUDA_GRAPHS=0 reaches the shard by inheritance, --cuda-graphs 0 does not.
        inherited = self.options.cuda_graphs == [0] and self.environment.get("CUDA_GRAPHS") == "0"
        text = "Cuda Graphs are disabled (CUDA_GRAPHS=None)."
        if graphs or inherited:
            text = f"Cuda Graphs are enabled for sizes {graphs or [0]}"
        for _ in range(plan.shards):
            log.launcher("INFO", text)
        if graphs and not memory.graphs_captured:
            log.launcher("ERROR", "Decode cuda graph warmup failed")

    def _warm_up_failed(self, plan: _Plan, text: str) -> NoReturn:
        log, options = self.log, self.options
        trace = f"Traceback (most recent call last):\nRuntimeError: {text}"
        log.launcher("ERROR", f"Method Warmup encountered an error.\n{trace}")
        fields = {
            "max_input_length": Bare(rust.option(plan.serving.max_input_tokens)),
            "max_prefill_tokens": plan.resolved.max_batch_prefill_tokens,
            "max_total_tokens": Bare(rust.option(options.max_total_tokens)),
            "max_batch_size": Bare(rust.option(options.max_batch_size)),
        }
        spans = [Span("warmup", fields), Span("warmup")]
        where = "backends/v3/src/client/mod.rs:45"
        log.router("ERROR", f"{V3}::client", where, f"Server error: {text}", spans)
        raise RouterFailed(f"Error: Backend(Warmup(Generation({rust.string(text)})))")

    def _check_backend(self, plan: _Plan, memory: Budget) -> None:
        options, log = self.options, self.log
        if not memory.measured:
            text = "Model does not support automatic max batch total tokens"
            log.router("WARN", V3, "backends/v3/src/lib.rs:79", text)
        elif options.max_batch_total_tokens is not None:
            text = "`--max-batch-total-tokens` is deprecated for Flash Attention models."
            log.router("WARN", V3, "backends/v3/src/lib.rs:90", text)
            log.router("WARN", V3, "backends/v3/src/lib.rs:94", f"Inferred max batch total tokens: {memory.tokens}")
        if memory.measured and memory.max_total_tokens > memory.tokens:
            raise RouterFailed(f"Error: Backend(NotEnoughMemory({memory.max_total_tokens}))")
        log.router("INFO", V3, "backends/v3/src/lib.rs:137", f"Setting max batch total tokens to {memory.tokens}")
        if plan.resolved.chunking:
            text = "Model supports prefill chunking. `waiting_served_ratio` and `max_waiting_tokens` will be ignored."
            log.router("WARN", f"{V3}::backend", "backends/v3/src/backend.rs:39", text)
        log.router("INFO", V3, "backends/v3/src/lib.rs:166", "Using backend V3")
        if plan.serving.max_input_tokens is None:
            text = f"Maximum input tokens defaulted to {memory.max_input_tokens}"
            log.router("INFO", V3, "backends/v3/src/main.rs:168", text)
        if options.max_total_tokens is None:
            text = f"Maximum total tokens defaulted to {memory.max_total_tokens}"
            log.router("INFO", V3, "backends/v3/src/main.rs:174", text)
        self._check_router_limits(plan, memory)
        self._router_lines(plan)

    def _check_router_limits(self, plan: _Plan, memory: Budget) -> None:
        prefill, most = plan.resolved.max_batch_prefill_tokens, memory.tokens
        longest, total = memory.max_input_tokens, memory.max_total_tokens
        if longest >= total:
            raise _refused("`max_input_tokens` must be < `max_total_tokens`")
        if longest > prefill and not plan.resolved.chunking:
            raise _refused(f"`max_batch_prefill_tokens` must be >= `max_input_tokens`. Given: {prefill} and {longest}")
        if prefill > most:
            raise _refused(
                f"`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`. Given: {prefill} and {most}"
            )
        if total > most:
            raise _refused(f"`max_total_tokens` must be <= `max_batch_total_tokens`. Given: {total} and {most}")

    def _router_lines(self, plan: _Plan) -> None:
        log, name = self.log, plan.model.name
        directory = plan.model.directory
        config_path = f"{directory or '/data/hub/' + name}/tokenizer_config.json"
        if directory is None:
            log.router("INFO", SERVER, "router/src/server.rs:1583", "Using the Hugging Face API")
            text = "Could not retrieve model info from the Hugging Face hub."
            log.router("WARN", SERVER, "router/src/server.rs:1632", text)
        given = rust.option(self.options.tokenizer_config_path)
        text = f'Tokenizer_config {given} - Some("{config_path}")'
        log.router("WARN", SERVER, "router/src/server.rs:1674", text)
        kind = "".join(part.capitalize() for part in plan.model.shape.model_type.split("_"))
        log.router("INFO", SERVER, "router/src/server.rs:1742", f"Using config Some({kind})")
        log.router("WARN", SERVER, "router/src/server.rs:1802", f"no pipeline tag found for model {name}")
        if not _is_address(self.options.hostname):
            text = "Invalid hostname, defaulting to 0.0.0.0"
            log.router("WARN", SERVER, "router/src/server.rs:1909", text)
        if "prometheus_port" in self.options.given and not can_bind(self._address(), self.options.prometheus_port):
            raise RouterFailed(
                "\nthread 'main' panicked at router/src/server.rs:1991:10:\nfailed to build prometheus recorder: "
                'FailedToCreateHTTPListener("Address already in use (os error 98)")\n'
                "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace"
            )
        log.router("INFO", SERVER, "router/src/server.rs:2302", "Connected")

    # The end.

    async def _until_end(self, plan: _Plan, router: Router) -> None:
        stopping = asyncio.ensure_future(self.stop.wait())
        await asyncio.wait({stopping, asyncio.ensure_future(_outcome(router))}, return_when=asyncio.FIRST_COMPLETED)
        log = self.log
        if router.died.done():
            stopping.cancel()
            self._shard_died(router.died.result(), 0)
            log.launcher("ERROR", "Shard 0 crashed")
        log.launcher("INFO", "Terminating webserver")
        log.launcher("INFO", "Waiting for webserver to gracefully shutdown")
        text = "signal received, starting graceful shutdown"
        log.router("INFO", SERVER, "router/src/server.rs:2399", text)
        if await router.drain(self.options.graceful_termination_timeout):
            log.launcher("INFO", "webserver terminated")
        else:
            log.launcher("INFO", "Killing webserver")
            router.kill()
            log.launcher("INFO", "webserver killed")
        if router.died.done():
            log.launcher("INFO", "Shutting down shards")
            raise LaunchError("ShardFailed")
        self._stop_shards(plan)


def _argument(text: str) -> LaunchError:
    return LaunchError(f"ArgumentValidation({rust.string(text)})")


def _refused(text: str) -> RouterFailed:
    return RouterFailed(f"Error: ArgumentValidation({rust.string(text)})")


async def _outcome(router: Router) -> bool:
    return bool(await router.died)


def _is_address(hostname: str) -> bool:
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True


def _runtime_environment(options: Options) -> str:
    """What --env shows; the GPU is the emulated one."""
    names = ("Target: x86_64-unknown-linux-gnu", "Cargo version: 1.85.1", "Commit sha: N/A")
    card = f"{options.gpus or 1} x {options.gpu}" if options.gpu else "N/A"
    tools = (f"nvidia-smi:\n{card}", "xpu-smi:\nN/A", "hpu-smi:\nN/A")
    return "\n".join(("Runtime environment:", *names, "Docker label: harness-emulator", *tools)) + "\n"
