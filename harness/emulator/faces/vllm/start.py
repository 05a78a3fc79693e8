"""vLLM's start, from its first line to its exit code: arguments, refusals, the engine's process, and the end."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from harness.catalog.gpus import Gpu
from harness.emulator.faces.answers import PoolEngine
from harness.emulator.faces.flags import argparse_reader, given, own_values, read_own, usage_error, whole
from harness.emulator.faces.run import Face, access_line, break_off, emptied, quantization_of
from harness.emulator.faces.vllm.serving import FRACTION, VERSION, WEB, VllmServing, error_text
from harness.emulator.faces.wire import FaceApp, Problem
from harness.emulator.http import Exchange
from harness.emulator.model import NoSuchModel, ServedModel
from harness.errors import HarnessError
from harness.simulator.cost import CostModel, engine_host
from harness.simulator.laws import DoesNotStart, Machine, Pool, VllmPlan, vllm_pool
from harness.simulator.laws.pool import gib
from harness.simulator.laws.vllm import AUTO, graph_sizes
from harness.simulator.policies import VllmScheduler, VllmSettings

_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# What --quantization takes (layers/quantization/__init__.py), in the catalogue's words for sizes.
_QUANTIZATIONS = {
    "awq": "awq", "auto_awq": "awq", "awq_marlin": "awq", "gptq": "gptq", "auto_gptq": "gptq", "gptq_marlin": "gptq",
    "fp8": "fp8", "fp8_per_tensor": "fp8", "fp8_per_block": "fp8", "fp8_per_channel": "fp8", "modelopt": "fp8",
    "compressed-tensors": "fp8", "experts_int8": "fp8", "int8_per_channel_weight_only": "eetq", "mxfp4": "mxfp4",
    "gpt_oss_mxfp4": "mxfp4", "moe_wna16": "w4a16", "torchao": "fp8", "quark": "fp8",
}  # fmt: skip
_DTYPES = ("auto", "bfloat16", "float", "float16", "float32", "half")
_KV_DTYPES = (
    "auto", "bfloat16", "float16", "fp8", "fp8_ds_mla", "fp8_e4m3", "fp8_e5m2", "fp8_inc", "fp8_per_token_head",
    "int8_per_token_head",
)  # fmt: skip


def _human(text: str) -> int:
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([kKmMgGtT]?)", text)
    if text != "auto" and match is None:
        raise ValueError(text)
    return AUTO if match is None else int(float(match[1]) * _UNITS.get(match[2], 1))


_human.__name__ = "human_readable_int_or_auto"
_TYPES: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("max_model_len", "max_num_batched_tokens", "kv_cache_memory_bytes"), _human),
    **dict.fromkeys(
        ("max_num_seqs", "port", "tensor_parallel_size", "block_size", "num_gpu_blocks_override", "shutdown_timeout",
         "max_num_queued_reqs", "long_prefill_token_threshold"), whole,
    ),
    **dict.fromkeys(("gpu_memory_utilization", "watermark"), float),
}  # fmt: skip


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the face with these arguments. Returns the exit code."""
    parser = argparse_reader("vllm", "vllm serve", _TYPES, {"dtype": _DTYPES, "kv_cache_dtype": _KV_DTYPES})
    parser.add_argument("model_tag", nargs="?")
    words = [_dashed(word) for word in (arguments[1:] if arguments[:1] == ["serve"] else arguments)]
    parsed = parser.parse_args(words)
    try:
        own = read_own(own_values(parsed), environment)
    except HarnessError as error:
        sys.stderr.write(usage_error(error))
        return 2
    return VllmFace(own, environment, parsed).main()


def _dashed(word: str) -> str:
    """`_` and `-` are the same in the names of flags, and a dotted one sets a key of it."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-").partition(".")[0] + equals + value if name.startswith("--") else word


class VllmFace(Face):
    """One `vllm serve`, from its first line to its exit code."""

    def __init__(self, own: Any, environment: Mapping[str, str], parsed: argparse.Namespace) -> None:
        super().__init__(own, environment)
        self.args, self.pid = parsed, os.getpid()

    def error_frame(self, text: str) -> str:
        return error_text(Problem(500, text))

    def log(self, text: str, where: str, process: str = "EngineCore", level: str = "INFO") -> None:
        head = f"({process} pid={self.pid}) {level} {datetime.now():%m-%d %H:%M:%S} [{where}] "
        print("\r\n".join(head + line for line in text.split("\n")), flush=True)

    def front(self, text: str, where: str, level: str = "INFO") -> None:
        self.log(text, where, "APIServer", level)

    def uvicorn(self, text: str, out: Any = None) -> None:
        print(f"(APIServer pid={self.pid}) INFO:     {text}", file=out or sys.stderr, flush=True)

    def access(self, exchange: Exchange, status: int) -> None:
        if not self.args.disable_uvicorn_access_log:
            self.uvicorn(access_line(exchange, status), sys.stdout)

    async def run(self) -> int:
        args = self.args
        name = args.model_tag or args.model
        self.front(f"vLLM server version {VERSION}, serving model {name}", "api_utils.py:391")
        shown = {key: "***" if key in ("api_key", "hf_token") else value for key, value in given(args).items()}
        self.front(f"non-default args: {shown}", "api_utils.py:351")
        try:
            sock = self.listening_socket(args.host or "127.0.0.1", 8000 if args.port is None else args.port)
        except OSError as error:
            self.traceback(f"OSError: [Errno {error.errno}] {os.strerror(error.errno or 0)}")
        try:
            model, gpu = self.choose(name)
        except NoSuchModel as problem:
            text = f"Invalid repository ID or local directory specified: '{name}'."
            self.traceback(f"ValueError: {text}\nPlease verify the following requirements:\n{problem}")
        plan = self._plan(model, gpu)
        pool = await self._boot(model, plan)
        serving = self._serving(model, plan, pool)
        app = FaceApp(WEB, serving.routes(), self._keys(), self.book.shaper, self.access)
        self.front(f"Starting vLLM server on http://{':'.join(map(str, sock.getsockname()[:2]))}", "entry.py:137")
        for text in (f"Started server process [{self.pid}]", "Waiting for application startup."):
            self.uvicorn(text)
        server = await self.serve(app, sock)
        self.say_where(sock)
        self.uvicorn("Application startup complete.")
        reporting = asyncio.ensure_future(self._report(serving))
        left = await self.until_end()
        reporting.cancel()
        return await self._end(app, serving.engine, server, left)

    def _keys(self) -> tuple[str, ...]:
        key = self.environment.get("VLLM_API_KEY")
        return tuple(self.args.api_key or ()) or ((key,) if key else ())

    # The start.

    def traceback(self, last: str) -> NoReturn:
        """The front end dies."""
        for line in ("Traceback (most recent call last):", *last.split("\n")):
            print(f"(APIServer pid={self.pid}) {line}", file=sys.stderr, flush=True)
        self.fail(1)

    def invalid(self, config: str, text: str) -> NoReturn:
        error = f"pydantic_core._pydantic_core.ValidationError: 1 validation error for {config}"
        self.traceback(f"{error}\n  Value error, {text}")

    def _plan(self, model: ServedModel, gpu: Gpu) -> VllmPlan:
        args, shape = self.args, model.shape
        self.front(f"Resolved architecture: {shape.model_type.capitalize()}ForCausalLM", "model.py:733")
        dtype, method, own = self._dtype(gpu), args.quantization, quantization_of(model)
        if method is not None and method not in _QUANTIZATIONS:
            known = ", ".join(f"'{each}'" for each in _QUANTIZATIONS)
            self.invalid("ModelConfig", f"Unknown quantization method: {method}. Must be one of [{known}].")
        if own is not None and method is not None and _QUANTIZATIONS[method] != own:
            self.invalid(
                "ModelConfig",
                f"Quantization method specified in the model config ({own}) does not match the quantization method"
                f" specified in the `quantization` argument ({method}).",
            )
        wanted = args.max_model_len
        if wanted is not None and wanted > shape.context and not self.environment.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN"):
            self.invalid(
                "ModelConfig",
                f"User-specified max_model_len ({wanted}) is greater than the derived max_model_len"
                f" (max_position_embeddings={shape.context} or model_max_length=None in model's config.json). To allow"
                " overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1.",
            )
        small = args.kv_cache_dtype not in (None, "auto", "bfloat16", "float16")
        world, shards = self.own.scenario.world, args.tensor_parallel_size or 1
        quantize = _QUANTIZATIONS[method] if method else own
        machine = Machine(shape, gpu, shards, dtype, quantize, "fp8" if small else None, world)
        fraction = FRACTION if args.gpu_memory_utilization is None else args.gpu_memory_utilization
        plan = VllmPlan(
            machine, wanted, fraction, args.kv_cache_memory_bytes, args.num_gpu_blocks_override,
            args.max_num_batched_tokens, args.max_num_seqs, args.block_size or 16, bool(args.enforce_eager),
        )  # fmt: skip
        self._check(plan)
        return plan

    def _dtype(self, gpu: Gpu) -> str | None:
        asked, capability = self.args.dtype, ".".join(map(str, gpu.compute_capability))
        if (0, 0) < gpu.compute_capability < (8, 0):
            if asked == "bfloat16":
                needs = "Bfloat16 is only supported on GPUs with compute capability of at least 8.0."
                has = f"Your {gpu.smi_name} GPU has compute capability {capability}."
                do = "You can use float16 instead by explicitly setting the `dtype` flag in CLI"
                self.invalid("VllmConfig", f"{needs} {has} {do}, for example: --dtype=half.")
            text = (
                f"Your device '{gpu.smi_name}' (with compute capability {capability}) doesn't support torch.bfloat16."
            )
            self.front(f"{text} Falling back to torch.float16 for compatibility.", "model.py:2425", "WARNING")
        return "float32" if asked in ("float", "float32") else None

    def _check(self, plan: VllmPlan) -> None:
        heads, shards, (tokens, rows) = plan.machine.shape.heads, plan.machine.shards, plan.step
        if heads % shards:
            text = f"Total number of attention heads ({heads}) must be divisible by tensor parallel size ({shards})."
            self.invalid("VllmConfig", text)
        if shards > (self.own.gpus or shards):
            text = f"World size ({shards}) is larger than the number of available GPUs ({self.own.gpus}) in this node."
            self.invalid("ParallelConfig", text)
        self.front(f"Using max model len {plan.context}", "model.py:2148")
        if self.args.enable_chunked_prefill is False and tokens < plan.context:
            self.invalid(
                "SchedulerConfig",
                f"max_num_batched_tokens ({tokens}) is smaller than max_model_len ({plan.context}). This effectively"
                " limits the maximum sequence length to max_num_batched_tokens and makes vLLM reject longer sequences."
                " Please increase max_num_batched_tokens or decrease max_model_len.",
            )
        if tokens < rows:
            text = f"max_num_batched_tokens ({tokens}) must be greater than or equal to max_num_seqs ({rows})."
            self.invalid("SchedulerConfig", text)
        self.front(f"Chunked prefill is enabled with max_num_batched_tokens={tokens}.", "scheduler.py:308")

    async def _boot(self, model: ServedModel, plan: VllmPlan) -> Pool:
        """The engine's process until its KV cache is there."""
        begun, boot = time.monotonic(), self.own.boot
        self.log(f"Initializing a V1 LLM engine (v{VERSION}) with config: model='{model.name}'", "core.py:134")
        await self.wait(boot.download)
        self._engine_fails(self.fault("download_error"))
        self.log("Loading model from scratch...", "model_runner.py:388")
        await self.wait(boot.load)
        self._engine_fails(self.fault("load_error"))
        outcome = vllm_pool(plan)
        self.write_truth("vllm", plan.machine.shape, plan.machine.gpu, outcome)
        failed = outcome if isinstance(outcome, DoesNotStart) else None
        kind = "torch.OutOfMemoryError" if failed and failed.text.startswith("CUDA") else "ValueError"
        self._engine_fails(f"{kind}: {failed.text}" if failed and failed.stage in ("busy", "load") else None)
        self.log(f"Loading weights took {boot.load:.2f} seconds", "default_loader.py:502")
        took = f"{gib(plan.machine.weights)} GiB memory and {time.monotonic() - begun:.6f} seconds"
        self.log(f"Model loading took {took}", "model_runner.py:421")
        await self.wait(boot.warm_up)
        text = self.fault("oom_at_warm_up")
        self._engine_fails(None if text is None else f"torch.OutOfMemoryError: {text or 'CUDA out of memory.'}")
        self._engine_fails(f"{kind}: {failed.text}" if failed else None)
        assert isinstance(outcome, Pool)
        self._pool_lines(plan, outcome)
        took = f"{time.monotonic() - begun:.2f} s (compilation: 0.00 s)"
        self.log(f"init engine (profile, create kv cache, warmup model) took {took}", "core.py:386")
        return outcome

    def _pool_lines(self, plan: VllmPlan, pool: Pool) -> None:
        room, own = gib(pool.available_bytes), plan.machine.shape.context
        self.log(f"Available KV cache memory: {room} GiB", "gpu_worker.py:748")
        if plan.max_model_len == AUTO and pool.context < own:
            text = f"Auto-fit max_model_len: reduced from {own} to {pool.context} to fit in available KV cache memory"
            self.log(f"{text} ({room} GiB GPU)", "kv_cache_planning.py:1428")
        text = f"GPU KV cache size: {pool.tokens:,} tokens, Maximum concurrency for {pool.context:,} tokens per request"
        self.log(f"{text}: {pool.tokens / pool.context:.2f}x", "kv_cache_utils.py:1067")

    def _engine_fails(self, last: str | None) -> None:
        """The engine's process dies of this; the front end survives it for one more line."""
        if last is None:
            return
        self.log("EngineCore failed to start.", "core.py:1510", level="ERROR")
        self.log(f"Traceback (most recent call last):\n{last}", "core.py:1510", level="ERROR")
        failed = "Failed core proc(s): {'EngineCore_DP0': 1}"
        self.traceback(f"RuntimeError: Engine core initialization failed. See root cause above. {failed}")

    # Serving.

    def _serving(self, model: ServedModel, plan: VllmPlan, pool: Pool) -> VllmServing:
        args, machine = self.args, plan.machine
        settings = VllmSettings(
            pool.blocks, pool.step_tokens, pool.rows, pool.block_size, args.enable_prefix_caching is not False,
            args.enable_chunked_prefill is not False, args.watermark or 0.0,
            args.scheduler_reserve_full_isl is not False, args.long_prefill_token_threshold or 0,
        )  # fmt: skip
        host = engine_host("vllm", () if plan.enforce_eager else graph_sizes(pool.rows)[1])
        cost = CostModel(
            machine.shape, machine.gpu, host, shards=machine.shards, quantize=machine.quantize, dtype=machine.dtype,
            kv_cache_dtype=machine.kv_cache_dtype, world=machine.world,
        )  # fmt: skip
        return VllmServing(self, args, model, self.engine(VllmScheduler(settings), cost, model), pool)

    async def _report(self, serving: VllmServing) -> None:
        """The line of each ten seconds in which something ran."""
        scheduler, tally, before = serving.engine.scheduler, serving.tally, (0, 0, 0)
        while not self.args.disable_log_stats:
            await asyncio.sleep(10)
            after = (tally.computed, tally.made, scheduler.put_back)
            prompt, made, moved = (new - old for new, old in zip(after, before, strict=True))
            if prompt or made or scheduler.running:
                hits = 100 * scheduler.found / max(1, scheduler.queried)
                queue = f"Running: {scheduler.running} reqs, Waiting: {scheduler.queue_size} reqs"
                self.front(
                    f"Engine 000: Avg prompt throughput: {prompt / 10:.1f} tokens/s, Avg generation throughput:"
                    f" {made / 10:.1f} tokens/s, {queue}, {f'Preemptions: {moved}, ' if moved else ''}GPU KV cache"
                    f" usage: {100 * tally.kv_share():.1f}%, Prefix cache hit rate: {hits:.1f}%",
                    "loggers.py:271",
                )
            before = after

    async def _end(self, app: FaceApp, engine: PoolEngine, server: asyncio.Server, left: str | None) -> int:
        if left is not None:
            for text in ("EngineCore encountered a fatal error.", f"Traceback (most recent call last):\n{left}"):
                self.log(text, "core.py:1512", level="ERROR")
            self.front("AsyncLLM output_handler failed.", "async_llm.py:906", "ERROR")
            await asyncio.sleep(min(5.0, 5.0 / self.own.speed))  # until the watchdog looks
        else:
            self.front("[shutdown] API server: shutdown triggered", "launcher.py:120")
            count, seconds = engine.unfinished, self.args.shutdown_timeout or 0
            how = f"draining in-flight requests count={count} timeout={seconds}s" if seconds else ""
            text = how or f"aborting in-flight requests count={count}"
            self.log(f"[shutdown] EngineCore: {text}", "core.py:1420")
            server.close()
            if seconds:
                await emptied(app, seconds)
        engine.stop()
        server.close()
        break_off(app)
        return 0
