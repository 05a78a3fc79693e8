"""A program with arguments, log lines, pages and failures of vLLM, SGLang or llama.cpp, and a memory law of its own.

Memory is counted in units of one KV-cache token. Every engine of the tests is this program with another SPEC. Written
without a look at our own models of these engines: running requests grow in a pool of blocks; when it is full, the last
one is put back (vllm, sglang) or all of them end with an error (llamacpp with one shared pool).
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

DEFAULTS: dict[str, Any] = {
    "style": "vllm",  # or sglang, llamacpp
    "version": "0.32.0",
    "memory": 60_000,  # of the whole card
    "weights": 12_000,
    "step_cost": 0.5,  # of each token that one step may read, taken from the pool
    "row_cost": 0.0,  # of each request that may run at once, likewise
    "others": 0,  # what somebody else has of the card; grows by `others_grow` with each start
    "others_grow": 0,
    "fraction": 0.92,
    "block_size": 16,
    "context": 8192,
    "rows": 256,
    "step": 2048,
    "jitter": 0.0,
    "hidden_tokens": 0,  # told, but never handed out
    "load_seconds": 0.05,
    "prefill_rate": 2_000_000.0,
    "decode_seconds": 0.001,
    "fail_starts": 0,
    "fail_words": "RuntimeError: something went wrong",
    "fail_text": None,
    "log_budget": True,
    "state": None,
}
FLAGS = {
    "vllm": {
        "context": "--max-model-len",
        "rows": "--max-num-seqs",
        "step": "--max-num-batched-tokens",
        "fraction": "--gpu-memory-utilization",
    },
    "sglang": {
        "context": "--context-length",
        "rows": "--max-running-requests",
        "step": "--chunked-prefill-size",
        "fraction": "--mem-fraction-static",
        "pool": "--max-total-tokens",
    },
    "llamacpp": {"pool": "--ctx-size", "rows": "--parallel", "step": "--batch-size"},
}
SHORT = {"-c": "--ctx-size", "-np": "--parallel", "-b": "--batch-size", "-kvu": "--kv-unified", "-m": "--model"}


class Engine:
    def __init__(self, spec: dict[str, Any], words: list[str], starts: int) -> None:
        self.spec = {**DEFAULTS, **spec}
        self.style, self.words = self.spec["style"], [SHORT.get(word, word) for word in words]
        self.told = {name: self.after(flag) for name, flag in FLAGS[self.style].items()}
        noise = random.Random(starts).uniform(-1, 1) * self.spec["jitter"]
        self.memory = self.spec["memory"] * (1 + noise)
        self.free = self.memory - self.spec["others"] - self.spec["others_grow"] * (starts - 1)
        self.rows = int(self.told["rows"] or self.spec["rows"])
        self.step_tokens = int(self.told["step"] or self.spec["step"])
        self.waiting: deque[dict[str, Any]] = deque()
        self.running: list[dict[str, Any]] = []
        self.put_back = self.steps = 0
        self.wake = asyncio.Event()

    def after(self, flag: str) -> str | None:
        return self.words[self.words.index(flag) + 1] if flag in self.words else None

    # start-up

    def log(self, text: str) -> None:
        form = {
            "vllm": f"(EngineCore pid=7) INFO 11-29 10:00:00 [core.py:1] {text}",
            "sglang": f"[2026-11-29 10:00:00 TP0] {text}",
            "llamacpp": f"0.00.100.000 I {text}",
        }
        print(form[self.style], file=sys.stderr, flush=True)

    def die(self, *lines: str, code: int = 1) -> None:
        for line in lines:
            print(line, file=sys.stderr, flush=True)
        sys.exit(code)

    def start(self) -> None:
        time.sleep(self.spec["load_seconds"])
        if self.spec["fail_text"]:
            self.die(self.spec["fail_text"], "RuntimeError: Engine core initialization failed.")
        {"vllm": self.start_vllm, "sglang": self.start_sglang, "llamacpp": self.start_llamacpp}[self.style]()

    def size_pool(self) -> int:
        """Tokens that weights, one step and the rows leave of the fraction."""
        fraction = float(self.told["fraction"] or self.spec["fraction"])
        taken = self.spec["weights"] + self.spec["step_cost"] * self.step_tokens + self.spec["row_cost"] * self.rows
        room = min(fraction * self.memory, self.free) - taken
        return max(0, int(room // self.spec["block_size"]) * self.spec["block_size"])

    def start_vllm(self) -> None:
        fraction = float(self.told["fraction"] or self.spec["fraction"])
        if self.free < fraction * self.memory:
            a, b, c = (each / 2500 for each in (self.free, self.memory, fraction * self.memory))
            self.die(
                f"ValueError: Free memory on device cuda:0 ({a:.2f}/{b:.2f} GiB) on startup is less than desired GPU"
                f" memory utilization ({fraction}, {c:.2f} GiB). Decrease GPU memory utilization or reduce GPU memory"
                " used by other processes."
            )
        pool = self.size_pool()
        self.longest = int(self.told["context"] or self.spec["context"])
        self.log(f"Using max model len {self.longest}")
        if pool <= 0:
            self.die(
                "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when"
                " initializing the engine."
            )
        if self.longest > pool:
            self.die(
                f"ValueError: To serve at least one request with the model's max seq len ({self.longest}),"
                f" ({self.longest / 2500:.2f} GiB KV cache is needed, which is larger than the available KV cache"
                f" memory ({pool / 2500:.2f} GiB). Based on the available memory, the estimated maximum model length"
                f" is {pool}."
                " Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine."
            )
        if self.spec["log_budget"]:
            self.log(
                f"GPU KV cache size: {pool:,} tokens, Maximum concurrency for {self.longest:,} tokens per request:"
                f" {pool / self.longest:.2f}x"
            )
        self.pool = self.told_pool = pool
        self.blocks = pool // self.spec["block_size"] - 1  # the null block
        self.log("Starting vLLM server on http://127.0.0.1")

    def start_sglang(self) -> None:
        pool = self.size_pool()
        if self.told["pool"]:
            pool = min(pool, int(self.told["pool"]))
        if pool <= 0:
            self.die(
                "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value:"
                f" mem_fraction_static={self.told['fraction'] or self.spec['fraction']}"
            )
        context = int(self.told["context"] or self.spec["context"])
        self.longest = min(context, pool) - 1
        self.pool = self.told_pool = pool
        self.blocks = pool // self.spec["block_size"]
        self.log(f"KV Cache is allocated. dtype: torch.bfloat16, #tokens: {pool}, K size: 1.00 GB, V size: 1.00 GB")
        self.log(
            f"max_total_num_tokens={pool}, chunked_prefill_size={self.step_tokens}, max_prefill_tokens=16384,"
            f" max_running_requests={self.rows}, context_len={context}, available_gpu_mem=1.00 GB"
        )
        self.log("The server is fired up and ready to roll!")

    def start_llamacpp(self) -> None:
        unified = self.told["rows"] is None or "--kv-unified" in self.words
        self.rows = int(self.told["rows"] or 4)
        asked = int(self.told["pool"] or 0) or self.spec["context"] * (1 if unified else self.rows)
        room = int(self.free - self.spec["weights"] - self.spec["step_cost"] * self.step_tokens)
        if asked > room and (self.told["pool"] or self.after("--fit") == "off"):
            self.die(
                "0.00.200.000 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9000.00 MiB on device 0:"
                " cudaMalloc failed: out of memory",
                "0.00.200.100 E llama_init_from_model: failed to initialize the context: failed to allocate buffer for"
                " kv cache",
                "0.00.200.200 E srv    load_model: failed to create_context with model 'm.gguf'",
                "0.00.200.300 E srv  llama_server: exiting due to model loading error",
            )
        pool = min(asked, max(4096, room // 256 * 256))
        share = pool if unified else math.ceil(pool / self.rows / 256) * 256
        self.unified, self.pool = unified, pool if unified else share * self.rows
        self.longest = min(share, self.spec["context"])
        self.told_pool, self.blocks = self.pool, self.pool
        streams = 1 if unified else self.rows
        self.log(f"llama_context: n_ctx                 = {self.pool}")
        self.log(
            f"llama_kv_cache: size =    4.00 MiB ({self.pool // streams:6d} cells,   2 layers, {self.rows:2d}/{streams}"
            " seqs), K (f16):    2.00 MiB, V (f16):    2.00 MiB"
        )
        self.log(
            f"srv    load_model: initializing, n_slots = {self.rows}, n_ctx_slot = {self.longest}, kv_unified ="
            f" '{'true' if unified else 'false'}'"
        )
        self.log("srv  llama_server: model loaded")

    # serving

    def held(self, request: dict[str, Any]) -> int:
        """Blocks of a request: all its tokens but the newest, which is not in the cache yet."""
        size = 1 if self.style == "llamacpp" else self.spec["block_size"]
        return max(1, math.ceil((request["input"] + max(0, request["done"] - 1)) / size))

    @property
    def capacity(self) -> int:
        return self.blocks - math.ceil(self.spec["hidden_tokens"] / max(1, self.spec["block_size"]))

    def used(self) -> int:
        return sum(self.held(each) for each in self.running)

    async def loop(self) -> None:
        while True:
            self.wake.clear()
            if not self.waiting and not self.running:
                await self.wake.wait()
            await self.step()

    async def step(self) -> None:
        self.steps += 1
        shared_end = self.style == "llamacpp"
        read = 0
        while self.waiting and len(self.running) < self.rows:
            head = self.waiting[0]
            if head["gone"]:
                self.waiting.popleft()
                continue
            if not shared_end and self.used() + self.held(head) > self.capacity:
                break
            self.running.append(self.waiting.popleft())
            read += head["input"] + head["done"]
        await asyncio.sleep(read / self.spec["prefill_rate"] + self.spec["decode_seconds"])
        for each in list(self.running):
            if each["gone"]:
                self.running.remove(each)
                continue
            each["done"] += 1
        if shared_end:
            self.end_all_when_full()
        else:
            while self.used() > self.capacity and len(self.running) > 1:
                back = self.running.pop()
                back["done"] -= 1
                self.waiting.appendleft(back)
                self.put_back += 1
        for each in list(self.running):
            each["out"].put_nowait(each["done"])
            # SGLang cuts an answer so that the request stays a token below its longest (scheduler.py).
            full = each["input"] + each["done"] >= self.longest - (self.style == "sglang")
            if each["done"] >= each["new"] or (full and (shared_end or self.style == "sglang")):
                each["out"].put_nowait("end")
                self.running.remove(each)
        if not self.running and self.waiting:
            await asyncio.sleep(0.01)

    def end_all_when_full(self) -> None:
        if self.unified and self.used() > self.capacity:
            for each in self.running:
                each["out"].put_nowait("Context size has been exceeded.")
            self.running.clear()

    # HTTP

    def count(self, text: str) -> int:
        return 1 + len(text.split())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                method, path, _ = lines[0].split(" ")
                lengths = [int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length")]
                body = await reader.readexactly(lengths[0]) if lengths else b""
                await self.route(method, path, json.loads(body or b"{}"), writer)
                await writer.drain()
        writer.close()

    async def route(self, method: str, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if path == "/v1/completions":
            return await self.complete(body, writer)
        page = self.pages().get(f"{method} {path}")
        if path == "/tokenize":
            text = body.get("prompt", body.get("content"))
            if text is None:
                return self.answer(writer, 400, {"error": {"message": "Field required", "code": 400}})
            tokens = list(range(self.count(text)))
            short = tokens if body.get("add_special") else tokens[1:]
            page = {"tokens": short} if self.style == "llamacpp" else {"count": len(tokens), "tokens": tokens}
        if path == "/metrics":
            return self.answer(writer, 200, self.metrics())
        self.answer(writer, 404 if page is None else 200, page or {"detail": "Not Found"})

    def pages(self) -> dict[str, Any]:
        listed: dict[str, Any] = {"id": "toy", "object": "model", "root": "toy"}
        pages: dict[str, Any] = {"GET /health": {"status": "ok"}, "GET /v1/health": {"status": "ok"}}
        if self.style == "vllm":
            listed |= {"owned_by": "vllm", "max_model_len": self.longest}
            pages["GET /version"] = {"version": self.spec["version"]}
        if self.style == "sglang":
            listed |= {"owned_by": "sglang", "max_model_len": int(self.told["context"] or self.spec["context"])}
            pages["GET /model_info"] = pages["GET /get_model_info"] = {"model_path": "toy", "is_generation": True}
            pages["GET /server_info"] = pages["GET /get_server_info"] = {
                "version": self.spec["version"],
                "model_path": "toy",
                "max_total_num_tokens": self.told_pool,
                "max_running_requests": self.rows,
                "chunked_prefill_size": self.step_tokens,
                "context_length": int(self.told["context"] or self.spec["context"]),
                "max_req_input_len": self.longest - 5,
            }
        if self.style == "llamacpp":
            listed |= {"owned_by": "llamacpp", "meta": {"n_ctx": self.longest, "n_ctx_train": self.spec["context"]}}
            pages["GET /props"] = {
                "default_generation_settings": {"n_ctx": self.longest, "params": {}},
                "total_slots": self.rows,
                "model_path": "toy.gguf",
                "build_info": "b11549-abcdef12",
            }
            pages["GET /slots"] = [{"id": n, "n_ctx": self.longest, "is_processing": False} for n in range(self.rows)]
        return pages | {"GET /v1/models": {"object": "list", "data": [listed]}}

    def metrics(self) -> str:
        running, waiting = len(self.running), len(self.waiting)
        share = self.used() / max(1, self.blocks)
        if self.style == "vllm":
            labels = '{engine="0",model_name="toy"}'
            return (
                f"vllm:num_requests_running{labels} {running}\nvllm:num_requests_waiting{labels} {waiting}\n"
                f"vllm:kv_cache_usage_perc{labels} {share}\nvllm:num_preemptions_total{labels} {self.put_back}\n"
                f'vllm:cache_config_info{{engine="0",block_size="{self.spec["block_size"]}",num_gpu_blocks="'
                f'{self.blocks + 1}",kv_cache_size_tokens="{self.told_pool}"}} 1\n'
            )
        if self.style == "sglang":
            labels = '{model_name="toy"}'
            return (
                f"sglang:num_running_reqs{labels} {running}\nsglang:num_queue_reqs{labels} {waiting}\n"
                f"sglang:token_usage{labels} {share}\nsglang:num_retracted_requests_total{labels} {self.put_back}\n"
            )
        return f"llamacpp:requests_processing {running}\nllamacpp:requests_deferred {waiting}\n"

    def answer(self, writer: asyncio.StreamWriter, status: int, body: Any) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        server = "server: llama.cpp\r\n" if self.style == "llamacpp" else ""
        head = f"HTTP/1.1 {status} X\r\n{server}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)

    def problem(self, asked: int, new: int) -> str | None:
        if self.style == "llamacpp":
            return f"request ({asked} tokens) exceeds the available context size" if asked >= self.longest else None
        limit = self.longest - 6 if self.style == "sglang" else self.longest - 1
        total = self.longest + (1 if self.style == "sglang" else 0)
        if asked > limit or asked + new > total:
            return f"This model's maximum context length is {self.longest} tokens. However, you requested {asked + new}"
        return None

    async def complete(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        asked, new = self.count(body["prompt"]), int(body.get("max_tokens") or 16)
        if problem := self.problem(asked, new):
            return self.answer(writer, 400, {"error": {"message": problem, "code": 400}})
        if not body.get("ignore_eos"):
            new = min(new, 5)  # a model of random words ends soon
        request = {"input": asked, "new": new, "done": 0, "out": asyncio.Queue(), "gone": False}
        self.waiting.append(request)
        self.wake.set()
        try:
            await self.write(request, writer, stream=bool(body.get("stream")))
        finally:
            request["gone"] = True
        return None

    async def write(self, request: dict[str, Any], writer: asyncio.StreamWriter, *, stream: bool) -> None:
        if stream:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        done = 0
        while isinstance(got := await request["out"].get(), int):
            done = got
            if stream:
                self.event(writer, self.frame(request, got, " the", None))
                if writer.transport.is_closing():
                    raise ConnectionResetError
                await writer.drain()
        usage = {"prompt_tokens": request["input"], "completion_tokens": done, "total_tokens": request["input"] + done}
        if got != "end":
            error = {"error": {"code": 500, "message": got, "type": "server_error"}}
            if not stream:
                return self.answer(writer, 500, error)
            self.event(writer, error)
        elif not stream:
            choice = {"index": 0, "text": " the" * done, "finish_reason": "length"}
            return self.answer(writer, 200, {"choices": [choice], "usage": usage})
        else:
            self.event(writer, {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
            self.event(writer, {"choices": [], "usage": usage})
            self.chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        return None

    def frame(self, request: dict[str, Any], done: int, text: str, reason: str | None) -> dict[str, Any]:
        frame: dict[str, Any] = {"choices": [{"index": 0, "text": text, "finish_reason": reason}]}
        if self.style == "llamacpp":
            frame["timings"] = {"predicted_n": done, "prompt_n": request["input"], "cache_n": 0}
        else:
            frame["usage"] = {"prompt_tokens": request["input"], "completion_tokens": done}
        return frame

    def event(self, writer: asyncio.StreamWriter, document: dict[str, Any]) -> None:
        self.chunk(writer, b"data: " + json.dumps(document).encode() + b"\n\n")

    def chunk(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _count_start(spec: dict[str, Any]) -> int:
    if not spec.get("state"):
        return 1
    path = Path(spec["state"])
    with path.open("a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\n")
    return len(path.read_text().splitlines())


def main(spec: dict[str, Any]) -> None:
    if "--version" in sys.argv[1:]:
        print({**DEFAULTS, **spec}["version"])
        return
    starts = _count_start(spec)
    if starts <= spec.get("fail_starts", 0):
        print({**DEFAULTS, **spec}["fail_words"], file=sys.stderr, flush=True)
        sys.exit(1)
    asyncio.run(_run(spec, starts))


async def _run(spec: dict[str, Any], starts: int) -> None:
    engine = Engine(spec, sys.argv[1:], starts)
    engine.start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: os._exit(0))
    port = int(engine.after("--port") or 8000)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", port, limit=1 << 24)
    async with server:
        await engine.loop()
