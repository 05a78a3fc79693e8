"""llama-server's start, from its first line to its exit code: arguments, log, failures, and the end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness.catalog.gpus import Gpu
from harness.emulator.faces.flags import OWN, EmulatorOptions, Flag, flags_of, read_own, usage_error
from harness.emulator.faces.llamacpp.gguf import NoGguf, read_gguf
from harness.emulator.faces.llamacpp.serving import LOADING, LimitedConnection, LlamaApp, LlamaServing, error_text
from harness.emulator.faces.run import Face
from harness.emulator.faces.wire import FaceApp, Problem
from harness.emulator.http import Connection
from harness.emulator.model import NoSuchModel, ServedModel
from harness.emulator.template import BUILT_IN, ChatTemplate
from harness.emulator.tokens import Tokenizer
from harness.errors import HarnessError
from harness.simulator.cost import CostModel, engine_host
from harness.simulator.laws import DoesNotStart, LlamaPlan, Machine, Pool, llama_pool
from harness.simulator.laws.llamacpp import CACHE_TYPES, FILE_TYPES, kv_bytes_per_token, slots_of
from harness.simulator.policies import LlamaScheduler, LlamaSettings
from harness.units import MIB

BUILD = "b11549-emulated"
_NUMBERS = {
    "--ctx-size", "--parallel", "--batch-size", "--ubatch-size", "--port", "--kv-unified-per-slot", "--fit-ctx",
    "--cache-ram", "--verbosity", "--gpu-layers", "--threads", "--predict",
}  # fmt: skip
_HOST_BANDWIDTH = 40e9  # bytes/s at which layers are read that the GPU has no room for: a desktop's memory
_TYPE = re.compile("|".join(sorted(FILE_TYPES, key=len, reverse=True)), re.IGNORECASE)
_YES = ("1", "true", "on", "enabled", "yes")
_NO = ("0", "false", "off", "disabled", "no")


class _Refused(Exception):
    """A command line that llama.cpp refuses: all of stderr. The exit code is 1."""


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the face with these arguments. Returns the exit code."""
    try:
        values, own_texts = read_arguments(arguments, environment)
        own = read_own(own_texts, environment)
    except _Refused as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    except HarnessError as error:
        sys.stderr.write(usage_error(error))
        return 2
    if "--version" in values:
        sys.stderr.write(f"version: 11549 ({BUILD})\nbuilt with GNU 13.3.0 for Linux x86_64\n")
        return 0
    if "--help" in values:
        names = [", ".join(flag.names) for flag in flags_of("llamacpp")]
        emulated = [f"--{name}  {text}" for name, text in OWN.items()]
        print("\n".join(["----- llama-server -----", *names, "----- emulated -----", *emulated]))
        return 0
    return LlamaFace(own, environment, values).main()


def read_arguments(
    arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Values by an option's first name, and the emulator's own. A switch is True, or False where `--no-` was said.

    Variables count where no argument does. Raises _Refused.
    """
    by_name = {name: flag for flag in flags_of("llamacpp") for name in flag.names}
    values: dict[str, Any] = {}
    for flag in set(by_name.values()):
        text = environment.get(flag.variable or "")
        if text:
            values[flag.names[0]] = text.lower() in _YES if flag.kind == "switch" else _value(flag, flag.names[0], text)
    own: dict[str, str | None] = {}
    words = list(arguments)
    while words:
        name = words.pop(0)
        if name.removeprefix("--") in OWN and name.startswith("--"):
            own[name.removeprefix("--")] = _next(name, words)
        elif name in ("-h", "--help", "--usage"):
            values["--help"] = True
        elif name not in by_name:
            raise _Refused(f"error: invalid argument: {name}")
        else:
            flag = by_name[name]
            if flag.kind == "switch":
                values[flag.names[0]] = not name.lstrip("-").startswith("no")
            else:
                values[flag.names[0]] = _value(flag, name, _next(name, words))
                if flag.kind == "two":
                    _next(name, words)
    return values, own


def _next(name: str, words: list[str]) -> str:
    if not words:
        raise _bad(name, "expected value for argument")
    return words.pop(0)


def _bad(name: str, why: str) -> _Refused:
    usage = f"usage:\n{name} ...\n\n\nto show complete usage, run with -h"
    return _Refused(f'error while handling argument "{name}": {why}\n\n\n{usage}')


def _value(flag: Flag, name: str, text: str) -> Any:
    known = flag.names[0]
    if known in ("--cache-type-k", "--cache-type-v") and text not in CACHE_TYPES:
        raise _bad(name, f"Unsupported cache type: {text}")
    if known not in _NUMBERS:
        return text
    match = re.match(r"\s*[+-]?\d+", text)
    if match is None and known != "--gpu-layers":
        raise _bad(name, "stoi")
    number: int | str = text if match is None else int(match[0])
    if known == "--parallel" and isinstance(number, int) and number < 1 and number != -1:
        raise _bad(name, "error: invalid value for n_parallel")
    return number


class LlamaFace(Face):
    """One `llama-server`, from its first line to its exit code."""

    interrupted = -signal.SIGTERM  # before the model is loaded a signal kills

    def __init__(self, own: EmulatorOptions, environment: Mapping[str, str], values: Mapping[str, Any]) -> None:
        super().__init__(own, environment)
        self.values, self.begun = values, time.monotonic()
        self.verbosity = 10 if values.get("--verbose") else values.get("--verbosity", 3)

    def main(self) -> int:
        code = super().main()
        if code == self.interrupted:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        return code

    def error_frame(self, text: str) -> str:
        return error_text(Problem(500, text, "server_error"))

    def log(self, text: str, function: str = "", tag: str = "srv", letter: str = "I", level: int = 3) -> None:
        """One line. function: of the server's own lines, cut to twelve letters; none for the library's."""
        if level > self.verbosity:
            return
        micro = int((time.monotonic() - self.begun) * 1e6)
        clock = f"{micro // 60_000_000}.{micro // 10**6 % 60:02}.{micro // 1000 % 1000:03}.{micro % 1000:03}"
        head = f"{tag:<5}{function[:12]:>12}: " if function else ""
        print(f"{clock} {letter} {head}{text}", file=sys.stderr, flush=True)

    def server(self, text: str, letter: str = "I", level: int = 3) -> None:
        self.log(text, "llama_server", letter=letter, level=level)

    def library(self, text: str, letter: str = "I", level: int = 4) -> None:
        self.log(text, letter=letter, level=level)

    def connection(self, app: FaceApp, nodelay: bool) -> Connection:
        return LimitedConnection(app, nodelay)

    async def run(self) -> int:
        values = self.values
        self.server("initializing ...")
        self.server(f"build_info: {BUILD}")
        keys = self._keys()
        if not keys:
            self.server("security: no API key is set and CORS allows all origins", "W", 2)
        host, port = values.get("--host", "127.0.0.1"), values.get("--port", 8080)
        app = LlamaApp(keys, self.book.shaper)
        app.ready, app.not_ready = False, LOADING
        try:
            sock = self.listening_socket(host, port % 65536)
        except OSError:
            self.log(f"couldn't bind HTTP server socket, hostname: {host}, port: {port}", "start", letter="E", level=1)
            self.server("exiting due to HTTP server error", "E", 1)
            self.fail(1)
        server = await self.serve(app, sock)
        self.server("loading model")
        model, plan = self._plan()
        pool = await self._boot(plan)
        serving = self._serving(model, plan, pool)
        app.use(serving)
        self.server("model loaded")
        self.server(f"listening on http://{host}:{port or sock.getsockname()[1]}")
        self.say_where(sock)
        left = await self.until_end()
        serving.engine.stop()
        if left is not None:
            self.library(left, "E", 1)
            number = int(left.removeprefix("signal ")) if left.startswith("signal ") else signal.SIGABRT
            os.kill(os.getpid(), number)
        self.server("cleaning up before exit...")
        server.close()
        for connection in list(app.connections):
            connection.drain()
        while app.connections:  # a client that reads a stream is waited for, and gets nothing more
            await asyncio.sleep(0.05)
        return 0

    def _keys(self) -> tuple[str, ...]:
        keys = [key for key in str(self.values.get("--api-key", "")).split(",") if key]
        path = self.values.get("--api-key-file")
        if path:
            try:
                lines = Path(path).read_text(encoding="utf-8").splitlines()
            except OSError:
                sys.stderr.write(f"{_bad('--api-key-file', f'error: failed to open file {path!r}')}\n")
                self.fail(1)
            keys += [line for line in lines if line and not line.startswith("#")]
        return tuple(keys)

    # The model.

    def _plan(self) -> tuple[ServedModel, LlamaPlan]:
        values = self.values
        path, repo = values.get("--model"), values.get("--hf-repo")
        size: int | None = None
        if path is not None:
            model, gpu, kind, size = self._from_file(path)
        else:
            name, _, quant = (repo or "").partition(":")
            try:
                model, gpu = self.choose(name or None)
            except NoSuchModel as problem:
                self.library(f"common_download_model: {problem}", "E", 1)
                self.not_loaded(name)
            found = _TYPE.search(values.get("--hf-file") or quant or "Q4_K_M")
            kind = found[0].upper() if found else "Q4_K_M"
        parallel = values.get("--parallel")
        plan = LlamaPlan(
            Machine(model.shape, gpu, world=self.own.scenario.world),
            kind,
            size,
            values.get("--ctx-size"),
            None if parallel == -1 else parallel,
            values.get("--kv-unified"),
            values.get("--kv-unified-per-slot"),
            values.get("--batch-size", 2048),
            values.get("--ubatch-size", 512),
            values.get("--cache-type-k", "f16"),
            values.get("--cache-type-v", "f16"),
            values.get("--fit", "on") != "off",
            int(str(values.get("--fit-target", 1024)).split(",")[0]) * MIB,
            values.get("--fit-ctx", 4096),
        )
        return model, plan

    def _from_file(self, path: str) -> tuple[ServedModel, Gpu, str, int]:
        self.log(f"loading model '{path}'", "load_model")
        try:
            read = read_gguf(Path(path))
        except FileNotFoundError:
            self.library(f"gguf_init_from_file: failed to open GGUF file '{path}' (No such file or directory)", "E", 1)
            self.not_loaded(path)
        except (NoGguf, OSError) as error:
            text = str(error)
            if not text.startswith("gguf_"):
                self.not_loaded(path, text)
            self.library(text, "E", 1)
            self.not_loaded(path)
        _, gpu = self.choose(None)
        model = ServedModel(path, read.shape, None, ChatTemplate(BUILT_IN), Tokenizer(read.shape.vocab), local=True)
        return model, gpu, read.file_type, read.size

    def not_loaded(self, path: str, why: str | None = None) -> NoReturn:
        text = why or f"llama_model_loader: failed to load model from {path}"
        self.library(f"llama_model_load: error loading model: {text}", "E", 1)
        self.log(f"failed to load model '{path}'", "common_init_from_params", "cmn", "E", 1)
        self.log(f"failed to load model, '{path}'", "load_model", letter="E", level=1)
        self.server("exiting due to model loading error", "E", 1)
        self.fail(1)

    async def _boot(self, plan: LlamaPlan) -> Pool:
        boot, shape = self.own.boot, plan.machine.shape
        gpu, name = plan.machine.gpu, self.values.get("--model") or self.values.get("--hf-repo") or shape.name
        memory = f"{gpu.memory_bytes // MIB} MiB, {plan.machine.free_at_start // MIB} MiB free"
        self.log(f"  - CUDA0   : {gpu.smi_name} ({memory})", "common_params_print_info", "cmn", level=4)
        await self.wait(boot.download)
        await self.wait(boot.load)
        fault = self.fault("download_error") or self.fault("load_error")
        if fault is not None:
            self.not_loaded(name, fault)
        outcome = llama_pool(plan)
        self.write_truth("llamacpp", shape, gpu, outcome)
        failed = outcome if isinstance(outcome, DoesNotStart) else None
        if failed is not None and failed.stage == "load":
            self.library(failed.text, "E", 1)
            self.not_loaded(name, "unable to allocate CUDA0 buffer")
        await self.wait(boot.warm_up)
        text = failed.text if failed else self.fault("oom_at_warm_up")
        halves = CACHE_TYPES[plan.cache_type_v] < CACHE_TYPES["f16"]
        unattended = halves and self.values.get("--flash-attn") in _NO
        if text is not None or unattended:
            why = "quantized V cache requires flash_attn to be enabled"
            if text is not None:
                self.library(text, "E", 1)
                why = "failed to initialize the context: failed to allocate buffer for kv cache"
            self.library(f"llama_init_from_model: {why}", "E", 1)
            self.log(f"failed to create context with model '{name}'", "common_init_from_params", "cmn", "E", 1)
            self.log(f"failed to create_context with model '{name}'", "load_model", letter="E", level=1)
            self.server("exiting due to model loading error", "E", 1)
            self.fail(1)
        assert isinstance(outcome, Pool)
        self._pool_lines(plan, outcome)
        return outcome

    def _pool_lines(self, plan: LlamaPlan, pool: Pool) -> None:
        shape, asked = plan.machine.shape, slots_of(plan, plan.ctx_size)
        if plan.parallel is None:
            text = f"n_parallel is set to auto, using n_parallel = {pool.rows} and kv_unified = true"
            self.server(text, level=4)
        if asked.pool > pool.tokens:
            text = f"common_params_fit_impl: context size reduced from {asked.pool} to {pool.tokens}"
            self.library(f"{text} -> need less memory in total")
        if pool.on_host:
            text = "failed to fit params to free device memory: was unable to fit model into device memory"
            self.library(f"common_fit_params: {text}", "W", 2)
        layers, on_gpu = shape.layers + 1, round((shape.layers + 1) * (1 - pool.on_host))
        self.library(f"load_tensors: offloaded {on_gpu}/{layers} layers to GPU")
        self.library(f"load_tensors:        CUDA0 model buffer size = {pool.part('weights') / MIB:8.2f} MiB")
        streams = pool.blocks
        sizes = {"n_seq_max": pool.rows, "n_ctx": pool.tokens, "n_ctx_seq": pool.block_size, "n_batch": plan.batch}
        for key, value in {**sizes, "n_ubatch": plan.ubatch, "kv_unified": str(not pool.split).lower()}.items():
            self.library(f"llama_context: {key:<21} = {value}")
        size = pool.part("KV cache") / MIB
        kinds = (CACHE_TYPES[plan.cache_type_k], CACHE_TYPES[plan.cache_type_v])
        keys, values = (size * each / sum(kinds) for each in kinds)
        self.library(f"llama_kv_cache:      CUDA0 KV buffer size = {size:8.2f} MiB")
        self.library(
            f"llama_kv_cache: size = {size:7.2f} MiB ({pool.block_size:6d} cells, {shape.layers:3d} layers,"
            f" {pool.rows:2d}/{streams} seqs), K ({plan.cache_type_k}): {keys:7.2f} MiB, V ({plan.cache_type_v}):"
            f" {values:7.2f} MiB"
        )
        self.library(f"sched_reserve:      CUDA0 compute buffer size = {pool.part('compute buffer') / MIB:8.2f} MiB")
        if slots_of(plan, pool.tokens).cells > shape.context:
            text = f"the slot context ({pool.block_size}) exceeds the training context of the model ({shape.context})"
            self.log(f"{text} - capping", "load_model", letter="W", level=2)
        unified = str(not pool.split).lower()
        text = f"initializing, n_slots = {pool.rows}, n_ctx_slot = {pool.context}, kv_unified = '{unified}'"
        self.log(text, "load_model")
        for slot in range(pool.rows):
            self.log(f"id {slot:2d} | task -1 | new slot, n_ctx = {pool.context}", "load_model", "slot", level=4)

    def _serving(self, model: ServedModel, plan: LlamaPlan, pool: Pool) -> LlamaServing:
        machine, values = plan.machine, self.values
        kept = int(values.get("--cache-ram", 8192) * MIB / kv_bytes_per_token(plan))
        settings = LlamaSettings(
            pool.rows, pool.context, pool.tokens, not pool.split, plan.batch, values.get("--cache-prompt") is not False,
            max(0, kept) if kept >= 0 else 2**62,
        )  # fmt: skip
        small = CACHE_TYPES[plan.cache_type_k] < 1.5
        width = FILE_TYPES[plan.file_type] / 8
        cost = CostModel(
            machine.shape, machine.gpu, engine_host("llamacpp", (1,)), kv_cache_dtype="fp8" if small else None,
            weight_width=width, world=machine.world,
        )  # fmt: skip
        slower = 1 + pool.on_host * (machine.gpu.bandwidth / _HOST_BANDWIDTH - 1)
        engine = self.engine(LlamaScheduler(settings), cost, model, slower)
        return LlamaServing(self, values, model, engine, pool, BUILD, self.log)
