"""SGLang's start, from its first line to its exit code: arguments, refusals, the scheduler's process, and the end."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from harness.catalog.gpus import Gpu
from harness.emulator.faces.flags import (
    EmulatorOptions,
    argparse_reader,
    given,
    own_values,
    read_own,
    usage_error,
    whole,
)
from harness.emulator.faces.run import Face, access_line, break_off, emptied, quantization_of
from harness.emulator.faces.sglang.serving import WEB, SglangServing, error_text
from harness.emulator.faces.wire import FaceApp, Problem
from harness.emulator.http import Exchange
from harness.emulator.model import NoSuchModel, ServedModel
from harness.errors import HarnessError
from harness.simulator.cost import CostModel, engine_host
from harness.simulator.laws import DoesNotStart, Machine, Pool, SglangPlan, sglang_pool
from harness.simulator.laws.sglang import decode_graph_sizes
from harness.simulator.policies import SglangScheduler, SglangSettings
from harness.units import GIB

# What --quantization takes, in the catalogue's words for sizes.
_QUANTIZATIONS = {
    "awq": "awq", "awq_marlin": "awq", "gptq": "gptq", "gptq_marlin": "gptq", "fp8": "fp8", "w8a8_fp8": "fp8",
    "w8a8_int8": "eetq", "bitsandbytes": "bitsandbytes-nf4", "compressed-tensors": "fp8", "mxfp4": "mxfp4",
    "modelopt": "fp8", "modelopt_fp8": "fp8", "moe_wna16": "w4a16", "w4afp8": "w4a16", "quark": "fp8",
}  # fmt: skip
_CHOICES = {
    "dtype": ("auto", "half", "float16", "bfloat16", "float", "float32"),
    "quantization": tuple(_QUANTIZATIONS),
    "kv_cache_dtype": ("auto", "fp8_e5m2", "fp8_e4m3", "bf16", "bfloat16"),
}
_UNITS = {"k": 10**3, "m": 10**6, "K": 2**10, "M": 2**20, "": 1}


def _human(text: str) -> int:
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([kKmM]?)", text)
    if match is None:
        raise ValueError(text)
    return int(float(match[1]) * _UNITS[match[2]])


_human.__name__ = "human_readable_int"
_TYPES: dict[str, Callable[[str], Any]] = {
    "context_length": _human,
    **dict.fromkeys(
        ("tp_size", "port", "max_total_tokens", "max_running_requests", "max_queued_requests", "page_size",
         "chunked_prefill_size", "max_prefill_tokens", "decode_log_interval"), whole,
    ),
    **dict.fromkeys(("mem_fraction_static", "schedule_conservativeness"), float),
}  # fmt: skip


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the face with these arguments. Returns the exit code."""
    parser = argparse_reader("sglang", "sglang serve", _TYPES, _CHOICES)
    parsed = parser.parse_args(arguments[1:] if arguments[:1] == ["serve"] else arguments)
    if parsed.model_path is None:
        parser.error("the following arguments are required: --model-path/--model")
    try:
        own = read_own(own_values(parsed), environment)
    except HarnessError as error:
        sys.stderr.write(usage_error(error))
        return 2
    return SglangFace(own, environment, parsed).main()


class SglangFace(Face):
    """One server, from its first line to its exit code."""

    def __init__(self, own: EmulatorOptions, environment: Mapping[str, str], parsed: argparse.Namespace) -> None:
        super().__init__(own, environment)
        self.args = parsed
        self.shards = parsed.tp_size or 1

    def error_frame(self, text: str) -> str:
        return error_text(Problem(500, text, "INTERNAL_SERVER_ERROR"))

    def log(self, text: str, rank: bool = False) -> None:
        """rank: a line of the scheduler's process, which names itself where there are several."""
        name = " TP0" if rank and self.shards > 1 else ""
        print(f"[{datetime.now():%Y-%m-%d %H:%M:%S}{name}] {text}", file=sys.stderr, flush=True)

    def access(self, exchange: Exchange, status: int) -> None:
        self.log(f"INFO:     {access_line(exchange, status)}")

    async def run(self) -> int:
        args = self.args
        try:
            model, gpu = self.choose(args.model_path)
        except NoSuchModel as problem:
            text = f"{args.model_path} is not a local folder and is not a valid model identifier listed on"
            self.dies(f"OSError: {text} 'https://huggingface.co/models'\n{problem}")
        plan = self._plan(model, gpu)
        shown = {key: "[REDACTED]" if key.endswith("api_key") else value for key, value in given(args).items()}
        self.log(f"server_args=ServerArgs({', '.join(f'{key}={value!r}' for key, value in shown.items())})")
        pool = await self._boot(model, plan)
        serving = self._serving(model, plan, pool)
        keys = tuple(filter(None, (args.api_key, args.admin_api_key)))
        app = FaceApp(WEB, serving.routes(), keys, self.book.shaper, self.access)
        for text in (f"Started server process [{os.getpid()}]", "Waiting for application startup."):
            self.log(f"INFO:     {text}")
        host, port = args.host or "127.0.0.1", 30000 if args.port is None else args.port
        try:
            sock = self.listening_socket(host, port)
        except OSError as error:
            why = (
                f"error while attempting to bind on address ('{host}', {port}): {os.strerror(error.errno or 0).lower()}"
            )
            self.log(f"ERROR:    [Errno {error.errno}] {why}")
            self.fail(1)
        self.log("INFO:     Application startup complete.")
        self.log(f"INFO:     Uvicorn running on http://{host}:{sock.getsockname()[1]} (Press CTRL+C to quit)")
        server = await self.serve(app, sock)
        self.say_where(sock)
        await self.wait(self.own.boot.warm_up / 2)
        serving.ready = True
        self.log("The server is fired up and ready to roll!")
        left = await self.until_end()
        if left is not None:
            self.child_dies(left)
        self.log("SIGTERM received. signum=None frame=None. Draining requests and shutting down...")
        serving.ready = False
        await emptied(app, None)
        self.log("Gracefully exiting... Remaining number of requests 0. Remaining requests remaining_rids=[].")
        serving.engine.stop()
        server.close()
        break_off(app)
        return 0

    # The start.

    def dies(self, last: str) -> NoReturn:
        """The front end ends with a traceback."""
        print(f"Traceback (most recent call last):\n{last}", file=sys.stderr, flush=True)
        self.fail(1)

    def child_dies(self, last: str) -> NoReturn:
        """The scheduler's process dies, and takes everything with it."""
        self.log(f"Scheduler hit an exception: Traceback (most recent call last):\n{last}", rank=True)
        self.log("Received sigquit from a child process. It usually means the child failed.")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("killed")

    def _plan(self, model: ServedModel, gpu: Gpu) -> SglangPlan:
        args, shape = self.args, model.shape
        own, method = quantization_of(model), args.quantization
        if own is not None and method is not None and _QUANTIZATIONS[method] != own:
            self.dies(
                f"ValueError: Quantization method specified in the model config ({own}) does not match the quantization"
                f" method specified in the `quantization` argument ({method})."
            )
        allowed = self.environment.get("SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN") in ("1", "true")
        if args.context_length is not None and args.context_length > shape.context and not allowed:
            self.dies(
                f"ValueError: Warning: User-specified context_length ({args.context_length}) is greater than the"
                f" derived context_length ({shape.context}). This may lead to incorrect model outputs or CUDA errors."
                " To allow overriding this maximum, set the env var SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN=1"
            )
        kv = args.kv_cache_dtype if (args.kv_cache_dtype or "").startswith("fp8") else None
        dtype = "float32" if args.dtype in ("float", "float32") else None
        if (0, 0) < gpu.compute_capability < (8, 0):
            self.log("Compute capability below sm80. Use float16 due to lack of bfloat16 support.")
        quantize = _QUANTIZATIONS[method] if method else own
        machine = Machine(shape, gpu, self.shards, dtype, quantize, kv, self.own.scenario.world)
        disabled = bool(args.disable_cuda_graph) or args.cuda_graph_backend_decode == "disabled"
        plan = SglangPlan(
            machine, args.context_length, args.mem_fraction_static, args.max_total_tokens, args.max_running_requests,
            args.chunked_prefill_size, args.max_prefill_tokens or 16384, args.page_size or 1, disabled,
        )  # fmt: skip
        if plan.chunk > 0 and plan.chunk % plan.page_size:
            self.dies("AssertionError: chunked_prefill_size must be divisible by page_size")
        return plan

    async def _boot(self, model: ServedModel, plan: SglangPlan) -> Pool:
        """The scheduler's process until its pool is there."""
        machine, boot = plan.machine, self.own.boot
        free, begun = machine.free_at_start, time.monotonic()
        await self.wait(boot.download)
        self._child_fails(self.fault("download_error"))
        if self.shards > (self.own.gpus or self.shards):
            self._child_fails("RuntimeError: CUDA error: invalid device ordinal")
        if machine.shape.heads % self.shards:
            self._child_fails(f"AssertionError: {machine.shape.heads} is not divisible by {self.shards}")
        self.log(f"Load weight begin. avail mem={_gb(free)}", rank=True)
        await self.wait(boot.load)
        self._child_fails(self.fault("load_error"))
        outcome = sglang_pool(plan)
        self.write_truth("sglang", machine.shape, machine.gpu, outcome)
        failed = outcome if isinstance(outcome, DoesNotStart) else None
        self._child_fails(failed.text if failed and failed.stage == "load" else None)
        free -= machine.weights
        took, kind = f"{time.monotonic() - begun:.2f} s", machine.shape.model_type.capitalize()
        used = f"avail mem={_gb(free)}, mem usage={_gb(machine.weights)}."
        self.log(f"Load weight end. elapsed={took}, type={kind}ForCausalLM, {used}", rank=True)
        await self.wait(boot.warm_up / 2)
        text = self.fault("oom_at_warm_up")
        if text is not None:
            self._child_fails(f"Exception: Capture cuda graph failed: {text or 'CUDA out of memory.'}\n{_SOLUTIONS}")
        self._child_fails(failed.text if failed else None)
        assert isinstance(outcome, Pool)
        self._pool_lines(plan, outcome, free)
        return outcome

    def _pool_lines(self, plan: SglangPlan, pool: Pool, free: int) -> None:
        held = pool.part("KV cache")
        kind = f"torch.{plan.machine.kv_cache_dtype or 'bfloat16'}"
        half = f"K size: {held / 2 / GIB:.2f} GB, V size: {held / 2 / GIB:.2f} GB"
        self.log(f"KV Cache is allocated. dtype: {kind}, #tokens: {pool.tokens}, {half}", rank=True)
        free -= held
        self.log(f"Memory pool end. avail mem={_gb(free)}", rank=True)
        if plan.context > pool.tokens:
            few = f"KV pool holds {pool.tokens} tokens, fewer than --context-length {plan.context}."
            self.log(f"{few} One full-length request cannot fit, so long requests will be refused.", rank=True)
        limits = {
            "max_total_num_tokens": pool.tokens,
            "chunked_prefill_size": plan.chunk,
            "max_prefill_tokens": plan.max_prefill_tokens,
            "max_running_requests": pool.rows,
            "context_len": plan.context,
            "available_gpu_mem": _gb(free),
        }
        self.log(", ".join(f"{name}={value}" for name, value in limits.items()), rank=True)

    def _child_fails(self, last: str | None) -> None:
        if last is not None:
            self.child_dies(last)

    def _serving(self, model: ServedModel, plan: SglangPlan, pool: Pool) -> SglangServing:
        args, machine = self.args, plan.machine
        settings = SglangSettings(
            pool.tokens, pool.rows, plan.chunk if plan.chunk > 0 else None, plan.max_prefill_tokens, plan.page_size,
            not args.disable_radix_cache, args.max_queued_requests, args.schedule_conservativeness or 1.0,
        )  # fmt: skip
        host = engine_host("sglang", () if plan.disable_cuda_graph else decode_graph_sizes(plan))
        cost = CostModel(
            machine.shape, machine.gpu, host, shards=machine.shards, quantize=machine.quantize, dtype=machine.dtype,
            kv_cache_dtype=machine.kv_cache_dtype, world=machine.world,
        )  # fmt: skip
        engine = self.engine(SglangScheduler(settings), cost, model)
        return SglangServing(self, args, model, engine, pool, plan, lambda text: self.log(text, rank=True))


_SOLUTIONS = "Possible solutions:\n1. set --mem-fraction-static to a smaller value (e.g., 0.8 or 0.7)"


def _gb(size: float) -> str:
    return f"{size / GIB:.2f} GB"
